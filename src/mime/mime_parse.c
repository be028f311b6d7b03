/* mime_parse.c - one pass over the lines. Open multiparts stand on a stack, outermost first; a line that
 * begins with "--" is compared with their boundaries, by hash, innermost first. A delimiter of an outer
 * multipart ends all inner ones. At each moment one part is read: its fields, its content (or, of a
 * multipart, the preamble) or what comes after its last delimiter; `region` is where that began, and it ends
 * before the line end that the next delimiter takes with it (RFC 2046 section 5.1.1). */
#include "mime/mime_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdlib.h>

#define BOUNDARY_READ_MAX 250 /* longer than the RFC's 70 are read */

enum parse_state {
	PARSE_FIELDS,
	PARSE_CONTENT,
	PARSE_EPILOGUE,
};
struct parse_level {
	struct mime_part *part;
	uint32_t hash;
};
struct mime_parser {
	str_t all;
	struct parse_level level[MIME_DEPTH_MAX];
	size_t n_levels;
	struct mime_part *cur;
	enum parse_state state;
	size_t region;
	size_t closing; /* where the last delimiter of cur begins; PARSE_EPILOGUE */
	size_t n_parts, n_fields;
};

struct parse_line {
	size_t start, next;
	str_t text; /* without its end */
};

static struct parse_line line_at(const struct mime_parser *m, size_t at)
{
	const char *p = m->all.p + at, *nl = memchr(p, '\n', m->all.n - at);
	size_t n = nl != NULL ? (size_t)(nl - p) : m->all.n - at;
	struct parse_line l = {at, at + n + (nl != NULL), str_mk(p, n)};
	if (nl != NULL && l.text.n > 0 && p[l.text.n - 1] == '\r')
		l.text.n--;
	return l;
}

static str_t slice(const struct mime_parser *m, size_t from, size_t to)
{
	return str_mk(m->all.p + from, to - from);
}

static uint32_t boundary_hash(str_t s)
{
	uint32_t h = 2166136261u; /* FNV-1a */
	for (size_t i = 0; i < s.n; i++)
		h = (h ^ (unsigned char)s.p[i]) * 16777619u;
	return h;
}

/* --- delimiters --- */

/* Index of the open multipart that the boundary belongs to, or -1. */
static ptrdiff_t level_find(const struct mime_parser *m, str_t boundary)
{
	if (boundary.n == 0 || boundary.n > BOUNDARY_READ_MAX)
		return -1;
	uint32_t hash = boundary_hash(boundary);
	for (size_t i = m->n_levels; i > 0; i--)
		if (m->level[i - 1].hash == hash && str_eq(str_of(m->level[i - 1].part->boundary), boundary))
			return (ptrdiff_t)i - 1;
	return -1;
}

static ptrdiff_t delimiter_find(const struct mime_parser *m, str_t text, bool *is_last)
{
	if (m->n_levels == 0 || text.n < 3 || text.p[0] != '-' || text.p[1] != '-')
		return -1;
	text = str_skip(text, 2);
	while (text.n > 0 &&
	       (text.p[text.n - 1] == ' ' || text.p[text.n - 1] == '\t' || text.p[text.n - 1] == '\r'))
		text.n--;
	*is_last = false;
	ptrdiff_t found = level_find(m, text);
	if (found < 0 && str_ends(text, STR("--"))) {
		*is_last = true;
		found = level_find(m, str_head(text, text.n - 2));
	}
	return *is_last || m->n_parts < MIME_PARTS_MAX ? found : -1;
}

static void part_make_leaf(struct mime_part *p)
{
	free(p->boundary);
	p->boundary = NULL;
	p->preamble = p->closing = STR_NULL;
}

/* A name and nothing else. */
static bool line_is_bare_name(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= ' ' || s.p[i] >= 0x7f || s.p[i] == ':')
			return false;
	return s.n > 0 && s.n <= 76 && s.p[0] != '-';
}

static void fields_split(struct mime_part *p)
{
	for (size_t i = 0; i < p->n_fields; i++) {
		struct mime_field *f = &p->field[i];
		if (!mime_field_split(f) && line_is_bare_name(str_trim(f->whole)))
			f->name = str_trim(f->whole);
	}
}

/* Ends what is being read. */
static void region_end(struct mime_parser *m, size_t end)
{
	struct mime_part *p = m->cur;
	switch (m->state) {
	case PARSE_FIELDS:
		if (p->n_fields > 0) { /* the delimiter takes the last field's line end */
			struct mime_field *f = &p->field[p->n_fields - 1];
			f->whole.n = (size_t)(m->all.p + end - f->whole.p);
		}
		fields_split(p);
		p->content = slice(m, end, end);
		break;
	case PARSE_CONTENT:
		p->content = p->preamble = slice(m, m->region, end);
		break;
	case PARSE_EPILOGUE:
		p->closing = slice(m, m->closing, end);
		if (p->n_children == 0) { /* an end without a beginning */
			p->content = slice(m, (size_t)(p->preamble.p - m->all.p), end);
			part_make_leaf(p);
		}
		break;
	}
}

