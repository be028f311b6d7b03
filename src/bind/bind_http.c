/* bind_http.c - kumo.start_http_listener { listen, hostname, trusted_hosts, request_body_limit, ... }. The
 * port is bound by the call, so that a port in use is an error of that line of the policy and privileges can
 * be dropped afterwards; it accepts once everything behind it is ready. When a policy is validated only the
 * parameters are looked at. */
#include "bind/bind_http.h"

#include "base/alloc.h"
#include "base/err.h"
#include "http/http.h"
#include "policy/param.h"
#include "policy/policy.h"

#include <lauxlib.h>
#include <stdlib.h>

struct http_listener_spec {
	char *hostname;
	struct net_addr listen;
	struct cidr_set trusted_hosts;
	uint64_t request_body_limit;
	bool use_tls;
};

static int http_listener_check(void *obj)
{
	const struct http_listener_spec *s = obj;
	if (!s->use_tls)
		return 0;
	err_set(ERR_INVALID, "field `use_tls`: `true` is not supported by this version of cirrus");
	return -1;
}

static const struct param http_listener_fields[] = {
	PARAM_STR(http_listener_spec, hostname, .doc = "Name of this service; the machine's when not given."),
	PARAM_ADDR(http_listener_spec, listen, .def = "127.0.0.1:8000",
		   .doc = "Address and port to listen on; port 0 takes a free one."),
	PARAM_BOOL(http_listener_spec, use_tls, .def = "false", .doc = "Serve HTTPS instead of HTTP."),
	PARAM_BYTES(http_listener_spec, request_body_limit, .def = "2097152",
		    .doc = "Largest body of a request in bytes; a larger one is answered with 413."),
	PARAM_UNSUPPORTED(tls_certificate),
	PARAM_UNSUPPORTED(tls_private_key),
	PARAM_CIDRS(http_listener_spec, trusted_hosts, .def = "127.0.0.1,::1",
		    .doc = "Hosts that may use the service without a login."),
	{0}};
static const struct param_schema http_listener_schema = {
	"HttpListenerParams", http_listener_fields, sizeof(struct http_listener_spec), http_listener_check};

static struct {
	struct http_listener **v; /* in the order of the policy; touched by the worker that runs init */
	size_t n;
} http_listeners;

static int start_http_listener(lua_State *L)
{
	struct http_listener_spec s;
	struct http_listener *l = NULL;
	int rc = -1;
	if (param_parse_lua(&http_listener_schema, L, 1, &s) != 0)
		return -1;
	if (policy_is_validating()) {
		rc = 0;
		goto out;
	}
	l = http_listener_open(&(struct http_listener_params){
		.listen = s.listen,
		.hostname = s.hostname,
		.trusted_hosts = s.trusted_hosts,
		.request_body_limit = s.request_body_limit,
	});
	if (l == NULL)
		goto out;
	http_listeners.v = xreallocarray(http_listeners.v, http_listeners.n + 1, sizeof(*http_listeners.v));
	http_listeners.v[http_listeners.n++] = l;
	rc = 0;
out:
	param_fini(&http_listener_schema, &s);
	return rc;
}

static int kumo_start_http_listener(lua_State *L)
{
	policy_require_init(L, "kumo.start_http_listener");
	return start_http_listener(L) == 0 ? 0 : policy_raise(L);
}

void http_listeners_start_all(void)
{
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_start(http_listeners.v[i]);
}

void http_listeners_close_all(mono_t deadline)
{
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_stop(http_listeners.v[i]);
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_close(http_listeners.v[i], deadline);
	free(http_listeners.v);
	http_listeners.v = NULL;
	http_listeners.n = 0;
}

static void open_http(lua_State *L)
{
	lua_pushcfunction(L, kumo_start_http_listener);
	lua_setfield(L, -2, "start_http_listener");
}

void bind_register_http(void)
{
	param_schema_register(&http_listener_schema);
	policy_add_library(open_http);
}
