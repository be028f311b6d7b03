/* idna.h - internationalised domain names in headers and envelopes (RFC 5891). */
#pragma once

#include "mime/envelope.h"

/** Appends the domain in ASCII: U-labels become A-labels (xn--...), the rest stays as written. -1
 * ERR_INVALID. */
MUST_CHECK int idna_to_ascii(str_t domain, struct buf *out);
/** Appends mb's address in the form that needs the least of its readers: with an ASCII local part the domain
 * becomes ASCII, so that no SMTPUTF8 is needed; with another one all stays as written (RFC 6531). -1
 * ERR_INVALID: the domain is none. */
MUST_CHECK int mailbox_ascii(const struct mailbox *mb, struct buf *out);
