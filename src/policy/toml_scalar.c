/* toml_scalar.c - strings, numbers, dates of TOML 1.0. The text is known to be UTF-8 before anything here
 * runs, so only control characters and escapes need checks. A string without escapes is a slice of the text;
 * one with them is decoded into the arena, never longer than its source. */
#include "base/err.h"
#include "base/text.h"
#include "policy/toml_impl.h"

#include <math.h>
#include <stdlib.h>

static bool toml_is_control(unsigned char c)
{
	return (c < 0x20 && c != '\t') || c == 0x7f;
}

/* \uXXXX and \UXXXXXXXX, at stands on the letter. Ten source bytes make at most four. */
static int toml_unicode(struct toml *t, char **w)
{
	size_t n = t->text.p[t->at] == 'u' ? 4 : 8;
	uint32_t c = 0;
	for (size_t i = 1; i <= n; i++) {
		int digit = hex_digit((char)toml_peek(t, i));
		if (digit < 0)
			return toml_fail(t, t->at - 1, "a \\%c escape needs %zu hex digits", t->text.p[t->at],
					 n);
		c = c << 4 | (uint32_t)digit;
	}
	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return toml_fail(t, t->at - 1, "an escape that is no Unicode scalar value");
	*w += utf8_encode(c, *w);
	t->at += n + 1;
	return 0;
}

/* at stands after the backslash. */
static int toml_escape(struct toml *t, bool has_lines, char **w)
{
	static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
	int c = toml_peek(t, 0);
	const char *hit = c > 0 ? strchr(from, c) : NULL;
	if (hit != NULL) {
		*(*w)++ = to[hit - from];
		t->at++;
		return 0;
	}
	if (c == 'u' || c == 'U')
		return toml_unicode(t, w);
	if (has_lines) { /* a backslash at the end of a line eats all blanks up to the next text */
		size_t i = 0;
		while (toml_peek(t, i) == ' ' || toml_peek(t, i) == '\t')
			i++;
		if (toml_peek(t, i) == '\n' || (toml_peek(t, i) == '\r' && toml_peek(t, i + 1) == '\n')) {
			for (;;) {
				c = toml_peek(t, 0);
				bool is_crlf = c == '\r' && toml_peek(t, 1) == '\n';
				if (c != ' ' && c != '\t' && c != '\n' && !is_crlf)
					return 0;
				t->at += is_crlf ? 2 : 1;
			}
		}
	}
	return toml_fail(t, t->at - 1, "an unknown escape");
}

static bool toml_at_line_end(const struct toml *t)
{
	return toml_peek(t, 0) == '\n' || (toml_peek(t, 0) == '\r' && toml_peek(t, 1) == '\n');
}

/* Up to two quotes may stand right before the closing three. */
static bool toml_closes(struct toml *t, char quote, bool is_long, size_t *extra)
{
	*extra = 0;
	if (toml_peek(t, 0) != quote)
		return false;
	if (!is_long)
		return true;
	size_t n = 1;
	while (n < 5 && toml_peek(t, n) == quote)
		n++;
	if (n < 3)
		return false;
	*extra = n - 3;
	return true;
}

int toml_read_string(struct toml *t, bool has_lines, str_t *out)
{
	size_t start = t->at, extra;
	char quote = t->text.p[t->at];
	bool is_long = toml_peek(t, 1) == quote && toml_peek(t, 2) == quote;
	if (is_long && !has_lines)
		return toml_fail(t, start, "a key cannot be a multi-line string");
	t->at += is_long ? 3 : 1;
	if (is_long && toml_at_line_end(t))
		t->at += toml_peek(t, 0) == '\r' ? 2 : 1;
	size_t from = t->at;
	char *copy = NULL, *w = NULL; /* set at the first escape */
	while (!toml_closes(t, quote, is_long, &extra)) {
		int c = toml_peek(t, 0);
		if (c < 0 || (!is_long && toml_at_line_end(t)))
			return toml_fail(t, start, "a string that does not end");
		if (c == '\\' && quote == '"') {
			if (copy == NULL) {
				/* No escape is longer decoded than written. */
				size_t span = t->at - from, end = t->at;
				while (end < t->text.n && !str_starts(str_skip(t->text, end),
								      is_long ? STR("\"\"\"") : STR("\"")))
					end += t->text.p[end] == '\\' ? 2 : 1;
				copy = w = arena_alloc(&t->arena, end - from + 8);
				memcpy(w, t->text.p + from, span);
				w += span;
			}
			t->at++;
			if (toml_escape(t, is_long, &w) != 0)
				return -1;
			continue;
		}
		bool is_newline = is_long && toml_at_line_end(t);
		if (toml_is_control((unsigned char)c) && !is_newline)
			return toml_fail(t, t->at, "a control character (0x%02x) in a string", (unsigned)c);
		for (int k = is_newline && c == '\r' ? 2 : 1; k > 0; k--, t->at++)
			if (copy != NULL)
				*w++ = t->text.p[t->at];
	}
	for (size_t i = 0; i < extra; i++, t->at++)
		if (copy != NULL)
			*w++ = quote;
	*out = copy != NULL ? str_mk(copy, (size_t)(w - copy)) : str_mk(t->text.p + from, t->at - from);
	t->at += is_long ? 3 : 1;
	return 0;
}

