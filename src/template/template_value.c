/* template_value.c - the small values that a render works on: what they contain, how they are iterated,
 * indexed and sliced. JSON arrays and objects of the context are read in place, item by item, and never
 * converted as a whole. Every walk is charged to the step budget by the item. */
#include "template/template_impl.h"

#include <math.h>

/* --- memory --- */

int template_fail_limit(struct trender *r, const char *what)
{
	return template_error(r->t, ERR_LIMIT, r->at, "template limit: %s", what);
}

void *template_alloc(struct trender *r, size_t n_bytes)
{
	if (n_bytes > TEMPLATE_MAX_MEMORY || r->arena.total_bytes + n_bytes > TEMPLATE_MAX_MEMORY) {
		template_fail_limit(r, "too much memory used");
		return NULL;
	}
	return arena_alloc(&r->arena, n_bytes);
}

int template_str_copy(struct trender *r, str_t s, struct tval *out)
{
	char *p = template_alloc(r, s.n + 1);
	if (p == NULL || template_step_bytes(r, s.n) != 0)
		return -1;
	if (s.n > 0)
		memcpy(p, s.p, s.n);
	*out = tval_str(str_mk(p, s.n));
	return 0;
}

size_t template_sb_begin(struct trender *r)
{
	return r->tmp.n;
}

void template_sb_add(struct trender *r, const char *p, size_t n)
{
	if (r->is_tmp_over || r->arena.total_bytes + r->tmp.n + n > TEMPLATE_MAX_MEMORY) {
		r->is_tmp_over = true;
		return;
	}
	buf_add(&r->tmp, p, n);
}

void template_sb_drop(struct trender *r, size_t begin)
{
	buf_truncate(&r->tmp, begin);
}

int template_sb_take(struct trender *r, size_t begin, struct tval *out)
{
	if (r->is_tmp_over)
		return template_fail_limit(r, "too much memory used");
	int rc = template_str_copy(r, str_mk(r->tmp.p != NULL ? r->tmp.p + begin : NULL, r->tmp.n - begin),
				   out);
	template_sb_drop(r, begin);
	return rc;
}

/* --- kinds --- */

struct tval template_val_json(const json_t *j)
{
	if (j == NULL)
		return TVAL_UNDEF;
	switch (json_typeof(j)) {
	case JSON_STRING:
		return tval_str(str_mk(json_string_value(j), json_string_length(j)));
	case JSON_INTEGER:
		return tval_int(json_integer_value(j));
	case JSON_REAL:
		return tval_float(json_real_value(j));
	case JSON_TRUE:
	case JSON_FALSE:
		return tval_bool(json_is_true(j));
	case JSON_ARRAY:
		return (struct tval){.kind = TV_JARR, .u.j = j};
	case JSON_OBJECT:
		return (struct tval){.kind = TV_JOBJ, .u.j = j};
	default:
		return TVAL_NONE;
	}
}

const char *template_kind_name(const struct tval *v)
{
	static const char *const names[] = {
		[TV_UNDEF] = "undefined", [TV_NONE] = "none",	  [TV_BOOL] = "bool",  [TV_INT] = "number",
		[TV_BIG] = "number",	  [TV_FLOAT] = "number",  [TV_STR] = "string", [TV_LIST] = "sequence",
		[TV_RANGE] = "sequence",  [TV_JARR] = "sequence", [TV_JOBJ] = "map",   [TV_MAP] = "map",
		[TV_LOOP] = "map"};
	return v->kind < ARRAY_SIZE(names) ? names[v->kind] : "plain object";
}

size_t template_utf8_next(str_t s, size_t i)
{
	for (i++; i < s.n && ((unsigned char)s.p[i] & 0xc0) == 0x80; i++)
		;
	return i;
}

size_t template_utf8_len(str_t s)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n; i++)
		n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
	return n;
}

bool template_len(const struct tval *v, size_t *out)
{
	switch (v->kind) {
	case TV_STR:
		*out = template_utf8_len(tval_text(v));
		return true;
	case TV_LIST:
		*out = v->u.list->n;
		return true;
	case TV_RANGE:
		*out = (size_t)v->u.range->n;
		return true;
	case TV_JARR:
		*out = json_array_size(v->u.j);
		return true;
	case TV_JOBJ:
		*out = json_object_size(v->u.j);
		return true;
	case TV_MAP:
		*out = v->u.map->n;
		return true;
	default:
		return false;
	}
}

