/* test_report.c - delivery status notifications and
 * feedback reports: what they say, and what is malformed. */
#include "mime/report.h"

#include "base/err.h"
#include "base/text.h"
#include "ut.h"

#define DSN(fields)                                                                                    \
	"From: Mail Delivery Subsystem <mailer-daemon@cs.utk.edu>\r\nContent-Type: multipart/report; " \
	"report-type=delivery-status;\r\n boundary=b\r\n\r\n"                                          \
	"--b\r\n\r\nThe text.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n" fields          \
	"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"                                              \
	"Subject: x\r\n\r\nthe original\r\n--b--\r\n"
#define MTA "Reporting-MTA: dns; cs.utk.edu\r\n"
#define RCPT "Final-Recipient: rfc822;louisl@larry.slip.umd.edu\r\nAction: failed\r\nStatus: 4.0.0\r\n"

static void assert_json(json_t *v, const char *want)
{
	char *got = json_dumps(v, JSON_SORT_KEYS | JSON_COMPACT);
	if (strcmp(got, want) != 0)
		fail_msg("got:    %s\nwanted: %s", got, want);
	free(got);
	json_decref(v);
}

static void test_dsn_json(void **state)
{
	static const struct {
		const char *in, *json;
	} cases[] = {
		{DSN(MTA
		     "\r\nOriginal-Recipient: rfc822;louisl@larry.slip.umd.edu\r\nFinal-Recipient: "
		     "rfc822;louisl@larry.slip.umd.edu\r\n"
		     "Action: failed\r\nStatus: 4.0.0\r\nDiagnostic-Code: smtp; 426 connection timed out\r\n"
		     "Last-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400\r\n"),
		 "{\"original_message\":\"Subject: x\\n\\nthe "
		 "original\",\"per_message\":{\"extensions\":{},\"reporting_mta\":{\"mta_type\":\"dns\","
		 "\"name\":\"cs.utk.edu\"}},"
		 "\"per_recipient\":[{\"action\":\"failed\",\"diagnostic_code\":{\"diagnostic\":\"426 "
		 "connection timed out\",\"diagnostic_type\":\"smtp\"},"
		 "\"extensions\":{},\"final_recipient\":{\"recipient\":\"louisl@larry.slip.umd.edu\","
		 "\"recipient_type\":\"rfc822\"},"
		 "\"last_attempt_date\":\"1994-07-07T21:15:49Z\","
		 "\"original_recipient\":{\"recipient\":\"louisl@larry.slip.umd.edu\",\"recipient_type\":"
		 "\"rfc822\"},"
		 "\"status\":{\"class\":4,\"detail\":0,\"subject\":0}}]}"},
		/* LF line ends, empty lines, a line that is no field, types left out, brackets, a comment,
		   zones by name. */
		{"Content-Type: multipart/report; report-type=\"delivery-status\"; "
		 "boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n\n"
		 "Original-Envelope-Id: e1\nreporting-mta: mx.example.com\nArrival-Date: Thu, 7 Jul 1994 "
		 "17:15:49 UTC\nX-Queue: 1\nx-queue: 2\n\n\n"
		 "Final-Recipient: <a@b>\nAction: FAILED\nno field\nStatus: 5.1.1 (no such "
		 "user)\nDiagnostic-Code: 550\n 5.1.1 x\nRemote-MTA: dns; mx\n"
		 "Will-Retry-Until: nonsense\nFinal-Log-ID: 9\n\nOriginal-Recipient: utf-8; c@d\nAction: "
		 "delayed\nStatus: 4.7.99\n--b--\n",
		 "{\"per_message\":{\"arrival_date\":\"1994-07-07T17:15:49Z\",\"extensions\":{\"x-queue\":["
		 "\"1\",\"2\"]},\"original_envelope_id\":\"e1\","
		 "\"reporting_mta\":{\"mta_type\":\"dns\",\"name\":\"mx.example.com\"}},\"per_recipient\":[{"
		 "\"action\":\"failed\","
		 "\"diagnostic_code\":{\"diagnostic\":\"550 5.1.1 "
		 "x\",\"diagnostic_type\":\"smtp\"},\"extensions\":{},\"final_log_id\":\"9\","
		 "\"final_recipient\":{\"recipient\":\"a@b\",\"recipient_type\":\"rfc822\"},\"remote_mta\":{"
		 "\"mta_type\":\"dns\",\"name\":\"mx\"},"
		 "\"status\":{\"class\":5,\"detail\":1,\"subject\":1}},{\"action\":\"delayed\","
		 "\"extensions\":{},"
		 "\"final_recipient\":{\"recipient\":\"c@d\",\"recipient_type\":\"utf-8\"},\"original_"
		 "recipient\":{\"recipient\":\"c@d\",\"recipient_type\":\"utf-8\"},"
		 "\"status\":{\"class\":4,\"detail\":99,\"subject\":7}}]}"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct dsn_report r;
		assert_int_equal(dsn_report_parse(str_of(cases[i].in), &r), 1);
		assert_json(dsn_report_json(&r), cases[i].json);
		dsn_report_fini(&r);
	}
}

static void test_dsn_malformed(void **state)
{
	static const struct {
		const char *in, *error; /* NULL: it is no report */
	} cases[] = {
		{"", NULL},
		{"Subject: x\r\n\r\n", NULL},
		{"Content-Type: text/plain\r\n\r\n", NULL},
		{"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b--",
		 NULL},
		{"Content-Type: multipart/report; boundary=b\r\n\r\n--b--", NULL},
		{"Content-Type: multipart/report; report-type=delivery-status; "
		 "boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--",
		 "malformed delivery status notification: the message/delivery-status part is missing"},
		{DSN(""), "malformed delivery status notification: Reporting-MTA is missing"},
		{DSN(MTA), "malformed delivery status notification: it has no recipients"},
		{DSN("X: y\r\n\r\n" RCPT),
		 "malformed delivery status notification: Reporting-MTA is missing"},
		{DSN(MTA "\r\nAction: failed\r\nStatus: 4.0.0\r\n"),
		 "malformed delivery status notification: Final-Recipient is missing"},
		{DSN(MTA "\r\nFinal-Recipient: rfc822;a@b\r\nStatus: 4.0.0\r\n"),
		 "malformed delivery status notification: Action is missing"},
		{DSN(MTA "\r\nFinal-Recipient: rfc822;a@b\r\nAction: failed\r\n"),
		 "malformed delivery status notification: Status is missing or none"},
		{DSN(MTA "\r\nFinal-Recipient: rfc822;a@b\r\nAction: failed\r\nStatus: 5\r\n"),
		 "malformed delivery status notification: Status is missing or none"},
		{DSN(MTA "\r\nFinal-Recipient: rfc822;a@b\r\nAction: failed\r\nStatus: 5.99999.1\r\n"),
		 "malformed delivery status notification: Status is missing or none"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct dsn_report r;
		int rc = dsn_report_parse(str_of(cases[i].in), &r);
		if (rc != (cases[i].error != NULL ? -1 : 0) ||
		    (rc == -1 && strcmp(err_text(), cases[i].error) != 0))
			fail_msg("case %zu: %d %s", i, rc, err_text());
		err_clear();
	}
}

#define ARF(fields, original)                                                                                \
	"Content-Type: multipart/report; report-type=feedback-report;\r\n boundary=b\r\n\r\n--b\r\n\r\nThe " \
	"text.\r\n"                                                                                          \
	"--b\r\nContent-Type: message/feedback-report\r\n\r\n" fields "\r\n--b\r\n" original "\r\n--b--\r\n"
#define REQUIRED "Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n"

static void test_arf_json(void **state)
{
	static const struct {
		const char *in, *json;
	} cases[] = {
		{ARF(REQUIRED
		     "Original-Mail-From: <somesender@example.net>\r\n"
		     "Original-Rcpt-To: <user@example.com>\r\n"
		     "Arrival-Date: Thu, 8 Mar 2005 14:00:00 EDT\r\nReporting-MTA: dns; "
		     "mail.example.com\r\nSource-IP: 192.0.2.1\r\n"
		     "Authentication-Results: mail.example.com;\r\n  spf=fail "
		     "smtp.mail=somesender@example.com\r\n"
		     "Reported-Domain: example.net\r\nReported-Uri: http://example.net/earn_money.html\r\n"
		     "Reported-Uri: mailto:user@example.com\r\nRemoval-Recipient: "
		     "user@example.com\r\nIncidents: 3\r\n",
		     "Content-Type: text/rfc822-headers\r\n\r\nFrom: <somesender@example.net>\r\n"
		     "X-KumoRef: eyJfQF8iOiJcXF8vIiwicmVjaXBpZW50\r\n"
		     "\tIjoidGVzdEBleGFtcGxlLmNvbSJ9\r\n"
		     "Subject: Earn money\r\n"),
		 "{\"arrival_date\":\"2005-03-08T18:00:00Z\",\"authentication_results\":[\"mail.example.com; "
		 "spf=fail smtp.mail=somesender@example.com\"],"
		 "\"extensions\":{\"removal-recipient\":[\"user@example.com\"]},\"feedback_type\":\"abuse\","
		 "\"incidents\":3,"
		 "\"original_mail_from\":\"<somesender@example.net>\",\"original_message\":\"From: "
		 "<somesender@example.net>\\n"
		 "X-KumoRef: eyJfQF8iOiJcXF8vIiwicmVjaXBpZW50\\n\\tIjoidGVzdEBleGFtcGxlLmNvbSJ9\\nSubject: "
		 "Earn money\\n\","
		 "\"original_rcpto_to\":[\"<user@example.com>\"],\"reported_domain\":[\"example.net\"],"
		 "\"reported_uri\":[\"http://example.net/earn_money.html\",\"mailto:user@example.com\"],"
		 "\"reporting_mta\":{\"mta_type\":\"dns\",\"name\":\"mail.example.com\"},\"source_ip\":\"192."
		 "0.2.1\","
		 "\"supplemental_trace\":{\"recipient\":\"test@example.com\"},\"user_agent\":\"SomeGenerator/"
		 "1.0\",\"version\":\"1\"}"},
		{ARF("\r\n" REQUIRED "Received-Date: Tue, 8 Mar 2005 18:00:00 +0000\r\nIncidents: many\r\n",
		     "Content-Type: message/rfc822\r\n\r\nX-Other: bm9wZQ==\r\nX-No: not base64\r\n\r\n\xff"),
		 "{\"arrival_date\":\"2005-03-08T18:00:00Z\",\"authentication_results\":[],\"extensions\":{},"
		 "\"feedback_type\":\"abuse\","
		 "\"original_message\":[88,45,79,116,104,101,114,58,32,98,109,57,119,90,81,61,61,10,88,45,78,"
		 "111,58,32,110,111,116,32,98,97,115,101,54,52,10,10,255],"
		 "\"original_rcpto_to\":[],\"reported_domain\":[],\"reported_uri\":[],\"user_agent\":"
		 "\"SomeGenerator/1.0\",\"version\":\"1\"}"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct arf_report r;
		assert_int_equal(arf_report_parse(str_of(cases[i].in), &r), 1);
		assert_json(arf_report_json(&r, false), cases[i].json);
		arf_report_fini(&r);
	}
	struct arf_report r;
	assert_int_equal(arf_report_parse(STR(ARF(REQUIRED, "Content-Type: text/plain\r\n\r\nx")), &r), 1);
	assert_json(arf_report_json(&r, true),
		    "{\"arrival_date\":null,\"authentication_results\":[],\"extensions\":{},\"feedback_"
		    "type\":\"abuse\",\"incidents\":null,"
		    "\"original_envelope_id\":null,\"original_mail_from\":null,\"original_message\":null,"
		    "\"original_rcpto_to\":[],"
		    "\"reported_domain\":[],\"reported_uri\":[],\"reporting_mta\":null,\"source_ip\":null,"
		    "\"supplemental_trace\":null,"
		    "\"user_agent\":\"SomeGenerator/1.0\",\"version\":\"1\"}");
	arf_report_fini(&r);
}

static void test_arf_malformed(void **state)
{
	static const struct {
		const char *in, *error;
	} cases[] = {
		{"Subject: x\r\n\r\n", NULL},
		{DSN(MTA "\r\n" RCPT), NULL},
		{"Content-Type: multipart/report; report-type=feedback-report; "
		 "boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--",
		 "malformed feedback report: the message/feedback-report part is missing"},
		{ARF("User-Agent: x\r\nVersion: 1\r\n", ""),
		 "malformed feedback report: Feedback-Type is missing"},
		{ARF("Feedback-Type: abuse\r\nVersion: 1\r\n", ""),
		 "malformed feedback report: User-Agent is missing"},
		{ARF("Feedback-Type: abuse\r\nUser-Agent: x\r\n", ""),
		 "malformed feedback report: Version is missing"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct arf_report r;
		int rc = arf_report_parse(str_of(cases[i].in), &r);
		if (rc != (cases[i].error != NULL ? -1 : 0) ||
		    (rc == -1 && strcmp(err_text(), cases[i].error) != 0))
			fail_msg("case %zu: %d %s", i, rc, err_text());
		err_clear();
	}
}

/* A trace header of nothing but brackets must not reach the recursion of the JSON parser; fields have a
 * bound. */
static void test_report_limits(void **state)
{
	struct buf json = BUF_INIT, in = BUF_INIT;
	for (int i = 0; i < 100000; i++)
		buf_add_c(&json, '[');
	buf_add_z(&in, "Content-Type: multipart/report; report-type=feedback-report; "
		       "boundary=b\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n" REQUIRED
		       "\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nX-Deep: ");
	base64_encode(&in, buf_str(&json));
	buf_add_z(&in, "\r\n\r\n--b--");
	struct arf_report r;
	assert_int_equal(arf_report_parse(buf_str(&in), &r), 1);
	assert_null(r.supplemental_trace);
	arf_report_fini(&r);
	/* A trace field may be long, but not without end. */
	for (int is_long = 0; is_long < 2; is_long++) {
		buf_clear(&json);
		buf_add_z(&json, "{\"_@_\":\"\\\\_/\",\"recipient\":\"");
		for (int i = 0; i < (is_long ? 200000 : 150000); i++)
			buf_add_c(&json, 'x');
		buf_add_z(&json, "\"}");
		buf_clear(&in);
		buf_add_z(&in, "Content-Type: multipart/report; report-type=feedback-report; "
			       "boundary=b\r\n\r\n--b\r\n"
			       "Content-Type: message/feedback-report\r\n\r\n" REQUIRED
			       "\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nX-Long: ");
		base64_encode(&in, buf_str(&json));
		buf_add_z(&in, "\r\n\r\n--b--");
		assert_int_equal(arf_report_parse(buf_str(&in), &r), 1);
		assert_true((r.supplemental_trace == NULL) == (is_long != 0));
		arf_report_fini(&r);
	}
	buf_clear(&in);
	buf_add_z(&in, "Content-Type: multipart/report; report-type=delivery-status; "
		       "boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n");
	for (int i = 0; i < 100001; i++)
		buf_add_z(&in, "a:\n");
	struct dsn_report d;
	assert_int_equal(dsn_report_parse(buf_str(&in), &d), -1);
	assert_string_equal(err_text(), "malformed delivery status notification: it has too many fields");
	err_clear();
	/* Few fields, but long ones. */
	for (int is_dsn = 0; is_dsn < 2; is_dsn++) {
		buf_clear(&in);
		buf_printf(&in,
			   "Content-Type: multipart/report; report-type=%s; "
			   "boundary=b\r\n\r\n--b\r\nContent-Type: message/%s\r\n\r\nX: ",
			   is_dsn ? "delivery-status" : "feedback-report",
			   is_dsn ? "delivery-status" : "feedback-report");
		for (int i = 0; i < 1 << 20; i++)
			buf_add_c(&in, 'x');
		buf_add_z(&in, is_dsn ? "\r\n" MTA "\r\n" RCPT "--b--" : "\r\n" REQUIRED "--b--");
		assert_int_equal(
			is_dsn ? dsn_report_parse(buf_str(&in), &d) : arf_report_parse(buf_str(&in), &r), -1);
		assert_string_equal(err_text(),
				    is_dsn ? "malformed delivery status notification: its fields are too long"
					   : "malformed feedback report: its fields are too long");
		err_clear();
	}
	buf_fini(&json);
	buf_fini(&in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dsn_json),      cmocka_unit_test(test_dsn_malformed),
		cmocka_unit_test(test_arf_json),      cmocka_unit_test(test_arf_malformed),
		cmocka_unit_test(test_report_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
