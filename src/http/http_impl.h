/* http_impl.h - what the files of the HTTP service share. The parser (h1_parse.c) and the admission of a
 * request (router.c) do no I/O; session.c begins and ends a connection, conn.c is the dialogue on one of
 * HTTP/1, h2_conn.c on one of HTTP/2. */
#pragma once

#include "base/map.h"
#include "fiber/fiber.h"
#include "http/coding.h"
#include "http/http.h"
#include "net/crowd.h"
#include "net/sock.h"

#include <pthread.h>
#include <stdatomic.h>

#define HTTP_MAX_TARGET_BYTES 8192u    /* longer: 414 */
#define HTTP_MAX_HEADER_BYTES 32768u   /* request line and header section; longer: 431 */
#define HTTP_MAX_HEADERS 100u	       /* more: 431, unless the listener says otherwise */
#define HTTP_MAX_CHUNK_EXT_BYTES 4096u /* of one body, size lines and trailers too; more: 400 */
#define HTTP_MIN_BYTES_PER_S 4096      /* what a body or an answer must make beyond its time-out */
#define HTTP_TOO_LARGE \
	"Failed to buffer the request body: length limit exceeded" /* of a 413; clients match on it */

/* --- h1_parse.c: RFC 9112 --- */

/* What the functions below return: more input is wanted, the thing is complete, or else (>= 400) the status
 * to refuse with. */
enum { H1_MORE = 0, H1_DONE = 1 };

/* Finds the end of a request's header in a growing buffer, and refuses what is ambiguous as soon as it is
 * seen. */
struct h1_scan {
	size_t pos;   /* looked at so far; once done: length of the header, its last CRLF included */
	size_t start; /* of the request line: a CRLF in front of it is skipped (section 2.2) */
	size_t line_start;
	unsigned n_lines;    /* complete ones; once done: 1 + number of header fields */
	unsigned max_fields; /* 0: HTTP_MAX_HEADERS */
};
/** `in` is the whole buffer, each time. On a status *why is a static text. */
int h1_scan_head(struct h1_scan *s, str_t in, const char **why);

/* How the body of a request comes, and what the connection-level header fields say. */
struct http_framing {
	bool has_length; /* content_length is as sent */
	bool is_chunked;
	bool is_keep_alive;	 /* the client wants to go on after this request */
	bool is_expecting;	 /* Expect: 100-continue */
	bool is_expect_unknown;	 /* Expect with something else */
	enum http_coding coding; /* of the body: Content-Encoding */
	uint64_t content_length;
};
/** Parses a scanned header (head starts at the request line and must live as long as r, it is pointed into).
 * Fills r's request line and header. H1_DONE, or a status with *why (static, or in the arena). */
int h1_parse_head(str_t head, unsigned n_lines, struct arena *arena, struct http_request *r,
		  struct http_framing *f, const char **why);

/* Decodes a chunked body (section 7.1). Zero-initialised is the start. */
struct h1_chunks {
	int state;
	unsigned n_digits;
	uint64_t left;	   /* of the chunk's size or data */
	size_t n_overhead; /* extension and trailer bytes so far */
	unsigned line_pos; /* in a trailer line */
	bool has_colon;
};
/** Takes what it can of `in` (*n_used), appends data to out, which never exceeds limit (then 413). */
int h1_chunks_decode(struct h1_chunks *d, str_t in, size_t *n_used, struct buf *out, uint64_t limit,
		     const char **why);

/* --- query.c --- */
/** No blanks, control bytes, bytes beyond ASCII or fragment: what a request target may be made of. */
bool http_target_is_visible(str_t target);
/** HOST or HOST:PORT as in a Host field or :authority: an IP literal in brackets or a name, which may be
 * empty. */
bool http_host_is_good(str_t host);
/** Splits r->target into path and query and decodes the path. H1_DONE or a status. */
int http_request_split_target(struct http_request *r, const char **why);

/* --- response.c --- */
/** The status line and header of an answer, for a body of a->body.n bytes. */
void http_response_write_head(const struct http_response *a, bool is_keeping, int version_minor,
			      struct buf *out);
