/* template_eval.c - expressions: a walk over the tree. A name is searched in the lexical scopes (only if some
 * statement assigns it), then in the contexts in their order, then among the built-in functions; what is
 * nowhere is undefined, prints as nothing, and is an error only when something is looked up in it. Each node
 * costs a step; the C stack is checked at each node that has parts. */
#include "template/template_impl.h"

/* --- names --- */

bool template_name_find(struct trender *r, uint32_t name, struct tval *out)
{
	const struct tname *nm = &r->t->names[name];
	if (nm->is_assigned) {
		for (struct tscope *s = r->scope; s != NULL; s = s->up) {
			r->steps -= s->n / 8;
			for (uint32_t i = 0; i < s->n; i++)
				if (s->vars[i].name == name) {
					*out = s->vars[i].v;
					return true;
				}
		}
	} else if (nm->is_loop) {
		for (struct tscope *s = r->scope; s != NULL; s = s->up)
			if (s->loop != NULL) {
				*out = (struct tval){.kind = TV_LOOP, .u.loop = s->loop};
				return true;
			}
	}
	for (size_t i = 0; i < r->n_ctx; i++) {
		const json_t *j = json_object_getn(r->ctx[i], nm->s.p, nm->s.n);
		if (j != NULL) {
			*out = template_val_json(j);
			return true;
		}
	}
	*out = nm->global != NULL ? (struct tval){.kind = TV_FUNC, .u.func = nm->global} : TVAL_UNDEF;
	return nm->global != NULL;
}

static int eval_var(struct trender *r, const struct tnode *n, struct tval *out)
{
	template_name_find(r, n->u.name, out);
	if (out->kind == TV_LOOP) { /* it may be stored somewhere */
		out->u.loop->is_captured = true;
		template_scope_capture(out->u.loop->scope);
	}
	return 0;
}

/* --- parts --- */

static int eval_list(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tlist *l = template_list_new(r, n->n);
	if (l == NULL)
		return -1;
	for (uint32_t i = 0; i < n->n; i++) {
		if (template_eval(r, n->u.list.v[i], &l->v[i]) != 0)
			return -1;
		l->n = i + 1;
	}
	*out = tval_list(l);
	return 0;
}

static int eval_map(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tmap *m = template_map_new(r, n->n);
	struct tval key, val;
	if (m == NULL)
		return -1;
	for (uint32_t i = 0; i < n->n; i++)
		if (template_eval(r, n->u.list.v[2 * i], &key) != 0 ||
		    template_eval(r, n->u.list.v[2 * i + 1], &val) != 0 ||
		    template_map_set(r, m, &key, &val) != 0)
			return -1;
	*out = tval_map(m);
	return 0;
}

/* The object of an attribute or method: `loop` here does not count as stored. */
static int eval_base(struct trender *r, const struct tnode *n, struct tval *out)
{
	if (n->kind != EX_VAR)
		return template_eval(r, n, out);
	template_name_find(r, n->u.name, out);
	return template_step(r, 1);
}

static int eval_attr(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval base;
	if (eval_base(r, n->u.attr.base, &base) != 0)
		return -1;
	r->at = n->at;
	return template_get_item(r, &base, &n->u.attr.key, out);
}

static int eval_item(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval base, index;
	if (eval_base(r, n->u.item.base, &base) != 0 || template_eval(r, n->u.item.index, &index) != 0)
		return -1;
	r->at = n->at;
	return template_get_item(r, &base, &index, out);
}

static int eval_slice(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval base, parts[3];
	const struct tnode *const nodes[3] = {n->u.slice.from, n->u.slice.to, n->u.slice.step};
	if (template_eval(r, n->u.slice.base, &base) != 0)
		return -1;
	for (int i = 0; i < 3; i++)
		if (nodes[i] != NULL && template_eval(r, nodes[i], &parts[i]) != 0)
			return -1;
	r->at = n->at;
	return template_slice(r, &base, nodes[0] != NULL ? &parts[0] : NULL,
			      nodes[1] != NULL ? &parts[1] : NULL, nodes[2] != NULL ? &parts[2] : NULL, out);
}

