/* test_http_parse.c - HTTP/1 from bytes: what is refused and with which status, the same however the bytes
 * are cut. */
#include "ut.h"

#include "http/http_impl.h"

struct parsed {
	int status; /* H1_DONE, H1_MORE or a refusal */
	struct http_request r;
	struct http_framing f;
};

/* Shows the input `step` bytes at a time, as a socket would. */
static struct parsed parse(str_t in, size_t step, struct arena *arena)
{
	struct parsed p = {.r = {.arena = arena}};
	struct h1_scan scan = {0};
	const char *why = NULL;
	size_t n = 0;
	do {
		n = in.n - n < step ? in.n : n + step;
		char *copy = arena_alloc(arena, n + 1); /* a buffer that moves as it grows */
		memcpy(copy, in.p, n);
		p.status = h1_scan_head(&scan, str_mk(copy, n), &why);
	} while (p.status == H1_MORE && n < in.n);
	if (p.status == H1_DONE) {
		str_t head = arena_str(arena, str_mk(in.p + scan.start, scan.pos - scan.start));
		p.status = h1_parse_head(head, scan.n_lines, arena, &p.r, &p.f, &why);
	}
	assert_true(p.status == H1_DONE || p.status == H1_MORE || (why != NULL && p.status >= 400));
	return p;
}

static const struct {
	str_t in;
	int status;
} cases[] = {
	{STR("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.0\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost:\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: \xc3\xa4\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost: x\r\n"), H1_MORE},
	/* request line */
	{STR("GET / HTTP/1.1\r\n\r\n"), 400},
	{STR("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /  HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1 \r\nHost: x\r\n\r\n"), 400},
	{STR(" GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /\r\nHost: x\r\n\r\n"), 400},
	{STR("GET\r\n\r\n"), 400},
	{STR("GET / http/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1x\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.10\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.2\r\nHost: x\r\n\r\n"), 505},
	{STR("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505},
	{STR("GET / HTTP/0.9\r\nHost: x\r\n\r\n"), 505},
	{STR("PRI * HTTP/2.0\r\n\r\n"), 505},
	{STR("GET /\x80 HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /# HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET /?a=%0 HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET nothing HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("GET HTTP://x HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET https://x/a HTTP/1.1\r\nHost: x\r\n\r\n"), 400}, /* without TLS */
	{STR("GET http://u@x/a HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET http://x:y/a HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	{STR("GET http://[::1]:80?a HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("FROB / HTTP/1.1\r\nHost: x\r\n\r\n"), 501},
	{STR("get / HTTP/1.1\r\nHost: x\r\n\r\n"), 501},
	{STR("DESCRIBE / HTTP/1.1\r\nHost: x\r\n\r\n"), 501},
	{STR("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n"), 501},
	{STR("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), H1_DONE},
	{STR("G@T / HTTP/1.1\r\nHost: x\r\n\r\n"), 400},
	/* lines */
	{STR("GET / HTTP/1.1\nHost: x\n\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\n\n"), 400},
	{STR("GET / HTTP/1.1\rHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\n Host: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost : x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost\t: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX(: y\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\x01"
	     "b\r\n\r\n"),
	 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\x7f\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nX: a\tb\r\n\r\n"), H1_DONE},
	/* fields that frame */
	{STR("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: a%4\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: []\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: [::ffff:10.0.0.1]:80\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost: a_b-c.example:\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost: A%2d:8000\r\n\r\n"), H1_DONE},
	{STR("GET / HTTP/1.1\r\nHost: :80\r\n\r\n"), H1_DONE},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"), H1_DONE},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 005\r\n\r\n"), H1_DONE},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5,5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5a\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\n Content-Length: 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"), H1_DONE},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"), H1_DONE},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	     "Transfer-Encoding: chunked\r\n\r\n"),
	 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
	     "Transfer-Encoding: identity\r\n\r\n"),
	 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunkedx\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,chunked\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n"), 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0b"
	     "chunked\r\n\r\n"),
	 400},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), 501},
	{STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
	 501},
	{STR("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
	{STR("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"), H1_DONE},
};

static void http_parse_refuses(void **state)
{
	struct arena arena = ARENA_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (size_t step = 1; step < 8; step++) {
			struct parsed p = parse(cases[i].in, step, &arena);
			if (p.status != cases[i].status)
				fail_msg("case %zu in steps of %zu: %d, not %d: " STR_FMT, i, step, p.status,
					 cases[i].status, STR_ARG(cases[i].in));
			arena_reset(&arena);
		}
	}
	arena_fini(&arena);
}

