/* Start and stop: order, survivors, fibers born late, starting again. */
#include "fiber_check.h"
#include "stderr_capture.h"

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

static void seen_run(void *arg)
{
	struct worker *w = worker_self();
	CHECK(w == worker_get(0) && worker_index(w) == 0);
	CHECK(worker_loop(w) != NULL);
	CHECK(workers_count() == *(unsigned *)arg);
}

static void test_start_again(void **state)
{
	for (unsigned n = 1; n <= 4; n++) {
		workers_start(n);
		assert_int_equal(workers_count(), n);
		worker_run(seen_run, &n);
		workers_stop(mono_after(dur_s(10)));
		assert_int_equal(workers_count(), 0);
	}
	workers_stop(MONO_NEVER); /* nothing to stop */
}

/* --- stopping cancels what sleeps, and waits for what cleans up --- */

static atomic_int n_cleaned;

static void cleaner_run(void *arg)
{
	CHECK_FAILS(fiber_sleep(dur_s(1000), MONO_NEVER), ERR_CANCELLED);
	fiber_shield_begin();
	CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	fiber_shield_end();
	atomic_fetch_add(&n_cleaned, 1);
}

static void heir_run(void *arg)
{
	CHECK(fiber_is_cancelled());
	CHECK_FAILS(fiber_sleep(dur_s(1000), MONO_NEVER), ERR_CANCELLED);
	atomic_fetch_add(&n_cleaned, 1);
}

/* Starts another fiber when it is told to end. */
static void parent_run(void *arg)
{
	CHECK_FAILS(fiber_sleep(dur_s(1000), MONO_NEVER), ERR_CANCELLED);
	fiber_start(NULL, "heir", heir_run, NULL);
	atomic_fetch_add(&n_cleaned, 1);
}

static void start_everywhere(void *arg)
{
	for (unsigned i = 0; i < workers_count(); i++) {
		worker_start_fiber(worker_get(i), "cleaner", cleaner_run, NULL);
		worker_start_fiber(worker_get(i), "parent", parent_run, NULL);
	}
}

static void test_stop_joins(void **state)
{
	struct stderr_capture c;
	stderr_capture_begin(&c);
	workers_start(3);
	worker_run(start_everywhere, NULL);
	workers_stop(mono_after(dur_s(20)));
	stderr_capture_end(&c);
	assert_int_equal(atomic_load(&n_cleaned), 9);
	assert_int_equal(stderr_capture_count(&c, "left at stop"), 0);
}

/* --- a fiber that does not end is named --- */

static void stubborn_run(void *arg)
{
	struct waiter w;
	waiter_init(&w);
	fiber_set_waits_for("the end of the world");
	fiber_shield_begin();
	CHECK(fiber_wait(&w, MONO_NEVER) == 0);
	fiber_shield_end();
}

static void start_stubborn(void *arg)
{
	worker_start_fiber(worker_get(1), "stubborn", stubborn_run, NULL);
}

static void test_survivor(void **state)
{
	struct stderr_capture c;
	stderr_capture_begin(&c);
	workers_start(2);
	worker_run(start_stubborn, NULL);
	workers_stop(mono_after(dur_ms(50)));
	int n = stderr_capture_count(&c, " WARN worker-1 kumod: fiber stubborn is left at stop; for ");
	int n_what = stderr_capture_count(&c, " waiting for the end of the world\n");
	stderr_capture_end(&c);
	assert_int_equal(n, 1);
	assert_int_equal(n_what, 1);
}

/* --- a worker that does not even answer is named and given up (in a child, as its thread goes on) --- */

static void spinner_run(void *arg)
{
	for (;;)
		atomic_fetch_add((atomic_int *)arg, 1);
}

static void start_spinner(void *arg)
{
	worker_start_fiber(worker_get(1), "spinner", spinner_run, arg);
	while (atomic_load((atomic_int *)arg) == 0)
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
}

static void test_lost_worker(void **state)
{
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		static atomic_int n_spins;
		struct stderr_capture c;
		alarm(60);
		stderr_capture_begin(&c);
		workers_start(2);
		worker_run(start_spinner, &n_spins);
		workers_stop(mono_after(dur_ms(10)));
		int n = stderr_capture_count(
			&c, " kumod: worker-1 does not stop: fiber spinner runs without yielding\n");
		int n_lost = stderr_capture_count(&c, " does not stop: ");
		stderr_capture_end(&c);
		_exit(n == 1 && n_lost == 1 ? 0 : 1);
	}
	int status;
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- mail that arrives too late is dropped without leaking, open handles are closed --- */

static void never_timer(uv_timer_t *t)
{
	abort();
}

static void never_poll(uv_poll_t *p, int status, int events)
{
	abort();
}

static void open_handles(void *arg)
{
	static uv_timer_t timer;
	static uv_poll_t poll;
	uv_timer_init(worker_loop(worker_self()), &timer);
	uv_timer_start(&timer, never_timer, 1000000, 0);
	CHECK(uv_poll_init(worker_loop(worker_self()), &poll, *(int *)arg) == 0);
	CHECK(uv_poll_start(&poll, UV_READABLE, never_poll) == 0);
}

static struct event *late_event;

static void make_event(void *arg)
{
	late_event = event_ref(event_new());
	event_unref(late_event);
}

static void test_late_mail(void **state)
{
	int fd = eventfd(0, 0);
	workers_start(2);
	struct worker *w = worker_get(1);
	worker_run(open_handles, &fd);
	worker_run(make_event, NULL);
	workers_stop(mono_after(dur_s(10)));
	event_fire(late_event); /* its worker is gone */
	event_unref(late_event);
	worker_start_fiber(w, "late", heir_run, NULL);
	workers_start(2); /* begins with empty inboxes */
	workers_stop(mono_after(dur_s(10)));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* first: ThreadSanitizer cannot fork once there were threads */
		cmocka_unit_test(test_lost_worker), cmocka_unit_test(test_start_again),
		cmocka_unit_test(test_stop_joins),  cmocka_unit_test(test_survivor),
		cmocka_unit_test(test_late_mail),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
