/* template_impl.h - what the files of the template engine share. Source (template.c) -> tokens
 * (template_lex.c) -> syntax tree (template_parse.c, template_expr.c) -> a walk over the tree per render
 * (template_eval.c, template_stmt.c) that works on small values (template_value.c, template_item.c,
 * template_print.c, template_ops.c) and calls the built-ins (template_filter*.c, template_builtin.c,
 * template_format.c, template_date.c, template_normalize.c).
 *
 * Values borrow: a string points into the template, into the JSON context or into the render's arena, all of
 * which outlive the render. Nothing is freed one by one. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "template/template.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TEMPLATE_CLANG_SANITIZER 1
#endif
#endif

enum {
	TEMPLATE_MAX_STEPS = 1000000,	/* nodes evaluated, items visited, 64 bytes of text handled */
	TEMPLATE_MAX_OUTPUT = 64 << 20, /* bytes */
	TEMPLATE_MAX_MEMORY = 64 << 20, /* bytes of arena and scratch a render may hold */
	TEMPLATE_MAX_SOURCE = 64 << 20, /* bytes; offsets fit 32 bits */
	TEMPLATE_MAX_DEPTH = 100,	/* nesting of blocks and parentheses in the source */
	TEMPLATE_MAX_SPINE = 250,	/* height of one expression's tree: a + b + c ... is a tall one */
	TEMPLATE_MAX_CALLS = 100,	/* macros and recursive loops inside each other */
	TEMPLATE_MAX_RANGE = 100000,	/* items of range() */
	/* bytes of scratch a template_run keeps from one render to the next */
	TEMPLATE_KEPT_SCRATCH = 64 << 10,
	TEMPLATE_FIRST_OUTPUT = 64 << 10, /* most bytes to make room for before there is any output */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(TEMPLATE_CLANG_SANITIZER)
	/* as below; instrumented frames are larger, and so are the stacks then */
	TEMPLATE_MAX_STACK = 448 << 10,
#else
	TEMPLATE_MAX_STACK = 112 << 10, /* bytes of C stack below template_render or template_compile */
#endif
};

/* --- values --- */

enum tval_kind {
	TV_UNDEF,
	TV_NONE,
	TV_BOOL,
	TV_INT,
	TV_BIG, /* u.big: an integer that does not fit 64 bits */
	TV_FLOAT,
	TV_STR, /* u.s, n bytes of UTF-8; is_safe: not to be escaped again */
	TV_LIST,
	TV_RANGE,
	TV_JARR, /* u.j: a JSON array of the context, read in place */
	TV_JOBJ,
	TV_MAP, /* also a namespace: map->is_namespace */
	TV_LOOP,
	TV_MACRO,
	TV_FUNC,
	TV_CYCLER,
	TV_JOINER,
	TV_LAYERS, /* the contexts of the render, the first over the others (Handlebars) */
	TV_OVER,   /* the names of a mapping over those of another (Handlebars) */
};

struct tval {
	uint8_t kind;
	bool is_safe;
	uint32_t n;
	union {
		bool b;
		int64_t i;
		double f;
		const char *s;
		const json_t *j;
		const __int128 *big;
		struct tlist *list;
		struct tmap *map;
		const struct trange *range;
		struct tloop *loop;
		struct tmacro *macro;
		const struct tfunc *func;
		struct tcycler *cycler;
		struct tjoiner *joiner;
		const struct tover *over;
	} u;
};

struct tlist {
	struct tval *v;
	uint32_t n, cap;
	bool is_group; /* of groupby: [grouper, list], also by these names */
};

struct tpair {
	struct tval key, val;
};

struct tmap {
	struct tpair *e; /* in order of insertion */
	uint32_t n, cap;
	bool is_namespace;
};

struct trange {
	int64_t start, step;
	int64_t n;
};

struct tover {
	struct tval top, base;
};

struct tcycler {
	struct tlist *items;
	uint32_t pos;
};

struct tjoiner {
	struct tval sep;
	bool is_used;
};

