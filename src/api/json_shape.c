/* json_shape.c - JSON against a schema. The schema is the one that the API reference shows, so what is
 * documented and what is taken cannot differ. Recursion is as deep as the schemas are nested, whatever the
 * JSON is. */
#include "api/json_shape.h"

#include "base/buf.h"
#include "base/err.h"
#include "policy/value.h"

#include <stdio.h>
#include <string.h>

enum { SHAPE_PATH_BYTES = 256, SHAPE_SHOWN_BYTES = 200 };

/* Where something is, from the inside out: text is made of it only for an error. */
struct shape_at {
	const struct shape_at *up;
	const char *name; /* of a field; NULL: an index */
	size_t index;
};

static void shape_path_add(const struct shape_at *at, struct buf *out)
{
	if (at == NULL)
		return;
	shape_path_add(at->up, out); /* as deep as the schemas */
	if (out->n > SHAPE_PATH_BYTES)
		return; /* long enough to find it */
	if (at->name == NULL)
		buf_printf(out, "[%zu]", at->index);
	else
		buf_printf(out, "%s%.100s", out->n != 0 ? "." : "", at->name);
}

/* Empty, or "recipients[3].email" and then `end`. */
static struct buf shape_path(const struct shape_at *at, const char *end)
{
	struct buf b = BUF_INIT;
	shape_path_add(at, &b);
	if (b.n != 0)
		buf_add_z(&b, end);
	buf_add_z(&b, "");
	return b;
}

static int shape_err_type(const struct shape_at *at, const json_t *given, const char *expected)
{
	struct buf b = BUF_INIT, path = shape_path(at, ": ");
	value_describe(given, false, &b);
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%sinvalid type: " STR_FMT ", expected %s", path.p,
		STR_ARG(str_head(buf_str(&b), SHAPE_SHOWN_BYTES)), expected);
	buf_fini(&b);
	buf_fini(&path);
	return 422;
}

static const struct http_field *shape_find(const struct http_schema *s, const char *name)
{
	for (const struct http_field *f = s->fields; f->name != NULL; f++) {
		if (strcmp(f->name, name) == 0)
			return f;
	}
	return NULL;
}

static int shape_check_names(const json_t *obj, const struct http_schema *s, const struct shape_at *at)
{
	const char *key;
	json_t *v;
	if (!s->is_strict)
		return 0;
	json_object_foreach((json_t *)(uintptr_t)obj, key, v)
	{
		if (shape_find(s, key) != NULL)
			continue;
		struct buf b = BUF_INIT, path = shape_path(&(struct shape_at){.up = at, .name = key}, "");
		for (const struct http_field *f = s->fields; f->name != NULL; f++)
			buf_printf(&b, "%s`%s`", f != s->fields ? ", " : "", f->name);
		err_set(ERR_INVALID, JSON_SHAPE_BAD "%s: unknown field `%.100s`, expected %s%s", path.p, key,
			s->fields[0].name != NULL ? "one of " : "no fields", b.n != 0 ? b.p : "");
		buf_fini(&b);
		buf_fini(&path);
		return 422;
	}
	return 0;
}

json_t *json_shape_parse(str_t body, const struct http_schema *s, int *status)
{
	char expected[SHAPE_PATH_BYTES];
	json_t *root = value_parse_json_unique(body);
	if (root == NULL && err_is(ERR_EXISTS)) {
		struct err e = err_take(); /* one of the two would be lost */
		err_set(ERR_INVALID, JSON_SHAPE_BAD "%s", e.text);
		err_fini(&e);
		*status = 422;
		return NULL;
	}
	if (root == NULL) {
		err_wrap("Failed to parse the request body as JSON");
		*status = 400;
		return NULL;
	}
	if (json_is_object(root))
		return root;
	snprintf(expected, sizeof(expected), "struct %s", s->name);
	*status = shape_err_type(NULL, root, expected);
	json_decref(root);
	return NULL;
}

/* --- the whole of it --- */

static int shape_check_object(const json_t *obj, const struct http_schema *s, const struct shape_at *at);

