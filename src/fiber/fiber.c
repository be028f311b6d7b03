/* fiber.c - the life of fibers: start, cancel, wait, end, groups and the pool of free ones.
 *
 * A fiber's stack holds, from the top: struct fiber, then the frame of fiber_entry, which loops for ever: run
 * a function, finish, switch away, continue with the next function when the fiber is taken from the pool
 * again. A free fiber is therefore an ordinary suspended context, a reuse costs no set-up, and the
 * sanitizers' shadow stacks stay balanced. Free fibers beyond a few hundred keep only the pages in use at
 * that point (one), beyond a thousand nothing.
 *
 * States: FREE -> READY (in the ready queue) -> RUNNING -> WAITING -> READY ... -> FREE. What ends a wait is
 * recorded once, by whoever comes first; but a waiter that has fired wins over a time-out or a cancel that
 * came first and has not been seen yet, so a wake is never lost (locks and semaphores hand over ownership by
 * it).
 *
 * Everything here runs on the fiber's own worker. Only fiber_wait_for, fiber_sleep, fiber_yield and
 * fiber_group_join yield. */
#include "fiber/fiber_impl.h"

#include <string.h>

#define POOL_WARM_MAX 256  /* free fibers with whatever pages they touched */
#define POOL_COLD_MAX 1024 /* and with their top page only */
#define STACK_COLOURS 16   /* cache lines by which tops of stacks differ, else all share a few cache sets */

_Static_assert(sizeof(struct fiber) < 1024, "struct fiber shares a page with the fiber's first frames");

/* --- start and end --- */

void fiber_copy_name(char dst[FIBER_NAME_BYTES], const char *name)
{
	if (name == NULL || name[0] == 0)
		name = "fiber";
	size_t n = strnlen(name, FIBER_NAME_BYTES - 1);
	memset(dst, 0, FIBER_NAME_BYTES);
	memcpy(dst, name, n);
}

static void fiber_set_count(struct worker *w, ptrdiff_t by)
{
	size_t n = atomic_load_explicit(&w->n_fibers, memory_order_relaxed);
	atomic_store_explicit(&w->n_fibers, n + (size_t)by, memory_order_relaxed);
}

static void fiber_leave_group(struct fiber *f)
{
	struct fiber_group *g = f->group;
	list_remove(&f->group_link);
	f->group = NULL;
	if (--g->n > 0)
		return;
	for (struct list *l; (l = list_pop_front(&g->joiners)) != NULL;)
		waiter_wake(list_entry(l, struct waiter, link));
}

/* The last thing a fiber does; it is in no list of anybody's after. */
static void fiber_finish(struct fiber *f)
{
	struct worker *w = f->worker;
	if (f->shield_depth != 0 || f->no_yield_depth != 0)
		panic("fiber %s ended inside a shielded or no-yield section", f->name);
	err_clear();
	fiber_leave_group(f);
	list_remove(&f->all_link);
	fiber_set_count(w, -1);
	f->state = FIBER_FREE;
	f->is_last_run = w->n_warm >= POOL_WARM_MAX && w->n_cold >= POOL_COLD_MAX;
	context_switch(&f->ctx, &w->loop_ctx, f->is_last_run);
}

static void fiber_entry(struct transfer_t t)
{
	struct fiber *f = worker_self()->running;
	context_arrive(&f->ctx, t);
	for (;;) {
		f->fn(f->arg);
		fiber_finish(f);
	}
}

static void fiber_destroy(struct fiber *f)
{
	char *map = f->stack_map;
	f->worker->n_mapped--;
	context_fini(&f->ctx);
	stack_unmap(map);
}

static struct fiber *fiber_make(struct worker *w)
{
	char *map = stack_map();
	size_t colour_bytes = w->n_mapped % STACK_COLOURS * 64;
	uintptr_t top =
		(uintptr_t)map + STACK_GUARD_BYTES + STACK_BYTES - colour_bytes - sizeof(struct fiber);
	char *bottom = map + STACK_GUARD_BYTES;
	struct fiber *f = (struct fiber *)(top & ~(uintptr_t)63);

	w->n_mapped++;
	memset(f, 0, sizeof(*f));
	f->worker = w;
	f->stack_map = map;
	list_init(&f->link);
	context_init(&f->ctx, bottom, (size_t)((char *)f - bottom), fiber_entry);
	return f;
}

