/* test_http_body.c - content codings: what a header says, which one a client gets, and bodies decoded within
 * their limits, the memory of all bodies among them. */
#include "ut.h"

#include "base/err.h"
#include "http/http_impl.h"

#include <zlib.h>
#include <zstd.h>

/* --- names and weights --- */

static void test_names(void **state)
{
	static const struct {
		const char *field[3];
		enum http_coding want;
	} cases[] = {
		{{"gzip"}, HTTP_CODING_GZIP},		{{" GZip "}, HTTP_CODING_GZIP},
		{{"x-gzip"}, HTTP_CODING_GZIP},		{{"deflate"}, HTTP_CODING_DEFLATE},
		{{"zstd"}, HTTP_CODING_ZSTD},		{{"identity"}, HTTP_CODING_IDENTITY},
		{{"identity, gzip"}, HTTP_CODING_GZIP}, {{"br"}, HTTP_CODING_OTHER},
		{{"gzip;q=1"}, HTTP_CODING_OTHER},	{{"gzip, gzip"}, HTTP_CODING_OTHER},
		{{"gzip", "gzip"}, HTTP_CODING_OTHER},	{{"deflate", "identity"}, HTTP_CODING_DEFLATE},
		{{"gzip, br"}, HTTP_CODING_OTHER},	{{"br, gzip"}, HTTP_CODING_OTHER},
		{{"gzip, ,"}, HTTP_CODING_GZIP},	{{""}, HTTP_CODING_IDENTITY},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		enum http_coding c = HTTP_CODING_IDENTITY;
		for (size_t k = 0; k < 3 && cases[i].field[k] != NULL; k++)
			c = http_coding_add(c, str_of(cases[i].field[k]));
		if (c != cases[i].want)
			fail_msg("%s: %d", cases[i].field[0], c);
	}
}

