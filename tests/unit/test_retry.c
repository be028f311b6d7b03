/* Retry schedule: delays, jitter, expiration (exponential, capped, whole seconds). */
#include "ut.h"

#include "queue/retry.h"

static void test_delay(void **state)
{
	static const struct {
		int64_t interval_s, max_s; /* max < 0: none */
		uint32_t n_attempts;
		int64_t expected_s;
	} t[] = {
		{1200, -1, 0, 1200},	   {1200, -1, 1, 2400},	  {1200, -1, 5, 38400},
		{1200, 3600, 0, 1200},	   {1200, 3600, 1, 2400}, {1200, 3600, 2, 3600},
		{1200, 3600, 60000, 3600}, {7, 5, 0, 5},
	};
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct retry_policy p = {dur_s(t[i].interval_s),
					 t[i].max_s < 0 ? dur_ns(-1) : dur_s(t[i].max_s), dur_s(1)};
		assert_int_equal(retry_delay(&p, t[i].n_attempts).ns, dur_s(t[i].expected_s).ns);
	}
	struct retry_policy huge = {dur_s(1), dur_ns(-1), dur_s(1)};
	assert_true(retry_delay(&huge, UINT32_MAX).ns >
		    dur_s(3600 * 24 * 365).ns); /* saturates, stays positive */
	struct retry_policy sub = {dur_ms(500), dur_ns(-1), dur_s(1)};
	assert_int_equal(retry_delay(&sub, 0).ns, dur_ms(500).ns);
	assert_int_equal(retry_delay(&sub, 2).ns, dur_s(2).ns);
}

static void test_jitter(void **state)
{
	struct retry_policy p = {dur_s(1200), dur_ns(-1), dur_s(1)}; /* m = 60 s */
	int64_t lowest = 0, highest = 0;
	for (int i = 0; i < 20000; i++) {
		int64_t j = retry_jitter(&p).ns;
		assert_int_equal(j % NS_PER_S, 0);
		lowest = j < lowest ? j : lowest;
		highest = j > highest ? j : highest;
	}
	assert_true(lowest >= -dur_s(30).ns && lowest < -dur_s(25).ns);
	assert_true(highest < dur_s(30).ns && highest > dur_s(25).ns);
	struct retry_policy small = {dur_s(1), dur_ns(-1), dur_s(1)};
	assert_int_equal(retry_jitter(&small).ns, 0);
}

static void test_expiry(void **state)
{
	struct retry_policy p = {dur_s(2), dur_ns(-1), dur_s(3)};
	wall_t created = {dur_s(1000).ns};
	struct buf why = BUF_INIT;
	assert_false(retry_is_expired(&p, created, created, dur_s(3), &why));
	assert_false(retry_is_expired(&p, created, wall_add(created, dur_s(1)), dur_s(2), &why));
	assert_int_equal(why.n, 0);
	assert_true(retry_is_expired(&p, created, wall_add(created, dur_ms(3001)), dur_s(4), &why));
	assert_buf_is(&why, "Next delivery time would be 7s 1ms after creation, which exceeds max_age=3s");
	buf_clear(&why);
	assert_false(retry_is_expired(&p, created, wall_add(created, dur_s(-50)), dur_s(2),
				      &why)); /* clock set back */
	assert_true(retry_is_expired(&p, created, created, DUR_MAX, &why));
	buf_fini(&why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_delay), cmocka_unit_test(test_jitter),
					   cmocka_unit_test(test_expiry)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
