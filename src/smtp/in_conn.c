/* in_conn.c - a connection as a value of a policy. The userdata points at the session's, but only for the
 * event in hand: it is emptied at the end of the call, so a policy that keeps it finds it empty and not freed
 * memory, nor another session's. The registry holds it meanwhile, or Lua might collect it before it is
 * emptied. */
#include "smtp/in_impl.h"

#include <lauxlib.h>

static const char in_conn_class_key, in_conn_methods_key, in_conn_current_key;

void in_conn_init(struct in_conn *c, const struct net_addr *peer)
{
	*c = (struct in_conn){.arena = ARENA_INIT};
	auth_info_init(&c->who, peer, &c->arena);
}

void in_conn_fini(struct in_conn *c)
{
	meta_fini(&c->meta);
	arena_fini(&c->arena);
}

struct meta *in_conn_meta(struct in_conn *c)
{
	return &c->meta;
}
const struct auth_info *in_conn_who(const struct in_conn *c)
{
	return &c->who;
}

static int in_conn_on_tostring(lua_State *L)
{
	lua_pushfstring(L, "ConnectionMetaData: %p", lua_topointer(L, 1));
	return 1;
}

void in_conn_push_class(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &in_conn_methods_key) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &in_conn_methods_key);
}

static void in_conn_push_metatable(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &in_conn_class_key) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	lua_createtable(L, 0, 4);
	lua_pushcfunction(L, in_conn_on_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushliteral(L, "ConnectionMetaData");
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	in_conn_push_class(L);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &in_conn_class_key);
}

void in_conn_push(lua_State *L, struct in_conn *c)
{
	struct in_conn **box = lua_newuserdatauv(L, sizeof(struct in_conn *), 0);
	*box = c;
	in_conn_push_metatable(L);
	lua_setmetatable(L, -2);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &in_conn_current_key);
}

void in_conn_release(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &in_conn_current_key) == LUA_TUSERDATA)
		*(struct in_conn **)lua_touserdata(L, -1) = NULL;
	lua_pop(L, 1);
	lua_pushnil(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &in_conn_current_key);
}

struct in_conn *in_conn_check(lua_State *L, int idx)
{
	struct in_conn **box = lua_touserdata(L, idx);
	bool is_ours = false;
	if (box != NULL && lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &in_conn_class_key);
		is_ours = lua_rawequal(L, -1, -2);
		lua_pop(L, 2);
	}
	if (!is_ours)
		luaL_typeerror(L, idx, "ConnectionMetaData");
	if (*box == NULL)
		luaL_argerror(L, idx, "this connection belonged to an event that is over");
	return *box;
}
