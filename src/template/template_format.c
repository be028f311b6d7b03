/* template_format.c - the `format` filter: printf as Python has it,
 * "%[(key)][flags][width][.precision][length]type" with the types d i o x X e E f F g G c s. Numbers are
 * formatted here and by snprintf with a format string made from checked parts only. */
#include "template/template_impl.h"

struct format_spec {
	str_t key; /* of a mapping, or p NULL */
	bool is_left, has_plus, has_space, is_zero, is_alt;
	int width, precision; /* precision -1: none */
	char type;
	size_t at; /* where it began, for errors */
};

enum { FORMAT_MAX_WIDTH = 10000, FORMAT_MAX_PRECISION = 100 };

static int format_number(struct trender *r, str_t *rest, int max, int *out)
{
	int v = 0;
	while (rest->n > 0 && *rest->p >= '0' && *rest->p <= '9') {
		v = v * 10 + (*rest->p - '0');
		if (v > max)
			return template_fail_op(r, "width or precision of a format spec is too big");
		*rest = str_skip(*rest, 1);
	}
	*out = v;
	return 0;
}

/* After the '%'. */
static int format_parse(struct trender *r, str_t *rest, size_t whole, struct format_spec *spec)
{
	*spec = (struct format_spec){.precision = -1, .at = whole - rest->n};
	if (rest->n > 0 && *rest->p == '(') {
		ptrdiff_t end = str_chr(*rest, ')', 0);
		if (end < 0)
			return template_fail_op(r, "incomplete format spec at offset %zu; missing `)`",
						spec->at);
		spec->key = str_mk(rest->p + 1, (size_t)end - 1);
		*rest = str_skip(*rest, (size_t)end + 1);
	}
	for (; rest->n > 0; *rest = str_skip(*rest, 1)) {
		char c = *rest->p;
		if (c == '-')
			spec->is_left = true;
		else if (c == '+')
			spec->has_plus = true;
		else if (c == ' ')
			spec->has_space = true;
		else if (c == '0')
			spec->is_zero = true;
		else if (c == '#')
			spec->is_alt = true;
		else
			break;
	}
	if (format_number(r, rest, FORMAT_MAX_WIDTH, &spec->width) != 0)
		return -1;
	if (rest->n > 0 && *rest->p == '.') {
		*rest = str_skip(*rest, 1);
		if (format_number(r, rest, FORMAT_MAX_WIDTH, &spec->precision) != 0)
			return -1;
	}
	while (rest->n > 0 && (*rest->p == 'l' || *rest->p == 'h' || *rest->p == 'L'))
		*rest = str_skip(*rest, 1);
	if (rest->n == 0)
		return template_fail_op(r, "incomplete format spec at offset %zu; missing conversion type",
					spec->at);
	spec->type = *rest->p;
	if (spec->type == 0 || strchr("dioxXeEfFgGcs", spec->type) == NULL) {
		size_t n = template_utf8_next(*rest, 0);
		return template_fail_op(r, "invalid conversion type '%.*s' in format spec at offset %zu",
					(int)n, rest->p, whole - rest->n);
	}
	*rest = str_skip(*rest, 1);
	return 0;
}

static int format_fail_type(struct trender *r, const struct format_spec *spec, const struct tval *v,
			    const char *as)
{
	return template_fail_op(r, "invalid format spec at offset %zu; '%s' cannot be formatted in %s ('%c')",
				spec->at, v->kind == TV_FLOAT ? "float" : template_kind_name(v), as,
				spec->type);
}

/* prefix (sign, 0x) and digits into the field. */
static void format_field(struct trender *r, const struct format_spec *spec, str_t prefix, str_t digits,
			 bool is_number)
{
	int n = (int)(template_utf8_len(prefix) + template_utf8_len(digits)),
	    pad = spec->width > n ? spec->width - n : 0;
	bool is_zero = spec->is_zero && !spec->is_left && is_number;
	for (int i = 0; i < pad && !spec->is_left && !is_zero; i++)
		template_sb_c(r, ' ');
	template_sb_str(r, prefix);
	for (int i = 0; i < pad && is_zero; i++)
		template_sb_c(r, '0');
	template_sb_str(r, digits);
	for (int i = 0; i < pad && spec->is_left; i++)
		template_sb_c(r, ' ');
}

static size_t format_sign(const struct format_spec *spec, bool is_negative, char *prefix)
{
	char c = is_negative ? '-' : spec->has_plus ? '+' : spec->has_space ? ' ' : 0;
	prefix[0] = c;
	return c != 0;
}

static int format_int(struct trender *r, const struct format_spec *spec, const struct tval *v)
{
	static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
	unsigned base = spec->type == 'o' ? 8 : (spec->type | 32) == 'x' ? 16 : 10;
	__int128 i;
	if (v->kind == TV_FLOAT || !template_as_int(v, &i))
		return format_fail_type(r, spec, v,
					base == 10  ? "decimal format"
					: base == 8 ? "octal format"
						    : "hexadecimal format");
	unsigned __int128 u = i < 0 ? -(unsigned __int128)i : (unsigned __int128)i;
	char text[64], *p = text + sizeof(text), prefix[4];
	do
		*--p = (spec->type == 'X' ? upper : lower)[(int)(u % base)];
	while ((u /= base) > 0);
	size_t n = format_sign(spec, i < 0, prefix);
	if (spec->is_alt && base != 10) {
		prefix[n++] = '0';
		prefix[n++] = spec->type;
	}
	format_field(r, spec, str_mk(prefix, n), str_mk(p, (size_t)(text + sizeof(text) - p)), true);
	return 0;
}

