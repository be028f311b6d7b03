/* event.c - registering and calling handlers.
 *
 * In each state, the registry holds a table event -> array of functions, and one of who registered them. The
 * process holds the sorted set of events that the newest epoch's first state registered, so that events which
 * nobody handles cost a short search and no state. Between a bump and that first state the set is unknown,
 * which counts as "handled": the call that follows makes the state and publishes the set. Replaced sets stay
 * until the end, because readers take no lock; they are a few hundred bytes per changed policy. */
#include "base/alloc.h"
#include "base/err.h"
#include "fiber/fiber.h"
#include "policy/policy_impl.h"

#include <lauxlib.h>
#include <stdlib.h>

#define NESTING_MAX                                                                                         \
	16 /* handlers in one fiber, whose stack they share: one that injects takes 2 KB of it, others some \
	      more */
#define CALL_SLOTS 80 /* stack for arguments, their copies, results */

static const char handlers_key, registrars_key;

/* --- registration --- */

void handlers_open(lua_State *L)
{
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &handlers_key);
	lua_newtable(L);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &registrars_key);
}

static bool handlers_can_chain(const char *event)
{
	static const char *const multiple[] = {"pre_init",	    "validate_config",
					       "get_queue_config",  "throttle_insert_ready_queue",
					       "requeue_message",   "should_enqueue_log_record",
					       "get_acl_definition"};
	for (size_t i = 0; i < ARRAY_SIZE(multiple); i++)
		if (strcmp(event, multiple[i]) == 0)
			return true;
	return false;
}

/* Pushes the callers as an array of "file:line", the one of kumo.on first. */
static void handlers_push_callers(lua_State *L)
{
	lua_Debug ar;
	lua_newtable(L);
	for (int level = 1, n = 0; lua_getstack(L, level, &ar); level++) {
		lua_getinfo(L, "Sl", &ar);
		if (ar.what[0] == 'C')
			continue;
		lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline > 0 ? ar.currentline : 0);
		lua_rawseti(L, -2, ++n);
	}
}

/* Pushes registry[key][event], made when absent. */
static void handlers_push_list(lua_State *L, const void *key, int name_idx)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, key);
	lua_pushvalue(L, name_idx);
	if (lua_rawget(L, -2) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_pushvalue(L, name_idx);
		lua_pushvalue(L, -2);
		lua_rawset(L, -4);
	}
	lua_remove(L, -2);
}

void policy_register_handler(lua_State *L, int name_idx, int fn_idx)
{
	const char *event = lua_tostring(L, name_idx);
	const char *current = policy_current_event(L);
	if (current != NULL && strcmp(current, "main") != 0) {
		policy_push_where(L);
		lua_pushfstring(
			L,
			"kumo.on(`%s`) must not be called while an event is being handled (called from `%s`)",
			event, current);
		lua_concat(L, 2);
		lua_error(L);
	}
	handlers_push_list(L, &registrars_key, name_idx);
	handlers_push_list(L, &handlers_key, name_idx);
	lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
	if (n > 0 && !handlers_can_chain(event)) {
		lua_rawgeti(L, -2, 1);
		lua_rawgeti(L, -1, 1);
		const char *at = lua_tostring(L, -1);
		policy_push_where(L);
		lua_pushfstring(L, "%s event already has a handler defined at %s", event,
				at != NULL ? at : "?:0");
		lua_concat(L, 2);
		lua_error(L);
	}
	lua_pushvalue(L, fn_idx);
	lua_rawseti(L, -2, n + 1);
	handlers_push_callers(L);
	lua_rawseti(L, -3, n + 1);
	lua_pop(L, 2);
}

void policy_push_registrars(lua_State *L, const char *event)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &registrars_key);
	lua_pushstring(L, event);
	if (lua_rawget(L, -2) != LUA_TTABLE) {
		lua_remove(L, -2);
		return; /* nil */
	}
	/* A copy: the policy may do with it what it likes. */
	lua_newtable(L);
	for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, -2); i++) {
		lua_newtable(L);
		lua_rawgeti(L, -3, i);
		for (lua_Integer k = 1; k <= (lua_Integer)lua_rawlen(L, -1); k++) {
			lua_rawgeti(L, -1, k);
			lua_rawseti(L, -3, k);
		}
		lua_pop(L, 1);
		lua_rawseti(L, -2, i);
	}
	lua_replace(L, -3);
	lua_pop(L, 1);
}

/* --- the set of the process --- */

static int handlers_cmp(const void *a, const void *b)
{
	return strcmp(((const struct handler_metrics *)a)->event, ((const struct handler_metrics *)b)->event);
}

static struct handler_metrics *handlers_find(struct handler_set *set, const char *event)
{
	size_t lo = 0, hi = set != NULL ? set->n : 0;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = strcmp(event, set->item[mid].event);
		if (c == 0)
			return &set->item[mid];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static struct handler_set *handlers_collect(lua_State *L)
{
	size_t n = 0;
	lua_rawgetp(L, LUA_REGISTRYINDEX, &handlers_key);
	for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1))
		n++;
	struct handler_set *set = xcalloc(1, sizeof(*set) + n * sizeof(set->item[0]));
	const struct policy_metrics *pm = policy_metrics();
	for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
		struct handler_metrics *h = &set->item[set->n++];
		h->event = xstrdup(lua_tostring(L, -2));
		str_t label = str_of(h->event);
		h->started = metric_get(pm->started, &label);
		h->latency = metric_get(pm->latency, &label);
	}
	lua_pop(L, 1);
	qsort(set->item, set->n, sizeof(set->item[0]), handlers_cmp);
	return set;
}

static void handlers_free(struct handler_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		metric_series_unref(set->item[i].started);
		metric_series_unref(set->item[i].latency);
		free(set->item[i].event);
	}
	free(set);
}

