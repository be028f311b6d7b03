/* mime_build.c - messages in the shape that readers know best: mixed(alternative(text, amp, related(html,
 * inline ...)), attachments ...), with each level left out that would have one child. A part's bytes have no
 * line end of their own after them: the one before the boundary belongs to the boundary (RFC 2046
 * section 5.1.1), so that a text without a final line end is read back as it was.
 *
 * Boundaries begin with "=_", which neither quoted-printable nor base64 makes; only parts left as they are
 * (7bit, 8bit) with a line that begins with "--" are searched, and on a hit another boundary is drawn. */
#include "mime/mime_build_impl.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/uuid.h"
#include "mime/header.h"
#include "mime/header_value.h"
#include "mime/idna.h"
#include "mime/mime_params.h"
#include "mime/transfer.h"

#define CONTENT_TYPE_MAX 500
#define CONTENT_ID_MAX 500
#define FILE_NAME_MAX 1024

/* ---- checks ---- */

static int mime_refuse(const char *path, const char *field, const char *why)
{
	err_set(ERR_INVALID, "%s%s: %s", path, field, why);
	return -1;
}

/* For a header: no controls (a tab where may_tab), UTF-8. */
static int mime_check_value(str_t s, bool may_tab, const char *path, const char *field)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if ((c < 0x20 && !(c == '\t' && may_tab)) || c == 0x7f) {
			err_set(ERR_INVALID, "%s%s: the %s at position %zu may not stand in a header", path,
				field,
				c == '\r'   ? "CR"
				: c == '\n' ? "LF"
				: c == 0    ? "NUL"
					    : "control character",
				i + 1);
			return -1;
		}
	}
	if (!str_is_utf8(s))
		return mime_refuse(path, field, "the bytes are not UTF-8");
	return 0;
}

int mime_check_address(const struct mime_address *a, const char *path)
{
	struct mailbox mb;
	struct buf ascii = BUF_INIT;
	if (a->email.p == NULL)
		return 0;
	int rc = mailbox_parse(a->email, &mb);
	if (rc == 0 && mb.email.n == 0) {
		err_set(ERR_INVALID, "the address is empty");
		rc = -1;
	}
	rc = rc == 0 ? mailbox_ascii(&mb, &ascii) : rc;
	buf_fini(&ascii);
	if (rc != 0) {
		err_wrap("%s.email", path);
		return -1;
	}
	return mime_check_value(a->name, false, path, ".name");
}

/* Fields with rules of their own. */
struct field_rule {
	str_t name;
	bool is_ours;	/* no caller may set it */
	bool is_single; /* RFC 5322 section 3.6: once at most */
	bool is_ascii;	/* has no place for encoded words */
};
static const struct field_rule field_rules[] = {
	{STR("Content-Type"), .is_ours = true},
	{STR("Content-Transfer-Encoding"), .is_ours = true},
	{STR("MIME-Version"), .is_ours = true},
	{STR("From"), .is_single = true},
	{STR("Sender"), .is_single = true},
	{STR("Reply-To"), .is_single = true},
	{STR("To"), .is_single = true},
	{STR("Cc"), .is_single = true},
	{STR("Bcc"), .is_single = true},
	{STR("Subject"), .is_single = true},
	{STR("Message-ID"), .is_single = true, .is_ascii = true},
	{STR("In-Reply-To"), .is_single = true, .is_ascii = true},
	{STR("References"), .is_single = true, .is_ascii = true},
	{STR("Date"), .is_single = true, .is_ascii = true},
};

static int field_rule_find(str_t name)
{
	for (size_t i = 0; i < ARRAY_SIZE(field_rules); i++)
		if (str_ieq(field_rules[i].name, name))
			return (int)i;
	return -1;
}

/* ".headers[NAME]", with what may not stand in a message text made visible. */
static void header_path(str_t name, struct buf *out)
{
	buf_add_z(out, ".headers[");
	for (size_t i = 0; i < name.n && i < 80; i++) {
		unsigned char c = (unsigned char)name.p[i];
		buf_add_c(out, c < 0x20 || c == 0x7f ? '?' : (char)c);
	}
	buf_add_c(out, ']');
}

