/* template_filter_list.c - filters over sequences and mappings, but for those that sort
 * (template_filter_sort.c). */
#include "template/template_impl.h"

/* --- helpers --- */

int template_list_arg(struct trender *r, const struct tval *v, struct tlist **out)
{
	if (v->kind != TV_NONE && !template_is_iterable(v))
		return template_fail_op(r, "cannot convert value to list");
	return template_list_of(r, v, out);
}

int template_list_pair(struct trender *r, const struct tval *key, const struct tval *val, struct tval *out)
{
	struct tlist *l = template_list_new(r, 2);
	if (l == NULL)
		return -1;
	l->v[0] = *key;
	l->v[1] = *val;
	l->n = 2;
	*out = tval_list(l);
	return 0;
}

int template_f_items(struct trender *r, struct targs *a, struct tval *out)
{
	struct titer it;
	struct tval key, val, pair;
	if (!template_is_map(&a->v[0]))
		return template_fail_op(r, "cannot convert value into pairs");
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct tlist *l = template_list_new(r, it.n);
	if (l == NULL)
		return -1;
	while (template_iter_pair(&it, &key, &val))
		if (template_step(r, 1) != 0 || template_list_pair(r, &key, &val, &pair) != 0 ||
		    template_list_add(r, l, &pair) != 0)
			return -1;
	*out = tval_list(l);
	return 0;
}

/* --- one item --- */

int template_f_length(struct trender *r, struct targs *a, struct tval *out)
{
	size_t n;
	if (!template_len(&a->v[0], &n))
		return template_fail_op(r, "cannot calculate length of value of type %s",
					template_kind_name(&a->v[0]));
	*out = tval_int((int64_t)n);
	return template_step_bytes(r, a->v[0].kind == TV_STR ? n : 0);
}

int template_f_first(struct trender *r, struct targs *a, struct tval *out)
{
	struct titer it;
	*out = TVAL_UNDEF;
	if (a->v[0].kind == TV_UNDEF || !template_is_iterable(&a->v[0]))
		return template_fail_op(r, "cannot get first item from value");
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	template_iter_next(r, &it, out);
	return 0;
}

int template_f_last(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval minus_one = tval_int(-1);
	if (a->v[0].kind != TV_STR && !template_is_seq(&a->v[0]))
		return template_fail_op(r, "cannot get last item from value");
	struct tval v = a->v[0];
	if (v.kind == TV_LIST && v.u.list->is_group) {
		*out = v.u.list->v[1];
		return 0;
	}
	return template_get_item(r, &v, &minus_one, out);
}

static int list_extreme(struct trender *r, struct targs *a, int sign, struct tval *out)
{
	struct titer it;
	struct tval item;
	if (a->v[0].kind != TV_NONE && !template_is_iterable(&a->v[0]))
		return template_fail_op(r, "cannot convert value to list");
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	*out = TVAL_UNDEF;
	for (bool is_first = true; template_iter_next(r, &it, &item); is_first = false) {
		int c = -1;
		if (template_step(r, 1) != 0 || (!is_first && template_compare(r, &item, out, &c) != 0))
			return -1;
		if (is_first || c * sign < 0)
			*out = item;
	}
	return 0;
}

int template_f_min(struct trender *r, struct targs *a, struct tval *out)
{
	return list_extreme(r, a, 1, out);
}
int template_f_max(struct trender *r, struct targs *a, struct tval *out)
{
	return list_extreme(r, a, -1, out);
}

int template_f_sum(struct trender *r, struct targs *a, struct tval *out)
{
	struct titer it;
	struct tval item;
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	*out = tval_int(0);
	while (template_iter_next(r, &it, &item)) {
		if (!template_is_num(&item) && item.kind != TV_UNDEF)
			return template_fail_op(r, "can only sum numbers, got %s", template_kind_name(&item));
		if (item.kind != TV_UNDEF &&
		    (template_step(r, 1) != 0 || template_binary(r, OP_ADD, out, &item, out) != 0))
			return -1;
	}
	return 0;
}

/* --- map and select --- */

static int list_map_attr(struct trender *r, struct targs *a, const struct tval *attr, struct tval *out)
{
	const struct tval *def = template_kw(a, "default");
	struct titer it;
	struct tval item, v;
	if (a->n > 1)
		return template_fail(r, "too many arguments");
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct tlist *l = template_list_new(r, it.n);
	if (l == NULL)
		return -1;
	while (template_iter_next(r, &it, &item)) {
		if (template_step(r, 1) != 0 || template_get_path(r, &item, attr, &v) != 0 ||
		    template_list_add(r, l, v.kind == TV_UNDEF && def != NULL ? def : &v) != 0)
			return -1;
	}
	*out = tval_list(l);
	return 0;
}

