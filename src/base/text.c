/* text.c - encodings of bytes as text, and doubles as decimal digits.
 * CRC-32C takes the SSE4.2 instruction where the CPU has it, else eight tables of 256 (slicing by 8), built
 * at load time from the reflected polynomial 0x82f63b78. Doubles: printf with 15, 16 and 17 significant
 * digits, the first that reads back equal wins; whole numbers, by far the most common values, skip that. */
#include "base/text_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- base64, hex, percent ---- */

void base64_encode(struct buf *out, str_t in)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)in.p;
	size_t left = in.n;
	buf_reserve(out, in.n / 3 * 4 + 4);
	char *to = out->p + out->n;
	for (; left >= 3; p += 3, left -= 3) {
		*to++ = digit[p[0] >> 2];
		*to++ = digit[(p[0] & 3) << 4 | p[1] >> 4];
		*to++ = digit[(p[1] & 15) << 2 | p[2] >> 6];
		*to++ = digit[p[2] & 63];
	}
	if (left != 0) {
		*to++ = digit[p[0] >> 2];
		*to++ = digit[(p[0] & 3) << 4 | (left == 2 ? p[1] >> 4 : 0)];
		*to++ = left == 2 ? digit[(p[1] & 15) << 2] : '=';
		*to++ = '=';
	}
	*to = 0;
	out->n = (size_t)(to - out->p);
}

