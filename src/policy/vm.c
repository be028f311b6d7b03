/* vm.c - one Lua state: made, guarded, its errors, and what bindings ask of it.
 *
 * A state is found from any lua_State of it (coroutines too) through Lua's extra space. Its memory is counted
 * and capped, so that a policy that fills a table for ever gets "not enough memory" and not the whole
 * process.
 *
 * A count hook fires every HOOK_INSTRUCTIONS: past the deadline it raises, and from then on at every
 * instruction, so that a pcall around the endless loop does not save it; otherwise it lets the loop turn,
 * since that many instructions are about a millisecond. Yielding in a hook is safe because fibers have stacks
 * of their own and a state has one fiber.
 *
 * Errors: text gets "runtime error: ", unless it says what a table is refused for, and a traceback; the
 * object of kumo.reject passes through pcall and error() as it is and is recognised by its metatable when it
 * arrives. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/fiber.h"
#include "policy/policy_impl.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

#define HOOK_INSTRUCTIONS 100000
#define STATE_BYTES_MAX ((size_t)512 << 20)

struct vm_reject {
	int code;
	enum policy_reject_mode mode;
	size_t n_bytes;
	char text[];
};

struct vm_box {
	void *p;
	void (*free_fn)(void *);
};

static const char vm_reject_key, vm_box_key; /* registry keys of metatables */

/* --- allocation and the hook --- */

static void *vm_alloc(void *arg, void *p, size_t old_bytes, size_t n_bytes)
{
	struct policy_state *st = arg;
	if (p == NULL)
		old_bytes = 0; /* Lua passes the kind of object there */
	if (n_bytes == 0) {
		free(p);
		st->n_bytes -= old_bytes;
		return NULL;
	}
	if (n_bytes > old_bytes && st->n_bytes + (n_bytes - old_bytes) > STATE_BYTES_MAX)
		return NULL;
	void *q = realloc(p, n_bytes);
	if (q != NULL)
		st->n_bytes += n_bytes - old_bytes;
	return q;
}

static int vm_on_panic(lua_State *L)
{
	const char *text = lua_tostring(L, -1);
	panic("unprotected Lua error: %s", text != NULL ? text : "(no text)");
}

struct policy_state *policy_state_of(lua_State *L)
{
	return *(struct policy_state **)lua_getextraspace(L);
}

static void vm_on_count(lua_State *L, lua_Debug *ar UNUSED);

static int vm_stop(lua_State *L, struct policy_state *st, const char *why)
{
	st->is_overrun = true;
	lua_sethook(L, vm_on_count, LUA_MASKCOUNT, 1);
	lua_sethook(st->L, vm_on_count, LUA_MASKCOUNT, 1);
	policy_push_where(L);
	lua_pushstring(L, why);
	lua_concat(L, 2);
	return lua_error(L);
}

static void vm_on_count(lua_State *L, lua_Debug *ar UNUSED)
{
	struct policy_state *st = policy_state_of(L);
	if (fiber_self() == NULL)
		return;
	if (!st->is_overrun && !fiber_is_cancelled() && !mono_is_past(st->deadline)) {
		if (clock_is_virtual())
			fiber_yield();
		else if (fiber_sleep(dur_ns(1), MONO_NEVER) != 0)
			err_clear(); /* (slept, since a yield alone would not let I/O be polled) */
	}
	if (fiber_is_cancelled())
		vm_stop(L, st, "the handler was cancelled");
	if (st->is_overrun || mono_is_past(st->deadline))
		vm_stop(L, st, "the handler ran past its deadline");
}

/* --- errors --- */

void policy_push_where(lua_State *L)
{
	lua_Debug ar;
	for (int level = 0; lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sl", &ar);
		if (ar.currentline <= 0)
			continue;
		lua_pushfstring(L, "%s:%d: ", ar.source[0] == '@' ? ar.source + 1 : ar.short_src,
				ar.currentline);
		return;
	}
	lua_pushliteral(L, "");
}

static bool vm_is_refused_table(const char *text)
{
	return str_starts(str_of(text), STR("deserialize error: "));
}

