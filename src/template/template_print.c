/* template_print.c - values as text: what {{ }} prints, what a list shows of its items, JSON, and the
 * escaping of the output. A plain string goes from the context to the output with one copy; everything else
 * is built in the render's scratch. */
#include "template/template_impl.h"

#include "base/json.h"
#include "base/text.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <wctype.h>

/* --- numbers --- */

void template_print_int(struct trender *r, __int128 v)
{
	char text[48], *p = text + sizeof(text);
	unsigned __int128 u = v < 0 ? -(unsigned __int128)v : (unsigned __int128)v;
	do
		*--p = (char)('0' + (int)(u % 10));
	while ((u /= 10) > 0);
	if (v < 0)
		*--p = '-';
	template_sb_add(r, p, (size_t)(text + sizeof(text) - p));
}

/* Without an exponent but with a fraction: 1.0, 100000000000000000000.0. In a list 1e20. */
static void print_float(struct trender *r, double v, bool is_repr)
{
	if (!isfinite(v)) {
		template_sb_str(r, isnan(v) ? STR("NaN") : v > 0 ? STR("inf") : STR("-inf"));
		return;
	}
	if (is_repr) {
		double_fmt_json(&r->tmp, v);
		return;
	}
	if (v == 0 && signbit(v))
		template_sb_c(r, '-');
	size_t from = r->tmp.n;
	double_fmt_plain(&r->tmp,
			 v); /* a few hundred bytes at most: the limit is looked at with the next addition */
	if (memchr(r->tmp.p + from, '.', r->tmp.n - from) == NULL)
		template_sb_str(r, STR(".0"));
}

/* --- strings --- */

static uint32_t print_decode(str_t s, size_t i, size_t n)
{
	const unsigned char *p = (const unsigned char *)s.p + i;
	switch (n) {
	case 1:
		return p[0];
	case 2:
		return (uint32_t)(p[0] & 31) << 6 | (p[1] & 63);
	case 3:
		return (uint32_t)(p[0] & 15) << 12 | (uint32_t)(p[1] & 63) << 6 | (p[2] & 63);
	default:
		return (uint32_t)(p[0] & 7) << 18 | (uint32_t)(p[1] & 63) << 12 | (uint32_t)(p[2] & 63) << 6 |
		       (p[3] & 63);
	}
}

static bool print_is_hidden(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad || (c >= 0x200b && c <= 0x200f) ||
	       (c >= 0x2028 && c <= 0x202f) || (c >= 0x205f && c <= 0x206f) || (c >= 0xe000 && c <= 0xf8ff) ||
	       c == 0xfeff;
}

static void print_quoted(struct trender *r, str_t s)
{
	static const char from[] = "\n\r\t\"\\", into[] = "nrt\"\\";
	template_sb_c(r, '"');
	for (size_t i = 0, next; i < s.n; i = next) {
		next = template_utf8_next(s, i);
		uint32_t c = print_decode(s, i, next - i);
		const char *simple = c != 0 && c < 0x80 ? strchr(from, (int)c) : NULL;
		if (simple != NULL) {
			template_sb_c(r, '\\');
			template_sb_c(r, into[simple - from]);
		} else if (c == 0) {
			template_sb_str(r, STR("\\0"));
		} else if (print_is_hidden(c)) {
			char text[16];
			int n = snprintf(text, sizeof(text), "\\u{%x}", c);
			template_sb_add(r, text, (size_t)n);
		} else {
			template_sb_add(r, s.p + i, next - i);
		}
	}
	template_sb_c(r, '"');
}

static locale_t print_locale;

static void print_locale_init(void)
{
	print_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	if (print_locale == (locale_t)0)
		print_locale = newlocale(LC_CTYPE_MASK, "C", (locale_t)0);
}

void template_sb_char(struct trender *r, uint32_t c)
{
	char o[4];
	template_sb_add(r, o, utf8_encode(c, o));
}

