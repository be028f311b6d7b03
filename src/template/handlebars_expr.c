/* handlebars_expr.c - what stands inside a tag: paths, literals, calls with their arguments, block
 * parameters. Names are resolved here as far as they can be: whether one is a helper, a block parameter or a
 * field is known from the source alone, so a call of something that is no helper, or with arguments that it
 * does not take, is an error of the template and not of some render of it. */
#include "template/handlebars_impl.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdlib.h>

uint32_t handlebars_at(const struct hparse *p)
{
	return (uint32_t)(p->p - p->t->source.p);
}

int handlebars_fail(struct hparse *p, uint32_t at, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	template_error(p->t, ERR_INVALID, at, "syntax error: %s", text.p);
	buf_fini(&text);
	return -1;
}

int handlebars_enter(struct hparse *p)
{
	const char *here = __builtin_frame_address(0);
	size_t used = (size_t)(p->stack > here ? p->stack - here : here - p->stack);
	if (++p->depth > TEMPLATE_MAX_DEPTH || used > TEMPLATE_MAX_STACK)
		return handlebars_fail(p, handlebars_at(p), "template exceeds maximum recursion limits");
	return 0;
}

/* --- characters --- */

static bool expr_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool expr_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool expr_is_name(char c)
{
	return !expr_is_blank(c) && strchr("!\"#%&'()*+,./;<=>@[\\]^`{|}~", c) == NULL;
}

void handlebars_blanks(struct hparse *p)
{
	while (p->p < p->p_end && expr_is_blank(*p->p))
		p->p++;
}

static bool expr_is(const struct hparse *p, char c)
{
	return p->p < p->p_end && *p->p == c;
}

/* After a name or literal: the next character must be one that ends it. */
static bool expr_is_end(const struct hparse *p, const char *at)
{
	return at >= p->p_end || expr_is_blank(*at) || strchr(")|=", *at) != NULL;
}

static int expr_unexpected(struct hparse *p, const char *expected)
{
	if (p->p >= p->p_end)
		return handlebars_fail(p, handlebars_at(p), "unexpected end of tag, expected %s", expected);
	str_t rest = str_mk(p->p, (size_t)(p->p_end - p->p));
	size_t n = template_utf8_next(rest, 0);
	return handlebars_fail(p, handlebars_at(p), "unexpected `" STR_FMT "`, expected %s", (int)n, rest.p,
			       expected);
}

int handlebars_parse_end(struct hparse *p)
{
	handlebars_blanks(p);
	return p->p < p->p_end ? expr_unexpected(p, "end of tag") : 0;
}

/* --- literals --- */

static struct hexpr *expr_new(struct hparse *p, enum hexpr_kind kind)
{
	struct hexpr *e = arena_zalloc(&p->t->arena, sizeof(*e));
	e->kind = (uint8_t)kind;
	e->at = handlebars_at(p);
	return e;
}

/* At a quote: the text up to the next of its kind that has no backslash before it. */
static int expr_string(struct hparse *p, str_t *out)
{
	const char *start = p->p, *q = start + 1;
	bool has_escape = false;
	for (; q < p->p_end && *q != *start; q++) {
		if (*q == '\\' && q + 1 < p->p_end && q[1] == *start) {
			has_escape = true;
			q++;
		}
	}
	if (q >= p->p_end)
		return handlebars_fail(p, handlebars_at(p), "a string is not closed");
	str_t s = str_mk(start + 1, (size_t)(q - start) - 1);
	p->p = q + 1;
	if (has_escape) {
		char *text = arena_alloc(&p->t->arena, s.n), *o = text;
		for (size_t i = 0; i < s.n; i++) {
			if (s.p[i] == '\\' && i + 1 < s.n && s.p[i + 1] == *start)
				i++;
			*o++ = s.p[i];
		}
		s = str_mk(text, (size_t)(o - text));
	}
	*out = s;
	return 0;
}

/* A number where there is one: digits with an optional minus and fraction, and nothing behind that a name
 * could have. */
