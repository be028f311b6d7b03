/* json_shape.c - JSON against a schema. The schema is the one that the API reference shows, so what is
 * documented and what is taken cannot differ. Recursion is as deep as the schemas are nested, whatever the
 * JSON is. */
#include "api/json_shape.h"

#include "base/buf.h"
#include "base/err.h"
#include "policy/value.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SHAPE_PATH_BYTES = 256, SHAPE_SHOWN_BYTES = 200 };

/* The path of something in what is checked; one that is too long is cut. */
static void PRINTF_LIKE(2, 3) shape_path(char path[SHAPE_PATH_BYTES], const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(path, SHAPE_PATH_BYTES, fmt, ap);
	va_end(ap);
}

int json_shape_err_type(const char *path, const json_t *given, const char *expected)
{
	struct buf b = BUF_INIT;
	value_describe(given, false, &b);
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%s%sinvalid type: " STR_FMT ", expected %s", path,
		path[0] != 0 ? ": " : "", STR_ARG(str_head(buf_str(&b), SHAPE_SHOWN_BYTES)), expected);
	buf_fini(&b);
	return 422;
}

int json_shape_err_missing(const char *prefix, const char *field)
{
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%smissing field `%s`", prefix, field);
	return 422;
}

int json_shape_err_unsupported(const char *path)
{
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%s: field `%s` is not supported by this version of cirrus", path,
		path);
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

int json_shape_check_names(const json_t *obj, const struct http_schema *s, const char *prefix)
{
	const char *key;
	json_t *v;
	if (!s->is_strict)
		return 0;
	json_object_foreach((json_t *)(uintptr_t)obj, key, v)
	{
		if (shape_find(s, key) != NULL)
			continue;
		struct buf b = BUF_INIT;
		for (const struct http_field *f = s->fields; f->name != NULL; f++)
			buf_printf(&b, "%s`%s`", f != s->fields ? ", " : "", f->name);
		err_set(ERR_INVALID, JSON_SHAPE_BAD "%s%.100s: unknown field `%.100s`, expected %s%s", prefix,
			key, key, s->fields[0].name != NULL ? "one of " : "no fields", b.n != 0 ? b.p : "");
		buf_fini(&b);
		return 422;
	}
	return 0;
}

json_t *json_shape_parse(str_t body, const struct http_schema *s, int *status)
{
	char expected[SHAPE_PATH_BYTES];
	json_t *root = value_parse_json(body);
	if (root == NULL) {
		err_wrap("Failed to parse the request body as JSON");
		*status = 400;
		return NULL;
	}
	if (json_is_object(root))
		return root;
	shape_path(expected, "struct %s", s->name);
	*status = json_shape_err_type("", root, expected);
	json_decref(root);
	return NULL;
}

/* --- the whole of it --- */

static int shape_check_object(const json_t *obj, const struct http_schema *s, const char *path);

static int shape_check_word(const json_t *v, const struct http_field *f, const char *path)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; f->words[i] != NULL; i++) {
		if (str_eq(json_shape_str(v), str_of(f->words[i]))) {
			buf_fini(&b);
			return 0;
		}
		buf_printf(&b, "%s`%s`", i > 0 ? ", " : "", f->words[i]);
	}
	err_set(ERR_INVALID, JSON_SHAPE_BAD "%s: unknown variant `%.100s`, expected one of %s", path,
		json_string_value(v), b.n != 0 ? b.p : "none");
	buf_fini(&b);
	return 422;
}

static int shape_check_value(const json_t *v, const struct http_field *f, const char *path)
{
	switch (f->type) {
	case HTTP_STRING:
		if (!json_is_string(v))
			return json_shape_err_type(path, v, "a string");
		return f->words != NULL ? shape_check_word(v, f, path) : 0;
	case HTTP_INTEGER:
		return json_is_integer(v) ? 0 : json_shape_err_type(path, v, "an integer");
	case HTTP_NUMBER:
		return json_is_number(v) ? 0 : json_shape_err_type(path, v, "a number");
	case HTTP_BOOLEAN:
		return json_is_boolean(v) ? 0 : json_shape_err_type(path, v, "a boolean");
	case HTTP_OBJECT:
		if (!json_is_object(v))
			return json_shape_err_type(path, v, "a map");
		return f->schema != NULL ? shape_check_object(v, f->schema, path) : 0;
	case HTTP_ANY:
		break;
	}
	return 0;
}

static int shape_check_list(const json_t *v, const struct http_field *f, const char *path)
{
	char at[SHAPE_PATH_BYTES];
	int rc = 0;
	if (!json_is_array(v))
		return json_shape_err_type(path, v, "a sequence");
	for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
		shape_path(at, "%s[%zu]", path, i);
		rc = shape_check_value(json_array_get(v, i), f, at);
	}
	return rc;
}

static int shape_check_map(const json_t *v, const struct http_field *f, const char *path)
{
	char at[SHAPE_PATH_BYTES];
	const char *key;
	json_t *one;
	if (!json_is_object(v))
		return json_shape_err_type(path, v, "a map");
	json_object_foreach((json_t *)(uintptr_t)v, key, one)
	{
		shape_path(at, "%s.%.100s", path, key);
		int rc = shape_check_value(one, f, at);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int shape_check_object(const json_t *obj, const struct http_schema *s, const char *path)
{
	char at[SHAPE_PATH_BYTES];
	shape_path(at, "%s%s", path, path[0] != 0 ? "." : "");
	int rc = json_shape_check_names(obj, s, at);
	for (const struct http_field *f = s->fields; rc == 0 && f->name != NULL; f++) {
		const json_t *v = json_object_get(obj, f->name);
		if (v == NULL && f->is_required) {
			shape_path(at, "%s%s", path, path[0] != 0 ? ": " : "");
			return json_shape_err_missing(at, f->name);
		}
		/* A field that need not be there may also be null. */
		if (v == NULL || (json_is_null(v) && (f->is_nullable || !f->is_required)))
			continue;
		shape_path(at, "%s%s%s", path, path[0] != 0 ? "." : "", f->name);
		rc = f->is_list	 ? shape_check_list(v, f, at)
		     : f->is_map ? shape_check_map(v, f, at)
				 : shape_check_value(v, f, at);
	}
	return rc;
}

int json_shape_check(const json_t *obj, const struct http_schema *s)
{
	return shape_check_object(obj, s, "");
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
