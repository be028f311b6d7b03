/* bind_message.c - methods of the message object, and EnvelopeAddress (contracts A0, A5). */
#include "base/err.h"
#include "bind/bind.h"
#include "mail/envelope.h"
#include "policy/value.h"

#include <lauxlib.h>

static const char *const address_class = "EnvelopeAddress";
static bind_load_body_fn *message_load_body;

void bind_message_set_loader(bind_load_body_fn *load)
{
	message_load_body = load;
}

/* --- EnvelopeAddress: its text as printed is the userdata's memory, the parts are computed when asked for
 * --- */

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

/* --- the message --- */

static int message_id(lua_State *L)
{
	char id[33];
	uuid_fmt_simple(&policy_check_message(L, 1)->id, id);
	lua_pushstring(L, id);
	return 1;
}

static int message_sender(lua_State *L)
{
	bind_push_address(L, str_of(policy_check_message(L, 1)->sender));
	return 1;
}

static int message_recipient_list(lua_State *L)
{
	const struct message *m = policy_check_message(L, 1);
	lua_createtable(L, (int)m->n_rcpt, 0);
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		bind_push_address(L, str_of(m->rcpt[i]));
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	return 1;
}

static int message_recipient(lua_State *L)
{
	const struct message *m = policy_check_message(L, 1);
	if (m->n_rcpt > 1)
		return message_recipient_list(L);
	if (m->n_rcpt == 0)
		lua_pushnil(L);
	else
		bind_push_address(L, str_of(m->rcpt[0]));
	return 1;
}

static void message_free_json(void *p)
{
	json_decref(p);
}

static int message_get_meta(lua_State *L)
{
	struct message *m = policy_check_message(L, 1);
	str_t key, json;
	key.p = luaL_checklstring(L, 2, &key.n);
	if (!meta_get_json(&m->meta, key, &json)) {
		lua_pushnil(L);
		return 1;
	}
	void **box = policy_box(L, message_free_json);
	json_t *v = value_parse_json_relaxed(json);
	if (v == NULL)
		return policy_raise(L);
	*box = v;
	if (json_is_null(v))
		lua_pushnil(L);
	else
		value_push_json(L, v);
	policy_box_free(box);
	return 1;
}

static int message_set_meta(lua_State *L)
{
	struct message *m = policy_check_message(L, 1);
	struct buf text = BUF_INIT;
	str_t key;
	luaL_checktype(L, 2, LUA_TSTRING);
	key.p = lua_tolstring(L, 2, &key.n);
	if (!str_is_utf8(key))
		return luaL_argerror(L, 2, "the name of a metadata value must be UTF-8");
	json_t *v = value_from_lua(L, 3);
	if (v == NULL)
		return policy_raise(L);
	value_write_json(v, false, &text);
	json_decref(v);
	meta_set_json(&m->meta, key, buf_str(&text));
	buf_fini(&text);
	return 0;
}

static void message_drop_body(void *p)
{
	body_unref(p);
}

static int message_get_data(lua_State *L)
{
	struct message *m = policy_check_message(L, 1);
	void **box = policy_box(L, message_drop_body);
	if (m->body == NULL) {
		if (message_load_body == NULL)
			return luaL_error(L,
					  "the body of this message is not in memory, and no spool is open");
		if (message_load_body(m, policy_deadline(L)) != 0)
			return policy_raise(L);
	}
	struct body *body = body_ref(m->body);
	*box = body;
	lua_pushlstring(L, m->prefix != NULL ? m->prefix : "", m->prefix != NULL ? m->n_prefix_bytes : 0);
	lua_pushlstring(L, body->p, body->n_bytes);
	lua_concat(L, 2);
	policy_box_free(box);
	return 1;
}

static int message_lua_queue_name(lua_State *L)
{
	const struct message *m = policy_check_message(L, 1);
	struct buf *b = policy_box_buf(L);
	if (message_queue_name(m, b) != 0)
		return policy_raise(L);
	lua_pushlstring(L, b->n != 0 ? b->p : "", b->n);
	buf_fini(b);
	return 1;
}

static int message_num_attempts(lua_State *L)
{
	lua_pushinteger(L, policy_check_message(L, 1)->n_attempts);
	return 1;
}

static void message_open(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"id", message_id},
		{"sender", message_sender},
		{"recipient", message_recipient},
		{"recipient_list", message_recipient_list},
		{"get_meta", message_get_meta},
		{"set_meta", message_set_meta},
		{"get_data", message_get_data},
		{"queue_name", message_lua_queue_name},
		{"num_attempts", message_num_attempts},
		{NULL, NULL},
	};
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
	policy_push_message_class(L);
	luaL_setfuncs(L, methods, 0);
	lua_pop(L, 1);
}

void bind_register_message(void)
{
	policy_add_library(message_open);
}
