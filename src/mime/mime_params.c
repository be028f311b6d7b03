/* mime_params.c - parameters are first collected as they come, each with its section number (name*1), then
 * those of one name are put together in the order of their sections: sorted, so that a header with thousands
 * of them costs no more than it is long. */
#include "mime/mime_params.h"

#include "base/err.h"
#include "base/text.h"
#include "mime/charset.h"
#include "mime/header.h"
#include "mime/header_lex.h"

#include <stdlib.h>

#define PARAMS_MAX 4096 /* further ones are not read */
#define SECTION_NONE UINT32_MAX

struct param_piece {
	str_t name;	  /* lower case */
	uint32_t section; /* SECTION_NONE: the whole value */
	bool is_extended; /* percent-encoded, with a charset if it is the first */
	uint32_t order;	  /* of appearance */
	str_t value;	  /* quotes and escapes removed */
};

static str_t params_keep(struct mime_params *p, str_t s)
{
	return arena_str(&p->arena, s);
}

static str_t params_keep_lower(struct mime_params *p, str_t s)
{
	char *z = arena_alloc(&p->arena, s.n + 1);
	for (size_t i = 0; i < s.n; i++)
		z[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 32 : s.p[i]);
	z[s.n] = 0;
	return str_mk(z, s.n);
}

static bool is_value_byte(unsigned char c)
{
	return c != ';' && c != '(' && c != '"';
}

static bool is_name_byte(unsigned char c)
{
	return c != '=' && c != ';' && c != '(' && c != ' ' && c != '\t' && c != '\r' && c != '\n';
}

static bool is_not_semicolon(unsigned char c)
{
	return c != ';';
}

/* Up to the semicolon, comments left out: tokens that may have blanks in them. */
static void params_read_text(struct header_lex *l, struct buf *out)
{
	for (;;) {
		header_unfold(header_lex_run(l, is_value_byte), out);
		if (header_lex_peek(l) == '"')
			header_lex_quoted(l, out);
		else if (header_lex_peek(l) == '(')
			header_lex_skip(l, NULL);
		else
			return;
	}
}

/* "name", "name*", "name*3", "name*3*". */
static void piece_set_name(struct mime_params *p, struct param_piece *piece, str_t name)
{
	piece->section = SECTION_NONE;
	if (name.n > 1 && name.p[name.n - 1] == '*') {
		piece->is_extended = true;
		name.n--;
	}
	ptrdiff_t star = str_chr(name, '*', 0);
	uint64_t section;
	if (star > 0 && str_to_u64(str_skip(name, (size_t)star + 1), &section) && section < PARAMS_MAX) {
		piece->section = (uint32_t)section;
		name.n = (size_t)star;
	}
	piece->name = params_keep_lower(p, name);
}

static size_t params_read_pieces(struct mime_params *p, struct header_lex *l, struct param_piece *piece)
{
	struct buf value = BUF_INIT;
	size_t n = 0;
	while (header_lex_eat(l, ';')) {
		header_lex_skip(l, NULL);
		str_t name = header_lex_run(l, is_name_byte);
		header_lex_skip(l, NULL);
		if (name.n == 0 || !header_lex_eat(l, '=')) {
			header_lex_run(l, is_not_semicolon); /* no parameter */
			continue;
		}
		header_lex_skip(l, NULL);
		buf_clear(&value);
		bool is_quoted = header_lex_peek(l) == '"';
		if (is_quoted) {
			header_lex_quoted(l, &value);
			header_lex_run(l, is_not_semicolon);
		} else {
			params_read_text(l, &value);
		}
		if (n == PARAMS_MAX)
			continue;
		piece[n] = (struct param_piece){.order = (uint32_t)n};
		piece_set_name(p, &piece[n], name);
		piece[n].value = params_keep(p, is_quoted ? buf_str(&value) : str_trim(buf_str(&value)));
		n++;
	}
	buf_fini(&value);
	return n;
}

static int piece_compare(const void *a, const void *b)
{
	const struct param_piece *x = a, *y = b;
	int c = str_cmp(x->name, y->name);
	if (c == 0)
		c = (x->section > y->section) - (x->section < y->section);
	return c != 0 ? c : (x->order > y->order) - (x->order < y->order);
}

static int param_compare_order(const void *a, const void *b)
{
	const struct param_piece *x = a, *y = b;
	return (x->order > y->order) - (x->order < y->order);
}

