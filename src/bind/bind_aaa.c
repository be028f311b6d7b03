/* bind_aaa.c - kumo.aaa: access control lists and maps of them, resources, asking for a decision, the caches'
 * times and the accounting log (src/aaa). What is read from a file or made for a moment is in a box while Lua
 * values are made. */
#include "bind/bind_aaa.h"

#include "aaa/access.h"
#include "aaa/acct.h"
#include "aaa/acl_object.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/secret.h"
#include "net/addr.h"
#include "net/keysource.h"
#include "policy/policy.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

static void aaa_free_acl(void *p)
{
	acl_unref(p);
}

static void aaa_free_json(void *p)
{
	json_decref(p);
}

/* Memory for one call. */
static void aaa_free_arena(void *p)
{
	arena_fini(p);
	free(p);
}

static struct arena *aaa_box_arena(lua_State *L, void ***box)
{
	*box = policy_box(L, aaa_free_arena);
	struct arena *a = xnew(struct arena);
	**box = a;
	return a;
}

/* make_access_control_list(rules) */
static int aaa_make_access_control_list(lua_State *L)
{
	luaL_checkany(L, 1);
	void **box = policy_box(L, aaa_free_acl);
	json_t *rules = value_from_lua(L, 1);
	if (rules == NULL)
		return policy_raise(L);
	*box = acl_from_json(rules);
	json_decref(rules);
	if (*box == NULL)
		return policy_raise(L);
	acl_object_push(L, *box);
	policy_box_free(box);
	return 1;
}

/* --- maps --- */

/* What load_acl_map holds while it works. */
struct aaa_load {
	json_t *value;
	struct keysource source;
	struct secret *content;
	struct acl_map *map;
};

static void aaa_load_free(void *p)
{
	struct aaa_load *l = p;
	json_decref(l->value);
	keysource_fini(&l->source);
	secret_unref(l->content);
	acl_map_unref(l->map);
	free(l);
}

static int aaa_load(struct aaa_load *l, lua_State *L)
{
	l->value = value_from_lua(L, 1);
	if (l->value == NULL || keysource_parse_json(l->value, &l->source) != 0)
		return -1;
	l->content = keysource_load(&l->source, policy_deadline(L));
	if (l->content == NULL)
		return -1;
	l->map = acl_map_parse(secret_bytes(l->content));
	if (l->map != NULL)
		return 0;
	err_wrap("%s", keysource_text(&l->source));
	return -1;
}

/* load_acl_map(keysource) */
static int aaa_load_acl_map(lua_State *L)
{
	luaL_checkany(L, 1);
	void **box = policy_box(L, aaa_load_free);
	struct aaa_load *l = *box = xnew(struct aaa_load);
	if (aaa_load(l, L) != 0) {
		err_wrap("kumo.aaa.load_acl_map");
		policy_box_free(box);
		return policy_raise(L);
	}
	acl_map_object_push(L, l->map);
	policy_box_free(box);
	return 1;
}

/* --- decisions --- */

/* The canonical text of a listener's address. */
static int aaa_listener_name(str_t text, char out[NET_ADDR_STRLEN], str_t *name)
{
	struct net_addr a;
	*name = text;
	if (str_starts(text, STR("unix:/")) && memchr(text.p, 0, text.n) == NULL)
		return 0;
	if (net_addr_parse(text, &a) != 0)
		return -1;
	*name = str_of(net_addr_fmt(&a, out));
	return 0;
}

/* make_http_url_resource(local_addr, url) */
static int aaa_make_http_url_resource(lua_State *L)
{
	str_t addr, url;
	addr.p = luaL_checklstring(L, 1, &addr.n);
	url.p = luaL_checklstring(L, 2, &url.n);
	void **box;
	struct arena *arena = aaa_box_arena(L, &box);
	char text[NET_ADDR_STRLEN];
	struct resource r;
	if (aaa_listener_name(addr, text, &addr) != 0 || resource_of_url(arena, addr, url, &r) != 0) {
		err_wrap("kumo.aaa.make_http_url_resource");
		return policy_raise(L);
	}
	resource_object_push(L, &r);
	policy_box_free(box);
	return 1;
}

