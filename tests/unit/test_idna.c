/* test_idna.c - domains and addresses in ASCII. */
#include "mime/idna.h"

#include "base/err.h"
#include "ut.h"

static void test_idna(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} cases[] = {
		{"example.com", "example.com"},
		{"Example.com", "Example.com"},
		{"b\xc3\xbc"
		 "cher.example",
		 "xn--bcher-kva.example"},
		{"B\xc3\x9c"
		 "CHER.example",
		 "xn--bcher-kva.example"},
		{"\xd0\xbf\xd0\xbe\xd1\x87\xd1\x82\xd0\xb0.\xd1\x80\xd1\x84", "xn--80a1acny.xn--p1ai"},
		{"stra\xc3\x9f"
		 "e.example",
		 "xn--strae-oqa.example"},
		{"a_b.\xc3\xbc", "a_b.xn--tda"},
		{"a\xc2\xa0"
		 "b",
		 NULL}, /* NO-BREAK SPACE becomes a blank */
		{"a\xef\xbc\xa0"
		 "b",
		 NULL},				 /* FULLWIDTH COMMERCIAL AT */
		{"a\xef\xbc\x9e\xc3\xbc", NULL}, /* FULLWIDTH GREATER-THAN */
		{"\xe3\x80\x82"
		 "a",
		 NULL}, /* IDEOGRAPHIC FULL STOP */
		{"\xe2\x98\x83\xe2\x80\x8e.example", NULL},
		{"\xff", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		int rc = idna_to_ascii(str_of(cases[i].in), &out);
		if ((rc == 0) != (cases[i].out != NULL) ||
		    (rc == 0 && !str_eq(buf_str(&out), str_of(cases[i].out))) || (rc != 0 && out.n != 0))
			fail_msg("%s: %d " STR_FMT, cases[i].in, rc, STR_ARG(buf_str(&out)));
		assert_true(rc == 0 || err_is(ERR_INVALID));
		err_clear();
		buf_fini(&out);
	}
}

static void test_mailbox_ascii(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"a@b.example", "a@b.example"},
		{"a@b\xc3\xbc.example", "a@xn--b-eha.example"},
		{"\"a b\"@b\xc3\xbc.example", "\"a b\"@xn--b-eha.example"},
		{"\xc3\xbc@b\xc3\xbc.example", "\xc3\xbc@b\xc3\xbc.example"},
		{"a@[192.0.2.1]", "a@[192.0.2.1]"},
		{"a@b\xc2\xa0.example", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		struct mailbox mb;
		assert_int_equal(mailbox_parse(str_of(cases[i].in), &mb), 0);
		int rc = mailbox_ascii(&mb, &out);
		assert_int_equal(rc == 0, cases[i].out != NULL);
		assert_true(str_eq(buf_str(&out), str_of(cases[i].out)));
		err_clear();
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_idna), cmocka_unit_test(test_mailbox_ascii)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