static int eval_compare_one(struct trender *r, enum tcmp_op op, const struct tval *a, const struct tval *b,
			    bool *out)
{
	int c = 0;
	switch (op) {
	case CMP_EQ:
	case CMP_NE:
		if (template_equal(r, a, b, out) != 0)
			return -1;
		*out ^= op == CMP_NE;
		return 0;
	case CMP_IN:
	case CMP_NOT_IN:
		if (template_contains(r, b, a, out) != 0)
			return -1;
		*out ^= op == CMP_NOT_IN;
		return 0;
	default:
		if (template_compare(r, a, b, &c) != 0)
			return -1;
		*out = op == CMP_LT ? c < 0 : op == CMP_LE ? c <= 0 : op == CMP_GT ? c > 0 : c >= 0;
		return 0;
	}
}

static int eval_compare(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval a, b;
	bool is_true = true;
	if (template_eval(r, n->u.two.a, &a) != 0)
		return -1;
	for (; n != NULL && is_true; n = n->next) {
		if (template_eval(r, n->u.two.b, &b) != 0)
			return -1;
		r->at = n->at;
		if (eval_compare_one(r, (enum tcmp_op)n->op, &a, &b, &is_true) != 0)
			return -1;
		a = b;
	}
	*out = tval_bool(is_true);
	return 0;
}

static int eval_binary(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval a, b;
	if (template_eval(r, n->u.two.a, &a) != 0 || template_eval(r, n->u.two.b, &b) != 0)
		return -1;
	r->at = n->at;
	return template_binary(r, (enum tbin_op)n->op, &a, &b, out);
}

static int eval_choice(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval cond;
	if (template_eval(r, n->u.cond.cond, &cond) != 0)
		return -1;
	const struct tnode *chosen = template_is_true(&cond) ? n->u.cond.yes : n->u.cond.no;
	if (chosen != NULL)
		return template_eval(r, chosen, out);
	*out = TVAL_UNDEF;
	return 0;
}

/* --- calls --- */

static int eval_args_kw(struct trender *r, struct targs *a, const struct tval *key, const struct tval *val)
{
	if (a->kw == NULL && (a->kw = template_map_new(r, 4)) == NULL)
		return -1;
	return template_map_set(r, a->kw, key, val);
}

static int eval_args_splat(struct trender *r, struct tlist *l, const struct tval *v)
{
	struct titer it;
	struct tval item;
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	while (template_iter_next(r, &it, &item))
		if (template_step(r, 1) != 0 || template_list_add(r, l, &item) != 0)
			return -1;
	return 0;
}

static int eval_args_kwsplat(struct trender *r, struct targs *a, const struct tval *v)
{
	struct titer it;
	struct tval key, val;
	if (!template_is_map(v))
		return template_fail_op(r, "attempted to apply keyword arguments from %s",
					template_kind_name(v));
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	while (template_iter_pair(&it, &key, &val))
		if (template_step(r, 1) != 0 || eval_args_kw(r, a, &key, &val) != 0)
			return -1;
	return 0;
}

int template_eval_args(struct trender *r, const struct tnode *n, const struct tval *subject, struct targs *a)
{
	*a = (struct targs){0};
	struct tlist *l = template_list_new(r, n->n + 1);
	if (l == NULL || (subject != NULL && template_list_add(r, l, subject) != 0))
		return -1;
	for (uint32_t i = 0; i < n->n; i++) {
		const struct targ *arg = &n->u.call.args[i];
		struct tval v, name = tval_str(arg->name);
		int rc = template_eval(r, arg->e, &v);
		if (rc == 0)
			rc = arg->kind == ARG_POS     ? template_list_add(r, l, &v)
			     : arg->kind == ARG_KW    ? eval_args_kw(r, a, &name, &v)
			     : arg->kind == ARG_SPLAT ? eval_args_splat(r, l, &v)
						      : eval_args_kwsplat(r, a, &v);
		if (rc != 0)
			return -1;
	}
	a->v = l->v;
	a->n = l->n;
	r->at = n->at;
	return 0;
}

int template_invoke(struct trender *r, const struct tfunc *f, struct targs *a, struct tval *out)
{
	if (a->n < f->min)
		return template_fail(r, "missing argument");
	if (f->max != UINT8_MAX && a->n > f->max)
		return template_fail(r, "too many arguments");
	if (a->kw != NULL && a->kw->n > (f->has_kw ? 63 : 0))
		return template_fail(r, "too many arguments");
	if (template_step(r, 1) != 0 || f->fn(r, a, out) != 0)
		return -1;
	for (uint32_t i = 0; a->kw != NULL && i < a->kw->n; i++) {
		const struct tval *key = &a->kw->e[i].key;
		if (!(a->kw_used >> i & 1) && key->kind == TV_STR)
			return template_fail(r, "too many arguments: unknown keyword argument '%.*s'",
					     (int)(key->n < 60 ? key->n : 60), key->u.s);
	}
	return 0;
}

