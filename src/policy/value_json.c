/* value_json.c - JSON text.
 *
 * Reading is jansson's, behind one linear pass of ours: it bounds the nesting, because jansson recurses up to
 * 2048 levels and a fiber's stack does not last that long, and it blanks comments for policies. The quick
 * reader (value_json_read.c) comes first and spares most texts the way there. Writing is ours: keys sorted
 * and floats that stay floats, which jansson does not offer together. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/json.h"
#include "base/text.h"
#include "policy/value_impl.h"

#include <stdlib.h>

static void value_json_fail_at(str_t text, size_t at, const char *what)
{
	size_t line, column;
	value_locate(text, at, &line, &column);
	err_set(ERR_INVALID, "%s at line %zu column %zu", what, line, column);
}

/* The end of the comment that starts at `at`, or `at` when none does; -1 unterminated. */
static ptrdiff_t value_json_comment(str_t t, size_t at)
{
	bool is_line = t.p[at] == '#' || (t.p[at] == '/' && at + 1 < t.n && t.p[at + 1] == '/');
	if (is_line) {
		ptrdiff_t end = str_chr(t, '\n', at);
		return end < 0 ? (ptrdiff_t)t.n : end;
	}
	if (t.p[at] != '/' || at + 1 >= t.n || t.p[at + 1] != '*')
		return (ptrdiff_t)at;
	ptrdiff_t end = str_find(str_skip(t, at + 2), STR("*/"));
	return end < 0 ? -1 : (ptrdiff_t)at + 2 + end + 2;
}

/* Checks the nesting. Relaxed: *copy gets the text with its comments blanked when there are any. */
static int value_json_scan(str_t t, bool is_relaxed, struct buf *copy)
{
	unsigned depth = 0;
	for (size_t i = 0; i < t.n; i++) {
		char c = t.p[i];
		if (c == '"') {
			for (i++; i < t.n && t.p[i] != '"'; i++)
				if (t.p[i] == '\\')
					i++;
		} else if (c == '[' || c == '{') {
			if (++depth > VALUE_DEPTH_MAX) {
				value_json_fail_at(t, i, "nested deeper than 128 levels");
				return -1;
			}
		} else if (c == ']' || c == '}') {
			depth -= depth > 0;
		} else if (is_relaxed && (c == '/' || c == '#')) {
			ptrdiff_t end = value_json_comment(t, i);
			if (end < 0) {
				value_json_fail_at(t, i, "a comment that does not end");
				return -1;
			}
			if ((size_t)end == i)
				continue;
			if (copy->n == 0)
				buf_add_str(copy, t);
			for (size_t k = i; k < (size_t)end; k++)
				if (copy->p[k] != '\n')
					copy->p[k] = ' ';
			i = (size_t)end - 1;
		}
	}
	return 0;
}

static json_t *value_json_parse(str_t text, bool is_relaxed, size_t flags)
{
	struct buf copy = BUF_INIT;
	json_t *v = NULL;
	json_error_t e;
	ptrdiff_t nul = str_chr(text, 0, 0);
	if (nul >= 0) { /* jansson takes it for the end */
		value_json_fail_at(text, (size_t)nul, "a NUL byte");
		goto out;
	}
	if (value_json_scan(text, is_relaxed, &copy) != 0)
		goto out;
	if (copy.n != 0)
		text = buf_str(&copy);
	v = json_loadb(text.n != 0 ? text.p : "", text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL | flags, &e);
	if (v == NULL)
		err_set(json_error_code(&e) == json_error_duplicate_key ? ERR_EXISTS : ERR_INVALID,
			"%s at line %d column %d", e.text, e.line, e.column);
out:
	buf_fini(&copy);
	return v;
}

json_t *value_parse_json(str_t text)
{
	json_t *v = value_json_read(text);
	return v != NULL ? v : value_json_parse(text, false, 0);
}

json_t *value_parse_json_unique(str_t text)
{
	json_t *v = value_json_read(text);
	return v != NULL ? v : value_json_parse(text, false, JSON_REJECT_DUPLICATES);
}

json_t *value_parse_json_relaxed(str_t text)
{
	return value_json_parse(text, true, 0);
}

static void value_json_indent(struct buf *out, bool is_pretty, int depth)
{
	if (!is_pretty)
		return;
	buf_add_c(out, '\n');
	for (int i = 0; i < depth; i++)
		buf_add_z(out, "  ");
}

static void value_json_write(const json_t *v, bool is_pretty, int depth, struct buf *out)
{
	size_t n = 0;
	if (depth > 2 * VALUE_DEPTH_MAX)
		panic("a JSON value nested deeper than any reader allows");
	switch (json_typeof(v)) {
	case JSON_OBJECT: {
		struct value_entry *e = value_sorted(v, &n);
		buf_add_c(out, '{');
		for (size_t i = 0; i < n; i++) {
			if (i != 0)
				buf_add_c(out, ',');
			value_json_indent(out, is_pretty, depth + 1);
			json_escape(out, e[i].key);
			buf_add_z(out, is_pretty ? ": " : ":");
			value_json_write(e[i].value, is_pretty, depth + 1, out);
		}
		if (n != 0)
			value_json_indent(out, is_pretty, depth);
		buf_add_c(out, '}');
		free(e);
		return;
	}
	case JSON_ARRAY:
		buf_add_c(out, '[');
		n = json_array_size(v);
		for (size_t i = 0; i < n; i++) {
			if (i != 0)
				buf_add_c(out, ',');
			value_json_indent(out, is_pretty, depth + 1);
			value_json_write(json_array_get(v, i), is_pretty, depth + 1, out);
		}
		if (n != 0)
			value_json_indent(out, is_pretty, depth);
		buf_add_c(out, ']');
		return;
	case JSON_STRING:
		json_escape(out, str_mk(json_string_value(v), json_string_length(v)));
		return;
	case JSON_INTEGER:
		buf_add_i64(out, json_integer_value(v));
		return;
	case JSON_REAL:
		double_fmt_json(out, json_real_value(v));
		return;
	case JSON_TRUE:
	case JSON_FALSE:
		buf_add_z(out, json_is_true(v) ? "true" : "false");
		return;
	case JSON_NULL:
		buf_add_z(out, "null");
		return;
	}
}

void value_write_json(const json_t *v, bool is_pretty, struct buf *out)
{
	value_json_write(v, is_pretty, 0, out);
}

void value_describe(const json_t *v, bool is_secret, struct buf *out)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		buf_add_z(out, "map");
		return;
	case JSON_ARRAY:
		buf_add_z(out, "sequence");
		return;
	case JSON_STRING:
		buf_add_z(out, "string ");
		json_escape(out,
			    is_secret ? STR("***") : str_mk(json_string_value(v), json_string_length(v)));
		return;
	case JSON_INTEGER:
		buf_add_z(out, "integer `");
		break;
	case JSON_REAL:
		buf_add_z(out, "floating point `");
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		buf_add_z(out, "boolean `");
		break;
	case JSON_NULL:
		buf_add_z(out, "null");
		return;
	}
	if (is_secret)
		buf_add_z(out, "***");
	else
		value_json_write(v, false, 0, out);
	buf_add_c(out, '`');
}
