/* test_alloc.c - the allocator's shell: contents, zero sizes, and that running out ends the process. */
#include "ut.h"

#include "base/alloc.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void alloc_contents(void **state)
{
	char *s = xasprintf("%s-%d", "a", 7);
	assert_string_equal(s, "a-7");
	free(s);
	s = xmemdup0("ab\0c", 4);
	assert_memory_equal(s, "ab\0c", 5);
	free(s);
	s = xstrdup("");
	assert_string_equal(s, "");
	free(s);
	int *zeroed = xcalloc(100, sizeof(int));
	for (int i = 0; i < 100; i++)
		assert_int_equal(zeroed[i], 0);
	zeroed = xreallocarray(zeroed, 200, sizeof(int));
	zeroed[199] = 1;
	free(zeroed);
	void *p = xaligned_alloc(64, 3);
	assert_int_equal((uintptr_t)p % 64, 0);
	free(p);
}

static void alloc_zero_bytes(void **state)
{
	void *a = xmalloc(0), *b = xcalloc(0, 8), *c = xrealloc(NULL, 0);
	assert_non_null(a);
	assert_non_null(b);
	assert_non_null(c);
	free(a);
	free(b);
	free(c);
}

static void alloc_overflow_aborts(void **state)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		free(xreallocarray(NULL, SIZE_MAX / 2, 4));
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alloc_contents),
		cmocka_unit_test(alloc_zero_bytes),
		cmocka_unit_test(alloc_overflow_aborts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
