/* inject_content.c - bodies from content, which is a whole message as text, or an object that one is made of
 * (mail/mime_build.h). Templates are compiled once and expanded for each recipient into buffers that are used
 * again; what has none is made once, and all recipients share it. A template sees the recipient's
 * substitutions, then `name`, `email` and `to_header`, then the substitutions of the request.
 *
 * No value may end the header that it stands in: CR, LF and NUL are refused in any header, also after
 * expansion. Of an object the expanded fields are checked one by one. In a text, values with such bytes are
 * rare, and most belong to the body, so only a recipient that has one is looked at twice: the template is
 * rendered again with blanks in place of these bytes, and where the two header sections differ, a value has
 * reached into one. */
#include "api/inject_content.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"
#include "mime/header.h"
#include "mime/header_write.h"
#include "mime/idna.h"

#include <stdlib.h>
#include <string.h>

#define INPLACE_BYTES ((size_t)128 << 10) /* of content: more is prepared on another thread */
#define KEEP_BYTES ((size_t)8 << 20)	  /* of a buffer: a larger one is not kept for the next recipient */

struct content_slot {
	char *path; /* "content.headers[X-Tag]" */
	struct template *template;
	str_t *target; /* in inject_content.made */
	size_t at, n;  /* in inject_content.text */
};

/* --- values with line breaks --- */

static bool text_has_breaks(const char *p, size_t n)
{
	return memchr(p, '\n', n) != NULL || memchr(p, '\r', n) != NULL || memchr(p, 0, n) != NULL;
}

static bool value_has_breaks(const json_t *v)
{
	json_t *w = (json_t *)(uintptr_t)v; /* jansson's iterators want it so */
	if (json_is_string(v))
		return text_has_breaks(json_string_value(v), json_string_length(v));
	for (size_t i = 0; i < json_array_size(v); i++)
		if (value_has_breaks(json_array_get(v, i)))
			return true;
	for (void *it = json_object_iter(w); it != NULL; it = json_object_iter_next(w, it))
		if (text_has_breaks(json_object_iter_key(it), json_object_iter_key_len(it)) ||
		    value_has_breaks(json_object_iter_value(it)))
			return true;
	return false;
}

static str_t text_flatten(const char *p, size_t n, struct buf *b)
{
	buf_clear(b);
	buf_add(b, p, n);
	for (size_t i = 0; i < n; i++)
		if (b->p[i] == '\r' || b->p[i] == '\n' || b->p[i] == 0)
			b->p[i] = ' ';
	return n > 0 ? buf_str(b) : STR("");
}

/** A copy with blanks in place of CR, LF and NUL. */
static json_t *value_flatten(const json_t *v)
{
	json_t *w = (json_t *)(uintptr_t)v, *copy;
	struct buf b = BUF_INIT;
	if (json_is_string(v)) {
		str_t s = text_flatten(json_string_value(v), json_string_length(v), &b);
		copy = json_stringn(s.p, s.n);
	} else if (json_is_array(v)) {
		copy = json_array();
		for (size_t i = 0; i < json_array_size(v); i++)
			json_array_append_new(copy, value_flatten(json_array_get(v, i)));
	} else if (json_is_object(v)) {
		copy = json_object();
		for (void *it = json_object_iter(w); it != NULL; it = json_object_iter_next(w, it)) {
			str_t key = text_flatten(json_object_iter_key(it), json_object_iter_key_len(it), &b);
			json_object_setn_new(copy, key.p, key.n, value_flatten(json_object_iter_value(it)));
		}
	} else {
		copy = json_incref(w);
	}
	buf_fini(&b);
	return copy;
}

/* --- one recipient --- */

#define N_LAYERS 3

static str_t header_section(const struct buf *b)
{
	return b->n > 0 ? str_head(buf_str(b), header_section_end(buf_str(b))) : STR("");
}

/** Whether the header section of c->out is the one that values without line breaks would have made. */
static int content_check_header(const struct inject_content *c, const json_t *const *layer)
{
	json_t *flat[N_LAYERS];
	struct buf again = BUF_INIT;
	for (size_t i = 0; i < N_LAYERS; i++)
		flat[i] = layer[i] != NULL ? value_flatten(layer[i]) : NULL;
	int rc = template_render_layered(c->template, (const json_t *const *)flat, N_LAYERS, &again);
	if (rc == 0 && !str_eq(header_section(&c->out), header_section(&again))) {
		err_set(ERR_INVALID, "content: a substitution would put CR, LF or NUL into the header");
		rc = -1;
	}
	for (size_t i = 0; i < N_LAYERS; i++)
		json_decref(flat[i]);
	buf_fini(&again);
	return rc;
}

