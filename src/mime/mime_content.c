/* mime_content.c - what a part is and what is in it: types, parameters, decoding, replacing; parts made from
 * content, and the parts that a reader shows. A text that is replaced becomes UTF-8 or ASCII and says so in
 * its charset. */
#include "mime/mime_impl.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "mime/charset.h"
#include "mime/header.h"
#include "mime/header_lex.h"
#include "mime/message_id.h"

#include <stdlib.h>

#define FILE_NAME_MAX 1024

/* --- types and parameters --- */

static void buf_add_lower(struct buf *out, str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_c(out, (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 32 : s.p[i]));
}

void mime_part_type(const struct mime_part *p, struct buf *out)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Type"));
	struct mime_params params;
	size_t before = out->n;
	if (f != NULL && mime_params_parse(f->raw_value, &params) == 0) {
		ptrdiff_t slash = str_chr(params.value, '/', 0);
		if (slash > 0 && (size_t)slash + 1 < params.value.n)
			buf_add_lower(out, params.value);
		mime_params_fini(&params);
	}
	err_clear();
	if (out->n == before)
		buf_add_z(out, f == NULL && p->is_digest ? "message/rfc822" : "text/plain");
}

bool mime_part_is_type(const struct mime_part *p, str_t type)
{
	struct buf own = BUF_INIT;
	mime_part_type(p, &own);
	bool is_it = str_ends(type, STR("/")) ? str_starts(buf_str(&own), type) : str_eq(buf_str(&own), type);
	buf_fini(&own);
	return is_it;
}

enum transfer_encoding mime_part_encoding(const struct mime_part *p)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Transfer-Encoding"));
	enum transfer_encoding e = TRANSFER_7BIT;
	struct mime_params params;
	if (f != NULL && mime_params_parse(f->raw_value, &params) == 0) {
		if (!transfer_parse(params.value, &e))
			e = TRANSFER_BINARY;
		mime_params_fini(&params);
	}
	err_clear();
	return e;
}

str_t mime_part_param(const struct mime_part *p, str_t field, str_t param, struct buf *scratch)
{
	const struct mime_field *f = mime_field_first(p, field);
	struct mime_params params;
	if (f == NULL || mime_params_parse(f->raw_value, &params) != 0) {
		err_clear();
		return STR_NULL;
	}
	str_t value = mime_params_get(&params, param);
	bool is_there = value.p != NULL;
	buf_clear(scratch);
	buf_add_str(scratch, value);
	mime_params_fini(&params);
	return !is_there ? STR_NULL : scratch->n > 0 ? buf_str(scratch) : STR("");
}

/* --- decoding --- */

void mime_part_decode(const struct mime_part *p, struct buf *out)
{
	if (p->boundary == NULL) {
		transfer_decode(mime_part_encoding(p), p->content, out);
		return;
	}
	struct buf all = BUF_INIT;
	mime_part_write(p, &all);
	buf_add_str(out, str_skip(buf_str(&all), header_section_end(buf_str(&all))));
	buf_fini(&all);
}

void mime_part_decode_text(const struct mime_part *p, struct buf *out)
{
	if (p->boundary != NULL || !mime_part_is_type(p, STR("text/"))) {
		mime_part_decode(p, out);
		return;
	}
	struct buf bytes = BUF_INIT, scratch = BUF_INIT;
	mime_part_decode(p, &bytes);
	str_t charset = mime_part_param(p, STR("Content-Type"), STR("charset"), &scratch);
	if (!charset_to_utf8(charset.n > 0 ? charset : STR("utf-8"), buf_str(&bytes), out))
		buf_add_str(out, buf_str(&bytes));
	buf_fini(&bytes);
	buf_fini(&scratch);
}

/* --- replacing --- */

static void mime_part_set_params(struct mime_part *p, str_t name, const struct mime_params *params)
{
	struct buf whole = BUF_INIT;
	struct header_writer w;
	header_write_begin(&w, &whole, name);
	mime_params_write(params, &w);
	header_write_end(&w);
	mime_field_set(p, buf_str(&whole));
	buf_fini(&whole);
}