int template_f_map(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *attr = template_kw(a, "attribute");
	struct titer it;
	struct tval item, v;
	str_t name;
	if (attr != NULL)
		return list_map_attr(r, a, attr, out);
	if (a->n < 2)
		return template_fail_op(r, "filter name is required");
	if (template_arg_str(r, &a->v[1], &name) != 0)
		return -1;
	const struct tfunc *f = template_filter_find(name);
	if (f == NULL)
		return template_fail(r, "unknown filter: filter " STR_FMT " is unknown", STR_ARG(name));
	if (template_guard(r) != 0 || template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct tlist *l = template_list_new(r, it.n);
	struct targs inner = {.v = template_alloc(r, a->n * sizeof(*inner.v)), .n = a->n - 1, .kw = a->kw};
	if (l == NULL || inner.v == NULL)
		return -1;
	while (template_iter_next(r, &it, &item)) {
		inner.v[0] = item;
		memcpy(inner.v + 1, a->v + 2,
		       (a->n - 2) * sizeof(*inner.v)); /* the filter may change its arguments */
		inner.kw_used = 0;
		if (template_invoke(r, f, &inner, &v) != 0 || template_list_add(r, l, &v) != 0)
			return -1;
	}
	a->kw_used = UINT64_MAX; /* they were the inner filter's to check */
	*out = tval_list(l);
	return 0;
}

/* Keeps the items (or, with an attribute, those whose attribute) for which the test named by argument `at` is
 * `wanted`; truth is the test when none is named. */
static int list_select(struct trender *r, struct targs *a, const struct tval *attr, uint32_t at, bool wanted,
		       struct tval *out)
{
	const struct tfunc *test = NULL;
	struct titer it;
	struct tval item, v;
	str_t name;
	if (a->n > at) {
		if (template_arg_str(r, &a->v[at], &name) != 0)
			return -1;
		if ((test = template_test_find(name)) == NULL)
			return template_fail(r, "unknown test: test " STR_FMT " is unknown", STR_ARG(name));
	}
	if (template_guard(r) != 0 || template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct tlist *l = template_list_new(r, 0);
	struct targs inner = {.v = template_alloc(r, (a->n + 1) * sizeof(*inner.v)),
			      .n = test != NULL ? a->n - at : 1};
	if (l == NULL || inner.v == NULL)
		return -1;
	while (template_iter_next(r, &it, &item)) {
		v = item;
		if (template_step(r, 1) != 0 || (attr != NULL && template_get_path(r, &item, attr, &v) != 0))
			return -1;
		if (test != NULL) {
			inner.v[0] = v;
			memcpy(inner.v + 1, a->v + at + 1, (inner.n - 1) * sizeof(*inner.v));
			if (template_invoke(r, test, &inner, &v) != 0)
				return -1;
		}
		if (template_is_true(&v) == wanted && template_list_add(r, l, &item) != 0)
			return -1;
	}
	*out = tval_list(l);
	return 0;
}

int template_f_select(struct trender *r, struct targs *a, struct tval *out)
{
	return list_select(r, a, NULL, 1, true, out);
}
int template_f_reject(struct trender *r, struct targs *a, struct tval *out)
{
	return list_select(r, a, NULL, 1, false, out);
}
int template_f_selectattr(struct trender *r, struct targs *a, struct tval *out)
{
	return list_select(r, a, &a->v[1], 2, true, out);
}

int template_f_rejectattr(struct trender *r, struct targs *a, struct tval *out)
{
	return list_select(r, a, &a->v[1], 2, false, out);
}

/* --- shapes --- */

static int list_count_arg(struct trender *r, const struct tval *v, int64_t *out)
{
	if (template_arg_int(r, v, "usize", out) != 0)
		return -1;
	if (*out < 0)
		return template_fail_op(r, "cannot convert number to usize");
	if (*out == 0)
		return template_fail_op(r, "count cannot be 0");
	return *out > TEMPLATE_MAX_RANGE ? template_fail_limit(r, "count is too big") : 0;
}

int template_f_batch(struct trender *r, struct targs *a, struct tval *out)
{
	int64_t count;
	struct titer it;
	struct tval item;
	if (list_count_arg(r, &a->v[1], &count) != 0 || template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct tlist *rows = template_list_new(r, 0), *row = NULL;
	if (rows == NULL)
		return -1;
	while (template_iter_next(r, &it, &item)) {
		if (row == NULL || row->n == count) {
			row = template_list_new(r, 0);
			struct tval v = tval_list(row);
			if (row == NULL || template_list_add(r, rows, &v) != 0)
				return -1;
		}
		if (template_step(r, 1) != 0 || template_list_add(r, row, &item) != 0)
			return -1;
	}
	while (row != NULL && a->n > 2 && a->v[2].kind != TV_NONE && row->n < count)
		if (template_step(r, 1) != 0 || template_list_add(r, row, &a->v[2]) != 0)
			return -1;
	*out = tval_list(rows);
	return 0;
}

int template_f_slice(struct trender *r, struct targs *a, struct tval *out)
{
	int64_t count;
	struct tlist *src;
	if (list_count_arg(r, &a->v[1], &count) != 0 || template_list_of(r, &a->v[0], &src) != 0 ||
	    template_step(r, (size_t)count + src->n) != 0)
		return -1;
	struct tlist *columns = template_list_new(r, (size_t)count);
	if (columns == NULL)
		return -1;
	uint32_t each = src->n / (uint32_t)count, extra = src->n % (uint32_t)count, at = 0;
	bool is_filling = a->n > 2 && a->v[2].kind != TV_NONE;
	for (uint32_t i = 0; i < (uint32_t)count; i++) {
		uint32_t n = each + (i < extra);
		struct tlist *column = template_list_new(r, n + 1);
		struct tval v = tval_list(column);
		if (column == NULL)
			return -1;
		if (n > 0)
			memcpy(column->v, src->v + at, n * sizeof(*column->v));
		column->n = n;
		at += n;
		if ((is_filling && i >= extra && template_list_add(r, column, &a->v[2]) != 0) ||
		    template_list_add(r, columns, &v) != 0)
			return -1;
	}
	*out = tval_list(columns);
	return 0;
}

int template_f_list(struct trender *r, struct targs *a, struct tval *out)
{
	struct tlist *l;
	if (template_list_arg(r, &a->v[0], &l) != 0)
		return -1;
	*out = tval_list(l);
	return 0;
}

int template_f_reverse(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	struct tlist *src, *l;
	*out = *v;
	if (v->kind == TV_UNDEF || v->kind == TV_NONE)
		return 0;
	if (!template_is_iterable(v))
		return template_fail_op(r, "cannot reverse values of type %s", template_kind_name(v));
	if (template_list_of(r, v, &src) != 0 || (l = template_list_new(r, src->n)) == NULL ||
	    template_step(r, src->n) != 0)
		return -1;
	for (uint32_t i = src->n; i-- > 0;)
		l->v[l->n++] = src->v[i];
	*out = tval_list(l);
	if (v->kind != TV_STR)
		return 0;
	size_t sb = template_sb_begin(r);
	for (uint32_t i = 0; i < l->n; i++)
		template_sb_str(r, tval_text(&l->v[i]));
	return template_sb_take(r, sb, out);
}

int template_f_join(struct trender *r, struct targs *a, struct tval *out)
{
	struct titer it;
	struct tval item, sep = tval_str(STR(""));
	if (a->v[0].kind != TV_NONE && !template_is_iterable(&a->v[0]))
		return template_fail_op(r, "cannot join value of type %s", template_kind_name(&a->v[0]));
	if (a->n > 1 && a->v[1].kind != TV_NONE && template_to_str(r, &a->v[1], &sep) != 0)
		return -1;
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	for (bool is_first = true; template_iter_next(r, &it, &item); is_first = false) {
		if (!is_first)
			template_sb_str(r, tval_text(&sep));
		if (template_step_bytes(r, sep.n) != 0 || template_print(r, &item) != 0)
			return -1;
	}
	return template_sb_take(r, sb, out);
}

int template_f_zip(struct trender *r, struct targs *a, struct tval *out)
{
	struct titer *its = template_alloc(r, a->n * sizeof(*its));
	struct tlist *rows = its != NULL ? template_list_new(r, 0) : NULL;
	if (rows == NULL)
		return -1;
	for (uint32_t i = 0; i < a->n; i++) {
		if (a->v[i].kind != TV_NONE && !template_is_iterable(&a->v[i]))
			return template_fail_op(r, "zip filter argument must be iterable, got %s",
						template_kind_name(&a->v[i]));
		if (template_iter_init(r, &a->v[i], &its[i]) != 0)
			return -1;
	}
	for (;;) {
		struct tlist *row = template_list_new(r, a->n);
		struct tval item, v = tval_list(row);
		if (row == NULL || template_step(r, 1) != 0)
			return -1;
		for (uint32_t i = 0; i < a->n && template_iter_next(r, &its[i], &item); i++)
			row->v[row->n++] = item;
		if (row->n < a->n)
			break;
		if (template_list_add(r, rows, &v) != 0)
			return -1;
	}
	*out = tval_list(rows);
	return 0;
}

int template_f_chain(struct trender *r, struct targs *a, struct tval *out)
{
	bool is_all_maps = true;
	for (uint32_t i = 0; i < a->n; i++)
		is_all_maps &= template_is_map(&a->v[i]);
	if (is_all_maps) {
		struct tmap *m = template_map_new(r, 4);
		for (uint32_t i = 0; m != NULL && i < a->n; i++)
			if (template_map_merge(r, m, &a->v[i]) != 0)
				return -1;
		*out = tval_map(m);
		return m != NULL ? 0 : -1;
	}
	struct tlist *l = template_list_new(r, 0);
	for (uint32_t i = 0; l != NULL && i < a->n; i++) {
		struct titer it;
		struct tval item;
		if (template_iter_init(r, &a->v[i], &it) != 0)
			return -1;
		while (template_iter_next(r, &it, &item))
			if (template_step(r, 1) != 0 || template_list_add(r, l, &item) != 0)
				return -1;
	}
	*out = tval_list(l);
	return l != NULL ? 0 : -1;
}
