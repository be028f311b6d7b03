/* param.c - a whole parameter table against its schema.
 *
 * Everything goes through JSON: what a policy gives is converted first, so a table from Lua, from TOML and
 * from the API is checked by the same code, and an error can print what it was processing. Unknown fields are
 * reported before bad values, as a misspelt name is the likelier reason for what follows. Values under names
 * that look like secrets are printed as ***. Nothing here yields; any thread. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/param_impl.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <pthread.h>
#include <stdlib.h>

#define PARAM_SHOWN_BYTES 4096 /* of the input, in an error */

static pthread_mutex_t param_lock = PTHREAD_MUTEX_INITIALIZER;
static const struct param_schema **param_schemas;
static size_t param_n_schemas;

static void *param_field(void *obj, const struct param *p)
{
	return (char *)obj + p->offset;
}

static const void *param_cfield(const void *obj, const struct param *p)
{
	return (const char *)obj + p->offset;
}

/* --- error texts --- */

static json_t *param_masked(const json_t *v, int depth)
{
	union {
		const json_t *c;
		json_t *m;
	} in = {.c = v};
	json_t *copy = NULL;
	if (depth > VALUE_DEPTH_MAX)
		return json_string("...");
	if (json_is_object(v)) {
		copy = json_object();
		for (void *it = json_object_iter(in.m); it != NULL; it = json_object_iter_next(in.m, it)) {
			str_t key = str_mk(json_object_iter_key(it), json_object_iter_key_len(it));
			const json_t *value = json_object_iter_value(it);
			bool is_hidden = param_is_secret(key) && !json_is_null(value);
			json_object_setn_new_nocheck(copy, key.p, key.n,
						     is_hidden ? json_string("***")
							       : param_masked(value, depth + 1));
		}
		return copy;
	}
	if (json_is_array(v)) {
		copy = json_array();
		for (size_t i = 0; i < json_array_size(v); i++)
			json_array_append_new(copy, param_masked(json_array_get(v, i), depth + 1));
		return copy;
	}
	return json_incref(in.m);
}

/* Puts the WHY in the slot into the whole shape. */
static void param_wrap(const json_t *table)
{
	struct buf json = BUF_INIT;
	struct err why = err_take();
	json_t *masked = param_masked(table, 0);
	value_write_json(masked, false, &json);
	bool is_cut = json.n > PARAM_SHOWN_BYTES;
	if (is_cut)
		buf_truncate(&json, PARAM_SHOWN_BYTES);
	err_set(ERR_INVALID, "deserialize error: %s, while processing %s%s", why.text, json.p,
		is_cut ? "..." : "");
	json_decref(masked);
	err_fini(&why);
	buf_fini(&json);
}

static size_t param_distance(str_t a, str_t b)
{
	size_t row[65];
	if (a.n > 64 || b.n > 64)
		return SIZE_MAX;
	for (size_t j = 0; j <= b.n; j++)
		row[j] = j;
	for (size_t i = 1; i <= a.n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b.n; j++) {
			size_t above = row[j], cost = diagonal + (a.p[i - 1] != b.p[j - 1]);
			size_t step = (above < row[j - 1] ? above : row[j - 1]) + 1;
			row[j] = cost < step ? cost : step;
			diagonal = above;
		}
	}
	return row[b.n];
}

static void param_unknown(const struct param_schema *s, str_t name)
{
	struct buf b = BUF_INIT;
	const char *near = NULL;
	size_t n = 0, best = name.n / 3 + 1; /* a third of the letters may differ */
	buf_printf(&b, "unknown field `" STR_FMT "`, ", STR_ARG(str_head(name, 128)));
	size_t list_at = b.n;
	for (const struct param *p = s->params; p->name != NULL; p++) {
		size_t d = param_distance(name, str_of(p->name));
		if (d < best || (d == best && near == NULL))
			best = d, near = p->name;
		if (p->type != PT_UNSUPPORTED)
			buf_printf(&b, "%s`%s`", n++ != 0 ? ", " : "", p->name);
	}
	struct buf text = BUF_INIT;
	buf_printf(&text, "%.*s", (int)list_at, b.p);
	if (n == 0)
		buf_add_z(&text, "there are no fields");
	else
		buf_printf(&text, "expected %s%s", n > 1 ? "one of " : "", b.p + list_at);
	if (near != NULL)
		buf_printf(&text, " (did you mean `%s`?)", near);
	err_set(ERR_INVALID, "%s", text.p);
	buf_fini(&text);
	buf_fini(&b);
}

void param_err_variant(const char *given, const char *const *words)
{
	struct buf b = BUF_INIT;
	buf_printf(&b, "unknown variant `%.128s`, expected %s", given,
		   words[0] != NULL && words[1] != NULL ? "one of " : "");
	for (size_t i = 0; words[i] != NULL; i++)
		buf_printf(&b, "%s`%s`", i != 0 ? ", " : "", words[i]);
	err_set(ERR_INVALID, "%s", b.p);
	buf_fini(&b);
}

/* --- parsing --- */

