/* template.c - the life of a compiled template: one arena that holds the source, the tree and what they point
 * to. Names are numbered here, so that rendering compares numbers; one that no statement assigns is marked,
 * so that `{{ name }}` goes straight to the context. After template_compile nothing in it changes: any number
 * of threads may render it. */
#include "template/template_impl.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdlib.h>

/* --- errors --- */

/* The line that byte `at` of the source is on, what it says, and which of its characters that byte is; both
 * from 1. */
struct template_place {
	str_t text;
	uint32_t line, column;
};

static struct template_place template_place_of(const struct template *t, uint32_t at)
{
	str_t s = t->source;
	size_t end = at < s.n ? at : s.n, start = 0;
	struct template_place place = {.line = 1, .column = 1};
	for (size_t i = 0; i < end; i++) {
		if (s.p[i] == '\n') {
			place.line++;
			start = i + 1;
		}
	}
	place.column += (uint32_t)template_utf8_len(str_mk(s.p + start, end - start));
	s = str_skip(s, start);
	ptrdiff_t eol = str_chr(s, '\n', 0);
	s = eol >= 0 ? str_head(s, (size_t)eol) : s;
	if (s.n > 0 && s.p[s.n - 1] == '\r')
		s.n--;
	if (s.n > 200) {
		s.n = 200;
		while (s.n > 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
			s.n--;
	}
	place.text = s;
	return place;
}

void template_place_text(const struct template *t, uint32_t at, struct buf *out)
{
	struct template_place place = template_place_of(t, at);
	buf_printf(out, "line %u column %u", place.line, place.column);
}

int template_error(const struct template *t, enum err_kind kind, uint32_t at, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	if (at == TEMPLATE_NOWHERE) {
		err_set(kind, "%s (in template '" STR_FMT "')", text.p, STR_ARG(t->name));
	} else {
		struct template_place place = template_place_of(t, at);
		err_set(kind, "%s (in template '" STR_FMT "' line %u: '" STR_FMT "'), column %u", text.p,
			STR_ARG(t->name), place.line, STR_ARG(place.text), place.column);
	}
	buf_fini(&text);
	return -1;
}

/* --- names --- */

static void template_names_rehash(struct template *t)
{
	free(t->name_slot);
	t->n_slots = t->n_slots == 0 ? 64 : t->n_slots * 2;
	t->name_slot = xcalloc(t->n_slots, sizeof(*t->name_slot));
	for (uint32_t i = 0; i < t->n_names; i++) {
		uint32_t at = (uint32_t)str_hash(t->names[i].s) & (t->n_slots - 1);
		while (t->name_slot[at] != 0)
			at = (at + 1) & (t->n_slots - 1);
		t->name_slot[at] = i + 1;
	}
}

uint32_t template_name_intern(struct template *t, str_t s)
{
	if (t->n_names * 2 >= t->n_slots)
		template_names_rehash(t);
	uint32_t at = (uint32_t)str_hash(s) & (t->n_slots - 1);
	for (; t->name_slot[at] != 0; at = (at + 1) & (t->n_slots - 1))
		if (str_eq(t->names[t->name_slot[at] - 1].s, s))
			return t->name_slot[at] - 1;
	if (t->n_names == t->cap_names) {
		t->cap_names = t->cap_names == 0 ? 16 : t->cap_names * 2;
		t->names = xreallocarray(t->names, t->cap_names, sizeof(*t->names));
	}
	t->names[t->n_names] =
		(struct tname){.s = s, .is_loop = str_eq(s, STR("loop")), .global = template_global_find(s)};
	t->name_slot[at] = ++t->n_names;
	return t->n_names - 1;
}

/* --- compiling --- */

static int template_compile_jinja(struct template *t, str_t source)
{
	struct tparse p = {.t = t, .stack = __builtin_frame_address(0)};
	if (source.n > 0 && source.p[source.n - 1] == '\n')
		source.n--;
	if (source.n > 0 && source.p[source.n - 1] == '\r')
		source.n--;
	t->source = arena_str(&t->arena, source);
	p.lex = (struct tlex){.t = t, .p = t->source.p, .end = t->source.p + t->source.n, .mode = TK_EOF};
	if (template_lex_next(&p.lex) != 0 || template_parse_statements(&p, "", &t->body) != 0)
		return -1;
	free(t->name_slot);
	t->name_slot = NULL;
	return 0;
}

static int template_compile_source(struct template *t, str_t source)
{
	if (source.n > TEMPLATE_MAX_SOURCE)
		return template_error(t, ERR_LIMIT, TEMPLATE_NOWHERE,
				      "syntax error: the template is longer than %d bytes",
				      TEMPLATE_MAX_SOURCE);
	if (t->dialect == TEMPLATE_STATIC) {
		t->source = arena_str(&t->arena, source);
		return 0;
	}
	if (!str_is_utf8(source))
		return template_error(t, ERR_INVALID, TEMPLATE_NOWHERE,
				      "syntax error: the template is not valid UTF-8");
	return t->dialect == TEMPLATE_JINJA ? template_compile_jinja(t, source)
					    : handlebars_compile(t, source);
}

struct template *template_compile_dialect(const char *name, str_t source, enum template_dialect dialect,
					  enum template_escape escape)
{
	struct template *t = xnew(struct template);
	t->dialect = dialect;
	t->escape = escape;
	t->name = arena_str(&t->arena, str_of(name));
	if (template_compile_source(t, source) == 0)
		return t;
	template_free(t);
	return NULL;
}

struct template *template_compile_escaped(const char *name, str_t source, enum template_escape escape)
{
	return template_compile_dialect(name, source, TEMPLATE_JINJA, escape);
}

struct template *template_compile(const char *name, str_t source, bool is_html)
{
	return template_compile_escaped(name, source, is_html ? TEMPLATE_ESCAPE_HTML : TEMPLATE_ESCAPE_NONE);
}

void template_free(struct template *t)
{
	if (t == NULL)
		return;
	free(t->name_slot);
	free(t->names);
	arena_fini(&t->arena);
	free(t);
}

bool template_has_markup_of(enum template_dialect dialect, str_t source)
{
	if (dialect == TEMPLATE_STATIC)
		return false;
	for (size_t i = 0; i + 1 < source.n; i++) {
		const char *p = memchr(source.p + i, '{', source.n - i - 1);
		if (p == NULL)
			return false;
		if (p[1] == '{' || (dialect == TEMPLATE_JINJA && (p[1] == '%' || p[1] == '#')))
			return true;
		i = (size_t)(p - source.p);
	}
	return false;
}

/* --- rendering --- */

struct template_run *template_run_new(void)
{
	return xnew(struct template_run);
}

void template_run_free(struct template_run *run)
{
	if (run == NULL)
		return;
	arena_fini(&run->arena);
	buf_fini(&run->tmp);
	free(run);
}

int template_run_render(struct template_run *run, const struct template *t, const json_t *const *contexts,
			size_t n, struct buf *out)
{
	if (t->dialect == TEMPLATE_STATIC) {
		buf_add_str(out, t->source);
		return 0;
	}
	struct trender r = {.t = t,
			    .ctx = contexts,
			    .n_ctx = n,
			    .out = out,
			    .out_start = out->n,
			    .arena = run->arena,
			    .tmp = run->tmp,
			    .escape = t->escape,
			    .steps = TEMPLATE_MAX_STEPS,
			    .stack = __builtin_frame_address(0)};
	size_t likely_bytes = t->source.n + t->source.n / 8;
	buf_reserve(out, likely_bytes < TEMPLATE_FIRST_OUTPUT ? likely_bytes : TEMPLATE_FIRST_OUTPUT);
	int rc = t->dialect == TEMPLATE_JINJA ? template_run_jinja(&r) : handlebars_run(&r);
	if (rc != 0)
		buf_truncate(out, r.out_start);
	if (r.arena.chunk != NULL)
		arena_reset(&r.arena);
	run->arena = r.arena;
	buf_clear(&r.tmp);
	if (r.tmp.cap > TEMPLATE_KEPT_SCRATCH)
		buf_fini(&r.tmp);
	run->tmp = r.tmp;
	return rc;
}

int template_render_layered(const struct template *t, const json_t *const *contexts, size_t n,
			    struct buf *out)
{
	struct template_run run = {0};
	int rc = template_run_render(&run, t, contexts, n, out);
	arena_fini(&run.arena);
	buf_fini(&run.tmp);
	return rc;
}

int template_render(const struct template *t, const json_t *context, struct buf *out)
{
	return template_render_layered(t, &context, 1, out);
}