static int mime_check_header(const struct mime_header *h, uint32_t *seen, const char *path, const char *field)
{
	int i = field_rule_find(h->name);
	if (!header_name_is_valid(h->name))
		return mime_refuse(path, field, "not a name that a header field can have");
	if (i >= 0 && field_rules[i].is_ours)
		return mime_refuse(path, field, "this field describes the content and is made from it");
	if (i >= 0 && (*seen & 1u << i) != 0)
		return mime_refuse(path, field, "given twice, but a message has one such field");
	if (i >= 0 && field_rules[i].is_single)
		*seen |= 1u << i;
	if (i >= 0 && field_rules[i].is_ascii && !str_is_ascii(h->value))
		return mime_refuse(path, field, "must be ASCII");
	return mime_check_value(h->value, true, path, field);
}

static int mime_check_headers(const struct mime_content *c, const char *path)
{
	uint32_t seen = 0;
	if (c->from.email.p != NULL)
		seen |= 1u << field_rule_find(STR("From"));
	if (c->reply_to.email.p != NULL)
		seen |= 1u << field_rule_find(STR("Reply-To"));
	if (c->subject.p != NULL)
		seen |= 1u << field_rule_find(STR("Subject"));
	struct buf field = BUF_INIT;
	int rc = 0;
	for (size_t i = 0; i < c->n_headers && rc == 0; i++) {
		buf_clear(&field);
		header_path(c->header[i].name, &field);
		rc = mime_check_header(&c->header[i], &seen, path, field.p);
	}
	buf_fini(&field);
	return rc;
}

static int mime_check_utf8(str_t s, const char *path, const char *field)
{
	return str_is_utf8(s) ? 0 : mime_refuse(path, field, "the bytes are not UTF-8");
}

int mime_check_content(const struct mime_content *c, const char *path)
{
	struct buf sub = BUF_INIT;
	buf_printf(&sub, "%s.from", path);
	int rc = mime_check_address(&c->from, sub.p);
	buf_clear(&sub);
	buf_printf(&sub, "%s.reply_to", path);
	rc = rc == 0 ? mime_check_address(&c->reply_to, sub.p) : rc;
	buf_fini(&sub);
	if (rc != 0 || mime_check_value(c->subject, true, path, ".subject") != 0 ||
	    mime_check_headers(c, path) != 0 || mime_check_utf8(c->text_body, path, ".text_body") != 0 ||
	    mime_check_utf8(c->html_body, path, ".html_body") != 0 ||
	    mime_check_utf8(c->amp_html_body, path, ".amp_html_body") != 0)
		return -1;
	return 0;
}

static size_t token_length(str_t s) /* RFC 2045 section 5.1 */
{
	size_t n = 0;
	while (n < s.n && s.p[n] > ' ' && s.p[n] < 0x7f && strchr("()<>@,;:\\\"/[]?=", s.p[n]) == NULL)
		n++;
	return n;
}

/* type "/" subtype, then nothing or parameters, of which only the bytes are looked at. */
static const char *content_type_objection(str_t s)
{
	size_t n = token_length(s);
	if (n == 0 || n == s.n || s.p[n] != '/')
		return "expected type/subtype";
	str_t rest = str_skip(s, n + 1);
	n = token_length(rest);
	rest = str_trim(str_skip(rest, n));
	if (n == 0 || (rest.n > 0 && rest.p[0] != ';'))
		return "expected type/subtype";
	if (str_istarts(s, STR("multipart/")))
		return "an attachment cannot be a multipart";
	if (!str_is_ascii(s))
		return "must be ASCII";
	return s.n > CONTENT_TYPE_MAX ? "longer than 500 bytes" : NULL;
}

static str_t content_id_trim(str_t id)
{
	id = str_trim(id);
	if (id.n >= 2 && id.p[0] == '<' && id.p[id.n - 1] == '>')
		id = str_mk(id.p + 1, id.n - 2);
	return id;
}

static const char *content_id_objection(str_t id)
{
	id = content_id_trim(id);
	if (id.n == 0)
		return "empty";
	if (id.n > CONTENT_ID_MAX)
		return "longer than 500 bytes";
	for (size_t i = 0; i < id.n; i++)
		if (id.p[i] <= ' ' || id.p[i] >= 0x7f || strchr("<>,;\"", id.p[i]) != NULL)
			return "expected printable ASCII without blanks, quotes and <>,;";
	return NULL;
}

