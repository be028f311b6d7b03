/* test_header.c - header sections as they come, including broken ones. */
#include "mime/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_header_fields(void **state)
{
	str_t msg =
		STR("Subject: one\r\n\ttwo\r\nFrom:a@b\nX-Odd \t: v\r\nEmpty:\r\n\r\nBody: not a field\r\n");
	static const struct {
		const char *name, *value, *whole;
	} want[] = {
		{"Subject", " one\r\n\ttwo", "Subject: one\r\n\ttwo\r\n"},
		{"From", "a@b", "From:a@b\n"},
		{"X-Odd", " v", "X-Odd \t: v\r\n"},
		{"Empty", "", "Empty:\r\n"},
	};
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, msg);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_true(header_next(&it, &f));
		assert_true(str_eq(f.name, str_of(want[i].name)));
		assert_true(str_eq(f.raw_value, str_of(want[i].value)));
		assert_true(str_eq(f.whole, str_of(want[i].whole)));
	}
	assert_false(header_next(&it, &f));
	assert_false(it.is_malformed);
	assert_true(str_starts(str_skip(msg, header_section_end(msg)), STR("Body: not")));
}

static void test_header_malformed(void **state)
{
	static const struct {
		const char *text;
		int n_fields;
		bool is_malformed;
	} cases[] = {
		{"", 0, false},
		{"\r\nbody", 0, false},
		{"no field\r\n", 0, true},
		{" fold first: x\r\n", 0, true},
		{"A: 1\r\nB\r\n", 1, true},
		{": x\r\n", 0, true},
		{"A: no line end", 1, false},
		{"A: 1\r\n \r\nB: 2\r\n", 2, false},
		{"A\x01: x\r\n", 0, true},
		{"\xc3\xbc: x\r\n", 0, true},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct header_iter it;
		struct header_field f;
		int n = 0;
		header_iter_init(&it, str_of(cases[i].text));
		while (header_next(&it, &f))
			n++;
		if (n != cases[i].n_fields || it.is_malformed != cases[i].is_malformed)
			fail_msg("case %zu: %d fields, malformed %d", i, n, it.is_malformed);
	}
}

static void test_header_section_end(void **state)
{
	assert_int_equal(header_section_end(STR("A: 1\r\n\r\nx")), 8);
	assert_int_equal(header_section_end(STR("A: 1\n\nx")), 6);
	assert_int_equal(header_section_end(STR("\r\nx")), 2);
	assert_int_equal(header_section_end(STR("A: 1\r\n")), 6);
	assert_int_equal(header_section_end(STR("A: 1\r\n\r")), 7);
	assert_int_equal(header_section_end(STR("")), 0);
}

static void test_header_decode(void **state)
{
	static const struct {
		const char *raw, *text;
	} cases[] = {
		{" plain\r\n text ", "plain text"},
		{" =?utf-8?q?Gr=C3=BC=C3=9Fe?= x", "Gr\xc3\xbc\xc3\x9f"
						   "e x"},
		{" =?UTF-8?B?w7zDnw==?=", "\xc3\xbc\xc3\x9f"},
		{"=?UTF-8?B?w7zDnw?=", "\xc3\xbc\xc3\x9f"},
		{"=?iso-8859-1?Q?a_b=E4?=", "a b\xc3\xa4"},
		{"=?iso-8859-1*de?Q?=E4?=", "\xc3\xa4"},
		{"=?windows-1252?Q?=80?=", "\xe2\x82\xac"},
		{"=?koi8-r?B?8NLJ18XU?=", "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82"},
		{"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "\xc3\xbc"}, /* a character split over two words */
		{"=?utf-8?q?a?=\r\n =?utf-8?q?b?= c", "ab c"},
		{"=?utf-8?q?a?= =?iso-8859-1?q?b?= =?utf-8?q?c?=", "abc"},
		{"=?utf-8?q?a?= =?no-such-set?q?b?=", "a =?no-such-set?q?b?="},
		{"=?utf-8?q?=FF?=", "=?utf-8?q?=FF?="},
		{"=?utf-8?q?=0D=0AX:_y?=", "=?utf-8?q?=0D=0AX:_y?="},
		{"=?utf-8?q?=00?=", "=?utf-8?q?=00?="},
		{"=?utf-8?q?=4?=", "=?utf-8?q?=4?="},
		{"=?utf-8?x?abc?=", "=?utf-8?x?abc?="},
		{"=?a/b//TRANSLIT?q?abc?=", "=?a/b//TRANSLIT?q?abc?="},
		{"=?=?=?=?", "=?=?=?=?"},
		{"=?utf-8?q?\?=x", "x"},
		{"a = b", "a = b"},
		{"=", "="},
		{"", ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		header_decode(str_of(cases[i].raw), &out);
		if (!str_eq(buf_str(&out), str_of(cases[i].text)))
			fail_msg("%s gives '" STR_FMT "'", cases[i].raw, STR_ARG(buf_str(&out)));
		buf_fini(&out);
	}
}

/* Every cut and every changed byte of a sample: nothing is read outside (the sanitizers watch). */
static void test_header_any_bytes(void **state)
{
	static const char sample[] =
		"S: =?utf-8?b?w7zDnw==?= =?koi8-r?q?=D0?=\r\n\tx\r\nB: =?x?q?=?=\r\n\r\nb";
	for (size_t n = 0; n < sizeof sample; n++) {
		for (unsigned c = 0; c < 256; c += 5) {
			char *p = memcpy(test_malloc(n + 1), sample, n); /* exact size */
			if (n > 0)
				p[n * 7 % n] = (char)c, p[c % n] = (char)(c * 3);
			struct header_iter it;
			struct header_field f;
			struct buf out = BUF_INIT;
			header_iter_init(&it, str_mk(p, n));
			while (header_next(&it, &f))
				header_decode(f.raw_value, &out);
			assert_true(header_section_end(str_mk(p, n)) <= n);
			text_normalise_crlf(str_mk(p, n), &out);
			buf_fini(&out);
			test_free(p);
		}
	}
}

static void test_normalise_crlf(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: is so already */
	} cases[] = {
		{"", NULL},
		{"abc", NULL},
		{"a\r\nb\r\n", NULL},
		{"a\nb", "a\r\nb"},
		{"a\rb", "a\r\nb"},
		{"\n", "\r\n"},
		{"\r", "\r\n"},
		{"a\r\r\n", "a\r\n\r\n"},
		{"\n\r", "\r\n\r\n"},
		{"\r\n\n", "\r\n\r\n"},
		{"a\r\nb\nc\rd\r\n", "a\r\nb\r\nc\r\nd\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		bool is_changed = text_normalise_crlf(str_of(cases[i].in), &out);
		assert_int_equal(is_changed, cases[i].out != NULL);
		assert_true(str_eq(buf_str(&out), str_of(cases[i].out)));
		buf_fini(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_fields),	   cmocka_unit_test(test_header_malformed),
		cmocka_unit_test(test_header_section_end), cmocka_unit_test(test_header_decode),
		cmocka_unit_test(test_header_any_bytes),   cmocka_unit_test(test_normalise_crlf),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
