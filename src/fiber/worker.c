/* worker.c - the threads: start, stop, and what may be asked about them from outside.
 *
 * struct worker lies in a static array and is never freed: a post to a worker that has stopped is lost, not a
 * crash.
 *
 * Stopping has two phases, each driven by mail from the main thread. First every worker, at the same time,
 * cancels its own group and joins it until the deadline; meanwhile all loops turn, so fibers can still talk
 * across workers. Then, the last worker first, each joins what has arrived since, logs the fibers that are
 * left, stops its loop, closes its handles and is joined. The stacks of fibers that were left are leaked:
 * they may hold anything. A worker that does not even answer (a fiber that never yields) is named and its
 * thread abandoned. */
#include "base/alloc.h"
#include "base/log.h"
#include "fiber/fiber_impl.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#define WORKER_STOP_GRACE_S 2 /* beyond the deadline, for workers to answer */

struct worker workers_all[WORKERS_MAX];
static atomic_uint workers_n;
static _Thread_local struct worker *worker_current;

/* --- threads --- */

int worker_thread_create(pthread_t *t, void *(*fn)(void *), void *arg)
{
	sigset_t block, old;
	sigfillset(&block);
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	sigdelset(&block, SIGABRT);
	sigdelset(&block, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &block, &old);
	int rc = pthread_create(t, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

void worker_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t a;
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(c, &a);
	pthread_condattr_destroy(&a);
}

unsigned workers_count(void)
{
	return atomic_load_explicit(&workers_n, memory_order_acquire);
}

struct worker *worker_get(unsigned i)
{
	if (i >= workers_count())
		panic("there is no worker %u of %u", i, workers_count());
	return &workers_all[i];
}

struct worker *worker_self(void)
{
	return worker_current;
}

unsigned worker_index(const struct worker *w)
{
	return w->index;
}

uv_loop_t *worker_loop(struct worker *w)
{
	return &w->loop;
}

static size_t worker_load(struct worker *w)
{
	return atomic_load_explicit(&w->n_fibers, memory_order_relaxed) +
	       atomic_load_explicit(&w->n_incoming, memory_order_relaxed);
}

struct worker *worker_least_loaded(void)
{
	static atomic_uint turn; /* where the search begins, so that equals take turns */
	unsigned n = workers_count(), first = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
	struct worker *best = worker_get(first % n);
	size_t best_load = worker_load(best);
	for (unsigned i = 1; i < n && best_load > 0; i++) {
		struct worker *w = &workers_all[(first + i) % n];
		size_t load = worker_load(w);
		if (load < best_load)
			best = w, best_load = load;
	}
	return best;
}

/* --- a worker's thread --- */

static void worker_close_stray(uv_handle_t *h, void *arg UNUSED)
{
	if (!uv_is_closing(h))
		uv_close(h, NULL);
}

static void worker_close_loop(struct worker *w)
{
	mailbox_close(w);
	sched_close_handles(w);
	uv_walk(&w->loop, worker_close_stray, NULL);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&w->loop) != 0)
		log_warn("kumod", "the loop of worker-%u still has requests under way", w->index);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	char name[16];
	snprintf(name, sizeof(name), "worker-%u", w->index);
	pthread_setname_np(pthread_self(), name);
	log_set_thread_name(name);
	worker_current = w;
	overflow_thread_init();
	context_init_thread(&w->loop_ctx);
	uv_run(&w->loop, UV_RUN_DEFAULT);
	worker_close_loop(w);
	sched_fini(w);
	mailbox_fini(w);
	overflow_thread_fini();
	worker_current = NULL;
	return NULL;
}

void workers_start(unsigned n)
{
	if (n == 0 || n > WORKERS_MAX)
		panic("%u workers: from 1 to %u are possible", n, WORKERS_MAX);
	if (workers_count() != 0)
		panic("workers_start twice");
	overflow_install();
	for (unsigned i = 0; i < n; i++) {
		struct worker *w = &workers_all[i];
		if (w->is_lost)
			panic("worker-%u was lost when the workers stopped: they cannot start again", i);
		mailbox_reap(w); /* posted after the last stop */
		memset(w, 0, sizeof(*w));
		w->index = i;
		int rc = uv_loop_init(&w->loop);
		if (rc != 0)
			panic("uv_loop_init: %s", uv_strerror(rc));
		sched_init(w);
		mailbox_init(w, n);
	}
	atomic_store_explicit(&workers_n, n, memory_order_release);
	for (unsigned i = 0; i < n; i++) {
		int rc = pthread_create(&workers_all[i].thread, NULL, worker_main, &workers_all[i]);
		if (rc != 0)
			panic("cannot make the thread of worker-%u: %s", i, strerror(rc));
	}
	watchdog_start(n);
}