/* Closes the multiparts above level n: their last delimiter is missing. One that never had a delimiter is a
 * part without children. */
static void levels_pop(struct mime_parser *m, size_t n, size_t end)
{
	for (; m->n_levels > n; m->n_levels--) {
		struct mime_part *p = m->level[m->n_levels - 1].part;
		p->closing = slice(m, end, end);
		if (p->n_children == 0)
			part_make_leaf(p);
	}
}

static void parse_delimiter(struct mime_parser *m, const struct parse_line *l, size_t level, bool is_last)
{
	size_t end = l->start;
	if (end > m->region && m->all.p[end - 1] == '\n') {
		end--;
		if (end > m->region && m->all.p[end - 1] == '\r')
			end--;
	}
	region_end(m, end);
	struct mime_part *p = m->level[level].part;
	levels_pop(m, level + 1, end);
	if (is_last) {
		m->n_levels = level;
		m->cur = p;
		m->state = PARSE_EPILOGUE;
		m->closing = end;
	} else {
		m->cur = mime_part_add_child(p, slice(m, end, l->next));
		m->cur->is_digest = mime_part_is_type(p, STR("multipart/digest"));
		m->state = PARSE_FIELDS;
		m->n_parts++;
	}
	m->region = l->next;
}

/* --- fields --- */

static bool line_is_field(str_t s)
{
	struct mime_field f = {.whole = s};
	return mime_field_split(&f);
}

static void fields_append(struct mime_parser *m, const struct parse_line *l)
{
	struct mime_part *p = m->cur;
	if (m->n_fields >= MIME_FIELDS_MAX && p->n_fields > 0) {
		p->field[p->n_fields - 1].whole.n += l->next - l->start;
		return;
	}
	*mime_field_grow(p) = (struct mime_field){.whole = slice(m, l->start, l->next)};
	m->n_fields++;
}

/* The section is over: the fields are split, a multipart goes onto the stack. */
static void fields_end(struct mime_parser *m, size_t content)
{
	struct mime_part *p = m->cur;
	fields_split(p);
	m->state = PARSE_CONTENT;
	m->region = content;
	const struct mime_field *f = mime_field_first(p, STR("Content-Type"));
	if (f == NULL || m->n_levels == MIME_DEPTH_MAX ||
	    !str_istarts(str_trim(f->raw_value), STR("multipart/")) ||
	    !mime_part_is_type(p, STR("multipart/")))
		return;
	struct buf scratch = BUF_INIT;
	str_t boundary = str_trim(mime_part_param(p, STR("Content-Type"), STR("boundary"), &scratch));
	if (boundary.n > 0 && boundary.n <= BOUNDARY_READ_MAX && memchr(boundary.p, 0, boundary.n) == NULL) {
		p->boundary = str_dup(boundary);
		m->level[m->n_levels++] = (struct parse_level){p, boundary_hash(boundary)};
	}
	buf_fini(&scratch);
}

/* False: the line is content already, there was no empty line. */
static bool parse_field_line(struct mime_parser *m, const struct parse_line *l)
{
	struct mime_part *p = m->cur;
	str_t text = l->text;
	if (text.n == 0 && l->next > l->start) {
		p->separator = slice(m, l->start, l->next);
		fields_end(m, l->next);
		return true;
	}
	if (p->n_fields > 0 && text.n > 0 && (text.p[0] == ' ' || text.p[0] == '\t')) {
		p->field[p->n_fields - 1].whole.n += l->next - l->start;
		return true;
	}
	bool is_mbox = l->start == 0 && str_starts(text, STR("From "));
	bool is_field = line_is_field(text) || is_mbox;
	if (!is_field && line_is_bare_name(text) && l->next < m->all.n) {
		struct parse_line next = line_at(m, l->next);
		is_field = p->n_fields > 0 || next.text.n == 0 || line_is_field(next.text);
	}
	if (is_field) {
		fields_append(m, l);
		return true;
	}
	fields_end(m, l->start);
	return false;
}

/* --- the pass --- */

static void parse_line(struct mime_parser *m, const struct parse_line *l)
{
	bool is_last;
	ptrdiff_t level = delimiter_find(m, l->text, &is_last);
	if (level < 0 && m->state == PARSE_FIELDS && !parse_field_line(m, l))
		level = delimiter_find(m, l->text, &is_last); /* of the multipart that has just begun */
	if (level >= 0)
		parse_delimiter(m, l, (size_t)level, is_last);
}

struct mime_part *mime_part_parse(str_t bytes)
{
	struct mime_part *root = mime_part_new();
	root->source = mime_source_new(bytes);
	struct mime_parser m = {.all = str_mk(root->source->p, bytes.n), .cur = root, .n_parts = 1};
	for (size_t at = 0; at < m.all.n;) {
		struct parse_line l = line_at(&m, at);
		parse_line(&m, &l);
		at = l.next;
	}
	if (m.state == PARSE_FIELDS)
		fields_end(&m, m.all.n);
	region_end(&m, m.all.n);
	levels_pop(&m, 0, m.all.n);
	return root;
}
