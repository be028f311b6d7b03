/* test_err.c - the error slot: set, wrap, take, put, quoting itself, slots of fibers and threads. */
#include "ut.h"

#include "base/err.h"

#include <errno.h>
#include <pthread.h>

static void err_sets_and_takes(void **state)
{
	assert_int_equal(err_kind(), ERR_NONE);
	assert_string_equal(err_text(), "no error");
	err_set(ERR_DNS, "no answer for %s", "a.example");
	int line = __LINE__ - 1;
	assert_true(err_is(ERR_DNS));
	assert_false(err_is(ERR_IO));
	struct err e = err_take();
	assert_int_equal(err_kind(), ERR_NONE);
	assert_string_equal(e.text, "no answer for a.example");
	assert_int_equal(e.line, line);
	assert_string_equal(strrchr(e.file, '/') != NULL ? strrchr(e.file, '/') + 1 : e.file, "test_err.c");
	err_set(ERR_IO, "in the way");
	err_put(e);
	assert_string_equal(err_text(), "no answer for a.example");
	err_clear();
	assert_int_equal(err_kind(), ERR_NONE);
	e = err_take();
	assert_null(e.text);
	err_fini(&e);
}

static void err_quotes_itself(void **state)
{
	err_set(ERR_IO, "inner");
	err_set(ERR_INVALID, "outer: %s", err_text());
	assert_string_equal(err_text(), "outer: inner");
	err_wrap("around <%s>", err_text());
	assert_string_equal(err_text(), "around <outer: inner>: outer: inner");
	assert_true(err_is(ERR_INVALID));
	err_clear();
	err_wrap("of nothing");
	assert_true(err_is(ERR_NONE));
}

static void err_system(void **state)
{
	err_set_sys(ENOENT, "open %s", "/x");
	err_wrap("boot");
	struct err e = err_take();
	assert_int_equal(e.kind, ERR_IO);
	assert_int_equal(e.sys_errno, ENOENT);
	assert_string_equal(e.text, "boot: open /x: No such file or directory");
	err_fini(&e);
	assert_int_equal(e.kind, ERR_NONE);
	err_set_reject(451, STR("4.7.1 later"));
	e = err_take();
	assert_int_equal(e.kind, ERR_REJECT);
	assert_int_equal(e.code, 451);
	assert_string_equal(e.text, "4.7.1 later");
	err_fini(&e);
}

static void err_slots_are_apart(void **state)
{
	struct err fiber = {0};
	err_set(ERR_IO, "thread");
	struct err *own = err_slot_swap(&fiber);
	assert_int_equal(err_kind(), ERR_NONE);
	err_set(ERR_LUA, "fiber");
	assert_ptr_equal(err_slot_swap(own), &fiber);
	assert_string_equal(err_text(), "thread");
	assert_ptr_equal(err_slot_swap(&fiber), own);
	assert_string_equal(err_text(), "fiber");
	assert_ptr_equal(err_slot_swap(NULL), &fiber);
	assert_string_equal(err_text(), "thread");
	err_fini(&fiber);
	err_clear();
}

static void *err_thread(void *arg)
{
	bool was_empty = err_is(ERR_NONE);
	err_set(ERR_CLOSED, "left behind: the leak checker would tell");
	return was_empty ? arg : NULL;
}

static void err_threads_are_apart(void **state)
{
	pthread_t thread;
	void *result = NULL;
	err_set(ERR_IO, "mine");
	assert_int_equal(pthread_create(&thread, NULL, err_thread, state), 0);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, state);
	assert_string_equal(err_text(), "mine");
	err_clear();
}

static void err_names(void **state)
{
	for (int k = ERR_NONE; k <= ERR_UNSUPPORTED; k++)
		assert_string_not_equal(err_kind_name((enum err_kind)k), "unknown");
	assert_string_equal(err_kind_name((enum err_kind)999), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(err_sets_and_takes),
		cmocka_unit_test(err_quotes_itself),
		cmocka_unit_test(err_system),
		cmocka_unit_test(err_slots_are_apart),
		cmocka_unit_test(err_threads_are_apart),
		cmocka_unit_test(err_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
