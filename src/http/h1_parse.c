/* h1_parse.c - HTTP/1 requests from bytes, without I/O.
 *
 * A header is read twice, by two parsers that must agree. h1_scan_head looks at each byte as it arrives,
 * finds the lines, and refuses everything that two implementations may read differently (RFC 9112
 * sections 2.2, 5, 11.2): bare CR or LF, folded lines, blanks around a field name, NUL and other control
 * bytes. h1_parse_head then has llhttp parse the whole block and keeps what it found as slices of it; if
 * llhttp counts other fields than the scan has seen lines, the request is refused. llhttp alone is more
 * lenient than we may be: among others it takes a bare CR as a line end, blanks before the colon, and any
 * version.
 *
 * A chunked body is decoded here, not by llhttp: the size line, the ends of lines and the trailers are
 * checked to the byte, and what a client may spend on extensions and trailers is bounded.
 * tests/fuzz/fuzz_http1.c holds that whatever this decoder takes, llhttp takes too, with the same bytes as
 * result. */
#include "http/http_impl.h"

#include <llhttp.h>

enum {
	CH_TOKEN = 1,	/* RFC 9110 section 5.6.2 */
	CH_CTL = 2,	/* never inside a header line; HTAB is not among them */
	CH_VISIBLE = 4, /* 0x21-0x7e: what a request target is made of */
};

static const uint8_t h1_class[256] = {
	[0 ... 8] = CH_CTL,
	[10 ... 31] = CH_CTL,
	[127] = CH_CTL,
	['!'] = CH_TOKEN | CH_VISIBLE,
	['"'] = CH_VISIBLE,
	['#' ... '\''] = CH_TOKEN | CH_VISIBLE,
	['(' ... ')'] = CH_VISIBLE,
	['*' ... '+'] = CH_TOKEN | CH_VISIBLE,
	[','] = CH_VISIBLE,
	['-' ... '.'] = CH_TOKEN | CH_VISIBLE,
	['/'] = CH_VISIBLE,
	['0' ... '9'] = CH_TOKEN | CH_VISIBLE,
	[':' ... '@'] = CH_VISIBLE,
	['A' ... 'Z'] = CH_TOKEN | CH_VISIBLE,
	['[' ... ']'] = CH_VISIBLE,
	['^' ... 'z'] = CH_TOKEN | CH_VISIBLE,
	['{'] = CH_VISIBLE,
	['|'] = CH_TOKEN | CH_VISIBLE,
	['}'] = CH_VISIBLE,
	['~'] = CH_TOKEN | CH_VISIBLE,
};

static bool h1_is(char c, int class)
{
	return (h1_class[(unsigned char)c] & class) != 0;
}

static int h1_refuse(const char **why, int status, const char *text)
{
	*why = text;
	return status;
}

/* --- the scan --- */

/* The request line is still growing: say early what it will end as. */
static int h1_scan_check_line_so_far(const struct h1_scan *s, str_t in, const char **why)
{
	size_t n_header = s->pos - s->start;
	if (s->n_lines == 0 && n_header > HTTP_MAX_TARGET_BYTES + 64) {
		if (str_chr(str_head(str_skip(in, s->start), 64), ' ', 0) < 0)
			return h1_refuse(why, 400, "malformed request line");
		return h1_refuse(why, 414, "the request target is too long");
	}
	if (n_header > HTTP_MAX_HEADER_BYTES)
		return h1_refuse(why, 431, "the header section is too large");
	return H1_MORE;
}

/* One complete header line, neither the first nor the empty one. */
static int h1_scan_check_field(str_t line, const char **why)
{
	if (line.p[0] == ' ' || line.p[0] == '\t')
		return h1_refuse(why, 400, "folded header line");
	size_t i = 0;
	while (i < line.n && h1_is(line.p[i], CH_TOKEN))
		i++;
	if (i == line.n)
		return h1_refuse(why, 400, "header line without a colon");
	if (line.p[i] != ':' || i == 0)
		return h1_refuse(why, 400, "malformed header field name");
	return H1_MORE;
}

/* A line [line_start, pos) has ended with CRLF. H1_DONE at the empty line. */
static int h1_scan_line(struct h1_scan *s, str_t in, const char **why)
{
	str_t line = str_mk(in.p + s->line_start, s->pos - s->line_start);
	s->pos += 2;
	s->line_start = s->pos;
	if (s->n_lines == 0 && line.n == 0) {
		if (s->start != 0)
			return h1_refuse(why, 400, "malformed request line");
		s->start = s->pos;
		return H1_MORE;
	}
	int rc = h1_scan_check_line_so_far(s, in, why);
	if (rc != H1_MORE)
		return rc;
	if (line.n == 0)
		return H1_DONE;
	if (s->n_lines != 0)
		rc = h1_scan_check_field(line, why);
	unsigned max_fields = s->max_fields != 0 ? s->max_fields : HTTP_MAX_HEADERS;
	if (rc == H1_MORE && ++s->n_lines > max_fields + 1)
		return h1_refuse(why, 431, "too many header fields");
	return rc;
}

