/* bind_header_value.c - structured values of headers as Lua tables: a mailbox is { name, address = {
 * local_part, domain } }, a group { name, entries = { mailbox ... } }, parameters { value, parameters = { ...
 * } }, results { serv_id, version, results = { ... } }, ids are texts without brackets. bind_header_write.c
 * takes the same back. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_mime_impl.h"
#include "mime/header.h"
#include "mime/message_id.h"
#include "policy/value.h"

#include <lauxlib.h>

static void push_str(lua_State *L, str_t s)
{
	lua_pushlstring(L, s.n > 0 ? s.p : "", s.n);
}

static void set_str(lua_State *L, const char *key, str_t s)
{
	if (s.p == NULL)
		return;
	push_str(L, s);
	lua_setfield(L, -2, key);
}

static void push_mailbox(lua_State *L, const struct address_mailbox *m)
{
	lua_createtable(L, 0, 2);
	set_str(L, "name", m->name);
	lua_createtable(L, 0, 2);
	set_str(L, "local_part", m->local);
	set_str(L, "domain", m->domain);
	lua_setfield(L, -2, "address");
}

static void push_group(lua_State *L, const struct address *a)
{
	lua_createtable(L, 0, 2);
	set_str(L, "name", a->box.name);
	lua_createtable(L, (int)a->n_members, 0);
	for (size_t i = 0; i < a->n_members; i++) {
		push_mailbox(L, &a->member[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "entries");
}

static void free_addresses(void *p)
{
	address_list_fini(p);
	free(p);
}

static int push_addresses(lua_State *L, enum header_kind kind, str_t raw)
{
	void **box = policy_box(L, free_addresses);
	struct address_list *l = xnew(struct address_list);
	*box = l;
	if ((kind == HEADER_ADDRESSES ? address_list_parse : address_list_parse_mailboxes)(raw, l) != 0) {
		lua_pop(L, 1);
		return -1;
	}
	if (kind == HEADER_MAILBOX && l->n != 1) {
		err_set(ERR_INVALID, "invalid address: expected one, found %zu", l->n);
		lua_pop(L, 1);
		return -1;
	}
	if (kind != HEADER_MAILBOX)
		lua_createtable(L, (int)l->n, 0);
	for (size_t i = 0; i < l->n; i++) {
		if (l->v[i].is_group)
			push_group(L, &l->v[i]);
		else
			push_mailbox(L, &l->v[i].box);
		if (kind != HEADER_MAILBOX)
			lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_remove(L, -2);
	policy_box_free(box);
	return 0;
}

static int push_id(lua_State *L, str_t raw)
{
	str_t id;
	if (message_id_parse(raw, &id) != 0)
		return -1;
	push_str(L, id);
	return 0;
}

static int push_ids(lua_State *L, str_t raw)
{
	str_t id;
	int rc;
	lua_newtable(L);
	for (lua_Integer n = 1; (rc = message_id_next(&raw, &id)) == 1; n++) {
		push_str(L, id);
		lua_rawseti(L, -2, n);
	}
	if (rc != 0)
		lua_pop(L, 1);
	return rc;
}

static void free_params(void *p)
{
	mime_params_fini(p);
	free(p);
}

static int push_params(lua_State *L, str_t raw)
{
	void **box = policy_box(L, free_params);
	struct mime_params *p = xnew(struct mime_params);
	*box = p;
	if (mime_params_parse(raw, p) != 0) {
		lua_pop(L, 1);
		return -1;
	}
	lua_createtable(L, 0, 2);
	set_str(L, "value", p->value);
	lua_createtable(L, 0, (int)p->n);
	for (size_t i = 0; i < p->n; i++) {
		push_str(L, p->param[i].name);
		push_str(L, p->param[i].value);
		lua_rawset(L, -3);
	}
	lua_setfield(L, -2, "parameters");
	lua_remove(L, -2);
	policy_box_free(box);
	return 0;
}

static void free_results(void *p)
{
	auth_results_fini(p);
	free(p);
}

static void push_result(lua_State *L, const struct auth_result *r)
{
	lua_createtable(L, 0, 5);
	set_str(L, "method", r->method);
	set_str(L, "result", r->result);
	set_str(L, "reason", r->reason);
	if (r->method_version != 0) {
		lua_pushinteger(L, r->method_version);
		lua_setfield(L, -2, "method_version");
	}
	lua_createtable(L, 0, (int)r->n_props);
	for (size_t i = 0; i < r->n_props; i++) {
		push_str(L, r->prop[i].name);
		push_str(L, r->prop[i].value);
		lua_rawset(L, -3);
	}
	lua_setfield(L, -2, "props");
}

static int push_results(lua_State *L, str_t raw)
{
	void **box = policy_box(L, free_results);
	struct auth_results *r = xnew(struct auth_results);
	*box = r;
	if (auth_results_parse(raw, r) != 0) {
		lua_pop(L, 1);
		return -1;
	}
	lua_createtable(L, 0, 3);
	set_str(L, "serv_id", r->server_id);
	if (r->version != 0) {
		lua_pushinteger(L, r->version);
		lua_setfield(L, -2, "version");
	}
	lua_createtable(L, (int)r->n, 0);
	for (size_t i = 0; i < r->n; i++) {
		push_result(L, &r->v[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "results");
	lua_remove(L, -2);
	policy_box_free(box);
	return 0;
}

void bind_push_header_text(lua_State *L, str_t raw_value)
{
	struct buf *text = policy_box_buf(L);
	header_decode_lenient(raw_value, text);
	push_str(L, buf_str(text));
	buf_fini(text);
	lua_remove(L, -2);
}

int bind_push_header_value(lua_State *L, enum header_kind kind, str_t raw_value)
{
	switch (kind) {
	case HEADER_ADDRESSES:
	case HEADER_MAILBOXES:
	case HEADER_MAILBOX:
		return push_addresses(L, kind, raw_value);
	case HEADER_MESSAGE_ID:
		return push_id(L, raw_value);
	case HEADER_MESSAGE_ID_LIST:
		return push_ids(L, raw_value);
	case HEADER_MIME_PARAMS:
		return push_params(L, raw_value);
	case HEADER_AUTH_RESULTS:
		return push_results(L, raw_value);
	case HEADER_TEXT:
		break;
	}
	bind_push_header_text(L, raw_value);
	return 0;
}
