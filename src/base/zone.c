/* zone.c - named time zones from the system's time zone database (TZif, RFC 8536: the transitions of the
 * 64-bit block, then the rule in the footer). A zone's file is read and checked once, at its first use, and
 * stays in memory; their number is bounded by the number of files there are, their size by ZONE_MAX_BYTES.
 * Nothing of a zone changes after it was made: only the list of them is locked. */
#include "base/zone.h"

#include "base/alloc.h"
#include "base/clock.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ZONE_MAX_BYTES = 256 << 10, ZONE_MAX_CACHED = 1024, ZONE_RULE_BYTES = 128, DAY_S = 86400 };

struct zone {
	const struct zone *next;
	const char *name;
	unsigned char *data; /* NULL: UTC */
	int width;	     /* bytes of a time: 8, or 4 in files of version 1 */
	int64_t n_times, n_types;
	const unsigned char *times, *index,
		*types;		    /* into data: transitions, the type after each, what the types are */
	char rule[ZONE_RULE_BYTES]; /* the footer's, for times after the last transition; or "" */
};

static const struct zone zone_utc = {.name = "UTC"};
static pthread_mutex_t zone_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct zone *zones;
static int n_zones;

static bool zone_is_name(str_t name)
{
	if (name.n == 0 || name.n > 64 || name.p[0] == '/' || str_find(name, STR("..")) >= 0)
		return false;
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];
		bool is_ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			     c == '/' || c == '_' || c == '-' || c == '+';
		if (!is_ok)
			return false;
	}
	return true;
}

static unsigned char *zone_read(const char *name, size_t *n_bytes)
{
	char path[128];
	snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	unsigned char *data = xmalloc(ZONE_MAX_BYTES);
	size_t n = 0;
	ssize_t got;
	while (n < ZONE_MAX_BYTES && (got = read(fd, data + n, ZONE_MAX_BYTES - n)) > 0)
		n += (size_t)got;
	close(fd);
	if (n < 44 || memcmp(data, "TZif", 4) != 0) {
		free(data);
		return NULL;
	}
	*n_bytes = n;
	return xrealloc(data, n);
}

static int64_t zone_be(const unsigned char *p, int n)
{
	uint64_t v = (p[0] & 0x80) ? UINT64_MAX : 0;
	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return (int64_t)v;
}

static bool zone_is_offset(int64_t offset_s)
{
	return offset_s > -DAY_S && offset_s < DAY_S;
}

/* --- the footer's rule, a POSIX TZ string: "CET-1CEST,M3.5.0,M10.5.0/3" --- */

struct zone_rule {
	char kind; /* 'M' month.week.day, 'J' day without 29 February, 'D' day of the year from 0 */
	int month, week, day;
	int64_t time; /* seconds after midnight, local */
};

