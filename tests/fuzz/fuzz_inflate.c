/* fuzz_inflate.c - compressed request bodies from hostile bytes. The first byte says which coding, the second
 * in which steps the rest arrives, the third the limit.
 *
 * What must hold: the outcome does not depend on how the bytes are cut; a body never exceeds its limit; what
 * is taken is what zlib and zstd themselves make of the whole; and the memory of all bodies is given back. */
#include "http/http_impl.h"

#include "base/err.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

static int fuzz_body(enum http_coding c, str_t in, size_t step, uint64_t limit, struct http_body *b)
{
	const char *why = NULL;
	int rc = H1_MORE;
	*b = (struct http_body){0};
	http_body_begin(b, c, limit);
	while (in.n != 0 && rc == H1_MORE) {
		rc = http_body_add(b, str_head(in, step), &why);
		in = str_skip(in, step);
		MUST(rc != H1_MORE || b->buf.n <= limit);
	}
	if (rc == H1_MORE)
		rc = http_body_end(b, &why);
	MUST(rc == H1_DONE || ((rc == 400 || rc == 413 || rc == 503) && why != NULL));
	MUST(err_kind() == ERR_NONE);
	return rc;
}

/* One member of gzip or one zlib stream, in one call. */
static void fuzz_against_zlib(str_t in, int bits, str_t body)
{
	z_stream z = {0};
	struct buf out = BUF_INIT;
	buf_reserve(&out, body.n + 1);
	MUST(inflateInit2(&z, bits) == Z_OK);
	z.next_in = (uint8_t *)(uintptr_t)in.p;
	z.avail_in = (unsigned)in.n;
	z.next_out = (uint8_t *)out.p;
	z.avail_out = (unsigned)body.n + 1;
	int rc = inflate(&z, Z_FINISH);
	size_t n = z.total_out;
	bool is_whole = z.avail_in == 0;
	inflateEnd(&z);
	if (is_whole) { /* otherwise there are more members */
		MUST(rc == Z_STREAM_END && n == body.n);
		MUST(n == 0 || memcmp(out.p, body.p, n) == 0);
	}
	buf_fini(&out);
}

static void fuzz_against_zstd(str_t in, str_t body)
{
	struct buf out = BUF_INIT;
	buf_reserve(&out, body.n + 1);
	size_t n = ZSTD_decompress(out.p, body.n + 1, in.p, in.n);
	MUST(ZSTD_isError(n) || (n == body.n && (n == 0 || memcmp(out.p, body.p, n) == 0)));
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum http_coding codings[] = {HTTP_CODING_GZIP, HTTP_CODING_DEFLATE, HTTP_CODING_ZSTD,
						   HTTP_CODING_IDENTITY};
	struct http_body whole, cut;
	if (n < 4)
		return 0;
	enum http_coding c = codings[data[0] & 3];
	size_t step = (size_t)data[1] + 1;
	uint64_t limit = (uint64_t)(data[2] + 1) << (data[0] >> 2 & 15);
	str_t in = str_mk((const char *)data + 3, n - 3);
	int rc = fuzz_body(c, in, in.n, limit, &whole);
	int again = fuzz_body(c, in, step, limit, &cut);
	/* A bomb is noticed when it goes off, which may be before or after something else is found wrong. */
	MUST(again == rc || rc == 413 || again == 413);
	if (rc == H1_DONE && again == H1_DONE) {
		str_t body = buf_str(&whole.buf);
		MUST(str_eq(body, buf_str(&cut.buf)));
		if (c == HTTP_CODING_GZIP)
			fuzz_against_zlib(in, MAX_WBITS + 16, body);
		else if (c == HTTP_CODING_ZSTD)
			fuzz_against_zstd(in, body);
		else if (c == HTTP_CODING_IDENTITY)
			MUST(str_eq(in, body));
	}
	http_body_fini(&whole);
	http_body_fini(&cut);
	MUST(http_body_memory() == 0);
	return 0;
}
