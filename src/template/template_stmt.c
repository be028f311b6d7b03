/* template_stmt.c - statements, scopes and loops, macros, and the render itself. Output goes straight to the
 * caller's buffer; what a block captures (set, filter, macro, call, a recursive loop) is written there too
 * and cut off again, so no second buffer is needed. On an error the buffer is as long as before.
 *
 * Scopes are lexical and live in the render's arena. One that no macro holds on to is reused, with its array
 * of variables, so a loop in a loop does not grow the arena. A macro sees the scopes around its definition,
 * not its caller's. */
#include "template/template_impl.h"

/* --- scopes --- */

static enum texec template_exec(struct trender *r, const struct tnode *first);

static struct tscope *stmt_scope_push(struct trender *r, struct tscope *up)
{
	struct tscope *s = r->free_scopes;
	if (s != NULL) {
		r->free_scopes = s->free;
		*s = (struct tscope){.vars = s->vars, .cap = s->cap};
	} else {
		s = template_alloc(r, sizeof(*s));
		if (s == NULL)
			return NULL;
		*s = (struct tscope){0};
	}
	s->up = up;
	r->scope = s;
	return s;
}

void template_scope_capture(struct tscope *s)
{
	for (; s != NULL && !s->is_captured; s = s->up) {
		s->is_captured = true;
		if (s->loop != NULL)
			s->loop->is_captured = true;
	}
}

/* Back to `to`, the scope that was current before s was pushed. */
static void stmt_scope_pop(struct trender *r, struct tscope *s, struct tscope *to)
{
	r->scope = to;
	if (!s->is_captured) {
		s->free = r->free_scopes;
		r->free_scopes = s;
	}
}

static int stmt_store(struct trender *r, uint32_t name, const struct tval *v)
{
	struct tscope *s = r->scope;
	if (template_step(r, s->n / 8) != 0)
		return -1;
	for (uint32_t i = 0; i < s->n; i++) {
		if (s->vars[i].name == name) {
			s->vars[i].v = *v;
			return 0;
		}
	}
	if (s->n == s->cap) {
		uint32_t cap = s->cap == 0 ? 4 : s->cap * 2;
		struct tvar *vars = template_alloc(r, cap * sizeof(*vars));
		if (vars == NULL)
			return -1;
		if (s->n > 0)
			memcpy(vars, s->vars, s->n * sizeof(*vars));
		s->vars = vars;
		s->cap = cap;
	}
	s->vars[s->n++] = (struct tvar){name, *v};
	return 0;
}

static int stmt_assign_attr(struct trender *r, const struct tnode *target, const struct tval *v)
{
	struct tval base;
	if (template_eval(r, target->u.attr.base, &base) != 0)
		return -1;
	if (base.kind != TV_MAP || !base.u.map->is_namespace)
		return template_fail_op(r, "can only assign to namespaces, not %s",
					template_kind_name(&base));
	return template_map_set(r, base.u.map, &target->u.attr.key, v);
}

static int stmt_assign(struct trender *r, const struct tnode *target, const struct tval *v)
{
	if (target->kind == EX_VAR)
		return stmt_store(r, target->u.name, v);
	if (target->kind == EX_ATTR)
		return stmt_assign_attr(r, target, v);
	struct titer it;
	struct tval item;
	if (!template_is_seq(v))
		return template_fail(r, "cannot unpack: value is not iterable");
	if (template_guard(r) != 0 || template_iter_init(r, v, &it) != 0)
		return -1;
	if (it.n != target->n)
		return template_fail(r, "cannot unpack: sequence of wrong length (expected %u, got %zu)",
				     target->n, it.n);
	for (uint32_t i = 0; template_iter_next(r, &it, &item); i++)
		if (template_step(r, 1) != 0 || stmt_assign(r, target->u.list.v[i], &item) != 0)
			return -1;
	return 0;
}

/* --- capture --- */

/* What was written to the output since `from`, as a value; cut off there. */
static int stmt_capture(struct trender *r, size_t from, struct tval *out)
{
	str_t s = str_mk(r->out->p != NULL ? r->out->p + from : NULL, r->out->n - from);
	if (template_str_copy(r, s, out) != 0)
		return -1;
	out->is_safe = r->escape != TEMPLATE_ESCAPE_NONE;
	buf_truncate(r->out, from);
	return 0;
}

