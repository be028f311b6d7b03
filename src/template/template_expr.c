/* template_expr.c - the expression half of the parser: tokens to a tree. Binary operators climb by precedence
 * in one function, so that a level of parentheses costs few C frames. From loose to tight: a if b else c; or;
 * and;  not;  == != < <= > >= in, not in (chained);  + -;  ~;  * / // %;  ** (to the left); unary -;  then
 * filters and tests;  then . [] ().
 * `-x|f` filters the negated value and `x is t` binds as tight as a filter, as template authors of this
 * dialect expect. */
#include "template/template_impl.h"

#include <stdlib.h>

bool template_parse_is_word(const struct tparse *p, const char *word)
{
	return p->lex.tok.kind == TK_IDENT && str_eq(p->lex.tok.s, str_of(word));
}

static bool parse_is(const struct tparse *p, enum ttok_kind kind)
{
	return p->lex.tok.kind == kind;
}

int template_parse_unexpected(struct tparse *p, const char *expected)
{
	return expected != NULL ? template_parse_fail(p, "unexpected %s, expected %s",
						      template_token_name(&p->lex.tok), expected)
				: template_parse_fail(p, "unexpected %s", template_token_name(&p->lex.tok));
}

int template_parse_expect(struct tparse *p, enum ttok_kind kind, const char *expected)
{
	if (!parse_is(p, kind))
		return template_parse_unexpected(p, expected);
	return template_lex_next(&p->lex);
}

int template_parse_enter(struct tparse *p)
{
	const char *here = __builtin_frame_address(0);
	size_t used = (size_t)(p->stack > here ? p->stack - here : here - p->stack);
	if (++p->depth > TEMPLATE_MAX_DEPTH || used > TEMPLATE_MAX_STACK)
		return template_parse_fail(p, "template exceeds maximum recursion limits");
	return 0;
}

struct tnode *template_node_new(struct tparse *p, enum tnode_kind kind)
{
	struct tnode *n = arena_zalloc(&p->t->arena, sizeof(*n));
	n->kind = (uint8_t)kind;
	n->at = p->lex.tok.at;
	return n;
}

/* The height of n above its parts; a tree too tall for the walk is refused here. */
static struct tnode *parse_over(struct tparse *p, struct tnode *n, const struct tnode *part)
{
	if (part == NULL)
		return n;
	if (part->height + 1 > n->height)
		n->height = (uint16_t)(part->height + 1);
	if (n->height > TEMPLATE_MAX_SPINE) {
		template_parse_fail(p, "template exceeds maximum recursion limits");
		return NULL;
	}
	return n;
}

/* A growing array of pointers while a list is parsed; moved to the arena at its end. */
struct parse_items {
	struct tnode **v;
	size_t n, cap;
};

static void parse_items_add(struct parse_items *it, struct tnode *n)
{
	if (it->n == it->cap) {
		it->cap = it->cap == 0 ? 8 : it->cap * 2;
		struct tnode **v = reallocarray(it->v, it->cap, sizeof(*v));
		if (v == NULL)
			panic("out of memory");
		it->v = v;
	}
	it->v[it->n++] = n;
}

static struct tnode **parse_items_take(struct tparse *p, struct parse_items *it)
{
	struct tnode **v = arena_alloc(&p->t->arena, (it->n + 1) * sizeof(struct tnode *));
	if (it->n > 0)
		memcpy(v, it->v, it->n * sizeof(struct tnode *));
	free(it->v);
	it->v = NULL;
	return v;
}

static struct tnode *parse_list_node(struct tparse *p, struct tnode *n, struct parse_items *items,
				     size_t per_item)
{
	n->n = (uint32_t)(items->n / per_item);
	n->u.list.v = parse_items_take(p, items);
	for (size_t i = 0; i < n->n * per_item; i++)
		if (parse_over(p, n, n->u.list.v[i]) == NULL)
			return NULL;
	return n;
}

/* After "[" or "(": items up to `close`. is_tuple: one item without a comma is just that item. */
static struct tnode *parse_list(struct tparse *p, enum ttok_kind close, bool is_tuple)
{
	struct parse_items items = {0};
	struct tnode *n = template_node_new(p, EX_LIST), *e = NULL;
	bool has_comma = false;
	while (!parse_is(p, close)) {
		if (items.n > 0) {
			if (template_parse_expect(p, TK_COMMA, is_tuple && !has_comma ? "`)`" : "`,`") != 0)
				goto fail;
			has_comma = true;
			if (parse_is(p, close))
				break;
		}
		e = template_parse_expr(p);
		if (e == NULL)
			goto fail;
		parse_items_add(&items, e);
	}
	if (template_lex_next(&p->lex) != 0)
		goto fail;
	if (is_tuple && items.n == 1 && !has_comma) {
		free(items.v);
		return e;
	}
	return parse_list_node(p, n, &items, 1);
fail:
	free(items.v);
	return NULL;
}

