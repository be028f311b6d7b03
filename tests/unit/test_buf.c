/* test_buf.c - growable bytes: content, the NUL behind it, formatting past the first guess, stealing. */
#include "ut.h"

static void buf_appends(void **state)
{
	struct buf b = BUF_INIT;
	assert_str_is(buf_str(&b), "");
	buf_add(&b, NULL, 0);
	assert_string_equal(b.p, "");
	buf_add_z(&b, "ab");
	buf_add_c(&b, 'c');
	buf_add_str(&b, STR("d\0e"));
	assert_int_equal(b.n, 6);
	assert_memory_equal(b.p, "abcd\0e", 7);
	buf_clear(&b);
	buf_add_u64(&b, UINT64_MAX);
	buf_add_c(&b, ' ');
	buf_add_i64(&b, INT64_MIN);
	buf_add_c(&b, ' ');
	buf_add_i64(&b, 0);
	assert_string_equal(b.p, "18446744073709551615 -9223372036854775808 0");
	buf_fini(&b);
	assert_null(b.p);
	buf_add_c(&b, 'x');
	assert_string_equal(b.p, "x");
	buf_fini(&b);
}

static void buf_formats(void **state)
{
	struct buf b = BUF_INIT;
	size_t total = 0;
	for (int width = 0; width < 300; width++) {
		buf_printf(&b, "%*s|", width, "");
		total += (size_t)width + 1;
		assert_int_equal(b.n, total);
		assert_int_equal(b.p[b.n], 0);
		assert_int_equal(b.p[b.n - 1], '|');
	}
	buf_fini(&b);
}

static void buf_cuts(void **state)
{
	struct buf b = BUF_INIT;
	buf_consume(&b, 3);
	buf_truncate(&b, 0);
	buf_add_z(&b, "hello world");
	buf_consume(&b, 6);
	assert_string_equal(b.p, "world");
	buf_truncate(&b, 99);
	assert_int_equal(b.n, 5);
	buf_truncate(&b, 2);
	assert_string_equal(b.p, "wo");
	buf_consume(&b, 99);
	assert_int_equal(b.n, 0);
	assert_string_equal(b.p, "");
	buf_fini(&b);
}

static void buf_reserves_once(void **state)
{
	struct buf b = BUF_INIT;
	buf_reserve(&b, 10000);
	const char *p = b.p;
	for (int i = 0; i < 10000; i++)
		buf_add_c(&b, 'y');
	assert_ptr_equal(b.p, p);
	buf_fini(&b);
}

static void buf_steals(void **state)
{
	struct buf b = BUF_INIT;
	size_t n = 9;
	char *p = buf_steal(&b, &n);
	assert_int_equal(n, 0);
	assert_string_equal(p, "");
	free(p);
	buf_add_z(&b, "mine");
	p = buf_steal(&b, NULL);
	assert_string_equal(p, "mine");
	assert_null(b.p);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_appends), cmocka_unit_test(buf_formats),
		cmocka_unit_test(buf_cuts),    cmocka_unit_test(buf_reserves_once),
		cmocka_unit_test(buf_steals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
