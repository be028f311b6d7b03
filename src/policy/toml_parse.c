/* toml_parse.c - the structure of a TOML 1.0 document: lines, keys, tables, arrays.
 *
 * The result is built in place as JSON. TOML forbids to reopen what is closed, and what is closed depends on
 * how it was written, so each container has a mark: made by a header on the way to a deeper one (implicit),
 * by a header of its own (explicit), by a dotted key, as an inline value, or as an array of tables.
 *
 * Hostile input: the text is checked to be UTF-8 first; nesting, headers and dotted keys together are bounded
 * by VALUE_DEPTH_MAX; recursion happens for nested values only; all memory is linear in the length of the
 * text. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/toml_impl.h"

#include <stdarg.h>
#include <stdlib.h>

enum toml_origin {
	TOML_IMPLICIT = 1,
	TOML_EXPLICIT,
	TOML_DOTTED,
	TOML_INLINE, /* a table or an array written as a value */
	TOML_TABLES, /* an array made by [[headers]] */
};

struct toml_mark {
	const json_t *container;
	enum toml_origin origin;
};

int toml_fail(const struct toml *t, size_t at, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	size_t line, column;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	value_locate(t->text, at, &line, &column);
	err_set(ERR_INVALID, "TOML: %s at line %zu column %zu", b.p, line, column);
	buf_fini(&b);
	return -1;
}

/* --- marks --- */

static struct toml_mark *toml_mark_find(struct toml *t, const json_t *container)
{
	return map_find(&t->marks, str_mk((const char *)&container, sizeof(container)));
}

static void toml_mark_set(struct toml *t, const json_t *container, enum toml_origin origin)
{
	struct toml_mark *m = toml_mark_find(t, container);
	if (m == NULL) {
		m = arena_alloc(&t->arena, sizeof(*m));
		m->container = container;
		map_put(&t->marks, str_mk((const char *)&m->container, sizeof(m->container)), m);
	}
	m->origin = origin;
}

static enum toml_origin toml_origin(struct toml *t, const json_t *container)
{
	struct toml_mark *m = toml_mark_find(t, container);
	return m != NULL ? m->origin : TOML_INLINE;
}

/* --- blanks --- */

static void toml_skip_blanks(struct toml *t)
{
	while (toml_peek(t, 0) == ' ' || toml_peek(t, 0) == '\t')
		t->at++;
}

/* A comment, if one is here, up to its line end. */
static int toml_skip_comment(struct toml *t)
{
	if (toml_peek(t, 0) != '#')
		return 0;
	for (int c; (c = toml_peek(t, 0)) >= 0 && c != '\n'; t->at++) {
		bool is_crlf = c == '\r' && toml_peek(t, 1) == '\n';
		if (((c < 0x20 && c != '\t') || c == 0x7f) && !is_crlf)
			return toml_fail(t, t->at, "a control character (0x%02x) in a comment", (unsigned)c);
	}
	return 0;
}

static bool toml_skip_newline(struct toml *t)
{
	size_t n = toml_peek(t, 0) == '\n' ? 1 : toml_peek(t, 0) == '\r' && toml_peek(t, 1) == '\n' ? 2 : 0;
	t->at += n;
	return n != 0;
}

/* Blanks, comments and line ends in any number. */
static int toml_skip_lines(struct toml *t)
{
	do {
		toml_skip_blanks(t);
		if (toml_skip_comment(t) != 0)
			return -1;
	} while (toml_skip_newline(t));
	return 0;
}

static int toml_end_line(struct toml *t)
{
	toml_skip_blanks(t);
	if (toml_skip_comment(t) != 0)
		return -1;
	if (toml_peek(t, 0) < 0 || toml_skip_newline(t))
		return 0;
	return toml_fail(t, t->at, "the end of the line was expected");
}

/* --- keys --- */

static bool toml_is_bare(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
	       c == '-';
}

/* Pushes the parts of a dotted key; they are part[*first .. *first + *n). */
static int toml_read_key(struct toml *t, size_t *first, size_t *n)
{
	*first = t->n_parts;
	for (;;) {
		str_t part;
		toml_skip_blanks(t);
		int c = toml_peek(t, 0);
		if (c == '"' || c == '\'') {
			size_t start = t->at;
			if (toml_read_string(t, false, &part) != 0)
				return -1;
			/* jansson's copies and comparisons would cut it there */
			if (memchr(part.p, 0, part.n) != NULL)
				return toml_fail(t, start, "a key with a NUL in it");
		} else {
			size_t from = t->at;
			while (toml_is_bare(toml_peek(t, 0)))
				t->at++;
			part = str_mk(t->text.p + from, t->at - from);
			if (part.n == 0)
				return toml_fail(t, t->at, "a key was expected");
		}
		if (t->n_parts - *first >= VALUE_DEPTH_MAX)
			return toml_fail(t, t->at, "nested deeper than 128 levels");
		if (t->n_parts == t->cap_parts) {
			t->cap_parts = t->cap_parts != 0 ? t->cap_parts * 2 : 16;
			t->part = xreallocarray(t->part, t->cap_parts, sizeof(*t->part));
		}
		t->part[t->n_parts++] = part;
		toml_skip_blanks(t);
		if (toml_peek(t, 0) != '.')
			break;
		t->at++;
	}
	*n = t->n_parts - *first;
	return 0;
}