static bool expr_number(struct hparse *p, struct tval *out)
{
	const char *q = p->p + (*p->p == '-');
	bool is_float = false;
	if (q >= p->p_end || !expr_is_digit(*q))
		return false;
	while (q < p->p_end && expr_is_digit(*q))
		q++;
	if (q + 1 < p->p_end && *q == '.' && expr_is_digit(q[1])) {
		is_float = true;
		for (q++; q < p->p_end && expr_is_digit(*q); q++)
			;
	}
	if (!expr_is_end(p, q) || (q < p->p_end && *q == '='))
		return false;
	str_t s = str_mk(p->p, (size_t)(q - p->p));
	int64_t i;
	double d;
	if (!is_float && str_to_i64(s, &i))
		*out = tval_int(i);
	else if (s.n < 400 && str_to_double(s, &d))
		*out = tval_float(d);
	else
		return false;
	p->p = q;
	return true;
}

static bool expr_word(struct hparse *p, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(p->p_end - p->p) < n || memcmp(p->p, word, n) != 0 || !expr_is_end(p, p->p + n))
		return false;
	const char *next = p->p + n;
	while (next < p->p_end && expr_is_blank(*next))
		next++;
	if (next < p->p_end && *next == '=') /* the name of a hash argument */
		return false;
	p->p += n;
	return true;
}

/* 1 with a literal, 0 when there is none, -1. */
static int expr_literal(struct hparse *p, struct tval *out)
{
	static const struct {
		const char *word;
		struct tval val;
	} words[] = {
		{"true", {.kind = TV_BOOL, .u.b = true}},
		{"false", {.kind = TV_BOOL}},
		{"null", {.kind = TV_NONE}},
		{"undefined", {.kind = TV_UNDEF}},
	};
	str_t s;
	if (p->p >= p->p_end)
		return 0;
	if (*p->p == '"' || *p->p == '\'') {
		if (expr_string(p, &s) != 0)
			return -1;
		*out = tval_str(s);
		return 1;
	}
	if (expr_number(p, out))
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (expr_word(p, words[i].word)) {
			*out = words[i].val;
			return 1;
		}
	}
	return 0;
}

/* --- paths --- */

static bool expr_is_segment_start(const struct hparse *p)
{
	return p->p < p->p_end && (*p->p == '[' || expr_is_name(*p->p));
}

/* A name, or what is between square brackets. */
static int expr_segment(struct hparse *p, str_t *out, bool *is_quoted)
{
	const char *start = p->p, *q = start;
	*is_quoted = expr_is(p, '[');
	if (*is_quoted) {
		for (q++; q < p->p_end && *q != ']'; q++)
			if (*q == '\\' && q + 1 < p->p_end && q[1] == ']')
				q++;
		if (q >= p->p_end)
			return handlebars_fail(p, handlebars_at(p), "a `[` is not closed");
		*out = str_mk(start + 1, (size_t)(q - start) - 1);
		p->p = q + 1;
		if (memchr(out->p, '\\', out->n) != NULL) {
			char *text = arena_alloc(&p->t->arena, out->n), *o = text;
			for (size_t i = 0; i < out->n; i++)
				if (out->p[i] != '\\' || i + 1 == out->n || out->p[i + 1] != ']')
					*o++ = out->p[i];
			*out = str_mk(text, (size_t)(o - text));
		}
		return 0;
	}
	while (q < p->p_end && expr_is_name(*q))
		q++;
	if (q == start)
		return expr_unexpected(p, "a name");
	*out = str_mk(start, (size_t)(q - start));
	p->p = q;
	return 0;
}

/* "..", "." and "this" at the start of a path, with the separator behind them. False when another thing is
 * next. */
static bool expr_step(struct hparse *p, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(p->p_end - p->p) < n || memcmp(p->p, word, n) != 0)
		return false;
	const char *after = p->p + n;
	if (after < p->p_end && *after != '/' && *after != '.' && !expr_is_end(p, after))
		return false;
	p->p = after;
	return true;
}

struct expr_path {
	uint32_t n; /* in the parser's segs */
	uint32_t up;
	bool is_scoped; /* this.x, ./x, ../x: a field, whatever helpers and block parameters there are */
	bool is_quoted; /* the first segment stands in brackets */
};

