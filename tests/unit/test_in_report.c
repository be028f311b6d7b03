/* test_in_report.c - what the record of a bounce says: the answer in its diagnostic, or what is known without
 * one. */
#include "ut.h"

#include "base/err.h"
#include "smtp/in_impl.h"

#define REPORT(fields)                                                                              \
	"Content-Type: multipart/report; report-type=delivery-status; "                             \
	"boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"                    \
	"Reporting-MTA: dns; mx.example.com\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\n" fields \
	"\r\n--b--\r\n"

static void test_bounce(void **state)
{
	static const struct {
		const char *fields;
		int code, enhanced[3]; /* code 0: it has not bounced */
		const char *content;
		int64_t unix_s;
	} cases[] = {
		{"Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
		 550,
		 {5, 1, 1},
		 "no such user",
		 0},
		{"Action: Failed\r\nStatus: 5.0.0\r\nDiagnostic-Code: SMTP;452 4.2.2 full\r\n",
		 452,
		 {4, 2, 2},
		 "full",
		 0},
		{"Action: failed\r\nStatus: 5.2.2\r\nDiagnostic-Code: smtp; 552 no enhanced code\r\n",
		 552,
		 {5, 2, 2},
		 "no enhanced code",
		 0},
		{"Action: failed\r\nStatus: 5.1.1\r\n"
		 "Diagnostic-Code: smtp; 550-5.1.1 in two\r\n 550 5.1.1 lines\r\n",
		 550,
		 {5, 1, 1},
		 "in two 550 5.1.1 lines",
		 0},
		{"Action: failed\r\nStatus: 5.1.2\r\nDiagnostic-Code: smtp; 554\r\n", 554, {5, 1, 2}, "", 0},
		{"Action: failed\r\nStatus: 5.1.2\r\nDiagnostic-Code: smtp; 5.1.0 - unknown address\r\n",
		 550,
		 {5, 1, 0},
		 "- unknown address",
		 0},
		{"Action: failed\r\nStatus: 5.1.2\r\nDiagnostic-Code: smtp; 250 all is well\r\n",
		 550,
		 {5, 1, 2},
		 "250 all is well",
		 0},
		{"Action: failed\r\nStatus: 5.1.2\r\nDiagnostic-Code: smtp; 5500 is no code\r\n",
		 550,
		 {5, 1, 2},
		 "5500 is no code",
		 0},
		{"Action: failed\r\nStatus: 5.1.2\r\nDiagnostic-Code: smtp;\r\n", 550, {5, 1, 2}, "", 0},
		{"Action: failed\r\nStatus: 4.4.1\r\n"
		 "Diagnostic-Code: X-Postfix; 421 connection timed out\r\n",
		 550,
		 {4, 4, 1},
		 "421 connection timed out",
		 0},
		{"Action: failed\r\nStatus: 5.4.7\r\nLast-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400\r\n",
		 550,
		 {5, 4, 7},
		 "",
		 773615749},
		{"Action: failed\r\nStatus: 2.0.0\r\n", 550, {0, 0, 0}, "", 0},
		{"Action: delayed\r\nStatus: 4.4.1\r\nDiagnostic-Code: smtp; 421 later\r\n", 0, {0}, NULL, 0},
		{"Action: delivered\r\nStatus: 2.1.5\r\n", 0, {0}, NULL, 0},
		{"Action: relayed\r\nStatus: 2.1.9\r\n", 0, {0}, NULL, 0},
		{"Action: expanded\r\nStatus: 2.0.0\r\n", 0, {0}, NULL, 0},
		{"Action: failed (not really)\r\nStatus: 5.0.0\r\n", 550, {5, 0, 0}, "", 0},
		{"Action: failure\r\nStatus: 5.0.0\r\n", 0, {0}, NULL, 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf in = BUF_INIT;
		struct dsn_report d;
		struct record r = {0};
		buf_printf(&in, REPORT("%s"), cases[i].fields);
		assert_int_equal(dsn_report_parse(buf_str(&in), &d), 1);
		bool has_bounced = in_report_bounce(&d, &d.recipient[0], &r);
		if (has_bounced != (cases[i].code != 0))
			fail_msg("case %zu: bounced is %d", i, has_bounced);
		if (has_bounced && (r.response.code != cases[i].code ||
				    memcmp(r.response.enhanced, cases[i].enhanced, sizeof(int[3])) != 0 ||
				    !str_eq(r.response.content, str_of(cases[i].content)) ||
				    wall_unix_s(r.when) != cases[i].unix_s))
			fail_msg("case %zu: %d %d.%d.%d `" STR_FMT "` %lld", i, r.response.code,
				 r.response.enhanced[0], r.response.enhanced[1], r.response.enhanced[2],
				 STR_ARG(r.response.content), (long long)wall_unix_s(r.when));
		if (has_bounced)
			assert_true(r.type == RECORD_OOB && str_eq(r.peer_name, STR("mx.example.com")));
		dsn_report_fini(&d);
		buf_fini(&in);
	}
}

/* Each record has the name of the reporting server, and a text: neither may be large, nor end in half a
 * character. */
static void test_long_texts(void **state)
{
	struct buf in = BUF_INIT;
	struct dsn_report d;
	struct record r = {0};
	buf_add_z(&in,
		  "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n"
		  "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; ");
	for (int i = 0; i < 200; i++)
		buf_add_z(&in, "\xc3\xbc");
	buf_add_z(&in, "\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: "
		       "5.0.0\r\nDiagnostic-Code: smtp; ");
	for (int i = 0; i < 5000; i++)
		buf_add_c(&in, 'x');
	buf_add_z(&in, "\r\n--b--\r\n");
	assert_int_equal(dsn_report_parse(buf_str(&in), &d), 1);
	assert_true(in_report_bounce(&d, &d.recipient[0], &r));
	assert_int_equal(r.peer_name.n, 254);
	assert_true(str_is_utf8(r.peer_name));
	assert_int_equal(r.response.content.n, 4096);
	dsn_report_fini(&d);
	buf_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bounce), cmocka_unit_test(test_long_texts)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
