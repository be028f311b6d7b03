/* template.c - the life of a compiled template: one arena that holds the source, the tree and what they point
 * to. Names are numbered here, so that rendering compares numbers; one that no statement assigns is marked,
 * so that `{{ name }}` goes straight to the context. After template_compile nothing in it changes: any number
 * of threads may render it. */
#include "template/template_impl.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdlib.h>

/* --- errors --- */

static str_t template_source_line(const struct template *t, uint32_t line)
{
	str_t rest = t->source, s = STR_NULL;
	while (line > 0 && str_split(&rest, '\n', &s))
		line--;
	if (s.n > 0 && s.p[s.n - 1] == '\r')
		s.n--;
	if (s.n > 200) {
		s.n = 200;
		while (s.n > 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80)
			s.n--;
	}
	return s;
}

int template_error(const struct template *t, enum err_kind kind, uint32_t line, const char *fmt, ...)
{
	struct buf text = BUF_INIT;
	str_t source = template_source_line(t, line);
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	err_set(kind, "%s (in template '" STR_FMT "' line %u: '" STR_FMT "')", text.p, STR_ARG(t->name), line,
		STR_ARG(source));
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

enum template_escape template_escape_of_name(const char *name)
{
	static const struct {
		const char *suffix;
		enum template_escape escape;
	} known[] = {
		{".html", TEMPLATE_ESCAPE_HTML},  {".htm", TEMPLATE_ESCAPE_HTML},
		{".xml", TEMPLATE_ESCAPE_HTML},	  {".json", TEMPLATE_ESCAPE_JSON},
		{".json5", TEMPLATE_ESCAPE_JSON}, {".js", TEMPLATE_ESCAPE_JSON},
		{".yaml", TEMPLATE_ESCAPE_JSON},  {".yml", TEMPLATE_ESCAPE_JSON},
	};
	str_t s = str_of(name);
	if (str_ends(s, STR(".j2")))
		s.n -= 3;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_ends(s, str_of(known[i].suffix)))
			return known[i].escape;
	return TEMPLATE_ESCAPE_NONE;
}

struct template *template_compile(const char *name, str_t source, bool is_html)
{
	return template_compile_escaped(name, source, is_html ? TEMPLATE_ESCAPE_HTML : TEMPLATE_ESCAPE_NONE);
}

struct template *template_compile_escaped(const char *name, str_t source, enum template_escape escape)
{
	struct template *t = xnew(struct template);
	struct tparse p = {.t = t, .stack = __builtin_frame_address(0)};
	t->escape = escape;
	t->name = arena_str(&t->arena, str_of(name));
	if (source.n > TEMPLATE_MAX_SOURCE) {
		template_error(t, ERR_LIMIT, 0, "syntax error: the template is longer than %d bytes",
			       TEMPLATE_MAX_SOURCE);
		goto fail;
	}
	if (!str_is_utf8(source)) {
		template_error(t, ERR_INVALID, 0, "syntax error: the template is not valid UTF-8");
		goto fail;
	}
	if (source.n > 0 && source.p[source.n - 1] == '\n')
		source.n--;
	if (source.n > 0 && source.p[source.n - 1] == '\r')
		source.n--;
	t->source = arena_str(&t->arena, source);
	p.lex = (struct tlex){
		.t = t, .p = t->source.p, .end = t->source.p + t->source.n, .line = 1, .mode = TK_EOF};
	if (template_lex_next(&p.lex) != 0 || template_parse_statements(&p, "", &t->body) != 0)
		goto fail;
	free(t->name_slot);
	t->name_slot = NULL;
	return t;
fail:
	template_free(t);
	return NULL;
}

struct template *template_compile_dialect(const char *name, str_t source, enum template_dialect dialect,
					  enum template_escape escape)
{
	if (dialect == TEMPLATE_JINJA)
		return template_compile_escaped(name, source, escape);
	err_set(ERR_UNSUPPORTED, "template '%s': this dialect is not available in this version", name);
	return NULL;
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

bool template_has_markup(str_t source)
{
	for (size_t i = 0; i + 1 < source.n; i++) {
		const char *p = memchr(source.p + i, '{', source.n - i - 1);
		if (p == NULL)
			return false;
		if (p[1] == '{' || p[1] == '%' || p[1] == '#')
			return true;
		i = (size_t)(p - source.p);
	}
	return false;
}
