/* value.c - Lua values to JSON and back.
 *
 * Reading a Lua value must not raise: callers hold things. So only API functions that cannot fail are used:
 * raw access, no metamethods, strings taken only from values that are strings already, stack space asked for
 * with lua_checkstack. What is being read is remembered as a chain of segments on the C stack, so that an
 * error can name the path. Cycles end at the depth limit; shared subtables, which could multiply without
 * bound, at the count limit.
 *
 * Arrays that come from JSON carry an empty metatable of ours as a mark, so that [] is [] again on its way
 * back. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/value_impl.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct value_seg {
	const struct value_seg *up;
	str_t key; /* p NULL: an index */
	lua_Integer index;
};

struct value_reader {
	lua_State *L;
	size_t n_nodes;
};

static const char value_array_key, value_encoder_key; /* their addresses are registry and metatable keys */

json_t *value_must(json_t *v)
{
	if (v == NULL)
		panic("out of memory in jansson");
	return v;
}

void value_obj_set(json_t *obj, str_t key, json_t *value)
{
	if (json_object_setn_new_nocheck(obj, key.n != 0 ? key.p : "", key.n, value) != 0)
		panic("out of memory in jansson");
}

void value_arr_add(json_t *arr, json_t *value)
{
	if (json_array_append_new(arr, value) != 0)
		panic("out of memory in jansson");
}

/* A JSON string; NULL when s is not UTF-8. */
static json_t *value_str(str_t s)
{
	if (!str_is_utf8(s))
		return NULL;
	return value_must(json_stringn_nocheck(s.n != 0 ? s.p : "", s.n));
}

/* --- from Lua --- */

static void value_path(const struct value_seg *at, struct buf *out)
{
	const struct value_seg *seg[VALUE_DEPTH_MAX + 2];
	size_t n = 0;
	for (; at != NULL && n < ARRAY_SIZE(seg); at = at->up)
		seg[n++] = at;
	while (n > 0) {
		const struct value_seg *s = seg[--n];
		if (s->key.p == NULL)
			buf_printf(out, "[%lld]", (long long)s->index);
		else
			buf_printf(out, "%s" STR_FMT, out->n != 0 ? "." : "", STR_ARG(str_head(s->key, 64)));
		if (out->n > 300) {
			buf_add_z(out, "...");
			return;
		}
	}
}

static json_t *value_fail(const struct value_seg *at, const char *what)
{
	struct buf path = BUF_INIT;
	value_path(at, &path);
	if (path.n != 0)
		err_set(ERR_INVALID, "%s, at `%s`", what, path.p);
	else
		err_set(ERR_INVALID, "%s", what);
	buf_fini(&path);
	return NULL;
}

static json_t *value_read(struct value_reader *r, int idx, const struct value_seg *at, int depth);

enum value_shape { SHAPE_ARRAY, SHAPE_OBJECT, SHAPE_BAD };

static bool value_is_marked_array(lua_State *L, int idx)
{
	if (!lua_getmetatable(L, idx))
		return false;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &value_array_key);
	bool is_marked = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is_marked;
}

static enum value_shape value_table_shape(struct value_reader *r, int idx, const struct value_seg *at,
					  lua_Integer *n)
{
	lua_State *L = r->L;
	lua_Integer n_int = 0, max = 0;
	bool has_string = false, is_sequence = true;
	struct value_seg name = {.up = at};
	lua_pushnil(L);
	while (lua_next(L, idx) != 0) {
		lua_pop(L, 1);
		if (lua_isinteger(L, -1)) {
			lua_Integer i = lua_tointeger(L, -1);
			n_int++;
			is_sequence = is_sequence && i > 0;
			max = i > max ? i : max;
		} else if (lua_type(L, -1) == LUA_TSTRING) {
			has_string = true;
			name.key.p = lua_tolstring(L, -1, &name.key.n);
		} else {
			char what[80];
			snprintf(what, sizeof(what), "a table with a %s as key cannot be represented",
				 luaL_typename(L, -1));
			lua_pop(L, 1);
			value_fail(at, what);
			return SHAPE_BAD;
		}
		if (has_string && n_int != 0) {
			value_fail(&name,
				   "a table with both array items and named keys cannot be represented");
			lua_pop(L, 1);
			return SHAPE_BAD;
		}
	}
	*n = n_int;
	if (n_int != 0)
		return is_sequence && max == n_int ? SHAPE_ARRAY : SHAPE_OBJECT;
	return !has_string && value_is_marked_array(L, idx) ? SHAPE_ARRAY : SHAPE_OBJECT;
}

