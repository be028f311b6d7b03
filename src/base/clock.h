/* clock.h - time. Three types that do not mix: dur_t (a length), mono_t (a point of the monotonic clock;
 * deadlines), wall_t (a point of UTC). Each wraps int64 nanoseconds. In unit tests time is virtual: see
 * clock_set_virtual. */
#pragma once

#include "base/buf.h"

typedef struct {
	int64_t ns;
} dur_t;
typedef struct {
	int64_t ns;
} mono_t;
typedef struct {
	int64_t ns;
} wall_t; /* since 1970-01-01T00:00:00Z */

#define NS_PER_S INT64_C(1000000000)
#define DUR_ZERO ((dur_t){0})
#define DUR_MAX ((dur_t){INT64_MAX})
#define MONO_NEVER ((mono_t){INT64_MAX}) /* a deadline that does not come */

static inline dur_t dur_ns(int64_t ns)
{
	return (dur_t){ns};
}
static inline dur_t dur_us(int64_t us)
{
	return (dur_t){us * 1000};
}
static inline dur_t dur_ms(int64_t ms)
{
	return (dur_t){ms * 1000000};
}
static inline dur_t dur_s(int64_t s)
{
	return (dur_t){s * NS_PER_S};
}
static inline double dur_seconds(dur_t d)
{
	return (double)d.ns / 1e9;
}
static inline int dur_cmp(dur_t a, dur_t b)
{
	return (a.ns > b.ns) - (a.ns < b.ns);
}
dur_t dur_from_seconds(double s); /* saturating */

mono_t mono_now(void);
mono_t mono_add(mono_t t, dur_t d); /* saturating; MONO_NEVER stays */
static inline mono_t mono_after(dur_t d)
{
	return mono_add(mono_now(), d);
}
static inline dur_t mono_sub(mono_t a, mono_t b)
{
	return (dur_t){a.ns - b.ns};
}
static inline mono_t mono_min(mono_t a, mono_t b)
{
	return a.ns < b.ns ? a : b;
}
static inline bool mono_is_past(mono_t t)
{
	return t.ns != INT64_MAX && mono_now().ns >= t.ns;
}

wall_t wall_now(void);
wall_t wall_add(wall_t t, dur_t d);
static inline dur_t wall_sub(wall_t a, wall_t b)
{
	return (dur_t){a.ns - b.ns};
}
static inline int64_t wall_unix_s(wall_t t)
{
	return t.ns >= 0 ? t.ns / NS_PER_S : -((-t.ns + NS_PER_S - 1) / NS_PER_S);
}

/** 2026-11-23T02:33:32.367785595Z; the fraction has `digits` digits (0, 3, 6 or 9). */
void wall_fmt_rfc3339(wall_t t, int digits, struct buf *out);
/** Mon, 23 Nov 2026 02:33:32 +0000 */
void wall_fmt_rfc2822(wall_t t, struct buf *out);
bool wall_parse_rfc3339(str_t s, wall_t *out);
/** The same, keeping the offset it was written with, in seconds east of UTC; and back, at that offset (whole
 * minutes; "Z" for 0), with as many digits as it takes. */
bool wall_parse_rfc3339_at(str_t s, wall_t *out, int *offset_s);
void wall_fmt_rfc3339_at(wall_t t, int offset_s, struct buf *out);
/** Days from 1970-01-01 to a date of the Gregorian calendar (month and day from 1), and back; any year. */
int64_t clock_days_of(int64_t year, int64_t month, int64_t day);
void clock_date_of(int64_t days, int64_t *year, int64_t *month, int64_t *day);
/** "5m", "1h 30m", "7 days", "250ms", "1.5s" and a bare number of seconds: the humantime grammar. False on
 * anything else and on more than 292 years. A month (M) is 30.44 days, a year 365.25. */
bool dur_parse(str_t s, dur_t *out);
/** "7days", "1h 30m", "7s 12ms 788us 851ns", "0s": what dur_parse reads back exactly. A negative one, which
 * is not read back, gets a "-". */
void dur_fmt(dur_t d, struct buf *out);

/** Unit tests only: from now on both clocks stand still at these values until clock_advance(). */
void clock_set_virtual(mono_t mono, wall_t wall);
void clock_advance(dur_t d);
void clock_set_real(void);
bool clock_is_virtual(void);
/** Changes whenever clock_set_virtual or clock_set_real is called: time may have jumped back. */
unsigned clock_generation(void);
