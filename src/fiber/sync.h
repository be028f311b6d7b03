/* sync.h - waiting for each other, between fibers of one worker. All FIFO. */
#pragma once

#include "fiber/fiber.h"

/** A condition: fibers wait, somebody signals. Test the predicate again after every wait. */
struct fiber_cond {
	struct list waiters;
};
void fiber_cond_init(struct fiber_cond *c);
void fiber_cond_signal(struct fiber_cond *c);	 /* one */
void fiber_cond_broadcast(struct fiber_cond *c); /* all that wait now */
/** -1 ERR_TIMEOUT, ERR_CANCELLED. */
MUST_CHECK int fiber_cond_wait(struct fiber_cond *c, mono_t deadline);

struct fiber_mutex {
	struct fiber *owner;
	struct fiber_cond cond;
};
void fiber_mutex_init(struct fiber_mutex *m);
MUST_CHECK int fiber_mutex_lock(struct fiber_mutex *m, mono_t deadline);
void fiber_mutex_unlock(struct fiber_mutex *m);

/** A counting semaphore. */
struct fiber_sem {
	int64_t n;
	struct fiber_cond cond;
};
void fiber_sem_init(struct fiber_sem *s, int64_t n);
MUST_CHECK int fiber_sem_acquire(struct fiber_sem *s, mono_t deadline);
bool fiber_sem_try(struct fiber_sem *s);
void fiber_sem_release(struct fiber_sem *s);
