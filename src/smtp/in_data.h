/* in_data.h - the receiver of a message: what a client sends after DATA or in the chunks of BDAT, without
 * I/O. */
#pragma once

#include "base/buf.h"

enum in_line_endings { IN_ENDINGS_DENY, IN_ENDINGS_ALLOW, IN_ENDINGS_FIX };

enum in_data_state { IN_DATA_LINE, IN_DATA_DOT, IN_DATA_DOT_CR, IN_DATA_TEXT, IN_DATA_CR };

struct in_data {
	struct buf body;       /* so far; empty and released as soon as the message has a defect */
	size_t max_bytes;      /* of the body */
	size_t max_line_bytes; /* without line end */
	enum in_line_endings endings;

	enum in_data_state state;
	size_t n_line;	     /* of the line in hand, as stored */
	uint64_t n_received; /* of the body, stored or not */
	/* Defects; what was received stays unknown then. */
	bool has_bad_ending; /* a CR or LF that is not part of a CRLF, where that is denied */
	bool has_long_line;
	bool is_too_big;
	bool is_out_of_memory; /* set by whoever gives the memory: in_data_drop */
};
/** Zero-initialised or after in_data_fini. */
void in_data_begin(struct in_data *d, size_t max_bytes, size_t max_line_bytes, enum in_line_endings endings);
void in_data_fini(struct in_data *d);
bool in_data_is_good(const struct in_data *d);
/** The rest will not be stored. */
void in_data_drop(struct in_data *d);

/** After DATA: takes what belongs to the message, dots of transparency removed (RFC 5321 section 4.5.2);
 * returns how many bytes that were. *is_done: the CRLF.CRLF was the last of them, whose first CRLF is the
 * body's. */
size_t in_data_feed(struct in_data *d, str_t in, bool *is_done);
/** In a chunk of BDAT, all of it: no dots, no end. The last chunk is followed by in_data_end. */
void in_data_feed_chunk(struct in_data *d, str_t in);
/** The body is complete: a CR at its very end belongs to no CRLF. For BDAT. */
void in_data_end(struct in_data *d);
