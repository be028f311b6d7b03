/* bind_address_header.c - AddressHeader, what message:from_header() gives: the addresses of a field, those of
 * groups too, each with name, user, domain and email. With one address the fields of the whole are those of
 * the one. */
#include "base/err.h"
#include "bind/bind_mime_impl.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

static const char *const list_class = "AddressHeader";
static const char *const entry_class = "HeaderAddress";

/* --- an address: a table in its user value --- */

static void entry_set(lua_State *L, const char *key, str_t s)
{
	if (s.p == NULL)
		return;
	lua_pushlstring(L, s.n > 0 ? s.p : "", s.n);
	lua_setfield(L, -2, key);
}

static void entry_push(lua_State *L, const struct address_mailbox *m)
{
	struct buf *email = policy_box_buf(L);
	address_add_email(m, email);
	lua_newuserdatauv(L, 0, 1);
	lua_createtable(L, 0, 4);
	entry_set(L, "name", m->name);
	entry_set(L, "user", m->local);
	entry_set(L, "domain", m->domain);
	entry_set(L, "email", buf_str(email));
	lua_setiuservalue(L, -2, 1);
	luaL_setmetatable(L, entry_class);
	buf_fini(email);
	lua_remove(L, -2);
}

static int entry_on_index(lua_State *L)
{
	luaL_checkudata(L, 1, entry_class);
	luaL_checkstring(L, 2);
	lua_getiuservalue(L, 1, 1);
	lua_pushvalue(L, 2);
	lua_rawget(L, -2);
	return 1;
}

/* {"name":null,"address":"user@example.com"} */
static json_t *entry_encode(lua_State *L, int idx)
{
	json_t *v = json_object();
	idx = lua_absindex(L, idx);
	lua_getiuservalue(L, idx, 1);
	lua_getfield(L, -1, "name");
	json_object_set_new(v, "name", lua_isnil(L, -1) ? json_null() : json_string(lua_tostring(L, -1)));
	lua_getfield(L, -2, "email");
	json_object_set_new(v, "address", json_string(lua_tostring(L, -1)));
	lua_pop(L, 3);
	return v;
}

static int push_as_json(lua_State *L, json_t *(*encode)(lua_State *L, int idx))
{
	struct buf *b = policy_box_buf(L);
	json_t *v = encode(L, 1);
	char *text = json_dumps(v, JSON_COMPACT);
	json_decref(v);
	if (text != NULL)
		buf_add_z(b, text);
	free(text);
	lua_pushlstring(L, b->n > 0 ? b->p : "", b->n);
	buf_fini(b);
	return 1;
}

static int entry_on_tostring(lua_State *L)
{
	luaL_checkudata(L, 1, entry_class);
	return push_as_json(L, entry_encode);
}

/* --- the whole: user value 1 is the list of addresses --- */

void bind_push_address_header(lua_State *L, const struct address_list *l)
{
	lua_Integer n = 0;
	lua_newuserdatauv(L, 0, 1);
	lua_newtable(L);
	for (size_t i = 0; i < l->n; i++) {
		const struct address *a = &l->v[i];
		const struct address_mailbox *m = a->is_group ? a->member : &a->box;
		for (size_t k = 0; k < (a->is_group ? a->n_members : 1); k++) {
			entry_push(L, &m[k]);
			lua_rawseti(L, -2, ++n);
		}
	}
	lua_setiuservalue(L, -2, 1);
	luaL_setmetatable(L, list_class);
}

static int list_on_index(lua_State *L)
{
	static const char *const keys[] = {"name", "user", "domain", "email", NULL};
	luaL_checkudata(L, 1, list_class);
	const char *key = luaL_checkstring(L, 2);
	lua_getiuservalue(L, 1, 1);
	int list = lua_gettop(L);
	lua_Integer n = (lua_Integer)lua_rawlen(L, list);
	if (strcmp(key, "list") == 0) {
		lua_createtable(L, (int)n, 0);
		for (lua_Integer i = 1; i <= n; i++) {
			lua_rawgeti(L, list, i);
			lua_rawseti(L, -2, i);
		}
		return 1;
	}
	for (size_t i = 0; keys[i] != NULL; i++) {
		if (strcmp(key, keys[i]) != 0)
			continue;
		if (n != 1)
			return luaL_error(L,
					  "the header does not have one address, but %d: `list` has them all",
					  (int)n);
		lua_rawgeti(L, list, 1);
		lua_getfield(L, -1, key);
		return 1;
	}
	return luaL_error(L, "an AddressHeader has no field `%s`", key);
}

static json_t *list_encode(lua_State *L, int idx)
{
	json_t *v = json_array();
	idx = lua_absindex(L, idx);
	lua_getiuservalue(L, idx, 1);
	lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		json_array_append_new(v, entry_encode(L, -1));
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return v;
}

static int list_on_tostring(lua_State *L)
{
	luaL_checkudata(L, 1, list_class);
	return push_as_json(L, list_encode);
}

void bind_open_address_header(lua_State *L)
{
	static const luaL_Reg list[] = {
		{"__index", list_on_index}, {"__tostring", list_on_tostring}, {NULL, NULL}};
	static const luaL_Reg entry[] = {
		{"__index", entry_on_index}, {"__tostring", entry_on_tostring}, {NULL, NULL}};
	static const struct value_encoder list_encoder = {list_encode}, entry_encoder = {entry_encode};
	luaL_newmetatable(L, list_class);
	luaL_setfuncs(L, list, 0);
	value_set_encoder(L, -1, &list_encoder);
	lua_pop(L, 1);
	luaL_newmetatable(L, entry_class);
	luaL_setfuncs(L, entry, 0);
	value_set_encoder(L, -1, &entry_encoder);
	lua_pop(L, 1);
}