#define TVAL_UNDEF ((struct tval){.kind = TV_UNDEF})
#define TVAL_NONE ((struct tval){.kind = TV_NONE})
static inline struct tval tval_bool(bool b)
{
	return (struct tval){.kind = TV_BOOL, .u.b = b};
}
static inline struct tval tval_int(int64_t i)
{
	return (struct tval){.kind = TV_INT, .u.i = i};
}
static inline struct tval tval_float(double f)
{
	return (struct tval){.kind = TV_FLOAT, .u.f = f};
}
static inline struct tval tval_str(str_t s)
{
	return (struct tval){.kind = TV_STR, .n = (uint32_t)s.n, .u.s = s.n > 0 ? s.p : ""};
}
static inline struct tval tval_list(struct tlist *l)
{
	return (struct tval){.kind = TV_LIST, .u.list = l};
}
static inline struct tval tval_map(struct tmap *m)
{
	return (struct tval){.kind = TV_MAP, .u.map = m};
}
static inline str_t tval_text(const struct tval *v)
{
	return str_mk(v->u.s, v->n);
} /* TV_STR only */

/* --- syntax tree --- */

enum tnode_kind {
	/* expressions */
	EX_CONST,
	EX_VAR,
	EX_LIST,
	EX_MAP,
	EX_ATTR,
	EX_ITEM,
	EX_SLICE,
	EX_FILTER,
	EX_TEST,
	EX_CALL,
	EX_NEG,
	EX_NOT,
	EX_BIN,
	EX_AND,
	EX_OR,
	EX_COMPARE,
	EX_IF,
	/* statements */
	ST_TEXT,
	ST_EMIT,
	ST_IF,
	ST_FOR,
	ST_SET,
	ST_SETBLOCK,
	ST_WITH,
	ST_FILTER,
	ST_MACRO,
	ST_CALL,
	ST_DO,
	ST_AUTOESCAPE,
	ST_BREAK,
	ST_CONTINUE,
};

enum tbin_op { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_IDIV, OP_MOD, OP_POW, OP_CONCAT };
enum tcmp_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

enum targ_kind { ARG_POS, ARG_KW, ARG_SPLAT, ARG_KWSPLAT };
struct targ {
	enum targ_kind kind;
	str_t name; /* ARG_KW */
	struct tnode *e;
};

struct tnode {
	uint8_t kind;	    /* enum tnode_kind */
	uint8_t op;	    /* EX_BIN, EX_COMPARE links */
	uint16_t height;    /* of an expression's tree */
	uint32_t at;	    /* byte in the source */
	uint32_t n;	    /* arguments, items or pairs */
	bool flag;	    /* EX_TEST: negated; ST_FOR: recursive; ST_MACRO: uses caller */
	struct tnode *next; /* siblings: statements of a block, links of a comparison */
	union {
		struct tval val; /* EX_CONST */
		uint32_t name;	 /* EX_VAR: index into template.names */
		struct {
			struct tnode **v;
		} list; /* EX_LIST n; EX_MAP 2n: key, value */
		struct {
			struct tnode *base;
			struct tval key;
		} attr;
		struct {
			struct tnode *base, *index;
		} item;
		struct {
			struct tnode *base, *from, *to, *step;
		} slice; /* each may be NULL */
		struct {
			struct tnode *base;
			struct targ *args;
			str_t name;
			const struct tfunc *fn;
		} call; /* FILTER, TEST, CALL */
		struct {
			struct tnode *a, *b;
		} two; /* NEG NOT BIN AND OR COMPARE */
		struct {
			struct tnode *cond, *yes, *no;
		} cond;		    /* EX_IF; ST_IF: no is the elif/else list */
		str_t text;	    /* ST_TEXT */
		struct tnode *expr; /* ST_EMIT, ST_DO */
		struct {
			struct tnode *target, *iter, *filter, *body, *other;
		} loop;
		struct {
			struct tnode *target, *value, *body;
		} set; /* ST_SET; SETBLOCK: value is the filter or NULL */
		struct {
			struct tnode **targets, **values;
			struct tnode *body;
		} with;
		struct {
			struct tnode *head, *body;
		} block; /* ST_FILTER, ST_AUTOESCAPE */
		struct {
			uint32_t name;
			uint32_t *params;
			struct tnode **defaults;
			struct tnode *body;
			struct tnode *call;
		} macro;
	} u;
};

struct tname {
	str_t s;
	bool is_assigned;	    /* somewhere in the template: otherwise scopes need not be searched */
	bool is_loop;		    /* the word `loop` */
	const struct tfunc *global; /* a built-in function of that name, or NULL */
};

struct hprogram; /* handlebars_impl.h */