int policy_raise(lua_State *L)
{
	if (err_is(ERR_REJECT)) {
		void **box = policy_box(L, free);
		struct err e = err_take();
		*box = e.text;
		/* Copies the text; without a mode it always raises. */
		(void)policy_raise_reject(L, e.code, str_of(e.text), NULL);
	}
	/* What a table is refused for is matched from its beginning; the traceback has the line. */
	if (vm_is_refused_table(err_text()))
		lua_pushliteral(L, "");
	else
		policy_push_where(L);
	lua_pushstring(L, err_text());
	lua_concat(L, 2);
	err_clear();
	return lua_error(L);
}

static int vm_reject_on_tostring(lua_State *L)
{
	const struct vm_reject *r = lua_touserdata(L, 1);
	lua_pushfstring(L, "%d ", r->code);
	lua_pushlstring(L, r->text, r->n_bytes);
	lua_concat(L, 2);
	return 1;
}

static int vm_reject_on_concat(lua_State *L)
{
	luaL_tolstring(L, 1, NULL);
	luaL_tolstring(L, 2, NULL);
	lua_concat(L, 2);
	return 1;
}

static const struct vm_reject *vm_reject_at(lua_State *L, int idx)
{
	struct vm_reject *r = lua_touserdata(L, idx);
	if (r == NULL || lua_type(L, idx) != LUA_TUSERDATA || !lua_getmetatable(L, idx))
		return NULL;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_reject_key);
	bool is_ours = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return is_ours ? r : NULL;
}

int policy_raise_reject(lua_State *L, int code, str_t text, const char *mode)
{
	static const char *const words[] = {[POLICY_REJECT] = "",
					    [POLICY_DISCONNECT_IF_421] = "If421",
					    [POLICY_DISCONNECT_FOLLOW_421] = "FollowWith421",
					    [POLICY_DISCONNECT_FORCE] = "ForceDisconnect"};
	size_t m = POLICY_REJECT;
	if (mode != NULL) {
		for (m = POLICY_DISCONNECT_IF_421; m < ARRAY_SIZE(words) && strcmp(words[m], mode) != 0; m++)
			;
		if (m == ARRAY_SIZE(words)) {
			err_set(ERR_INVALID,
				"unknown variant `%.64s`, expected one of `If421`, "
				"`FollowWith421`, `ForceDisconnect`",
				mode);
			return -1;
		}
	}
	struct vm_reject *r = lua_newuserdatauv(L, sizeof(*r) + text.n + 1, 0);
	r->code = code;
	r->mode = (enum policy_reject_mode)m;
	r->n_bytes = text.n;
	memcpy(r->text, text.n != 0 ? text.p : "", text.n);
	r->text[text.n] = 0;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_reject_key);
	lua_setmetatable(L, -2);
	return lua_error(L);
}

int vm_on_error(lua_State *L)
{
	if (vm_reject_at(L, 1) != NULL)
		return 1;
	const char *text = luaL_tolstring(L, 1, NULL);
	lua_pushfstring(L, "%s%s", vm_is_refused_table(text) ? "" : "runtime error: ", text);
	luaL_traceback(L, L, lua_tostring(L, -1), 1);
	return 1;
}

void vm_take_error(struct policy_state *st, enum policy_reject_mode *mode)
{
	lua_State *L = st->L;
	const struct vm_reject *r = vm_reject_at(L, -1);
	if (r != NULL) {
		*mode = r->mode;
		err_set_reject(r->code, str_mk(r->text, r->n_bytes));
	} else {
		enum err_kind kind = ERR_LUA;
		if (fiber_self() != NULL && fiber_is_cancelled())
			kind = ERR_CANCELLED;
		else if (mono_is_past(st->deadline))
			kind = ERR_TIMEOUT;
		const char *text =
			lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "an error without text";
		err_set(kind, "%s", text);
	}
	lua_pop(L, 1);
}

/* --- boxes --- */

static int vm_box_on_gc(lua_State *L)
{
	struct vm_box *b = lua_touserdata(L, 1);
	if (b->p != NULL)
		b->free_fn(b->p);
	b->p = NULL;
	return 0;
}