static int mime_check_attachment_at(const struct mime_attachment *a, const char *path)
{
	const char *why;
	if (mime_check_value(a->content_type, false, path, ".content_type") != 0 ||
	    mime_check_value(a->content_id, false, path, ".content_id") != 0 ||
	    mime_check_value(a->file_name, false, path, ".file_name") != 0)
		return -1;
	if (a->content_type.p != NULL && (why = content_type_objection(a->content_type)) != NULL)
		return mime_refuse(path, ".content_type", why);
	if (a->content_id.p != NULL && (why = content_id_objection(a->content_id)) != NULL)
		return mime_refuse(path, ".content_id", why);
	if (a->file_name.n > FILE_NAME_MAX)
		return mime_refuse(path, ".file_name", "longer than 1024 bytes");
	return 0;
}

int mime_check_attachment(const struct mime_attachment *a, const char *path, size_t index)
{
	struct buf sub = BUF_INIT;
	buf_printf(&sub, "%s.attachments[%zu]", path, index);
	int rc = mime_check_attachment_at(a, sub.p);
	buf_fini(&sub);
	return rc;
}

/* ---- attachments ---- */

static bool content_type_has_name(str_t type)
{
	for (ptrdiff_t i = 0; (i = str_chr(type, ';', (size_t)i)) >= 0; i++) {
		str_t param = str_trim(str_skip(type, (size_t)i + 1));
		if (str_istarts(param, STR("name=")) || str_istarts(param, STR("name*")))
			return true;
	}
	return false;
}

/* The charset that the bytes have. False, nothing written: the type stands as it is. */
static bool attachment_write_utf8_type(const struct mime_attachment *a, struct header_writer *w)
{
	struct mime_params p;
	if (!a->is_utf8 || !str_istarts(a->content_type, STR("text/")) || str_is_ascii(a->data))
		return false;
	if (mime_params_parse(a->content_type, &p) != 0) {
		err_clear();
		return false;
	}
	bool is_another = !str_ieq(mime_params_get(&p, STR("charset")), STR("utf-8"));
	if (is_another) {
		mime_params_set(&p, STR("charset"), STR("utf-8"));
		mime_params_clean(&p);
		mime_params_write(&p, w);
	}
	mime_params_fini(&p);
	return is_another;
}

static void attachment_write_fields(const struct mime_attachment *a, struct buf *out)
{
	str_t type = a->content_type.n > 0 ? a->content_type : STR("application/octet-stream");
	struct header_writer w;
	header_write_begin(&w, out, STR("Content-Type"));
	if (!attachment_write_utf8_type(a, &w))
		header_write_text(&w, type);
	if (a->file_name.n > 0 && !content_type_has_name(type))
		header_write_param_words(&w, STR("name"), a->file_name);
	header_write_end(&w);
	header_write_begin(&w, out, STR("Content-Disposition"));
	header_write_token(&w, a->is_inline ? STR("inline") : STR("attachment"));
	if (a->file_name.n > 0)
		header_write_param(&w, STR("filename"), a->file_name);
	header_write_end(&w);
	if (a->content_id.p != NULL) {
		str_t id = content_id_trim(a->content_id);
		buf_printf(out, "Content-ID: <" STR_FMT ">\r\n", STR_ARG(id));
	}
}

/* RFC 2046 section 5.2.1 forbids base64 for messages: they stay as they are while SMTP can carry them. */
static bool attachment_stays(const struct mime_attachment *a, const struct transfer_scan *scan)
{
	return str_istarts(a->content_type, STR("message/")) && !scan->has_nul &&
	       scan->longest_line <= TRANSFER_LINE_MAX;
}

void mime_encode_attachment(const struct mime_attachment *a, struct mime_encoded_part *out)
{
	struct transfer_scan scan = {0};
	if (str_istarts(a->content_type, STR("message/")))
		scan = transfer_scan(a->data);
	out->is_inline = a->is_inline;
	attachment_write_fields(a, &out->bytes);
	if (attachment_stays(a, &scan)) {
		out->has_dash_line = scan.has_dash_line;
		if (!scan.is_ascii)
			buf_add_z(&out->bytes, "Content-Transfer-Encoding: 8bit\r\n");
		buf_add_z(&out->bytes, "\r\n");
		transfer_encode_text(TRANSFER_8BIT, a->data, &out->bytes);
	} else {
		buf_add_z(&out->bytes, "Content-Transfer-Encoding: base64\r\n\r\n");
		transfer_encode_base64(a->data, &out->bytes);
	}
}

void mime_encoded_part_fini(struct mime_encoded_part *p)
{
	buf_fini(&p->bytes);
}

/* ---- the body ---- */

struct text_part {
	const char *subtype;
	str_t text; /* p NULL: absent */
	struct transfer_scan scan;
	enum transfer_encoding encoding;
};

