/* metric.c - the registry of metrics and their series.
 * Metrics are declared once and live for ever, in one table sorted by name. A metric's series are in a hash
 * table keyed by the label values, each as length and bytes (the key lives in the series), and in a list in
 * the order they came, which is the order of the output. A metric's lock covers its table and list; the
 * numbers are atomics of their own, on their own cache line, and are read while others write: the counts of
 * one histogram may be a few observations apart from its sum. References: all but the last are given back
 * without the lock; the last one under it, so that metric_get never finds a series that is on its way out.
 * Rendering takes a reference to every series of a metric, lets go of the lock, and only then formats, so a
 * scrape of 100,000 series holds up nobody for long. A collected metric has a callback instead of series; it
 * runs under the metric's lock (unsetting it waits for it), so it must neither yield nor declare the same
 * metric. */
#include "base/metric.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "base/text.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { METRIC_MAX_LABELS = 8, METRIC_MAX_BUCKETS = 64, METRIC_CACHE_LINE = 64, METRIC_KEY_ON_STACK = 512 };

struct metric {
	enum metric_kind kind;
	const char *name, *help;
	const char *const *labels;
	size_t n_labels;
	const double *bounds; /* histograms: ascending upper bounds */
	size_t n_bounds;
	bool is_collected;

	pthread_mutex_t lock; /* covers what follows */
	struct map by_key;
	struct list series;
	metric_collect_fn *collect; /* may be NULL */
	void *collect_arg;
};

struct metric_series {
	_Atomic int64_t value;	   /* counter, gauge */
	_Atomic uint64_t sum_bits; /* histogram: a double */
	atomic_size_t n_refs;
	struct metric *metric;
	struct list node;
	str_t key;		   /* behind the buckets */
	_Atomic uint64_t bucket[]; /* histogram: n_bounds + 1, not cumulative */
};

/* One line-to-be of the output. */
struct metric_row {
	str_t key;
	struct metric_series *series; /* referenced; NULL in a collected metric */
	double v;		      /* collected */
};

struct metric_out {
	struct metric *m;
	struct metric_row *row;
	size_t n, cap;
	struct arena arena; /* keys of collected rows */
};

static const double metric_default_bounds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};

static pthread_mutex_t metric_registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric **metric_registry; /* sorted by name */
static size_t metric_registry_n;

/* ---- declaring ---- */

