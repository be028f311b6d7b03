/* mime_conform.c - issues are found in the tree as it was parsed. Headers that are missing are added, and
 * nothing else is touched; for any other issue the whole message is rebuilt from the tree, part by part.
 * Messages in messages are rebuilt in turn, while all levels together are no more than LEVELS_MAX: fibers
 * have small stacks.
 *
 * A signature is over the exact bytes of a part (RFC 1847), so what is below a multipart/signed stays as it
 * is while SMTP can carry it, even with lines of more than 78 bytes. */
#include "mime/mime_conform.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "mime/charset.h"
#include "mime/header_value.h"
#include "mime/message_id.h"
#include "mime/mime_impl.h"

#include <stdlib.h>

#define LINE_COLUMNS 78
#define LEVELS_MAX 80
#define NAME_MAX_BYTES 900

/* --- names --- */

static const struct {
	str_t name;
	unsigned issue;
} issue_names[] = {
	{STR("LINE_TOO_LONG"), MIME_LINE_TOO_LONG},
	{STR("MISSING_COLON_VALUE"), MIME_MISSING_COLON_VALUE},
	{STR("MISSING_DATE_HEADER"), MIME_MISSING_DATE_HEADER},
	{STR("MISSING_MESSAGE_ID_HEADER"), MIME_MISSING_MESSAGE_ID_HEADER},
	{STR("MISSING_MIME_VERSION"), MIME_MISSING_MIME_VERSION},
	{STR("NAME_ENDS_WITH_SPACE"), MIME_NAME_ENDS_WITH_SPACE},
	{STR("NEEDS_TRANSFER_ENCODING"), MIME_NEEDS_TRANSFER_ENCODING},
	{STR("NON_CANONICAL_LINE_ENDINGS"), MIME_NON_CANONICAL_LINE_ENDINGS},
};

void mime_issues_write(unsigned issues, struct buf *out)
{
	bool is_first = true;
	for (size_t i = 0; i < ARRAY_SIZE(issue_names); i++) {
		if ((issues & issue_names[i].issue) == 0)
			continue;
		buf_add_z(out, is_first ? "" : "|");
		buf_add_str(out, issue_names[i].name);
		is_first = false;
	}
}

int mime_issues_parse(str_t text, unsigned *out)
{
	unsigned issues = 0;
	str_t rest = str_trim(text), word;
	while (rest.n > 0 && str_split(&rest, '|', &word)) {
		size_t i = 0;
		word = str_trim(word);
		while (i < ARRAY_SIZE(issue_names) && !str_eq(issue_names[i].name, word))
			i++;
		if (i == ARRAY_SIZE(issue_names)) {
			struct buf all = BUF_INIT;
			mime_issues_write(~0u, &all);
			err_set(ERR_INVALID, "`" STR_FMT "` is no conformance issue: these are " STR_FMT,
				STR_ARG(str_head(word, 80)), STR_ARG(buf_str(&all)));
			buf_fini(&all);
			return -1;
		}
		issues |= issue_names[i].issue;
	}
	*out = issues;
	return 0;
}

/* --- looking --- */

static unsigned scan_issues(str_t bytes, size_t longest)
{
	struct transfer_scan scan = transfer_scan(bytes);
	return (scan.longest_line > longest ? MIME_LINE_TOO_LONG : 0) |
	       (!scan.is_canonical ? MIME_NON_CANONICAL_LINE_ENDINGS : 0) |
	       (!scan.is_ascii || scan.has_nul ? MIME_NEEDS_TRANSFER_ENCODING : 0);
}

static unsigned part_issues(const struct mime_part *p)
{
	unsigned found = 0;
	for (size_t i = 0; i < p->n_fields; i++) {
		const struct mime_field *f = &p->field[i];
		found |= f->name.n > 0 && !f->has_colon ? MIME_MISSING_COLON_VALUE : 0;
		found |= f->has_space ? MIME_NAME_ENDS_WITH_SPACE : 0;
	}
	found |= scan_issues(p->boundary == NULL ? p->content : p->preamble, LINE_COLUMNS);
	for (size_t i = 0; i < p->n_children; i++)
		found |= part_issues(p->child[i].part);
	return found;
}

static bool field_is(const struct mime_field *f, str_t value)
{
	struct mime_params params;
	if (f == NULL || mime_params_parse(f->raw_value, &params) != 0) {
		err_clear();
		return false;
	}
	bool is_it = str_eq(params.value, value);
	mime_params_fini(&params);
	return is_it;
}

