/* alloc.h - allocation that cannot fail: out of memory aborts with the size asked for. Sizes that a peer
 * chooses are checked against a limit before they come here. free() releases everything. */
#pragma once

#include "base/defs.h"

#include <stdarg.h>

void *xmalloc(size_t n_bytes) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n_bytes) __attribute__((returns_nonnull));
/** realloc of n * size_bytes, overflow checked. */
void *xreallocarray(void *p, size_t n, size_t size_bytes) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xmemdup0(const void *p, size_t n) __attribute__((malloc, returns_nonnull)); /* adds a NUL */
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((malloc, returns_nonnull));
/** align_bytes is a power of two and a multiple of sizeof(void *). */
void *xaligned_alloc(size_t align_bytes, size_t n_bytes) __attribute__((malloc, returns_nonnull));

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))
