/* bind_mime_part.c - MimePart, a part of a message's tree, and the functions of kumo.mimepart that make
 * parts. A value holds its part; a part that is taken out of a tree (structure.text_part) is still the
 * tree's: what is set in it is in the tree. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_mime_impl.h"
#include "mime/header_lex.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

static const char *const part_class = "MimePart";

#define GC_STEP_BYTES ((size_t)64 << 10)

/* --- the value --- */

/* The collector knows nothing of the bytes that a part holds: it is told. */
static void part_account(lua_State *L, size_t n_bytes)
{
	if (n_bytes >= GC_STEP_BYTES)
		lua_gc(L, LUA_GCSTEP, (int)(n_bytes / 1024 < 1 << 20 ? n_bytes / 1024 : 1 << 20));
}

struct mime_part **bind_new_mime_part(lua_State *L)
{
	struct mime_part **box = lua_newuserdatauv(L, sizeof(*box), 0);
	*box = NULL;
	luaL_setmetatable(L, part_class);
	return box;
}

/* Takes a reference of its own. */
static void bind_push_mime_part(lua_State *L, struct mime_part *p)
{
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_ref(p);
}

struct mime_part *bind_check_mime_part(lua_State *L, int idx)
{
	return *(struct mime_part **)luaL_checkudata(L, idx, part_class);
}

static int part_on_gc(lua_State *L)
{
	struct mime_part **box = luaL_checkudata(L, 1, part_class);
	mime_part_unref(*box);
	*box = NULL;
	return 0;
}

static int part_push_buf(lua_State *L, struct buf *b)
{
	lua_pushlstring(L, b->n > 0 ? b->p : "", b->n);
	buf_fini(b);
	return 1;
}

static int part_on_tostring(lua_State *L)
{
	const struct mime_part *p = bind_check_mime_part(L, 1);
	struct buf *b = policy_box_buf(L);
	mime_part_write(p, b);
	return part_push_buf(L, b);
}

static int part_on_index(lua_State *L)
{
	struct mime_part *p = bind_check_mime_part(L, 1);
	const char *key = luaL_checkstring(L, 2);
	if (strcmp(key, "headers") == 0) {
		bind_push_header_map(L, p);
		return 1;
	}
	if (strcmp(key, "body") == 0 || strcmp(key, "id") == 0) {
		struct buf *b = policy_box_buf(L);
		(key[0] == 'b' ? mime_part_decode_text : mime_part_id)(p, b);
		return part_push_buf(L, b);
	}
	lua_pushvalue(L, lua_upvalueindex(1)); /* the methods */
	lua_pushvalue(L, 2);
	if (lua_rawget(L, -2) == LUA_TNIL)
		return luaL_error(L, "a MimePart has no field `%s`", key);
	return 1;
}

static void part_set_body(lua_State *L, struct mime_part *p, int idx, str_t type)
{
	str_t content;
	luaL_checktype(L, idx, LUA_TSTRING);
	content.p = lua_tolstring(L, idx, &content.n);
	if (mime_part_set_body(p, content, type) != 0)
		policy_raise(L);
}

static int part_on_newindex(lua_State *L)
{
	struct mime_part *p = bind_check_mime_part(L, 1);
	const char *key = luaL_checkstring(L, 2);
	if (strcmp(key, "body") != 0)
		return luaL_error(L, "the field `%s` of a MimePart cannot be set: only `body` can", key);
	part_set_body(L, p, 3, STR_NULL);
	return 0;
}

/* --- its methods --- */

static int part_replace_body(lua_State *L)
{
	struct mime_part *p = bind_check_mime_part(L, 1);
	part_set_body(L, p, 2, lua_isnoneornil(L, 3) ? STR_NULL : bind_check_header_text(L, 3));
	return 0;
}

static int part_append_part(lua_State *L)
{
	struct mime_part *p = bind_check_mime_part(L, 1), *child = bind_check_mime_part(L, 2);
	if (mime_part_append(p, child) != 0)
		return policy_raise(L);
	return 0;
}

static int part_rebuild(lua_State *L)
{
	const struct mime_part *p = bind_check_mime_part(L, 1);
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_rebuild(p, NULL);
	return 1;
}

static void structure_free(void *p)
{
	mime_structure_fini(p);
	free(p);
}

static void structure_set_part(lua_State *L, const char *key, struct mime_part *p)
{
	if (p == NULL)
		return;
	bind_push_mime_part(L, p);
	lua_setfield(L, -2, key);
}

static void structure_set_text(lua_State *L, const char *key, str_t s)
{
	if (s.p == NULL)
		return;
	lua_pushlstring(L, s.n > 0 ? s.p : "", s.n);
	lua_setfield(L, -2, key);
}

static int part_get_simple_structure(lua_State *L)
{
	struct mime_part *p = bind_check_mime_part(L, 1);
	void **box = policy_box(L, structure_free);
	struct mime_structure *s = xnew(struct mime_structure);
	mime_part_structure(p, s);
	*box = s;
	lua_createtable(L, 0, 5);
	structure_set_part(L, "text_part", s->text);
	structure_set_part(L, "html_part", s->html);
	structure_set_part(L, "amp_html_part", s->amp);
	structure_set_part(L, "header_part", s->header);
	lua_createtable(L, (int)s->n_attached, 0);
	for (size_t i = 0; i < s->n_attached; i++) {
		const struct mime_attached *a = &s->attached[i];
		lua_createtable(L, 0, 5);
		structure_set_text(L, "file_name", a->file_name);
		structure_set_text(L, "content_id", a->content_id);
		structure_set_text(L, "content_type", a->type);
		lua_pushboolean(L, a->is_inline);
		lua_setfield(L, -2, "inline");
		structure_set_part(L, "part", a->part);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "attachments");
	policy_box_free(box);
	return 1;
}