/* --- fibers from elsewhere --- */

struct worker_start {
	struct mail mail;
	struct worker *worker;
	fiber_fn *fn;
	void *arg;
	char name[FIBER_NAME_BYTES];
};

void worker_start_arrived(void *arg)
{
	struct worker_start *s = arg;
	fiber_start_on(s->worker, &s->worker->group, s->name, s->fn, s->arg);
	atomic_fetch_sub_explicit(&s->worker->n_incoming, 1, memory_order_relaxed);
	free(s);
}

void worker_start_fiber(struct worker *w, const char *name, fiber_fn *fn, void *arg)
{
	struct worker_start *s = xnew(struct worker_start);
	s->worker = w, s->fn = fn, s->arg = arg;
	fiber_copy_name(s->name, name);
	atomic_fetch_add_explicit(&w->n_incoming, 1, memory_order_relaxed);
	s->mail = (struct mail){.fn = worker_start_arrived, .arg = s};
	worker_post_mail(w, &s->mail);
}

/* Something that a thread outside the workers waits for, n times. */
struct worker_latch {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned n_left;
};

static void worker_latch_init(struct worker_latch *l, unsigned n)
{
	pthread_mutex_init(&l->mutex, NULL);
	worker_cond_init(&l->cond);
	l->n_left = n;
}

static void worker_latch_fini(struct worker_latch *l)
{
	pthread_cond_destroy(&l->cond);
	pthread_mutex_destroy(&l->mutex);
}

static void worker_latch_count(struct worker_latch *l)
{
	pthread_mutex_lock(&l->mutex);
	if (--l->n_left == 0)
		pthread_cond_signal(
			&l->cond); /* under the mutex: the waiter may free the latch right after */
	pthread_mutex_unlock(&l->mutex);
}

/* until: NULL for no limit. */
static void worker_latch_wait(struct worker_latch *l, const struct timespec *until)
{
	int rc = 0;
	pthread_mutex_lock(&l->mutex);
	while (l->n_left > 0 && rc != ETIMEDOUT)
		rc = until != NULL ? pthread_cond_timedwait(&l->cond, &l->mutex, until)
				   : pthread_cond_wait(&l->cond, &l->mutex);
	pthread_mutex_unlock(&l->mutex);
}

struct worker_call {
	fiber_fn *fn;
	void *arg;
	struct worker_latch latch;
};

static void worker_call_run(void *arg)
{
	struct worker_call *c = arg;
	c->fn(c->arg);
	worker_latch_count(&c->latch);
}

void worker_run(fiber_fn *fn, void *arg)
{
	struct worker_call c = {.fn = fn, .arg = arg};
	if (worker_self() != NULL)
		panic("worker_run inside a worker");
	worker_latch_init(&c.latch, 1);
	worker_start_fiber(worker_get(0), "main", worker_call_run, &c);
	worker_latch_wait(&c.latch, NULL);
	worker_latch_fini(&c.latch);
}

/* --- the clock --- */

static void worker_look_at_clock(void *arg)
{
	struct worker *w = arg;
	atomic_store(&w->is_clock_mailed, false); /* first: a change from here on mails again */
	w->armed_ns = INT64_MAX;		  /* set for another clock, perhaps */
	sched_expire(w);
}

void worker_clock_changed(void)
{
	for (unsigned i = 0; i < workers_count(); i++) {
		struct worker *w = &workers_all[i];
		if (atomic_exchange(&w->is_clock_mailed, true))
			continue;
		w->clock_mail.fn = worker_look_at_clock;
		w->clock_mail.arg = w;
		worker_post_mail(w, &w->clock_mail);
	}
}

/* --- stopping --- */

/* Heap; abandoned together with a worker that does not answer. */
struct worker_stop {
	mono_t deadline;
	struct worker_latch latch;
};

