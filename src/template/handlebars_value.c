/* handlebars_value.c - what values are in Handlebars: which of them count as true, what a name gives in them,
 * how they print. JSON of the context is read in place. The contexts of a render are one value, TV_LAYERS, as
 * long as names are looked up in it; to walk over its names, or to compare or print it as JSON, it is merged
 * into a mapping first, and so is a partial's context with its arguments over it. */
#include "template/handlebars_impl.h"

#include "base/text.h"

#include <math.h>

/* --- kinds --- */

struct tval handlebars_root(struct trender *r)
{
	if (r->n_ctx > 1)
		return (struct tval){.kind = TV_LAYERS};
	return r->n_ctx == 1 ? template_val_json(r->ctx[0]) : TVAL_UNDEF;
}

static bool value_is_map(const struct tval *v)
{
	return template_is_map(v) || v->kind == TV_LAYERS || v->kind == TV_OVER;
}

bool handlebars_is_true(const struct tval *v)
{
	if (v->kind == TV_JARR)
		return json_array_size(v->u.j) > 0;
	return value_is_map(v) || template_is_true(v); /* an empty object is true, an empty list is not */
}

bool handlebars_is_same(const struct tval *a, const struct tval *b)
{
	if (a->kind != b->kind)
		return a->kind <= TV_NONE && b->kind <= TV_NONE;
	switch (a->kind) {
	case TV_UNDEF:
	case TV_NONE:
	case TV_LAYERS:
		return true;
	case TV_BOOL:
		return a->u.b == b->u.b;
	case TV_INT:
		return a->u.i == b->u.i;
	case TV_FLOAT:
		return a->u.f == b->u.f;
	case TV_STR:
		return str_eq(tval_text(a), tval_text(b));
	default:
		return a->u.j == b->u.j;
	}
}

int handlebars_plain(struct trender *r, const struct tval *v, struct tval *out)
{
	struct tmap *m;
	struct tval part;
	if (v->kind != TV_LAYERS && v->kind != TV_OVER) {
		*out = *v;
		return 0;
	}
	if (template_guard(r) != 0 || (m = template_map_new(r, 8)) == NULL)
		return -1;
	if (v->kind == TV_OVER) {
		if (handlebars_plain(r, &v->u.over->base, &part) != 0 ||
		    (template_is_map(&part) && template_map_merge(r, m, &part) != 0) ||
		    template_map_merge(r, m, &v->u.over->top) != 0)
			return -1;
	}
	for (size_t i = v->kind == TV_LAYERS ? r->n_ctx : 0; i-- > 0;) {
		part = template_val_json(r->ctx[i]);
		if (template_is_map(&part) && template_map_merge(r, m, &part) != 0)
			return -1;
	}
	*out = tval_map(m);
	return 0;
}

/* --- names --- */

struct hseg handlebars_seg(str_t key)
{
	uint64_t index;
	bool is_index =
		key.n > 0 && (key.n == 1 || *key.p != '0') && str_to_u64(key, &index) && index <= INT64_MAX;
	return (struct hseg){.key = tval_str(key), .index = is_index ? (int64_t)index : -1};
}

static void value_get_layers(const struct trender *r, const struct tval *key, struct tval *out)
{
	for (size_t i = 0; i < r->n_ctx; i++) {
		const json_t *j = json_object_getn(r->ctx[i], key->u.s, key->n);
		if (j != NULL) {
			*out = template_val_json(j);
			return;
		}
	}
}

int handlebars_get(struct trender *r, const struct tval *base, const struct hseg *seg, struct tval *out)
{
	struct tval v = *base;
	struct tpair *e;
	bool is_length = v.kind != TV_JOBJ && str_eq(tval_text(&seg->key), STR("length"));
	*out = TVAL_UNDEF;
	for (;; v = v.u.over->base) {
		switch (v.kind) {
		case TV_JOBJ:
			*out = template_val_json(json_object_getn(v.u.j, seg->key.u.s, seg->key.n));
			return 0;
		case TV_LAYERS:
			value_get_layers(r, &seg->key, out);
			return 0;
		case TV_JARR:
			if (seg->index >= 0)
				*out = template_val_json(json_array_get(v.u.j, (size_t)seg->index));
			else if (is_length)
				*out = tval_int((int64_t)json_array_size(v.u.j));
			return 0;
		case TV_STR:
			if (is_length)
				*out = tval_int((int64_t)template_utf8_len(tval_text(&v)));
			return is_length ? template_step_bytes(r, v.n) : 0;
		case TV_MAP:
		case TV_OVER:
			if (template_map_find(r, v.kind == TV_MAP ? v.u.map : v.u.over->top.u.map, &seg->key,
					      &e) != 0)
				return -1;
			if (e != NULL)
				*out = e->val;
			if (e != NULL || v.kind == TV_MAP)
				return 0;
			break;
		default:
			return 0;
		}
	}
}

