/* Conditions, mutexes and semaphores: order, hand-over, cancel and time-outs. */
#include "fiber/sync.h"

#include "fiber_check.h"

static int setup(void **state)
{
	workers_start(1);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	return 0;
}

struct shared {
	struct fiber_cond cond;
	struct fiber_mutex mutex;
	struct fiber_sem sem;
	int order[64];
	int n;
	int n_inside, n_inside_max;
	int n_failed;
};

struct member {
	struct shared *s;
	int id;
	mono_t deadline;
};

static void shared_init(struct shared *s)
{
	*s = (struct shared){.n = 0};
	fiber_cond_init(&s->cond);
	fiber_mutex_init(&s->mutex);
	fiber_sem_init(&s->sem, 0);
}

static void members_init(struct member *m, int n, struct shared *s, struct fiber_group *g, fiber_fn *fn)
{
	shared_init(s);
	fiber_group_init(g);
	for (int i = 0; i < n; i++) {
		m[i] = (struct member){s, i, MONO_NEVER};
		fiber_start(g, "member", fn, &m[i]);
	}
}

/* --- cond --- */

static void cond_run(void *arg)
{
	struct member *m = arg;
	if (fiber_cond_wait(&m->s->cond, m->deadline) == 0) {
		m->s->order[m->s->n++] = m->id;
		return;
	}
	CHECK(err_is(ERR_CANCELLED));
	m->s->n_failed++;
}

static void cond_main(void *arg)
{
	struct shared s;
	struct member m[6];
	struct fiber_group g;

	members_init(m, 6, &s, &g, cond_run);
	fiber_cond_signal(&s.cond); /* nobody waits yet: lost, as it should be */
	fiber_yield();
	CHECK(s.n == 0);
	fiber_cond_signal(&s.cond);
	fiber_cond_signal(&s.cond);
	fiber_yield();
	CHECK(s.n == 2 && s.order[0] == 0 && s.order[1] == 1);
	fiber_cond_broadcast(&s.cond);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 6);
	for (int i = 0; i < 6; i++)
		CHECK(s.order[i] == i);

	CHECK_FAILS(fiber_cond_wait(&s.cond, mono_after(dur_ms(2))), ERR_TIMEOUT);
	CHECK(list_is_empty(&s.cond.waiters));

	members_init(m, 2, &s, &g, cond_run);
	fiber_yield();
	fiber_group_cancel(&g);
	fiber_cond_signal(&s.cond); /* goes to the first although it was cancelled: not lost */
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 1 && s.order[0] == 0 && s.n_failed == 1);
}

static void test_cond(void **state)
{
	worker_run(cond_main, NULL);
}

/* --- mutex --- */

static void mutex_run(void *arg)
{
	struct member *m = arg;
	for (int i = 0; i < 5; i++) {
		CHECK(fiber_mutex_lock(&m->s->mutex, m->deadline) == 0);
		CHECK(m->s->mutex.owner == fiber_self());
		CHECK(++m->s->n_inside == 1);
		m->s->order[m->s->n++] = m->id;
		fiber_yield();
		m->s->n_inside--;
		fiber_mutex_unlock(&m->s->mutex);
	}
}

static void mutex_wait_run(void *arg)
{
	struct member *m = arg;
	if (fiber_mutex_lock(&m->s->mutex, m->deadline) != 0) {
		CHECK(err_is(ERR_CANCELLED));
		m->s->n_failed++;
		return;
	}
	m->s->order[m->s->n++] = m->id;
	fiber_mutex_unlock(&m->s->mutex);
}

static void mutex_timeout_run(void *arg)
{
	struct shared *s = arg;
	CHECK_FAILS(fiber_mutex_lock(&s->mutex, mono_after(dur_ms(2))), ERR_TIMEOUT);
}

static void mutex_main(void *arg)
{
	struct shared s;
	struct member m[4];
	struct fiber_group g;

	members_init(m, 4, &s, &g, mutex_run);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 20 && s.mutex.owner == NULL);
	for (int i = 0; i < 20; i++) /* the one that unlocks goes to the back: strictly in turn */
		CHECK(s.order[i] == i % 4);

	/* cancel of waiters; the cancelled one in front is not handed the lock */
	members_init(m, 3, &s, &g, mutex_wait_run);
	CHECK(fiber_mutex_lock(&s.mutex, MONO_NEVER) == 0);
	fiber_yield();
	fiber_cancel(list_entry(s.mutex.cond.waiters.next, struct waiter, link)->fiber);
	fiber_yield();
	CHECK(s.n_failed == 1);
	fiber_mutex_unlock(&s.mutex);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 2 && s.order[0] == 1 && s.order[1] == 2 && s.mutex.owner == NULL);

	CHECK(fiber_mutex_lock(&s.mutex, MONO_NEVER) == 0);
	fiber_start(&g, "late", mutex_timeout_run, &s);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	fiber_mutex_unlock(&s.mutex);
	CHECK(s.mutex.owner == NULL);

	/* cancelled and handed the lock in the same turn: it owns the lock and gives it back */
	members_init(m, 1, &s, &g, mutex_wait_run);
	CHECK(fiber_mutex_lock(&s.mutex, MONO_NEVER) == 0);
	fiber_yield();
	fiber_group_cancel(&g);
	fiber_mutex_unlock(&s.mutex);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 1 && s.n_failed == 0 && s.mutex.owner == NULL);
}

static void test_mutex(void **state)
{
	worker_run(mutex_main, NULL);
}

/* --- sem --- */

static void sem_run(void *arg)
{
	struct member *m = arg;
	CHECK(fiber_sem_acquire(&m->s->sem, m->deadline) == 0);
	m->s->order[m->s->n++] = m->id;
	if (++m->s->n_inside > m->s->n_inside_max)
		m->s->n_inside_max = m->s->n_inside;
	fiber_yield();
	m->s->n_inside--;
	fiber_sem_release(&m->s->sem);
}

static void sem_cancelled_run(void *arg)
{
	struct member *m = arg;
	CHECK_FAILS(fiber_sem_acquire(&m->s->sem, MONO_NEVER), ERR_CANCELLED);
}

static void sem_main(void *arg)
{
	struct shared s;
	struct member m[20];
	struct fiber_group g;

	members_init(m, 20, &s, &g, sem_run);
	fiber_yield();
	CHECK(s.n == 0 && !fiber_sem_try(&s.sem));
	for (int i = 0; i < 3; i++)
		fiber_sem_release(&s.sem);
	CHECK(!fiber_sem_try(&s.sem)); /* handed to those that wait, not up for grabs */
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(s.n == 20 && s.n_inside_max == 3 && s.sem.n == 3);
	for (int i = 0; i < 20; i++)
		CHECK(s.order[i] == i);
	CHECK(fiber_sem_try(&s.sem) && s.sem.n == 2);

	fiber_sem_init(&s.sem, -1); /* the first release pays a debt */
	fiber_sem_release(&s.sem);
	CHECK(!fiber_sem_try(&s.sem));
	CHECK_FAILS(fiber_sem_acquire(&s.sem, mono_after(dur_ms(2))), ERR_TIMEOUT);
	fiber_sem_release(&s.sem);
	CHECK(s.sem.n == 1); /* the one that timed out took nothing */

	members_init(m, 2, &s, &g, sem_cancelled_run);
	fiber_yield();
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	fiber_sem_release(&s.sem);
	CHECK(s.sem.n == 1);
}

static void test_sem(void **state)
{
	worker_run(sem_main, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cond),
		cmocka_unit_test(test_mutex),
		cmocka_unit_test(test_sem),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
