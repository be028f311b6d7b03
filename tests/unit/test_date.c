/* test_date.c - dates of header fields, current, obsolete and wrong. */
#include "mime/date.h"

#include "ut.h"

static void test_date_parse(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: none */
	} cases[] = {
		{"Thu, 7 Jul 1994 17:15:49 -0400", "1994-07-07T21:15:49Z"},
		{" Mon, 23 Nov 2026 02:33:32 +0000 (UTC)", "2026-11-23T02:33:32Z"},
		{"23 Nov 2026 02:33 +0100", "2026-11-23T01:33:00Z"},
		{"Tue, 1 Jul 2003 10:52:37 +0200", "2003-07-01T08:52:37Z"},
		{"Tue, 08 Mar 2005 14:00:00 EDT", "2005-03-08T18:00:00Z"},
		{"Tue, 08 Mar 2005 14:00:00 UTC", "2005-03-08T14:00:00Z"},
		{"Tue, 08 Mar 2005 14:00:00 XYZ", "2005-03-08T14:00:00Z"},
		{"Tue, 08 Mar 2005 14:00:00", "2005-03-08T14:00:00Z"},
		{"08 mar 05 14 : 00 (x) : 00 Z", "2005-03-08T14:00:00Z"},
		{"8 March 95 14:00:00 GMT", "1995-03-08T14:00:00Z"},
		{"8 Mar 101 14:00:00 GMT", "2001-03-08T14:00:00Z"},
		{"29 Feb 2024 00:00:00 +0000", "2024-02-29T00:00:00Z"},
		{"31 Dec 1969 23:59:59 +0000", "1969-12-31T23:59:59Z"},
		{"29 Feb 2023 00:00:00 +0000", NULL},
		{"31 Apr 2023 00:00:00 +0000", NULL},
		{"0 Apr 2023 00:00:00 +0000", NULL},
		{"1 Foo 2023 00:00:00 +0000", NULL},
		{"1 Apr 2023 24:00:00 +0000", NULL},
		{"1 Apr 2023 00:60:00 +0000", NULL},
		{"1 Apr 99999 00:00:00 +0000", NULL},
		{"1 Apr 9999 00:00:00 +0000", NULL},
		{"1 Apr 2023", NULL},
		{"now", NULL},
		{"", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		wall_t t;
		bool is_ok = date_parse(str_of(cases[i].in), &t);
		if (is_ok)
			wall_fmt_rfc3339(t, 0, &out);
		if (is_ok != (cases[i].out != NULL) ||
		    (is_ok && !str_eq(buf_str(&out), str_of(cases[i].out))))
			fail_msg("%s: %d " STR_FMT, cases[i].in, is_ok, STR_ARG(buf_str(&out)));
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_date_parse)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
