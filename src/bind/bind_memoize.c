/* bind_memoize.c - kumo.memoize: a function whose results are kept in a cache of the process
 * (policy/memoize.h). The key is the JSON of the arguments. A result is kept as text, as JSON, or, of an
 * object that states can share, as a reference to it. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind.h"
#include "policy/memoize.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

#define MEMO_RESULTS_MAX 16

static const struct param memo_params_fields[] = {
	PARAM_STR(memo_params, name, .is_required = true,
		  .doc = "The name of the cache: one for each purpose."),
	PARAM_DUR(memo_params, ttl, .is_required = true, .doc = "How long a result is kept."),
	PARAM_INT(memo_params, capacity, .is_required = true, .min = 1, .max = INT64_C(1) << 31,
		  .doc = "How many results are kept; beyond it the least recently used one goes."),
	PARAM_BOOL(memo_params, invalidate_with_epoch, .def = "false",
		   .doc = "A result from before a change of the configuration is computed anew."),
	PARAM_BOOL(memo_params, allow_stale_reads, .def = "false",
		   .doc = "While an expired result is computed anew, other callers get the old one."),
	PARAM_DUR(memo_params, populate_timeout,
		  .doc = "How long to wait for another caller that computes the same result."),
	PARAM_BOOL(memo_params, retry_on_populate_timeout, .def = "false",
		   .doc = "After populate_timeout compute it, instead of failing."),
	{0}};
static const struct param_schema memo_schema = {
	.type_name = "MemoizeParams", .params = memo_params_fields, .size = sizeof(struct memo_params)};

/* --- results --- */

struct memo_item {
	enum { MEMO_TEXT, MEMO_JSON, MEMO_SHARED } kind;
	struct buf text;
	const struct value_encoder *shared_by;
	void *ref;
};
struct memo_results {
	struct memo_value head;
	int n;
	struct memo_item item[MEMO_RESULTS_MAX];
};

static void memo_results_free(struct memo_value *v)
{
	struct memo_results *r = container_of(v, struct memo_results, head);
	for (int i = 0; i < r->n; i++) {
		buf_fini(&r->item[i].text);
		if (r->item[i].kind == MEMO_SHARED)
			r->item[i].shared_by->unshare(r->item[i].ref);
	}
	free(r);
}

static void memo_drop(void *p)
{
	memo_value_unref(p);
}

/** Objects inside a table would come back as something else: refused rather than changed. The table is no
 * loop. */
static int memo_check_table(lua_State *L, int idx)
{
	luaL_checkstack(L, 6, "memoize");
	for (lua_pushnil(L); lua_next(L, idx) != 0; lua_pop(L, 1)) {
		if (lua_type(L, -1) == LUA_TUSERDATA) {
			err_set(ERR_INVALID, "an object inside a table cannot be kept: return it by itself");
			return -1;
		}
		if (lua_istable(L, -1) && memo_check_table(L, lua_gettop(L)) != 0)
			return -1;
	}
	return 0;
}

static int memo_item_from_lua(lua_State *L, int idx, struct memo_item *it)
{
	const struct value_encoder *enc = value_encoder_at(L, idx);
	if (lua_type(L, idx) == LUA_TSTRING) {
		str_t s;
		s.p = lua_tolstring(L, idx, &s.n);
		buf_add_str(&it->text, s); /* any bytes */
		return 0;
	}
	if (enc != NULL && enc->share != NULL) {
		it->kind = MEMO_SHARED;
		it->shared_by = enc;
		it->ref = enc->share(L, idx);
		if (it->ref != NULL)
			return 0;
		it->kind = MEMO_TEXT;
		err_set(ERR_INVALID, "the object is empty");
		return -1;
	}
	if (lua_type(L, idx) == LUA_TUSERDATA) {
		err_set(ERR_INVALID, "an object of this kind cannot be kept");
		return -1;
	}
	it->kind = MEMO_JSON;
	json_t *v = value_from_lua(L, idx); /* finds loops */
	if (v == NULL)
		return -1;
	value_write_json(v, false, &it->text);
	json_decref(v);
	return lua_istable(L, idx) ? memo_check_table(L, idx) : 0;
}

/** The values from `first` to the top. Raises nothing but for memory. NULL with the error set. */
static struct memo_results *memo_results_from_lua(lua_State *L, int first)
{
	int n = lua_gettop(L) - first + 1;
	if (n > MEMO_RESULTS_MAX) {
		err_set(ERR_INVALID, "the function returned more than %d results", MEMO_RESULTS_MAX);
		return NULL;
	}
	struct memo_results *r = xnew(struct memo_results);
	r->head.free_fn = memo_results_free;
	atomic_init(&r->head.refs, 1);
	for (int i = 0; i < n; i++) {
		r->n = i + 1;
		if (memo_item_from_lua(L, first + i, &r->item[i]) == 0)
			continue;
		err_wrap("result %d", i + 1);
		memo_value_unref(&r->head);
		return NULL;
	}
	return r;
}

static void memo_free_json(void *p)
{
	json_decref(p);
}

