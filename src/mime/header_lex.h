/* header_lex.h - the tokens of structured fields (RFC 5322 section 3.2): what the parsers of addresses, ids,
 * parameters and results share. Values may be folded. Comments nest, but nothing here recurses. */
#pragma once

#include "base/buf.h"

struct header_lex {
	str_t s;
	size_t at;
};

/** The byte at hand, or -1 at the end. */
static inline int header_lex_peek(const struct header_lex *l)
{
	return l->at < l->s.n ? (unsigned char)l->s.p[l->at] : -1;
}
static inline bool header_lex_eat(struct header_lex *l, char c)
{
	bool is_there = l->at < l->s.n && l->s.p[l->at] == c;
	l->at += is_there;
	return is_there;
}
/** Skips blanks, folds and comments; the text of the last comment, without the outer brackets, goes to
 * comment (NULL: nobody wants it). False: a comment has no end; all is skipped then. */
bool header_lex_skip(struct header_lex *l, struct buf *comment);
/** At a quote: appends what is quoted, without escapes and folds. False: the closing quote is missing; all is
 * taken then. */
bool header_lex_quoted(struct header_lex *l, struct buf *out);
/** As many bytes as `is` takes, maybe none. */
str_t header_lex_run(struct header_lex *l, bool (*is)(unsigned char c));

bool header_is_atext(unsigned char c); /* RFC 5322 section 3.2.3 with UTF-8 (RFC 6532) */
bool header_is_token(unsigned char c); /* RFC 2045 section 5.1 */
/** Appends s as it is when `is` takes each byte of it, else quoted. Controls become `?`. */
void header_add_quoted(struct buf *out, str_t s, bool (*is)(unsigned char c));
/** A control that may not stand in a header: all but the tab. CR and LF count, so unfold before. */
bool header_has_controls(str_t s);
