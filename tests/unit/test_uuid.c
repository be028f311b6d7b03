/* test_uuid.c - identifiers: version and variant bits, times, uniqueness over threads, text forms; random
 * numbers. */
#include "ut.h"

#include "base/uuid.h"

#include <pthread.h>

enum { N_THREADS = 4, N_IDS = 20000 };

static void uuid_v1_fields(void **state)
{
	wall_t t = {INT64_C(1795401212367785500)};
	clock_set_virtual((mono_t){0}, t);
	struct uuid a = uuid_new_v1(), b = uuid_new_v1();
	assert_int_equal(a.b[6] >> 4, 1);
	assert_int_equal(a.b[8] >> 6, 2);
	assert_memory_equal(a.b + 10, b.b + 10, 6);
	assert_int_equal(uuid_v1_time(&a).ns, t.ns);
	assert_int_equal(uuid_v1_time(&b).ns, t.ns + 100);
	/* A known one: the stamp of RFC 4122's own name space ids. */
	struct uuid dns;
	assert_true(uuid_parse(STR("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), &dns));
	assert_int_equal(wall_unix_s(uuid_v1_time(&dns)), 886630433);
	/* Starting over earlier changes the clock sequence. */
	clock_set_virtual((mono_t){0}, t);
	struct uuid c = uuid_new_v1();
	assert_int_equal(uuid_v1_time(&c).ns, t.ns);
	assert_false(uuid_eq(&a, &c));
	/* Time standing still or running backwards in the same generation does not repeat a stamp. */
	clock_advance(dur_s(-5));
	struct uuid d = uuid_new_v1();
	assert_int_equal(uuid_v1_time(&d).ns, t.ns + 100);
	clock_set_real();
	d = uuid_new_v1();
	assert_true(wall_sub(wall_now(), uuid_v1_time(&d)).ns < 60 * NS_PER_S);
}

static void *uuid_thread(void *arg)
{
	struct uuid *ids = arg;
	for (int i = 0; i < N_IDS; i++)
		ids[i] = uuid_new_v1();
	for (int i = 1; i < N_IDS; i++) {
		if (uuid_v1_time(&ids[i - 1]).ns >= uuid_v1_time(&ids[i]).ns)
			return NULL;
	}
	return ids;
}

static int uuid_cmp(const void *a, const void *b)
{
	int64_t x = uuid_v1_time(a).ns, y = uuid_v1_time(b).ns;
	return (x > y) - (x < y);
}

static void uuid_v1_never_repeats(void **state)
{
	static struct uuid ids[N_THREADS * N_IDS];
	pthread_t thread[N_THREADS];
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, uuid_thread, ids + i * N_IDS), 0);
	for (int i = 0; i < N_THREADS; i++) {
		void *result;
		pthread_join(thread[i], &result);
		assert_ptr_equal(result, ids + i * N_IDS);
	}
	qsort(ids, ARRAY_SIZE(ids), sizeof(ids[0]), uuid_cmp);
	for (size_t i = 1; i < ARRAY_SIZE(ids); i++)
		assert_true(uuid_cmp(&ids[i - 1], &ids[i]) < 0);
}

static void uuid_v4_bits(void **state)
{
	struct uuid a = uuid_new_v4(), b = uuid_new_v4();
	assert_int_equal(a.b[6] >> 4, 4);
	assert_int_equal(a.b[8] >> 6, 2);
	assert_false(uuid_eq(&a, &b));
}

static void uuid_text(void **state)
{
	static const char *const bad[] = {
		"",
		"00112233445566778899aabbccddeef",
		"00112233445566778899aabbccddeefg",
		"0011223344556677-8899-aabbccddeeff",
		"00112233-4455-6677-8899aabbccddeeff-",
		"00112233-4455-6677-8899-aabbccddeeff0",
		"{0112233-4455-6677-8899-aabbccddeef}",
	};
	struct uuid u, back;
	char text[37];
	assert_true(uuid_parse(STR("00112233-4455-6677-8899-AABBccddeeff"), &u));
	uuid_fmt_simple(&u, text);
	assert_string_equal(text, "00112233445566778899aabbccddeeff");
	assert_true(uuid_parse(str_of(text), &back));
	assert_true(uuid_eq(&u, &back));
	uuid_fmt_dashed(&u, text);
	assert_string_equal(text, "00112233-4455-6677-8899-aabbccddeeff");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(uuid_parse(str_of(bad[i]), &u));
	assert_true(uuid_eq(&u, &back)); /* untouched */
}

static void random_is_in_bounds(void **state)
{
	unsigned count[7] = {0};
	for (int i = 0; i < 70000; i++) {
		uint64_t v = random_below(7);
		assert_true(v < 7);
		count[v]++;
	}
	for (int i = 0; i < 7; i++) /* 10,000 expected, standard deviation 93 */
		assert_in_range(count[i], 9000, 11000);
	assert_int_equal(random_below(1), 0);
	uint8_t zero[64] = {0}, drawn[64] = {0};
	random_bytes(drawn, sizeof(drawn));
	assert_memory_not_equal(drawn, zero, sizeof(zero));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uuid_v1_fields),      cmocka_unit_test(uuid_v1_never_repeats),
		cmocka_unit_test(uuid_v4_bits),	       cmocka_unit_test(uuid_text),
		cmocka_unit_test(random_is_in_bounds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
