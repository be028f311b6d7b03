/* mime_conform.h - what is wrong with a message, and setting it right. */
#pragma once

#include "mime/mime_part.h"

enum mime_issue {
	MIME_MISSING_COLON_VALUE = 1 << 0,	  /* a field is a name and nothing else */
	MIME_NON_CANONICAL_LINE_ENDINGS = 1 << 1, /* a line end that is not CRLF */
	MIME_NAME_ENDS_WITH_SPACE = 1 << 2,	  /* "Subject : x" */
	MIME_LINE_TOO_LONG = 1 << 3,		  /* over 78 bytes in a body, over 998 anywhere */
	MIME_NEEDS_TRANSFER_ENCODING = 1 << 4,	  /* bytes over 127, or NUL */
	MIME_MISSING_DATE_HEADER = 1 << 5,
	MIME_MISSING_MESSAGE_ID_HEADER = 1 << 6,
	MIME_MISSING_MIME_VERSION = 1 << 7, /* or another one than 1.0 */
};
#define MIME_ISSUES_MISSING_HEADERS \
	(MIME_MISSING_DATE_HEADER | MIME_MISSING_MESSAGE_ID_HEADER | MIME_MISSING_MIME_VERSION)

/** "A|B"; "" is none. -1 ERR_INVALID that names the word and the words there are. */
MUST_CHECK int mime_issues_parse(str_t text, unsigned *out);
void mime_issues_write(unsigned issues, struct buf *out); /* in alphabetical order, as "A|B" */
/** root as it was parsed, nothing changed since. */
unsigned mime_part_issues(const struct mime_part *root);

/** How text whose charset is not said, or said wrongly, is read. In any case what is UTF-8 is that; what
 * nothing fits is Latin-1. */
struct mime_charsets {
	const str_t *try_first; /* charsets, in order; a text is of the first that it converts from without an
				   error */
	size_t n;
};
/** A new part with the same meaning and none of the issues of lines, names and encodings: fields are decoded
 * and written anew, bodies that are not 7-bit text of short lines get another transfer encoding; others, and
 * signed parts that SMTP can carry, stay as they are. Preambles that are clean are kept, what follows the
 * last boundary is not, nor lines of a header section that are no fields. A multipart without parts becomes
 * plain text when it has to be encoded. What cannot be set right: addresses that are not ASCII, and types
 * that may have no encoding (message/partial, message/external-body, messages in messages deeper than 80
 * levels in all). */
struct mime_part *mime_part_rebuild(const struct mime_part *p, const struct mime_charsets *charsets);

struct mime_fix {
	unsigned check, fix;
	str_t message_id; /* for a message without one; without angle brackets */
	struct mime_charsets charsets;
};
/** Looks at the message; *found gets its issues. 0: nothing was to be done, or one of f->check was found; 1:
 * out got the message with the issues of f->fix set right. */
int mime_conform(str_t message, const struct mime_fix *f, unsigned *found, struct buf *out);
