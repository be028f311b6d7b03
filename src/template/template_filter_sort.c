/* template_filter_sort.c - sort, unique, groupby, dictsort. A stable merge sort over (key, item) pairs, so
 * that a key is computed once an item; grouping and finding duplicates sort as well, so that none of them is
 * quadratic. */
#include "template/template_impl.h"

struct list_item {
	struct tval key, item;
	uint32_t at; /* where it was */
};

struct list_sort {
	struct trender *r;
	bool is_case_sensitive, is_reverse;
	uint32_t n_keys; /* above 1: the key is a list of that many */
};

static int list_compare(const struct list_sort *s, const struct list_item *a, const struct list_item *b,
			int *out)
{
	if (template_step(s->r, 1) != 0)
		return -1;
	if (s->n_keys <= 1)
		return template_compare_case(s->r, &a->key, &b->key, s->is_case_sensitive, out);
	*out = 0;
	for (uint32_t i = 0; i < s->n_keys && *out == 0; i++)
		if (template_compare_case(s->r, &a->key.u.list->v[i], &b->key.u.list->v[i],
					  s->is_case_sensitive, out) != 0)
			return -1;
	return 0;
}

static int list_merge(const struct list_sort *s, const struct list_item *from, struct list_item *to,
		      size_t lo, size_t mid, size_t hi)
{
	size_t i = lo, j = mid;
	for (size_t k = lo; k < hi; k++) {
		int c = 0;
		if (i < mid && j < hi && list_compare(s, &from[i], &from[j], &c) != 0)
			return -1;
		bool is_left = i < mid && (j >= hi || (s->is_reverse ? c >= 0 : c <= 0));
		to[k] = is_left ? from[i++] : from[j++];
	}
	return 0;
}

/* Bottom-up; equal items keep their order, also in reverse. */
static int list_sort_items(const struct list_sort *s, struct list_item *v, size_t n)
{
	struct list_item *tmp = template_alloc(s->r, n * sizeof(*tmp) + 1), *from = v, *to = tmp;
	if (tmp == NULL)
		return -1;
	for (size_t width = 1; width < n; width *= 2) {
		for (size_t lo = 0; lo < n; lo += 2 * width) {
			size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
			if (list_merge(s, from, to, lo, mid, hi) != 0)
				return -1;
		}
		struct list_item *swap = from;
		from = to;
		to = swap;
	}
	if (from != v)
		memcpy(v, from, n * sizeof(*v));
	return 0;
}

/* The key of an item: the item, its attribute, or several attributes ("a,b.c") as a list. */
static int list_key(struct trender *r, const struct tval *item, const struct tval *attr, uint32_t n_keys,
		    struct tval *out)
{
	if (attr == NULL) {
		*out = *item;
		return 0;
	}
	if (n_keys <= 1)
		return template_get_path(r, item, attr, out);
	str_t rest = tval_text(attr), part;
	struct tlist *l = template_list_new(r, n_keys);
	if (l == NULL)
		return -1;
	while (str_split(&rest, ',', &part)) {
		struct tval key, path = tval_str(str_trim(part));
		if (template_get_path(r, item, &path, &key) != 0 || template_list_add(r, l, &key) != 0)
			return -1;
	}
	*out = tval_list(l);
	return 0;
}

static uint32_t list_count_keys(const struct tval *attr)
{
	uint32_t n = 1;
	if (attr != NULL && attr->kind == TV_STR)
		for (uint32_t i = 0; i < attr->n; i++)
			n += attr->u.s[i] == ',';
	return n;
}

/* The items of v with their keys. */
static int list_keyed(struct trender *r, const struct tval *v, const struct tval *attr,
		      const struct tval *def, struct list_sort *s, struct list_item **out, size_t *n)
{
	struct tlist *l;
	if (template_list_arg(r, v, &l) != 0)
		return -1;
	struct list_item *items = template_alloc(r, l->n * sizeof(*items) + 1);
	if (items == NULL)
		return -1;
	s->r = r;
	s->n_keys = list_count_keys(attr);
	for (uint32_t i = 0; i < l->n; i++) {
		items[i].item = l->v[i];
		items[i].at = i;
		if (template_step(r, 1) != 0 || list_key(r, &l->v[i], attr, s->n_keys, &items[i].key) != 0)
			return -1;
		if (items[i].key.kind == TV_UNDEF && def != NULL)
			items[i].key = *def;
	}
	*out = items;
	*n = l->n;
	return 0;
}

static const struct tval *list_attr_arg(const struct tval *v)
{
	return v != NULL && (v->kind == TV_NONE || v->kind == TV_UNDEF) ? NULL : v;
}

