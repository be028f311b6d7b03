/* metric_text.c - the two text forms: that of Prometheus (exposition format 0.0.4) and OpenMetrics 1.0.0.
 *
 * They differ in these: in OpenMetrics a counter's family has no `_total` at its end and its samples always
 * have; quotes in help texts are escaped; the bounds of buckets are always written as floats; there is no
 * blank between labels; and the end is marked. In the Prometheus form labels are separated by a comma and a
 * blank, but for histograms, as the programs that read it line by line know it. Both must be UTF-8: other
 * bytes in a label become U+FFFD. */
#include "base/metric_impl.h"
#include "base/text.h"

#include <math.h>
#include <stdlib.h>

struct metric_text {
	struct buf *out;
	struct buf labels; /* of the row in hand */
	bool is_open;	   /* OpenMetrics */
};

/* --- texts --- */

static void metric_text_add_utf8(struct buf *out, str_t s)
{
	while (s.n != 0) {
		size_t n_bad = 0, n = str_utf8_step(s, &n_bad);
		if (n != 0) {
			buf_add(out, s.p, n);
		} else {
			buf_add_str(out, STR("\xef\xbf\xbd"));
			n = n_bad != 0 ? n_bad : 1;
		}
		s = str_skip(s, n);
	}
}

/* Escapes backslash, LF and, where has_quotes, the double quote. s is UTF-8. */
static void metric_text_escape(struct buf *out, str_t s, bool has_quotes)
{
	size_t start = 0;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c != '\\' && c != '\n' && (c != '"' || !has_quotes))
			continue;
		buf_add(out, s.p + start, i - start);
		buf_add_c(out, '\\');
		buf_add_c(out, c == '\n' ? 'n' : c);
		start = i + 1;
	}
	buf_add(out, s.p + start, s.n - start);
}

static void metric_text_label_value(struct buf *out, str_t s)
{
	if (LIKELY(str_is_utf8(s))) {
		metric_text_escape(out, s, true);
		return;
	}
	struct buf good = BUF_INIT;
	metric_text_add_utf8(&good, s);
	metric_text_escape(out, buf_str(&good), true);
	buf_fini(&good);
}

/* a="x", b="y": without the braces. */
static void metric_text_labels(struct metric_text *t, const struct metric *m, str_t key)
{
	struct buf *out = &t->labels;
	buf_clear(out);
	for (size_t i = 0; i < m->n_labels; i++) {
		if (i != 0)
			buf_add_z(out, t->is_open || m->kind == METRIC_HISTOGRAM ? "," : ", ");
		buf_add_z(out, m->labels[i]);
		buf_add(out, "=\"", 2);
		metric_text_label_value(out, metric_key_take(&key));
		buf_add_c(out, '"');
	}
}

/* --- lines --- */

/* What the TYPE and HELP lines call it. */
static str_t metric_text_family(const struct metric_text *t, const struct metric *m)
{
	str_t name = str_of(m->name);
	if (t->is_open && m->kind == METRIC_COUNTER && str_ends(name, STR("_total")))
		return str_head(name, name.n - strlen("_total"));
	return name;
}

/* What a sample is called behind the name of its family. */
static str_t metric_text_suffix(const struct metric_text *t, const struct metric *m)
{
	return t->is_open && m->kind == METRIC_COUNTER ? STR("_total") : STR_NULL;
}

/* Up to the blank in front of the value. */
static void metric_text_sample(struct metric_text *t, str_t family, str_t suffix)
{
	buf_add_str(t->out, family);
	buf_add_str(t->out, suffix);
	if (t->labels.n != 0) {
		buf_add_c(t->out, '{');
		buf_add_str(t->out, buf_str(&t->labels));
		buf_add_c(t->out, '}');
	}
	buf_add_c(t->out, ' ');
}

static void metric_text_bucket(struct metric_text *t, const struct metric *m, double bound, uint64_t count)
{
	buf_add_z(t->out, m->name);
	buf_add_z(t->out, "_bucket{");
	buf_add_str(t->out, buf_str(&t->labels));
	buf_add_z(t->out, t->labels.n != 0 ? ",le=\"" : "le=\"");
	if (t->is_open && !isinf(bound))
		double_fmt_json(t->out, bound);
	else
		double_fmt_plain(t->out, bound);
	buf_add(t->out, "\"} ", 3);
	buf_add_u64(t->out, count);
	buf_add_c(t->out, '\n');
}

static void metric_text_histogram(struct metric_text *t, const struct metric_series *s)
{
	const struct metric *m = s->metric;
	struct metric_histogram h;
	metric_histogram_read(s, &h);
	for (size_t i = 0; i < m->n_bounds; i++)
		metric_text_bucket(t, m, m->bounds[i], h.cumulative[i]);
	metric_text_bucket(t, m, INFINITY, h.count);
	metric_text_sample(t, str_of(m->name), STR("_sum"));
	double_fmt_plain(t->out, h.sum);
	buf_add_c(t->out, '\n');
	metric_text_sample(t, str_of(m->name), STR("_count"));
	buf_add_u64(t->out, h.count);
	buf_add_c(t->out, '\n');
}

static void metric_text_head(struct metric_text *t, const struct metric *m)
{
	str_t family = metric_text_family(t, m);
	buf_printf(t->out, "# HELP " STR_FMT " ", STR_ARG(family));
	metric_text_escape(t->out, str_of(m->help), t->is_open);
	buf_printf(t->out, "\n# TYPE " STR_FMT " %s\n", STR_ARG(family), metric_kind_name(m->kind));
}

static void metric_text_render(struct metric_out *o, bool is_first, void *arg)
{
	struct metric_text *t = arg;
	const struct metric *m = o->m;
	str_t family = metric_text_family(t, m), suffix = metric_text_suffix(t, m);
	if (is_first)
		metric_text_head(t, m);
	for (size_t i = 0; i < o->n; i++) {
		const struct metric_row *r = &o->row[i];
		metric_text_labels(t, m, r->key);
		if (m->kind == METRIC_HISTOGRAM) {
			metric_text_histogram(t, r->series);
			continue;
		}
		metric_text_sample(t, family, suffix);
		if (r->series != NULL)
			buf_add_i64(t->out, metric_value(r->series));
		else
			double_fmt_plain(t->out, r->v);
		buf_add_c(t->out, '\n');
	}
}

void metric_render_text(struct buf *out, str_t prefix)
{
	struct metric_text t = {.out = out};
	metric_render_each(prefix, false, metric_text_render, &t);
	buf_fini(&t.labels);
}

void metric_render_openmetrics(struct buf *out, str_t prefix)
{
	struct metric_text t = {.out = out, .is_open = true};
	metric_render_each(prefix, false, metric_text_render, &t);
	buf_add_str(out, STR("# EOF\n"));
	buf_fini(&t.labels);
}
