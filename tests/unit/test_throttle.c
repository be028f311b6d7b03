/* test_throttle.c - specifications and the limiter, in virtual time. */
#include "ut.h"

#include "base/err.h"
#include "base/throttle.h"

static void test_spec(void **state)
{
	static const struct {
		const char *text;
		uint64_t limit, period_s, max_burst;
		bool is_local;
	} good[] = {
		{"10/s", 10, 1, 10, false},
		{"10/sec", 10, 1, 10, false},
		{"10/second", 10, 1, 10, false},
		{"10/seconds", 10, 1, 10, false},
		{"local:10/second", 10, 1, 10, true},
		{"50/m", 50, 60, 50, false},
		{"50/min", 50, 60, 50, false},
		{"60/minute,max_burst=1", 60, 60, 1, false},
		{"20/30minute", 20, 1800, 20, false},
		{"1,000/hr", 1000, 3600, 1000, false},
		{"1_000/h", 1000, 3600, 1000, false},
		{"1000/hour", 1000, 3600, 1000, false},
		{"10_000/d", 10000, 86400, 10000, false},
		{"local:10,000/day,max_burst=2_500", 10000, 86400, 2500, true},
		{"6/m,max_burst=12", 6, 60, 12, false},
		{"1/10s", 1, 10, 1, false},
	};
	static const struct {
		const char *text, *words;
	} bad[] = {
		{"", "expected `[local:]QUANTITY/PERIOD"},
		{"10", "expected `[local:]QUANTITY/PERIOD"},
		{"/s", "the quantity"},
		{"0/s", "the quantity"},
		{"-1/s", "the quantity"},
		{"1.5/s", "the quantity"},
		{",1/s", "the quantity"},
		{"1_/s", "the quantity"},
		{" 1/s", "the quantity"},
		{"99999999999999999999/s", "the quantity"},
		{"10/", "the period"},
		{"10/x", "the period"},
		{"10/S", "the period"},
		{"10/ s", "the period"},
		{"10/0s", "the period"},
		{"10/99999999999999999s", "the period"},
		{"10/s,", "max_burst="},
		{"10/s,burst=1", "max_burst="},
		{"10/s,max_burst=", "max_burst="},
		{"10/s,max_burst=0", "max_burst="},
		{"10/s,max_burst=1,max_burst=2", NULL},
		{"remote:10/s", "the quantity"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct throttle_spec s = {0};
		if (throttle_spec_parse(str_of(good[i].text), &s) != 0)
			fail_msg("%s: %s", good[i].text, err_text());
		assert_int_equal(s.limit, good[i].limit);
		assert_int_equal(s.period_s, good[i].period_s);
		assert_int_equal(s.max_burst, good[i].max_burst);
		assert_int_equal(s.is_local, good[i].is_local);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct throttle_spec s;
		if (throttle_spec_parse(str_of(bad[i].text), &s) == 0)
			fail_msg("`%s` was taken", bad[i].text);
		assert_true(err_is(ERR_INVALID) && strstr(err_text(), bad[i].text) != NULL);
		if (bad[i].words != NULL && strstr(err_text(), bad[i].words) == NULL)
			fail_msg("`%s`: %s", bad[i].text, err_text());
		err_clear();
	}
}

static struct throttle make(const char *text)
{
	struct throttle_spec s;
	struct throttle t;
	clock_set_virtual((mono_t){1000 * NS_PER_S}, (wall_t){0});
	assert_int_equal(throttle_spec_parse(str_of(text), &s), 0);
	throttle_init(&t, &s);
	return t;
}

static int64_t wait_of(struct throttle *t, uint64_t n)
{
	dur_t wait;
	assert_true(throttle_admit(t, n, DUR_MAX, &wait));
	return wait.ns;
}

static void test_burst_and_rate(void **state)
{
	struct throttle t = make("6/m,max_burst=1");
	assert_int_equal(wait_of(&t, 1), 0);
	assert_int_equal(wait_of(&t, 1), 10 * NS_PER_S);
	assert_int_equal(wait_of(&t, 1), 20 * NS_PER_S); /* behind the one that waits */
	clock_advance(dur_s(25));
	assert_int_equal(wait_of(&t, 1), 5 * NS_PER_S);
	clock_advance(dur_s(100)); /* no credit beyond the burst */
	assert_int_equal(wait_of(&t, 1), 0);
	assert_int_equal(wait_of(&t, 1), 10 * NS_PER_S);

	t = make("100/s");
	assert_int_equal(wait_of(&t, 60), 0);
	assert_int_equal(wait_of(&t, 40), 0);
	assert_int_equal(wait_of(&t, 1), NS_PER_S / 100);
	assert_int_equal(wait_of(&t, 50), 51 * NS_PER_S / 100);
}

static void test_more_than_the_burst(void **state)
{
	struct throttle t = make("100/s,max_burst=10");
	assert_int_equal(wait_of(&t, 1000), 0);				    /* nothing is owed */
	assert_int_equal(wait_of(&t, 1), (1000 - 10 + 1) * NS_PER_S / 100); /* now it is */
	clock_advance(dur_s(5));
	assert_int_equal(wait_of(&t, 1000), 501 * NS_PER_S / 100);
}

static void test_patience(void **state)
{
	struct throttle t = make("10/s");
	dur_t wait;
	assert_int_equal(wait_of(&t, 10), 0);
	for (int i = 0; i < 3; i++) { /* who is refused takes nothing */
		assert_false(throttle_admit(&t, 10, dur_ms(999), &wait));
		assert_int_equal(wait.ns, NS_PER_S);
	}
	assert_true(throttle_admit(&t, 10, dur_ms(1000), &wait));
	assert_int_equal(wait.ns, NS_PER_S);
	assert_true(throttle_admit(&t, 0, DUR_ZERO, &wait) == false && wait.ns == NS_PER_S);
}

/* Over a long time no rate gains or loses anything, however odd. */
static void test_exact_in_the_long_run(void **state)
{
	static const char *const spec[] = {"3/s,max_burst=1", "7/11s,max_burst=1",
					   "999999999999/s,max_burst=1", "1000000000000/d"};
	for (size_t i = 0; i < ARRAY_SIZE(spec); i++) {
		struct throttle t = make(spec[i]);
		uint64_t n = 0, batch = t.spec.limit / t.spec.period_s / 4 + 1;
		int64_t begun = mono_now().ns, spent = 0;
		for (int k = 0; k < 5000; k++, n += batch)
			spent = wait_of(&t, batch);
		clock_advance(dur_ns(spent));
		double s = (double)(mono_now().ns - begun) / 1e9,
		       expected = (double)(n - batch) * (double)t.spec.period_s / (double)t.spec.limit;
		double early = (double)t.spec.max_burst * (double)t.spec.period_s / (double)t.spec.limit;
		assert_true(s <= expected + 1e-6 && s >= expected - early - 1e-6);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_spec), cmocka_unit_test(test_burst_and_rate),
					   cmocka_unit_test(test_more_than_the_burst),
					   cmocka_unit_test(test_patience),
					   cmocka_unit_test(test_exact_in_the_long_run)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
