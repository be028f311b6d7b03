/* handlebars_impl.h - what the files of the Handlebars engine share. Source -> pieces, text and tags in turn,
 * with the blanks that go with a tag already taken off the text (handlebars_split.c) -> syntax tree
 * (handlebars_parse.c, handlebars_expr.c) -> a walk over the tree per render (handlebars.c) with the helpers
 * (handlebars_helper.c) and values (handlebars_value.c). Values, budgets, scratch and errors are those of
 * template_impl.h. */
#pragma once

#include "template/template_impl.h"

enum {
	HB_MAX_ARGS = 64,  /* arguments, and hash arguments, of one call */
	HB_MAX_SEGS = 32,  /* parts of a path */
	HB_MAX_PARAMS = 8, /* names between the bars of a block */
};

/* --- pieces --- */

enum hpiece_kind {
	HP_TEXT,
	HP_EMIT,     /* {{x}} */
	HP_EMIT_RAW, /* {{{x}}}, {{&x}} */
	HP_COMMENT,
	HP_PARTIAL,	 /* {{> x}} */
	HP_OPEN,	 /* {{#x}} */
	HP_OPEN_INVERSE, /* {{^x}} */
	HP_OPEN_PARTIAL, /* {{#> x}} */
	HP_OPEN_INLINE,	 /* {{#*x}} */
	HP_OPEN_RAW,	 /* {{{{x}}}} */
	HP_DECORATOR,	 /* {{*x}} */
	HP_ELSE,	 /* {{else}}, {{^}}; with something in it: {{else if x}} */
	HP_CLOSE,	 /* {{/x}} */
	HP_CLOSE_RAW,	 /* {{{{/x}}}} */
};

struct hpiece {
	uint8_t kind;
	bool is_trim_left, is_trim_right; /* a tag's ~ */
	uint32_t at;			  /* first byte in the source */
	str_t s;      /* a text as it will be printed; the inside of a tag, without what marks its kind */
	str_t indent; /* HP_PARTIAL alone on its line: the blanks before it */
};

struct hpieces {
	struct hpiece *v;
	size_t n, cap;
};

/** The pieces are to be released with free(out->v), also after an error. */
MUST_CHECK int handlebars_split(struct template *t, struct hpieces *out);

/* --- syntax tree --- */

enum hexpr_kind { HX_CONST, HX_PATH, HX_CALL };
enum hpath_root {
	HR_CONTEXT, /* `up` contexts out of the current one */
	HR_ROOT,    /* @root */
	HR_DATA,    /* @name of the loop `up` frames out of the current one; `index` is an enum hdata_name */
	HR_PARAM,   /* block parameter `index` of the block `up` blocks (those with parameters) further out */
};

enum hdata_name { HD_UNKNOWN, HD_INDEX, HD_KEY, HD_FIRST, HD_LAST };

struct hseg {
	struct tval key; /* TV_STR */
	int64_t index;	 /* what it is as an index, or -1 */
};

struct hhelper;
struct hexpr;

struct hcall {
	const struct hhelper *helper; /* NULL: no helper but a value, args[0] */
	uint32_t n, n_hash;
	struct hexpr **args;
	struct hexpr **hash; /* each with its key */
};

struct hexpr {
	uint8_t kind;
	uint32_t at;
	struct hexpr *next; /* while a list of arguments is read */
	str_t key;	    /* the same, of an argument with a name */
	union {
		struct tval val;
		struct {
			uint8_t root; /* enum hpath_root */
			uint8_t up, index;
			uint32_t n;
			struct hseg *v;
		} path;
		struct hcall call;
	} u;
};

enum hnode_kind { HN_TEXT, HN_EMIT, HN_EMIT_RAW, HN_BLOCK, HN_PARTIAL };

struct hprogram;
struct hnode {
	uint8_t kind;
	uint32_t at;
	struct hnode *next;
	union {
		str_t text;
		struct hexpr *expr;
		struct {
			struct hcall call;
			const struct hprogram *yes, *no; /* either may be NULL */
			uint32_t n_params;		 /* names between the bars */
		} block;
		struct {
			str_t name; /* p == NULL: what name_expr gives */
			struct hexpr *name_expr;
			struct hexpr *context;	      /* NULL: the current one */
			struct hcall hash;	      /* only its hash */
			const struct hprogram *block; /* of {{#> x}} */
			str_t indent;
		} partial;
	} u;
};

struct hinline {
	struct hinline *next;
	struct hexpr *name;
	const struct hprogram *body;
	uint32_t at;
};

struct hprogram {
	struct hnode *first;
	struct hinline *inlines;
	bool is_chained; /* it stands for the rest of an else chain: first is the one block in it */
};

/* --- parsing --- */

struct hparams {
	struct hparams *up;
	str_t names[HB_MAX_PARAMS];
	uint32_t n;
};

