/* test_envelope.c - the mailbox grammar. */
#include "base/err.h"
#include "mime/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_mailbox_accepts(void **state)
{
	static const struct {
		const char *text, *local, *domain, *email;
		bool is_utf8;
	} cases[] = {
		{"", "", "", "", false},
		{"<>", "", "", "", false},
		{"a@b", "a", "b", "a@b", false},
		{"user@example.com", "user", "example.com", "user@example.com", false},
		{"<user@example.com>", "user", "example.com", "user@example.com", false},
		{"<@relay.example,@two.example:user@example.com>", "user", "example.com", "user@example.com",
		 false},
		{"first.last+tag=x@Example.COM", "first.last+tag=x", "Example.COM",
		 "first.last+tag=x@Example.COM", false},
		{"\"a b@c\\\"d\"@example.com", "\"a b@c\\\"d\"", "example.com", "\"a b@c\\\"d\"@example.com",
		 false},
		{"\"\"@example.com", "\"\"", "example.com", "\"\"@example.com", false},
		{"u@[192.0.2.1]", "u", "[192.0.2.1]", "u@[192.0.2.1]", false},
		{"u@[IPv6:2001:db8::1]", "u", "[IPv6:2001:db8::1]", "u@[IPv6:2001:db8::1]", false},
		{"u@[::1]", "u", "[::1]", "u@[::1]", false},
		{"u@[x-tag:some.thing]", "u", "[x-tag:some.thing]", "u@[x-tag:some.thing]", false},
		{"u@a_b.example", "u", "a_b.example", "u@a_b.example", false},
		{"Postmaster", "Postmaster", "", "Postmaster", false},
		{"<postmaster>", "postmaster", "", "postmaster", false},
		{"gr\xc3\xbc\xc3\x9f"
		 "e@b\xc3\xbc"
		 "cher.example",
		 "gr\xc3\xbc\xc3\x9f"
		 "e",
		 "b\xc3\xbc"
		 "cher.example",
		 "gr\xc3\xbc\xc3\x9f"
		 "e@b\xc3\xbc"
		 "cher.example",
		 true},
		{"<@\xc3\xbc.example:u@example.com>", "u", "example.com", "u@example.com", false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mailbox mb;
		if (mailbox_parse(str_of(cases[i].text), &mb) != 0)
			fail_msg("%s: %s", cases[i].text, err_text());
		if (!str_eq(mb.local, str_of(cases[i].local)) ||
		    !str_eq(mb.domain, str_of(cases[i].domain)) ||
		    !str_eq(mb.email, str_of(cases[i].email)) || mb.is_utf8 != cases[i].is_utf8)
			fail_msg("%s: local '" STR_FMT "' domain '" STR_FMT "' email '" STR_FMT "'",
				 cases[i].text, STR_ARG(mb.local), STR_ARG(mb.domain), STR_ARG(mb.email));
	}
}

static void test_mailbox_refuses(void **state)
{
	static const struct {
		str_t text;
		const char *says;
	} cases[] = {
		{STR("not an address"), "found byte 0x20 at position 4"},
		{STR("user"), "expected '@'"},
		{STR("@example.com"), "local part"},
		{STR("user@"), "domain"},
		{STR(".user@example.com"), "local part"},
		{STR("us..er@example.com"), "position 4"},
		{STR("user.@example.com"), "local part"},
		{STR("user@-example.com"), "letter or digit"},
		{STR("user@example-.com"), "after the hyphen"},
		{STR("user@example..com"), "letter or digit"},
		{STR("user@example.com."), "letter or digit"},
		{STR("user@example.com "), "end of the address"},
		{STR("user@exa mple.com"), "end of the address"},
		{STR("<user@example.com"), "'>'"},
		{STR("<user@example.com>x"), "end of the address"},
		{STR("user@example.com>"), "end of the address"},
		{STR("a@b@c"), "end of the address"},
		{STR("\"abc@example.com"), "closing quote"},
		{STR("\"abc\"x@example.com"), "'@'"},
		{STR("u@[192.0.2.256]"), "address literal"},
		{STR("u@[IPv6:zz]"), "address literal"},
		{STR("u@[192.0.2.1"), "closing bracket"},
		{STR("u@[]"), "address literal"},
		{STR("<@a.example u@b>"), "source route"},
		{STR("<@a.example,u@b>"), "source route"},
		{STR("a\r\nRCPT TO:<x>@b.c"), "control byte 0x0d"},
		{STR("\"a\nb\"@b.c"), "control byte 0x0a"},
		{STR("a\0b@b.c"), "control byte 0x00"},
		{STR("a\x7f@b.c"), "control byte 0x7f"},
		{STR("a\xc2\x85@b.c"), "control character"},
		{STR("a\xff@b.c"), "not UTF-8"},
		{STR("<>x"), "local part"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mailbox mb;
		if (mailbox_parse(cases[i].text, &mb) == 0)
			fail_msg("case %zu was accepted", i);
		assert_true(err_is(ERR_INVALID));
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("case %zu says: %s", i, err_text());
		err_clear();
	}
}

static void test_mailbox_lengths(void **state)
{
	char text[2048];
	struct mailbox mb;
	memset(text, 'a', sizeof text);
	memcpy(text + 512, "@b.example", 10);
	assert_int_equal(mailbox_parse(str_mk(text, 522), &mb), 0);
	assert_int_equal(mailbox_parse(str_mk(text + 512 - 64, 74), &mb), 0);
	memset(text, 'a', sizeof text);
	memcpy(text + 513, "@b.example", 10);
	assert_int_equal(mailbox_parse(str_mk(text, 523), &mb), -1);
	memset(text, 'a', sizeof text);
	text[1] = '@';
	assert_int_equal(mailbox_parse(str_mk(text, 2 + 63), &mb), 0);
	assert_int_equal(mailbox_parse(str_mk(text, 2 + 64), &mb), -1);
	for (size_t i = 2 + 63; i < sizeof text; i += 64)
		text[i] = '.';
	assert_int_equal(mailbox_parse(str_mk(text, 2 + 255), &mb), 0);
	assert_int_equal(mailbox_parse(str_mk(text, 2 + 257), &mb), -1);
	assert_int_equal(mailbox_parse(str_mk(text, sizeof text), &mb), -1);
	err_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mailbox_accepts),
		cmocka_unit_test(test_mailbox_refuses),
		cmocka_unit_test(test_mailbox_lengths),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
