/* handlebars_split.c - source to pieces: text and tags in turn. First the source is cut: a tag ends at its
 * closing braces, of which those in a string or between square brackets do not count. Then blanks are taken
 * off the text around the tags: all that touch a `~`; and a tag that stands alone on its line (one that
 * prints nothing itself: blocks, else, comments, partials) takes the line with it. What counts as alone is
 * decided on the text as it was written, before anything was taken off. Both passes are linear. */
#include "template/handlebars_impl.h"

#include "base/alloc.h"

#include <stdlib.h>

struct hsplit {
	struct template *t;
	const char *p, *end;
	struct hpieces *out;
};

static bool split_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool split_at(const struct hsplit *s, const char *p, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(s->end - p) >= n && memcmp(p, word, n) == 0;
}

static int split_fail(const struct hsplit *s, const char *at, const char *what)
{
	return template_error(s->t, ERR_INVALID, (uint32_t)(at - s->t->source.p), "syntax error: %s", what);
}

static struct hpiece *split_add(struct hsplit *s, enum hpiece_kind kind, const char *at, str_t text)
{
	struct hpieces *out = s->out;
	if (out->n == out->cap) {
		out->cap = out->cap == 0 ? 32 : out->cap * 2;
		out->v = xreallocarray(out->v, out->cap, sizeof(*out->v));
	}
	struct hpiece *piece = &out->v[out->n++];
	*piece = (struct hpiece){.kind = (uint8_t)kind, .at = (uint32_t)(at - s->t->source.p), .s = text};
	return piece;
}

static void split_add_text(struct hsplit *s, const char *from, const char *to)
{
	if (to > from)
		split_add(s, HP_TEXT, from, str_mk(from, (size_t)(to - from)));
}

static const char *split_find(const char *p, const char *end, const char *word)
{
	ptrdiff_t at = str_find(str_mk(p, (size_t)(end - p)), str_of(word));
	return at >= 0 ? p + at : end;
}

/* --- tags --- */

/* From `p` inside a tag to where `close` is, strings and [segments] jumped over; NULL with an error. */
static const char *split_tag_end(struct hsplit *s, const char *open, const char *p, const char *close)
{
	for (; p < s->end; p++) {
		if (split_at(s, p, close))
			return p;
		if (*p != '"' && *p != '\'' && *p != '[')
			continue;
		char quote = *p == '[' ? ']' : *p;
		const char *start = p++;
		for (; p < s->end && *p != quote; p++)
			if (*p == '\\' && p + 1 < s->end && p[1] == quote)
				p++;
		if (p >= s->end) {
			split_fail(s, start, quote == ']' ? "a `[` is not closed" : "a string is not closed");
			return NULL;
		}
	}
	split_fail(s, open, "a tag is not closed");
	return NULL;
}

/* At "{{!" (after ~): up to "}}", or to "--}}" of a comment that starts with two dashes, in which tags may
 * stand. */
static int split_comment(struct hsplit *s, const char *open, const char *p, bool is_trim_left)
{
	bool is_long = split_at(s, p, "!--");
	const char *close = p + 1, *after;
	if (is_long) {
		for (close = p + 3;; close += 2) {
			close = split_find(close, s->end, "--");
			if (close == s->end || split_at(s, close + 2, "}}") || split_at(s, close + 2, "~}}"))
				break;
			close--; /* three dashes */
		}
		after = close == s->end ? s->end : close + 2;
	} else {
		close = after = split_find(close, s->end, "}}");
		if (close < s->end && close[-1] == '~')
			after--;
	}
	if (close == s->end)
		return split_fail(s, open, "a comment is not closed");
	struct hpiece *piece = split_add(s, HP_COMMENT, open, STR_NULL);
	piece->is_trim_left = is_trim_left;
	piece->is_trim_right = *after == '~';
	s->p = after + (*after == '~') + 2;
	return 0;
}

static bool split_is_name_end(const struct hsplit *s, const char *p)
{
	return p >= s->end || split_is_blank(*p) || *p == '~' || *p == '}' || *p == '(';
}