static json_t *toml_get(const json_t *obj, str_t key)
{
	return json_object_getn(obj, key.n != 0 ? key.p : "", key.n);
}

static json_t *toml_add_table(struct toml *t, json_t *obj, str_t key, enum toml_origin origin)
{
	json_t *child = value_must(json_object());
	value_obj_set(obj, key, child);
	toml_mark_set(t, child, origin);
	return child;
}

static int toml_fail_key(struct toml *t, size_t at, str_t key, const char *what)
{
	return toml_fail(t, at, "key `" STR_FMT "` %s", STR_ARG(str_head(key, 80)), what);
}

/* --- values --- */

static json_t *toml_read_value(struct toml *t, size_t depth);

static int toml_read_pair(struct toml *t, json_t *table, size_t depth)
{
	size_t start = t->at, first, n;
	if (toml_read_key(t, &first, &n) != 0)
		return -1;
	if (depth + n > VALUE_DEPTH_MAX)
		return toml_fail(t, start, "nested deeper than 128 levels");
	for (size_t i = 0; i + 1 < n; i++) {
		json_t *child = toml_get(table, t->part[first + i]);
		if (child == NULL)
			child = toml_add_table(t, table, t->part[first + i], TOML_DOTTED);
		else if (!json_is_object(child) || toml_origin(t, child) != TOML_DOTTED)
			return toml_fail_key(t, start, t->part[first + i], "is defined already");
		table = child;
	}
	if (toml_get(table, t->part[first + n - 1]) != NULL)
		return toml_fail_key(t, start, t->part[first + n - 1], "is defined already");
	if (toml_peek(t, 0) != '=')
		return toml_fail(t, t->at, "`=` was expected");
	t->at++;
	toml_skip_blanks(t);
	json_t *v = toml_read_value(t, depth + n);
	if (v == NULL)
		return -1;
	value_obj_set(table, t->part[first + n - 1], v);
	t->n_parts = first;
	return 0;
}

static json_t *toml_read_array(struct toml *t, size_t depth)
{
	size_t start = t->at++;
	json_t *arr = value_must(json_array());
	for (;;) {
		if (toml_skip_lines(t) != 0)
			goto fail;
		if (toml_peek(t, 0) == ']')
			break;
		if (toml_peek(t, 0) < 0) {
			(void)toml_fail(t, start, "an array that does not end");
			goto fail;
		}
		json_t *v = toml_read_value(t, depth);
		if (v == NULL)
			goto fail;
		value_arr_add(arr, v);
		if (toml_skip_lines(t) != 0)
			goto fail;
		if (toml_peek(t, 0) == ',') {
			t->at++;
		} else if (toml_peek(t, 0) != ']') {
			(void)toml_fail(t, toml_peek(t, 0) < 0 ? start : t->at,
					toml_peek(t, 0) < 0 ? "an array that does not end"
							    : "`,` or `]` was expected");
			goto fail;
		}
	}
	t->at++;
	return arr;
fail:
	json_decref(arr);
	return NULL;
}

static json_t *toml_read_inline(struct toml *t, size_t depth)
{
	json_t *obj = value_must(json_object());
	t->at++;
	toml_skip_blanks(t);
	if (toml_peek(t, 0) == '}') {
		t->at++;
		return obj;
	}
	for (;;) {
		if (toml_read_pair(t, obj, depth) != 0)
			break;
		toml_skip_blanks(t);
		int c = toml_peek(t, 0);
		if (c == '}') {
			t->at++;
			return obj;
		}
		if (c != ',') {
			(void)toml_fail(t, t->at, "`,` or `}` was expected");
			break;
		}
		t->at++;
		toml_skip_blanks(t);
	}
	json_decref(obj);
	return NULL;
}

/* Containers made here get no mark, which counts as inline. (Marks are by address, and no container is freed
 * while the parse goes on, so no address comes back.) */
