/* value_yaml.c - YAML through libyaml's events.
 *
 * Events rather than its document tree, because the tree forgets whether a plain scalar was tagged. Aliases
 * share the JSON value of their anchor; since whoever expands the result pays for every mention, each mention
 * counts with its whole size against the limit on values. An alias inside its own anchor is unknown at that
 * point, so there are no cycles. libyaml neither recurses nor calls back while we read; our own recursion is
 * depth-limited. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/value_impl.h"

#include <math.h>
#include <stdlib.h>
#include <yaml.h>

struct yaml_anchor {
	char *name;
	json_t *value;
	size_t n_nodes;
};

struct yaml_reader {
	yaml_parser_t parser;
	size_t n_nodes;
	struct yaml_anchor *anchor;
	size_t n_anchors;
};

static void yaml_fail_at(const yaml_mark_t *m, const char *what)
{
	err_set(ERR_INVALID, "YAML: %s at line %zu column %zu", what, m->line + 1, m->column + 1);
}

static int yaml_next(struct yaml_reader *y, yaml_event_t *e)
{
	if (yaml_parser_parse(&y->parser, e))
		return 0;
	const yaml_mark_t *m = &y->parser.problem_mark;
	if (y->parser.error == YAML_READER_ERROR)
		err_set(ERR_INVALID, "YAML: %s at offset %zu", y->parser.problem, y->parser.problem_offset);
	else
		yaml_fail_at(m, y->parser.problem != NULL ? y->parser.problem : "a syntax error");
	return -1;
}

/* Core schema (YAML 1.2 section 10.3.2). */
static json_t *yaml_plain(str_t s)
{
	static const char *const null_words[] = {"", "~", "null", "Null", "NULL"};
	static const char *const true_words[] = {"true", "True", "TRUE"};
	static const char *const false_words[] = {"false", "False", "FALSE"};
	for (size_t i = 0; i < ARRAY_SIZE(null_words); i++)
		if (str_eq(s, str_of(null_words[i])))
			return json_null();
	for (size_t i = 0; i < ARRAY_SIZE(true_words); i++)
		if (str_eq(s, str_of(true_words[i])) || str_eq(s, str_of(false_words[i])))
			return json_boolean(s.p[0] == 't' || s.p[0] == 'T');
	if (s.n > 40 || strchr("+-.0123456789", s.p[0]) == NULL)
		return NULL;
	char text[48];
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	bool is_signed = text[0] == '+' || text[0] == '-';
	const char *digits = text + is_signed;
	if (strspn(digits, "0123456789") == strlen(digits) && *digits != 0) {
		int64_t v;
		if (str_to_i64(str_of(text[0] == '+' ? digits : text), &v))
			return value_must(json_integer(v));
		return NULL; /* too large for an integer: a string keeps every digit */
	}
	if (text[0] == '0' && (text[1] == 'x' || text[1] == 'o') && text[2] != 0) {
		const char *set = text[1] == 'x' ? "0123456789abcdefABCDEF" : "01234567";
		if (strspn(text + 2, set) != strlen(text + 2) ||
		    strlen(text + 2) > (text[1] == 'x' ? 15 : 20))
			return NULL;
		return value_must(json_integer((int64_t)strtoull(text + 2, NULL, text[1] == 'x' ? 16 : 8)));
	}
	if (strspn(digits, "0123456789.eE+-") != strlen(digits) || strpbrk(digits, "0123456789") == NULL)
		return NULL;
	char *end;
	double d = strtod(text, &end);
	return *end == 0 && isfinite(d) ? value_must(json_real(d)) : NULL;
}

