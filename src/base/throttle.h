/* throttle.h - rate limits: the specification of the policy
 * language (docs/reference/kumo/make_throttle.md) and a limiter
 * after the Generic Cell Rate Algorithm, local to the process. */
#pragma once

#include "base/clock.h"

struct throttle_spec {
	uint64_t limit;	    /* so many operations ... */
	uint64_t period_s;  /* ... in so many seconds */
	uint64_t max_burst; /* so many at once; `limit` when the text does not say */
	bool is_local;	    /* `local:`: of this node even where limits are shared */
};
/** "local:10,000/s", "20/30min,max_burst=5". -1 ERR_INVALID that names the text and what is wrong. */
MUST_CHECK int throttle_spec_parse(str_t text, struct throttle_spec *out);
bool throttle_spec_eq(const struct throttle_spec *a, const struct throttle_spec *b);

/** Guarded by a lock of the owner's. */
struct throttle {
	struct throttle_spec spec;
	__int128 next; /* when all that was admitted so far is within the rate, in ns * spec.limit */
};
void throttle_init(struct throttle *t, const struct throttle_spec *spec);
/** Admits n operations: true, and they may proceed after *wait (0: at once), for which the caller has to see.
 * Where that would take longer than `patience`: false, nothing is admitted, and *wait says how long. Who
 * comes later waits behind. More than max_burst at once proceed when nothing else is owed. */
MUST_CHECK bool throttle_admit(struct throttle *t, uint64_t n, dur_t patience, dur_t *wait);
