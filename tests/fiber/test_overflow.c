/* A stack overflow kills the process by the signal and names the fiber; other faults die as ever; a yield in
 * a critical section panics. Each in a child. */
#include "fiber_check.h"
#include "stderr_capture.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Not a tail call, and the frame is not empty. */
static __attribute__((noinline)) int descend(int n, volatile char *above)
{
	volatile char frame[2000];
	frame[0] = above != NULL ? above[0] : 0;
	if (n == 0)
		return frame[0];
	return descend(n - 1, frame) + frame[0];
}

static void overflow_run(void *arg)
{
	fiber_set_name("deep-one");
	_exit(descend(10000000, NULL) + 1);
}

static void shallow_run(void *arg)
{
	CHECK(descend(CHECK_IS_SANITIZED ? 40 : 90, NULL) == 0);
}

static void wild_run(void *arg)
{
	*(volatile int *)arg = 1;
	_exit(1);
}

static void raise_run(void *arg)
{
	raise(SIGSEGV);
	_exit(1);
}

/* What handled the signals before cmocka put its own handlers there. */
static struct sigaction original_segv, original_bus;

struct death {
	fiber_fn *fn;
	void *arg;
	char text[16384]; /* stderr */
	int status;
};

static void die(struct death *d)
{
	int out[2];
	size_t n = 0;
	fflush(NULL);
	if (pipe(out) != 0)
		abort();
	pid_t pid = fork();
	if (pid == 0) {
		struct rlimit none = {0, 0};
		setrlimit(RLIMIT_CORE, &none);
		sigaction(SIGSEGV, &original_segv, NULL);
		sigaction(SIGBUS, &original_bus, NULL);
		dup2(out[1], STDERR_FILENO);
		alarm(60);
		workers_start(2);
		worker_run(d->fn, d->arg);
		_exit(0);
	}
	assert_true(pid > 0);
	close(out[1]);
	for (ssize_t r;
	     n < sizeof(d->text) - 1 && (r = read(out[0], d->text + n, sizeof(d->text) - 1 - n)) > 0;)
		n += (size_t)r;
	d->text[n] = 0;
	close(out[0]);
	assert_int_equal(waitpid(pid, &d->status, 0), pid);
}

static void test_overflow(void **state)
{
	static struct death d = {.fn = overflow_run};
	die(&d);
	print_message("%s", d.text);
	assert_non_null(strstr(d.text, "stack overflow in fiber `deep-one` on worker-0\n"));
	assert_true(WIFSIGNALED(d.status));
	assert_int_equal(WTERMSIG(d.status), SIGSEGV);
}

static void test_no_overflow(void **state)
{
	static struct death d = {.fn = shallow_run};
	die(&d);
	assert_true(WIFEXITED(d.status));
	assert_int_equal(WEXITSTATUS(d.status), 0);
}

static void test_other_faults(void **state)
{
	static struct death wild = {.fn = wild_run, .arg = (void *)16}, sent = {.fn = raise_run};
	struct death *deaths[] = {&wild, &sent};
	for (size_t i = 0; i < ARRAY_SIZE(deaths); i++) {
		die(deaths[i]);
		assert_null(strstr(deaths[i]->text, "stack overflow"));
#if CHECK_IS_SANITIZED
		/* the sanitizer's own handler got it, and exits as it likes */
		assert_false(WIFEXITED(deaths[i]->status) && WEXITSTATUS(deaths[i]->status) == 0);
		assert_non_null(strstr(deaths[i]->text, "SEGV"));
#else
		assert_true(WIFSIGNALED(deaths[i]->status));
		assert_int_equal(WTERMSIG(deaths[i]->status), SIGSEGV);
#endif
	}
}

#ifdef CIRRUS_DEBUG
static void no_yield_run(void *arg)
{
	fiber_set_name("greedy");
	NO_YIELD_BEGIN;
	fiber_yield();
	NO_YIELD_END;
	_exit(0);
}
#endif

static void test_no_yield(void **state)
{
#ifdef CIRRUS_DEBUG
	static struct death d = {.fn = no_yield_run};
	die(&d);
	assert_non_null(strstr(d.text, "fiber greedy yields inside NO_YIELD"));
	assert_true(WIFSIGNALED(d.status));
	assert_int_equal(WTERMSIG(d.status), SIGABRT);
#else
	skip();
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_no_overflow),
		cmocka_unit_test(test_other_faults),
		cmocka_unit_test(test_no_yield),
	};
	sigaction(SIGSEGV, NULL, &original_segv);
	sigaction(SIGBUS, NULL, &original_bus);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
