/* query.c - the request target (RFC 9112 section 3.2) and the parameters in it. Percent escapes are checked
 * when the request is parsed, so that later look-ups cannot fail: a target with a broken escape or an escaped
 * NUL is 400. */
#include "http/http_impl.h"

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

/* s is checked. What needs no decoding is not copied. */
static str_t http_unescape(struct arena *arena, str_t s, bool is_query)
{
	if (str_chr(s, '%', 0) < 0 && (!is_query || str_chr(s, '+', 0) < 0))
		return s;
	char *p = arena_alloc(arena, s.n + 1);
	size_t n = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '%') {
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

int http_request_split_target(struct http_request *r, const char **why)
{
	str_t t = r->target;
	if (str_eq(r->method, STR("CONNECT"))) {
		*why = "this service is no proxy";
		return 501;
	}
	if (t.p[0] != '/' && !str_eq(t, STR("*"))) {
		if (!str_istarts(t, STR("http://")) || t.n == 7 || t.p[7] == '/' || t.p[7] == '?') {
			*why = "malformed request target";
			return 400;
		}
		t = str_skip(t, 7);
		size_t i = 0;
		while (i < t.n && t.p[i] != '/' && t.p[i] != '?')
			i++;
		t = str_skip(t, i);
	}
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
