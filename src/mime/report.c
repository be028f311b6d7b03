/* report.c - see report_impl.h. Fields are read leniently: what they mean is clear more often than they are
 * right. */
#include "mime/report_impl.h"

#include "base/err.h"
#include "mime/charset.h"
#include "mime/date.h"

/* --- parts --- */

/* Most messages are no reports: their header says so, and nothing is copied. */
static bool report_is_likely(str_t message)
{
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, message);
	while (header_next(&it, &f))
		if (str_ieq(f.name, STR("Content-Type")))
			return str_istarts(str_trim(f.raw_value), STR("multipart/report"));
	return false;
}

static bool part_is_original(const struct mime_part *p)
{
	return mime_part_is_type(p, STR("message/rfc822")) ||
	       mime_part_is_type(p, STR("text/rfc822-headers")) ||
	       mime_part_is_type(p, STR("message/global")) ||
	       mime_part_is_type(p, STR("message/global-headers"));
}

bool report_open(str_t message, str_t report_type, str_t fields_type, struct report_parts *out)
{
	if (!report_is_likely(message))
		return false;
	struct buf scratch = BUF_INIT;
	struct report_parts parts = {.root = mime_part_parse(message)};
	str_t type = mime_part_param(parts.root, STR("Content-Type"), STR("report-type"), &scratch);
	bool is_it = mime_part_is_type(parts.root, STR("multipart/report")) && str_ieq(type, report_type);
	buf_fini(&scratch);
	if (!is_it) {
		mime_part_unref(parts.root);
		return false;
	}
	for (size_t i = 0; i < parts.root->n_children; i++) {
		struct mime_part *p = parts.root->child[i].part;
		if (parts.fields == NULL && mime_part_is_type(p, fields_type))
			parts.fields = p;
		else if (parts.original == NULL && part_is_original(p))
			parts.original = p;
	}
	*out = parts;
	return true;
}

void report_close(struct report_parts *p)
{
	mime_part_unref(p->root);
}

/* --- values --- */

/* Each fold, with the blanks around it, becomes one blank, as people would read it. */
static void report_unfold(str_t raw_value, struct buf *out)
{
	for (size_t i = 0; i < raw_value.n; i++) {
		char c = raw_value.p[i];
		if (c != '\r' && c != '\n') {
			buf_add_c(out, c);
			continue;
		}
		while (i + 1 < raw_value.n && strchr("\r\n \t", raw_value.p[i + 1]) != NULL &&
		       raw_value.p[i + 1] != 0)
			i++;
		while (out->n > 0 && (out->p[out->n - 1] == ' ' || out->p[out->n - 1] == '\t'))
			out->n--;
		buf_add_c(out, ' ');
	}
}

str_t report_value(struct arena *a, str_t raw_value)
{
	struct buf line = BUF_INIT, utf8 = BUF_INIT;
	report_unfold(raw_value, &line);
	charset_to_utf8_lenient(STR(""), str_trim(buf_str(&line)), &utf8);
	str_t kept = arena_str(a, buf_str(&utf8));
	buf_fini(&line);
	buf_fini(&utf8);
	return kept;
}

static str_t report_address(str_t value)
{
	if (value.n >= 2 && value.p[0] == '<' && value.p[value.n - 1] == '>')
		return str_mk(value.p + 1, value.n - 2);
	return value;
}

struct report_typed report_typed_value(str_t value, const char *usual_type, bool is_address)
{
	ptrdiff_t semicolon = str_chr(value, ';', 0);
	struct report_typed t = {str_of(usual_type), value};
	if (semicolon > 0) {
		t.type = str_trim(str_head(value, (size_t)semicolon));
		t.value = str_trim(str_skip(value, (size_t)semicolon + 1));
	}
	if (is_address)
		t.value = report_address(t.value);
	return t;
}

wall_t report_date(str_t value)
{
	wall_t t;
	return date_parse(value, &t) ? t : (wall_t){0};
}

void report_fields_add(struct arena *a, struct report_fields *f, str_t name, str_t value)
{
	if (f->n == f->cap) {
		f->cap = f->cap == 0 ? 4 : f->cap * 2;
		struct report_field *v = arena_alloc(a, f->cap * sizeof *v);
		if (f->n > 0)
			memcpy(v, f->v, f->n * sizeof *v);
		f->v = v;
	}
	char *lower = arena_alloc(a, name.n + 1);
	for (size_t i = 0; i < name.n; i++)
		lower[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] | 32 : name.p[i]);
	lower[name.n] = 0;
	f->v[f->n++] = (struct report_field){str_mk(lower, name.n), value};
}

str_t report_original(struct arena *a, const struct mime_part *p)
{
	struct buf bytes = BUF_INIT;
	if (p == NULL)
		return STR_NULL;
	mime_part_decode(p, &bytes);
	char *to = arena_alloc(a, bytes.n + 1);
	size_t n = 0;
	for (size_t i = 0; i < bytes.n; i++)
		if (bytes.p[i] != '\r' || i + 1 == bytes.n || bytes.p[i + 1] != '\n')
			to[n++] = bytes.p[i];
	to[n] = 0;
	buf_fini(&bytes);
	return str_mk(to, n);
}

/* --- JSON --- */

json_t *report_json_bytes(str_t value)
{
	if (str_is_utf8(value))
		return json_stringn(value.p, value.n);
	json_t *bytes = json_array();
	for (size_t i = 0; i < value.n; i++)
		json_array_append_new(bytes, json_integer((unsigned char)value.p[i]));
	return bytes;
}

void report_json_text(json_t *obj, const char *key, str_t value, bool has_nulls)
{
	if (value.p != NULL)
		json_object_set_new(obj, key, report_json_bytes(value));
	else if (has_nulls)
		json_object_set_new(obj, key, json_null());
}

void report_json_date(json_t *obj, const char *key, wall_t value, bool has_nulls)
{
	struct buf b = BUF_INIT;
	if (value.ns != 0)
		wall_fmt_rfc3339(value, 0, &b);
	report_json_text(obj, key, value.ns != 0 ? buf_str(&b) : STR_NULL, has_nulls);
	buf_fini(&b);
}

void report_json_typed(json_t *obj, const char *key, const char *type_key, const char *value_key,
		       const struct report_typed *t, bool has_nulls)
{
	if (t->value.p == NULL) {
		report_json_text(obj, key, STR_NULL, has_nulls);
		return;
	}
	json_t *pair = json_object();
	json_object_set_new(pair, type_key, report_json_bytes(t->type));
	json_object_set_new(pair, value_key, report_json_bytes(t->value));
	json_object_set_new(obj, key, pair);
}

void report_json_extensions(json_t *obj, const struct report_fields *f)
{
	json_t *map = json_object();
	for (size_t i = 0; i < f->n; i++) {
		str_t name = f->v[i].name;
		json_t *values = json_object_getn(map, name.p, name.n);
		if (values == NULL) {
			json_object_setn_new(map, name.p, name.n, json_array());
			values = json_object_getn(map, name.p, name.n);
		}
		json_array_append_new(values, report_json_bytes(f->v[i].value));
	}
	json_object_set_new(obj, "extensions", map);
}