static json_t *yaml_scalar(const yaml_event_t *e)
{
	str_t s = str_mk((const char *)e->data.scalar.value, e->data.scalar.length);
	const char *tag = (const char *)e->data.scalar.tag;
	bool is_plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && tag == NULL;
	bool wants_core = false;
	if (tag != NULL && strcmp(tag, "!") != 0 && strcmp(tag, YAML_STR_TAG) != 0) {
		static const char *const core[] = {YAML_NULL_TAG, YAML_BOOL_TAG, YAML_INT_TAG,
						   YAML_FLOAT_TAG};
		for (size_t i = 0; i < ARRAY_SIZE(core); i++)
			wants_core = wants_core || strcmp(tag, core[i]) == 0;
		if (!wants_core) {
			yaml_fail_at(&e->start_mark, "a tag that has no JSON form");
			return NULL;
		}
	}
	json_t *v = is_plain || wants_core ? yaml_plain(s) : NULL;
	if (v == NULL && wants_core) {
		yaml_fail_at(&e->start_mark, "a value that does not fit its tag");
		return NULL;
	}
	if (v == NULL && is_plain) {
		static const char *const special[] = {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"};
		str_t unsigned_s = s.n > 1 && (s.p[0] == '-' || s.p[0] == '+') ? str_skip(s, 1) : s;
		for (size_t i = 0; i < ARRAY_SIZE(special); i++)
			if (str_eq(unsigned_s, str_of(special[i]))) {
				yaml_fail_at(&e->start_mark, "a number that is not finite");
				return NULL;
			}
	}
	return v != NULL ? v
			 : value_must(json_stringn_nocheck(s.n != 0 ? s.p : "",
							   s.n)); /* libyaml checked UTF-8 */
}

static void yaml_remember(struct yaml_reader *y, const yaml_char_t *name, json_t *v, size_t n_nodes)
{
	if (name == NULL)
		return;
	y->anchor = xreallocarray(y->anchor, y->n_anchors + 1, sizeof(*y->anchor));
	y->anchor[y->n_anchors++] = (struct yaml_anchor){
		.name = xstrdup((const char *)name), .value = json_incref(v), .n_nodes = n_nodes};
}

static json_t *yaml_alias(struct yaml_reader *y, const yaml_event_t *e)
{
	for (size_t i = y->n_anchors; i-- > 0;) {
		if (strcmp(y->anchor[i].name, (const char *)e->data.alias.anchor) != 0)
			continue;
		y->n_nodes += y->anchor[i].n_nodes;
		return json_incref(y->anchor[i].value);
	}
	yaml_fail_at(&e->start_mark, "an alias without an anchor before it");
	return NULL;
}

static json_t *yaml_value(struct yaml_reader *y, yaml_event_t *e, unsigned depth);

static json_t *yaml_sequence(struct yaml_reader *y, unsigned depth)
{
	json_t *arr = value_must(json_array());
	yaml_event_t e;
	while (yaml_next(y, &e) == 0) {
		bool is_end = e.type == YAML_SEQUENCE_END_EVENT;
		json_t *v = is_end ? NULL : yaml_value(y, &e, depth);
		yaml_event_delete(&e);
		if (is_end)
			return arr;
		if (v == NULL)
			break;
		value_arr_add(arr, v);
	}
	json_decref(arr);
	return NULL;
}

static json_t *yaml_mapping(struct yaml_reader *y, unsigned depth)
{
	json_t *obj = value_must(json_object()), *v = NULL;
	yaml_event_t key, e;
	while (yaml_next(y, &key) == 0) {
		if (key.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&key);
			return obj;
		}
		v = NULL;
		if (key.type != YAML_SCALAR_EVENT) {
			yaml_fail_at(&key.start_mark, "a key that is no scalar");
		} else if (memchr(key.data.scalar.value, 0, key.data.scalar.length) != NULL) {
			yaml_fail_at(&key.start_mark,
				     "a key with a NUL in it"); /* jansson's copies would cut it there */
		} else if (json_object_getn(obj, (const char *)key.data.scalar.value,
					    key.data.scalar.length) != NULL) {
			yaml_fail_at(&key.start_mark, "a key that was given before");
		} else if (yaml_next(y, &e) == 0) {
			v = yaml_value(y, &e, depth);
			yaml_event_delete(&e);
		}
		if (v != NULL)
			value_obj_set(obj,
				      str_mk((const char *)key.data.scalar.value, key.data.scalar.length), v);
		yaml_event_delete(&key);
		if (v == NULL)
			break;
	}
	json_decref(obj);
	return NULL;
}

