/* template_date.c - dateformat, timeformat and datetimeformat. The value is a UNIX time or an ISO 8601 text;
 * it is moved to the zone asked for (argument tz, else TIMEZONE of the context) and written by a named format
 * or by a description such as
 * "[year]-[month]-[day] [hour repr:12]:[minute] [period]", where \[ is a plain bracket. */
#include "template/template_impl.h"

#include "base/clock.h"
#include "base/zone.h"

#include <math.h>

struct date {
	int64_t unix_s;
	int ns;
	int offset_s; /* of the local time below from UTC */
	bool has_time;
	int64_t year, month, day, hour, minute, second; /* local */
	int64_t days;					/* local days since 1970-01-01 */
};

static void date_set_local(struct date *d)
{
	int64_t local = d->unix_s + d->offset_s, of_day = ((local % 86400) + 86400) % 86400;
	d->days = (local - of_day) / 86400;
	clock_date_of(d->days, &d->year, &d->month, &d->day);
	d->hour = of_day / 3600;
	d->minute = of_day / 60 % 60;
	d->second = of_day % 60;
}

/* --- reading --- */

static bool date_digits(str_t *s, size_t n, int64_t *out)
{
	if (s->n < n)
		return false;
	*out = 0;
	for (size_t i = 0; i < n; i++) {
		if (s->p[i] < '0' || s->p[i] > '9')
			return false;
		*out = *out * 10 + (s->p[i] - '0');
	}
	*s = str_skip(*s, n);
	return true;
}

static bool date_char(str_t *s, char c)
{
	if (s->n == 0 || *s->p != c)
		return false;
	*s = str_skip(*s, 1);
	return true;
}

/* "Z", "+hh:mm", "+hhmm", "+hh", or nothing: UTC. */
static bool date_parse_offset(str_t *s, int *offset_s)
{
	int64_t hour, minute = 0;
	*offset_s = 0;
	if (s->n == 0 || date_char(s, 'Z') || date_char(s, 'z'))
		return true;
	bool is_west = *s->p == '-';
	if (!date_char(s, '+') && !date_char(s, '-'))
		return false;
	if (!date_digits(s, 2, &hour) || hour > 23)
		return false;
	date_char(s, ':');
	if (s->n > 0 && (!date_digits(s, 2, &minute) || minute > 59))
		return false;
	*offset_s = (int)(hour * 3600 + minute * 60) * (is_west ? -1 : 1);
	return true;
}

static bool date_parse(str_t s, struct date *d)
{
	int64_t year, month, day, hour = 0, minute = 0, second = 0, digit, scale = 100000000;
	s = str_trim(s);
	if (!date_digits(&s, 4, &year) || !date_char(&s, '-') || !date_digits(&s, 2, &month) ||
	    !date_char(&s, '-') || !date_digits(&s, 2, &day) || month < 1 || month > 12 || day < 1 ||
	    day > 31)
		return false;
	*d = (struct date){.has_time = s.n > 0};
	if (d->has_time) {
		if (!date_char(&s, 'T') && !date_char(&s, 't') && !date_char(&s, ' '))
			return false;
		if (!date_digits(&s, 2, &hour) || !date_char(&s, ':') || !date_digits(&s, 2, &minute) ||
		    hour > 23 || minute > 59)
			return false;
		if (date_char(&s, ':') && (!date_digits(&s, 2, &second) || second > 60))
			return false;
		if (date_char(&s, '.'))
			for (; date_digits(&s, 1, &digit); scale /= 10)
				d->ns += (int)(digit * scale);
		date_char(&s, ' ');
		if (!date_parse_offset(&s, &d->offset_s) || s.n > 0)
			return false;
	}
	int64_t days = clock_days_of(year, month, day), back[3];
	clock_date_of(days, &back[0], &back[1], &back[2]);
	if (back[2] != day) /* 31 February */
		return false;
	d->unix_s = days * 86400 + hour * 3600 + minute * 60 + second - d->offset_s;
	return true;
}

