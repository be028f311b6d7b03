/* sync.h - waiting for each other, between fibers of one worker. FIFO. */
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