/* %HH where it is one. */
static void percent_decode_lenient(str_t s, struct buf *out)
{
	for (size_t i = 0; i < s.n; i++) {
		bool is_escape = s.p[i] == '%' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 &&
				 hex_digit(s.p[i + 2]) >= 0;
		buf_add_c(out,
			  is_escape ? (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2])) : s.p[i]);
		i += is_escape ? 2 : 0;
	}
}

/* charset'language'text */
static str_t extended_cut_charset(str_t *value)
{
	ptrdiff_t q1 = str_chr(*value, '\'', 0), q2 = q1 >= 0 ? str_chr(*value, '\'', (size_t)q1 + 1) : -1;
	if (q2 < 0)
		return STR_NULL;
	str_t charset = str_head(*value, (size_t)q1);
	*value = str_skip(*value, (size_t)q2 + 1);
	return charset;
}

/* The value of the pieces of one name, which are sections from 0 on, or one that is whole. */
static void pieces_decode(const struct param_piece *piece, size_t n, struct buf *out)
{
	struct buf raw = BUF_INIT;
	str_t charset = STR_NULL, first = piece[0].value;
	bool is_extended = piece[0].is_extended;
	if (is_extended)
		charset = extended_cut_charset(&first);
	for (size_t i = 0; i < n; i++) {
		str_t value = i == 0 ? first : piece[i].value;
		is_extended = is_extended || piece[i].is_extended;
		if (piece[i].is_extended)
			percent_decode_lenient(value, &raw);
		else
			buf_add_str(&raw, value);
	}
	if (!is_extended && str_find(buf_str(&raw), STR("=?")) >= 0)
		header_decode_lenient(buf_str(&raw), out);
	else
		charset_to_utf8_lenient(charset, buf_str(&raw), out);
	buf_fini(&raw);
}

/* piece is sorted. Each run of one name becomes its first piece; a name in the form of RFC 2231 wins over the
 * plain one, which those who send both make for old readers. Returns how many are left. */
static size_t params_join(struct mime_params *p, struct param_piece *piece, size_t n)
{
	struct buf value = BUF_INIT;
	size_t n_out = 0, end;
	for (size_t i = 0; i < n; i = end) {
		size_t n_sections = 0, whole = n;
		for (end = i; end < n && str_eq(piece[end].name, piece[i].name); end++) {
			if (piece[end].section == SECTION_NONE &&
			    (whole == n || (piece[end].is_extended && !piece[whole].is_extended)))
				whole = end;
			if (end == i + n_sections && piece[end].section == n_sections)
				n_sections++;
		}
		if (n_sections == 0 && whole == n)
			continue; /* sections, but not the first one */
		uint32_t order = piece[i].order;
		for (size_t k = i; k < end; k++)
			order = piece[k].order < order ? piece[k].order : order;
		bool is_whole = n_sections == 0 || (whole < n && piece[whole].is_extended);
		buf_clear(&value);
		pieces_decode(is_whole ? &piece[whole] : &piece[i], is_whole ? 1 : n_sections, &value);
		piece[n_out] = (struct param_piece){
			.name = piece[i].name, .value = params_keep(p, buf_str(&value)), .order = order};
		n_out++;
	}
	buf_fini(&value);
	qsort(piece, n_out, sizeof *piece, param_compare_order);
	return n_out;
}

int mime_params_parse(str_t value, struct mime_params *out)
{
	struct mime_params p = {.arena = ARENA_INIT};
	struct header_lex l = {value, 0};
	struct buf text = BUF_INIT;
	header_lex_skip(&l, NULL);
	params_read_text(&l, &text);
	str_t main_value = str_trim(buf_str(&text));
	if (main_value.n == 0) {
		err_set(ERR_INVALID, "invalid header: there is no value before the parameters");
		buf_fini(&text);
		return -1;
	}
	struct buf utf8 = BUF_INIT;
	charset_to_utf8_lenient(STR(""), main_value, &utf8);
	p.value = params_keep(&p, buf_str(&utf8));
	buf_fini(&utf8);
	buf_fini(&text);
	size_t n_max = 0;
	for (size_t i = l.at; i < value.n && n_max < PARAMS_MAX; i++)
		n_max += value.p[i] == ';';
	struct param_piece *piece = arena_alloc(&p.arena, (n_max + 1) * sizeof *piece);
	size_t n = params_read_pieces(&p, &l, piece);
	qsort(piece, n, sizeof *piece, piece_compare);
	n = params_join(&p, piece, n);
	p.param = arena_alloc(&p.arena, (n + 1) * sizeof *p.param);
	for (p.n = 0; p.n < n; p.n++)
		p.param[p.n] = (struct mime_param){piece[p.n].name, piece[p.n].value};
	*out = p;
	return 0;
}

