/* keysource_event.c - a KeySource that is an event of the policy: {event_name =
 * 'get_key', event_args = {...}}. The one handler is called with the arguments
 * and returns the bytes as a string. A handler that is missing, or that returns
 * nothing, is an error: a key that is not there must not pass for an empty one. */
#include "base/err.h"
#include "net/keysource.h"
#include "policy/policy.h"
#include "policy/value.h"

#include <lauxlib.h>

/* Runs protected: making values may raise. The argument is the json_t. */
static int keysource_push_args(lua_State *L)
{
	const json_t *args = lua_touserdata(L, 1);
	int n = (int)json_array_size(args);
	lua_settop(L, 0);
	luaL_checkstack(L, n, "arguments of a KeySource event");
	for (int i = 0; i < n; i++)
		value_push_json(L, json_array_get(args, (size_t)i));
	return n;
}

static struct secret *keysource_take_result(lua_State *L, int idx)
{
	size_t n;
	if (lua_type(L, idx) != LUA_TSTRING) {
		err_set(ERR_INVALID,
			"its handler returned a value of the type %s where the key is expected as a string",
			luaL_typename(L, idx));
		return NULL;
	}
	const char *p = lua_tolstring(L, idx, &n);
	return secret_new(str_mk(p, n));
}

static struct secret *keysource_call_event(const char *event, const json_t *args, mono_t deadline)
{
	struct policy_call c;
	struct secret *s = NULL;
	int rc = policy_call_begin(&c, event, deadline);
	if (rc == 0)
		err_set(ERR_NOT_FOUND, "the policy has no handler for it");
	if (rc != 1)
		return NULL;
	lua_pushcfunction(c.L, keysource_push_args);
	lua_pushlightuserdata(c.L, (void *)(uintptr_t)args);
	if (lua_pcall(c.L, 1, LUA_MULTRET, 0) != LUA_OK) {
		err_set(ERR_INVALID, "its arguments cannot be made into Lua values");
		goto out;
	}
	rc = policy_call_run(&c, lua_gettop(c.L) - c.base, 1, deadline);
	if (rc == 0)
		err_set(ERR_INVALID, "its handler returned no value where the key is expected as a string");
	else if (rc == 1)
		s = keysource_take_result(c.L, c.result_idx);
out:
	policy_call_end(&c);
	return s;
}

void policy_serve_keysources(void)
{
	keysource_set_event_hook(keysource_call_event);
}