void template_add_case(struct trender *r, str_t s, bool is_upper)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	char ascii[256];
	size_t n = 0;
	for (size_t i = 0, next; i < s.n; i = next) {
		unsigned char b = (unsigned char)s.p[i];
		if (b < 0x80) {
			next = i + 1;
			ascii[n++] = (char)(is_upper ? b - (b >= 'a' && b <= 'z') * 32
						     : b + (b >= 'A' && b <= 'Z') * 32);
			if (n == sizeof(ascii)) {
				template_sb_add(r, ascii, n);
				n = 0;
			}
			continue;
		}
		template_sb_add(r, ascii, n);
		n = 0;
		next = template_utf8_next(s, i);
		uint32_t c = print_decode(s, i, next - i);
		pthread_once(&once, print_locale_init);
		if (is_upper && c == 0xdf)
			template_sb_str(r, STR("SS"));
		else
			template_sb_char(r, is_upper ? (uint32_t)towupper_l((wint_t)c, print_locale)
						     : (uint32_t)towlower_l((wint_t)c, print_locale));
	}
	template_sb_add(r, ascii, n);
}

static const struct thtml print_html[256] = {
	['<'] = {"&lt;", 4},   ['>'] = {"&gt;", 4},    ['&'] = {"&amp;", 5},
	['"'] = {"&quot;", 6}, ['\''] = {"&#x27;", 6}, ['/'] = {"&#x2f;", 6},
};

void template_print_html(struct trender *r, str_t s)
{
	size_t from = 0;
	for (size_t i = 0; i < s.n; i++) {
		const struct thtml *as = &print_html[(unsigned char)s.p[i]];
		if (LIKELY(as->n == 0))
			continue;
		template_sb_add(r, s.p + from, i - from);
		template_sb_add(r, as->text, as->n);
		from = i + 1;
	}
	template_sb_add(r, s.p + from, s.n - from);
}

/* --- values --- */

static int print_items(struct trender *r, const struct tval *v)
{
	struct titer it;
	struct tval item;
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	template_sb_c(r, '[');
	for (bool is_first = true; template_iter_next(r, &it, &item); is_first = false) {
		if (!is_first)
			template_sb_str(r, STR(", "));
		if (template_step(r, 1) != 0 || template_print_repr(r, &item) != 0)
			return -1;
	}
	template_sb_c(r, ']');
	return 0;
}

static int print_pairs(struct trender *r, const struct tval *v)
{
	struct titer it;
	struct tval key, val;
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	template_sb_c(r, '{');
	for (bool is_first = true; template_iter_pair(&it, &key, &val); is_first = false) {
		if (!is_first)
			template_sb_str(r, STR(", "));
		if (template_step(r, 1) != 0 || template_print_repr(r, &key) != 0)
			return -1;
		template_sb_str(r, STR(": "));
		if (template_print_repr(r, &val) != 0)
			return -1;
	}
	template_sb_c(r, '}');
	return 0;
}

static int print_object(struct trender *r, const struct tval *v)
{
	struct tval items;
	switch (v->kind) {
	case TV_LOOP:
		template_sb_str(r, STR("<loop "));
		template_print_int(r, (__int128)v->u.loop->index0);
		template_sb_c(r, '/');
		template_print_int(r, (__int128)v->u.loop->n);
		template_sb_c(r, '>');
		return 0;
	case TV_MACRO:
		template_sb_str(r, STR("<macro "));
		template_sb_str(r, v->u.macro->name);
		template_sb_c(r, '>');
		return 0;
	case TV_FUNC:
		template_sb_str(r, STR("<function "));
		template_sb_str(r, str_of(v->u.func->name));
		template_sb_c(r, '>');
		return 0;
	case TV_CYCLER:
		items = tval_list(v->u.cycler->items);
		template_sb_str(r, STR("Cycler { items: "));
		if (template_print_repr(r, &items) != 0)
			return -1;
		template_sb_str(r, STR(", pos: "));
		template_print_int(r, v->u.cycler->pos);
		template_sb_str(r, STR(" }"));
		return 0;
	default:
		template_sb_str(r, STR("Joiner { sep: "));
		if (template_print_repr(r, &v->u.joiner->sep) != 0)
			return -1;
		template_sb_str(r, v->u.joiner->is_used ? STR(", used: true }") : STR(", used: false }"));
		return 0;
	}
}