static void aaa_push_result(lua_State *L, const struct resource *what, const struct access_result *r)
{
	lua_createtable(L, 0, 3);
	lua_pushboolean(L, r->is_allowed);
	lua_setfield(L, -2, "allow");
	if (r->rule == NULL)
		return;
	str_t name = what->candidate[r->n_considered];
	lua_pushlstring(L, name.p, name.n);
	lua_setfield(L, -2, "resource");
	void **box = policy_box(L, aaa_free_json);
	json_t *rule = *box = value_parse_json_relaxed(r->rule->json);
	value_push_json(L, rule);
	lua_setfield(L, -3, "rule");
	policy_box_free(box);
	lua_pop(L, 1);
}

static void aaa_free_result(void *p)
{
	access_result_fini(p);
	free(p);
}

/* query_resource_access(resource, auth_info, privilege) */
static int aaa_query_resource_access(lua_State *L)
{
	str_t privilege;
	privilege.p = luaL_checklstring(L, 3, &privilege.n);
	const char *event = policy_current_event(L);
	if (event != NULL && strcmp(event, "get_acl_definition") == 0)
		return luaL_error(L, "kumo.aaa.query_resource_access cannot be asked from get_acl_definition,"
				     " which it would ask in turn");
	void **arena_box, **box;
	struct arena *arena = aaa_box_arena(L, &arena_box);
	box = policy_box(L, aaa_free_result);
	struct access_result *result = *box = xnew(struct access_result);
	struct auth_info who;
	const struct resource *what = resource_object_at(L, 1);
	if (what == NULL || auth_info_from_lua(L, 2, arena, &who) != 0 ||
	    access_check(what, &who, privilege, result, policy_deadline(L)) != 0) {
		err_wrap("kumo.aaa.query_resource_access");
		return policy_raise(L);
	}
	aaa_push_result(L, what, result);
	policy_box_free(box);
	policy_box_free(arena_box);
	return 1;
}

/* --- settings --- */

static int aaa_set_fall_back_to_acl_map(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TBOOLEAN);
	access_set_fall_back(lua_toboolean(L, 1));
	return 0;
}

/* Seconds, or text like "5 minutes". */
static dur_t aaa_check_duration(lua_State *L)
{
	dur_t d = dur_ns(-1);
	if (lua_type(L, 1) == LUA_TNUMBER && lua_tonumber(L, 1) >= 0) {
		d = dur_from_seconds(lua_tonumber(L, 1));
	} else if (lua_type(L, 1) == LUA_TSTRING) {
		str_t s;
		s.p = lua_tolstring(L, 1, &s.n);
		if (!dur_parse(s, &d))
			d = dur_ns(-1);
	}
	if (d.ns < 0)
		luaL_argerror(L, 1, "a duration is expected: seconds, or text like '5 minutes'");
	return d;
}

static int aaa_set_acl_cache_ttl(lua_State *L)
{
	access_set_acl_ttl(aaa_check_duration(L));
	return 0;
}

static int aaa_set_check_cache_ttl(lua_State *L)
{
	access_set_check_ttl(aaa_check_duration(L));
	return 0;
}

static int configure_acct_log(lua_State *L)
{
	struct param_object *params = param_object_from_lua(&acct_log_schema, L, 1);
	if (params == NULL)
		return -1;
	int rc = acct_log_configure(params, policy_is_validating());
	param_object_unref(params);
	return rc;
}

static int aaa_configure_acct_log(lua_State *L)
{
	policy_require_init(L, "kumo.aaa.configure_acct_log");
	return configure_acct_log(L) == 0 ? 0 : policy_raise(L);
}

static const luaL_Reg aaa_functions[] = {{"make_access_control_list", aaa_make_access_control_list},
					 {"load_acl_map", aaa_load_acl_map},
					 {"make_http_url_resource", aaa_make_http_url_resource},
					 {"query_resource_access", aaa_query_resource_access},
					 {"set_fall_back_to_acl_map", aaa_set_fall_back_to_acl_map},
					 {"set_acl_cache_ttl", aaa_set_acl_cache_ttl},
					 {"set_check_cache_ttl", aaa_set_check_cache_ttl},
					 {"configure_acct_log", aaa_configure_acct_log},
					 {NULL, NULL}};

static void open_aaa(lua_State *L)
{
	lua_newtable(L);
	luaL_setfuncs(L, aaa_functions, 0);
	lua_setfield(L, -2, "aaa");
}

void bind_register_aaa(void)
{
	param_schema_register(&acct_log_schema);
	policy_add_library(open_aaa);
}
