/* test_transfer.c - which encoding a text needs, and the encodings' edges. Reading them back is
 * mime_diff.py's. */
#include "mime/transfer.h"

#include "base/alloc.h"
#include "ut.h"

static void test_transfer_scan(void **state)
{
	static const struct {
		str_t in;
		struct transfer_scan want;
	} cases[] = {
		{STR(""), {true, false, true, false, 0}},
		{STR("abc"), {true, false, true, false, 3}},
		{STR("abc\r\n\r\nd"), {true, false, true, false, 3}},
		{STR("abc\r\nd\n"), {true, false, false, false, 3}},
		{STR("abc\r\nd\r"), {true, false, false, false, 3}},
		{STR("a\nbcd\r\nef\r"), {true, false, false, false, 3}},
		{STR("\r\r\r\n\n"), {true, false, false, false, 0}},
		{STR("a\rbb\nccc\r\ndddd"), {true, false, false, false, 4}},
		{STR("a--\n--b"), {true, false, false, true, 3}},
		{STR("a\r--"), {true, false, false, true, 2}},
		{STR("-\r\n-a-"), {true, false, true, false, 3}},
		{STR("a\0b"), {true, true, true, false, 3}},
		{STR("\xc3\xbc"), {false, false, true, false, 2}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct transfer_scan got = transfer_scan(cases[i].in), want = cases[i].want;
		if (got.is_ascii != want.is_ascii || got.has_nul != want.has_nul ||
		    got.has_dash_line != want.has_dash_line || got.is_canonical != want.is_canonical ||
		    got.longest_line != want.longest_line)
			fail_msg("case %zu: %d %d %d %zu", i, got.is_ascii, got.has_nul, got.has_dash_line,
				 got.longest_line);
	}
}

static void test_transfer_choice(void **state)
{
	static const struct {
		const char *unit;
		size_t n_times;
		enum transfer_encoding want;
	} cases[] = {
		{"", 1, TRANSFER_7BIT},
		{"hello = world\n", 9, TRANSFER_7BIT},
		{"x", 998, TRANSFER_7BIT},
		{"x", 999, TRANSFER_QP},
		{"Gr\xc3\xbc\xc3\x9f"
		 "e aus M\xc3\xbcnchen, wie geht es Ihnen?\n",
		 3, TRANSFER_QP},
		{"\xd0\x9f\xd1\x80\xd0\xb8", 3, TRANSFER_BASE64},
		{"\x01\x02", 600, TRANSFER_BASE64},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf text = BUF_INIT;
		for (size_t k = 0; k < cases[i].n_times; k++)
			buf_add_z(&text, cases[i].unit);
		struct transfer_scan scan = transfer_scan(buf_str(&text));
		if (transfer_for_text(buf_str(&text), &scan, TRANSFER_LINE_MAX) != cases[i].want)
			fail_msg("case %zu: %s", i,
				 transfer_name(transfer_for_text(buf_str(&text), &scan, TRANSFER_LINE_MAX)));
		buf_fini(&text);
	}
}

static void test_transfer_encode(void **state)
{
	static const struct {
		enum transfer_encoding e;
		const char *in, *out;
	} cases[] = {
		{TRANSFER_7BIT, "a\nb\rc\r\n", "a\r\nb\r\nc\r\n"},
		{TRANSFER_7BIT, "a", "a"},
		{TRANSFER_QP, "a=b\n", "a=3Db\r\n"},
		{TRANSFER_QP, "a \nb\t", "a=20\r\nb=09"},
		{TRANSFER_QP, "\xc3\xbc\r\r\n", "=C3=BC\r\n\r\n"},
		{TRANSFER_QP, "\x7f\x01", "=7F=01"},
		{TRANSFER_BASE64, "a\nb", "YQ0KYg=="},
		{TRANSFER_BASE64, "", ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		transfer_encode_text(cases[i].e, str_of(cases[i].in), &out);
		assert_str_is(buf_str(&out), cases[i].out);
		buf_fini(&out);
	}
}

/* Whatever stands at the edge of the columns, no line passes 76 and what is cut is whole. */
static void test_transfer_columns(void **state)
{
	for (size_t n = 70; n < 160; n++) {
		for (unsigned tail = 0; tail < 4; tail++) {
			static const char *const tails[] = {"", "=", "\xc3\xbc", " "};
			struct buf text = BUF_INIT, out = BUF_INIT;
			for (size_t i = 0; i < n; i++)
				buf_add_c(&text, 'x');
			buf_add_z(&text, tails[tail]);
			transfer_encode_text(TRANSFER_QP, buf_str(&text), &out);
			size_t n_x = 0;
			str_t rest = buf_str(&out), line;
			while (str_split(&rest, '\n', &line)) {
				assert_true(line.n <= 77); /* with the CR */
				for (size_t i = 0; i < line.n; i++)
					n_x += line.p[i] == 'x';
			}
			assert_int_equal(n_x, n);
			buf_clear(&out);
			transfer_encode_base64(buf_str(&text), &out);
			assert_true(out.n < 77 || out.p[76] == '\r');
			assert_true(out.p[out.n - 1] != '\n');
			buf_fini(&text);
			buf_fini(&out);
		}
	}
}

/* Carriage returns alone must not make the search for line ends quadratic: minutes, then. */
static void test_transfer_many_cr(void **state)
{
	str_t cr = {NULL, 8 << 20};
	char *p = xmalloc(cr.n);
	memset(p, '\r', cr.n);
	cr.p = p;
	assert_int_equal(transfer_scan(cr).longest_line, 0);
	free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transfer_scan),	 cmocka_unit_test(test_transfer_choice),
		cmocka_unit_test(test_transfer_encode),	 cmocka_unit_test(test_transfer_columns),
		cmocka_unit_test(test_transfer_many_cr),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