unsigned mime_part_issues(const struct mime_part *root)
{
	unsigned found = part_issues(root);
	if (root->source != NULL)
		found |= scan_issues(str_mk(root->source->p, root->source->n_bytes), TRANSFER_LINE_MAX);
	found |= mime_field_first(root, STR("Date")) == NULL ? MIME_MISSING_DATE_HEADER : 0;
	found |= mime_field_first(root, STR("Message-ID")) == NULL ? MIME_MISSING_MESSAGE_ID_HEADER : 0;
	found |= !field_is(mime_field_first(root, STR("MIME-Version")), STR("1.0"))
			 ? MIME_MISSING_MIME_VERSION
			 : 0;
	return found;
}

/* --- rebuilding --- */

struct rebuild {
	const struct mime_charsets *charsets;
	size_t n_levels; /* above the part at hand, messages around this one counted */
};

static struct mime_part *rebuild_part(const struct rebuild *r, const struct mime_part *p, bool is_signed,
				      bool may_keep);
static void rebuild_check_boundaries(struct mime_part *p);

static bool bytes_are_clean(str_t bytes, size_t longest)
{
	return scan_issues(bytes, longest) == 0;
}

/* Text of no known charset as UTF-8; true when it was not UTF-8 before. */
static bool rebuild_guess(const struct rebuild *r, str_t bytes, struct buf *out)
{
	if (str_is_utf8(bytes)) {
		buf_add_str(out, bytes);
		return false;
	}
	for (size_t i = 0; r->charsets != NULL && i < r->charsets->n; i++)
		if (charset_to_utf8(r->charsets->try_first[i], bytes, out))
			return true;
	charset_to_utf8_lenient(STR(""), bytes, out);
	return true;
}

static void rebuild_field(const struct rebuild *r, const struct mime_field *f, struct mime_part *out)
{
	struct buf whole = BUF_INIT, value = BUF_INIT;
	if (f->name.n > 0 && f->name.n <= NAME_MAX_BYTES) {
		rebuild_guess(r, f->raw_value, &value);
		header_write_again(&whole, f->name, buf_str(&value));
		mime_field_append(out, buf_str(&whole));
	}
	buf_fini(&whole);
	buf_fini(&value);
}

/* The charset that the text has now: utf-8, unless it may stay as it is. */
static void rebuild_charset(struct mime_part *out, bool is_utf8)
{
	struct buf scratch = BUF_INIT;
	const struct mime_field *f = mime_field_first(out, STR("Content-Type"));
	struct mime_params params;
	if (!is_utf8)
		return;
	if (f == NULL || mime_params_parse(f->raw_value, &params) != 0) {
		err_clear();
		mime_field_set(out, STR("Content-Type: text/plain; charset=\"utf-8\"\r\n"));
		return;
	}
	struct header_writer w;
	mime_params_set(&params, STR("charset"), STR("utf-8"));
	header_write_begin(&w, &scratch, STR("Content-Type"));
	mime_params_write(&params, &w);
	header_write_end(&w);
	mime_field_set(out, buf_str(&scratch));
	mime_params_fini(&params);
	buf_fini(&scratch);
}

static void rebuild_set_encoding(struct mime_part *out, enum transfer_encoding e)
{
	struct buf whole = BUF_INIT;
	mime_field_remove(out, STR("Content-Transfer-Encoding"));
	if (e != TRANSFER_7BIT && e != TRANSFER_8BIT) {
		buf_printf(&whole, "Content-Transfer-Encoding: %s\r\n", transfer_name(e));
		mime_field_append(out, buf_str(&whole));
	}
	buf_fini(&whole);
}

/* Text that has lost its transfer encoding: its charset is
 * set right, and it gets the encoding that it needs. */
