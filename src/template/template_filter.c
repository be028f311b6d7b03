/* template_filter.c - the table of filters, and those that work on single values: defaults, numbers,
 * escaping, JSON. A filter is called with the value it is applied to as argument 0. Arguments and results
 * follow what the dialect documents; an argument that a filter does not know is an error. */
#include "template/template_impl.h"

#include <math.h>
#include <stdlib.h>

static int filter_default(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *is_bool = template_arg(a, 2, "boolean");
	bool is_missing = a->v[0].kind == TV_UNDEF ||
			  (template_arg_bool(is_bool, false) && !template_is_true(&a->v[0]));
	*out = !is_missing ? a->v[0] : a->n > 1 ? a->v[1] : tval_str(STR(""));
	return template_step(r, 1);
}

static int filter_attr(struct trender *r, struct targs *a, struct tval *out)
{
	return template_get_item(r, &a->v[0], &a->v[1], out);
}

static int filter_bool(struct trender *r, struct targs *a, struct tval *out)
{
	*out = tval_bool(template_is_true(&a->v[0]));
	return template_step(r, 1);
}

static int filter_string(struct trender *r, struct targs *a, struct tval *out)
{
	return template_to_str(r, &a->v[0], out);
}

static int filter_safe(struct trender *r, struct targs *a, struct tval *out)
{
	if (template_to_str(r, &a->v[0], out) != 0)
		return -1;
	out->is_safe = true;
	return 0;
}

static int filter_escape(struct trender *r, struct targs *a, struct tval *out)
{
	struct tval s;
	if (a->v[0].kind == TV_STR && a->v[0].is_safe) {
		*out = a->v[0];
		return 0;
	}
	size_t sb = template_sb_begin(r);
	if (r->escape == TEMPLATE_ESCAPE_JSON) {
		if (template_print_json(r, &a->v[0], -1, 0) != 0)
			return -1;
	} else {
		if (template_to_str(r, &a->v[0], &s) != 0 || template_step_bytes(r, s.n) != 0)
			return -1;
		template_print_html(r, tval_text(&s));
	}
	if (template_sb_take(r, sb, out) != 0)
		return -1;
	out->is_safe = true;
	return 0;
}

/* Safe inside HTML, script included: < > & ' are written as \u escapes. */
static int filter_tojson(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *arg = template_arg(a, 1, "indent");
	int64_t indent = -1;
	if (arg != NULL && arg->kind == TV_BOOL)
		indent = arg->u.b ? 2 : -1;
	else if (arg != NULL && arg->kind != TV_NONE && arg->kind != TV_UNDEF &&
		 template_arg_int(r, arg, "usize", &indent) != 0)
		return -1;
	if (indent > 64)
		return template_fail_limit(r, "indentation is too deep");
	struct tval s;
	size_t sb = template_sb_begin(r), from = 0;
	if (template_print_json(r, &a->v[0], indent < -1 ? -1 : (int)indent, 0) != 0 ||
	    template_sb_take(r, sb, &s) != 0)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.u.s[i];
		if (c != '<' && c != '>' && c != '&' && c != '\'')
			continue;
		char text[8];
		snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);
		template_sb_add(r, s.u.s + from, i - from);
		template_sb_add(r, text, 6);
		from = i + 1;
	}
	template_sb_add(r, s.u.s + from, s.n - from);
	if (template_sb_take(r, sb, out) != 0)
		return -1;
	out->is_safe = true;
	return 0;
}

static int filter_pprint(struct trender *r, struct targs *a, struct tval *out)
{
	size_t sb = template_sb_begin(r);
	return template_print_pretty(r, &a->v[0], 0) != 0 ? -1 : template_sb_take(r, sb, out);
}

/* --- numbers --- */

static int filter_abs(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	__int128 i;
	if (v->kind == TV_FLOAT) {
		*out = tval_float(fabs(v->u.f));
		return 0;
	}
	if (!template_is_int(v) || !template_as_int(v, &i))
		return template_fail_op(r, "cannot get absolute value");
	*out = *v;
	return i < 0 ? template_negate(r, v, out) : 0;
}

static int filter_round(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	int64_t precision = 0;
	if (a->n > 1 && a->v[1].kind != TV_NONE && template_arg_int(r, &a->v[1], "i32", &precision) != 0)
		return -1;
	*out = *v;
	if (template_is_int(v))
		return 0;
	if (v->kind != TV_FLOAT)
		return template_fail_op(r, "cannot round value (%s)",
					v->kind == TV_STR ? "string" : template_kind_name(v));
	double scale = pow(10, (double)precision);
	*out = tval_float(round(v->u.f * scale) / scale);
	return 0;
}

