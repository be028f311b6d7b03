/* handlebars_parse.c - pieces to a syntax tree. Blocks nest by recursion, bounded by TEMPLATE_MAX_DEPTH; the
 * parts of an else chain are each the `no` of the one before, and are read in a loop. An inline partial
 * belongs to the program that it stands in, wherever in it: that program and all that it calls may use it
 * from its start on. */
#include "template/handlebars_impl.h"

#include <stdlib.h>

static void parse_open_tag(struct hparse *p, const struct hpiece *piece)
{
	p->p = piece->s.p;
	p->p_end = piece->s.p + piece->s.n;
}

static struct hnode *parse_node(struct hparse *p, enum hnode_kind kind, uint32_t at)
{
	struct hnode *n = arena_zalloc(&p->t->arena, sizeof(*n));
	n->kind = (uint8_t)kind;
	n->at = at;
	return n;
}

static int parse_program(struct hparse *p, const struct hpiece *open, const struct hprogram **out);

/* --- blocks --- */

/* What a closing tag must repeat of an opening one. */
static str_t parse_callee_text(const struct hparse *p, const char *start)
{
	return str_trim(str_mk(start, (size_t)(p->p - start)));
}

static str_t parse_first_word(str_t inside)
{
	str_t s = str_trim(inside);
	size_t n = 0;
	if (s.n > 0 && (*s.p == '(' || *s.p == '"' || *s.p == '\'')) {
		char close = *s.p == '(' ? ')' : *s.p;
		for (n = 1; n < s.n && s.p[n] != close; n++)
			;
		return close == ')' ? STR_NULL : str_head(s, n + 1);
	}
	for (bool is_bracket = false; n < s.n; n++) {
		is_bracket = s.p[n] == '[' || (is_bracket && s.p[n] != ']');
		if (!is_bracket && (s.p[n] == ' ' || (s.p[n] >= '\t' && s.p[n] <= '\r')))
			break;
	}
	return str_head(s, n);
}

/* At a closing tag: it must name what `open` opened. */
static int parse_close(struct hparse *p, const struct hpiece *open, str_t name)
{
	const struct hpiece *close = p->next++;
	str_t closed = str_trim(close->s);
	if (name.p == NULL || str_eq(closed, name))
		return 0;
	struct buf where = BUF_INIT;
	template_place_text(p->t, open->at, &where);
	handlebars_fail(p, close->at, "`" STR_FMT "` closes `" STR_FMT "`, opened at %s",
			STR_ARG(str_head(closed, 100)), STR_ARG(str_head(name, 100)), where.p);
	buf_fini(&where);
	return -1;
}

static int parse_not_closed(struct hparse *p, const struct hpiece *open, str_t name)
{
	return handlebars_fail(p, open->at, "the block `" STR_FMT "` is not closed",
			       STR_ARG(str_head(name, 100)));
}

/* The body of one section of a block, its parameters known inside. */
static int parse_section(struct hparse *p, const struct hpiece *open, struct hparams *params,
			 const struct hprogram **out)
{
	struct hparams *around = p->params;
	if (params->n > 0) {
		params->up = around;
		p->params = params;
	}
	int rc = parse_program(p, open, out);
	p->params = around;
	return rc;
}

/* In a tag that opens a section, after its mark: the call and the parameters. */
static int parse_head(struct hparse *p, struct hnode *n, struct hparams *params)
{
	if (handlebars_parse_call(p, HC_BLOCK, &n->u.block.call) != 0 ||
	    handlebars_parse_params(p, params) != 0)
		return -1;
	n->u.block.n_params = params->n;
	return handlebars_parse_end(p);
}

/* At an else: into *n, the block that the parts so far end in. */
static int parse_else(struct hparse *p, struct hnode **n, bool may_chain)
{
	const struct hpiece *piece = p->next++;
	struct hparams params = {0};
	parse_open_tag(p, piece);
	handlebars_blanks(p);
	if (p->p == p->p_end)
		return parse_section(p, piece, &params, &(*n)->u.block.no);
	if (!may_chain)
		return handlebars_fail(p, piece->at, "this block may have a plain {{else}} only");
	struct hnode *next = parse_node(p, HN_BLOCK, piece->at);
	struct hprogram *chain = arena_zalloc(&p->t->arena, sizeof(*chain));
	chain->first = next;
	chain->is_chained = true;
	if (parse_head(p, next, &params) != 0 || parse_section(p, piece, &params, &next->u.block.yes) != 0)
		return -1;
	(*n)->u.block.no = chain;
	*n = next;
	return 0;
}

