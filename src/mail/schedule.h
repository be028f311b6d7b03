/* schedule.h - when a message may be tried (docs/reference/message/set_scheduling): not before a time, only
 * within a window of the day on some days of the week, and not at all from a time on. Most messages have
 * none. Nothing here yields. */
#pragma once

#include "base/json.h"
#include "base/zone.h"

/** A point of time as it was written: the offset comes back when it is shown. */
struct schedule_time {
	wall_t at;
	int32_t offset_s;
	bool is_set;
};
/** A time of day on the zone's clock. */
struct schedule_clock {
	int32_t s; /* after midnight: 0 to 86399 */
	bool is_set;
};
struct schedule {
	struct schedule_time first_attempt, expires;
	/* The window: all four are set, or none. From start to before end; with start after end, over
	 * midnight, and the day is that of its start. */
	struct schedule_clock start, end;
	uint8_t dow;		 /* bit 0: Monday ... bit 6: Sunday; 0: not set */
	char *tz;		 /* name of the zone; NULL: not set */
	const struct zone *zone; /* of tz; NULL where this machine does not know it (any more): UTC then
				    stands in for it */
};

void schedule_fini(struct schedule *s); /* empties it */
void schedule_free(struct schedule *s); /* NULL is fine */
/** True when it constrains nothing. */
bool schedule_is_empty(const struct schedule *s);

/** One field from its text: RFC 3339; "Mon,Wednesday"; "HH:MM:SS"; a zone of the database. -1 ERR_INVALID
 * with the reason. */
MUST_CHECK int schedule_parse_time(str_t text, struct schedule_time *out);
MUST_CHECK int schedule_parse_dow(str_t text, uint8_t *out);
MUST_CHECK int schedule_parse_clock(str_t text, struct schedule_clock *out);
MUST_CHECK int schedule_set_zone(struct schedule *s, str_t name);
/** The fields of the window together: -1 ERR_INVALID when some are missing or the window is empty. */
MUST_CHECK int schedule_check(const struct schedule *s);

/** The earliest time from `due` on at which it allows a try. */
wall_t schedule_adjust(const struct schedule *s, wall_t due);
/** True when a try at `due` is no longer wanted; why is appended. */
bool schedule_is_expired(const struct schedule *s, wall_t due, struct buf *why);
/** As an object: what set_scheduling takes; first_attempt and expires are null when not set, the fields of
 * the window absent. */
void schedule_write(const struct schedule *s, struct json_out *j);