static const struct param *param_find(const struct param_schema *s, str_t name)
{
	for (const struct param *p = s->params; p->name != NULL; p++)
		if (str_eq(name, str_of(p->name)))
			return p;
	return NULL;
}

/* The first name in byte order is the one reported, so that the same mistake gives the same text. */
static int param_check_names(const struct param_schema *s, const json_t *table)
{
	union {
		const json_t *c;
		json_t *m;
	} t = {.c = table};
	str_t unknown = STR_NULL;
	for (void *it = json_object_iter(t.m); it != NULL; it = json_object_iter_next(t.m, it)) {
		str_t name = str_mk(json_object_iter_key(it), json_object_iter_key_len(it));
		if (param_find(s, name) == NULL && (unknown.p == NULL || str_cmp(name, unknown) < 0))
			unknown = name;
	}
	if (unknown.p == NULL)
		return 0;
	param_unknown(s, unknown);
	return -1;
}

static int param_parse_default(const struct param *p, void *field)
{
	json_t *v = param_field_default(p);
	if (v == NULL)
		return -1;
	int rc = param_field_parse(p, v, field);
	json_decref(v);
	return rc;
}

static int param_parse_fields(const struct param_schema *s, const json_t *table, void *out)
{
	const struct param *p = s->params;
	for (; p->name != NULL; p++) {
		const json_t *v = json_object_get(table, p->name);
		int rc = 0;
		if (v != NULL && !json_is_null(v)) {
			rc = param_field_parse(p, v, param_field(out, p));
		} else if (p->is_required) {
			err_set(ERR_INVALID, "missing field `%s`", p->name);
			rc = -1;
		} else if (p->def != NULL) {
			rc = param_parse_default(p, param_field(out, p));
		} else {
			param_field_clear(p, param_field(out, p));
		}
		if (rc != 0)
			goto fail;
	}
	if (s->check == NULL || s->check(out) == 0)
		return 0;
fail:
	for (const struct param *done = s->params; done != p; done++)
		param_field_fini(done, param_field(out, done));
	memset(out, 0, s->size);
	return -1;
}

int param_parse_json(const struct param_schema *s, const json_t *table, void *out)
{
	memset(out, 0, s->size);
	if (!json_is_object(table) && !(json_is_array(table) && json_array_size(table) == 0)) {
		static const char *const names[] = {
			"map",	   "sequence", "string", "integer", "floating point",
			"boolean", "boolean",  "null"};
		err_set(ERR_INVALID, "invalid type: %s, expected table", names[json_typeof(table)]);
	} else if (param_check_names(s, table) == 0 && param_parse_fields(s, table, out) == 0) {
		return 0;
	}
	param_wrap(table);
	return -1;
}

int param_parse_lua(const struct param_schema *s, lua_State *L, int idx, void *out)
{
	json_t *table = value_from_lua(L, idx);
	if (table == NULL) {
		err_wrap("deserialize error");
		struct err e = err_take();
		err_set(ERR_INVALID, "%s, while processing a %s", e.text, luaL_typename(L, idx));
		err_fini(&e);
		return -1;
	}
	int rc = param_parse_json(s, table, out);
	json_decref(table);
	return rc;
}

void param_fini(const struct param_schema *s, void *obj)
{
	for (const struct param *p = s->params; p->name != NULL; p++)
		param_field_fini(p, param_field(obj, p));
}

json_t *param_dump_with(const struct param_schema *s, const void *obj, const json_t *table)
{
	json_t *out = json_object();
	for (const struct param *p = s->params; p->name != NULL; p++) {
		if (p->type == PT_UNSUPPORTED)
			continue;
		const json_t *given = json_object_get(table, p->name);
		json_object_set_new_nocheck(
			out, p->name,
			param_field_dump(p, param_cfield(obj, p), json_is_null(given) ? NULL : given));
	}
	return out;
}

/* --- the registry --- */

void param_schema_register(const struct param_schema *s)
{
	char *obj = xcalloc(1, s->size);
	for (const struct param *p = s->params; p->name != NULL; p++) {
		if (p->def == NULL)
			continue;
		if (param_parse_default(p, param_field(obj, p)) != 0)
			panic("%s: the default of %s does not parse: %s", s->type_name, p->name, err_text());
		param_field_fini(p, param_field(obj, p));
	}
	free(obj);
	pthread_mutex_lock(&param_lock);
	bool is_known = false;
	for (size_t i = 0; i < param_n_schemas; i++)
		is_known = is_known || param_schemas[i] == s;
	if (!is_known) {
		param_schemas = xreallocarray(param_schemas, param_n_schemas + 1, sizeof(s));
		param_schemas[param_n_schemas++] = s;
	}
	pthread_mutex_unlock(&param_lock);
}

const struct param_schema *param_schema_at(size_t i)
{
	pthread_mutex_lock(&param_lock);
	const struct param_schema *s = i < param_n_schemas ? param_schemas[i] : NULL;
	pthread_mutex_unlock(&param_lock);
	return s;
}
