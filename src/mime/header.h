/* header.h - reading the header section of a message (RFC 5322 section 2.2): slices into the bytes, nothing
 * decoded. */
#pragma once

#include "base/buf.h"

struct header_iter {
	str_t rest;	   /* not read yet */
	bool is_malformed; /* a line of the section was no field: iteration stopped there */
};
struct header_field {
	str_t name;	 /* as written */
	str_t raw_value; /* after the colon, folds included, without the final CRLF */
	str_t whole;	 /* the field with its final line end */
};
/** bytes: a message, or its header section. */
void header_iter_init(struct header_iter *it, str_t bytes);
bool header_next(struct header_iter *it, struct header_field *out);
/** Whether it can be the name of a field: printable ASCII without blank and colon (RFC 5322 section 2.2), at
 * most 200 bytes. */
bool header_name_is_valid(str_t name);
/** Offset of the first byte of the body (after the empty line), or bytes.n when there is none. */
size_t header_section_end(str_t bytes);
/** The value without the line ends of its folds. */
void header_unfold(str_t raw_value, struct buf *out);
/** Unfolds (RFC 5322 section 2.2.3) and decodes RFC 2047 words where they decode, else leaves them. */
void header_decode(str_t raw_value, struct buf *out);
/** The same, and always UTF-8: bytes that are not are taken for Latin-1. */
void header_decode_lenient(str_t raw_value, struct buf *out);

/** Makes every line end CRLF: a bare LF and a bare CR become CRLF. Returns false (and leaves out alone) when
 * it is so already. */
bool text_normalise_crlf(str_t in, struct buf *out);
