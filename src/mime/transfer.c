/* transfer.c - one pass to see what the bytes need, then the encoding. Quoted-printable ends lines softly
 * before column 76 and encodes a blank before a line end (RFC 2045 section 6.7 (3)); it never makes "=_",
 * which our boundaries have, nor a line that begins with "--". */
#include "mime/transfer.h"

#include "base/text.h"
#include "mime/header.h"

#define QP_COLUMNS 76
#define BASE64_LINE_BYTES 57 /* 76 columns */

const char *transfer_name(enum transfer_encoding e)
{
	static const char *const name[] = {"7bit", "8bit", "binary", "quoted-printable", "base64"};
	return name[e];
}

bool transfer_parse(str_t name, enum transfer_encoding *out)
{
	for (int e = TRANSFER_7BIT; e <= TRANSFER_BASE64; e++) {
		if (str_ieq(name, str_of(transfer_name((enum transfer_encoding)e)))) {
			*out = (enum transfer_encoding)e;
			return true;
		}
	}
	return false;
}

static bool bytes_are_ascii(str_t s)
{
	unsigned char any = 0;
	for (size_t i = 0; i < s.n; i++)
		any |= (unsigned char)s.p[i];
	return any < 0x80;
}

/* Lines of text that may end with CR, LF or CRLF; each byte is looked at a bounded number of times. */
struct line_scan {
	const char *p, *end;
	const char *lf; /* the next one at or after p; end when there is none */
	bool has_cr;
};

static struct line_scan line_scan_of(str_t s)
{
	struct line_scan l = {s.p, s.p + s.n, s.p, false};
	l.has_cr = s.n > 0 && memchr(s.p, '\r', s.n) != NULL;
	l.lf = s.n > 0 ? memchr(s.p, '\n', s.n) : NULL;
	l.lf = l.lf != NULL ? l.lf : l.end;
	return l;
}

static bool line_scan_next(struct line_scan *l, str_t *line)
{
	if (l->p == l->end)
		return false;
	const char *start = l->p, *cr = l->has_cr ? memchr(start, '\r', (size_t)(l->lf - start)) : NULL;
	*line = str_mk(start, (size_t)((cr != NULL ? cr : l->lf) - start));
	if (cr != NULL && cr + 1 != l->lf) {
		l->p = cr + 1;
		return true;
	}
	l->p = l->lf < l->end ? l->lf + 1 : l->end;
	l->lf = memchr(l->p, '\n', (size_t)(l->end - l->p));
	l->lf = l->lf != NULL ? l->lf : l->end;
	return true;
}

struct transfer_scan transfer_scan(str_t bytes)
{
	struct transfer_scan scan = {.is_ascii = bytes_are_ascii(bytes), .is_canonical = true};
	if (bytes.n == 0)
		return scan;
	scan.has_nul = memchr(bytes.p, 0, bytes.n) != NULL;
	struct line_scan lines = line_scan_of(bytes);
	for (str_t line; line_scan_next(&lines, &line);) {
		if (line.n > scan.longest_line)
			scan.longest_line = line.n;
		if (line.n >= 2 && line.p[0] == '-' && line.p[1] == '-')
			scan.has_dash_line = true;
		const char *end = line.p + line.n;
		if (lines.p - end == 1) /* a line end of one byte */
			scan.is_canonical = false;
	}
	return scan;
}