static int list_from_items(struct trender *r, const struct list_item *items, size_t n, struct tval *out)
{
	struct tlist *l = template_list_new(r, n);
	if (l == NULL)
		return -1;
	for (size_t i = 0; i < n; i++)
		l->v[l->n++] = items[i].item;
	*out = tval_list(l);
	return 0;
}

/* --- sort, unique, groupby, dictsort --- */

int template_f_sort(struct trender *r, struct targs *a, struct tval *out)
{
	struct list_sort s = {.is_case_sensitive = template_arg_bool(template_kw(a, "case_sensitive"), false),
			      .is_reverse = template_arg_bool(template_kw(a, "reverse"), false)};
	struct list_item *items;
	size_t n;
	if (list_keyed(r, &a->v[0], list_attr_arg(template_kw(a, "attribute")), NULL, &s, &items, &n) != 0 ||
	    list_sort_items(&s, items, n) != 0)
		return -1;
	return list_from_items(r, items, n, out);
}

int template_f_unique(struct trender *r, struct targs *a, struct tval *out)
{
	struct list_sort s = {.is_case_sensitive =
				      template_arg_bool(template_kw(a, "case_sensitive"), false)};
	struct list_item *items;
	size_t n;
	if (list_keyed(r, &a->v[0], list_attr_arg(template_kw(a, "attribute")), NULL, &s, &items, &n) != 0 ||
	    list_sort_items(&s, items, n) != 0)
		return -1;
	/* Stable, so the first of a run of equals is the first of the input; then back into the input's
	 * order. */
	struct tval *kept = template_alloc(r, n * sizeof(*kept) + 1);
	bool *is_kept = template_alloc(r, n + 1);
	struct tlist *l = template_list_new(r, n);
	if (kept == NULL || is_kept == NULL || l == NULL)
		return -1;
	memset(is_kept, 0, n + 1);
	for (size_t i = 0; i < n; i++) {
		int c = 1;
		if (i > 0 && list_compare(&s, &items[i - 1], &items[i], &c) != 0)
			return -1;
		if (c != 0) {
			is_kept[items[i].at] = true;
			kept[items[i].at] = items[i].item;
		}
	}
	for (size_t i = 0; i < n; i++)
		if (is_kept[i])
			l->v[l->n++] = kept[i];
	*out = tval_list(l);
	return 0;
}

int template_f_groupby(struct trender *r, struct targs *a, struct tval *out)
{
	struct list_sort s = {.is_case_sensitive =
				      template_arg_bool(template_kw(a, "case_sensitive"), false)};
	const struct tval *attr = template_arg(a, 1, "attribute"), *def = template_kw(a, "default");
	struct list_item *items;
	size_t n;
	if (attr == NULL)
		return template_fail(r, "missing argument");
	if (list_keyed(r, &a->v[0], attr, def, &s, &items, &n) != 0 || list_sort_items(&s, items, n) != 0)
		return -1;
	struct tlist *groups = template_list_new(r, 0), *members = NULL, *group = NULL;
	if (groups == NULL)
		return -1;
	for (size_t i = 0; i < n; i++) {
		int c = 1;
		if (i > 0 && list_compare(&s, &items[i - 1], &items[i], &c) != 0)
			return -1;
		if (c != 0) {
			group = template_list_new(r, 2);
			members = template_list_new(r, 0);
			if (group == NULL || members == NULL)
				return -1;
			group->is_group = true;
			group->v[1] = tval_list(members);
			group->n = 2;
			struct tval v = tval_list(group);
			if (template_list_add(r, groups, &v) != 0)
				return -1;
		}
		group->v[0] = items[i].key;
		if (template_list_add(r, members, &items[i].item) != 0)
			return -1;
	}
	*out = tval_list(groups);
	return 0;
}

int template_f_dictsort(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *by = template_kw(a, "by");
	bool is_by_value = by != NULL && by->kind == TV_STR && str_eq(tval_text(by), STR("value"));
	struct list_sort s = {.r = r,
			      .n_keys = 1,
			      .is_case_sensitive = template_arg_bool(template_kw(a, "case_sensitive"), false),
			      .is_reverse = template_arg_bool(template_kw(a, "reverse"), false)};
	struct titer it;
	struct tval key, val;
	size_t n = 0;
	if (!template_is_map(&a->v[0]))
		return template_fail_op(r, "cannot convert value into pair list");
	if (template_iter_init(r, &a->v[0], &it) != 0)
		return -1;
	struct list_item *items = template_alloc(r, it.n * sizeof(*items) + 1);
	if (items == NULL)
		return -1;
	for (; template_iter_pair(&it, &key, &val); n++) {
		items[n].key = is_by_value ? val : key;
		if (template_step(r, 1) != 0 || template_list_pair(r, &key, &val, &items[n].item) != 0)
			return -1;
	}
	return list_sort_items(&s, items, n) != 0 ? -1 : list_from_items(r, items, n, out);
}