/* --- text --- */

/* As JavaScript prints a number: the shortest digits that read back as it; with an exponent from 1e21 and
 * below 1e-6. */
static void value_print_float(struct trender *r, double f)
{
	struct double_digits d;
	char text[64];
	double_digits_of(f, &d);
	str_t digits = str_mk(d.d, (size_t)d.n);
	if (f == 0) {
		template_sb_c(r, '0');
		return;
	}
	if (d.is_negative)
		template_sb_c(r, '-');
	if (d.exp10 > 21 || d.exp10 <= -6) {
		template_sb_str(r, str_head(digits, 1));
		if (d.n > 1)
			template_sb_c(r, '.');
		template_sb_str(r, str_skip(digits, 1));
		int n = snprintf(text, sizeof(text), "e%+d", d.exp10 - 1);
		template_sb_add(r, text, (size_t)n);
		return;
	}
	if (d.exp10 <= 0)
		template_sb_str(r, STR("0."));
	for (int i = d.exp10; i < 0; i++)
		template_sb_c(r, '0');
	for (int i = 0; i < d.n || i < d.exp10; i++) {
		if (i == d.exp10 && i > 0)
			template_sb_c(r, '.');
		template_sb_c(r, i < d.n ? d.d[i] : '0');
	}
}

int handlebars_print(struct trender *r, const struct tval *v)
{
	switch (v->kind) {
	case TV_UNDEF:
	case TV_NONE:
		return 0;
	case TV_FLOAT:
		value_print_float(r, v->u.f);
		return 0;
	case TV_JARR:
		break;
	default:
		if (!value_is_map(v))
			return template_print(r, v);
		template_sb_str(r, STR("[object Object]"));
		return 0;
	}
	if (template_guard(r) != 0)
		return -1;
	for (size_t i = 0; i < json_array_size(v->u.j); i++) {
		struct tval item = template_val_json(json_array_get(v->u.j, i));
		if (i > 0)
			template_sb_c(r, ',');
		if (template_step(r, 1) != 0 || handlebars_print(r, &item) != 0)
			return -1;
	}
	return 0;
}

int handlebars_text(struct trender *r, const struct tval *v, str_t *out)
{
	struct tval text = *v;
	size_t sb = template_sb_begin(r);
	if (v->kind != TV_STR && (handlebars_print(r, v) != 0 || template_sb_take(r, sb, &text) != 0))
		return -1;
	*out = tval_text(&text);
	return 0;
}

/* --- output --- */

static const struct thtml value_html[256] = {
	['<'] = {"&lt;", 4},	['>'] = {"&gt;", 4},   ['&'] = {"&amp;", 5},  ['"'] = {"&quot;", 6},
	['\''] = {"&#x27;", 6}, ['`'] = {"&#x60;", 6}, ['='] = {"&#x3D;", 6},
};

int handlebars_emit(struct trender *r, const struct tval *v, bool is_raw)
{
	struct tval plain;
	if (r->escape == TEMPLATE_ESCAPE_JSON && !is_raw)
		return handlebars_plain(r, v, &plain) != 0 ? -1 : template_emit(r, &plain);
	bool is_escaped = !is_raw && r->escape == TEMPLATE_ESCAPE_HTML;
	if (v->kind == TV_STR)
		return is_escaped ? template_emit_html(r, tval_text(v), value_html)
				  : template_emit_text(r, tval_text(v));
	size_t sb = template_sb_begin(r);
	if (handlebars_print(r, v) != 0)
		return -1;
	if (r->is_tmp_over)
		return template_fail_limit(r, "too much memory used");
	str_t text = str_mk(r->tmp.p != NULL ? r->tmp.p + sb : NULL, r->tmp.n - sb);
	int rc = is_escaped ? template_emit_html(r, text, value_html) : template_emit_text(r, text);
	template_sb_drop(r, sb);
	return rc;
}
