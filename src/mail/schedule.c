/* schedule.c - the arithmetic of a message's schedule. A window is looked for day by day on the zone's own
 * calendar, and each start is then put on UTC, so that it stays at nine in the morning when the clocks
 * change. A start that the clocks jump over is the moment of the jump, if the window is still open then. */
#include "mail/schedule.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

#define DAY_S INT64_C(86400)
#define SEARCH_DAYS                                                                                          \
	400 /* a weekday comes within a week; a window that the clocks skip, within another year at the most \
	     */

static const char *const day_names[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
					"Friday", "Saturday", "Sunday"};

void schedule_fini(struct schedule *s)
{
	free(s->tz);
	*s = (struct schedule){0};
}

void schedule_free(struct schedule *s)
{
	if (s == NULL)
		return;
	schedule_fini(s);
	free(s);
}

bool schedule_is_empty(const struct schedule *s)
{
	return !s->first_attempt.is_set && !s->expires.is_set && s->tz == NULL;
}

/* --- reading --- */

static int schedule_fail(str_t text, const char *expected)
{
	err_set(ERR_INVALID, "invalid value: \"" STR_FMT "\", expected %s", STR_ARG(str_head(text, 100)),
		expected);
	return -1;
}

int schedule_parse_time(str_t text, struct schedule_time *out)
{
	struct schedule_time t = {.is_set = true};
	int offset_s;
	if (!wall_parse_rfc3339_at(text, &t.at, &offset_s))
		return schedule_fail(text, "a date and time of RFC 3339 such as 2023-03-01T17:00:00-08:00");
	t.offset_s = offset_s;
	*out = t;
	return 0;
}

static int schedule_find_day(str_t name)
{
	for (int i = 0; i < 7; i++)
		if (str_ieq(name, str_of(day_names[i])) || str_ieq(name, str_mk(day_names[i], 3)))
			return i;
	return -1;
}

int schedule_parse_dow(str_t text, uint8_t *out)
{
	unsigned days = 0;
	str_t rest = text, name;
	while (str_split(&rest, ',', &name)) {
		int day = schedule_find_day(str_trim(name));
		if (day < 0)
			return schedule_fail(text, "a list of days of the week such as Mon,Wednesday");
		days |= 1U << day;
	}
	if (days == 0)
		return schedule_fail(text, "a list of days of the week such as Mon,Wednesday");
	*out = (uint8_t)days;
	return 0;
}

int schedule_parse_clock(str_t text, struct schedule_clock *out)
{
	uint64_t part[3] = {0};
	bool is_ok = text.n == 8 && text.p[2] == ':' && text.p[5] == ':';
	for (size_t i = 0; i < 3 && is_ok; i++)
		is_ok = str_to_u64(str_mk(text.p + 3 * i, 2), &part[i]) && part[i] < (i == 0 ? 24 : 60);
	if (!is_ok)
		return schedule_fail(text, "a time of day as HH:MM:SS, 00:00:00 to 23:59:59");
	*out = (struct schedule_clock){.s = (int32_t)(part[0] * 3600 + part[1] * 60 + part[2]),
				       .is_set = true};
	return 0;
}

int schedule_set_zone(struct schedule *s, str_t name)
{
	const struct zone *z = zone_find(name);
	if (z == NULL)
		return schedule_fail(name, "a name of the IANA time zone database such as America/Phoenix");
	free(s->tz);
	s->tz = str_dup(name);
	s->zone = z;
	return 0;
}

int schedule_check(const struct schedule *s)
{
	const struct {
		const char *name;
		bool is_set;
	} parts[] = {{"dow", s->dow != 0},
		     {"tz", s->tz != NULL},
		     {"start", s->start.is_set},
		     {"end", s->end.is_set}};
	size_t n_set = 0;
	const char *missing = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		n_set += parts[i].is_set;
		if (!parts[i].is_set && missing == NULL)
			missing = parts[i].name;
	}
	if (n_set != 0 && missing != NULL) {
		err_set(ERR_INVALID,
			"missing field `%s`: `dow`, `tz`, `start` "
			"and `end` are given all together or not at all",
			missing);
		return -1;
	}
	if (n_set != 0 && s->start.s == s->end.s) {
		err_set(ERR_INVALID,
			"field `end`: it is the same time as `start`, which leaves no time in between");
		return -1;
	}
	return 0;
}