static struct hnode *parse_block(struct hparse *p, const struct hpiece *open)
{
	struct hnode *n = parse_node(p, HN_BLOCK, open->at), *last = n;
	struct hparams params = {0};
	bool is_inverse = open->kind == HP_OPEN_INVERSE, has_else = false;
	parse_open_tag(p, open);
	str_t name = parse_first_word(open->s);
	if (handlebars_enter(p) != 0 || parse_head(p, n, &params) != 0)
		return NULL;
	if (is_inverse && params.n > 0) {
		handlebars_fail(p, open->at, "an inverse block has no block parameters");
		return NULL;
	}
	if (parse_section(p, open, &params, &n->u.block.yes) != 0)
		return NULL;
	for (; p->next < p->end && p->next->kind == HP_ELSE;) {
		if (has_else) {
			handlebars_fail(p, p->next->at,
					"nothing may follow the {{else}} of a block but its end");
			return NULL;
		}
		struct hnode *before = last;
		if (parse_else(p, &last, !is_inverse) != 0)
			return NULL;
		has_else = last == before;
	}
	if (p->next >= p->end) {
		parse_not_closed(p, open, name);
		return NULL;
	}
	if (parse_close(p, open, name) != 0)
		return NULL;
	p->depth--;
	if (is_inverse) {
		const struct hprogram *yes = n->u.block.yes;
		n->u.block.yes = n->u.block.no;
		n->u.block.no = yes;
	}
	return n;
}

/* After the opening tag of a block that has no else: up to its end. */
static int parse_plain_body(struct hparse *p, const struct hpiece *open, str_t name,
			    const struct hprogram **out)
{
	if (handlebars_enter(p) != 0 || parse_program(p, open, out) != 0)
		return -1;
	if (p->next >= p->end)
		return parse_not_closed(p, open, name);
	if (p->next->kind == HP_ELSE)
		return handlebars_fail(p, p->next->at, "this block has no {{else}}");
	p->depth--;
	return parse_close(p, open, name);
}

static struct hnode *parse_raw(struct hparse *p, const struct hpiece *open)
{
	struct hnode *n = parse_node(p, HN_BLOCK, open->at);
	struct hprogram *body = arena_zalloc(&p->t->arena, sizeof(*body));
	struct hparams params = {0};
	parse_open_tag(p, open);
	if (parse_head(p, n, &params) != 0)
		return NULL;
	if (p->next->kind == HP_TEXT) {
		body->first = parse_node(p, HN_TEXT, p->next->at);
		body->first->u.text = p->next++->s;
	}
	n->u.block.yes = body;
	return parse_close(p, open, parse_first_word(open->s)) == 0 ? n : NULL;
}

/* --- partials --- */

static struct hnode *parse_partial(struct hparse *p, const struct hpiece *piece)
{
	struct hnode *n = parse_node(p, HN_PARTIAL, piece->at);
	parse_open_tag(p, piece);
	if (handlebars_parse_partial_name(p, &n->u.partial.name, &n->u.partial.name_expr) != 0 ||
	    handlebars_parse_args(p, 1, &n->u.partial.hash) != 0 || handlebars_parse_end(p) != 0)
		return NULL;
	n->u.partial.context = n->u.partial.hash.n > 0 ? n->u.partial.hash.args[0] : NULL;
	n->u.partial.indent = piece->indent;
	if (piece->kind == HP_OPEN_PARTIAL &&
	    parse_plain_body(p, piece, parse_first_word(piece->s), &n->u.partial.block) != 0)
		return NULL;
	return n;
}

/* {{#*inline "name"}} */
static int parse_inline(struct hparse *p, const struct hpiece *open, struct hinline **out)
{
	struct hcall c = {0};
	struct hinline *in = arena_zalloc(&p->t->arena, sizeof(*in));
	parse_open_tag(p, open);
	handlebars_blanks(p);
	const char *start = p->p;
	while (p->p < p->p_end && *p->p >= 'a' && *p->p <= 'z')
		p->p++;
	if (!str_eq(parse_callee_text(p, start), STR("inline")))
		return handlebars_fail(p, open->at, "unknown decorator: there is only {{#*inline \"name\"}}");
	uint32_t at = handlebars_at(p);
	if (handlebars_parse_args(p, 1, &c) != 0 || handlebars_parse_end(p) != 0)
		return -1;
	if (c.n != 1 || c.n_hash != 0)
		return handlebars_fail(p, at, "an inline partial takes one argument, its name");
	in->name = c.args[0];
	in->at = open->at;
	*out = in;
	return parse_plain_body(p, open, STR("inline"), &in->body);
}

