/* metric_json.c - the metrics as JSON: the label values become nested objects, so the rows of a metric are
 * needed together, and sorted. */
#include "base/json.h"
#include "base/metric_impl.h"

#include <math.h>
#include <stdlib.h>

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

static void metric_json_render(struct metric_out *o, bool is_first, void *arg)
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
	metric_render_each(prefix, true, metric_json_render, &j);
	json_obj_end(&j);
}
