/* crowd.c - a list per worker, a flag, and a count of the workers that have not seen it yet. The last of them
 * fires an event, which it references first: the crowd may be gone once the count is down. */
#include "net/crowd.h"

#include "base/alloc.h"
#include "fiber/worker.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { CROWD_MAX_WORKERS = 256 };

struct crowd {
	atomic_bool is_stopping;
	atomic_uint n_sweeping;
	struct event *swept; /* NULL before crowd_stop */
	struct list members[CROWD_MAX_WORKERS];
};

struct crowd *crowd_new(void)
{
	struct crowd *c = xnew(struct crowd);
	for (size_t i = 0; i < CROWD_MAX_WORKERS; i++)
		list_init(&c->members[i]);
	return c;
}

void crowd_enter(struct crowd *c, struct crowd_member *m)
{
	list_push_back(&c->members[worker_index(worker_self())], &m->link);
}

void crowd_leave(struct crowd_member *m)
{
	list_remove(&m->link);
}

bool crowd_is_stopping(const struct crowd *c)
{
	return atomic_load_explicit(&c->is_stopping, memory_order_acquire);
}

static void crowd_sweep(void *arg)
{
	struct crowd *c = arg;
	list_for_each (it, &c->members[worker_index(worker_self())]) {
		struct crowd_member *m = list_entry(it, struct crowd_member, link);
		m->stop(m);
	}
	struct event *swept = event_ref(c->swept);
	if (atomic_fetch_sub_explicit(&c->n_sweeping, 1, memory_order_acq_rel) == 1)
		event_fire(swept);
	event_unref(swept);
}

void crowd_stop(struct crowd *c)
{
	if (c->swept != NULL)
		return;
	c->swept = event_new();
	unsigned n = workers_count();
	atomic_store_explicit(&c->n_sweeping, n, memory_order_relaxed);
	atomic_store_explicit(&c->is_stopping, true, memory_order_release);
	for (unsigned i = 0; i < n; i++)
		worker_post(worker_get(i), crowd_sweep, c);
}

int crowd_join(struct crowd *c, mono_t deadline)
{
	return event_wait(c->swept, deadline);
}

void crowd_free(struct crowd *c)
{
	if (c == NULL)
		return;
	event_unref(c->swept);
	free(c);
}
