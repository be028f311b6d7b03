/* sched.c - one worker's scheduler, hung into its libuv loop.
 *
 * A loop iteration is: timers, idle, PREPARE, poll and its callbacks, CHECK, closing callbacks. At PREPARE
 * and at CHECK we take a turn: deliver mail, run ready fibers (a bounded number, so that I/O is not starved
 * by fibers that keep each other busy), send the posts of the turn. Fibers made ready by poll callbacks run
 * at CHECK, those made ready by timers and closing callbacks at PREPARE. When something is still ready after
 * PREPARE, an idle handle keeps poll from blocking; otherwise the loop sleeps until an event, the earliest
 * deadline, or a peer's wake-up.
 *
 * Deadlines are a binary heap of (time, fiber), at most one entry a fiber, and one uv_timer. The timer is set
 * before polling, and only when the earliest deadline is earlier than what it is set for; when that deadline
 * went away meanwhile it fires once for nothing. With the virtual clock of tests there is no timer: expired
 * deadlines are looked for at every PREPARE, and worker_clock_changed() makes the loops turn.
 *
 * Fibers run on their own stacks and always switch back to the loop's; a fiber never switches to another
 * directly. */
#include "base/alloc.h"
#include "fiber/fiber_impl.h"

#include <string.h>

#define SCHED_TURN_SLICES 256

/* --- the deadline heap --- */

static void sched_heap_place(struct worker *w, size_t i, struct deadline d)
{
	w->heap[i] = d;
	d.fiber->heap_pos = i + 1;
}

static void sched_heap_up(struct worker *w, size_t i, struct deadline d)
{
	for (; i > 0; i = (i - 1) / 2) {
		size_t parent = (i - 1) / 2;
		if (w->heap[parent].at.ns <= d.at.ns)
			break;
		sched_heap_place(w, i, w->heap[parent]);
	}
	sched_heap_place(w, i, d);
}

static void sched_heap_down(struct worker *w, size_t i, struct deadline d)
{
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= w->heap_n)
			break;
		if (child + 1 < w->heap_n && w->heap[child + 1].at.ns < w->heap[child].at.ns)
			child++;
		if (d.at.ns <= w->heap[child].at.ns)
			break;
		sched_heap_place(w, i, w->heap[child]);
		i = child;
	}
	sched_heap_place(w, i, d);
}

static void sched_heap_add(struct worker *w, struct fiber *f, mono_t at)
{
	if (w->heap_n == w->heap_cap) {
		w->heap_cap = w->heap_cap != 0 ? w->heap_cap * 2 : 64;
		w->heap = xreallocarray(w->heap, w->heap_cap, sizeof(*w->heap));
	}
	sched_heap_up(w, w->heap_n++, (struct deadline){at, f});
}

static void sched_heap_remove(struct worker *w, struct fiber *f)
{
	size_t i = f->heap_pos - 1;
	struct deadline last = w->heap[--w->heap_n];
	f->heap_pos = 0;
	if (last.fiber == f)
		return;
	if (i > 0 && last.at.ns < w->heap[(i - 1) / 2].at.ns)
		sched_heap_up(w, i, last);
	else
		sched_heap_down(w, i, last);
}

void sched_expire(struct worker *w)
{
	if (w->heap_n == 0)
		return;
	mono_t now = mono_now();
	while (w->heap_n > 0 && w->heap[0].at.ns <= now.ns)
		sched_wake(w->heap[0].fiber, WAKE_TIMEOUT);
}

static void sched_on_timer(uv_timer_t *t)
{
	struct worker *w = t->data;
	w->armed_ns = INT64_MAX;
	sched_expire(w);
}

static void sched_arm(struct worker *w)
{
	if (w->heap_n == 0 || w->armed_ns <= w->heap[0].at.ns || clock_is_virtual())
		return;
	int64_t left_ns = w->heap[0].at.ns - mono_now().ns;
	/* never early, or it would fire twice */
	uint64_t ms = left_ns > 0 ? (uint64_t)left_ns / 1000000 + 1 : 0;
	uv_update_time(&w->loop);
	uv_timer_start(&w->timer, sched_on_timer, ms, 0);
	w->armed_ns = w->heap[0].at.ns;
}

