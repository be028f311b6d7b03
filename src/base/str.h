/* str.h - slices: a pointer and a length, borrowed, not NUL-terminated, may hold any byte. */
#pragma once

#include "base/defs.h"

#include <string.h>

typedef struct str {
	const char *p; /* may be NULL only when n is 0 */
	size_t n;
} str_t;

#define STR_NULL ((str_t){NULL, 0})
#define STR(lit) ((str_t){"" lit, sizeof(lit) - 1})
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline str_t str_mk(const char *p, size_t n)
{
	return (str_t){p, n};
}
static inline str_t str_of(const char *z)
{
	return z != NULL ? (str_t){z, strlen(z)} : STR_NULL;
}
static inline bool str_eq(str_t a, str_t b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_ieq(str_t a, str_t b); /* ASCII case-insensitive */
int str_cmp(str_t a, str_t b);
bool str_starts(str_t s, str_t prefix);
bool str_istarts(str_t s, str_t prefix);
bool str_ends(str_t s, str_t suffix);
/** Index of c at or after `from`, or -1. */
ptrdiff_t str_chr(str_t s, char c, size_t from);
/** Index of needle, or -1. */
ptrdiff_t str_find(str_t s, str_t needle);
/** s without the first n bytes / only the first n; n is clipped to the length. */
str_t str_skip(str_t s, size_t n);
str_t str_head(str_t s, size_t n);
/** Without blanks, tabs, CR and LF at both ends. */
str_t str_trim(str_t s);
/** Cuts the next field off *rest at `sep`; false when *rest is exhausted. "a,,b" gives three fields. */
bool str_split(str_t *rest, char sep, str_t *field);
/** Whole-string decimal; false on an empty, signed (u64), trailing or overflowing text. */
bool str_to_u64(str_t s, uint64_t *out);
bool str_to_i64(str_t s, int64_t *out);
bool str_to_double(str_t s, double *out);
bool str_is_ascii(str_t s); /* no byte over 127 */
/** True when the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool str_is_utf8(str_t s);
/** Length of the well-formed UTF-8 sequence that s starts with, 0 when s starts with none; *n_bad is then how
 * many bytes one U+FFFD stands for (the maximal subpart, Unicode 3.9). s must not be empty. */
size_t str_utf8_step(str_t s, size_t *n_bad);
uint64_t str_hash(str_t s); /* keyed with a per-process random seed: safe against chosen keys */
/** Heap copy with a NUL added. */
char *str_dup(str_t s);