/* --- dates and times (RFC 3339 section 5.6, with the parts alone as well) --- */

static bool toml_digits(str_t s, size_t at, size_t n, unsigned *out)
{
	*out = 0;
	if (at + n > s.n)
		return false;
	for (size_t i = at; i < at + n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		*out = *out * 10 + (unsigned)(s.p[i] - '0');
	}
	return true;
}

static bool toml_is_date(str_t s)
{
	static const uint8_t days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	unsigned y, m, d;
	if (s.n < 10 || !toml_digits(s, 0, 4, &y) || s.p[4] != '-' || !toml_digits(s, 5, 2, &m) ||
	    s.p[7] != '-' || !toml_digits(s, 8, 2, &d) || m < 1 || m > 12 || d < 1 || d > days[m - 1])
		return false;
	bool is_leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
	return m != 2 || d < 29 || is_leap;
}

/* hh:mm:ss[.frac]; *n is its length. */
static bool toml_is_time(str_t s, size_t *n)
{
	unsigned h, m, sec;
	if (s.n < 8 || !toml_digits(s, 0, 2, &h) || s.p[2] != ':' || !toml_digits(s, 3, 2, &m) ||
	    s.p[5] != ':' || !toml_digits(s, 6, 2, &sec) || h > 23 || m > 59 || sec > 60)
		return false;
	*n = 8;
	if (s.n > 8 && s.p[8] == '.') {
		for (*n = 9; *n < s.n && s.p[*n] >= '0' && s.p[*n] <= '9'; ++*n)
			;
		return *n > 9;
	}
	return true;
}

static bool toml_is_offset(str_t s)
{
	unsigned h, m;
	if (s.n == 1)
		return s.p[0] == 'Z' || s.p[0] == 'z';
	return s.n == 6 && (s.p[0] == '+' || s.p[0] == '-') && toml_digits(s, 1, 2, &h) && s.p[3] == ':' &&
	       toml_digits(s, 4, 2, &m) && h < 24 && m < 60;
}

static bool toml_is_datetime(str_t s)
{
	size_t n;
	if (s.n >= 3 && s.p[2] == ':')
		return toml_is_time(s, &n) && n == s.n;
	if (!toml_is_date(s))
		return false;
	if (s.n == 10)
		return true;
	if (strchr("Tt ", s.p[10]) == NULL || !toml_is_time(str_skip(s, 11), &n))
		return false;
	str_t offset = str_skip(s, 11 + n);
	return offset.n == 0 || toml_is_offset(offset);
}

/* --- numbers --- */

/* Copies digits without the underscores between them; returns where it stopped, or -1 on a misplaced
 * underscore. */
static ptrdiff_t toml_take_digits(str_t s, size_t at, const char *set, char **w)
{
	size_t from = at;
	while (at < s.n && s.p[at] != 0) {
		if (s.p[at] == '_') {
			if (at == from || s.p[at - 1] == '_' || at + 1 >= s.n || s.p[at + 1] == 0 ||
			    strchr(set, s.p[at + 1]) == NULL)
				return -1;
		} else if (strchr(set, s.p[at]) != NULL) {
			*(*w)++ = s.p[at];
		} else {
			break;
		}
		at++;
	}
	return at == from ? -1 : (ptrdiff_t)at;
}