static void worker_stop_join(struct worker *w, mono_t deadline)
{
	if (fiber_group_join(&w->group, deadline) != 0)
		err_clear(); /* those that are left are logged when the loop stops */
}

static void worker_stop_first_phase(void *arg)
{
	struct worker_stop *s = arg;
	struct worker *w = worker_self();
	fiber_group_cancel(&w->group);
	worker_stop_join(w, s->deadline);
	if (fiber_sleep(DUR_ZERO, MONO_NEVER) != 0) /* one turn: what they posted is on its way */
		panic("worker-stop was cancelled");
	atomic_store(&w->has_answered, true);
	worker_latch_count(&s->latch);
}

static void worker_begin_first_phase(void *arg)
{
	struct worker *w = worker_self();
	w->is_stopping = true;
	fiber_start_on(w, &w->system, "worker-stop", worker_stop_first_phase, arg);
}

static void worker_log_survivor(const struct fiber_info *fi, void *arg)
{
	if (fi->id != fiber_id(arg))
		log_warn("kumod", "fiber %s is left at stop; for %lld ms it has been waiting for %s",
			 fi->name, (long long)(fi->waiting.ns / 1000000), fi->waits_for);
}

/* Fibers that peers have sent since the first phase are here by now, and born cancelled. */
static void worker_stop_second_phase(void *arg)
{
	struct worker_stop *s = arg;
	struct worker *w = worker_self();
	worker_stop_join(w, s->deadline);
	fiber_each(worker_log_survivor, fiber_self());
	uv_stop(&w->loop);
}

static void worker_begin_second_phase(void *arg)
{
	struct worker *w = worker_self();
	fiber_start_on(w, &w->system, "worker-stop", worker_stop_second_phase, arg);
}

/* When the main thread stops waiting for an answer, on that clock; NULL: never. */
static const struct timespec *worker_stop_limit(mono_t deadline, clockid_t clock, struct timespec *until)
{
	if (deadline.ns == MONO_NEVER.ns || clock_is_virtual())
		return NULL;
	int64_t left_ns = mono_sub(deadline, mono_now()).ns;
	clock_gettime(clock, until);
	int64_t ns = until->tv_nsec + (left_ns > 0 ? left_ns : 0);
	until->tv_sec += ns / NS_PER_S + WORKER_STOP_GRACE_S;
	until->tv_nsec = ns % NS_PER_S;
	return until;
}

static bool worker_stop_loop(struct worker *w, struct worker_stop *s)
{
	struct timespec ts;
	const struct timespec *until = worker_stop_limit(s->deadline, CLOCK_REALTIME, &ts);
	worker_post(w, worker_begin_second_phase, s);
	if (until == NULL)
		return pthread_join(w->thread, NULL) == 0;
	return pthread_timedjoin_np(w->thread, NULL, until) == 0;
}

static void worker_abandon(struct worker *w)
{
	char name[FIBER_NAME_BYTES];
	watchdog_read_name(w, name);
	log_error("kumod", "worker-%u does not stop: fiber %s runs without yielding", w->index,
		  name[0] != 0 ? name : "loop");
	w->is_lost = true;
	pthread_detach(w->thread);
}

void workers_stop(mono_t deadline)
{
	unsigned n = workers_count();
	struct timespec ts;
	bool is_any_lost = false;

	if (worker_self() != NULL)
		panic("workers_stop inside a worker");
	if (n == 0)
		return;
	struct worker_stop *s = xnew(struct worker_stop);
	s->deadline = deadline;
	worker_latch_init(&s->latch, n);
	for (unsigned i = 0; i < n; i++)
		worker_post(&workers_all[i], worker_begin_first_phase, s);
	worker_latch_wait(&s->latch, worker_stop_limit(deadline, CLOCK_MONOTONIC, &ts));
	watchdog_stop();
	for (unsigned i = n; i-- > 0;) {
		struct worker *w = &workers_all[i];
		if (!atomic_load(&w->has_answered) || !worker_stop_loop(w, s)) {
			worker_abandon(w);
			is_any_lost = true;
		}
	}
	atomic_store_explicit(&workers_n, 0, memory_order_release);
	if (is_any_lost)
		return; /* it may still use all this */
	for (unsigned i = 0; i < n; i++)
		mailbox_reap(&workers_all[i]);
	worker_latch_fini(&s->latch);
	free(s);
}
