/* param_field.c - one field of a schema: from JSON, from its default's text, back to JSON, released. A
 * default goes through the same parser as what a policy gives: its text is first put into the JSON form that
 * a policy would have written. */
#include "base/alloc.h"
#include "base/err.h"
#include "policy/param_impl.h"
#include "policy/value.h"

#include <math.h>
#include <stdlib.h>

bool param_is_secret(str_t name)
{
	static const char *const end[] = {"password", "key", "key_data", "token", "secret"};
	for (size_t i = 0; i < ARRAY_SIZE(end); i++) {
		size_t n = strlen(end[i]);
		if (name.n >= n && str_ieq(str_skip(name, name.n - n), str_of(end[i])))
			return true;
	}
	return false;
}

/* kind: "type" or "value". */
static int param_fail(const struct param *p, const json_t *v, const char *kind, const char *expected)
{
	struct buf what = BUF_INIT;
	value_describe(v, param_is_secret(str_of(p->name)), &what);
	err_set(ERR_INVALID, "invalid %s: %s, expected %s", kind, what.p, expected);
	buf_fini(&what);
	return -1;
}

static str_t param_text(const json_t *v)
{
	return str_mk(json_string_value(v), json_string_length(v));
}

/* Integers, and floats without a fraction. */
static bool param_integer(const json_t *v, int64_t *out)
{
	if (json_is_integer(v)) {
		*out = json_integer_value(v);
		return true;
	}
	double d = json_is_real(v) ? json_real_value(v) : 0.5;
	if (d != floor(d) || fabs(d) > 9007199254740992.0) /* 2^53: beyond it a float is no exact integer */
		return false;
	*out = (int64_t)d;
	return true;
}

static int param_parse_str(const struct param *p, const json_t *v, char **field)
{
	if (!json_is_string(v))
		return param_fail(p, v, "type", "a string");
	if (memchr(json_string_value(v), 0, json_string_length(v)) != NULL)
		return param_fail(p, v, "value", "a string without NUL");
	*field = str_dup(param_text(v));
	return 0;
}

static int param_parse_int(const struct param *p, const json_t *v, int64_t *field)
{
	char expected[96];
	int64_t i;
	if (!json_is_number(v) || !param_integer(v, &i))
		return param_fail(p, v, "type", "an integer");
	if ((p->min != 0 || p->max != 0) && (i < p->min || i > p->max)) {
		if (p->max == INT64_MAX)
			snprintf(expected, sizeof(expected), "an integer of at least %lld",
				 (long long)p->min);
		else
			snprintf(expected, sizeof(expected), "an integer between %lld and %lld",
				 (long long)p->min, (long long)p->max);
		return param_fail(p, v, "value", expected);
	}
	*field = i;
	return 0;
}

static int param_parse_bytes(const struct param *p, const json_t *v, uint64_t *field)
{
	int64_t i;
	if (!json_is_number(v) || !param_integer(v, &i))
		return param_fail(p, v, "type", "a number of bytes");
	if (i < 0)
		return param_fail(p, v, "value", "a number of bytes, 0 or more");
	*field = (uint64_t)i;
	return 0;
}

static int param_parse_dur(const struct param *p, const json_t *v, dur_t *field)
{
	dur_t d;
	if (json_is_number(v)) {
		double s = json_number_value(v);
		if (!(s >= 0) || s > 9.2e9)
			return param_fail(p, v, "value", "a duration");
		*field = json_is_integer(v) ? dur_s(json_integer_value(v)) : dur_from_seconds(s);
		return 0;
	}
	if (!json_is_string(v))
		return param_fail(p, v, "type", "a duration");
	if (!dur_parse(param_text(v), &d) || d.ns < 0)
		return param_fail(p, v, "value", "a duration");
	*field = d;
	return 0;
}

static int param_parse_enum(const struct param *p, const json_t *v, int *field)
{
	if (!json_is_string(v))
		return param_fail(p, v, "type", "a string");
	for (int i = 0; p->words[i] != NULL; i++) {
		if (!str_eq(param_text(v), str_of(p->words[i])))
			continue;
		*field = i;
		return 0;
	}
	param_err_variant(json_string_value(v), p->words);
	return -1;
}

/* An array; a table without entries can only be written {} in Lua, so an empty object will do. */
static bool param_is_list(const json_t *v)
{
	return json_is_array(v) || (json_is_object(v) && json_object_size(v) == 0);
}

static int param_parse_cidrs(const struct param *p, const json_t *v, struct cidr_set *field)
{
	struct cidr_set set = {0};
	if (!param_is_list(v))
		return param_fail(p, v, "type", "a sequence of networks");
	for (size_t i = 0; i < json_array_size(v); i++) {
		const json_t *item = json_array_get(v, i);
		if (!json_is_string(item) ? param_fail(p, item, "type", "a network such as 10.0.0.0/8") != 0
					  : cidr_set_add(&set, param_text(item)) != 0) {
			cidr_set_fini(&set);
			return -1;
		}
	}
	*field = set;
	return 0;
}

static void param_strs_fini(struct param_strs *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i]);
	free(s->v);
	*s = (struct param_strs){0};
}

static int param_parse_strs(const struct param *p, const json_t *v, struct param_strs *field)
{
	struct param_strs s = {0};
	if (!param_is_list(v))
		return param_fail(p, v, "type", "a sequence of strings");
	if (json_array_size(v) == 0) {
		*field = s;
		return 0;
	}
	s.v = xcalloc(json_array_size(v), sizeof(*s.v));
	for (size_t i = 0; i < json_array_size(v); i++) {
		if (param_parse_str(p, json_array_get(v, i), &s.v[i]) != 0) {
			param_strs_fini(&s);
			return -1;
		}
		s.n++;
	}
	*field = s;
	return 0;
}

