/* header_lex.c - each function moves the cursor over one token and never back, so parsers made of them take
 * linear time. */
#include "mime/header_lex.h"

static bool is_fold(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool lex_comment(struct header_lex *l, struct buf *out)
{
	size_t depth = 1;
	for (l->at++; l->at < l->s.n; l->at++) {
		char c = l->s.p[l->at];
		if (c == '\\' && l->at + 1 < l->s.n)
			c = l->s.p[++l->at];
		else if (c == '(')
			depth++;
		else if (c == ')' && --depth == 0)
			break;
		if (out != NULL && c != '\r' && c != '\n')
			buf_add_c(out, c);
	}
	l->at += l->at < l->s.n;
	return depth == 0;
}

bool header_lex_skip(struct header_lex *l, struct buf *comment)
{
	while (l->at < l->s.n) {
		char c = l->s.p[l->at];
		if (c != '(' && !is_fold(c))
			return true;
		if (is_fold(c)) {
			l->at++;
			continue;
		}
		if (comment != NULL)
			buf_clear(comment);
		if (!lex_comment(l, comment))
			return false;
	}
	return true;
}

bool header_lex_quoted(struct header_lex *l, struct buf *out)
{
	for (l->at++; l->at < l->s.n; l->at++) {
		char c = l->s.p[l->at];
		if (c == '"') {
			l->at++;
			return true;
		}
		if (c == '\\' && l->at + 1 < l->s.n)
			c = l->s.p[++l->at];
		if (c != '\r' && c != '\n')
			buf_add_c(out, c);
	}
	return false;
}

str_t header_lex_run(struct header_lex *l, bool (*is)(unsigned char c))
{
	size_t start = l->at;
	while (l->at < l->s.n && is((unsigned char)l->s.p[l->at]))
		l->at++;
	return str_mk(l->s.p + start, l->at - start);
}

bool header_is_atext(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c >= 0x80 ||
	       (c != 0 && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

bool header_is_token(unsigned char c)
{
	return c > ' ' && c < 0x7f && strchr("()<>@,;:\\\"/[]?=", c) == NULL;
}

void header_add_quoted(struct buf *out, str_t s, bool (*is)(unsigned char c))
{
	size_t n = 0;
	while (n < s.n && is((unsigned char)s.p[n]))
		n++;
	if (n == s.n && n > 0) {
		buf_add_str(out, s);
		return;
	}
	buf_add_c(out, '"');
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			buf_add_c(out, '\\');
		buf_add_c(out, (c < 0x20 && c != '\t') || c == 0x7f ? '?' : (char)c);
	}
	buf_add_c(out, '"');
}

bool header_has_controls(str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return true;
	}
	return false;
}
