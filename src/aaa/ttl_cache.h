/* ttl_cache.h - answers of the policy, kept for a while: bounded, least recently used first out, of one
 * configuration epoch. Values are refcounted and never change. Any thread; nothing yields. */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "base/map.h"

#include <pthread.h>
#include <stdatomic.h>

/** The head of a value. */
struct cached {
	_Atomic uint32_t refs;
	void (*free)(struct cached *v);
};
struct cached *cached_ref(struct cached *v);
void cached_unref(struct cached *v); /* NULL is fine */

struct ttl_cache {
	pthread_mutex_t lock;
	struct map entries;
	struct list lru; /* the least recently used first */
	size_t capacity;
};
#define TTL_CACHE_INIT(c, n)                                                                    \
	{                                                                                       \
		.lock = PTHREAD_MUTEX_INITIALIZER, .lru = {&(c).lru, &(c).lru}, .capacity = (n) \
	}

/** A reference, or NULL: unknown, expired, or of another epoch. */
struct cached *ttl_cache_get(struct ttl_cache *c, str_t key, uint64_t epoch);
/** Adds or replaces; takes its own reference. Nothing when ttl is not positive. */
void ttl_cache_put(struct ttl_cache *c, str_t key, struct cached *v, dur_t ttl, uint64_t epoch);
void ttl_cache_clear(struct ttl_cache *c);
size_t ttl_cache_size(struct ttl_cache *c);
