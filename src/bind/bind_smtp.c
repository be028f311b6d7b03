/* bind_smtp.c - the SMTP service for policies. As with HTTP, the port is bound by the call, so that a port in
 * use is an error of that line of the policy and privileges can be dropped afterwards; it accepts once
 * everything behind it is ready. When a policy is validated, parameters and certificates are looked at, but
 * no port is opened. */
#include "bind/bind_smtp.h"

#include "aaa/auth_info.h"
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind.h"
#include "net/tls_source.h"
#include "policy/value.h"
#include "smtp/in.h"

#include <lauxlib.h>
#include <stdlib.h>

#define TLS_LOAD_TIMEOUT dur_s(60)

static struct {
	struct in_listener **v; /* in the order of the policy; touched by the worker that runs init */
	size_t n;
} smtp_listeners;

static int start_esmtp_listener(lua_State *L)
{
	struct param_object *params = param_object_from_lua(&in_listener_schema, L, 1);
	if (params == NULL)
		return -1;
	int rc = 0;
	if (policy_is_validating()) {
		rc = in_listener_check(params, mono_after(TLS_LOAD_TIMEOUT));
	} else {
		struct in_listener *l = in_listener_open(params, mono_after(TLS_LOAD_TIMEOUT));
		rc = l != NULL ? 0 : -1;
		if (l != NULL) {
			smtp_listeners.v = xreallocarray(smtp_listeners.v, smtp_listeners.n + 1,
							 sizeof(*smtp_listeners.v));
			smtp_listeners.v[smtp_listeners.n++] = l;
		}
	}
	param_object_unref(params);
	return rc;
}

static int kumo_start_esmtp_listener(lua_State *L)
{
	policy_require_init(L, "kumo.start_esmtp_listener");
	return start_esmtp_listener(L) == 0 ? 0 : policy_raise(L);
}

static int kumo_make_listener_domain(lua_State *L)
{
	void **box = policy_box(L, (void (*)(void *))param_object_unref);
	struct param_object *o = param_object_from_lua(&in_domain_schema, L, 1);
	if (o == NULL)
		return policy_raise(L);
	*box = o;
	param_object_push(L, o);
	policy_box_free(box);
	return 1;
}

/* --- the connection object --- */

static void conn_free_json(void *p)
{
	json_decref(p);
}

static int conn_get_meta(lua_State *L)
{
	return bind_get_meta(L, in_conn_meta(in_conn_check(L, 1)));
}

static int conn_set_meta(lua_State *L)
{
	return bind_set_meta(L, in_conn_meta(in_conn_check(L, 1)));
}

static int conn_auth_info(lua_State *L)
{
	const struct auth_info *who = in_conn_who(in_conn_check(L, 1));
	void **box = policy_box(L, conn_free_json);
	json_t *v = auth_info_json(who);
	*box = v;
	value_push_json(L, v);
	policy_box_free(box);
	return 1;
}

/* --- registering --- */

void smtp_listeners_start_all(void)
{
	for (size_t i = 0; i < smtp_listeners.n; i++)
		in_listener_start(smtp_listeners.v[i]);
	tls_sources_start_watch();
}

void smtp_listeners_stop_all(void)
{
	for (size_t i = 0; i < smtp_listeners.n; i++)
		in_listener_stop(smtp_listeners.v[i]);
}

void smtp_listeners_close_all(mono_t deadline)
{
	for (size_t i = 0; i < smtp_listeners.n; i++)
		in_listener_close(smtp_listeners.v[i], deadline);
	free(smtp_listeners.v);
	smtp_listeners.v = NULL;
	smtp_listeners.n = 0;
	in_stop();
}

static void open_smtp(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"start_esmtp_listener", kumo_start_esmtp_listener},
		{"make_listener_domain", kumo_make_listener_domain},
		{NULL, NULL},
	};
	static const luaL_Reg methods[] = {
		{"get_meta", conn_get_meta},
		{"set_meta", conn_set_meta},
		{"auth_info", conn_auth_info},
		{NULL, NULL},
	};
	luaL_setfuncs(L, functions, 0);
	in_conn_push_class(L);
	luaL_setfuncs(L, methods, 0);
	lua_pop(L, 1);
}

void bind_register_smtp(void)
{
	param_schema_register(&in_trace_schema);
	param_schema_register(&in_block_schema);
	param_schema_register(&in_listener_schema);
	param_schema_register(&in_domain_schema);
	in_set_address_pusher(bind_push_address);
	policy_add_library(open_smtp);
}