static void memo_item_push(lua_State *L, const struct memo_item *it)
{
	if (it->kind == MEMO_SHARED) {
		it->shared_by->push(L, it->ref);
	} else if (it->kind == MEMO_TEXT) {
		lua_pushlstring(L, it->text.n > 0 ? it->text.p : "", it->text.n);
	} else if (str_eq(buf_str(&it->text), STR("null"))) {
		lua_pushnil(L);
	} else {
		void **box = policy_box(L, memo_free_json);
		json_t *v = value_parse_json(buf_str(&it->text));
		if (v == NULL)
			policy_raise(L);
		*box = v;
		value_push_json(L, v);
		policy_box_free(box);
		lua_remove(L, -2);
	}
}

/** Pushes them; `box` holds the reference meanwhile. */
static int memo_results_push(lua_State *L, void **box)
{
	const struct memo_results *r = container_of((struct memo_value *)*box, struct memo_results, head);
	luaL_checkstack(L, r->n + 4, "memoize");
	for (int i = 0; i < r->n; i++)
		memo_item_push(L, &r->item[i]);
	int n = r->n;
	policy_box_free(box);
	return n;
}

/* --- the call --- */

/** One call. Where it ends by an error of Lua's, even for want of memory, its collection gives the turn to
 * the next caller. */
struct memo_claim {
	struct memo_cache *cache;
	struct buf key;
	uint64_t epoch;
	bool is_computing; /* memo_finish is due */
};

static void memo_claim_end(struct memo_claim *m, struct memo_value *v)
{
	if (m->is_computing)
		memo_finish(m->cache, buf_str(&m->key), v, m->epoch);
	m->is_computing = false;
}

static void memo_claim_free(void *p)
{
	struct memo_claim *m = p;
	memo_claim_end(m, NULL);
	buf_fini(&m->key);
	free(m);
}

/** The arguments as the key. */
static int memo_claim_key(lua_State *L, int n_args, struct memo_claim *m)
{
	for (int i = 1; i <= n_args; i++) {
		json_t *v = value_from_lua(L, i);
		if (v == NULL) {
			err_wrap("memoize: argument %d", i);
			return -1;
		}
		value_write_json(v, false, &m->key);
		buf_add_c(&m->key, '\n');
		json_decref(v);
	}
	return 0;
}

/** Calls the function with the arguments, which stay at 1 to n_args, and pushes what a hit would give; the
 * value is in *box. */
static int memo_populate(lua_State *L, struct memo_claim *m, int n_args, void **box)
{
	int base = lua_gettop(L);
	lua_pushvalue(L, lua_upvalueindex(1));
	for (int i = 1; i <= n_args; i++)
		lua_pushvalue(L, i);
	if (lua_pcall(L, n_args, LUA_MULTRET, 0) != LUA_OK) {
		memo_claim_end(m, NULL);
		return lua_error(L);
	}
	struct memo_results *r = memo_results_from_lua(L, base + 1);
	if (r == NULL) {
		memo_claim_end(m, NULL);
		err_wrap("memoize: the cache `%s`", memo_cache_name(m->cache));
		return policy_raise(L);
	}
	*box = &r->head;
	memo_claim_end(m, &r->head);
	lua_settop(L, base);
	return memo_results_push(L, box);
}

static int memo_call(lua_State *L)
{
	int n_args = lua_gettop(L);
	luaL_checkstack(L, n_args + 8, "memoize");
	void **claim_box = policy_box(L, memo_claim_free), **box = policy_box(L, memo_drop);
	struct memo_claim *m = *claim_box = xnew(struct memo_claim);
	struct memo_value *v = NULL;
	m->cache = lua_touserdata(L, lua_upvalueindex(2));
	m->epoch = policy_epoch();
	if (memo_claim_key(L, n_args, m) != 0)
		return policy_raise(L);
	int rc = memo_begin(m->cache, buf_str(&m->key), &v, policy_deadline(L));
	if (rc < 0)
		return policy_raise(L);
	if (rc > 0) {
		*box = v;
		policy_box_free(claim_box);
		return memo_results_push(L, box);
	}
	m->is_computing = true;
	int n = memo_populate(L, m, n_args, box);
	policy_box_free(claim_box);
	return n;
}

static int kumo_memoize(lua_State *L)
{
	struct memo_params p;
	luaL_checktype(L, 1, LUA_TFUNCTION);
	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	if (param_parse_lua(&memo_schema, L, 2, &p) != 0)
		return policy_raise(L);
	struct memo_cache *c = memo_cache_get(&p);
	param_fini(&memo_schema, &p);
	lua_pushvalue(L, 1);
	lua_pushlightuserdata(L, c);
	lua_pushcclosure(L, memo_call, 2);
	return 1;
}

static void memoize_open(lua_State *L)
{
	lua_pushcfunction(L, kumo_memoize);
	lua_setfield(L, -2, "memoize");
}

void bind_register_memoize(void)
{
	param_schema_register(&memo_schema);
	policy_add_library(memoize_open);
}