/* The filters of a chain whose base is NULL, applied to *v. */
static int stmt_apply_filters(struct trender *r, const struct tnode *n, struct tval *v)
{
	struct targs a;
	if (n == NULL)
		return 0;
	if (template_guard(r) != 0 || stmt_apply_filters(r, n->u.call.base, v) != 0)
		return -1;
	r->at = n->at;
	if (n->u.call.fn == NULL)
		return template_fail(r, "unknown filter: filter " STR_FMT " is unknown",
				     STR_ARG(n->u.call.name));
	struct tval subject = *v;
	return template_eval_args(r, n, &subject, &a) != 0 ? -1 : template_invoke(r, n->u.call.fn, &a, v);
}

/* --- loops --- */

static struct tloop *stmt_loop_new(struct trender *r)
{
	struct tloop *l = r->free_loops;
	if (l != NULL)
		r->free_loops = l->free;
	else if ((l = template_alloc(r, sizeof(*l))) == NULL)
		return NULL;
	*l = (struct tloop){0};
	return l;
}

static void stmt_loop_release(struct trender *r, struct tloop *l)
{
	if (!l->is_captured) {
		l->free = r->free_loops;
		r->free_loops = l;
	}
}

/* The items that pass `for ... if`: counted before the body runs, so loop.length is theirs. */
static int stmt_loop_filter(struct trender *r, const struct tnode *n, struct tval *iterable)
{
	struct tscope *around = r->scope, *s = stmt_scope_push(r, around);
	struct tlist *l = s != NULL ? template_list_new(r, 0) : NULL;
	struct titer it;
	struct tval item, cond;
	if (l == NULL || template_iter_init(r, iterable, &it) != 0)
		return -1;
	while (template_iter_next(r, &it, &item)) {
		if (stmt_assign(r, n->u.loop.target, &item) != 0 ||
		    template_eval(r, n->u.loop.filter, &cond) != 0 ||
		    (template_is_true(&cond) && template_list_add(r, l, &item) != 0))
			return -1;
	}
	stmt_scope_pop(r, s, around);
	*iterable = tval_list(l);
	return 0;
}

static enum texec stmt_loop_run(struct trender *r, const struct tnode *n, struct tval iterable,
				uint32_t depth0)
{
	struct tscope *around = r->scope;
	struct titer it;
	if ((n->u.loop.filter != NULL && stmt_loop_filter(r, n, &iterable) != 0) ||
	    template_iter_init(r, &iterable, &it) != 0)
		return EXEC_ERROR;
	if (it.n == 0)
		return template_exec(r, n->u.loop.other);
	struct tloop *l = stmt_loop_new(r);
	if (l == NULL)
		return EXEC_ERROR;
	l->node = n;
	l->scope = around;
	l->n = it.n;
	l->depth0 = depth0;
	l->has_next = template_iter_next(r, &it, &l->next);
	enum texec rc = EXEC_OK;
	for (; rc != EXEC_BREAK && l->has_next; l->index0++) {
		l->has_prev = l->index0 > 0;
		l->prev = l->cur;
		l->cur = l->next;
		l->has_next = template_iter_next(r, &it, &l->next);
		struct tscope *s = template_step(r, 1) == 0 ? stmt_scope_push(r, around) : NULL;
		if (s == NULL)
			return EXEC_ERROR;
		s->loop = l;
		rc = stmt_assign(r, n->u.loop.target, &l->cur) != 0 ? EXEC_ERROR
								    : template_exec(r, n->u.loop.body);
		if (rc == EXEC_ERROR)
			return rc;
		l->is_captured |= s->is_captured;
		stmt_scope_pop(r, s, around);
	}
	stmt_loop_release(r, l);
	return EXEC_OK;
}

static enum texec stmt_for(struct trender *r, const struct tnode *n)
{
	struct tval iterable;
	if (template_eval(r, n->u.loop.iter, &iterable) != 0)
		return EXEC_ERROR;
	r->at = n->at;
	return stmt_loop_run(r, n, iterable, 0);
}