/* --- switching --- */

void sched_make_ready(struct fiber *f)
{
	f->state = FIBER_READY;
	list_push_back(&f->worker->ready, &f->link);
}

void sched_wake(struct fiber *f, enum fiber_wake why)
{
	if (f->state != FIBER_WAITING)
		return;
	if (f->heap_pos != 0)
		sched_heap_remove(f->worker, f);
	f->wake = why;
	sched_make_ready(f);
}

void sched_leave(struct fiber *f)
{
	if (UNLIKELY(f->no_yield_depth != 0))
		panic("fiber %s yields inside NO_YIELD", f->name);
	context_switch(&f->ctx, &f->worker->loop_ctx, false);
}

enum fiber_wake sched_wait(struct fiber *f, mono_t deadline, const char *kind)
{
	f->state = FIBER_WAITING;
	f->wait_kind = kind;
	f->wait_since_ms = uv_now(&f->worker->loop);
	if (deadline.ns != MONO_NEVER.ns)
		sched_heap_add(f->worker, f, deadline);
	sched_leave(f);
	return f->wake;
}

static void sched_run(struct worker *w, struct fiber *f)
{
	watchdog_slice(w, f->name);
	f->state = FIBER_RUNNING;
	w->running = f;
	struct err *slot = err_slot_swap(&f->err);
	context_switch(&w->loop_ctx, &f->ctx, false);
	err_slot_swap(slot);
	w->running = NULL;
	if (f->state == FIBER_FREE)
		fiber_release(f);
}

static void sched_turn(struct worker *w)
{
	struct list *l;
	watchdog_slice(w, watchdog_loop_name);
	mailbox_drain(w);
	for (int i = 0; i < SCHED_TURN_SLICES && (l = list_pop_front(&w->ready)) != NULL; i++)
		sched_run(w, list_entry(l, struct fiber, link));
	mailbox_flush(w);
	watchdog_slice(w, watchdog_poll_name);
}

/* --- the loop --- */

static void sched_on_idle(uv_idle_t *h UNUSED) {}

static void sched_set_idle(struct worker *w, bool is_on)
{
	if (is_on == w->is_idle_on)
		return;
	if (is_on)
		uv_idle_start(&w->idle, sched_on_idle);
	else
		uv_idle_stop(&w->idle);
	w->is_idle_on = is_on;
}

static void sched_on_prepare(uv_prepare_t *h)
{
	struct worker *w = h->data;
	if (clock_is_virtual())
		sched_expire(w);
	sched_turn(w);
	if (clock_is_virtual())
		sched_expire(w); /* a fiber may just have asked for a deadline that is past */
	sched_arm(w);
	bool is_ready = !list_is_empty(&w->ready) || mailbox_has_mail(w);
	sched_set_idle(w, is_ready || !mailbox_begin_poll(w));
}

static void sched_on_check(uv_check_t *h)
{
	struct worker *w = h->data;
	mailbox_end_poll(w);
	sched_turn(w);
}

void sched_init(struct worker *w)
{
	list_init(&w->ready);
	list_init(&w->fibers);
	list_init(&w->pool_warm);
	list_init(&w->pool_cold);
	fiber_group_init(&w->group);
	fiber_group_init(&w->system);
	w->armed_ns = INT64_MAX;
	uv_prepare_init(&w->loop, &w->prepare);
	uv_check_init(&w->loop, &w->check);
	uv_idle_init(&w->loop, &w->idle);
	uv_timer_init(&w->loop, &w->timer);
	w->prepare.data = w->check.data = w->idle.data = w->timer.data = w;
	uv_prepare_start(&w->prepare, sched_on_prepare);
	uv_check_start(&w->check, sched_on_check);
}

void sched_close_handles(struct worker *w)
{
	uv_close((uv_handle_t *)&w->prepare, NULL);
	uv_close((uv_handle_t *)&w->check, NULL);
	uv_close((uv_handle_t *)&w->idle, NULL);
	uv_close((uv_handle_t *)&w->timer, NULL);
}

void sched_fini(struct worker *w)
{
	fiber_pool_drain(w);
	free(w->heap);
	w->heap = NULL;
	w->heap_n = w->heap_cap = 0;
}
