/* SMTP answers line by line, and how records show them. */
#include "ut.h"

#include "base/err.h"
#include "smtp/reply.h"

struct reply_case {
	const char *lines; /* joined by LF */
	int rc;		   /* of the last line read: 1, 0 (more expected), -1 */
	int code;
	const char *text;
	int enhanced[3];
	const char *content; /* after the enhanced code was split off */
};

static const struct reply_case cases[] = {
	{"250 ok", 1, 250, "ok", {0}, "ok"},
	{"250", 1, 250, "", {0}, ""},
	{"250 ", 1, 250, "", {0}, ""},
	{"250-one\n250-two\n250 three", 1, 250, "one\ntwo\nthree", {0}, "one\ntwo\nthree"},
	{"250-one", 0, 250, "one", {0}, "one"},
	{"250 2.1.5 fine", 1, 250, "2.1.5 fine", {2, 1, 5}, "fine"},
	{"550 5.1.1 unknown", 1, 550, "5.1.1 unknown", {5, 1, 1}, "unknown"},
	{"550 5.1.1", 1, 550, "5.1.1", {5, 1, 1}, ""},
	{"550 4.1.1 class does not fit", 1, 550, "4.1.1 class does not fit", {0}, "4.1.1 class does not fit"},
	{"550 5.1.1234 x", 1, 550, "5.1.1234 x", {0}, "5.1.1234 x"},
	{"550 5.1 x", 1, 550, "5.1 x", {0}, "5.1 x"},
	{"421 4.7.0 [TSS04] wait", 1, 421, "4.7.0 [TSS04] wait", {4, 7, 0}, "[TSS04] wait"},
	{"550-5.1.1 no such\n550-5.1.1 user\n550 5.1.1 here",
	 1,
	 550,
	 "5.1.1 no such\nuser\nhere",
	 {5, 1, 1},
	 "no such\nuser\nhere"},
	{"550-5.1.1\n550 5.1.1", 1, 550, "5.1.1\n", {5, 1, 1}, ""},
	{"550-5.1.1 one\n550-5.1.2 two\n550 5.1.10 ten",
	 1,
	 550,
	 "5.1.1 one\n5.1.2 two\n5.1.10 ten",
	 {5, 1, 1},
	 "one\n5.1.2 two\n5.1.10 ten"},
	{"550-one\n550 5.1.1 two", 1, 550, "one\n5.1.1 two", {0}, "one\n5.1.1 two"},
	{"250-a\n251 b", -1, 0, NULL, {0}, NULL},
	{"25 ok", -1, 0, NULL, {0}, NULL},
	{"2500 ok", -1, 0, NULL, {0}, NULL},
	{"abc", -1, 0, NULL, {0}, NULL},
	{"", -1, 0, NULL, {0}, NULL},
	{"199 low", -1, 0, NULL, {0}, NULL},
	{"600 high", -1, 0, NULL, {0}, NULL},
	{"HTTP/1.1 400 Bad Request", -1, 0, NULL, {0}, NULL},
};

static void test_replies(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct reply_case *c = &cases[i];
		struct smtp_reply r = {0};
		str_t rest = str_of(c->lines), line;
		int rc = 0;
		if (rest.n == 0)
			rc = smtp_reply_add_line(&r, rest, true);
		for (bool is_first = true; rc == 0 && str_split(&rest, '\n', &line); is_first = false)
			rc = smtp_reply_add_line(&r, line, is_first);
		assert_int_equal(rc, c->rc);
		if (rc < 0) {
			assert_true(err_is(ERR_PROTO));
			err_clear();
		} else {
			struct smtp_response out = smtp_reply_response(&r, STR("X\r\n"));
			assert_int_equal(r.code, c->code);
			assert_buf_is(&r.text, c->text);
			assert_memory_equal(out.enhanced, c->enhanced, sizeof(c->enhanced));
			assert_str_is(out.content, c->content);
			assert_str_is(out.command, "X\r\n");
		}
		smtp_reply_fini(&r);
	}
}

static void test_endless_reply(void **state)
{
	struct smtp_reply r = {0};
	char line[1004] = "250-";
	memset(line + 4, 'x', 1000);
	int rc = 0, n = 0;
	for (; rc == 0 && n < 1000; n++)
		rc = smtp_reply_add_line(&r, str_mk(line, sizeof(line)), n == 0);
	assert_int_equal(rc, -1);
	assert_true(n < 70);
	err_clear();
	smtp_reply_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_replies),
					   cmocka_unit_test(test_endless_reply)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
