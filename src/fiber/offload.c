/* offload.c - a pool of threads for calls that block. A job lies on the stack of the fiber that waits for it;
 * that is safe since the fiber leaves only when the job has been withdrawn from the queue (under the mutex,
 * so no thread can have begun it) or has ended. The end is a mail, also in the job, that wakes the fiber on
 * its own worker.
 *
 * Threads are made when more jobs wait than threads idle, up to the limit, and end after half a minute
 * without work. The mutex is held for list operations only, never while a job runs or a fiber waits. */
#include "fiber/offload.h"

#include "base/log.h"
#include "fiber/fiber_impl.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define OFFLOAD_IDLE_S 30

struct offload_job {
	struct list link; /* in the queue until begun */
	offload_fn *fn;
	void *arg;
	bool has_begun; /* under the mutex */
	int rc;
	struct err err; /* of fn, when rc is not 0 */
	struct worker *worker;
	struct mail mail;
	struct waiter waiter; /* of the worker */
};

static struct offload_pool {
	pthread_mutex_t mutex;
	pthread_cond_t work, gone;
	struct list queue;
	size_t n_queued;
	unsigned n_max, n_threads, n_idle, n_made;
	enum { OFFLOAD_NEVER, OFFLOAD_RUNS, OFFLOAD_STOPPED } state;
} offload_pool = {.mutex = PTHREAD_MUTEX_INITIALIZER};

void offload_start(unsigned max_threads)
{
	struct offload_pool *p = &offload_pool;
	if (max_threads == 0)
		panic("offload_start with no threads");
	pthread_mutex_lock(&p->mutex);
	if (p->state == OFFLOAD_RUNS)
		panic("offload_start twice");
	worker_cond_init(&p->work);
	worker_cond_init(&p->gone);
	list_init(&p->queue);
	p->n_max = max_threads;
	p->state = OFFLOAD_RUNS;
	pthread_mutex_unlock(&p->mutex);
}

void offload_stop(void)
{
	struct offload_pool *p = &offload_pool;
	pthread_mutex_lock(&p->mutex);
	if (p->state == OFFLOAD_RUNS) {
		p->state = OFFLOAD_STOPPED;
		pthread_cond_broadcast(&p->work);
		while (p->n_threads > 0)
			pthread_cond_wait(&p->gone, &p->mutex);
		pthread_cond_destroy(&p->work);
		pthread_cond_destroy(&p->gone);
	}
	pthread_mutex_unlock(&p->mutex);
}

static void offload_wake(void *arg)
{
	struct offload_job *j = arg;
	waiter_wake(&j->waiter);
}

static void offload_execute(struct offload_job *j)
{
	j->rc = j->fn(j->arg);
	if (j->rc != 0)
		j->err = err_take();
	else
		err_clear();
	j->mail = (struct mail){.fn = offload_wake, .arg = j};
	worker_post_mail(j->worker, &j->mail); /* j may be gone from here on */
}

/* The next job, or NULL when the thread shall end: nothing to do for long, or the pool stops. Called with the
 * mutex. */
static struct offload_job *offload_next(struct offload_pool *p)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += OFFLOAD_IDLE_S;
	bool is_late = false;
	while (list_is_empty(&p->queue)) {
		if (is_late || p->state != OFFLOAD_RUNS)
			return NULL;
		p->n_idle++;
		is_late = pthread_cond_timedwait(&p->work, &p->mutex, &until) == ETIMEDOUT;
		p->n_idle--;
	}
	p->n_queued--;
	struct offload_job *j = list_entry(list_pop_front(&p->queue), struct offload_job, link);
	j->has_begun = true;
	return j;
}

static void *offload_main(void *arg)
{
	struct offload_pool *p = arg;
	struct offload_job *j;
	char name[16];

	pthread_mutex_lock(&p->mutex);
	snprintf(name, sizeof(name), "offload-%u", p->n_made++ % 10000000);
	pthread_setname_np(pthread_self(), name);
	log_set_thread_name(name);
	while ((j = offload_next(p)) != NULL) {
		pthread_mutex_unlock(&p->mutex);
		offload_execute(j);
		pthread_mutex_lock(&p->mutex);
	}
	if (--p->n_threads == 0)
		pthread_cond_signal(&p->gone);
	pthread_mutex_unlock(&p->mutex);
	return NULL;
}

/* One more thread if the jobs that wait outnumber the idle ones. -1 when there is none at all and none can be
 * made. Called with the mutex. */
static int offload_grow(struct offload_pool *p)
{
	pthread_t t;
	if (p->n_queued <= p->n_idle || p->n_threads >= p->n_max)
		return 0;
	int rc = worker_thread_create(&t, offload_main, p);
	if (rc == 0) {
		pthread_detach(t);
		p->n_threads++;
		return 0;
	}
	if (p->n_threads > 0)
		return 0; /* it takes longer, no more */
	err_set_sys(rc, "cannot make an offload thread");
	return -1;
}

static int offload_submit(struct offload_job *j)
{
	struct offload_pool *p = &offload_pool;
	int rc = -1;

	pthread_mutex_lock(&p->mutex);
	if (p->state == OFFLOAD_NEVER)
		panic("offload_run before offload_start");
	if (p->state == OFFLOAD_STOPPED) {
		err_set(ERR_SHUTDOWN, "the offload threads have stopped");
		goto out;
	}
	list_push_back(&p->queue, &j->link);
	p->n_queued++;
	if (offload_grow(p) != 0) {
		list_remove(&j->link);
		p->n_queued--;
		goto out;
	}
	if (p->n_idle > 0)
		pthread_cond_signal(&p->work);
	rc = 0;
out:
	pthread_mutex_unlock(&p->mutex);
	return rc;
}

/* True when the job had not begun; then it never will. */
static bool offload_withdraw(struct offload_job *j)
{
	struct offload_pool *p = &offload_pool;
	pthread_mutex_lock(&p->mutex);
	bool is_out = !j->has_begun;
	if (is_out) {
		list_remove(&j->link);
		p->n_queued--;
	}
	pthread_mutex_unlock(&p->mutex);
	return is_out;
}

int offload_run(offload_fn *fn, void *arg, mono_t deadline)
{
	struct fiber *f = fiber_self();
	if (f == NULL)
		return fn(arg);

	struct offload_job j = {.fn = fn, .arg = arg, .worker = worker_self()};
	waiter_init(&j.waiter);
	if (fiber_is_cancel_due(f)) {
		err_set(ERR_CANCELLED, "cancelled before a job was offloaded");
		return -1;
	}
	if (offload_submit(&j) != 0)
		return -1;
	if (fiber_wait_for(&j.waiter, deadline, "an offload thread") != 0) {
		if (offload_withdraw(&j))
			return -1;
		err_clear();
		fiber_shield_begin();
		int rc = fiber_wait_for(&j.waiter, MONO_NEVER, "an offload job that has begun");
		fiber_shield_end();
		if (rc != 0)
			panic("a shielded wait without a deadline gave up");
	}
	if (j.rc != 0)
		err_put(j.err);
	return j.rc;
}
