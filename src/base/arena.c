/* arena.c - bump allocation in chunks that double from 4 KB to 64 KB. arena->chunk is the one
 * being filled; a request too big for a chunk gets one of its own, linked behind the current
 * one so that the rest of that is not lost. arena_reset keeps the oldest chunk that is not
 * oversized, so an arena reused for small units of work touches malloc once and an idle one
 * holds little. In debug builds released bytes are overwritten, and with ASan everything not
 * handed out is poisoned: a pointer kept over a reset is reported at its first use. */
#include "base/arena.h"

#include "base/alloc.h"

#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_HAS_ASAN 1
#endif
#endif
#ifdef ARENA_HAS_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_POISON(p, n) __asan_poison_memory_region(p, n)
#define ARENA_UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define ARENA_POISON(p, n) ((void)0)
#define ARENA_UNPOISON(p, n) ((void)0)
#endif

enum { ARENA_ALIGN = 16, ARENA_MIN_CHUNK = 4096, ARENA_MAX_CHUNK = 65536 };

struct arena_chunk {
	struct arena_chunk *older;
	size_t cap; /* bytes of data */
	size_t used;
	_Alignas(ARENA_ALIGN) char data[];
};

static struct arena_chunk *arena_chunk_new(size_t cap)
{
	struct arena_chunk *c = xmalloc(sizeof(*c) + cap);
	c->older = NULL;
	c->cap = cap;
	c->used = 0;
	ARENA_POISON(c->data, c->cap);
	return c;
}

static void arena_chunk_free(struct arena_chunk *c)
{
	ARENA_UNPOISON(c->data, c->cap);
#ifdef CIRRUS_DEBUG
	memset(c->data, 0xa5, c->used);
#endif
	free(c);
}

void arena_fini(struct arena *a)
{
	while (a->chunk != NULL) {
		struct arena_chunk *older = a->chunk->older;
		arena_chunk_free(a->chunk);
		a->chunk = older;
	}
	*a = ARENA_INIT;
}

void arena_reset(struct arena *a)
{
	struct arena_chunk *keep = NULL;
	for (struct arena_chunk *c = a->chunk, *older; c != NULL; c = older) {
		older = c->older;
		if (c->cap > ARENA_MAX_CHUNK) {
			arena_chunk_free(c);
			continue;
		}
		if (keep != NULL)
			arena_chunk_free(keep);
		keep = c;
	}
	if (keep != NULL) {
#ifdef CIRRUS_DEBUG
		ARENA_UNPOISON(keep->data, keep->cap);
		memset(keep->data, 0xa5, keep->used);
#endif
		ARENA_POISON(keep->data, keep->cap);
		keep->used = 0;
		keep->older = NULL;
	}
	a->chunk = keep;
	a->total_bytes = 0;
}

/* A chunk with at least n_bytes free; the current one unless it is too full. */
static struct arena_chunk *arena_chunk_for(struct arena *a, size_t n_bytes)
{
	struct arena_chunk *cur = a->chunk;
	if (LIKELY(cur != NULL && cur->cap - cur->used >= n_bytes))
		return cur;
	if (cur != NULL && n_bytes > ARENA_MAX_CHUNK / 4) {
		struct arena_chunk *own = arena_chunk_new(n_bytes);
		own->older = cur->older;
		cur->older = own;
		return own;
	}
	size_t cap = cur == NULL ? ARENA_MIN_CHUNK : cur->cap * 2;
	if (cap > ARENA_MAX_CHUNK)
		cap = ARENA_MAX_CHUNK;
	if (cap < n_bytes)
		cap = n_bytes;
	struct arena_chunk *fresh = arena_chunk_new(cap);
	fresh->older = cur;
	a->chunk = fresh;
	return fresh;
}

void *arena_alloc(struct arena *a, size_t n_bytes)
{
	if (UNLIKELY(n_bytes > SIZE_MAX / 4))
		panic("arena: %zu bytes is beyond any sane size", n_bytes);
	size_t rounded = (n_bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
	if (rounded == 0)
		rounded = ARENA_ALIGN;
	struct arena_chunk *c = arena_chunk_for(a, rounded);
	char *p = c->data + c->used;
	c->used += rounded;
	a->total_bytes += rounded;
	ARENA_UNPOISON(p, n_bytes);
	return p;
}

void *arena_zalloc(struct arena *a, size_t n_bytes)
{
	return memset(arena_alloc(a, n_bytes), 0, n_bytes);
}

str_t arena_str(struct arena *a, str_t s)
{
	char *p = arena_alloc(a, s.n + 1);
	if (s.n != 0)
		memcpy(p, s.p, s.n);
	p[s.n] = 0;
	return str_mk(p, s.n);
}

char *arena_strdup(struct arena *a, const char *z)
{
	size_t n = strlen(z) + 1;
	return memcpy(arena_alloc(a, n), z, n);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	char small[256];
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(small, sizeof(small), fmt, ap);
	if (UNLIKELY(n < 0))
		panic("arena: cannot format \"%s\"", fmt);
	char *p = arena_alloc(a, (size_t)n + 1);
	if ((size_t)n < sizeof(small))
		memcpy(p, small, (size_t)n + 1);
	else
		vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	va_end(ap);
	return p;
}