/** NUL anywhere, or a CR without LF in the header section. */
static int content_check_text(str_t content)
{
	const char *nul = memchr(content.p, 0, content.n);
	if (nul != NULL) {
		err_set(ERR_INVALID, "content: NUL byte at offset %zu", (size_t)(nul - content.p));
		return -1;
	}
	size_t header_bytes = header_section_end(content);
	for (ptrdiff_t i = 0; (i = str_chr(content, '\r', (size_t)i)) >= 0 && (size_t)i < header_bytes; i++) {
		if ((size_t)i + 1 < content.n && content.p[i + 1] == '\n')
			continue;
		size_t line = (size_t)i;
		while (line > 0 && content.p[line - 1] != '\n')
			line--;
		str_t start = str_head(str_skip(content, line), (size_t)i - line);
		ptrdiff_t colon = str_chr(start, ':', 0);
		err_set(ERR_INVALID, "content: CR without LF in the header `" STR_FMT "`",
			STR_ARG(str_head(start, colon >= 0 ? (size_t)colon : 40)));
		return -1;
	}
	return 0;
}

static struct body *content_make_body(str_t content)
{
	struct buf b = BUF_INIT;
	struct body *body = body_new(text_normalise_crlf(content, &b) ? buf_str(&b) : content);
	buf_fini(&b);
	return body;
}

static void names_set(json_t *names, const char *key, str_t value)
{
	json_t *v = json_object_get(names, key);
	if (v == NULL)
		json_object_set_new(names, key, json_stringn(value.p, value.n));
	else
		json_string_setn(v, value.p, value.n);
}

/** As a To field has it, in one line. */
static int content_to_header(const struct inject_recipient *r, const struct mailbox *to, struct buf *out)
{
	struct buf email = BUF_INIT, field = BUF_INIT;
	struct header_writer w;
	int rc = mailbox_ascii(to, &email);
	if (rc == 0) {
		header_write_begin(&w, &field, STR("To"));
		header_write_mailbox(&w, r->name, buf_str(&email));
		header_write_end(&w);
		for (size_t i = 4; i < field.n; i++) /* after "To: " */
			if (field.p[i] != '\r' && field.p[i] != '\n')
				buf_add_c(out, field.p[i]);
	}
	buf_fini(&email);
	buf_fini(&field);
	return rc;
}

/** What is predefined for the recipient. */
static int content_set_names(struct inject_content *c, const struct inject_recipient *r,
			     const struct mailbox *to)
{
	struct buf header = BUF_INIT;
	if (c->names == NULL)
		c->names = json_object();
	names_set(c->names, "email", r->email);
	if (r->name.p != NULL)
		names_set(c->names, "name", r->name);
	else
		json_object_del(c->names, "name");
	if (!c->has_to_header)
		return 0;
	int rc = content_to_header(r, to, &header);
	if (rc == 0)
		names_set(c->names, "to_header", buf_str(&header));
	buf_fini(&header);
	return rc;
}

static struct body *content_expand(struct inject_content *c, const struct inject_recipient *r,
				   const json_t *const *layer)
{
	if (template_run_render(c->run, c->template, layer, N_LAYERS, &c->out) != 0)
		return NULL;
	if (c->out.n == 0) {
		err_set(ERR_INVALID, "content: the message is empty after template expansion");
		return NULL;
	}
	bool has_breaks = c->common_has_breaks || value_has_breaks(c->names) ||
			  (r->substitutions != NULL && value_has_breaks(r->substitutions));
	if ((has_breaks && content_check_header(c, layer) != 0) || content_check_text(buf_str(&c->out)) != 0)
		return NULL;
	return content_make_body(buf_str(&c->out));
}

static struct body *content_build(struct inject_content *c, const json_t *const *layer)
{
	buf_clear(&c->text);
	for (size_t i = 0; i < c->n_slots; i++) {
		struct content_slot *s = &c->slot[i];
		s->at = c->text.n;
		if (template_run_render(c->run, s->template, layer, N_LAYERS, &c->text) != 0) {
			err_wrap("%s", s->path);
			return NULL;
		}
		s->n = c->text.n - s->at;
	}
	for (size_t i = 0; i < c->n_slots; i++) /* now that the buffer has stopped moving */
		*c->slot[i].target =
			c->slot[i].n > 0 ? str_mk(c->text.p + c->slot[i].at, c->slot[i].n) : STR("");
	if (mime_check_content(&c->made, "content") != 0)
		return NULL;
	mime_build_rest(&c->made, &c->out);
	return body_new(buf_str(&c->out));
}

