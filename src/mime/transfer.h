/* transfer.h - content transfer encodings (RFC 2045 section 6). */
#pragma once

#include "base/buf.h"

enum transfer_encoding {
	TRANSFER_7BIT,
	TRANSFER_8BIT,
	TRANSFER_BINARY,
	TRANSFER_QP,
	TRANSFER_BASE64,
};
const char *transfer_name(enum transfer_encoding e); /* "quoted-printable" */
/** False: no encoding of that name. */
bool transfer_parse(str_t name, enum transfer_encoding *out);

/** What a part's bytes need. */
struct transfer_scan {
	bool is_ascii; /* no byte over 127 */
	bool has_nul;
	bool is_canonical;   /* every line end is CRLF */
	bool has_dash_line;  /* some line begins with "--": it could be a boundary */
	size_t longest_line; /* without the line end; CR, LF and CRLF end one */
};
struct transfer_scan transfer_scan(str_t bytes);
#define TRANSFER_LINE_MAX 998 /* bytes of a line that SMTP carries, without the line end */
/** For text: 7bit when its lines may stand as they are (ASCII, no NUL, at most longest bytes each), else the
 * shorter of quoted-printable and base64. */
enum transfer_encoding transfer_for_text(str_t text, const struct transfer_scan *scan, size_t longest);

/** Text: line ends become CRLF, and none is added. For TRANSFER_7BIT and TRANSFER_8BIT that is all. Neither
 * quoted-printable nor base64 makes a line that begins with "--". */
void transfer_encode_text(enum transfer_encoding e, str_t text, struct buf *out);
/** Any bytes in lines of 76, no line end after the last. */
void transfer_encode_base64(str_t bytes, struct buf *out);

/** Decodes what can be decoded: no byte is refused, bytes that are none of the encoding are left out (base64)
 * or kept (quoted-printable). */
void transfer_decode(enum transfer_encoding e, str_t raw, struct buf *out);
