/* clock.c - the two clocks, their text forms, and lengths of time.
 * Arithmetic saturates: a time-out of "for ever" added to now stays for ever. Civil dates are computed here
 * instead of by gmtime_r/timegm, which take a lock for the time zone; the algorithm counts days in eras of
 * 400 years that start on 1 March. The virtual clock of unit tests is process-global: two atomics that stand
 * still until clock_advance. */
#include "base/clock.h"

#include <math.h>
#include <stdatomic.h>
#include <time.h>

static atomic_bool clock_virtual_on;
static _Atomic int64_t clock_virtual_mono_ns, clock_virtual_wall_ns;
static atomic_uint clock_generation_no;

static int64_t clock_add_sat(int64_t a, int64_t b)
{
	int64_t sum;
	if (LIKELY(!__builtin_add_overflow(a, b, &sum)))
		return sum;
	return b > 0 ? INT64_MAX : INT64_MIN;
}

static int64_t clock_read(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

mono_t mono_now(void)
{
	if (UNLIKELY(atomic_load_explicit(&clock_virtual_on, memory_order_relaxed)))
		return (mono_t){atomic_load_explicit(&clock_virtual_mono_ns, memory_order_acquire)};
	return (mono_t){clock_read(CLOCK_MONOTONIC)};
}

mono_t mono_add(mono_t t, dur_t d)
{
	return t.ns == INT64_MAX ? MONO_NEVER : (mono_t){clock_add_sat(t.ns, d.ns)};
}

wall_t wall_now(void)
{
	if (UNLIKELY(atomic_load_explicit(&clock_virtual_on, memory_order_relaxed)))
		return (wall_t){atomic_load_explicit(&clock_virtual_wall_ns, memory_order_acquire)};
	return (wall_t){clock_read(CLOCK_REALTIME)};
}

wall_t wall_add(wall_t t, dur_t d)
{
	return (wall_t){clock_add_sat(t.ns, d.ns)};
}

dur_t dur_from_seconds(double s)
{
	double ns = s * 1e9;
	if (isnan(ns))
		return DUR_ZERO;
	if (ns >= 9223372036854775807.0)
		return DUR_MAX;
	if (ns <= -9223372036854775808.0)
		return (dur_t){INT64_MIN};
	return (dur_t){(int64_t)nearbyint(ns)};
}

void clock_set_virtual(mono_t mono, wall_t wall)
{
	atomic_store_explicit(&clock_virtual_mono_ns, mono.ns, memory_order_release);
	atomic_store_explicit(&clock_virtual_wall_ns, wall.ns, memory_order_release);
	atomic_fetch_add(&clock_generation_no, 1);
	atomic_store(&clock_virtual_on, true);
}

void clock_advance(dur_t d)
{
	if (!clock_is_virtual())
		panic("clock_advance: the clock is the real one");
	atomic_store_explicit(&clock_virtual_wall_ns,
			      clock_add_sat(atomic_load(&clock_virtual_wall_ns), d.ns), memory_order_release);
	atomic_store_explicit(&clock_virtual_mono_ns,
			      clock_add_sat(atomic_load(&clock_virtual_mono_ns), d.ns), memory_order_release);
}

void clock_set_real(void)
{
	atomic_fetch_add(&clock_generation_no, 1);
	atomic_store(&clock_virtual_on, false);
}

bool clock_is_virtual(void)
{
	return atomic_load(&clock_virtual_on);
}

unsigned clock_generation(void)
{
	return atomic_load_explicit(&clock_generation_no, memory_order_acquire);
}

/* ---- civil time ---- */

struct civil {
	int64_t year;
	unsigned month, day; /* from 1 */
	unsigned hour, min, sec;
	unsigned week_day; /* 0 is Sunday */
	uint32_t ns;
};

int64_t clock_days_of(int64_t year, int64_t month, int64_t day)
{
	year -= month <= 2;
	int64_t era = (year >= 0 ? year : year - 399) / 400;
	int64_t year_of_era = year - era * 400;
	int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

void clock_date_of(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
	days += 719468;
	int64_t era = (days >= 0 ? days : days - 146096) / 146097;
	int64_t day_of_era = days - era * 146097;
	int64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t shifted = (5 * day_of_year + 2) / 153; /* months since March */
	*day = day_of_year - (153 * shifted + 2) / 5 + 1;
	*month = shifted < 10 ? shifted + 3 : shifted - 9;
	*year = year_of_era + era * 400 + (*month <= 2);
}

static struct civil civil_of(wall_t t)
{
	struct civil c;
	int64_t s = wall_unix_s(t);
	int64_t days = s >= 0 ? s / 86400 : -((-s + 86399) / 86400);
	unsigned in_day = (unsigned)(s - days * 86400);
	c.ns = (uint32_t)(t.ns - s * NS_PER_S);
	c.hour = in_day / 3600, c.min = in_day / 60 % 60, c.sec = in_day % 60;
	c.week_day = (unsigned)(((days + 4) % 7 + 7) % 7);
	int64_t month, day;
	clock_date_of(days, &c.year, &month, &day);
	c.month = (unsigned)month, c.day = (unsigned)day;
	return c;
}

static unsigned civil_month_days(int64_t year, unsigned month)
{
	static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && is_leap);
}

static void clock_put_digits(char *p, uint64_t v, int n)
{
	for (int i = n - 1; i >= 0; i--, v /= 10)
		p[i] = (char)('0' + v % 10);
}

void wall_fmt_rfc3339(wall_t t, int digits, struct buf *out)
{
	char z[] = "0000-00-00T00:00:00.000000000";
	struct civil c = civil_of(t); /* int64 nanoseconds reach from 1677 to 2262: four digits */
	if (digits != 0 && digits != 3 && digits != 6 && digits != 9)
		panic("wall_fmt_rfc3339: %d digits", digits);
	clock_put_digits(z, (uint64_t)c.year, 4);
	clock_put_digits(z + 5, c.month, 2);
	clock_put_digits(z + 8, c.day, 2);
	clock_put_digits(z + 11, c.hour, 2);
	clock_put_digits(z + 14, c.min, 2);
	clock_put_digits(z + 17, c.sec, 2);
	clock_put_digits(z + 20, c.ns, 9);
	buf_add(out, z, digits == 0 ? 19 : 20 + (size_t)digits);
	buf_add_c(out, 'Z');
}

void wall_fmt_rfc3339_at(wall_t t, int offset_s, struct buf *out)
{
	int digits = t.ns % NS_PER_S == 0 ? 0 : t.ns % 1000000 == 0 ? 3 : t.ns % 1000 == 0 ? 6 : 9;
	int minutes = (offset_s < 0 ? -offset_s : offset_s) / 60;
	wall_fmt_rfc3339(wall_add(t, dur_s(offset_s)), digits, out);
	if (minutes == 0)
		return;
	char z[] = "+00:00";
	z[0] = offset_s < 0 ? '-' : '+';
	clock_put_digits(z + 1, (uint64_t)minutes / 60, 2);
	clock_put_digits(z + 4, (uint64_t)minutes % 60, 2);
	buf_truncate(out, out->n - 1); /* the Z */
	buf_add(out, z, sizeof(z) - 1);
}

void wall_fmt_rfc2822(wall_t t, struct buf *out)
{
	static const char week_day[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
	static const char month[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	char z[] = "Www, 00 Mmm 0000 00:00:00 +0000";
	struct civil c = civil_of(t);
	memcpy(z, week_day[c.week_day], 3);
	clock_put_digits(z + 5, c.day, 2);
	memcpy(z + 8, month[c.month - 1], 3);
	clock_put_digits(z + 12, (uint64_t)c.year, 4);
	clock_put_digits(z + 17, c.hour, 2);
	clock_put_digits(z + 20, c.min, 2);
	clock_put_digits(z + 23, c.sec, 2);
	buf_add(out, z, sizeof(z) - 1);
}

/* Exactly n digits off the front of *s. */
static bool clock_take_digits(str_t *s, size_t n, unsigned *out)
{
	uint64_t v;
	if (s->n < n || !str_to_u64(str_head(*s, n), &v))
		return false;
	*s = str_skip(*s, n);
	*out = (unsigned)v;
	return true;
}

static bool clock_take_char(str_t *s, const char *any_of)
{
	if (s->n == 0 || s->p[0] == 0 || strchr(any_of, s->p[0]) == NULL)
		return false;
	*s = str_skip(*s, 1);
	return true;
}

/* ".5", ".123456789012": digits beyond nanoseconds are dropped. */
static bool clock_take_fraction(str_t *s, uint32_t *ns)
{
	uint32_t v = 0, unit = 100000000;
	size_t i = 1;
	for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++) {
		v += (uint32_t)(s->p[i] - '0') * unit;
		unit /= 10;
	}
	if (i == 1)
		return false;
	*s = str_skip(*s, i);
	*ns = v;
	return true;
}

static bool clock_take_offset(str_t *s, int64_t *offset_s)
{
	*offset_s = 0;
	if (clock_take_char(s, "Zz"))
		return true;
	bool is_west = s->n != 0 && s->p[0] == '-';
	unsigned hour, min;
	if (!clock_take_char(s, "+-") || !clock_take_digits(s, 2, &hour) || !clock_take_char(s, ":") ||
	    !clock_take_digits(s, 2, &min) || hour > 23 || min > 59)
		return false;
	*offset_s = (int64_t)hour * 3600 + (int64_t)min * 60;
	if (is_west)
		*offset_s = -*offset_s;
	return true;
}

bool wall_parse_rfc3339(str_t s, wall_t *out)
{
	int offset_s;
	return wall_parse_rfc3339_at(s, out, &offset_s);
}

bool wall_parse_rfc3339_at(str_t s, wall_t *out, int *offset)
{
	struct civil c = {0};
	unsigned year;
	int64_t offset_s;
	if (!clock_take_digits(&s, 4, &year) || !clock_take_char(&s, "-") ||
	    !clock_take_digits(&s, 2, &c.month) || !clock_take_char(&s, "-") ||
	    !clock_take_digits(&s, 2, &c.day) || !clock_take_char(&s, "Tt ") ||
	    !clock_take_digits(&s, 2, &c.hour) || !clock_take_char(&s, ":") ||
	    !clock_take_digits(&s, 2, &c.min) || !clock_take_char(&s, ":") ||
	    !clock_take_digits(&s, 2, &c.sec))
		return false;
	if (s.n != 0 && s.p[0] == '.' && !clock_take_fraction(&s, &c.ns))
		return false;
	if (!clock_take_offset(&s, &offset_s) || s.n != 0)
		return false;
	/* A leap second, 23:59:60, counts as the first of the next minute. */
	if (c.month < 1 || c.month > 12 || c.day < 1 || c.day > civil_month_days(year, c.month) ||
	    c.hour > 23 || c.min > 59 || c.sec > 60)
		return false;
	int64_t unix_s = clock_days_of(year, c.month, c.day) * 86400 + (int64_t)c.hour * 3600 +
			 (int64_t)c.min * 60 + c.sec - offset_s;
	int64_t ns;
	if (__builtin_mul_overflow(unix_s, NS_PER_S, &ns) || __builtin_add_overflow(ns, (int64_t)c.ns, &ns))
		return false;
	out->ns = ns;
	*offset = (int)offset_s;
	return true;
}

/* ---- lengths of time ---- */

#define DUR_MIN_NS (60 * NS_PER_S)
#define DUR_HOUR_NS (60 * DUR_MIN_NS)
#define DUR_DAY_NS (24 * DUR_HOUR_NS)
#define DUR_WEEK_NS (7 * DUR_DAY_NS)
#define DUR_MONTH_NS (INT64_C(2630016) * NS_PER_S) /* 30.44 days */
#define DUR_YEAR_NS (INT64_C(31557600) * NS_PER_S) /* 365.25 days */

static const struct dur_unit {
	const char *name;
	int64_t ns;
} dur_units[] = {
	{"s", NS_PER_S},
	{"sec", NS_PER_S},
	{"secs", NS_PER_S},
	{"second", NS_PER_S},
	{"seconds", NS_PER_S},
	{"m", DUR_MIN_NS},
	{"min", DUR_MIN_NS},
	{"mins", DUR_MIN_NS},
	{"minute", DUR_MIN_NS},
	{"minutes", DUR_MIN_NS},
	{"h", DUR_HOUR_NS},
	{"hr", DUR_HOUR_NS},
	{"hrs", DUR_HOUR_NS},
	{"hour", DUR_HOUR_NS},
	{"hours", DUR_HOUR_NS},
	{"d", DUR_DAY_NS},
	{"day", DUR_DAY_NS},
	{"days", DUR_DAY_NS},
	{"w", DUR_WEEK_NS},
	{"wk", DUR_WEEK_NS},
	{"wks", DUR_WEEK_NS},
	{"week", DUR_WEEK_NS},
	{"weeks", DUR_WEEK_NS},
	{"M", DUR_MONTH_NS},
	{"month", DUR_MONTH_NS},
	{"months", DUR_MONTH_NS},
	{"y", DUR_YEAR_NS},
	{"yr", DUR_YEAR_NS},
	{"yrs", DUR_YEAR_NS},
	{"year", DUR_YEAR_NS},
	{"years", DUR_YEAR_NS},
	{"ms", 1000000},
	{"msec", 1000000},
	{"millis", 1000000},
	{"us", 1000},
	{"usec", 1000},
	{"micros", 1000},
	{"\xc2\xb5s", 1000},
	{"ns", 1},
	{"nsec", 1},
	{"nanos", 1},
};

static bool dur_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool dur_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "12", "1.5", ".5": whole + frac / 10^frac_digits. Digits of the fraction beyond 17 cannot matter. */
struct dur_number {
	uint64_t whole;
	int64_t frac;
	int64_t frac_scale;
};

static bool dur_take_number(str_t *s, struct dur_number *out)
{
	size_t n = 0, n_frac = 0;
	*out = (struct dur_number){.frac_scale = 1};
	while (n < s->n && dur_is_digit(s->p[n]))
		n++;
	if (n != 0 && !str_to_u64(str_head(*s, n), &out->whole))
		return false;
	*s = str_skip(*s, n);
	if (s->n != 0 && s->p[0] == '.') {
		*s = str_skip(*s, 1);
		for (; n_frac < s->n && dur_is_digit(s->p[n_frac]); n_frac++) {
			if (n_frac >= 17)
				continue;
			out->frac = out->frac * 10 + (s->p[n_frac] - '0');
			out->frac_scale *= 10;
		}
		if (n_frac == 0)
			return false;
		*s = str_skip(*s, n_frac);
	}
	return n + n_frac != 0;
}

static const struct dur_unit *dur_take_unit(str_t *s)
{
	size_t n = 0;
	while (n < s->n && !dur_is_blank(s->p[n]) && !dur_is_digit(s->p[n]) && s->p[n] != '.')
		n++;
	str_t name = str_head(*s, n);
	*s = str_skip(*s, n);
	for (size_t i = 0; i < ARRAY_SIZE(dur_units); i++) {
		if (str_eq(name, str_of(dur_units[i].name)))
			return &dur_units[i];
	}
	return NULL;
}

static str_t dur_skip_blanks(str_t s)
{
	while (s.n != 0 && dur_is_blank(s.p[0]))
		s = str_skip(s, 1);
	return s;
}

bool dur_parse(str_t s, dur_t *out)
{
	__int128 total = 0;
	s = str_trim(s);
	if (s.n == 0)
		return false;
	for (bool is_first = true; s.n != 0; is_first = false, s = dur_skip_blanks(s)) {
		struct dur_number v;
		if (!dur_take_number(&s, &v))
			return false;
		s = dur_skip_blanks(s);
		const struct dur_unit *unit = is_first && s.n == 0 ? &dur_units[0] : dur_take_unit(&s);
		if (unit == NULL)
			return false;
		total += (__int128)v.whole * unit->ns + (__int128)v.frac * unit->ns / v.frac_scale;
		if (total > INT64_MAX)
			return false;
	}
	out->ns = (int64_t)total;
	return true;
}

void dur_fmt(dur_t d, struct buf *out)
{
	static const struct {
		int64_t ns;
		const char *one, *many;
	} parts[] = {
		{DUR_YEAR_NS, "year", "years"},
		{DUR_MONTH_NS, "month", "months"},
		{DUR_DAY_NS, "day", "days"},
		{DUR_HOUR_NS, "h", "h"},
		{DUR_MIN_NS, "m", "m"},
		{NS_PER_S, "s", "s"},
		{1000000, "ms", "ms"},
		{1000, "us", "us"},
		{1, "ns", "ns"},
	};
	uint64_t left = d.ns < 0 ? 0 - (uint64_t)d.ns : (uint64_t)d.ns;
	if (left == 0) {
		buf_add_z(out, "0s");
		return;
	}
	if (d.ns < 0)
		buf_add_c(out, '-');
	bool is_first = true;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		uint64_t n = left / (uint64_t)parts[i].ns;
		if (n == 0)
			continue;
		left -= n * (uint64_t)parts[i].ns;
		if (!is_first)
			buf_add_c(out, ' ');
		buf_add_u64(out, n);
		buf_add_z(out, n == 1 ? parts[i].one : parts[i].many);
		is_first = false;
	}
}
