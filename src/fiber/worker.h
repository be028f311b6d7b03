/* worker.h - the threads that run fibers: one OS thread, one libuv loop, one scheduler each. Worker 0 is
 * started first and stops last. Also the mailbox: how anything crosses threads. */
#pragma once

#include "fiber/fiber.h"

#include <uv.h>

struct worker;

#define WORKERS_MAX 256

/** Starts n workers, WORKERS_MAX at most (threads named worker-0 ...). From the main thread; again only after
 * workers_stop. */
void workers_start(unsigned n);
/** Stops them all in order: cancels each worker's own group, joins until
 * the deadline (a fiber that is left is logged with its name and what it
 * waits for), stops the loops, joins the threads. From the main thread. */
void workers_stop(mono_t deadline);
unsigned workers_count(void);
struct worker *worker_get(unsigned i);
struct worker *worker_self(void); /* NULL on other threads */
unsigned worker_index(const struct worker *w);
uv_loop_t *worker_loop(struct worker *w); /* only for its own thread */
/** The worker with the fewest fibers, for placing new work. Any thread. */
struct worker *worker_least_loaded(void);

/** Runs fn(arg) on the worker's loop stack (not in a fiber: no yields; start a fiber if it must wait). Any
 * thread; FIFO per sender; never blocks, never fails. A sender inside a worker may have its posts batched
 * until the end of its turn. */
typedef void mail_fn(void *arg);
void worker_post(struct worker *w, mail_fn *fn, void *arg);
/** As above without an allocation: the caller's node, its own until fn runs. */
struct mail {
	struct mail *next;
	mail_fn *fn;
	void *arg;
};
void worker_post_mail(struct worker *w, struct mail *m);
/** Starts a fiber on another worker (in its own group). Any thread. name is copied. */
void worker_start_fiber(struct worker *w, const char *name, fiber_fn *fn, void *arg);

/** A wake-up that may be sent from any thread, to a fiber that may have given up waiting: refcounted. The
 * waiting side makes it, hands a reference to the other side, waits; the other side fires once and drops its
 * reference. */
struct event;
struct event *event_new(void); /* for a fiber of the calling worker; one reference */
struct event *event_ref(struct event *e);
void event_unref(struct event *e); /* any thread */
void event_fire(struct event *e);  /* any thread; further calls do nothing */
bool event_is_fired(const struct event *e);
/** -1 ERR_TIMEOUT, ERR_CANCELLED. Yields. Returns 0 at once if it was fired already. */
MUST_CHECK int event_wait(struct event *e, mono_t deadline);

/** Runs the fiber `fn` on worker 0 from the main thread and blocks that thread until it returns (start-up,
 * tests). */
void worker_run(fiber_fn *fn, void *arg);

/** After clock_set_virtual, clock_advance or clock_set_real: has every worker look at its deadlines again.
 * Any thread; the fibers concerned run soon after, not before it returns. For tests. */
void worker_clock_changed(void);

/** What a worker runs at this moment: a fiber's name, "loop" for its mail, "" while it waits for something to
 * do. Any thread. */
void worker_read_running(struct worker *w, char name[32]);
#define WATCHDOG_DEFAULT_MS 50
/** A slice longer than this is logged by the watchdog thread with the fiber's name (default
 * WATCHDOG_DEFAULT_MS; 0 = off). */
void worker_set_watchdog(dur_t slice);
