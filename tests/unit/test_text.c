/* test_text.c - base64, hex, percent, CRC-32C (the CPU's against the tables'), doubles as text. */
#include "ut.h"

#include "base/text_impl.h"
#include "base/uuid.h"

#include <math.h>

static void text_base64(void **state)
{
	/* RFC 4648 section 10 */
	static const char *const rows[][2] = {{"", ""},
					      {"f", "Zg=="},
					      {"fo", "Zm8="},
					      {"foo", "Zm9v"},
					      {"foob", "Zm9vYg=="},
					      {"fooba", "Zm9vYmE="},
					      {"foobar", "Zm9vYmFy"},
					      {"\xfb\xff\xfe", "+//+"}};
	static const char *const bad[] = {"Z",	    "Zg",	"Zg=",	"Zg===", "Zh==", "Zm9=", "Zm 8",
					  "Zm8=\n", "Zg==Zg==", "====", "Z===",	 "Zm8_", "Zm=v"};
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		buf_clear(&b);
		base64_encode(&b, str_of(rows[i][0]));
		assert_buf_is(&b, rows[i][1]);
		buf_clear(&b);
		assert_true(base64_decode(&b, str_of(rows[i][1])));
		assert_buf_is(&b, rows[i][0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (base64_decode(&b, str_of(bad[i])))
			fail_msg("%s was taken", bad[i]);
	}
	buf_fini(&b);
}

static void text_base64_round_trip(void **state)
{
	struct buf coded = BUF_INIT, back = BUF_INIT;
	char bytes[100];
	for (size_t n = 0; n < sizeof(bytes); n++) {
		random_bytes(bytes, n);
		buf_clear(&coded);
		buf_clear(&back);
		base64_encode(&coded, str_mk(bytes, n));
		assert_true(base64_decode(&back, buf_str(&coded)));
		assert_true(str_eq(buf_str(&back), str_mk(bytes, n)));
	}
	buf_fini(&coded);
	buf_fini(&back);
}

static void text_hex_and_percent(void **state)
{
	struct buf b = BUF_INIT;
	hex_encode(&b, STR("\x00\xff\x1a"));
	assert_buf_is(&b, "00ff1a");
	buf_clear(&b);
	assert_true(percent_decode(&b, STR("a%20b+%C3%a9%00")));
	assert_true(str_eq(buf_str(&b), STR("a b+\xc3\xa9\0")));
	static const char *const bad[] = {"%", "%4", "a%zz", "%4g", "abc%2"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(percent_decode(&b, str_of(bad[i])));
	buf_fini(&b);
}

static void text_crc32c(void **state)
{
	/* RFC 3720 appendix B.4 */
	uint8_t bytes[32];
	memset(bytes, 0, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
	memset(bytes, 0xff, 32);
	assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, "", 0), 0);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(crc32c_by_table(0, "123456789", 9), 0xe3069283);
	char random[300];
	random_bytes(random, sizeof(random));
	for (size_t n = 0; n < sizeof(random); n++) {
		uint32_t by_cpu = 5;
		if (!crc32c_by_cpu(&by_cpu, random + n % 8, n - n % 8))
			break;
		assert_int_equal(by_cpu, crc32c_by_table(5, random + n % 8, n - n % 8));
	}
}

static void text_doubles(void **state)
{
	static const struct {
		double v;
		const char *plain, *json;
	} rows[] = {
		{0, "0", "0.0"},
		{1, "1", "1.0"},
		{-2.5, "-2.5", "-2.5"},
		{10, "10", "10.0"},
		{0.1, "0.1", "0.1"},
		{0.000084687, "0.000084687", "0.000084687"},
		{0.05990300699999998, "0.05990300699999998", "0.05990300699999998"},
		{0.00016685000000000002, "0.00016685000000000002", "0.00016685000000000002"},
		{0.004347142571428571, "0.004347142571428571", "0.004347142571428571"},
		{0.000024567895833333333, "0.000024567895833333333", "0.000024567895833333333"},
		{1e-7, "0.0000001", "1e-7"},
		{1.5e-7, "0.00000015", "1.5e-7"},
		{1e16, "10000000000000000", "1e16"},
		{1e15, "1000000000000000", "1000000000000000.0"},
		{76121821184, "76121821184", "76121821184.0"},
		{123456789.125, "123456789.125", "123456789.125"},
		{1e22, "10000000000000000000000", "1e22"},
		{1.7976931348623157e308, NULL, "1.7976931348623157e308"},
		{-0.0, "0", "-0.0"},
	};
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].plain != NULL) {
			buf_clear(&b);
			double_fmt_plain(&b, rows[i].v);
			assert_buf_is(&b, rows[i].plain);
		}
		buf_clear(&b);
		double_fmt_json(&b, rows[i].v);
		assert_buf_is(&b, rows[i].json);
	}
	buf_clear(&b);
	double_fmt_plain(&b, INFINITY);
	double_fmt_plain(&b, -INFINITY);
	double_fmt_plain(&b, NAN);
	assert_buf_is(&b, "+Inf-InfNaN");
	buf_fini(&b);
}