/* --- programs --- */

static struct hnode *parse_emit(struct hparse *p, const struct hpiece *piece)
{
	struct hcall c;
	struct hnode *n = parse_node(p, piece->kind == HP_EMIT ? HN_EMIT : HN_EMIT_RAW, piece->at);
	parse_open_tag(p, piece);
	uint32_t at = handlebars_at(p);
	if (handlebars_parse_call(p, HC_EMIT, &c) != 0 || handlebars_parse_end(p) != 0)
		return NULL;
	if (c.helper == NULL) {
		n->u.expr = c.args[0];
		return n;
	}
	n->u.expr = arena_zalloc(&p->t->arena, sizeof(*n->u.expr));
	n->u.expr->kind = HX_CALL;
	n->u.expr->at = at;
	n->u.expr->u.call = c;
	return n;
}

static struct hnode *parse_text(struct hparse *p, const struct hpiece *piece)
{
	struct hnode *n = parse_node(p, HN_TEXT, piece->at);
	n->u.text = piece->s;
	return n;
}

/* One piece that neither ends nor divides a block. NULL
 * with an error; *n stays NULL for what leaves no node. */
static int parse_piece(struct hparse *p, struct hinline ***inlines_end, struct hnode **n)
{
	const struct hpiece *piece = p->next++;
	*n = NULL;
	switch ((enum hpiece_kind)piece->kind) {
	case HP_COMMENT:
		return 0;
	case HP_OPEN_INLINE:
		if (parse_inline(p, piece, *inlines_end) != 0)
			return -1;
		*inlines_end = &(**inlines_end)->next;
		return 0;
	case HP_DECORATOR:
		return handlebars_fail(p, piece->at,
				       "unknown decorator: there is only {{#*inline \"name\"}}");
	case HP_TEXT:
		*n = piece->s.n > 0 ? parse_text(p, piece) : NULL;
		return 0;
	case HP_EMIT:
	case HP_EMIT_RAW:
		*n = parse_emit(p, piece);
		break;
	case HP_PARTIAL:
	case HP_OPEN_PARTIAL:
		*n = parse_partial(p, piece);
		break;
	case HP_OPEN_RAW:
		*n = parse_raw(p, piece);
		break;
	default:
		*n = parse_block(p, piece);
	}
	return *n != NULL ? 0 : -1;
}

/* Up to the else or the end of the block that `open` opened (p->next is then at that), or to the end of all
 * when it is NULL. */
static int parse_program(struct hparse *p, const struct hpiece *open, const struct hprogram **out)
{
	struct hprogram *program = arena_zalloc(&p->t->arena, sizeof(*program));
	struct hnode **tail = &program->first, *n;
	struct hinline **inlines_end = &program->inlines;
	while (p->next < p->end) {
		enum hpiece_kind kind = (enum hpiece_kind)p->next->kind;
		if (kind == HP_CLOSE || kind == HP_CLOSE_RAW || kind == HP_ELSE) {
			if (open != NULL)
				break;
			return kind == HP_ELSE
				       ? handlebars_fail(p, p->next->at, "an {{else}} outside of a block")
				       : handlebars_fail(p, p->next->at,
							 "`" STR_FMT "` closes a block that is not open",
							 STR_ARG(str_head(str_trim(p->next->s), 100)));
		}
		if (parse_piece(p, &inlines_end, &n) != 0)
			return -1;
		if (n != NULL) {
			*tail = n;
			tail = &n->next;
		}
	}
	*out = program;
	return 0;
}

int handlebars_compile(struct template *t, str_t source)
{
	struct hpieces pieces = {0};
	struct hparse *p = NULL;
	int rc = -1;
	t->source = arena_str(&t->arena, source);
	if (handlebars_split(t, &pieces) == 0) {
		p = arena_zalloc(&t->arena, sizeof(*p));
		p->t = t;
		p->next = pieces.v;
		p->end = pieces.n > 0 ? pieces.v + pieces.n : NULL;
		p->stack = __builtin_frame_address(0);
		rc = parse_program(p, NULL, &t->program);
	}
	free(pieces.v);
	return rc;
}
