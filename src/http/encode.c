/* encode.c - compressing an answer as the client accepts it (RFC 9110 section 12.5.3), where it pays: text of
 * more than HTTP_ENCODE_MIN bytes. Whether it is compressed or not, such an answer says that it might have
 * been (Vary), so that no cache gives it to somebody else. HEAD goes the same way as GET, for the same
 * header. */
#include "http/http_impl.h"

#include "base/err.h"
#include "base/log.h"

enum { HTTP_ENCODE_MIN = 1024 };

static bool http_is_compressible(const char *content_type)
{
	static const char *const types[] = {
		"application/json", "application/javascript",	    "application/xml",
		"application/yaml", "application/openmetrics-text", "image/svg+xml"};
	str_t type = str_of(content_type);
	ptrdiff_t semicolon = str_chr(type, ';', 0);
	if (semicolon >= 0)
		type = str_head(type, (size_t)semicolon);
	type = str_trim(type);
	if (str_istarts(type, STR("text/")))
		return true;
	if (type.n > 5 && (str_ieq(str_skip(type, type.n - 5), STR("+json")) ||
			   str_ieq(str_skip(type, type.n - 4), STR("+xml"))))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (str_ieq(type, str_of(types[i])))
			return true;
	}
	return false;
}

static bool http_is_encoded(const struct http_response *a)
{
	for (size_t i = 0; i < a->n_headers; i++) {
		if (str_ieq(a->header[i].name, STR("content-encoding")))
			return true;
	}
	return false;
}

static enum http_coding http_wanted_coding(const struct http_request *r, bool *is_identity_refused)
{
	struct http_codings accept = {0};
	for (size_t i = 0; i < r->n_headers; i++) {
		if (str_ieq(r->header[i].name, STR("accept-encoding")))
			http_codings_add(&accept, r->header[i].value);
	}
	return http_codings_choose(&accept, is_identity_refused);
}

/* Behind what the handler has said of it. */
static void http_response_vary(struct http_request *r, struct http_response *a)
{
	for (size_t i = 0; i < a->n_headers; i++) {
		struct http_header *h = &a->header[i];
		if (str_ieq(h->name, STR("vary"))) {
			h->value = str_of(
				arena_printf(r->arena, STR_FMT ", accept-encoding", STR_ARG(h->value)));
			return;
		}
	}
	http_response_add_header(r, a, STR("vary"), STR("accept-encoding"));
}

/* Cheaply: most answers are small, and most clients say what they accept. */
static bool http_may_refuse_identity(const struct http_request *r)
{
	str_t value = http_request_header(r, STR("accept-encoding"));
	return value.n != 0 && str_find(value, STR("q=0")) >= 0;
}

void http_response_encode(struct http_request *r, struct http_response *a, mono_t deadline)
{
	bool is_identity_refused = false;
	bool is_worth_it = a->body.n > HTTP_ENCODE_MIN && a->content_type != NULL &&
			   http_is_compressible(a->content_type);
	if (a->body.n == 0 || a->status == 204 || a->status == 304 || http_is_encoded(a))
		return;
	if (!is_worth_it && !http_may_refuse_identity(r))
		return;
	enum http_coding c = http_wanted_coding(r, &is_identity_refused);
	if (!is_worth_it && !is_identity_refused)
		return;
	http_response_vary(r, a);
	if (c == HTTP_CODING_IDENTITY)
		return;
	struct buf coded = BUF_INIT;
	if (http_deflate(c, buf_str(&a->body), &coded, deadline) != 0) {
		log_debug("kumod::http", "%s", err_text());
		err_clear();
	} else if (coded.n < a->body.n || is_identity_refused) {
		http_response_add_header(r, a, STR("content-encoding"), http_coding_name(c));
		struct buf plain = a->body;
		a->body = coded;
		coded = plain;
	}
	buf_fini(&coded);
}
