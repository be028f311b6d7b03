/* test_in_command.c - SMTP commands: what is one, what of it counts, and how the others are refused. */
#include "ut.h"

#include "base/err.h"
#include "smtp/in_command.h"

#define A10 "aaaaaaaaaa"
#define A100 A10 A10 A10 A10 A10 A10 A10 A10 A10 A10

/* --- verbs and arguments --- */

static const struct {
	const char *line;
	enum in_verb verb;
	const char *arg;
	int code; /* 0: it is a command */
} verbs[] = {
	{"EHLO client.example", IN_EHLO, "client.example", 0},
	{"ehlo client.example", IN_EHLO, "client.example", 0},
	{"EHLO  client.example  ", IN_EHLO, "client.example", 0},
	{"EHLO [192.0.2.1]", IN_EHLO, "[192.0.2.1]", 0},
	{"EHLO [IPv6:2001:db8::1]", IN_EHLO, "[IPv6:2001:db8::1]", 0},
	{"EHLO under_score", IN_EHLO, "under_score", 0},
	{"EHLO b\xc3\xbc"
	 "cher.example",
	 IN_EHLO,
	 "b\xc3\xbc"
	 "cher.example",
	 0},
	{"EHLO", IN_EHLO, "", 501},
	{"EHLO ", IN_EHLO, "", 501},
	{"EHLO a b", IN_EHLO, "a b", 501},
	{"EHLO " A100 A100 A10 A10 A10 A10 A10 "aaaaa", IN_EHLO, NULL, 0},
	{"EHLO " A100 A100 A10 A10 A10 A10 A10 "aaaaaa", IN_EHLO, NULL, 501},
	{"HELO c", IN_HELO, "c", 0},
	{"HELO", IN_HELO, "", 501},
	{"DATA", IN_DATA, "", 0},
	{"DATA now", IN_DATA, "", 501},
	{"RSET", IN_RSET, "", 0},
	{"RSET ", IN_RSET, "", 0},
	{"RSET x", IN_RSET, "", 501},
	{"NOOP", IN_NOOP, "", 0},
	{"NOOP whatever it is", IN_NOOP, "", 0},
	{"QUIT", IN_QUIT, "", 0},
	{"quit", IN_QUIT, "", 0},
	{"QUIT x", IN_QUIT, "", 501},
	{"STARTTLS", IN_STARTTLS, "", 0},
	{"STARTTLS x", IN_STARTTLS, "", 501},
	{"VRFY x", IN_UNIMPLEMENTED, "", 0},
	{"EXPN x", IN_UNIMPLEMENTED, "", 0},
	{"HELP", IN_UNIMPLEMENTED, "", 0},
	{"LHLO x", IN_UNIMPLEMENTED, "", 0},
	{"NONSENSE", IN_UNIMPLEMENTED, "", 0},
	{"MAILFROM:<a@b.c>", IN_UNIMPLEMENTED, "", 0},
	{"EHLOx y", IN_UNIMPLEMENTED, "", 0},
	{"", IN_UNIMPLEMENTED, "", 500},
	{" ", IN_UNIMPLEMENTED, "", 500},
	{" QUIT", IN_UNIMPLEMENTED, "", 500},
	{"QU\x01IT", IN_UNIMPLEMENTED, "", 500},
	{"EHLO a\rb", IN_UNIMPLEMENTED, "", 500},
	{"NOOP \t ", IN_NOOP, "", 0},
	{"NOOP\tx", IN_UNIMPLEMENTED, "", 500},
	{"EHLO b\xfc"
	 "cher",
	 IN_UNIMPLEMENTED, "", 501},
	{"GET / HTTP/1.1", IN_HTTP, "", 0},
	{"POST /api/inject/v1 HTTP/1.1", IN_HTTP, "", 0},
	{"CONNECT mail.example:25 HTTP/1.0", IN_HTTP, "", 0},
	{"PRI * HTTP/2.0", IN_HTTP, "", 0},
	{"XCLIENT ADDR=192.0.2.1", IN_XCLIENT, "ADDR=192.0.2.1", 0},
	{"AUTH PLAIN AGEAYg==", IN_AUTH, "PLAIN", 0},
	{"AUTH plain", IN_AUTH, "plain", 0},
	{"AUTH", IN_AUTH, "", 501},
	{"AUTH PLAIN a b", IN_AUTH, "PLAIN", 501},
};

