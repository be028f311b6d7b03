/* memoize.c - caches, each a map and a list (least recently used first) under one short mutex that is
 * never held across a wait. An entry that is being computed has a list of those who wait for it, each with an
 * event of its own; when it is done all are woken and look again, so that a failure lets one of them try.
 * Such an entry is not evicted: the cache may exceed its capacity by as many. */
#include "policy/memoize.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/list.h"
#include "base/map.h"
#include "base/metric.h"
#include "fiber/worker.h"
#include "policy/policy.h"

#include <pthread.h>
#include <stdlib.h>

struct memo_waiter {
	struct list link;
	struct event *event; /* a reference */
};
struct memo_entry {
	struct list link; /* of the cache, the least recently used first */
	struct list waiters;
	struct memo_value *value; /* NULL: none yet */
	mono_t expires;
	uint64_t epoch;
	bool is_computing;
	size_t n_key;
	char key[];
};
struct memo_cache {
	char *name;
	pthread_mutex_t lock;
	struct memo_params params;
	struct map entries;
	struct list lru;
	struct metric_series *n_lookups, *n_hits, *n_misses, *n_populated;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry; /* name -> struct memo_cache */

static struct memo_value *memo_value_ref(struct memo_value *v)
{
	atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
	return v;
}

void memo_value_unref(struct memo_value *v)
{
	if (v != NULL && atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) == 1)
		v->free_fn(v);
}

static struct metric_series *memo_metric(const char *metric, const char *help, const char *cache)
{
	static const char *const label[] = {"cache_name", NULL};
	str_t name = str_of(cache);
	return metric_get(metric_declare(METRIC_COUNTER, metric, help, label, NULL, 0), &name);
}

static void memo_count(struct metric_series *s)
{
	if (s != NULL)
		metric_inc(s);
}

static void memo_cache_set_params(struct memo_cache *c, const struct memo_params *p)
{
	pthread_mutex_lock(&c->lock);
	c->params = *p;
	c->params.name = NULL;
	pthread_mutex_unlock(&c->lock);
}

struct memo_cache *memo_cache_new(const struct memo_params *p)
{
	struct memo_cache *c = xnew(struct memo_cache);
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->lru);
	memo_cache_set_params(c, p);
	return c;
}

void memo_cache_set_ttl(struct memo_cache *c, dur_t ttl)
{
	pthread_mutex_lock(&c->lock);
	c->params.ttl = ttl;
	pthread_mutex_unlock(&c->lock);
}

static void memo_cache_name_it(struct memo_cache *c, const char *name)
{
	c->name = str_dup(str_of(name));
	c->n_lookups =
		memo_metric("memoize_cache_lookup_count", "How many times a memoize cache was asked.", name);
	c->n_hits =
		memo_metric("memoize_cache_hit_count", "How many times a memoize cache had the value.", name);
	c->n_misses = memo_metric("memoize_cache_miss_count",
				  "How many times a memoize cache did not have the value.", name);
	c->n_populated = memo_metric("memoize_cache_populated_count",
				     "How many times a value was computed for a memoize cache.", name);
}

struct memo_cache *memo_cache_get(const struct memo_params *p)
{
	pthread_mutex_lock(&registry_lock);
	struct memo_cache *c = map_find(&registry, str_of(p->name));
	if (c == NULL) {
		c = memo_cache_new(p);
		memo_cache_name_it(c, p->name);
		map_put(&registry, str_of(c->name), c);
	}
	pthread_mutex_unlock(&registry_lock);
	memo_cache_set_params(c, p);
	return c;
}

const char *memo_cache_name(const struct memo_cache *c)
{
	return c->name;
}

/* --- with the lock held --- */

static bool memo_entry_is_fresh(const struct memo_cache *c, const struct memo_entry *e)
{
	return e->value != NULL && !mono_is_past(e->expires) &&
	       (!c->params.invalidate_with_epoch || e->epoch == policy_epoch());
}

static void memo_entry_take_out(struct memo_cache *c, struct memo_entry *e)
{
	map_remove(&c->entries, str_mk(e->key, e->n_key));
	list_remove(&e->link);
}

/** Takes entries over n_max out into dead, whose values are let go of after unlocking. */
static void memo_cache_evict(struct memo_cache *c, size_t n_max, struct list *dead)
{
	struct list *l = c->lru.next;
	while (c->entries.n > n_max && l != &c->lru) {
		struct memo_entry *e = list_entry(l, struct memo_entry, link);
		l = l->next;
		if (e->is_computing)
			continue;
		memo_entry_take_out(c, e);
		list_push_back(dead, &e->link);
	}
}