static int print_value(struct trender *r, const struct tval *v, bool is_repr)
{
	switch (v->kind) {
	case TV_UNDEF:
		if (is_repr)
			template_sb_str(r, STR("undefined"));
		return 0;
	case TV_NONE:
		template_sb_str(r, STR("none"));
		return 0;
	case TV_BOOL:
		template_sb_str(r, v->u.b ? STR("true") : STR("false"));
		return 0;
	case TV_INT:
		template_print_int(r, v->u.i);
		return 0;
	case TV_BIG:
		template_print_int(r, *v->u.big);
		return 0;
	case TV_FLOAT:
		print_float(r, v->u.f, is_repr);
		return 0;
	case TV_STR:
		if (is_repr)
			print_quoted(r, tval_text(v));
		else
			template_sb_str(r, tval_text(v));
		return template_step_bytes(r, v->n);
	default:
		break;
	}
	if (template_guard(r) != 0)
		return -1;
	return template_is_seq(v)   ? print_items(r, v)
	       : template_is_map(v) ? print_pairs(r, v)
				    : print_object(r, v);
}

int template_print(struct trender *r, const struct tval *v)
{
	return print_value(r, v, false);
}
int template_print_repr(struct trender *r, const struct tval *v)
{
	return print_value(r, v, true);
}

static void print_indent(struct trender *r, int n)
{
	template_sb_c(r, '\n');
	for (; n > 0; n--)
		template_sb_c(r, ' ');
}

int template_print_pretty(struct trender *r, const struct tval *v, int indent)
{
	struct titer it;
	struct tval key, val;
	size_t n;
	bool is_map = template_is_map(v);
	if ((!is_map && !template_is_seq(v)) || !template_len(v, &n) || n == 0)
		return template_print_repr(r, v);
	if (template_guard(r) != 0 || template_iter_init(r, v, &it) != 0)
		return -1;
	template_sb_c(r, is_map ? '{' : '[');
	while (is_map ? template_iter_pair(&it, &key, &val) : template_iter_next(r, &it, &val)) {
		print_indent(r, indent + 4);
		if (template_step(r, 1 + (size_t)indent / 16) != 0)
			return -1;
		if (is_map) {
			if (template_print_repr(r, &key) != 0)
				return -1;
			template_sb_str(r, STR(": "));
		}
		if (template_print_pretty(r, &val, indent + 4) != 0)
			return -1;
		template_sb_c(r, ',');
	}
	print_indent(r, indent);
	template_sb_c(r, is_map ? '}' : ']');
	return 0;
}

/* --- JSON --- */

/* In pieces, so that what escaping blows up is bounded by the scratch's own limit. */
static int print_json_str(struct trender *r, str_t s)
{
	struct buf text = BUF_INIT;
	if (template_step_bytes(r, s.n) != 0)
		return -1;
	template_sb_c(r, '"');
	while (s.n > 0 && !r->is_tmp_over) {
		size_t n = s.n < 4096 ? s.n : template_utf8_next(s, 4096);
		buf_clear(&text);
		json_escape(&text, str_head(s, n));
		template_sb_add(r, text.p + 1, text.n - 2);
		s = str_skip(s, n);
	}
	template_sb_c(r, '"');
	buf_fini(&text);
	return 0;
}

static int print_json_key(struct trender *r, const struct tval *key)
{
	struct tval s;
	if (key->kind == TV_STR)
		return print_json_str(r, tval_text(key));
	return template_to_str(r, key, &s) != 0 ? -1 : print_json_str(r, tval_text(&s));
}