const struct tval *template_kw(struct targs *a, const char *name)
{
	for (uint32_t i = 0; a->kw != NULL && i < a->kw->n; i++) {
		const struct tval *key = &a->kw->e[i].key;
		if (key->kind == TV_STR && str_eq(tval_text(key), str_of(name))) {
			a->kw_used |= UINT64_C(1) << i;
			return &a->kw->e[i].val;
		}
	}
	return NULL;
}

const struct tval *template_arg(struct targs *a, uint32_t i, const char *name)
{
	const struct tval *v = template_kw(a, name);
	return v != NULL ? v : i < a->n ? &a->v[i] : NULL;
}

int template_arg_str(struct trender *r, const struct tval *v, str_t *out)
{
	if (v->kind != TV_STR)
		return template_fail_op(r, "value is not a string");
	*out = tval_text(v);
	return 0;
}

bool template_arg_bool(const struct tval *v, bool def)
{
	return v == NULL || v->kind == TV_UNDEF || v->kind == TV_NONE ? def : template_is_true(v);
}

static int eval_call_joiner(struct trender *r, struct tjoiner *j, const struct targs *a, struct tval *out)
{
	if (a->n > 0 || a->kw != NULL)
		return template_fail(r, "too many arguments");
	*out = j->is_used ? j->sep : tval_str(STR(""));
	j->is_used = true;
	return 0;
}

int template_call_value(struct trender *r, const struct tval *callee, struct targs *a, struct tval *out)
{
	switch (callee->kind) {
	case TV_FUNC:
		return template_invoke(r, callee->u.func, a, out);
	case TV_MACRO:
		return template_call_macro(r, callee->u.macro, a, out);
	case TV_LOOP:
		if (a->n != 1 || a->kw != NULL)
			return template_fail_op(r, "loop() takes one argument");
		return template_call_loop(r, callee->u.loop, &a->v[0], out);
	case TV_JOINER:
		return eval_call_joiner(r, callee->u.joiner, a, out);
	default:
		return template_fail_op(r, "value of type %s is not callable", template_kind_name(callee));
	}
}

static int eval_loop_method(struct trender *r, struct tloop *l, str_t name, struct targs *a, struct tval *out)
{
	if (str_eq(name, STR("cycle"))) {
		if (a->n == 0)
			return template_fail(r, "missing argument");
		*out = a->v[l->index0 % a->n];
		return 0;
	}
	struct tlist *now = template_list_new(r, a->n);
	bool is_same = false;
	if (now == NULL)
		return -1;
	for (uint32_t i = 0; i < a->n; i++)
		if (template_list_add(r, now, &a->v[i]) != 0)
			return -1;
	struct tval v = tval_list(now);
	if (l->is_changed_set && template_equal(r, &l->changed, &v, &is_same) != 0)
		return -1;
	l->changed = v;
	l->is_changed_set = true;
	*out = tval_bool(!is_same);
	return 0;
}

/* base.name(...): what an object does, or a callable kept in a mapping. */
static int eval_method(struct trender *r, const struct tval *base, const struct tval *key, struct targs *a,
		       struct tval *out)
{
	str_t name = key->kind == TV_STR ? tval_text(key) : STR_NULL;
	if (base->kind == TV_LOOP && (str_eq(name, STR("cycle")) || str_eq(name, STR("changed"))))
		return eval_loop_method(r, base->u.loop, name, a, out);
	if (base->kind == TV_CYCLER && str_eq(name, STR("next"))) {
		struct tcycler *c = base->u.cycler;
		if (a->n > 0 || a->kw != NULL)
			return template_fail(r, "too many arguments");
		*out = c->items->v[c->pos];
		c->pos = (c->pos + 1) % c->items->n;
		return 0;
	}
	struct tval callee = TVAL_UNDEF;
	if (template_is_map(base) && template_get_item(r, base, key, &callee) != 0)
		return -1;
	if (callee.kind != TV_UNDEF)
		return template_call_value(r, &callee, a, out);
	return template_fail(r, "unknown method: %s has no method named " STR_FMT, template_kind_name(base),
			     STR_ARG(name));
}