/* The place of name in the registry, or where it belongs. */
static size_t metric_registry_place(const char *name, bool *is_there)
{
	size_t lo = 0, hi = metric_registry_n;
	*is_there = false;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(metric_registry[mid]->name, name);
		if (c == 0) {
			*is_there = true;
			return mid;
		}
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool metric_agrees(const struct metric *m, const struct metric *with)
{
	if (m->kind != with->kind || m->n_labels != with->n_labels || m->n_bounds != with->n_bounds ||
	    m->is_collected != with->is_collected)
		return false;
	for (size_t i = 0; i < m->n_labels; i++) {
		if (strcmp(m->labels[i], with->labels[i]) != 0)
			return false;
	}
	return m->n_bounds == 0 || memcmp(m->bounds, with->bounds, m->n_bounds * sizeof(*m->bounds)) == 0;
}

static struct metric *metric_register(const struct metric *wanted)
{
	bool is_there;
	pthread_mutex_lock(&metric_registry_lock);
	size_t at = metric_registry_place(wanted->name, &is_there);
	if (is_there) {
		if (!metric_agrees(metric_registry[at], wanted))
			panic("metric %s is declared twice, differently", wanted->name);
	} else {
		struct metric *m = xnew(struct metric);
		*m = *wanted;
		pthread_mutex_init(&m->lock, NULL);
		list_init(&m->series);
		metric_registry =
			xreallocarray(metric_registry, metric_registry_n + 1, sizeof(*metric_registry));
		memmove(metric_registry + at + 1, metric_registry + at,
			(metric_registry_n - at) * sizeof(*metric_registry));
		metric_registry[at] = m;
		metric_registry_n++;
	}
	struct metric *m = metric_registry[at];
	pthread_mutex_unlock(&metric_registry_lock);
	return m;
}

static size_t metric_labels_count(const char *name, const char *const *labels)
{
	size_t n = 0;
	while (labels != NULL && labels[n] != NULL)
		n++;
	if (n > METRIC_MAX_LABELS)
		panic("metric %s has more than %d labels", name, METRIC_MAX_LABELS);
	return n;
}

struct metric *metric_declare(enum metric_kind kind, const char *name, const char *help,
			      const char *const *labels, const double *buckets, size_t n_buckets)
{
	struct metric m = {.kind = kind, .name = name, .help = help, .labels = labels};
	m.n_labels = metric_labels_count(name, labels);
	if (kind == METRIC_HISTOGRAM) {
		m.bounds = buckets != NULL ? buckets : metric_default_bounds;
		m.n_bounds = buckets != NULL ? n_buckets : ARRAY_SIZE(metric_default_bounds);
		if (m.n_bounds > METRIC_MAX_BUCKETS)
			panic("metric %s has more than %d buckets", name, METRIC_MAX_BUCKETS);
	}
	return metric_register(&m);
}

void metric_declare_collected(enum metric_kind kind, const char *name, const char *help,
			      const char *const *labels, metric_collect_fn *fn, void *arg)
{
	struct metric wanted = {
		.kind = kind, .name = name, .help = help, .labels = labels, .is_collected = true};
	if (kind == METRIC_HISTOGRAM)
		panic("metric %s: a histogram cannot be collected", name);
	wanted.n_labels = metric_labels_count(name, labels);
	struct metric *m = metric_register(&wanted);
	pthread_mutex_lock(&m->lock);
	m->collect = fn;
	m->collect_arg = arg;
	pthread_mutex_unlock(&m->lock);
}

/* ---- label values as a key ---- */

static size_t metric_key_size(const struct metric *m, const str_t *values)
{
	size_t n = 0;
	for (size_t i = 0; i < m->n_labels; i++)
		n += sizeof(uint32_t) + values[i].n;
	return n;
}

static void metric_key_write(const struct metric *m, const str_t *values, char *p)
{
	for (size_t i = 0; i < m->n_labels; i++) {
		uint32_t n = (uint32_t)values[i].n;
		memcpy(p, &n, sizeof(n));
		p += sizeof(n);
		if (n != 0)
			memcpy(p, values[i].p, n);
		p += n;
	}
}

static str_t metric_key_take(str_t *rest)
{
	uint32_t n;
	memcpy(&n, rest->p, sizeof(n));
	str_t value = str_mk(rest->p + sizeof(n), n);
	*rest = str_skip(*rest, sizeof(n) + n);
	return value;
}

/* ---- series ---- */

static struct metric_series *metric_series_new(struct metric *m, str_t key)
{
	size_t n_buckets = m->kind == METRIC_HISTOGRAM ? m->n_bounds + 1 : 0;
	struct metric_series *s;
	size_t n_head_bytes = sizeof(*s) + n_buckets * sizeof(s->bucket[0]);
	s = xaligned_alloc(METRIC_CACHE_LINE, n_head_bytes + key.n);
	memset(s, 0, n_head_bytes);
	s->metric = m;
	s->key = str_mk((char *)s + n_head_bytes, key.n);
	if (key.n != 0)
		memcpy((char *)s + n_head_bytes, key.p, key.n);
	atomic_init(&s->n_refs, 1);
	map_put(&m->by_key, s->key, s);
	list_push_back(&m->series, &s->node);
	return s;
}

struct metric_series *metric_get(struct metric *m, const str_t *values)
{
	char small[METRIC_KEY_ON_STACK], *heap = NULL;
	size_t n = metric_key_size(m, values);
	if (n > sizeof(small))
		heap = xmalloc(n);
	char *p = heap != NULL ? heap : small;
	metric_key_write(m, values, p);
	if (m->is_collected)
		panic("metric %s is collected, it has no series", m->name);
	pthread_mutex_lock(&m->lock);
	struct metric_series *s = map_find(&m->by_key, str_mk(p, n));
	if (s != NULL)
		atomic_fetch_add_explicit(&s->n_refs, 1, memory_order_relaxed);
	else
		s = metric_series_new(m, str_mk(p, n));
	pthread_mutex_unlock(&m->lock);
	free(heap);
	return s;
}

struct metric_series *metric_series_ref(struct metric_series *s)
{
	atomic_fetch_add_explicit(&s->n_refs, 1, memory_order_relaxed);
	return s;
}

void metric_series_unref(struct metric_series *s)
{
	if (s == NULL)
		return;
	size_t refs = atomic_load_explicit(&s->n_refs, memory_order_relaxed);
	while (refs > 1) {
		if (atomic_compare_exchange_weak_explicit(&s->n_refs, &refs, refs - 1, memory_order_release,
							  memory_order_relaxed))
			return;
	}
	struct metric *m = s->metric;
	pthread_mutex_lock(&m->lock);
	bool is_last = atomic_fetch_sub_explicit(&s->n_refs, 1, memory_order_acq_rel) == 1;
	if (is_last) {
		map_remove(&m->by_key, s->key);
		list_remove(&s->node);
	}
	pthread_mutex_unlock(&m->lock);
	if (is_last)
		free(s);
}

void metric_add(struct metric_series *s, int64_t v)
{
	atomic_fetch_add_explicit(&s->value, v, memory_order_relaxed);
}

void metric_set(struct metric_series *s, int64_t v)
{
	atomic_store_explicit(&s->value, v, memory_order_relaxed);
}

int64_t metric_value(const struct metric_series *s)
{
	return atomic_load_explicit(&s->value, memory_order_relaxed);
}

static double metric_double_of(uint64_t bits)
{
	double v;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

static uint64_t metric_bits_of(double v)
{
	uint64_t bits;
	memcpy(&bits, &v, sizeof(bits));
	return bits;
}

void metric_observe(struct metric_series *s, double v)
{
	const struct metric *m = s->metric;
	size_t i = 0;
	if (isnan(v))
		return;
	if (UNLIKELY(m->kind != METRIC_HISTOGRAM))
		panic("metric %s is not a histogram", m->name);
	while (i < m->n_bounds && v > m->bounds[i])
		i++;
	atomic_fetch_add_explicit(&s->bucket[i], 1, memory_order_relaxed);
	uint64_t was = atomic_load_explicit(&s->sum_bits, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&s->sum_bits, &was,
						      metric_bits_of(metric_double_of(was) + v),
						      memory_order_relaxed, memory_order_relaxed))
		;
}

/* ---- gathering ---- */

static struct metric_row *metric_row_add(struct metric_out *o)
{
	if (o->n == o->cap) {
		o->cap = o->cap != 0 ? o->cap * 2 : 16;
		o->row = xreallocarray(o->row, o->cap, sizeof(*o->row));
	}
	return &o->row[o->n++];
}

void metric_sample(struct metric_out *out, const str_t *values, double v)
{
	size_t n = metric_key_size(out->m, values);
	char *key = arena_alloc(&out->arena, n);
	metric_key_write(out->m, values, key);
	*metric_row_add(out) = (struct metric_row){.key = str_mk(key, n), .v = v};
}

static void metric_gather(struct metric_out *o)
{
	struct metric *m = o->m;
	pthread_mutex_lock(&m->lock);
	if (m->collect != NULL)
		m->collect(m->collect_arg, o);
	list_for_each (it, &m->series) {
		struct metric_series *s = metric_series_ref(list_entry(it, struct metric_series, node));
		*metric_row_add(o) = (struct metric_row){.key = s->key, .series = s};
	}
	pthread_mutex_unlock(&m->lock);
}

/* Keeps the row array and the arena's first chunk for the next metric. */
static void metric_out_clear(struct metric_out *o)
{
	for (size_t i = 0; i < o->n; i++)
		metric_series_unref(o->row[i].series);
	o->n = 0;
	arena_reset(&o->arena);
}

struct metric_histogram {
	uint64_t cumulative[METRIC_MAX_BUCKETS + 1];
	uint64_t count;
	double sum;
};

static void metric_histogram_read(const struct metric_series *s, struct metric_histogram *h)
{
	h->count = 0;
	for (size_t i = 0; i <= s->metric->n_bounds; i++) {
		h->count += atomic_load_explicit(&s->bucket[i], memory_order_relaxed);
		h->cumulative[i] = h->count;
	}
	h->sum = metric_double_of(atomic_load_explicit(&s->sum_bits, memory_order_relaxed));
}

typedef void metric_render_fn(struct metric_out *o, void *arg);

/* Calls fn for every metric that has rows, in order of names. */
static void metric_render_each(str_t prefix, metric_render_fn *fn, void *arg)
{
	struct metric_out o = {0};
	pthread_mutex_lock(&metric_registry_lock);
	size_t n = metric_registry_n;
	struct metric **all = xreallocarray(NULL, n, sizeof(*all));
	if (n != 0)
		memcpy(all, metric_registry, n * sizeof(*all));
	pthread_mutex_unlock(&metric_registry_lock);
	for (size_t i = 0; i < n; i++) {
		if (!str_starts(str_of(all[i]->name), prefix))
			continue;
		o.m = all[i];
		metric_gather(&o);
		if (o.n != 0)
			fn(&o, arg);
		metric_out_clear(&o);
	}
	free(all);
	free(o.row);
	arena_fini(&o.arena);
}

static const char *metric_kind_name(enum metric_kind kind)
{
	return kind == METRIC_COUNTER ? "counter" : kind == METRIC_GAUGE ? "gauge" : "histogram";
}

/* ---- Prometheus text ---- */

/* A label value escapes backslash, quote and LF; help only backslash and LF. */
static void metric_text_escape(struct buf *out, str_t s, bool is_label)
{
	size_t start = 0;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (c != '\\' && c != '\n' && (c != '"' || !is_label))
			continue;
		buf_add(out, s.p + start, i - start);
		buf_add_c(out, '\\');
		buf_add_c(out, c == '\n' ? 'n' : c);
		start = i + 1;
	}
	buf_add(out, s.p + start, s.n - start);
}

