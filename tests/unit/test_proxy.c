/* test_proxy.c - PROXY headers: what is one, what is not,
 * and that a part of one is never taken for a whole. */
#include "ut.h"

#include "base/err.h"
#include "net/proxy.h"

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\xc0\0\2\1\xc6\x33\x64\2\x04\xd2\x01\xbb"
#define V6 "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x04\xd2\x01\xbb"
#define B(lit)                       \
	{                            \
		lit, sizeof(lit) - 1 \
	}

static const struct {
	str_t in;
	const char *peer, *local; /* NULL: the connection's own */
} good[] = {
	{B("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"), "192.0.2.1:56324", "198.51.100.2:443"},
	{B("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255:65535",
	 "255.255.255.255:65535"},
	{B("PROXY TCP6 2001:db8::1 ::1 0 1\r\n"), "[2001:db8::1]:0", "[::1]:1"},
	{B("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
	   "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
	 "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
	 "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{B("PROXY UNKNOWN\r\n"), NULL, NULL},
	{B("PROXY UNKNOWN ffff:f...f ffff:f...f 65535 65535\r\n"), NULL, NULL},
	{B(SIG "\x21\x11\0\x0c" V4), "192.0.2.1:1234", "198.51.100.2:443"},
	{B(SIG "\x21\x21\0\x24" V6), "[2001:db8::1]:1234", "[::1]:443"},
	{B(SIG "\x21\x11\0\x11" V4 "\x01\0\2h2"), "192.0.2.1:1234", "198.51.100.2:443"},
	{B(SIG "\x21\x11\0\x0f" V4 "\x04\0\0"), "192.0.2.1:1234", "198.51.100.2:443"},
	{B(SIG "\x20\0\0\0"), NULL, NULL},
	{B(SIG "\x20\x11\0\x0c" V4), NULL, NULL},
	{B(SIG "\x20\x77\0\1x"), NULL, NULL},
	{B(SIG "\x21\0\0\3abc"), NULL, NULL},
};

static void test_good(void **state)
{
	char text[NET_ADDR_STRLEN];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct buf in = BUF_INIT;
		struct proxy_header h = {0};
		buf_add_str(&in, good[i].in);
		buf_add_z(&in, "GET / HTTP/1.1\r\n");
		for (size_t n = 0; n < good[i].in.n; n++)
			assert_int_equal(proxy_parse(str_head(buf_str(&in), n), &h), 0);
		assert_int_equal(proxy_parse(good[i].in, &h), good[i].in.n);
		assert_int_equal(proxy_parse(buf_str(&in), &h), good[i].in.n);
		assert_int_equal(h.is_known, good[i].peer != NULL);
		if (h.is_known) {
			assert_string_equal(net_addr_fmt(&h.peer, text), good[i].peer);
			assert_string_equal(net_addr_fmt(&h.local, text), good[i].local);
		}
		buf_fini(&in);
	}
}

static const str_t bad[] = {
	B("GET / HTTP/1.1\r\n"),
	B("X"),
	B("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY\tTCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rX"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n"),
	B("PROXY TCP4 192.0.2.1 198.51.100.2 1 -2\r\n"),
	B("PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n"),
	B("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n"),
	B("PROXY TCP4 ::1 ::1 1 2\r\n"),
	B("PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY TCP6 [::1] [::1] 1 2\r\n"),
	B("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"),
	B("PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n"),
	B("PROXY \r\n"),
	B("PROXY TCP4 192.0.2.1\0 198.51.100.2 1 2\r\n"),
	B("PROXY UNKNOWN "
	  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r"
	  "\n"),
	B(SIG "\x11\x11\0\x0c" V4),		     /* version 1 in binary */
	B(SIG "\x22\x11\0\x0c" V4),		     /* unknown command */
	B(SIG "\x21\x11\0\x0b" V4),		     /* too short */
	B(SIG "\x21\x12\0\x0c" V4),		     /* UDP */
	B(SIG "\x21\x41\0\x0c" V4),		     /* unknown family */
	B(SIG "\x21\x11\x10\0" V4),		     /* longer than what is taken */
	B(SIG "\x21\x11\0\x0e" V4 "\1\0"),	     /* half a field */
	B(SIG "\x21\x11\0\x0f" V4 "\1\0\1"),	     /* a field beyond the end */
	B(SIG "\x21\x11\0\x13" V4 "\3\0\4\0\0\0\0"), /* wrong checksum */
	B("\r\n\r\n\0\r\nQUIX"),
};

static void test_bad(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct proxy_header h;
		if (proxy_parse(bad[i], &h) != -1)
			fail_msg("taken: %zu " STR_FMT, i, STR_ARG(bad[i]));
		assert_true(err_is(ERR_PROTO));
		assert_non_null(strstr(err_text(), "PROXY header: "));
		err_clear();
	}
}

/* Of "123456789" it is 0xe3069283 (RFC 3720, appendix B.4, has the polynomial). */
static uint32_t crc32c(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0u;
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
	}
	return ~crc;
}

static void test_checksum(void **state)
{
	uint8_t p[16 + 12 + 7 + 5] = SIG "\x21\x11\0\x18" V4 "\3\0\4\0\0\0\0\4\0\2xy";
	struct proxy_header h;
	assert_int_equal(crc32c((const uint8_t *)"123456789", 9), 0xe3069283);
	uint32_t crc = crc32c(p, sizeof(p));
	for (int i = 0; i < 4; i++)
		p[31 + i] = (uint8_t)(crc >> (24 - 8 * i));
	assert_int_equal(proxy_parse(str_mk((const char *)p, sizeof(p)), &h), sizeof(p));
	for (size_t i = 16; i < sizeof(p); i++) {
		if (i >= 28 && i < 31)
			continue; /* then it is no checksum any more */
		p[i] ^= 1;
		assert_int_equal(proxy_parse(str_mk((const char *)p, sizeof(p)), &h), -1);
		err_clear();
		p[i] ^= 1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad),
					   cmocka_unit_test(test_checksum)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
