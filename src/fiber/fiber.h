/* fiber.h - stackful fibers on a worker's loop. A fiber never leaves its worker and is only suspended in
 * functions that take a deadline (or fiber_yield). Every fiber belongs to a group; the group's owner joins
 * it. Cancelling sets a flag and wakes the fiber; each wait then fails with ERR_CANCELLED until the fiber
 * returns. Functions here are for the fiber's own worker unless they say otherwise. */
#pragma once

#include "base/clock.h"
#include "base/list.h"

struct fiber;
struct worker;
typedef void fiber_fn(void *arg);

/* --- groups --- */
struct fiber_group {
	struct list fibers; /* of the worker that uses it: a group is not shared between workers */
	size_t n;
	struct list joiners;
};
void fiber_group_init(struct fiber_group *g);
/** Cancels every fiber of the group; none has run when it returns. */
void fiber_group_cancel(struct fiber_group *g);
/** Waits until the group is empty. Yields. -1 ERR_TIMEOUT, ERR_CANCELLED: some are left. */
MUST_CHECK int fiber_group_join(struct fiber_group *g, mono_t deadline);

/** Starts fn(arg) in a new fiber of this worker; it first runs when the caller yields or the loop turns.
 * @g NULL: the worker's own group, cancelled and joined at worker stop. @name is copied, 31 bytes at most. */
struct fiber *fiber_start(struct fiber_group *g, const char *name, fiber_fn *fn, void *arg);
void fiber_cancel(struct fiber *f);
struct fiber *fiber_self(void); /* NULL outside fibers */
const char *fiber_name(const struct fiber *f);
/** Never used twice, in any worker; struct fiber is reused at its end. */
uint64_t fiber_id(const struct fiber *f);
void fiber_set_name(const char *name); /* of the running fiber */
bool fiber_is_cancelled(void);	       /* the running one */
/** Makes the running fiber deaf to cancel while depth > 0 (to finish a durable step). Balanced calls. */
void fiber_shield_begin(void);
void fiber_shield_end(void);
/** A number of the running fiber's own, 0 at its start: how deep calls are nested that may bring about
 * themselves. NULL outside fibers. */
unsigned *fiber_nesting(void);

/** Lets others run and continues in the same turn of the loop. */
void fiber_yield(void);
/** Sleeps for d; -1 ERR_CANCELLED, or ERR_TIMEOUT when the deadline comes first. */
MUST_CHECK int fiber_sleep(dur_t d, mono_t deadline);

/* --- waiting --- */
/** One wait of one fiber. On the waiting fiber's stack or in its struct; initialise before the address is
 * given away. A wake before the wait is remembered. waiter_wake may be called once per wait, from loop
 * callbacks or fibers of this worker. A wake that comes after its fiber gave up is harmless as long as the
 * waiter still exists: who gives up takes the address back first (unlinks it, stops the operation, or keeps
 * the waiter in a struct that outlives the operation). */
struct waiter {
	struct fiber *fiber; /* the one that waits; NULL when nobody does */
	bool is_fired;
	struct list link; /* for wait lists of the caller's */
};
void waiter_init(struct waiter *w);
void waiter_wake(struct waiter *w);
/** Returns 0 once w was woken (and re-arms it), else -1 ERR_TIMEOUT or ERR_CANCELLED. A wake wins over both:
 * a waiter that has fired by the time the fiber runs again returns 0, so what a wake hands over is never
 * lost. */
MUST_CHECK int fiber_wait(struct waiter *w, mono_t deadline);

/* --- diagnosis --- */
struct fiber_info {
	uint64_t id;
	const char *name;
	const char *waits_for; /* static text of the innermost wait: "read", "sleep", "mailbox" ... */
	dur_t waiting;
	bool is_cancelled;
};
typedef void fiber_info_fn(const struct fiber_info *fi, void *arg);
/** Every fiber of this worker; fn must not yield. The
 * strings are the fibers': copy what outlives the call. */
void fiber_each(fiber_info_fn *fn, void *arg);
/** Says what the next waits of this fiber are for, for fiber_each; static text. Returns the one before. */
const char *fiber_set_waits_for(const char *what);

#ifdef CIRRUS_DEBUG
void fiber_no_yield_begin(void);
void fiber_no_yield_end(void);
#define NO_YIELD_BEGIN fiber_no_yield_begin()
#define NO_YIELD_END fiber_no_yield_end()
#else
#define NO_YIELD_BEGIN ((void)0)
#define NO_YIELD_END ((void)0)
#endif