static int date_read(struct trender *r, const struct tval *v, struct date *d)
{
	double f;
	if (v->kind == TV_STR) {
		if (date_parse(tval_text(v), d))
			return 0;
		return template_fail_op(r, "not a valid date or timestamp");
	}
	/* 9999-12-31 and as far back: years that have four digits to print, and no overflow. */
	if (v->kind == TV_BOOL || !template_as_double(v, &f) || !(fabs(f) < 253402300800.0))
		return template_fail_op(r, "value of type %s is not a timestamp", template_kind_name(v));
	*d = (struct date){.has_time = true, .unix_s = (int64_t)floor(f)};
	d->ns = v->kind == TV_FLOAT ? (int)((f - floor(f)) * 1e9) : 0;
	return 0;
}

/* --- writing --- */

static const char *const date_months[] = {"January",   "February", "March",    "April",
					  "May",       "June",	   "July",     "August",
					  "September", "October",  "November", "December"};
static const char *const date_weekdays[] = {"Sunday",	"Monday", "Tuesday", "Wednesday",
					    "Thursday", "Friday", "Saturday"};

static void date_add_number(struct trender *r, int64_t v, int width, str_t padding)
{
	char text[32];
	if (str_eq(padding, STR("none")))
		width = 1;
	int n = str_eq(padding, STR("space")) ? snprintf(text, sizeof(text), "%*lld", width, (long long)v)
					      : snprintf(text, sizeof(text), "%0*lld", width, (long long)v);
	template_sb_add(r, text, (size_t)n);
}

static int64_t date_weekday(const struct date *d)
{
	return ((d->days % 7) + 7 + 4) % 7;
}
static int64_t date_ordinal(const struct date *d)
{
	return d->days - clock_days_of(d->year, 1, 1) + 1;
}

/* ISO 8601 week: of the year that the week's Thursday is in. */
static int64_t date_iso_week(const struct date *d, int64_t *year)
{
	int64_t thursday = d->days - (date_weekday(d) + 6) % 7 + 3, month, day;
	clock_date_of(thursday, year, &month, &day);
	return (thursday - clock_days_of(*year, 1, 1)) / 7 + 1;
}

/* The value of a modifier "name:value" in a component's text, or an empty slice. */
static str_t date_modifier(str_t rest, const char *name)
{
	str_t word, key;
	while (str_split(&rest, ' ', &word)) {
		str_t value = word;
		if (str_split(&value, ':', &key) && str_eq(key, str_of(name)))
			return value;
	}
	return STR_NULL;
}

static void date_add_year(struct trender *r, const struct date *d, str_t mods)
{
	int64_t year = d->year;
	if (str_eq(date_modifier(mods, "base"), STR("iso_week")))
		date_iso_week(d, &year);
	if (str_eq(date_modifier(mods, "sign"), STR("mandatory")))
		template_sb_c(r, year < 0 ? '-' : '+');
	bool is_short = str_eq(date_modifier(mods, "repr"), STR("last_two"));
	date_add_number(r, is_short ? (year % 100 + 100) % 100 : year, is_short ? 2 : 4,
			date_modifier(mods, "padding"));
}

static void date_add_word(struct trender *r, const char *word, bool is_short)
{
	template_sb_str(r, str_head(str_of(word), is_short ? 3 : 32));
}

static void date_add_weekday(struct trender *r, const struct date *d, str_t mods)
{
	str_t repr = date_modifier(mods, "repr");
	int64_t day = date_weekday(d);
	bool is_from_one = !str_eq(date_modifier(mods, "one_indexed"), STR("false"));
	if (str_eq(repr, STR("sunday")))
		date_add_number(r, day + is_from_one, 1, STR_NULL);
	else if (str_eq(repr, STR("monday")))
		date_add_number(r, (day + 6) % 7 + is_from_one, 1, STR_NULL);
	else
		date_add_word(r, date_weekdays[day], str_eq(repr, STR("short")));
}

static void date_add_subsecond(struct trender *r, const struct date *d, str_t mods)
{
	char text[16];
	uint64_t digits = 0;
	snprintf(text, sizeof(text), "%09d", d->ns);
	size_t n = 9;
	if (str_to_u64(date_modifier(mods, "digits"), &digits) && digits >= 1 && digits <= 9)
		n = (size_t)digits;
	else
		while (n > 1 && text[n - 1] == '0')
			n--;
	template_sb_add(r, text, n);
}