int h1_scan_head(struct h1_scan *s, str_t in, const char **why)
{
	while (s->pos < in.n) {
		char c = in.p[s->pos];
		if (LIKELY(!h1_is(c, CH_CTL))) {
			s->pos++;
			continue;
		}
		if (c == '\n')
			return h1_refuse(why, 400, "line feed without carriage return in the header");
		if (c != '\r')
			return h1_refuse(why, 400, "control character in the header");
		if (s->pos + 1 == in.n)
			break;
		if (in.p[s->pos + 1] != '\n')
			return h1_refuse(why, 400, "carriage return without line feed in the header");
		int rc = h1_scan_line(s, in, why);
		if (rc != H1_MORE)
			return rc;
	}
	return h1_scan_check_line_so_far(s, in, why);
}

/* --- the request line (RFC 9112 section 3) --- */

static int h1_parse_version(str_t v, int *minor, const char **why)
{
	if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || v.p[5] < '0' || v.p[5] > '9' || v.p[6] != '.' ||
	    v.p[7] < '0' || v.p[7] > '9')
		return h1_refuse(why, 400, "malformed HTTP version");
	if (v.p[5] != '1' || v.p[7] > '1')
		return h1_refuse(why, 505, "this service speaks HTTP/1.0 and HTTP/1.1");
	*minor = v.p[7] - '0';
	return H1_DONE;
}

static int h1_parse_request_line(str_t line, struct http_request *r, const char **why)
{
	size_t i = 0;
	while (i < line.n && h1_is(line.p[i], CH_TOKEN))
		i++;
	r->method = str_head(line, i);
	if (i == 0 || i == line.n || line.p[i] != ' ')
		return h1_refuse(why, 400, "malformed request line");
	size_t from = ++i;
	while (i < line.n && h1_is(line.p[i], CH_VISIBLE) && line.p[i] != '#')
		i++;
	r->target = str_mk(line.p + from, i - from);
	if (i == from || i == line.n || line.p[i] != ' ')
		return h1_refuse(why, 400, "malformed request target");
	int rc = h1_parse_version(str_skip(line, i + 1), &r->version_minor, why);
	if (rc == H1_DONE && r->target.n > HTTP_MAX_TARGET_BYTES)
		return h1_refuse(why, 414, "the request target is too long");
	return rc;
}

/* --- the header through llhttp --- */

struct h1_fields {
	struct http_header *at;
	size_t n, max;
	bool is_value_begun;
};

static int h1_on_field(llhttp_t *p, const char *at, size_t n)
{
	struct h1_fields *f = p->data;
	if (f->n == f->max)
		return -1;
	f->at[f->n++] = (struct http_header){.name = str_mk(at, n), .value = STR("")};
	f->is_value_begun = false;
	return 0;
}

static int h1_on_value(llhttp_t *p, const char *at, size_t n)
{
	struct h1_fields *f = p->data;
	if (f->n == 0 || f->is_value_begun)
		return -1; /* a value in two pieces is a folded one: the scan has refused it */
	f->is_value_begun = true;
	f->at[f->n - 1].value = str_trim(str_mk(at, n));
	return 0;
}

static int h1_on_headers_complete(llhttp_t *p)
{
	return HPE_PAUSED; /* the body is read by others */
}

static const llhttp_settings_t h1_settings = {
	.on_header_field = h1_on_field,
	.on_header_value = h1_on_value,
	.on_headers_complete = h1_on_headers_complete,
};

static int h1_parse_fields(str_t head, unsigned n_lines, struct arena *arena, struct http_request *r,
			   const char **why)
{
	struct h1_fields f = {.max = n_lines - 1};
	f.at = arena_alloc(arena, (f.max != 0 ? f.max : 1) * sizeof(*f.at));
	llhttp_t p;
	llhttp_init(&p, HTTP_REQUEST, &h1_settings);
	p.data = &f;
	llhttp_errno_t e = llhttp_execute(&p, head.p, head.n);
	if (e == HPE_INVALID_METHOD || e == HPE_INVALID_CONSTANT) /* the latter: a method of RTSP or ICE */
		return h1_refuse(why, 501, "unknown method");
	if (e != HPE_PAUSED) {
		const char *reason = llhttp_get_error_reason(&p);
		return h1_refuse(why, 400, reason != NULL ? reason : "malformed header");
	}
	if (f.n != f.max)
		return h1_refuse(why, 400, "malformed header");
	r->header = f.at;
	r->n_headers = f.n;
	return H1_DONE;
}

