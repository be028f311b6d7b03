/* test_fault.c - fault points: counts, "*", killing, slowing down, refusing what it does not know, and the
 * environment. */
#include "ut.h"

#include "base/err.h"
#include "base/fault.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void fault_counts(void **state)
{
	assert_false(fault_hit(FAULT_spool_write));
	assert_int_equal(fault_arm(STR("spool_write=3, dns=*")), 0);
	assert_false(fault_hit(FAULT_spool_write));
	assert_false(fault_hit(FAULT_spool_write));
	assert_true(fault_hit(FAULT_spool_write));
	assert_false(fault_hit(FAULT_spool_write));
	for (int i = 0; i < 5; i++) {
		assert_true(fault_hit(FAULT_dns));
		assert_false(fault_hit(FAULT_connect));
	}
	assert_int_equal(fault_arm(STR("spool_write=1")), 0);
	assert_true(fault_hit(FAULT_spool_write));
	assert_false(fault_hit(FAULT_dns));
	assert_int_equal(fault_arm(STR_NULL), 0);
	assert_false(fault_hit(FAULT_spool_write));
}

static void fault_kills(void **state)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (fault_arm(STR("spool_sync=kill:2")) != 0 || fault_hit(FAULT_spool_sync))
			_exit(1);
		fault_hit(FAULT_spool_sync);
		_exit(2);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The step is late, and succeeds. */
static void fault_slows(void **state)
{
	struct timespec before, after;
	assert_int_equal(fault_arm(STR("spool_sync=slow:2")), 0);
	assert_false(fault_hit(FAULT_spool_sync));
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_false(fault_hit(FAULT_spool_sync));
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(after.tv_sec - before.tv_sec >= 4);
	assert_int_equal(fault_arm(STR_NULL), 0);
}

static void fault_refuses(void **state)
{
	static const char *const bad[] = {"nonsense=1", "dns",	     "dns=",	  "dns=0",     "dns=-1",
					  "dns=kill",	"dns=kill:", "dns=1,x=1", "dns=slow:0"};
	assert_int_equal(fault_arm(STR("accept=*")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(fault_arm(str_of(bad[i])), -1);
		assert_true(err_is(ERR_INVALID));
		assert_true(fault_hit(FAULT_accept)); /* nothing has changed */
		assert_false(fault_hit(FAULT_dns));
	}
	assert_int_equal(fault_arm(str_of(bad[0])), -1);
	assert_string_equal(err_text(), "CIRRUS_FAULTS: unknown fault point 'nonsense'");
	err_clear();
	assert_int_equal(fault_arm(STR_NULL), 0);
}

static void fault_environment(void **state)
{
	unsetenv("CIRRUS_FAULTS");
	assert_int_equal(fault_init_from_env(), 0);
	setenv("CIRRUS_FAULTS", "log_write=1", 1);
#ifdef CIRRUS_FAULTS
	assert_int_equal(fault_init_from_env(), 0);
	assert_true(FAULT(log_write));
	assert_false(FAULT(log_write));
	assert_int_equal(fault_arm(STR_NULL), 0);
#else
	assert_int_equal(fault_init_from_env(), -1);
	assert_true(err_is(ERR_UNSUPPORTED));
	assert_false(FAULT(log_write));
	err_clear();
#endif
	unsetenv("CIRRUS_FAULTS");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fault_counts),	     cmocka_unit_test(fault_kills),
		cmocka_unit_test(fault_slows),	     cmocka_unit_test(fault_refuses),
		cmocka_unit_test(fault_environment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