static struct fiber *fiber_take(struct worker *w)
{
	struct list *l = list_pop_front(&w->pool_warm);
	if (l != NULL) {
		w->n_warm--;
		return list_entry(l, struct fiber, link);
	}
	l = list_pop_front(&w->pool_cold);
	if (l != NULL) {
		w->n_cold--;
		return list_entry(l, struct fiber, link);
	}
	return fiber_make(w);
}

void fiber_release(struct fiber *f)
{
	struct worker *w = f->worker;
	if (f->is_last_run) {
		fiber_destroy(f);
	} else if (w->n_warm < POOL_WARM_MAX) {
		list_push_front(&w->pool_warm, &f->link);
		w->n_warm++;
	} else {
		stack_trim(f->stack_map, f->ctx.fctx);
		list_push_front(&w->pool_cold, &f->link);
		w->n_cold++;
	}
}

void fiber_pool_drain(struct worker *w)
{
	struct list *l;
	while ((l = list_pop_front(&w->pool_warm)) != NULL || (l = list_pop_front(&w->pool_cold)) != NULL)
		fiber_destroy(list_entry(l, struct fiber, link));
	w->n_warm = w->n_cold = 0;
}

struct fiber *fiber_start_on(struct worker *w, struct fiber_group *g, const char *name, fiber_fn *fn,
			     void *arg)
{
	struct fiber *f = fiber_take(w);
	f->id = ((uint64_t)w->index << 48) | ++w->last_id;
	f->fn = fn, f->arg = arg;
	f->group = g;
	f->wait_kind = f->waits_for = NULL;
	f->nesting = 0;
	f->is_cancelled = w->is_stopping && g == &w->group;
	fiber_copy_name(f->name, name);
	list_push_back(&g->fibers, &f->group_link);
	g->n++;
	list_push_back(&w->fibers, &f->all_link);
	fiber_set_count(w, 1);
	sched_make_ready(f);
	return f;
}

struct fiber *fiber_start(struct fiber_group *g, const char *name, fiber_fn *fn, void *arg)
{
	struct worker *w = worker_self();
	if (w == NULL)
		panic("fiber_start(%s) outside of a worker", name);
	return fiber_start_on(w, g != NULL ? g : &w->group, name, fn, arg);
}

/* --- the running fiber --- */

struct fiber *fiber_self(void)
{
	struct worker *w = worker_self();
	return w != NULL ? w->running : NULL;
}

unsigned *fiber_nesting(void)
{
	struct fiber *f = fiber_self();
	return f != NULL ? &f->nesting : NULL;
}

/* The running fiber; panics outside fibers. */
static struct fiber *fiber_must_self(const char *caller)
{
	struct fiber *f = fiber_self();
	if (UNLIKELY(f == NULL))
		panic("%s outside of a fiber", caller);
	return f;
}

const char *fiber_name(const struct fiber *f)
{
	return f->name;
}

uint64_t fiber_id(const struct fiber *f)
{
	return f->id;
}

void fiber_set_name(const char *name)
{
	struct fiber *f = fiber_must_self("fiber_set_name");
	fiber_copy_name(f->name, name);
	watchdog_set_name(f->worker, f->name);
}

bool fiber_is_cancelled(void)
{
	struct fiber *f = fiber_self();
	return f != NULL && f->is_cancelled;
}

void fiber_shield_begin(void)
{
	struct fiber *f = fiber_self();
	if (f != NULL)
		f->shield_depth++;
}

void fiber_shield_end(void)
{
	struct fiber *f = fiber_self();
	if (f == NULL)
		return;
	if (f->shield_depth == 0)
		panic("fiber_shield_end without a begin in fiber %s", f->name);
	f->shield_depth--;
}

const char *fiber_set_waits_for(const char *what)
{
	struct fiber *f = fiber_self();
	if (f == NULL)
		return NULL;
	const char *before = f->waits_for;
	f->waits_for = what;
	return before;
}

#ifdef CIRRUS_DEBUG
void fiber_no_yield_begin(void)
{
	struct fiber *f = fiber_self();
	if (f != NULL)
		f->no_yield_depth++;
}

void fiber_no_yield_end(void)
{
	struct fiber *f = fiber_self();
	if (f == NULL)
		return;
	if (f->no_yield_depth == 0)
		panic("NO_YIELD_END without a begin in fiber %s", f->name);
	f->no_yield_depth--;
}
#endif

/* --- cancel and wait --- */

bool fiber_is_cancel_due(const struct fiber *f)
{
	return f->is_cancelled && f->shield_depth == 0;
}

