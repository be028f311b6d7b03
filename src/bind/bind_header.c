/* bind_header.c - Header, a copy of one field, and HeaderMap, the fields of a part. A map holds its part;
 * what is set through it is in the part at once. */
#include "base/err.h"
#include "bind/bind_mime_impl.h"
#include "mime/header_add.h"

#include <lauxlib.h>

static const char *const header_class = "Header";
static const char *const map_class = "HeaderMap";

/* --- Header: the field's bytes are the userdata's --- */

struct header_box {
	struct mime_field field; /* slices of whole */
	char whole[];
};

/* A Header: a copy of the field. */
static void bind_push_header(lua_State *L, const struct mime_field *f)
{
	struct header_box *h = lua_newuserdatauv(L, sizeof *h + f->whole.n + 1, 0);
	memcpy(h->whole, f->whole.n > 0 ? f->whole.p : "", f->whole.n);
	h->whole[f->whole.n] = 0;
	h->field = (struct mime_field){.whole = str_mk(h->whole, f->whole.n)};
	if (!mime_field_split(&h->field))
		h->field.name = str_head(h->field.whole, f->name.n); /* a name and nothing else */
	luaL_setmetatable(L, header_class);
}

static const struct mime_field *header_check(lua_State *L, int idx)
{
	struct header_box *h = luaL_checkudata(L, idx, header_class);
	return &h->field;
}

static void push_str(lua_State *L, str_t s)
{
	lua_pushlstring(L, s.n > 0 ? s.p : "", s.n);
}

static int header_push_as(lua_State *L, const struct mime_field *f, enum header_kind kind)
{
	if (bind_push_header_value(L, kind, f->raw_value) == 0)
		return 1;
	err_wrap("invalid header `" STR_FMT "`", STR_ARG(f->name));
	return policy_raise(L);
}

/* What cannot be read as its name has it comes as text. */
static int header_push_any(lua_State *L, const struct mime_field *f)
{
	if (bind_push_header_value(L, header_kind_of(f->name), f->raw_value) != 0) {
		err_clear();
		bind_push_header_text(L, f->raw_value);
	}
	return 1;
}

static int header_on_index(lua_State *L)
{
	static const struct {
		const char *name;
		enum header_kind kind;
	} accessors[] = {
		{"address_list", HEADER_ADDRESSES},  {"mailbox_list", HEADER_MAILBOXES},
		{"mailbox", HEADER_MAILBOX},	     {"message_id", HEADER_MESSAGE_ID},
		{"mime_params", HEADER_MIME_PARAMS}, {"message_id_list", HEADER_MESSAGE_ID_LIST},
		{"unstructured", HEADER_TEXT},	     {"authentication_results", HEADER_AUTH_RESULTS},
	};
	const struct mime_field *f = header_check(L, 1);
	const char *key = luaL_checkstring(L, 2);
	if (strcmp(key, "name") == 0) {
		push_str(L, f->name);
		return 1;
	}
	if (strcmp(key, "raw_value") == 0) {
		str_t raw = f->raw_value;
		while (raw.n > 0 && (raw.p[0] == ' ' || raw.p[0] == '\t'))
			raw = str_skip(raw, 1);
		push_str(L, raw);
		return 1;
	}
	if (strcmp(key, "value") == 0)
		return header_push_any(L, f);
	for (size_t i = 0; i < ARRAY_SIZE(accessors); i++)
		if (strcmp(key, accessors[i].name) == 0)
			return header_push_as(L, f, accessors[i].kind);
	return luaL_error(L, "a Header has no field `%s`", key);
}

static int header_on_tostring(lua_State *L)
{
	push_str(L, header_check(L, 1)->whole);
	return 1;
}

/* --- HeaderMap --- */

void bind_push_header_map(lua_State *L, struct mime_part *p)
{
	struct mime_part **box = lua_newuserdatauv(L, sizeof(*box), 0);
	*box = NULL;
	luaL_setmetatable(L, map_class);
	*box = mime_part_ref(p);
}

static struct mime_part *map_check(lua_State *L)
{
	return *(struct mime_part **)luaL_checkudata(L, 1, map_class);
}

static int map_on_gc(lua_State *L)
{
	struct mime_part **box = luaL_checkudata(L, 1, map_class);
	mime_part_unref(*box);
	*box = NULL;
	return 0;
}

static int map_on_tostring(lua_State *L)
{
	struct buf *b = policy_box_buf(L);
	mime_part_write_fields(map_check(L), b);
	push_str(L, buf_str(b));
	buf_fini(b);
	return 1;
}

/* The known fields: headers:from(), headers:set_from(value). The name of a method is that of the field, in
 * lower case and with `_`. */
static const str_t map_fields[] = {
	STR("Bcc"),	     STR("Cc"),
	STR("Comments"),     STR("Content-Disposition"),
	STR("Content-ID"),   STR("Content-Transfer-Encoding"),
	STR("Content-Type"), STR("From"),
	STR("Message-ID"),   STR("MIME-Version"),
	STR("References"),   STR("Reply-To"),
	STR("Resent-Bcc"),   STR("Resent-Cc"),
	STR("Resent-From"),  STR("Resent-Sender"),
	STR("Resent-To"),    STR("Sender"),
	STR("Subject"),	     STR("To"),
};

static str_t map_upvalue_field(lua_State *L)
{
	return map_fields[lua_tointeger(L, lua_upvalueindex(1))];
}