struct template
{
	enum template_dialect dialect;
	enum template_escape escape;
	struct arena arena;
	str_t name;
	str_t source;
	/* Jinja */
	struct tname *names;
	uint32_t n_names, cap_names;
	uint32_t *name_slot; /* open hash from text to index + 1, while compiling */
	uint32_t n_slots;
	struct tnode *body;
	/* Handlebars */
	const struct hprogram *program;
};

/* --- compiling --- */

enum ttok_kind {
	TK_EOF,
	TK_TEXT,
	TK_VAR_BEGIN,
	TK_VAR_END,
	TK_BLOCK_BEGIN,
	TK_BLOCK_END,
	TK_IDENT,
	TK_STR,
	TK_INT,
	TK_FLOAT,
	TK_PLUS,
	TK_MINUS,
	TK_STAR,
	TK_SLASH,
	TK_IDIV,
	TK_POW,
	TK_PERCENT,
	TK_DOT,
	TK_COMMA,
	TK_COLON,
	TK_TILDE,
	TK_ASSIGN,
	TK_PIPE,
	TK_EQ,
	TK_NE,
	TK_GT,
	TK_GE,
	TK_LT,
	TK_LE,
	TK_LBRACKET,
	TK_RBRACKET,
	TK_LPAREN,
	TK_RPAREN,
	TK_LBRACE,
	TK_RBRACE,
};

struct ttok {
	enum ttok_kind kind;
	uint32_t at;	 /* byte in the source */
	str_t s;	 /* TK_TEXT, TK_IDENT, TK_STR (unescaped) */
	struct tval val; /* TK_INT, TK_FLOAT */
};

struct tlex {
	struct template *t;
	const char *p, *end;
	int mode;	   /* TK_EOF: text, TK_VAR_BEGIN, TK_BLOCK_BEGIN */
	int balance;	   /* open brackets: }} and %} close the tag only at 0 */
	bool is_trimming;  /* the text that follows loses its leading blanks */
	bool is_after_dot; /* a number is an index, never a fraction */
	struct ttok tok;   /* the token to be looked at next */
};

struct tparse {
	struct template *t;
	struct tlex lex;
	int depth;	     /* of blocks and parentheses */
	int loops;	     /* open {% for %} around here, inside the current macro */
	bool is_caller_used; /* in the macro being parsed */
	const char *stack;
};

/** Reads the next token into lex->tok. -1 with a syntax error. */
MUST_CHECK int template_lex_next(struct tlex *lex);
const char *template_token_name(const struct ttok *tok);
/** Sets the error "<what> (in template 'NAME' line N: 'TEXT'), column C" for that byte of the source, "<what>
 * (in template 'NAME')" for TEMPLATE_NOWHERE, and returns -1. Lines and columns count from 1, columns by
 * characters. */
int template_error(const struct template *t, enum err_kind kind, uint32_t at, const char *fmt, ...)
	PRINTF_LIKE(4, 5);
#define TEMPLATE_NOWHERE UINT32_MAX
/** "line N column C" */
void template_place_text(const struct template *t, uint32_t at, struct buf *out);

