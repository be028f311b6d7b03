/* param_object.c - parsed parameter tables as values of a policy: userdata that can be indexed, iterated and
 * measured like the table they came from, with every default filled in. The C side shares the same object by
 * reference count, from any thread; it never changes after it was made, and its snapshot's own reference
 * counts are not touched after that. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/param_impl.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>

static const char param_class_key; /* registry key of the metatable */

struct param_object *param_object_from_json(const struct param_schema *s, const json_t *table)
{
	struct param_object *o = xaligned_alloc(16, (sizeof(*o) + s->size + 15) & ~(size_t)15);
	memset(o, 0, sizeof(*o) + s->size);
	if (param_parse_json(s, table, o->data) != 0) {
		free(o);
		return NULL;
	}
	atomic_init(&o->refs, 1);
	o->schema = s;
	o->snapshot = param_dump_with(s, o->data, table);
	return o;
}

struct param_object *param_object_from_lua(const struct param_schema *s, lua_State *L, int idx)
{
	json_t *table = value_from_lua(L, idx);
	if (table == NULL) {
		struct err e = err_take();
		err_set(ERR_INVALID, "deserialize error: %s, while processing a %s", e.text,
			luaL_typename(L, idx));
		err_fini(&e);
		return NULL;
	}
	struct param_object *o = param_object_from_json(s, table);
	json_decref(table);
	return o;
}

/* The error of the inner table becomes the WHY of the outer one, which shows its own input. */
struct param_object *param_object_from_nested(const struct param_schema *s, const json_t *table,
					      const char *field)
{
	struct param_object *o = param_object_from_json(s, table);
	if (o != NULL)
		return o;
	struct err e = err_take();
	str_t why = str_of(e.text), begin = STR("deserialize error: ");
	if (str_starts(why, begin))
		why = str_skip(why, begin.n);
	ptrdiff_t end = str_find(why, STR(", while processing "));
	if (end >= 0)
		why = str_head(why, (size_t)end);
	err_set(ERR_INVALID, "%s%s" STR_FMT, field != NULL ? field : "", field != NULL ? ": " : "",
		STR_ARG(why));
	err_fini(&e);
	return NULL;
}

struct param_object *param_object_ref(struct param_object *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

void param_object_unref(struct param_object *o)
{
	if (o == NULL || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
		return;
	param_fini(o->schema, o->data);
	json_decref(o->snapshot);
	free(o);
}

/* --- the userdata --- */

static struct param_object *param_object_self(lua_State *L)
{
	struct param_object **box = lua_touserdata(L, 1);
	if (box == NULL || *box == NULL)
		luaL_error(L, "a configuration object was expected");
	return *box;
}

static int param_object_on_gc(lua_State *L)
{
	struct param_object **box = lua_touserdata(L, 1);
	struct param_object *o = *box;
	*box = NULL;
	param_object_unref(o);
	return 0;
}

static int param_object_on_tostring(lua_State *L)
{
	const struct param_object *o = param_object_self(L);
	lua_pushfstring(L, "%s: %p", o->schema->type_name, (const void *)o);
	return 1;
}

static int param_object_on_index(lua_State *L)
{
	const struct param_object *o = param_object_self(L);
	size_t n;
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &n) : NULL;
	const json_t *v = key != NULL ? json_object_getn(o->snapshot, key, n) : NULL;
	if (v == NULL || json_is_null(v))
		lua_pushnil(L);
	else
		value_push_json(L, v);
	return 1;
}

static int param_object_on_newindex(lua_State *L)
{
	const struct param_object *o = param_object_self(L);
	return luaL_error(L, "%s cannot be changed after it was made", o->schema->type_name);
}

static int param_object_on_len(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)json_object_size(param_object_self(L)->snapshot));
	return 1;
}

static int param_object_next(lua_State *L)
{
	lua_settop(L, 2);
	return lua_next(L, 1) != 0 ? 2 : (lua_pushnil(L), 1);
}

static int param_object_on_pairs(lua_State *L)
{
	const struct param_object *o = param_object_self(L);
	lua_pushcfunction(L, param_object_next);
	value_push_json(L, o->snapshot);
	lua_pushnil(L);
	return 3;
}

static json_t *param_object_encode(lua_State *L, int idx)
{
	struct param_object **box = lua_touserdata(L, idx);
	return json_deep_copy((*box)->snapshot);
}

static void *param_object_share(lua_State *L, int idx)
{
	struct param_object **box = lua_touserdata(L, idx);
	return *box != NULL ? param_object_ref(*box) : NULL;
}

static void param_object_push_shared(lua_State *L, void *ref)
{
	param_object_push(L, ref);
}

static void param_object_unshare(void *ref)
{
	param_object_unref(ref);
}

static void param_object_push_class(lua_State *L)
{
	static const struct value_encoder encoder = {param_object_encode, param_object_share,
						     param_object_push_shared, param_object_unshare};
	static const luaL_Reg methods[] = {
		{"__gc", param_object_on_gc},
		{"__tostring", param_object_on_tostring},
		{"__index", param_object_on_index},
		{"__newindex", param_object_on_newindex},
		{"__len", param_object_on_len},
		{"__pairs", param_object_on_pairs},
		{NULL, NULL},
	};
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &param_class_key) == LUA_TTABLE)
		return;
	lua_pop(L, 1);
	luaL_newlib(L, methods);
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable"); /* __gc is not for policies to call */
	value_set_encoder(L, -1, &encoder);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &param_class_key);
}

void param_object_push(lua_State *L, struct param_object *o)
{
	struct param_object **box = lua_newuserdatauv(L, sizeof(struct param_object *), 0);
	*box = NULL;
	param_object_push_class(L);
	*box = param_object_ref(o);
	lua_setmetatable(L, -2);
}

struct param_object *param_object_at(lua_State *L, int idx, const struct param_schema *s)
{
	struct param_object **box = lua_touserdata(L, idx);
	bool is_ours = false;
	if (box != NULL && lua_type(L, idx) == LUA_TUSERDATA && lua_getmetatable(L, idx)) {
		lua_rawgetp(L, LUA_REGISTRYINDEX, &param_class_key);
		is_ours = lua_rawequal(L, -1, -2);
		lua_pop(L, 2);
	}
	if (!is_ours || *box == NULL) {
		err_set(ERR_INVALID, "a %s was expected, not a %s", s->type_name, luaL_typename(L, idx));
		return NULL;
	}
	if ((*box)->schema != s) {
		err_set(ERR_INVALID, "a %s was expected, not a %s", s->type_name, (*box)->schema->type_name);
		return NULL;
	}
	return param_object_ref(*box);
}
