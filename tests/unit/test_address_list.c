/* test_address_list.c - addresses as the RFC has them and as they come, what is refused, and writing. */
#include "mime/address_list.h"

#include "base/alloc.h"
#include "base/err.h"
#include "ut.h"

static void dump_mailbox(const struct address_mailbox *m, struct buf *out)
{
	if (m->name.p != NULL)
		buf_printf(out, "'" STR_FMT "' ", STR_ARG(m->name));
	buf_printf(out, STR_FMT " at " STR_FMT, STR_ARG(m->local), STR_ARG(m->domain));
}

static void dump(const struct address_list *l, struct buf *out)
{
	for (size_t i = 0; i < l->n; i++) {
		buf_add_z(out, i > 0 ? ", " : "");
		if (!l->v[i].is_group) {
			dump_mailbox(&l->v[i].box, out);
			continue;
		}
		buf_printf(out, "'" STR_FMT "' {", STR_ARG(l->v[i].box.name));
		for (size_t k = 0; k < l->v[i].n_members; k++) {
			buf_add_z(out, k > 0 ? ", " : "");
			dump_mailbox(&l->v[i].member[k], out);
		}
		buf_add_c(out, '}');
	}
}

static void test_address_list_parse(void **state)
{
	static const struct {
		const char *in, *want;
	} cases[] = {
		{"", ""},
		{" \r\n ", ""},
		{"a@b", "a at b"},
		{"<a@b>", "a at b"},
		{"John Smith <first.last@example.com>", "'John Smith' first.last at example.com"},
		{"\"Smith, \\\"J\\\"\" <a@b>, c@d", "'Smith, \"J\"' a at b, c at d"},
		{"John Q. Public <a@b>", "'John Q. Public' a at b"},
		{"TEST [ne_pas_repondre] <test@gmail.com>", "'TEST [ne_pas_repondre]' test at gmail.com"},
		{"user@x.example <a@b>", "'user@x.example' a at b"},
		{"The A Team: Bodie <bodie@example.com>, doyle@example.com;",
		 "'The A Team' {'Bodie' bodie at example.com, doyle at example.com}"},
		{"undisclosed-recipients:;", "'undisclosed-recipients' {}"},
		{"undisclosed-recipients:", "'undisclosed-recipients' {}"},
		{"a@b, G: c@d;, e@f", "a at b, 'G' {c at d}, e at f"},
		{"G: c@d; e@f", "'G' {c at d}, e at f"},
		{"A:;,B: x@y,z@y;", "'A' {}, 'B' {x at y, z at y}"},
		{",, a@b ,,\r\n c@d,", "a at b, c at d"},
		{"=?utf-8?q?Zo=C3=AB?= <a@b>", "'Zo\xc3\xab' a at b"},
		{"=?utf-8?q?a?= =?utf-8?q?_b?= c <a@b>", "'a b c' a at b"},
		{"\"=?utf-8?q?Zo=C3=AB?=\" <a@b>", "'Zo\xc3\xab' a at b"},
		{"Zo\xc3\xab <a@b>", "'Zo\xc3\xab' a at b"},
		{"Zo\xeb <a@b>", "'Zo\xc3\xab' a at b"},
		{"\"quoted\"@example.com", "quoted at example.com"},
		{"\"a b\\\"c\"@example.com", "a b\"c at example.com"},
		{"a . b @ example . com", "a.b at example.com"},
		{"a..b.@docomo.example", "a..b. at docomo.example"},
		{"<@x,@y:a@b>", "a at b"},
		{"a@[192.0.2.1]", "a at [192.0.2.1]"},
		{"a@[IPv6:2001:db8::1]", "a at [IPv6:2001:db8::1]"},
		{"(one) a (two) @ (three (four \\) )) b (A. User)", "'A. User' a at b"},
		{"A. User (x) <a@b> (y)", "'A. User' a at b"},
		{"\xd0\xb8\xd0\xbc\xd1\x8f@\xd0\xbf.\xd1\x80\xd1\x84",
		 "\xd0\xb8\xd0\xbc\xd1\x8f at \xd0\xbf.\xd1\x80\xd1\x84"},
		{"O'Neil <o'neil@x>, a+b=c@d", "'O'Neil' o'neil at x, a+b=c at d"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address_list l;
		struct buf got = BUF_INIT;
		if (address_list_parse(str_of(cases[i].in), &l) == 0) {
			dump(&l, &got);
			address_list_fini(&l);
		}
		if (cases[i].want == NULL
			    ? !err_is(ERR_INVALID)
			    : err_is(ERR_INVALID) || !str_eq(buf_str(&got), str_of(cases[i].want)))
			fail_msg("%s: got " STR_FMT " (%s)", cases[i].in, STR_ARG(buf_str(&got)), err_text());
		err_clear();
		buf_fini(&got);
	}
}

static void test_address_list_refused(void **state)
{
	static const struct {
		const char *in, *error;
	} cases[] = {
		{"nobody", "invalid address: expected '@' or '<' after a name, found the end"},
		{"nobody, a@b", "invalid address: expected '@' or '<' after a name, found ',' at position 7"},
		{"@b", "invalid address: expected a local part, found '@' at position 1"},
		{"a@", "invalid address: expected a domain, found the end"},
		{"a@b..c", "invalid address: expected a domain"},
		{"a@.b", "invalid address: expected a domain"},
		{"a b@c",
		 "invalid address: the part before the '@' has blanks in it, found '@' at position 4"},
		{"A <a@b", "invalid address: expected '>', found the end"},
		{"A <>", "invalid address: expected '@', found '>'"},
		{"a@b c@d", "invalid address: expected ','"},
		{"a@b <c@d> e@f", "invalid address: expected ','"},
		{"A <a@b> x", "invalid address: expected ','"},
		{"\"a <a@b>", "invalid address: a quoted string has no end"},
		{"(a <a@b>", "invalid address: a comment has no end"},
		{"a@[1.2", "invalid address: expected ']'"},
		{"G: H: a@b;;", "invalid address: expected '@' or '<' after a name, found ':'"},
		{"a@b; c@d", "invalid address: expected ',', found ';' at position 4"},
		{"a\x01@b", "invalid address: expected no control characters, found byte 0x01 at position 2"},
		{"<@x a@b>", "invalid address: expected ':' after the source route"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address_list l;
		if (address_list_parse(str_of(cases[i].in), &l) == 0)
			fail_msg("%s was accepted", cases[i].in);
		if (!err_is(ERR_INVALID) || !str_starts(str_of(err_text()), str_of(cases[i].error)))
			fail_msg("%s: %s", cases[i].in, err_text());
		err_clear();
	}
	struct address_list l;
	assert_int_equal(address_list_parse_mailboxes(STR("G: a@b;"), &l), -1);
	assert_string_equal(err_text(),
			    "invalid address: expected an address, not a group, found ':' at position 2");
	err_clear();
}

static void test_address_list_write(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"a@b,c@d", "To: <a@b>, <c@d>\r\n"},
		{"\"A, B\" <a@b>", "To: \"A, B\" <a@b>\r\n"},
		{"G: a@b,c@d;, e@f", "To: \"G\": <a@b>, <c@d>;, <e@f>\r\n"},
		{"Zo\xeb <i@b\xc3\xbc.example>", "To: =?UTF-8?q?Zo=C3=AB?= <i@xn--b-eha.example>\r\n"},
		{"\"a b\"@c, a..b@c, \"a\\\"\"@c", "To: <\"a b\"@c>, <\"a..b\"@c>, <\"a\\\"\"@c>\r\n"},
		{"\xd7\x94\xd7\xaa \xd7\x94\xd7\xaa <t@x.example>",
		 "To: =?UTF-8?q?=D7=94=D7=AA_=D7=94=D7=AA?= <t@x.example>\r\n"},
		{"aaaaaaaaaaaaaaaaaaaaaaaaa@bbbbbbbbbbbbbbb, aaaaaaaaaaaaaaaaaaaaaaaaa@bbbbbbbbbbbbbbb",
		 "To: <aaaaaaaaaaaaaaaaaaaaaaaaa@bbbbbbbbbbbbbbb>,\r\n "
		 "<aaaaaaaaaaaaaaaaaaaaaaaaa@bbbbbbbbbbbbbbb>\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address_list l;
		struct header_writer w;
		struct buf out = BUF_INIT;
		assert_int_equal(address_list_parse(str_of(cases[i].in), &l), 0);
		header_write_begin(&w, &out, STR("To"));
		address_list_write(&l, &w);
		header_write_end(&w);
		assert_str_is(buf_str(&out), cases[i].out);
		address_list_fini(&l);
		buf_fini(&out);
	}
}

static void test_address_mailbox_check(void **state)
{
	static const struct {
		struct address_mailbox m;
		bool is_ok;
	} cases[] = {
		{{STR("A"), STR("a"), STR("b")}, true},
		{{STR_NULL, STR("a b"), STR("[1.2.3.4]")}, true},
		{{STR("A\r\nX: y"), STR("a"), STR("b")}, false},
		{{STR_NULL, STR("a\n"), STR("b")}, false},
		{{STR_NULL, STR("a"), STR("b>\r\nX: y <c")}, false},
		{{STR_NULL, STR("a"), STR("b, c@d")}, false},
		{{STR_NULL, STR(""), STR("b")}, false},
		{{STR_NULL, STR("a"), STR("")}, false},
		{{STR("\xff"), STR("a"), STR("b")}, false},
		{{STR_NULL, STR("a\0"), STR("b")}, false},
		{{STR_NULL, STR("a"), STR("[b]c]")}, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if ((address_mailbox_check(&cases[i].m) == 0) != cases[i].is_ok)
			fail_msg("case %zu: %s", i, err_text());
		err_clear();
	}
}

/* Nested deeper than any stack, and long: linear, and no recursion. */
static void test_address_list_depth(void **state)
{
	enum { N = 1 << 20 };
	static const char *const unit[] = {
		"(", "a,", "a@b,", "\"", "<", "G:", "((a@b)", "a@b (", "=?utf-8?q?x?= "};
	for (size_t k = 0; k < ARRAY_SIZE(unit); k++) {
		struct buf b = BUF_INIT;
		struct address_list l;
		while (b.n < N)
			buf_add_z(&b, unit[k]);
		if (address_list_parse(buf_str(&b), &l) == 0)
			address_list_fini(&l);
		err_clear();
		buf_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_list_parse), cmocka_unit_test(test_address_list_refused),
		cmocka_unit_test(test_address_list_write), cmocka_unit_test(test_address_mailbox_check),
		cmocka_unit_test(test_address_list_depth),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
