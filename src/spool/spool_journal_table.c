/* spool_journal_table.c - hash tables of fixed-size rows, for an index that has to stay under 100 bytes a
 * message. Open addressing with linear probing; the home of a key is hash * cap >> 64, so capacities need not
 * be powers of two and grow by half, between 57 and 85 percent full. A removal shifts the rows after it back
 * instead of leaving a grave. A table is 64 shards, each resized for itself: no resize of a table of millions
 * stops the writer for long. Shards shrink, so a backlog that was delivered gives its memory back.
 *
 * Rows lie in the order of their hashes. Removing them one by one in that order leaves the rest at one end,
 * where a shrunken shard has no room for them: hence table_filter_shard. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"

#include <stdlib.h>

#define SHARD_MIN_CAP 8

void table_init(struct table *t, uint32_t row_bytes, uint32_t key_bytes)
{
	*t = (struct table){.row_bytes = row_bytes, .key_bytes = key_bytes};
	random_bytes(t->seed, sizeof t->seed);
}

void table_fini(struct table *t)
{
	for (size_t i = 0; i < TABLE_SHARDS; i++)
		free(t->shard[i].row);
	*t = (struct table){0};
}

static uint64_t table_hash(const struct table *t, const void *key)
{
	uint64_t a, b = 0;
	memcpy(&a, key, 8);
	if (t->key_bytes == 16)
		memcpy(&b, (const char *)key + 8, 8);
	unsigned __int128 m =
		(unsigned __int128)(a ^ t->seed[0]) * (b ^ t->seed[1] ^ UINT64_C(0x9e3779b97f4a7c15));
	uint64_t h = (uint64_t)m ^ (uint64_t)(m >> 64);
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 32;
}

static struct table_shard *table_shard(const struct table *t, uint64_t hash)
{
	return (struct table_shard *)(uintptr_t)&t->shard[hash % TABLE_SHARDS];
}

static size_t shard_home(const struct table_shard *s, uint64_t hash)
{
	return (size_t)((unsigned __int128)hash * s->cap >> 64);
}

static char *shard_row(const struct table *t, const struct table_shard *s, size_t i)
{
	return s->row + i * t->row_bytes;
}

static bool row_is_free(const struct table *t, const char *row)
{
	uint64_t a, b = 0;
	memcpy(&a, row, 8);
	if (t->key_bytes == 16)
		memcpy(&b, row + 8, 8);
	return (a | b) == 0;
}

/* The row of the key, or the free row where it belongs. The shard is not full. */
static char *shard_probe(const struct table *t, const struct table_shard *s, uint64_t hash, const void *key)
{
	for (size_t i = shard_home(s, hash);; i = i + 1 == s->cap ? 0 : i + 1) {
		char *row = shard_row(t, s, i);
		if (memcmp(row, key, t->key_bytes) == 0 || row_is_free(t, row))
			return row;
	}
}

static void shard_resize(const struct table *t, struct table_shard *s, uint32_t cap)
{
	struct table_shard old = *s;
	s->row = xcalloc(cap, t->row_bytes);
	s->cap = cap;
	for (size_t i = 0; i < old.cap; i++) {
		const char *row = shard_row(t, &old, i);
		if (!row_is_free(t, row))
			memcpy(shard_probe(t, s, table_hash(t, row), row), row, t->row_bytes);
	}
	free(old.row);
}

void *table_find(const struct table *t, const void *key)
{
	uint64_t hash = table_hash(t, key);
	const struct table_shard *s = table_shard(t, hash);
	if (s->n == 0)
		return NULL;
	char *row = shard_probe(t, s, hash, key);
	return row_is_free(t, row) ? NULL : row;
}

void *table_add(struct table *t, const void *key)
{
	uint64_t hash = table_hash(t, key);
	struct table_shard *s = table_shard(t, hash);
	if (s->cap == 0)
		shard_resize(t, s, SHARD_MIN_CAP);
	char *row = shard_probe(t, s, hash, key);
	if (!row_is_free(t, row))
		return row;
	if ((uint64_t)(s->n + 1) * 100 > (uint64_t)s->cap * 85) {
		if (s->cap > UINT32_MAX / 3 * 2)
			panic("spool index: a shard of %u rows cannot grow", s->cap);
		shard_resize(t, s, s->cap + s->cap / 2);
		row = shard_probe(t, s, hash, key);
	}
	memcpy(row, key, t->key_bytes);
	s->n++;
	t->n++;
	return row;
}

bool table_remove(struct table *t, const void *key)
{
	uint64_t hash = table_hash(t, key);
	struct table_shard *s = table_shard(t, hash);
	if (s->n == 0)
		return false;
	char *row = shard_probe(t, s, hash, key);
	if (row_is_free(t, row))
		return false;
	size_t gap = (size_t)(row - s->row) / t->row_bytes;
	for (size_t i = gap;;) {
		i = i + 1 == s->cap ? 0 : i + 1;
		char *next = shard_row(t, s, i);
		if (row_is_free(t, next))
			break;
		/* A row may move into the gap unless its home lies cyclically in (gap, i]. */
		size_t home = shard_home(s, table_hash(t, next));
		if (gap < i ? (home > gap && home <= i) : (home > gap || home <= i))
			continue;
		memcpy(shard_row(t, s, gap), next, t->row_bytes);
		gap = i;
	}
	memset(shard_row(t, s, gap), 0, t->row_bytes);
	s->n--;
	t->n--;
	if (s->cap > 64 && s->n < s->cap / 4)
		shard_resize(t, s, s->cap / 2);
	return true;
}

void table_filter_shard(struct table *t, uint32_t shard, table_keep_fn *fn, void *arg)
{
	struct table_shard *s = &t->shard[shard];
	uint32_t n = s->n;
	for (size_t i = 0; i < s->cap; i++) {
		char *row = shard_row(t, s, i);
		if (row_is_free(t, row) || fn(row, arg))
			continue;
		memset(row, 0, t->row_bytes);
		s->n--;
		t->n--;
	}
	if (s->n < n) /* the rest may not be found behind the gaps: all are placed anew */
		shard_resize(t, s, s->n < SHARD_MIN_CAP / 2 ? SHARD_MIN_CAP : s->n + s->n / 2);
}

void *table_next(const struct table *t, uint64_t *pos)
{
	for (; *pos >> 32 < TABLE_SHARDS; *pos = ((*pos >> 32) + 1) << 32) {
		const struct table_shard *s = &t->shard[*pos >> 32];
		while ((uint32_t)*pos < s->cap) {
			char *row = shard_row(t, s, (uint32_t)*pos);
			++*pos;
			if (!row_is_free(t, row))
				return row;
		}
	}
	return NULL;
}
