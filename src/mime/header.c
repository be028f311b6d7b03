/* header.c - iteration over header fields, unfolding, RFC 2047, line ends. A line ends at LF; a CR before it
 * belongs to the line end. A section ends at the first empty line, at the end of the bytes, or at a line that
 * is neither a field nor a fold. Encoded words that stand next to each other in one charset and are parted by
 * blanks only are joined before conversion, because senders split multi-byte characters between them. A run
 * that does not convert, or would bring in NUL, CR or LF, stays as written. */
#include "mime/header.h"

#include "base/text.h"
#include "mime/charset.h"

#define HEADER_NAME_MAX 200

/* ---- fields ---- */

/* Cuts the next line, with its end, off *rest. */
static str_t line_next(str_t *rest)
{
	const char *nl = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
	size_t n = nl != NULL ? (size_t)(nl - rest->p) + 1 : rest->n;
	str_t line = str_mk(rest->p, n);
	*rest = str_skip(*rest, n);
	return line;
}

static str_t line_chop(str_t line)
{
	if (line.n > 0 && line.p[line.n - 1] == '\n')
		line.n--;
	if (line.n > 0 && line.p[line.n - 1] == '\r')
		line.n--;
	return line;
}

void header_iter_init(struct header_iter *it, str_t bytes)
{
	*it = (struct header_iter){.rest = bytes};
}

bool header_next(struct header_iter *it, struct header_field *out)
{
	str_t rest = it->rest, line = line_next(&rest), text = line_chop(line);
	if (text.n == 0 || it->is_malformed)
		return false; /* the empty line stays in it->rest */
	size_t n_name = 0;
	while (n_name < text.n && text.p[n_name] > 32 && text.p[n_name] < 127 && text.p[n_name] != ':')
		n_name++;
	size_t colon = n_name; /* blanks before the colon: obs-optional, RFC 5322 section 4.5 */
	while (colon < text.n && (text.p[colon] == ' ' || text.p[colon] == '\t'))
		colon++;
	if (n_name == 0 || colon == text.n || text.p[colon] != ':') {
		it->is_malformed = true;
		return false;
	}
	size_t n_whole = line.n;
	while (rest.n > 0 && (rest.p[0] == ' ' || rest.p[0] == '\t'))
		n_whole += line_next(&rest).n;
	out->name = str_head(line, n_name);
	out->whole = str_mk(line.p, n_whole);
	out->raw_value = line_chop(str_skip(out->whole, colon + 1));
	it->rest = rest;
	return true;
}

bool header_name_is_valid(str_t name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] <= ' ' || name.p[i] >= 0x7f || name.p[i] == ':')
			return false;
	return name.n > 0 && name.n <= HEADER_NAME_MAX;
}

size_t header_section_end(str_t bytes)
{
	str_t rest = bytes;
	while (rest.n > 0) {
		str_t line = line_next(&rest);
		if (line.p[line.n - 1] == '\n' && line_chop(line).n == 0)
			return (size_t)(rest.p - bytes.p);
	}
	return bytes.n;
}

/* ---- decoding ---- */

struct word {
	str_t charset; /* without the language tag of RFC 2231 section 5 */
	char encoding; /* 'q' or 'b' */
	str_t text;
	size_t n; /* of the whole word */
};

static bool word_parse(str_t s, struct word *out)
{
	if (!str_starts(s, STR("=?")))
		return false;
	ptrdiff_t q1 = str_chr(s, '?', 2);
	if (q1 <= 2 || (size_t)q1 + 3 >= s.n || s.p[q1 + 2] != '?')
		return false;
	ptrdiff_t q2 = str_chr(s, '?', (size_t)q1 + 3);
	if (q2 < 0 || (size_t)q2 + 1 >= s.n || s.p[q2 + 1] != '=')
		return false;
	*out = (struct word){.charset = str_mk(s.p + 2, (size_t)q1 - 2),
			     .encoding = (char)(s.p[q1 + 1] | 32),
			     .text = str_mk(s.p + q1 + 3, (size_t)(q2 - q1 - 3)),
			     .n = (size_t)q2 + 2};
	ptrdiff_t star = str_chr(out->charset, '*', 0);
	if (star >= 0)
		out->charset.n = (size_t)star;
	if (!charset_is_name(out->charset) || (out->encoding != 'q' && out->encoding != 'b'))
		return false;
	for (size_t i = 0; i < out->text.n; i++) {
		if (out->text.p[i] <= 32 || out->text.p[i] == 127)
			return false;
	}
	return true;
}

static bool word_bytes(const struct word *w, struct buf *out)
{
	if (w->encoding == 'b') {
		size_t before = out->n;
		if (base64_decode(out, w->text))
			return true;
		buf_truncate(out, before);
		if (w->text.n % 4 == 0 || str_chr(w->text, '=', 0) >= 0)
			return false;
		struct buf padded = BUF_INIT; /* missing padding is common and harmless */
		buf_add_str(&padded, w->text);
		while (padded.n % 4 != 0)
			buf_add_c(&padded, '=');
		bool is_ok = base64_decode(out, buf_str(&padded));
		buf_fini(&padded);
		return is_ok;
	}
	for (size_t i = 0; i < w->text.n; i++) {
		char c = w->text.p[i];
		if (c == '=') {
			char esc[3] = {'%', 0, 0};
			if (i + 2 >= w->text.n)
				return false;
			esc[1] = w->text.p[i + 1], esc[2] = w->text.p[i + 2];
			if (!percent_decode(out, str_mk(esc, 3)))
				return false;
			i += 2;
		} else {
			buf_add_c(out, c == '_' ? ' ' : c);
		}
	}
	return true;
}

