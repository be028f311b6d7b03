/* template_lex.c - source to tokens, one at a time, as the parser asks. Outside a tag the next token is the
 * text up to the next
 * {{ or {% (comments and raw blocks are dealt with here, so the parser sees only text); inside a tag it is a
 * word of the expression language. }} and %} end a tag only while no bracket is open, so that a dict literal
 * may end in }}.
 *
 * Blanks: `-` next to a delimiter strips the blanks of the text on its side, `+` does nothing (there is no
 * trim_blocks here to be switched off). One newline at the end of the source is dropped. Tokens point into
 * the template's copy of the source; a string literal that has escapes is unescaped into the template's
 * arena. */
#include "template/template_impl.h"

#include "base/text.h"

#include <stdlib.h>

static bool lex_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}
static bool lex_is_digit(char c)
{
	return c >= '0' && c <= '9';
}
static bool lex_is_word_start(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool lex_is_word(char c)
{
	return lex_is_word_start(c) || lex_is_digit(c);
}

static uint32_t lex_at_byte(const struct tlex *lex)
{
	return (uint32_t)(lex->p - lex->t->source.p);
}

static int lex_fail(const struct tlex *lex, const char *text)
{
	return template_error(lex->t, ERR_INVALID, lex_at_byte(lex), "%s", text);
}

static bool lex_at(const struct tlex *lex, const char *p, const char *word)
{
	size_t n = strlen(word);
	return (size_t)(lex->end - p) >= n && memcmp(p, word, n) == 0;
}

static str_t lex_trim_end(str_t s)
{
	while (s.n > 0 && lex_is_blank(s.p[s.n - 1]))
		s.n--;
	return s;
}

static str_t lex_trim_start(str_t s)
{
	while (s.n > 0 && lex_is_blank(*s.p))
		s = str_skip(s, 1);
	return s;
}

/* At "{%": past it, a sign, `word`, a sign and "%}". False when that is not what is there. */
static bool lex_match_tag(const struct tlex *lex, const char *p, const char *word, bool *is_trim_left,
			  bool *is_trim_right, const char **after)
{
	const char *end = lex->end;
	p += 2;
	*is_trim_left = p < end && *p == '-';
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	while (p < end && lex_is_blank(*p))
		p++;
	if (!lex_at(lex, p, word))
		return false;
	p += strlen(word);
	if (p < end && lex_is_word(*p))
		return false;
	while (p < end && lex_is_blank(*p))
		p++;
	*is_trim_right = p < end && *p == '-';
	if (p < end && (*p == '-' || *p == '+'))
		p++;
	if (!lex_at(lex, p, "%}"))
		return false;
	*after = p + 2;
	return true;
}

static bool lex_text_token(struct tlex *lex, str_t s)
{
	if (s.n == 0)
		return false;
	lex->tok.kind = TK_TEXT;
	lex->tok.s = s;
	return true;
}

/* At "{#". 0, or -1 when it does not end. */
static int lex_comment(struct tlex *lex)
{
	str_t rest = str_mk(lex->p + 2, (size_t)(lex->end - lex->p) - 2);
	ptrdiff_t at = str_find(rest, STR("#}"));
	if (at < 0)
		return lex_fail(lex, "syntax error: unexpected end of comment");
	const char *close = rest.p + at;
	lex->is_trimming = at > 0 && close[-1] == '-';
	lex->p = close + 2;
	return 0;
}

/* At the "{%" of a raw tag whose end is `body`. 1 with a text token, 0 without, -1. */
static int lex_raw(struct tlex *lex, const char *body, bool is_trim)
{
	for (const char *p = body; p + 1 < lex->end; p++) {
		bool is_trim_left, is_trim_right;
		const char *after;
		if (*p != '{' || p[1] != '%' ||
		    !lex_match_tag(lex, p, "endraw", &is_trim_left, &is_trim_right, &after))
			continue;
		str_t s = str_mk(body, (size_t)(p - body));
		if (is_trim)
			s = lex_trim_start(s);
		if (is_trim_left)
			s = lex_trim_end(s);
		bool has_text = lex_text_token(lex, s);
		lex->p = after;
		lex->is_trimming = is_trim_right;
		return has_text;
	}
	return lex_fail(lex, "syntax error: unexpected end of raw block");
}

/* Text mode: 1 with a token, 0 to go on (nothing but a comment was there), -1. */
static int lex_text(struct tlex *lex)
{
	const char *p = lex->p;
	if (p == lex->end) {
		lex->tok.kind = TK_EOF;
		return 1;
	}
	for (; p < lex->end; p++) {
		p = memchr(p, '{', (size_t)(lex->end - p));
		if (p == NULL || p + 1 >= lex->end)
			p = lex->end;
		if (p == lex->end || p[1] == '{' || p[1] == '%' || p[1] == '#')
			break;
	}
	if (p > lex->p) {
		str_t s = str_mk(lex->p, (size_t)(p - lex->p));
		if (lex->is_trimming)
			s = lex_trim_start(s);
		if (p + 2 < lex->end && p[2] == '-')
			s = lex_trim_end(s);
		lex->is_trimming = false;
		lex->p = p;
		return lex_text_token(lex, s);
	}
	lex->is_trimming = false;
	if (p[1] == '#')
		return lex_comment(lex);
	bool is_trim_left, is_trim_right;
	const char *body;
	if (p[1] == '%' && lex_match_tag(lex, p, "raw", &is_trim_left, &is_trim_right, &body))
		return lex_raw(lex, body, is_trim_right);
	lex->tok.kind = p[1] == '%' ? TK_BLOCK_BEGIN : TK_VAR_BEGIN;
	lex->mode = (int)lex->tok.kind;
	lex->balance = 0;
	lex->p += 2;
	if (lex->p < lex->end && (*lex->p == '-' || *lex->p == '+'))
		lex->p++;
	return 1;
}

/* --- literals --- */

static int lex_hex(const char *p, const char *end, int n, uint32_t *out)
{
	uint32_t v = 0;
	if (end - p < n)
		return -1;
	for (int i = 0; i < n; i++) {
		int digit = hex_digit(p[i]);
		if (digit < 0)
			return -1;
		v = v * 16 + (uint32_t)digit;
	}
	*out = v;
	return 0;
}

/* The escape at p (after the backslash), written to *to.
 * The position after it, or NULL when it is malformed. */
static const char *lex_escape(const char *p, const char *end, char **to)
{
	static const char from[] = "nrtbf\\\"'/", into[] = "\n\r\t\b\f\\\"'/";
	uint32_t c, low;
	const char *simple = *p != 0 ? strchr(from, *p) : NULL;
	if (simple != NULL) {
		*(*to)++ = into[simple - from];
		return p + 1;
	}
	if (*p == 'x') {
		if (lex_hex(p + 1, end, 2, &c) != 0)
			return NULL;
		*to += utf8_encode(c, *to);
		return p + 3;
	}
	if (*p == 'u') {
		if (lex_hex(p + 1, end, 4, &c) != 0)
			return NULL;
		p += 5;
		if (c >= 0xd800 && c < 0xe000) {
			if (c >= 0xdc00 || end - p < 6 || p[0] != '\\' || p[1] != 'u' ||
			    lex_hex(p + 2, end, 4, &low) != 0 || low < 0xdc00 || low >= 0xe000)
				return NULL;
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			p += 6;
		}
		*to += utf8_encode(c, *to);
		return p;
	}
	if (*p >= '0' && *p <= '7') {
		c = 0;
		for (int i = 0; i < 3 && p < end && *p >= '0' && *p <= '7'; i++)
			c = c * 8 + (uint32_t)(*p++ - '0');
		if (c > 255)
			return NULL;
		*to += utf8_encode(c, *to);
		return p;
	}
	*(*to)++ = '\\';
	*(*to)++ = *p;
	return p + 1;
}

static int lex_string(struct tlex *lex)
{
	char quote = *lex->p;
	const char *body = lex->p + 1, *p = body;
	bool has_escape = false;
	while (p < lex->end && *p != quote) {
		if (*p == '\\') {
			has_escape = true;
			p++;
		}
		p++;
	}
	if (p >= lex->end)
		return lex_fail(lex, "syntax error: unexpected end of string");
	lex->tok.kind = TK_STR;
	lex->tok.s = str_mk(body, (size_t)(p - body));
	if (has_escape) {
		/* No escape is shorter than what it stands for. */
		char *text = arena_alloc(&lex->t->arena, lex->tok.s.n), *o = text;
		for (const char *q = body; q < p;) {
			if (*q != '\\') {
				*o++ = *q++;
				continue;
			}
			q = lex_escape(q + 1, p, &o);
			if (q == NULL)
				return lex_fail(lex, "bad string escape");
		}
		lex->tok.s = str_mk(text, (size_t)(o - text));
	}
	lex->p = p + 1;
	return 0;
}

static int lex_integer(struct tlex *lex, const char *p, const char *end, unsigned base)
{
	unsigned __int128 v = 0;
	const unsigned __int128 max = ((unsigned __int128)1 << 127) - 1;
	bool has_digit = false;
	for (; p < end; p++) {
		if (*p == '_')
			continue;
		unsigned d = lex_is_digit(*p) ? (unsigned)(*p - '0') : (unsigned)((*p | 32) - 'a') + 10;
		if (d >= base || v > (max - d) / base)
			return lex_fail(lex, "syntax error: invalid integer (too large)");
		v = v * base + d;
		has_digit = true;
	}
	if (!has_digit)
		return lex_fail(lex, "syntax error: invalid integer (too large)");
	lex->tok.kind = TK_INT;
	lex->tok.val = tval_int((int64_t)v);
	if (v > INT64_MAX) {
		__int128 *big = arena_alloc(&lex->t->arena, sizeof(*big));
		*big = (__int128)v;
		lex->tok.val = (struct tval){.kind = TV_BIG, .u.big = big};
	}
	lex->p = end;
	return 0;
}

static int lex_float(struct tlex *lex, const char *p, const char *end)
{
	char text[512];
	size_t n = 0;
	double v;
	for (; p < end && n < sizeof(text); p++)
		if (*p != '_')
			text[n++] = *p;
	if (n > 0 && n < sizeof(text) && text[n - 1] == '.')
		text[n++] = '0';
	for (size_t i = 0; i + 1 < n && n + 1 < sizeof(text); i++) {
		if (text[i] == '.' && !lex_is_digit(text[i + 1])) { /* 1.e3 */
			memmove(text + i + 2, text + i + 1, n - i - 1);
			text[i + 1] = '0';
			n++;
			break;
		}
	}
	if (n == sizeof(text) || !str_to_double(str_mk(text, n), &v)) {
		/* What overflows is infinite; what has no exponent digits is wrong. */
		if (n == sizeof(text) || !lex_is_digit(text[n - 1]))
			return lex_fail(lex, "syntax error: invalid float");
		text[n] = 0;
		v = strtod(text, NULL);
	}
	lex->tok.kind = TK_FLOAT;
	lex->tok.val = tval_float(v);
	lex->p = end;
	return 0;
}

static const char *lex_digits(const char *p, const char *end)
{
	while (p < end && (lex_is_digit(*p) || *p == '_'))
		p++;
	return p;
}

static int lex_number(struct tlex *lex)
{
	const char *start = lex->p, *p = start, *end = lex->end;
	if (*p == '0' && p + 1 < end && !lex->is_after_dot) {
		char c = (char)(p[1] | 32);
		unsigned base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
		if (base != 0) {
			for (p += 2; p < end && (lex_is_digit(*p) || *p == '_' ||
						 (base == 16 && (*p | 32) >= 'a' && (*p | 32) <= 'f'));
			     p++)
				;
			return lex_integer(lex, start + 2, p, base);
		}
	}
	bool is_float = false;
	p = lex_digits(p, end);
	if (lex->is_after_dot)
		return lex_integer(lex, start, p, 10);
	bool is_exp_next = p + 1 < end && *p == '.' && (p[1] | 32) == 'e' && p + 2 < end &&
			   (lex_is_digit(p[2]) || p[2] == '+' || p[2] == '-');
	if (p < end && *p == '.' &&
	    (p + 1 == end || is_exp_next || (!lex_is_word_start(p[1]) && p[1] != '.'))) {
		is_float = true;
		p = lex_digits(p + 1, end);
	}
	if (p < end && (*p | 32) == 'e') {
		is_float = true;
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = lex_digits(p, end);
	}
	return is_float ? lex_float(lex, start, p) : lex_integer(lex, start, p, 10);
}

/* --- tags --- */

static const struct {
	char text[3];
	uint8_t kind;
} lex_operators[] = {
	/* the longer ones first */
	{"//", TK_IDIV},    {"**", TK_POW},   {"==", TK_EQ},	{"!=", TK_NE},	  {">=", TK_GE},
	{"<=", TK_LE},	    {"+", TK_PLUS},   {"-", TK_MINUS},	{"*", TK_STAR},	  {"/", TK_SLASH},
	{"%", TK_PERCENT},  {".", TK_DOT},    {",", TK_COMMA},	{":", TK_COLON},  {"~", TK_TILDE},
	{"=", TK_ASSIGN},   {"|", TK_PIPE},   {">", TK_GT},	{"<", TK_LT},	  {"[", TK_LBRACKET},
	{"]", TK_RBRACKET}, {"(", TK_LPAREN}, {")", TK_RPAREN}, {"{", TK_LBRACE}, {"}", TK_RBRACE},
};

/* The closing delimiter of the tag: true when it was there. */
static bool lex_tag_end(struct tlex *lex)
{
	const char *p = lex->p, *close = lex->mode == TK_VAR_BEGIN ? "}}" : "%}";
	bool has_sign = p < lex->end && (*p == '-' || *p == '+');
	if (lex->balance != 0 || !lex_at(lex, p + has_sign, close))
		return false;
	lex->is_trimming = *p == '-';
	lex->p = p + has_sign + 2;
	lex->tok.kind = lex->mode == TK_VAR_BEGIN ? TK_VAR_END : TK_BLOCK_END;
	lex->mode = TK_EOF;
	return true;
}

static int lex_tag(struct tlex *lex)
{
	while (lex->p < lex->end && lex_is_blank(*lex->p))
		lex->p++;
	lex->tok.at = lex_at_byte(lex);
	if (lex->p == lex->end) {
		lex->tok.kind = TK_EOF;
		return 0;
	}
	if (lex_tag_end(lex))
		return 0;
	char c = *lex->p;
	if (lex_is_word_start(c)) {
		const char *p = lex->p;
		while (p < lex->end && lex_is_word(*p))
			p++;
		lex->tok.kind = TK_IDENT;
		lex->tok.s = str_mk(lex->p, (size_t)(p - lex->p));
		lex->p = p;
		return 0;
	}
	if (lex_is_digit(c))
		return lex_number(lex);
	if (c == '"' || c == '\'')
		return lex_string(lex);
	for (size_t i = 0; i < ARRAY_SIZE(lex_operators); i++) {
		if (!lex_at(lex, lex->p, lex_operators[i].text))
			continue;
		lex->p += strlen(lex_operators[i].text);
		lex->tok.kind = lex_operators[i].kind;
		if (c == '(' || c == '[' || c == '{')
			lex->balance++;
		else if (c == ')' || c == ']' || c == '}')
			lex->balance--;
		return 0;
	}
	return lex_fail(lex, "syntax error: unexpected character");
}

int template_lex_next(struct tlex *lex)
{
	bool is_after_dot = lex->mode != TK_EOF && lex->tok.kind == TK_DOT;
	lex->is_after_dot = is_after_dot;
	if (lex->mode != TK_EOF)
		return lex_tag(lex);
	for (;;) {
		lex->tok.at = lex_at_byte(lex);
		int rc = lex_text(lex);
		if (rc != 0)
			return rc < 0 ? -1 : 0;
	}
}

const char *template_token_name(const struct ttok *tok)
{
	static const char *const names[] = {
		[TK_EOF] = "end of input",
		[TK_TEXT] = "template-data",
		[TK_VAR_BEGIN] = "start of variable block",
		[TK_VAR_END] = "end of variable block",
		[TK_BLOCK_BEGIN] = "start of block",
		[TK_BLOCK_END] = "end of block",
		[TK_IDENT] = "identifier",
		[TK_STR] = "string",
		[TK_INT] = "integer",
		[TK_FLOAT] = "float",
		[TK_PLUS] = "`+`",
		[TK_MINUS] = "`-`",
		[TK_STAR] = "`*`",
		[TK_SLASH] = "`/`",
		[TK_IDIV] = "`//`",
		[TK_POW] = "`**`",
		[TK_PERCENT] = "`%`",
		[TK_DOT] = "`.`",
		[TK_COMMA] = "`,`",
		[TK_COLON] = "`:`",
		[TK_TILDE] = "`~`",
		[TK_ASSIGN] = "`=`",
		[TK_PIPE] = "`|`",
		[TK_EQ] = "`==`",
		[TK_NE] = "`!=`",
		[TK_GT] = "`>`",
		[TK_GE] = "`>=`",
		[TK_LT] = "`<`",
		[TK_LE] = "`<=`",
		[TK_LBRACKET] = "`[`",
		[TK_RBRACKET] = "`]`",
		[TK_LPAREN] = "`(`",
		[TK_RPAREN] = "`)`",
		[TK_LBRACE] = "`{`",
		[TK_RBRACE] = "`}`",
	};
	return names[tok->kind];
}