static int content_check_recipient(const struct inject_recipient *r, size_t i, const struct mailbox *to)
{
	char path[64];
	snprintf(path, sizeof(path), "recipients[%zu]", i);
	return mime_check_address(&(struct mime_address){.email = to->email, .name = r->name}, path);
}

struct body *inject_content_body(struct inject_content *c, size_t i, const struct mailbox *to)
{
	const struct inject_recipient *r = &c->req->recipient[i];
	if (c->req->text.p == NULL && content_check_recipient(r, i, to) != 0)
		return NULL;
	if (c->body != NULL)
		return body_ref(c->body);
	if (content_set_names(c, r, to) != 0)
		return NULL;
	const json_t *layer[N_LAYERS] = {r->substitutions, c->names, c->req->substitutions};
	buf_clear(&c->out);
	struct body *body = c->template != NULL ? content_expand(c, r, layer) : content_build(c, layer);
	if (c->out.cap > KEEP_BYTES)
		buf_fini(&c->out);
	return body;
}

void inject_content_add_fields(const struct inject_content *c, struct message *m, size_t i,
			       const struct mailbox *to, str_t hostname)
{
	char id[33];
	struct buf fields = BUF_INIT;
	struct mailbox from = {.domain = STR_NULL};
	if (c->req->text.p != NULL)
		return;
	str_t known[] = {c->made.from.email, c->req->envelope_sender};
	for (size_t k = 0; k < ARRAY_SIZE(known) && from.domain.n == 0; k++)
		if (known[k].n > 0 && mailbox_parse(known[k], &from) != 0)
			err_clear();
	uuid_fmt_simple(&m->id, id);
	mime_build_recipient(
		&c->made, &(struct mime_address){.email = to->email, .name = c->req->recipient[i].name},
		str_of(id), from.domain.n > 0 && from.domain.p[0] != '[' ? from.domain : hostname, &fields);
	message_add_prefix(m, buf_str(&fields));
	buf_fini(&fields);
}

/* --- the request's --- */

static struct template *content_compile(struct inject_content *c, const char *path, const char *name,
					str_t source, enum template_escape escape)
{
	struct template *t = template_compile_dialect(name, source, c->req->dialect, escape);
	if (t == NULL)
		err_wrap("failed parsing field '%s' as template", path);
	c->has_to_header = c->has_to_header || str_find(source, STR("to_header")) >= 0;
	return t;
}

/** Makes a slot of a text that is a template. standin: what takes its place in the check of what is the same
 * for all. */
static int content_add_slot(struct inject_content *c, str_t *target, const char *path, const char *name,
			    enum template_escape escape, str_t standin)
{
	if (target->p == NULL || !template_has_markup_of(c->req->dialect, *target))
		return 0;
	struct template *t = content_compile(c, path, name, *target, escape);
	if (t == NULL)
		return -1;
	c->slot[c->n_slots++] = (struct content_slot){.path = xstrdup(path), .template = t, .target = target};
	*target = standin;
	return 0;
}

static int content_add_header_slot(struct inject_content *c, struct mime_header *h)
{
	char path[160];
	snprintf(path, sizeof(path), "content.headers[" STR_FMT "]", STR_ARG(str_head(h->name, 80)));
	for (char *p = path; *p != 0; p++)
		if (*p > 0 && (*p < 0x20 || *p == 0x7f))
			*p = '?';
	return content_add_slot(c, &h->value, path, path, TEMPLATE_ESCAPE_NONE, STR(""));
}