/* After "{". */
static struct tnode *parse_map(struct tparse *p)
{
	struct parse_items items = {0};
	struct tnode *n = template_node_new(p, EX_MAP), *key, *val;
	while (!parse_is(p, TK_RBRACE)) {
		if (items.n > 0) {
			if (template_parse_expect(p, TK_COMMA, "`,`") != 0)
				goto fail;
			if (parse_is(p, TK_RBRACE))
				break;
		}
		key = template_parse_expr(p);
		if (key == NULL || template_parse_expect(p, TK_COLON, "`:`") != 0 ||
		    (val = template_parse_expr(p)) == NULL)
			goto fail;
		parse_items_add(&items, key);
		parse_items_add(&items, val);
	}
	if (template_lex_next(&p->lex) != 0)
		goto fail;
	return parse_list_node(p, n, &items, 2);
fail:
	free(items.v);
	return NULL;
}

static struct tnode *parse_const(struct tparse *p, struct tval v)
{
	struct tnode *n = template_node_new(p, EX_CONST);
	n->u.val = v;
	return template_lex_next(&p->lex) == 0 ? n : NULL;
}

/* Adjacent string literals are one. */
static struct tnode *parse_string(struct tparse *p)
{
	struct tnode *n = template_node_new(p, EX_CONST);
	str_t s = p->lex.tok.s;
	if (template_lex_next(&p->lex) != 0)
		return NULL;
	while (parse_is(p, TK_STR)) {
		char *both = arena_alloc(&p->t->arena, s.n + p->lex.tok.s.n + 1);
		if (s.n > 0)
			memcpy(both, s.p, s.n);
		if (p->lex.tok.s.n > 0)
			memcpy(both + s.n, p->lex.tok.s.p, p->lex.tok.s.n);
		s = str_mk(both, s.n + p->lex.tok.s.n);
		if (template_lex_next(&p->lex) != 0)
			return NULL;
	}
	n->u.val = tval_str(s);
	return n;
}

static struct tnode *parse_word(struct tparse *p)
{
	str_t s = p->lex.tok.s;
	if (str_eq(s, STR("true")) || str_eq(s, STR("True")))
		return parse_const(p, tval_bool(true));
	if (str_eq(s, STR("false")) || str_eq(s, STR("False")))
		return parse_const(p, tval_bool(false));
	if (str_eq(s, STR("none")) || str_eq(s, STR("None")))
		return parse_const(p, TVAL_NONE);
	struct tnode *n = template_node_new(p, EX_VAR);
	n->u.name = template_name_intern(p->t, s);
	if (str_eq(s, STR("caller")))
		p->is_caller_used = true;
	return template_lex_next(&p->lex) == 0 ? n : NULL;
}

static struct tnode *parse_primary(struct tparse *p)
{
	struct tnode *n = NULL;
	switch (p->lex.tok.kind) {
	case TK_IDENT:
		return parse_word(p);
	case TK_STR:
		return parse_string(p);
	case TK_INT:
	case TK_FLOAT:
		return parse_const(p, p->lex.tok.val);
	case TK_LPAREN:
	case TK_LBRACKET:
	case TK_LBRACE: {
		enum ttok_kind open = p->lex.tok.kind;
		if (template_parse_enter(p) != 0 || template_lex_next(&p->lex) != 0)
			return NULL;
		n = open == TK_LBRACE
			    ? parse_map(p)
			    : parse_list(p, open == TK_LPAREN ? TK_RPAREN : TK_RBRACKET, open == TK_LPAREN);
		p->depth--;
		return n;
	}
	default:
		template_parse_unexpected(p, NULL);
		return NULL;
	}
}

/* --- calls --- */

static struct tnode *parse_args_fail(struct targ *args)
{
	free(args);
	return NULL;
}

static bool parse_arg_prefix(struct tparse *p, struct targ *a)
{
	a->kind = parse_is(p, TK_STAR) ? ARG_SPLAT : parse_is(p, TK_POW) ? ARG_KWSPLAT : ARG_POS;
	return a->kind == ARG_POS || template_lex_next(&p->lex) == 0;
}