bool template_is_true(const struct tval *v)
{
	size_t n;
	switch (v->kind) {
	case TV_UNDEF:
	case TV_NONE:
		return false;
	case TV_BOOL:
		return v->u.b;
	case TV_INT:
		return v->u.i != 0;
	case TV_FLOAT:
		return v->u.f != 0;
	case TV_STR:
		return v->n > 0;
	default:
		return !template_len(v, &n) || n > 0;
	}
}

int template_int_new(struct trender *r, __int128 i, struct tval *out)
{
	if (i >= INT64_MIN && i <= INT64_MAX) {
		*out = tval_int((int64_t)i);
		return 0;
	}
	__int128 *big = template_alloc(r, sizeof(*big));
	if (big == NULL)
		return -1;
	*big = i;
	*out = (struct tval){.kind = TV_BIG, .u.big = big};
	return 0;
}

bool template_as_int(const struct tval *v, __int128 *out)
{
	switch (v->kind) {
	case TV_BOOL:
		*out = v->u.b;
		return true;
	case TV_INT:
		*out = v->u.i;
		return true;
	case TV_BIG:
		*out = *v->u.big;
		return true;
	case TV_FLOAT:
		if (!(fabs(v->u.f) < 9.2e18) || v->u.f != trunc(v->u.f))
			return false;
		*out = (int64_t)v->u.f;
		return true;
	default:
		return false;
	}
}

bool template_as_double(const struct tval *v, double *out)
{
	switch (v->kind) {
	case TV_BOOL:
		*out = v->u.b;
		return true;
	case TV_INT:
		*out = (double)v->u.i;
		return true;
	case TV_BIG:
		*out = (double)*v->u.big;
		return true;
	case TV_FLOAT:
		*out = v->u.f;
		return true;
	default:
		return false;
	}
}

int template_arg_int(struct trender *r, const struct tval *v, const char *type, int64_t *out)
{
	__int128 i;
	if (!template_as_int(v, &i) || i < INT64_MIN || i > INT64_MAX)
		return template_fail_op(r, "cannot convert %s to %s", template_kind_name(v), type);
	*out = (int64_t)i;
	return 0;
}

/* --- lists and maps --- */

struct tlist *template_list_new(struct trender *r, size_t cap)
{
	if (cap > TEMPLATE_MAX_MEMORY / sizeof(struct tval))
		cap = TEMPLATE_MAX_MEMORY / sizeof(struct tval); /* refused by template_alloc */
	struct tlist *l = template_alloc(r, sizeof(*l));
	struct tval *v = l != NULL ? template_alloc(r, (cap + 1) * sizeof(*v)) : NULL;
	if (v == NULL)
		return NULL;
	*l = (struct tlist){.v = v, .cap = (uint32_t)cap + 1};
	return l;
}

int template_list_add(struct trender *r, struct tlist *l, const struct tval *v)
{
	if (l->n == l->cap) {
		struct tval *bigger = template_alloc(r, (size_t)l->cap * 2 * sizeof(*bigger));
		if (bigger == NULL)
			return -1;
		memcpy(bigger, l->v, l->n * sizeof(*bigger));
		l->v = bigger;
		l->cap *= 2;
	}
	l->v[l->n++] = *v;
	return 0;
}

struct tmap *template_map_new(struct trender *r, size_t cap)
{
	struct tmap *m = template_alloc(r, sizeof(*m));
	struct tpair *e = m != NULL ? template_alloc(r, (cap + 1) * sizeof(*e)) : NULL;
	if (e == NULL)
		return NULL;
	*m = (struct tmap){.e = e, .cap = (uint32_t)cap + 1};
	return m;
}

/* Maps made by templates are small, so the search is linear, and charged. */
int template_map_find(struct trender *r, const struct tmap *m, const struct tval *key, struct tpair **out)
{
	*out = NULL;
	if (template_step(r, m->n / 8) != 0)
		return -1;
	for (uint32_t i = 0; i < m->n; i++) {
		const struct tval *k = &m->e[i].key;
		bool is_same;
		if (k->kind == TV_STR && key->kind == TV_STR)
			is_same = str_eq(tval_text(k), tval_text(key));
		else if (template_equal(r, k, key, &is_same) != 0)
			return -1;
		if (is_same) {
			*out = &m->e[i];
			break;
		}
	}
	return 0;
}