static int stmt_calls_enter(struct trender *r)
{
	if (++r->calls > TEMPLATE_MAX_CALLS)
		return template_fail_limit(r, "recursion limit exceeded");
	return template_guard(r);
}

int template_call_loop(struct trender *r, struct tloop *loop, const struct tval *iterable, struct tval *out)
{
	if (!loop->node->flag)
		return template_fail_op(r, "cannot recurse outside of recursive loop");
	struct tscope *caller = r->scope;
	size_t from = r->out->n;
	if (stmt_calls_enter(r) != 0)
		return -1;
	r->scope = loop->scope;
	if (stmt_loop_run(r, loop->node, *iterable, loop->depth0 + 1) == EXEC_ERROR ||
	    stmt_capture(r, from, out) != 0)
		return -1;
	r->scope = caller;
	r->calls--;
	return 0;
}

/* --- macros --- */

static struct tmacro *stmt_macro_new(struct trender *r, const struct tnode *n)
{
	struct tmacro *m = template_alloc(r, sizeof(*m));
	if (m == NULL)
		return NULL;
	*m = (struct tmacro){.node = n, .scope = r->scope, .name = r->t->names[n->u.macro.name].s};
	template_scope_capture(r->scope);
	return m;
}

/* The value of parameter i: given by position or by name, or -1 with given false for neither. */
static int stmt_macro_arg(struct trender *r, const struct tmacro *m, struct targs *a, uint32_t i,
			  struct tval *v, bool *is_given)
{
	str_t name = r->t->names[m->node->u.macro.params[i]].s;
	const struct tval *kw = NULL;
	for (uint32_t k = 0; a->kw != NULL && k < a->kw->n; k++) {
		if (a->kw->e[k].key.kind == TV_STR && str_eq(tval_text(&a->kw->e[k].key), name)) {
			kw = &a->kw->e[k].val;
			a->kw_used |= UINT64_C(1) << (k & 63);
		}
	}
	if (kw != NULL && i < a->n)
		return template_fail(r, "too many arguments: duplicate argument `" STR_FMT "`",
				     STR_ARG(name));
	*is_given = kw != NULL || i < a->n;
	*v = kw != NULL ? *kw : i < a->n ? a->v[i] : TVAL_UNDEF;
	return 0;
}

/* Binds the parameters, the last one first, so that a default may use a parameter after it. */
static int stmt_macro_bind(struct trender *r, struct tmacro *m, struct targs *a)
{
	const struct tnode *n = m->node;
	if (a->n > n->n)
		return template_fail(r, "too many arguments");
	if (a->kw != NULL && a->kw->n > 63)
		return template_fail(r, "too many arguments");
	for (uint32_t i = n->n; i-- > 0;) {
		struct tval v;
		bool is_given = false;
		if (stmt_macro_arg(r, m, a, i, &v, &is_given) != 0)
			return -1;
		if ((!is_given || v.kind == TV_UNDEF) && n->u.macro.defaults[i] != NULL &&
		    template_eval(r, n->u.macro.defaults[i], &v) != 0)
			return -1;
		if (stmt_store(r, n->u.macro.params[i], &v) != 0)
			return -1;
	}
	const struct tval *caller = n->kind == ST_MACRO && n->flag ? template_kw(a, "caller") : NULL;
	if (n->kind == ST_MACRO && n->flag) {
		struct tval none = TVAL_UNDEF;
		for (uint32_t i = 0; i < r->t->n_names; i++)
			if (str_eq(r->t->names[i].s, STR("caller")))
				return stmt_store(r, i, caller != NULL ? caller : &none);
	}
	return 0;
}

static int stmt_macro_leftover(struct trender *r, const struct targs *a)
{
	for (uint32_t i = 0; a->kw != NULL && i < a->kw->n; i++) {
		const struct tval *key = &a->kw->e[i].key;
		if (!(a->kw_used >> i & 1) && key->kind == TV_STR)
			return template_fail(r, "too many arguments: unknown keyword argument `%.*s`",
					     (int)(key->n < 60 ? key->n : 60), key->u.s);
	}
	return 0;
}