static void date_add_offset_hour(struct trender *r, const struct date *d, str_t mods)
{
	if (d->offset_s < 0 || str_eq(date_modifier(mods, "sign"), STR("mandatory")))
		template_sb_c(r, d->offset_s < 0 ? '-' : '+');
	date_add_number(r, (d->offset_s < 0 ? -d->offset_s : d->offset_s) / 3600, 2,
			date_modifier(mods, "padding"));
}

static void date_add_unix(struct trender *r, const struct date *d, str_t mods)
{
	str_t precision = date_modifier(mods, "precision");
	__int128 ns = (__int128)d->unix_s * 1000000000 + d->ns;
	template_print_int(r, str_eq(precision, STR("nanosecond"))    ? ns
			      : str_eq(precision, STR("microsecond")) ? ns / 1000
			      : str_eq(precision, STR("millisecond")) ? ns / 1000000
								      : (__int128)d->unix_s);
}

static void date_add_week(struct trender *r, const struct date *d, str_t mods)
{
	str_t repr = date_modifier(mods, "repr");
	int64_t year, week;
	if (str_eq(repr, STR("sunday")))
		week = (date_ordinal(d) - 1 + 7 - date_weekday(d)) / 7;
	else if (str_eq(repr, STR("monday")))
		week = (date_ordinal(d) - 1 + 7 - (date_weekday(d) + 6) % 7) / 7;
	else
		week = date_iso_week(d, &year);
	date_add_number(r, week, 2, date_modifier(mods, "padding"));
}

/* One "[name modifier:value ...]". */
static int date_add_component(struct trender *r, const struct date *d, str_t text)
{
	str_t mods = str_trim(text), name = STR_NULL;
	str_split(&mods, ' ', &name);
	str_t padding = date_modifier(mods, "padding"), repr = date_modifier(mods, "repr");
	int offset = d->offset_s < 0 ? -d->offset_s : d->offset_s;
	if (str_eq(name, STR("year")))
		date_add_year(r, d, mods);
	else if (str_eq(name, STR("month")) && (str_eq(repr, STR("long")) || str_eq(repr, STR("short"))))
		date_add_word(r, date_months[d->month - 1], repr.n == 5);
	else if (str_eq(name, STR("month")))
		date_add_number(r, d->month, 2, padding);
	else if (str_eq(name, STR("day")))
		date_add_number(r, d->day, 2, padding);
	else if (str_eq(name, STR("weekday")))
		date_add_weekday(r, d, mods);
	else if (str_eq(name, STR("ordinal")))
		date_add_number(r, date_ordinal(d), 3, padding);
	else if (str_eq(name, STR("week_number")))
		date_add_week(r, d, mods);
	else if (str_eq(name, STR("hour")))
		date_add_number(r, str_eq(repr, STR("12")) ? (d->hour + 11) % 12 + 1 : d->hour, 2, padding);
	else if (str_eq(name, STR("minute")))
		date_add_number(r, d->minute, 2, padding);
	else if (str_eq(name, STR("second")))
		date_add_number(r, d->second, 2, padding);
	else if (str_eq(name, STR("subsecond")))
		date_add_subsecond(r, d, mods);
	else if (str_eq(name, STR("period")))
		template_sb_str(r, str_eq(date_modifier(mods, "case"), STR("lower"))
					   ? d->hour < 12 ? STR("am") : STR("pm")
				   : d->hour < 12 ? STR("AM")
						  : STR("PM"));
	else if (str_eq(name, STR("offset_hour")))
		date_add_offset_hour(r, d, mods);
	else if (str_eq(name, STR("offset_minute")))
		date_add_number(r, offset / 60 % 60, 2, padding);
	else if (str_eq(name, STR("offset_second")))
		date_add_number(r, offset % 60, 2, padding);
	else if (str_eq(name, STR("unix_timestamp")))
		date_add_unix(r, d, mods);
	else
		return template_fail_op(r, "invalid date format: unknown component `" STR_FMT "`",
					STR_ARG(name));
	return template_step(r, 1);
}