/* At "(": the arguments of n up to ")". Returns n or NULL. */
static struct tnode *parse_args(struct tparse *p, struct tnode *n)
{
	struct targ *args = NULL;
	size_t count = 0, cap = 0;
	bool has_kw = false;
	if (template_parse_enter(p) != 0 || template_lex_next(&p->lex) != 0)
		return NULL;
	while (!parse_is(p, TK_RPAREN)) {
		struct targ a = {0};
		if (count > 0) {
			if (template_parse_expect(p, TK_COMMA, "`,`") != 0)
				return parse_args_fail(args);
			if (parse_is(p, TK_RPAREN))
				break;
		}
		if (!parse_arg_prefix(p, &a) || (a.e = template_parse_expr(p)) == NULL)
			return parse_args_fail(args);
		if (a.kind == ARG_POS && a.e->kind == EX_VAR && parse_is(p, TK_ASSIGN)) {
			a.kind = ARG_KW;
			a.name = p->t->names[a.e->u.name].s;
			if (template_lex_next(&p->lex) != 0 || (a.e = template_parse_expr_noif(p)) == NULL)
				return parse_args_fail(args);
			has_kw = true;
		} else if (a.kind == ARG_POS && has_kw) {
			template_parse_fail(p, "non-keyword arg after keyword arg");
			return parse_args_fail(args);
		}
		has_kw |= a.kind == ARG_KWSPLAT;
		if (parse_over(p, n, a.e) == NULL)
			return parse_args_fail(args);
		if (count == cap) {
			cap = cap == 0 ? 4 : cap * 2;
			struct targ *bigger = reallocarray(args, cap, sizeof(*args));
			if (bigger == NULL)
				panic("out of memory");
			args = bigger;
		}
		args[count++] = a;
	}
	p->depth--;
	n->n = (uint32_t)count;
	n->u.call.args = arena_alloc(&p->t->arena, (count + 1) * sizeof(*args));
	if (count > 0)
		memcpy(n->u.call.args, args, count * sizeof(*args));
	free(args);
	return template_lex_next(&p->lex) == 0 ? n : NULL;
}

/* After "[": an index or a slice. */
static struct tnode *parse_subscript(struct tparse *p, struct tnode *base, uint32_t at)
{
	struct tnode *parts[3] = {NULL}, *n;
	int i = 0;
	bool is_slice = false;
	for (;; i++) {
		if (!parse_is(p, TK_COLON) && !(is_slice && parse_is(p, TK_RBRACKET))) {
			parts[i] = template_parse_expr(p);
			if (parts[i] == NULL)
				return NULL;
		}
		if (!parse_is(p, TK_COLON) || i == 2)
			break;
		is_slice = true;
		if (template_lex_next(&p->lex) != 0)
			return NULL;
	}
	if (template_parse_expect(p, TK_RBRACKET, "`]`") != 0)
		return NULL;
	n = template_node_new(p, is_slice ? EX_SLICE : EX_ITEM);
	n->at = at;
	if (is_slice) {
		n->u.slice.base = base;
		n->u.slice.from = parts[0];
		n->u.slice.to = parts[1];
		n->u.slice.step = parts[2];
	} else {
		n->u.item.base = base;
		n->u.item.index = parts[0];
	}
	for (i = 0; i < 3; i++)
		if (parse_over(p, n, parts[i]) == NULL)
			return NULL;
	return parse_over(p, n, base);
}

static struct tnode *parse_attr(struct tparse *p, struct tnode *base)
{
	if (template_lex_next(&p->lex) != 0)
		return NULL;
	struct tnode *n = template_node_new(p, EX_ATTR);
	n->u.attr.base = base;
	if (parse_is(p, TK_IDENT)) {
		n->u.attr.key = tval_str(p->lex.tok.s);
	} else if (parse_is(p, TK_INT)) {
		n->u.attr.key = p->lex.tok.val;
	} else {
		template_parse_unexpected(p, "identifier or integer");
		return NULL;
	}
	return template_lex_next(&p->lex) == 0 ? parse_over(p, n, base) : NULL;
}

static struct tnode *parse_postfix(struct tparse *p)
{
	struct tnode *n = parse_primary(p);
	while (n != NULL) {
		uint32_t at = p->lex.tok.at;
		if (parse_is(p, TK_DOT)) {
			n = parse_attr(p, n);
		} else if (parse_is(p, TK_LBRACKET)) {
			if (template_parse_enter(p) != 0 || template_lex_next(&p->lex) != 0)
				return NULL;
			n = parse_subscript(p, n, at);
			p->depth--;
		} else if (parse_is(p, TK_LPAREN)) {
			struct tnode *call = template_node_new(p, EX_CALL);
			call->u.call.base = n;
			n = parse_over(p, call, n) != NULL ? parse_args(p, call) : NULL;
		} else {
			break;
		}
	}
	return n;
}

