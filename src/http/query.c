/* query.c - the request target (RFC 9112 section 3.2), the host in it or in the header, and the parameters.
 * Percent escapes are checked when the request is parsed, so that later look-ups cannot fail: a target with a
 * broken escape or an escaped NUL is 400. An escaped slash is no separator of the path (RFC 3986 section
 * 2.2), so it stays escaped: what somebody in front of this service holds for one name must not become two.
 */
#include "http/http_impl.h"

#include "net/tls.h"

static int http_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool http_escapes_are_good(str_t s)
{
	for (ptrdiff_t at = str_chr(s, '%', 0); at >= 0; at = str_chr(s, '%', (size_t)at + 1)) {
		size_t i = (size_t)at;
		if (i + 2 >= s.n || http_hex(s.p[i + 1]) < 0 || http_hex(s.p[i + 2]) < 0)
			return false;
		if (s.p[i + 1] == '0' && s.p[i + 2] == '0')
			return false;
	}
	return true;
}

static bool http_is_escaped_slash(str_t s, size_t at)
{
	return s.p[at + 1] == '2' && (s.p[at + 2] | 0x20) == 'f';
}

/* s is checked. What needs no decoding is not copied. */
static str_t http_unescape(struct arena *arena, str_t s, bool is_query)
{
	if (str_chr(s, '%', 0) < 0 && (!is_query || str_chr(s, '+', 0) < 0))
		return s;
	char *p = arena_alloc(arena, s.n + 1);
	size_t n = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%' && (is_query || !http_is_escaped_slash(s, i))) {
			p[n++] = (char)(http_hex(s.p[i + 1]) << 4 | http_hex(s.p[i + 2]));
			i += 2;
		} else {
			p[n++] = is_query && s.p[i] == '+' ? ' ' : s.p[i];
		}
	}
	p[n] = 0;
	return str_mk(p, n);
}

bool http_target_is_visible(str_t target)
{
	for (size_t i = 0; i < target.n; i++) {
		if (target.p[i] <= ' ' || target.p[i] >= 0x7f || target.p[i] == '#')
			return false;
	}
	return target.n != 0;
}

/* What stands between the brackets of an IP literal, without looking at it closer. */
static bool http_is_ip_literal(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (http_hex(s.p[i]) < 0 && s.p[i] != ':' && s.p[i] != '.')
			return false;
	}
	return s.n != 0;
}

/* A name as in RFC 3986 section 3.2.2, which may be empty. */
static bool http_is_reg_name(str_t s)
{
	static const char others[] = "-._~!$&'()*+,;=%";
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i] | 0x20;
		if (!(c >= 'a' && c <= 'z') && !(s.p[i] >= '0' && s.p[i] <= '9') &&
		    memchr(others, s.p[i], sizeof(others) - 1) == NULL)
			return false;
	}
	return http_escapes_are_good(s);
}

bool http_host_is_good(str_t host)
{
	bool is_literal = host.n != 0 && host.p[0] == '[';
	ptrdiff_t end = str_chr(host, is_literal ? ']' : ':', 0);
	if (is_literal && end < 0)
		return false;
	str_t name = end < 0 ? host : str_head(host, (size_t)end);
	str_t port = end < 0 ? STR("") : str_skip(host, (size_t)end + is_literal);
	for (size_t i = 1; i < port.n; i++) {
		if (port.p[i] < '0' || port.p[i] > '9')
			return false;
	}
	if (port.n != 0 && port.p[0] != ':')
		return false;
	return is_literal ? http_is_ip_literal(str_skip(name, 1)) : http_is_reg_name(name);
}

/* "http://HOST/PATH" becomes "/PATH". Of the schemes, https is for those who come by TLS (RFC 9110 section
 * 7.4). False: with *why. */
static bool http_target_strip_origin(const struct http_request *r, str_t *t, const char **why)
{
	bool is_https = str_istarts(*t, STR("https://"));
	*why = "malformed request target";
	if (!is_https && !str_istarts(*t, STR("http://")))
		return false;
	str_t rest = str_skip(*t, is_https ? 8 : 7);
	size_t n = 0;
	while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
		n++;
	if (n == 0 || !http_host_is_good(str_head(rest, n)))
		return false;
	*why = "a request for https came without TLS";
	if (is_https && (r->stream == NULL || stream_tls_info(r->stream) == NULL))
		return false;
	*t = str_skip(rest, n);
	return true;
}

int http_request_split_target(struct http_request *r, const char **why)
{
	str_t t = r->target;
	if (str_eq(r->method, STR("CONNECT"))) {
		*why = "this service is no proxy";
		return 501;
	}
	if (t.p[0] != '/' && !str_eq(t, STR("*")) && !http_target_strip_origin(r, &t, why))
		return 400;
	ptrdiff_t mark = str_chr(t, '?', 0);
	str_t path = mark < 0 ? t : str_head(t, (size_t)mark);
	r->query = mark < 0 ? STR("") : str_skip(t, (size_t)mark + 1);
	if (!http_escapes_are_good(path) || !http_escapes_are_good(r->query)) {
		*why = "malformed percent escape in the request target";
		return 400;
	}
	r->path = path.n != 0 ? http_unescape(r->arena, path, false) : STR("/");
	return H1_DONE;
}

str_t http_request_query(const struct http_request *r, str_t name)
{
	str_t rest = r->query, item;
	while (rest.n != 0 && str_split(&rest, '&', &item)) {
		ptrdiff_t eq = str_chr(item, '=', 0);
		str_t key = eq < 0 ? item : str_head(item, (size_t)eq);
		if (!str_eq(http_unescape(r->arena, key, true), name))
			continue;
		str_t value = eq < 0 ? STR("") : str_skip(item, (size_t)eq + 1);
		return value.n != 0 ? http_unescape(r->arena, value, true) : STR("");
	}
	return STR_NULL;
}
