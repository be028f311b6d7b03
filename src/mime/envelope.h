/* envelope.h - SMTP mailboxes (RFC 5321 section 4.1.2, RFC 6531). */
#pragma once

#include "base/buf.h"

/** Checks and takes apart a mailbox: `local@domain`, with or without angle brackets. "" and "<>" are the null
 * sender, `Postmaster` alone is a mailbox without a domain; source routes are dropped. Quoted local parts,
 * address literals and UTF-8 (SMTPUTF8) are accepted. The slices point into text. -1 ERR_INVALID names what
 * is wrong and where; CR, LF, NUL and other controls never pass. */
struct mailbox {
	str_t local;  /* as written, quotes included; empty for the null sender */
	str_t domain; /* as written; empty for the null sender and Postmaster */
	str_t email;  /* the whole, without brackets and route */
	bool is_utf8; /* has non-ASCII bytes: needs SMTPUTF8 */
};
MUST_CHECK int mailbox_parse(str_t text, struct mailbox *out);
