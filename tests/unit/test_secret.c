/* Secrets: content, references, comparison, wiping, buffers that grow. */
#include "base/alloc.h"
#include "base/secret.h"
#include "ut.h"

static void test_content(void **state)
{
	struct secret *s = secret_new(STR("a\0b"));
	assert_int_equal(secret_bytes(s).n, 3);
	assert_memory_equal(secret_bytes(s).p, "a\0b\0", 4); /* and a NUL */
	struct secret *same = secret_ref(s);
	assert_ptr_equal(s, same);
	secret_unref(s);
	assert_true(secret_eq(same, STR("a\0b")));
	assert_false(secret_eq(same, STR("a\0c")) || secret_eq(same, STR("a")) ||
		     secret_eq(same, STR("a\0bc")));
	secret_unref(same);
	s = secret_new(STR_NULL);
	assert_int_equal(secret_bytes(s).n, 0);
	assert_true(secret_eq(s, STR("")) && secret_eq(s, STR_NULL) && !secret_eq(s, STR("x")));
	secret_unref(s);
	secret_unref(NULL);
}

static void test_wipe(void **state)
{
	char p[] = "password";
	secret_wipe(p, sizeof(p) - 1);
	for (size_t i = 0; i < sizeof(p); i++)
		assert_int_equal(p[i], 0);
	secret_wipe(NULL, 0);
}

static void test_buf(void **state)
{
	struct buf b = BUF_INIT;
	char expected[5000];
	for (size_t i = 0; i < sizeof(expected); i++) {
		expected[i] = (char)(i * 7);
		secret_buf_add(&b, str_mk(&expected[i], 1));
	}
	assert_int_equal(b.n, sizeof(expected));
	assert_memory_equal(b.p, expected, sizeof(expected));
	assert_int_equal(b.p[b.n], 0);
	secret_buf_add(&b, STR_NULL);
	struct secret *s = secret_from_buf(&b);
	assert_true(b.p == NULL && b.n == 0 && b.cap == 0);
	assert_true(secret_eq(s, str_mk(expected, sizeof(expected))));
	secret_unref(s);
	secret_buf_fini(&b);
	s = secret_from_buf(&b); /* an empty one */
	assert_int_equal(secret_bytes(s).n, 0);
	secret_unref(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_wipe),
		cmocka_unit_test(test_buf),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
