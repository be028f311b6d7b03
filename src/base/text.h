/* text.h - encodings of bytes as text. */
#pragma once

#include "base/buf.h"

void base64_encode(struct buf *out, str_t in);		  /* standard alphabet, padded */
MUST_CHECK bool base64_decode(struct buf *out, str_t in); /* strict; out is unspecified on false */
void hex_encode(struct buf *out, str_t in);		  /* lower case */
int hex_digit(char c);					  /* 0 to 15, or -1 */
/** A code point, which is a scalar value, as UTF-8. Returns its length; writes no byte more. */
size_t utf8_encode(uint32_t c, char out[4]);
/** Percent-decodes %HH ('+' stays); false on a bad escape. */
MUST_CHECK bool percent_decode(struct buf *out, str_t in);
/** CRC-32C (Castagnoli), continuing from crc (0 to start). Uses the CPU's instruction where there is one. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n_bytes);

/** The shortest run of decimal digits (15 to 17 at most, no trailing zeros) that reads back as the finite v:
 * |v| = 0.d1d2d3... * 10^exp10. Zero has the one digit 0. */
struct double_digits {
	char d[20];
	int n;
	int exp10;
	bool is_negative;
};
void double_digits_of(double v, struct double_digits *out);
/** Without an exponent: "1", "2.5", "0.00025"; "NaN", "+Inf", "-Inf". */
void double_fmt_plain(struct buf *out, double v);
/** As a JSON number that stays a float when read: "1.0", "0.00025", "1e-7". v is finite. */
void double_fmt_json(struct buf *out, double v);