static struct tnode *parse_unary_only(struct tparse *p)
{
	if (!parse_is(p, TK_MINUS))
		return parse_postfix(p);
	struct tnode *n = template_node_new(p, EX_NEG);
	if (template_parse_enter(p) != 0 || template_lex_next(&p->lex) != 0 ||
	    (n->u.two.a = parse_unary_only(p)) == NULL)
		return NULL;
	p->depth--;
	return parse_over(p, n, n->u.two.a);
}

/* At the name of a filter or test. */
static struct tnode *parse_named(struct tparse *p, enum tnode_kind kind, struct tnode *base)
{
	if (!parse_is(p, TK_IDENT)) {
		template_parse_unexpected(p, "identifier");
		return NULL;
	}
	struct tnode *n = template_node_new(p, kind);
	n->u.call.base = base;
	n->u.call.name = p->lex.tok.s;
	n->u.call.fn =
		kind == EX_FILTER ? template_filter_find(n->u.call.name) : template_test_find(n->u.call.name);
	if (parse_over(p, n, base) == NULL || template_lex_next(&p->lex) != 0)
		return NULL;
	return parse_is(p, TK_LPAREN) ? parse_args(p, n) : n;
}

/* A test's single argument may stand without parentheses: `x is divisibleby 3`. */
static bool parse_is_bare_arg(const struct tparse *p)
{
	static const char *const not_args[] = {"and", "or", "else", "if", "is", "in", "not"};
	switch (p->lex.tok.kind) {
	case TK_IDENT:
		for (size_t i = 0; i < ARRAY_SIZE(not_args); i++)
			if (template_parse_is_word(p, not_args[i]))
				return false;
		return true;
	case TK_STR:
	case TK_INT:
	case TK_FLOAT:
	case TK_LBRACKET:
	case TK_LBRACE:
	case TK_MINUS:
		return true;
	default:
		return false;
	}
}

static struct tnode *parse_test(struct tparse *p, struct tnode *base)
{
	bool is_negated = false;
	if (template_lex_next(&p->lex) != 0)
		return NULL;
	if (template_parse_is_word(p, "not")) {
		is_negated = true;
		if (template_lex_next(&p->lex) != 0)
			return NULL;
	}
	struct tnode *n = parse_named(p, EX_TEST, base);
	if (n == NULL)
		return NULL;
	n->flag = is_negated;
	if (n->u.call.args == NULL && parse_is_bare_arg(p)) {
		n->u.call.args = arena_zalloc(&p->t->arena, sizeof(*n->u.call.args));
		n->n = 1;
		if (template_parse_enter(p) != 0 || (n->u.call.args[0].e = parse_unary_only(p)) == NULL)
			return NULL;
		p->depth--;
		return parse_over(p, n, n->u.call.args[0].e);
	}
	return n;
}

static struct tnode *parse_unary(struct tparse *p)
{
	struct tnode *n = parse_unary_only(p);
	while (n != NULL) {
		if (parse_is(p, TK_PIPE))
			n = template_lex_next(&p->lex) == 0 ? parse_named(p, EX_FILTER, n) : NULL;
		else if (template_parse_is_word(p, "is"))
			n = parse_test(p, n);
		else
			break;
	}
	return n;
}

struct tnode *template_parse_filter_chain(struct tparse *p)
{
	struct tnode *n = NULL;
	do {
		if (n != NULL && template_lex_next(&p->lex) != 0)
			return NULL;
		n = parse_named(p, EX_FILTER, n);
	} while (n != NULL && parse_is(p, TK_PIPE));
	return n;
}

/* --- operators --- */

enum { PREC_OR = 1, PREC_AND, PREC_NOT, PREC_COMPARE, PREC_ADD, PREC_CONCAT, PREC_MUL, PREC_POW };

