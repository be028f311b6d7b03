/* test_clock.c - civil dates both ways, lengths of time both ways, saturation, the virtual clock. */
#include "ut.h"

#include "base/clock.h"
#include "base/uuid.h"

#include <math.h>
#include <time.h>

static void clock_formats_dates(void **state)
{
	static const struct {
		int64_t ns;
		int digits;
		const char *rfc3339, *rfc2822;
	} rows[] = {
		{0, 0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 +0000"},
		{INT64_C(1795401212367785595), 9, "2026-11-23T02:33:32.367785595Z",
		 "Mon, 23 Nov 2026 02:33:32 +0000"},
		{INT64_C(1795401212367785595), 6, "2026-11-23T02:33:32.367785Z",
		 "Mon, 23 Nov 2026 02:33:32 +0000"},
		{INT64_C(1795401212367785595), 3, "2026-11-23T02:33:32.367Z",
		 "Mon, 23 Nov 2026 02:33:32 +0000"},
		{INT64_C(951782400000000001), 9, "2000-02-29T00:00:00.000000001Z",
		 "Tue, 29 Feb 2000 00:00:00 +0000"},
		{-1, 9, "1969-12-31T23:59:59.999999999Z", "Wed, 31 Dec 1969 23:59:59 +0000"},
		{INT64_MAX, 9, "2262-04-11T23:47:16.854775807Z", "Fri, 11 Apr 2262 23:47:16 +0000"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct buf b = BUF_INIT;
		wall_fmt_rfc3339((wall_t){rows[i].ns}, rows[i].digits, &b);
		assert_buf_is(&b, rows[i].rfc3339);
		buf_clear(&b);
		wall_fmt_rfc2822((wall_t){rows[i].ns}, &b);
		assert_buf_is(&b, rows[i].rfc2822);
		buf_fini(&b);
	}
}

/* Against the C library, over the whole range. */
static void clock_dates_agree_with_libc(void **state)
{
	for (int i = 0; i < 20000; i++) {
		wall_t t = {(int64_t)(random_below(UINT64_MAX) >> 1)};
		if (i % 4 == 0)
			t.ns = -t.ns / 40;
		time_t s = (time_t)wall_unix_s(t);
		struct tm tm;
		char want[64];
		struct buf b = BUF_INIT;
		wall_t back;
		gmtime_r(&s, &tm);
		strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S +0000", &tm);
		wall_fmt_rfc2822(t, &b);
		assert_buf_is(&b, want);
		buf_clear(&b);
		wall_fmt_rfc3339(t, 9, &b);
		assert_true(wall_parse_rfc3339(buf_str(&b), &back));
		assert_int_equal(back.ns, t.ns);
		buf_fini(&b);
	}
}

static void clock_parses_dates(void **state)
{
	static const struct {
		const char *text;
		int64_t unix_s, ns;
	} good[] = {
		{"2026-11-23T02:33:32Z", 1795401212, 0},
		{"2026-11-23t02:33:32.5z", 1795401212, 500000000},
		{"2026-11-23 02:33:32.1234567891Z", 1795401212, 123456789},
		{"2026-11-23T04:03:32+01:30", 1795401212, 0},
		{"2026-11-22T18:33:32-08:00", 1795401212, 0},
		{"2016-12-31T23:59:60Z", 1483228800, 0},
		{"2000-02-29T00:00:00Z", 951782400, 0},
	};
	static const char *const bad[] = {
		"",
		"2026-11-23",
		"2026-11-23T02:33:32",
		"2026-11-23T02:33Z",
		"2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z",
		"2026-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z",
		"2026-01-32T00:00:00Z",
		"2026-01-01T24:00:00Z",
		"2026-01-01T00:60:00Z",
		"2026-01-01T00:00:61Z",
		"2026-01-01T00:00:00.Z",
		"2026-01-01T00:00:00Z ",
		"2026-01-01T00:00:00+0100",
		"2026-01-01T00:00:00+24:00",
		"26-01-01T00:00:00Z",
		"2026-1-01T00:00:00Z",
		"+026-01-01T00:00:00Z",
		"9999-01-01T00:00:00Z",
		"0001-01-01T00:00:00Z",
	};
	wall_t t;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(wall_parse_rfc3339(str_of(good[i].text), &t));
		assert_int_equal(t.ns, good[i].unix_s * NS_PER_S + good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (wall_parse_rfc3339(str_of(bad[i]), &t))
			fail_msg("%s was taken", bad[i]);
	}
}

#define DAY_NS (INT64_C(86400) * NS_PER_S)

static void dur_parses(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} good[] = {
		{"0", 0},
		{"30", 30 * NS_PER_S},
		{"1.5", 1500000000},
		{"0s", 0},
		{"5m", 300 * NS_PER_S},
		{"1h 30m", 5400 * NS_PER_S},
		{"1h30m", 5400 * NS_PER_S},
		{"1hour 30minutes", 5400 * NS_PER_S},
		{"7 days", 7 * DAY_NS},
		{"7days", 7 * DAY_NS},
		{"2d", 2 * DAY_NS},
		{"1w", 7 * DAY_NS},
		{"2 weeks", 14 * DAY_NS},
		{"250ms", 250000000},
		{"250 msec", 250000000},
		{"3us", 3000},
		{"3usec", 3000},
		{"3 ns", 3},
		{"3nsec", 3},
		{"1.5s", 1500000000},
		{"0.000000001s", 1},
		{"0.5h", 1800 * NS_PER_S},
		{".5s", 500000000},
		{"1M", INT64_C(2630016) * NS_PER_S},
		{"1m", 60 * NS_PER_S},
		{"1month", INT64_C(2630016) * NS_PER_S},
		{"1y", INT64_C(31557600) * NS_PER_S},
		{"2years", INT64_C(63115200) * NS_PER_S},
		{"5 min", 300 * NS_PER_S},
		{"1hr", 3600 * NS_PER_S},
		{"1sec", NS_PER_S},
		{"2 seconds", 2 * NS_PER_S},
		{" 10s ", 10 * NS_PER_S},
		{"1s 1s", 2 * NS_PER_S},
		{"292y", INT64_C(9214819200) * NS_PER_S},
	};
	static const char *const bad[] = {
		"",
		" ",
		"s",
		"5x",
		"5 S",
		"-5s",
		"1h 30",
		"5m,",
		"1..5s",
		"1.s",
		".",
		"1e3s",
		"300y",
		"99999999999999999999s",
		"99999999999",
		"5m 3",
		"m5",
		"0x5s",
		"1.5.5s",
		"infinite",
		"1h-30m",
	};
	dur_t d;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		if (!dur_parse(str_of(good[i].text), &d))
			fail_msg("%s was refused", good[i].text);
		assert_int_equal(d.ns, good[i].ns);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (dur_parse(str_of(bad[i]), &d))
			fail_msg("%s was taken as %lld ns", bad[i], (long long)d.ns);
	}
}

