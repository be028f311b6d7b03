/* dns_cache.c - answers and how long they are remembered.
 *
 * An answer is one block, refcounted and never changed, so the cache, lookups on several workers and their
 * results share it. The cache is one table for the process behind a mutex that is held for a hash lookup;
 * two bounds keep it small whatever the world answers: entries and bytes. At a bound the entry unused for
 * longest goes. Expired entries go when somebody asks for them, or that way.
 *
 * Failures (SERVFAIL, no answer) are not remembered here: libunbound keeps them for some seconds itself. */
#include "base/alloc.h"
#include "base/list.h"
#include "base/map.h"
#include "net/dns_impl.h"

#include <pthread.h>
#include <stdlib.h>

#define CACHE_MAX_ENTRIES 65536
#define CACHE_MAX_BYTES (64u << 20)
#define CACHE_MAX_TTL_S 86400u
#define CACHE_MAX_NEGATIVE_TTL_S 300u
#define CACHE_KEY_BYTES (DNS_NAME_BYTES + 2)

/* --- answers --- */

struct dns_answer *dns_answer_new(enum dns_status status, bool is_secure, uint32_t ttl_s, const str_t *rdata,
				  size_t n)
{
	size_t n_bytes = sizeof(struct dns_answer) + n * sizeof(str_t);
	size_t at = n_bytes;
	for (size_t i = 0; i < n; i++)
		n_bytes += rdata[i].n;
	struct dns_answer *a = xmalloc(n_bytes);
	atomic_init(&a->n_refs, 1);
	a->status = status;
	a->is_secure = is_secure;
	a->ttl_s = ttl_s;
	a->n_bytes = n_bytes;
	a->n = n;
	for (size_t i = 0; i < n; i++) {
		char *p = (char *)a + at;
		if (rdata[i].n > 0)
			memcpy(p, rdata[i].p, rdata[i].n);
		a->rdata[i] = str_mk(p, rdata[i].n);
		at += rdata[i].n;
	}
	return a;
}

/* Only the count of an answer ever changes. */
static struct dns_answer *answer_mutable(const struct dns_answer *a)
{
	return (struct dns_answer *)(uintptr_t)a;
}

const struct dns_answer *dns_answer_ref(const struct dns_answer *a)
{
	atomic_fetch_add_explicit(&answer_mutable(a)->n_refs, 1, memory_order_relaxed);
	return a;
}

void dns_answer_unref(const struct dns_answer *a)
{
	if (a != NULL && atomic_fetch_sub_explicit(&answer_mutable(a)->n_refs, 1, memory_order_acq_rel) == 1)
		free(answer_mutable(a));
}

/* --- the cache --- */

struct cache_entry {
	struct list lru;
	const struct dns_answer *answer;
	mono_t expires;
	size_t n_bytes;
	size_t n_key;
	char key[];
};

static struct {
	pthread_mutex_t lock;
	struct map map;	 /* key -> struct cache_entry */
	struct list lru; /* least recently used first */
	size_t n_bytes;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER, .lru = {&cache.lru, &cache.lru}};

static str_t cache_key(const char *name, uint16_t type, char buf[CACHE_KEY_BYTES])
{
	size_t n = strnlen(name, DNS_NAME_BYTES);
	memcpy(buf, name, n);
	memcpy(buf + n, &type, sizeof(type));
	return str_mk(buf, n + sizeof(type));
}

static void cache_drop(struct cache_entry *e)
{
	map_remove(&cache.map, str_mk(e->key, e->n_key));
	list_remove(&e->lru);
	cache.n_bytes -= e->n_bytes;
	dns_answer_unref(e->answer);
	free(e);
}

const struct dns_answer *dns_cache_get(const char *name, uint16_t type)
{
	char buf[CACHE_KEY_BYTES];
	str_t key = cache_key(name, type, buf);
	const struct dns_answer *a = NULL;
	pthread_mutex_lock(&cache.lock);
	struct cache_entry *e = map_find(&cache.map, key);
	if (e != NULL && mono_is_past(e->expires)) {
		cache_drop(e);
	} else if (e != NULL) {
		a = dns_answer_ref(e->answer);
		list_remove(&e->lru);
		list_push_back(&cache.lru, &e->lru);
	}
	pthread_mutex_unlock(&cache.lock);
	return a;
}

void dns_cache_put(const char *name, uint16_t type, const struct dns_answer *a)
{
	char buf[CACHE_KEY_BYTES];
	uint32_t max_ttl_s = a->status == DNS_OK ? CACHE_MAX_TTL_S : CACHE_MAX_NEGATIVE_TTL_S;
	uint32_t ttl_s = a->ttl_s < max_ttl_s ? a->ttl_s : max_ttl_s;
	if (ttl_s == 0)
		return;
	str_t key = cache_key(name, type, buf);
	struct cache_entry *e = xmalloc(sizeof(*e) + key.n);
	list_init(&e->lru);
	e->answer = dns_answer_ref(a);
	e->expires = mono_after(dur_s(ttl_s));
	e->n_bytes = sizeof(*e) + key.n + a->n_bytes;
	e->n_key = key.n;
	memcpy(e->key, key.p, key.n);

	pthread_mutex_lock(&cache.lock);
	struct cache_entry *old = map_find(&cache.map, key);
	if (old != NULL)
		cache_drop(old);
	map_put(&cache.map, str_mk(e->key, e->n_key), e);
	list_push_back(&cache.lru, &e->lru);
	cache.n_bytes += e->n_bytes;
	while (cache.map.n > CACHE_MAX_ENTRIES || cache.n_bytes > CACHE_MAX_BYTES)
		cache_drop(list_entry(cache.lru.next, struct cache_entry, lru));
	pthread_mutex_unlock(&cache.lock);
}

void dns_cache_clear(void)
{
	pthread_mutex_lock(&cache.lock);
	while (!list_is_empty(&cache.lru))
		cache_drop(list_entry(cache.lru.next, struct cache_entry, lru));
	map_fini(&cache.map);
	pthread_mutex_unlock(&cache.lock);
}

size_t dns_cache_count(void)
{
	pthread_mutex_lock(&cache.lock);
	size_t n = cache.map.n;
	pthread_mutex_unlock(&cache.lock);
	return n;
}
