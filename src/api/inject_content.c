/* inject_content.c - bodies from content. A template sees the recipient's substitutions, then `name` and `email`, then the substitutions
 * of the request.
 *
 * No value may end the header that it stands in: CR, LF and NUL are refused in any header, also after expansion. Values with such bytes
 * are rare, and most belong to the body, so only a recipient that has one is looked at twice: the template is rendered again
 * with blanks in place of these bytes, and where the two header sections differ, a value has reached into one. */
#include "api/inject_content.h"

#include "base/err.h"
#include "mail/header.h"

#include <string.h>

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

/** Whether the header section of `made` is the one that values without line breaks would have made. */
static int content_check_header(const struct inject_content *c, const json_t *const *layer, const struct buf *made)
{
	json_t *flat[N_LAYERS];
	struct buf again = BUF_INIT;
	for (size_t i = 0; i < N_LAYERS; i++)
		flat[i] = layer[i] != NULL ? value_flatten(layer[i]) : NULL;
	int rc = template_render_layered(c->template, (const json_t *const *)flat, N_LAYERS, &again);
	if (rc == 0 && !str_eq(header_section(made), header_section(&again))) {
		err_set(ERR_INVALID, "content: a substitution would put CR, LF or NUL into the header");
		rc = -1;
	}
	for (size_t i = 0; i < N_LAYERS; i++)
		json_decref(flat[i]);
	buf_fini(&again);
	return rc;
}

static struct body *content_make_body(str_t content)
{
	struct buf b = BUF_INIT;
	struct body *body = body_new(text_normalise_crlf(content, &b) ? buf_str(&b) : content);
	buf_fini(&b);
	return body;
}

static json_t *content_recipient_names(const struct inject_recipient *r)
{
	json_t *names = json_object();
	json_object_set_new(names, "email", json_stringn(r->email.p, r->email.n));
	if (r->name.p != NULL)
		json_object_set_new(names, "name", json_stringn(r->name.p, r->name.n));
	return names;
}

static struct body *content_expand(const struct inject_content *c, const struct inject_recipient *r)
{
	json_t *names = content_recipient_names(r);
	const json_t *layer[N_LAYERS] = {r->substitutions, names, c->req->substitutions};
	struct buf out = BUF_INIT;
	struct body *body = NULL;
	if (template_render_layered(c->template, layer, N_LAYERS, &out) != 0)
		goto out;
	if (out.n == 0) {
		err_set(ERR_INVALID, "content: the message is empty after template expansion");
		goto out;
	}
	bool has_breaks = c->common_has_breaks || value_has_breaks(names) ||
	                  (r->substitutions != NULL && value_has_breaks(r->substitutions));
	if ((has_breaks && content_check_header(c, layer, &out) != 0) || inject_content_check(buf_str(&out)) != 0)
		goto out;
	body = content_make_body(buf_str(&out));
out:
	buf_fini(&out);
	json_decref(names);
	return body;
}

struct body *inject_content_of(const struct inject_content *c, const struct inject_recipient *r)
{
	return c->template == NULL ? body_ref(c->body) : content_expand(c, r);
}

/* --- the request's --- */

int inject_content_check(str_t content)
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

int inject_content_init(struct inject_content *c, const struct inject_request *req)
{
	*c = (struct inject_content){.req = req};
	if (req->is_static || !template_has_markup(req->content)) {
		c->body = content_make_body(req->content);
		return 0;
	}
	c->common_has_breaks = req->substitutions != NULL && value_has_breaks(req->substitutions);
	c->template = template_compile("content", req->content, false);
	if (c->template != NULL)
		return 0;
	err_wrap("failed parsing field 'content' as template");
	return -1;
}

void inject_content_fini(struct inject_content *c)
{
	body_unref(c->body);
	template_free(c->template);
}