static bool zone_number(const char **p, int max, int *out)
{
	int v = 0;
	const char *start = *p;
	while (**p >= '0' && **p <= '9' && v <= max)
		v = v * 10 + (*(*p)++ - '0');
	*out = v;
	return *p > start && v <= max;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static bool zone_time(const char **p, int64_t *out)
{
	int sign = 1, v, unit = 3600;
	if (**p == '+' || **p == '-')
		sign = *(*p)++ == '-' ? -1 : 1;
	*out = 0;
	for (;; (*p)++) {
		if (!zone_number(p, 167, &v))
			return false;
		*out += (int64_t)v * unit;
		unit /= 60;
		if (**p != ':' || unit == 0)
			break;
	}
	*out *= sign;
	return true;
}

static bool zone_abbreviation(const char **p)
{
	const char *start = *p;
	if (**p == '<') {
		while (**p != 0 && **p != '>')
			(*p)++;
		return *(*p)++ == '>';
	}
	while ((**p >= 'a' && **p <= 'z') || (**p >= 'A' && **p <= 'Z'))
		(*p)++;
	return *p > start;
}

static bool zone_rule_parse(const char **p, struct zone_rule *rule)
{
	if (*(*p)++ != ',')
		return false;
	*rule = (struct zone_rule){.kind = **p == 'M' || **p == 'J' ? *(*p)++ : 'D', .time = 7200};
	if (rule->kind == 'M') {
		if (!zone_number(p, 12, &rule->month) || *(*p)++ != '.' || !zone_number(p, 5, &rule->week) ||
		    *(*p)++ != '.' || !zone_number(p, 6, &rule->day) || rule->month == 0 || rule->week == 0)
			return false;
	} else if (!zone_number(p, 366, &rule->day)) {
		return false;
	}
	if (**p != '/')
		return true;
	(*p)++;
	return zone_time(p, &rule->time);
}

/* Seconds since 1970 of the rule in that year, as if its local time were UTC. */
static int64_t zone_rule_at(const struct zone_rule *rule, int64_t year)
{
	bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	int64_t first = clock_days_of(year, 1, 1), day;
	if (rule->kind == 'D') {
		day = first + rule->day;
	} else if (rule->kind == 'J') {
		day = first + rule->day - 1 + (is_leap && rule->day >= 60);
	} else {
		static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
		int64_t month = clock_days_of(year, rule->month, 1);
		int length = lengths[rule->month - 1] + (rule->month == 2 && is_leap);
		int64_t weekday = ((month % 7) + 7 + 4) % 7; /* 1970-01-01 was a Thursday */
		day = month + (rule->day - weekday + 7) % 7 + (int64_t)(rule->week - 1) * 7;
		if (day >= month + length)
			day -= 7;
	}
	return day * DAY_S + rule->time;
}

/* What the rule says of a time. */
static bool zone_rule_offset(const char *p, int64_t at, int *offset_s)
{
	int64_t std, dst;
	struct zone_rule start, end;
	if (!zone_abbreviation(&p) || !zone_time(&p, &std) || !zone_is_offset(std))
		return false;
	*offset_s = (int)-std;
	if (*p == 0)
		return true;
	dst = std - 3600;
	if (!zone_abbreviation(&p) || (*p != ',' && !zone_time(&p, &dst)) || !zone_rule_parse(&p, &start) ||
	    !zone_rule_parse(&p, &end) || !zone_is_offset(dst))
		return false;
	int64_t year, month, day;
	clock_date_of((at - std) / DAY_S - ((at - std) % DAY_S < 0), &year, &month, &day);
	int64_t from = zone_rule_at(&start, year) + std, to = zone_rule_at(&end, year) + dst;
	bool is_dst = from < to ? at >= from && at < to : at >= from || at < to;
	*offset_s = (int)-(is_dst ? dst : std);
	return true;
}

/* --- TZif --- */

struct zone_block {
	int64_t n_isut, n_isstd, n_leap, n_times, n_types, n_chars;
};

static bool zone_header(const unsigned char *p, const unsigned char *end, struct zone_block *b)
{
	if (end - p < 44 || memcmp(p, "TZif", 4) != 0)
		return false;
	*b = (struct zone_block){zone_be(p + 20, 4), zone_be(p + 24, 4), zone_be(p + 28, 4),
				 zone_be(p + 32, 4), zone_be(p + 36, 4), zone_be(p + 40, 4)};
	return b->n_isut >= 0 && b->n_isstd >= 0 && b->n_leap >= 0 && b->n_times >= 0 && b->n_types > 0 &&
	       b->n_chars >= 0;
}

static int64_t zone_block_bytes(const struct zone_block *b, int time_bytes)
{
	return b->n_times * (time_bytes + 1) + b->n_types * 6 + b->n_chars + b->n_leap * (time_bytes + 4) +
	       b->n_isstd + b->n_isut;
}

static int zone_type_offset(const struct zone *z, int64_t type)
{
	return (int)zone_be(z->types + type * 6, 4);
}

/* Finds the parts of the file and checks what is looked at later. */
static bool zone_parse(struct zone *z, size_t n_bytes)
{
	const unsigned char *p = z->data, *end = p + n_bytes;
	struct zone_block b;
	int offset_s;
	if (!zone_header(p, end, &b))
		return false;
	z->width = 4;
	if (p[4] >= '2') {
		int64_t skip = 44 + zone_block_bytes(&b, 4);
		if (skip > end - p || !zone_header(p + skip, end, &b))
			return false;
		p += skip;
		z->width = 8;
	}
	p += 44;
	if (zone_block_bytes(&b, z->width) > end - p)
		return false;
	z->n_times = b.n_times, z->n_types = b.n_types;
	z->times = p;
	z->index = z->times + b.n_times * z->width;
	z->types = z->index + b.n_times;
	for (int64_t i = 0; i < b.n_times; i++)
		if (z->index[i] >= b.n_types)
			return false;
	for (int64_t i = 0; i < b.n_types; i++)
		if (!zone_is_offset(zone_type_offset(z, i)))
			return false;
	const unsigned char *footer = p + zone_block_bytes(&b, z->width);
	if (z->width == 8 && end - footer > 2 && *footer == '\n') {
		str_t rule = str_mk((const char *)footer + 1, (size_t)(end - footer) - 1);
		ptrdiff_t n = str_chr(rule, '\n', 0);
		if (n > 0 && n < ZONE_RULE_BYTES)
			memcpy(z->rule, rule.p, (size_t)n);
		if (z->rule[0] != 0 && !zone_rule_offset(z->rule, 0, &offset_s))
			z->rule[0] = 0;
	}
	return true;
}

/* --- zones --- */

static struct zone *zone_new(str_t name)
{
	size_t n_bytes = 0;
	struct zone *z = xnew(struct zone);
	char *text = str_dup(name);
	z->name = text;
	z->data = zone_read(text, &n_bytes);
	if (z->data != NULL && zone_parse(z, n_bytes))
		return z;
	free(z->data);
	free(text);
	free(z);
	return NULL;
}

const struct zone *zone_find(str_t name)
{
	if (str_eq(name, STR("UTC")))
		return &zone_utc;
	if (!zone_is_name(name))
		return NULL;
	pthread_mutex_lock(&zone_lock);
	const struct zone *found = zones;
	while (found != NULL && !str_eq(name, str_of(found->name)))
		found = found->next;
	if (found == NULL && n_zones < ZONE_MAX_CACHED) {
		/* unknown names are not remembered: they could be anything */
		struct zone *z = zone_new(name);
		if (z != NULL) {
			z->next = zones;
			zones = found = z;
			n_zones++;
		}
	}
	pthread_mutex_unlock(&zone_lock);
	return found;
}

int zone_offset(const struct zone *z, int64_t unix_s)
{
	int64_t lo = 0, hi = z->n_times; /* the number of transitions that are past */
	int offset_s;
	if (z->data == NULL)
		return 0;
	while (lo < hi) {
		int64_t mid = (lo + hi) / 2;
		if (zone_be(z->times + mid * z->width, z->width) <= unix_s)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == z->n_times && z->rule[0] != 0 && zone_rule_offset(z->rule, unix_s, &offset_s))
		return offset_s;
	return zone_type_offset(z, lo > 0 ? z->index[lo - 1] : 0);
}

int64_t zone_unix_of_local(const struct zone *z, int64_t local_s)
{
	/* Offsets stay under a day: those in force a day before and after are the only ones that local_s can
	 * be of, unless a zone changes twice within two days, which none does. */
	int before = zone_offset(z, local_s - DAY_S), after = zone_offset(z, local_s + DAY_S);
	int64_t early = local_s - before, late = local_s - after;
	if (early > late) {
		int64_t swap = early;
		early = late;
		late = swap;
	}
	if (early + zone_offset(z, early) == local_s)
		return early;
	if (late + zone_offset(z, late) == local_s)
		return late;
	/* Jumped over: the jump lies between the two. */
	while (late - early > 1) {
		int64_t mid = early + (late - early) / 2;
		if (mid + zone_offset(z, mid) < local_s)
			early = mid;
		else
			late = mid;
	}
	return late;
}