static void mime_part_set_encoding(struct mime_part *p, enum transfer_encoding e)
{
	struct buf whole = BUF_INIT;
	if (e == TRANSFER_7BIT) {
		mime_field_remove(p, STR("Content-Transfer-Encoding"));
		return;
	}
	buf_printf(&whole, "Content-Transfer-Encoding: %s\r\n", transfer_name(e));
	mime_field_set(p, buf_str(&whole));
	buf_fini(&whole);
}

/* What the charset of a text must be, or NULL: it may stay. */
static const char *charset_wanted(const struct mime_params *params, bool is_ascii)
{
	str_t charset = mime_params_get(params, STR("charset"));
	bool is_utf8 = str_ieq(charset, STR("utf-8"));
	if (is_ascii)
		return charset.p == NULL || is_utf8 || str_ieq(charset, STR("us-ascii")) ? NULL : "us-ascii";
	return is_utf8 ? NULL : "utf-8";
}

static enum transfer_encoding encoding_for(str_t content, const struct transfer_scan *scan, bool is_text,
					   bool is_message)
{
	if (is_message && !scan->has_nul && scan->longest_line <= TRANSFER_LINE_MAX)
		return scan->is_ascii ? TRANSFER_7BIT : TRANSFER_8BIT;
	if (!is_text)
		return TRANSFER_BASE64;
	enum transfer_encoding e = transfer_for_text(content, scan, TRANSFER_LINE_MAX);
	return e == TRANSFER_7BIT && scan->has_dash_line ? TRANSFER_QP
							 : e; /* what could be a boundary is encoded */
}

/* A message that stays as it is may have the boundary of a multipart around it. */
static void mime_part_protect_boundaries(struct mime_part *p)
{
	for (struct mime_part *a = p->parent; a != NULL; a = a->parent) {
		struct buf all = BUF_INIT;
		if (mime_boundary_is_in(str_of(a->boundary), p->content)) {
			mime_part_write(a, &all);
			mime_part_set_boundary(a, mime_boundary_new(buf_str(&all)));
		}
		buf_fini(&all);
	}
}

int mime_part_set_body(struct mime_part *p, str_t content, str_t type)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Type"));
	bool is_utf8 = str_is_utf8(content) && (content.n == 0 || memchr(content.p, 0, content.n) == NULL);
	str_t wanted = type.p != NULL ? type
		       : f != NULL    ? f->raw_value
		       : is_utf8      ? STR("text/plain")
				      : STR("application/octet-stream");
	struct mime_params params;
	if (mime_params_parse(wanted, &params) != 0) {
		if (type.p != NULL)
			return -1;
		err_clear();
		if (mime_params_parse(STR("text/plain"), &params) != 0)
			panic("text/plain is no type");
	}
	if (type.p != NULL && (mime_params_check(&params) != 0 || str_chr(params.value, '/', 0) < 0)) {
		if (!err_is(ERR_INVALID))
			err_set(ERR_INVALID, "`" STR_FMT "` is no type", STR_ARG(str_head(type, 80)));
		mime_params_fini(&params);
		return -1;
	}
	if (str_istarts(params.value, STR("multipart/")) || (type.p == NULL && p->boundary != NULL)) {
		err_set(ERR_INVALID, "the content of a multipart is its parts: "
				     "give another content type, or change the parts");
		mime_params_fini(&params);
		return -1;
	}
	struct transfer_scan scan = transfer_scan(content);
	bool is_text = str_istarts(params.value, STR("text/")) && is_utf8;
	enum transfer_encoding e =
		encoding_for(content, &scan, is_text, str_istarts(params.value, STR("message/")));
	const char *charset = is_text ? charset_wanted(&params, scan.is_ascii) : NULL;
	if (charset != NULL)
		mime_params_set(&params, STR("charset"), str_of(charset));
	struct buf encoded = BUF_INIT;
	if (e == TRANSFER_BASE64 && !is_text)
		transfer_encode_base64(content, &encoded);
	else
		transfer_encode_text(e, content, &encoded);
	mime_part_drop_children(p);
	mime_part_own_content(p, buf_str(&encoded));
	if (type.p != NULL || f == NULL || charset != NULL)
		mime_part_set_params(p, STR("Content-Type"), &params);
	mime_part_set_encoding(p, e);
	mime_field_remove(p, STR("Content-MD5"));
	p->is_touched = true;
	if (scan.has_dash_line)
		mime_part_protect_boundaries(p);
	mime_params_fini(&params);
	buf_fini(&encoded);
	return 0;
}