int template_call_macro(struct trender *r, struct tmacro *m, struct targs *a, struct tval *out)
{
	struct tscope *caller = r->scope, *s;
	size_t from = r->out->n;
	if (stmt_calls_enter(r) != 0 || (s = stmt_scope_push(r, m->scope)) == NULL ||
	    stmt_macro_bind(r, m, a) != 0 || stmt_macro_leftover(r, a) != 0 ||
	    template_exec(r, m->node->u.macro.body) == EXEC_ERROR || stmt_capture(r, from, out) != 0)
		return -1;
	stmt_scope_pop(r, s, caller);
	r->calls--;
	return 0;
}

static enum texec stmt_macro(struct trender *r, const struct tnode *n)
{
	struct tmacro *m = stmt_macro_new(r, n);
	struct tval v = {.kind = TV_MACRO, .u.macro = m};
	return m != NULL && stmt_store(r, n->u.macro.name, &v) == 0 ? EXEC_OK : EXEC_ERROR;
}

static enum texec stmt_call(struct trender *r, const struct tnode *n)
{
	const struct tnode *call = n->u.macro.call, *base = call->u.call.base;
	struct tmacro *m = stmt_macro_new(r, n);
	struct tval v = {.kind = TV_MACRO, .u.macro = m}, key = tval_str(STR("caller")), callee, result;
	struct targs a;
	if (m == NULL)
		return EXEC_ERROR;
	r->at = call->at;
	if (base->kind == EX_VAR && !template_name_find(r, base->u.name, &callee)) {
		template_fail(r, "unknown function: " STR_FMT " is unknown",
			      STR_ARG(r->t->names[base->u.name].s));
		return EXEC_ERROR;
	}
	if (base->kind != EX_VAR && template_eval(r, base, &callee) != 0)
		return EXEC_ERROR;
	if (template_eval_args(r, call, NULL, &a) != 0 ||
	    (a.kw == NULL && (a.kw = template_map_new(r, 1)) == NULL) ||
	    template_map_set(r, a.kw, &key, &v) != 0 || template_call_value(r, &callee, &a, &result) != 0 ||
	    template_emit(r, &result) != 0)
		return EXEC_ERROR;
	return EXEC_OK;
}

/* --- blocks --- */

static enum texec stmt_set_block(struct trender *r, const struct tnode *n)
{
	struct tscope *around = r->scope, *s = stmt_scope_push(r, around);
	size_t from = r->out->n;
	struct tval v;
	enum texec rc = s != NULL ? template_exec(r, n->u.set.body) : EXEC_ERROR;
	if (rc == EXEC_ERROR || stmt_capture(r, from, &v) != 0)
		return EXEC_ERROR;
	stmt_scope_pop(r, s, around);
	if (rc != EXEC_OK)
		return rc; /* the loop around is left: what was captured is dropped */
	if (stmt_apply_filters(r, n->u.set.value, &v) != 0 || stmt_assign(r, n->u.set.target, &v) != 0)
		return EXEC_ERROR;
	return EXEC_OK;
}

static enum texec stmt_filter(struct trender *r, const struct tnode *n)
{
	struct tscope *around = r->scope, *s = stmt_scope_push(r, around);
	size_t from = r->out->n;
	struct tval v;
	enum texec rc = s != NULL ? template_exec(r, n->u.block.body) : EXEC_ERROR;
	if (rc == EXEC_ERROR || stmt_capture(r, from, &v) != 0)
		return EXEC_ERROR;
	stmt_scope_pop(r, s, around);
	if (rc != EXEC_OK)
		return rc;
	if (stmt_apply_filters(r, n->u.block.head, &v) != 0 || template_emit(r, &v) != 0)
		return EXEC_ERROR;
	return EXEC_OK;
}

static enum texec stmt_with(struct trender *r, const struct tnode *n)
{
	struct tscope *around = r->scope, *s = stmt_scope_push(r, around);
	struct tval v;
	if (s == NULL)
		return EXEC_ERROR;
	for (uint32_t i = 0; i < n->n; i++)
		if (template_eval(r, n->u.with.values[i], &v) != 0 ||
		    stmt_assign(r, n->u.with.targets[i], &v) != 0)
			return EXEC_ERROR;
	enum texec rc = template_exec(r, n->u.with.body);
	if (rc != EXEC_ERROR)
		stmt_scope_pop(r, s, around);
	return rc;
}

