/* test_panic.c - a panic logs place and text, prints a backtrace and aborts. */
#include "ut.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void panic_logs_and_aborts(void **state)
{
	int fd[2], status;
	struct buf b = BUF_INIT;
	char part[1024];
	ssize_t n;
	assert_int_equal(pipe(fd), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		dup2(fd[1], STDERR_FILENO);
		panic("queue %d is %s", 7, "upside down");
	}
	close(fd[1]);
	while ((n = read(fd[0], part, sizeof(part))) > 0)
		buf_add(&b, part, (size_t)n);
	close(fd[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_true(str_find(buf_str(&b), STR("test_panic.c:")) > 0);
	ptrdiff_t at = str_find(buf_str(&b), STR(": queue 7 is upside down\n"));
	assert_true(at > 0);
	assert_true(str_find(str_skip(buf_str(&b), (size_t)at), STR("[0x")) > 0);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(panic_logs_and_aborts)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
