/* header_write.c - a field grows piece by piece; before each piece its width decides between a blank and a
 * fold (CRLF and a blank). The first piece of a field stays on the line of the name, however long it is,
 * unless it can be cut.
 *
 * Encoded words: text is cut into tokens (blanks, then what is none). Tokens that need encoding and stand
 * next to each other become one run, encoded with Q, or with B when most of it is not ASCII, and cut between
 * characters so that no word passes 75 and no line 76 columns (RFC 2047 section 2). Blanks between a run and
 * an encoded word that the caller wrote would be dropped by readers, so the run takes them in. The Q form
 * uses the alphabet that phrases allow (section 5 (3)) everywhere. A token of ASCII is encoded too when it is
 * too long for any line. */
#include "mime/header_write.h"

#include "base/text.h"

#define FOLD_COLUMNS 76 /* 78 may be, but not on lines with encoded words (RFC 2047 section 2) */
#define WORD_MAX 75
#define LINE_MAX_COLUMNS 998
#define TOKEN_MAX 900 /* longer ones are encoded */
#define WORD_START "=?UTF-8?q?"
#define WORD_FRAME (sizeof WORD_START - 1 + 2)

static size_t header_column(const struct header_writer *w)
{
	return w->out->n - w->line;
}

void header_write_begin(struct header_writer *w, struct buf *out, str_t name)
{
	*w = (struct header_writer){.out = out, .line = out->n};
	buf_add_str(out, name);
	buf_add_c(out, ':');
}

void header_write_end(struct header_writer *w)
{
	buf_add(w->out, "\r\n", 2);
	w->line = w->out->n;
}

static void header_fold(struct header_writer *w, str_t blanks)
{
	buf_add(w->out, "\r\n", 2);
	w->line = w->out->n;
	buf_add_str(w->out, blanks);
}

/* True before the first piece of a field: "name:" and nothing else. */
static bool header_is_at_name(const struct header_writer *w)
{
	return header_column(w) > 0 && w->out->p[w->out->n - 1] == ':' &&
	       memchr(w->out->p + w->line, ' ', header_column(w)) == NULL;
}

static void header_put(struct header_writer *w, str_t blanks, str_t piece)
{
	size_t end = header_column(w) + blanks.n + piece.n;
	bool is_due = end > FOLD_COLUMNS && header_column(w) > 0; /* never a line of blanks only */
	if (is_due && (!header_is_at_name(w) || end > LINE_MAX_COLUMNS))
		header_fold(w, blanks);
	else
		buf_add_str(w->out, blanks);
	buf_add_str(w->out, piece);
}

void header_write_fold(struct header_writer *w)
{
	if (header_column(w) > 0)
		header_fold(w, STR(""));
}

void header_write_token(struct header_writer *w, str_t token)
{
	header_put(w, STR(" "), token);
}

/* ---- encoded words ---- */

static bool byte_is_q_safe(unsigned char c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '!' || c == '*' ||
	       c == '+' || c == '-' || c == '/';
}

static size_t q_width(str_t s)
{
	size_t n = 0;
	for (size_t i = 0; i < s.n; i++)
		n += byte_is_q_safe((unsigned char)s.p[i]) || s.p[i] == ' ' ? 1 : 3;
	return n;
}

static void q_encode(struct buf *out, str_t s)
{
	static const char hex[] = "0123456789ABCDEF";
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (byte_is_q_safe(c)) {
			buf_add_c(out, (char)c);
		} else if (c == ' ') {
			buf_add_c(out, '_');
		} else {
			char esc[3] = {'=', hex[c >> 4], hex[c & 15]};
			buf_add(out, esc, 3);
		}
	}
}

static size_t char_length(str_t s)
{
	size_t n_bad, n = str_utf8_step(s, &n_bad);
	return n > 0 ? n : 1;
}

/* The longest start of text, in whole characters, whose encoding fits into `room` columns; one character at
 * least. */
static str_t word_cut(str_t text, bool is_q, size_t room)
{
	size_t n = 0, width = 0;
	while (n < text.n) {
		size_t n_char = char_length(str_skip(text, n));
		width += is_q ? q_width(str_mk(text.p + n, n_char)) : 0;
		if (n > 0 && (is_q ? width : (n + n_char + 2) / 3 * 4) > room)
			break;
		n += n_char;
	}
	return str_head(text, n);
}

/* text as words, the first after `blanks`, the others each on a line of its own. `tail` columns stay free
 * behind the last. */