/** Readies `a` for the next request; its body buffer is kept unless it has become big. */
void http_response_reset(struct http_response *a);
/** Sets the answer to a request that is refused with one of the statuses below; of 413 the exact text is
 * matched on by clients. */
void http_response_refuse(struct http_request *r, struct http_response *a, int status, const char *why);
/** The value of Date, valid until the next call. */
str_t http_date(void);

/* --- body.c: what is received, decoded, within its limits --- */
struct http_body {
	struct buf buf;
	enum http_coding coding;
	struct http_inflater *z; /* NULL: nothing to decode */
	uint64_t limit;		 /* of buf */
	uint64_t n_received;	 /* before decoding */
	uint64_t n_charged;	 /* taken from the memory of all bodies */
	char why[128];
};
/** Zero-initialised, or after http_body_reset. */
void http_body_begin(struct http_body *b, enum http_coding c, uint64_t limit);
/** Adds what has arrived. H1_MORE, or a status with *why, which lives as long as b: 413, 400 (no such
 * coding), 503 (the memory of all bodies is used up). */
int http_body_add(struct http_body *b, str_t in, const char **why);
/** Room for n more bytes that the caller will put into buf itself. H1_MORE or 503. */
int http_body_reserve(struct http_body *b, size_t n_bytes, const char **why);
/** The body is complete: H1_DONE or 400. */
int http_body_end(struct http_body *b, const char **why);
void http_body_reset(struct http_body *b); /* for the next one; a small buffer is kept */
void http_body_fini(struct http_body *b);
/** How large a content this listener takes. Not more than the memory of all bodies, whatever it was told: a
 * client must not be told to try again with what never fits. */
uint64_t http_body_limit(const struct http_listener *l);
/** How large a body may be on the wire for `limit` bytes of content. */
uint64_t http_body_wire_limit(enum http_coding c, uint64_t limit);
bool http_memory_has(uint64_t n_bytes); /* is left for bodies, at this moment */
MUST_CHECK bool http_memory_take(uint64_t n_bytes);
void http_memory_give(uint64_t n_bytes);

/* --- encode.c --- */
/** Compresses an answer that is worth it. May let other fibers run; after the deadline the answer goes as it
 * is. */
void http_response_encode(struct http_request *r, struct http_response *a, mono_t deadline);

/* --- router.c --- */
/** The route of a request whose body has not been read yet; NULL when it is refused, with the answer in a.
 * Yields when the authorizer does. */
const struct http_route *http_admit(struct http_request *r, const struct http_framing *f,
				    struct http_response *a);

/* --- observe.c --- */
/** Counts a request that has been answered with a in n_bytes_out, and tells the listener's on_done. May
 * yield. */
void http_request_done(const struct http_request *r, const struct http_response *a, uint64_t n_bytes_out);
/** Readies the counters of a route; before the first request. */
void http_observe_route(const struct http_route *route);

/* --- listener.c, session.c --- */
struct http_listener {
	struct http_listener_params p;
	struct listener *listener;
	struct crowd *crowd; /* of struct http_session.member */
	pthread_mutex_t lock;
	struct map hosts; /* under lock: struct http_host by its address, of the peers that are counted */
};
static inline bool http_listener_is_stopping(const struct http_listener *l)
{
	return crowd_is_stopping(l->crowd);
}
listener_fn http_session_main;

/* A connection of either protocol. */
struct http_session {
	struct stream *st;
	struct http_listener *l;
	struct crowd_member member;
	struct fiber *fiber;
	bool is_idle; /* waits for a request or for the end of input: may be cancelled */
	void (*stop)(struct http_session *s); /* instead of that; does not yield. NULL: none */
	void *conn;			      /* HTTP/2's */
};
/** Of a connection on which n bytes are moved: d, and the time they take at the slowest rate that is put up
 * with. */
static inline mono_t http_deadline(mono_t begun, dur_t d, size_t n_bytes)
{
	return mono_add(mono_add(begun, d), dur_s((int64_t)(n_bytes / HTTP_MIN_BYTES_PER_S)));
}

/* --- conn.c: HTTP/1; h2_conn.c: HTTP/2. Both return when the connection is to be closed --- */
void h1_conn_main(struct http_session *s);
void h2_conn_main(struct http_session *s);
