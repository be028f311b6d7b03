/* pool.c - each worker's spare Lua states, last in first out, so that the warm ones are used and the rest
 * age.
 *
 * A pool is touched by its worker's fibers only: no locks. Rules: a state goes back
 * only after a call that succeeded or was refused by kumo.reject; it retires by age,
 * by uses, when the epoch has moved, when it has grown large, and when the pool
 * holds its share of the maximum. Every SWEEP_S seconds a fiber on each worker frees
 * what is too old and all that was not needed since the sweep before, keeping one. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/uuid.h"
#include "fiber/fiber.h"
#include "fiber/worker.h"
#include "policy/policy_impl.h"

#include <stdlib.h>

#define SWEEP_S 30
#define SPARE_BYTES_MAX ((size_t)64 << 20) /* a state that holds more is not kept */
#define STOP_WAIT_S 10

struct policy_pool {
	_Alignas(64) struct policy_state *top;
	size_t n;
	size_t n_low;	       /* the fewest spares since the last sweep */
	bool is_closed;	       /* nothing is kept any more */
	bool is_swept;	       /* the sweeper has ended */
	struct fiber *sweeper; /* NULL before it runs and after */
	struct event *done;    /* fired when the sweeper has ended; of pool_stop */
};

static struct policy_pool *pool_all; /* one per worker */
static unsigned pool_n;

static struct policy_pool *pool_mine(void)
{
	struct worker *w = worker_self();
	if (w == NULL)
		panic("a policy event is called outside the workers");
	return &pool_all[worker_index(w)];
}

static bool pool_is_fit(const struct policy_state *st, mono_t now)
{
	return st->epoch == policy_epoch() &&
	       st->n_uses < atomic_load_explicit(&policy_self.max_uses, memory_order_relaxed) &&
	       mono_sub(now, st->born).ns <
		       atomic_load_explicit(&policy_self.max_age_ns, memory_order_relaxed);
}

static struct policy_state *pool_pop(struct policy_pool *p)
{
	struct policy_state *st = p->top;
	if (st == NULL)
		return NULL;
	p->top = st->next;
	st->next = NULL;
	if (--p->n < p->n_low)
		p->n_low = p->n;
	metric_dec(policy_metrics()->spares);
	return st;
}

struct policy_state *pool_take(mono_t deadline)
{
	struct policy_state *st;
	mono_t now = mono_now();
	while ((st = pool_pop(pool_mine())) != NULL) {
		if (pool_is_fit(st, now)) {
			st->deadline = deadline;
			return st;
		}
		vm_free(st);
	}
	return vm_new(deadline);
}

static size_t pool_share(void)
{
	size_t max = atomic_load_explicit(&policy_self.max_spares, memory_order_relaxed);
	return (max + pool_n - 1) / pool_n;
}

void pool_put(struct policy_state *st, bool is_reusable)
{
	struct policy_pool *p = pool_mine();
	st->n_uses++;
	if (!is_reusable || st->is_overrun || p->is_closed || p->n >= pool_share() ||
	    st->n_bytes > SPARE_BYTES_MAX || !pool_is_fit(st, mono_now())) {
		vm_free(st);
		return;
	}
	st->deadline = (mono_t){0}; /* finalizers that run from here on must not wait */
	uint32_t pct = atomic_load_explicit(&policy_self.gc_pct, memory_order_relaxed);
	if (pct != 0 && random_below(100) < pct)
		lua_gc(st->L, LUA_GCCOLLECT);
	st->next = p->top;
	p->top = st;
	p->n++;
	metric_inc(policy_metrics()->spares);
}

/* --- sweeping --- */

/* Closing a state takes a while: others may run in between, so the list is not held across it. */
static void pool_sweep(struct policy_pool *p)
{
	mono_t now = mono_now();
	size_t n_unused = p->n_low > 1 ? p->n_low - 1 : 0, n_keep = p->n - n_unused;
	struct policy_state *drop = NULL, **link = &p->top;
	for (size_t i = 0; *link != NULL; i++) {
		struct policy_state *st = *link;
		if (i < n_keep && pool_is_fit(st, now)) {
			link = &st->next;
			continue;
		}
		*link = st->next;
		p->n--;
		metric_dec(policy_metrics()->spares);
		st->next = drop;
		drop = st;
	}
	p->n_low = p->n;
	while (drop != NULL) {
		struct policy_state *st = drop;
		drop = st->next;
		vm_free(st);
	}
}

static void pool_run_sweeper(void *arg)
{
	struct policy_pool *p = arg;
	p->sweeper = fiber_self();
	while (!p->is_closed && fiber_sleep(dur_s(SWEEP_S), MONO_NEVER) == 0)
		pool_sweep(p);
	err_clear();
	p->is_closed = true;
	for (struct policy_state *st; (st = pool_pop(p)) != NULL;)
		vm_free(st);
	p->sweeper = NULL;
	p->is_swept = true;
	if (p->done != NULL) {
		event_fire(p->done);
		event_unref(p->done);
		p->done = NULL;
	}
}

void pool_start(void)
{
	pool_n = workers_count();
	pool_all = xaligned_alloc(64, pool_n * sizeof(*pool_all));
	memset(pool_all, 0, pool_n * sizeof(*pool_all));
	for (unsigned i = 0; i < pool_n; i++)
		worker_start_fiber(worker_get(i), "policy-sweep", pool_run_sweeper, &pool_all[i]);
}

/* --- stopping --- */

struct pool_stop_mail {
	struct policy_pool *pool;
	struct event *done;
};

static void pool_on_stop(void *arg)
{
	struct pool_stop_mail *m = arg;
	struct policy_pool *p = m->pool;
	p->is_closed = true;
	if (p->is_swept) {
		event_fire(m->done);
		event_unref(m->done);
	} else {
		p->done = m->done;
		if (p->sweeper != NULL)
			fiber_cancel(p->sweeper);
	}
	free(m);
}

static bool pool_wait_all(void)
{
	bool is_ok = true;
	mono_t deadline = mono_after(dur_s(STOP_WAIT_S));
	fiber_shield_begin();
	for (unsigned i = 0; i < pool_n; i++) {
		struct event *e = event_new();
		struct pool_stop_mail *m = xnew(struct pool_stop_mail);
		*m = (struct pool_stop_mail){&pool_all[i], event_ref(e)};
		worker_post(worker_get(i), pool_on_stop, m);
		if (event_wait(e, deadline) != 0) {
			log_error("lua", "worker %u does not let go of its Lua states: %s", i, err_text());
			err_clear();
			is_ok = false;
		}
		event_unref(e);
	}
	fiber_shield_end();
	return is_ok;
}

void pool_stop(void)
{
	if (pool_all == NULL)
		return;
	if (fiber_self() != NULL && !pool_wait_all())
		return; /* a worker hangs and may still use its pool */
	free(pool_all);
	pool_all = NULL;
	pool_n = 0;
}
