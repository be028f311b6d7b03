/* retry.h - when a message is tried again, and when it is given up. Pure arithmetic. */
#pragma once

#include "base/clock.h"

struct retry_policy {
	dur_t retry_interval;
	dur_t max_retry_interval; /* ns < 0: no cap */
	dur_t max_age;
};
/** Delay before attempt n_attempts + 2, without jitter: min(retry_interval * 2^n_attempts,
 * max_retry_interval) in whole seconds (at least the interval itself when that is below a second);
 * saturating. */
dur_t retry_delay(const struct retry_policy *p, uint32_t n_attempts);
/** Uniform in [-m/2, +m/2) with m = min(retry_interval / 20, 60 s), truncated to whole seconds. */
dur_t retry_jitter(const struct retry_policy *p);
/** True when a next attempt `delay` from now would be too late; the text for the Expiration record is
 * appended to why. */
bool retry_is_expired(const struct retry_policy *p, wall_t created, wall_t now, dur_t delay, struct buf *why);
