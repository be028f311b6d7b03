/* handlebars.c - a walk over the tree of a Handlebars template. What a block sees - the contexts around it,
 * the loop that it is in, the block parameters and the inline partials - are lists whose elements live on the
 * C stack of the blocks that made them, so nothing is allocated for a block. An inline partial, and the block
 * handed to a partial, run with what was around them where they stand in the source, and with the loop and
 * the partials of where they are called.
 *
 * Missing values are nothing, and so is what is looked up in them. Nesting is bounded by the parser, partials
 * inside partials by TEMPLATE_MAX_CALLS, both by the C stack. */
#include "template/handlebars_impl.h"

/* --- expressions --- */

static void exec_data(const struct henv *env, const struct hexpr *e, struct tval *out)
{
	const struct hdata *d = env->data;
	for (uint32_t up = e->u.path.up; up > 0 && d != NULL; up--)
		d = d->up;
	while (d != NULL && !d->is_loop)
		d = d->up;
	*out = TVAL_UNDEF;
	if (d == NULL)
		return;
	switch (e->u.path.index) {
	case HD_INDEX:
		*out = tval_int(d->index);
		break;
	case HD_KEY:
		*out = d->key;
		break;
	case HD_FIRST:
		*out = tval_bool(d->index == 0);
		break;
	case HD_LAST:
		*out = tval_bool(d->is_last);
		break;
	default:
		break;
	}
}

static int exec_path(struct trender *r, const struct henv *env, const struct hexpr *e, struct tval *out)
{
	const struct hctx *c = env->ctx;
	const struct hframe *f = env->params;
	uint32_t up = e->u.path.up;
	switch (e->u.path.root) {
	case HR_CONTEXT:
		for (; up > 0 && c != NULL; up--)
			c = c->up;
		*out = c != NULL ? c->v : TVAL_UNDEF;
		break;
	case HR_ROOT:
		*out = handlebars_root(r);
		break;
	case HR_PARAM:
		for (; up > 0; up--)
			f = f->up;
		*out = e->u.path.index < ARRAY_SIZE(f->v) ? f->v[e->u.path.index] : TVAL_UNDEF;
		break;
	default:
		exec_data(env, e, out);
	}
	for (uint32_t i = 0; i < e->u.path.n; i++) {
		struct tval base = *out;
		if (handlebars_get(r, &base, &e->u.path.v[i], out) != 0)
			return -1;
	}
	return template_step(r, 1 + e->u.path.n / 4);
}

int handlebars_eval(struct trender *r, const struct henv *env, const struct hexpr *e, struct tval *out)
{
	switch (e->kind) {
	case HX_CONST:
		*out = e->u.val;
		return 0;
	case HX_PATH:
		return exec_path(r, env, e, out);
	default:
		if (template_guard(r) != 0 || template_step(r, 1) != 0)
			return -1;
		r->at = e->at;
		return e->u.call.helper->value(r, env, &e->u.call, out);
	}
}

/* --- partials --- */

static int exec_program(struct trender *r, struct henv *env, const struct hprogram *program,
			const struct hctx *around);

/* Makes the inline partials of a program known in env. */
static int exec_define(struct trender *r, struct henv *env, const struct hinline *in,
		       const struct hctx *around)
{
	for (; in != NULL; in = in->next) {
		struct tval name;
		struct hpartial *p = template_alloc(r, sizeof(*p));
		r->at = in->at;
		if (p == NULL || template_step(r, 1) != 0 || handlebars_eval(r, env, in->name, &name) != 0)
			return -1;
		*p = (struct hpartial){
			.up = env->partials, .body = in->body, .ctx = around, .params = env->params};
		if (handlebars_text(r, &name, &p->name) != 0)
			return -1;
		env->partials = p;
	}
	return 0;
}

/* The block that was handed to the partial which is running. */
static const struct hdata *exec_block_find(const struct hdata *d)
{
	while (d != NULL && !d->has_block)
		d = d->up;
	return d != NULL && d->block != NULL ? d : NULL;
}

/* Runs that block, for {{> @partial-block}} or in place of a partial that is not there. */
static int exec_block_run(struct trender *r, const struct henv *env, const struct hprogram *block,
			  const struct henv *block_env, const struct tval *v)
{
	const struct hdata *outer = exec_block_find(block_env->data);
	struct hdata data = {.up = env->data, .has_block = true};
	struct henv inner = {
		.ctx = block_env->ctx, .data = &data, .params = block_env->params, .partials = env->partials};
	if (outer != NULL) {
		data.block = outer->block;
		data.block_env = outer->block_env;
	}
	return handlebars_exec(r, &inner, block, v);
}

static int exec_partial_body(struct trender *r, const struct henv *env, const struct hnode *n, str_t name,
			     const struct tval *v)
{
	const struct hprogram *block = n->u.partial.block;
	if (str_eq(name, STR("@partial-block"))) {
		const struct hdata *d = exec_block_find(env->data);
		if (d != NULL)
			return exec_block_run(r, env, d->block, d->block_env, v);
		return template_fail(r, "the partial @partial-block could not be found");
	}
	const struct hpartial *p = env->partials;
	for (; p != NULL && !str_eq(p->name, name); p = p->up)
		if (template_step(r, 1) != 0)
			return -1;
	if (p == NULL && block != NULL)
		return exec_block_run(r, env, block, env, v);
	if (p == NULL)
		return template_fail(r, "the partial `" STR_FMT "` could not be found",
				     STR_ARG(str_head(name, 100)));
	struct hdata data = {.up = env->data, .has_block = true, .block = block, .block_env = env};
	struct henv inner = {
		.ctx = p->ctx, .data = env->data, .params = p->params, .partials = env->partials};
	if (block != NULL) {
		struct henv own = *env;
		if (exec_define(r, &own, block->inlines, env->ctx) != 0)
			return -1;
		inner.data = &data;
		inner.partials = own.partials;
	}
	return handlebars_exec(r, &inner, p->body, v);
}