struct mime_builder {
	const struct mime_content *c;
	struct buf *out;
	struct text_part text, amp, html;
	size_t n_texts;
	size_t n_related;      /* parts that go with the HTML */
	char boundary[24 + 1]; /* shared by the levels, which put "=_" and a letter of their own before it */
};

static void text_part_init(struct text_part *p, const char *subtype, str_t text)
{
	*p = (struct text_part){.subtype = subtype, .text = text};
	p->scan = transfer_scan(text);
	p->encoding = transfer_for_text(text, &p->scan, TRANSFER_LINE_MAX);
}

static bool text_part_has(const struct text_part *p, str_t boundary)
{
	return p->encoding == TRANSFER_7BIT && p->scan.has_dash_line && str_find(p->text, boundary) >= 0;
}

static void builder_init(struct mime_builder *b, const struct mime_content *c, struct buf *out)
{
	*b = (struct mime_builder){.c = c, .out = out};
	text_part_init(&b->text, "plain", c->text_body);
	text_part_init(&b->amp, "x-amp-html", c->amp_html_body);
	text_part_init(&b->html, "html", c->html_body);
	b->n_texts =
		(size_t)(c->text_body.p != NULL) + (c->amp_html_body.p != NULL) + (c->html_body.p != NULL);
	for (size_t i = 0; i < c->n_parts; i++)
		b->n_related += c->html_body.p != NULL && c->part[i].is_inline;
}

static bool boundary_is_taken(const struct mime_builder *b, str_t boundary)
{
	if (text_part_has(&b->text, boundary) || text_part_has(&b->amp, boundary) ||
	    text_part_has(&b->html, boundary))
		return true;
	for (size_t i = 0; i < b->c->n_parts; i++)
		if (b->c->part[i].has_dash_line && str_find(buf_str(&b->c->part[i].bytes), boundary) >= 0)
			return true;
	return false;
}

bool mime_boundary_is_taken(const struct mime_content *c, str_t boundary)
{
	struct mime_builder b;
	builder_init(&b, c, NULL);
	return boundary_is_taken(&b, boundary);
}

static void boundary_choose(struct mime_builder *b)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
	do {
		uint64_t high = random_below(UINT64_MAX), low = random_below(UINT64_MAX);
		for (size_t i = 0; i < 24; i++) {
			uint64_t *from = i < 12 ? &high : &low;
			b->boundary[i] = digit[*from & 31];
			*from >>= 5;
		}
		b->boundary[24] = 0;
	} while (boundary_is_taken(b, str_mk(b->boundary, 24)));
}

static void text_part_write(struct buf *out, const struct text_part *p)
{
	buf_add_z(out, "Content-Type: text/");
	buf_add_z(out, p->subtype);
	buf_add_z(out, p->scan.is_ascii ? "; charset=\"us-ascii\"\r\n" : "; charset=\"utf-8\"\r\n");
	if (p->encoding != TRANSFER_7BIT) {
		buf_add_z(out, "Content-Transfer-Encoding: ");
		buf_add_z(out, transfer_name(p->encoding));
		buf_add_z(out, "\r\n");
	}
	buf_add_z(out, "\r\n");
	transfer_encode_text(p->encoding, p->text, out);
}

static void multipart_begin(struct mime_builder *b, const char *subtype, const char *params)
{
	buf_add_z(b->out, "Content-Type: multipart/");
	buf_add_z(b->out, subtype);
	buf_add_z(b->out, "; boundary=\"=_");
	buf_add_c(b->out, subtype[0]);
	buf_add_z(b->out, b->boundary);
	buf_add_c(b->out, '"');
	buf_add_z(b->out, params);
	buf_add_z(b->out, "\r\n");
}

/* Its CRLF ends the part before; after the fields of the multipart it is the empty line. */
static void multipart_delimit(struct mime_builder *b, const char *subtype)
{
	buf_add_z(b->out, "\r\n--=_");
	buf_add_c(b->out, subtype[0]);
	buf_add_z(b->out, b->boundary);
	buf_add_z(b->out, "\r\n");
}

static void multipart_end(struct mime_builder *b, const char *subtype)
{
	multipart_delimit(b, subtype);
	buf_truncate(b->out, b->out->n - 2);
	buf_add_z(b->out, "--");
}