static int parse_binary_op(const struct tparse *p, int *op)
{
	switch (p->lex.tok.kind) {
	case TK_PLUS:
		*op = OP_ADD;
		return PREC_ADD;
	case TK_MINUS:
		*op = OP_SUB;
		return PREC_ADD;
	case TK_TILDE:
		*op = OP_CONCAT;
		return PREC_CONCAT;
	case TK_STAR:
		*op = OP_MUL;
		return PREC_MUL;
	case TK_SLASH:
		*op = OP_DIV;
		return PREC_MUL;
	case TK_IDIV:
		*op = OP_IDIV;
		return PREC_MUL;
	case TK_PERCENT:
		*op = OP_MOD;
		return PREC_MUL;
	case TK_POW:
		*op = OP_POW;
		return PREC_POW;
	case TK_EQ:
		*op = CMP_EQ;
		return PREC_COMPARE;
	case TK_NE:
		*op = CMP_NE;
		return PREC_COMPARE;
	case TK_LT:
		*op = CMP_LT;
		return PREC_COMPARE;
	case TK_LE:
		*op = CMP_LE;
		return PREC_COMPARE;
	case TK_GT:
		*op = CMP_GT;
		return PREC_COMPARE;
	case TK_GE:
		*op = CMP_GE;
		return PREC_COMPARE;
	case TK_IDENT:
		*op = 0;
		if (template_parse_is_word(p, "or"))
			return PREC_OR;
		if (template_parse_is_word(p, "and"))
			return PREC_AND;
		*op = template_parse_is_word(p, "not") ? CMP_NOT_IN : CMP_IN;
		return *op == CMP_NOT_IN || template_parse_is_word(p, "in") ? PREC_COMPARE : 0;
	default:
		return 0;
	}
}

static struct tnode *parse_operand(struct tparse *p, int prec);

/* a < b < c: links of one comparison, each with its operator and right side, each evaluated once. */
static struct tnode *parse_comparison(struct tparse *p, struct tnode *left)
{
	struct tnode *n = template_node_new(p, EX_COMPARE), **tail = &n->next;
	int op;
	n->u.two.a = left;
	for (struct tnode *link = n; link != NULL && parse_binary_op(p, &op) == PREC_COMPARE;) {
		link->op = (uint8_t)op;
		if (template_lex_next(&p->lex) != 0)
			return NULL;
		if (op == CMP_NOT_IN) {
			if (!template_parse_is_word(p, "in")) {
				template_parse_unexpected(p, "in");
				return NULL;
			}
			if (template_lex_next(&p->lex) != 0)
				return NULL;
		}
		link->u.two.b = parse_operand(p, PREC_ADD);
		if (link->u.two.b == NULL || parse_over(p, n, link->u.two.b) == NULL)
			return NULL;
		if (parse_binary_op(p, &op) != PREC_COMPARE)
			break;
		link = *tail = template_node_new(p, EX_COMPARE);
		tail = &link->next;
	}
	return parse_over(p, n, left);
}

static struct tnode *parse_not(struct tparse *p)
{
	struct tnode *n = template_node_new(p, EX_NOT);
	if (template_parse_enter(p) != 0 || template_lex_next(&p->lex) != 0 ||
	    (n->u.two.a = parse_operand(p, PREC_NOT)) == NULL)
		return NULL;
	p->depth--;
	return parse_over(p, n, n->u.two.a);
}

/* Everything that binds at least as tight as prec. */
static struct tnode *parse_operand(struct tparse *p, int prec)
{
	struct tnode *left =
		prec <= PREC_NOT && template_parse_is_word(p, "not") ? parse_not(p) : parse_unary(p);
	int op = 0, found;
	while (left != NULL && (found = parse_binary_op(p, &op)) >= prec && found != 0) {
		if (found == PREC_COMPARE) {
			left = parse_comparison(p, left);
			continue;
		}
		struct tnode *n = template_node_new(p, found == PREC_OR	   ? EX_OR
						       : found == PREC_AND ? EX_AND
									   : EX_BIN);
		n->op = (uint8_t)op;
		n->u.two.a = left;
		if (template_lex_next(&p->lex) != 0 || (n->u.two.b = parse_operand(p, found + 1)) == NULL ||
		    parse_over(p, n, left) == NULL)
			return NULL;
		left = parse_over(p, n, n->u.two.b);
	}
	return left;
}

struct tnode *template_parse_expr_noif(struct tparse *p)
{
	return parse_operand(p, PREC_OR);
}

struct tnode *template_parse_expr(struct tparse *p)
{
	if (template_parse_enter(p) != 0)
		return NULL;
	struct tnode *yes = parse_operand(p, PREC_OR);
	while (yes != NULL && template_parse_is_word(p, "if")) {
		struct tnode *n = template_node_new(p, EX_IF);
		n->u.cond.yes = yes;
		if (template_lex_next(&p->lex) != 0 || (n->u.cond.cond = parse_operand(p, PREC_OR)) == NULL)
			return NULL;
		if (template_parse_is_word(p, "else") &&
		    (template_lex_next(&p->lex) != 0 || (n->u.cond.no = template_parse_expr(p)) == NULL))
			return NULL;
		if (parse_over(p, n, yes) == NULL || parse_over(p, n, n->u.cond.cond) == NULL)
			return NULL;
		yes = parse_over(p, n, n->u.cond.no);
	}
	p->depth--;
	return yes;
}