/* What was written since `from` again, with the indent before each line. */
static int exec_indent(struct trender *r, size_t from, str_t indent)
{
	struct tval copy;
	str_t written = str_mk(r->out->p != NULL ? r->out->p + from : NULL, r->out->n - from);
	if (indent.n == 0 || written.n == 0)
		return 0;
	if (template_str_copy(r, written, &copy) != 0)
		return -1;
	buf_truncate(r->out, from);
	for (str_t rest = tval_text(&copy); rest.n > 0;) {
		ptrdiff_t eol = str_chr(rest, '\n', 0);
		str_t line = eol >= 0 ? str_head(rest, (size_t)eol + 1) : rest;
		if (template_step(r, 1) != 0 || template_emit_text(r, indent) != 0 ||
		    template_emit_text(r, line) != 0)
			return -1;
		rest = str_skip(rest, line.n);
	}
	return 0;
}

static int exec_hash(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *v)
{
	struct tover *over = template_alloc(r, sizeof(*over));
	struct tmap *m = over != NULL ? template_map_new(r, c->n_hash) : NULL;
	if (m == NULL)
		return -1;
	for (uint32_t i = 0; i < c->n_hash; i++) {
		struct tval key = tval_str(c->hash[i]->key), val;
		if (handlebars_eval(r, env, c->hash[i], &val) != 0 || template_map_set(r, m, &key, &val) != 0)
			return -1;
	}
	*over = (struct tover){.top = tval_map(m), .base = *v};
	*v = (struct tval){.kind = TV_OVER, .u.over = over};
	return 0;
}

static int exec_partial(struct trender *r, const struct henv *env, const struct hnode *n)
{
	struct tval v = env->ctx->v, name_val;
	str_t name = n->u.partial.name;
	size_t from = r->out->n;
	if (++r->calls > TEMPLATE_MAX_CALLS)
		return template_fail_limit(r, "recursion limit exceeded");
	if ((n->u.partial.name_expr != NULL &&
	     (handlebars_eval(r, env, n->u.partial.name_expr, &name_val) != 0 ||
	      handlebars_text(r, &name_val, &name) != 0)) ||
	    (n->u.partial.context != NULL && handlebars_eval(r, env, n->u.partial.context, &v) != 0) ||
	    (n->u.partial.hash.n_hash > 0 && exec_hash(r, env, &n->u.partial.hash, &v) != 0))
		return -1;
	r->at = n->at;
	if (exec_partial_body(r, env, n, name, &v) != 0 || exec_indent(r, from, n->u.partial.indent) != 0)
		return -1;
	r->calls--;
	return 0;
}

/* --- blocks --- */

static int exec_block(struct trender *r, const struct henv *env, const struct hnode *n)
{
	struct hframe nothing = {.up = env->params, .v = {TVAL_UNDEF, TVAL_UNDEF}};
	struct henv inner = *env;
	for (;;) {
		const struct hprogram *next = NULL;
		const struct hhelper *helper = n->u.block.call.helper;
		r->at = n->at;
		if (template_step(r, 1) != 0)
			return -1;
		if ((helper != NULL && helper->block != NULL ? helper->block(r, env, n, &next)
							     : handlebars_block_value(r, env, n, &next)) != 0)
			return -1;
		if (next == NULL)
			return 0;
		if (!next->is_chained) {
			if (next == n->u.block.yes && n->u.block.n_params > 0)
				inner.params = &nothing; /* the names are there, without values */
			return handlebars_exec(r, &inner, next, NULL);
		}
		n = next->first;
	}
}

static int exec_node(struct trender *r, const struct henv *env, const struct hnode *n)
{
	struct tval v;
	switch (n->kind) {
	case HN_TEXT:
		return template_emit_text(r, n->u.text);
	case HN_EMIT:
	case HN_EMIT_RAW:
		return handlebars_eval(r, env, n->u.expr, &v) != 0
			       ? -1
			       : handlebars_emit(r, &v, n->kind == HN_EMIT_RAW);
	case HN_BLOCK:
		return exec_block(r, env, n);
	default:
		return exec_partial(r, env, n);
	}
}

/* around: the contexts outside of what makes env's, for the inline partials defined in the program. */
static int exec_program(struct trender *r, struct henv *env, const struct hprogram *program,
			const struct hctx *around)
{
	if (template_guard(r) != 0 ||
	    (program->inlines != NULL && exec_define(r, env, program->inlines, around) != 0))
		return -1;
	for (const struct hnode *n = program->first; n != NULL; n = n->next) {
		r->at = n->at;
		if (template_step(r, 1) != 0 || exec_node(r, env, n) != 0)
			return -1;
	}
	return 0;
}

int handlebars_exec(struct trender *r, const struct henv *env, const struct hprogram *program,
		    const struct tval *v)
{
	struct henv inner = *env;
	struct hctx ctx = {.up = env->ctx};
	if (program == NULL)
		return 0;
	if (v != NULL && (env->ctx == NULL || !handlebars_is_same(v, &env->ctx->v))) {
		ctx.v = *v;
		inner.ctx = &ctx;
	}
	return exec_program(r, &inner, program, env->ctx);
}

int handlebars_run(struct trender *r)
{
	struct hctx root = {.v = handlebars_root(r)};
	struct henv env = {.ctx = &root};
	return exec_program(r, &env, r->t->program, NULL);
}
