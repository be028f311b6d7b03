/* template_parse.c - the statement half of the parser. Blocks nest by recursion, bounded by
 * TEMPLATE_MAX_DEPTH; the statements of a block are a list. A word that ends a block (endif, else ...) is
 * known only to the statement that is open: anywhere else it is an unknown statement. */
#include "template/template_impl.h"

#include <stdarg.h>

int template_parse_fail(struct tparse *p, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	template_error(p->t, ERR_INVALID, p->lex.tok.at, "syntax error: %s", text.p);
	buf_fini(&text);
	return -1;
}

static uint32_t parse_name_assigned(struct tparse *p, str_t s)
{
	uint32_t name = template_name_intern(p->t, s);
	p->t->names[name].is_assigned = true;
	return name;
}

/* --- pieces --- */

static bool parse_is(const struct tparse *p, enum ttok_kind kind)
{
	return p->lex.tok.kind == kind;
}
static int parse_next(struct tparse *p)
{
	return template_lex_next(&p->lex);
}
static int parse_block_end(struct tparse *p)
{
	return template_parse_expect(p, TK_BLOCK_END, "end of block");
}

static int parse_target_name(struct tparse *p, str_t *name)
{
	static const char *const reserved[] = {"true", "True", "false", "False",
					       "none", "None", "loop",	"self"};
	if (!parse_is(p, TK_IDENT))
		return template_parse_unexpected(p, "identifier");
	*name = p->lex.tok.s;
	for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
		if (str_eq(*name, str_of(reserved[i])))
			return template_parse_fail(p, "cannot assign to reserved variable name %s",
						   reserved[i]);
	return parse_next(p);
}

/* `a`, `a, b`, `(a, (b, c))`, and `ns.a` when is_attr_ok. is_tuple_ok: a tuple may have no
 * parentheses. */
static struct tnode *template_parse_target(struct tparse *p, bool is_tuple_ok, bool is_attr_ok);

static struct tnode *parse_target_one(struct tparse *p, bool is_attr_ok)
{
	struct tnode *n;
	str_t name;
	if (parse_is(p, TK_LPAREN)) {
		if (template_parse_enter(p) != 0 || parse_next(p) != 0 ||
		    (n = template_parse_target(p, true, false)) == NULL ||
		    template_parse_expect(p, TK_RPAREN, "`)`") != 0)
			return NULL;
		p->depth--;
		return n;
	}
	n = template_node_new(p, EX_VAR);
	if (parse_target_name(p, &name) != 0)
		return NULL;
	if (!is_attr_ok || !parse_is(p, TK_DOT)) {
		n->u.name = parse_name_assigned(p, name);
		return n;
	}
	n->u.name = template_name_intern(p->t, name);
	while (n != NULL && parse_is(p, TK_DOT)) {
		struct tnode *attr = template_node_new(p, EX_ATTR);
		if (parse_next(p) != 0)
			return NULL;
		if (!parse_is(p, TK_IDENT)) {
			template_parse_unexpected(p, "identifier");
			return NULL;
		}
		attr->u.attr.base = n;
		attr->u.attr.key = tval_str(p->lex.tok.s);
		attr->height = (uint16_t)(n->height + 1);
		if (parse_next(p) != 0)
			return NULL;
		if (attr->height > TEMPLATE_MAX_SPINE) {
			template_parse_fail(p, "template exceeds maximum recursion limits");
			return NULL;
		}
		n = attr;
	}
	return n;
}

static struct tnode *template_parse_target(struct tparse *p, bool is_tuple_ok, bool is_attr_ok)
{
	struct tnode *items[64], *n = NULL;
	uint32_t count = 0;
	bool has_comma = false;
	do {
		if (count > 0) {
			has_comma = true;
			if (parse_next(p) != 0)
				return NULL;
			if (!parse_is(p, TK_IDENT) && !parse_is(p, TK_LPAREN))
				break;
			if (template_parse_is_word(p, "in"))
				break;
		}
		if (count == ARRAY_SIZE(items)) {
			template_parse_fail(p, "too many names to unpack into");
			return NULL;
		}
		n = items[count++] = parse_target_one(p, is_attr_ok);
		if (n == NULL)
			return NULL;
	} while (is_tuple_ok && parse_is(p, TK_COMMA));
	if (!has_comma)
		return n;
	n = template_node_new(p, EX_LIST);
	n->n = count;
	n->u.list.v = arena_alloc(&p->t->arena, count * sizeof(struct tnode *));
	memcpy(n->u.list.v, items, count * sizeof(struct tnode *));
	return n;
}