/* What the first characters of a tag make it; *p is moved behind them. */
static enum hpiece_kind split_kind(const struct hsplit *s, const char **p)
{
	static const struct {
		const char *mark;
		enum hpiece_kind kind;
	} marks[] = {
		{"#>", HP_OPEN_PARTIAL}, {"#*", HP_OPEN_INLINE}, {"#", HP_OPEN},     {"/", HP_CLOSE},
		{"^", HP_OPEN_INVERSE},	 {">", HP_PARTIAL},	 {"&", HP_EMIT_RAW}, {"*", HP_DECORATOR},
	};
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		if (split_at(s, *p, marks[i].mark)) {
			*p += strlen(marks[i].mark);
			return marks[i].kind;
		}
	}
	const char *word = *p;
	while (word < s->end && split_is_blank(*word))
		word++;
	if (!split_at(s, word, "else") || !split_is_name_end(s, word + 4))
		return HP_EMIT;
	*p = word + 4;
	return HP_ELSE;
}

static int split_tag(struct hsplit *s)
{
	const char *open = s->p, *p = open + 2, *close;
	bool is_trim_left = p < s->end && *p == '~', is_triple;
	p += is_trim_left;
	if (p < s->end && *p == '!')
		return split_comment(s, open, p, is_trim_left);
	is_triple = p < s->end && *p == '{';
	p += is_triple;
	enum hpiece_kind kind = is_triple ? HP_EMIT_RAW : split_kind(s, &p);
	close = split_tag_end(s, open, p, "}}");
	if (close == NULL)
		return -1;
	str_t inside = str_mk(p, (size_t)(close - p));
	bool is_trim_right = inside.n > 0 && close[-1] == '~';
	const char *after = close + 2;
	if (is_triple) { /* }}} or }~}} */
		if (is_trim_right ? inside.n < 2 || close[-2] != '}' : !split_at(s, close, "}}}"))
			return split_fail(s, open, "a `{{{` is not closed by `}}}`");
		inside.n -= is_trim_right;
		after += !is_trim_right;
	}
	inside.n -= is_trim_right;
	if (kind == HP_OPEN_INVERSE && str_trim(inside).n == 0)
		kind = HP_ELSE; /* {{^}} */
	struct hpiece *piece = split_add(s, kind, open, inside);
	piece->is_trim_left = is_trim_left;
	piece->is_trim_right = is_trim_right;
	s->p = after;
	return 0;
}

/* At "{{{{": the whole raw block. What is in it is text, other raw blocks too. */
static int split_raw(struct hsplit *s)
{
	const char *open = s->p;
	if (split_at(s, open, "{{{{/"))
		return split_fail(s, open, "this closes no raw block");
	const char *close = split_tag_end(s, open, open + 4, "}}}}");
	if (close == NULL)
		return -1;
	split_add(s, HP_OPEN_RAW, open, str_mk(open + 4, (size_t)(close - open) - 4));
	const char *body = close + 4, *p = body;
	for (size_t depth = 1;; p += 4) {
		p = split_find(p, s->end, "{{{{");
		if (p == s->end)
			return split_fail(s, open, "a raw block is not closed");
		if (!split_at(s, p, "{{{{/")) {
			depth++;
			continue;
		}
		if (--depth > 0)
			continue;
		close = split_find(p, s->end, "}}}}");
		if (close == s->end)
			return split_fail(s, p, "a tag is not closed");
		split_add_text(s, body, p);
		split_add(s, HP_CLOSE_RAW, p, str_mk(p + 5, (size_t)(close - p) - 5));
		s->p = close + 4;
		return 0;
	}
}

/* Text up to the next tag. A backslash before {{ makes the tag text, up to the next one; two print one. */
static int split_text(struct hsplit *s)
{
	const char *start = s->p, *tag = split_find(start, s->end, "{{");
	size_t n_slashes = 0;
	s->p = tag;
	if (tag == s->end) {
		split_add_text(s, start, tag);
		return 0;
	}
	while (n_slashes < 2 && tag - n_slashes > start && tag[-1 - (ptrdiff_t)n_slashes] == '\\')
		n_slashes++;
	split_add_text(s, start, n_slashes > 0 ? tag - 1 : tag);
	if (n_slashes != 1)
		return split_at(s, tag, "{{{{") ? split_raw(s) : split_tag(s);
	const char *next = tag + 2 < s->end ? split_find(tag + 2, s->end, "{{") : s->end;
	for (int i = 0; i < 2 && next < s->end && next > tag + 2 && next[-1] == '\\'; i++)
		next--;
	split_add_text(s, tag, next);
	s->p = next;
	return 0;
}