struct hparse {
	struct template *t;
	const struct hpiece *next, *end;
	const char *p, *p_end;	/* in the tag being read */
	struct hparams *params; /* of the blocks around, innermost first */
	int depth;		/* of blocks and parentheses */
	const char *stack;
	struct hseg segs[HB_MAX_SEGS]; /* of the path being read */
};

int handlebars_fail(struct hparse *p, uint32_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);
uint32_t handlebars_at(const struct hparse *p); /* byte in the source that p->p is at */
MUST_CHECK int handlebars_enter(struct hparse *p);
void handlebars_blanks(struct hparse *p);

enum hcall_place { HC_EMIT, HC_BLOCK, HC_SUB };
/** A callee with its arguments, up to `as |` or the end of the tag (HC_SUB: up to the parenthesis). Stops
 * there. */
MUST_CHECK int handlebars_parse_call(struct hparse *p, enum hcall_place place, struct hcall *out);
/** `key=value` pairs and, before them, at most max_args arguments. */
MUST_CHECK int handlebars_parse_args(struct hparse *p, uint32_t max_args, struct hcall *out);
/** The name of a partial: a path or literal taken as it is written (name), or an expression in parentheses
 * (expr). */
MUST_CHECK int handlebars_parse_partial_name(struct hparse *p, str_t *name, struct hexpr **expr);
/** `as |a b|` where it is next. */
MUST_CHECK int handlebars_parse_params(struct hparse *p, struct hparams *out);
/** Nothing but blanks may be left in the tag. */
MUST_CHECK int handlebars_parse_end(struct hparse *p);

/* --- rendering --- */

struct hctx {
	struct tval v;
	const struct hctx *up;
};

struct hpartial;
struct hdata;
struct hframe;

/* Where a walk is. All that it points to lives on the C stack, below. */
struct henv {
	const struct hctx *ctx;
	const struct hdata *data;
	const struct hframe *params;
	const struct hpartial *partials;
};

struct hdata {
	const struct hdata *up;
	bool is_loop;
	bool is_last;
	int64_t index;
	struct tval key;
	bool has_block;		      /* @partial-block is set here: */
	const struct hprogram *block; /* NULL: there is none */
	const struct henv *block_env;
};

struct hframe { /* of block parameters */
	const struct hframe *up;
	struct tval v[2];
};

struct hpartial {
	const struct hpartial *up;
	str_t name;
	const struct hprogram *body;
	const struct hctx *ctx; /* where it was defined */
	const struct hframe *params;
};

MUST_CHECK int handlebars_eval(struct trender *r, const struct henv *env, const struct hexpr *e,
			       struct tval *out);
/** program may be NULL. v: what becomes the context, unless it is the current one. params: of the block, or
 * NULL. */
MUST_CHECK int handlebars_exec(struct trender *r, const struct henv *env, const struct hprogram *program,
			       const struct tval *v);

/* helpers */
enum hhelper_kind {
	HH_VALUE,    /* gives a value; as a block it is a condition */
	HH_NO_BLOCK, /* gives a value, and is no block */
	HH_BLOCK,    /* only a block */
};

struct hhelper {
	const char *name;
	enum hhelper_kind kind;
	bool is_bare;	  /* also without arguments: otherwise a lone name is a field */
	uint8_t min, max; /* arguments */
	const char *hash; /* the one hash argument it takes, or NULL */
	int (*value)(struct trender *r, const struct henv *env, const struct hcall *c, struct tval *out);
	/* *next: the program to go on with in the same context, in place of a recursion; NULL when all is
	 * done. */
	int (*block)(struct trender *r, const struct henv *env, const struct hnode *n,
		     const struct hprogram **next);
};

const struct hhelper *handlebars_helper_find(str_t name);
MUST_CHECK int handlebars_block_value(struct trender *r, const struct henv *env, const struct hnode *n,
				      const struct hprogram **next);

/* values */
struct tval handlebars_root(struct trender *r);
bool handlebars_is_true(const struct tval *v);
bool handlebars_is_same(const struct tval *a, const struct tval *b); /* as contexts: the same thing */
MUST_CHECK int handlebars_get(struct trender *r, const struct tval *base, const struct hseg *seg,
			      struct tval *out);
struct hseg handlebars_seg(str_t key);
/** A context with names put over it as a plain mapping; other values as they are. */
MUST_CHECK int handlebars_plain(struct trender *r, const struct tval *v, struct tval *out);
MUST_CHECK int handlebars_emit(struct trender *r, const struct tval *v, bool is_raw);
/** Appends to the scratch string. */
MUST_CHECK int handlebars_print(struct trender *r, const struct tval *v);
MUST_CHECK int handlebars_text(struct trender *r, const struct tval *v, str_t *out);