static void http_parse_reads(void **state)
{
	struct arena arena = ARENA_INIT;
	struct parsed p = parse(STR("POST /a%20b%2fc?x=1&name=a+b%26c&empty=&flag HTTP/1.1\r\nhOsT:x:80\r\n"
				    "Content-Length:  17 \r\nX-Empty:\r\nX-Two: a\r\nX-Two:b \t\r\n"
				    "Connection: TE, Close\r\nExpect: 100-Continue\r\n\r\n"),
				1000, &arena);
	assert_int_equal(p.status, H1_DONE);
	assert_str_is(p.r.method, "POST");
	assert_str_is(p.r.path, "/a b%2fc");
	assert_str_is(p.r.query, "x=1&name=a+b%26c&empty=&flag");
	assert_int_equal(p.r.version_minor, 1);
	assert_int_equal(p.r.n_headers, 7);
	assert_str_is(http_request_header(&p.r, STR("host")), "x:80");
	assert_str_is(http_request_header(&p.r, STR("x-two")), "a");
	assert_str_is(p.r.header[4].value, "b");
	assert_str_is(http_request_header(&p.r, STR("x-empty")), "");
	assert_non_null(http_request_header(&p.r, STR("x-empty")).p);
	assert_null(http_request_header(&p.r, STR("x-none")).p);
	assert_str_is(http_request_query(&p.r, STR("x")), "1");
	assert_str_is(http_request_query(&p.r, STR("name")), "a b&c");
	assert_str_is(http_request_query(&p.r, STR("empty")), "");
	assert_non_null(http_request_query(&p.r, STR("flag")).p);
	assert_null(http_request_query(&p.r, STR("nam")).p);
	assert_true(p.f.has_length);
	assert_int_equal(p.f.content_length, 17);
	assert_false(p.f.is_keep_alive);
	assert_true(p.f.is_expecting);
	assert_false(p.f.is_expect_unknown);

	p = parse(STR("GET http://h?q HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n"),
		  1000, &arena);
	assert_int_equal(p.status, H1_DONE);
	assert_str_is(p.r.path, "/");
	assert_str_is(p.r.query, "q");
	assert_true(p.f.is_keep_alive);
	assert_false(p.f.is_expecting); /* HTTP/1.0 does not know it */

	p = parse(STR("GET / HTTP/1.1\r\nHost: x\r\nExpect: a-miracle\r\n\r\n"), 1000, &arena);
	assert_true(p.f.is_keep_alive);
	assert_true(p.f.is_expect_unknown);
	arena_fini(&arena);
}

/* The last size that passes, and the first that does not. */
static int parse_sized(size_t n_target, size_t n_headers, size_t n_value)
{
	struct arena arena = ARENA_INIT;
	struct buf b = BUF_INIT;
	buf_add_z(&b, "GET /");
	for (size_t i = 1; i < n_target; i++)
		buf_add_c(&b, 'a');
	buf_add_z(&b, " HTTP/1.1\r\nHost: x\r\n");
	for (size_t i = 1; i < n_headers; i++)
		buf_add_z(&b, "A: b\r\n");
	if (n_value != 0) {
		buf_add_z(&b, "V: ");
		for (size_t i = 0; i < n_value; i++)
			buf_add_c(&b, 'v');
		buf_add_z(&b, "\r\n");
	}
	buf_add_z(&b, "\r\n");
	int status = parse(buf_str(&b), 1000, &arena).status;
	buf_fini(&b);
	arena_fini(&arena);
	return status;
}

static void http_parse_limits(void **state)
{
	assert_int_equal(parse_sized(HTTP_MAX_TARGET_BYTES, 1, 0), H1_DONE);
	assert_int_equal(parse_sized(HTTP_MAX_TARGET_BYTES + 1, 1, 0), 414);
	assert_int_equal(parse_sized(2 * HTTP_MAX_HEADER_BYTES, 1, 0), 414);
	assert_int_equal(parse_sized(1, HTTP_MAX_HEADERS, 0), H1_DONE);
	assert_int_equal(parse_sized(1, HTTP_MAX_HEADERS + 1, 0), 431);
	assert_int_equal(parse_sized(1, 1, HTTP_MAX_HEADER_BYTES - 64), H1_DONE);
	assert_int_equal(parse_sized(1, 1, HTTP_MAX_HEADER_BYTES), 431);
}

/* --- chunks --- */

