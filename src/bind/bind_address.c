/* bind_address.c - EnvelopeAddress. Its text as printed is the
 * userdata's memory; the parts are computed when they are asked for. */
#include "base/err.h"
#include "bind/bind_message_impl.h"
#include "policy/value.h"

#include <lauxlib.h>

static const char *const address_class = "EnvelopeAddress";

void bind_push_address(lua_State *L, str_t text)
{
	struct mailbox m;
	if (mailbox_parse(text, &m) != 0) {
		policy_raise(L);
		return;
	}
	char *p = lua_newuserdatauv(L, m.email.n + 1, 0);
	memcpy(p, m.email.n != 0 ? m.email.p : "", m.email.n);
	p[m.email.n] = 0;
	luaL_setmetatable(L, address_class);
}

int bind_to_address(lua_State *L, int idx, struct mailbox *out)
{
	str_t text;
	if (lua_type(L, idx) == LUA_TSTRING) {
		text.p = lua_tolstring(L, idx, &text.n);
	} else {
		const char *z = luaL_testudata(L, idx, address_class);
		if (z == NULL) {
			err_set(ERR_INVALID, "invalid type: %s, expected an address", luaL_typename(L, idx));
			return -1;
		}
		text = str_of(z);
	}
	return mailbox_parse(text, out);
}

static str_t address_text(lua_State *L, int idx)
{
	return str_of(luaL_checkudata(L, idx, address_class));
}

/* Without quotes and their escapes (RFC 5321 section 4.1.2). */
static void address_push_user(lua_State *L, str_t local)
{
	if (local.n < 2 || local.p[0] != '"') {
		lua_pushlstring(L, local.n != 0 ? local.p : "", local.n);
		return;
	}
	luaL_Buffer b;
	luaL_buffinit(L, &b);
	for (size_t i = 1; i + 1 < local.n; i++) {
		if (local.p[i] == '\\' && i + 2 < local.n)
			i++;
		luaL_addchar(&b, local.p[i]);
	}
	luaL_pushresult(&b);
}

static int address_on_index(lua_State *L)
{
	str_t text = address_text(L, 1);
	const char *key = luaL_checkstring(L, 2);
	struct mailbox m;
	if (mailbox_parse(text, &m) != 0)
		return policy_raise(L);
	bool is_postmaster = m.domain.n == 0 && m.local.n != 0;
	if (strcmp(key, "user") == 0 && is_postmaster)
		lua_pushliteral(L, "postmaster");
	else if (strcmp(key, "user") == 0)
		address_push_user(L, m.local);
	else if (strcmp(key, "domain") == 0)
		lua_pushlstring(L, m.domain.n != 0 ? m.domain.p : "", m.domain.n);
	else if (strcmp(key, "email") == 0)
		lua_pushlstring(L, text.n != 0 ? text.p : "", text.n);
	else
		lua_pushnil(L);
	return 1;
}

static int address_on_tostring(lua_State *L)
{
	lua_pushstring(L, address_text(L, 1).p);
	return 1;
}

static int address_on_eq(lua_State *L)
{
	lua_pushboolean(L, str_eq(address_text(L, 1), address_text(L, 2)));
	return 1;
}

static int address_on_concat(lua_State *L)
{
	luaL_tolstring(L, 1, NULL);
	luaL_tolstring(L, 2, NULL);
	lua_concat(L, 2);
	return 1;
}

static json_t *address_encode(lua_State *L, int idx)
{
	const char *text = lua_touserdata(L, idx);
	json_t *v = json_string(text);
	if (v == NULL)
		err_set(ERR_INVALID, "an address that is not UTF-8 cannot be represented");
	return v;
}

void bind_open_address(lua_State *L)
{
	static const luaL_Reg address[] = {{"__index", address_on_index},
					   {"__tostring", address_on_tostring},
					   {"__eq", address_on_eq},
					   {"__concat", address_on_concat},
					   {NULL, NULL}};
	static const struct value_encoder encoder = {address_encode};
	luaL_newmetatable(L, address_class);
	luaL_setfuncs(L, address, 0);
	value_set_encoder(L, -1, &encoder);
	lua_pop(L, 1);
}