/* --- making --- */

struct mime_part *mime_part_new_text(str_t type, str_t text)
{
	struct mime_params params;
	struct mime_part *p = NULL;
	if (!str_is_utf8(text)) {
		err_set(ERR_INVALID, "the text is not UTF-8");
		return NULL;
	}
	if (mime_params_parse(type, &params) != 0)
		return NULL;
	if (mime_params_get(&params, STR("charset")).p == NULL && str_istarts(params.value, STR("text/")))
		mime_params_set(&params, STR("charset"),
				transfer_scan(text).is_ascii ? STR("us-ascii") : STR("utf-8"));
	if (str_chr(params.value, '/', 0) < 0) {
		err_set(ERR_INVALID, "`" STR_FMT "` is no type", STR_ARG(str_head(params.value, 80)));
	} else if (mime_params_check(&params) == 0) {
		p = mime_part_new();
		mime_part_set_params(p, STR("Content-Type"), &params);
		if (mime_part_set_body(p, text, STR_NULL) != 0) {
			mime_part_unref(p);
			p = NULL;
		}
	}
	mime_params_fini(&params);
	return p;
}

static int mime_part_set_disposition(struct mime_part *p, const struct mime_disposition *d)
{
	struct buf whole = BUF_INIT;
	struct header_writer w;
	if (d->file_name.p != NULL && (header_has_controls(d->file_name) || !str_is_utf8(d->file_name) ||
				       d->file_name.n > FILE_NAME_MAX)) {
		err_set(ERR_INVALID, "file_name: must be UTF-8 without controls, of at most 1024 bytes");
		return -1;
	}
	if (d->content_id.p != NULL && !message_id_is_valid(d->content_id)) {
		err_set(ERR_INVALID, "content_id: must be without blanks, controls and angle brackets");
		return -1;
	}
	header_write_begin(&w, &whole, STR("Content-Disposition"));
	header_write_token(&w, d->is_inline ? STR("inline") : STR("attachment"));
	if (d->file_name.n > 0)
		header_write_param(&w, STR("filename"), d->file_name);
	header_write_end(&w);
	mime_field_set(p, buf_str(&whole));
	if (d->content_id.p != NULL) {
		buf_clear(&whole);
		header_write_begin(&w, &whole, STR("Content-ID"));
		message_id_write(&w, d->content_id);
		header_write_end(&w);
		mime_field_set(p, buf_str(&whole));
	}
	buf_fini(&whole);
	return 0;
}

