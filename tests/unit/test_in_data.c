/* test_in_data.c - what of a DATA stream is the message, and where it ends: every kind of line end around the
 * dot, cut anywhere. */
#include "ut.h"

#include "smtp/in_data.h"

#define MAX_BYTES 4096
#define MAX_LINE 40

/* What follows the message in `in` must be left alone. NULL: the message has a defect then. */
static const struct {
	const char *in;
	const char *denied, *allowed, *fixed; /* the body, by the treatment of bare CR and LF */
	const char *rest;
} cases[] = {
	{"a\r\n.\r\n", "a\r\n", "a\r\n", "a\r\n", ""},
	{"a\r\n.\r\nQUIT\r\n", "a\r\n", "a\r\n", "a\r\n", "QUIT\r\n"},
	{".\r\n", "", "", "", ""},
	{"\r\n.\r\n", "\r\n", "\r\n", "\r\n", ""},
	{"..\r\n.\r\n", ".\r\n", ".\r\n", ".\r\n", ""},
	{"...\r\n..a\r\n.b\r\n.\r\n", "..\r\n.a\r\nb\r\n", "..\r\n.a\r\nb\r\n", "..\r\n.a\r\nb\r\n", ""},
	{"a.\r\n.\r\n", "a.\r\n", "a.\r\n", "a.\r\n", ""},
	{"a\r\n.\r\n.\r\n", "a\r\n", "a\r\n", "a\r\n", ".\r\n"},
	/* Line ends that are none, on either side of the dot. */
	{"a\n.\r\nMAIL\r\n.\r\n", NULL, "a\n.\r\nMAIL\r\n", "a\r\n.\r\nMAIL\r\n", ""},
	{"a\r.\r\nMAIL\r\n.\r\n", NULL, "a\r.\r\nMAIL\r\n", "a\r\n.\r\nMAIL\r\n", ""},
	{"a\r\n.\nMAIL\r\n.\r\n", NULL, "a\r\n\nMAIL\r\n", "a\r\n\r\nMAIL\r\n", ""},
	{"a\r\n.\rMAIL\r\n.\r\n", NULL, "a\r\n\rMAIL\r\n", "a\r\n\r\nMAIL\r\n", ""},
	{"a\n.\nMAIL\r\n.\r\n", NULL, "a\n.\nMAIL\r\n", "a\r\n.\r\nMAIL\r\n", ""},
	{"a\r.\rMAIL\r\n.\r\n", NULL, "a\r.\rMAIL\r\n", "a\r\n.\r\nMAIL\r\n", ""},
	{"a\n\n.\r\nMAIL\r\n.\r\n", NULL, "a\n\n.\r\nMAIL\r\n", "a\r\n\r\n.\r\nMAIL\r\n", ""},
	{"a\r\r\n.\r\n", NULL, "a\r\r\n", "a\r\n\r\n", ""},
	{"a\r\n.\r\r\nb\r\n.\r\n", NULL, "a\r\n\r\r\nb\r\n", "a\r\n\r\n\r\nb\r\n", ""},
	{"a\r\n\r.\r\nb\r\n.\r\n", NULL, "a\r\n\r.\r\nb\r\n", "a\r\n\r\n.\r\nb\r\n", ""},
	{"a\n\r\n.\r\n", NULL, "a\n\r\n", "a\r\n\r\n", ""},
	{"a\r\n\n.\r\nb\r\n.\r\n", NULL, "a\r\n\n.\r\nb\r\n", "a\r\n\r\n.\r\nb\r\n", ""},
	{"\n.\r\nb\r\n.\r\n", NULL, "\n.\r\nb\r\n", "\r\n.\r\nb\r\n", ""},
	{".\n.\r\nb\r\n.\r\n", NULL, "\n.\r\nb\r\n", "\r\n.\r\nb\r\n", ""},
	{".\r.\r\nb\r\n.\r\n", NULL, "\r.\r\nb\r\n", "\r\n.\r\nb\r\n", ""},
	{"a\r\n. \r\nb\r\n.\r\n", "a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n", ""},
};

static struct in_data feed(str_t in, enum in_line_endings endings, size_t n_step, str_t *rest)
{
	struct in_data d;
	bool is_done = false;
	in_data_begin(&d, MAX_BYTES, MAX_LINE, endings);
	while (!is_done && in.n > 0) {
		str_t piece = str_head(in, n_step);
		size_t n = in_data_feed(&d, piece, &is_done);
		assert_true(n == piece.n || is_done);
		in = str_skip(in, n);
	}
	assert_true(is_done);
	*rest = in;
	return d;
}

static void check(const char *in, enum in_line_endings endings, const char *body, const char *rest)
{
	for (size_t n_step = 1; n_step <= strlen(in); n_step++) {
		str_t left;
		struct in_data d = feed(str_of(in), endings, n_step, &left);
		assert_str_is(left, rest);
		if (in_data_is_good(&d) != (body != NULL) ||
		    (body != NULL && !str_eq(buf_str(&d.body), str_of(body))))
			fail_msg("%s, endings %d, in steps of %zu: \"%s\"", in, (int)endings, n_step,
				 d.body.p);
		if (body == NULL) {
			assert_true(d.has_bad_ending);
			assert_int_equal(d.body.n, 0);
		}
		in_data_fini(&d);
	}
}

static void test_ends(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		check(cases[i].in, IN_ENDINGS_DENY, cases[i].denied, cases[i].rest);
		check(cases[i].in, IN_ENDINGS_ALLOW, cases[i].allowed, cases[i].rest);
		check(cases[i].in, IN_ENDINGS_FIX, cases[i].fixed, cases[i].rest);
	}
}

/* All texts of up to 8 of these four, which is every way of putting line ends around dots: the end is where
 * the oracle says. */