/* The body of a block up to its end tag, which is read as well. */
static int parse_body(struct tparse *p, const char *end, struct tnode **body)
{
	return parse_block_end(p) != 0 || template_parse_statements(p, end, body) != 0 ||
			       parse_next(p) != 0 || parse_block_end(p) != 0
		       ? -1
		       : 0;
}

/* --- statements: each starts after its word and leaves the lexer after its last tag --- */

static int parse_if(struct tparse *p, struct tnode *n)
{
	for (;;) {
		n->u.cond.cond = template_parse_expr(p);
		if (n->u.cond.cond == NULL || parse_block_end(p) != 0 ||
		    template_parse_statements(p, "elif else endif", &n->u.cond.yes) != 0)
			return -1;
		if (!template_parse_is_word(p, "elif"))
			break;
		struct tnode *next = template_node_new(p, ST_IF);
		n->u.cond.no = next;
		n = next;
		if (parse_next(p) != 0)
			return -1;
	}
	if (template_parse_is_word(p, "else"))
		return parse_next(p) != 0 ? -1 : parse_body(p, "endif", &n->u.cond.no);
	return parse_next(p) != 0 || parse_block_end(p) != 0 ? -1 : 0;
}

static int parse_for(struct tparse *p, struct tnode *n)
{
	if (parse_is(p, TK_BLOCK_END))
		return template_parse_unexpected(p, "in");
	if ((n->u.loop.target = template_parse_target(p, true, false)) == NULL)
		return -1;
	if (!template_parse_is_word(p, "in"))
		return template_parse_unexpected(p, "in");
	if (parse_next(p) != 0 || (n->u.loop.iter = template_parse_expr_noif(p)) == NULL)
		return -1;
	if (template_parse_is_word(p, "if") &&
	    (parse_next(p) != 0 || (n->u.loop.filter = template_parse_expr_noif(p)) == NULL))
		return -1;
	if (template_parse_is_word(p, "recursive")) {
		n->flag = true;
		if (parse_next(p) != 0)
			return -1;
	}
	p->loops++;
	if (parse_block_end(p) != 0 || template_parse_statements(p, "else endfor", &n->u.loop.body) != 0)
		return -1;
	p->loops--; /* a break in the else part leaves the loop around */
	if (template_parse_is_word(p, "else")) {
		if (parse_next(p) != 0 || parse_body(p, "endfor", &n->u.loop.other) != 0)
			return -1;
	} else if (parse_next(p) != 0 || parse_block_end(p) != 0) {
		return -1;
	}
	return 0;
}

/* An expression, or several with commas between them: a tuple. */
static struct tnode *parse_tuple_expr(struct tparse *p)
{
	struct tnode *items[64], *n = template_parse_expr(p), *list;
	uint32_t count = 0;
	if (n == NULL || !parse_is(p, TK_COMMA))
		return n;
	list = template_node_new(p, EX_LIST);
	for (;;) {
		if (count == ARRAY_SIZE(items)) {
			template_parse_fail(p, "too many values in a tuple");
			return NULL;
		}
		items[count++] = n;
		if (n->height >= list->height)
			list->height = (uint16_t)(n->height + 1);
		if (!parse_is(p, TK_COMMA))
			break;
		if (parse_next(p) != 0)
			return NULL;
		if (parse_is(p, TK_BLOCK_END))
			break;
		n = template_parse_expr(p);
		if (n == NULL)
			return NULL;
	}
	list->n = count;
	list->u.list.v = arena_alloc(&p->t->arena, count * sizeof(struct tnode *));
	memcpy(list->u.list.v, items, count * sizeof(struct tnode *));
	return list;
}

static int parse_set(struct tparse *p, struct tnode *n)
{
	if (parse_is(p, TK_BLOCK_END))
		return template_parse_unexpected(p, "identifier");
	if ((n->u.set.target = template_parse_target(p, true, true)) == NULL)
		return -1;
	if (parse_is(p, TK_BLOCK_END) || parse_is(p, TK_PIPE)) {
		n->kind = ST_SETBLOCK;
		if (parse_is(p, TK_PIPE) &&
		    (parse_next(p) != 0 || (n->u.set.value = template_parse_filter_chain(p)) == NULL))
			return -1;
		return parse_body(p, "endset", &n->u.set.body);
	}
	if (template_parse_expect(p, TK_ASSIGN, "assignment operator") != 0 ||
	    (n->u.set.value = parse_tuple_expr(p)) == NULL)
		return -1;
	return parse_block_end(p);
}

