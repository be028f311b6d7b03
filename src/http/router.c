/* router.c - the table of routes, and whether a request may go to one.
 *
 * The table is filled while the process starts and only read after the first listener has started, so it
 * needs no lock. Each path is one entry with its methods; HEAD is served by GET.
 *
 * http_admit decides from the header alone, before anything of the body is read, so that what is refused
 * costs nothing. Its order: unknown path (404), the authorizer (401, 403; it may wait), method (405), length
 * (411, 413), type (415), expectation (417), whether it begins a websocket where that is all there is (400,
 * 426, 403), the route's own gate (503). Which protocol carried the request does not matter here. */
#include "http/websocket_impl.h"

#include "base/alloc.h"
#include "base/map.h"

#include <stdlib.h>

enum {
	HTTP_MAX_METHODS = 4,
	HTTP_SMALL_BODY_BYTES = 65536, /* has come before there is time to refuse it */
};

struct http_path {
	const struct http_route *route[HTTP_MAX_METHODS];
	size_t n;
	struct buf allow; /* "GET,HEAD,POST" */
};

static struct {
	struct map paths; /* path -> struct http_path */
	const struct http_route **route;
	size_t n, cap;
	http_authorize_fn *authorize; /* NULL: http_authorize_by_address */
} http_table;

static const struct http_route *http_path_method(const struct http_path *p, str_t method)
{
	if (str_eq(method, STR("HEAD")))
		method = STR("GET");
	for (size_t i = 0; i < p->n; i++) {
		if (str_eq(str_of(p->route[i]->method), method))
			return p->route[i];
	}
	return NULL;
}

static void http_route_add(const struct http_route *r)
{
	struct http_path *p = map_find(&http_table.paths, str_of(r->path));
	if (p == NULL) {
		p = xnew(struct http_path);
		map_put(&http_table.paths, str_of(r->path), p);
	}
	if (p->n == HTTP_MAX_METHODS || http_path_method(p, str_of(r->method)) != NULL)
		panic("http: route %s %s is there already", r->method, r->path);
	p->route[p->n++] = r;
	if (p->allow.n != 0)
		buf_add_c(&p->allow, ',');
	buf_add_z(&p->allow, r->method);
	if (str_eq(str_of(r->method), STR("GET")))
		buf_add_z(&p->allow, ",HEAD");
	if (http_table.n == http_table.cap) {
		http_table.cap = http_table.cap != 0 ? http_table.cap * 2 : 32;
		http_table.route = xreallocarray(http_table.route, http_table.cap, sizeof(*http_table.route));
	}
	http_table.route[http_table.n++] = r;
	http_observe_route(r);
}

void http_routes_add(const struct http_route *route, size_t n)
{
	for (size_t i = 0; i < n; i++)
		http_route_add(&route[i]);
}

const struct http_route *http_route_at(size_t i)
{
	return i < http_table.n ? http_table.route[i] : NULL;
}

/* --- admission --- */

void http_set_authorizer(http_authorize_fn *fn)
{
	http_table.authorize = fn;
}

void http_request_flush(struct http_request *r)
{
	if (r->flush != NULL)
		(void)r->flush(r);
}

/* Nobody can log in: who sends credentials must not believe that they count, and the others need a trusted
 * address. */
static int http_authorize_by_address(struct http_request *r, struct http_response *a)
{
	bool has_credentials = http_request_header(r, STR("authorization")).p != NULL;
	if (!has_credentials &&
	    ((r->route != NULL && r->route->is_public) || http_request_peer_is_trusted(r)))
		return 0;
	char peer[NET_ADDR_STRLEN];
	if (has_credentials)
		http_response_text(a, 401, "Authentication Failed: this listener has no logins");
	else
		http_response_text(a, 401,
				   "<Unauthenticated>@ ip=%s not permitted " STR_FMT
				   " on http_listener/%s" STR_FMT,
				   net_addr_fmt_ip(r->peer, peer), STR_ARG(r->method),
				   http_listener_name(r->listener), STR_ARG(r->path));
	http_response_add_header(r, a, STR("www-authenticate"), STR("Basic realm=\"cirrus\""));
	return -1;
}

static int http_authorize(struct http_request *r, struct http_response *a)
{
	if (http_table.authorize == NULL)
		return http_authorize_by_address(r, a);
	return http_table.authorize(r, a, mono_after(r->listener->p.handler_timeout));
}

/* "application/json; charset=utf-8" and "application/problem+json" are application/json. */
static bool http_type_matches(str_t given, str_t wanted)
{
	str_t type = given;
	ptrdiff_t semicolon = str_chr(type, ';', 0);
	if (semicolon >= 0)
		type = str_head(type, (size_t)semicolon);
	type = str_trim(type);
	if (str_ieq(type, wanted))
		return true;
	static const str_t prefix = {"application/", 12}, suffix = {"+json", 5};
	return str_ieq(wanted, STR("application/json")) && type.n > prefix.n + suffix.n &&
	       str_istarts(type, prefix) && str_ieq(str_skip(type, type.n - suffix.n), suffix);
}

/* What the header says about the body to come. */
static bool http_admit_body(struct http_request *r, const struct http_route *route,
			    const struct http_framing *f, struct http_response *a)
{
	if (route->consumes != NULL && !f->has_length && !f->is_chunked) {
		http_response_text(a, 411, "Error: this request needs a body and its Content-Length");
		return false;
	}
	if (f->has_length &&
	    f->content_length > http_body_wire_limit(f->coding, http_body_limit(r->listener))) {
		http_response_refuse(r, a, 413, HTTP_TOO_LARGE);
		return false;
	}
	if (route->consumes != NULL &&
	    !http_type_matches(http_request_header(r, STR("content-type")), str_of(route->consumes))) {
		http_response_text(a, 415, "Expected request with `Content-Type: %s`", route->consumes);
		return false;
	}
	if (f->coding == HTTP_CODING_OTHER) {
		http_response_text(a, 415,
				   "Error: a request body may be coded with one of " HTTP_CODINGS_TEXT);
		http_response_add_header(r, a, STR("accept-encoding"), STR(HTTP_CODINGS_TEXT));
		return false;
	}
	if (f->is_expect_unknown) {
		http_response_text(a, 417, "Error: the only expectation that can be met is 100-continue");
		return false;
	}
	return true;
}

const struct http_route *http_admit(struct http_request *r, const struct http_framing *f,
				    struct http_response *a)
{
	const struct http_path *p = map_find(&http_table.paths, r->path);
	if (p == NULL) {
		a->status = 404;
		return NULL;
	}
	const struct http_route *route = http_path_method(p, r->method);
	r->route = route;
	if (route == NULL)
		http_response_add_header(r, a, STR("allow"), buf_str(&p->allow));
	if (http_authorize(r, a) != 0)
		return NULL;
	if (route == NULL) {
		http_response_text(a, 405, "Error: method " STR_FMT " is not allowed here",
				   STR_ARG(r->method));
		return NULL;
	}
	if (!http_admit_body(r, route, f, a))
		return NULL;
	if (route->websocket != NULL && !websocket_check_upgrade(r, f, a))
		return NULL;
	const char *why = route->gate != NULL ? route->gate() : NULL;
	if (why == NULL && f->content_length > HTTP_SMALL_BODY_BYTES && !http_memory_has(f->content_length))
		why = "too many requests are being received";
	if (why != NULL) {
		http_response_refuse(r, a, 503, why);
		return NULL;
	}
	return route;
}
