/* Mail between four workers: every mail arrives once, in
 * order per sender, also when deliveries are delayed. */
#include "base/alloc.h"
#include "base/fault.h"
#include "fiber_check.h"

#include <stdatomic.h>
#include <string.h>

#define N_WORKERS 4
#define N_MAILS 1000000 /* in all: from each worker to each, itself included */
#define N_PER_PAIR (N_MAILS / (N_WORKERS * N_WORKERS))

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

/* What one receiver has seen; touched by its own thread only, except n_total. */
static struct receiver {
	_Alignas(64) unsigned n_from[N_WORKERS];
	atomic_uint n_total;
} receiver[N_WORKERS];

static struct letter {
	struct mail mail;
	unsigned from, to, seq;
} * letters;

static atomic_uint n_senders_left;

static void letter_arrived(void *arg)
{
	struct letter *l = arg;
	CHECK(worker_index(worker_self()) == l->to);
	CHECK(fiber_self() == NULL);
	CHECK(receiver[l->to].n_from[l->from] == l->seq);
	receiver[l->to].n_from[l->from]++;
	atomic_fetch_add_explicit(&receiver[l->to].n_total, 1, memory_order_release);
}

static void sender_run(void *arg)
{
	unsigned from = worker_index(worker_self());
	struct letter *mine = letters + (size_t)from * N_WORKERS * N_PER_PAIR;
	for (unsigned seq = 0; seq < N_PER_PAIR; seq++) {
		for (unsigned to = 0; to < N_WORKERS; to++) {
			struct letter *l = mine + (size_t)seq * N_WORKERS + to;
			*l = (struct letter){.from = from, .to = to, .seq = seq};
			l->mail = (struct mail){.fn = letter_arrived, .arg = l};
			if (seq % 16 == 0) /* the allocating way keeps the same order */
				worker_post(worker_get(to), letter_arrived, l);
			else
				worker_post_mail(worker_get(to), &l->mail);
		}
		if (seq % 50 == 0)
			fiber_yield();
		if (seq % 500 == 0)
			CHECK(fiber_sleep(dur_us(100), MONO_NEVER) == 0); /* lets the loops fall asleep */
	}
	atomic_fetch_sub(&n_senders_left, 1);
}

static unsigned letters_arrived(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < N_WORKERS; i++)
		n += atomic_load_explicit(&receiver[i].n_total, memory_order_acquire);
	return n;
}

static void pass_letters(void *arg)
{
	mono_t deadline = mono_after(dur_s(100));
	letters = xcalloc(N_MAILS, sizeof(*letters));
	memset(receiver, 0, sizeof(receiver));
	atomic_store(&n_senders_left, N_WORKERS);
	for (unsigned i = 0; i < N_WORKERS; i++)
		worker_start_fiber(worker_get(i), "sender", sender_run, NULL);
	while (letters_arrived() < N_PER_PAIR * N_WORKERS * N_WORKERS) {
		CHECK(!mono_is_past(deadline));
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	}
	CHECK(atomic_load(&n_senders_left) == 0);
	free(letters);
}

static void test_million_mails(void **state)
{
	worker_run(pass_letters, NULL);
}

static void test_million_mails_delayed(void **state)
{
#ifdef CIRRUS_FAULTS
	setenv("CIRRUS_FAULTS", "mailbox=*", 1);
	assert_int_equal(fault_init_from_env(), 0);
	worker_run(pass_letters, NULL);
	unsetenv("CIRRUS_FAULTS");
	assert_int_equal(fault_init_from_env(), 0);
#else
	skip();
#endif
}

/* --- ping and pong: one mail at a time, so each hop finds the peer asleep --- */

static struct ping {
	struct mail mail;
	unsigned n_left;
	struct event *done;
} ping;

static void ping_arrived(void *arg)
{
	struct ping *p = arg;
	if (p->n_left-- == 0) {
		event_fire(p->done);
		event_unref(p->done);
		return;
	}
	worker_post_mail(worker_get((worker_index(worker_self()) + 1) % N_WORKERS), &p->mail);
}

static void ping_main(void *arg)
{
	struct event *done = event_new();
	ping = (struct ping){.n_left = 20000, .done = event_ref(done)};
	ping.mail = (struct mail){.fn = ping_arrived, .arg = &ping};
	worker_post_mail(worker_get(1), &ping.mail);
	CHECK(event_wait(done, mono_after(dur_s(60))) == 0);
	event_unref(done);
}

static void test_ping_pong(void **state)
{
	worker_run(ping_main, NULL);
}

/* --- from a thread that is no worker --- */

static void count_up(void *arg)
{
	unsigned *n = arg;
	++*n;
}

static void no_op(void *arg) {}

static void test_post_from_outside(void **state)
{
	static unsigned n;
	for (int i = 0; i < 10000; i++)
		worker_post(worker_get(0), count_up, &n);
	worker_run(no_op, NULL); /* posted after all of them, by the same sender */
	assert_int_equal(n, 10000);
}

/* --- placing fibers --- */

static struct placed {
	atomic_uint n_running[N_WORKERS], n_left;
	atomic_bool may_end;
} placed;

static void placed_run(void *arg)
{
	CHECK(strcmp(fiber_name(fiber_self()), "placed") == 0);
	atomic_fetch_add(&placed.n_running[worker_index(worker_self())], 1);
	while (!atomic_load(&placed.may_end))
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	atomic_fetch_sub(&placed.n_left, 1);
}

static void place_main(void *arg)
{
	const unsigned n = 40 * N_WORKERS;
	unsigned n_running = 0;
	char name[] = "placed";
	mono_t deadline = mono_after(dur_s(60));

	atomic_store(&placed.n_left, n);
	for (unsigned i = 0; i < n; i++)
		worker_start_fiber(worker_least_loaded(), name, placed_run, NULL);
	memset(name, 'x', sizeof(name) - 1); /* it was copied */
	while (n_running < n) {
		CHECK(!mono_is_past(deadline));
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
		n_running = 0;
		for (int i = 0; i < N_WORKERS; i++)
			n_running += atomic_load(&placed.n_running[i]);
	}
	for (int i = 0; i < N_WORKERS; i++) {
		unsigned here = atomic_load(&placed.n_running[i]);
		CHECK(here >= 38 && here <= 42); /* even, give or take what else runs */
	}
	atomic_store(&placed.may_end, true);
	while (atomic_load(&placed.n_left) > 0) {
		CHECK(!mono_is_past(deadline));
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	}
}

static void test_least_loaded(void **state)
{
	worker_run(place_main, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_million_mails), cmocka_unit_test(test_million_mails_delayed),
		cmocka_unit_test(test_ping_pong),     cmocka_unit_test(test_post_from_outside),
		cmocka_unit_test(test_least_loaded),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