/* --- making parts --- */

str_t bind_check_header_text(lua_State *L, int idx)
{
	str_t s;
	s.p = luaL_checklstring(L, idx, &s.n);
	if (header_has_controls(s) || !str_is_utf8(s))
		luaL_argerror(L, idx, "must be UTF-8 without CR, LF, NUL and other controls");
	return s;
}

void bind_push_text_part(lua_State *L, int idx, str_t type)
{
	str_t text;
	luaL_checktype(L, idx, LUA_TSTRING);
	text.p = lua_tolstring(L, idx, &text.n);
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_new_text(type, text);
	if (*box == NULL)
		policy_raise(L);
}

struct attachment_spec {
	char *file_name, *content_id;
	bool is_inline;
};
static const struct param attachment_fields[] = {
	PARAM_STR(attachment_spec, file_name, .doc = "The name that the attachment is saved by."),
	PARAM_STR(attachment_spec, content_id, .doc = "How HTML refers to it: `cid:` and this."),
	{.name = "inline",
	 .type = PT_BOOL,
	 .offset = offsetof(struct attachment_spec, is_inline),
	 .def = "false",
	 .doc = "It is shown in the text, not beside it."},
	{0}};
static const struct param_schema attachment_schema = {"AttachmentOptions", attachment_fields,
						      sizeof(struct attachment_spec), NULL};

void bind_register_mime_part(void)
{
	param_schema_register(&attachment_schema);
}

/* As a caller may write it: with or without angle brackets. */
static str_t content_id_of(const char *z)
{
	str_t id = str_of(z);
	return id.n > 2 && id.p[0] == '<' && id.p[id.n - 1] == '>' ? str_mk(id.p + 1, id.n - 2) : id;
}

void bind_push_binary_part(lua_State *L, int idx)
{
	struct attachment_spec spec = {0};
	struct mime_disposition d = {0};
	str_t type = bind_check_header_text(L, idx), data;
	luaL_checktype(L, idx + 1, LUA_TSTRING);
	data.p = lua_tolstring(L, idx + 1, &data.n);
	struct mime_part **box = bind_new_mime_part(L);
	if (!lua_isnil(L, idx + 2)) {
		luaL_checktype(L, idx + 2, LUA_TTABLE);
		if (param_parse_lua(&attachment_schema, L, idx + 2, &spec) != 0) {
			policy_raise(L);
			return;
		}
		d = (struct mime_disposition){.is_given = true, .is_inline = spec.is_inline};
		d.file_name = str_of(spec.file_name);
		d.content_id = content_id_of(spec.content_id);
	}
	*box = mime_part_new_binary(type, data, &d);
	if (d.is_given)
		param_fini(&attachment_schema, &spec);
	if (*box == NULL)
		policy_raise(L);
}

static int mimepart_new_text(lua_State *L)
{
	bind_push_text_part(L, 2, bind_check_header_text(L, 1));
	return 1;
}

static int mimepart_new_text_plain(lua_State *L)
{
	bind_push_text_part(L, 1, STR("text/plain"));
	return 1;
}

static int mimepart_new_html(lua_State *L)
{
	bind_push_text_part(L, 1, STR("text/html"));
	return 1;
}

static int mimepart_new_binary(lua_State *L)
{
	lua_settop(L, 3);
	bind_push_binary_part(L, 1);
	return 1;
}

static int mimepart_new_multipart(lua_State *L)
{
	str_t type = bind_check_header_text(L, 1), boundary = STR_NULL;
	luaL_checktype(L, 2, LUA_TTABLE);
	if (!lua_isnoneornil(L, 3))
		boundary = bind_check_header_text(L, 3);
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_new_multipart(type, boundary);
	if (*box == NULL)
		return policy_raise(L);
	lua_Integer n = luaL_len(L, 2);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, 2, i);
		struct mime_part **child = luaL_testudata(L, -1, part_class);
		if (child == NULL)
			return luaL_error(
				L, "bad argument #2: element %d of the list is a %s, expected a MimePart",
				(int)i, luaL_typename(L, -1));
		if (mime_part_append(*box, *child) != 0)
			return policy_raise(L);
		lua_pop(L, 1);
	}
	return 1;
}

static int mimepart_parse(lua_State *L)
{
	str_t bytes;
	luaL_checktype(L, 1, LUA_TSTRING);
	bytes.p = lua_tolstring(L, 1, &bytes.n);
	struct mime_part **box = bind_new_mime_part(L);
	*box = mime_part_parse(bytes);
	part_account(L, bytes.n);
	return 1;
}

void bind_open_mime_part(lua_State *L)
{
	static const luaL_Reg meta[] = {{"__gc", part_on_gc},
					{"__tostring", part_on_tostring},
					{"__newindex", part_on_newindex},
					{NULL, NULL}};
	static const luaL_Reg methods[] = {
		{"append_part", part_append_part},
		{"replace_body", part_replace_body},
		{"rebuild", part_rebuild},
		{"get_simple_structure", part_get_simple_structure},
		{NULL, NULL},
	};
	static const luaL_Reg functions[] = {
		{"new_text", mimepart_new_text},
		{"new_text_plain", mimepart_new_text_plain},
		{"new_html", mimepart_new_html},
		{"new_binary", mimepart_new_binary},
		{"new_multipart", mimepart_new_multipart},
		{"parse", mimepart_parse},
		{NULL, NULL},
	};
	luaL_newmetatable(L, part_class);
	luaL_setfuncs(L, meta, 0);
	luaL_newlib(L, methods);
	lua_pushcclosure(L, part_on_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
}
