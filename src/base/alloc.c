/* alloc.c - the allocator's thin shell. Every function here either returns usable
 * memory or ends the process, so callers have no out-of-memory path to test. The
 * message is written without allocating (no log line: the logger needs memory itself).
 * A request for 0 bytes gives a unique pointer, as callers free what they get. */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static NORETURN void alloc_die(size_t n_bytes)
{
	char line[96];
	int n = snprintf(line, sizeof(line), "out of memory: %zu bytes asked for\n", n_bytes);
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0) {
		/* nowhere left to complain */
	}
	abort();
}

static size_t alloc_mul(size_t n, size_t size_bytes)
{
	size_t total;
	if (__builtin_mul_overflow(n, size_bytes, &total))
		alloc_die(SIZE_MAX);
	return total;
}

void *xmalloc(size_t n_bytes)
{
	void *p = malloc(n_bytes != 0 ? n_bytes : 1);
	if (UNLIKELY(p == NULL))
		alloc_die(n_bytes);
	return p;
}

void *xcalloc(size_t n, size_t size_bytes)
{
	size_t total = alloc_mul(n, size_bytes);
	void *p = calloc(1, total != 0 ? total : 1);
	if (UNLIKELY(p == NULL))
		alloc_die(total);
	return p;
}

void *xrealloc(void *p, size_t n_bytes)
{
	void *q = realloc(p, n_bytes != 0 ? n_bytes : 1);
	if (UNLIKELY(q == NULL))
		alloc_die(n_bytes);
	return q;
}

void *xreallocarray(void *p, size_t n, size_t size_bytes)
{
	return xrealloc(p, alloc_mul(n, size_bytes));
}

void *xaligned_alloc(size_t align_bytes, size_t n_bytes)
{
	void *p = NULL;
	if (UNLIKELY(posix_memalign(&p, align_bytes, n_bytes != 0 ? n_bytes : 1) != 0 || p == NULL))
		alloc_die(n_bytes);
	return p;
}

char *xstrdup(const char *s)
{
	return xmemdup0(s, strlen(s));
}

char *xmemdup0(const void *p, size_t n)
{
	if (UNLIKELY(n == SIZE_MAX))
		alloc_die(n);
	char *q = xmalloc(n + 1);
	if (n != 0)
		memcpy(q, p, n);
	q[n] = 0;
	return q;
}

PRINTF_LIKE(1, 0) static char *xvasprintf(const char *fmt, va_list ap)
{
	char *s = NULL;
	/* vasprintf fails for want of memory, or on a wide
	 * character it cannot convert; we never print those. */
	if (UNLIKELY(vasprintf(&s, fmt, ap) < 0 || s == NULL))
		alloc_die(strlen(fmt));
	return s;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char *s = xvasprintf(fmt, ap);
	va_end(ap);
	return s;
}