static int value_map_add(struct trender *r, struct tmap *m, const struct tval *key, const struct tval *val)
{
	if (m->n == m->cap) {
		struct tpair *bigger = template_alloc(r, (size_t)m->cap * 2 * sizeof(*bigger));
		if (bigger == NULL)
			return -1;
		memcpy(bigger, m->e, m->n * sizeof(*bigger));
		m->e = bigger;
		m->cap *= 2;
	}
	m->e[m->n++] = (struct tpair){*key, *val};
	return 0;
}

int template_map_set(struct trender *r, struct tmap *m, const struct tval *key, const struct tval *val)
{
	struct tpair *e;
	if (template_map_find(r, m, key, &e) != 0)
		return -1;
	if (e == NULL)
		return value_map_add(r, m, key, val);
	e->val = *val;
	return 0;
}

int template_map_merge(struct trender *r, struct tmap *m, const struct tval *src)
{
	struct titer it;
	struct tval key, val;
	if (template_iter_init(r, src, &it) != 0)
		return -1;
	bool is_first = m->n == 0; /* the keys of one mapping differ from each other */
	while (template_iter_pair(&it, &key, &val)) {
		if (template_step(r, 1) != 0 ||
		    (is_first ? value_map_add(r, m, &key, &val) : template_map_set(r, m, &key, &val)) != 0)
			return -1;
	}
	return 0;
}

/* --- iteration --- */

bool template_is_iterable(const struct tval *v)
{
	return v->kind == TV_UNDEF || v->kind == TV_STR || template_is_seq(v) || template_is_map(v);
}

int template_iter_init(struct trender *r, const struct tval *v, struct titer *it)
{
	*it = (struct titer){.src = *v};
	if (v->kind == TV_UNDEF || v->kind == TV_NONE)
		return 0;
	if (!template_is_iterable(v))
		return template_fail_op(r, "%s is not iterable", template_kind_name(v));
	template_len(v, &it->n);
	if (v->kind == TV_STR) {
		it->s = v->u.s;
		return template_step_bytes(r, v->n);
	}
	if (v->kind == TV_JOBJ)
		it->obj = json_object_iter((json_t *)(uintptr_t)v->u.j);
	return 0;
}

bool template_iter_pair(struct titer *it, struct tval *key, struct tval *val)
{
	if (it->i >= it->n)
		return false;
	if (it->src.kind == TV_MAP) {
		*key = it->src.u.map->e[it->i].key;
		*val = it->src.u.map->e[it->i].val;
	} else {
		*key = tval_str(str_mk(json_object_iter_key(it->obj), json_object_iter_key_len(it->obj)));
		*val = template_val_json(json_object_iter_value(it->obj));
		it->obj = json_object_iter_next((json_t *)(uintptr_t)it->src.u.j, it->obj);
	}
	it->i++;
	return true;
}

bool template_iter_next(struct trender *r, struct titer *it, struct tval *out)
{
	struct tval unused;
	if (it->i >= it->n)
		return false;
	r->steps--;
	switch (it->src.kind) {
	case TV_LIST:
		*out = it->src.u.list->v[it->i++];
		return true;
	case TV_RANGE:
		*out = tval_int(it->src.u.range->start + (int64_t)it->i++ * it->src.u.range->step);
		return true;
	case TV_JARR:
		*out = template_val_json(json_array_get(it->src.u.j, it->i++));
		return true;
	case TV_STR: {
		str_t rest = str_mk(it->s, it->src.n - (size_t)(it->s - it->src.u.s));
		size_t n = template_utf8_next(rest, 0);
		*out = tval_str(str_mk(rest.p, n));
		it->s += n;
		it->i++;
		return true;
	}
	default:
		return template_iter_pair(it, out, &unused);
	}
}

int template_list_of(struct trender *r, const struct tval *v, struct tlist **out)
{
	struct titer it;
	struct tval item;
	if (v->kind == TV_LIST) {
		*out = v->u.list;
		return 0;
	}
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	struct tlist *l = template_step(r, it.n) == 0 ? template_list_new(r, it.n) : NULL;
	if (l == NULL)
		return -1;
	while (template_iter_next(r, &it, &item))
		if (template_list_add(r, l, &item) != 0)
			return -1;
	*out = l;
	return 0;
}