static void test_verbs(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		struct in_command c;
		struct in_refusal why = {0};
		int rc = in_command_parse(str_of(verbs[i].line), &c, &why);
		if (rc != (verbs[i].code != 0 ? -1 : 0) || why.code != verbs[i].code ||
		    c.verb != verbs[i].verb)
			fail_msg("\"%s\": %d, code %d, verb %d", verbs[i].line, rc, why.code, (int)c.verb);
		if (verbs[i].arg != NULL)
			assert_str_is(c.arg, verbs[i].arg);
		assert_int_equal(err_kind(), ERR_NONE);
	}
}

static void test_nul(void **state)
{
	struct in_command c;
	struct in_refusal why;
	assert_int_equal(in_command_parse(STR("QUIT\0"), &c, &why), -1);
	assert_int_equal(why.code, 500);
}

/* --- envelopes --- */

static const struct {
	const char *line, *email;
	int code;
	const char *enhanced;
} envelopes[] = {
	{"MAIL FROM:<a@example.com>", "a@example.com", 0, ""},
	{"mail from:<a@example.com>", "a@example.com", 0, ""},
	{"MAIL FROM: <a@example.com>", "a@example.com", 0, ""},
	{"MAIL FROM:a@b.c", "a@b.c", 0, ""},
	{"MAIL FROM:<>", "", 0, ""},
	{"MAIL FROM:<> BODY=8BITMIME", "", 0, ""},
	{"MAIL FROM:<\"a b\"@example.com>", "\"a b\"@example.com", 0, ""},
	{"MAIL FROM:<\"a>b\"@example.com>", "\"a>b\"@example.com", 0, ""},
	{"MAIL FROM:<\"a\\\"b\"@example.com> SIZE=1", "\"a\\\"b\"@example.com", 0, ""},
	{"MAIL FROM:\"a b\"@example.com SIZE=1", "\"a b\"@example.com", 0, ""},
	{"MAIL FROM:<@relay.example:a@example.com>", "a@example.com", 0, ""},
	{"MAIL FROM:<@one.example,@two.example:a@example.com>", "a@example.com", 0, ""},
	{"MAIL FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]", 0, ""},
	{"MAIL FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", 0, ""},
	{"MAIL FROM:<j\xc3\xb6rg@b\xc3\xbc"
	 "cher.example> SMTPUTF8",
	 "j\xc3\xb6rg@b\xc3\xbc"
	 "cher.example",
	 0, ""},
	{"MAIL FROM:<Postmaster>", "Postmaster", 0, ""},
	{"MAIL FROM:<a b>", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a@b.c", NULL, 501, "5.1.7"},
	{"MAIL FROM:<\"a@b.c>", NULL, 501, "5.1.7"},
	{"MAIL FROM:", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a@b.c>SIZE=1", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a@b.c>>", NULL, 501, "5.1.7"},
	{"MAIL FROM:<@relay.example>", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a@-b.c>", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a..b@c.d>", NULL, 501, "5.1.7"},
	{"MAIL FROM:<a@[300.0.0.1]>", NULL, 501, "5.1.7"},
	{"MAIL FROM:a b", NULL, 501, "5.1.7"},
	{"MAIL", NULL, 501, "5.5.2"},
	{"MAIL TO:<a@b.c>", NULL, 501, "5.5.2"},
	{"MAIL FROM <a@b.c>", NULL, 501, "5.5.2"},
	{"RCPT TO:<b@example.org>", "b@example.org", 0, ""},
	{"RCPT TO: <b@example.org>  ", "b@example.org", 0, ""},
	{"RCPT TO:<Postmaster>", "Postmaster", 0, ""},
	{"RCPT TO:<postmaster>", "postmaster", 0, ""},
	{"RCPT TO:<@relay.example:b@example.org>", "b@example.org", 0, ""},
	{"RCPT TO:<>", NULL, 501, "5.1.3"},
	{"RCPT TO:<no domain>", NULL, 501, "5.1.3"},
	{"RCPT TO:<nodomain>", NULL, 501, "5.1.3"},
	{"RCPT FROM:<a@b.c>", NULL, 501, "5.5.2"},
};

static void test_envelopes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(envelopes); i++) {
		struct in_command c;
		struct in_refusal why = {0};
		int rc = in_command_parse(str_of(envelopes[i].line), &c, &why);
		if (rc != (envelopes[i].code != 0 ? -1 : 0) || why.code != envelopes[i].code ||
		    (rc != 0 && !str_starts(str_of(why.text), str_of(envelopes[i].enhanced))))
			fail_msg("\"%s\": %d, %d %s", envelopes[i].line, rc, why.code, why.text);
		if (rc == 0)
			assert_str_is(c.box.email, envelopes[i].email);
		assert_int_equal(err_kind(), ERR_NONE);
	}
}

