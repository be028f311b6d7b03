/* map.h - hash table from byte strings to pointers. Keys are borrowed: the caller keeps them alive and
 * unchanged while they are in the map (usually they live in the value). Open addressing; iteration order is
 * arbitrary. Zero-initialised is empty and valid. Not thread-safe. */
#pragma once

#include "base/str.h"

struct map_slot;
struct map {
	struct map_slot *slot;
	size_t n;      /* entries */
	size_t n_used; /* entries and graves */
	size_t cap;    /* power of two, or 0 */
};

void map_fini(struct map *m);			/* frees the table, not keys or values */
void *map_find(const struct map *m, str_t key); /* NULL when absent */
/** Inserts or replaces; returns the value that was there, or NULL. value must not be NULL. */
void *map_put(struct map *m, str_t key, void *value);
void *map_remove(struct map *m, str_t key); /* the removed value, or NULL */
/** Iteration: start with *pos = 0; false at the end. The current entry may be removed while iterating;
 * nothing may be inserted. key and value may be NULL when not wanted. */
bool map_next(const struct map *m, size_t *pos, str_t *key, void **value);
