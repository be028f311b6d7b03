/* str.c - slices. Nothing here allocates but str_dup. Searching is memchr/memmem; comparing ignores the
 * locale: the only case folding is ASCII's, as all protocols want it. str_hash is SipHash-1-3 keyed at load
 * time from the kernel's random source, so that peers who choose keys (domains, header names) cannot choose
 * collisions. */
#include "base/str.h"

#include "base/alloc.h"
#include "base/uuid.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static unsigned char str_lower(char c)
{
	unsigned char u = (unsigned char)c;
	return u >= 'A' && u <= 'Z' ? u | 0x20 : u;
}

bool str_ieq(str_t a, str_t b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++) {
		if (str_lower(a.p[i]) != str_lower(b.p[i]))
			return false;
	}
	return true;
}

int str_cmp(str_t a, str_t b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n != 0 ? memcmp(a.p, b.p, n) : 0;
	return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(str_t s, str_t prefix)
{
	return s.n >= prefix.n && str_eq(str_mk(s.p, prefix.n), prefix);
}

bool str_istarts(str_t s, str_t prefix)
{
	return s.n >= prefix.n && str_ieq(str_mk(s.p, prefix.n), prefix);
}

bool str_ends(str_t s, str_t suffix)
{
	return s.n >= suffix.n && (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

ptrdiff_t str_chr(str_t s, char c, size_t from)
{
	if (from >= s.n)
		return -1;
	const char *hit = memchr(s.p + from, c, s.n - from);
	return hit != NULL ? hit - s.p : -1;
}

ptrdiff_t str_find(str_t s, str_t needle)
{
	if (needle.n == 0)
		return 0;
	if (s.n < needle.n)
		return -1;
	const char *hit = memmem(s.p, s.n, needle.p, needle.n);
	return hit != NULL ? hit - s.p : -1;
}

str_t str_skip(str_t s, size_t n)
{
	if (n >= s.n)
		return str_mk(s.n != 0 ? s.p + s.n : s.p, 0);
	return str_mk(n != 0 ? s.p + n : s.p, s.n - n);
}

str_t str_head(str_t s, size_t n)
{
	return str_mk(s.p, n < s.n ? n : s.n);
}

static bool str_is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

str_t str_trim(str_t s)
{
	while (s.n != 0 && str_is_blank(s.p[0]))
		s.p++, s.n--;
	while (s.n != 0 && str_is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

/* rest->p == NULL tells "exhausted" from "an empty last field is still due". */
bool str_split(str_t *rest, char sep, str_t *field)
{
	if (rest->p == NULL)
		return false;
	ptrdiff_t at = str_chr(*rest, sep, 0);
	if (at < 0) {
		*field = *rest;
		*rest = STR_NULL;
		return true;
	}
	*field = str_mk(rest->p, (size_t)at);
	*rest = str_mk(rest->p + at + 1, rest->n - (size_t)at - 1);
	return true;
}

bool str_to_u64(str_t s, uint64_t *out)
{
	uint64_t v = 0;
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
		if (digit > 9 || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*out = v;
	return true;
}

bool str_to_i64(str_t s, int64_t *out)
{
	bool is_negative = s.n != 0 && s.p[0] == '-';
	if (is_negative || (s.n != 0 && s.p[0] == '+'))
		s = str_skip(s, 1);
	uint64_t v;
	if (!str_to_u64(s, &v) || v > (uint64_t)INT64_MAX + is_negative)
		return false;
	*out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

bool str_to_double(str_t s, double *out)
{
	char z[400]; /* longer than any double's exact integer digits; longer texts are refused */
	if (s.n == 0 || s.n >= sizeof(z))
		return false;
	bool has_digit = false;
	for (size_t i = 0; i < s.n; i++) { /* strtod alone would take blanks, hex, "inf" and "nan" */
		char c = s.p[i];
		has_digit |= c >= '0' && c <= '9';
		if ((c < '0' || c > '9') && c != '+' && c != '-' && c != '.' && c != 'e' && c != 'E')
			return false;
	}
	if (!has_digit)
		return false;
	memcpy(z, s.p, s.n);
	z[s.n] = 0;
	char *end;
	double v = strtod(z, &end);
	if (end != z + s.n || !isfinite(v))
		return false;
	*out = v;
	return true;
}

/* The ranges of the second byte are RFC 3629 section 4's: they exclude overlong forms, surrogates and >
 * U+10FFFF. */
size_t str_utf8_step(str_t s, size_t *n_bad)
{
	const unsigned char *p = (const unsigned char *)s.p;
	unsigned c = p[0];
	*n_bad = 1;
	if (c < 0x80)
		return 1;
	size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
	unsigned lo = 0x80, hi = 0xbf;
	if (c < 0xc2 || c > 0xf4)
		return 0;
	if (c == 0xe0)
		lo = 0xa0;
	else if (c == 0xed)
		hi = 0x9f;
	else if (c == 0xf0)
		lo = 0x90;
	else if (c == 0xf4)
		hi = 0x8f;
	for (size_t i = 1; i < n; i++) {
		if (i >= s.n || p[i] < lo || p[i] > hi) {
			*n_bad = i;
			return 0;
		}
		lo = 0x80, hi = 0xbf;
	}
	return n;
}

bool str_is_ascii(str_t s)
{
	unsigned char any = 0;
	for (size_t i = 0; i < s.n; i++) /* no early exit: this way it is vectorised */
		any |= (unsigned char)s.p[i];
	return any < 0x80;
}

bool str_is_utf8(str_t s)
{
	size_t i = 0, n_bad;
	while (i < s.n) {
		uint64_t word[4];
		if (s.n - i >= sizeof(word)) {
			memcpy(word, s.p + i, sizeof(word));
			if (((word[0] | word[1] | word[2] | word[3]) & UINT64_C(0x8080808080808080)) == 0) {
				i += sizeof(word);
				continue;
			}
		}
		if ((unsigned char)s.p[i] < 0x80) {
			i++;
			continue;
		}
		size_t n = str_utf8_step(str_mk(s.p + i, s.n - i), &n_bad);
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

static uint64_t str_hash_key[2];

static __attribute__((constructor)) void str_hash_init(void)
{
	random_bytes(str_hash_key, sizeof(str_hash_key));
}

static inline uint64_t str_rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static inline __attribute__((always_inline)) void str_sip_round(uint64_t v[4])
{
	v[0] += v[1], v[1] = str_rotl(v[1], 13) ^ v[0], v[0] = str_rotl(v[0], 32);
	v[2] += v[3], v[3] = str_rotl(v[3], 16) ^ v[2];
	v[0] += v[3], v[3] = str_rotl(v[3], 21) ^ v[0];
	v[2] += v[1], v[1] = str_rotl(v[1], 17) ^ v[2], v[2] = str_rotl(v[2], 32);
}

uint64_t str_hash(str_t s)
{
	uint64_t v[4] = {str_hash_key[0] ^ UINT64_C(0x736f6d6570736575),
			 str_hash_key[1] ^ UINT64_C(0x646f72616e646f6d),
			 str_hash_key[0] ^ UINT64_C(0x6c7967656e657261),
			 str_hash_key[1] ^ UINT64_C(0x7465646279746573)};
	const char *p = s.p;
	size_t left = s.n;
	for (; left >= 8; left -= 8, p += 8) {
		uint64_t m;
		memcpy(&m, p, sizeof(m));
		v[3] ^= m;
		str_sip_round(v);
		v[0] ^= m;
	}
	uint64_t last = (uint64_t)s.n << 56;
	for (size_t i = 0; i < left; i++)
		last |= (uint64_t)(unsigned char)p[i] << (8 * i);
	v[3] ^= last;
	str_sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	str_sip_round(v);
	str_sip_round(v);
	str_sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

char *str_dup(str_t s)
{
	return xmemdup0(s.p, s.n);
}