struct mime_part *mime_part_new_binary(str_t type, str_t data, const struct mime_disposition *d)
{
	struct mime_params params;
	struct mime_part *p = mime_part_new();
	struct buf name = BUF_INIT, encoded = BUF_INIT;
	bool is_ok = mime_params_parse(type, &params) == 0;
	if (is_ok) {
		is_ok = mime_params_check(&params) == 0;
		if (is_ok &&
		    (str_istarts(params.value, STR("multipart/")) || str_chr(params.value, '/', 0) < 0)) {
			err_set(ERR_INVALID, "`" STR_FMT "` is no type that data can have",
				STR_ARG(str_head(params.value, 80)));
			is_ok = false;
		}
		if (is_ok)
			mime_part_set_params(p, STR("Content-Type"), &params);
		mime_params_fini(&params);
	}
	if (is_ok) {
		struct transfer_scan scan = transfer_scan(data);
		enum transfer_encoding e =
			encoding_for(data, &scan, false, mime_part_is_type(p, STR("message/")));
		if (e == TRANSFER_BASE64)
			transfer_encode_base64(data, &encoded);
		else
			transfer_encode_text(e, data, &encoded);
		mime_part_own_content(p, buf_str(&encoded));
		mime_part_set_encoding(p, e);
		is_ok = !d->is_given || mime_part_set_disposition(p, d) == 0;
	}
	buf_fini(&name);
	buf_fini(&encoded);
	if (is_ok)
		return p;
	mime_part_unref(p);
	return NULL;
}

/* --- composing --- */

static bool part_is_related(const struct mime_part *p)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Disposition"));
	return f != NULL && str_istarts(str_trim(f->raw_value), STR("inline"));
}

/* A multipart of the first n parts that are not NULL; their owner lets them go. */
static struct mime_part *compose_multipart(const char *subtype, const char *stable_boundary,
					   struct mime_part **part, size_t n)
{
	struct buf type = BUF_INIT;
	buf_printf(&type, "multipart/%s", subtype);
	struct mime_part *p = mime_part_new_multipart(
		buf_str(&type), stable_boundary != NULL ? str_of(stable_boundary) : STR_NULL);
	buf_fini(&type);
	bool is_ok = p != NULL;
	for (size_t i = 0; i < n; i++) {
		is_ok = is_ok && mime_part_append(p, part[i]) == 0;
		mime_part_unref(part[i]);
	}
	if (is_ok)
		return p;
	mime_part_unref(p);
	return NULL;
}

static struct mime_part *compose_related(const struct mime_composition *c)
{
	struct mime_part **part = xcalloc(c->n_attachments + 1, sizeof(struct mime_part *));
	size_t n = 0;
	part[n++] = mime_part_copy(c->html);
	for (size_t i = 0; i < c->n_attachments; i++)
		if (part_is_related(c->attachment[i]))
			part[n++] = mime_part_copy(c->attachment[i]);
	struct mime_part *p = n == 1 ? part[0]
				     : compose_multipart("related; type=\"text/html\"",
							 c->is_stable ? "mr-boundary" : NULL, part, n);
	free(part);
	return p;
}

static struct mime_part *compose_texts(const struct mime_composition *c)
{
	struct mime_part *part[3];
	size_t n = 0;
	if (c->html != NULL) {
		part[2] = compose_related(c);
		if (part[2] == NULL)
			return NULL;
	}
	if (c->text != NULL)
		part[n++] = mime_part_copy(c->text);
	if (c->amp != NULL)
		part[n++] = mime_part_copy(c->amp);
	if (c->html != NULL)
		part[n] = part[2], n++;
	if (n == 0)
		return mime_part_new_text(STR("text/plain"), STR(""));
	return n == 1 ? part[0]
		      : compose_multipart("alternative", c->is_stable ? "ma-boundary" : NULL, part, n);
}

static struct mime_part *compose_mixed(const struct mime_composition *c)
{
	struct mime_part **part = xcalloc(c->n_attachments + 1, sizeof(struct mime_part *)), *p = NULL;
	bool has_texts = c->text != NULL || c->amp != NULL || c->html != NULL;
	size_t n = 0;
	for (size_t i = 0; i < c->n_attachments; i++)
		if (c->html == NULL || !part_is_related(c->attachment[i]))
			part[n + 1] = c->attachment[i], n++;
	if (n == 0) {
		p = compose_texts(c);
		free(part);
		return p;
	}
	for (size_t i = 1; i <= n; i++)
		part[i] = mime_part_copy(part[i]);
	if (has_texts)
		part[0] = compose_texts(c);
	if (!has_texts || part[0] != NULL) {
		p = compose_multipart("mixed", c->is_stable ? "mm-boundary" : NULL,
				      has_texts ? part : part + 1, has_texts ? n + 1 : n);
	} else {
		for (size_t i = 1; i <= n; i++)
			mime_part_unref(part[i]);
	}
	free(part);
	return p;
}

