/* mime_tree.c - parts, their fields and their children: made, changed, written. Writing puts the slices one
 * behind the other; line ends are added only where a change has left none: between fields, before the
 * content, before a delimiter. */
#include "mime/mime_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/uuid.h"

#include <stdio.h>
#include <stdlib.h>

#define BOUNDARY_MAX 70 /* RFC 2046 section 5.1.1 */

/* --- sources --- */

struct mime_source *mime_source_new(str_t bytes)
{
	struct mime_source *s = xmalloc(sizeof *s + bytes.n + 1);
	s->refs = 1;
	s->n_bytes = bytes.n;
	if (bytes.n > 0)
		memcpy(s->p, bytes.p, bytes.n);
	s->p[bytes.n] = 0;
	return s;
}

static struct mime_source *mime_source_ref(struct mime_source *s)
{
	if (s != NULL)
		s->refs++;
	return s;
}

static void mime_source_unref(struct mime_source *s)
{
	if (s != NULL && --s->refs == 0)
		free(s);
}

/* --- parts --- */

struct mime_part *mime_part_new(void)
{
	struct mime_part *p = xnew(struct mime_part);
	p->refs = 1;
	return p;
}

struct mime_part *mime_part_ref(struct mime_part *p)
{
	p->refs++;
	return p;
}

void mime_part_drop_children(struct mime_part *p)
{
	for (size_t i = 0; i < p->n_children; i++) {
		p->child[i].part->parent = NULL;
		mime_part_unref(p->child[i].part);
	}
	free(p->child);
	free(p->boundary);
	p->child = NULL, p->boundary = NULL;
	p->n_children = p->cap_children = 0;
	p->preamble = p->closing = STR_NULL;
}

void mime_part_unref(struct mime_part *p)
{
	if (p == NULL || --p->refs > 0)
		return;
	mime_part_drop_children(p);
	for (size_t i = 0; i < p->n_fields; i++)
		free(p->field[i].own);
	free(p->field);
	mime_source_unref(p->content_source);
	mime_source_unref(p->source);
	free(p);
}

static struct mime_child *mime_child_grow(struct mime_part *p)
{
	if (p->n_children == p->cap_children) {
		p->cap_children = p->cap_children == 0 ? 4 : p->cap_children * 2;
		p->child = xreallocarray(p->child, p->cap_children, sizeof *p->child);
	}
	return &p->child[p->n_children++];
}

struct mime_part *mime_part_add_child(struct mime_part *p, str_t delimiter)
{
	struct mime_part *c = mime_part_new();
	c->source = mime_source_ref(p->source);
	c->parent = p;
	*mime_child_grow(p) = (struct mime_child){c, delimiter};
	c->index = (uint32_t)p->n_children;
	return c;
}

void mime_child_append(struct mime_part *p, struct mime_part *child)
{
	*mime_child_grow(p) = (struct mime_child){child, STR_NULL};
}

void mime_part_own_content(struct mime_part *p, str_t content)
{
	struct mime_source *s = mime_source_new(content);
	mime_source_unref(p->content_source);
	p->content_source = s;
	p->content = str_mk(s->p, s->n_bytes);
}

struct mime_part *mime_part_copy(const struct mime_part *p)
{
	struct mime_part *c = mime_part_new();
	*c = *p;
	c->refs = 1, c->parent = NULL, c->child = NULL, c->n_children = c->cap_children = 0;
	mime_source_ref(c->source);
	mime_source_ref(c->content_source);
	c->boundary = p->boundary != NULL ? xstrdup(p->boundary) : NULL;
	c->cap_fields = p->n_fields;
	c->field = p->n_fields > 0 ? xcalloc(p->n_fields, sizeof *c->field) : NULL;
	for (size_t i = 0; i < p->n_fields; i++) {
		c->field[i] = p->field[i];
		if (p->field[i].own == NULL)
			continue;
		c->field[i].own = str_dup(p->field[i].whole);
		c->field[i].whole.p = c->field[i].own;
		mime_field_split(&c->field[i]);
	}
	for (size_t i = 0; i < p->n_children; i++) {
		struct mime_part *child = mime_part_copy(p->child[i].part);
		child->parent = c;
		*mime_child_grow(c) = (struct mime_child){child, p->child[i].delimiter};
	}
	return c;
}

void mime_part_id(const struct mime_part *p, struct buf *out)
{
	uint32_t index[MIME_DEPTH_MAX];
	size_t n = 0;
	for (; p != NULL && p->index > 0 && n < MIME_DEPTH_MAX; p = p->parent)
		index[n++] = p->index;
	for (; n > 0; n--) {
		buf_add_u64(out, index[n - 1]);
		if (n > 1)
			buf_add_c(out, '.');
	}
}