void fiber_cancel(struct fiber *f)
{
	if (f->worker != worker_self())
		panic("fiber_cancel from another thread than the fiber's");
	f->is_cancelled = true;
	if (f->shield_depth == 0)
		sched_wake(f, WAKE_CANCELLED);
}

static int fiber_fail_wait(const struct fiber *f, enum fiber_wake why, const char *kind)
{
	const char *what = f->waits_for != NULL ? f->waits_for : kind;
	if (why == WAKE_TIMEOUT)
		err_set(ERR_TIMEOUT, "timed out waiting for %s", what);
	else
		err_set(ERR_CANCELLED, "cancelled while waiting for %s", what);
	return -1;
}

void waiter_init(struct waiter *w)
{
	w->fiber = NULL;
	w->is_fired = false;
	list_init(&w->link);
}

void waiter_wake(struct waiter *w)
{
	w->is_fired = true;
	if (w->fiber == NULL)
		return;
#ifdef CIRRUS_DEBUG
	if (w->fiber->worker != worker_self())
		panic("waiter_wake from another thread than the fiber's");
#endif
	sched_wake(w->fiber, WAKE_FIRED);
}

int fiber_wait_for(struct waiter *w, mono_t deadline, const char *kind)
{
	struct fiber *f = fiber_must_self("fiber_wait");
	enum fiber_wake why = WAKE_CANCELLED;

	if (!w->is_fired && !fiber_is_cancel_due(f)) {
		w->fiber = f;
		why = sched_wait(f, deadline, kind);
		w->fiber = NULL;
	}
	if (w->is_fired) {
		w->is_fired = false;
		return 0;
	}
	return fiber_fail_wait(f, why, kind);
}

int fiber_wait(struct waiter *w, mono_t deadline)
{
	return fiber_wait_for(w, deadline, "a wake-up");
}

int fiber_sleep(dur_t d, mono_t deadline)
{
	struct fiber *f = fiber_must_self("fiber_sleep");
	mono_t end = mono_after(d);
	bool is_cut = deadline.ns < end.ns;

	if (fiber_is_cancel_due(f))
		return fiber_fail_wait(f, WAKE_CANCELLED, "sleep");
	enum fiber_wake why = sched_wait(f, is_cut ? deadline : end, "sleep");
	if (why == WAKE_TIMEOUT && !is_cut)
		return 0;
	return fiber_fail_wait(f, why, "the end of a sleep");
}

void fiber_yield(void)
{
	struct fiber *f = fiber_must_self("fiber_yield");
	sched_make_ready(f);
	sched_leave(f);
}

/* --- groups --- */

void fiber_group_init(struct fiber_group *g)
{
	list_init(&g->fibers);
	list_init(&g->joiners);
	g->n = 0;
}

void fiber_group_cancel(struct fiber_group *g)
{
	list_for_each (l, &g->fibers)
		fiber_cancel(list_entry(l, struct fiber, group_link));
}

int fiber_group_join(struct fiber_group *g, mono_t deadline)
{
	struct fiber *f = fiber_must_self("fiber_group_join");
	if (f->group == g)
		panic("fiber %s joins the group it is in", f->name);
	while (g->n > 0) {
		struct waiter w;
		waiter_init(&w);
		list_push_back(&g->joiners, &w.link);
		int rc = fiber_wait_for(&w, deadline, "a fiber group");
		list_remove(&w.link);
		if (rc != 0)
			return -1;
	}
	return 0;
}

/* --- diagnosis --- */

static void fiber_describe(const struct fiber *f, struct fiber_info *fi)
{
	*fi = (struct fiber_info){.id = f->id, .name = f->name, .is_cancelled = f->is_cancelled};
	if (f->state == FIBER_WAITING) {
		fi->waits_for = f->waits_for != NULL ? f->waits_for : f->wait_kind;
		fi->waiting = dur_ms((int64_t)(uv_now(&f->worker->loop) - f->wait_since_ms));
	} else {
		fi->waits_for = f->state == FIBER_RUNNING ? "nothing: running" : "nothing: ready";
	}
}

void fiber_each(fiber_info_fn *fn, void *arg)
{
	struct worker *w = worker_self();
	if (w == NULL)
		panic("fiber_each outside of a worker");
	list_for_each (l, &w->fibers) {
		struct fiber_info fi;
		fiber_describe(list_entry(l, struct fiber, all_link), &fi);
		fn(&fi, arg);
	}
}