static const struct {
	const char *parameters;
	int code; /* of "MAIL FROM:<a@b.c> ..." */
} mail_parameters[] = {
	{"SIZE=0", 0},
	{"SIZE=12345678901234567890", 0},
	{"size=1", 0},
	{"SIZE=", 501},
	{"SIZE", 501},
	{"SIZE=x", 501},
	{"SIZE=-1", 501},
	{"SIZE=99999999999999999999", 501},
	{"SIZE=1 SIZE=1", 501},
	{"BODY=7BIT", 0},
	{"BODY=8BITMIME", 0},
	{"body=8bitmime", 0},
	{"BODY=BINARYMIME", 501},
	{"BODY", 501},
	{"SMTPUTF8", 0},
	{"SMTPUTF8=1", 501},
	{"REQUIRETLS", 0},
	{"REQUIRETLS=1", 501},
	{"RET=FULL", 0},
	{"RET=HDRS", 0},
	{"RET=SOME", 501},
	{"ENVID=QQ314159", 0},
	{"ENVID=a+2Bb", 0},
	{"ENVID=a+2bb", 501},
	{"ENVID=a+2", 501},
	{"ENVID=" A100, 0},
	{"ENVID=" A100 "a", 501},
	{"AUTH=<>", 0},
	{"AUTH=e+3Dmc2@example.com", 0},
	{"AUTH=a=b", 501},
	{"BOGUS=1", 555},
	{"BOGUS", 555},
	{"NOTIFY=NEVER", 555},
	{"=1", 501},
	{"A_B=1", 501},
	{"SIZE=1 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x AUTH=<>", 0},
};

static const struct {
	const char *parameters;
	int code; /* of "RCPT TO:<a@b.c> ..." */
} rcpt_parameters[] = {
	{"NOTIFY=NEVER", 0},
	{"NOTIFY=SUCCESS", 0},
	{"NOTIFY=FAILURE,DELAY", 0},
	{"notify=success,failure,delay", 0},
	{"NOTIFY=NEVER,SUCCESS", 501},
	{"NOTIFY=SUCCESS,SUCCESS", 501},
	{"NOTIFY=SUCCESS,", 501},
	{"NOTIFY=,SUCCESS", 501},
	{"NOTIFY=", 501},
	{"NOTIFY", 501},
	{"ORCPT=rfc822;a+40b.c", 0},
	{"ORCPT=rfc822;a@b.c", 0},
	{"ORCPT=utf-8;j\xc3\xb6rg@example.com", 0},
	{"ORCPT=rfc822;", 501},
	{"ORCPT=;a@b.c", 501},
	{"ORCPT=rfc822", 501},
	{"ORCPT=rf_c;a", 501},
	{"SIZE=1", 555},
	{"NOTIFY=DELAY ORCPT=rfc822;a+40b.c", 0},
};

