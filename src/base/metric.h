/* metric.h - counters, gauges and histograms with labels, rendered as Prometheus text or JSON. A series is
 * found once and kept by its user; updating it is one relaxed atomic. Series are never freed while
 * referenced; metric_series_unref removes it from the output when the last user lets go. Names, labels and
 * help: reference/metrics.tsv. Thread-safe. */
#pragma once

#include "base/buf.h"

#include <stdatomic.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_series;
struct metric;

/** Declares a metric; the same name again returns the same one (kind and labels must agree, or it panics).
 * @labels  label names, NULL-terminated, or NULL for none. @buckets  upper bounds for histograms, ascending,
 * n of them; NULL for the default 0.005 .. 10 s. All pointers must stay valid (static). */
struct metric *metric_declare(enum metric_kind kind, const char *name, const char *help,
			      const char *const *labels, const double *buckets, size_t n_buckets);
/** The series with these label values (one per declared label, NULL when none are declared). Takes a
 * reference. */
struct metric_series *metric_get(struct metric *m, const str_t *values);
void metric_series_unref(struct metric_series *s);

void metric_add(struct metric_series *s, int64_t v); /* counter, gauge */
static inline void metric_inc(struct metric_series *s)
{
	metric_add(s, 1);
}
static inline void metric_dec(struct metric_series *s)
{
	metric_add(s, -1);
}
void metric_set(struct metric_series *s, int64_t v); /* gauge */
int64_t metric_value(const struct metric_series *s);
void metric_observe(struct metric_series *s, double v); /* histogram */

/** A metric (no histogram) whose values are computed at scrape time: fn appends samples through
 * metric_sample, each combination of label values once; it must not yield. Declaring the name again replaces
 * fn; NULL takes it out, and once that returns fn is not running. */
struct metric_out;
typedef void metric_collect_fn(void *arg, struct metric_out *out);
void metric_declare_collected(enum metric_kind kind, const char *name, const char *help,
			      const char *const *labels, metric_collect_fn *fn, void *arg);
void metric_sample(struct metric_out *out, const str_t *values, double v);

/** Prometheus text exposition 0.0.4, names sorted; only names starting with prefix when it is not empty. */
void metric_render_text(struct buf *out, str_t prefix);
/** OpenMetrics 1.0.0, with `# EOF` at the end; prefix is of the name as declared. */
void metric_render_openmetrics(struct buf *out, str_t prefix);
/** The shape of GET /metrics.json: {"name":{"help":..,"type":..,"value":V}}, where V is the number (of a
 * histogram an object: avg, bucket, count, sum), inside {"label":{"value":..}} once for each label. */
void metric_render_json(struct buf *out, str_t prefix);