void mime_params_fini(struct mime_params *p)
{
	arena_fini(&p->arena);
	*p = (struct mime_params){0};
}

str_t mime_params_get(const struct mime_params *p, str_t name)
{
	for (size_t i = 0; i < p->n; i++)
		if (str_eq(p->param[i].name, name))
			return p->param[i].value;
	return STR_NULL;
}

void mime_params_set(struct mime_params *p, str_t name, str_t value)
{
	size_t i = 0;
	while (i < p->n && !str_eq(p->param[i].name, name))
		i++;
	if (value.p == NULL) {
		if (i < p->n) {
			memmove(&p->param[i], &p->param[i + 1], (p->n - i - 1) * sizeof *p->param);
			p->n--;
		}
		return;
	}
	if (i == p->n) { /* rare, and a few at most: no capacity is kept */
		struct mime_param *v = arena_alloc(&p->arena, (p->n + 1) * sizeof *v);
		if (p->n > 0)
			memcpy(v, p->param, p->n * sizeof *v);
		p->param = v;
		p->param[p->n++].name = params_keep_lower(p, name);
	}
	p->param[i].value = params_keep(p, value);
}

static bool token_is_whole(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!header_is_token((unsigned char)s.p[i]))
			return false;
	return s.n > 0 && s.n <= 200;
}

static bool param_name_is_valid(str_t s)
{
	return token_is_whole(s) && str_chr(s, '*', 0) < 0 && str_chr(s, '\'', 0) < 0 &&
	       str_chr(s, '%', 0) < 0;
}

int mime_params_check(const struct mime_params *p)
{
	ptrdiff_t slash = str_chr(p->value, '/', 0);
	bool is_ok = slash < 0 ? token_is_whole(p->value)
			       : token_is_whole(str_head(p->value, (size_t)slash)) &&
					 token_is_whole(str_skip(p->value, (size_t)slash + 1));
	if (!is_ok) {
		err_set(ERR_INVALID, "invalid header: `" STR_FMT "` cannot stand before parameters",
			STR_ARG(str_head(p->value, 80)));
		return -1;
	}
	for (size_t i = 0; i < p->n; i++) {
		const struct mime_param *m = &p->param[i];
		bool is_name = param_name_is_valid(m->name);
		if (!is_name || header_has_controls(m->value) || !str_is_utf8(m->value)) {
			err_set(ERR_INVALID,
				"invalid header: parameter `" STR_FMT "` has a %s that it cannot have",
				STR_ARG(str_head(m->name, 80)), is_name ? "value" : "name");
			return -1;
		}
	}
	return 0;
}

void mime_params_clean(struct mime_params *p)
{
	struct buf b = BUF_INIT;
	ptrdiff_t slash = str_chr(p->value, '/', 0);
	for (size_t i = 0; i < p->value.n && i < 200; i++)
		buf_add_c(&b, header_is_token((unsigned char)p->value.p[i]) || (ptrdiff_t)i == slash
				      ? p->value.p[i]
				      : '_');
	if (slash == 0 || b.p[b.n - 1] == '/')
		b.p[slash < 200 ? slash : 199] = '_';
	p->value = params_keep(p, buf_str(&b));
	size_t n = 0;
	for (size_t i = 0; i < p->n; i++) {
		if (!param_name_is_valid(p->param[i].name))
			continue;
		buf_clear(&b);
		for (size_t k = 0; k < p->param[i].value.n; k++) {
			unsigned char c = (unsigned char)p->param[i].value.p[k];
			buf_add_c(&b, (c < 0x20 && c != '\t') || c == 0x7f ? '_' : (char)c);
		}
		p->param[n++] = (struct mime_param){p->param[i].name, params_keep(p, buf_str(&b))};
	}
	p->n = n;
	buf_fini(&b);
}

void mime_params_write(const struct mime_params *p, struct header_writer *w)
{
	header_write_token(w, p->value);
	for (size_t i = 0; i < p->n; i++)
		header_write_param(w, p->param[i].name, p->param[i].value);
}
