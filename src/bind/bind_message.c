/* bind_message.c - the message object: identity, envelope, metadata, data, its place
 * in the spool; and kumo.make_message. Headers are in bind_message_headers.c, times
 * in bind_message_schedule.c. A method that changes the message marks what the spool
 * has to store again; it is stored by save, or by whoever has the message next. */
#include "base/err.h"
#include "bind/bind_message_impl.h"
#include "mime/header.h"
#include "policy/value.h"

#include <lauxlib.h>

#define RECIPIENTS_MAX 100000

static bind_load_body_fn *message_load_body;
static bind_save_fn *message_save_it;

void bind_message_set_loader(bind_load_body_fn *load)
{
	message_load_body = load;
}

void bind_message_set_saver(bind_save_fn *save)
{
	message_save_it = save;
}

/* --- for all of its files --- */

static void message_need_body(lua_State *L, struct message *m)
{
	if (m->body != NULL)
		return;
	if (message_load_body == NULL)
		luaL_error(L, "the body of this message is not in memory, and no spool is open");
	else if (message_load_body(m, policy_deadline(L)) != 0)
		policy_raise(L);
}

struct message *bind_check_message_with_body(lua_State *L)
{
	struct message *m = policy_check_message(L, 1);
	message_need_body(L, m);
	return m;
}

struct message *bind_check_message_to_rewrite(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	message_need_body(L, m);
	return m;
}

bool bind_opt_bool(lua_State *L, int idx, bool if_absent)
{
	if (bind_is_null(L, idx))
		return if_absent;
	luaL_checktype(L, idx, LUA_TBOOLEAN);
	return lua_toboolean(L, idx);
}

/* --- identity and envelope --- */

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

static int message_set_sender_to(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	struct mailbox box;
	if (bind_to_address(L, 2, &box) != 0)
		return policy_raise(L);
	message_set_sender(m, box.email);
	return 0;
}

static int message_to_recipient(lua_State *L, int idx, str_t *out)
{
	struct mailbox box;
	if (bind_to_address(L, idx, &box) != 0)
		return -1;
	if (box.email.n == 0) {
		err_set(ERR_INVALID, "the null address cannot be a recipient");
		return -1;
	}
	*out = box.email;
	return 0;
}

/* The recipients at idx, an address or a list of them; slices of that value. On the stack it leaves what owns
 * the array. */
static str_t *message_check_recipients(lua_State *L, int idx, uint32_t *n_out)
{
	bool is_list = lua_istable(L, idx);
	size_t n = is_list ? lua_rawlen(L, idx) : 1, n_pairs = 0;
	if (is_list) {
		for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1))
			n_pairs++;
		luaL_argcheck(L, n_pairs == n, idx, "a list of recipients has no other keys than 1, 2, ...");
		luaL_argcheck(L, n > 0, idx, "a list of recipients has at least one");
		luaL_argcheck(L, n <= RECIPIENTS_MAX, idx, "too many recipients");
	}
	str_t *list = lua_newuserdatauv(L, n * sizeof(*list), 0);
	for (size_t i = 0; i < n; i++) {
		if (is_list)
			lua_rawgeti(L, idx, (lua_Integer)i + 1);
		if (message_to_recipient(L, is_list ? -1 : idx, &list[i]) != 0) {
			if (is_list)
				err_wrap("recipient %zu", i + 1);
			policy_raise(L);
		}
		if (is_list)
			lua_pop(L, 1); /* the list holds it */
	}
	*n_out = (uint32_t)n;
	return list;
}

