/* bind_time.c - kumo.sleep, kumo.time.sleep and parse_duration with its TimeDelta. */
#include "base/err.h"
#include "bind/bind.h"
#include "fiber/fiber.h"
#include "policy/value.h"

#include <lauxlib.h>

static const char *const delta_class = "TimeDelta";

static int time_sleep(lua_State *L)
{
	lua_Number s = luaL_checknumber(L, 1);
	luaL_argcheck(L, s >= 0, 1, "seconds, 0 or more");
	if (fiber_sleep(dur_from_seconds(s), policy_deadline(L)) != 0)
		return policy_raise(L);
	return 0;
}

/* --- TimeDelta --- */

static void delta_push(lua_State *L, dur_t d)
{
	*(dur_t *)lua_newuserdatauv(L, sizeof(d), 0) = d;
	luaL_setmetatable(L, delta_class);
}

static dur_t delta_check(lua_State *L, int idx)
{
	return *(const dur_t *)luaL_checkudata(L, idx, delta_class);
}

static int delta_push_human(lua_State *L, dur_t d)
{
	struct buf *b = policy_box_buf(L);
	dur_fmt(d, b);
	lua_pushlstring(L, b->p, b->n);
	buf_fini(b);
	return 1;
}

static int delta_on_tostring(lua_State *L)
{
	return delta_push_human(L, delta_check(L, 1));
}

static int delta_on_index(lua_State *L)
{
	dur_t d = delta_check(L, 1);
	const char *key = luaL_checkstring(L, 2);
	if (strcmp(key, "seconds") == 0)
		lua_pushnumber(L, dur_seconds(d));
	else if (strcmp(key, "nanoseconds") == 0)
		lua_pushinteger(L, d.ns);
	else if (strcmp(key, "microseconds") == 0)
		lua_pushinteger(L, d.ns / 1000);
	else if (strcmp(key, "milliseconds") == 0)
		lua_pushinteger(L, d.ns / 1000000);
	else if (strcmp(key, "human") == 0)
		return delta_push_human(L, d);
	else
		lua_pushnil(L);
	return 1;
}

static int delta_on_eq(lua_State *L)
{
	lua_pushboolean(L, delta_check(L, 1).ns == delta_check(L, 2).ns);
	return 1;
}

static int delta_push_sum(lua_State *L, int64_t a, int64_t b, bool is_difference)
{
	int64_t sum;
	if (is_difference ? __builtin_sub_overflow(a, b, &sum) : __builtin_add_overflow(a, b, &sum))
		return luaL_error(L, "the result is out of range for a TimeDelta");
	delta_push(L, dur_ns(sum));
	return 1;
}

static int delta_on_add(lua_State *L)
{
	return delta_push_sum(L, delta_check(L, 1).ns, delta_check(L, 2).ns, false);
}

static int delta_on_sub(lua_State *L)
{
	return delta_push_sum(L, delta_check(L, 1).ns, delta_check(L, 2).ns, true);
}

static json_t *delta_encode(lua_State *L, int idx)
{
	struct buf b = BUF_INIT;
	dur_fmt(*(const dur_t *)lua_touserdata(L, idx), &b);
	json_t *v = json_stringn(b.p, b.n);
	buf_fini(&b);
	return v;
}

static int time_parse_duration(lua_State *L)
{
	dur_t d;
	if (lua_type(L, 1) == LUA_TNUMBER) {
		lua_Number s = lua_tonumber(L, 1);
		luaL_argcheck(L, s > -9.2e9 && s < 9.2e9, 1, "a duration of less than 292 years");
		d = lua_isinteger(L, 1) ? dur_s(lua_tointeger(L, 1)) : dur_ns((int64_t)(s * 1e9));
	} else {
		str_t s;
		s.p = luaL_checklstring(L, 1, &s.n);
		if (!dur_parse(s, &d))
			return luaL_error(L, "invalid value: string \"%s\", expected a duration", s.p);
	}
	delta_push(L, d);
	return 1;
}

static void time_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"sleep", time_sleep}, {"parse_duration", time_parse_duration}, {NULL, NULL}};
	static const luaL_Reg delta[] = {{"__index", delta_on_index}, {"__tostring", delta_on_tostring},
					 {"__eq", delta_on_eq},	      {"__add", delta_on_add},
					 {"__sub", delta_on_sub},     {NULL, NULL}};
	static const struct value_encoder encoder = {delta_encode};
	luaL_newmetatable(L, delta_class);
	luaL_setfuncs(L, delta, 0);
	value_set_encoder(L, -1, &encoder);
	lua_pop(L, 1);
	lua_pushcfunction(L, time_sleep);
	lua_setfield(L, -2, "sleep");
	luaL_newlib(L, functions);
	lua_setfield(L, -2, "time");
}

void bind_register_time(void)
{
	policy_add_library(time_open);
}
