/* template_ops.c - comparing and computing. All values have one total order: undefined, none, numbers
 * (booleans among them, 1 == 1.0 == true), strings by bytes, sequences item by item, mappings, everything
 * else. Integers are 128 bits wide; what leaves that range is an error and not a float. */
#include "template/template_impl.h"

#include <math.h>

/* --- order --- */

static int ops_rank(const struct tval *v)
{
	switch (v->kind) {
	case TV_UNDEF:
		return 0;
	case TV_NONE:
		return 1;
	case TV_BOOL:
	case TV_INT:
	case TV_BIG:
	case TV_FLOAT:
		return 2;
	case TV_STR:
		return 3;
	case TV_LIST:
	case TV_RANGE:
	case TV_JARR:
		return 4;
	case TV_JOBJ:
	case TV_MAP:
		return 5;
	default:
		return 6;
	}
}

static int ops_compare_num(const struct tval *a, const struct tval *b)
{
	__int128 x, y;
	double f, g;
	if (template_as_int(a, &x) && template_as_int(b, &y))
		return (x > y) - (x < y);
	template_as_double(a, &f);
	template_as_double(b, &g);
	if (isnan(f) || isnan(g))
		return (isnan(f) != 0) - (isnan(g) != 0);
	return (f > g) - (f < g);
}

static int ops_compare_str(struct trender *r, const struct tval *a, const struct tval *b, int *out)
{
	size_t n = a->n < b->n ? a->n : b->n;
	int c = n > 0 ? memcmp(a->u.s, b->u.s, n) : 0;
	*out = c != 0 ? c : (a->n > b->n) - (a->n < b->n);
	return template_step(r, n / 256);
}

static int ops_compare_seq(struct trender *r, const struct tval *a, const struct tval *b, int *out)
{
	struct titer ia, ib;
	struct tval x, y;
	if (template_iter_init(r, a, &ia) != 0 || template_iter_init(r, b, &ib) != 0)
		return -1;
	for (;;) {
		bool has_a = template_iter_next(r, &ia, &x), has_b = template_iter_next(r, &ib, &y);
		if (!has_a || !has_b) {
			*out = has_a - has_b;
			return 0;
		}
		if (template_step(r, 1) != 0 || template_compare(r, &x, &y, out) != 0)
			return -1;
		if (*out != 0)
			return 0;
	}
}

/* Equal when both have the same pairs in any order; else by
 * number of pairs, then by the first that differs. */
static int ops_compare_map(struct trender *r, const struct tval *a, const struct tval *b, int *out)
{
	struct titer ia;
	struct tval key, x, y;
	size_t na = 0, nb = 0;
	template_len(a, &na);
	template_len(b, &nb);
	*out = (na > nb) - (na < nb);
	if (*out != 0)
		return 0;
	if (template_iter_init(r, a, &ia) != 0)
		return -1;
	while (template_iter_pair(&ia, &key, &x)) {
		if (template_step(r, 1) != 0 || template_get_item(r, b, &key, &y) != 0 ||
		    template_compare(r, &x, &y, out) != 0)
			return -1;
		if (*out != 0)
			return 0;
	}
	return 0;
}

int template_compare(struct trender *r, const struct tval *a, const struct tval *b, int *out)
{
	int ra = ops_rank(a), rb = ops_rank(b);
	if (template_guard(r) != 0)
		return -1;
	*out = ra - rb;
	if (*out != 0)
		return 0;
	switch (ra) {
	case 2:
		*out = ops_compare_num(a, b);
		return 0;
	case 3:
		return ops_compare_str(r, a, b, out);
	case 4:
		return ops_compare_seq(r, a, b, out);
	case 5:
		return ops_compare_map(r, a, b, out);
	case 6:
		*out = ((uintptr_t)a->u.s > (uintptr_t)b->u.s) - ((uintptr_t)a->u.s < (uintptr_t)b->u.s);
		return 0;
	default:
		return 0;
	}
}

int template_equal(struct trender *r, const struct tval *a, const struct tval *b, bool *out)
{
	int c;
	if (a->kind == TV_STR && b->kind == TV_STR && a->n != b->n) {
		*out = false;
		return 0;
	}
	if (a->kind == TV_FLOAT && b->kind == TV_FLOAT && (isnan(a->u.f) || isnan(b->u.f))) {
		*out = false;
		return 0;
	}
	if (template_compare(r, a, b, &c) != 0)
		return -1;
	*out = c == 0;
	return 0;
}

