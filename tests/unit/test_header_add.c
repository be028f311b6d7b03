/* test_header_add.c - fields from names and values that others chose: what is refused, and that the rest
 * reads back. */
#include "ut.h"

#include "base/err.h"
#include "mime/header.h"
#include "mime/header_add.h"

static void test_names(void **state)
{
	static const str_t bad[] = {{"", 0},	 {"A B", 3},	  {"A:", 2},  {"A\r\nB", 4},
				    {"A\0B", 3}, {"\xc3\xbc", 2}, {"A\t", 2}, {"A\n", 2}};
	struct buf b = BUF_INIT;
	char longest[201];
	memset(longest, 'x', sizeof longest);
	for (int is_encoded = 0; is_encoded < 2; is_encoded++) {
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			assert_int_equal(header_add(&b, bad[i], STR("v"), is_encoded), -1);
			assert_true(err_is(ERR_INVALID));
			assert_non_null(strstr(err_text(), "invalid header name"));
			err_clear();
		}
		assert_int_equal(header_add(&b, str_mk(longest, 201), STR("v"), is_encoded), -1);
		err_clear();
		assert_int_equal(b.n, 0);
	}
	assert_int_equal(header_add(&b, str_mk(longest, 200), STR("v"), true), 0);
	buf_fini(&b);
}

static void test_values_as_given(void **state)
{
	static const struct {
		str_t value;
		const char *error; /* NULL: fine, and it stands there as it is */
	} cases[] = {
		{{"v", 1}, NULL},
		{{"", 0}, NULL},
		{{"  v \t", 5}, NULL},
		{{"h\xc3\xa9 \xff", 5}, NULL},
		{{"a\r\n b", 5}, NULL},
		{{"a\r\n\tb\r\n  c", 10}, NULL},
		{{"a\r\nBcc: x", 9}, "invalid value of header `X`: a CR at position 2 would end it"},
		{{"a\nBcc: x", 8}, "a LF at position 2"},
		{{"a\rBcc: x", 8}, "a CR at position 2"},
		{{"a\0b", 3}, "a NUL byte at position 2"},
		{{"a\n b", 4}, "a LF at position 2"},
		{{"a\r b", 4}, "a CR at position 2"},
		{{"a\r\n", 3}, "a CR at position 2"},
		{{"a\r\n ", 4}, "a CR at position 2"},
		{{"a\r\n \r\n b", 8}, "a CR at position 2"},
		{{"a\r\n b\r\nc", 8}, "a CR at position 6"},
		{{"a\r\n \nb", 6}, "a CR at position 2"},
		{{"a\r\n \0b", 6}, "a CR at position 2"},
		{{"\r\n\r\nbody", 8}, "a CR at position 1"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf b = BUF_INIT, want = BUF_INIT;
		buf_add_z(&want, "X: ");
		buf_add_str(&want, cases[i].value);
		buf_add_z(&want, "\r\n");
		int rc = header_add(&b, STR("X"), cases[i].value, false);
		if ((rc == 0) != (cases[i].error == NULL))
			fail_msg("case %zu: %d %s", i, rc, err_text());
		if (rc == 0)
			assert_true(str_eq(buf_str(&b), buf_str(&want)));
		else if (strstr(err_text(), cases[i].error) == NULL || b.n != 0)
			fail_msg("case %zu: %s", i, err_text());
		err_clear();
		buf_fini(&b);
		buf_fini(&want);
	}
}

static void test_encoding(void **state)
{
	static const struct {
		const char *name, *value, *field;
	} cases[] = {
		{"Subject", "hello", "Subject: hello\r\n"},
		{"Subject", "h\xc3\xa9llo there", "Subject: =?UTF-8?q?h=C3=A9llo?= there\r\n"},
		{"X", "a\x01z", "X: =?UTF-8?q?a=01z?=\r\n"},
		{"From", "Zo\xc3\xab <z@example.com>", "From: =?UTF-8?q?Zo=C3=AB?= <z@example.com>\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf b = BUF_INIT;
		if (header_add(&b, str_of(cases[i].name), str_of(cases[i].value), true) != 0)
			fail_msg("case %zu: %s", i, err_text());
		assert_buf_is(&b, cases[i].field);
		buf_fini(&b);
	}
	struct buf b = BUF_INIT;
	static const str_t bad[] = {{"a\r\n b", 5}, {"a\nb", 3},  {"a\rb", 3},
				    {"a\0b", 3},    {"a\xff", 2}, {"\xed\xa0\x80", 3}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(header_add(&b, STR("X"), bad[i], true), -1);
		assert_true(err_is(ERR_INVALID));
		err_clear();
	}
	assert_int_equal(b.n, 0);
}

/* Whatever text: no line is too long, none is blank, and it reads back. */
static void test_round_trips(void **state)
{
	static const char *const atoms[] = {
		"a",
		"word",
		" ",
		"  ",
		"\t",
		"\xc3\xa9",
		"\xf0\x9f\x8e\x89",
		"\xe2\x80\x8f\xd7\xa9",
		"=?",
		"?=",
		"=",
		"_",
		"\x7f",
		"longer-than-most-words-are-in-any-text-that-people-write-to-each-other",
		"        "};
	uint32_t seed = 7;
	for (int round = 0; round < 20000; round++) {
		struct buf value = BUF_INIT, b = BUF_INIT, back = BUF_INIT;
		seed = seed * 1664525 + 1013904223;
		unsigned n_kinds = round % 2 == 0 ? 5 : ARRAY_SIZE(atoms);
		for (unsigned n = (seed >> 20) % 60; n > 0; n--) {
			seed = seed * 1664525 + 1013904223;
			buf_add_z(&value, atoms[(seed >> 16) % n_kinds]);
		}
		if (header_add(&b, STR("Subject"), buf_str(&value), true) != 0)
			fail_msg("%s", err_text());
		str_t rest = buf_str(&b), line;
		while (rest.n > 0 && str_split(&rest, '\n', &line)) {
			assert_true(line.n >= 1 && line.n <= 999 && line.p[line.n - 1] == '\r');
			assert_true(str_trim(line).n > 0);
		}
		struct header_iter it;
		struct header_field f;
		header_iter_init(&it, buf_str(&b));
		assert_true(header_next(&it, &f));
		assert_int_equal(f.whole.n, b.n);
		header_decode(f.raw_value, &back);
		/* Blanks at the ends are not part of a value. */
		if (!str_eq(str_trim(buf_str(&back)), str_trim(buf_str(&value))))
			fail_msg("'%s' came back as '%s' from %s", value.p, back.p, b.p);
		buf_fini(&value);
		buf_fini(&b);
		buf_fini(&back);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_values_as_given),
		cmocka_unit_test(test_encoding),
		cmocka_unit_test(test_round_trips),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