static int parse_with(struct tparse *p, struct tnode *n)
{
	struct tnode *targets[64], *values[64];
	while (!parse_is(p, TK_BLOCK_END)) {
		if (n->n > 0 && template_parse_expect(p, TK_COMMA, "comma") != 0)
			return -1;
		if (n->n == ARRAY_SIZE(targets))
			return template_parse_fail(p, "too many assignments");
		if ((targets[n->n] = template_parse_target(p, false, false)) == NULL ||
		    template_parse_expect(p, TK_ASSIGN, "assignment operator") != 0 ||
		    (values[n->n] = template_parse_expr(p)) == NULL)
			return -1;
		n->n++;
	}
	size_t bytes = n->n * sizeof(struct tnode *);
	n->u.with.targets = arena_alloc(&p->t->arena, bytes + 1);
	n->u.with.values = arena_alloc(&p->t->arena, bytes + 1);
	if (bytes > 0) {
		memcpy(n->u.with.targets, targets, bytes);
		memcpy(n->u.with.values, values, bytes);
	}
	return parse_body(p, "endwith", &n->u.with.body);
}

static int parse_filter(struct tparse *p, struct tnode *n)
{
	if (!parse_is(p, TK_IDENT))
		return template_parse_fail(p, "expected a filter");
	if ((n->u.block.head = template_parse_filter_chain(p)) == NULL)
		return -1;
	return parse_body(p, "endfilter", &n->u.block.body);
}

static int parse_autoescape(struct tparse *p, struct tnode *n)
{
	if ((n->u.block.head = template_parse_expr(p)) == NULL)
		return -1;
	return parse_body(p, "endautoescape", &n->u.block.body);
}

/* "(a, b=1)" of a macro or call block. */
static int parse_params(struct tparse *p, struct tnode *n)
{
	uint32_t names[64];
	struct tnode *defaults[64];
	if (template_parse_expect(p, TK_LPAREN, "`(`") != 0)
		return -1;
	bool has_default = false;
	while (!parse_is(p, TK_RPAREN)) {
		str_t name;
		if (n->n > 0 && template_parse_expect(p, TK_COMMA, "`,`") != 0)
			return -1;
		if (n->n > 0 && parse_is(p, TK_RPAREN))
			break;
		if (n->n == ARRAY_SIZE(names))
			return template_parse_fail(p, "too many parameters");
		if (parse_target_name(p, &name) != 0)
			return -1;
		names[n->n] = parse_name_assigned(p, name);
		defaults[n->n] = NULL;
		if (has_default && !parse_is(p, TK_ASSIGN))
			return template_parse_unexpected(p, "`=`");
		if (parse_is(p, TK_ASSIGN)) {
			has_default = true;
			if (parse_next(p) != 0 || (defaults[n->n] = template_parse_expr(p)) == NULL)
				return -1;
		}
		n->n++;
	}
	n->u.macro.params = arena_alloc(&p->t->arena, n->n * sizeof(uint32_t) + 1);
	n->u.macro.defaults = arena_alloc(&p->t->arena, n->n * sizeof(struct tnode *) + 1);
	if (n->n > 0) {
		memcpy(n->u.macro.params, names, n->n * sizeof(uint32_t));
		memcpy(n->u.macro.defaults, defaults, n->n * sizeof(struct tnode *));
	}
	return parse_next(p);
}

/* The body of a macro or call block: loops around it cannot be left from inside. */
static int parse_macro_body(struct tparse *p, const char *end, struct tnode *n)
{
	int loops = p->loops;
	bool is_caller_used = p->is_caller_used;
	p->loops = 0;
	p->is_caller_used = false;
	if (parse_body(p, end, &n->u.macro.body) != 0)
		return -1;
	n->flag = p->is_caller_used;
	p->loops = loops;
	p->is_caller_used = is_caller_used;
	return 0;
}

static int parse_macro(struct tparse *p, struct tnode *n)
{
	str_t name;
	if (parse_target_name(p, &name) != 0)
		return -1;
	n->u.macro.name = parse_name_assigned(p, name);
	parse_name_assigned(p, STR("caller"));
	return parse_params(p, n) != 0 ? -1 : parse_macro_body(p, "endmacro", n);
}

static int parse_call_expr(struct tparse *p, struct tnode **out)
{
	static const char *const kinds[] = {[EX_CONST] = "constant",
					    [EX_VAR] = "variable",
					    [EX_FILTER] = "filter expression",
					    [EX_TEST] = "test expression",
					    [EX_ATTR] = "attribute access",
					    [EX_ITEM] = "item access",
					    [EX_LIST] = "list",
					    [EX_MAP] = "map"};
	struct tnode *e = template_parse_expr(p);
	if (e == NULL)
		return -1;
	if (e->kind != EX_CALL) {
		const char *kind = e->kind < ARRAY_SIZE(kinds) ? kinds[e->kind] : NULL;
		return template_parse_fail(p, "expected call expression in call block, got %s",
					   kind != NULL ? kind : "expression");
	}
	*out = e;
	return 0;
}