/* A whole-string number as the dialect reads it: no blanks around it. */
static bool filter_parse_double(str_t s, double *out)
{
	char text[400], *end;
	if (s.n == 0 || s.n >= sizeof(text))
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		bool is_ok = (c >= '0' && c <= '9') || c == '.' || c == '+' || c == '-' || (c | 32) == 'e';
		if (!is_ok)
			break;
		if (i + 1 < s.n)
			continue;
		memcpy(text, s.p, s.n);
		text[s.n] = 0;
		*out = strtod(text, &end);
		return *end == 0;
	}
	str_t word = s.p[0] == '+' || s.p[0] == '-' ? str_skip(s, 1) : s;
	double v;
	if (str_ieq(word, STR("inf")) || str_ieq(word, STR("infinity")))
		v = INFINITY;
	else if (str_ieq(word, STR("nan")))
		v = NAN;
	else
		return false;
	*out = s.p[0] == '-' ? -v : v;
	return true;
}

static int filter_fail_number(struct trender *r, str_t s)
{
	return s.n == 0 ? template_fail_op(r, "cannot parse float from empty string")
			: template_fail_op(r, "invalid float literal");
}

static int filter_double_to_int(struct trender *r, double f, struct tval *out)
{
	const __int128 max = (__int128)(((unsigned __int128)1 << 127) - 1);
	__int128 i = isnan(f)			   ? 0
		     : f >= 1.7014118346046923e38  ? max
		     : f <= -1.7014118346046923e38 ? -max - 1
						   : (__int128)f;
	return template_int_new(r, i, out);
}

static bool filter_parse_int(str_t s, __int128 *out)
{
	bool is_negative = s.n > 0 && s.p[0] == '-';
	__int128 v = 0;
	if (s.n > 0 && (s.p[0] == '-' || s.p[0] == '+'))
		s = str_skip(s, 1);
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, s.p[i] - '0', &v))
			return false;
	*out = is_negative ? -v : v;
	return true;
}

static int filter_int(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	__int128 i = 0;
	double f;
	switch (v->kind) {
	case TV_UNDEF:
	case TV_NONE:
		*out = tval_int(0);
		return 0;
	case TV_FLOAT:
		return filter_double_to_int(r, v->u.f, out);
	case TV_STR:
		if (filter_parse_int(tval_text(v), &i))
			return template_int_new(r, i, out);
		if (!filter_parse_double(tval_text(v), &f))
			return filter_fail_number(r, tval_text(v));
		return filter_double_to_int(r, f, out);
	default:
		if (!template_as_int(v, &i))
			return template_fail_op(r, "cannot convert %s to integer", template_kind_name(v));
		return template_int_new(r, i, out);
	}
}

static int filter_float(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	double f = 0;
	if (v->kind == TV_STR) {
		if (!filter_parse_double(tval_text(v), &f))
			return filter_fail_number(r, tval_text(v));
	} else if (v->kind != TV_UNDEF && v->kind != TV_NONE && !template_as_double(v, &f)) {
		return template_fail_op(r, "cannot convert %s to float", template_kind_name(v));
	}
	*out = tval_float(f);
	return 0;
}