static int content_add_slots(struct inject_content *c)
{
	struct mime_content *m = &c->made;
	enum { FIXED_SLOTS = 8 };
	c->slot = xcalloc(FIXED_SLOTS + m->n_headers, sizeof(*c->slot));
	if (content_add_slot(c, &m->text_body, "content.text_body", "text_body.txt", TEMPLATE_ESCAPE_NONE,
			     STR("")) != 0 ||
	    content_add_slot(c, &m->html_body, "content.html_body", "html_body.html", TEMPLATE_ESCAPE_HTML,
			     STR("")) != 0 ||
	    content_add_slot(c, &m->amp_html_body, "content.amp_html_body", "amp_html_body.html",
			     TEMPLATE_ESCAPE_HTML, STR("")) != 0 ||
	    content_add_slot(c, &m->subject, "content.subject", "subject", TEMPLATE_ESCAPE_NONE, STR("")) !=
		    0 ||
	    content_add_slot(c, &m->from.email, "content.from.email", "from.email", TEMPLATE_ESCAPE_NONE,
			     STR("a@example.com")) != 0 ||
	    content_add_slot(c, &m->from.name, "content.from.name", "from.name", TEMPLATE_ESCAPE_NONE,
			     STR("")) != 0 ||
	    content_add_slot(c, &m->reply_to.email, "content.reply_to.email", "reply_to.email",
			     TEMPLATE_ESCAPE_NONE, STR("a@example.com")) != 0 ||
	    content_add_slot(c, &m->reply_to.name, "content.reply_to.name", "reply_to.name",
			     TEMPLATE_ESCAPE_NONE, STR("")) != 0)
		return -1;
	for (size_t i = 0; i < m->n_headers; i++)
		if (content_add_header_slot(c, &c->made_header[i]) != 0)
			return -1;
	return 0;
}

static int content_encode_attachments(struct inject_content *c)
{
	const struct inject_request *req = c->req;
	c->part = xcalloc(req->n_attachments + 1, sizeof(*c->part));
	c->made.part = c->part;
	for (size_t i = 0; i < req->n_attachments; i++) {
		if (mime_check_attachment(&req->attachment[i], "content", i) != 0)
			return -1;
		mime_encode_attachment(&req->attachment[i], &c->part[c->made.n_parts++]);
	}
	return 0;
}

static int content_init_build(struct inject_content *c)
{
	const struct mime_content *given = &c->req->build;
	c->made = *given;
	c->made_header = xcalloc(given->n_headers + 1, sizeof(*c->made_header));
	for (size_t i = 0; i < given->n_headers; i++)
		c->made_header[i] = given->header[i];
	c->made.header = c->made_header;
	if (content_add_slots(c) != 0 || mime_check_content(&c->made, "content") != 0 ||
	    content_encode_attachments(c) != 0)
		return -1;
	if (c->n_slots > 0)
		return 0;
	mime_build_rest(&c->made, &c->out);
	c->body = body_new(buf_str(&c->out));
	buf_fini(&c->out);
	return 0;
}

static int content_init_text(struct inject_content *c)
{
	const struct inject_request *req = c->req;
	if (content_check_text(req->text) != 0)
		return -1;
	if (!template_has_markup_of(req->dialect, req->text)) {
		c->body = content_make_body(req->text);
		return 0;
	}
	c->common_has_breaks = req->substitutions != NULL && value_has_breaks(req->substitutions);
	c->template = content_compile(c, "content", "content", req->text, TEMPLATE_ESCAPE_NONE);
	return c->template != NULL ? 0 : -1;
}

static int content_init_job(void *arg)
{
	struct inject_content *c = arg;
	return c->req->text.p != NULL ? content_init_text(c) : content_init_build(c);
}

/** About how much there is to do. */
static size_t content_size(const struct inject_request *req)
{
	const struct mime_content *b = &req->build;
	size_t n = req->text.n + b->text_body.n + b->html_body.n + b->amp_html_body.n;
	for (size_t i = 0; i < req->n_attachments; i++)
		n += req->attachment[i].data.n;
	return n;
}

int inject_content_init(struct inject_content *c, const struct inject_request *req, mono_t deadline)
{
	*c = (struct inject_content){.req = req, .run = template_run_new()};
	return content_size(req) <= INPLACE_BYTES ? content_init_job(c)
						  : offload_run(content_init_job, c, deadline);
}

void inject_content_fini(struct inject_content *c)
{
	body_unref(c->body);
	template_free(c->template);
	for (size_t i = 0; i < c->n_slots; i++) {
		free(c->slot[i].path);
		template_free(c->slot[i].template);
	}
	free(c->slot);
	free(c->made_header);
	for (size_t i = 0; i < c->made.n_parts; i++)
		mime_encoded_part_fini(&c->part[i]);
	free(c->part);
	json_decref(c->names);
	template_run_free(c->run);
	buf_fini(&c->text);
	buf_fini(&c->out);
}
