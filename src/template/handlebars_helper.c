/* handlebars_helper.c - the helpers: those of the language (if, unless, each, with, lookup, log, and raw for
 * what is not to be expanded), and the comparisons and conditions. A block helper that only chooses between
 * its two parts hands the part back instead of running it, so that a long else chain is walked and not
 * recursed into. */
#include "template/handlebars_impl.h"

#include "base/log.h"

static int helper_arg(struct trender *r, const struct henv *env, const struct hcall *c, uint32_t i,
		      struct tval *out)
{
	return handlebars_eval(r, env, c->args[i], out);
}

static int helper_two(struct trender *r, const struct henv *env, const struct hcall *c, struct tval v[2])
{
	return helper_arg(r, env, c, 0, &v[0]) != 0 || helper_arg(r, env, c, 1, &v[1]) != 0 ? -1 : 0;
}

/* --- comparing --- */

/* Values are equal only to values of their kind; null and what is missing are one. */
static int helper_equal(struct trender *r, const struct henv *env, const struct hcall *c, bool *out)
{
	struct tval v[2], a, b;
	if (helper_two(r, env, c, v) != 0 || handlebars_plain(r, &v[0], &a) != 0 ||
	    handlebars_plain(r, &v[1], &b) != 0)
		return -1;
	*out = a.kind <= TV_NONE && b.kind <= TV_NONE;
	if (a.kind <= TV_NONE || b.kind <= TV_NONE || (a.kind == TV_BOOL) != (b.kind == TV_BOOL))
		return 0;
	return template_equal(r, &a, &b, out);
}

static int helper_eq(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	bool is_equal;
	if (helper_equal(r, env, c, &is_equal) != 0)
		return -1;
	*out = tval_bool(is_equal);
	return 0;
}

static int helper_ne(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	bool is_equal;
	if (helper_equal(r, env, c, &is_equal) != 0)
		return -1;
	*out = tval_bool(!is_equal);
	return 0;
}

/* The number that a text says, for comparing it with a number. */
static bool helper_number(struct tval *v)
{
	double d;
	int64_t i;
	if (v->kind != TV_STR)
		return template_is_num(v);
	if (str_to_i64(tval_text(v), &i))
		*v = tval_int(i);
	else if (v->n < 400 && str_to_double(tval_text(v), &d))
		*v = tval_float(d);
	else
		return false;
	return true;
}

/* Two numbers, two texts, or a number and a text that says one; false for all else: it has no order. */
static int helper_order(struct trender *r, const struct henv *env, const struct hcall *c, bool *has_order,
			int *order)
{
	struct tval v[2];
	if (helper_two(r, env, c, v) != 0)
		return -1;
	*has_order = (v[0].kind == TV_STR && v[1].kind == TV_STR) ||
		     (helper_number(&v[0]) && helper_number(&v[1]));
	return *has_order ? template_compare(r, &v[0], &v[1], order) : 0;
}

#define HELPER_ORDER(name, condition)                                                              \
	static int helper_##name(struct trender *r, const struct henv *env, const struct hcall *c, \
				 struct tval *out)                                                 \
	{                                                                                          \
		bool has_order;                                                                    \
		int order = 0;                                                                     \
		if (helper_order(r, env, c, &has_order, &order) != 0)                              \
			return -1;                                                                 \
		*out = tval_bool(has_order && (condition));                                        \
		return 0;                                                                          \
	}
HELPER_ORDER(gt, order > 0)
HELPER_ORDER(gte, order >= 0)
HELPER_ORDER(lt, order < 0)
HELPER_ORDER(lte, order <= 0)

/* Whether any argument is `wanted`; the others are then not looked at. */
static int helper_any(struct trender *r, const struct henv *env, const struct hcall *c, bool wanted,
		      bool *out)
{
	struct tval v;
	*out = false;
	for (uint32_t i = 0; i < c->n && !*out; i++) {
		if (helper_arg(r, env, c, i, &v) != 0)
			return -1;
		*out = handlebars_is_true(&v) == wanted;
	}
	return 0;
}

static int helper_and(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	bool has_false;
	if (helper_any(r, env, c, false, &has_false) != 0)
		return -1;
	*out = tval_bool(!has_false);
	return 0;
}

static int helper_or(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	bool has_true;
	if (helper_any(r, env, c, true, &has_true) != 0)
		return -1;
	*out = tval_bool(has_true);
	return 0;
}

static int helper_not(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	struct tval v;
	if (helper_arg(r, env, c, 0, &v) != 0)
		return -1;
	*out = tval_bool(!handlebars_is_true(&v));
	return 0;
}