int template_compare_case(struct trender *r, const struct tval *a, const struct tval *b,
			  bool is_case_sensitive, int *out)
{
	if (is_case_sensitive || a->kind != TV_STR || b->kind != TV_STR)
		return template_compare(r, a, b, out);
	if (template_step_bytes(r, (size_t)a->n + b->n) != 0)
		return -1;
	size_t sa = template_sb_begin(r), sb;
	template_add_case(r, tval_text(a), false);
	sb = template_sb_begin(r);
	template_add_case(r, tval_text(b), false);
	*out = str_cmp(str_mk(r->tmp.p + sa, sb - sa), str_mk(r->tmp.p + sb, r->tmp.n - sb));
	template_sb_drop(r, sa);
	return r->is_tmp_over ? template_fail_limit(r, "too much memory used") : 0;
}

int template_contains(struct trender *r, const struct tval *box, const struct tval *item, bool *out)
{
	struct titer it;
	struct tval v;
	*out = false;
	if (box->kind == TV_UNDEF)
		return 0;
	if (box->kind == TV_STR) {
		struct tval s;
		if (template_to_str(r, item, &s) != 0 || template_step_bytes(r, (size_t)box->n + s.n) != 0)
			return -1;
		*out = str_find(tval_text(box), tval_text(&s)) >= 0;
		return 0;
	}
	if (!template_is_seq(box) && !template_is_map(box))
		return template_fail_op(r, "cannot perform a containment check on this value");
	if (box->kind == TV_JOBJ) {
		*out = item->kind == TV_STR && json_object_getn(box->u.j, item->u.s, item->n) != NULL;
		return 0;
	}
	if (template_iter_init(r, box, &it) != 0)
		return -1;
	while (!*out && template_iter_next(r, &it, &v))
		if (template_step(r, 1) != 0 || template_equal(r, &v, item, out) != 0)
			return -1;
	return 0;
}

/* --- arithmetic --- */

static const char *const ops_sign[] = {[OP_ADD] = "+",	 [OP_SUB] = "-", [OP_MUL] = "*",  [OP_DIV] = "/",
				       [OP_IDIV] = "//", [OP_MOD] = "%", [OP_POW] = "**", [OP_CONCAT] = "~"};

static int ops_fail_calc(struct trender *r, enum tbin_op op, const struct tval *a, const struct tval *b)
{
	struct tval x, y;
	if (template_to_str(r, a, &x) != 0 || template_to_str(r, b, &y) != 0)
		return -1;
	return template_fail_op(r, "unable to calculate %.*s %s %.*s", (int)(x.n < 60 ? x.n : 60), x.u.s,
				ops_sign[op], (int)(y.n < 60 ? y.n : 60), y.u.s);
}

static int ops_fail_types(struct trender *r, enum tbin_op op, const struct tval *a, const struct tval *b)
{
	return template_fail_op(r, "tried to use %s operator on unsupported types %s and %s", ops_sign[op],
				template_kind_name(a), template_kind_name(b));
}

static bool ops_pow(__int128 x, __int128 y, __int128 *out)
{
	__int128 v = 1;
	if (y < 0)
		return false;
	for (; y > 0; y >>= 1) {
		if ((y & 1) && __builtin_mul_overflow(v, x, &v))
			return false;
		if (y > 1 && __builtin_mul_overflow(x, x, &x))
			return false;
	}
	*out = v;
	return true;
}

static const __int128 OPS_INT_MIN = (__int128)((unsigned __int128)1 << 127);

/* Rounded towards minus infinity for a positive divisor, so that the remainder is never negative. */
static bool ops_divide(__int128 x, __int128 y, __int128 *quotient, __int128 *rest)
{
	if (y == 0 || (x == OPS_INT_MIN && y == -1))
		return false;
	*quotient = x / y;
	*rest = x % y;
	if (*rest < 0) {
		*rest += y > 0 ? y : -y;
		*quotient += y > 0 ? -1 : 1;
	}
	return true;
}

static int ops_int(struct trender *r, enum tbin_op op, const struct tval *a, const struct tval *b,
		   struct tval *out)
{
	__int128 x, y, v = 0, rest;
	bool is_ok;
	template_as_int(a, &x);
	template_as_int(b, &y);
	switch (op) {
	case OP_ADD:
		is_ok = !__builtin_add_overflow(x, y, &v);
		break;
	case OP_SUB:
		is_ok = !__builtin_sub_overflow(x, y, &v);
		break;
	case OP_MUL:
		is_ok = !__builtin_mul_overflow(x, y, &v);
		break;
	case OP_IDIV:
		is_ok = ops_divide(x, y, &v, &rest);
		break;
	case OP_MOD:
		is_ok = ops_divide(x, y, &rest, &v);
		break;
	default:
		is_ok = ops_pow(x, y, &v);
		break;
	}
	return is_ok ? template_int_new(r, v, out) : ops_fail_calc(r, op, a, b);
}

