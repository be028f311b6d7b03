/* Blocking work: results and errors come back, the loop goes on meanwhile, cancel and deadlines. */
#include "fiber/offload.h"

#include "fiber_check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define N_THREADS 2

static int setup(void **state)
{
	workers_start(2);
	offload_start(N_THREADS);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	offload_stop();
	return 0;
}

/* A job that blocks its thread until it is let go. */
struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_open;
	atomic_int n_begun, n_ended;
};
#define GATE_INIT                                                                    \
	{                                                                            \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER \
	}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->mutex);
	g->is_open = true;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->mutex);
}

static int gate_job(void *arg)
{
	struct gate *g = arg;
	CHECK(worker_self() == NULL);
	atomic_fetch_add(&g->n_begun, 1);
	pthread_mutex_lock(&g->mutex);
	while (!g->is_open)
		pthread_cond_wait(&g->cond, &g->mutex);
	pthread_mutex_unlock(&g->mutex);
	atomic_fetch_add(&g->n_ended, 1);
	return 0;
}

/* The runner's time limit ends this if it does not come true. */
static void until_begun(struct gate *g, int n)
{
	while (atomic_load(&g->n_begun) < n)
		CHECK(fiber_sleep(DUR_ZERO, MONO_NEVER) == 0);
}

/* --- results --- */

static int double_it(void *arg)
{
	int *v = arg;
	*v *= 2;
	return 0;
}

static int fail_it(void *arg)
{
	err_set_sys(2, "job %d", *(int *)arg);
	return -1;
}

static void result_run(void *arg)
{
	for (int i = 0; i < 200; i++) {
		int v = i;
		CHECK(offload_run(double_it, &v, mono_after(dur_s(60))) == 0);
		CHECK(v == 2 * i);
		CHECK(offload_run(fail_it, &i, mono_after(dur_s(60))) == -1);
		struct err e = err_take();
		char want[32];
		snprintf(want, sizeof(want), "job %d: ", i);
		CHECK(e.kind == ERR_IO && e.sys_errno == 2 && strncmp(e.text, want, strlen(want)) == 0);
		err_fini(&e);
	}
}

static void result_main(void *arg)
{
	struct fiber_group g;
	fiber_group_init(&g);
	for (int i = 0; i < 20; i++)
		fiber_start(&g, "result", result_run, NULL);
	CHECK(fiber_group_join(&g, mono_after(dur_s(100))) == 0);
}

static void test_results(void **state)
{
	int v = 21;
	worker_run(result_main, NULL);
	assert_int_equal(offload_run(double_it, &v, MONO_NEVER), 0); /* in place */
	assert_int_equal(v, 42);
}

/* --- a job that waits in the queue can be withdrawn; one that has begun is waited for --- */

struct offer {
	struct gate *gate;
	mono_t deadline;
	int rc;
	enum err_kind kind;
	bool has_returned;
};

static void offer_run(void *arg)
{
	struct offer *o = arg;
	o->rc = offload_run(gate_job, o->gate, o->deadline);
	o->kind = err_kind();
	err_clear();
	o->has_returned = true;
}

/* In virtual time, so that no deadline passes before the jobs have begun. */
static void cancel_main(void *arg)
{
	static struct gate busy = GATE_INIT, never = GATE_INIT;
	struct fiber_group g, gq;
	struct offer o[N_THREADS], q[2] = {{.gate = &never, .deadline = MONO_NEVER}, {.gate = &never}};

	clock_set_virtual((mono_t){NS_PER_S}, (wall_t){0});
	worker_clock_changed();
	fiber_group_init(&g);
	fiber_group_init(&gq);
	for (int i = 0; i < N_THREADS; i++) {
		o[i] = (struct offer){.gate = &busy, .deadline = mono_after(dur_ms(1))};
		fiber_start(&g, "begun", offer_run, &o[i]);
	}
	until_begun(&busy, N_THREADS);

	/* all threads are busy: these stay in the queue */
	fiber_start(&gq, "queued", offer_run, &q[0]);
	fiber_yield();
	fiber_group_cancel(&gq);
	CHECK(fiber_group_join(&gq, MONO_NEVER) == 0);
	CHECK(q[0].rc == -1 && q[0].kind == ERR_CANCELLED);
	fiber_start(&gq, "queued", offer_run, &q[1]); /* its deadline is long past */
	CHECK(fiber_group_join(&gq, MONO_NEVER) == 0);
	CHECK(q[1].rc == -1 && q[1].kind == ERR_TIMEOUT);

	/* a cancel and a deadline that passes change nothing for those that have begun */
	clock_advance(dur_s(1));
	worker_clock_changed();
	for (int i = 0; i < 2000; i++) /* several turns */
		fiber_yield();
	fiber_group_cancel(&g);
	for (int i = 0; i < 2000; i++)
		fiber_yield();
	CHECK(g.n == N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		CHECK(!o[i].has_returned);
	gate_open(&busy);
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);
	for (int i = 0; i < N_THREADS; i++)
		CHECK(o[i].has_returned && o[i].rc == 0);
	CHECK(atomic_load(&busy.n_ended) == N_THREADS && atomic_load(&never.n_begun) == 0);

	/* a fiber that is cancelled already does not start a job */
	struct offer late = {.gate = &never, .deadline = MONO_NEVER};
	fiber_cancel(fiber_start(&g, "late", offer_run, &late));
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);
	CHECK(late.rc == -1 && late.kind == ERR_CANCELLED && atomic_load(&never.n_begun) == 0);
	clock_set_real();
	worker_clock_changed();
}

static void test_cancel_and_deadline(void **state)
{
	worker_run(cancel_main, NULL);
}

/* --- withdrawals that race with threads that take the job: it runs or it fails, never both --- */

struct counted {
	atomic_int n_runs;
};

static int count_job(void *arg)
{
	struct counted *c = arg;
	atomic_fetch_add(&c->n_runs, 1);
	return 0;
}

static void withdraw_run(void *arg)
{
	for (int i = 0; i < 500; i++) {
		struct counted c = {0};
		int rc = offload_run(count_job, &c, i % 2 == 0 ? (mono_t){0} : mono_after(dur_us(20)));
		CHECK(rc == 0 || err_is(ERR_TIMEOUT));
		CHECK(atomic_load(&c.n_runs) == (rc == 0 ? 1 : 0));
		err_clear();
	}
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void withdraw_main(void *arg)
{
	static atomic_int n_done;
	mono_t deadline = mono_after(dur_s(100));
	for (int i = 0; i < 20; i++)
		worker_start_fiber(worker_get((unsigned)i % 2), "withdraw", withdraw_run, &n_done);
	while (atomic_load(&n_done) < 20) {
		CHECK(!mono_is_past(deadline));
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	}
}

static void test_withdraw_race(void **state)
{
	worker_run(withdraw_main, NULL);
}

static void stopped_run(void *arg)
{
	int v = 1;
	CHECK_FAILS(offload_run(double_it, &v, MONO_NEVER), ERR_SHUTDOWN);
	CHECK(v == 1);
}

static void test_stopped(void **state)
{
	offload_stop();
	worker_run(stopped_run, NULL);
	offload_start(N_THREADS);
	worker_run(result_run, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_results),
		cmocka_unit_test(test_cancel_and_deadline),
		cmocka_unit_test(test_withdraw_race),
		cmocka_unit_test(test_stopped),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