static int message_set_recipient(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	uint32_t n;
	const str_t *list = message_check_recipients(L, 2, &n);
	message_set_recipients(m, list, n);
	return 0;
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

/* --- metadata --- */

static void meta_free_json(void *p)
{
	json_decref(p);
}

int bind_get_meta(lua_State *L, const struct meta *m)
{
	str_t key, json;
	key.p = luaL_checklstring(L, 2, &key.n);
	if (!meta_get_json(m, key, &json)) {
		lua_pushnil(L);
		return 1;
	}
	void **box = policy_box(L, meta_free_json);
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

int bind_set_meta(lua_State *L, struct meta *m)
{
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
	meta_set_json(m, key, buf_str(&text));
	buf_fini(&text);
	return 0;
}

static int message_get_meta(lua_State *L)
{
	return bind_get_meta(L, &policy_check_message(L, 1)->meta);
}

static int message_set_meta(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	(void)bind_set_meta(L, &m->meta);
	message_touch(m);
	return 0;
}

/* --- data --- */

static void message_drop_body(void *p)
{
	body_unref(p);
}

static int message_get_data(lua_State *L)
{
	struct message *m = bind_check_message_with_body(L);
	void **box = policy_box(L, message_drop_body);
	struct body *body = body_ref(m->body);
	*box = body;
	lua_pushlstring(L, m->prefix != NULL ? m->prefix : "", m->prefix != NULL ? m->n_prefix_bytes : 0);
	lua_pushlstring(L, body->p, body->n_bytes);
	lua_concat(L, 2);
	policy_box_free(box);
	return 1;
}

/* Data as every other way in has it: CRLF lines without NUL. NULL with the error. */
static struct body *message_body_of(str_t data)
{
	const char *nul = data.n > 0 ? memchr(data.p, 0, data.n) : NULL;
	if (nul != NULL) {
		err_set(ERR_INVALID, "the data has a NUL byte at position %zu", (size_t)(nul - data.p) + 1);
		return NULL;
	}
	struct buf crlf = BUF_INIT;
	struct body *b = body_new(text_normalise_crlf(data, &crlf) ? buf_str(&crlf) : data);
	buf_fini(&crlf);
	return b;
}

static int message_set_data(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	str_t data;
	luaL_checktype(L, 2, LUA_TSTRING);
	data.p = lua_tolstring(L, 2, &data.n);
	struct body *b = message_body_of(data);
	if (b == NULL)
		return policy_raise(L);
	message_set_prefix(m, STR("")); /* it was a part of the data */
	message_replace_body(m, b);
	body_unref(b);
	return 0;
}

/* --- attempts --- */

static int message_num_attempts(lua_State *L)
{
	lua_pushinteger(L, policy_check_message(L, 1)->n_attempts);
	return 1;
}

static int message_increment_num_attempts(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	if (m->n_attempts < UINT16_MAX)
		m->n_attempts++;
	message_touch(m);
	return 0;
}

/* --- the spool --- */

static struct message *message_save_first(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	if (message_save_it == NULL)
		luaL_error(L, "the message cannot be saved: no spool is open");
	else if (message_save_it(m, policy_deadline(L)) != 0)
		policy_raise(L);
	return m;
}

static int message_save(lua_State *L)
{
	message_save_first(L);
	return 0;
}

static int message_shrink_data(lua_State *L)
{
	message_set_body(message_save_first(L), NULL);
	return 0;
}

static int message_shrink(lua_State *L)
{
	struct message *m = message_save_first(L);
	message_set_body(m, NULL);
	message_shed_meta(m);
	return 0;
}

static int message_set_force_sync(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	luaL_checktype(L, 2, LUA_TBOOLEAN);
	m->is_force_synced = lua_toboolean(L, 2);
	return 0;
}

/* --- kumo.make_message --- */

static void message_drop(void *p)
{
	message_unref(p);
}

static int kumo_make_message(lua_State *L)
{
	struct mailbox sender;
	str_t data;
	uint32_t n;
	if (bind_to_address(L, 1, &sender) != 0) {
		err_wrap("the sender");
		return policy_raise(L);
	}
	luaL_checktype(L, 3, LUA_TSTRING);
	data.p = lua_tolstring(L, 3, &data.n);
	const str_t *rcpt = message_check_recipients(L, 2, &n);
	void **box = policy_box(L, message_drop);
	struct body *b = message_body_of(data);
	if (b == NULL)
		return policy_raise(L);
	struct message *m = message_new(sender.email, rcpt, n, b);
	body_unref(b);
	*box = m;
	m->is_draft = true;
	policy_push_message(L, m);
	policy_box_free(box);
	return 1;
}

static void message_open(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"id", message_id},
		{"sender", message_sender},
		{"recipient", message_recipient},
		{"recipient_list", message_recipient_list},
		{"set_sender", message_set_sender_to},
		{"set_recipient", message_set_recipient},
		{"queue_name", message_lua_queue_name},
		{"get_meta", message_get_meta},
		{"set_meta", message_set_meta},
		{"get_data", message_get_data},
		{"set_data", message_set_data},
		{"num_attempts", message_num_attempts},
		{"increment_num_attempts", message_increment_num_attempts},
		{"save", message_save},
		{"shrink", message_shrink},
		{"shrink_data", message_shrink_data},
		{"set_force_sync", message_set_force_sync},
		{NULL, NULL},
	};
	lua_pushcfunction(L, kumo_make_message);
	lua_setfield(L, -2, "make_message");
	bind_open_address(L);
	policy_push_message_class(L);
	luaL_setfuncs(L, methods, 0);
	bind_open_message_headers(L);
	bind_open_message_schedule(L);
	lua_pop(L, 1);
}

void bind_register_message(void)
{
	bind_register_message_headers();
	bind_register_message_schedule();
	policy_add_library(message_open);
}
