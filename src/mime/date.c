/* date.c - see the header. */
#include "mime/date.h"

#include "mime/header_lex.h"

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alpha(unsigned char c)
{
	return (c | 32) >= 'a' && (c | 32) <= 'z';
}

static bool date_read_number(struct header_lex *l, size_t n_digits_max, int *out, size_t *n_digits)
{
	header_lex_skip(l, NULL);
	str_t digits = header_lex_run(l, is_digit);
	*out = 0;
	for (size_t i = 0; i < digits.n && i < 9; i++)
		*out = *out * 10 + (digits.p[i] - '0');
	if (n_digits != NULL)
		*n_digits = digits.n;
	return digits.n > 0 && digits.n <= n_digits_max;
}

static bool date_read_month(struct header_lex *l, int *out)
{
	static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";
	header_lex_skip(l, NULL);
	str_t word = header_lex_run(l, is_alpha);
	for (int i = 0; i < 12 && word.n >= 3; i++) {
		if (str_ieq(str_head(word, 3), str_mk(names + (size_t)i * 3, 3))) {
			*out = i + 1;
			return true;
		}
	}
	return false;
}

/* Seconds east of UTC. */
static int date_read_zone(struct header_lex *l)
{
	static const struct {
		str_t name;
		int hours;
	} zones[] = {
		{STR("EST"), -5}, {STR("EDT"), -4}, {STR("CST"), -6}, {STR("CDT"), -5},
		{STR("MST"), -7}, {STR("MDT"), -6}, {STR("PST"), -8}, {STR("PDT"), -7},
		{STR("CET"), 1},  {STR("CEST"), 2}, {STR("EET"), 2},  {STR("EEST"), 3},
		{STR("BST"), 1},  {STR("MSK"), 3},  {STR("JST"), 9},  {STR("KST"), 9},
	};
	header_lex_skip(l, NULL);
	int c = header_lex_peek(l), hhmm;
	size_t n;
	if (c == '+' || c == '-') {
		l->at++;
		if (!date_read_number(l, 4, &hhmm, &n))
			return 0;
		int seconds = n <= 2 ? hhmm * 3600 : hhmm / 100 * 3600 + hhmm % 100 * 60;
		return seconds > 86400 ? 0 : c == '-' ? -seconds : seconds;
	}
	str_t word = header_lex_run(l, is_alpha);
	for (size_t i = 0; i < ARRAY_SIZE(zones); i++)
		if (str_ieq(word, zones[i].name))
			return zones[i].hours * 3600;
	return 0;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64_t days_from_civil(int year, int month, int day)
{
	int64_t y = year - (month <= 2);
	int64_t era = (y >= 0 ? y : y - 399) / 400, year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static int days_of_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	return days[month - 1] + (month == 2 && is_leap);
}

bool date_parse(str_t value, wall_t *out)
{
	struct header_lex l = {value, 0};
	int day, month, year, hour, minute, second = 0;
	size_t n_year;
	header_lex_skip(&l, NULL);
	if (header_lex_run(&l, is_alpha).n > 0) {
		header_lex_skip(&l, NULL);
		header_lex_eat(&l, ',');
	}
	if (!date_read_number(&l, 2, &day, NULL) || !date_read_month(&l, &month) ||
	    !date_read_number(&l, 4, &year, &n_year) || !date_read_number(&l, 2, &hour, NULL))
		return false;
	header_lex_skip(&l, NULL);
	if (!header_lex_eat(&l, ':') || !date_read_number(&l, 2, &minute, NULL))
		return false;
	header_lex_skip(&l, NULL);
	if (header_lex_eat(&l, ':') && !date_read_number(&l, 2, &second, NULL))
		return false;
	int zone = date_read_zone(&l);
	if (n_year == 2)
		year += year < 50 ? 2000 : 1900;
	else if (n_year == 3)
		year += 1900;
	/* What wall_t can hold, and a leap second. */
	if (n_year < 2 || year < 1700 || year > 2250 || day < 1 || day > days_of_month(year, month) ||
	    hour > 23 || minute > 59 || second > 60)
		return false;
	int64_t unix_s =
		days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone;
	*out = (wall_t){unix_s * NS_PER_S};
	return true;
}