static void text_doubles_round_trip(void **state)
{
	struct buf b = BUF_INIT;
	for (int i = 0; i < 20000; i++) {
		uint64_t bits = random_below(UINT64_MAX);
		double v, back;
		memcpy(&v, &bits, sizeof(v));
		if (!isfinite(v))
			continue;
		buf_clear(&b);
		double_fmt_json(&b, v);
		assert_true(str_to_double(buf_str(&b), &back));
		assert_memory_equal(&v, &back, sizeof(v));
		buf_clear(&b);
		double_fmt_plain(&b, v);
		assert_true(strtod(b.p, NULL) == v);
	}
	buf_fini(&b);
}

/* Numbers as people write them are printed without the C library: the same digits. */
static void text_doubles_short(void **state)
{
	static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};
	for (int i = 0; i < 200000; i++) {
		double v = (double)random_below(UINT64_C(1) << (1 + random_below(50))) /
			   powers[random_below(10)];
		char want[40];
		struct double_digits d;
		snprintf(want, sizeof(want), "%.14e", v);
		if (strtod(want, NULL) != v)
			continue;
		char *e = strchr(want, 'e');
		int exp10 = atoi(e + 1) + 1;
		memmove(want + 1, want + 2, (size_t)(e - want) - 2); /* the point */
		for (e -= 2; e > want && *e == '0'; e--)
			;
		e[1] = 0;
		double_digits_of(v, &d);
		assert_str_is(str_mk(d.d, (size_t)d.n), want);
		if (v != 0)
			assert_int_equal(d.exp10, exp10);
	}
}

static void text_utf8(void **state)
{
	static const struct {
		uint32_t c;
		const char *bytes;
		size_t n;
	} t[] = {
		{0, "", 1},
		{0x7f, "\x7f", 1},
		{0x80, "\xc2\x80", 2},
		{0x7ff, "\xdf\xbf", 2},
		{0x800, "\xe0\xa0\x80", 3},
		{0xd7ff, "\xed\x9f\xbf", 3},
		{0xffff, "\xef\xbf\xbf", 3},
		{0x10000, "\xf0\x90\x80\x80", 4},
		{0x10ffff, "\xf4\x8f\xbf\xbf", 4},
	};
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char out[5] = {'#', '#', '#', '#', '#'};
		assert_int_equal(utf8_encode(t[i].c, out), t[i].n);
		assert_memory_equal(out, t[i].bytes, t[i].n);
		assert_int_equal(out[t[i].n], '#');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_base64),		cmocka_unit_test(text_base64_round_trip),
		cmocka_unit_test(text_hex_and_percent), cmocka_unit_test(text_crc32c),
		cmocka_unit_test(text_doubles),		cmocka_unit_test(text_doubles_round_trip),
		cmocka_unit_test(text_doubles_short),	cmocka_unit_test(text_utf8),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