/* --- what the fields mean for the connection --- */

/* Transfer codings in the order they were applied (RFC 9112 section 6.1). */
static int h1_take_codings(str_t value, bool *is_chunked, bool *is_unknown, const char **why)
{
	str_t rest = value, item;
	while (str_split(&rest, ',', &item)) {
		item = str_trim(item);
		if (item.n == 0)
			return h1_refuse(why, 400, "malformed Transfer-Encoding");
		if (*is_chunked)
			return h1_refuse(why, 400, "chunked is not the last transfer coding");
		if (str_ieq(item, STR("chunked")))
			*is_chunked = true;
		else
			*is_unknown = true;
	}
	return H1_DONE;
}

static void h1_take_connection(str_t value, bool *is_close, bool *is_keep)
{
	str_t rest = value, item;
	while (str_split(&rest, ',', &item)) {
		item = str_trim(item);
		if (str_ieq(item, STR("close")))
			*is_close = true;
		else if (str_ieq(item, STR("keep-alive")))
			*is_keep = true;
	}
}

static int h1_take_length(str_t value, struct http_framing *f, const char **why)
{
	if (f->has_length)
		return h1_refuse(why, 400, "more than one Content-Length");
	f->has_length = true;
	if (!str_to_u64(value, &f->content_length) || f->content_length > INT64_MAX)
		return h1_refuse(why, 400, "malformed Content-Length");
	return H1_DONE;
}

static int h1_parse_framing(const struct http_request *r, struct http_framing *f, const char **why)
{
	bool has_coding = false, is_unknown = false, is_close = false, is_keep = false;
	unsigned n_hosts = 0;
	str_t host = STR("");
	int rc = H1_DONE;
	for (size_t i = 0; i < r->n_headers && rc == H1_DONE; i++) {
		str_t name = r->header[i].name, value = r->header[i].value;
		switch (name.n) {
		case 4:
			if (str_ieq(name, STR("host"))) {
				n_hosts++;
				host = value;
			}
			break;
		case 6:
			if (!str_ieq(name, STR("expect")) || r->version_minor == 0)
				break;
			if (str_ieq(value, STR("100-continue")))
				f->is_expecting = true;
			else
				f->is_expect_unknown = true;
			break;
		case 10:
			if (str_ieq(name, STR("connection")))
				h1_take_connection(value, &is_close, &is_keep);
			break;
		case 14:
			if (str_ieq(name, STR("content-length")))
				rc = h1_take_length(value, f, why);
			break;
		case 16:
			if (str_ieq(name, STR("content-encoding")))
				f->coding = http_coding_add(f->coding, value);
			break;
		case 17:
			if (!str_ieq(name, STR("transfer-encoding")))
				break;
			has_coding = true;
			rc = h1_take_codings(value, &f->is_chunked, &is_unknown, why);
			break;
		}
	}
	if (rc != H1_DONE)
		return rc;
	if (n_hosts > 1 || (n_hosts == 0 && r->version_minor == 1))
		return h1_refuse(why, 400, n_hosts > 1 ? "more than one Host" : "the Host field is missing");
	if (!http_host_is_good(host))
		return h1_refuse(why, 400, "malformed Host");
	if (has_coding && f->has_length)
		return h1_refuse(why, 400, "both Content-Length and Transfer-Encoding");
	if (has_coding && r->version_minor == 0)
		return h1_refuse(why, 400, "Transfer-Encoding in HTTP/1.0");
	if (has_coding && !f->is_chunked)
		return h1_refuse(why, 400, "chunked is not the last transfer coding");
	if (is_unknown)
		return h1_refuse(why, 501, "unknown transfer coding");
	f->is_keep_alive = !is_close && (r->version_minor == 1 || is_keep);
	return H1_DONE;
}

int h1_parse_head(str_t head, unsigned n_lines, struct arena *arena, struct http_request *r,
		  struct http_framing *f, const char **why)
{
	*f = (struct http_framing){0};
	ptrdiff_t eol = str_chr(head, '\r', 0);
	if (eol < 0 || n_lines == 0)
		panic("a header that was not scanned");
	int rc = h1_parse_request_line(str_head(head, (size_t)eol), r, why);
	if (rc == H1_DONE)
		rc = h1_parse_fields(head, n_lines, arena, r, why);
	if (rc == H1_DONE)
		rc = h1_parse_framing(r, f, why);
	if (rc == H1_DONE)
		rc = http_request_split_target(r, why);
	return rc;
}