static int param_parse_ip(const struct param *p, const json_t *v, struct net_addr *field)
{
	if (!json_is_string(v))
		return param_fail(p, v, "type", "an IP address");
	return net_addr_parse_ip(param_text(v), 0, field);
}

int param_field_parse(const struct param *p, const json_t *v, void *field)
{
	switch (p->type) {
	case PT_STR:
		return param_parse_str(p, v, field);
	case PT_BOOL:
		if (!json_is_boolean(v))
			return param_fail(p, v, "type", "a boolean");
		*(bool *)field = json_is_true(v);
		return 0;
	case PT_INT:
		return param_parse_int(p, v, field);
	case PT_BYTES:
		return param_parse_bytes(p, v, field);
	case PT_DUR:
		return param_parse_dur(p, v, field);
	case PT_ENUM:
		return param_parse_enum(p, v, field);
	case PT_CIDRS:
		return param_parse_cidrs(p, v, field);
	case PT_STRS:
		return param_parse_strs(p, v, field);
	case PT_IP:
		return param_parse_ip(p, v, field);
	case PT_JSON:
		/* refcounts of jansson values are not to be shared by threads */
		*(json_t **)field = json_deep_copy(v);
		return 0;
	case PT_CUSTOM:
		return p->parse(v, field);
	case PT_UNSUPPORTED:
		err_set(ERR_INVALID, "field `%s` is not supported by this version of cirrus", p->name);
		return -1;
	}
	panic("parameter %s has no known type", p->name);
}

static json_t *param_list_default(str_t text)
{
	json_t *arr = json_array();
	str_t item;
	while (text.n != 0 && str_split(&text, ',', &item)) {
		item = str_trim(item);
		json_array_append_new(arr, json_stringn(item.p, item.n));
	}
	return arr;
}

json_t *param_field_default(const struct param *p)
{
	str_t text = str_of(p->def);
	switch (p->type) {
	case PT_STR:
	case PT_DUR:
	case PT_ENUM:
	case PT_IP:
		return json_stringn(p->def, text.n);
	case PT_CIDRS:
	case PT_STRS:
		return param_list_default(text);
	case PT_BOOL:
	case PT_INT:
	case PT_BYTES:
	case PT_JSON:
	case PT_CUSTOM:
		return value_parse_json(text);
	case PT_UNSUPPORTED:
		break;
	}
	err_set(ERR_INVALID, "a default for `%s`, which is not supported", p->name);
	return NULL;
}

void param_field_clear(const struct param *p, void *field)
{
	if (p->type == PT_DUR)
		*(dur_t *)field = dur_ns(-1);
}

void param_field_fini(const struct param *p, void *field)
{
	switch (p->type) {
	case PT_STR:
		free(*(char **)field);
		*(char **)field = NULL;
		return;
	case PT_CIDRS:
		cidr_set_fini(field);
		return;
	case PT_STRS:
		param_strs_fini(field);
		return;
	case PT_JSON:
		json_decref(*(json_t **)field);
		*(json_t **)field = NULL;
		return;
	case PT_CUSTOM:
		if (p->fini != NULL)
			p->fini(field);
		return;
	default:
		return;
	}
}

static json_t *param_json_text(const struct buf *b)
{
	return json_stringn_nocheck(b->n != 0 ? b->p : "", b->n);
}

static json_t *param_dump_cidrs(const struct cidr_set *s)
{
	json_t *arr = json_array();
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < s->n; i++) {
		buf_clear(&b);
		cidr_set_fmt(s, i, &b);
		json_array_append_new(arr, param_json_text(&b));
	}
	buf_fini(&b);
	return arr;
}

static json_t *param_dump_dur(dur_t d)
{
	if (d.ns < 0)
		return json_null();
	struct buf b = BUF_INIT;
	dur_fmt(d, &b);
	json_t *v = param_json_text(&b);
	buf_fini(&b);
	return v;
}

json_t *param_field_dump(const struct param *p, const void *field, const json_t *given)
{
	char addr[NET_ADDR_STRLEN];
	json_t *v = NULL;
	switch (p->type) {
	case PT_STR: {
		const char *s = *(char *const *)field;
		return s != NULL ? json_string(s) : json_null();
	}
	case PT_BOOL:
		return json_boolean(*(const bool *)field);
	case PT_INT:
		return json_integer(*(const int64_t *)field);
	case PT_BYTES:
		return json_integer((json_int_t) * (const uint64_t *)field);
	case PT_DUR:
		return param_dump_dur(*(const dur_t *)field);
	case PT_ENUM:
		return json_string(p->words[*(const int *)field]);
	case PT_CIDRS:
		return param_dump_cidrs(field);
	case PT_STRS: {
		const struct param_strs *s = field;
		v = json_array();
		for (size_t i = 0; i < s->n; i++)
			json_array_append_new(v, json_string(s->v[i]));
		return v;
	}
	case PT_IP: {
		const struct net_addr *a = field;
		if (a->len == 0)
			return json_null();
		return json_string(net_addr_fmt_ip(a, addr));
	}
	case PT_JSON: {
		const json_t *j = *(json_t *const *)field;
		return j != NULL ? json_deep_copy(j) : json_null();
	}
	case PT_CUSTOM:
		if (p->dump != NULL)
			p->dump(field, &v);
		else if (given != NULL)
			v = json_deep_copy(given);
		else if (p->def != NULL)
			v = param_field_default(p);
		return v != NULL ? v : json_null();
	case PT_UNSUPPORTED:
		return json_null();
	}
	return json_null();
}