/* --- blanks --- */

static str_t split_trim_start(str_t s)
{
	while (s.n > 0 && split_is_blank(*s.p))
		s = str_skip(s, 1);
	return s;
}

static str_t split_trim_end(str_t s)
{
	while (s.n > 0 && split_is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

static bool split_ends_line(str_t s, bool is_first)
{
	size_t n = split_trim_end(s).n;
	return memchr(s.p + n, '\n', s.n - n) != NULL || (is_first && n == 0);
}

static bool split_starts_line(str_t s, bool is_last)
{
	size_t n = s.n - split_trim_start(s).n;
	return memchr(s.p, '\n', n) != NULL || (is_last && n == s.n);
}

static str_t split_cut_line_start(str_t s) /* blanks up to the line's end, and that */
{
	size_t i = 0;
	while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t'))
		i++;
	if (i + 1 < s.n && s.p[i] == '\r' && s.p[i + 1] == '\n')
		i++;
	if (i < s.n && s.p[i] == '\n')
		i++;
	return str_skip(s, i);
}

static str_t split_cut_indent(str_t s)
{
	while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

static bool split_may_stand_alone(const struct hpiece *piece)
{
	return piece->kind != HP_TEXT && piece->kind != HP_EMIT && piece->kind != HP_EMIT_RAW &&
	       piece->kind != HP_DECORATOR;
}

struct hmarks { /* what is to come off a text */
	bool is_line_cut, is_start_trimmed, is_indent_cut, is_end_trimmed;
};

static void split_blanks(struct hpieces *out)
{
	struct hmarks *marks = xcalloc(out->n + 1, sizeof(*marks));
	for (size_t i = 0; i < out->n; i++) {
		struct hpiece *piece = &out->v[i], *before = i > 0 ? piece - 1 : NULL,
			      *after = i + 1 < out->n ? piece + 1 : NULL;
		if (piece->kind == HP_TEXT)
			continue;
		bool is_text_before = before != NULL && before->kind == HP_TEXT,
		     is_text_after = after != NULL && after->kind == HP_TEXT;
		if (is_text_before)
			marks[i - 1].is_end_trimmed |= piece->is_trim_left;
		if (is_text_after)
			marks[i + 1].is_start_trimmed |= piece->is_trim_right;
		if (!split_may_stand_alone(piece) ||
		    (before != NULL && (!is_text_before || !split_ends_line(before->s, i == 1))) ||
		    (after != NULL && (!is_text_after || !split_starts_line(after->s, i + 2 == out->n))))
			continue;
		if (is_text_before) {
			marks[i - 1].is_indent_cut = true;
			if (piece->kind == HP_PARTIAL)
				piece->indent = str_skip(before->s, split_cut_indent(before->s).n);
		}
		if (is_text_after)
			marks[i + 1].is_line_cut = true;
	}
	for (size_t i = 0; i < out->n; i++) {
		str_t s = out->v[i].s;
		if (out->v[i].kind != HP_TEXT)
			continue;
		s = marks[i].is_line_cut ? split_cut_line_start(s) : s;
		s = marks[i].is_start_trimmed ? split_trim_start(s) : s;
		s = marks[i].is_indent_cut ? split_cut_indent(s) : s;
		out->v[i].s = marks[i].is_end_trimmed ? split_trim_end(s) : s;
	}
	free(marks);
}

int handlebars_split(struct template *t, struct hpieces *out)
{
	struct hsplit s = {.t = t, .p = t->source.p, .end = t->source.p + t->source.n, .out = out};
	while (s.p < s.end)
		if (split_text(&s) != 0)
			return -1;
	split_blanks(out);
	return 0;
}
