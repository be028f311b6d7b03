/* bind_inject.c - kumo.api.inject.inject_v1 and build_v1, kumo.set_httpinject_recipient_rate_limit and
 * kumo.set_httpinject_limits.
 *
 * A request is the same table that HTTP takes as JSON, except that `content` may be any bytes, as
 * msg:get_data() returns them, and that an empty table is an empty list where a list belongs. */
#include "bind/bind_inject.h"

#include "api/inject.h"
#include "base/alloc.h"
#include "base/err.h"
#include "policy/param.h"
#include "policy/policy.h"
#include "policy/value.h"
#include "queue/queue.h"

#include <lauxlib.h>
#include <stdlib.h>

/* --- requests --- */

/** An empty Lua table is an object to value_from_lua. */
static void request_mend_list(json_t *obj, const char *name)
{
	const json_t *v = json_object_get(obj, name);
	if (json_is_object(v) && json_object_size(v) == 0)
		json_object_set_new(obj, name, json_array());
}

/** Pushes a copy of the table at index 1, without `content` when that is a string. */
static void request_push_rest(lua_State *L)
{
	lua_newtable(L);
	int copy = lua_gettop(L);
	for (lua_pushnil(L); lua_next(L, 1) != 0;) {
		bool is_content =
			lua_type(L, -2) == LUA_TSTRING && strcmp(lua_tostring(L, -2), "content") == 0;
		if (is_content && lua_type(L, -1) == LUA_TSTRING) {
			lua_pop(L, 1);
			continue;
		}
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, copy);
	}
}

/** The request at index 1, a new reference; raises what is none. */
static json_t *request_check(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	request_push_rest(L);
	json_t *request = value_from_lua(L, lua_gettop(L));
	if (request == NULL) {
		policy_raise(L);
		return NULL;
	}
	if (!json_is_object(request)) { /* {} or a list */
		json_decref(request);
		request = json_object();
	}
	lua_pushliteral(L, "content");
	if (lua_rawget(L, 1) == LUA_TSTRING) {
		str_t bytes;
		bytes.p = lua_tolstring(L, -1, &bytes.n);
		json_object_set_new_nocheck(request, "content", json_stringn_nocheck(bytes.p, bytes.n));
	}
	request_mend_list(request, "recipients");
	request_mend_list(json_object_get(request, "content"), "attachments");
	request_mend_list(json_object_get(request, "trace_headers"), "include_meta_names");
	return request;
}

static void free_json(void *p)
{
	json_decref(p);
}

static int inject_v1(lua_State *L)
{
	struct buf *answer = policy_box_buf(L);
	void **box = policy_box(L, free_json);
	if (api_inject_local(request_check(L), answer, policy_deadline(L)) != 0) {
		err_wrap("kumo.api.inject.inject_v1");
		return policy_raise(L);
	}
	json_t *v = value_parse_json(buf_str(answer));
	if (v == NULL)
		return policy_raise(L);
	*box = v;
	value_push_json(L, v);
	policy_box_free(box);
	return 1;
}

struct built {
	struct message **m;
	size_t n;
};

static void free_built(void *p)
{
	struct built *b = p;
	for (size_t i = 0; i < b->n; i++)
		message_unref(b->m[i]);
	free(b->m);
	free(b);
}

static int build_v1(lua_State *L)
{
	void **box = policy_box(L, free_built);
	struct built *b = xnew(struct built);
	*box = b;
	if (api_inject_build(request_check(L), &b->m, &b->n, policy_deadline(L)) != 0) {
		err_wrap("kumo.api.inject.build_v1");
		return policy_raise(L);
	}
	lua_createtable(L, (int)b->n, 0);
	for (size_t i = 0; i < b->n; i++) {
		b->m[i]->is_draft = true; /* for kumo.inject_message */
		policy_push_message(L, b->m[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	policy_box_free(box);
	return 1;
}

/* --- limits --- */

static int kumo_set_httpinject_recipient_rate_limit(lua_State *L)
{
	struct throttle_spec spec;
	str_t text;
	if (lua_isnil(L, 1)) {
		api_inject_set_rate_limit(NULL);
		return 0;
	}
	luaL_checktype(L, 1, LUA_TSTRING);
	text.p = lua_tolstring(L, 1, &text.n);
	if (throttle_spec_parse(text, &spec) != 0)
		return policy_raise(L);
	api_inject_set_rate_limit(&spec);
	return 0;
}

struct inject_limits {
	int64_t deferred_messages, deferred_requests;
	uint64_t deferred_bytes;
};
static const struct param inject_limits_params[] = {
	PARAM_INT(inject_limits, deferred_messages, .def = "100000", .max = INT64_MAX,
		  .doc = "Messages with deferred_spool that may be in memory without being stored."),
	PARAM_BYTES(inject_limits, deferred_bytes, .def = "67108864", .doc = "Their bytes."),
	PARAM_INT(inject_limits, deferred_requests, .def = "100000", .max = INT64_MAX,
		  .doc = "Requests with deferred_generation that may wait."),
	{0}};
static const struct param_schema inject_limits_schema = {"InjectLimits", inject_limits_params,
							 sizeof(struct inject_limits), NULL};

static int set_limits(lua_State *L)
{
	struct inject_limits l;
	if (param_parse_lua(&inject_limits_schema, L, 1, &l) != 0)
		return -1;
	queue_set_deferred_limits((uint64_t)l.deferred_messages, l.deferred_bytes);
	api_inject_set_generation_limit((uint64_t)l.deferred_requests);
	param_fini(&inject_limits_schema, &l);
	return 0;
}

static int kumo_set_httpinject_limits(lua_State *L)
{
	return set_limits(L) == 0 ? 0 : policy_raise(L);
}

static void open_inject(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"set_httpinject_recipient_rate_limit", kumo_set_httpinject_recipient_rate_limit},
		{"set_httpinject_limits", kumo_set_httpinject_limits},
		{NULL, NULL}};
	static const luaL_Reg api[] = {{"inject_v1", inject_v1}, {"build_v1", build_v1}, {NULL, NULL}};
	luaL_setfuncs(L, functions, 0);
	luaL_getsubtable(L, -1, "api");
	luaL_getsubtable(L, -1, "inject");
	luaL_setfuncs(L, api, 0);
	lua_pop(L, 2);
}

void bind_register_inject(void)
{
	param_schema_register(&inject_limits_schema);
	policy_add_library(open_inject);
}