/* The value of each digit plus one, so that 0 marks what is none. */
static const uint8_t base64_value[256] = {
	['A'] = 1,  ['B'] = 2,	['C'] = 3,  ['D'] = 4,	['E'] = 5,  ['F'] = 6,	['G'] = 7,  ['H'] = 8,
	['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
	['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
	['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
	['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
	['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
	['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
	['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

static int base64_digit(char c)
{
	return base64_value[(unsigned char)c] - 1;
}

/* Strict is: length a multiple of 4, padding only at the end, and no stray bits in the last digit, so that
 * one text has one meaning (RFC 4648 section 3.5). */
bool base64_decode(struct buf *out, str_t in)
{
	if (in.n % 4 != 0)
		return false;
	buf_reserve(out, in.n / 4 * 3);
	char *to = out->p + out->n;
	size_t n_pad = 0;
	for (size_t i = 0; i < in.n; i += 4) {
		const char *p = in.p + i;
		if (i + 4 == in.n && p[3] == '=')
			n_pad = p[2] == '=' ? 2 : 1;
		int a = base64_digit(p[0]), b = base64_digit(p[1]);
		int c = n_pad == 2 ? 0 : base64_digit(p[2]), d = n_pad != 0 ? 0 : base64_digit(p[3]);
		if ((a | b | c | d) < 0 || (n_pad == 2 && (b & 15) != 0) || (n_pad == 1 && (c & 3) != 0))
			return false;
		*to++ = (char)(a << 2 | b >> 4);
		*to++ = (char)((b & 15) << 4 | c >> 2);
		*to++ = (char)((c & 3) << 6 | d);
	}
	to -= n_pad;
	*to = 0;
	out->n = (size_t)(to - out->p);
	return true;
}

int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t utf8_encode(uint32_t c, char out[4])
{
	static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(lead[n] | c);
	return n;
}

void hex_encode(struct buf *out, str_t in)
{
	static const char digit[] = "0123456789abcdef";
	buf_reserve(out, in.n * 2);
	for (size_t i = 0; i < in.n; i++) {
		unsigned char c = (unsigned char)in.p[i];
		char two[2] = {digit[c >> 4], digit[c & 15]};
		buf_add(out, two, 2);
	}
}

bool percent_decode(struct buf *out, str_t in)
{
	buf_reserve(out, in.n);
	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] != '%') {
			buf_add_c(out, in.p[i]);
			continue;
		}
		int hi = in.n - i > 2 ? hex_digit(in.p[i + 1]) : -1,
		    lo = in.n - i > 2 ? hex_digit(in.p[i + 2]) : -1;
		if (hi < 0 || lo < 0)
			return false;
		buf_add_c(out, (char)(hi << 4 | lo));
		i += 2;
	}
	return true;
}

/* ---- CRC-32C ---- */

static uint32_t crc32c_table[8][256];

static __attribute__((constructor)) void crc32c_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
		crc32c_table[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++) {
		for (int t = 1; t < 8; t++)
			crc32c_table[t][i] =
				crc32c_table[t - 1][i] >> 8 ^ crc32c_table[0][crc32c_table[t - 1][i] & 255];
	}
}

uint32_t crc32c_by_table(uint32_t crc, const void *p, size_t n_bytes)
{
	const unsigned char *at = p;
	crc = ~crc;
	for (; n_bytes >= 8; n_bytes -= 8, at += 8) {
		uint32_t lo = crc ^ ((uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
				     (uint32_t)at[3] << 24);
		crc = crc32c_table[7][lo & 255] ^ crc32c_table[6][lo >> 8 & 255] ^
		      crc32c_table[5][lo >> 16 & 255] ^ crc32c_table[4][lo >> 24] ^ crc32c_table[3][at[4]] ^
		      crc32c_table[2][at[5]] ^ crc32c_table[1][at[6]] ^ crc32c_table[0][at[7]];
	}
	while (n_bytes-- != 0)
		crc = crc >> 8 ^ crc32c_table[0][(crc ^ *at++) & 255];
	return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *p, size_t n_bytes)
{
	const unsigned char *at = p;
	uint64_t wide = ~crc;
	for (; n_bytes >= 8; n_bytes -= 8, at += 8) {
		uint64_t word;
		memcpy(&word, at, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	crc = (uint32_t)wide;
	while (n_bytes-- != 0)
		crc = __builtin_ia32_crc32qi(crc, *at++);
	return ~crc;
}

bool crc32c_by_cpu(uint32_t *crc, const void *p, size_t n_bytes)
{
	if (!__builtin_cpu_supports("sse4.2"))
		return false;
	*crc = crc32c_sse42(*crc, p, n_bytes);
	return true;
}
#else
bool crc32c_by_cpu(uint32_t *crc, const void *p, size_t n_bytes)
{
	return false;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n_bytes)
{
	return LIKELY(crc32c_by_cpu(&crc, p, n_bytes)) ? crc : crc32c_by_table(crc, p, n_bytes);
}

/* ---- doubles ---- */

static void double_digits_of_int(uint64_t i, struct double_digits *out)
{
	char text[20], *p = text + sizeof(text);
	do
		*--p = (char)('0' + i % 10);
	while ((i /= 10) > 0);
	out->n = (int)(text + sizeof(text) - p);
	memcpy(out->d, p, (size_t)out->n);
}

/* What people write: an integer, or one with a few decimals. With at most 15 digits the first decimal that
 * reads back as v is the shortest one, and dividing by an exact power of ten is how it is read. */
static bool double_digits_of_short(double v, struct double_digits *out)
{
	static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
	for (int k = 0; k < (int)ARRAY_SIZE(powers); k++) {
		double m = round(v * powers[k]);
		if (m >= 1e15)
			return false;
		if (m / powers[k] != v)
			continue;
		double_digits_of_int((uint64_t)m, out);
		out->exp10 = out->n - k;
		return true;
	}
	return false;
}

void double_digits_of(double v, struct double_digits *out)
{
	char text[40];
	*out = (struct double_digits){.is_negative = signbit(v) != 0};
	v = fabs(v);
	if (!double_digits_of_short(v, out)) {
		for (int precision = 14; precision <= 16; precision++) {
			snprintf(text, sizeof(text), "%.*e", precision, v);
			if (precision == 16 || strtod(text, NULL) == v)
				break;
		}
		/* d.ddd...e[+-]xx */
		char *e = strchr(text, 'e');
		if (e == NULL)
			panic("double_digits_of: not finite");
		out->d[0] = text[0];
		memcpy(out->d + 1, text + 2, (size_t)(e - text) - 2);
		out->n = (int)(e - text) - 1;
		out->exp10 = (int)strtol(e + 1, NULL, 10) + 1;
	}
	while (out->n > 1 && out->d[out->n - 1] == '0')
		out->n--;
	out->d[out->n] = 0;
}

static void double_add_zeros(struct buf *out, int n)
{
	for (int i = 0; i < n; i++)
		buf_add_c(out, '0');
}

/* The digits with the point where exp10 puts it. */
static void double_add_positional(struct buf *out, const struct double_digits *d)
{
	size_t n = (size_t)d->n;
	if (d->exp10 <= 0) {
		buf_add(out, "0.", 2);
		double_add_zeros(out, -d->exp10);
		buf_add(out, d->d, n);
	} else if (d->exp10 >= d->n) {
		buf_add(out, d->d, n);
		double_add_zeros(out, d->exp10 - d->n);
	} else {
		buf_add(out, d->d, (size_t)d->exp10);
		buf_add_c(out, '.');
		buf_add(out, d->d + d->exp10, n - (size_t)d->exp10);
	}
}

void double_fmt_plain(struct buf *out, double v)
{
	struct double_digits d;
	if (!isfinite(v)) {
		buf_add_z(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
		return;
	}
	double_digits_of(v, &d);
	if (d.is_negative && v != 0)
		buf_add_c(out, '-');
	double_add_positional(out, &d);
}

/* Positional from 1e-5 up to below 1e16, the range in which that is the shorter form or nearly so. */
void double_fmt_json(struct buf *out, double v)
{
	struct double_digits d;
	double_digits_of(v, &d);
	if (d.is_negative)
		buf_add_c(out, '-');
	if (v == 0) {
		buf_add(out, "0.0", 3);
	} else if (d.exp10 > -5 && d.exp10 <= 16) {
		double_add_positional(out, &d);
		if (d.exp10 >= d.n)
			buf_add(out, ".0", 2);
	} else {
		buf_add_c(out, d.d[0]);
		if (d.n > 1) {
			buf_add_c(out, '.');
			buf_add(out, d.d + 1, (size_t)d.n - 1);
		}
		buf_add_c(out, 'e');
		buf_add_i64(out, d.exp10 - 1);
	}
}
