/* arena.h - allocation for one unit of work: many small blocks, released together. Not thread-safe. */
#pragma once

#include "base/str.h"

#include <stdarg.h>

struct arena_chunk;
struct arena {
	struct arena_chunk *chunk; /* newest first; the oldest ordinary one survives arena_reset */
	size_t total_bytes;	   /* handed out since the last reset */
};

#define ARENA_INIT ((struct arena){NULL, 0})

void arena_fini(struct arena *a);
void arena_reset(struct arena *a); /* everything handed out is dead (trashed in debug builds) */
void *arena_alloc(struct arena *a, size_t n_bytes)
	__attribute__((returns_nonnull)); /* 16-byte aligned, not zeroed */
void *arena_zalloc(struct arena *a, size_t n_bytes) __attribute__((returns_nonnull));
str_t arena_str(struct arena *a, str_t s); /* copy; a NUL follows it */
char *arena_strdup(struct arena *a, const char *z);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