/* --- writing --- */

static bool buf_ends_line(const struct buf *out, size_t since)
{
	return out->n == since || out->p[out->n - 1] == '\n';
}

void mime_part_write_fields(const struct mime_part *p, struct buf *out)
{
	size_t start = out->n;
	for (size_t i = 0; i < p->n_fields; i++) {
		if (!buf_ends_line(out, start))
			buf_add_z(out, "\r\n");
		buf_add_str(out, p->field[i].whole);
	}
}

static bool starts_line_end(str_t s)
{
	return s.n == 0 || s.p[0] == '\r' || s.p[0] == '\n';
}

/* The line end that a delimiter as it was read may lack, because what was before it had no bytes. */
static void mime_write_delimiter(str_t delimiter, size_t since, struct buf *out)
{
	if (!starts_line_end(delimiter) && !buf_ends_line(out, since))
		buf_add_z(out, "\r\n");
	buf_add_str(out, delimiter);
}

static void mime_write_children(const struct mime_part *p, struct buf *out)
{
	size_t since = out->n;
	buf_add_str(out, p->preamble);
	for (size_t i = 0; i < p->n_children; i++) {
		if (p->child[i].delimiter.p != NULL)
			mime_write_delimiter(p->child[i].delimiter, since, out);
		else
			buf_printf(out, "%s--%s\r\n", out->n == since ? "" : "\r\n", p->boundary);
		if (!buf_ends_line(out, since) &&
		    p->child[i].part->is_touched) /* the message ended with the delimiter */
			buf_add_z(out, "\r\n");
		since = out->n;
		mime_part_write(p->child[i].part, out);
	}
	if (p->closing.p != NULL)
		mime_write_delimiter(p->closing, since, out);
	else
		buf_printf(out, "\r\n--%s--%s", p->boundary, p->parent == NULL ? "\r\n" : "");
}

void mime_part_write(const struct mime_part *p, struct buf *out)
{
	size_t start = out->n;
	mime_part_write_fields(p, out);
	if (p->is_touched && p->separator.p == NULL) {
		if (!buf_ends_line(out, start))
			buf_add_z(out, "\r\n");
		buf_add_z(out, "\r\n");
	} else if (p->is_touched && !buf_ends_line(out, start)) {
		buf_add_z(out, "\r\n");
	}
	buf_add_str(out, p->separator);
	if (p->boundary != NULL)
		mime_write_children(p, out);
	else
		buf_add_str(out, p->content);
}

/* --- fields --- */

struct mime_field *mime_field_grow(struct mime_part *p)
{
	if (p->n_fields == p->cap_fields) {
		p->cap_fields = p->cap_fields == 0 ? 8 : p->cap_fields * 2;
		p->field = xreallocarray(p->field, p->cap_fields, sizeof *p->field);
	}
	return &p->field[p->n_fields++];
}

bool mime_field_split(struct mime_field *f)
{
	str_t s = f->whole;
	size_t n = 0, colon;
	while (n < s.n && s.p[n] > ' ' && s.p[n] < 0x7f && s.p[n] != ':')
		n++;
	for (colon = n; colon < s.n && (s.p[colon] == ' ' || s.p[colon] == '\t'); colon++)
		;
	f->has_colon = n > 0 && colon < s.n && s.p[colon] == ':';
	f->has_space = f->has_colon && colon > n;
	f->name = str_head(s, f->has_colon ? n : 0);
	f->raw_value = f->has_colon ? str_skip(s, colon + 1) : str_head(s, 0);
	if (f->raw_value.n > 0 && f->raw_value.p[f->raw_value.n - 1] == '\n')
		f->raw_value.n--;
	if (f->raw_value.n > 0 && f->raw_value.p[f->raw_value.n - 1] == '\r')
		f->raw_value.n--;
	return f->has_colon;
}

const struct mime_field *mime_field_find(const struct mime_part *p, str_t name, size_t *at)
{
	while (*at < p->n_fields) {
		const struct mime_field *f = &p->field[(*at)++];
		if (f->name.n > 0 && str_ieq(f->name, name))
			return f;
	}
	return NULL;
}

static struct mime_field mime_field_own(str_t whole)
{
	struct mime_field f = {.own = str_dup(whole)};
	f.whole = str_mk(f.own, whole.n);
	mime_field_split(&f);
	return f;
}

static void mime_field_put(struct mime_part *p, size_t at, str_t whole)
{
	/* before the array moves: whole may be one of its fields */
	struct mime_field f = mime_field_own(whole);
	mime_field_grow(p);
	memmove(&p->field[at + 1], &p->field[at], (p->n_fields - 1 - at) * sizeof f);
	p->field[at] = f;
	p->is_touched = true;
}