static int format_double(struct trender *r, const struct format_spec *spec, const struct tval *v)
{
	char text[512], prefix[2];
	double f;
	if (!template_as_double(v, &f))
		return format_fail_type(r, spec, v,
					(spec->type | 32) == 'f'   ? "fixed-point notation"
					: (spec->type | 32) == 'e' ? "scientific notation"
								   : "general format");
	int precision = spec->precision < 0 ? 6 : spec->precision, n = 0;
	if (precision > FORMAT_MAX_PRECISION)
		precision = FORMAT_MAX_PRECISION;
	bool is_negative = __builtin_signbit(f);
	f = __builtin_fabs(f);
	switch (spec->type) {
	case 'e':
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*e" : "%.*e", precision, f);
		break;
	case 'E':
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*E" : "%.*E", precision, f);
		break;
	case 'f':
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*f" : "%.*f", precision, f);
		break;
	case 'F':
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*F" : "%.*F", precision, f);
		break;
	case 'g':
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*g" : "%.*g", precision, f);
		break;
	default:
		n = snprintf(text, sizeof(text), spec->is_alt ? "%#.*G" : "%.*G", precision, f);
		break;
	}
	format_field(r, spec, str_mk(prefix, format_sign(spec, is_negative, prefix)), str_mk(text, (size_t)n),
		     true);
	return 0;
}

static int format_char(struct trender *r, const struct format_spec *spec, const struct tval *v)
{
	__int128 i;
	struct tval s;
	if (v->kind == TV_STR && template_utf8_len(tval_text(v)) == 1) {
		format_field(r, spec, STR_NULL, tval_text(v), false);
		return 0;
	}
	if (v->kind == TV_FLOAT || !template_as_int(v, &i) || i < 0 || i > 0x10ffff ||
	    (i >= 0xd800 && i < 0xe000))
		return format_fail_type(r, spec, v, "character format");
	size_t sb = template_sb_begin(r);
	template_sb_char(r, (uint32_t)i);
	if (template_sb_take(r, sb, &s) != 0)
		return -1;
	format_field(r, spec, STR_NULL, tval_text(&s), false);
	return 0;
}

static int format_text(struct trender *r, const struct format_spec *spec, const struct tval *v)
{
	struct tval s;
	if (template_to_str(r, v, &s) != 0 || template_step_bytes(r, s.n) != 0)
		return -1;
	str_t text = tval_text(&s);
	if (spec->precision >= 0) {
		size_t cut = 0;
		for (int i = 0; i < spec->precision && cut < text.n; i++)
			cut = template_utf8_next(text, cut);
		text = str_head(text, cut);
	}
	format_field(r, spec, STR_NULL, text, false);
	return 0;
}

static int format_one(struct trender *r, const struct format_spec *spec, const struct tval *v)
{
	switch (spec->type) {
	case 'd':
	case 'i':
	case 'o':
	case 'x':
	case 'X':
		return format_int(r, spec, v);
	case 'c':
		return format_char(r, spec, v);
	case 's':
		return format_text(r, spec, v);
	default:
		return format_double(r, spec, v);
	}
}

/* The argument of a spec: by key from the mapping (keyword arguments or the first argument), else the next
 * one. */
static int format_arg(struct trender *r, struct targs *a, const struct format_spec *spec, uint32_t *next,
		      struct tval *out)
{
	struct tval map = a->kw != NULL ? tval_map(a->kw) : a->n > 1 ? a->v[1] : TVAL_UNDEF;
	if (spec->key.p != NULL) {
		struct tval key = tval_str(spec->key);
		if (!template_is_map(&map))
			return template_fail_op(r, "format requires a mapping at offset %zu", spec->at);
		if (template_get_item(r, &map, &key, out) != 0)
			return -1;
		if (out->kind == TV_UNDEF)
			return template_fail_op(r, "missing an argument for format spec at offset '%zu'",
						spec->at);
		return 0;
	}
	if (*next < a->n) {
		*out = a->v[(*next)++];
		return 0;
	}
	if (*next == a->n && a->kw != NULL) {
		(*next)++;
		*out = map;
		return 0;
	}
	return template_fail_op(r, "missing an argument for format spec at offset '%zu'", spec->at);
}

int template_f_format(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s, rest;
	uint32_t next = 1;
	if (template_arg_str(r, &a->v[0], &s) != 0 || template_step_bytes(r, s.n) != 0)
		return -1;
	a->kw_used = UINT64_MAX;
	size_t sb = template_sb_begin(r);
	for (rest = s; rest.n > 0;) {
		struct format_spec spec;
		struct tval v;
		ptrdiff_t at = str_chr(rest, '%', 0);
		template_sb_str(r, at < 0 ? rest : str_head(rest, (size_t)at));
		if (at < 0)
			break;
		rest = str_skip(rest, (size_t)at + 1);
		if (rest.n > 0 && *rest.p == '%') {
			template_sb_c(r, '%');
			rest = str_skip(rest, 1);
			continue;
		}
		if (format_parse(r, &rest, s.n, &spec) != 0 || format_arg(r, a, &spec, &next, &v) != 0 ||
		    format_one(r, &spec, &v) != 0 || template_step(r, 1 + (size_t)spec.width / 64) != 0)
			return -1;
	}
	return template_sb_take(r, sb, out);
}
