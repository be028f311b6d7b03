/* header_write.h - writing header fields: folded at 76 columns where there is a blank to fold at and never
 * beyond 998, other text than ASCII as RFC 2047 words (RFC 2231 in parameters). Values are UTF-8 without
 * controls; the caller has checked them: a CR, LF or NUL that comes here all the same is encoded or becomes
 * `?`, it never ends a line. */
#pragma once

#include "base/buf.h"

struct header_writer {
	struct buf *out;
	size_t line; /* offset in out at which the last line begins */
};

/** Writes `name:`; the writes below each begin with the
 * blank (or fold) that parts them from what is before. */
void header_write_begin(struct header_writer *w, struct buf *out, str_t name);
void header_write_end(struct header_writer *w);
/** One run that is not broken: a token, `<id@x>`. ASCII without blanks. */
void header_write_token(struct header_writer *w, str_t token);
/** What follows begins a line. */
void header_write_fold(struct header_writer *w);
/** prefix"text", folded where text has blanks; a part of it without blanks stays whole. */
void header_write_quoted(struct header_writer *w, str_t prefix, str_t text);
/** Unstructured text (RFC 5322 section 3.2.5), blanks kept as they are but at the ends. What looks like an
 * encoded word stays one. */
void header_write_text(struct header_writer *w, str_t text);
/** The same for text that was a header before: also encoded words in the midst of other text stay. */
void header_write_raw(struct header_writer *w, str_t text);
/** A display name: quoted when ASCII, else encoded words. It is text: what looks like an encoded word is
 * encoded. */
void header_write_phrase(struct header_writer *w, str_t name);
/** `"name" <email>`; name may be empty. email as mailbox_ascii made it. */
void header_write_mailbox(struct header_writer *w, str_t name, str_t email);
/** `; name="value"`, in RFC 2231's form and parts when it is long or not ASCII. */
void header_write_param(struct header_writer *w, str_t name, str_t value);
/** The same with RFC 2047 words between the quotes: no standard, but what readers of `name` in Content-Type
 * know. */
void header_write_param_words(struct header_writer *w, str_t name, str_t value);

/** A whole field of unstructured text. */
void header_write_field(struct buf *out, str_t name, str_t text);
