/* bind_message_headers.c - headers of the message object: reading them decoded, adding, removing, importing
 * into metadata. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_message_impl.h"
#include "mime/header_add.h"
#include "mail/message_header.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

/* --- reading --- */

/* value: scratch that a box owns. */
static void headers_push_value(lua_State *L, const struct header_field *f, struct buf *value)
{
	buf_clear(value);
	header_decode_lenient(f->raw_value, value);
	lua_pushlstring(L, value->n != 0 ? value->p : "", value->n);
}

static int message_get_first_named_header_value(lua_State *L)
{
	struct message *m = bind_check_message_with_body(L);
	struct header_field f;
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	struct buf *value = policy_box_buf(L);
	if (message_header_find(m, name, &f))
		headers_push_value(L, &f, value);
	else
		lua_pushnil(L);
	buf_fini(value);
	return 1;
}

static int message_get_all_named_header_values(lua_State *L)
{
	struct message *m = bind_check_message_with_body(L);
	struct message_header_iter it;
	struct header_field f;
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	struct buf *value = policy_box_buf(L);
	lua_newtable(L);
	message_header_iter_init(&it, m);
	for (lua_Integer n = 1; message_header_next(&it, &f);) {
		if (!str_ieq(f.name, name))
			continue;
		headers_push_value(L, &f, value);
		lua_rawseti(L, -2, n++);
	}
	buf_fini(value);
	return 1;
}

static int message_get_all_headers(lua_State *L)
{
	struct message *m = bind_check_message_with_body(L);
	struct message_header_iter it;
	struct header_field f;
	struct buf *value = policy_box_buf(L);
	lua_newtable(L);
	message_header_iter_init(&it, m);
	for (lua_Integer n = 1; message_header_next(&it, &f); n++) {
		lua_createtable(L, 2, 0);
		lua_pushlstring(L, f.name.p, f.name.n);
		lua_rawseti(L, -2, 1);
		headers_push_value(L, &f, value);
		lua_rawseti(L, -2, 2);
		lua_rawseti(L, -2, n);
	}
	buf_fini(value);
	return 1;
}

/* --- adding --- */

/* The field that the arguments (name, value, encode) ask for; in a box of the stack, to be emptied with
 * buf_fini. */
static struct buf *headers_check_field(lua_State *L)
{
	str_t name, value;
	name.p = luaL_checklstring(L, 2, &name.n);
	value.p = luaL_checklstring(L, 3, &value.n);
	bool is_encoded = bind_opt_bool(L, 4, false);
	struct buf *field = policy_box_buf(L);
	if (header_add(field, name, value, is_encoded) != 0)
		policy_raise(L);
	return field;
}

static int message_lua_append_header(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	struct buf *field = headers_check_field(L);
	message_append_header(m, buf_str(field));
	buf_fini(field);
	return 0;
}

/* Into the prefix: the body goes on being shared. */
static int message_lua_prepend_header(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	struct buf *field = headers_check_field(L);
	message_add_prefix(m, buf_str(field));
	buf_fini(field);
	return 0;
}

/* --- lists of names --- */

struct headers_names {
	str_t *v; /* in a value on the stack; the texts are in the table */
	size_t n;
	bool is_all;   /* no list: everything that begins with X- */
	bool is_first; /* a `true` at the end of the list (docs/reference/message/import_x_headers has it
			  there) */
};

static struct headers_names headers_check_names(lua_State *L, int idx, bool has_flag)
{
	struct headers_names names = {.is_all = bind_is_null(L, idx)};
	if (names.is_all)
		return names;
	luaL_checktype(L, idx, LUA_TTABLE);
	size_t n = lua_rawlen(L, idx), n_pairs = 0;
	for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1))
		n_pairs++;
	luaL_argcheck(L, n_pairs == n, idx, "a list of header names has no other keys than 1, 2, ...");
	names.v = lua_newuserdatauv(L, (n + 1) * sizeof(*names.v), 0);
	for (size_t i = 0; i < n; i++) {
		int type = lua_rawgeti(L, idx, (lua_Integer)i + 1);
		if (has_flag && type == LUA_TBOOLEAN && i + 1 == n) {
			names.is_first = lua_toboolean(L, -1);
		} else {
			if (type != LUA_TSTRING)
				luaL_error(L,
					   "bad argument #%d: element %d of the list is a %s, "
					   "expected the name of a header",
					   idx - 1, (int)i + 1, lua_typename(L, type));
			str_t *name = &names.v[names.n++];
			name->p = lua_tolstring(L, -1, &name->n);
		}
		lua_pop(L, 1);
	}
	return names;
}

/* --- removing --- */

static bool headers_is_named(str_t name, void *arg)
{
	const struct headers_names *names = arg;
	if (names->is_all)
		return str_istarts(name, STR("X-"));
	for (size_t i = 0; i < names->n; i++)
		if (str_ieq(name, names->v[i]))
			return true;
	return false;
}

static int message_remove_all_named_headers(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	struct headers_names names = {.v = &name, .n = 1};
	message_remove_headers(m, headers_is_named, &names);
	return 0;
}

static int message_remove_x_headers(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	struct headers_names names = headers_check_names(L, 2, false);
	message_remove_headers(m, headers_is_named, &names);
	return 0;
}

/* --- importing --- */

