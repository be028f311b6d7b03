/* throttle.c - the state of a limiter is one point in time: the one at which everything admitted so far will
 * be within the rate. An operation moves it on by period / limit, and may proceed as soon as it is not
 * further ahead of now than max_burst operations. It is kept in units of ns / limit, in which that is exact
 * for any rate. */
#include "base/throttle.h"

#include "base/err.h"

static const struct {
	const char *name;
	uint64_t seconds;
} throttle_unit[] = {
	{"s", 1},	{"sec", 1},	 {"second", 1},	  {"seconds", 1}, {"m", 60},
	{"min", 60},	{"minute", 60},	 {"minutes", 60}, {"h", 3600},	  {"hr", 3600},
	{"hour", 3600}, {"hours", 3600}, {"d", 86400},	  {"day", 86400}, {"days", 86400},
};

#define THROTTLE_MAX UINT64_C(1000000000000) /* of operations: times a period in ns they fit 128 bits */
#define THROTTLE_MAX_PERIODS UINT64_C(1000000000)

/* Digits, with `,` and `_` between them. */
static bool throttle_number(str_t s, uint64_t *out)
{
	uint64_t v = 0;
	for (size_t i = 0; i < s.n; i++) {
		bool is_separator = (s.p[i] == ',' || s.p[i] == '_') && i > 0 && i + 1 < s.n;
		if (is_separator)
			continue;
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
		if (v > THROTTLE_MAX)
			return false;
	}
	*out = v;
	return s.n > 0 && v > 0;
}

static int throttle_fail(str_t text, const char *what)
{
	err_set(ERR_INVALID, "throttle `" STR_FMT "`: %s", STR_ARG(str_head(text, 100)), what);
	return -1;
}

static bool throttle_period(str_t s, uint64_t *out)
{
	size_t n = 0;
	uint64_t times = 1;
	while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
		n++;
	if (n > 0 && (!str_to_u64(str_head(s, n), &times) || times == 0 || times > THROTTLE_MAX_PERIODS))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(throttle_unit); i++) {
		if (str_eq(str_skip(s, n), str_of(throttle_unit[i].name))) {
			*out = times * throttle_unit[i].seconds;
			return true;
		}
	}
	return false;
}

int throttle_spec_parse(str_t text, struct throttle_spec *out)
{
	struct throttle_spec s = {.limit = 0};
	str_t rest = text;
	if (str_starts(rest, STR("local:"))) {
		s.is_local = true;
		rest = str_skip(rest, 6);
	}
	ptrdiff_t slash = str_chr(rest, '/', 0);
	if (slash < 0)
		return throttle_fail(text, "expected `[local:]QUANTITY/PERIOD[,max_burst=BURST]`");
	if (!throttle_number(str_head(rest, (size_t)slash), &s.limit))
		return throttle_fail(text, "the quantity must be an integer above 0");
	rest = str_skip(rest, (size_t)slash + 1);
	ptrdiff_t comma = str_chr(rest, ',', 0);
	str_t period = comma < 0 ? rest : str_head(rest, (size_t)comma);
	if (!throttle_period(period, &s.period_s))
		return throttle_fail(
			text, "the period must be s, m, h or d (or sec, min, hr, day), or a number of these");
	s.max_burst = s.limit;
	if (comma >= 0) {
		rest = str_skip(rest, (size_t)comma + 1);
		if (!str_starts(rest, STR("max_burst=")) ||
		    !throttle_number(str_skip(rest, 10), &s.max_burst))
			return throttle_fail(text,
					     "expected `max_burst=` and an integer above 0 after the comma");
	}
	*out = s;
	return 0;
}

bool throttle_spec_eq(const struct throttle_spec *a, const struct throttle_spec *b)
{
	return a->limit == b->limit && a->period_s == b->period_s && a->max_burst == b->max_burst &&
	       a->is_local == b->is_local;
}

void throttle_init(struct throttle *t, const struct throttle_spec *spec)
{
	*t = (struct throttle){.spec = *spec, .next = (__int128)mono_now().ns * (__int128)spec->limit};
}

/* In ns, rounded up, of a span that is not negative. */
static dur_t throttle_ns(const struct throttle *t, __int128 span)
{
	__int128 ns = (span + (__int128)t->spec.limit - 1) / (__int128)t->spec.limit;
	return dur_ns(ns > INT64_MAX ? INT64_MAX : (int64_t)ns);
}

bool throttle_admit(struct throttle *t, uint64_t n, dur_t patience, dur_t *wait)
{
	__int128 one = (__int128)t->spec.period_s * NS_PER_S; /* what an operation costs */
	n = n < THROTTLE_MAX ? n : THROTTLE_MAX;
	uint64_t room = n < t->spec.max_burst ? t->spec.max_burst - n : 0;
	__int128 now = (__int128)mono_now().ns * (__int128)t->spec.limit;
	__int128 from = t->next > now ? t->next : now;
	__int128 early = from - (__int128)room * one;
	*wait = early > now ? throttle_ns(t, early - now) : DUR_ZERO;
	bool is_admitted = wait->ns <= patience.ns;
	if (is_admitted)
		t->next = from + (__int128)n * one;
	return is_admitted;
}