/* At a path without its @. */
static int expr_path_parts(struct hparse *p, struct expr_path *path)
{
	uint32_t start = handlebars_at(p);
	bool is_more = true;
	*path = (struct expr_path){0};
	while (is_more) {
		str_t name;
		bool is_quoted, is_step = true;
		if (expr_step(p, "..")) {
			if (++path->up > TEMPLATE_MAX_DEPTH)
				return handlebars_fail(p, start, "too many `..` in a path");
		} else if (!expr_step(p, ".") && !expr_step(p, "this")) {
			is_step = false;
		}
		if (is_step && path->n > 0)
			return handlebars_fail(p, start, "`this`, `.` and `..` may only start a path");
		if (is_step)
			path->is_scoped = true;
		if (!is_step) {
			if (path->n == HB_MAX_SEGS)
				return handlebars_fail(p, start, "a path has too many parts");
			if (expr_segment(p, &name, &is_quoted) != 0)
				return -1;
			path->is_quoted |= is_quoted && path->n == 0;
			p->segs[path->n++] = handlebars_seg(name);
		}
		is_more = expr_is(p, '.') || expr_is(p, '/');
		p->p += is_more;
	}
	if (p->p < p->p_end && !expr_is_end(p, p->p))
		return expr_unexpected(p, "the end of a path");
	return 0;
}

static void expr_path_take(struct hparse *p, struct hexpr *e, const struct expr_path *path, uint32_t skip)
{
	e->u.path.n = path->n - skip;
	e->u.path.v = arena_alloc(&p->t->arena, (e->u.path.n + 1) * sizeof(struct hseg));
	if (e->u.path.n > 0)
		memcpy(e->u.path.v, p->segs + skip, e->u.path.n * sizeof(struct hseg));
}

/* The block parameter of that name: how many blocks out, and which. */
static bool expr_param_find(const struct hparse *p, str_t name, uint32_t *up, uint32_t *index)
{
	*up = 0;
	for (const struct hparams *b = p->params; b != NULL; b = b->up, ++*up)
		for (uint32_t i = 0; i < b->n; i++)
			if (str_eq(b->names[i], name)) {
				*index = i;
				return true;
			}
	return false;
}

static enum hdata_name expr_data_name(str_t name)
{
	static const char *const names[] = {
		[HD_INDEX] = "index", [HD_KEY] = "key", [HD_FIRST] = "first", [HD_LAST] = "last"};
	for (int i = HD_INDEX; i <= HD_LAST; i++)
		if (str_eq(name, str_of(names[i])))
			return (enum hdata_name)i;
	return HD_UNKNOWN;
}

static struct hexpr *expr_path_make(struct hparse *p, struct hexpr *e, const struct expr_path *path,
				    bool is_data)
{
	uint32_t up, index, skip = 0;
	e->kind = HX_PATH;
	e->u.path.up = (uint8_t)path->up;
	if (is_data && path->up == 0 && path->n > 0 && str_eq(tval_text(&p->segs[0].key), STR("root"))) {
		e->u.path.root = HR_ROOT;
		skip = 1;
	} else if (is_data) {
		e->u.path.root = HR_DATA;
		e->u.path.index = (uint8_t)expr_data_name(tval_text(&p->segs[0].key));
		skip = 1;
	} else if (!path->is_scoped && path->n > 0 &&
		   expr_param_find(p, tval_text(&p->segs[0].key), &up, &index)) {
		e->u.path.root = HR_PARAM;
		e->u.path.up = (uint8_t)up;
		e->u.path.index = (uint8_t)index;
		skip = 1;
	}
	expr_path_take(p, e, path, skip);
	return e;
}

static struct hexpr *expr_path(struct hparse *p, struct expr_path *path)
{
	struct hexpr *e = expr_new(p, HX_PATH);
	bool is_data = expr_is(p, '@');
	p->p += is_data;
	if (!is_data && !expr_is_segment_start(p) && !expr_is(p, '.')) {
		expr_unexpected(p, "an expression");
		return NULL;
	}
	if (expr_path_parts(p, path) != 0)
		return NULL;
	if (is_data && path->n == 0) {
		handlebars_fail(p, e->at, "a name must follow the `@`");
		return NULL;
	}
	path->is_scoped |= is_data;
	return expr_path_make(p, e, path, is_data);
}

