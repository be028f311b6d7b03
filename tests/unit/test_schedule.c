/* test_schedule.c - reading the fields of a schedule, and where a due time goes by it. Expected times of
 * windows are worked out by hand and with Python's zoneinfo. */
#include "ut.h"

#include "base/err.h"
#include "mail/schedule.h"

static wall_t at(const char *rfc3339)
{
	wall_t t;
	if (!wall_parse_rfc3339(str_of(rfc3339), &t))
		fail_msg("%s", rfc3339);
	return t;
}

static void window(struct schedule *s, const char *dow, const char *tz, const char *start, const char *end)
{
	if (schedule_parse_dow(str_of(dow), &s->dow) != 0 || schedule_set_zone(s, str_of(tz)) != 0 ||
	    schedule_parse_clock(str_of(start), &s->start) != 0 ||
	    schedule_parse_clock(str_of(end), &s->end) != 0 || schedule_check(s) != 0)
		fail_msg("%s %s %s %s: %s", dow, tz, start, end, err_text());
}

static void test_dow(void **state)
{
	static const struct {
		const char *text;
		int days; /* -1: refused */
	} cases[] = {
		{"Mon", 1},
		{"Monday", 1},
		{"mon", 1},
		{"Mon,Wed", 5},
		{"Monday, Wednesday ,Sun", 69},
		{"Mon,Mon", 1},
		{"Mon,Tue,Wed,Thu,Fri", 31},
		{"Monday,Tuesday,Wednesday,Thursday,Friday", 31},
		{"Sat,Sunday", 96},
		{"", -1},
		{",", -1},
		{"Mon,", -1},
		{"Mo", -1},
		{"Mond", -1},
		{"Mon Tue", -1},
		{"Mon;Tue", -1},
		{"1", -1},
		{"Mon,,Tue", -1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t days = 77;
		int rc = schedule_parse_dow(str_of(cases[i].text), &days);
		if ((rc == 0 ? days : -1) != cases[i].days)
			fail_msg("'%s': %d, %d", cases[i].text, rc, days);
		if (rc != 0)
			assert_non_null(strstr(err_text(), "expected a list of days of the week"));
		err_clear();
	}
}

static void test_clock(void **state)
{
	static const struct {
		const char *text;
		int s;
	} cases[] = {
		{"00:00:00", 0},  {"09:00:00", 32400}, {"23:59:59", 86399}, {"12:34:56", 45296},
		{"24:00:00", -1}, {"9:00:00", -1},     {"09:00", -1},	    {"", -1},
		{"09:60:00", -1}, {"09:00:60", -1},    {"09:00:00 ", -1},   {"0a:00:00", -1},
		{"09-00-00", -1}, {"-1:00:00", -1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct schedule_clock c = {0};
		int rc = schedule_parse_clock(str_of(cases[i].text), &c);
		if ((rc == 0 ? c.s : -1) != cases[i].s || c.is_set != (rc == 0))
			fail_msg("'%s': %d, %d", cases[i].text, rc, c.s);
		err_clear();
	}
}

static void test_times(void **state)
{
	static const char *const bad[] = {"",
					  "tomorrow",
					  "2023-03-01T17:00:00",
					  "2023-03-01",
					  "2023-03-01T17:00:00:00-08:00",
					  "2023-13-01T17:00:00Z",
					  "2023-02-29T17:00:00Z",
					  "1677954800"};
	struct schedule_time t = {0};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(schedule_parse_time(str_of(bad[i]), &t), -1);
		assert_non_null(strstr(err_text(), "RFC 3339"));
		assert_false(t.is_set);
		err_clear();
	}
	assert_int_equal(schedule_parse_time(STR("2023-03-01T17:00:00-08:00"), &t), 0);
	assert_true(t.is_set && t.at.ns == at("2023-03-02T01:00:00Z").ns && t.offset_s == -28800);
}

static void test_check(void **state)
{
	struct schedule s = {0};
	assert_int_equal(schedule_check(&s), 0);
	assert_true(schedule_is_empty(&s));
	s.dow = 1;
	assert_int_equal(schedule_check(&s), -1);
	assert_non_null(strstr(err_text(), "missing field `tz`"));
	assert_int_equal(schedule_set_zone(&s, STR("PST")), -1);
	assert_non_null(
		strstr(err_text(), "invalid value: \"PST\", expected a name of the IANA time zone database"));
	assert_int_equal(schedule_set_zone(&s, STR("Europe/Berlin")), 0);
	assert_int_equal(schedule_parse_clock(STR("09:00:00"), &s.start), 0);
	assert_int_equal(schedule_check(&s), -1);
	assert_non_null(strstr(err_text(), "missing field `end`"));
	assert_int_equal(schedule_parse_clock(STR("09:00:00"), &s.end), 0);
	assert_int_equal(schedule_check(&s), -1);
	assert_non_null(strstr(err_text(), "field `end`"));
	s.end.s++;
	assert_int_equal(schedule_check(&s), 0);
	s.dow = 0;
	assert_int_equal(schedule_check(&s), -1);
	assert_non_null(strstr(err_text(), "missing field `dow`"));
	schedule_fini(&s);
	assert_true(schedule_is_empty(&s));
	err_clear();
}

static void test_windows(void **state)
{
	static const struct {
		const char *dow, *tz, *start, *end, *due, *want;
	} cases[] = {
		/* 2026-11-23 is a Monday; Phoenix is 7 hours behind all year. */
		{"Mon,Wed", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-23T16:00:00Z",
		 "2026-11-23T16:00:00Z"},
		{"Mon,Wed", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-23T15:59:59.5Z",
		 "2026-11-23T16:00:00Z"},
		{"Mon,Wed", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-23T23:59:59.999Z",
		 "2026-11-23T23:59:59.999Z"},
		{"Mon,Wed", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-24T00:00:00Z",
		 "2026-11-25T16:00:00Z"},
		{"Mon,Wed", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-26T00:00:00Z",
		 "2026-11-30T16:00:00Z"},
		{"Mon", "America/Phoenix", "09:00:00", "17:00:00", "2026-11-24T00:00:00Z",
		 "2026-11-30T16:00:00Z"},
		/* Local Monday is UTC's Sunday in the east, and Tuesday in the west. */
		{"Mon", "Pacific/Auckland", "01:00:00", "02:00:00", "2026-11-20T00:00:00Z",
		 "2026-11-22T12:00:00Z"},
		{"Mon", "America/Phoenix", "20:00:00", "21:00:00", "2026-11-23T00:00:00Z",
		 "2026-11-24T03:00:00Z"},
		/* Over midnight: the day is that of the start. */
		{"Fri", "UTC", "22:00:00", "06:00:00", "2026-11-27T23:00:00Z", "2026-11-27T23:00:00Z"},
		{"Fri", "UTC", "22:00:00", "06:00:00", "2026-11-28T05:59:59Z", "2026-11-28T05:59:59Z"},
		{"Fri", "UTC", "22:00:00", "06:00:00", "2026-11-28T06:00:00Z", "2026-12-04T22:00:00Z"},
		{"Fri", "UTC", "22:00:00", "06:00:00", "2026-11-27T05:00:00Z", "2026-11-27T22:00:00Z"},
		/* Nine in the morning stays nine in the morning over the change of the clocks. */
		{"Sat,Sun", "Europe/Berlin", "09:00:00", "10:00:00", "2026-03-28T10:00:00Z",
		 "2026-03-29T07:00:00Z"},
		{"Sat,Sun", "Europe/Berlin", "09:00:00", "10:00:00", "2026-10-24T09:00:00Z",
		 "2026-10-25T08:00:00Z"},
		/* The start is jumped over: the window opens with the jump, when it is still open then. */
		{"Sun", "Europe/Berlin", "02:30:00", "03:30:00", "2026-03-28T12:00:00Z",
		 "2026-03-29T01:00:00Z"},
		{"Sun", "Europe/Berlin", "02:15:00", "02:45:00", "2026-03-28T12:00:00Z",
		 "2026-04-05T00:15:00Z"},
		/* An hour that comes twice: the window is open in both. */
		{"Sun", "Europe/Berlin", "02:00:00", "03:00:00", "2026-10-24T23:00:00Z",
		 "2026-10-25T00:00:00Z"},
		{"Sun", "Europe/Berlin", "02:00:00", "03:00:00", "2026-10-25T01:30:00Z",
		 "2026-10-25T01:30:00Z"},
		/* A Friday that never was. */
		{"Fri", "Pacific/Apia", "09:00:00", "10:00:00", "2011-12-29T00:00:00Z",
		 "2012-01-05T19:00:00Z"},
		{"Thu", "UTC", "00:00:00", "00:00:01", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"},
		{"Wed", "UTC", "00:00:00", "12:00:00", "1969-12-31T11:00:00Z", "1969-12-31T11:00:00Z"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct schedule s = {0};
		struct buf b = BUF_INIT;
		window(&s, cases[i].dow, cases[i].tz, cases[i].start, cases[i].end);
		wall_t got = schedule_adjust(&s, at(cases[i].due));
		wall_fmt_rfc3339(got, 3, &b);
		if (got.ns != at(cases[i].want).ns)
			fail_msg("%s %s %s-%s, due %s: %s", cases[i].dow, cases[i].tz, cases[i].start,
				 cases[i].end, cases[i].due, b.p);
		assert_int_equal(schedule_adjust(&s, got).ns, got.ns);
		buf_fini(&b);
		schedule_fini(&s);
	}
}

static void test_first_attempt(void **state)
{
	struct schedule s = {0};
	assert_int_equal(schedule_parse_time(STR("2026-11-24T12:00:00Z"), &s.first_attempt), 0);
	assert_int_equal(schedule_adjust(&s, at("2026-11-23T00:00:00Z")).ns, at("2026-11-24T12:00:00Z").ns);
	assert_int_equal(schedule_adjust(&s, at("2026-11-25T00:00:00Z")).ns, at("2026-11-25T00:00:00Z").ns);
	window(&s, "Mon,Wed", "UTC", "09:00:00",
	       "17:00:00"); /* both: the first window after the first attempt */
	assert_int_equal(schedule_adjust(&s, at("2026-11-23T10:00:00Z")).ns, at("2026-11-25T09:00:00Z").ns);
	schedule_fini(&s);
}

static void test_expires(void **state)
{
	struct schedule s = {0};
	struct buf why = BUF_INIT;
	assert_false(schedule_is_expired(&s, at("2026-11-24T12:00:00Z"), &why));
	assert_int_equal(schedule_parse_time(STR("2026-11-24T13:00:00+01:00"), &s.expires), 0);
	assert_false(schedule_is_expired(&s, at("2026-11-24T11:59:59.999999999Z"), &why));
	assert_int_equal(why.n, 0);
	assert_true(schedule_is_expired(&s, at("2026-11-24T12:00:00Z"), &why));
	assert_buf_is(&why, "Next delivery time would be at 2026-11-24T12:00:00Z which exceeds the expiry "
			    "time 2026-11-24T13:00:00+01:00 "
			    "configured via set_scheduling");
	buf_fini(&why);
	schedule_fini(&s);
}

static void test_write(void **state)
{
	struct schedule s = {0};
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	schedule_write(&s, &j);
	assert_buf_is(&b, "{\"first_attempt\":null,\"expires\":null}");
	window(&s, "sunday,Monday,Wed", "America/Phoenix", "09:00:00", "17:30:01");
	assert_int_equal(schedule_parse_time(STR("2023-03-01T17:00:00-08:00"), &s.first_attempt), 0);
	assert_int_equal(schedule_parse_time(STR("2023-03-02T00:00:00.5Z"), &s.expires), 0);
	buf_clear(&b);
	j = json_out_to(&b);
	schedule_write(&s, &j);
	assert_buf_is(&b, "{\"first_attempt\":\"2023-03-01T17:00:00-08:00\",\"expires\":\"2023-03-02T00:00:"
			  "00.500Z\",\"dow\":\"Mon,Wed,Sun\","
			  "\"tz\":\"America/Phoenix\",\"start\":\"09:00:00\",\"end\":\"17:30:01\"}");
	buf_fini(&b);
	schedule_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dow),	cmocka_unit_test(test_clock),
		cmocka_unit_test(test_times),	cmocka_unit_test(test_check),
		cmocka_unit_test(test_windows), cmocka_unit_test(test_first_attempt),
		cmocka_unit_test(test_expires), cmocka_unit_test(test_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