/* a="x", b="y": without the braces. */
static void metric_text_labels(struct buf *out, const struct metric *m, str_t key, const char *separator)
{
	for (size_t i = 0; i < m->n_labels; i++) {
		if (i != 0)
			buf_add_z(out, separator);
		buf_add_z(out, m->labels[i]);
		buf_add(out, "=\"", 2);
		metric_text_escape(out, metric_key_take(&key), true);
		buf_add_c(out, '"');
	}
}

static void metric_text_name(struct buf *out, const struct metric *m, const char *suffix, str_t labels)
{
	buf_add_z(out, m->name);
	buf_add_z(out, suffix);
	if (labels.n != 0) {
		buf_add_c(out, '{');
		buf_add_str(out, labels);
		buf_add_c(out, '}');
	}
	buf_add_c(out, ' ');
}

static void metric_text_bucket(struct buf *out, const struct metric *m, str_t labels, double bound,
			       uint64_t count)
{
	buf_add_z(out, m->name);
	buf_add_z(out, "_bucket{");
	buf_add_str(out, labels);
	buf_add_z(out, labels.n != 0 ? ",le=\"" : "le=\"");
	double_fmt_plain(out, bound);
	buf_add(out, "\"} ", 3);
	buf_add_u64(out, count);
	buf_add_c(out, '\n');
}

