/* test_arena.c - arenas: blocks do not overlap whatever their sizes, alignment, reset and reuse. */
#include "ut.h"

#include "base/arena.h"

static void arena_blocks_are_apart(void **state)
{
	static const size_t sizes[] = {0,     1,     15, 16,	 17, 100, 4095,	 4096, 4097,
				       20000, 70000, 3,	 200000, 8,  64,  65536, 5};
	enum { ROUNDS = 20 };
	struct arena a = ARENA_INIT;
	unsigned char *block[ARRAY_SIZE(sizes) * ROUNDS];
	for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
		size_t n = sizes[i % ARRAY_SIZE(sizes)];
		block[i] = arena_alloc(&a, n);
		assert_int_equal((uintptr_t)block[i] % 16, 0);
		memset(block[i], (int)(i & 255), n);
	}
	for (size_t i = 0; i < ARRAY_SIZE(block); i++) {
		for (size_t k = 0; k < sizes[i % ARRAY_SIZE(sizes)]; k++)
			assert_int_equal(block[i][k], i & 255);
	}
	assert_true(a.total_bytes >= 400000 * ROUNDS / 2);
	arena_fini(&a);
	assert_null(a.chunk);
}

static void arena_reset_reuses(void **state)
{
	struct arena a = ARENA_INIT;
	char *first = arena_alloc(&a, 100);
	for (int i = 0; i < 1000; i++)
		arena_alloc(&a, 1000);
	arena_reset(&a);
	assert_int_equal(a.total_bytes, 0);
	assert_ptr_equal(arena_alloc(&a, 100), first);
	arena_reset(&a);
	arena_fini(&a);

	/* A huge block, first or not, does not stay. */
	arena_alloc(&a, 1000000);
	arena_reset(&a);
	assert_null(a.chunk);
	first = arena_alloc(&a, 10);
	arena_alloc(&a, 1000000);
	arena_reset(&a);
	assert_ptr_equal(arena_alloc(&a, 10), first);
	arena_fini(&a);
	arena_reset(&a);
	arena_fini(&a);
}

static void arena_strings(void **state)
{
	struct arena a = ARENA_INIT;
	char *zero = arena_zalloc(&a, 300);
	for (int i = 0; i < 300; i++)
		assert_int_equal(zero[i], 0);
	str_t s = arena_str(&a, STR("a\0b"));
	assert_int_equal(s.n, 3);
	assert_memory_equal(s.p, "a\0b", 4);
	assert_string_equal(arena_str(&a, STR_NULL).p, "");
	assert_string_equal(arena_strdup(&a, "dup"), "dup");
	assert_string_equal(arena_printf(&a, "%d-%s", 5, "x"), "5-x");
	assert_int_equal(strlen(arena_printf(&a, "%255s", "x")), 255);
	assert_int_equal(strlen(arena_printf(&a, "%256s", "x")), 256);
	assert_int_equal(strlen(arena_printf(&a, "%5000s", "x")), 5000);
	arena_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arena_blocks_are_apart),
		cmocka_unit_test(arena_reset_reuses),
		cmocka_unit_test(arena_strings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
