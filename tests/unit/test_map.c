/* test_map.c - hash maps against a plain array: replace, remove, churn, iteration with removal. */
#include "ut.h"

#include "base/map.h"
#include "base/uuid.h"

enum { N_KEYS = 500 };

static char key_text[N_KEYS][16];

static str_t key_no(size_t i)
{
	return str_of(key_text[i]);
}

static int map_setup(void **state)
{
	for (size_t i = 0; i < N_KEYS; i++)
		snprintf(key_text[i], sizeof(key_text[i]), "key-%zu", i);
	return 0;
}

static void map_empty(void **state)
{
	struct map m = {0};
	size_t pos = 0;
	assert_null(map_find(&m, STR("a")));
	assert_null(map_remove(&m, STR("a")));
	assert_false(map_next(&m, &pos, NULL, NULL));
	map_fini(&m);
}

static void map_replaces_value_and_key(void **state)
{
	struct map m = {0};
	char first[] = "k", second[] = "k";
	int a, b;
	assert_null(map_put(&m, str_of(first), &a));
	assert_ptr_equal(map_put(&m, str_of(second), &b), &a);
	first[0] = 'X'; /* no longer the map's */
	assert_ptr_equal(map_find(&m, STR("k")), &b);
	assert_int_equal(m.n, 1);
	size_t pos = 0;
	str_t key;
	assert_true(map_next(&m, &pos, &key, NULL));
	assert_ptr_equal(key.p, second);
	assert_null(map_put(&m, STR(""), &a));
	assert_ptr_equal(map_find(&m, STR_NULL), &a);
	map_fini(&m);
}

/* Random puts and removes; the model is an array of the values. */
static void map_agrees_with_model(void **state)
{
	struct map m = {0};
	void *model[N_KEYS] = {0};
	size_t n = 0, max_cap = 0;
	for (int step = 0; step < 100000; step++) {
		size_t i = random_below(N_KEYS);
		if (random_below(2) == 0) {
			void *value = &model[random_below(N_KEYS)];
			assert_ptr_equal(map_put(&m, key_no(i), value), model[i]);
			n += model[i] == NULL;
			model[i] = value;
		} else {
			assert_ptr_equal(map_remove(&m, key_no(i)), model[i]);
			n -= model[i] != NULL;
			model[i] = NULL;
		}
		i = random_below(N_KEYS);
		assert_ptr_equal(map_find(&m, key_no(i)), model[i]);
		assert_int_equal(m.n, n);
		max_cap = m.cap > max_cap ? m.cap : max_cap;
	}
	assert_true(max_cap <= 1024); /* churn does not grow it */
	map_fini(&m);
}

static void map_iterates_with_removal(void **state)
{
	struct map m = {0};
	int seen[N_KEYS] = {0};
	for (size_t i = 0; i < N_KEYS; i++)
		map_put(&m, key_no(i), &seen[i]);
	str_t key;
	void *value;
	for (size_t pos = 0; map_next(&m, &pos, &key, &value);) {
		++*(int *)value;
		if (((int *)value - seen) % 3 == 0)
			assert_ptr_equal(map_remove(&m, key), value);
	}
	for (size_t i = 0; i < N_KEYS; i++) {
		assert_int_equal(seen[i], 1);
		assert_int_equal(map_find(&m, key_no(i)) == NULL, i % 3 == 0);
	}
	for (size_t pos = 0; map_next(&m, &pos, &key, NULL);)
		map_remove(&m, key);
	assert_int_equal(m.n, 0);
	assert_int_equal(m.n_used, 0);
	map_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_empty),
		cmocka_unit_test(map_replaces_value_and_key),
		cmocka_unit_test(map_agrees_with_model),
		cmocka_unit_test(map_iterates_with_removal),
	};
	return cmocka_run_group_tests(tests, map_setup, NULL);
}