static int shape_check_word(const json_t *v, const struct http_field *f, const struct shape_at *at)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; f->words[i] != NULL; i++) {
		if (str_eq(json_shape_str(v), str_of(f->words[i]))) {
			buf_fini(&b);
			return 0;
		}
		buf_printf(&b, "%s`%s`", i > 0 ? ", " : "", f->words[i]);
	}
	struct buf path = shape_path(at, ": ");
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%sunknown variant `%.100s`, expected one of %s", path.p,
		json_string_value(v), b.n != 0 ? b.p : "none");
	buf_fini(&b);
	buf_fini(&path);
	return 422;
}

static int shape_check_schema(const json_t *v, const struct http_schema *s, const struct shape_at *at)
{
	char expected[SHAPE_PATH_BYTES];
	if (json_is_object(v))
		return shape_check_object(v, s, at);
	if (s->text_doc != NULL && json_is_string(v))
		return 0;
	snprintf(expected, sizeof(expected), "%sstruct %s", s->text_doc != NULL ? "a string or " : "",
		 s->name);
	return shape_err_type(at, v, expected);
}

static int shape_check_value(const json_t *v, const struct http_field *f, const struct shape_at *at)
{
	switch (f->type) {
	case HTTP_STRING:
		if (!json_is_string(v))
			return shape_err_type(at, v, "a string");
		return f->words != NULL ? shape_check_word(v, f, at) : 0;
	case HTTP_INTEGER:
		return json_is_integer(v) ? 0 : shape_err_type(at, v, "an integer");
	case HTTP_NUMBER:
		return json_is_number(v) ? 0 : shape_err_type(at, v, "a number");
	case HTTP_BOOLEAN:
		return json_is_boolean(v) ? 0 : shape_err_type(at, v, "a boolean");
	case HTTP_OBJECT:
		if (f->schema != NULL)
			return shape_check_schema(v, f->schema, at);
		return json_is_object(v) ? 0 : shape_err_type(at, v, "a map");
	case HTTP_ANY:
		break;
	}
	return 0;
}

static int shape_check_list(const json_t *v, const struct http_field *f, const struct shape_at *at)
{
	struct shape_at item = {.up = at};
	int rc = 0;
	if (!json_is_array(v))
		return shape_err_type(at, v, "a sequence");
	for (; rc == 0 && item.index < json_array_size(v); item.index++)
		rc = shape_check_value(json_array_get(v, item.index), f, &item);
	return rc;
}

static int shape_check_map(const json_t *v, const struct http_field *f, const struct shape_at *at)
{
	struct shape_at item = {.up = at};
	json_t *one;
	if (!json_is_object(v))
		return shape_err_type(at, v, "a map");
	json_object_foreach((json_t *)(uintptr_t)v, item.name, one)
	{
		int rc = shape_check_value(one, f, &item);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int shape_err_missing(const struct shape_at *at, const char *field)
{
	struct buf path = shape_path(at, ": ");
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%smissing field `%s`", path.p, field);
	buf_fini(&path);
	return 422;
}

static int shape_check_object(const json_t *obj, const struct http_schema *s, const struct shape_at *at)
{
	int rc = shape_check_names(obj, s, at);
	for (const struct http_field *f = s->fields; rc == 0 && f->name != NULL; f++) {
		const json_t *v = json_object_get(obj, f->name);
		struct shape_at field = {.up = at, .name = f->name};
		if (v == NULL && f->is_required)
			return shape_err_missing(at, f->name);
		/* A field that need not be there may also be null. */
		if (v == NULL || (json_is_null(v) && (f->is_nullable || !f->is_required)))
			continue;
		rc = f->is_list	 ? shape_check_list(v, f, &field)
		     : f->is_map ? shape_check_map(v, f, &field)
				 : shape_check_value(v, f, &field);
	}
	return rc;
}

int json_shape_check(const json_t *obj, const struct http_schema *s)
{
	return shape_check_object(obj, s, NULL);
}

json_t *json_shape_of_request(const struct http_request *r, struct http_response *a)
{
	int status = 0;
	json_t *root = json_shape_parse(r->body, r->route->body, &status);
	if (root != NULL && (status = json_shape_check(root, r->route->body)) != 0) {
		json_decref(root);
		root = NULL;
	}
	if (root == NULL) {
		http_response_text(a, status, "%s", err_text());
		err_clear();
	}
	return root;
}
