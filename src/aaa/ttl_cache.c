/* ttl_cache.c - a map and a list under one short mutex. Several callers that miss at the same time each ask
 * the policy and the last answer stays: calls to the policy mostly do not wait, so that within a worker the
 * second caller finds the first one's answer, and across workers there are few.
 *
 * The epoch is the one before the policy was asked: what an old policy said is not found after a change. */
#include "aaa/ttl_cache.h"

#include "base/alloc.h"

#include <stdlib.h>

struct ttl_entry {
	struct list link;
	struct cached *value;
	mono_t expires;
	uint64_t epoch;
	size_t n;
	char key[];
};

struct cached *cached_ref(struct cached *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return v;
}

void cached_unref(struct cached *v)
{
	if (v != NULL && atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) == 1)
		v->free(v);
}

static void ttl_entry_free(struct ttl_entry *e)
{
	cached_unref(e->value);
	free(e);
}

/* With the lock held. The entry is the caller's to free, after unlocking. */
static void ttl_cache_take_out(struct ttl_cache *c, struct ttl_entry *e)
{
	map_remove(&c->entries, str_mk(e->key, e->n));
	list_remove(&e->link);
}

struct cached *ttl_cache_get(struct ttl_cache *c, str_t key, uint64_t epoch)
{
	struct cached *v = NULL;
	struct ttl_entry *dead = NULL;
	pthread_mutex_lock(&c->lock);
	struct ttl_entry *e = map_find(&c->entries, key);
	if (e != NULL && (e->epoch != epoch || mono_is_past(e->expires))) {
		ttl_cache_take_out(c, e);
		dead = e;
	} else if (e != NULL) {
		list_remove(&e->link);
		list_push_back(&c->lru, &e->link);
		v = cached_ref(e->value);
	}
	pthread_mutex_unlock(&c->lock);
	if (dead != NULL)
		ttl_entry_free(dead);
	return v;
}

void ttl_cache_put(struct ttl_cache *c, str_t key, struct cached *v, dur_t ttl, uint64_t epoch)
{
	if (ttl.ns <= 0)
		return;
	struct ttl_entry *e = xmalloc(sizeof(*e) + key.n), *old, *oldest = NULL;
	e->value = cached_ref(v);
	e->expires = mono_after(ttl);
	e->epoch = epoch;
	e->n = key.n;
	memcpy(e->key, key.p, key.n);
	pthread_mutex_lock(&c->lock);
	old = map_find(&c->entries, key);
	if (old != NULL) {
		ttl_cache_take_out(c, old);
	} else if (c->entries.n >= c->capacity) {
		oldest = list_entry(c->lru.next, struct ttl_entry, link);
		ttl_cache_take_out(c, oldest);
	}
	map_put(&c->entries, str_mk(e->key, e->n), e);
	list_push_back(&c->lru, &e->link);
	pthread_mutex_unlock(&c->lock);
	if (old != NULL)
		ttl_entry_free(old);
	if (oldest != NULL)
		ttl_entry_free(oldest);
}

void ttl_cache_clear(struct ttl_cache *c)
{
	struct list all;
	list_init(&all);
	pthread_mutex_lock(&c->lock);
	list_splice_back(&all, &c->lru);
	map_fini(&c->entries);
	c->entries = (struct map){0};
	pthread_mutex_unlock(&c->lock);
	for (struct list *l; (l = list_pop_front(&all)) != NULL;)
		ttl_entry_free(list_entry(l, struct ttl_entry, link));
}

size_t ttl_cache_size(struct ttl_cache *c)
{
	pthread_mutex_lock(&c->lock);
	size_t n = c->entries.n;
	pthread_mutex_unlock(&c->lock);
	return n;
}