static json_t *toml_based(struct toml *t, size_t start, str_t s)
{
	static const char hex[] = "0123456789abcdefABCDEF", octal[] = "01234567", binary[] = "01";
	const char *set = s.p[1] == 'x' ? hex : s.p[1] == 'o' ? octal : binary;
	unsigned shift = s.p[1] == 'x' ? 4 : s.p[1] == 'o' ? 3 : 1;
	char *digits = arena_alloc(&t->arena, s.n), *w = digits;
	uint64_t v = 0;
	if (toml_take_digits(s, 2, set, &w) != (ptrdiff_t)s.n) {
		toml_fail(t, start, "a malformed number");
		return NULL;
	}
	for (const char *p = digits; p < w; p++) {
		unsigned d = *p <= '9' ? (unsigned)(*p - '0') : (unsigned)((*p | 0x20) - 'a' + 10);
		if (v >> (63 - shift) != 0) {
			toml_fail(t, start, "a number beyond 64 bits");
			return NULL;
		}
		v = v << shift | d;
	}
	return value_must(json_integer((json_int_t)v));
}

static json_t *toml_number(struct toml *t, size_t start, str_t s)
{
	static const char decimal[] = "0123456789";
	char *clean = arena_alloc(&t->arena, s.n + 1), *w = clean;
	bool is_float = false;
	size_t at = 0;
	if (s.n > 2 && s.p[0] == '0' && (s.p[1] == 'x' || s.p[1] == 'o' || s.p[1] == 'b'))
		return toml_based(t, start, s);
	if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+')) {
		if (s.p[0] == '-')
			*w++ = '-';
		at++;
	}
	char *first = w;
	ptrdiff_t end = toml_take_digits(s, at, decimal, &w);
	if (end < 0 || (*first == '0' && w - first > 1)) /* no leading zeroes */
		goto bad;
	at = (size_t)end;
	if (at < s.n && s.p[at] == '.') {
		is_float = true;
		*w++ = '.';
		if ((end = toml_take_digits(s, at + 1, decimal, &w)) < 0)
			goto bad;
		at = (size_t)end;
	}
	if (at < s.n && (s.p[at] == 'e' || s.p[at] == 'E')) {
		is_float = true;
		*w++ = 'e';
		at++;
		if (at < s.n && (s.p[at] == '-' || s.p[at] == '+'))
			*w++ = s.p[at++];
		if ((end = toml_take_digits(s, at, decimal, &w)) < 0)
			goto bad;
		at = (size_t)end;
	}
	if (at != s.n)
		goto bad;
	*w = 0;
	if (is_float) {
		double d = strtod(clean, NULL);
		if (isfinite(d))
			return value_must(json_real(d));
		toml_fail(t, start, "a number beyond the range of a float");
		return NULL;
	}
	int64_t v;
	if (str_to_i64(str_mk(clean, (size_t)(w - clean)), &v))
		return value_must(json_integer(v));
	toml_fail(t, start, "a number beyond 64 bits");
	return NULL;
bad:
	toml_fail(t, start, s.n != 0 ? "a malformed value" : "a value is missing");
	return NULL;
}

json_t *toml_read_plain(struct toml *t)
{
	static const char set[] = "0123456789+-_.:abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	size_t start = t->at;
	for (int c; (c = toml_peek(t, 0)) > 0 && strchr(set, c) != NULL;)
		t->at++;
	str_t s = str_mk(t->text.p + start, t->at - start);
	/* A date may be parted from its time by one blank. */
	if (s.n == 10 && s.p[4] == '-' && toml_peek(t, 0) == ' ' && toml_peek(t, 1) >= '0' &&
	    toml_peek(t, 1) <= '9' && toml_peek(t, 3) == ':') {
		t->at++;
		for (int c; (c = toml_peek(t, 0)) > 0 && strchr(set, c) != NULL;)
			t->at++;
		s.n = t->at - start;
	}
	if (str_eq(s, STR("true")) || str_eq(s, STR("false")))
		return json_boolean(s.p[0] == 't');
	str_t word = s.n > 0 && (s.p[0] == '+' || s.p[0] == '-') ? str_skip(s, 1) : s;
	if (str_eq(word, STR("inf")) || str_eq(word, STR("nan"))) {
		toml_fail(t, start, "a number that is not finite");
		return NULL;
	}
	unsigned n;
	if ((s.n > 4 && s.p[4] == '-' && toml_digits(s, 0, 4, &n)) || (s.n > 2 && s.p[2] == ':')) {
		if (toml_is_datetime(s))
			return value_must(json_stringn_nocheck(s.p, s.n));
		toml_fail(t, start, "a malformed date or time");
		return NULL;
	}
	return toml_number(t, start, s);
}