static void metric_text_histogram(struct buf *out, const struct metric_series *s)
{
	const struct metric *m = s->metric;
	struct metric_histogram h;
	struct buf label_buf = BUF_INIT;
	metric_histogram_read(s, &h);
	metric_text_labels(&label_buf, m, s->key, ",");
	str_t labels = buf_str(&label_buf);
	for (size_t i = 0; i < m->n_bounds; i++)
		metric_text_bucket(out, m, labels, m->bounds[i], h.cumulative[i]);
	metric_text_bucket(out, m, labels, INFINITY, h.count);
	metric_text_name(out, m, "_sum", labels);
	double_fmt_plain(out, h.sum);
	buf_add_c(out, '\n');
	metric_text_name(out, m, "_count", labels);
	buf_add_u64(out, h.count);
	buf_add_c(out, '\n');
	buf_fini(&label_buf);
}

static void metric_text_render(struct metric_out *o, void *arg)
{
	struct buf *out = arg;
	const struct metric *m = o->m;
	struct buf labels = BUF_INIT;
	buf_printf(out, "# HELP %s ", m->name);
	metric_text_escape(out, str_of(m->help), false);
	buf_printf(out, "\n# TYPE %s %s\n", m->name, metric_kind_name(m->kind));
	for (size_t i = 0; i < o->n; i++) {
		const struct metric_row *r = &o->row[i];
		if (m->kind == METRIC_HISTOGRAM) {
			metric_text_histogram(out, r->series);
			continue;
		}
		buf_clear(&labels);
		metric_text_labels(&labels, m, r->key, ", ");
		metric_text_name(out, m, "", buf_str(&labels));
		if (r->series != NULL)
			buf_add_i64(out, metric_value(r->series));
		else
			double_fmt_plain(out, r->v);
		buf_add_c(out, '\n');
	}
	buf_fini(&labels);
}

