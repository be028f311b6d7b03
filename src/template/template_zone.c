/* template_zone.c - the offset of a named time zone at a point in time, from the system's time zone database
 * (TZif, RFC 8536: the transitions of the 64-bit block, then the rule in the footer). A zone's file is read
 * once, at its first use, and stays in memory; their number is bounded by the number of files there are,
 * their size by ZONE_MAX_BYTES. Any thread. */
#include "template/template_impl.h"

#include "base/alloc.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { ZONE_MAX_BYTES = 256 << 10, ZONE_MAX_CACHED = 1024 };

struct zone {
	struct zone *next;
	char *name;
	unsigned char *data; /* NULL: there is no such zone */
	size_t n_bytes;
};

static pthread_mutex_t zone_lock = PTHREAD_MUTEX_INITIALIZER;
static struct zone *zones;
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

static const struct zone *zone_find(str_t name)
{
	if (!zone_is_name(name))
		return NULL;
	pthread_mutex_lock(&zone_lock);
	struct zone *z = zones;
	while (z != NULL && !str_eq(name, str_of(z->name)))
		z = z->next;
	if (z == NULL && n_zones < ZONE_MAX_CACHED) {
		size_t n_bytes = 0;
		char *text = str_dup(name);
		unsigned char *data = zone_read(text, &n_bytes);
		if (data == NULL) { /* unknown names are not remembered: they could be anything */
			free(text);
		} else {
			z = xnew(struct zone);
			*z = (struct zone){.next = zones, .name = text, .data = data, .n_bytes = n_bytes};
			zones = z;
			n_zones++;
		}
	}
	pthread_mutex_unlock(&zone_lock);
	return z;
}

static int64_t zone_be(const unsigned char *p, int n)
{
	uint64_t v = (p[0] & 0x80) ? UINT64_MAX : 0;
	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return (int64_t)v;
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
	int64_t first = template_days_from_civil(year, 1, 1), day;
	if (rule->kind == 'D') {
		day = first + rule->day;
	} else if (rule->kind == 'J') {
		day = first + rule->day - 1 + (is_leap && rule->day >= 60);
	} else {
		static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
		int64_t month = template_days_from_civil(year, rule->month, 1);
		int length = lengths[rule->month - 1] + (rule->month == 2 && is_leap);
		int64_t weekday = ((month % 7) + 7 + 4) % 7; /* 1970-01-01 was a Thursday */
		day = month + (rule->day - weekday + 7) % 7 + (int64_t)(rule->week - 1) * 7;
		if (day >= month + length)
			day -= 7;
	}
	return day * 86400 + rule->time;
}

static bool zone_footer(const char *p, int64_t at, int *offset_s)
{
	int64_t std, dst;
	struct zone_rule start, end;
	if (!zone_abbreviation(&p) || !zone_time(&p, &std))
		return false;
	*offset_s = (int)-std;
	if (*p == 0)
		return true;
	dst = std - 3600;
	if (!zone_abbreviation(&p) || (*p != ',' && !zone_time(&p, &dst)) || !zone_rule_parse(&p, &start) ||
	    !zone_rule_parse(&p, &end))
		return false;
	int64_t year, month, day;
	template_civil_from_days((at - std) / 86400 - ((at - std) % 86400 < 0), &year, &month, &day);
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

static bool zone_offset(const struct zone *z, int64_t at, int *offset_s)
{
	const unsigned char *p = z->data, *end = z->data + z->n_bytes;
	struct zone_block b;
	int width = 4;
	if (!zone_header(p, end, &b))
		return false;
	if (p[4] >= '2') {
		int64_t skip = 44 + zone_block_bytes(&b, 4);
		if (skip > end - p || !zone_header(p + skip, end, &b))
			return false;
		p += skip;
		width = 8;
	}
	p += 44;
	if (zone_block_bytes(&b, width) > end - p)
		return false;
	const unsigned char *times = p, *index = times + b.n_times * width, *types = index + b.n_times;
	int64_t lo = 0, hi = b.n_times; /* the number of transitions that are past */
	while (lo < hi) {
		int64_t mid = (lo + hi) / 2;
		if (zone_be(times + mid * width, width) <= at)
			lo = mid + 1;
		else
			hi = mid;
	}
	const char *footer = (const char *)p + zone_block_bytes(&b, width);
	if (lo == b.n_times && width == 8 && (const char *)end - footer > 2 && *footer == '\n') {
		char text[128];
		str_t rule = str_mk(footer + 1, (size_t)((const char *)end - footer) - 1);
		ptrdiff_t n = str_chr(rule, '\n', 0);
		if (n > 0 && n < (ptrdiff_t)sizeof(text)) {
			memcpy(text, rule.p, (size_t)n);
			text[n] = 0;
			if (zone_footer(text, at, offset_s))
				return true;
		}
	}
	int64_t type = lo > 0 ? index[lo - 1] : 0;
	if (type >= b.n_types)
		return false;
	*offset_s = (int)zone_be(types + type * 6, 4);
	return true;
}

bool template_zone_offset(str_t name, int64_t unix_s, int *offset_s)
{
	if (str_eq(name, STR("UTC"))) {
		*offset_s = 0;
		return true;
	}
	const struct zone *z = zone_find(name);
	return z != NULL && zone_offset(z, unix_s, offset_s) && *offset_s > -86400 && *offset_s < 86400;
}