static void rebuild_text(const struct rebuild *r, const struct mime_part *p, str_t bytes,
			 struct mime_part *out)
{
	struct buf scratch = BUF_INIT, utf8 = BUF_INIT, encoded = BUF_INIT;
	struct transfer_scan scan = transfer_scan(bytes);
	str_t charset = mime_part_param(p, STR("Content-Type"), STR("charset"), &scratch);
	bool is_ascii_only = charset.n == 0 || str_ieq(charset, STR("us-ascii"));
	bool is_wrong = false;
	if (!scan.is_ascii && is_ascii_only) {
		is_wrong = true;
	} else if (!scan.is_ascii && charset_is_known(charset)) {
		is_wrong = !charset_to_utf8(charset, bytes, &utf8);
	}
	if (is_wrong) {
		buf_clear(&utf8);
		rebuild_guess(r, bytes, &utf8);
		bytes = buf_str(&utf8);
		scan = transfer_scan(bytes);
		rebuild_charset(out, true);
	}
	enum transfer_encoding e = transfer_for_text(bytes, &scan, LINE_COLUMNS);
	if (scan.has_nul)
		e = TRANSFER_BASE64; /* UTF-16 perhaps: no line ends to be changed */
	else if (e == TRANSFER_7BIT && scan.has_dash_line)
		e = TRANSFER_QP;
	if (scan.has_nul)
		transfer_encode_base64(bytes, &encoded);
	else
		transfer_encode_text(e, bytes, &encoded);
	mime_part_own_content(out, buf_str(&encoded));
	rebuild_set_encoding(out, e);
	buf_fini(&scratch);
	buf_fini(&utf8);
	buf_fini(&encoded);
}

/* False: it is nested too deeply. */
static bool rebuild_message(const struct rebuild *r, const struct mime_part *p, struct mime_part *out)
{
	size_t n_parts = 0;
	struct mime_part *was = mime_part_parse(p->content);
	bool has_room = r->n_levels + mime_part_measure(was, &n_parts) <= LEVELS_MAX;
	if (has_room) {
		struct buf bytes = BUF_INIT;
		struct mime_part *now = rebuild_part(r, was, false, true);
		rebuild_check_boundaries(now);
		mime_part_write(now, &bytes);
		mime_part_own_content(out, buf_str(&bytes));
		rebuild_set_encoding(out, TRANSFER_7BIT);
		mime_part_unref(now);
		buf_fini(&bytes);
	}
	mime_part_unref(was);
	return has_room;
}

static void rebuild_leaf(const struct rebuild *r, const struct mime_part *p, struct mime_part *out)
{
	bool is_plain = mime_part_encoding(p) < TRANSFER_QP;
	bool is_message = mime_part_is_type(p, STR("message/rfc822"));
	bool is_fixed = mime_part_is_type(p, STR("message/partial")) ||
			mime_part_is_type(p, STR("message/external-body"));
	struct buf bytes = BUF_INIT, encoded = BUF_INIT;
	if (bytes_are_clean(p->content, LINE_COLUMNS)) {
		mime_part_own_content(out, p->content);
	} else if (is_message && is_plain && rebuild_message(r, p, out)) {
		/* done */
	} else if (is_fixed || (is_message && is_plain)) {
		transfer_encode_text(TRANSFER_8BIT, p->content, &bytes);
		mime_part_own_content(out, buf_str(&bytes));
	} else if (mime_part_is_type(p, STR("multipart/"))) { /* without parts: with line ends set right it
								 might have some */
		mime_field_set(out, STR("Content-Type: text/plain\r\n"));
		rebuild_text(r, p, p->content, out);
	} else if (!is_message &&
		   (mime_part_is_type(p, STR("text/")) || mime_part_is_type(p, STR("message/")))) {
		mime_part_decode(p, &bytes);
		rebuild_text(r, p, buf_str(&bytes), out);
	} else {
		mime_part_decode(p, &bytes);
		transfer_encode_base64(buf_str(&bytes), &encoded);
		mime_part_own_content(out, buf_str(&encoded));
		rebuild_set_encoding(out, TRANSFER_BASE64);
	}
	buf_fini(&bytes);
	buf_fini(&encoded);
}

static void rebuild_children(const struct rebuild *r, const struct mime_part *p, bool may_keep,
			     struct mime_part *out)
{
	struct rebuild inner = {r->charsets, r->n_levels + 1};
	bool is_signed = mime_part_is_type(p, STR("multipart/signed")) ||
			 mime_part_is_type(p, STR("multipart/encrypted"));
	for (size_t i = 0; i < p->n_children; i++) {
		struct mime_part *c = rebuild_part(&inner, p->child[i].part, is_signed, may_keep);
		c->parent = out;
		c->index = (uint32_t)i + 1;
		mime_child_append(out, c);
	}
	if (bytes_are_clean(p->preamble, LINE_COLUMNS) && !transfer_scan(p->preamble).has_dash_line)
		mime_part_own_content(out, p->preamble), out->preamble = out->content;
	bool is_valid = mime_boundary_is_valid(str_of(p->boundary));
	mime_part_set_boundary(out, is_valid ? xstrdup(p->boundary) : mime_boundary_new(STR("")));
}

