/* header_value.h - which fields have which structure, and writing a field that somebody gives as text. */
#pragma once

#include "mime/header_write.h"

enum header_kind {
	HEADER_TEXT,		/* unstructured, and all that are not known */
	HEADER_ADDRESSES,	/* To, Cc, Bcc, Reply-To, Resent-To ... */
	HEADER_MAILBOXES,	/* From, Resent-From */
	HEADER_MAILBOX,		/* Sender, Resent-Sender */
	HEADER_MESSAGE_ID,	/* Message-ID, Content-ID */
	HEADER_MESSAGE_ID_LIST, /* References */
	HEADER_MIME_PARAMS,	/* Content-Type, Content-Disposition, Content-Transfer-Encoding */
	HEADER_AUTH_RESULTS,
};
enum header_kind header_kind_of(str_t name);

/** A whole field from the text that it should mean, UTF-8 without controls but tabs. The structure of
 * addresses is kept while names in it are encoded; what is ASCII is only folded. */
void header_write_named(struct buf *out, str_t name, str_t text);
/** A whole field from one as it was read: decoded and written anew, so that 8-bit text, lines that are too
 * long and broken encodings become what they should be. What cannot be parsed is kept as text. */
void header_write_again(struct buf *out, str_t name, str_t raw_value);