static int date_write(struct trender *r, const struct date *d, str_t format)
{
	for (size_t i = 0; i < format.n; i++) {
		char c = format.p[i];
		if (c == '\\' && i + 1 < format.n) {
			template_sb_c(r, format.p[++i]);
		} else if (c == '[') {
			ptrdiff_t end = str_chr(format, ']', i);
			if (end < 0)
				return template_fail_op(r, "invalid date format: a bracket is not closed");
			if (date_add_component(r, d, str_mk(format.p + i + 1, (size_t)end - i - 1)) != 0)
				return -1;
			i = (size_t)end;
		} else {
			template_sb_c(r, c);
		}
	}
	return template_step_bytes(r, format.n);
}

/* --- the filters --- */

struct date_named {
	const char *name, *format;
};

#define DATE_ISO "[year]-[month]-[day]T[hour]:[minute]:[second][offset_hour sign:mandatory]:[offset_minute]"
#define DATE_MEDIUM "[month repr:short] [day padding:none] [year]"
#define DATE_LONG "[month repr:long] [day padding:none] [year]"

static const struct date_named date_formats[] = {
	{"short", "[year]-[month]-[day]"},
	{"medium", DATE_MEDIUM},
	{"long", DATE_LONG},
	{"full", "[weekday], " DATE_LONG},
	{0},
};
static const struct date_named time_formats[] = {
	{"short", "[hour]:[minute]"},
	{"medium", "[hour]:[minute]"},
	{"long", "[hour]:[minute]:[second]"},
	{"full", "[hour]:[minute]:[second].[subsecond]"},
	{"unix", "[unix_timestamp]"},
	{"iso", DATE_ISO},
	{0},
};
static const struct date_named datetime_formats[] = {
	{"short", "[year]-[month]-[day] [hour]:[minute]"},
	{"medium", DATE_MEDIUM " [hour]:[minute]"},
	{"long", DATE_LONG " [hour]:[minute]:[second]"},
	{"full", "[weekday], " DATE_LONG " [hour]:[minute]:[second]"},
	{"unix", "[unix_timestamp]"},
	{"iso", DATE_ISO},
	{0},
};

/* A string: the keyword argument, else the variable of the context, else def. */
static int date_setting(struct trender *r, struct targs *a, const char *kw, const char *global, str_t def,
			str_t *out)
{
	const struct tval *v = template_kw(a, kw);
	struct tval from_ctx = TVAL_UNDEF;
	for (size_t i = 0; v == NULL && from_ctx.kind == TV_UNDEF && i < r->n_ctx; i++)
		from_ctx = template_val_json(json_object_get(r->ctx[i], global));
	if (v == NULL)
		v = &from_ctx;
	*out = def;
	return v->kind == TV_UNDEF || v->kind == TV_NONE ? 0 : template_arg_str(r, v, out);
}

static int date_filter(struct trender *r, struct targs *a, const struct date_named *named, const char *global,
		       struct tval *out)
{
	struct date d;
	str_t format, zone;
	if (date_read(r, &a->v[0], &d) != 0 ||
	    date_setting(r, a, "format", global, STR("medium"), &format) != 0 ||
	    date_setting(r, a, "tz", "TIMEZONE", STR("original"), &zone) != 0)
		return -1;
	if (d.has_time && !str_eq(zone, STR("original"))) {
		const struct zone *z = zone_find(zone);
		if (z == NULL)
			return template_fail_op(r, "unknown timezone '%.*s'",
						(int)(zone.n < 64 ? zone.n : 64), zone.p);
		d.offset_s = zone_offset(z, d.unix_s);
	}
	date_set_local(&d);
	for (; named->name != NULL; named++)
		if (str_eq(format, str_of(named->name)))
			format = str_of(named->format);
	size_t sb = template_sb_begin(r);
	return date_write(r, &d, format) != 0 ? -1 : template_sb_take(r, sb, out);
}

int template_f_dateformat(struct trender *r, struct targs *a, struct tval *out)
{
	return date_filter(r, a, date_formats, "DATE_FORMAT", out);
}

int template_f_timeformat(struct trender *r, struct targs *a, struct tval *out)
{
	return date_filter(r, a, time_formats, "TIME_FORMAT", out);
}

int template_f_datetimeformat(struct trender *r, struct targs *a, struct tval *out)
{
	return date_filter(r, a, datetime_formats, "DATETIME_FORMAT", out);
}