static void header_put_words(struct header_writer *w, str_t blanks, str_t text, size_t tail)
{
	/* a person may have to read it: Q while it is bearable */
	bool is_q = q_width(text) <= text.n * 2 + 8;
	size_t one = is_q ? 12 : 8; /* what any one character needs */
	while (text.n > 0) {
		if (header_column(w) + blanks.n + WORD_FRAME + one + tail > FOLD_COLUMNS)
			header_fold(w, blanks.n > 0 ? blanks : STR(" "));
		else
			buf_add_str(w->out, blanks);
		size_t col = header_column(w),
		       room = col + tail < FOLD_COLUMNS ? FOLD_COLUMNS - col - tail : 0;
		room = room < WORD_MAX ? room : WORD_MAX;
		str_t part = word_cut(text, is_q, room > WORD_FRAME ? room - WORD_FRAME : 0);
		buf_add_z(w->out, is_q ? WORD_START : "=?UTF-8?b?");
		if (is_q)
			q_encode(w->out, part);
		else
			base64_encode(w->out, part);
		buf_add(w->out, "?=", 2);
		text = str_skip(text, part.n);
		blanks = STR(" ");
		if (text.n > 0)
			header_fold(w, STR(""));
	}
}

/* ---- text ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool text_is_printable(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\t') || (unsigned char)s.p[i] >= 0x7f)
			return false;
	return true;
}

/* Length of the encoded word that s starts with; 0: none. */
static size_t word_length(str_t s)
{
	s = str_head(s, WORD_MAX + 10); /* some senders' are a little too long */
	ptrdiff_t q1 = str_starts(s, STR("=?")) ? str_chr(s, '?', 2) : -1;
	if (q1 <= 2 || (size_t)q1 + 3 >= s.n || s.p[q1 + 2] != '?' || strchr("qQbB", s.p[q1 + 1]) == NULL)
		return 0;
	ptrdiff_t q2 = str_chr(s, '?', (size_t)q1 + 3);
	return q2 >= 0 && (size_t)q2 + 1 < s.n && s.p[q2 + 1] == '=' ? (size_t)q2 + 2 : 0;
}

static bool token_is_word(str_t s)
{
	return s.n > 0 && word_length(s) == s.n;
}

static bool text_has_word(str_t s)
{
	for (ptrdiff_t i = 0; (i = str_chr(s, '=', (size_t)i)) >= 0; i++)
		if (word_length(str_skip(s, (size_t)i)) > 0)
			return true;
	return false;
}

/* Other text than ASCII, and what no line can hold. */
static bool token_needs_words(str_t s)
{
	return s.n > TOKEN_MAX || !text_is_printable(s);
}

/* Also what readers would take for an encoded word although it only has one in it. */
static bool token_needs_words_exactly(str_t s)
{
	return token_needs_words(s) || (!token_is_word(s) && text_has_word(s));
}

struct text_token {
	str_t blanks, word; /* next to each other; word is empty at the end of the text */
};

static struct text_token token_next(str_t *rest)
{
	size_t n = 0, m;
	while (n < rest->n && is_blank(rest->p[n]))
		n++;
	for (m = n; m < rest->n && !is_blank(rest->p[m]); m++)
		;
	struct text_token t = {str_mk(rest->p, n), str_mk(rest->p + n, m - n)};
	*rest = str_skip(*rest, m);
	return t;
}

static void header_put_text(struct header_writer *w, str_t text, bool (*needs_words)(str_t token))
{
	str_t rest = str_trim(text);
	bool is_short = rest.n > 0 && rest.n + header_column(w) < FOLD_COLUMNS;
	if (is_short && text_is_printable(rest) && str_find(rest, STR("=?")) < 0) { /* most of them */
		header_put(w, STR(" "), rest);
		return;
	}
	bool is_first = true, was_word = false;
	for (struct text_token t = token_next(&rest); t.word.n > 0; t = token_next(&rest)) {
		str_t blanks = is_first ? STR(" ") : t.blanks;
		is_first = false;
		if (!needs_words(t.word)) {
			header_put(w, blanks.n < FOLD_COLUMNS ? blanks : STR(" "), t.word);
			was_word = token_is_word(t.word);
			continue;
		}
		str_t run = was_word ? str_mk(t.blanks.p, t.blanks.n + t.word.n) : t.word, ahead = rest;
		struct text_token next = token_next(&ahead);
		while (next.word.n > 0 && needs_words(next.word)) {
			run.n += next.blanks.n + next.word.n;
			rest = ahead;
			next = token_next(&ahead);
		}
		if (token_is_word(next.word))
			run.n += next.blanks.n;
		header_put_words(w, was_word || blanks.n >= FOLD_COLUMNS ? STR(" ") : blanks, run, 0);
		was_word = true;
	}
}

void header_write_text(struct header_writer *w, str_t text)
{
	header_put_text(w, text, token_needs_words_exactly);
}

void header_write_raw(struct header_writer *w, str_t text)
{
	header_put_text(w, text, token_needs_words);
}

void header_write_field(struct buf *out, str_t name, str_t text)
{
	struct header_writer w;
	header_write_begin(&w, out, name);
	header_write_text(&w, text);
	header_write_end(&w);
}

/* ---- addresses ---- */

static void quoted_add(struct buf *out, str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		if (c == '"' || c == '\\')
			buf_add_c(out, '\\');
		buf_add_c(out, (c < 0x20 && c != '\t') || c == 0x7f ? '?' : (char)c);
	}
}