static json_t *value_read_array(struct value_reader *r, int idx, lua_Integer n, const struct value_seg *at,
				int depth)
{
	json_t *arr = value_must(json_array());
	for (lua_Integer i = 1; i <= n; i++) {
		struct value_seg seg = {.up = at, .index = i};
		lua_rawgeti(r->L, idx, i);
		json_t *v = value_read(r, lua_gettop(r->L), &seg, depth);
		lua_pop(r->L, 1);
		if (v == NULL) {
			json_decref(arr);
			return NULL;
		}
		value_arr_add(arr, v);
	}
	return arr;
}

static json_t *value_read_object(struct value_reader *r, int idx, const struct value_seg *at, int depth)
{
	lua_State *L = r->L;
	json_t *obj = value_must(json_object());
	lua_pushnil(L);
	while (lua_next(L, idx) != 0) {
		char digits[24];
		struct value_seg seg = {.up = at};
		if (lua_isinteger(L, -2)) {
			seg.key.n = (size_t)snprintf(digits, sizeof(digits), "%lld",
						     (long long)lua_tointeger(L, -2));
			seg.key.p = digits;
		} else {
			seg.key.p = lua_tolstring(L, -2, &seg.key.n);
		}
		/* NUL: jansson's copies and comparisons would cut the key there. */
		bool is_text =
			str_is_utf8(seg.key) && (seg.key.n == 0 || memchr(seg.key.p, 0, seg.key.n) == NULL);
		json_t *v =
			is_text ? value_read(r, lua_gettop(L), &seg, depth)
				: value_fail(
					  at,
					  "a key that is not UTF-8 or has a NUL in it cannot be represented");
		if (v == NULL) {
			lua_pop(L, 2);
			json_decref(obj);
			return NULL;
		}
		value_obj_set(obj, seg.key, v);
		lua_pop(L, 1);
	}
	return obj;
}

const struct value_encoder *value_encoder_at(lua_State *L, int idx)
{
	const struct value_encoder *enc = NULL;
	if (lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
		lua_rawgetp(L, -1, &value_encoder_key);
		enc = lua_touserdata(L, -1);
		lua_pop(L, 2);
	}
	return enc;
}

static json_t *value_read_userdata(struct value_reader *r, int idx, const struct value_seg *at)
{
	const struct value_encoder *enc = value_encoder_at(r->L, idx);
	if (enc == NULL || enc->fn == NULL)
		return value_fail(at, "a userdata cannot be represented");
	return enc->fn(r->L, idx);
}

static json_t *value_read(struct value_reader *r, int idx, const struct value_seg *at, int depth)
{
	lua_State *L = r->L;
	lua_Integer n = 0;
	if (++r->n_nodes > VALUE_NODES_MAX)
		return value_fail(NULL, "more than 1000000 values in one structure");
	switch (lua_type(L, idx)) {
	case LUA_TNIL:
		return json_null();
	case LUA_TBOOLEAN:
		return json_boolean(lua_toboolean(L, idx));
	case LUA_TNUMBER:
		if (lua_isinteger(L, idx))
			return value_must(json_integer(lua_tointeger(L, idx)));
		if (!isfinite(lua_tonumber(L, idx)))
			return value_fail(at, "a number that is not finite cannot be represented");
		return value_must(json_real(lua_tonumber(L, idx)));
	case LUA_TSTRING: {
		str_t s;
		s.p = lua_tolstring(L, idx, &s.n);
		json_t *v = value_str(s);
		return v != NULL ? v : value_fail(at, "a string that is not UTF-8 cannot be represented");
	}
	case LUA_TLIGHTUSERDATA:
		if (lua_touserdata(L, idx) == NULL)
			return json_null();
		return value_fail(at, "a light userdata cannot be represented");
	case LUA_TUSERDATA:
		if (!lua_checkstack(L, 4))
			return value_fail(at, "no Lua stack is left");
		return value_read_userdata(r, idx, at);
	case LUA_TTABLE:
		if (depth >= VALUE_DEPTH_MAX)
			return value_fail(NULL,
					  "nested deeper than 128 levels (a table that contains itself?)");
		if (!lua_checkstack(L, 6))
			return value_fail(at, "no Lua stack is left");
		switch (value_table_shape(r, idx, at, &n)) {
		case SHAPE_ARRAY:
			return value_read_array(r, idx, n, at, depth + 1);
		case SHAPE_OBJECT:
			return value_read_object(r, idx, at, depth + 1);
		case SHAPE_BAD:
			return NULL;
		}
		return NULL;
	default: {
		char what[64];
		snprintf(what, sizeof(what), "a %s cannot be represented", luaL_typename(L, idx));
		return value_fail(at, what);
	}
	}
}