/* the parser; -1/NULL with a syntax error */
int template_parse_fail(struct tparse *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
int template_parse_unexpected(struct tparse *p, const char *expected); /* expected may be NULL */
MUST_CHECK int template_parse_expect(struct tparse *p, enum ttok_kind kind, const char *expected);
MUST_CHECK int template_parse_enter(struct tparse *p);
/** Statements up to a tag whose word is one of `ends` (blanks between them; the lexer then stands at that
 * word), or to the end of the source when ends is empty. */
MUST_CHECK int template_parse_statements(struct tparse *p, const char *ends, struct tnode **first);
bool template_parse_is_word(const struct tparse *p, const char *word);
struct tnode *template_node_new(struct tparse *p, enum tnode_kind kind);
uint32_t template_name_intern(struct template *t, str_t s);
MUST_CHECK struct tnode *template_parse_expr(struct tparse *p);
MUST_CHECK struct tnode *template_parse_expr_noif(struct tparse *p);
/** The filters of `{% filter a|b(1) %}`: a chain over a base that is NULL. */
MUST_CHECK struct tnode *template_parse_filter_chain(struct tparse *p);

/** Sets t->source and t->program. */
MUST_CHECK int handlebars_compile(struct template *t, str_t source);

/* --- rendering --- */

struct template_run {
	struct arena arena;
	struct buf tmp;
};

struct tvar {
	uint32_t name;
	struct tval v;
};

struct tscope {
	struct tscope *up;   /* lexical */
	struct tscope *free; /* next in the free list */
	struct tloop *loop;  /* the loop that this scope is the body of, or NULL */
	struct tvar *vars;
	uint32_t n, cap;
	bool is_captured; /* a macro holds it: not to be reused */
};

struct titer {
	struct tval src;
	size_t i, n;
	void *obj;     /* TV_JOBJ: jansson's iterator */
	const char *s; /* TV_STR: the rest */
};

struct tloop {
	struct tloop *free;
	const struct tnode *node;
	struct tscope *scope; /* around the loop: for recursion */
	size_t index0, n;
	uint32_t depth0;
	bool has_prev, has_next;
	bool is_captured;
	bool is_changed_set;
	struct tval prev, cur, next;
	struct tval changed;
};

struct tmacro {
	const struct tnode *node; /* ST_MACRO or ST_CALL */
	struct tscope *scope;	  /* where it was defined */
	str_t name;
};

struct trender {
	const struct template *t;
	const json_t *const *ctx;
	size_t n_ctx;
	struct buf *out;
	size_t out_start; /* bytes in out when the render began */
	struct arena arena;
	struct buf tmp; /* scratch, used as a stack: see template_sb_begin */
	bool is_tmp_over;
	struct tscope *scope;
	struct tscope *free_scopes;
	struct tloop *free_loops;
	enum template_escape escape;
	uint32_t at; /* byte in the source of what is being evaluated, for errors */
	int64_t steps;
	int calls;
	const char *stack; /* where the C stack was at the start */
};

/* Errors of a render. The kind is the first word of the text that template authors see. */
#define template_fail(r, ...) template_error((r)->t, ERR_INVALID, (r)->at, __VA_ARGS__)
#define template_fail_op(r, fmt, ...) template_fail(r, "invalid operation: " fmt, ##__VA_ARGS__)
int template_fail_limit(struct trender *r, const char *what);

static inline int template_step(struct trender *r, size_t n)
{
	r->steps -= (int64_t)n;
	return LIKELY(r->steps >= 0) ? 0 : template_fail_limit(r, "too many steps");
}

/** The charge for handling that many bytes. */
static inline int template_step_bytes(struct trender *r, size_t n_bytes)
{
	return template_step(r, 1 + n_bytes / 64);
}
/** Call on entry of what recurses over values or the tree: bounds the C stack. */
static inline int template_guard(struct trender *r)
{
	const char *here = __builtin_frame_address(0);
	size_t used = (size_t)(r->stack > here ? r->stack - here : here - r->stack);
	return LIKELY(used < TEMPLATE_MAX_STACK) ? 0 : template_fail_limit(r, "recursion limit exceeded");
}

/** From the arena; NULL with ERR_LIMIT when the render holds too much. */
void *template_alloc(struct trender *r, size_t n_bytes);
/* Building a string: begin, add any number of times, take. May nest. Too long a text is reported by take. */
size_t template_sb_begin(struct trender *r);
void template_sb_add(struct trender *r, const char *p, size_t n);
static inline void template_sb_str(struct trender *r, str_t s)
{
	template_sb_add(r, s.p, s.n);
}
static inline void template_sb_c(struct trender *r, char c)
{
	template_sb_add(r, &c, 1);
}
void template_sb_char(struct trender *r, uint32_t c); /* as UTF-8 */
MUST_CHECK int template_sb_take(struct trender *r, size_t begin, struct tval *out);
void template_sb_drop(struct trender *r, size_t begin);
MUST_CHECK int template_str_copy(struct trender *r, str_t s, struct tval *out);

/* values: template_value.c */
struct tval template_val_json(const json_t *j);
const char *template_kind_name(const struct tval *v); /* "number", "sequence" ... */
bool template_is_true(const struct tval *v);
static inline bool template_is_seq(const struct tval *v)
{
	return v->kind == TV_LIST || v->kind == TV_JARR || v->kind == TV_RANGE;
}
static inline bool template_is_map(const struct tval *v)
{
	return v->kind == TV_MAP || v->kind == TV_JOBJ;
}
static inline bool template_is_int(const struct tval *v)
{
	return v->kind == TV_INT || v->kind == TV_BIG;
}
static inline bool template_is_num(const struct tval *v)
{
	return template_is_int(v) || v->kind == TV_FLOAT;
}
MUST_CHECK int template_int_new(struct trender *r, __int128 i, struct tval *out);
bool template_as_int(const struct tval *v, __int128 *out);  /* bool, int, and a float without a fraction */
bool template_as_double(const struct tval *v, double *out); /* bool, int, float */
/** An int64 argument; an error names the type wanted. */
MUST_CHECK int template_arg_int(struct trender *r, const struct tval *v, const char *type, int64_t *out);
/** Items of a sequence, pairs of a mapping, characters of a string; false when there is no length. */
bool template_len(const struct tval *v, size_t *out);
size_t template_utf8_len(str_t s);
size_t template_utf8_next(str_t s, size_t i); /* index after the character at i */
MUST_CHECK struct tlist *template_list_new(struct trender *r, size_t cap);
MUST_CHECK int template_list_add(struct trender *r, struct tlist *l, const struct tval *v);
MUST_CHECK struct tmap *template_map_new(struct trender *r, size_t cap);
/** The pair of that key, or NULL. */
MUST_CHECK int template_map_find(struct trender *r, const struct tmap *m, const struct tval *key,
				 struct tpair **out);
MUST_CHECK int template_map_set(struct trender *r, struct tmap *m, const struct tval *key,
				const struct tval *val);
MUST_CHECK int template_map_merge(struct trender *r, struct tmap *m, const struct tval *src);
/** Any value that can be iterated; undefined and none are empty. -1 when it cannot. */
MUST_CHECK int template_iter_init(struct trender *r, const struct tval *v, struct titer *it);
bool template_is_iterable(const struct tval *v);
bool template_iter_next(struct trender *r, struct titer *it, struct tval *out);
/** TV_MAP and TV_JOBJ: key and value. */
bool template_iter_pair(struct titer *it, struct tval *key, struct tval *val);
/** The items as a list; a TV_LIST is returned as it is and must not be changed. */
MUST_CHECK int template_list_of(struct trender *r, const struct tval *v, struct tlist **out);
/** The subject of a filter that wants a list. */
MUST_CHECK int template_list_arg(struct trender *r, const struct tval *v, struct tlist **out);
MUST_CHECK int template_list_pair(struct trender *r, const struct tval *key, const struct tval *val,
				  struct tval *out);
/* items: template_item.c */
/** What base[key] gives: undefined when there is no such item. -1 when base is undefined. */
MUST_CHECK int template_get_item(struct trender *r, const struct tval *base, const struct tval *key,
				 struct tval *out);
/** "a.b.0" taken apart. */
MUST_CHECK int template_get_path(struct trender *r, const struct tval *base, const struct tval *path,
				 struct tval *out);
MUST_CHECK int template_slice(struct trender *r, const struct tval *base, const struct tval *from,
			      const struct tval *to, const struct tval *step, struct tval *out);

/* comparing and computing: template_ops.c */
MUST_CHECK int template_compare(struct trender *r, const struct tval *a, const struct tval *b,
				int *out); /* total order */
MUST_CHECK int template_equal(struct trender *r, const struct tval *a, const struct tval *b, bool *out);
/** As template_compare; text by its lower case unless is_case_sensitive. */
MUST_CHECK int template_compare_case(struct trender *r, const struct tval *a, const struct tval *b,
				     bool is_case_sensitive, int *out);
MUST_CHECK int template_contains(struct trender *r, const struct tval *box, const struct tval *item,
				 bool *out);
MUST_CHECK int template_binary(struct trender *r, enum tbin_op op, const struct tval *a, const struct tval *b,
			       struct tval *out);
MUST_CHECK int template_negate(struct trender *r, const struct tval *v, struct tval *out);

/* text of values: template_print.c. All of them append to the scratch string. */
void template_print_int(struct trender *r, __int128 v);
MUST_CHECK int template_print(struct trender *r, const struct tval *v);	     /* as {{ v }} without escaping */
MUST_CHECK int template_print_repr(struct trender *r, const struct tval *v); /* as inside a list */
MUST_CHECK int template_print_pretty(struct trender *r, const struct tval *v, int indent);
MUST_CHECK int template_print_json(struct trender *r, const struct tval *v, int indent,
				   int level); /* indent -1: compact */
void template_print_html(struct trender *r, str_t s);
/** What a byte becomes in HTML; n is 0 for most. */
struct thtml {
	char text[7];
	uint8_t n;
};
/** Straight into the output, each byte as the table of 256 has it. */
MUST_CHECK int template_emit_html(struct trender *r, str_t s, const struct thtml *html);
/** {{ v }} into the output, escaped as the current mode asks. */
MUST_CHECK int template_emit(struct trender *r, const struct tval *v);
MUST_CHECK int template_emit_text(struct trender *r, str_t s);
/** v as a string value. */
MUST_CHECK int template_to_str(struct trender *r, const struct tval *v, struct tval *out);
/** Upper or lower case of all of Unicode, appended to the scratch string. */
void template_add_case(struct trender *r, str_t s, bool is_upper);

/* calls */
struct targs {
	struct tval *v; /* positional; of a filter or test v[0] is the value it is applied to */
	uint32_t n;
	struct tmap *kw;  /* NULL when none */
	uint64_t kw_used; /* bit per pair */
};

typedef int (*tfunc_fn)(struct trender *r, struct targs *a, struct tval *out);

struct tfunc {
	const char *name;
	tfunc_fn fn;
	uint8_t min, max; /* positional arguments, the subject included; max 255: any number */
	bool has_kw;
};

const struct tfunc *template_filter_find(str_t name);
const struct tfunc *template_test_find(str_t name);
const struct tfunc *template_global_find(str_t name);
/** Checks the number of arguments, calls, checks that no keyword argument is left over. */
MUST_CHECK int template_invoke(struct trender *r, const struct tfunc *f, struct targs *a, struct tval *out);
/** A keyword argument, or NULL. */
const struct tval *template_kw(struct targs *a, const char *name);
/** Positional argument i, or the keyword argument, or NULL. */
const struct tval *template_arg(struct targs *a, uint32_t i, const char *name);
MUST_CHECK int template_arg_str(struct trender *r, const struct tval *v, str_t *out);
bool template_arg_bool(const struct tval *v, bool def);

/* the tree: template_eval.c */
MUST_CHECK int template_eval(struct trender *r, const struct tnode *n, struct tval *out);
MUST_CHECK int template_eval_args(struct trender *r, const struct tnode *n, const struct tval *subject,
				  struct targs *a);
MUST_CHECK int template_call_value(struct trender *r, const struct tval *callee, struct targs *a,
				   struct tval *out);
/** False when nothing has that name: *out is undefined. */
bool template_name_find(struct trender *r, uint32_t name, struct tval *out);

/* statements: template_stmt.c */
/** Something holds on to s: neither it nor the scopes around it may be reused. */
void template_scope_capture(struct tscope *s);
enum texec { EXEC_ERROR = -1, EXEC_OK = 0, EXEC_BREAK, EXEC_CONTINUE };
MUST_CHECK int template_call_macro(struct trender *r, struct tmacro *m, struct targs *a, struct tval *out);
MUST_CHECK int template_call_loop(struct trender *r, struct tloop *loop, const struct tval *iterable,
				  struct tval *out);

/** The whole template, on a fresh r. On an error what it wrote is the caller's to cut off. */
MUST_CHECK int template_run_jinja(struct trender *r);
MUST_CHECK int handlebars_run(struct trender *r);

/* filters: template_filter.c has the tables */
#define FILTER(name) int template_f_##name(struct trender *r, struct targs *a, struct tval *out)
FILTER(length);
FILTER(first);
FILTER(last);
FILTER(min);
FILTER(max);
FILTER(sum);
FILTER(sort);
FILTER(unique);
FILTER(map);
FILTER(select);
FILTER(reject);
FILTER(selectattr);
FILTER(rejectattr);
FILTER(groupby);
FILTER(batch);
FILTER(slice);
FILTER(reverse);
FILTER(list);
FILTER(join);
FILTER(items);
FILTER(dictsort);
FILTER(zip);
FILTER(chain);
FILTER(upper);
FILTER(lower);
FILTER(title);
FILTER(capitalize);
FILTER(trim);
FILTER(replace);
FILTER(split);
FILTER(lines);
FILTER(indent);
FILTER(urlencode);
FILTER(striptags);
FILTER(truncate);
FILTER(normalize);
FILTER(format);
FILTER(dateformat);
FILTER(timeformat);
FILTER(datetimeformat);
#undef FILTER