static enum texec stmt_autoescape(struct trender *r, const struct tnode *n)
{
	enum template_escape before = r->escape, escape;
	struct tval v;
	if (template_eval(r, n->u.block.head, &v) != 0)
		return EXEC_ERROR;
	r->at = n->at;
	str_t s = v.kind == TV_STR ? tval_text(&v) : STR_NULL;
	if (v.kind != TV_STR) {
		escape = v.kind != TV_BOOL || !v.u.b		? TEMPLATE_ESCAPE_NONE
			 : r->t->escape != TEMPLATE_ESCAPE_NONE ? r->t->escape
								: TEMPLATE_ESCAPE_HTML;
	} else if (str_eq(s, STR("html"))) {
		escape = TEMPLATE_ESCAPE_HTML;
	} else if (str_eq(s, STR("json"))) {
		escape = TEMPLATE_ESCAPE_JSON;
	} else if (str_eq(s, STR("none"))) {
		escape = TEMPLATE_ESCAPE_NONE;
	} else {
		template_fail_op(r, "invalid value to autoescape tag");
		return EXEC_ERROR;
	}
	r->escape = escape;
	enum texec rc = template_exec(r, n->u.block.body);
	r->escape = before;
	return rc;
}

static enum texec stmt_if(struct trender *r, const struct tnode *n)
{
	for (;;) {
		struct tval cond;
		if (template_eval(r, n->u.cond.cond, &cond) != 0)
			return EXEC_ERROR;
		if (template_is_true(&cond))
			return template_exec(r, n->u.cond.yes);
		/* An elif is a lone ST_IF in the place of the else; walking on keeps a long chain off the C
		 * stack. */
		n = n->u.cond.no;
		if (n == NULL || n->kind != ST_IF || n->next != NULL)
			return template_exec(r, n);
	}
}

static enum texec stmt_one(struct trender *r, const struct tnode *n)
{
	struct tval v;
	switch (n->kind) {
	case ST_TEXT:
		return template_emit_text(r, n->u.text) == 0 ? EXEC_OK : EXEC_ERROR;
	case ST_EMIT:
		return template_eval(r, n->u.expr, &v) == 0 && template_emit(r, &v) == 0 ? EXEC_OK
											 : EXEC_ERROR;
	case ST_DO:
		return template_eval(r, n->u.expr, &v) == 0 ? EXEC_OK : EXEC_ERROR;
	case ST_SET:
		return template_eval(r, n->u.set.value, &v) == 0 && stmt_assign(r, n->u.set.target, &v) == 0
			       ? EXEC_OK
			       : EXEC_ERROR;
	case ST_IF:
		return stmt_if(r, n);
	case ST_FOR:
		return stmt_for(r, n);
	case ST_SETBLOCK:
		return stmt_set_block(r, n);
	case ST_WITH:
		return stmt_with(r, n);
	case ST_FILTER:
		return stmt_filter(r, n);
	case ST_MACRO:
		return stmt_macro(r, n);
	case ST_CALL:
		return stmt_call(r, n);
	case ST_AUTOESCAPE:
		return stmt_autoescape(r, n);
	case ST_BREAK:
		return EXEC_BREAK;
	case ST_CONTINUE:
		return EXEC_CONTINUE;
	default:
		panic("not a statement: %d", n->kind);
	}
}

static enum texec template_exec(struct trender *r, const struct tnode *n)
{
	if (n != NULL && template_guard(r) != 0)
		return EXEC_ERROR;
	for (; n != NULL; n = n->next) {
		r->at = n->at;
		if (template_step(r, 1) != 0)
			return EXEC_ERROR;
		enum texec rc = stmt_one(r, n);
		if (rc != EXEC_OK)
			return rc;
	}
	return EXEC_OK;
}

/* --- the render --- */

int template_run_jinja(struct trender *r)
{
	struct tscope root = {.is_captured = true}; /* never handed back for reuse */
	r->scope = &root;
	return template_exec(r, r->t->body) == EXEC_ERROR ? -1 : 0;
}