static int map_get(lua_State *L)
{
	str_t name = map_upvalue_field(L);
	const struct mime_field *f = mime_field_first(map_check(L), name);
	if (f == NULL) {
		lua_pushnil(L);
		return 1;
	}
	return header_push_as(L, f, header_kind_of(name));
}

/* `headers.subject()`, without the map, is what the documentation has: a getter comes with its map. */
static int map_get_bound(lua_State *L)
{
	if (lua_gettop(L) == 0)
		lua_pushvalue(L, lua_upvalueindex(2));
	return map_get(L);
}

/* The methods are the first upvalue; there a getter is the index of its field. */
static int map_on_index(lua_State *L)
{
	lua_settop(L, 2);
	lua_gettable(L, lua_upvalueindex(1));
	if (lua_isinteger(L, 2)) {
		lua_pushvalue(L, 1);
		lua_pushcclosure(L, map_get_bound, 2);
	}
	return 1;
}

static int map_set(lua_State *L)
{
	str_t name = map_upvalue_field(L);
	struct mime_part *p = map_check(L);
	luaL_checkany(L, 2);
	struct buf *whole = policy_box_buf(L);
	if (bind_write_header_value(L, 2, header_kind_of(name), name, whole) != 0)
		return policy_raise(L);
	mime_field_set(p, buf_str(whole));
	buf_fini(whole);
	return 0;
}

static struct buf *map_check_field(lua_State *L)
{
	str_t name, value;
	name.p = luaL_checklstring(L, 2, &name.n);
	value.p = luaL_checklstring(L, 3, &value.n);
	struct buf *whole = policy_box_buf(L);
	if (header_add(whole, name, value, true) != 0)
		policy_raise(L);
	return whole;
}

static int map_append(lua_State *L)
{
	struct mime_part *p = map_check(L);
	struct buf *whole = map_check_field(L);
	mime_field_append(p, buf_str(whole));
	buf_fini(whole);
	return 0;
}

static int map_prepend(lua_State *L)
{
	struct mime_part *p = map_check(L);
	struct buf *whole = map_check_field(L);
	mime_field_prepend(p, buf_str(whole));
	buf_fini(whole);
	return 0;
}

static int map_get_first_named(lua_State *L)
{
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	const struct mime_field *f = mime_field_first(map_check(L), name);
	if (f != NULL)
		bind_push_header(L, f);
	else
		lua_pushnil(L);
	return 1;
}

static int map_remove_all_named(lua_State *L)
{
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	lua_pushinteger(L, (lua_Integer)mime_field_remove(map_check(L), name));
	return 1;
}

/* Upvalues: the map, the index of the next field, the name or nil. */
static int map_next(lua_State *L)
{
	const struct mime_part *p = *(struct mime_part **)lua_touserdata(L, lua_upvalueindex(1));
	size_t at = (size_t)lua_tointeger(L, lua_upvalueindex(2));
	const struct mime_field *f = NULL;
	str_t name = STR_NULL;
	if (lua_type(L, lua_upvalueindex(3)) == LUA_TSTRING) {
		name.p = lua_tolstring(L, lua_upvalueindex(3), &name.n);
		f = mime_field_find(p, name, &at);
	} else {
		while (at < p->n_fields && p->field[at].name.n == 0)
			at++;
		f = at < p->n_fields ? &p->field[at++] : NULL;
	}
	lua_pushinteger(L, (lua_Integer)at);
	lua_replace(L, lua_upvalueindex(2));
	if (f != NULL)
		bind_push_header(L, f);
	else
		lua_pushnil(L);
	return 1;
}

static int map_iter(lua_State *L)
{
	map_check(L);
	if (!lua_isnoneornil(L, 2))
		luaL_checkstring(L, 2);
	lua_settop(L, 2);
	lua_pushvalue(L, 1);
	lua_pushinteger(L, 0);
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, map_next, 3);
	return 1;
}

/* --- classes --- */

void bind_open_header(lua_State *L)
{
	static const luaL_Reg header[] = {
		{"__index", header_on_index}, {"__tostring", header_on_tostring}, {NULL, NULL}};
	luaL_newmetatable(L, header_class);
	luaL_setfuncs(L, header, 0);
	lua_pop(L, 1);
}

/* "set_content_type" for Content-Type. */
static void map_method_name(const char *prefix, str_t field, char out[40])
{
	size_t n = strlen(prefix);
	memcpy(out, prefix, n);
	for (size_t i = 0; i < field.n; i++)
		out[n++] = (char)(field.p[i] == '-' ? '_' : field.p[i] | 32);
	out[n] = 0;
}

void bind_open_header_map(lua_State *L)
{
	static const luaL_Reg meta[] = {{"__gc", map_on_gc}, {"__tostring", map_on_tostring}, {NULL, NULL}};
	static const luaL_Reg methods[] = {
		{"append", map_append},
		{"prepend", map_prepend},
		{"get_first_named", map_get_first_named},
		{"remove_all_named", map_remove_all_named},
		{"iter", map_iter},
		{NULL, NULL},
	};
	luaL_newmetatable(L, map_class);
	luaL_setfuncs(L, meta, 0);
	luaL_newlib(L, methods);
	for (size_t i = 0; i < ARRAY_SIZE(map_fields); i++) {
		char name[40];
		lua_pushinteger(L, (lua_Integer)i);
		map_method_name("", map_fields[i], name);
		lua_setfield(L, -2, name);
		lua_pushinteger(L, (lua_Integer)i);
		lua_pushcclosure(L, map_set, 1);
		map_method_name("set_", map_fields[i], name);
		lua_setfield(L, -2, name);
	}
	lua_pushcclosure(L, map_on_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
}