void **policy_box(lua_State *L, void (*free_fn)(void *))
{
	struct vm_box *b = lua_newuserdatauv(L, sizeof(*b), 0);
	*b = (struct vm_box){.free_fn = free_fn};
	lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_box_key);
	lua_setmetatable(L, -2);
	return &b->p;
}

void policy_box_free(void **box)
{
	struct vm_box *b = container_of(box, struct vm_box, p);
	if (b->p != NULL)
		b->free_fn(b->p);
	b->p = NULL;
}

static void vm_free_buf(void *p)
{
	buf_fini(p);
	free(p);
}

struct buf *policy_box_buf(lua_State *L)
{
	void **box = policy_box(L, vm_free_buf);
	struct buf *b = xnew(struct buf);
	*box = b;
	return b;
}

/* --- what bindings ask --- */

const char *policy_current_event(lua_State *L)
{
	return policy_state_of(L)->event;
}

mono_t policy_deadline(lua_State *L)
{
	return policy_state_of(L)->deadline;
}

void policy_require_init(lua_State *L, const char *function)
{
	const char *event = policy_current_event(L);
	if (event != NULL && (strcmp(event, "init") == 0 || strcmp(event, "pre_init") == 0))
		return;
	policy_push_where(L);
	if (event == NULL)
		lua_pushfstring(
			L, "%s must be called from the `init` event (called from the policy file itself)",
			function);
	else
		lua_pushfstring(L, "%s must be called from the `init` event (called from `%s`)", function,
				event);
	lua_concat(L, 2);
	lua_error(L);
}

/* Raw: a policy may have given _G a metatable that objects to new globals. */
static void vm_set_global(lua_State *L, const char *name)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
	lua_pushstring(L, name);
	lua_pushvalue(L, -3);
	lua_rawset(L, -3);
	lua_pop(L, 2);
}

void vm_set_current_event(struct policy_state *st, const char *event)
{
	st->event = event;
	lua_pushstring(st->L, event); /* nil for NULL */
	vm_set_global(st->L, "_KUMO_CURRENT_EVENT");
}

/* --- require --- */

/* Upvalue 1: package. Finds the file as the standard searcher would, but asks the cache first. */
static int vm_search(lua_State *L)
{
	size_t n;
	luaL_checkstring(L, 1);
	lua_settop(L, 1);
	lua_getfield(L, lua_upvalueindex(1), "path");
	if (lua_type(L, 2) != LUA_TSTRING)
		return luaL_error(L, "'package.path' must be a string");
	lua_pushvalue(L, 2);
	lua_pushlstring(L, "\0", 1);
	lua_pushvalue(L, 1);
	lua_concat(L, 3);
	const char *key = lua_tolstring(L, 3, &n);
	uint64_t epoch = policy_state_of(L)->epoch;
	/* The box owns the chunk while what follows may raise. */
	void **box = policy_box(L, (void (*)(void *))chunk_unref);
	bool is_trial = policy_state_of(L)->is_trial;
	struct chunk *c = is_trial ? NULL : chunk_cache_find(str_mk(key, n));
	*box = c;
	if (c == NULL) {
		lua_getfield(L, lua_upvalueindex(1), "searchpath");
		lua_pushvalue(L, 1);
		lua_pushvalue(L, 2);
		lua_call(L, 2, 2);
		if (lua_isnil(L, -2))
			return 1; /* the text that says where it was looked for */
		c = chunk_new(lua_tostring(L, -2));
		if (c == NULL) {
			lua_pushfstring(L, "error loading module '%s':\n\t%s", lua_tostring(L, 1),
					err_text());
			err_clear();
			return lua_error(L);
		}
		*box = c;
		if (!is_trial)
			chunk_cache_add(c, str_mk(key, n), epoch);
	}
	if (chunk_push(c, L) != 0)
		return policy_raise(L);
	lua_pushstring(L, c->path);
	policy_box_free(box);
	return 2;
}

