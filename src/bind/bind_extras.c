/* bind_extras.c - Lua that ships in the binary (lua/policy-extras), under the names that kumod's helpers
 * have. It is looked for last, so a file of that name on package.path stands in for it. */
#include "bind/bind_extras.h"

#include "bind/bind.h"
#include "listener_domains.h"

#include <lauxlib.h>

static const struct {
	const char *name, *chunk_name;
	const unsigned char *text;
	size_t n_bytes;
} extras[] = {
	{"policy-extras.listener_domains", "=listener_domains.lua", listener_domains_lua,
	 sizeof(listener_domains_lua)},
};

static int extras_search(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
		if (strcmp(extras[i].name, name) != 0)
			continue;
		if (luaL_loadbufferx(L, (const char *)extras[i].text, extras[i].n_bytes, extras[i].chunk_name,
				     "t") != LUA_OK)
			return lua_error(L);
		lua_pushstring(L, extras[i].chunk_name);
		return 2;
	}
	lua_pushfstring(L, "no module '%s' in cirrusd", name);
	return 1;
}

static void open_extras(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "searchers");
	lua_pushcfunction(L, extras_search);
	lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	lua_pop(L, 2);
}

void bind_register_extras(void)
{
	policy_add_library(open_extras);
}