static void mime_field_drop(struct mime_part *p, size_t at)
{
	free(p->field[at].own);
	memmove(&p->field[at], &p->field[at + 1], (p->n_fields - at - 1) * sizeof *p->field);
	p->n_fields--;
	p->is_touched = true;
}

/* After a Content-Type has come: children and field must have one boundary. */
static void mime_part_follow_type(struct mime_part *p)
{
	const struct mime_field *f = mime_field_first(p, STR("Content-Type"));
	struct mime_params params;
	if (f == NULL || p->boundary == NULL)
		return;
	if (mime_params_parse(f->raw_value, &params) != 0) {
		err_clear();
		return;
	}
	str_t boundary = mime_params_get(&params, STR("boundary"));
	if (boundary.n == 0 || !mime_boundary_is_valid(boundary)) {
		struct buf whole = BUF_INIT;
		struct header_writer w;
		mime_params_set(&params, STR("boundary"), str_of(p->boundary));
		header_write_begin(&w, &whole, STR("Content-Type"));
		mime_params_write(&params, &w);
		header_write_end(&w);
		size_t at = (size_t)(f - p->field);
		free(p->field[at].own);
		p->field[at] = mime_field_own(buf_str(&whole));
		buf_fini(&whole);
	} else if (!str_eq(boundary, str_of(p->boundary))) {
		free(p->boundary);
		p->boundary = str_dup(boundary);
		for (size_t i = 0; i < p->n_children; i++)
			p->child[i].delimiter = STR_NULL;
		p->closing = STR_NULL;
	}
	mime_params_fini(&params);
}

static void mime_field_follow(struct mime_part *p, str_t whole)
{
	if (str_istarts(whole, STR("Content-Type:")))
		mime_part_follow_type(p);
}

void mime_field_append(struct mime_part *p, str_t whole)
{
	mime_field_put(p, p->n_fields, whole);
	mime_field_follow(p, p->field[p->n_fields - 1].whole);
}

void mime_field_prepend(struct mime_part *p, str_t whole)
{
	mime_field_put(p, 0, whole);
	mime_field_follow(p, p->field[0].whole);
}

void mime_field_set(struct mime_part *p, str_t whole)
{
	struct mime_field f = mime_field_own(whole);
	size_t at = 0;
	const struct mime_field *found = mime_field_find(p, f.name, &at);
	if (found == NULL) {
		*mime_field_grow(p) = f;
	} else {
		size_t i = (size_t)(found - p->field);
		free(p->field[i].own);
		p->field[i] = f;
		while ((found = mime_field_find(p, f.name, &at)) != NULL)
			mime_field_drop(p, --at);
	}
	p->is_touched = true;
	mime_field_follow(p, f.whole);
}

size_t mime_field_remove(struct mime_part *p, str_t name)
{
	size_t n = 0, at = 0;
	while (mime_field_find(p, name, &at) != NULL) {
		mime_field_drop(p, --at);
		n++;
	}
	return n;
}

/* --- multiparts --- */

static bool is_boundary_byte(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
	       (c != 0 && strchr("'()+_,-./:=? ", c) != NULL);
}

bool mime_boundary_is_valid(str_t b)
{
	for (size_t i = 0; i < b.n; i++)
		if (!is_boundary_byte((unsigned char)b.p[i]))
			return false;
	return b.n > 0 && b.n <= BOUNDARY_MAX && b.p[b.n - 1] != ' ';
}

bool mime_boundary_is_in(str_t boundary, str_t bytes)
{
	struct buf delimiter = BUF_INIT;
	buf_add_z(&delimiter, "--");
	buf_add_str(&delimiter, boundary);
	bool is_in = str_find(bytes, buf_str(&delimiter)) >= 0;
	buf_fini(&delimiter);
	return is_in;
}

char *mime_boundary_new(str_t bytes)
{
	char text[32];
	do {
		snprintf(text, sizeof text, "=_%08x%08x%08x", (unsigned)random_below(UINT32_MAX),
			 (unsigned)random_below(UINT32_MAX), (unsigned)random_below(UINT32_MAX));
	} while (str_find(bytes, str_of(text)) >= 0);
	return xstrdup(text);
}

size_t mime_part_measure(const struct mime_part *p, size_t *n)
{
	size_t depth = 0;
	(*n)++;
	for (size_t i = 0; i < p->n_children; i++) {
		size_t d = mime_part_measure(p->child[i].part, n);
		depth = d > depth ? d : depth;
	}
	return depth + 1;
}

