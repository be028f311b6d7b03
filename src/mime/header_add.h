/* header_add.h - a header field of a name and a value that somebody else chose: nothing in them gets out of
 * the field. */
#pragma once

#include "base/buf.h"

/** Appends the field with its CRLF. The value as it is given, where folds (CRLF, a blank, text) may be in it;
 * or, is_encoded, as the text that it should mean (header_write_named). -1 ERR_INVALID with nothing appended:
 * not a name; a value with a CR, LF or NUL that would end the field; to be encoded, and not UTF-8. */
MUST_CHECK int header_add(struct buf *out, str_t name, str_t value, bool is_encoded);