/* The value that starts with e, which stays the caller's. */
static json_t *yaml_value(struct yaml_reader *y, yaml_event_t *e, unsigned depth)
{
	json_t *v = NULL;
	size_t before = y->n_nodes++;
	const yaml_char_t *anchor = NULL, *tag = NULL;
	if (depth > VALUE_DEPTH_MAX) {
		yaml_fail_at(&e->start_mark, "nested deeper than 128 levels");
		return NULL;
	}
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		v = yaml_scalar(e);
		anchor = e->data.scalar.anchor;
		break;
	case YAML_ALIAS_EVENT:
		v = yaml_alias(y, e);
		break;
	case YAML_SEQUENCE_START_EVENT:
		tag = e->data.sequence_start.tag;
		if (tag == NULL || strcmp((const char *)tag, YAML_SEQ_TAG) == 0)
			v = yaml_sequence(y, depth + 1);
		else
			yaml_fail_at(&e->start_mark, "a tag that has no JSON form");
		anchor = e->data.sequence_start.anchor;
		break;
	case YAML_MAPPING_START_EVENT:
		tag = e->data.mapping_start.tag;
		if (tag == NULL || strcmp((const char *)tag, YAML_MAP_TAG) == 0)
			v = yaml_mapping(y, depth + 1);
		else
			yaml_fail_at(&e->start_mark, "a tag that has no JSON form");
		anchor = e->data.mapping_start.anchor;
		break;
	default:
		yaml_fail_at(&e->start_mark, "a value was expected");
		break;
	}
	if (v != NULL && y->n_nodes > VALUE_NODES_MAX) {
		yaml_fail_at(&e->start_mark, "more than 1000000 values in one structure");
		json_decref(v);
		return NULL;
	}
	if (v != NULL)
		yaml_remember(y, anchor, v, y->n_nodes - before);
	return v;
}

json_t *value_parse_yaml(str_t text)
{
	struct yaml_reader y = {0};
	json_t *v = NULL, *result = NULL;
	yaml_event_t e;
	if (!yaml_parser_initialize(&y.parser))
		panic("out of memory in libyaml");
	yaml_parser_set_input_string(&y.parser, (const unsigned char *)(text.n != 0 ? text.p : ""), text.n);
	for (bool is_end = false; !is_end;) {
		if (yaml_next(&y, &e) != 0)
			goto out;
		bool is_failed = false;
		is_end = e.type == YAML_STREAM_END_EVENT;
		if (e.type == YAML_DOCUMENT_START_EVENT && v != NULL) {
			yaml_fail_at(&e.start_mark, "a second document");
			is_failed = true;
		} else if (e.type == YAML_SCALAR_EVENT || e.type == YAML_ALIAS_EVENT ||
			   e.type == YAML_SEQUENCE_START_EVENT || e.type == YAML_MAPPING_START_EVENT) {
			v = yaml_value(&y, &e, 1);
			is_failed = v == NULL;
		}
		yaml_event_delete(&e);
		if (is_failed)
			goto out;
	}
	result = v != NULL ? v : json_null(); /* no document at all */
	v = NULL;
out:
	for (size_t i = 0; i < y.n_anchors; i++) {
		free(y.anchor[i].name);
		json_decref(y.anchor[i].value);
	}
	free(y.anchor);
	json_decref(v);
	yaml_parser_delete(&y.parser);
	return result;
}

/* --- writing --- */

static int yaml_out(void *arg, unsigned char *p, size_t n)
{
	buf_add(arg, p, n);
	return 1;
}

static int yaml_emit(yaml_emitter_t *em, yaml_event_t *e)
{
	if (yaml_emitter_emit(em, e)) /* takes the event over in any case */
		return 0;
	err_set(ERR_INVALID, "YAML: %s", em->problem != NULL ? em->problem : "cannot be written");
	return -1;
}

