/* reply.h - an SMTP answer as the client reads it (RFC 5321 section 4.2), and as records show it. */
#pragma once

#include "net/stream.h"
#include "record/record.h"

struct smtp_reply {
	int code;	 /* 200 - 599 */
	struct buf text; /* the texts of its lines, joined by LF; an enhanced status code that each line
			  * repeats (RFC 2034 section 4) is in the first only */
};
void smtp_reply_fini(struct smtp_reply *r);
/** Reads one, of one or many lines; replaces what r holds. Yields. -1 ERR_TIMEOUT, ERR_CANCELLED, ERR_CLOSED,
 * ERR_IO; ERR_PROTO: not an answer, codes that differ between its lines, or more than 64 KB. */
MUST_CHECK int smtp_reply_read(struct stream *st, struct smtp_reply *r, mono_t deadline);
/** One line, without its end, of an answer. 1: it was the last; 0: more follow; -1 ERR_PROTO. */
MUST_CHECK int smtp_reply_add_line(struct smtp_reply *r, str_t line, bool is_first);
/** As a record shows it; slices of text and command. An enhanced status code at its beginning is split off
 * (RFC 2034). */
struct smtp_response smtp_response_split(int code, str_t text, str_t command);
struct smtp_response smtp_reply_response(const struct smtp_reply *r, str_t command);