static void check_parameters(const char *command, const char *parameters, int code)
{
	struct buf line = BUF_INIT;
	struct in_command c;
	struct in_refusal why = {0};
	buf_printf(&line, "%s %s", command, parameters);
	if (in_command_parse(buf_str(&line), &c, &why) != (code != 0 ? -1 : 0) || why.code != code)
		fail_msg("\"%s\": %d %s", line.p, why.code, why.text);
	if (code != 0)
		assert_true(str_starts(str_of(why.text), STR("5.5.4 ")));
	buf_fini(&line);
}

static void test_parameters(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(mail_parameters); i++)
		check_parameters("MAIL FROM:<a@b.c>", mail_parameters[i].parameters, mail_parameters[i].code);
	for (size_t i = 0; i < ARRAY_SIZE(rcpt_parameters); i++)
		check_parameters("RCPT TO:<a@b.c>", rcpt_parameters[i].parameters, rcpt_parameters[i].code);
}

static void test_values(void **state)
{
	struct in_command c;
	struct in_refusal why;
	assert_int_equal(
		in_command_parse(STR("MAIL FROM:<a@b.c> SIZE=1000 SMTPUTF8 REQUIRETLS RET=HDRS ENVID=x+2By"),
				 &c, &why),
		0);
	assert_true(c.has_size && c.is_smtputf8 && c.is_requiretls && c.ret == IN_RET_HDRS);
	assert_int_equal(c.size_bytes, 1000);
	assert_str_is(c.envid, "x+2By");
	assert_int_equal(in_command_parse(STR("RCPT TO:<a@b.c> NOTIFY=DELAY ORCPT=rfc822;x"), &c, &why), 0);
	assert_str_is(c.notify, "DELAY");
	assert_str_is(c.orcpt, "rfc822;x");
	assert_int_equal(in_command_parse(STR("MAIL FROM:<a@b.c>"), &c, &why), 0);
	assert_true(!c.has_size && c.envid.p == NULL && c.ret == IN_RET_NONE);
	assert_int_equal(in_command_parse(STR("AUTH PLAIN ="), &c, &why), 0);
	assert_str_is(c.initial, "=");
	assert_int_equal(in_command_parse(STR("AUTH PLAIN"), &c, &why), 0);
	assert_null(c.initial.p);
}

static const struct {
	const char *line;
	uint64_t n_bytes;
	bool is_last;
	int code;
} chunks[] = {
	{"BDAT 0", 0, false, 0},
	{"BDAT 86 LAST", 86, true, 0},
	{"bdat 86 last", 86, true, 0},
	{"BDAT  86  LAST ", 86, true, 0},
	{"BDAT 18446744073709551615", UINT64_MAX, false, 0},
	{"BDAT 18446744073709551616", 0, false, 501},
	{"BDAT", 0, false, 501},
	{"BDAT x", 0, false, 501},
	{"BDAT -1", 0, false, 501},
	{"BDAT 1 FIRST", 0, false, 501},
	{"BDAT LAST", 0, false, 501},
	{"BDAT 1 LAST x", 0, false, 501},
};

static void test_chunks(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(chunks); i++) {
		struct in_command c;
		struct in_refusal why = {0};
		int rc = in_command_parse(str_of(chunks[i].line), &c, &why);
		assert_int_equal(c.verb, IN_BDAT);
		if (rc != (chunks[i].code != 0 ? -1 : 0) || why.code != chunks[i].code)
			fail_msg("\"%s\": %d %s", chunks[i].line, why.code, why.text);
		if (rc == 0)
			assert_true(c.chunk_bytes == chunks[i].n_bytes && c.is_last == chunks[i].is_last);
	}
}

/* --- XCLIENT --- */