void header_write_quoted(struct header_writer *w, str_t prefix, str_t text)
{
	struct buf quoted = BUF_INIT;
	buf_add_str(&quoted, prefix);
	buf_add_c(&quoted, '"');
	quoted_add(&quoted, text);
	buf_add_c(&quoted, '"');
	if (quoted.n < FOLD_COLUMNS) {
		header_put(w, STR(" "), buf_str(&quoted));
	} else { /* folds between the quotes: blanks there are kept by readers */
		bool is_first = true;
		str_t rest = buf_str(&quoted);
		for (struct text_token t = token_next(&rest); t.blanks.n + t.word.n > 0;
		     t = token_next(&rest)) {
			header_put(w, is_first ? STR(" ") : t.blanks, t.word);
			is_first = false;
		}
	}
	buf_fini(&quoted);
}

void header_write_phrase(struct header_writer *w, str_t name)
{
	bool is_long = false;
	str_t rest = name;
	for (struct text_token t = token_next(&rest); t.blanks.n + t.word.n > 0; t = token_next(&rest))
		is_long = is_long || t.blanks.n + t.word.n > TOKEN_MAX / 2;
	if (is_long || !text_is_printable(name) || text_has_word(name)) {
		header_put_words(w, STR(" "), name, 0);
		return;
	}
	header_write_quoted(w, STR(""), name);
}

void header_write_mailbox(struct header_writer *w, str_t name, str_t email)
{
	struct buf route = BUF_INIT;
	if (name.n > 0)
		header_write_phrase(w, name);
	buf_add_c(&route, '<');
	buf_add_str(&route, email);
	buf_add_c(&route, '>');
	header_write_token(w, buf_str(&route));
	buf_fini(&route);
}

/* ---- parameters ---- */

static bool byte_is_attr(unsigned char c) /* attribute-char of RFC 2231 section 7 */
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
	       (c != 0 && strchr("!#$&+-.^_`|~", c) != NULL);
}

static void attr_add(struct buf *out, str_t s)
{
	static const char hex[] = "0123456789ABCDEF";
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		char esc[3] = {'%', hex[c >> 4], hex[c & 15]};
		if (byte_is_attr(c))
			buf_add_c(out, (char)c);
		else
			buf_add(out, esc, 3);
	}
}

static void param_encode(struct buf *out, str_t part, bool is_extended)
{
	if (is_extended) {
		attr_add(out, part);
		return;
	}
	buf_add_c(out, '"');
	quoted_add(out, part);
	buf_add_c(out, '"');
}

void header_write_param(struct header_writer *w, str_t name, str_t value)
{
	bool is_extended = !text_is_printable(value) || text_has_word(value);
	struct buf piece = BUF_INIT;
	buf_add_c(w->out, ';');
	buf_add_str(&piece, name);
	buf_add_z(&piece, is_extended ? "*=UTF-8''" : "=");
	param_encode(&piece, value, is_extended);
	if (piece.n < FOLD_COLUMNS) {
		header_put(w, STR(" "), buf_str(&piece));
		buf_fini(&piece);
		return;
	}
	size_t room = name.n + 30 < FOLD_COLUMNS ? FOLD_COLUMNS - 18 - name.n : 12;
	for (unsigned k = 0; value.n > 0; k++) {
		size_t n = 0, width = 0;
		while (n < value.n) {
			size_t n_char = char_length(str_skip(value, n));
			for (size_t i = n; i < n + n_char; i++) {
				char c = value.p[i];
				width += is_extended		 ? (byte_is_attr((unsigned char)c) ? 1 : 3)
					 : c == '"' || c == '\\' ? 2
								 : 1;
			}
			if (n > 0 && width > room)
				break;
			n += n_char;
		}
		buf_clear(&piece);
		buf_add_str(&piece, name);
		buf_printf(&piece, "*%u%s", k, is_extended ? k == 0 ? "*=UTF-8''" : "*=" : "=");
		param_encode(&piece, str_head(value, n), is_extended);
		value = str_skip(value, n);
		if (k > 0)
			buf_add_c(w->out, ';');
		header_put(w, STR(" "), buf_str(&piece));
	}
	buf_fini(&piece);
}

void header_write_param_words(struct header_writer *w, str_t name, str_t value)
{
	buf_add_c(w->out, ';');
	if (value.n < FOLD_COLUMNS / 2 && text_is_printable(value) && !text_has_word(value)) {
		struct buf piece = BUF_INIT;
		buf_add_str(&piece, name);
		buf_add_c(&piece, '=');
		param_encode(&piece, value, false);
		header_put(w, STR(" "), buf_str(&piece));
		buf_fini(&piece);
		return;
	}
	header_fold(w, STR(" "));
	buf_add_str(w->out, name);
	buf_add_z(w->out, "=\"");
	header_put_words(w, STR(""), value, 2);
	buf_add_c(w->out, '"');
}
