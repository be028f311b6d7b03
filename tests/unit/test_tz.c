/* test_tz.c - named time zones: offsets, and what a local clock shows, over jumps in both directions.
 * Expected values are those of Python's zoneinfo. */
#include "ut.h"

#include "base/clock.h"
#include "base/zone.h"

static int64_t unix_of(const char *rfc3339)
{
	wall_t t;
	assert_true(wall_parse_rfc3339(str_of(rfc3339), &t));
	return wall_unix_s(t);
}

static void test_names(void **state)
{
	static const char *const bad[] = {"",
					  "PST",
					  "America/Nowhere",
					  "../../etc/passwd",
					  "/etc/localtime",
					  "America/Phoenix ",
					  "america/phoenix",
					  "zone.tab",
					  "America",
					  "tzdata.zi",
					  "America//../Phoenix",
					  "Etc/GMT\n"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (zone_find(str_of(bad[i])) != NULL)
			fail_msg("there is a zone '%s'", bad[i]);
	assert_null(zone_find(str_mk("UTC\0", 4)));
	const struct zone *z = zone_find(STR("America/Phoenix"));
	assert_non_null(z);
	assert_ptr_equal(z, zone_find(STR("America/Phoenix")));
	assert_non_null(zone_find(STR("UTC")));
}

static void test_offsets(void **state)
{
	static const struct {
		const char *zone, *at;
		int offset_s;
	} cases[] = {
		{"UTC", "2026-07-01T00:00:00Z", 0},
		{"America/Phoenix", "2026-07-01T00:00:00Z", -25200},
		{"America/Phoenix", "2026-01-01T00:00:00Z", -25200},
		{"Europe/Berlin", "2026-03-29T00:59:59Z", 3600},
		{"Europe/Berlin", "2026-03-29T01:00:00Z", 7200},
		{"Europe/Berlin", "2026-10-25T00:59:59Z", 7200},
		{"Europe/Berlin", "2026-10-25T01:00:00Z", 3600},
		{"Europe/Berlin", "2090-07-01T00:00:00Z", 7200}, /* by the rule */
		{"Australia/Sydney", "2090-01-01T00:00:00Z", 39600},
		{"Australia/Sydney", "2090-07-01T00:00:00Z", 36000},
		{"Asia/Kolkata", "2026-01-01T00:00:00Z", 19800},
		{"Pacific/Apia", "2011-12-30T09:59:59Z", -36000},
		{"Pacific/Apia", "2011-12-30T10:00:00Z", 50400},
		{"America/New_York", "1800-01-01T00:00:00Z", -17762},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct zone *z = zone_find(str_of(cases[i].zone));
		assert_non_null(z);
		if (zone_offset(z, unix_of(cases[i].at)) != cases[i].offset_s)
			fail_msg("%s at %s: %d", cases[i].zone, cases[i].at,
				 zone_offset(z, unix_of(cases[i].at)));
	}
}

static void test_local(void **state)
{
	static const struct {
		const char *zone, *local, *utc;
	} cases[] = {
		{"UTC", "2026-07-01T09:00:00Z", "2026-07-01T09:00:00Z"},
		{"America/Phoenix", "2026-07-01T09:00:00Z", "2026-07-01T16:00:00Z"},
		{"Europe/Berlin", "2026-03-29T01:59:59Z", "2026-03-29T00:59:59Z"},
		{"Europe/Berlin", "2026-03-29T02:00:00Z", "2026-03-29T01:00:00Z"}, /* jumped over */
		{"Europe/Berlin", "2026-03-29T02:30:00Z", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-03-29T03:00:00Z", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-10-25T01:59:59Z", "2026-10-24T23:59:59Z"},
		{"Europe/Berlin", "2026-10-25T02:30:00Z", "2026-10-25T00:30:00Z"}, /* twice */
		{"Europe/Berlin", "2026-10-25T03:00:00Z", "2026-10-25T02:00:00Z"},
		{"Pacific/Apia", "2011-12-30T12:00:00Z", "2011-12-30T10:00:00Z"}, /* a whole day */
		{"Asia/Kathmandu", "2026-01-01T00:00:00Z", "2025-12-31T18:15:00Z"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct zone *z = zone_find(str_of(cases[i].zone));
		assert_non_null(z);
		int64_t got = zone_unix_of_local(z, unix_of(cases[i].local));
		if (got != unix_of(cases[i].utc))
			fail_msg("%s shows %s: off by %lld s", cases[i].zone, cases[i].local,
				 (long long)(got - unix_of(cases[i].utc)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_offsets),
					   cmocka_unit_test(test_local)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
