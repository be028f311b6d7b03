/* event.c - a wake-up that crosses threads. The waiting side and the firing side hold a reference each, so
 * neither cares whether the other is still there. is_fired is set once, by whoever fires first; from another
 * thread a mail, which lies in the event and holds a reference of its own, then wakes those that wait. The
 * list of waiters is touched only by the event's worker: a waiter that times out takes itself out and the
 * mail finds nobody. */
#include "base/alloc.h"
#include "fiber/fiber_impl.h"

struct event {
	atomic_uint n_refs;
	atomic_bool is_fired;
	struct worker *worker;
	struct mail mail;
	struct list waiters; /* of the worker */
};

struct event *event_new(void)
{
	struct event *e = xnew(struct event);
	e->worker = worker_self();
	if (e->worker == NULL)
		panic("event_new outside of a worker");
	atomic_init(&e->n_refs, 1);
	atomic_init(&e->is_fired, false);
	list_init(&e->waiters);
	return e;
}

struct event *event_ref(struct event *e)
{
	atomic_fetch_add_explicit(&e->n_refs, 1, memory_order_relaxed);
	return e;
}

void event_unref(struct event *e)
{
	if (e != NULL && atomic_fetch_sub_explicit(&e->n_refs, 1, memory_order_acq_rel) == 1)
		free(e);
}

static void event_wake_waiters(struct event *e)
{
	for (struct list *l; (l = list_pop_front(&e->waiters)) != NULL;)
		waiter_wake(list_entry(l, struct waiter, link));
}

void event_deliver(void *arg)
{
	struct event *e = arg;
	event_wake_waiters(e);
	event_unref(e);
}

void event_fire(struct event *e)
{
	if (atomic_exchange_explicit(&e->is_fired, true, memory_order_acq_rel))
		return;
	if (e->worker == worker_self()) {
		event_wake_waiters(e);
		return;
	}
	e->mail.fn = event_deliver;
	e->mail.arg = event_ref(e);
	worker_post_mail(e->worker, &e->mail);
}

bool event_is_fired(const struct event *e)
{
	return atomic_load_explicit(&e->is_fired, memory_order_acquire);
}

int event_wait(struct event *e, mono_t deadline)
{
	struct waiter w;
	if (event_is_fired(e))
		return 0;
	if (e->worker != worker_self())
		panic("event_wait on another worker than the event's");
	waiter_init(&w);
	list_push_back(&e->waiters, &w.link);
	int rc = fiber_wait_for(&w, deadline, "an event");
	list_remove(&w.link);
	if (rc != 0 && event_is_fired(e)) { /* the mail is on its way: what was waited for has happened */
		err_clear();
		rc = 0;
	}
	return rc;
}
