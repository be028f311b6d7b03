/* metric_impl.h - what the files of the metrics share: the data, and how the writers get at it. */
#pragma once

#include "base/alloc.h"
#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "base/metric.h"

#include <pthread.h>

enum {
	METRIC_MAX_LABELS = 8,
	METRIC_MAX_BUCKETS = 64,
	METRIC_CACHE_LINE = 64,
	METRIC_KEY_ON_STACK = 512,
	METRIC_SLICE = 1024
};

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
	struct metric_series *cursor; /* referenced; the last one gathered when there are more, else NULL */
	struct arena arena;	      /* keys of collected rows */
};

/* --- metric.c --- */
/** The next label value of a key. */
str_t metric_key_take(str_t *rest);

struct metric_histogram {
	uint64_t cumulative[METRIC_MAX_BUCKETS + 1];
	uint64_t count;
	double sum;
};

void metric_histogram_read(const struct metric_series *s, struct metric_histogram *h);
const char *metric_kind_name(enum metric_kind kind);

/** Writes rows of o->m: is_first at the beginning of each metric. */
typedef void metric_render_fn(struct metric_out *o, bool is_first, void *arg);
/** Calls fn for every metric that has rows, in order of names; with some of its rows at a time, unless
 * is_whole. */
void metric_render_each(str_t prefix, bool is_whole, metric_render_fn *fn, void *arg);
