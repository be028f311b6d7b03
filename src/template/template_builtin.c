/* template_builtin.c - the tests (`x is odd`) and the functions that a template finds without being given
 * them. */
#include "template/template_impl.h"

#include "base/clock.h"

#include <math.h>

/* --- tests --- */

#define TEST_BOOL(name, expr)                                                 \
	static int name(struct trender *r, struct targs *a, struct tval *out) \
	{                                                                     \
		*out = tval_bool(expr);                                       \
		return template_step(r, a->n);                                \
	}

TEST_BOOL(test_defined, a->v[0].kind != TV_UNDEF)
TEST_BOOL(test_undefined, a->v[0].kind == TV_UNDEF)
TEST_BOOL(test_none, a->v[0].kind == TV_NONE)
TEST_BOOL(test_boolean, a->v[0].kind == TV_BOOL)
TEST_BOOL(test_true, a->v[0].kind == TV_BOOL && a->v[0].u.b)
TEST_BOOL(test_false, a->v[0].kind == TV_BOOL && !a->v[0].u.b)
TEST_BOOL(test_number, template_is_num(&a->v[0]))
TEST_BOOL(test_integer, template_is_int(&a->v[0]))
TEST_BOOL(test_float, a->v[0].kind == TV_FLOAT)
TEST_BOOL(test_string, a->v[0].kind == TV_STR)
TEST_BOOL(test_sequence, a->v[0].kind == TV_LIST || a->v[0].kind == TV_JARR)
TEST_BOOL(test_mapping, template_is_map(&a->v[0]) || a->v[0].kind == TV_LOOP)
TEST_BOOL(test_iterable, a->v[0].kind == TV_NONE || template_is_iterable(&a->v[0]))
TEST_BOOL(test_safe, a->v[0].kind == TV_STR && a->v[0].is_safe)

static int test_parity(struct trender *r, struct targs *a, int wanted, struct tval *out)
{
	__int128 i;
	*out = tval_bool(a->v[0].kind != TV_BOOL && template_as_int(&a->v[0], &i) && (i & 1) == wanted);
	return template_step(r, 1);
}

static int test_odd(struct trender *r, struct targs *a, struct tval *out)
{
	return test_parity(r, a, 1, out);
}
static int test_even(struct trender *r, struct targs *a, struct tval *out)
{
	return test_parity(r, a, 0, out);
}

static int test_divisibleby(struct trender *r, struct targs *a, struct tval *out)
{
	__int128 x, y;
	double f, g;
	bool is_whole = false;
	if (template_as_int(&a->v[0], &x) && template_as_int(&a->v[1], &y))
		is_whole = y != 0 && (y == -1 || x % y == 0);
	else if (template_as_double(&a->v[0], &f) && template_as_double(&a->v[1], &g))
		is_whole = fmod(f, g) == 0;
	*out = tval_bool(is_whole);
	return template_step(r, 1);
}

static int test_order(struct trender *r, struct targs *a, enum tcmp_op op, struct tval *out)
{
	int c;
	bool is_equal;
	if (op == CMP_EQ || op == CMP_NE) {
		if (template_equal(r, &a->v[0], &a->v[1], &is_equal) != 0)
			return -1;
		*out = tval_bool(is_equal == (op == CMP_EQ));
		return 0;
	}
	if (template_compare(r, &a->v[0], &a->v[1], &c) != 0)
		return -1;
	*out = tval_bool(op == CMP_LT ? c < 0 : op == CMP_LE ? c <= 0 : op == CMP_GT ? c > 0 : c >= 0);
	return 0;
}

static int test_eq(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_EQ, out);
}
static int test_ne(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_NE, out);
}
static int test_lt(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_LT, out);
}
static int test_le(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_LE, out);
}
static int test_gt(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_GT, out);
}
static int test_ge(struct trender *r, struct targs *a, struct tval *out)
{
	return test_order(r, a, CMP_GE, out);
}