static void test_all_short_texts(void **state)
{
	static const char letter[] = "\r\n.a";
	char text[16];
	for (unsigned n = 1; n <= 8; n++) {
		for (unsigned code = 0; code < 1u << 2 * n; code++) {
			text[0] = '\r', text[1] = '\n'; /* as if a line had just ended */
			for (unsigned i = 0; i < n; i++)
				text[2 + i] = letter[code >> 2 * i & 3];
			str_t all = str_mk(text, n + 2);
			ptrdiff_t end = str_find(all, STR("\r\n.\r\n"));
			struct in_data d;
			bool is_done;
			in_data_begin(&d, MAX_BYTES, MAX_LINE, IN_ENDINGS_ALLOW);
			size_t used = in_data_feed(&d, str_skip(all, 2), &is_done);
			assert_int_equal(is_done, end >= 0);
			if (end >= 0)
				assert_int_equal(used, (size_t)end + 3);
			in_data_fini(&d);
		}
	}
}

static void test_limits(void **state)
{
	char line[MAX_LINE + 8];
	struct in_data d;
	bool is_done;
	memset(line, 'x', sizeof(line));
	/* The longest line; one more; and the dot that is removed does not count. */
	for (int more = 0; more < 2; more++) {
		in_data_begin(&d, MAX_BYTES, MAX_LINE, IN_ENDINGS_DENY);
		in_data_feed(&d, STR("."), &is_done);
		in_data_feed(&d, str_mk(line, MAX_LINE + (size_t)more), &is_done);
		in_data_feed(&d, STR("\r\n.\r\n"), &is_done);
		assert_true(is_done);
		assert_int_equal(d.has_long_line, more);
		assert_int_equal(in_data_is_good(&d), !more);
		in_data_fini(&d);
	}
	/* A line end of any kind that is taken begins a new line. */
	in_data_begin(&d, MAX_BYTES, MAX_LINE, IN_ENDINGS_ALLOW);
	in_data_feed(&d, str_mk(line, MAX_LINE), &is_done);
	in_data_feed(&d, STR("\n"), &is_done);
	in_data_feed(&d, str_mk(line, MAX_LINE), &is_done);
	assert_true(in_data_is_good(&d));
	in_data_fini(&d);
	/* The largest message, and one byte more; what is not stored is counted. */
	for (size_t n = MAX_BYTES; n <= MAX_BYTES + 1; n++) {
		in_data_begin(&d, MAX_BYTES, SIZE_MAX, IN_ENDINGS_DENY);
		for (size_t i = 2; i < n; i++)
			in_data_feed(&d, STR("x"), &is_done);
		in_data_feed(&d, STR("\r\n.\r\n"), &is_done);
		assert_true(is_done);
		assert_int_equal(d.n_received, n);
		assert_int_equal(d.is_too_big, n > MAX_BYTES);
		assert_int_equal(d.body.n, n > MAX_BYTES ? 0 : n);
		in_data_fini(&d);
	}
}

static void test_dropped(void **state)
{
	struct in_data d;
	bool is_done;
	in_data_begin(&d, MAX_BYTES, MAX_LINE, IN_ENDINGS_DENY);
	in_data_feed(&d, STR("abc\r\n"), &is_done);
	in_data_drop(&d);
	in_data_feed(&d, STR("def\r\n.\r\n"), &is_done);
	assert_true(is_done && !in_data_is_good(&d) && d.body.n == 0 && d.n_received == 10);
	in_data_fini(&d);
}

static const struct {
	const char *chunk[3];
	const char *denied, *allowed, *fixed;
} chunked[] = {
	{{"a\r\n"}, "a\r\n", "a\r\n", "a\r\n"},
	{{"a\r", "\nb\r\n"}, "a\r\nb\r\n", "a\r\nb\r\n", "a\r\nb\r\n"},
	{{"a\r\n.\r\n", ".b\r\n", "..\r\n"},
	 "a\r\n.\r\n.b\r\n..\r\n",
	 "a\r\n.\r\n.b\r\n..\r\n",
	 "a\r\n.\r\n.b\r\n..\r\n"},
	{{"a"}, "a", "a", "a"},
	{{"a\r"}, NULL, "a\r", "a\r\n"},
	{{"a\n", "b"}, NULL, "a\nb", "a\r\nb"},
	{{"a\r", "b\r\n"}, NULL, "a\rb\r\n", "a\r\nb\r\n"},
	{{"a\r", "\r\n"}, NULL, "a\r\r\n", "a\r\n\r\n"},
	{{""}, "", "", ""},
};

static void check_chunks(const char *const *chunk, enum in_line_endings endings, const char *body)
{
	for (int is_split = 0; is_split < 2; is_split++) {
		struct in_data d;
		in_data_begin(&d, MAX_BYTES, MAX_LINE, endings);
		for (size_t i = 0; i < 3 && chunk[i] != NULL; i++) {
			str_t rest = str_of(chunk[i]);
			for (; is_split && rest.n > 0; rest = str_skip(rest, 1))
				in_data_feed_chunk(&d, str_head(rest, 1));
			in_data_feed_chunk(&d, rest);
		}
		in_data_end(&d);
		assert_int_equal(in_data_is_good(&d), body != NULL);
		if (body != NULL)
			assert_buf_is(&d.body, body);
		in_data_fini(&d);
	}
}

static void test_chunks(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(chunked); i++) {
		check_chunks(chunked[i].chunk, IN_ENDINGS_DENY, chunked[i].denied);
		check_chunks(chunked[i].chunk, IN_ENDINGS_ALLOW, chunked[i].allowed);
		check_chunks(chunked[i].chunk, IN_ENDINGS_FIX, chunked[i].fixed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends),   cmocka_unit_test(test_all_short_texts),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_chunks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
