/* toml_write.c - JSON values as TOML. A table's plain values come before its subtables, because a header
 * would swallow what follows it; arrays whose every element is a table become [[headers]], other arrays and
 * what is in them are inline. A table that holds nothing but tables needs no header of its own. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/text.h"
#include "policy/value_impl.h"

#include <stdlib.h>

struct toml_writer {
	struct buf *out;
	bool is_pretty, is_compact;
	struct buf path; /* of the table being written: a.b.c */
};

static void toml_write_string(struct toml_writer *w, str_t s, bool can_have_lines)
{
	struct buf *out = w->out;
	bool is_long = can_have_lines && w->is_pretty && memchr(s.n != 0 ? s.p : "", '\n', s.n) != NULL;
	buf_add_z(out, is_long ? "\"\"\"\n" : "\"");
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		static const char from[] = "\b\t\f\r\"\\", to[] = "btfr\"\\";
		const char *hit = c != 0 ? strchr(from, c) : NULL;
		if (c == '\n')
			buf_add_z(out, is_long ? "\n" : "\\n");
		else if (hit != NULL && !(is_long && c == '\t'))
			buf_printf(out, "\\%c", to[hit - from]);
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\u%04X", c);
		else
			buf_add_c(out, (char)c);
	}
	buf_add_z(out, is_long ? "\"\"\"" : "\"");
}

static void toml_write_key(struct toml_writer *w, str_t key)
{
	bool is_bare = key.n != 0;
	for (size_t i = 0; i < key.n; i++) {
		char c = key.p[i];
		is_bare = is_bare && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				      (c >= '0' && c <= '9') || c == '_' || c == '-');
	}
	if (is_bare)
		buf_add_str(w->out, key);
	else
		toml_write_string(w, key, false);
}

static bool toml_is_tables(const json_t *v)
{
	if (!json_is_array(v) || json_array_size(v) == 0)
		return false;
	for (size_t i = 0; i < json_array_size(v); i++)
		if (!json_is_object(json_array_get(v, i)))
			return false;
	return true;
}

static int toml_write_inline(struct toml_writer *w, const json_t *v, int depth)
{
	struct buf *out = w->out;
	size_t n = 0;
	int rc = 0;
	if (depth > 2 * VALUE_DEPTH_MAX)
		panic("a JSON value nested deeper than any reader allows");
	switch (json_typeof(v)) {
	case JSON_OBJECT: {
		struct value_entry *e = value_sorted(v, &n);
		buf_add_z(out, n != 0 ? "{ " : "{}");
		for (size_t i = 0; i < n && rc == 0; i++) {
			if (i != 0)
				buf_add_z(out, ", ");
			toml_write_key(w, e[i].key);
			buf_add_z(out, " = ");
			rc = toml_write_inline(w, e[i].value, depth + 1);
		}
		buf_add_z(out, n != 0 ? " }" : "");
		free(e);
		return rc;
	}
	case JSON_ARRAY: {
		n = json_array_size(v);
		bool is_tall = w->is_pretty && n > 1 && depth == 0; /* inline tables must stay on one line */
		buf_add_c(out, '[');
		for (size_t i = 0; i < n && rc == 0; i++) {
			buf_add_z(out, is_tall ? "\n    " : i != 0 ? ", " : "");
			rc = toml_write_inline(w, json_array_get(v, i), depth + 1);
			buf_add_z(out, is_tall ? "," : "");
		}
		buf_add_z(out, is_tall ? "\n]" : "]");
		return rc;
	}
	case JSON_STRING:
		toml_write_string(w, str_mk(json_string_value(v), json_string_length(v)), depth == 0);
		return 0;
	case JSON_INTEGER:
		buf_add_i64(out, json_integer_value(v));
		return 0;
	case JSON_REAL:
		double_fmt_json(out, json_real_value(v));
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		buf_add_z(out, json_is_true(v) ? "true" : "false");
		return 0;
	case JSON_NULL:
		err_set(ERR_INVALID, "null has no form in TOML");
		return -1;
	}
	return -1;
}

static bool toml_is_section(const struct toml_writer *w, const json_t *v)
{
	if (json_is_object(v))
		return !w->is_compact || json_object_size(v) != 0;
	return toml_is_tables(v);
}

static int toml_write_table(struct toml_writer *w, const json_t *obj, const char *brackets, int depth);

static int toml_write_section(struct toml_writer *w, str_t key, const json_t *v, int depth)
{
	size_t path_n = w->path.n;
	struct buf *out = w->out;
	int rc = 0;
	if (path_n != 0)
		buf_add_c(&w->path, '.');
	w->out = &w->path;
	toml_write_key(w, key);
	w->out = out;
	if (json_is_object(v)) {
		rc = toml_write_table(w, v, "[]", depth + 1);
	} else {
		for (size_t i = 0; i < json_array_size(v) && rc == 0; i++)
			rc = toml_write_table(w, json_array_get(v, i), "[[]]", depth + 1);
	}
	buf_truncate(&w->path, path_n);
	return rc;
}

/* brackets: of the header, "" for the root. */
static int toml_write_table(struct toml_writer *w, const json_t *obj, const char *brackets, int depth)
{
	size_t n, n_plain = 0;
	int rc = -1;
	if (depth > 2 * VALUE_DEPTH_MAX)
		panic("a JSON value nested deeper than any reader allows");
	struct value_entry *e = value_sorted(obj, &n);
	for (size_t i = 0; i < n; i++)
		n_plain += !toml_is_section(w, e[i].value);
	size_t half = strlen(brackets) / 2;
	if (half == 2 || (half == 1 && (n_plain != 0 || n == 0))) {
		buf_printf(w->out, "%s%.*s%s%s\n", w->out->n != 0 ? "\n" : "", (int)half, brackets, w->path.p,
			   brackets + half);
	}
	for (size_t i = 0; i < n; i++) {
		if (toml_is_section(w, e[i].value))
			continue;
		toml_write_key(w, e[i].key);
		buf_add_z(w->out, " = ");
		if (toml_write_inline(w, e[i].value, 0) != 0) {
			err_wrap("at `%s%s" STR_FMT "`", w->path.n != 0 ? w->path.p : "",
				 w->path.n != 0 ? "." : "", STR_ARG(str_head(e[i].key, 80)));
			goto out;
		}
		buf_add_c(w->out, '\n');
	}
	for (size_t i = 0; i < n; i++)
		if (toml_is_section(w, e[i].value) && toml_write_section(w, e[i].key, e[i].value, depth) != 0)
			goto out;
	rc = 0;
out:
	free(e);
	return rc;
}

static int toml_write(const json_t *v, bool is_pretty, bool is_compact, struct buf *out)
{
	struct toml_writer w = {.out = out, .is_pretty = is_pretty, .is_compact = is_compact};
	size_t before = out->n;
	if (!json_is_object(v)) {
		struct buf what = BUF_INIT;
		value_describe(v, false, &what);
		err_set(ERR_INVALID, "only a table can be written as TOML, not a %s", what.p);
		buf_fini(&what);
		return -1;
	}
	int rc = toml_write_table(&w, v, "", 0);
	if (rc != 0)
		buf_truncate(out, before);
	buf_fini(&w.path);
	return rc;
}

int value_write_toml(const json_t *v, bool is_pretty, struct buf *out)
{
	return toml_write(v, is_pretty, false, out);
}

int value_write_toml_compact(const json_t *v, struct buf *out)
{
	return toml_write(v, true, true, out);
}