static bool qp_is_literal(unsigned char c)
{
	return (c >= 33 && c <= 126 && c != '=') || c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

enum transfer_encoding transfer_for_text(str_t text, const struct transfer_scan *scan, size_t longest)
{
	if (scan->is_ascii && !scan->has_nul && scan->longest_line <= longest)
		return TRANSFER_7BIT;
	size_t n_escaped = 0;
	for (size_t i = 0; i < text.n; i++)
		n_escaped += !qp_is_literal((unsigned char)text.p[i]);
	return n_escaped * 2 <= text.n / 3 ? TRANSFER_QP : TRANSFER_BASE64;
}

/* Without the line end. */
static void qp_encode_line(str_t line, struct buf *out)
{
	static const char hex[] = "0123456789ABCDEF";
	buf_reserve(out, line.n * 3 + line.n / 24 * 3 + 8);
	char *to = out->p + out->n, *start = to;
	for (size_t i = 0; i < line.n; i++) {
		unsigned char c = (unsigned char)line.p[i];
		bool is_last = i + 1 == line.n;
		bool is_dash = i == 0 && c == '-' && !is_last && line.p[1] == '-'; /* no boundary */
		bool is_plain = qp_is_literal(c) && c != '\r' && c != '\n' &&
				!(is_last && (c == ' ' || c == '\t')) && !is_dash;
		/* One column stays free for the `=` of a soft line end, which the last byte does not need. */
		if (to - start + (is_plain ? 1 : 3) > QP_COLUMNS - !is_last) {
			memcpy(to, "=\r\n", 3);
			start = to += 3;
		}
		if (is_plain) {
			*to++ = (char)c;
		} else {
			*to++ = '=';
			*to++ = hex[c >> 4];
			*to++ = hex[c & 15];
		}
	}
	*to = 0;
	out->n = (size_t)(to - out->p);
}

static void qp_encode(str_t text, struct buf *out)
{
	struct line_scan lines = line_scan_of(text);
	for (str_t line; line_scan_next(&lines, &line);) {
		qp_encode_line(line, out);
		if (lines.p > line.p + line.n) /* the last line may have no end */
			buf_add(out, "\r\n", 2);
	}
}

void transfer_encode_base64(str_t bytes, struct buf *out)
{
	buf_reserve(out, bytes.n / BASE64_LINE_BYTES * 78 + 80);
	while (bytes.n > 0) {
		base64_encode(out, str_head(bytes, BASE64_LINE_BYTES));
		bytes = str_skip(bytes, BASE64_LINE_BYTES);
		if (bytes.n > 0)
			buf_add(out, "\r\n", 2);
	}
}

void transfer_encode_text(enum transfer_encoding e, str_t text, struct buf *out)
{
	if (e == TRANSFER_QP) {
		qp_encode(text, out);
	} else if (e == TRANSFER_BASE64) {
		struct buf crlf = BUF_INIT;
		transfer_encode_base64(text_normalise_crlf(text, &crlf) ? buf_str(&crlf) : text, out);
		buf_fini(&crlf);
	} else if (!text_normalise_crlf(text, out)) {
		buf_add_str(out, text);
	}
}

/* ---- decoding ---- */

static int base64_digit(unsigned char c)
{
	return c >= 'A' && c <= 'Z'   ? c - 'A'
	       : c >= 'a' && c <= 'z' ? c - 'a' + 26
	       : c >= '0' && c <= '9' ? c - '0' + 52
	       : c == '+'	      ? 62
	       : c == '/'	      ? 63
				      : -1;
}

/* Padding ends a group, wherever it stands: some concatenate encoded texts. */
static void base64_decode_lenient(str_t raw, struct buf *out)
{
	uint32_t bits = 0;
	unsigned n_bits = 0;
	buf_reserve(out, raw.n / 4 * 3 + 3);
	char *to = out->p + out->n;
	for (size_t i = 0; i < raw.n; i++) {
		int v = base64_digit((unsigned char)raw.p[i]);
		if (raw.p[i] == '=')
			n_bits = 0;
		if (v < 0)
			continue;
		bits = bits << 6 | (uint32_t)v;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			*to++ = (char)(bits >> n_bits & 0xff);
		}
	}
	*to = 0;
	out->n = (size_t)(to - out->p);
}

/* One line without its end. Returns false when the end of the line is soft. */
static bool qp_decode_line(str_t line, struct buf *out)
{
	while (line.n > 0 && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\t'))
		line.n--;
	bool is_soft = line.n > 0 && line.p[line.n - 1] == '=';
	line.n -= is_soft;
	buf_reserve(out, line.n);
	for (size_t i = 0; i < line.n; i++) {
		int high = line.p[i] == '=' && i + 2 < line.n ? hex_digit(line.p[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(line.p[i + 2]) : -1;
		if (low >= 0) {
			buf_add_c(out, (char)(high * 16 + low));
			i += 2;
		} else {
			buf_add_c(out, line.p[i]);
		}
	}
	return !is_soft;
}

static void qp_decode(str_t raw, struct buf *out)
{
	struct line_scan lines = line_scan_of(raw);
	for (str_t line; line_scan_next(&lines, &line);) {
		const char *end = line.p + line.n;
		if (qp_decode_line(line, out))
			buf_add(out, end, (size_t)(lines.p - end)); /* the line end as it is */
	}
}

void transfer_decode(enum transfer_encoding e, str_t raw, struct buf *out)
{
	if (e == TRANSFER_BASE64)
		base64_decode_lenient(raw, out);
	else if (e == TRANSFER_QP)
		qp_decode(raw, out);
	else
		buf_add_str(out, raw);
}