static int filter_filesizeformat(struct trender *r, struct targs *a, struct tval *out)
{
	static const char *const prefixes[2][9] = {{"", "k", "M", "G", "T", "P", "E", "Z", "Y"},
						   {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"}};
	bool is_binary = a->n > 1 && template_is_true(&a->v[1]);
	double size, base = is_binary ? 1024 : 1000;
	if (a->v[0].kind == TV_BOOL || !template_as_double(&a->v[0], &size))
		return template_fail_op(r, "cannot convert %s to f64", template_kind_name(&a->v[0]));
	size_t sb = template_sb_begin(r);
	if (size == 1) {
		template_sb_str(r, STR("1 Byte"));
	} else if (fabs(size) < base) {
		struct tval v = size == trunc(size) ? tval_int((int64_t)size) : tval_float(size);
		if (template_print(r, &v) != 0)
			return -1;
		template_sb_str(r, STR(" Bytes"));
	} else if (!isfinite(size)) {
		template_sb_str(r, isnan(size) ? STR("NaN") : size > 0 ? STR("inf") : STR("-inf"));
		template_sb_str(r, is_binary ? STR(" YiB") : STR(" YB"));
	} else {
		int i = 1;
		for (size /= base; i < 8 && fabs(size) >= base; i++)
			size /= base;
		char text[400];
		int n = snprintf(text, sizeof(text), "%.1f %sB", size, prefixes[is_binary][i]);
		template_sb_add(r, text, (size_t)n);
	}
	return template_sb_take(r, sb, out);
}

static int filter_pluralize(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	__int128 i = 0;
	size_t n = 0;
	bool is_one;
	if (v->kind == TV_STR && str_eq(tval_text(v), STR("1")))
		is_one = true;
	else if (template_as_int(v, &i) && v->kind != TV_BOOL)
		is_one = i == 1;
	else if (template_len(v, &n))
		is_one = n == 1;
	else
		return template_fail_op(r,
					"Pluralize argument is not an integer, "
					"or a sequence / object with a length but of type %s",
					template_kind_name(v));
	uint32_t at = is_one ? 1 : 2;
	bool is_given = at < a->n && a->v[at].kind != TV_NONE && a->v[at].kind != TV_UNDEF;
	*out = is_given ? a->v[at] : tval_str(is_one ? STR("") : STR("s"));
	return 0;
}

/* --- the table --- */

static const struct tfunc filter_table[] = {
	{"abs", filter_abs, 1, 1, false},
	{"attr", filter_attr, 2, 2, false},
	{"batch", template_f_batch, 2, 3, false},
	{"bool", filter_bool, 1, 1, false},
	{"capitalize", template_f_capitalize, 1, 1, false},
	{"chain", template_f_chain, 1, UINT8_MAX, false},
	{"count", template_f_length, 1, 1, false},
	{"d", filter_default, 1, 3, true},
	{"dateformat", template_f_dateformat, 1, 1, true},
	{"datetimeformat", template_f_datetimeformat, 1, 1, true},
	{"default", filter_default, 1, 3, true},
	{"dictsort", template_f_dictsort, 1, 1, true},
	{"e", filter_escape, 1, 1, false},
	{"escape", filter_escape, 1, 1, false},
	{"filesizeformat", filter_filesizeformat, 1, 2, false},
	{"first", template_f_first, 1, 1, false},
	{"float", filter_float, 1, 1, false},
	{"format", template_f_format, 1, UINT8_MAX, true},
	{"groupby", template_f_groupby, 1, 2, true},
	{"indent", template_f_indent, 1, 4, true},
	{"int", filter_int, 1, 1, false},
	{"items", template_f_items, 1, 1, false},
	{"join", template_f_join, 1, 2, false},
	{"last", template_f_last, 1, 1, false},
	{"length", template_f_length, 1, 1, false},
	{"lines", template_f_lines, 1, 1, false},
	{"list", template_f_list, 1, 1, false},
	{"lower", template_f_lower, 1, 1, false},
	{"map", template_f_map, 1, UINT8_MAX, true},
	{"max", template_f_max, 1, 1, false},
	{"min", template_f_min, 1, 1, false},
	{"normalize_smtp_response", template_f_normalize, 1, 1, false},
	{"pluralize", filter_pluralize, 1, 3, false},
	{"pprint", filter_pprint, 1, 1, false},
	{"reject", template_f_reject, 1, UINT8_MAX, false},
	{"rejectattr", template_f_rejectattr, 2, UINT8_MAX, false},
	{"replace", template_f_replace, 3, 3, false},
	{"reverse", template_f_reverse, 1, 1, false},
	{"round", filter_round, 1, 2, false},
	{"safe", filter_safe, 1, 1, false},
	{"select", template_f_select, 1, UINT8_MAX, false},
	{"selectattr", template_f_selectattr, 2, UINT8_MAX, false},
	{"slice", template_f_slice, 2, 3, false},
	{"sort", template_f_sort, 1, 1, true},
	{"split", template_f_split, 1, 3, false},
	{"string", filter_string, 1, 1, false},
	{"striptags", template_f_striptags, 1, 1, false},
	{"sum", template_f_sum, 1, 1, false},
	{"timeformat", template_f_timeformat, 1, 1, true},
	{"title", template_f_title, 1, 1, false},
	{"tojson", filter_tojson, 1, 2, true},
	{"trim", template_f_trim, 1, 2, false},
	{"truncate", template_f_truncate, 1, 1, true},
	{"unique", template_f_unique, 1, 1, true},
	{"upper", template_f_upper, 1, 1, false},
	{"urlencode", template_f_urlencode, 1, 1, false},
	{"zip", template_f_zip, 1, UINT8_MAX, false},
};

const struct tfunc *template_filter_find(str_t name)
{
	for (size_t i = 0; i < ARRAY_SIZE(filter_table); i++)
		if (str_eq(name, str_of(filter_table[i].name)))
			return &filter_table[i];
	return NULL;
}