static bool handlers_are_same(const struct handler_set *a, const struct handler_set *b)
{
	if (a == NULL || a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->item[i].event, b->item[i].event) != 0)
			return false;
	return true;
}

void handlers_publish(struct policy_state *st)
{
	if (atomic_load_explicit(&policy_self.handlers_epoch, memory_order_acquire) >= st->epoch)
		return;
	struct handler_set *set = handlers_collect(st->L);
	pthread_mutex_lock(&policy_self.lock);
	struct handler_set *now = atomic_load(&policy_self.handlers);
	if (atomic_load(&policy_self.handlers_epoch) < st->epoch) {
		if (!handlers_are_same(now, set)) {
			set->older = now;
			atomic_store_explicit(&policy_self.handlers, set, memory_order_release);
			set = NULL;
		}
		atomic_store_explicit(&policy_self.handlers_epoch, st->epoch, memory_order_release);
	}
	pthread_mutex_unlock(&policy_self.lock);
	if (set != NULL)
		handlers_free(set);
}

void handlers_stop(void)
{
	struct handler_set *set = atomic_exchange(&policy_self.handlers, NULL);
	while (set != NULL) {
		struct handler_set *older = set->older;
		handlers_free(set);
		set = older;
	}
}

static bool handlers_are_known(void)
{
	return atomic_load_explicit(&policy_self.handlers_epoch, memory_order_acquire) == policy_epoch();
}

bool policy_has_handler(const char *event)
{
	return !handlers_are_known() ||
	       handlers_find(atomic_load_explicit(&policy_self.handlers, memory_order_acquire), event) !=
		       NULL;
}

/* --- calling --- */

int policy_call_begin(struct policy_call *c, const char *event, mono_t deadline)
{
	*c = (struct policy_call){.event = event};
	if (!policy_has_handler(event))
		return 0;
	unsigned *nesting = fiber_nesting();
	if (nesting != NULL && *nesting >= NESTING_MAX) {
		err_set(ERR_LIMIT,
			"event %s: handlers are nested %d deep already: "
			"does one of them bring about its own event?",
			event, NESTING_MAX);
		c->is_failed = true;
		return -1;
	}
	struct policy_state *st = pool_take(deadline);
	if (st == NULL) {
		c->is_failed = true;
		return -1;
	}
	handlers_publish(st);
	lua_State *L = st->L;
	if (!lua_checkstack(L, CALL_SLOTS))
		panic("no Lua stack for a call of %s", event);
	lua_pushcfunction(L, vm_on_error);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &handlers_key);
	lua_pushstring(L, event);
	lua_rawget(L, -2);
	lua_remove(L, -2);
	if (!lua_istable(L, -1)) {
		lua_settop(L, 0);
		pool_put(st, true);
		return 0;
	}
	vm_set_current_event(st, event);
	c->L = L;
	c->state = st;
	c->base = lua_gettop(L);
	c->metrics = handlers_find(atomic_load_explicit(&policy_self.handlers, memory_order_acquire), event);
	if (nesting != NULL)
		++*nesting;
	return 1;
}

static int policy_call_handlers(struct policy_call *c, int n_args, int n_results)
{
	lua_State *L = c->L;
	lua_Integer n = (lua_Integer)lua_rawlen(L, c->base);
	for (lua_Integer i = 1; i <= n; i++) {
		int first = c->base + 1;
		lua_rawgeti(L, c->base, i);
		if (i == n) {
			lua_insert(L, first); /* the arguments are used up by the last one */
		} else {
			for (int k = 0; k < n_args; k++)
				lua_pushvalue(L, first + k);
		}
		int below = lua_gettop(L) - n_args - 1;
		if (lua_pcall(L, n_args, LUA_MULTRET, 1) != LUA_OK) {
			vm_take_error(c->state, &c->reject_mode);
			/* A refusal is an outcome: its state is as good as before. */
			c->is_failed = !err_is(ERR_REJECT);
			return -1;
		}
		if (lua_gettop(L) == below)
			continue;
		c->result_idx = below + 1;
		lua_settop(L, below + n_results);
		return 1;
	}
	return 0;
}

int policy_call_run(struct policy_call *c, int n_args, int n_results, mono_t deadline)
{
	struct handler_metrics *h = c->metrics;
	mono_t start = mono_now();
	if (n_args > 32 || n_results > 32 || lua_gettop(c->L) != c->base + n_args)
		panic("%s: %d arguments and %d results do not fit the stack", c->event, n_args, n_results);
	c->state->deadline = deadline;
	if (h != NULL)
		metric_inc(h->started);
	int rc = policy_call_handlers(c, n_args, n_results);
	if (message_boxes_complete(c->state, deadline) != 0)
		rc = -1;
	if (h != NULL)
		metric_observe(h->latency, dur_seconds(mono_sub(mono_now(), start)));
	return rc;
}

void policy_call_end(struct policy_call *c)
{
	struct policy_state *st = c->state;
	if (st == NULL)
		return;
	unsigned *nesting = fiber_nesting();
	if (nesting != NULL)
		--*nesting;
	c->state = NULL;
	c->L = NULL;
	message_boxes_release(st);
	if (!c->is_failed) {
		lua_settop(st->L, 0);
		vm_set_current_event(st, NULL);
	}
	pool_put(st, !c->is_failed);
}

int policy_fire(const char *event, mono_t deadline)
{
	struct policy_call c;
	int rc = policy_call_begin(&c, event, deadline);
	if (rc != 1)
		return rc;
	rc = policy_call_run(&c, 0, 0, deadline);
	policy_call_end(&c);
	return rc < 0 ? -1 : 0;
}