static const struct {
	const char *attributes;
	const char *addr, *dest; /* NULL: not given */
	int port, dest_port, code;
} xclients[] = {
	{"ADDR=192.0.2.1", "192.0.2.1", NULL, -1, -1, 0},
	{"addr=192.0.2.1 port=25", "192.0.2.1", NULL, 25, -1, 0},
	{"ADDR=IPV6:2001:db8::1", "2001:db8::1", NULL, -1, -1, 0},
	{"ADDR=2001:db8::1", "2001:db8::1", NULL, -1, -1, 0},
	{"PORT=0", NULL, NULL, 0, -1, 0},
	{"DESTADDR=198.51.100.1 DESTPORT=65535", NULL, "198.51.100.1", -1, 65535, 0},
	{"ADDR=192.0.2.1 PORT=1 DESTADDR=::1 DESTPORT=2", "192.0.2.1", "::1", 1, 2, 0},
	{"ADDR=192+2E0.2.1", "192.0.2.1", NULL, -1, -1, 0},
	{"ADDR=[UNAVAILABLE] PORT=[TEMPUNAVAIL]", NULL, NULL, -1, -1, 0},
	{"", NULL, NULL, -1, -1, 501},
	{"ADDR", NULL, NULL, -1, -1, 501},
	{"ADDR=", NULL, NULL, -1, -1, 501},
	{"=1", NULL, NULL, -1, -1, 501},
	{"ADDR=300.0.0.1", NULL, NULL, -1, -1, 501},
	{"ADDR=[192.0.2.1]", NULL, NULL, -1, -1, 501},
	{"ADDR=[::1]", NULL, NULL, -1, -1, 501},
	{"ADDR=192.0.2.1 ADDR=192.0.2.2", NULL, NULL, -1, -1, 501},
	{"PORT=65536", NULL, NULL, -1, -1, 501},
	{"PORT=-1", NULL, NULL, -1, -1, 501},
	{"PORT=1 PORT=1", NULL, NULL, -1, -1, 501},
	{"NAME=client.example", NULL, NULL, -1, -1, 501},
	{"LOGIN=user", NULL, NULL, -1, -1, 501},
	{"ADDR=1+2", NULL, NULL, -1, -1, 501},
};

static void check_address(const struct net_addr *a, const char *text)
{
	char buf[NET_ADDR_STRLEN];
	if (text == NULL)
		assert_int_equal(a->len, 0);
	else
		assert_string_equal(net_addr_fmt_ip(a, buf), text);
}

static void test_xclient(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(xclients); i++) {
		struct in_xclient x;
		struct in_refusal why = {0};
		int rc = in_xclient_parse(str_of(xclients[i].attributes), &x, &why);
		if (rc != (xclients[i].code != 0 ? -1 : 0) || why.code != xclients[i].code)
			fail_msg("\"%s\": %d %s", xclients[i].attributes, why.code, why.text);
		assert_int_equal(err_kind(), ERR_NONE);
		if (rc != 0)
			continue;
		check_address(&x.addr, xclients[i].addr);
		check_address(&x.dest, xclients[i].dest);
		assert_true(x.port == xclients[i].port && x.dest_port == xclients[i].dest_port);
	}
}

/* --- SASL --- */

static const struct {
	str_t message;
	const char *authz, *authc, *password; /* authc NULL: malformed */
} plains[] = {
	{{"\0daniel\0tiger", 13}, "daniel", "daniel", "tiger"},
	{{"boss\0daniel\0tiger", 17}, "boss", "daniel", "tiger"},
	{{"\0daniel\0", 8}, "daniel", "daniel", ""},
	{{"\0\0tiger", 7}, NULL, NULL, NULL},
	{{"daniel\0tiger", 12}, NULL, NULL, NULL},
	{{"\0a\0b\0c", 6}, NULL, NULL, NULL},
	{{"", 0}, NULL, NULL, NULL},
	{{"\0a\xff\0b", 5}, NULL, NULL, NULL},
};

static void test_sasl_plain(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(plains); i++) {
		str_t authz, authc, password;
		bool is_good = in_sasl_plain_parse(plains[i].message, &authz, &authc, &password);
		assert_int_equal(is_good, plains[i].authc != NULL);
		if (!is_good)
			continue;
		assert_str_is(authz, plains[i].authz);
		assert_str_is(authc, plains[i].authc);
		assert_str_is(password, plains[i].password);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs),	  cmocka_unit_test(test_nul),
		cmocka_unit_test(test_envelopes), cmocka_unit_test(test_parameters),
		cmocka_unit_test(test_values),	  cmocka_unit_test(test_chunks),
		cmocka_unit_test(test_xclient),	  cmocka_unit_test(test_sasl_plain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
