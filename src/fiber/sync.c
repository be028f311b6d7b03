/* sync.c - conditions between fibers of one worker; no atomics, since nothing else runs. Waiters are woken in
 * the order in which they came. A signal is not lost on one that is cancelled or times out meanwhile: a fired
 * waiter wins over both (see fiber.c). */
#include "fiber/sync.h"

#include "fiber/fiber_impl.h"

void fiber_cond_init(struct fiber_cond *c)
{
	list_init(&c->waiters);
}

int fiber_cond_wait(struct fiber_cond *c, mono_t deadline)
{
	struct waiter w;
	waiter_init(&w);
	list_push_back(&c->waiters, &w.link);
	int rc = fiber_wait_for(&w, deadline, "a condition");
	list_remove(&w.link);
	return rc;
}

static bool fiber_cond_wake_first(struct fiber_cond *c)
{
	struct list *l = list_pop_front(&c->waiters);
	if (l != NULL)
		waiter_wake(list_entry(l, struct waiter, link));
	return l != NULL;
}

void fiber_cond_signal(struct fiber_cond *c)
{
	fiber_cond_wake_first(c);
}

void fiber_cond_broadcast(struct fiber_cond *c)
{
	while (fiber_cond_wake_first(c))
		;
}