static int eval_call(struct trender *r, const struct tnode *n, struct tval *out)
{
	const struct tnode *base = n->u.call.base;
	struct tval callee;
	struct targs a;
	if (base->kind == EX_ATTR) {
		if (eval_base(r, base->u.attr.base, &callee) != 0 || template_eval_args(r, n, NULL, &a) != 0)
			return -1;
		return eval_method(r, &callee, &base->u.attr.key, &a, out);
	}
	r->at = n->at;
	if (base->kind == EX_VAR && !template_name_find(r, base->u.name, &callee))
		return template_fail(r, "unknown function: " STR_FMT " is unknown",
				     STR_ARG(r->t->names[base->u.name].s));
	if (base->kind != EX_VAR && template_eval(r, base, &callee) != 0)
		return -1;
	if (template_eval_args(r, n, NULL, &a) != 0)
		return -1;
	return template_call_value(r, &callee, &a, out);
}

static int eval_filter(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval subject;
	struct targs a;
	if (template_eval(r, n->u.call.base, &subject) != 0)
		return -1;
	r->at = n->at;
	if (n->u.call.fn == NULL)
		return template_fail(r, "unknown filter: filter " STR_FMT " is unknown",
				     STR_ARG(n->u.call.name));
	if (n->n == 0) {
		a = (struct targs){.v = &subject, .n = 1};
		return template_invoke(r, n->u.call.fn, &a, out);
	}
	return template_eval_args(r, n, &subject, &a) != 0 ? -1 : template_invoke(r, n->u.call.fn, &a, out);
}

static int eval_test(struct trender *r, const struct tnode *n, struct tval *out)
{
	struct tval subject;
	struct targs a;
	if (eval_base(r, n->u.call.base, &subject) != 0)
		return -1;
	r->at = n->at;
	if (n->u.call.fn == NULL)
		return template_fail(r, "unknown test: test " STR_FMT " is unknown", STR_ARG(n->u.call.name));
	a = (struct targs){.v = &subject, .n = 1};
	if (n->n > 0 && template_eval_args(r, n, &subject, &a) != 0)
		return -1;
	if (template_invoke(r, n->u.call.fn, &a, out) != 0)
		return -1;
	*out = tval_bool(template_is_true(out) != n->flag);
	return 0;
}

/* --- the walk --- */

static int eval_logic(struct trender *r, const struct tnode *n, struct tval *out)
{
	if (template_eval(r, n->u.two.a, out) != 0)
		return -1;
	if (template_is_true(out) == (n->kind == EX_OR))
		return 0;
	return template_eval(r, n->u.two.b, out);
}

int template_eval(struct trender *r, const struct tnode *n, struct tval *out)
{
	if (template_step(r, 1) != 0)
		return -1;
	if (n->kind == EX_CONST) {
		*out = n->u.val;
		return 0;
	}
	if (n->kind == EX_VAR)
		return eval_var(r, n, out);
	if (template_guard(r) != 0)
		return -1;
	r->at = n->at;
	switch (n->kind) {
	case EX_LIST:
		return eval_list(r, n, out);
	case EX_MAP:
		return eval_map(r, n, out);
	case EX_ATTR:
		return eval_attr(r, n, out);
	case EX_ITEM:
		return eval_item(r, n, out);
	case EX_SLICE:
		return eval_slice(r, n, out);
	case EX_FILTER:
		return eval_filter(r, n, out);
	case EX_TEST:
		return eval_test(r, n, out);
	case EX_CALL:
		return eval_call(r, n, out);
	case EX_BIN:
		return eval_binary(r, n, out);
	case EX_AND:
	case EX_OR:
		return eval_logic(r, n, out);
	case EX_COMPARE:
		return eval_compare(r, n, out);
	case EX_IF:
		return eval_choice(r, n, out);
	case EX_NOT:
		if (template_eval(r, n->u.two.a, out) != 0)
			return -1;
		*out = tval_bool(!template_is_true(out));
		return 0;
	case EX_NEG:
		if (template_eval(r, n->u.two.a, out) != 0)
			return -1;
		return template_negate(r, out, out);
	default:
		panic("not an expression: %d", n->kind);
	}
}
