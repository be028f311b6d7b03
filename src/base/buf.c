/* buf.c - a growable run of bytes. Capacity doubles, so appending is amortised constant; it always has room
 * for the NUL after the content, which every operation restores. Sizes are checked for overflow once, in
 * buf_reserve. */
#include "base/buf.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>

enum { BUF_MIN_CAP = 64 };

void buf_fini(struct buf *b)
{
	free(b->p);
	*b = BUF_INIT;
}

void buf_reserve(struct buf *b, size_t extra_bytes)
{
	size_t need;
	if (UNLIKELY(__builtin_add_overflow(b->n, extra_bytes, &need) || need > SIZE_MAX / 4))
		panic("buf: %zu + %zu bytes is beyond any sane size", b->n, extra_bytes);
	need++; /* the NUL */
	if (LIKELY(need <= b->cap))
		return;
	size_t cap = b->cap < BUF_MIN_CAP ? BUF_MIN_CAP : b->cap;
	while (cap < need)
		cap *= 2;
	b->p = xrealloc(b->p, cap);
	b->cap = cap;
	b->p[b->n] = 0;
}

void buf_add(struct buf *b, const void *p, size_t n_bytes)
{
	buf_reserve(b, n_bytes);
	if (n_bytes != 0)
		memcpy(b->p + b->n, p, n_bytes);
	b->n += n_bytes;
	b->p[b->n] = 0;
}

void buf_add_z(struct buf *b, const char *z)
{
	buf_add(b, z, strlen(z));
}

void buf_add_c(struct buf *b, char c)
{
	buf_reserve(b, 1);
	b->p[b->n++] = c;
	b->p[b->n] = 0;
}

void buf_add_u64(struct buf *b, uint64_t v)
{
	char digits[20];
	size_t at = sizeof(digits);
	do {
		digits[--at] = (char)('0' + v % 10);
		v /= 10;
	} while (v != 0);
	buf_add(b, digits + at, sizeof(digits) - at);
}

void buf_add_i64(struct buf *b, int64_t v)
{
	if (v < 0)
		buf_add_c(b, '-');
	buf_add_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(b, fmt, ap);
	va_end(ap);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	buf_reserve(b, BUF_MIN_CAP - 1);
	size_t room = b->cap - b->n;
	int n = vsnprintf(b->p + b->n, room, fmt, ap);
	if (UNLIKELY(n < 0))
		panic("buf: cannot format \"%s\"", fmt);
	if ((size_t)n >= room) {
		buf_reserve(b, (size_t)n);
		vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
	}
	b->n += (size_t)n;
	va_end(again);
}

void buf_consume(struct buf *b, size_t n_bytes)
{
	if (n_bytes >= b->n) {
		buf_clear(b);
		return;
	}
	memmove(b->p, b->p + n_bytes, b->n - n_bytes);
	b->n -= n_bytes;
	b->p[b->n] = 0;
}

void buf_truncate(struct buf *b, size_t n_bytes)
{
	if (n_bytes >= b->n)
		return;
	b->n = n_bytes;
	b->p[n_bytes] = 0;
}

char *buf_steal(struct buf *b, size_t *n_bytes)
{
	buf_reserve(b, 0);
	char *p = b->p;
	if (n_bytes != NULL)
		*n_bytes = b->n;
	*b = BUF_INIT;
	return p;
}