/* --- values --- */

static int helper_len(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	struct tval v, plain;
	size_t n = 0;
	if (helper_arg(r, env, c, 0, &v) != 0 || handlebars_plain(r, &v, &plain) != 0)
		return -1;
	template_len(&plain, &n);
	*out = tval_int((int64_t)n);
	return template_step_bytes(r, plain.kind == TV_STR ? plain.n : 0);
}

static int helper_lookup(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	struct tval v[2];
	str_t key;
	if (helper_two(r, env, c, v) != 0 || handlebars_text(r, &v[1], &key) != 0)
		return -1;
	struct hseg seg = handlebars_seg(key);
	return handlebars_get(r, &v[0], &seg, out);
}

/* Templates come from outside: what they log is for debugging them, whatever level they ask for, and one
 * line. */
static int helper_log(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out)
{
	struct tval v, text;
	str_t level = STR("info");
	size_t sb = template_sb_begin(r);
	*out = TVAL_UNDEF;
	if (!log_is_enabled(LOG_DEBUG, "template"))
		return 0;
	for (uint32_t i = 0; i < c->n; i++) {
		if (helper_arg(r, env, c, i, &v) != 0)
			return -1;
		if (i > 0)
			template_sb_c(r, ' ');
		if (handlebars_print(r, &v) != 0)
			return -1;
	}
	if (template_sb_take(r, sb, &text) != 0 ||
	    (c->n_hash > 0 &&
	     (handlebars_eval(r, env, c->hash[0], &v) != 0 || handlebars_text(r, &v, &level) != 0)))
		return -1;
	struct buf line = BUF_INIT;
	buf_printf(&line, "[" STR_FMT "] " STR_FMT, STR_ARG(str_head(level, 20)),
		   STR_ARG(str_head(tval_text(&text), 4096)));
	for (size_t i = 0; i < line.n; i++)
		if (line.p[i] == '\n')
			line.p[i] = ' ';
	log_debug("template", "template '" STR_FMT "': %s", STR_ARG(r->t->name), line.p);
	buf_fini(&line);
	return 0;
}

/* --- blocks --- */

static int helper_is_true(struct trender *r, const struct henv *env, const struct hcall *c, bool *out)
{
	struct tval v, zero = TVAL_UNDEF;
	if (helper_arg(r, env, c, 0, &v) != 0 ||
	    (c->n_hash > 0 && handlebars_eval(r, env, c->hash[0], &zero) != 0))
		return -1;
	bool is_zero = (v.kind == TV_INT && v.u.i == 0) || (v.kind == TV_FLOAT && v.u.f == 0);
	*out = handlebars_is_true(&v) || (is_zero && handlebars_is_true(&zero));
	return 0;
}

static int helper_if(struct trender *r, const struct henv *env, const struct hnode *n,
		     const struct hprogram **next)
{
	bool is_true;
	if (helper_is_true(r, env, &n->u.block.call, &is_true) != 0)
		return -1;
	*next = is_true ? n->u.block.yes : n->u.block.no;
	return 0;
}

static int helper_unless(struct trender *r, const struct henv *env, const struct hnode *n,
			 const struct hprogram **next)
{
	bool is_true;
	if (helper_is_true(r, env, &n->u.block.call, &is_true) != 0)
		return -1;
	*next = is_true ? n->u.block.no : n->u.block.yes;
	return 0;
}

static int helper_raw(struct trender *r, const struct henv *env, const struct hnode *n,
		      const struct hprogram **next)
{
	*next = n->u.block.yes;
	return 0;
}

/* The block's own part with v as its context; the first block parameter is v as well. */
static int helper_run_with(struct trender *r, const struct henv *env, const struct hnode *n,
			   const struct tval *v)
{
	struct hframe frame = {.up = env->params, .v = {*v, TVAL_UNDEF}};
	struct henv inner = *env;
	if (n->u.block.n_params > 0)
		inner.params = &frame;
	return handlebars_exec(r, &inner, n->u.block.yes, v);
}

static int helper_with(struct trender *r, const struct henv *env, const struct hnode *n,
		       const struct hprogram **next)
{
	struct tval v;
	if (helper_arg(r, env, &n->u.block.call, 0, &v) != 0)
		return -1;
	bool is_number = template_is_num(&v); /* 0 too is a context */
	if (is_number || handlebars_is_true(&v))
		return helper_run_with(r, env, n, &v);
	*next = n->u.block.no;
	return 0;
}