static int message_import_x_headers(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	bool has_flag = !bind_is_null(L, 3),
	     flag = bind_opt_bool(L, 3, false); /* before anything else is on the stack */
	struct headers_names names = headers_check_names(L, 2, !has_flag);
	bool is_first = has_flag ? flag : names.is_first;
	size_t n = names.is_all ? 1 : names.n;
	struct header_import *spec = lua_newuserdatauv(L, (n + 1) * sizeof(*spec), 0);
	for (size_t i = 0; i < n; i++)
		spec[i] = (struct header_import){.name = names.is_all ? STR("X-") : names.v[i],
						 .is_prefix = names.is_all,
						 .match = is_first ? HEADER_FIRST : HEADER_LAST};
	if (message_import_headers(m, spec, n) != 0)
		return policy_raise(L);
	return 0;
}

struct import_spec {
	char *name, *target;
	int match, transform; /* enum header_match, header_transform */
	bool remove;
};
static const char *const match_words[] = {"first", "last", "all", NULL};
static const char *const transform_words[] = {"snake_case", "kebab_case", "camel_case", "pascal_case", NULL};

/* A name, or the beginning of one and a `*`. */
static int import_spec_check(void *obj)
{
	const struct import_spec *s = obj;
	str_t name = str_of(s->name);
	bool is_prefix = str_ends(name, STR("*"));
	if (is_prefix)
		name.n--;
	if (!header_name_is_valid(name) || str_chr(name, '*', 0) >= 0) {
		err_set(ERR_INVALID,
			"field `name`: invalid value: \"%.100s\", expected the name of a header, or the "
			"beginning of one followed by `*`",
			s->name);
		return -1;
	}
	if (is_prefix && s->target != NULL) {
		err_set(ERR_INVALID, "field `target`: it needs one name, and `%.100s` may match several",
			s->name);
		return -1;
	}
	return 0;
}

static const struct param import_spec_fields[] = {
	PARAM_STR(import_spec, name, .is_required = true,
		  .doc = "Name of a header, or `X-*`: all whose names begin so. In any case."),
	PARAM_ENUM(import_spec, match, match_words, .def = "last",
		   .doc = "Which of several: the first, the last, or all as a list."),
	PARAM_ENUM(import_spec, transform, transform_words, .def = "snake_case",
		   .doc = "How the key of the metadata is made of the name."),
	PARAM_STR(import_spec, target, .doc = "The key of the metadata; only where `name` is one name."),
	PARAM_BOOL(import_spec, remove, .def = "false", .doc = "Take the headers out of the message."),
	{0}};
static const struct param_schema import_spec_schema = {"HeaderImport", import_spec_fields,
						       sizeof(struct import_spec), import_spec_check};

struct import_specs {
	struct import_spec *v;
	size_t n;
};

static void import_specs_free(void *p)
{
	struct import_specs *s = p;
	for (size_t i = 0; i < s->n; i++)
		param_fini(&import_spec_schema, &s->v[i]);
	free(s->v);
	free(s);
}

static int import_specs_read(lua_State *L, int idx, struct import_specs *out)
{
	json_t *list = value_from_lua(L, idx);
	int rc = -1;
	if (list == NULL)
		return -1;
	size_t n = json_array_size(list);
	if (!json_is_array(list) && json_object_size(list) > 0) {
		err_set(ERR_INVALID, "a list of tables was expected, { { name = 'X-*' }, ... }");
		goto out;
	}
	out->v = xcalloc(n + 1, sizeof(*out->v));
	for (; out->n < n; out->n++) {
		if (param_parse_json(&import_spec_schema, json_array_get(list, out->n), &out->v[out->n]) !=
		    0) {
			err_wrap("spec %zu", out->n + 1);
			goto out;
		}
	}
	rc = 0;
out:
	json_decref(list);
	return rc;
}

static int import_by_specs(struct message *m, const struct import_specs *s)
{
	struct header_import *spec = xcalloc(s->n + 1, sizeof(*spec));
	for (size_t i = 0; i < s->n; i++) {
		const struct import_spec *from = &s->v[i];
		str_t name = str_of(from->name);
		bool is_prefix = str_ends(name, STR("*"));
		spec[i] = (struct header_import){.name = is_prefix ? str_head(name, name.n - 1) : name,
						 .is_prefix = is_prefix,
						 .is_removed = from->remove,
						 .match = (enum header_match)from->match,
						 .transform = (enum header_transform)from->transform,
						 .target = from->target != NULL ? str_of(from->target)
										: STR_NULL};
	}
	int rc = message_import_headers(m, spec, s->n);
	free(spec);
	return rc;
}

static int message_lua_import_headers(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	luaL_checktype(L, 2, LUA_TTABLE);
	void **box = policy_box(L, import_specs_free);
	struct import_specs *specs = xnew(struct import_specs);
	*box = specs;
	if (import_specs_read(L, 2, specs) != 0 || import_by_specs(m, specs) != 0)
		return policy_raise(L);
	policy_box_free(box);
	return 0;
}

void bind_register_message_headers(void)
{
	param_schema_register(&import_spec_schema);
}

void bind_open_message_headers(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"get_first_named_header_value", message_get_first_named_header_value},
		{"get_all_named_header_values", message_get_all_named_header_values},
		{"get_all_headers", message_get_all_headers},
		{"append_header", message_lua_append_header},
		{"prepend_header", message_lua_prepend_header},
		{"remove_all_named_headers", message_remove_all_named_headers},
		{"remove_x_headers", message_remove_x_headers},
		{"import_x_headers", message_import_x_headers},
		{"import_headers", message_lua_import_headers},
		{NULL, NULL},
	};
	luaL_setfuncs(L, methods, 0);
}