static void test_accept(void **state)
{
	static const struct {
		const char *accept;
		enum http_coding want;
		bool is_identity_refused;
	} cases[] = {
		{NULL, HTTP_CODING_IDENTITY, false},
		{"", HTTP_CODING_IDENTITY, false},
		{"gzip", HTTP_CODING_GZIP, false},
		{"deflate", HTTP_CODING_DEFLATE, false},
		{"gzip, deflate, br, zstd", HTTP_CODING_ZSTD, false},
		{"gzip, deflate", HTTP_CODING_GZIP, false},
		{"deflate, gzip;q=0.9", HTTP_CODING_DEFLATE, false},
		{"gzip;q=0.5, zstd;q=0.4", HTTP_CODING_GZIP, false},
		{"gzip;q=0", HTTP_CODING_IDENTITY, false},
		{"*", HTTP_CODING_ZSTD, false},
		{"*;q=0", HTTP_CODING_IDENTITY, false},
		{"*;q=0, gzip", HTTP_CODING_GZIP, true},
		{"*, zstd;q=0", HTTP_CODING_GZIP, false},
		{"br", HTTP_CODING_IDENTITY, false},
		{"identity", HTTP_CODING_IDENTITY, false},
		{"identity;q=0, gzip;q=0.1", HTTP_CODING_GZIP, true},
		{"identity;q=0", HTTP_CODING_IDENTITY, false},
		{"identity;q=0.5, gzip;q=1", HTTP_CODING_GZIP, false},
		{"identity;q=1, gzip;q=0.5", HTTP_CODING_IDENTITY, false},
		{"identity, gzip", HTTP_CODING_GZIP, false},
		{"gzip ; q=0.001", HTTP_CODING_GZIP, false},
		{"GZIP;Q=1.000", HTTP_CODING_GZIP, false},
		{"gzip;q=1.001", HTTP_CODING_IDENTITY, false},
		{"gzip;q=2", HTTP_CODING_IDENTITY, false},
		{"gzip;q=", HTTP_CODING_IDENTITY, false},
		{"gzip;q=0.1234", HTTP_CODING_IDENTITY, false},
		{"gzip;q=-1, deflate", HTTP_CODING_DEFLATE, false},
		{",,;;,gzip", HTTP_CODING_GZIP, false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct http_codings a = {0};
		bool is_refused = true;
		if (cases[i].accept != NULL)
			http_codings_add(&a, str_of(cases[i].accept));
		enum http_coding c = http_codings_choose(&a, &is_refused);
		if (c != cases[i].want || is_refused != cases[i].is_identity_refused)
			fail_msg("%s: %d %d", cases[i].accept, c, is_refused);
	}
	struct http_codings a = {0}; /* two fields are one list */
	bool is_refused;
	http_codings_add(&a, STR("gzip"));
	http_codings_add(&a, STR("zstd"));
	assert_int_equal(http_codings_choose(&a, &is_refused), HTTP_CODING_ZSTD);
}

/* --- bodies --- */

static struct buf zlib_of(str_t s, int bits)
{
	struct buf b = BUF_INIT;
	z_stream z = {0};
	buf_reserve(&b, s.n + s.n / 1000 + 100);
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
	z.next_in = (uint8_t *)(uintptr_t)s.p;
	z.avail_in = (unsigned)s.n;
	z.next_out = (uint8_t *)b.p;
	z.avail_out = (unsigned)b.cap - 1;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	b.n = z.total_out;
	deflateEnd(&z);
	return b;
}

static struct buf coded(enum http_coding c, str_t s)
{
	if (c == HTTP_CODING_GZIP)
		return zlib_of(s, MAX_WBITS + 16);
	if (c == HTTP_CODING_DEFLATE)
		return zlib_of(s, MAX_WBITS);
	struct buf b = BUF_INIT;
	if (c == HTTP_CODING_IDENTITY) {
		buf_add_str(&b, s);
		return b;
	}
	buf_reserve(&b, ZSTD_compressBound(s.n));
	b.n = ZSTD_compress(b.p, b.cap - 1, s.p, s.n, 9);
	assert_false(ZSTD_isError(b.n));
	return b;
}

/* Status, or H1_DONE; *out is what came of it. */
static int decode(enum http_coding c, str_t in, size_t step, uint64_t limit, struct buf *out, char why[128])
{
	struct http_body b = {0};
	const char *text = NULL;
	int rc = H1_MORE;
	http_body_begin(&b, c, limit);
	while (in.n != 0 && rc == H1_MORE) {
		rc = http_body_add(&b, str_head(in, step), &text);
		in = str_skip(in, step);
	}
	if (rc == H1_MORE)
		rc = http_body_end(&b, &text);
	buf_clear(out);
	buf_add_str(out, buf_str(&b.buf));
	snprintf(why, 128, "%s", text != NULL ? text : "");
	http_body_fini(&b);
	assert_int_equal(http_body_memory(), 0);
	assert_int_equal(err_kind(), ERR_NONE);
	return rc;
}

static const enum http_coding all[] = {HTTP_CODING_IDENTITY, HTTP_CODING_GZIP, HTTP_CODING_DEFLATE,
				       HTTP_CODING_ZSTD};

static struct buf text_of(size_t n)
{
	struct buf b = BUF_INIT;
	for (uint32_t i = 0; b.n < n; i++)
		buf_printf(&b, "{\"email\":\"user%u@example.org\",\"n\":%u},", i, i * 2654435761u);
	buf_truncate(&b, n);
	return b;
}

static void test_decodes(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 65536, 300001}, steps[] = {1, 7, 1000, 1 << 20};
	char why[128];
	struct buf out = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct buf text = text_of(sizes[i]);
		for (size_t c = 0; c < ARRAY_SIZE(all); c++) {
			struct buf in = coded(all[c], buf_str(&text));
			for (size_t k = 0; k < ARRAY_SIZE(steps); k++) {
				/* Exactly at the limit, and one byte beyond. */
				assert_int_equal(decode(all[c], buf_str(&in), steps[k], text.n, &out, why),
						 H1_DONE);
				assert_true(str_eq(buf_str(&out), buf_str(&text)));
				if (text.n != 0)
					assert_int_equal(
						decode(all[c], buf_str(&in), steps[k], text.n - 1, &out, why),
						413);
			}
			/* Every way to end too early. */
			for (size_t cut = in.n > 40 ? in.n - 40 : 1;
			     all[c] != HTTP_CODING_IDENTITY && cut < in.n; cut++) {
				assert_int_equal(
					decode(all[c], str_head(buf_str(&in), cut), 1000, text.n, &out, why),
					400);
				assert_non_null(strstr(why, "it ends too early"));
				assert_non_null(strstr(why, http_coding_name(all[c]).p));
			}
			buf_fini(&in);
		}
		buf_fini(&text);
	}
	buf_fini(&out);
}

