/* test_meta.c - metadata: order, replacement, strings with and without escapes. */
#include "mail/meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static void test_meta_order_and_replace(void **state)
{
	struct meta m = {0};
	char key[16];
	for (int i = 0; i < 20; i++) {
		size_t n = (size_t)snprintf(key, sizeof key, "k%d", i);
		meta_set_json(&m, str_mk(key, n), STR("1"));
	}
	meta_set_json(&m, STR("k3"), STR("{\"a\":[1,2]}"));
	assert_int_equal(m.n, 20);
	str_t k, j;
	assert_true(meta_at(&m, 3, &k, &j));
	assert_true(str_eq(k, STR("k3")) && str_eq(j, STR("{\"a\":[1,2]}")));
	assert_true(meta_remove(&m, STR("k0")));
	assert_false(meta_remove(&m, STR("k0")));
	assert_true(meta_at(&m, 2, &k, &j) && str_eq(k, STR("k3")));
	assert_false(meta_at(&m, 19, &k, &j));
	assert_false(meta_get_json(&m, STR("k0"), &j));
	assert_false(meta_get_json(&m, STR("k"), &j));
	/* a value set from itself */
	assert_true(meta_get_json(&m, STR("k3"), &j));
	meta_set_json(&m, STR("k3"), j);
	assert_true(meta_get_json(&m, STR("k3"), &j) && str_eq(j, STR("{\"a\":[1,2]}")));
	meta_fini(&m);
	assert_int_equal(m.n, 0);
}

static void test_meta_strings(void **state)
{
	struct meta m = {0};
	struct buf scratch = BUF_INIT;
	str_t t;
	meta_set_str(&m, STR("plain"), STR("hello"));
	meta_set_str(&m, STR("esc"), STR("a\"b\\c\n\xe2\x9c\x89"));
	meta_set_json(&m, STR("surrogate"), STR("\"\\ud83d\\ude00\\u0000x\""));
	meta_set_json(&m, STR("num"), STR("12"));
	meta_set_json(&m, STR("broken"), STR("\"\\q\""));
	meta_set_str(&m, STR(""), STR(""));
	assert_true(meta_get_str(&m, STR("plain"), &scratch, &t) && str_eq(t, STR("hello")));
	assert_null(scratch.p); /* borrowed */
	assert_true(meta_get_str(&m, STR("esc"), &scratch, &t) && str_eq(t, STR("a\"b\\c\n\xe2\x9c\x89")));
	assert_true(meta_get_str(&m, STR("surrogate"), &scratch, &t) &&
		    str_eq(t, STR("\xf0\x9f\x98\x80\0x")));
	assert_false(meta_get_str(&m, STR("num"), &scratch, &t));
	assert_false(meta_get_str(&m, STR("broken"), &scratch, &t));
	assert_true(meta_get_str(&m, STR(""), &scratch, &t) && t.n == 0);
	buf_fini(&scratch);
	meta_fini(&m);
}

static void test_meta_copy_and_write(void **state)
{
	struct meta a = {0}, b = {0};
	struct buf out = BUF_INIT;
	meta_set_json(&a, STR("x"), STR("1"));
	meta_set_json(&a, STR("y"), STR("[true]"));
	meta_set_json(&b, STR("y"), STR("null"));
	meta_copy(&b, &a);
	meta_fini(&a);
	struct json_out j = json_out_to(&out);
	meta_write(&b, &j);
	assert_true(str_eq(buf_str(&out), STR("{\"y\":[true],\"x\":1}")));
	buf_fini(&out);
	meta_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_meta_order_and_replace),
		cmocka_unit_test(test_meta_strings),
		cmocka_unit_test(test_meta_copy_and_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