/* --- chunked bodies --- */

enum {
	CK_SIZE = 0, /* hex digits */
	CK_EXT,	     /* the rest of the size line: extensions, which nobody reads */
	CK_SIZE_LF,
	CK_DATA,
	CK_DATA_CR,
	CK_DATA_LF,
	CK_TRAILER, /* a trailer line, or the empty line that ends the body */
	CK_TRAILER_LF,
	CK_END_LF,
	CK_DONE,
};

static int h1_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static int h1_chunk_size(struct h1_chunks *d, char c, const char **why)
{
	int v = h1_hex(c);
	if (v >= 0) {
		if (++d->n_digits > 15)
			return h1_refuse(why, 400, "chunk size too large");
		d->left = d->left << 4 | (unsigned)v;
		return H1_MORE;
	}
	if (d->n_digits == 0 || (c != '\r' && c != ';'))
		return h1_refuse(why, 400, "malformed chunk size");
	d->state = c == '\r' ? CK_SIZE_LF : CK_EXT;
	return H1_MORE;
}

/* A byte of a trailer line. Trailers are dropped, but a body must not end in something that is not one. */
static int h1_chunk_trailer(struct h1_chunks *d, char c, const char **why)
{
	if (c == '\r') {
		if (d->line_pos != 0 && !d->has_colon)
			return h1_refuse(why, 400, "malformed trailer");
		d->state = d->line_pos == 0 ? CK_END_LF : CK_TRAILER_LF;
		return H1_MORE;
	}
	bool is_name_end = c == ':' && d->line_pos != 0;
	if (d->has_colon ? h1_is(c, CH_CTL) : !h1_is(c, CH_TOKEN) && !is_name_end)
		return h1_refuse(why, 400, "malformed trailer");
	d->has_colon |= c == ':';
	d->line_pos++;
	return H1_MORE;
}

/* The LF of a line: what comes next. */
static int h1_chunk_line_end(struct h1_chunks *d, char c, const char **why)
{
	if (c != '\n')
		return h1_refuse(why, 400, "carriage return without line feed in a chunked body");
	d->n_digits = 0;
	d->line_pos = 0;
	d->has_colon = false;
	switch (d->state) {
	case CK_SIZE_LF:
		d->state = d->left != 0 ? CK_DATA : CK_TRAILER;
		return H1_MORE;
	case CK_DATA_LF:
		d->state = CK_SIZE;
		return H1_MORE;
	case CK_TRAILER_LF:
		d->state = CK_TRAILER;
		return H1_MORE;
	default:
		d->state = CK_DONE;
		return H1_DONE;
	}
}

/* Any byte that is not data. */
static int h1_chunk_byte(struct h1_chunks *d, char c, const char **why)
{
	switch (d->state) {
	case CK_SIZE:
		return h1_chunk_size(d, c, why);
	case CK_EXT:
	case CK_TRAILER:
		if (++d->n_overhead > HTTP_MAX_CHUNK_EXT_BYTES)
			return h1_refuse(why, 400, "too many chunk extensions or trailers");
		if (d->state == CK_TRAILER)
			return h1_chunk_trailer(d, c, why);
		if (c == '\r')
			d->state = CK_SIZE_LF;
		else if (h1_is(c, CH_CTL))
			return h1_refuse(why, 400, "malformed chunk extension");
		return H1_MORE;
	case CK_DATA_CR:
		if (c != '\r')
			return h1_refuse(why, 400, "chunk data longer than its size");
		d->state = CK_DATA_LF;
		return H1_MORE;
	default:
		return h1_chunk_line_end(d, c, why);
	}
}

int h1_chunks_decode(struct h1_chunks *d, str_t in, size_t *n_used, struct buf *out, uint64_t limit,
		     const char **why)
{
	size_t i = 0;
	int rc = H1_MORE;
	while (i < in.n && rc == H1_MORE) {
		if (d->state == CK_DATA) {
			size_t n = in.n - i < d->left ? in.n - i : (size_t)d->left;
			buf_add(out, in.p + i, n);
			i += n;
			d->left -= n;
			if (d->left == 0)
				d->state = CK_DATA_CR;
			continue;
		}
		bool is_size = d->state == CK_SIZE;
		rc = h1_chunk_byte(d, in.p[i++], why);
		if (is_size && rc == H1_MORE && d->state != CK_SIZE && d->left > limit - out->n)
			rc = h1_refuse(why, 413, HTTP_TOO_LARGE);
	}
	*n_used = i;
	return rc;
}
