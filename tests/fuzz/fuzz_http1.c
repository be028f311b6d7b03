/* fuzz_http1.c - HTTP/1 requests from hostile bytes. The first byte says how the rest is used: an even one as
 * a header, an odd one as a chunked body; its upper bits say in which steps the bytes arrive.
 *
 * What must hold: the outcome does not depend on how the bytes are cut; every slice of a parsed request lies
 * in the header; a chunked body never exceeds its limit; and a body that our decoder takes is taken by llhttp
 * too, ends at the same byte and has the same content - two implementations that read it differently are what
 * request smuggling is made of. (llhttp may refuse where extensions and trailers come in, which we drop: it
 * takes no second extension after `a=b`, and reads a Content-Length among the trailers as if it were one.) */
#include "http/http_impl.h"

#include <llhttp.h>
#include <stdlib.h>

enum { FUZZ_LIMIT = 5000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

/* --- headers --- */

static int fuzz_scan(str_t in, size_t step, struct h1_scan *scan, const char **why)
{
	int rc = H1_MORE;
	*scan = (struct h1_scan){0};
	for (size_t n = 0; rc == H1_MORE && n < in.n;) {
		n = in.n - n < step ? in.n : n + step;
		rc = h1_scan_head(scan, str_head(in, n), why);
	}
	return rc;
}

static void fuzz_slice_is_in(str_t s, str_t head)
{
	if (s.n == 0)
		return;
	MUST(s.p >= head.p && s.p + s.n <= head.p + head.n);
	for (size_t i = 0; i < s.n; i++)
		MUST(s.p[i] != '\r' && s.p[i] != '\n' && s.p[i] != 0);
}

static void fuzz_head(str_t in, size_t step)
{
	struct h1_scan scan, again;
	const char *why = NULL;
	int rc = fuzz_scan(in, in.n, &scan, &why);
	MUST(fuzz_scan(in, step, &again, &why) == rc);
	MUST(rc == H1_MORE || rc == H1_DONE || why != NULL);
	if (rc != H1_DONE)
		return;
	MUST(again.pos == scan.pos && again.start == scan.start && again.n_lines == scan.n_lines);
	struct arena arena = ARENA_INIT;
	struct http_request r = {.arena = &arena};
	struct http_framing f;
	str_t head = arena_str(&arena, str_skip(str_head(in, scan.pos), scan.start));
	rc = h1_parse_head(head, scan.n_lines, &arena, &r, &f, &why);
	MUST(rc == H1_DONE || (rc >= 400 && why != NULL));
	if (rc == H1_DONE) {
		MUST(r.n_headers == scan.n_lines - 1 && r.n_headers <= HTTP_MAX_HEADERS);
		MUST(r.path.n != 0 && r.target.n <= HTTP_MAX_TARGET_BYTES);
		MUST(!(f.is_chunked && f.has_length));
		fuzz_slice_is_in(r.method, head);
		fuzz_slice_is_in(r.target, head);
		for (size_t i = 0; i < r.n_headers; i++) {
			fuzz_slice_is_in(r.header[i].name, head);
			fuzz_slice_is_in(r.header[i].value, head);
		}
		(void)http_request_query(&r, STR("a"));
		(void)http_request_header(&r, STR("host"));
	}
	arena_fini(&arena);
}

/* --- chunked bodies --- */

/* *is_plain: neither extensions nor trailers. */
static int fuzz_decode(str_t in, size_t step, struct buf *out, size_t *n_used, bool *is_plain)
{
	struct h1_chunks d = {0};
	const char *why = NULL;
	int rc = H1_MORE;
	*n_used = 0;
	while (rc == H1_MORE && *n_used < in.n) {
		size_t n = 0;
		rc = h1_chunks_decode(&d, str_head(str_skip(in, *n_used), step), &n, out, FUZZ_LIMIT, &why);
		*n_used += n;
		MUST(out->n <= FUZZ_LIMIT);
	}
	MUST(rc == H1_MORE || rc == H1_DONE || why != NULL);
	*is_plain = d.n_overhead <= 1; /* the CR of the last line */
	return rc;
}

static int fuzz_on_body(llhttp_t *p, const char *at, size_t n)
{
	buf_add(p->data, at, n);
	return 0;
}

static int fuzz_on_complete(llhttp_t *p)
{
	return HPE_PAUSED;
}

static void fuzz_chunks_in_llhttp(str_t in, str_t body, size_t n_used, bool is_plain)
{
	static const llhttp_settings_t settings = {.on_body = fuzz_on_body,
						   .on_message_complete = fuzz_on_complete};
	str_t head = STR("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
	struct buf all = BUF_INIT, out = BUF_INIT;
	buf_add_str(&all, head);
	buf_add_str(&all, in);
	llhttp_t p;
	llhttp_init(&p, HTTP_REQUEST, &settings);
	p.data = &out;
	llhttp_errno_t e = llhttp_execute(&p, all.p, all.n);
	if (e == HPE_PAUSED) {
		MUST((size_t)(llhttp_get_error_pos(&p) - all.p) == head.n + n_used);
		MUST(str_eq(buf_str(&out), body));
	} else if (is_plain) {
		panic("llhttp refuses what was taken: %s", llhttp_get_error_reason(&p));
	}
	buf_fini(&all);
	buf_fini(&out);
}

static void fuzz_chunks(str_t in, size_t step)
{
	struct buf out = BUF_INIT, again = BUF_INIT;
	size_t n_used, n_again;
	bool is_plain;
	int rc = fuzz_decode(in, in.n, &out, &n_used, &is_plain);
	MUST(fuzz_decode(in, step, &again, &n_again, &is_plain) == rc);
	MUST(n_again == n_used && str_eq(buf_str(&out), buf_str(&again)));
	if (rc == H1_DONE)
		fuzz_chunks_in_llhttp(in, buf_str(&out), n_used, is_plain);
	buf_fini(&out);
	buf_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n < 2)
		return 0;
	str_t in = str_mk((const char *)data + 1, n - 1);
	size_t step = (size_t)(data[0] >> 1) + 1;
	if ((data[0] & 1) == 0)
		fuzz_head(in, step);
	else
		fuzz_chunks(in, step);
	return 0;
}