static struct memo_entry *memo_cache_entry(struct memo_cache *c, str_t key)
{
	struct memo_entry *e = map_find(&c->entries, key);
	if (e != NULL) {
		list_remove(&e->link);
		list_push_back(&c->lru, &e->link);
		return e;
	}
	e = xcalloc(1, sizeof(*e) + key.n);
	e->n_key = key.n;
	if (key.n > 0)
		memcpy(e->key, key.p, key.n);
	list_init(&e->waiters);
	map_put(&c->entries, str_mk(e->key, e->n_key), e);
	list_push_back(&c->lru, &e->link);
	return e;
}

/* --- */

static void memo_free_entries(struct list *dead)
{
	for (struct list *l; (l = list_pop_front(dead)) != NULL;) {
		struct memo_entry *e = list_entry(l, struct memo_entry, link);
		memo_value_unref(e->value);
		free(e);
	}
}

void memo_cache_clear(struct memo_cache *c)
{
	struct list dead;
	list_init(&dead);
	pthread_mutex_lock(&c->lock);
	memo_cache_evict(c, 0, &dead);
	pthread_mutex_unlock(&c->lock);
	memo_free_entries(&dead);
}

/** Waits for whoever computes it. until: the populate_timeout. 0: look again; 1: waited long enough; -1 with
 * the error. */
static int memo_wait(struct memo_cache *c, struct memo_waiter *w, mono_t until, mono_t deadline)
{
	int rc = event_wait(w->event, mono_min(until, deadline));
	pthread_mutex_lock(&c->lock);
	list_remove(&w->link);
	pthread_mutex_unlock(&c->lock);
	event_unref(w->event);
	if (rc == 0)
		return 0;
	if (!err_is(ERR_TIMEOUT) || mono_is_past(deadline))
		return -1;
	err_clear();
	return 1;
}

int memo_begin(struct memo_cache *c, str_t key, struct memo_value **value, mono_t deadline)
{
	mono_t until = MONO_NEVER;
	memo_count(c->n_lookups);
	for (bool is_first = true;; is_first = false) {
		struct memo_waiter w;
		pthread_mutex_lock(&c->lock);
		if (is_first && c->params.populate_timeout.ns >= 0)
			until = mono_after(c->params.populate_timeout);
		bool can_retry = c->params.retry_on_populate_timeout;
		if (c->params.ttl.ns == 0 && !c->params.allow_stale_reads) { /* nobody has anything of it */
			pthread_mutex_unlock(&c->lock);
			memo_count(c->n_misses);
			return 0;
		}
		struct memo_entry *e = memo_cache_entry(c, key);
		if (memo_entry_is_fresh(c, e) ||
		    (e->is_computing && e->value != NULL && c->params.allow_stale_reads)) {
			*value = memo_value_ref(e->value);
			pthread_mutex_unlock(&c->lock);
			memo_count(c->n_hits);
			return 1;
		}
		if (!e->is_computing) {
			e->is_computing = true;
			pthread_mutex_unlock(&c->lock);
			memo_count(c->n_misses);
			return 0;
		}
		w.event = event_new();
		list_push_back(&e->waiters, &w.link);
		pthread_mutex_unlock(&c->lock);
		int rc = memo_wait(c, &w, until, deadline);
		if (rc == 0)
			continue;
		if (rc > 0 && can_retry) {
			memo_count(c->n_misses);
			return 0; /* both compute it; the last result stays */
		}
		if (rc > 0)
			err_set(ERR_TIMEOUT,
				"memoize: the cache `%s` was not populated in time by another caller",
				c->name);
		return -1;
	}
}

void memo_finish(struct memo_cache *c, str_t key, struct memo_value *value, uint64_t epoch)
{
	struct memo_value *old = NULL;
	struct list dead;
	list_init(&dead);
	pthread_mutex_lock(&c->lock);
	struct memo_entry *e = memo_cache_entry(c, key);
	e->is_computing = false;
	if (value != NULL) {
		old = e->value;
		e->value = memo_value_ref(value);
		bool is_short = value->max_ttl.ns > 0 && dur_cmp(value->max_ttl, c->params.ttl) < 0;
		e->expires = mono_after(is_short ? value->max_ttl : c->params.ttl);
		e->epoch = epoch;
		memo_count(c->n_populated);
	}
	for (struct list *l; (l = list_pop_front(&e->waiters)) !=
			     NULL;) /* (a waiter that gives up takes itself out under the lock) */
		event_fire(list_entry(l, struct memo_waiter, link)->event);
	if (e->value == NULL) {
		memo_entry_take_out(c, e);
		list_push_back(&dead, &e->link);
	}
	memo_cache_evict(c, (size_t)c->params.capacity, &dead);
	pthread_mutex_unlock(&c->lock);
	memo_value_unref(old);
	memo_free_entries(&dead);
}