static int helper_iterate(struct trender *r, const struct henv *env, const struct hnode *n,
			  const struct tval *items)
{
	struct titer it;
	struct hdata data = {.up = env->data, .is_loop = true};
	struct hframe frame = {.up = env->params};
	struct henv inner = {
		.ctx = env->ctx, .data = &data, .params = env->params, .partials = env->partials};
	struct tval item;
	bool is_map = template_is_map(items);
	if (n->u.block.n_params > 0)
		inner.params = &frame;
	if (template_iter_init(r, items, &it) != 0)
		return -1;
	for (size_t i = 0; i < it.n; i++) {
		if (template_step(r, 1) != 0)
			return -1;
		data.key = tval_int((int64_t)i);
		if (is_map)
			template_iter_pair(&it, &data.key, &item);
		else
			template_iter_next(r, &it, &item);
		data.index = (int64_t)i;
		data.is_last = i + 1 == it.n;
		frame.v[0] = item;
		frame.v[1] = data.key;
		if (handlebars_exec(r, &inner, n->u.block.yes, &item) != 0)
			return -1;
	}
	return 0;
}

static int helper_each_of(struct trender *r, const struct henv *env, const struct hnode *n,
			  const struct tval *v, const struct hprogram **next)
{
	struct tval items;
	size_t count = 0;
	if (handlebars_plain(r, v, &items) != 0)
		return -1;
	if (items.kind == TV_JARR || template_is_map(&items))
		template_len(&items, &count);
	if (count > 0)
		return helper_iterate(r, env, n, &items);
	*next = n->u.block.no;
	return 0;
}

static int helper_each(struct trender *r, const struct henv *env, const struct hnode *n,
		       const struct hprogram **next)
{
	struct tval v;
	return helper_arg(r, env, &n->u.block.call, 0, &v) != 0 ? -1 : helper_each_of(r, env, n, &v, next);
}

int handlebars_block_value(struct trender *r, const struct henv *env, const struct hnode *n,
			   const struct hprogram **next)
{
	const struct hcall *c = &n->u.block.call;
	struct tval v;
	if ((c->helper != NULL ? c->helper->value(r, env, c, &v) : helper_arg(r, env, c, 0, &v)) != 0)
		return -1;
	if (c->helper == NULL && v.kind == TV_JARR)
		return helper_each_of(r, env, n, &v, next);
	if (c->helper == NULL && v.kind > TV_BOOL)
		return helper_run_with(r, env, n, &v);
	*next = handlebars_is_true(&v) ? n->u.block.yes : n->u.block.no;
	return 0;
}

/* --- the table --- */

static const struct hhelper helper_table[] = {
	{"if", HH_BLOCK, true, 1, 1, "includeZero", NULL, helper_if},
	{"unless", HH_BLOCK, true, 1, 1, "includeZero", NULL, helper_unless},
	{"each", HH_BLOCK, true, 1, 1, NULL, NULL, helper_each},
	{"with", HH_BLOCK, true, 1, 1, NULL, NULL, helper_with},
	{"lookup", HH_NO_BLOCK, true, 2, 2, NULL, helper_lookup, NULL},
	{"log", HH_NO_BLOCK, true, 0, HB_MAX_ARGS, "level", helper_log, NULL},
	{"raw", HH_BLOCK, false, 0, 0, NULL, NULL, helper_raw},
	{"eq", HH_VALUE, false, 2, 2, NULL, helper_eq, NULL},
	{"ne", HH_VALUE, false, 2, 2, NULL, helper_ne, NULL},
	{"gt", HH_VALUE, false, 2, 2, NULL, helper_gt, NULL},
	{"gte", HH_VALUE, false, 2, 2, NULL, helper_gte, NULL},
	{"lt", HH_VALUE, false, 2, 2, NULL, helper_lt, NULL},
	{"lte", HH_VALUE, false, 2, 2, NULL, helper_lte, NULL},
	{"and", HH_VALUE, false, 2, HB_MAX_ARGS, NULL, helper_and, NULL},
	{"or", HH_VALUE, false, 2, HB_MAX_ARGS, NULL, helper_or, NULL},
	{"not", HH_VALUE, false, 1, 1, NULL, helper_not, NULL},
	{"len", HH_NO_BLOCK, false, 1, 1, NULL, helper_len, NULL},
};

const struct hhelper *handlebars_helper_find(str_t name)
{
	for (size_t i = 0; i < ARRAY_SIZE(helper_table); i++)
		if (str_eq(name, str_of(helper_table[i].name)))
			return &helper_table[i];
	return NULL;
}