/* --- calls --- */

static struct hexpr *handlebars_parse_expr(struct hparse *p)
{
	struct expr_path path;
	handlebars_blanks(p);
	struct hexpr *e = expr_new(p, HX_CONST);
	if (!expr_is(p, '(')) {
		int rc = expr_literal(p, &e->u.val);
		return rc < 0 ? NULL : rc > 0 ? e : expr_path(p, &path);
	}
	if (handlebars_enter(p) != 0)
		return NULL;
	p->p++;
	e->kind = HX_CALL;
	if (handlebars_parse_call(p, HC_SUB, &e->u.call) != 0)
		return NULL;
	if (!expr_is(p, ')')) {
		expr_unexpected(p, "`)`");
		return NULL;
	}
	p->p++;
	p->depth--;
	return e->u.call.helper == NULL ? e->u.call.args[0] : e;
}

/* `key=` where it is next. */
static bool expr_hash_key(struct hparse *p, str_t *key)
{
	const char *start = p->p;
	bool is_quoted;
	if (!expr_is_segment_start(p) || expr_segment(p, key, &is_quoted) != 0) {
		err_clear(); /* the same thing is then read as an expression, and fails there */
		p->p = start;
		return false;
	}
	handlebars_blanks(p);
	if (expr_is(p, '=')) {
		p->p++;
		return true;
	}
	p->p = start;
	return false;
}

static bool expr_is_params(const struct hparse *p)
{
	const char *q = p->p;
	if (p->p_end - q < 3 || q[0] != 'a' || q[1] != 's' || !expr_is_blank(q[2]))
		return false;
	for (q += 2; q < p->p_end && expr_is_blank(*q); q++)
		;
	return q < p->p_end && *q == '|';
}

static struct hexpr **expr_list_take(struct hparse *p, struct hexpr *first, uint32_t n)
{
	struct hexpr **v = arena_alloc(&p->t->arena, (n + 1) * sizeof(*v));
	for (uint32_t i = 0; i < n; i++, first = first->next)
		v[i] = first;
	return v;
}

int handlebars_parse_args(struct hparse *p, uint32_t max_args, struct hcall *out)
{
	struct hexpr *args = NULL, *hash = NULL, **args_end = &args, **hash_end = &hash, *e;
	str_t key;
	for (;;) {
		handlebars_blanks(p);
		if (p->p >= p->p_end || expr_is(p, ')') || expr_is_params(p))
			break;
		uint32_t at = handlebars_at(p);
		bool is_hash = expr_hash_key(p, &key);
		if (is_hash ? out->n_hash == HB_MAX_ARGS : out->n == max_args)
			return handlebars_fail(p, at, "too many arguments");
		if (!is_hash && out->n_hash > 0)
			return handlebars_fail(p, at,
					       "an argument without a name must come before those with one");
		if ((e = handlebars_parse_expr(p)) == NULL)
			return -1;
		if (is_hash) {
			e->key = key;
			*hash_end = e;
			hash_end = &e->next;
			out->n_hash++;
		} else {
			*args_end = e;
			args_end = &e->next;
			out->n++;
		}
	}
	out->args = expr_list_take(p, args, out->n);
	out->hash = expr_list_take(p, hash, out->n_hash);
	return 0;
}

static int expr_check_call(struct hparse *p, uint32_t at, enum hcall_place place, const struct hcall *c)
{
	const struct hhelper *h = c->helper;
	if (h->kind == HH_BLOCK && place != HC_BLOCK)
		return handlebars_fail(p, at, "`%s` is a block: {{#%s ...}}", h->name, h->name);
	if (h->kind == HH_NO_BLOCK && place == HC_BLOCK)
		return handlebars_fail(p, at, "`%s` is not a block: {{%s ...}}", h->name, h->name);
	if (c->n < h->min || c->n > h->max)
		return handlebars_fail(p, at, "`%s` takes %s%d argument%s, not %u", h->name,
				       h->min == h->max ? ""
				       : c->n < h->min	? "at least "
							: "at most ",
				       c->n < h->min ? h->min : h->max,
				       (c->n < h->min ? h->min : h->max) == 1 ? "" : "s", c->n);
	for (uint32_t i = 0; i < c->n_hash; i++)
		if (h->hash == NULL || !str_eq(c->hash[i]->key, str_of(h->hash)))
			return handlebars_fail(p, at, "`%s` takes no argument named `" STR_FMT "`", h->name,
					       STR_ARG(c->hash[i]->key));
	return 0;
}

