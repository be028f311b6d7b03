/* A slice that is too long is logged once, while it runs, by name; nothing is logged for those that yield. */
#include "fiber_check.h"
#include "stderr_capture.h"

static struct stderr_capture capture;

static int setup(void **state)
{
	stderr_capture_begin(&capture);
	worker_set_watchdog(dur_ms(50));
	workers_start(2);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	stderr_capture_end(&capture);
	return 0;
}

/* Runs without yielding until the watchdog has said so, and then for three more of its periods. */
static void hog(const char *text)
{
	mono_t deadline = mono_after(dur_s(20));
	while (stderr_capture_count(&capture, text) == 0)
		CHECK(!mono_is_past(deadline));
	for (deadline = mono_after(dur_ms(150)); !mono_is_past(deadline);)
		;
}

static void hog_run(void *arg)
{
	fiber_set_name("hog");
	hog("fiber hog has run for ");
	CHECK(stderr_capture_count(&capture, "fiber hog has run for ") == 1);
	fiber_yield();
	mono_t deadline = mono_after(dur_s(20));
	while (stderr_capture_count(&capture, "fiber hog has run for ") < 2) /* another slice, another line */
		CHECK(!mono_is_past(deadline));
}

static void test_hog(void **state)
{
	worker_run(hog_run, NULL);
	assert_int_equal(stderr_capture_count(&capture, " WARN watchdog kumod: fiber hog has run for "), 2);
	assert_int_equal(stderr_capture_count(&capture, " ms without yielding"), 2);
}

static void hog_mail(void *arg)
{
	hog("the loop of worker-1 has run for ");
	event_fire(arg);
	event_unref(arg);
}

/* In a callback of the loop that we know nothing of. */
static void hog_timer(uv_timer_t *t)
{
	hog("the loop of worker-0 has run for ");
	waiter_wake(t->data);
}

static void timer_closed(uv_handle_t *h)
{
	waiter_wake(h->data);
}

static void loop_main(void *arg)
{
	struct event *e = event_new();
	static uv_timer_t timer;
	struct waiter w;
	worker_post(worker_get(1), hog_mail, event_ref(e));
	CHECK(event_wait(e, mono_after(dur_s(60))) == 0);
	event_unref(e);
	CHECK(stderr_capture_count(&capture, "the loop of worker-1 has run for ") == 1);

	waiter_init(&w);
	uv_timer_init(worker_loop(worker_self()), &timer);
	timer.data = &w;
	uv_timer_start(&timer, hog_timer, 1, 0);
	CHECK(fiber_wait(&w, mono_after(dur_s(60))) == 0);
	CHECK(stderr_capture_count(&capture, "the loop of worker-0 has run for ") == 1);
	uv_close((uv_handle_t *)&timer, timer_closed);
	CHECK(fiber_wait(&w, mono_after(dur_s(60))) == 0);
}

static void test_loop(void **state)
{
	worker_run(loop_main, NULL);
}

static void polite_run(void *arg)
{
	fiber_set_name("polite");
	mono_t end = mono_after(dur_ms(2500));
	while (!mono_is_past(end))
		fiber_yield();
	CHECK(fiber_sleep(dur_ms(2500), MONO_NEVER) == 0);
}

static void off_run(void *arg)
{
	fiber_set_name("unwatched");
	for (mono_t end = mono_after(dur_ms(150)); !mono_is_past(end);)
		;
}

static void test_no_false_alarm(void **state)
{
	worker_set_watchdog(dur_s(2)); /* a busy machine may stop a thread for longer than 50 ms */
	worker_run(polite_run, NULL);
	assert_int_equal(stderr_capture_count(&capture, "polite"), 0);
	worker_set_watchdog(DUR_ZERO);
	worker_run(off_run, NULL);
	assert_int_equal(stderr_capture_count(&capture, "unwatched"), 0);
	worker_set_watchdog(dur_ms(50));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hog),
		cmocka_unit_test(test_loop),
		cmocka_unit_test(test_no_false_alarm),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