static json_t *toml_read_value(struct toml *t, size_t depth)
{
	str_t s;
	int c = toml_peek(t, 0);
	if ((c == '[' || c == '{') && depth >= VALUE_DEPTH_MAX) {
		(void)toml_fail(t, t->at, "nested deeper than 128 levels");
		return NULL;
	}
	switch (c) {
	case '[':
		return toml_read_array(t, depth + 1);
	case '{':
		return toml_read_inline(t, depth + 1);
	case '"':
	case '\'':
		if (toml_read_string(t, true, &s) != 0)
			return NULL;
		return value_must(json_stringn_nocheck(s.n != 0 ? s.p : "", s.n));
	default:
		return toml_read_plain(t);
	}
}

/* --- headers --- */

/* The table that a header's last part is in: made where it is missing, the newest element where it is an
 * array. */
static json_t *toml_walk(struct toml *t, size_t start, size_t first, size_t n)
{
	json_t *table = t->root;
	for (size_t i = 0; i + 1 < n; i++) {
		str_t key = t->part[first + i];
		json_t *child = toml_get(table, key);
		if (child == NULL) {
			child = toml_add_table(t, table, key, TOML_IMPLICIT);
		} else if (json_is_array(child) && toml_origin(t, child) == TOML_TABLES) {
			child = json_array_get(child, json_array_size(child) - 1);
		} else if (!json_is_object(child) || toml_origin(t, child) == TOML_INLINE) {
			(void)toml_fail_key(t, start, key,
					    "is defined already, and not as a table that can grow");
			return NULL;
		}
		table = child;
	}
	return table;
}

static int toml_open_table(struct toml *t, size_t start, json_t *parent, str_t key)
{
	json_t *child = toml_get(parent, key);
	if (child == NULL) {
		t->table = toml_add_table(t, parent, key, TOML_EXPLICIT);
		return 0;
	}
	if (!json_is_object(child) || toml_origin(t, child) != TOML_IMPLICIT)
		return toml_fail_key(t, start, key, "is defined already");
	toml_mark_set(t, child, TOML_EXPLICIT);
	t->table = child;
	return 0;
}

static int toml_open_element(struct toml *t, size_t start, json_t *parent, str_t key)
{
	json_t *arr = toml_get(parent, key);
	if (arr == NULL) {
		arr = value_must(json_array());
		value_obj_set(parent, key, arr);
		toml_mark_set(t, arr, TOML_TABLES);
	} else if (!json_is_array(arr) || toml_origin(t, arr) != TOML_TABLES) {
		return toml_fail_key(t, start, key, "is defined already, and not as an array of tables");
	}
	t->table = value_must(json_object());
	value_arr_add(arr, t->table);
	toml_mark_set(t, t->table, TOML_EXPLICIT);
	return 0;
}

static int toml_read_header(struct toml *t)
{
	size_t start = t->at, first, n;
	bool is_element = toml_peek(t, 1) == '[';
	t->at += is_element ? 2 : 1;
	if (toml_read_key(t, &first, &n) != 0)
		return -1;
	if (toml_peek(t, 0) != ']' || (is_element && toml_peek(t, 1) != ']'))
		return toml_fail(t, t->at, is_element ? "`]]` was expected" : "`]` was expected");
	t->at += is_element ? 2 : 1;
	json_t *parent = toml_walk(t, start, first, n);
	if (parent == NULL)
		return -1;
	/* An element of an array lies two levels below its parent. */
	t->table_depth = 2 * n;
	if (t->table_depth > VALUE_DEPTH_MAX)
		return toml_fail(t, start, "nested deeper than 128 levels");
	str_t key = t->part[first + n - 1];
	if ((is_element ? toml_open_element(t, start, parent, key)
			: toml_open_table(t, start, parent, key)) != 0)
		return -1;
	t->n_parts = first;
	return 0;
}

static int toml_read_document(struct toml *t)
{
	if (toml_looking_at(t, STR("\xef\xbb\xbf")))
		t->at += 3;
	for (;;) {
		if (toml_skip_lines(t) != 0)
			return -1;
		int c = toml_peek(t, 0);
		if (c < 0)
			return 0;
		if ((c == '[' ? toml_read_header(t) : toml_read_pair(t, t->table, t->table_depth)) != 0)
			return -1;
		if (toml_end_line(t) != 0)
			return -1;
	}
}

json_t *value_parse_toml(str_t text)
{
	struct toml t = {.text = text, .arena = ARENA_INIT};
	json_t *result = NULL;
	t.root = t.table = value_must(json_object());
	toml_mark_set(&t, t.root, TOML_EXPLICIT);
	if (!str_is_utf8(text)) {
		err_set(ERR_INVALID, "TOML: the text is not UTF-8");
		goto out;
	}
	if (toml_read_document(&t) != 0)
		goto out;
	result = t.root, t.root = NULL;
out:
	json_decref(t.root);
	free(t.part);
	map_fini(&t.marks);
	arena_fini(&t.arena);
	return result;
}
