/* test_header_write.c - where fields are folded and what is encoded how. Reading back is mime_diff.py's. */
#include "mime/header_write.h"

#include "mime/header.h"
#include "ut.h"

#define U10 "\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc"
#define A10 "aaaaaaaaaa"
#define A60 A10 A10 A10 A10 A10 A10

static void test_header_write_field(void **state)
{
	static const struct {
		const char *name, *text, *out;
	} cases[] = {
		{"Subject", "", "Subject:\r\n"},
		{"Subject", " plain  text ", "Subject: plain  text\r\n"},
		{"Subject", A60 " " A10 " x", "Subject: " A60 "\r\n " A10 " x\r\n"},
		{"Subject", A60 A60, "Subject: " A60 A60 "\r\n"},
		{"S", "x \xc3\xbc y", "S: x =?UTF-8?q?=C3=BC?= y\r\n"},
		{"S", "\xc3\xbc \xc3\xbc", "S: =?UTF-8?q?=C3=BC_=C3=BC?=\r\n"},
		{"S", "=?utf-8?q?x?=", "S: =?utf-8?q?x?=\r\n"},
		{"S", "=?utf-8?q?x?= Gr\xc3\xbcn", "S: =?utf-8?q?x?= =?UTF-8?q?_Gr=C3=BCn?=\r\n"},
		{"S", "Gr\xc3\xbcn =?utf-8?q?x?=", "S: =?UTF-8?q?Gr=C3=BCn_?= =?utf-8?q?x?=\r\n"},
		{"S", "x=?utf-8?q?x?=", "S: =?UTF-8?q?x=3D=3Futf-8=3Fq=3Fx=3F=3D?=\r\n"},
		{"S", "<https://x/?a=?b>, =?x?=", "S: <https://x/?a=?b>, =?x?=\r\n"},
		{"S", "a\r\nX: y",
		 "S: =?UTF-8?q?a=0D=0AX=3A?= y\r\n"}, /* unchecked: no line is ended all the same */
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		header_write_field(&out, str_of(cases[i].name), str_of(cases[i].text));
		assert_str_is(buf_str(&out), cases[i].out);
		buf_fini(&out);
	}
}

static void test_header_write_mailbox(void **state)
{
	static const struct {
		const char *name, *email, *out;
	} cases[] = {
		{"", "a@b", "To: <a@b>\r\n"},
		{"Ann Lee", "a@b", "To: \"Ann Lee\" <a@b>\r\n"},
		{"a\"b\\c", "a@b", "To: \"a\\\"b\\\\c\" <a@b>\r\n"},
		{"Zo\xc3\xab", "a@b", "To: =?UTF-8?q?Zo=C3=AB?= <a@b>\r\n"},
		{"=?utf-8?q?x?=", "a@b", "To: =?UTF-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <a@b>\r\n"},
		{"A", A60 "@" A10 ".example", "To: \"A\"\r\n <" A60 "@" A10 ".example>\r\n"},
		{"a\r\nb", "a@b", "To: =?UTF-8?q?a=0D=0Ab?= <a@b>\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		struct header_writer w;
		header_write_begin(&w, &out, STR("To"));
		header_write_mailbox(&w, str_of(cases[i].name), str_of(cases[i].email));
		header_write_end(&w);
		assert_str_is(buf_str(&out), cases[i].out);
		buf_fini(&out);
	}
}

static void test_header_write_param(void **state)
{
	static const struct {
		bool is_words;
		const char *value, *out;
	} cases[] = {
		{false, "a b.txt", "D: x; n=\"a b.txt\"\r\n"},
		{false, "a\"b\\", "D: x; n=\"a\\\"b\\\\\"\r\n"},
		{false,
		 "gr\xc3\xb6\xc3\x9f"
		 "e.txt",
		 "D: x; n*=UTF-8''gr%C3%B6%C3%9Fe.txt\r\n"},
		{false, A60 A60 "\"",
		 "D: x; n*0=\"" A10 A10 A10 A10 A10 "aaaaaaa\";\r\n n*1=\"" A10 A10 A10 A10 A10
		 "aaaaaaa\";\r\n n*2=\"aaaaaa\\\"\"\r\n"},
		{false, "=?utf-8?q?x?=", "D: x; n*=UTF-8''%3D%3Futf-8%3Fq%3Fx%3F%3D\r\n"},
		{false, "a\r\nb", "D: x; n*=UTF-8''a%0D%0Ab\r\n"},
		{true, "a b", "D: x; n=\"a b\"\r\n"},
		{true, "Gr\xc3\xbcn", "D: x;\r\n n=\"=?UTF-8?q?Gr=C3=BCn?=\"\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		struct header_writer w;
		header_write_begin(&w, &out, STR("D"));
		header_write_token(&w, STR("x"));
		(cases[i].is_words ? header_write_param_words : header_write_param)(&w, STR("n"),
										    str_of(cases[i].value));
		header_write_end(&w);
		assert_str_is(buf_str(&out), cases[i].out);
		buf_fini(&out);
	}
}

/* Whatever comes, each line is a field or a fold of at most 998 bytes, words of at most 75, and our own
 * decoder reads the text back. */
static void test_header_write_any(void **state)
{
	static const char *const piece[] = {"a",	" ",
					    "\xc3\xbc", "\xf0\x9f\x8e\x89",
					    A60,	U10,
					    "=?x?=",	"  ",
					    "\t",	A60 A60 A60 A60 A60 A60 A60 A60 A60 A60 A60 A60};
	unsigned seed = 1;
	for (int round = 0; round < 2000; round++) {
		struct buf text = BUF_INIT, out = BUF_INIT, back = BUF_INIT;
		for (unsigned n = 1 + (seed = seed * 1103515245 + 12345) / 65536 % 12; n > 0; n--)
			buf_add_z(&text,
				  piece[(seed = seed * 1103515245 + 12345) / 65536 % ARRAY_SIZE(piece)]);
		header_write_field(&out, STR("X-Name"), buf_str(&text));
		struct header_iter it;
		struct header_field f;
		header_iter_init(&it, buf_str(&out));
		assert_true(header_next(&it, &f));
		assert_int_equal(f.whole.n, out.n);
		header_decode(f.raw_value, &back);
		str_t want = str_trim(buf_str(&text));
		if (!str_eq(buf_str(&back), want))
			fail_msg("'" STR_FMT "' became '" STR_FMT "'", STR_ARG(want), STR_ARG(buf_str(&out)));
		str_t rest = buf_str(&out), line;
		while (str_split(&rest, '\n', &line)) {
			assert_true(line.n <= 999);
			ptrdiff_t word = str_find(line, STR("=?UTF-8"));
			assert_true(word < 0 || line.n <= 77 || str_find(line, STR(A60)) >= 0);
		}
		buf_fini(&text);
		buf_fini(&out);
		buf_fini(&back);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_write_field),
		cmocka_unit_test(test_header_write_mailbox),
		cmocka_unit_test(test_header_write_param),
		cmocka_unit_test(test_header_write_any),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
