/* memoize.h - what the policy has said, kept for a while for the whole process: results of its functions, in
 * caches that have a name (docs/reference/kumo/memoize.md), and its answers to modules, in caches of their
 * own. A value is refcounted and never changes. Of several callers that want the same key at once one
 * computes it, the others wait for it. Any thread. */
#pragma once

#include "base/clock.h"

#include <stdatomic.h>

/** The head of a value. */
struct memo_value {
	_Atomic uint32_t refs;
	void (*free_fn)(struct memo_value *v);
	dur_t max_ttl; /* more than nothing: it is kept no longer than that, whatever the cache's ttl */
};
void memo_value_unref(struct memo_value *v); /* NULL is fine */

struct memo_params {
	char *name;
	dur_t ttl;
	int64_t capacity;	    /* entries, 1 or more; beyond it the least recently used one goes */
	bool invalidate_with_epoch; /* a value of an older configuration epoch counts as expired */
	bool allow_stale_reads;	    /* while an expired value is computed anew, others get the old one */
	dur_t populate_timeout;	    /* how long to wait for another caller's result; below 0: as long as the
				       caller may */
	bool retry_on_populate_timeout; /* then compute it oneself instead of failing */
};
struct memo_cache;
/** The cache of that name, made at first use; later calls change its settings. It stays until the process
 * ends. */
struct memo_cache *memo_cache_get(const struct memo_params *p);
/** A cache without a name, which is counted nowhere. It stays until the process ends. */
struct memo_cache *memo_cache_new(const struct memo_params *p);
void memo_cache_set_ttl(struct memo_cache *c, dur_t ttl); /* of values to come; zero: nothing is kept */
/** Forgets what is kept. What is being computed goes on. */
void memo_cache_clear(struct memo_cache *c);
const char *memo_cache_name(const struct memo_cache *c);
/** Yields while another caller computes the value. 1: *value is a new reference. 0: the caller computes it,
 * and then calls memo_finish in every case. -1 ERR_TIMEOUT (the populate_timeout, or the deadline),
 * ERR_CANCELLED. */
MUST_CHECK int memo_begin(struct memo_cache *c, str_t key, struct memo_value **value, mono_t deadline);
/** value: what is kept, with its own reference; NULL: it could not be computed, and the next one who waits
 * tries. epoch: policy_epoch() from before it was computed. */
void memo_finish(struct memo_cache *c, str_t key, struct memo_value *value, uint64_t epoch);