/* --- the window --- */

static int64_t schedule_zone_offset(const struct schedule *s, int64_t unix_s)
{
	return s->zone != NULL ? zone_offset(s->zone, unix_s) : 0;
}

static int64_t schedule_day_of(int64_t local_s)
{
	return local_s / DAY_S - (local_s % DAY_S < 0);
}

static bool schedule_has_day(const struct schedule *s, int64_t day)
{
	int64_t of_week = ((day + 3) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
	return (s->dow >> of_week & 1) != 0;
}

static bool schedule_is_open(const struct schedule *s, int64_t unix_s)
{
	int64_t local = unix_s + schedule_zone_offset(s, unix_s), day = schedule_day_of(local),
		at = local - day * DAY_S;
	if (s->start.s < s->end.s)
		return schedule_has_day(s, day) && at >= s->start.s && at < s->end.s;
	return (schedule_has_day(s, day) && at >= s->start.s) ||
	       (schedule_has_day(s, day - 1) && at < s->end.s);
}

static wall_t schedule_next_open(const struct schedule *s, wall_t due)
{
	int64_t due_s = wall_unix_s(due);
	if (schedule_is_open(s, due_s))
		return due;
	int64_t today = schedule_day_of(due_s + schedule_zone_offset(s, due_s));
	for (int64_t day = today; day < today + SEARCH_DAYS; day++) {
		if (!schedule_has_day(s, day))
			continue;
		int64_t local = day * DAY_S + s->start.s,
			at = s->zone != NULL ? zone_unix_of_local(s->zone, local) : local;
		if (at > due_s && schedule_is_open(s, at))
			return at < INT64_MAX / NS_PER_S ? (wall_t){at * NS_PER_S} : due;
	}
	return due;
}

wall_t schedule_adjust(const struct schedule *s, wall_t due)
{
	if (s->first_attempt.is_set && due.ns < s->first_attempt.at.ns)
		due = s->first_attempt.at;
	return s->tz != NULL ? schedule_next_open(s, due) : due;
}

bool schedule_is_expired(const struct schedule *s, wall_t due, struct buf *why)
{
	if (!s->expires.is_set || due.ns < s->expires.at.ns)
		return false;
	buf_add_z(why, "Next delivery time would be at ");
	wall_fmt_rfc3339_at(due, 0, why);
	buf_add_z(why, " which exceeds the expiry time ");
	wall_fmt_rfc3339_at(s->expires.at, s->expires.offset_s, why);
	buf_add_z(why, " configured via set_scheduling");
	return true;
}

/* --- writing --- */

static void schedule_write_time(struct json_out *j, str_t key, const struct schedule_time *t)
{
	struct buf b = BUF_INIT;
	json_key(j, key);
	if (t->is_set) {
		wall_fmt_rfc3339_at(t->at, t->offset_s, &b);
		json_str(j, buf_str(&b));
	} else {
		json_nil(j);
	}
	buf_fini(&b);
}

static void schedule_write_clock(struct json_out *j, str_t key, const struct schedule_clock *c)
{
	char z[16];
	snprintf(z, sizeof(z), "%02u:%02u:%02u", (unsigned)c->s / 3600 % 24, (unsigned)c->s / 60 % 60,
		 (unsigned)c->s % 60);
	json_kv_str(j, key, str_of(z));
}

void schedule_write(const struct schedule *s, struct json_out *j)
{
	json_obj_begin(j);
	schedule_write_time(j, STR("first_attempt"), &s->first_attempt);
	schedule_write_time(j, STR("expires"), &s->expires);
	if (s->tz != NULL) {
		struct buf days = BUF_INIT;
		for (int i = 0; i < 7; i++)
			if (s->dow >> i & 1)
				buf_printf(&days, "%s%.3s", days.n > 0 ? "," : "", day_names[i]);
		json_kv_str(j, STR("dow"), buf_str(&days));
		json_kv_str(j, STR("tz"), str_of(s->tz));
		schedule_write_clock(j, STR("start"), &s->start);
		schedule_write_clock(j, STR("end"), &s->end);
		buf_fini(&days);
	}
	json_obj_end(j);
}
