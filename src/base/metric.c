/* metric.c - the registry of metrics and their series.
 * Metrics are declared once and live for ever, in one table sorted by name. A metric's series are in a hash
 * table keyed by the label values, each as length and bytes (the key lives in the series), and in a list in
 * the order they came, which is the order of the output. A metric's lock covers its table and list; the
 * numbers are atomics of their own, on their own cache line, and are read while others write: the counts of
 * one histogram may be a few observations apart from its sum. References: all but the last are given back
 * without the lock; the last one under it, so that metric_get never finds a series that is on its way out.
 * Rendering goes through the list in slices: it takes a reference to each series of a slice, lets go of the
 * lock, and formats, so a scrape of 100,000 series holds up nobody for longer than a slice takes. It is the
 * caller's to run it on a thread that has the time (20 to 40 ms for so many). A collected metric has a
 * callback instead of series; it runs under the metric's lock (unsetting it waits for it), so it must neither
 * yield nor declare the same
 * metric. */
#include "base/metric_impl.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>

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

str_t metric_key_take(str_t *rest)
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

static struct metric_series *metric_series_ref(struct metric_series *s)
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

/* The next rows of o->m, after o->cursor; false when these are the last. The cursor is referenced, so it
 * stays in the list while the lock is not held. */
static bool metric_gather_slice(struct metric_out *o)
{
	struct metric *m = o->m;
	struct metric_series *before = o->cursor;
	size_t n = 0;
	pthread_mutex_lock(&m->lock);
	if (before == NULL && m->collect != NULL)
		m->collect(m->collect_arg, o);
	struct list *it = before != NULL ? before->node.next : m->series.next;
	for (; it != &m->series && n < METRIC_SLICE; it = it->next, n++) {
		struct metric_series *s = metric_series_ref(list_entry(it, struct metric_series, node));
		*metric_row_add(o) = (struct metric_row){.key = s->key, .series = s};
	}
	bool has_more = it != &m->series;
	o->cursor = has_more ? metric_series_ref(o->row[o->n - 1].series) : NULL;
	pthread_mutex_unlock(&m->lock);
	metric_series_unref(before);
	return has_more;
}

/* Keeps the row array and the arena's first chunk for the next metric. */
static void metric_out_clear(struct metric_out *o)
{
	for (size_t i = 0; i < o->n; i++)
		metric_series_unref(o->row[i].series);
	o->n = 0;
	arena_reset(&o->arena);
}

void metric_histogram_read(const struct metric_series *s, struct metric_histogram *h)
{
	h->count = 0;
	for (size_t i = 0; i <= s->metric->n_bounds; i++) {
		h->count += atomic_load_explicit(&s->bucket[i], memory_order_relaxed);
		h->cumulative[i] = h->count;
	}
	h->sum = metric_double_of(atomic_load_explicit(&s->sum_bits, memory_order_relaxed));
}

const char *metric_kind_name(enum metric_kind kind)
{
	return kind == METRIC_COUNTER ? "counter" : kind == METRIC_GAUGE ? "gauge" : "histogram";
}

static void metric_render_one(struct metric_out *o, bool is_whole, metric_render_fn *fn, void *arg)
{
	bool is_first = true, has_more;
	do {
		has_more = metric_gather_slice(o);
		if (has_more && is_whole) {
			sched_yield(); /* those who wait for the lock */
			continue;
		}
		if (o->n != 0) {
			fn(o, is_first, arg);
			is_first = false;
		}
		metric_out_clear(o);
	} while (has_more);
}

void metric_render_each(str_t prefix, bool is_whole, metric_render_fn *fn, void *arg)
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
		metric_render_one(&o, is_whole, fn, arg);
	}
	free(all);
	free(o.row);
	arena_fini(&o.arena);
}
