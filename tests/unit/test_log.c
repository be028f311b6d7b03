/* test_log.c - the diagnostic log: the form of a line, escaping, filters. stderr is a pipe while a line is
 * written. */
#include "ut.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static int log_pipe[2], log_real_stderr;

static void log_capture_begin(void)
{
	assert_int_equal(pipe(log_pipe), 0);
	log_real_stderr = dup(STDERR_FILENO);
	assert_true(dup2(log_pipe[1], STDERR_FILENO) >= 0);
	close(log_pipe[1]);
}

static void log_capture_end(struct buf *out)
{
	char part[4096];
	ssize_t n;
	assert_true(dup2(log_real_stderr, STDERR_FILENO) >= 0);
	close(log_real_stderr);
	while ((n = read(log_pipe[0], part, sizeof(part))) > 0)
		buf_add(out, part, (size_t)n);
	close(log_pipe[0]);
}

static void log_line_form(void **state)
{
	struct buf b = BUF_INIT;
	clock_set_virtual((mono_t){0}, (wall_t){INT64_C(1795401212296530999)});
	log_set_thread_name("worker-0");
	log_capture_begin();
	errno = ENOENT;
	log_info("kumod", "http listener on %s", "127.0.0.1:8000");
	int errno_after = errno;
	log_error("lua::x", "two\nlines\tand \x1b[31m\x7f\r");
	log_warn("other", "%s", "");
	log_debug("kumod", "not shown");
	log_info("other", "not shown");
	log_capture_end(&b);
	clock_set_real();
	assert_int_equal(errno_after, ENOENT);
	assert_buf_is(
		&b, "2026-11-23T02:33:32.296530Z  INFO worker-0 kumod: http listener on 127.0.0.1:8000\n"
		    "2026-11-23T02:33:32.296530Z ERROR worker-0 lua::x: two\nlines\tand \\x1B[31m\\x7F\\x0D\n"
		    "2026-11-23T02:33:32.296530Z  WARN worker-0 other: \n");
	buf_fini(&b);
}

static void *log_from_thread(void *arg)
{
	log_set_thread_name("a-name-that-is-too-long");
	log_error("t", "x");
	return arg;
}

static void log_thread_names(void **state)
{
	struct buf b = BUF_INIT;
	pthread_t thread;
	log_capture_begin();
	assert_int_equal(pthread_create(&thread, NULL, log_from_thread, NULL), 0);
	pthread_join(thread, NULL);
	log_capture_end(&b);
	assert_true(str_ends(buf_str(&b), STR(" ERROR a-name-that-is- t: x\n")));
	buf_fini(&b);
}

static void log_long_line(void **state)
{
	struct buf b = BUF_INIT;
	log_capture_begin();
	log_error("t", "%20000s", "end");
	log_capture_end(&b);
	assert_true(b.n > 20000);
	assert_true(str_ends(buf_str(&b), STR(" end\n")));
	buf_fini(&b);
}

static void log_filters(void **state)
{
	static const struct {
		const char *filter, *target;
		enum log_level level; /* the highest that passes */
	} rows[] = {
		{"kumod=trace,lua=info,warn", "kumod", LOG_TRACE},
		{"kumod=trace,lua=info,warn", "kumod::smtp", LOG_TRACE},
		{"kumod=trace,lua=info,warn", "lua", LOG_INFO},
		{"kumod=trace,lua=info,warn", "spool", LOG_WARN},
		{"warn,kumod=off", "kumod", LOG_OFF},
		{"warn,kumod=off", "x", LOG_WARN},
		{"kumod=info,kumod::smtp=debug", "kumod::smtp::in", LOG_DEBUG},
		{"kumod::smtp=debug,kumod=info", "kumod::smtp", LOG_DEBUG},
		{"kumod::smtp=debug,kumod=info", "kumod::http", LOG_INFO},
		{"kumod=debug,kumod=error", "kumod", LOG_ERROR},
		{"INFO", "x", LOG_INFO},
		{"off", "x", LOG_OFF},
		{"", "x", LOG_ERROR},
		{"kumod=debug", "x", LOG_ERROR},
		{"kumod", "kumod", LOG_TRACE},
		{" kumod = debug , warn ,", "kumod", LOG_DEBUG},
		{"kumod[request{path=/a,b=c}]=debug,warn", "kumod", LOG_DEBUG},
		{"kumod[request]", "kumod", LOG_TRACE},
		{"kumod[{a=]}]=info", "kumod", LOG_INFO},
		{"[request]=info", "x", LOG_INFO},
		{"x=4", "x", LOG_DEBUG},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(log_set_filter(str_of(rows[i].filter)), 0);
		for (enum log_level level = LOG_ERROR; level <= LOG_TRACE; level++) {
			if (log_is_enabled(level, rows[i].target) != (level <= rows[i].level))
				fail_msg("filter %s, target %s, level %d", rows[i].filter, rows[i].target,
					 level);
		}
		assert_true((int)rows[i].level <= atomic_load(&log_max_level));
	}
	assert_int_equal(log_set_filter(STR("a=info,warn")), 0);
	assert_int_equal(atomic_load(&log_max_level), LOG_INFO);
}

static void log_bad_filters(void **state)
{
	static const char *const bad[] = {"kumod=loud",	     "kumod=",	"a b",		"=info",
					  "kumod=info=warn", "kumod[x", "kumod[x]info", "info,!"};
	assert_int_equal(log_set_filter(STR("lua=debug,info")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *want = xasprintf("parsing log filter '%s': invalid filter directive", bad[i]);
		assert_int_equal(log_set_filter(str_of(bad[i])), -1);
		assert_true(err_is(ERR_INVALID));
		assert_string_equal(err_text(), want);
		free(want);
		assert_true(log_is_enabled(LOG_DEBUG, "lua")); /* the old one stands */
	}
	err_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(log_line_form),   cmocka_unit_test(log_thread_names),
		cmocka_unit_test(log_long_line),   cmocka_unit_test(log_filters),
		cmocka_unit_test(log_bad_filters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
