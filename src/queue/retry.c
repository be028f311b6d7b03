/* retry.c - exponential backoff. The schedule is a function of the number of completed attempts alone, so
 * that it can be computed again after a restart; the jitter keeps a burst that failed together from coming
 * back together. */
#include "queue/retry.h"

#include "base/uuid.h"

dur_t retry_delay(const struct retry_policy *p, uint32_t n_attempts)
{
	int64_t delay = p->retry_interval.ns;
	for (uint32_t i = 0; i < n_attempts; i++) {
		if (delay > INT64_MAX / 4) /* some 70 years: beyond any max_age */
			break;
		delay *= 2;
		if (p->max_retry_interval.ns >= 0 && delay >= p->max_retry_interval.ns)
			break;
	}
	if (p->max_retry_interval.ns >= 0 && delay > p->max_retry_interval.ns)
		delay = p->max_retry_interval.ns;
	if (delay > NS_PER_S)
		delay -= delay % NS_PER_S;
	return dur_ns(delay);
}

dur_t retry_jitter(const struct retry_policy *p)
{
	int64_t m = p->retry_interval.ns / 20;
	if (m > 60 * NS_PER_S)
		m = 60 * NS_PER_S;
	if (m < 2 * NS_PER_S) /* truncates to zero whatever is drawn */
		return DUR_ZERO;
	int64_t j = (int64_t)random_below((uint64_t)m) - m / 2;
	return dur_ns(j / NS_PER_S * NS_PER_S);
}

bool retry_is_expired(const struct retry_policy *p, wall_t created, wall_t now, dur_t delay, struct buf *why)
{
	int64_t age = wall_sub(now, created).ns;
	if (age < 0) /* the clock was set back */
		age = 0;
	if (delay.ns <= p->max_age.ns && age <= p->max_age.ns - delay.ns)
		return false;
	buf_add_z(why, "Next delivery time would be ");
	dur_fmt(dur_ns(delay.ns > INT64_MAX - age ? INT64_MAX : age + delay.ns), why);
	buf_add_z(why, " after creation, which exceeds max_age=");
	dur_fmt(p->max_age, why);
	return true;
}
