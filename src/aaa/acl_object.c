/* acl_object.c - the userdata of access control. Each class has its metatable in the registry, by which its
 * values are known again. */
#include "aaa/acl_object.h"

#include "base/err.h"
#include "policy/policy.h"
#include "policy/value.h"

#include <lauxlib.h>

static const char acl_class_key, acl_map_class_key, resource_class_key; /* registry keys of the metatables */

/* The userdata at idx when it is of that class. */
static void *object_at(lua_State *L, int idx, const char *class_key)
{
	void *box = lua_touserdata(L, idx);
	bool is_ours = false;
	if (box != NULL && lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, class_key);
		is_ours = lua_rawequal(L, -1, -2);
		lua_pop(L, 2);
	}
	return is_ours ? box : NULL;
}

/* Pushes the metatable. True when it is new and its methods are due. */
static bool object_push_class(lua_State *L, const char *class_key, const char *name, const luaL_Reg *methods)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, class_key) == LUA_TTABLE)
		return false;
	lua_pop(L, 1);
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable"); /* __gc is not for policies to call */
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, class_key);
	return true;
}

/* --- lists --- */

static int acl_on_gc(lua_State *L)
{
	struct acl **box = lua_touserdata(L, 1);
	acl_unref(*box);
	*box = NULL;
	return 0;
}

static json_t *acl_encode(lua_State *L, int idx)
{
	struct acl **box = lua_touserdata(L, idx);
	struct buf b = BUF_INIT;
	acl_write(*box, &b);
	json_t *v = value_parse_json_relaxed(buf_str(&b));
	buf_fini(&b);
	return v;
}

static void *acl_share(lua_State *L, int idx)
{
	struct acl **box = lua_touserdata(L, idx);
	return *box != NULL ? acl_ref(*box) : NULL;
}

static void acl_push_shared(lua_State *L, void *ref)
{
	acl_object_push(L, ref);
}

static void acl_unshare(void *ref)
{
	acl_unref(ref);
}

static int acl_on_len(lua_State *L)
{
	struct acl **box = object_at(L, 1, &acl_class_key);
	lua_pushinteger(L, box != NULL && *box != NULL ? (lua_Integer)acl_n_rules(*box) : 0);
	return 1;
}

void acl_object_push(lua_State *L, struct acl *a)
{
	static const luaL_Reg methods[] = {{"__gc", acl_on_gc}, {"__len", acl_on_len}, {NULL, NULL}};
	static const struct value_encoder encoder = {acl_encode, acl_share, acl_push_shared, acl_unshare};
	struct acl **box = lua_newuserdatauv(L, sizeof(*box), 0);
	*box = NULL;
	if (object_push_class(L, &acl_class_key, "AccessControlList", methods))
		value_set_encoder(L, -1, &encoder);
	lua_setmetatable(L, -2);
	*box = acl_ref(a);
}

struct acl *acl_object_at(lua_State *L, int idx)
{
	struct acl **box = object_at(L, idx, &acl_class_key);
	if (box != NULL && *box != NULL)
		return acl_ref(*box);
	err_set(ERR_INVALID, "an access control list or nil is expected, not a %s", luaL_typename(L, idx));
	return NULL;
}

/* --- maps --- */

static int acl_map_on_gc(lua_State *L)
{
	struct acl_map **box = lua_touserdata(L, 1);
	acl_map_unref(*box);
	*box = NULL;
	return 0;
}

/* map:get(resource) -> list or nil */
static int acl_map_get(lua_State *L)
{
	struct acl_map **box = object_at(L, 1, &acl_map_class_key);
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	if (box == NULL || *box == NULL)
		luaL_typeerror(L, 1, "AclMap");
	struct acl *a = acl_map_find(*box, name);
	if (a != NULL)
		acl_object_push(L, a);
	else
		lua_pushnil(L);
	return 1;
}

static void *acl_map_share(lua_State *L, int idx)
{
	struct acl_map **box = lua_touserdata(L, idx);
	return *box != NULL ? acl_map_ref(*box) : NULL;
}

static void acl_map_push_shared(lua_State *L, void *ref)
{
	acl_map_object_push(L, ref);
}

static void acl_map_unshare(void *ref)
{
	acl_map_unref(ref);
}

void acl_map_object_push(lua_State *L, struct acl_map *m)
{
	static const struct value_encoder encoder = {NULL, acl_map_share, acl_map_push_shared,
						     acl_map_unshare};
	static const luaL_Reg methods[] = {{"__gc", acl_map_on_gc}, {NULL, NULL}};
	struct acl_map **box = lua_newuserdatauv(L, sizeof(*box), 0);
	*box = NULL;
	if (object_push_class(L, &acl_map_class_key, "AclMap", methods)) {
		value_set_encoder(L, -1, &encoder);
		lua_newtable(L);
		lua_pushcfunction(L, acl_map_get);
		lua_setfield(L, -2, "get");
		lua_setfield(L, -2, "__index");
	}
	lua_setmetatable(L, -2);
	*box = acl_map_ref(m);
}

/* --- resources --- */

struct resource_box {
	struct arena arena;
	struct resource r; /* its texts are in the arena */
};

static int resource_on_gc(lua_State *L)
{
	struct resource_box *box = lua_touserdata(L, 1);
	arena_fini(&box->arena);
	box->r.n = 0;
	return 0;
}

static int resource_on_tostring(lua_State *L)
{
	const struct resource_box *box = object_at(L, 1, &resource_class_key);
	if (box == NULL || box->r.n == 0)
		luaL_typeerror(L, 1, "HttpUrlResource");
	lua_pushlstring(L, box->r.candidate[0].p, box->r.candidate[0].n);
	return 1;
}

void resource_object_push(lua_State *L, const struct resource *r)
{
	static const luaL_Reg methods[] = {
		{"__gc", resource_on_gc}, {"__tostring", resource_on_tostring}, {NULL, NULL}};
	struct resource_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
	*box = (struct resource_box){.arena = ARENA_INIT};
	object_push_class(L, &resource_class_key, "HttpUrlResource", methods);
	lua_setmetatable(L, -2);
	for (size_t i = 0; i < r->n; i++)
		box->r.candidate[i] = arena_str(&box->arena, r->candidate[i]);
	box->r.n = r->n;
}

const struct resource *resource_object_at(lua_State *L, int idx)
{
	const struct resource_box *box = object_at(L, idx, &resource_class_key);
	if (box != NULL && box->r.n != 0)
		return &box->r;
	err_set(ERR_INVALID, "a resource is expected (kumo.aaa.make_http_url_resource), not a %s",
		luaL_typename(L, idx));
	return NULL;
}