static int test_in(struct trender *r, struct targs *a, struct tval *out)
{
	bool is_in;
	if (template_contains(r, &a->v[1], &a->v[0], &is_in) != 0)
		return -1;
	*out = tval_bool(is_in);
	return 0;
}

static int test_affix(struct trender *r, struct targs *a, bool is_prefix, struct tval *out)
{
	str_t affix;
	if (template_arg_str(r, &a->v[1], &affix) != 0)
		return -1;
	str_t s = a->v[0].kind == TV_STR ? tval_text(&a->v[0]) : STR_NULL;
	*out = tval_bool(a->v[0].kind == TV_STR && (is_prefix ? str_starts(s, affix) : str_ends(s, affix)));
	return template_step_bytes(r, affix.n);
}

static int test_startingwith(struct trender *r, struct targs *a, struct tval *out)
{
	return test_affix(r, a, true, out);
}
static int test_endingwith(struct trender *r, struct targs *a, struct tval *out)
{
	return test_affix(r, a, false, out);
}

/* Every character has a case, and it is that one. */
static int test_case(struct trender *r, struct targs *a, bool is_upper, struct tval *out)
{
	str_t s;
	bool is_all = true;
	if (template_arg_str(r, &a->v[0], &s) != 0 || template_step(r, s.n) != 0)
		return -1;
	for (size_t i = 0, next; i < s.n && is_all; i = next) {
		next = template_utf8_next(s, i);
		str_t c = str_mk(s.p + i, next - i);
		size_t sb = template_sb_begin(r), mid;
		template_add_case(r, c, is_upper);
		mid = template_sb_begin(r);
		template_add_case(r, c, !is_upper);
		if (r->is_tmp_over)
			return template_fail_limit(r, "too much memory used");
		is_all = str_eq(str_mk(r->tmp.p + sb, mid - sb), c) &&
			 !str_eq(str_mk(r->tmp.p + mid, r->tmp.n - mid), c);
		template_sb_drop(r, sb);
	}
	*out = tval_bool(is_all);
	return 0;
}

static int test_lower(struct trender *r, struct targs *a, struct tval *out)
{
	return test_case(r, a, false, out);
}
static int test_upper(struct trender *r, struct targs *a, struct tval *out)
{
	return test_case(r, a, true, out);
}

/* The same object, or equal and of the same type. */
static int test_sameas(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *x = &a->v[0], *y = &a->v[1];
	bool is_same = x->kind == y->kind;
	if (is_same && (x->kind == TV_LIST || x->kind == TV_MAP || x->kind == TV_JARR || x->kind == TV_JOBJ))
		is_same = x->u.j == y->u.j;
	else if (is_same && template_equal(r, x, y, &is_same) != 0)
		return -1;
	*out = tval_bool(is_same);
	return 0;
}

TEST_BOOL(test_filter, a->v[0].kind == TV_STR && template_filter_find(tval_text(&a->v[0])) != NULL)
TEST_BOOL(test_test, a->v[0].kind == TV_STR && template_test_find(tval_text(&a->v[0])) != NULL)

