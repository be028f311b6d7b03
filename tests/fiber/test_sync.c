/* Conditions: order, cancel and time-outs. */
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
	int order[64];
	int n;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cond),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