static void vm_open_package(lua_State *L)
{
	lua_getglobal(L, "package");
	luaL_Buffer b;
	luaL_buffinit(L, &b);
	luaL_addstring(&b, "/opt/kumomta/share/?.lua;/opt/kumomta/share/?/init.lua;"
			   "/opt/kumomta/etc/policy/?.lua;/opt/kumomta/etc/policy/?/init.lua;");
	if (policy_self.dir != NULL) {
		luaL_addstring(&b, policy_self.dir);
		luaL_addstring(&b, "/?.lua;");
		luaL_addstring(&b, policy_self.dir);
		luaL_addstring(&b, "/?/init.lua;");
	}
	luaL_pushresult(&b);
	lua_getfield(L, -2, "path");
	lua_concat(L, 2);
	lua_setfield(L, -2, "path");
	lua_getfield(L, -1, "searchers");
	lua_pushvalue(L, -2);
	lua_pushcclosure(L, vm_search, 1);
	lua_rawseti(L, -2, 2);
	lua_pop(L, 2);
}

static void vm_open_class(lua_State *L, const luaL_Reg *methods, const char *name, const void *key)
{
	lua_newtable(L);
	luaL_setfuncs(L, methods, 0);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

static int vm_open(lua_State *L)
{
	static const luaL_Reg reject[] = {
		{"__tostring", vm_reject_on_tostring}, {"__concat", vm_reject_on_concat}, {NULL, NULL}};
	static const luaL_Reg box[] = {{"__gc", vm_box_on_gc}, {NULL, NULL}};
	luaL_openlibs(L);
	vm_open_class(L, reject, "Reject", &vm_reject_key);
	vm_open_class(L, box, "Box", &vm_box_key);
	vm_open_package(L);
	handlers_open(L);
	if (policy_self.is_validating) {
		lua_pushboolean(L, true);
		vm_set_global(L, "_VALIDATING_CONFIG");
	}
	lua_newtable(L);
	lua_pushstring(L, policy_self.version);
	lua_setfield(L, -2, "version");
	for (size_t i = 0; i < policy_self.n_libraries; i++) {
		policy_self.library[i](L);
		lua_settop(L, 1);
	}
	luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
	lua_pushvalue(L, 1);
	lua_setfield(L, -2, "kumo");
	return 0;
}

/* --- life --- */

static struct policy_state *vm_make(mono_t deadline)
{
	struct policy_state *st = xnew(struct policy_state);
	st->born = mono_now();
	st->deadline = deadline;
	list_init(&st->messages);
	st->L = lua_newstate(vm_alloc, st);
	if (st->L == NULL)
		panic("out of memory for a Lua state");
	lua_atpanic(st->L, vm_on_panic);
	*(struct policy_state **)lua_getextraspace(st->L) = st;
	metric_inc(policy_metrics()->states);
	return st;
}

/* Runs the file. */
static int vm_load(struct policy_state *st, const struct chunk *main)
{
	lua_State *L = st->L;
	enum policy_reject_mode mode;
	lua_pushcfunction(L, vm_on_error);
	lua_pushcfunction(L, vm_open);
	if (lua_pcall(L, 0, 0, 1) != LUA_OK)
		goto fail;
	lua_sethook(L, vm_on_count, LUA_MASKCOUNT, HOOK_INSTRUCTIONS);
	if (chunk_push(main, L) != 0)
		return -1;
	metric_inc(policy_metrics()->loads);
	if (lua_pcall(L, 0, 0, 1) != LUA_OK)
		goto fail;
	lua_settop(L, 0);
	return 0;
fail:
	vm_take_error(st, &mode);
	return -1;
}

struct policy_state *vm_new(mono_t deadline)
{
	struct policy_state *st = vm_make(deadline);
	struct chunk *main = policy_main_chunk(&st->epoch);
	int rc = vm_load(st, main);
	chunk_unref(main);
	if (rc == 0)
		return st;
	vm_free(st);
	return NULL;
}

int vm_try(const struct chunk *main, mono_t deadline)
{
	struct policy_state *st = vm_make(deadline);
	st->is_trial = true;
	int rc = vm_load(st, main);
	vm_free(st);
	return rc;
}

void vm_free(struct policy_state *st)
{
	/* Finalizers that run now must not wait for anything, and not run long. */
	st->deadline = (mono_t){0};
	st->event = NULL;
	message_boxes_release(st);
	lua_close(st->L);
	metric_dec(policy_metrics()->states);
	free(st);
}