static int ops_float(enum tbin_op op, const struct tval *a, const struct tval *b, struct tval *out)
{
	double x, y, v, rest;
	template_as_double(a, &x);
	template_as_double(b, &y);
	switch (op) {
	case OP_ADD:
		v = x + y;
		break;
	case OP_SUB:
		v = x - y;
		break;
	case OP_MUL:
		v = x * y;
		break;
	case OP_DIV:
		v = x / y;
		break;
	case OP_IDIV:
		rest = fmod(x, y);
		v = trunc(x / y);
		if (rest < 0)
			v += y > 0 ? -1 : 1;
		break;
	case OP_MOD:
		v = fmod(x, y);
		break;
	default:
		v = pow(x, y);
		break;
	}
	*out = tval_float(v);
	return 0;
}

static int ops_join_lists(struct trender *r, const struct tval *a, const struct tval *b, struct tval *out)
{
	const struct tval *const parts[] = {a, b};
	size_t na = 0, nb = 0;
	template_len(a, &na);
	template_len(b, &nb);
	struct tlist *l = template_list_new(r, na + nb);
	if (l == NULL)
		return -1;
	for (int i = 0; i < 2; i++) {
		struct titer it;
		struct tval item;
		if (template_iter_init(r, parts[i], &it) != 0)
			return -1;
		while (template_iter_next(r, &it, &item))
			if (template_step(r, 1) != 0 || template_list_add(r, l, &item) != 0)
				return -1;
	}
	*out = tval_list(l);
	return 0;
}

static int ops_repeat(struct trender *r, const struct tval *v, const struct tval *times, struct tval *out)
{
	__int128 n;
	size_t len = 0;
	if (!template_as_int(times, &n) || n < 0)
		return template_fail_op(r, "%s can only be multiplied with integers",
					v->kind == TV_STR ? "strings" : "sequences");
	template_len(v, &len);
	size_t unit = v->kind == TV_STR ? v->n : len * sizeof(struct tval);
	if (unit > 0 && n > (__int128)(TEMPLATE_MAX_MEMORY / unit))
		return template_fail_limit(r, "too much memory used");
	if (unit == 0)
		n = 0;
	if (v->kind == TV_STR) {
		size_t sb = template_sb_begin(r);
		if (template_step_bytes(r, unit * (size_t)n) != 0 || template_step(r, (size_t)n / 16) != 0)
			return -1;
		for (; n > 0; n--)
			template_sb_str(r, tval_text(v));
		return template_sb_take(r, sb, out);
	}
	struct tlist *src, *l;
	if (template_step(r, len * (size_t)n) != 0 || template_list_of(r, v, &src) != 0 ||
	    (l = template_list_new(r, len * (size_t)n)) == NULL)
		return -1;
	for (; n > 0; n--) {
		memcpy(l->v + l->n, src->v, len * sizeof(*l->v));
		l->n += (uint32_t)len;
	}
	*out = tval_list(l);
	return 0;
}

static int ops_concat(struct trender *r, const struct tval *a, const struct tval *b, struct tval *out)
{
	size_t sb = template_sb_begin(r);
	if (template_print(r, a) != 0 || template_print(r, b) != 0)
		return -1;
	return template_sb_take(r, sb, out);
}

static bool ops_is_num(const struct tval *v)
{
	return template_is_num(v) || v->kind == TV_BOOL;
}

int template_binary(struct trender *r, enum tbin_op op, const struct tval *a, const struct tval *b,
		    struct tval *out)
{
	if (op == OP_CONCAT)
		return ops_concat(r, a, b, out);
	if (ops_is_num(a) && ops_is_num(b)) {
		bool is_float = a->kind == TV_FLOAT || b->kind == TV_FLOAT || op == OP_DIV;
		return is_float ? ops_float(op, a, b, out) : ops_int(r, op, a, b, out);
	}
	if (op == OP_ADD && a->kind == TV_STR && b->kind == TV_STR)
		return ops_concat(r, a, b, out);
	if (op == OP_ADD && template_is_seq(a) && template_is_seq(b))
		return ops_join_lists(r, a, b, out);
	if (op == OP_MUL && (a->kind == TV_STR || template_is_seq(a)) && ops_is_num(b))
		return ops_repeat(r, a, b, out);
	if (op == OP_MUL && (b->kind == TV_STR || template_is_seq(b)) && ops_is_num(a))
		return ops_repeat(r, b, a, out);
	return ops_fail_types(r, op, a, b);
}

int template_negate(struct trender *r, const struct tval *v, struct tval *out)
{
	if (v->kind == TV_FLOAT) {
		*out = tval_float(-v->u.f);
		return 0;
	}
	__int128 i;
	if (!template_is_int(v) || !template_as_int(v, &i) || i == OPS_INT_MIN)
		return template_fail(r, "invalid operation");
	return template_int_new(r, -i, out);
}