static int parse_call(struct tparse *p, struct tnode *n)
{
	n->u.macro.name = template_name_intern(p->t, STR("caller"));
	if (parse_is(p, TK_LPAREN) && parse_params(p, n) != 0)
		return -1;
	return parse_call_expr(p, &n->u.macro.call) != 0 ? -1 : parse_macro_body(p, "endcall", n);
}

static int parse_do(struct tparse *p, struct tnode *n)
{
	return parse_call_expr(p, &n->u.expr) != 0 ? -1 : parse_block_end(p);
}

static int parse_leave(struct tparse *p, struct tnode *n)
{
	if (p->loops == 0)
		return template_parse_fail(p, "'%s' must be placed inside a loop",
					   n->kind == ST_BREAK ? "break" : "continue");
	return parse_block_end(p);
}

static int parse_no_loader(struct tparse *p, struct tnode *n)
{
	return template_parse_fail(p, "the tag '%s' is not supported: there are no other templates to load",
				   n->u.text.p);
}

static const struct {
	const char *word;
	enum tnode_kind kind;
	int (*parse)(struct tparse *p, struct tnode *n);
} parse_tags[] = {
	{"if", ST_IF, parse_if},
	{"for", ST_FOR, parse_for},
	{"set", ST_SET, parse_set},
	{"with", ST_WITH, parse_with},
	{"filter", ST_FILTER, parse_filter},
	{"macro", ST_MACRO, parse_macro},
	{"call", ST_CALL, parse_call},
	{"do", ST_DO, parse_do},
	{"autoescape", ST_AUTOESCAPE, parse_autoescape},
	{"break", ST_BREAK, parse_leave},
	{"continue", ST_CONTINUE, parse_leave},
	{"include", ST_TEXT, parse_no_loader},
	{"import", ST_TEXT, parse_no_loader},
	{"from", ST_TEXT, parse_no_loader},
	{"extends", ST_TEXT, parse_no_loader},
	{"block", ST_TEXT, parse_no_loader},
};

/* At the word of a block tag. */
static struct tnode *parse_statement(struct tparse *p)
{
	for (size_t i = 0; i < ARRAY_SIZE(parse_tags); i++) {
		if (!template_parse_is_word(p, parse_tags[i].word))
			continue;
		struct tnode *n = template_node_new(p, parse_tags[i].kind);
		if (parse_tags[i].kind == ST_TEXT)
			n->u.text = str_of(parse_tags[i].word);
		return parse_next(p) == 0 && parse_tags[i].parse(p, n) == 0 ? n : NULL;
	}
	template_parse_fail(p, "unknown statement " STR_FMT, STR_ARG(p->lex.tok.s));
	return NULL;
}

static bool parse_is_one_of(const struct tparse *p, const char *words)
{
	str_t rest = str_of(words), word;
	while (str_split(&rest, ' ', &word))
		if (word.n > 0 && str_eq(word, p->lex.tok.s))
			return true;
	return false;
}

int template_parse_statements(struct tparse *p, const char *ends, struct tnode **first)
{
	struct tnode **tail = first, *n;
	*first = NULL;
	if (template_parse_enter(p) != 0)
		return -1;
	for (;;) {
		switch (p->lex.tok.kind) {
		case TK_TEXT:
			n = template_node_new(p, ST_TEXT);
			n->u.text = p->lex.tok.s;
			if (parse_next(p) != 0)
				return -1;
			break;
		case TK_VAR_BEGIN:
			n = template_node_new(p, ST_EMIT);
			if (parse_next(p) != 0)
				return -1;
			if (parse_is(p, TK_EOF))
				return template_parse_unexpected(p, "expression");
			if ((n->u.expr = template_parse_expr(p)) == NULL ||
			    template_parse_expect(p, TK_VAR_END, "end of variable block") != 0)
				return -1;
			break;
		case TK_BLOCK_BEGIN:
			if (parse_next(p) != 0)
				return -1;
			if (parse_is(p, TK_BLOCK_END))
				return template_parse_fail(p, "unknown end of block, expected statement");
			if (!parse_is(p, TK_IDENT))
				return template_parse_unexpected(p, "keyword");
			if (parse_is_one_of(p, ends)) {
				p->depth--;
				return 0;
			}
			if ((n = parse_statement(p)) == NULL)
				return -1;
			break;
		default:
			if (*ends != 0 || !parse_is(p, TK_EOF))
				return template_parse_unexpected(p, "end of block");
			p->depth--;
			return 0;
		}
		*tail = n;
		tail = &n->next;
	}
}
