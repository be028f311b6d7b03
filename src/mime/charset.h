/* charset.h - text of other charsets as UTF-8. */
#pragma once

#include "base/buf.h"

/** Appends `in` as UTF-8. False, with nothing appended, when the charset is unknown, its name is no name, or
 * the bytes are none of its text. Names are those of iconv and the aliases that mail uses (ms949, x-sjis
 * ...), in any case. */
bool charset_to_utf8(str_t charset, str_t in, struct buf *out);
/** For text that must come out somehow: well-formed UTF-8 as it is, other bytes by charset when they are text
 * of it, else as Latin-1, which loses none. charset may be empty. Returns false when the text is not what the
 * charset says. */
bool charset_to_utf8_lenient(str_t charset, str_t in, struct buf *out);
bool charset_is_name(str_t s);
bool charset_is_known(str_t s); /* can be converted */
