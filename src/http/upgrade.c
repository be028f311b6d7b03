/* upgrade.c - the request that asks for a websocket (RFC 6455 section 4.2) and its answer. The router has
 * seen to it that the peer may.
 *
 * A browser lets any page open a websocket to any address, and there is no preflight; what it does is to say
 * where the page is from. A service that trusts addresses must not be used through the browser of somebody
 * who is trusted: an Origin has to be this service's own. What is no browser sends none. */
#include "http/websocket_impl.h"

#include "base/err.h"
#include "base/text.h"

#include <openssl/sha.h>

#define WS_VERSION STR("13")
enum { WS_KEY_BYTES = 16 };

/* Whether one of the elements of a list field is `token`. */
static bool ws_list_has(const struct http_request *r, str_t name, str_t token)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		str_t rest = r->header[i].value, item;
		while (str_ieq(r->header[i].name, name) && str_split(&rest, ',', &item))
			if (str_ieq(str_trim(item), token))
				return true;
	}
	return false;
}

static size_t ws_count(const struct http_request *r, str_t name)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_headers; i++)
		n += str_ieq(r->header[i].name, name);
	return n;
}

static bool ws_key_is_good(const struct http_request *r)
{
	struct buf key = BUF_INIT;
	bool is_good = ws_count(r, STR("sec-websocket-key")) == 1 &&
		       base64_decode(&key, http_request_header(r, STR("sec-websocket-key"))) &&
		       key.n == WS_KEY_BYTES;
	buf_fini(&key);
	return is_good;
}

/* "http://host:port" of the Host that was asked for; the scheme is the browser's affair. */
static bool ws_origin_is_ours(const struct http_request *r)
{
	str_t origin = http_request_header(r, STR("origin"));
	if (origin.p == NULL)
		return true;
	ptrdiff_t slashes = str_find(origin, STR("://"));
	return ws_count(r, STR("origin")) == 1 && slashes > 0 &&
	       str_ieq(str_skip(origin, (size_t)slashes + 3), http_request_header(r, STR("host")));
}

static const char *ws_why_no_upgrade(const struct http_request *r, const struct http_framing *f)
{
	if (r->is_http2)
		return "a websocket needs HTTP/1.1 here";
	if (r->version_minor == 0 || !str_eq(r->method, STR("GET")))
		return "a websocket begins with a GET of HTTP/1.1";
	if (!ws_list_has(r, STR("connection"), STR("upgrade")))
		return "this is a websocket: the header Connection must say upgrade";
	if (!ws_list_has(r, STR("upgrade"), STR("websocket")))
		return "this is a websocket: the header Upgrade must say websocket";
	if (ws_count(r, STR("sec-websocket-version")) != 1)
		return "a websocket needs one header Sec-WebSocket-Version";
	if (!ws_key_is_good(r))
		return "a websocket needs one header Sec-WebSocket-Key with 16 bytes in base64";
	if (f->is_chunked || f->content_length != 0)
		return "a websocket begins with a request without a body";
	return NULL;
}

bool websocket_check_upgrade(struct http_request *r, const struct http_framing *f, struct http_response *a)
{
	const char *why = ws_why_no_upgrade(r, f);
	if (why != NULL) {
		http_response_refuse(r, a, 400, why);
		return false;
	}
	if (!str_eq(http_request_header(r, STR("sec-websocket-version")), WS_VERSION)) {
		http_response_refuse(r, a, 426,
				     "version 13 is the only one of websockets that is spoken here");
		http_response_add_header(r, a, STR("sec-websocket-version"), WS_VERSION);
		http_response_add_header(r, a, STR("upgrade"), STR("websocket"));
		http_response_add_header(r, a, STR("connection"), STR("upgrade"));
		return false;
	}
	if (!ws_origin_is_ours(r)) {
		http_response_refuse(r, a, 403, "this websocket may not be used by pages of another origin");
		return false;
	}
	return true;
}

void websocket_write_upgrade(const struct http_request *r, struct buf *out)
{
	struct buf key = BUF_INIT, accept = BUF_INIT;
	unsigned char digest[SHA_DIGEST_LENGTH];
	buf_add_str(&key, http_request_header(r, STR("sec-websocket-key")));
	buf_add_z(&key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
	SHA1((const unsigned char *)key.p, key.n, digest);
	base64_encode(&accept, str_mk((const char *)digest, sizeof(digest)));
	buf_printf(out,
		   "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: "
		   "upgrade\r\nsec-websocket-accept: %s\r\ndate: " STR_FMT "\r\n\r\n",
		   accept.p, STR_ARG(http_date()));
	buf_fini(&key);
	buf_fini(&accept);
}