/* A callee that is a literal is the field of that name. */
static struct hexpr *expr_literal_field(struct hparse *p, struct hexpr *e, const char *start)
{
	struct expr_path path = {.n = 1};
	str_t s = e->u.val.kind == TV_STR ? tval_text(&e->u.val) : str_mk(start, (size_t)(p->p - start));
	p->segs[0] = handlebars_seg(s);
	e->kind = HX_PATH;
	e->u.path.root = HR_CONTEXT;
	e->u.path.up = 0;
	expr_path_take(p, e, &path, 0);
	return e;
}

int handlebars_parse_call(struct hparse *p, enum hcall_place place, struct hcall *out)
{
	struct expr_path path = {0};
	struct hexpr *callee;
	handlebars_blanks(p);
	*out = (struct hcall){0};
	uint32_t at = handlebars_at(p);
	const char *start = p->p;
	if (expr_is(p, '(')) {
		callee = handlebars_parse_expr(p); /* {{(helper x)}}: its value */
	} else {
		struct hexpr *e = expr_new(p, HX_CONST);
		int rc = expr_literal(p, &e->u.val);
		callee = rc < 0 ? NULL : rc > 0 ? expr_literal_field(p, e, start) : expr_path(p, &path);
	}
	if (callee == NULL)
		return -1;
	str_t name = str_mk(start, (size_t)(p->p - start));
	const struct hhelper *helper = NULL;
	if (path.n == 1 && !path.is_scoped && callee->u.path.root != HR_PARAM)
		helper = handlebars_helper_find(tval_text(&p->segs[0].key));
	if (handlebars_parse_args(p, HB_MAX_ARGS, out) != 0)
		return -1;
	bool is_called = out->n + out->n_hash > 0 ||
			 (helper != NULL && (helper->is_bare || (place == HC_BLOCK && helper->max == 0)));
	if (helper != NULL && is_called) {
		out->helper = helper;
		return expr_check_call(p, at, place, out);
	}
	if (out->n + out->n_hash > 0)
		return handlebars_fail(p, at, "unknown helper: there is no helper `" STR_FMT "`",
				       STR_ARG(name));
	out->args[0] = callee; /* there is room for one */
	out->n = 1;
	return 0;
}

int handlebars_parse_partial_name(struct hparse *p, str_t *name, struct hexpr **expr)
{
	handlebars_blanks(p);
	*expr = NULL;
	if (expr_is(p, '('))
		return (*expr = handlebars_parse_expr(p)) != NULL ? 0 : -1;
	if (expr_is(p, '"') || expr_is(p, '\''))
		return expr_string(p, name);
	const char *start = p->p;
	bool is_quoted;
	if (expr_is(p, '['))
		return expr_segment(p, name, &is_quoted);
	while (p->p < p->p_end && (expr_is_name(*p->p) || *p->p == '.' || *p->p == '/' || *p->p == '@'))
		p->p++;
	*name = str_mk(start, (size_t)(p->p - start));
	return name->n > 0 && expr_is_end(p, p->p) ? 0 : expr_unexpected(p, "the name of a partial");
}

int handlebars_parse_params(struct hparse *p, struct hparams *out)
{
	bool is_quoted;
	out->n = 0;
	handlebars_blanks(p);
	if (!expr_is_params(p))
		return 0;
	for (p->p += 2; !expr_is(p, '|'); p->p++)
		;
	p->p++;
	for (;;) {
		handlebars_blanks(p);
		if (expr_is(p, '|') && out->n > 0) {
			p->p++;
			return 0;
		}
		if (out->n == HB_MAX_PARAMS)
			return handlebars_fail(p, handlebars_at(p), "too many block parameters");
		if (expr_is(p, '[') || expr_segment(p, &out->names[out->n++], &is_quoted) != 0)
			return expr_is(p, '[') ? expr_unexpected(p, "a name") : -1;
	}
}