static int mime_part_check_room(const struct mime_part *p, const struct mime_part *child)
{
	size_t n = 0, depth = mime_part_measure(child, &n);
	const struct mime_part *root = p;
	for (; root->parent != NULL; root = root->parent)
		depth++;
	mime_part_measure(root, &n);
	if (depth + 1 > MIME_DEPTH_MAX) {
		err_set(ERR_LIMIT, "parts nested deeper than %d levels", MIME_DEPTH_MAX);
		return -1;
	}
	if (n > MIME_PARTS_MAX) {
		err_set(ERR_LIMIT, "more than %d parts in one message", MIME_PARTS_MAX);
		return -1;
	}
	return 0;
}

void mime_part_set_boundary(struct mime_part *p, char *boundary)
{
	struct buf scratch = BUF_INIT;
	const struct mime_field *f = mime_field_first(p, STR("Content-Type"));
	struct mime_params params;
	free(p->boundary);
	p->boundary = boundary;
	for (size_t i = 0; i < p->n_children; i++)
		p->child[i].delimiter = STR_NULL;
	p->closing = STR_NULL;
	if (f != NULL && mime_params_parse(f->raw_value, &params) == 0) {
		struct header_writer w;
		mime_params_set(&params, STR("boundary"), str_of(boundary));
		header_write_begin(&w, &scratch, STR("Content-Type"));
		mime_params_write(&params, &w);
		header_write_end(&w);
		mime_params_fini(&params);
		mime_field_set(p, buf_str(&scratch));
	}
	err_clear();
	buf_fini(&scratch);
}

int mime_part_append(struct mime_part *p, const struct mime_part *child)
{
	struct buf bytes = BUF_INIT;
	if (p->boundary == NULL && !mime_part_is_type(p, STR("multipart/"))) {
		err_set(ERR_INVALID, "a part can be appended to a multipart only");
		return -1;
	}
	if (mime_part_check_room(p, child) != 0)
		return -1;
	mime_part_write(child, &bytes);
	if (p->boundary == NULL) {
		struct buf scratch = BUF_INIT;
		str_t b = mime_part_param(p, STR("Content-Type"), STR("boundary"), &scratch);
		p->boundary = mime_boundary_is_valid(b) ? str_dup(b) : NULL;
		p->preamble = p->content;
		p->closing = STR_NULL;
		buf_fini(&scratch);
	}
	struct mime_part *copy = mime_part_copy(child);
	copy->parent = p;
	copy->index = (uint32_t)p->n_children + 1;
	*mime_child_grow(p) = (struct mime_child){copy, STR_NULL};
	if (p->closing.n == 0)
		p->closing = STR_NULL;
	p->is_touched = true;
	if (p->boundary == NULL || mime_boundary_is_in(str_of(p->boundary), buf_str(&bytes))) {
		buf_clear(&bytes);
		for (size_t i = 0; i < p->n_children; i++)
			mime_part_write(p->child[i].part, &bytes);
		mime_part_set_boundary(p, mime_boundary_new(buf_str(&bytes)));
	}
	buf_fini(&bytes);
	return 0;
}

struct mime_part *mime_part_new_multipart(str_t type, str_t boundary)
{
	struct mime_params params;
	struct mime_part *p = NULL;
	if (mime_params_parse(type, &params) != 0)
		return NULL;
	if (boundary.p != NULL)
		mime_params_set(&params, STR("boundary"), boundary);
	str_t given = mime_params_get(&params, STR("boundary"));
	char *made = given.p == NULL ? mime_boundary_new(STR("")) : NULL;
	if (made != NULL)
		mime_params_set(&params, STR("boundary"), str_of(made));
	if (given.p != NULL && !mime_boundary_is_valid(given)) {
		err_set(ERR_INVALID,
			"`" STR_FMT "` cannot be a boundary: 1 to 70 letters, digits and '()+_,-./:=?",
			STR_ARG(str_head(given, 80)));
	} else if (str_chr(params.value, '/', 0) < 0) {
		err_set(ERR_INVALID, "`" STR_FMT "` is no type", STR_ARG(str_head(params.value, 80)));
	} else if (mime_params_check(&params) == 0) {
		struct buf whole = BUF_INIT;
		struct header_writer w;
		p = mime_part_new();
		p->is_touched = true;
		p->boundary = str_dup(mime_params_get(&params, STR("boundary")));
		header_write_begin(&w, &whole, STR("Content-Type"));
		mime_params_write(&params, &w);
		header_write_end(&w);
		mime_field_append(p, buf_str(&whole));
		buf_fini(&whole);
	}
	free(made);
	mime_params_fini(&params);
	return p;
}