json_t *value_from_lua(lua_State *L, int idx)
{
	struct value_reader r = {.L = L};
	if (lua_isnone(L, idx))
		return json_null();
	return value_read(&r, lua_absindex(L, idx), NULL, 0);
}

void value_set_encoder(lua_State *L, int metatable_idx, const struct value_encoder *enc)
{
	int idx = lua_absindex(L, metatable_idx);
	lua_pushlightuserdata(L, (void *)(uintptr_t)enc);
	lua_rawsetp(L, idx, &value_encoder_key);
}

/* --- to Lua --- */

static void value_mark_array(lua_State *L)
{
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &value_array_key) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &value_array_key);
	}
	lua_setmetatable(L, -2);
}

static void value_push(lua_State *L, const json_t *v, int depth)
{
	if (depth > VALUE_DEPTH_MAX)
		luaL_error(L, "nested deeper than %d levels", VALUE_DEPTH_MAX);
	luaL_checkstack(L, 4, "value");
	switch (json_typeof(v)) {
	case JSON_OBJECT: {
		union {
			const json_t *c;
			json_t *m;
		} obj = {.c = v}; /* jansson iterates through non-const only */
		lua_createtable(L, 0, (int)(json_object_size(v) & 0xffffff));
		for (void *it = json_object_iter(obj.m); it != NULL; it = json_object_iter_next(obj.m, it)) {
			lua_pushlstring(L, json_object_iter_key(it), json_object_iter_key_len(it));
			value_push(L, json_object_iter_value(it), depth + 1);
			lua_rawset(L, -3);
		}
		return;
	}
	case JSON_ARRAY:
		lua_createtable(L, (int)(json_array_size(v) & 0xffffff), 0);
		for (size_t i = 0; i < json_array_size(v); i++) {
			value_push(L, json_array_get(v, i), depth + 1);
			lua_rawseti(L, -2, (lua_Integer)i + 1);
		}
		value_mark_array(L);
		return;
	case JSON_STRING:
		lua_pushlstring(L, json_string_value(v), json_string_length(v));
		return;
	case JSON_INTEGER:
		lua_pushinteger(L, json_integer_value(v));
		return;
	case JSON_REAL:
		lua_pushnumber(L, json_real_value(v));
		return;
	case JSON_TRUE:
	case JSON_FALSE:
		lua_pushboolean(L, json_is_true(v));
		return;
	case JSON_NULL:
		lua_pushlightuserdata(L, NULL);
		return;
	}
}

void value_push_json(lua_State *L, const json_t *v)
{
	value_push(L, v, 0);
}

/* --- shared by the writers --- */

static int value_entry_cmp(const void *a, const void *b)
{
	const struct value_entry *x = a, *y = b;
	return str_cmp(x->key, y->key);
}

struct value_entry *value_sorted(const json_t *obj, size_t *n)
{
	union {
		const json_t *c;
		json_t *m;
	} o = {.c = obj};
	size_t i = 0;
	*n = json_object_size(obj);
	if (*n == 0)
		return NULL;
	struct value_entry *e = xreallocarray(NULL, *n, sizeof(*e));
	for (void *it = json_object_iter(o.m); it != NULL; it = json_object_iter_next(o.m, it), i++) {
		e[i].key = str_mk(json_object_iter_key(it), json_object_iter_key_len(it));
		e[i].value = json_object_iter_value(it);
	}
	qsort(e, *n, sizeof(*e), value_entry_cmp);
	return e;
}

void value_locate(str_t text, size_t at, size_t *line, size_t *column)
{
	*line = *column = 1;
	for (size_t i = 0; i < at && i < text.n; i++) {
		if (text.p[i] == '\n')
			(*line)++, *column = 1;
		else if (((unsigned char)text.p[i] & 0xc0) != 0x80) /* not a continuation byte */
			(*column)++;
	}
}