static void dur_formats(void **state)
{
	static const struct {
		int64_t ns;
		const char *text;
	} rows[] = {
		{0, "0s"},
		{7 * DAY_NS, "7days"},
		{DAY_NS + 7200 * NS_PER_S, "1day 2h"},
		{5400 * NS_PER_S, "1h 30m"},
		{INT64_C(7012788851), "7s 12ms 788us 851ns"},
		{INT64_C(31557600) * NS_PER_S, "1year"},
		{INT64_C(63115200) * NS_PER_S, "2years"},
		{INT64_C(2630016) * NS_PER_S, "1month"},
		{INT64_C(5260032) * NS_PER_S, "2months"},
		{1, "1ns"},
		{-2000, "-2us"},
	};
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		buf_clear(&b);
		dur_fmt((dur_t){rows[i].ns}, &b);
		assert_buf_is(&b, rows[i].text);
	}
	for (int i = 0; i < 10000; i++) {
		dur_t d = {(int64_t)(random_below(UINT64_MAX) >> (1 + random_below(62)))}, back;
		buf_clear(&b);
		dur_fmt(d, &b);
		assert_true(dur_parse(buf_str(&b), &back));
		assert_int_equal(back.ns, d.ns);
	}
	buf_fini(&b);
}

static void clock_saturates(void **state)
{
	assert_int_equal(mono_add(MONO_NEVER, dur_s(-5)).ns, INT64_MAX);
	assert_int_equal(mono_add((mono_t){5}, DUR_MAX).ns, INT64_MAX);
	assert_false(mono_is_past(MONO_NEVER));
	assert_int_equal(wall_add((wall_t){-5}, (dur_t){INT64_MIN}).ns, INT64_MIN);
	assert_int_equal(dur_from_seconds(1e300).ns, INT64_MAX);
	assert_int_equal(dur_from_seconds(-1e300).ns, INT64_MIN);
	assert_int_equal(dur_from_seconds(NAN).ns, 0);
	assert_int_equal(dur_from_seconds(0.1).ns, 100000000);
}

