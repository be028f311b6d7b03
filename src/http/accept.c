/* accept.c - content negotiation. The quality of a form is that of the most precise range that matches it,
 * wherever in the header that stands: text/plain;version=0.0.4 before text/plain, before a type with any
 * subtype, before any type. A malformed range is passed over. */
#include "http/accept.h"

#include "base/defs.h"

struct accept_range {
	str_t type, params; /* params: what stands behind the first semicolon */
	int quality;	    /* in thousandths */
};

int http_weight(str_t s)
{
	if (s.n == 0 || s.n > 5 || (s.p[0] != '0' && s.p[0] != '1') || (s.n > 1 && s.p[1] != '.'))
		return -1;
	int q = (s.p[0] - '0') * 1000, unit = 100;
	for (size_t i = 2; i < s.n; i++, unit /= 10) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return -1;
		q += (s.p[i] - '0') * unit;
	}
	return q <= 1000 ? q : -1;
}

static str_t accept_unquote(str_t s)
{
	if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
		return str_mk(s.p + 1, s.n - 2);
	return s;
}

/* The value of a parameter; p == NULL: there is none. */
static str_t accept_param(str_t params, str_t name)
{
	str_t one;
	while (params.n != 0 && str_split(&params, ';', &one)) {
		ptrdiff_t eq = str_chr(one, '=', 0);
		if (eq >= 0 && str_ieq(str_trim(str_head(one, (size_t)eq)), name))
			return accept_unquote(str_trim(str_skip(one, (size_t)eq + 1)));
	}
	return STR_NULL;
}

static bool accept_range_parse(str_t s, struct accept_range *r)
{
	ptrdiff_t semicolon = str_chr(s, ';', 0);
	r->type = str_trim(semicolon < 0 ? s : str_head(s, (size_t)semicolon));
	r->params = semicolon < 0 ? STR_NULL : str_skip(s, (size_t)semicolon + 1);
	str_t q = accept_param(r->params, STR("q"));
	r->quality = q.p == NULL ? 1000 : http_weight(q);
	return r->quality >= 0 && str_chr(r->type, '/', 0) > 0;
}

/* How precisely a range names a form: 0 not at all, 4 with the parameter. */
static int accept_precision(const struct accept_range *r, const struct http_media *m)
{
	str_t type = str_of(m->type);
	if (str_eq(r->type, STR("*/*")))
		return 1;
	if (r->type.p[r->type.n - 1] == '*')
		return str_istarts(type, str_head(r->type, r->type.n - 1)) ? 2 : 0;
	if (!str_ieq(r->type, type))
		return 0;
	str_t given = m->param != NULL ? accept_param(r->params, str_of(m->param)) : STR_NULL;
	if (given.p == NULL)
		return 3;
	return str_ieq(given, str_of(m->param_value)) ? 4 : 0;
}

/* The quality of a form in thousandths, and how precisely it was named. */
static int accept_quality_of(str_t accept, const struct http_media *m, int *precision)
{
	int quality = 0;
	str_t one;
	*precision = 0;
	while (accept.n != 0 && str_split(&accept, ',', &one)) {
		struct accept_range r;
		if (!accept_range_parse(one, &r))
			continue;
		int p = accept_precision(&r, m);
		if (p <= *precision)
			continue;
		*precision = p;
		quality = r.quality;
	}
	return quality;
}

size_t http_accept_choose(str_t accept, const struct http_media *offered, size_t n)
{
	size_t best = 0;
	int best_quality = 0, best_precision = 0;
	for (size_t i = 0; i < n; i++) {
		int precision, quality = accept_quality_of(accept, &offered[i], &precision);
		if (quality < best_quality || (quality == best_quality && precision <= best_precision))
			continue;
		best = i;
		best_quality = quality;
		best_precision = precision;
	}
	return best_quality > 0 ? best : 0;
}
