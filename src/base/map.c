/* map.c - open addressing with linear probing. A slot is empty, a grave (removed, but a probe must go on past
 * it) or full. Graves count as used for the load limit of 3/4; when it is reached the table is rebuilt,
 * larger only if the live entries need it, so a churn of puts and removes keeps its size. A grave whose
 * successor is empty is no use to any probe and becomes empty at once. Removal never moves an entry, which is
 * what makes removing during an iteration safe. Hashes are kept, so rebuilding does not touch the keys. */
#include "base/map.h"

#include "base/alloc.h"

#include <stdlib.h>

enum { MAP_MIN_CAP = 8 };

struct map_slot {
	uint64_t hash;
	str_t key;
	void *value; /* NULL: empty or a grave, as hash says */
};

/* For slots without a value the hash field tells the two kinds apart. */
enum { MAP_EMPTY = 0, MAP_GRAVE = 1 };

static bool map_slot_is_empty(const struct map_slot *s)
{
	return s->value == NULL && s->hash == MAP_EMPTY;
}

void map_fini(struct map *m)
{
	free(m->slot);
	*m = (struct map){0};
}

/* The slot of key, or NULL. */
static struct map_slot *map_slot_find(const struct map *m, str_t key, uint64_t hash)
{
	if (m->n == 0)
		return NULL;
	size_t mask = m->cap - 1;
	for (size_t i = hash & mask;; i = (i + 1) & mask) {
		struct map_slot *s = &m->slot[i];
		if (map_slot_is_empty(s))
			return NULL;
		if (s->hash == hash && s->value != NULL && str_eq(s->key, key))
			return s;
	}
}

static void map_slot_fill(struct map *m, uint64_t hash, str_t key, void *value)
{
	size_t mask = m->cap - 1, i = hash & mask;
	while (m->slot[i].value != NULL)
		i = (i + 1) & mask;
	if (m->slot[i].hash == MAP_EMPTY)
		m->n_used++;
	m->slot[i] = (struct map_slot){hash, key, value};
	m->n++;
}

static void map_rebuild(struct map *m)
{
	struct map old = *m;
	size_t cap = old.cap < MAP_MIN_CAP ? MAP_MIN_CAP : old.cap;
	if ((old.n + 1) * 2 > cap)
		cap *= 2;
	*m = (struct map){.slot = xcalloc(cap, sizeof(*m->slot)), .cap = cap};
	for (size_t i = 0; i < old.cap; i++) {
		if (old.slot[i].value != NULL)
			map_slot_fill(m, old.slot[i].hash, old.slot[i].key, old.slot[i].value);
	}
	free(old.slot);
}

void *map_find(const struct map *m, str_t key)
{
	if (m->n == 0)
		return NULL;
	const struct map_slot *s = map_slot_find(m, key, str_hash(key));
	return s != NULL ? s->value : NULL;
}

void *map_put(struct map *m, str_t key, void *value)
{
	if (UNLIKELY(value == NULL))
		panic("map: a value must not be NULL");
	uint64_t hash = str_hash(key);
	struct map_slot *s = map_slot_find(m, key, hash);
	if (s != NULL) {
		void *was = s->value;
		s->key = key; /* the old key may live in the value that leaves */
		s->value = value;
		return was;
	}
	if ((m->n_used + 1) * 4 > m->cap * 3)
		map_rebuild(m);
	map_slot_fill(m, hash, key, value);
	return NULL;
}

void *map_remove(struct map *m, str_t key)
{
	if (m->n == 0)
		return NULL;
	struct map_slot *s = map_slot_find(m, key, str_hash(key));
	if (s == NULL)
		return NULL;
	void *was = s->value;
	size_t mask = m->cap - 1, i = (size_t)(s - m->slot);
	*s = (struct map_slot){.hash = MAP_GRAVE};
	m->n--;
	if (map_slot_is_empty(&m->slot[(i + 1) & mask])) {
		for (; m->slot[i].value == NULL && m->slot[i].hash == MAP_GRAVE; i = (i - 1) & mask) {
			m->slot[i].hash = MAP_EMPTY;
			m->n_used--;
		}
	}
	return was;
}

bool map_next(const struct map *m, size_t *pos, str_t *key, void **value)
{
	while (*pos < m->cap) {
		const struct map_slot *s = &m->slot[(*pos)++];
		if (s->value == NULL)
			continue;
		if (key != NULL)
			*key = s->key;
		if (value != NULL)
			*value = s->value;
		return true;
	}
	return false;
}