/* The offset is kept, and comes back. */
static void clock_keeps_offsets(void **state)
{
	static const struct {
		const char *text, *utc, *again; /* again NULL: as text */
		int offset_s;
	} cases[] = {
		{"2023-03-01T17:00:00-08:00", "2023-03-02T01:00:00Z", NULL, -28800},
		{"2023-03-01T17:00:00.25+05:30", "2023-03-01T11:30:00.25Z", "2023-03-01T17:00:00.250+05:30",
		 19800},
		{"2023-03-01T17:00:00.000001Z", "2023-03-01T17:00:00.000001Z", NULL, 0},
		{"2023-03-01T17:00:00+00:00", "2023-03-01T17:00:00Z", "2023-03-01T17:00:00Z", 0},
		{"1969-12-31T23:59:59.5-23:59", "1970-01-01T23:58:59.5Z", "1969-12-31T23:59:59.500-23:59",
		 -86340},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf b = BUF_INIT;
		wall_t t, utc;
		int offset_s = 1;
		assert_true(wall_parse_rfc3339_at(str_of(cases[i].text), &t, &offset_s));
		assert_true(wall_parse_rfc3339(str_of(cases[i].utc), &utc));
		assert_int_equal(t.ns, utc.ns);
		assert_int_equal(offset_s, cases[i].offset_s);
		wall_fmt_rfc3339_at(t, offset_s, &b);
		assert_buf_is(&b, cases[i].again != NULL ? cases[i].again : cases[i].text);
		buf_fini(&b);
	}
}

static void clock_virtual(void **state)
{
	mono_t real = mono_now();
	unsigned generation = clock_generation();
	clock_set_virtual((mono_t){1000}, (wall_t){5000});
	assert_true(clock_is_virtual());
	assert_int_not_equal(clock_generation(), generation);
	assert_int_equal(mono_now().ns, 1000);
	mono_t deadline = mono_after(dur_s(2));
	assert_false(mono_is_past(deadline));
	clock_advance(dur_s(2));
	assert_true(mono_is_past(deadline));
	assert_int_equal(wall_now().ns, 5000 + 2 * NS_PER_S);
	clock_set_real();
	assert_false(clock_is_virtual());
	assert_true(mono_now().ns >= real.ns);
	assert_true(wall_now().ns > INT64_C(1700000000) * NS_PER_S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clock_formats_dates), cmocka_unit_test(clock_dates_agree_with_libc),
		cmocka_unit_test(clock_parses_dates),  cmocka_unit_test(dur_parses),
		cmocka_unit_test(dur_formats),	       cmocka_unit_test(clock_saturates),
		cmocka_unit_test(clock_keeps_offsets), cmocka_unit_test(clock_virtual),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
