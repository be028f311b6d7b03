/* template_item.c - what base.key, base[key] and base[from:to:step] give.
 * A missing item is undefined; looking into undefined is the error.
 * Indices count characters in strings, and from the end when negative. */
#include "template/template_impl.h"

static struct tval item_seq_at(const struct tval *v, size_t i)
{
	switch (v->kind) {
	case TV_LIST:
		return v->u.list->v[i];
	case TV_RANGE:
		return tval_int(v->u.range->start + (int64_t)i * v->u.range->step);
	default:
		return template_val_json(json_array_get(v->u.j, i));
	}
}

/* The bytes of characters from..to of s. */
static str_t item_utf8_cut(str_t s, size_t from, size_t to)
{
	size_t i = 0, start, n = 0;
	for (; n < from && i < s.n; n++)
		i = template_utf8_next(s, i);
	start = i;
	for (; n < to && i < s.n; n++)
		i = template_utf8_next(s, i);
	return str_mk(s.p + start, i - start);
}

static int item_get_index(struct trender *r, const struct tval *base, const struct tval *key,
			  struct tval *out)
{
	__int128 i;
	size_t n = 0;
	*out = TVAL_UNDEF;
	if (!template_as_int(key, &i) || !template_len(base, &n))
		return 0;
	if (i < 0)
		i += (__int128)n;
	if (i < 0 || i >= (__int128)n)
		return 0;
	if (base->kind != TV_STR) {
		*out = item_seq_at(base, (size_t)i);
		return 0;
	}
	*out = tval_str(item_utf8_cut(tval_text(base), (size_t)i, (size_t)i + 1));
	return template_step_bytes(r, base->n);
}

static int item_get_loop(struct trender *r, const struct tloop *l, const struct tval *key, struct tval *out)
{
	static const char *const names[] = {"index",  "index0", "revindex", "revindex0", "first",   "last",
					    "length", "depth",	"depth0",   "previtem",	 "nextitem"};
	const struct tval values[] = {
		tval_int((int64_t)l->index0 + 1),
		tval_int((int64_t)l->index0),
		tval_int((int64_t)(l->n - l->index0)),
		tval_int((int64_t)(l->n - l->index0) - 1),
		tval_bool(l->index0 == 0),
		tval_bool(!l->has_next),
		tval_int((int64_t)l->n),
		tval_int((int64_t)l->depth0 + 1),
		tval_int((int64_t)l->depth0),
		l->has_prev ? l->prev : TVAL_UNDEF,
		l->has_next ? l->next : TVAL_UNDEF,
	};
	*out = TVAL_UNDEF;
	if (key->kind == TV_STR)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (str_eq(tval_text(key), str_of(names[i])))
				*out = values[i];
	return template_step(r, 1);
}

static int item_get_macro(struct trender *r, const struct tmacro *m, const struct tval *key, struct tval *out)
{
	str_t k = key->kind == TV_STR ? tval_text(key) : STR_NULL;
	*out = TVAL_UNDEF;
	if (str_eq(k, STR("name"))) {
		*out = tval_str(m->name);
	} else if (str_eq(k, STR("caller"))) {
		*out = tval_bool(m->node->flag);
	} else if (str_eq(k, STR("arguments"))) {
		struct tlist *l = template_list_new(r, m->node->n);
		if (l == NULL)
			return -1;
		for (uint32_t i = 0; i < m->node->n; i++) {
			struct tval name = tval_str(r->t->names[m->node->u.macro.params[i]].s);
			if (template_list_add(r, l, &name) != 0)
				return -1;
		}
		*out = tval_list(l);
	}
	return 0;
}