/* Below a signed part that cannot be kept nothing is looked at in this way again: each look is at all that is
 * below. */
static struct mime_part *rebuild_part(const struct rebuild *r, const struct mime_part *p, bool is_signed,
				      bool may_keep)
{
	if (is_signed && may_keep) {
		struct buf bytes = BUF_INIT;
		mime_part_write(p, &bytes);
		may_keep = bytes_are_clean(buf_str(&bytes), TRANSFER_LINE_MAX);
		buf_fini(&bytes);
		if (may_keep)
			return mime_part_copy(p);
	}
	struct mime_part *out = mime_part_new();
	out->is_touched = true;
	out->is_digest = p->is_digest;
	for (size_t i = 0; i < p->n_fields; i++)
		rebuild_field(r, &p->field[i], out);
	if (p->boundary != NULL)
		rebuild_children(r, p, may_keep, out);
	else
		rebuild_leaf(r, p, out);
	return out;
}

static bool parts_are_alike(const struct mime_part *a, const struct mime_part *b)
{
	if (a->n_children != b->n_children)
		return false;
	for (size_t i = 0; i < a->n_children; i++)
		if (!parts_are_alike(a->child[i].part, b->child[i].part))
			return false;
	return true;
}

static void parts_draw_boundaries(struct mime_part *p, str_t bytes)
{
	if (p->boundary != NULL)
		mime_part_set_boundary(p, mime_boundary_new(bytes));
	for (size_t i = 0; i < p->n_children; i++)
		parts_draw_boundaries(p->child[i].part, bytes);
}

/* Bodies that are encoded anew have no line that could be a delimiter, and those that stay had none. What is
 * left are messages at the limits of the parser, and fields that begin with "--". */
static void rebuild_check_boundaries(struct mime_part *p)
{
	struct buf bytes = BUF_INIT;
	if (p->boundary == NULL)
		return;
	mime_part_write(p, &bytes);
	struct mime_part *back = mime_part_parse(buf_str(&bytes));
	if (!parts_are_alike(p, back))
		parts_draw_boundaries(p, buf_str(&bytes));
	mime_part_unref(back);
	buf_fini(&bytes);
}

struct mime_part *mime_part_rebuild(const struct mime_part *p, const struct mime_charsets *charsets)
{
	struct rebuild r = {.charsets = charsets};
	struct mime_part *out = rebuild_part(&r, p, false, true);
	bool has_mime = mime_field_first(out, STR("Content-Type")) != NULL ||
			mime_field_first(out, STR("Content-Transfer-Encoding")) != NULL;
	if (has_mime && p->parent == NULL && mime_field_first(out, STR("MIME-Version")) == NULL)
		mime_field_append(out, STR("MIME-Version: 1.0\r\n"));
	rebuild_check_boundaries(out);
	return out;
}

/* --- both --- */

static void fix_add_headers(struct mime_part *p, const struct mime_fix *f, unsigned missing)
{
	struct buf whole = BUF_INIT;
	if (missing & MIME_MISSING_DATE_HEADER) {
		buf_add_z(&whole, "Date: ");
		wall_fmt_rfc2822(wall_now(), &whole);
		buf_add_z(&whole, "\r\n");
		mime_field_append(p, buf_str(&whole));
	}
	if (missing & MIME_MISSING_MESSAGE_ID_HEADER) {
		struct header_writer w;
		buf_clear(&whole);
		header_write_begin(&w, &whole, STR("Message-ID"));
		message_id_write(&w, f->message_id);
		header_write_end(&w);
		mime_field_append(p, buf_str(&whole));
	}
	if (missing & MIME_MISSING_MIME_VERSION)
		mime_field_set(p, STR("MIME-Version: 1.0\r\n"));
	buf_fini(&whole);
}

int mime_conform(str_t message, const struct mime_fix *f, unsigned *found, struct buf *out)
{
	struct mime_part *p = mime_part_parse(message);
	*found = mime_part_issues(p);
	unsigned fix = *found & f->fix;
	bool is_fixed = (*found & f->check) == 0 && fix != 0;
	if (is_fixed) {
		if (fix & ~(unsigned)MIME_ISSUES_MISSING_HEADERS) {
			struct mime_part *rebuilt = mime_part_rebuild(p, &f->charsets);
			mime_part_unref(p);
			p = rebuilt;
		}
		fix_add_headers(p, f, fix & MIME_ISSUES_MISSING_HEADERS);
		mime_part_write(p, out);
	}
	mime_part_unref(p);
	return is_fixed;
}
