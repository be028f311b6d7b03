/* coding.h - content codings: gzip (RFC 1952), deflate (zlib's format, RFC 1950, and because of common
 * practice RFC 1951 alone) and zstd (RFC 8878), decoded as a body arrives and applied to whole answers.
 * Nothing here does I/O. */
#pragma once

#include "base/buf.h"
#include "base/clock.h"

enum http_coding {
	HTTP_CODING_IDENTITY,
	HTTP_CODING_GZIP,
	HTTP_CODING_DEFLATE,
	HTTP_CODING_ZSTD,
	HTTP_CODING_OTHER, /* an unknown one, or several */
};
#define HTTP_CODINGS_TEXT "gzip, deflate, zstd"

str_t http_coding_name(enum http_coding c);
/** What Content-Encoding says, a field value after the other; begin with HTTP_CODING_IDENTITY. */
enum http_coding http_coding_add(enum http_coding before, str_t value);

/* --- Accept-Encoding --- */
struct http_codings {
	bool is_given;
	int weight[HTTP_CODING_OTHER]; /* 1 + thousandths; 0: not named */
	int any;		       /* of "*", likewise */
};
/** Adds a field value. Malformed members are passed over. */
void http_codings_add(struct http_codings *a, str_t value);
/** The coding the client likes best, of equals the one that is cheapest for both; identity when there is
 * none. *is_identity_refused: it has said that an answer as it is will not do. */
enum http_coding http_codings_choose(const struct http_codings *a, bool *is_identity_refused);

/* --- decoding --- */

struct http_inflater;
/** Of the calling worker's, or a new one. */
struct http_inflater *http_inflater_get(enum http_coding c);
void http_inflater_put(struct http_inflater *z);	   /* NULL is fine */
size_t http_inflater_bytes(const struct http_inflater *z); /* memory that it holds */
/** Decodes into the room that out has (out->cap, at least one byte); *n_used says how much of `in` was taken.
 * Call again with the rest, and with more room, until everything is taken and out has room left. -1
 * ERR_INVALID: the data is no such coding; the text names it. */
MUST_CHECK int http_inflate(struct http_inflater *z, str_t in, size_t *n_used, struct buf *out);
/** True when the data may end here. */
bool http_inflater_is_complete(const struct http_inflater *z);

/* --- encoding --- */

/** Appends the coded form of `in`. Long input is worked on in pieces with other fibers getting a turn between
 * them. -1 ERR_TIMEOUT, ERR_CANCELLED; out holds anything then. Yields. */
MUST_CHECK int http_deflate(enum http_coding c, str_t in, struct buf *out, mono_t deadline);