static void test_forms(void **state)
{
	char why[128];
	struct buf out = BUF_INIT, raw = zlib_of(STR("hello"), -MAX_WBITS),
		   gz = coded(HTTP_CODING_GZIP, STR("one")), gz2 = coded(HTTP_CODING_GZIP, STR("two")),
		   zs = coded(HTTP_CODING_ZSTD, STR("one"));
	for (size_t step = 1; step < 20; step++) {
		assert_int_equal(decode(HTTP_CODING_DEFLATE, buf_str(&raw), step, 100, &out, why), H1_DONE);
		assert_buf_is(&out, "hello");
	}
	struct buf two = BUF_INIT;
	buf_add_str(&two, buf_str(&gz));
	buf_add_str(&two, buf_str(&gz2));
	assert_int_equal(decode(HTTP_CODING_GZIP, buf_str(&two), 5, 100, &out, why), H1_DONE);
	assert_buf_is(&out, "onetwo");
	buf_add_c(&two, 0);
	assert_int_equal(decode(HTTP_CODING_GZIP, buf_str(&two), 5, 100, &out, why), 400);
	buf_clear(&two);
	buf_add_str(&two, buf_str(&zs));
	buf_add(&two, "\x50\x2a\x4d\x18\x03\0\0\0abc", 11); /* a frame to be skipped */
	buf_add_str(&two, buf_str(&zs));
	assert_int_equal(decode(HTTP_CODING_ZSTD, buf_str(&two), 5, 100, &out, why), H1_DONE);
	assert_buf_is(&out, "oneone");
	buf_clear(&two);
	buf_add_str(&two, buf_str(&raw));
	buf_add_c(&two, 'x');
	assert_int_equal(decode(HTTP_CODING_DEFLATE, buf_str(&two), 5, 100, &out, why), 400);
	/* No body at all is no body, whatever it is called. */
	for (size_t c = 0; c < ARRAY_SIZE(all); c++)
		assert_int_equal(decode(all[c], STR(""), 1, 0, &out, why), H1_DONE);
	buf_fini(&out);
	buf_fini(&raw);
	buf_fini(&gz);
	buf_fini(&gz2);
	buf_fini(&zs);
	buf_fini(&two);
}

static void test_corrupt(void **state)
{
	char why[128];
	struct buf out = BUF_INIT, text = text_of(5000);
	for (size_t c = 1; c < ARRAY_SIZE(all); c++) {
		struct buf in = coded(all[c], buf_str(&text));
		assert_int_equal(decode(all[c], STR("this is none of it"), 5, 10000, &out, why), 400);
		in.p[0] ^= 1;
		assert_int_equal(decode(all[c], buf_str(&in), 100, 10000, &out, why), 400);
		assert_non_null(strstr(why, "the request body is not valid "));
		assert_non_null(strstr(why, http_coding_name(all[c]).p));
		in.p[0] ^= 1;
		for (size_t i = 0; i < 8; i++)
			in.p[in.n / 2 + i] ^= 0x55;
		int rc = decode(all[c], buf_str(&in), 100, 10000, &out, why);
		assert_true(rc == 400 ||
			    (all[c] == HTTP_CODING_ZSTD && !str_eq(buf_str(&out), buf_str(&text))));
		buf_fini(&in);
	}
	/* Formats of zstd from before RFC 8878, which libzstd would read. */
	assert_int_equal(decode(HTTP_CODING_ZSTD, str_mk("\x26\xb5\x2f\xfd\0\0\0\0\0", 9), 9, 100, &out, why),
			 400);
	buf_fini(&out);
	buf_fini(&text);
}

