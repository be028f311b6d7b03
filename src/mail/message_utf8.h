/* message_utf8.h - whether a message is an internationalized one (RFC 6532): its header has UTF-8 beyond
 * ASCII, which only SMTPUTF8 carries (RFC 6531). */
#pragma once

#include "mail/message.h"

enum message_utf8 {
	MESSAGE_UTF8_NONE,    /* ASCII, or 8-bit that is no UTF-8: then no extension would help */
	MESSAGE_UTF8_TEXT,    /* in text: subjects, names. 8BITMIME servers take it, too */
	MESSAGE_UTF8_ADDRESS, /* in an address, that has no other form */
};
/** Looks at the header of the whole: the prefix and the body, which must be in memory. */
enum message_utf8 message_header_utf8(const struct message *m);
