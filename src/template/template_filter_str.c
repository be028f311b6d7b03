/* template_filter_str.c - filters over text. They take any value as its
 * text, except where the dialect wants a string. Results are never safe, so
 * what a safe string is turned into is escaped again when it is printed. */
#include "template/template_impl.h"

/* The subject as text; the bytes are charged. */
static int str_subject(struct trender *r, struct targs *a, str_t *out)
{
	struct tval s;
	if (template_to_str(r, &a->v[0], &s) != 0)
		return -1;
	*out = tval_text(&s);
	return template_step_bytes(r, s.n);
}

static int str_case(struct trender *r, struct targs *a, bool is_upper, struct tval *out)
{
	str_t s;
	if (str_subject(r, a, &s) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	template_add_case(r, s, is_upper);
	return template_sb_take(r, sb, out);
}

int template_f_upper(struct trender *r, struct targs *a, struct tval *out)
{
	return str_case(r, a, true, out);
}
int template_f_lower(struct trender *r, struct targs *a, struct tval *out)
{
	return str_case(r, a, false, out);
}

static bool str_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool str_is_punct(char c)
{
	return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
	       (c >= '{' && c <= '~');
}

int template_f_title(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s;
	bool is_start = true;
	if (str_subject(r, a, &s) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	for (size_t i = 0, next; i < s.n; i = next) {
		next = template_utf8_next(s, i);
		bool is_sep = str_is_blank(s.p[i]) || str_is_punct(s.p[i]);
		template_add_case(r, str_mk(s.p + i, next - i), is_start && !is_sep);
		is_start = is_sep;
	}
	return template_sb_take(r, sb, out);
}

int template_f_capitalize(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s;
	if (str_subject(r, a, &s) != 0)
		return -1;
	size_t sb = template_sb_begin(r), first = s.n > 0 ? template_utf8_next(s, 0) : 0;
	template_add_case(r, str_head(s, first), true);
	template_add_case(r, str_skip(s, first), false);
	return template_sb_take(r, sb, out);
}

/* Is the character s[i..next) one of `set`? */
static bool str_is_in(str_t set, str_t c)
{
	if (set.p == NULL)
		return c.n == 1 && str_is_blank(*c.p);
	for (size_t i = 0, next; i < set.n; i = next) {
		next = template_utf8_next(set, i);
		if (str_eq(str_mk(set.p + i, next - i), c))
			return true;
	}
	return false;
}

int template_f_trim(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s, set = STR_NULL;
	size_t i;
	if (str_subject(r, a, &s) != 0)
		return -1;
	if (a->n > 1 && a->v[1].kind != TV_NONE && template_arg_str(r, &a->v[1], &set) != 0)
		return -1;
	while (s.n > 0) {
		i = template_utf8_next(s, 0);
		if (!str_is_in(set, str_head(s, i)))
			break;
		s = str_skip(s, i);
		if (template_step(r, set.n / 16) != 0)
			return -1;
	}
	while (s.n > 0) {
		for (i = s.n - 1; i > 0 && ((unsigned char)s.p[i] & 0xc0) == 0x80; i--)
			;
		if (!str_is_in(set, str_skip(s, i)))
			break;
		s.n = i;
		if (template_step(r, set.n / 16) != 0)
			return -1;
	}
	*out = tval_str(s);
	return 0;
}

int template_f_replace(struct trender *r, struct targs *a, struct tval *out)
{
	struct tval from, to;
	str_t s;
	if (str_subject(r, a, &s) != 0 || template_to_str(r, &a->v[1], &from) != 0 ||
	    template_to_str(r, &a->v[2], &to) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	while (from.n > 0) {
		ptrdiff_t at = str_find(s, tval_text(&from));
		if (at < 0)
			break;
		template_sb_add(r, s.p, (size_t)at);
		template_sb_str(r, tval_text(&to));
		s = str_skip(s, (size_t)at + from.n);
		if (r->is_tmp_over || template_step(r, 1 + to.n / 256) != 0)
			break;
	}
	if (from.n > 0) {
		template_sb_str(r, s);
		return r->steps < 0 ? -1 : template_sb_take(r, sb, out);
	}
	template_sb_str(r, tval_text(&to)); /* nothing is found before each character and at the end */
	for (size_t i = 0, next; i < s.n; i = next) {
		next = template_utf8_next(s, i);
		template_sb_add(r, s.p + i, next - i);
		template_sb_str(r, tval_text(&to));
		if (template_step(r, 1) != 0)
			return -1;
	}
	return template_sb_take(r, sb, out);
}

static int str_add_part(struct trender *r, struct tlist *l, str_t part)
{
	struct tval v = tval_str(part);
	return template_step(r, 1) != 0 ? -1 : template_list_add(r, l, &v);
}

/* At runs of blanks; none at the ends. */
static int str_split_blanks(struct trender *r, str_t s, int64_t max, struct tlist *l)
{
	for (;;) {
		while (s.n > 0 && str_is_blank(*s.p))
			s = str_skip(s, 1);
		if (s.n == 0)
			return 0;
		size_t n = 0;
		if (max >= 0 && l->n >= (uint64_t)max)
			n = s.n;
		while (n < s.n && !str_is_blank(s.p[n]))
			n++;
		if (str_add_part(r, l, str_head(s, n)) != 0)
			return -1;
		s = str_skip(s, n);
	}
}

static int str_split_at(struct trender *r, str_t s, str_t sep, int64_t max, struct tlist *l)
{
	if (sep.n == 0 && s.n > 0) { /* found before each character, and at the end by the last part below */
		if (max != 0 && str_add_part(r, l, STR_NULL) != 0)
			return -1;
		for (size_t n; s.n > 0 && (max < 0 || l->n < (uint64_t)max); s = str_skip(s, n))
			if (str_add_part(r, l, str_head(s, n = template_utf8_next(s, 0))) != 0)
				return -1;
	}
	for (;;) {
		ptrdiff_t at = sep.n == 0 || (max >= 0 && l->n >= (uint64_t)max) ? -1 : str_find(s, sep);
		if (str_add_part(r, l, at < 0 ? s : str_head(s, (size_t)at)) != 0)
			return -1;
		if (at < 0)
			return 0;
		s = str_skip(s, (size_t)at + sep.n);
	}
}

int template_f_split(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s, sep = STR_NULL;
	int64_t max = -1;
	if (template_arg_str(r, &a->v[0], &s) != 0 || template_step_bytes(r, s.n) != 0)
		return -1;
	bool has_sep = a->n > 1 && a->v[1].kind != TV_NONE && a->v[1].kind != TV_UNDEF;
	if ((has_sep && template_arg_str(r, &a->v[1], &sep) != 0) ||
	    (a->n > 2 && a->v[2].kind != TV_NONE && template_arg_int(r, &a->v[2], "i64", &max) != 0))
		return -1;
	struct tlist *l = template_list_new(r, 4);
	if (l == NULL || (has_sep ? str_split_at(r, s, sep, max, l) : str_split_blanks(r, s, max, l)) != 0)
		return -1;
	*out = tval_list(l);
	return 0;
}

/* Cuts the next line off; the line end, LF or CRLF, is not part of it. */
static bool str_next_line(str_t *rest, str_t *line)
{
	if (rest->n == 0)
		return false;
	ptrdiff_t at = str_chr(*rest, '\n', 0);
	*line = at < 0 ? *rest : str_head(*rest, (size_t)at);
	*rest = str_skip(*rest, at < 0 ? rest->n : (size_t)at + 1);
	if (at >= 0 && line->n > 0 && line->p[line->n - 1] == '\r')
		line->n--;
	return true;
}

int template_f_lines(struct trender *r, struct targs *a, struct tval *out)
{
	str_t rest, line;
	if (template_arg_str(r, &a->v[0], &rest) != 0 || template_step_bytes(r, rest.n) != 0)
		return -1;
	struct tlist *l = template_list_new(r, 4);
	while (l != NULL && str_next_line(&rest, &line))
		if (str_add_part(r, l, line) != 0)
			return -1;
	*out = tval_list(l);
	return l != NULL ? 0 : -1;
}

static void str_add_blanks(struct trender *r, int64_t n)
{
	static const char blanks[] = "                                                                ";
	for (; n > 0; n -= (int64_t)sizeof(blanks) - 1)
		template_sb_add(r, blanks, n < (int64_t)sizeof(blanks) - 1 ? (size_t)n : sizeof(blanks) - 1);
}

int template_f_indent(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *width_arg = template_arg(a, 1, "width");
	bool first = template_arg_bool(template_arg(a, 2, "first"), false);
	bool blank = template_arg_bool(template_arg(a, 3, "blank"), false);
	int64_t width = 4;
	str_t s, line;
	if (str_subject(r, a, &s) != 0 ||
	    (width_arg != NULL && template_arg_int(r, width_arg, "usize", &width) != 0))
		return -1;
	if (width < 0 || width > 10000)
		return template_fail_op(r, "cannot convert number to usize");
	if (s.n > 0 && s.p[s.n - 1] == '\n')
		s.n--;
	if (s.n > 0 && s.p[s.n - 1] == '\r')
		s.n--;
	size_t sb = template_sb_begin(r);
	for (bool is_first = true; str_next_line(&s, &line); is_first = false) {
		if (!is_first)
			template_sb_c(r, '\n');
		if (is_first ? first : line.n > 0 || blank)
			str_add_blanks(r, width);
		template_sb_str(r, line);
		if (template_step(r, 1 + (size_t)width / 64) != 0)
			return -1;
	}
	return template_sb_take(r, sb, out);
}

/* --- urlencode --- */

static void str_add_percent(struct trender *r, str_t s)
{
	static const char hex[] = "0123456789ABCDEF";
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
				c == '-' || c == '_' || c == '.' || c == '/';
		const char text[3] = {'%', hex[c >> 4], hex[c & 15]};
		template_sb_add(r, is_plain ? s.p + i : text, is_plain ? 1 : 3);
	}
}

static int str_add_percent_val(struct trender *r, const struct tval *v)
{
	struct tval s;
	if (template_to_str(r, v, &s) != 0 || template_step_bytes(r, s.n) != 0)
		return -1;
	str_add_percent(r, tval_text(&s));
	return 0;
}

int template_f_urlencode(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *v = &a->v[0];
	size_t sb = template_sb_begin(r);
	if (!template_is_map(v)) {
		if (v->kind != TV_NONE && v->kind != TV_UNDEF && str_add_percent_val(r, v) != 0)
			return -1;
		return template_sb_take(r, sb, out);
	}
	struct titer it;
	struct tval key, val;
	bool is_first = true;
	if (template_iter_init(r, v, &it) != 0)
		return -1;
	while (template_iter_pair(&it, &key, &val)) {
		if (template_step(r, 1) != 0)
			return -1;
		if (val.kind == TV_NONE || val.kind == TV_UNDEF)
			continue;
		if (!is_first)
			template_sb_c(r, '&');
		is_first = false;
		if (str_add_percent_val(r, &key) != 0)
			return -1;
		template_sb_c(r, '=');
		if (str_add_percent_val(r, &val) != 0)
			return -1;
	}
	return template_sb_take(r, sb, out);
}

/* --- striptags --- */

/* The length of an entity at s ("&amp;"), its text added; 0 when it is none. */
static size_t str_add_entity(struct trender *r, str_t s)
{
	static const struct {
		const char *name, *text;
	} known[] = {{"amp", "&"},	   {"lt", "<"},		{"gt", ">"},	     {"quot", "\""},
		     {"apos", "'"},	   {"nbsp", "\u00a0"},	{"copy", "\u00a9"},  {"reg", "\u00ae"},
		     {"hellip", "\u2026"}, {"mdash", "\u2014"}, {"ndash", "\u2013"}, {"euro", "\u20ac"},
		     {"laquo", "\u00ab"},  {"raquo", "\u00bb"}, {"lsquo", "\u2018"}, {"rsquo", "\u2019"},
		     {"ldquo", "\u201c"},  {"rdquo", "\u201d"}, {"bull", "\u2022"},  {"middot", "\u00b7"},
		     {"times", "\u00d7"},  {"deg", "\u00b0"}};
	ptrdiff_t end = str_chr(str_head(s, 12), ';', 0);
	if (end < 2)
		return 0;
	str_t name = str_mk(s.p + 1, (size_t)end - 1);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (str_eq(name, str_of(known[i].name))) {
			template_sb_str(r, str_of(known[i].text));
			return (size_t)end + 1;
		}
	}
	if (name.p[0] != '#' || name.n < 2)
		return 0;
	bool is_hex = (name.p[1] | 32) == 'x';
	uint32_t c = 0;
	for (size_t i = is_hex ? 2 : 1; i < name.n; i++) {
		char d = name.p[i];
		uint32_t v = d >= '0' && d <= '9'			    ? (uint32_t)(d - '0')
			     : is_hex && (d | 32) >= 'a' && (d | 32) <= 'f' ? (uint32_t)((d | 32) - 'a' + 10)
									    : 99;
		if (v == 99)
			return 0;
		c = c * (is_hex ? 16 : 10) + v;
		if (c > 0x10ffff)
			return 0;
	}
	if (c == 0 || (c >= 0xd800 && c < 0xe000) || name.n == (is_hex ? 2 : 1))
		return 0;
	template_sb_char(r, c);
	return (size_t)end + 1;
}

/* Tags and comments go, entities become characters, runs of blanks become one. */
int template_f_striptags(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s;
	if (str_subject(r, a, &s) != 0)
		return -1;
	size_t sb = template_sb_begin(r);
	bool has_text = false, is_blank_due = false;
	while (s.n > 0) {
		bool is_comment = str_starts(s, STR("<!--"));
		if (*s.p == '<') {
			ptrdiff_t at = is_comment ? str_find(s, STR("-->")) : str_chr(s, '>', 0);
			s = at < 0 ? STR_NULL : str_skip(s, (size_t)at + (is_comment ? 3 : 1));
			continue;
		}
		if (str_is_blank(*s.p)) {
			is_blank_due = has_text;
			s = str_skip(s, 1);
			continue;
		}
		if (is_blank_due)
			template_sb_c(r, ' ');
		is_blank_due = false;
		has_text = true;
		size_t n = *s.p == '&' ? str_add_entity(r, s) : 0;
		if (n == 0)
			template_sb_add(r, s.p, n = 1);
		s = str_skip(s, n);
	}
	return template_sb_take(r, sb, out);
}

/* --- truncate --- */

int template_f_truncate(struct trender *r, struct targs *a, struct tval *out)
{
	const struct tval *length_arg = template_kw(a, "length"), *leeway_arg = template_kw(a, "leeway");
	const struct tval *end_arg = template_kw(a, "end");
	bool is_killing = template_arg_bool(template_kw(a, "killwords"), false);
	int64_t length = 255, leeway = 5;
	str_t s, end = STR("...");
	if (a->v[0].kind == TV_UNDEF || a->v[0].kind == TV_NONE) {
		*out = tval_str(STR(""));
		return 0;
	}
	if (a->v[0].kind != TV_STR)
		return template_fail_op(r, "expected string, got %s", template_kind_name(&a->v[0]));
	if (str_subject(r, a, &s) != 0 ||
	    (length_arg != NULL && template_arg_int(r, length_arg, "usize", &length) != 0) ||
	    (leeway_arg != NULL && template_arg_int(r, leeway_arg, "usize", &leeway) != 0) ||
	    (end_arg != NULL && template_arg_str(r, end_arg, &end) != 0))
		return -1;
	int64_t end_len = (int64_t)template_utf8_len(end);
	if (length < end_len)
		return template_fail_op(r, "expected length >= %lld, got %lld", (long long)end_len,
					(long long)length);
	*out = a->v[0];
	out->is_safe = false;
	if (leeway < 0 || leeway > INT32_MAX || length > INT32_MAX ||
	    (int64_t)template_utf8_len(s) <= length + leeway)
		return 0;
	size_t cut = 0;
	for (int64_t i = 0; i < length - end_len; i++)
		cut = template_utf8_next(s, cut);
	s = str_head(s, cut);
	for (size_t i = s.n; !is_killing && i-- > 0;) {
		if (s.p[i] == ' ') {
			s.n = i;
			break;
		}
	}
	size_t sb = template_sb_begin(r);
	template_sb_str(r, s);
	template_sb_str(r, end);
	return template_sb_take(r, sb, out);
}

int template_f_normalize(struct trender *r, struct targs *a, struct tval *out)
{
	str_t s;
	struct buf text = BUF_INIT;
	if (str_subject(r, a, &s) != 0)
		return -1;
	template_normalize_smtp_response(s, &text);
	int rc = template_str_copy(r, buf_str(&text), out);
	buf_fini(&text);
	return rc;
}