static const struct {
	const char *in;
	int status;
	const char *body;
} chunk_cases[] = {
	{"0\r\n\r\n", H1_DONE, ""},
	{"5\r\nhello\r\n0\r\n\r\n", H1_DONE, "hello"},
	{"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", H1_DONE, "hello world"},
	{"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", H1_DONE, "01234567890123456789"},
	{"5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", H1_DONE, "hello"},
	{"5\r\nhello\r\n0\r\nX-Trailer: a b\r\nY:\r\n\r\n", H1_DONE, "hello"},
	{"5\r\nhello\r\n0\r\n", H1_MORE, "hello"},
	{"5\r\nhel", H1_MORE, "hel"},
	{"5\nhello\r\n0\r\n\r\n", 400, ""},
	{"5\r\nhello\n0\r\n\r\n", 400, "hello"},
	{"5\rxhello", 400, ""},
	{"5\r\nhelloo\r\n0\r\n\r\n", 400, "hello"},
	{"5\r\nhello0\r\n\r\n", 400, "hello"},
	{"5 \r\nhello\r\n0\r\n\r\n", 400, ""},
	{" 5\r\nhello\r\n0\r\n\r\n", 400, ""},
	{"+5\r\nhello\r\n0\r\n\r\n", 400, ""},
	{"-5\r\nhello\r\n0\r\n\r\n", 400, ""},
	{"0x5\r\nhello\r\n0\r\n\r\n", 400, ""},
	{"g\r\n", 400, ""},
	{"\r\n", 400, ""},
	{";x\r\n", 400, ""},
	{"FFFFFFFFFFFFFFFFF\r\n", 400, ""},
	{"10000000000000005\r\nhello\r\n0\r\n\r\n", 400, ""},
	{"5;a\nb\r\nhello", 400, ""},
	{"5;a\x01\r\nhello", 400, ""},
	{"0\r\n\n", 400, ""},
	{"0\r\nX: a\n\r\n", 400, ""},
	{"0\r\nnocolon\r\n\r\n", 400, ""},
	{"0\r\n: x\r\n\r\n", 400, ""},
	{"0\r\nX : x\r\n\r\n", 400, ""},
	{"0\r\nX: a\r\n b\r\n\r\n", 400, ""},
	{"7fffffff\r\n", 413, ""},
	{"33\r\n", 413, ""},
	{"20\r\n01234567890123456789012345678901\r\n13\r\n", 413, "01234567890123456789012345678901"},
	{"20\r\n01234567890123456789012345678901\r\n12\r\n012345678901234567\r\n0\r\n\r\n", H1_DONE,
	 "01234567890123456789012345678901012345678901234567"},
};

static int decode(str_t in, size_t step, uint64_t limit, struct buf *out, size_t *n_used)
{
	struct h1_chunks d = {0};
	const char *why = NULL;
	int rc = H1_MORE;
	*n_used = 0;
	while (rc == H1_MORE && *n_used < in.n) {
		size_t n_step = in.n - *n_used < step ? in.n - *n_used : step, n = 0;
		rc = h1_chunks_decode(&d, str_mk(in.p + *n_used, n_step), &n, out, limit, &why);
		assert_true(n == n_step || rc != H1_MORE);
		*n_used += n;
	}
	return rc;
}

static void http_chunks_decode(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(chunk_cases); i++) {
		for (size_t step = 1; step < 40; step++) {
			struct buf out = BUF_INIT;
			size_t n_used;
			int rc = decode(str_of(chunk_cases[i].in), step, 50, &out, &n_used);
			if (rc != chunk_cases[i].status ||
			    !str_eq(buf_str(&out), str_of(chunk_cases[i].body)))
				fail_msg("chunks %zu in steps of %zu: %d \"" STR_FMT "\"", i, step, rc,
					 STR_ARG(buf_str(&out)));
			buf_fini(&out);
		}
	}
	/* What follows the body is left alone. */
	struct buf out = BUF_INIT;
	size_t n_used;
	assert_int_equal(decode(STR("1\r\nx\r\n0\r\n\r\nGET"), 100, 50, &out, &n_used), H1_DONE);
	assert_int_equal(n_used, 11);
	buf_fini(&out);
}

/* What a client can make us read beyond data is bounded, in one line or in many. */
static void http_chunks_bound_overhead(void **state)
{
	struct buf b = BUF_INIT, out = BUF_INIT;
	size_t n_used;
	buf_add_z(&b, "1;");
	for (unsigned i = 0; i < HTTP_MAX_CHUNK_EXT_BYTES + 10; i++)
		buf_add_c(&b, 'e');
	assert_int_equal(decode(buf_str(&b), 1000, 5000, &out, &n_used), 400);
	buf_clear(&b);
	for (int i = 0; i < 2000; i++)
		buf_add_z(&b, "1;abc\r\nx\r\n");
	assert_int_equal(decode(buf_str(&b), 1000, 5000, &out, &n_used), 400);
	buf_clear(&b);
	buf_clear(&out);
	buf_add_z(&b, "0\r\n");
	for (int i = 0; i < 2000; i++)
		buf_add_z(&b, "A: b\r\n");
	assert_int_equal(decode(buf_str(&b), 1000, 5000, &out, &n_used), 400);
	buf_clear(&b);
	for (int i = 0; i < 2000; i++)
		buf_add_z(&b, "1\r\nx\r\n");
	buf_add_z(&b, "0\r\n\r\n");
	assert_int_equal(decode(buf_str(&b), 1000, 5000, &out, &n_used), H1_DONE);
	assert_int_equal(out.n, 2000);
	buf_fini(&b);
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(http_parse_refuses),	      cmocka_unit_test(http_parse_reads),
		cmocka_unit_test(http_parse_limits),	      cmocka_unit_test(http_chunks_decode),
		cmocka_unit_test(http_chunks_bound_overhead),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
