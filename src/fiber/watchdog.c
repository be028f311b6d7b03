/* watchdog.c - a thread that notices slices that run too long. Each worker numbers its slices and publishes
 * the number and a name (fiber_impl.h), which costs it a few plain stores. The watchdog looks twice per
 * limit; a number it has seen for at least the limit is reported, once, while the slice still runs, so a
 * fiber that never returns is named too. The time is measured from the first sight, so it is never too long
 * and up to half a limit too short.
 *
 * A loop that polls has an empty name: libuv does not tell whether it sleeps in poll or runs a callback. The
 * thread's CPU time does: a callback that computes is found, one that blocks in a system call is not. Mail is
 * always found: it is delivered in a slice named "loop". Real time also in tests, where the other clocks are
 * virtual. */
#include "base/log.h"
#include "fiber/fiber_impl.h"

#include <errno.h>
#include <time.h>

const char watchdog_loop_name[FIBER_NAME_BYTES] = "loop";
const char watchdog_poll_name[FIBER_NAME_BYTES] = "";

struct watchdog_view {
	uint64_t seq;
	int64_t since_ns; /* of what clock, see is_polling */
	bool is_polling;  /* since_ns is the thread's CPU clock, else the monotonic one */
	bool is_reported;
};

static struct watchdog {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	pthread_t thread;
	bool has_thread, is_stopping;
	int64_t limit_ns; /* 0: off */
	unsigned n_workers;
	struct watchdog_view view[WORKERS_MAX];
} watchdog = {.mutex = PTHREAD_MUTEX_INITIALIZER, .limit_ns = WATCHDOG_DEFAULT_MS * INT64_C(1000000)};

static int64_t watchdog_read_clock(clockid_t id)
{
	struct timespec ts;
	if (clock_gettime(id, &ts) != 0)
		return 0;
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int64_t watchdog_now(const struct worker *w, bool is_polling)
{
	clockid_t id = CLOCK_MONOTONIC;
	if (is_polling && pthread_getcpuclockid(w->thread, &id) != 0)
		return 0;
	return watchdog_read_clock(id);
}

void watchdog_read_name(struct worker *w, char name[FIBER_NAME_BYTES])
{
	uint64_t word[FIBER_NAME_BYTES / 8];
	for (size_t i = 0; i < ARRAY_SIZE(word); i++)
		word[i] = atomic_load_explicit(&w->slice_name[i], memory_order_relaxed);
	memcpy(name, word, FIBER_NAME_BYTES);
	name[FIBER_NAME_BYTES - 1] = 0;
}

void worker_read_running(struct worker *w, char name[FIBER_NAME_BYTES])
{
	watchdog_read_name(w, name);
}

static void watchdog_look(struct watchdog *d, unsigned i)
{
	struct worker *w = &workers_all[i];
	struct watchdog_view *v = &d->view[i];
	char name[FIBER_NAME_BYTES];
	uint64_t seq = atomic_load_explicit(&w->slice_seq, memory_order_acquire);

	if (seq != v->seq) {
		watchdog_read_name(w, name);
		*v = (struct watchdog_view){.seq = seq, .is_polling = name[0] == 0};
		v->since_ns = watchdog_now(w, v->is_polling);
		return;
	}
	if (v->is_reported)
		return;
	int64_t ran_ns = watchdog_now(w, v->is_polling) - v->since_ns;
	if (ran_ns < d->limit_ns)
		return;
	watchdog_read_name(w, name);
	if (atomic_load_explicit(&w->slice_seq, memory_order_acquire) != seq)
		return; /* ended just now, and the name may be the next one's */
	v->is_reported = true;
	if (v->is_polling || strcmp(name, watchdog_loop_name) == 0)
		log_warn("kumod", "the loop of worker-%u has run for %lld ms without yielding", i,
			 (long long)(ran_ns / 1000000));
	else
		log_warn("kumod", "fiber %s has run for %lld ms without yielding (worker-%u)", name,
			 (long long)(ran_ns / 1000000), i);
}

static void *watchdog_main(void *arg)
{
	struct watchdog *d = arg;
	pthread_setname_np(pthread_self(), "watchdog");
	log_set_thread_name("watchdog");
	pthread_mutex_lock(&d->mutex);
	while (!d->is_stopping) {
		if (d->limit_ns == 0) {
			pthread_cond_wait(&d->cond, &d->mutex);
			continue;
		}
		for (unsigned i = 0; i < d->n_workers; i++)
			watchdog_look(d, i);
		int64_t at = watchdog_read_clock(CLOCK_MONOTONIC) + d->limit_ns / 2;
		struct timespec until = {.tv_sec = at / NS_PER_S, .tv_nsec = at % NS_PER_S};
		pthread_cond_timedwait(&d->cond, &d->mutex, &until);
	}
	pthread_mutex_unlock(&d->mutex);
	return NULL;
}

void watchdog_start(unsigned n_workers)
{
	struct watchdog *d = &watchdog;
	pthread_mutex_lock(&d->mutex);
	worker_cond_init(&d->cond);
	for (unsigned i = 0; i < n_workers; i++)
		d->view[i] = (struct watchdog_view){.seq = UINT64_MAX}; /* nothing seen yet */
	d->n_workers = n_workers;
	d->is_stopping = false;
	int rc = worker_thread_create(&d->thread, watchdog_main, d);
	if (rc != 0)
		panic("cannot make the watchdog thread: %s", strerror(rc));
	d->has_thread = true;
	pthread_mutex_unlock(&d->mutex);
}

void watchdog_stop(void)
{
	struct watchdog *d = &watchdog;
	pthread_mutex_lock(&d->mutex);
	d->is_stopping = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->mutex);
	pthread_join(d->thread, NULL);
	pthread_mutex_lock(&d->mutex);
	d->has_thread = false;
	pthread_cond_destroy(&d->cond);
	pthread_mutex_unlock(&d->mutex);
}

void worker_set_watchdog(dur_t slice)
{
	struct watchdog *d = &watchdog;
	pthread_mutex_lock(&d->mutex);
	d->limit_ns = slice.ns > 0 ? slice.ns : 0;
	if (d->has_thread)
		pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->mutex);
}
