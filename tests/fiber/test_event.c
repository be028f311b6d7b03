/* Events: fired before, while and after somebody waits, from the same worker, another worker and a plain
 * thread. */
#include "fiber_check.h"

#include <pthread.h>
#include <stdatomic.h>

#define N_WORKERS 3
#define N_ROUNDS 20000

static int setup(void **state)
{
	workers_start(N_WORKERS);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	return 0;
}

/* --- on one worker --- */

static void fire_it(void *arg)
{
	event_fire(arg);
}

static void wait_cancelled(void *arg)
{
	CHECK_FAILS(event_wait(arg, MONO_NEVER), ERR_CANCELLED);
}

static void wait_fired(void *arg)
{
	CHECK(event_wait(arg, MONO_NEVER) == 0);
}

static void local_main(void *arg)
{
	struct event *e = event_new();
	struct fiber_group g;
	fiber_group_init(&g);

	CHECK(!event_is_fired(e));
	CHECK_FAILS(event_wait(e, mono_after(dur_ms(2))), ERR_TIMEOUT);
	fiber_start(&g, "waits", wait_cancelled, e);
	fiber_yield();
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, MONO_NEVER) == 0);

	for (int i = 0; i < 3; i++)
		fiber_start(&g, "waits", wait_fired, e);
	fiber_start(&g, "fires", fire_it, e);
	CHECK(event_wait(e, mono_after(dur_s(20))) == 0);
	CHECK(fiber_group_join(&g, mono_after(dur_s(20))) == 0);
	CHECK(event_is_fired(e));
	event_fire(e); /* does nothing */
	CHECK(event_wait(e, (mono_t){0}) == 0);
	event_unref(e);
	event_unref(NULL);
}

static void test_one_worker(void **state)
{
	worker_run(local_main, NULL);
}

/* --- the waiting side times out at about the time when the other side fires --- */

struct race {
	struct event *event;
	int *value; /* written before the fire, read after the wait */
	unsigned n_spins;
};

static void race_fire(void *arg)
{
	struct race *r = arg;
	for (volatile unsigned i = 0; i < r->n_spins; i++)
		;
	*r->value = 42;
	event_fire(r->event);
	event_unref(r->event);
	free(r);
}

/* Values outlive their round: a round that timed out leaves its firing side behind. */
static int race_value[N_ROUNDS];

static void race_main(void *arg)
{
	unsigned n_fired = 0, n_late = 0, seed = 1;
	for (int i = 0; i < N_ROUNDS; i++) {
		struct event *e = event_new();
		struct race *r = malloc(sizeof(*r));
		*r = (struct race){
			.event = event_ref(e), .value = &race_value[i], .n_spins = rand_r(&seed) % 2000};
		worker_post(worker_get(1 + (unsigned)i % (N_WORKERS - 1)), race_fire, r);
		/* zero, or whatever a turn takes: both orders happen */
		mono_t deadline = i % 4 == 0   ? mono_after(dur_s(60))
				  : i % 4 == 1 ? (mono_t){0}
					       : mono_after(dur_us(1));
		if (event_wait(e, deadline) == 0) {
			CHECK(race_value[i] == 42);
			n_fired++;
		} else {
			CHECK_FAILS(-1, ERR_TIMEOUT);
			CHECK(i % 4 != 0);
			n_late++;
		}
		event_unref(e);
	}
	print_message("%u fired in time, %u late\n", n_fired, n_late);
	CHECK(n_fired >= N_ROUNDS / 4);
}

static void test_race(void **state)
{
	worker_run(race_main, NULL);
}

/* --- many sides fire the same event from plain threads --- */

static void *thread_fire(void *arg)
{
	event_fire(arg);
	event_unref(arg);
	return NULL;
}

static void threads_main(void *arg)
{
	for (int round = 0; round < 100; round++) {
		struct event *e = event_new();
		pthread_t t[4];
		for (int i = 0; i < 4; i++)
			CHECK(pthread_create(&t[i], NULL, thread_fire, event_ref(e)) == 0);
		CHECK(event_wait(e, mono_after(dur_s(20))) == 0);
		for (int i = 0; i < 4; i++)
			pthread_join(t[i], NULL);
		event_unref(e);
	}
}

static void test_threads(void **state)
{
	worker_run(threads_main, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_worker),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