static const struct tfunc builtin_tests[] = {
	{"!=", test_ne, 2, 2, false},
	{"<", test_lt, 2, 2, false},
	{"<=", test_le, 2, 2, false},
	{"==", test_eq, 2, 2, false},
	{">", test_gt, 2, 2, false},
	{">=", test_ge, 2, 2, false},
	{"boolean", test_boolean, 1, 1, false},
	{"defined", test_defined, 1, 1, false},
	{"divisibleby", test_divisibleby, 2, 2, false},
	{"endingwith", test_endingwith, 2, 2, false},
	{"eq", test_eq, 2, 2, false},
	{"equalto", test_eq, 2, 2, false},
	{"escaped", test_safe, 1, 1, false},
	{"even", test_even, 1, 1, false},
	{"false", test_false, 1, 1, false},
	{"filter", test_filter, 1, 1, false},
	{"float", test_float, 1, 1, false},
	{"ge", test_ge, 2, 2, false},
	{"greaterthan", test_gt, 2, 2, false},
	{"gt", test_gt, 2, 2, false},
	{"in", test_in, 2, 2, false},
	{"int", test_integer, 1, 1, false},
	{"integer", test_integer, 1, 1, false},
	{"iterable", test_iterable, 1, 1, false},
	{"le", test_le, 2, 2, false},
	{"lessthan", test_lt, 2, 2, false},
	{"lower", test_lower, 1, 1, false},
	{"lt", test_lt, 2, 2, false},
	{"mapping", test_mapping, 1, 1, false},
	{"ne", test_ne, 2, 2, false},
	{"none", test_none, 1, 1, false},
	{"number", test_number, 1, 1, false},
	{"odd", test_odd, 1, 1, false},
	{"safe", test_safe, 1, 1, false},
	{"sameas", test_sameas, 2, 2, false},
	{"sequence", test_sequence, 1, 1, false},
	{"startingwith", test_startingwith, 2, 2, false},
	{"string", test_string, 1, 1, false},
	{"test", test_test, 1, 1, false},
	{"true", test_true, 1, 1, false},
	{"undefined", test_undefined, 1, 1, false},
	{"upper", test_upper, 1, 1, false},
};

/* --- functions --- */

static int fn_range(struct trender *r, struct targs *a, struct tval *out)
{
	int64_t v[3] = {0, 0, 1};
	for (uint32_t i = 0; i < a->n; i++)
		if (!(i == 2 && a->v[i].kind == TV_NONE) &&
		    template_arg_int(r, &a->v[i], "isize", &v[i]) != 0)
			return -1;
	if (a->n == 1) {
		v[1] = v[0];
		v[0] = 0;
	}
	if (v[2] == 0)
		return template_fail_op(r, "cannot create range with step of 0");
	__int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1];
	__int128 step = v[2] > 0 ? v[2] : -(__int128)v[2], n = span > 0 ? (span + step - 1) / step : 0;
	if (n > TEMPLATE_MAX_RANGE)
		return template_fail_op(r, "range has too many elements");
	struct trange *range = template_alloc(r, sizeof(*range));
	if (range == NULL)
		return -1;
	*range = (struct trange){.start = v[0], .step = v[2], .n = (int64_t)n};
	*out = (struct tval){.kind = TV_RANGE, .u.range = range};
	return 0;
}

/* A new mapping of the mapping given (or none) and the keyword arguments; NULL with `refusal` for anything
 * else. */
static struct tmap *fn_map(struct trender *r, struct targs *a, const char *refusal)
{
	struct tmap *m = template_map_new(r, 4);
	struct tval kw = tval_map(a->kw);
	if (m == NULL)
		return NULL;
	if (a->n > 0 && a->v[0].kind != TV_NONE && a->v[0].kind != TV_UNDEF) {
		if (!template_is_map(&a->v[0])) {
			template_fail(r, "invalid operation%s%s", refusal,
				      *refusal ? template_kind_name(&a->v[0]) : "");
			return NULL;
		}
		if (template_map_merge(r, m, &a->v[0]) != 0)
			return NULL;
	}
	a->kw_used = UINT64_MAX;
	return a->kw == NULL || template_map_merge(r, m, &kw) == 0 ? m : NULL;
}

static int fn_dict(struct trender *r, struct targs *a, struct tval *out)
{
	struct tmap *m = fn_map(r, a, "");
	*out = tval_map(m);
	return m != NULL ? 0 : -1;
}

static int fn_namespace(struct trender *r, struct targs *a, struct tval *out)
{
	struct tmap *m = fn_map(r, a, ": expected object or keyword arguments, got ");
	if (m == NULL)
		return -1;
	m->is_namespace = true;
	*out = tval_map(m);
	return 0;
}