int template_get_item(struct trender *r, const struct tval *base, const struct tval *key, struct tval *out)
{
	struct tpair *e;
	*out = TVAL_UNDEF;
	switch (base->kind) {
	case TV_UNDEF:
		return template_fail(r, "undefined value");
	case TV_JOBJ:
		if (key->kind == TV_STR)
			*out = template_val_json(json_object_getn(base->u.j, key->u.s, key->n));
		return 0;
	case TV_MAP:
		if (template_map_find(r, base->u.map, key, &e) != 0)
			return -1;
		if (e != NULL)
			*out = e->val;
		return 0;
	case TV_LOOP:
		return item_get_loop(r, base->u.loop, key, out);
	case TV_MACRO:
		return item_get_macro(r, base->u.macro, key, out);
	case TV_LIST:
		if (base->u.list->is_group && key->kind == TV_STR) {
			if (str_eq(tval_text(key), STR("grouper")))
				*out = base->u.list->v[0];
			else if (str_eq(tval_text(key), STR("list")))
				*out = base->u.list->v[1];
			return 0;
		}
		return item_get_index(r, base, key, out);
	case TV_STR:
	case TV_RANGE:
	case TV_JARR:
		return item_get_index(r, base, key, out);
	default:
		return 0;
	}
}

int template_get_path(struct trender *r, const struct tval *base, const struct tval *path, struct tval *out)
{
	if (path->kind != TV_STR)
		return template_get_item(r, base, path, out);
	str_t rest = tval_text(path), part;
	struct tval v = *base;
	while (str_split(&rest, '.', &part)) {
		uint64_t index;
		struct tval key = str_to_u64(part, &index) && index <= INT64_MAX ? tval_int((int64_t)index)
										 : tval_str(part);
		struct tval from = v;
		if (template_step(r, 1) != 0 || template_get_item(r, &from, &key, &v) != 0)
			return -1;
	}
	*out = v;
	return 0;
}

/* --- slices --- */

/* A bound of a slice over n items, as Python clips it. */
static int item_slice_bound(struct trender *r, const struct tval *v, int64_t n, int64_t step, int64_t def,
			    int64_t *out)
{
	int64_t i;
	*out = def;
	if (v == NULL || v->kind == TV_NONE || v->kind == TV_UNDEF)
		return 0;
	if (template_arg_int(r, v, "i64", &i) != 0)
		return -1;
	if (i < 0)
		i = i < -n ? -1 : i + n;
	else if (i > n)
		i = n;
	if (step < 0 && i >= n)
		i = n - 1;
	*out = step > 0 && i < 0 ? 0 : i;
	return 0;
}

static int item_slice_str(struct trender *r, const struct tval *base, int64_t start, int64_t stop,
			  int64_t step, struct tval *out)
{
	if (template_step_bytes(r, base->n) != 0)
		return -1;
	str_t s = tval_text(base);
	if (step == 1 || start == stop) {
		*out = tval_str(stop > start ? item_utf8_cut(s, (size_t)start, (size_t)stop) : STR_NULL);
		return 0;
	}
	struct tlist *chars;
	if (template_list_of(r, base, &chars) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step)
		template_sb_str(r, tval_text(&chars->v[i]));
	return template_sb_take(r, sb, out);
}

int template_slice(struct trender *r, const struct tval *base, const struct tval *from, const struct tval *to,
		   const struct tval *step_val, struct tval *out)
{
	int64_t step = 1, start, stop;
	size_t len = 0;
	if (step_val != NULL && step_val->kind != TV_NONE && template_arg_int(r, step_val, "i64", &step) != 0)
		return -1;
	if (step == 0)
		return template_fail_op(r, "cannot slice by step size of 0");
	if (base->kind != TV_STR && base->kind != TV_UNDEF && base->kind != TV_NONE && !template_is_seq(base))
		return template_fail_op(r, "value of type %s cannot be sliced", template_kind_name(base));
	template_len(base, &len);
	int64_t n = (int64_t)len;
	step = step > n ? n + 1 : step < -n ? -n - 1 : step; /* the same items, and no overflow */
	if (item_slice_bound(r, from, n, step, step > 0 ? 0 : n - 1, &start) != 0 ||
	    item_slice_bound(r, to, n, step, step > 0 ? n : -1, &stop) != 0)
		return -1;
	if (base->kind == TV_STR)
		return item_slice_str(r, base, start, stop, step, out);
	struct tlist *l = template_list_new(r, 0);
	if (l == NULL)
		return -1;
	for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
		struct tval item = item_seq_at(base, (size_t)i);
		if (template_step(r, 1) != 0 || template_list_add(r, l, &item) != 0)
			return -1;
	}
	*out = tval_list(l);
	return 0;
}
