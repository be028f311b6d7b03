/* sync.c - conditions, mutexes and semaphores between fibers of one worker; no atomics, since nothing else
 * runs.
 *
 * A lock or a unit of a semaphore is handed to the first waiter at release, not put back for whoever comes
 * first: FIFO, and no fiber starves. That is safe because a fired waiter wins over a time-out or a cancel
 * (see fiber.c): the one it was handed to always learns of it. */
#include "fiber/sync.h"

#include "fiber/fiber_impl.h"

void fiber_cond_init(struct fiber_cond *c)
{
	list_init(&c->waiters);
}

static int fiber_cond_wait_for(struct fiber_cond *c, mono_t deadline, const char *kind)
{
	struct waiter w;
	waiter_init(&w);
	list_push_back(&c->waiters, &w.link);
	int rc = fiber_wait_for(&w, deadline, kind);
	list_remove(&w.link);
	return rc;
}

int fiber_cond_wait(struct fiber_cond *c, mono_t deadline)
{
	return fiber_cond_wait_for(c, deadline, "a condition");
}

/* Wakes the first waiter and tells which fiber it is; NULL when nobody waits. */
static struct fiber *fiber_cond_hand_over(struct fiber_cond *c)
{
	struct list *l = list_pop_front(&c->waiters);
	if (l == NULL)
		return NULL;
	struct waiter *w = list_entry(l, struct waiter, link);
	waiter_wake(w);
	return w->fiber;
}

void fiber_cond_signal(struct fiber_cond *c)
{
	fiber_cond_hand_over(c);
}

void fiber_cond_broadcast(struct fiber_cond *c)
{
	while (fiber_cond_hand_over(c) != NULL)
		;
}

void fiber_mutex_init(struct fiber_mutex *m)
{
	m->owner = NULL;
	fiber_cond_init(&m->cond);
}

int fiber_mutex_lock(struct fiber_mutex *m, mono_t deadline)
{
	struct fiber *f = fiber_must_self("fiber_mutex_lock");
	if (m->owner == NULL) {
		m->owner = f;
		return 0;
	}
	if (m->owner == f)
		panic("fiber %s locks a mutex it holds", fiber_name(f));
	return fiber_cond_wait_for(&m->cond, deadline, "a mutex"); /* unlock has made us the owner */
}

void fiber_mutex_unlock(struct fiber_mutex *m)
{
	if (m->owner == NULL || m->owner != fiber_self())
		panic("a mutex is unlocked by a fiber that does not hold it");
	m->owner = fiber_cond_hand_over(&m->cond);
}

void fiber_sem_init(struct fiber_sem *s, int64_t n)
{
	s->n = n;
	fiber_cond_init(&s->cond);
}

bool fiber_sem_try(struct fiber_sem *s)
{
	if (s->n <= 0)
		return false;
	s->n--;
	return true;
}

int fiber_sem_acquire(struct fiber_sem *s, mono_t deadline)
{
	if (fiber_sem_try(s))
		return 0;
	return fiber_cond_wait_for(&s->cond, deadline, "a semaphore"); /* release has taken our unit for us */
}

void fiber_sem_release(struct fiber_sem *s)
{
	s->n++;
	if (s->n > 0 && fiber_cond_hand_over(&s->cond) != NULL)
		s->n--;
}