static int print_json_items(struct trender *r, const struct tval *v, int indent, int level)
{
	struct titer it;
	struct tval key, val;
	bool is_map = template_is_map(v), is_first = true;
	if (template_guard(r) != 0 || template_iter_init(r, v, &it) != 0)
		return -1;
	template_sb_c(r, is_map ? '{' : '[');
	while (is_map ? template_iter_pair(&it, &key, &val) : template_iter_next(r, &it, &val)) {
		if (!is_first)
			template_sb_c(r, ',');
		is_first = false;
		if (indent >= 0)
			print_indent(r, indent * (level + 1));
		if (template_step(r, 1 + (indent > 0 ? (size_t)(indent * level) / 16 : 0)) != 0)
			return -1;
		if (is_map) {
			if (print_json_key(r, &key) != 0)
				return -1;
			template_sb_str(r, indent >= 0 ? STR(": ") : STR(":"));
		}
		if (template_print_json(r, &val, indent, level + 1) != 0)
			return -1;
	}
	if (indent >= 0 && !is_first)
		print_indent(r, indent * level);
	template_sb_c(r, is_map ? '}' : ']');
	return 0;
}

int template_print_json(struct trender *r, const struct tval *v, int indent, int level)
{
	switch (v->kind) {
	case TV_BOOL:
	case TV_INT:
	case TV_BIG:
		return template_print(r, v);
	case TV_FLOAT:
		if (isfinite(v->u.f))
			print_float(r, v->u.f, true);
		else
			template_sb_str(r, STR("null"));
		return 0;
	case TV_STR:
		return print_json_str(r, tval_text(v));
	case TV_LIST:
	case TV_RANGE:
	case TV_JARR:
	case TV_MAP:
	case TV_JOBJ:
		return print_json_items(r, v, indent, level);
	case TV_UNDEF:
	case TV_NONE:
		template_sb_str(r, STR("null"));
		return 0;
	default:
		return template_fail(r, "bad serialization: cannot serialize %s to JSON",
				     template_kind_name(v));
	}
}

/* --- output --- */

int template_emit_text(struct trender *r, str_t s)
{
	if (UNLIKELY(r->out->n - r->out_start + s.n > TEMPLATE_MAX_OUTPUT))
		return template_fail_limit(r, "too much output");
	buf_add_str(r->out, s);
	return template_step(r, s.n / 1024);
}

int template_emit_html(struct trender *r, str_t s, const struct thtml *html)
{
	size_t from = 0;
	if (template_step_bytes(r, s.n) != 0)
		return -1;
	for (size_t i = 0; i < s.n; i++) {
		const struct thtml *as = &html[(unsigned char)s.p[i]];
		if (LIKELY(as->n == 0))
			continue;
		if (template_emit_text(r, str_mk(s.p + from, i - from)) != 0 ||
		    template_emit_text(r, str_mk(as->text, as->n)) != 0)
			return -1;
		from = i + 1;
	}
	return template_emit_text(r, str_skip(s, from));
}

int template_emit(struct trender *r, const struct tval *v)
{
	bool is_plain = v->kind == TV_STR && (r->escape == TEMPLATE_ESCAPE_NONE || v->is_safe);
	if (is_plain)
		return template_emit_text(r, tval_text(v));
	if (v->kind == TV_STR && r->escape == TEMPLATE_ESCAPE_HTML)
		return template_emit_html(r, tval_text(v), print_html);
	if (v->kind == TV_UNDEF && r->escape != TEMPLATE_ESCAPE_JSON)
		return 0;
	size_t sb = template_sb_begin(r), from = sb;
	if (r->escape == TEMPLATE_ESCAPE_JSON) {
		if (template_print_json(r, v, -1, 0) != 0)
			return -1;
	} else {
		if (template_print(r, v) != 0)
			return -1;
		if (r->escape == TEMPLATE_ESCAPE_HTML && !template_is_num(v)) {
			struct tval text; /* a list's text, to be escaped as a whole */
			if (template_sb_take(r, sb, &text) != 0)
				return -1;
			template_print_html(r, tval_text(&text));
		}
	}
	if (r->is_tmp_over)
		return template_fail_limit(r, "too much memory used");
	int rc = template_emit_text(r, str_mk(r->tmp.p != NULL ? r->tmp.p + from : NULL, r->tmp.n - from));
	template_sb_drop(r, sb);
	return rc;
}

int template_to_str(struct trender *r, const struct tval *v, struct tval *out)
{
	if (v->kind == TV_STR) {
		*out = *v;
		return 0;
	}
	size_t sb = template_sb_begin(r);
	return template_print(r, v) != 0 ? -1 : template_sb_take(r, sb, out);
}