struct mime_part *mime_part_compose(const struct mime_composition *c)
{
	struct mime_part *p = compose_mixed(c);
	if (p == NULL)
		return NULL;
	struct buf date = BUF_INIT;
	buf_add_z(&date, "Date: ");
	if (c->is_stable)
		buf_add_z(&date, "Tue, 1 Jul 2003 10:52:37 +0200");
	else
		wall_fmt_rfc2822(wall_now(), &date);
	buf_add_z(&date, "\r\n");
	mime_field_append(p, STR("MIME-Version: 1.0\r\n"));
	mime_field_append(p, buf_str(&date));
	buf_fini(&date);
	return p;
}

/* --- structure --- */

static str_t structure_keep(struct mime_structure *s, str_t value)
{
	return value.p != NULL ? arena_str(&s->arena, value) : STR_NULL;
}

static bool part_has_disposition(const struct mime_part *p, str_t which)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Disposition"));
	struct mime_params params;
	bool is_it = false;
	if (f != NULL && mime_params_parse(f->raw_value, &params) == 0) {
		is_it = str_ieq(params.value, which);
		mime_params_fini(&params);
	}
	err_clear();
	return is_it;
}

static void structure_attach(struct mime_structure *s, size_t *cap, struct mime_part *p)
{
	struct buf scratch = BUF_INIT;
	if (s->n_attached == *cap) {
		*cap = *cap == 0 ? 8 : *cap * 2;
		struct mime_attached *v = arena_alloc(&s->arena, *cap * sizeof *v);
		if (s->n_attached > 0)
			memcpy(v, s->attached, s->n_attached * sizeof *v);
		s->attached = v;
	}
	struct mime_attached *a = &s->attached[s->n_attached++];
	*a = (struct mime_attached){.part = p, .is_inline = part_has_disposition(p, STR("inline"))};
	a->file_name =
		structure_keep(s, mime_part_param(p, STR("Content-Disposition"), STR("filename"), &scratch));
	if (a->file_name.p == NULL)
		a->file_name =
			structure_keep(s, mime_part_param(p, STR("Content-Type"), STR("name"), &scratch));
	const struct mime_field *id = mime_field_first(p, STR("Content-ID"));
	str_t value;
	if (id != NULL && message_id_parse(id->raw_value, &value) == 0)
		a->content_id = structure_keep(s, value);
	else if (id != NULL)
		a->content_id = structure_keep(s, str_trim(id->raw_value));
	err_clear();
	buf_clear(&scratch);
	mime_part_type(p, &scratch);
	a->type = structure_keep(s, buf_str(&scratch));
	buf_fini(&scratch);
}

static void structure_visit(struct mime_structure *s, size_t *cap, struct mime_part *p)
{
	if (p->boundary != NULL) {
		for (size_t i = 0; i < p->n_children; i++)
			structure_visit(s, cap, p->child[i].part);
		return;
	}
	if (!part_has_disposition(p, STR("attachment"))) {
		struct mime_part **slot = mime_part_is_type(p, STR("text/plain"))	 ? &s->text
					  : mime_part_is_type(p, STR("text/html"))	 ? &s->html
					  : mime_part_is_type(p, STR("text/x-amp-html")) ? &s->amp
											 : NULL;
		if (slot != NULL && *slot == NULL) {
			*slot = p;
			return;
		}
	}
	structure_attach(s, cap, p);
}

void mime_part_structure(struct mime_part *root, struct mime_structure *out)
{
	size_t cap = 0;
	*out = (struct mime_structure){.arena = ARENA_INIT, .header = root};
	structure_visit(out, &cap, root);
}

void mime_structure_fini(struct mime_structure *s)
{
	arena_fini(&s->arena);
}