static int fn_cycler(struct trender *r, struct targs *a, struct tval *out)
{
	struct tlist *items = NULL;
	if (a->n == 1) {
		if (!template_is_seq(&a->v[0]))
			return template_fail_op(r, "not iterable");
		if (template_list_of(r, &a->v[0], &items) != 0)
			return -1;
	} else if ((items = template_list_new(r, a->n)) != NULL) { /* cycler("odd", "even") */
		for (uint32_t i = 0; i < a->n; i++)
			items->v[items->n++] = a->v[i];
	}
	struct tcycler *c = items != NULL ? template_alloc(r, sizeof(*c)) : NULL;
	if (c == NULL)
		return -1;
	if (items->n == 0)
		return template_fail_op(r, "at least one value required");
	*c = (struct tcycler){.items = items};
	*out = (struct tval){.kind = TV_CYCLER, .u.cycler = c};
	return 0;
}

static int fn_joiner(struct trender *r, struct targs *a, struct tval *out)
{
	struct tjoiner *j = template_alloc(r, sizeof(*j));
	if (j == NULL)
		return -1;
	*j = (struct tjoiner){.sep = a->n > 0 && a->v[0].kind != TV_NONE ? a->v[0] : tval_str(STR(", "))};
	*out = (struct tval){.kind = TV_JOINER, .u.joiner = j};
	return 0;
}

static int fn_now(struct trender *r, struct targs *a, struct tval *out)
{
	*out = tval_float((double)wall_now().ns / 1e9);
	return template_step(r, a->n);
}

static int debug_pair(struct trender *r, str_t name, const struct tval *v)
{
	template_sb_str(r, STR("        "));
	template_sb_str(r, name);
	template_sb_str(r, STR(": "));
	if (template_step(r, 1) != 0 || template_print_pretty(r, v, 8) != 0)
		return -1;
	template_sb_str(r, STR(",\n"));
	return 0;
}

/* debug(): the names that can be seen from here. debug(a, b): these values, spread over lines. */
static int fn_debug(struct trender *r, struct targs *a, struct tval *out)
{
	size_t sb = template_sb_begin(r);
	if (a->n > 0) {
		struct tlist l = {.v = a->v, .n = a->n, .cap = a->n};
		struct tval v = a->n == 1 ? a->v[0] : tval_list(&l);
		return template_print_pretty(r, &v, 0) != 0 ? -1 : template_sb_take(r, sb, out);
	}
	template_sb_str(r, STR("State {\n    name: "));
	struct tval name = tval_str(r->t->name);
	if (template_print_repr(r, &name) != 0)
		return -1;
	template_sb_str(r, STR(",\n    ctx: {\n"));
	for (const struct tscope *s = r->scope; s != NULL; s = s->up)
		for (uint32_t i = 0; i < s->n; i++)
			if (debug_pair(r, r->t->names[s->vars[i].name].s, &s->vars[i].v) != 0)
				return -1;
	for (size_t i = 0; i < r->n_ctx; i++) {
		struct tval ctx = template_val_json(r->ctx[i]), key, v;
		struct titer it;
		if (ctx.kind != TV_JOBJ)
			continue;
		if (template_iter_init(r, &ctx, &it) != 0)
			return -1;
		while (template_iter_pair(&it, &key, &v))
			if (debug_pair(r, tval_text(&key), &v) != 0)
				return -1;
	}
	template_sb_str(r, STR("    },\n}"));
	return template_sb_take(r, sb, out);
}

static const struct tfunc builtin_globals[] = {
	{"cycler", fn_cycler, 0, UINT8_MAX, false},
	{"debug", fn_debug, 0, UINT8_MAX, false},
	{"dict", fn_dict, 0, 1, true},
	{"joiner", fn_joiner, 0, 1, false},
	{"namespace", fn_namespace, 0, 1, true},
	{"now", fn_now, 0, 0, false},
	{"range", fn_range, 1, 3, false},
};

static const struct tfunc *builtin_find(const struct tfunc *table, size_t n, str_t name)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(name, str_of(table[i].name)))
			return &table[i];
	return NULL;
}

const struct tfunc *template_test_find(str_t name)
{
	return builtin_find(builtin_tests, ARRAY_SIZE(builtin_tests), name);
}
const struct tfunc *template_global_find(str_t name)
{
	return builtin_find(builtin_globals, ARRAY_SIZE(builtin_globals), name);
}