static size_t count_blanks(str_t s)
{
	size_t n = 0;
	while (n < s.n && (s.p[n] == ' ' || s.p[n] == '\t'))
		n++;
	return n;
}

/* The run of joined words at the start of s. Returns its length, 0 when there is none; appends to out when it
 * decodes. */
static size_t words_decode(str_t s, struct buf *out, bool *is_decoded)
{
	struct word first, w;
	if (!word_parse(s, &first))
		return 0;
	struct buf raw = BUF_INIT, utf8 = BUF_INIT;
	size_t n = first.n;
	bool is_ok = word_bytes(&first, &raw);
	while (is_ok) {
		size_t blanks = count_blanks(str_skip(s, n));
		if (blanks == 0 || !word_parse(str_skip(s, n + blanks), &w) ||
		    !str_ieq(w.charset, first.charset))
			break;
		is_ok = word_bytes(&w, &raw);
		n += blanks + w.n;
	}
	is_ok = is_ok && charset_to_utf8(first.charset, buf_str(&raw), &utf8);
	for (size_t i = 0; is_ok && i < utf8.n; i++)
		is_ok = utf8.p[i] != 0 && utf8.p[i] != '\r' && utf8.p[i] != '\n';
	if (is_ok)
		buf_add_str(out, buf_str(&utf8));
	buf_fini(&raw);
	buf_fini(&utf8);
	*is_decoded = is_ok;
	return n;
}

void header_unfold(str_t raw, struct buf *out)
{
	str_t rest = raw;
	while (rest.n > 0)
		buf_add_str(out, line_chop(line_next(&rest)));
}

void header_decode(str_t raw_value, struct buf *out)
{
	struct buf line = BUF_INIT;
	header_unfold(raw_value, &line);
	str_t s = str_trim(buf_str(&line));
	size_t blanks = 0; /* held back: between two decoded words they are not text (RFC 2047 section 6.2) */
	while (s.n > 0) {
		bool is_decoded = false, was_held = blanks > 0;
		size_t mark = out->n, n = words_decode(s, out, &is_decoded);
		if (was_held && !is_decoded) {
			buf_truncate(out, mark);
			buf_add(out, s.p - blanks, blanks);
		}
		blanks = 0;
		if (n == 0) {
			ptrdiff_t next = str_chr(s, '=', 1);
			n = next < 0 ? s.n : (size_t)next;
		}
		if (!is_decoded)
			buf_add(out, s.p, n);
		s = str_skip(s, n);
		if (is_decoded) {
			struct word w;
			blanks = count_blanks(s);
			if (word_parse(str_skip(s, blanks), &w))
				s = str_skip(s, blanks);
			else
				blanks = 0;
		}
	}
	buf_fini(&line);
}

void header_decode_lenient(str_t raw_value, struct buf *out)
{
	struct buf utf8 = BUF_INIT;
	if (str_is_utf8(raw_value)) {
		header_decode(raw_value, out);
		return;
	}
	charset_to_utf8_lenient(STR(""), raw_value, &utf8);
	header_decode(buf_str(&utf8), out);
	buf_fini(&utf8);
}

/* ---- line ends ---- */

static bool text_is_crlf(str_t in)
{
	if (in.n == 0)
		return true;
	const char *p = in.p, *end = in.p + in.n;
	for (const char *at = p; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) {
		if (at == p || at[-1] != '\r')
			return false;
	}
	for (const char *at = p; (at = memchr(at, '\r', (size_t)(end - at))) != NULL; at++) {
		if (at + 1 == end || at[1] != '\n')
			return false;
	}
	return true;
}

/** What is before the line end, and CRLF. */
static void text_add_line(const char *start, const char *end, struct buf *out)
{
	buf_add(out, start, (size_t)(end - start));
	buf_add(out, "\r\n", 2);
}

bool text_normalise_crlf(str_t in, struct buf *out)
{
	if (text_is_crlf(in))
		return false;
	buf_reserve(out, in.n + in.n / 32 + 2);
	const char *p = in.p, *end = in.p + in.n;
	while (p < end) {
		const char *lf = memchr(p, '\n', (size_t)(end - p)), *cr;
		const char *stop = lf != NULL ? lf : end;
		while ((cr = memchr(p, '\r', (size_t)(stop - p))) != NULL && cr + 1 != lf) {
			text_add_line(p, cr, out);
			p = cr + 1;
		}
		if (lf == NULL)
			break;
		text_add_line(p, cr != NULL ? cr : lf, out);
		p = lf + 1;
	}
	buf_add(out, p, (size_t)(end - p));
	return true;
}