static void test_bombs(void **state)
{
	char why[128];
	struct buf out = BUF_INIT, zeros = BUF_INIT;
	buf_reserve(&zeros, 50 << 20);
	memset(zeros.p, 0, 50 << 20);
	zeros.n = 50 << 20;
	for (size_t c = 1; c < ARRAY_SIZE(all); c++) {
		struct buf in = coded(all[c], buf_str(&zeros));
		assert_true(in.n < zeros.n / 500);
		assert_int_equal(decode(all[c], buf_str(&in), 4096, 2 << 20, &out, why), 413);
		assert_string_equal(why, "Failed to buffer the request body: length limit exceeded");
		assert_true(out.n <= 4 << 20);
		/* The ratio counts where the limit would allow it. */
		assert_int_equal(decode(all[c], buf_str(&in), 4096, 1u << 30, &out, why), 413);
		assert_true(out.n < 16 << 20);
		buf_fini(&in);
		in = coded(all[c], str_head(buf_str(&zeros), 1 << 20)); /* but not for small ones */
		assert_int_equal(decode(all[c], buf_str(&in), 4096, 2 << 20, &out, why), H1_DONE);
		assert_int_equal(out.n, 1 << 20);
		buf_fini(&in);
	}
	/* Endless input that nothing comes of: empty blocks of deflate. */
	struct buf in = BUF_INIT;
	for (int i = 0; i < 100000; i++)
		buf_add(&in, "\0\0\0\xff\xff", 5);
	assert_int_equal(decode(HTTP_CODING_DEFLATE, buf_str(&in), 4096, 10000, &out, why), 413);
	buf_fini(&in);
	buf_fini(&zeros);
	buf_fini(&out);
}

static void test_window(void **state)
{
	char why[128];
	struct buf out = BUF_INIT, in = BUF_INIT, text = text_of(100000);
	for (int log = 20; log <= 27; log++) {
		ZSTD_CCtx *z = ZSTD_createCCtx();
		buf_clear(&in);
		buf_reserve(&in, ZSTD_compressBound(text.n));
		ZSTD_CCtx_setParameter(z, ZSTD_c_windowLog, log);
		/* Of unknown size, so that the window is what it says. */
		ZSTD_inBuffer i = {text.p, text.n, 0};
		ZSTD_outBuffer o = {in.p, in.cap - 1, 0};
		ZSTD_compressStream2(z, &o, &i, ZSTD_e_continue);
		assert_int_equal(ZSTD_compressStream2(z, &o, &i, ZSTD_e_end), 0);
		in.n = o.pos;
		assert_int_equal(decode(HTTP_CODING_ZSTD, buf_str(&in), 1000, 200000, &out, why),
				 log <= 23 ? H1_DONE : 400);
		ZSTD_freeCCtx(z);
	}
	buf_fini(&in);
	buf_fini(&out);
	buf_fini(&text);
}

static void test_memory(void **state)
{
	const char *why = NULL;
	struct http_body a = {0}, b = {0};
	struct buf piece = text_of(10000);
	http_set_body_memory(25000);
	http_body_begin(&a, HTTP_CODING_IDENTITY, 100000);
	http_body_begin(&b, HTTP_CODING_IDENTITY, 100000);
	assert_int_equal(http_body_add(&a, buf_str(&piece), &why), H1_MORE);
	assert_int_equal(http_body_add(&a, buf_str(&piece), &why), H1_MORE);
	assert_true(http_memory_has(5000));
	assert_false(http_memory_has(5001));
	assert_int_equal(http_body_add(&b, buf_str(&piece), &why), 503);
	assert_string_equal(why, "too many requests are being received");
	http_body_reset(&b);
	http_body_reset(&a);
	assert_int_equal(http_body_memory(), 0);
	http_body_begin(&b, HTTP_CODING_IDENTITY, 100000);
	assert_int_equal(http_body_add(&b, buf_str(&piece), &why), H1_MORE);
	assert_int_equal(http_body_end(&b, &why), H1_DONE);
	http_body_fini(&b);
	/* A decoder counts, for as long as it is there. */
	struct buf in = coded(HTTP_CODING_GZIP, buf_str(&piece));
	http_body_begin(&a, HTTP_CODING_GZIP, 100000);
	assert_int_equal(http_body_add(&a, buf_str(&in), &why), 503);
	http_body_fini(&a);
	http_set_body_memory(100000);
	http_body_begin(&a, HTTP_CODING_GZIP, 100000);
	assert_int_equal(http_body_add(&a, buf_str(&in), &why), H1_MORE);
	assert_true(http_body_memory() > 40000);
	assert_int_equal(http_body_end(&a, &why), H1_DONE);
	assert_int_equal(http_body_memory(), 10000);
	http_body_fini(&a);
	assert_int_equal(http_body_memory(), 0);
	http_set_body_memory(256u << 20);
	buf_fini(&in);
	buf_fini(&piece);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),  cmocka_unit_test(test_accept),  cmocka_unit_test(test_decodes),
		cmocka_unit_test(test_forms),  cmocka_unit_test(test_corrupt), cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_window), cmocka_unit_test(test_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