static void build_parts(struct mime_builder *b, const char *subtype, bool is_related)
{
	for (size_t i = 0; i < b->c->n_parts; i++) {
		const struct mime_encoded_part *p = &b->c->part[i];
		if ((b->n_related > 0 && p->is_inline) != is_related)
			continue;
		multipart_delimit(b, subtype);
		buf_add_str(b->out, buf_str(&p->bytes));
	}
}

static void build_html(struct mime_builder *b)
{
	if (b->n_related == 0) {
		text_part_write(b->out, &b->html);
		return;
	}
	multipart_begin(b, "related", ";\r\n type=\"text/html\"");
	multipart_delimit(b, "related");
	text_part_write(b->out, &b->html);
	build_parts(b, "related", true);
	multipart_end(b, "related");
}

static void build_texts(struct mime_builder *b)
{
	if (b->n_texts > 1)
		multipart_begin(b, "alternative", "");
	if (b->text.text.p != NULL || b->n_texts == 0) {
		if (b->n_texts > 1)
			multipart_delimit(b, "alternative");
		text_part_write(b->out, &b->text);
	}
	if (b->amp.text.p != NULL) {
		if (b->n_texts > 1)
			multipart_delimit(b, "alternative");
		text_part_write(b->out, &b->amp);
	}
	if (b->html.text.p != NULL) {
		if (b->n_texts > 1)
			multipart_delimit(b, "alternative");
		build_html(b);
	}
	if (b->n_texts > 1)
		multipart_end(b, "alternative");
}

static void build_entity(struct mime_builder *b)
{
	if (b->c->n_parts == b->n_related) {
		build_texts(b);
		return;
	}
	multipart_begin(b, "mixed", "");
	if (b->n_texts > 0) {
		multipart_delimit(b, "mixed");
		build_texts(b);
	}
	build_parts(b, "mixed", false);
	multipart_end(b, "mixed");
}

/* ---- the message ---- */

static void address_write(struct buf *out, str_t name, const struct mime_address *a)
{
	struct mailbox mb;
	struct buf email = BUF_INIT, decoded = BUF_INIT;
	struct header_writer w;
	str_t display = a->name;
	if (str_find(a->name, STR("=?")) >= 0) { /* some callers encode names themselves */
		header_decode(a->name, &decoded);
		display = buf_str(&decoded);
	}
	if (mailbox_parse(a->email, &mb) != 0 || mailbox_ascii(&mb, &email) != 0)
		panic("an address that was not checked: %s", err_text());
	header_write_begin(&w, out, name);
	header_write_mailbox(&w, display, buf_str(&email));
	header_write_end(&w);
	buf_fini(&email);
	buf_fini(&decoded);
}

static bool content_has_header(const struct mime_content *c, str_t name)
{
	for (size_t i = 0; i < c->n_headers; i++)
		if (str_ieq(c->header[i].name, name))
			return true;
	return false;
}

void mime_build_rest(const struct mime_content *c, struct buf *out)
{
	struct mime_builder b;
	builder_init(&b, c, out);
	if (b.n_texts > 1 || c->n_parts > 0)
		boundary_choose(&b);
	if (c->from.email.p != NULL)
		address_write(out, STR("From"), &c->from);
	if (c->reply_to.email.p != NULL)
		address_write(out, STR("Reply-To"), &c->reply_to);
	if (c->subject.p != NULL)
		header_write_field(out, STR("Subject"), c->subject);
	for (size_t i = 0; i < c->n_headers; i++)
		header_write_named(out, c->header[i].name, c->header[i].value);
	if (!content_has_header(c, STR("Date"))) {
		buf_add_z(out, "Date: ");
		wall_fmt_rfc2822(wall_now(), out);
		buf_add_z(out, "\r\n");
	}
	buf_add_z(out, "MIME-Version: 1.0\r\n");
	build_entity(&b);
	if (!str_ends(buf_str(out), STR("\r\n")))
		buf_add_z(out, "\r\n");
}

void mime_build_recipient(const struct mime_content *c, const struct mime_address *to, str_t id_left,
			  str_t id_domain, struct buf *out)
{
	if (to->email.p != NULL && !content_has_header(c, STR("To")))
		address_write(out, STR("To"), to);
	if (content_has_header(c, STR("Message-ID")))
		return;
	buf_add_z(out, "Message-ID: <");
	buf_add_str(out, id_left);
	buf_add_c(out, '@');
	/* as written, then: it still tells the ids of domains apart */
	if (idna_to_ascii(id_domain, out) != 0) {
		err_clear();
		buf_add_str(out, id_domain);
	}
	buf_add_z(out, ">\r\n");
}