static int yaml_emit_text(yaml_emitter_t *em, str_t s, bool is_string)
{
	yaml_event_t e;
	bool is_plain = true;
	if (is_string) { /* a string that would read back as something else is quoted */
		json_t *v = yaml_plain(s);
		static const char *const careful[] = {"yes", "no",   "on",    "off",   "y",   "n",
						      "<<",  ".inf", "-.inf", "+.inf", ".nan"};
		is_plain = v == NULL;
		json_decref(v);
		for (size_t i = 0; i < ARRAY_SIZE(careful); i++)
			is_plain = is_plain && !str_ieq(s, str_of(careful[i]));
	}
	const char *p = s.n != 0 ? s.p : "";
	yaml_scalar_style_t style = YAML_ANY_SCALAR_STYLE;
	if (!is_plain)
		style = YAML_SINGLE_QUOTED_SCALAR_STYLE;
	else if (is_string && memchr(p, '\n', s.n) != NULL)
		style = YAML_LITERAL_SCALAR_STYLE;
	if (!yaml_scalar_event_initialize(&e, NULL, NULL, (const yaml_char_t *)p, (int)s.n, is_plain, 1,
					  style)) {
		err_set(ERR_INVALID, "YAML: a text cannot be written");
		return -1;
	}
	return yaml_emit(em, &e);
}

static int yaml_write(yaml_emitter_t *em, const json_t *v, unsigned depth)
{
	yaml_event_t e;
	struct value_entry *entry = NULL;
	size_t n = 0;
	int rc = -1;
	if (depth > 2 * VALUE_DEPTH_MAX)
		panic("a JSON value nested deeper than any reader allows");
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		entry = value_sorted(v, &n);
		yaml_mapping_start_event_initialize(
			&e, NULL, NULL, 1, n == 0 ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE);
		if (yaml_emit(em, &e) != 0)
			goto out;
		for (size_t i = 0; i < n; i++)
			if (yaml_emit_text(em, entry[i].key, true) != 0 ||
			    yaml_write(em, entry[i].value, depth + 1) != 0)
				goto out;
		yaml_mapping_end_event_initialize(&e);
		rc = yaml_emit(em, &e);
		break;
	case JSON_ARRAY:
		n = json_array_size(v);
		yaml_sequence_start_event_initialize(
			&e, NULL, NULL, 1, n == 0 ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE);
		if (yaml_emit(em, &e) != 0)
			goto out;
		for (size_t i = 0; i < n; i++)
			if (yaml_write(em, json_array_get(v, i), depth + 1) != 0)
				goto out;
		yaml_sequence_end_event_initialize(&e);
		rc = yaml_emit(em, &e);
		break;
	case JSON_STRING:
		rc = yaml_emit_text(em, str_mk(json_string_value(v), json_string_length(v)), true);
		break;
	default: {
		struct buf text = BUF_INIT;
		value_write_json(v, false, &text);
		rc = yaml_emit_text(em, buf_str(&text), false);
		buf_fini(&text);
		break;
	}
	}
out:
	free(entry);
	return rc;
}

int value_write_yaml(const json_t *v, struct buf *out)
{
	yaml_emitter_t em;
	yaml_event_t e;
	int rc = -1;
	if (!yaml_emitter_initialize(&em))
		panic("out of memory in libyaml");
	yaml_emitter_set_output(&em, yaml_out, out);
	yaml_emitter_set_unicode(&em, 1);
	yaml_emitter_set_width(&em, -1);
	yaml_stream_start_event_initialize(&e, YAML_UTF8_ENCODING);
	if (yaml_emit(&em, &e) != 0)
		goto out;
	yaml_document_start_event_initialize(&e, NULL, NULL, NULL, 1);
	if (yaml_emit(&em, &e) != 0 || yaml_write(&em, v, 0) != 0)
		goto out;
	yaml_document_end_event_initialize(&e, 1);
	if (yaml_emit(&em, &e) != 0)
		goto out;
	yaml_stream_end_event_initialize(&e);
	if (yaml_emit(&em, &e) != 0)
		goto out;
	rc = 0;
out:
	yaml_emitter_delete(&em);
	return rc;
}
