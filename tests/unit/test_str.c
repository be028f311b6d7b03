/* test_str.c - slices: comparing, searching, splitting, numbers, UTF-8, hashing. */
#include "ut.h"

static void str_compares(void **state)
{
	static const struct {
		const char *a, *b;
		int cmp; /* sign */
		bool ieq;
	} rows[] = {
		{"", "", 0, true},	     {"a", "", 1, false},   {"", "a", -1, false},
		{"a", "A", 1, true},	     {"ab", "a", 1, false}, {"aZ", "aZ", 0, true},
		{"a[", "a{", -1, false},     {"@", "`", -1, false}, {"\xff", "a", 1, false},
		{"\xc4", "\xe4", -1, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		str_t a = str_of(rows[i].a), b = str_of(rows[i].b);
		int c = str_cmp(a, b);
		assert_int_equal((c > 0) - (c < 0), rows[i].cmp);
		assert_int_equal(str_ieq(a, b), rows[i].ieq);
		assert_int_equal(str_eq(a, b), rows[i].cmp == 0);
	}
	assert_true(str_eq(STR_NULL, STR("")));
	assert_int_equal(str_cmp(STR_NULL, STR("")), 0);
}

static void str_affixes(void **state)
{
	assert_true(str_starts(STR("kumod::x"), STR("kumod")));
	assert_false(str_starts(STR("kumo"), STR("kumod")));
	assert_true(str_starts(STR("x"), STR_NULL));
	assert_true(str_istarts(STR("Content-Type"), STR("content-")));
	assert_true(str_ends(STR("a.lua"), STR(".lua")));
	assert_false(str_ends(STR("lua"), STR(".lua")));
	assert_true(str_ends(STR_NULL, STR_NULL));
}

static void str_searches(void **state)
{
	assert_int_equal(str_chr(STR("abcabc"), 'b', 0), 1);
	assert_int_equal(str_chr(STR("abcabc"), 'b', 2), 4);
	assert_int_equal(str_chr(STR("abc"), 'b', 9), -1);
	assert_int_equal(str_chr(STR_NULL, 'b', 0), -1);
	assert_int_equal(str_find(STR("a\r\n.\r\n"), STR("\r\n.\r\n")), 1);
	assert_int_equal(str_find(STR("abc"), STR("abcd")), -1);
	assert_int_equal(str_find(STR("abc"), STR("")), 0);
	assert_str_is(str_skip(STR("abc"), 1), "bc");
	assert_str_is(str_skip(STR("abc"), 99), "");
	assert_int_equal(str_skip(STR_NULL, 1).n, 0);
	assert_str_is(str_head(STR("abc"), 2), "ab");
	assert_str_is(str_head(STR("abc"), 9), "abc");
	assert_str_is(str_trim(STR(" \t a b\r\n")), "a b");
	assert_str_is(str_trim(STR(" \t\r\n")), "");
}

static void str_splits(void **state)
{
	static const struct {
		const char *text;
		const char *fields[5];
	} rows[] = {
		{"a,,b", {"a", "", "b"}}, {"a", {"a"}}, {",", {"", ""}}, {"a,", {"a", ""}}, {"", {""}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		str_t rest = str_of(rows[i].text), field;
		size_t n = 0;
		while (str_split(&rest, ',', &field)) {
			assert_non_null(rows[i].fields[n]);
			assert_str_is(field, rows[i].fields[n]);
			n++;
		}
		assert_null(rows[i].fields[n]);
	}
	str_t none = STR_NULL, field;
	assert_false(str_split(&none, ',', &field));
}

static void str_integers(void **state)
{
	static const struct {
		const char *text;
		bool is_u64, is_i64;
		uint64_t u;
		int64_t i;
	} rows[] = {
		{"0", true, true, 0, 0},
		{"18446744073709551615", true, false, UINT64_MAX, 0},
		{"18446744073709551616", false, false, 0, 0},
		{"9223372036854775807", true, true, INT64_MAX, INT64_MAX},
		{"-9223372036854775808", false, true, 0, INT64_MIN},
		{"-9223372036854775809", false, false, 0, 0},
		{"+5", false, true, 0, 5},
		{"-", false, false, 0, 0},
		{"", false, false, 0, 0},
		{" 1", false, false, 0, 0},
		{"1 ", false, false, 0, 0},
		{"1x", false, false, 0, 0},
		{"--1", false, false, 0, 0},
		{"0007", true, true, 7, 7},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t u = 1;
		int64_t n = 1;
		assert_int_equal(str_to_u64(str_of(rows[i].text), &u), rows[i].is_u64);
		assert_int_equal(u, rows[i].is_u64 ? rows[i].u : 1);
		assert_int_equal(str_to_i64(str_of(rows[i].text), &n), rows[i].is_i64);
		assert_int_equal(n, rows[i].is_i64 ? rows[i].i : 1);
	}
}

static void str_doubles(void **state)
{
	static const struct {
		const char *text;
		double v;
	} good[] = {{"1", 1}, {"-1.5", -1.5}, {"1e3", 1000}, {".5", 0.5}, {"5.", 5}, {"1E-2", 0.01}};
	static const char *const bad[] = {"",	   "inf", "nan", "0x10", " 1",	"1 ",
					  "1e999", ".",	  "e5",	 "1e",	 "--1", "1,5"};
	double v;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(str_to_double(str_of(good[i].text), &v));
		assert_true(v == good[i].v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(str_to_double(str_of(bad[i]), &v));
}

static void str_utf8(void **state)
{
	static const struct {
		const char *text;
		bool is_ok;
		size_t n_bad; /* of the first step when that is the bad one */
	} rows[] = {
		{"plain ascii, longer than a word", true, 0},
		{"\xc3\xa9", true, 0},
		{"\xe2\x82\xac", true, 0},
		{"\xf0\x9f\x98\x80", true, 0},
		{"\xf4\x8f\xbf\xbf", true, 0},
		{"\xc0\x80", false, 1},		/* overlong */
		{"\xe0\x9f\xbf", false, 1},	/* overlong */
		{"\xed\xa0\x80", false, 1},	/* surrogate */
		{"\xf4\x90\x80\x80", false, 1}, /* beyond U+10FFFF */
		{"\xf5\x80", false, 1},
		{"\x80", false, 1},
		{"\xe2\x82", false, 2}, /* cut short */
		{"\xf0\x9f\x98", false, 3},
		{"\xf0\x9f"
		 "a",
		 false, 2},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		str_t s = str_of(rows[i].text);
		size_t n_bad;
		assert_int_equal(str_is_utf8(s), rows[i].is_ok);
		assert_int_equal(str_utf8_step(s, &n_bad) != 0, rows[i].is_ok);
		if (!rows[i].is_ok)
			assert_int_equal(n_bad, rows[i].n_bad);
	}
	assert_true(str_is_utf8(STR_NULL));
	assert_true(str_is_ascii(STR_NULL) && str_is_ascii(STR("a\x7f")) &&
		    !str_is_ascii(STR("12345678\x80")));
	assert_false(str_is_utf8(STR("12345678\xff")));
	char long_text[100]; /* longer than what is looked at in one go: anything may be anywhere in it */
	for (size_t at = 0; at + 2 <= sizeof(long_text); at++) {
		memset(long_text, 'a', sizeof(long_text));
		long_text[at] = '\xc3', long_text[at + 1] = '\xa4';
		assert_true(str_is_utf8(str_mk(long_text, sizeof(long_text))));
		assert_false(str_is_utf8(str_mk(long_text, at + 1)));
		long_text[at] = 'a';
		assert_false(str_is_utf8(str_mk(long_text, sizeof(long_text))));
	}
}

static void str_hashes(void **state)
{
	char text[64];
	uint64_t seen[65];
	memset(text, 'x', sizeof(text));
	for (size_t n = 0; n <= 64; n++) {
		seen[n] = str_hash(str_mk(text, n));
		assert_true(seen[n] == str_hash(str_mk(text, n)));
		for (size_t k = 0; k < n; k++)
			assert_true(seen[k] != seen[n]);
	}
	assert_true(str_hash(STR("a\0b")) != str_hash(STR("a\0c")));
	char *copy = str_dup(STR("a\0b"));
	assert_memory_equal(copy, "a\0b", 4);
	free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(str_compares), cmocka_unit_test(str_affixes),
		cmocka_unit_test(str_searches), cmocka_unit_test(str_splits),
		cmocka_unit_test(str_integers), cmocka_unit_test(str_doubles),
		cmocka_unit_test(str_utf8),	cmocka_unit_test(str_hashes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
