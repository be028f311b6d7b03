/* buf.h - a growable run of bytes. Zero-initialised is empty and valid; buf_fini releases. The bytes are
 * always followed by a NUL that is not counted, so `b.p` is a C string when nothing in it is NUL (p is NULL
 * only before the first append). */
#pragma once

#include "base/str.h"

#include <stdarg.h>

struct buf {
	char *p;
	size_t n;   /* bytes used */
	size_t cap; /* bytes allocated, including the NUL's */
};

#define BUF_INIT ((struct buf){NULL, 0, 0})

void buf_fini(struct buf *b); /* frees; b is empty and valid again */
static inline void buf_clear(struct buf *b)
{
	b->n = 0;
	if (b->p)
		b->p[0] = 0;
}
static inline str_t buf_str(const struct buf *b)
{
	return str_mk(b->p, b->n);
}
void buf_reserve(struct buf *b, size_t extra_bytes); /* room for that many more without reallocation */
void buf_add(struct buf *b, const void *p, size_t n_bytes);
static inline void buf_add_str(struct buf *b, str_t s)
{
	buf_add(b, s.p, s.n);
}
void buf_add_z(struct buf *b, const char *z);
void buf_add_c(struct buf *b, char c);
void buf_add_u64(struct buf *b, uint64_t v); /* decimal */
void buf_add_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/** Drops the first n bytes, moving the rest down. */
void buf_consume(struct buf *b, size_t n_bytes);
void buf_truncate(struct buf *b, size_t n_bytes);
/** Hands the heap block to the caller (free() it; NUL-terminated, never NULL) and empties b. */
char *buf_steal(struct buf *b, size_t *n_bytes);