void metric_render_text(struct buf *out, str_t prefix)
{
	metric_render_each(prefix, metric_text_render, out);
}

/* ---- JSON ---- */

static void metric_json_histogram(struct json_out *j, const struct metric_series *s)
{
	struct metric_histogram h;
	metric_histogram_read(s, &h);
	json_obj_begin(j);
	json_key(j, STR("avg"));
	json_double(j, h.count != 0 ? h.sum / (double)h.count : 0);
	json_key(j, STR("bucket"));
	json_arr_begin(j);
	for (size_t i = 0; i < s->metric->n_bounds; i++) {
		json_arr_begin(j);
		json_double(j, s->metric->bounds[i]);
		json_double(j, (double)h.cumulative[i]);
		json_arr_end(j);
	}
	json_arr_end(j);
	json_key(j, STR("count"));
	json_uint(j, h.count);
	json_key(j, STR("sum"));
	json_double(j, h.sum);
	json_obj_end(j);
}

static void metric_json_row(struct json_out *j, const struct metric *m, const struct metric_row *r)
{
	if (m->kind == METRIC_HISTOGRAM)
		metric_json_histogram(j, r->series);
	else if (r->series != NULL)
		json_int(j, metric_value(r->series));
	else if (fabs(r->v) < 9007199254740992.0 && r->v == floor(r->v))
		json_int(j, (int64_t)r->v);
	else
		json_double(j, r->v);
}

static str_t metric_row_value(const struct metric_row *r, size_t key_at)
{
	str_t rest = str_skip(r->key, key_at);
	return metric_key_take(&rest);
}

/* {"label":{"value":<the same for the next label, or the number>,...}} of n rows that agree in the labels
 * before `depth`, whose values take the first key_at bytes of their keys. Recursion is as deep as there are
 * labels. */
static void metric_json_group(struct json_out *j, const struct metric *m, const struct metric_row *row,
			      size_t n, size_t depth, size_t key_at)
{
	if (depth == m->n_labels) {
		metric_json_row(j, m, row);
		return;
	}
	json_obj_begin(j);
	json_key(j, str_of(m->labels[depth]));
	json_obj_begin(j);
	for (size_t i = 0, end; i < n; i = end) {
		str_t value = metric_row_value(&row[i], key_at);
		for (end = i + 1; end < n && str_eq(metric_row_value(&row[end], key_at), value); end++)
			;
		json_key(j, value);
		metric_json_group(j, m, row + i, end - i, depth + 1, key_at + sizeof(uint32_t) + value.n);
	}
	json_obj_end(j);
	json_obj_end(j);
}

static int metric_row_cmp(const void *a, const void *b)
{
	return str_cmp(((const struct metric_row *)a)->key, ((const struct metric_row *)b)->key);
}

static void metric_json_render(struct metric_out *o, void *arg)
{
	struct json_out *j = arg;
	if (o->m->n_labels >
	    1) /* brings rows that share leading labels together, whatever the order of the groups */
		qsort(o->row, o->n, sizeof(*o->row), metric_row_cmp);
	json_key(j, str_of(o->m->name));
	json_obj_begin(j);
	json_kv_str(j, STR("help"), str_of(o->m->help));
	json_kv_str(j, STR("type"), str_of(metric_kind_name(o->m->kind)));
	json_key(j, STR("value"));
	metric_json_group(j, o->m, o->row, o->n, 0, 0);
	json_obj_end(j);
}

void metric_render_json(struct buf *out, str_t prefix)
{
	struct json_out j = json_out_to(out);
	json_obj_begin(&j);
	metric_render_each(prefix, metric_json_render, &j);
	json_obj_end(&j);
}
