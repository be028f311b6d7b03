/* http_impl.h - what the files of the HTTP service share. The parser (h1_parse.c) and the admission of a request (router.c) do
 * no I/O; conn.c is the dialogue of one HTTP/1 connection. */
#pragma once

#include "fiber/fiber.h"
#include "http/http.h"
#include "net/sock.h"

#include <stdatomic.h>

#define HTTP_MAX_TARGET_BYTES 8192u   /* longer: 414 */
#define HTTP_MAX_HEADER_BYTES 32768u  /* request line and header section; longer: 431 */
#define HTTP_MAX_HEADERS 100u         /* more: 431 */
#define HTTP_MAX_CHUNK_EXT_BYTES 4096u /* of one body, size lines and trailers too; more: 400 */
#define HTTP_MIN_BYTES_PER_S 4096     /* what a body or an answer must make beyond its time-out */

/* --- h1_parse.c: RFC 9112 --- */

/* What the functions below return: more input is wanted, the thing is complete, or else (>= 400) the status to refuse with. */
enum { H1_MORE = 0, H1_DONE = 1 };

/* Finds the end of a request's header in a growing buffer, and refuses what is ambiguous as soon as it is seen. */
struct h1_scan {
	size_t pos;        /* looked at so far; once done: length of the header, its last CRLF included */
	size_t start;      /* of the request line: a CRLF in front of it is skipped (section 2.2) */
	size_t line_start;
	unsigned n_lines;  /* complete ones; once done: 1 + number of header fields */
};
/** `in` is the whole buffer, each time. On a status *why is a static text. */
int h1_scan_head(struct h1_scan *s, str_t in, const char **why);

/* How the body of a request comes, and what the connection-level header fields say. */
struct http_framing {
	bool has_length;           /* content_length is as sent */
	bool is_chunked;
	bool is_keep_alive;        /* the client wants to go on after this request */
	bool is_expecting;         /* Expect: 100-continue */
	bool is_expect_unknown;    /* Expect with something else */
	uint64_t content_length;
};
/** Parses a scanned header (head starts at the request line and must live as long as r, it is pointed into). Fills r's request
 * line and header. H1_DONE, or a status with *why (static, or in the arena). */
int h1_parse_head(str_t head, unsigned n_lines, struct arena *arena, struct http_request *r, struct http_framing *f,
                  const char **why);

/* Decodes a chunked body (section 7.1). Zero-initialised is the start. */
struct h1_chunks {
	int state;
	unsigned n_digits;
	uint64_t left;      /* of the chunk's size or data */
	size_t n_overhead;  /* extension and trailer bytes so far */
	unsigned line_pos;  /* in a trailer line */
	bool has_colon;
};
/** Takes what it can of `in` (*n_used), appends data to out, which never exceeds limit (then 413). */
int h1_chunks_decode(struct h1_chunks *d, str_t in, size_t *n_used, struct buf *out, uint64_t limit, const char **why);

/* --- query.c --- */
/** Splits r->target into path and query and decodes the path. H1_DONE or a status. */
int http_request_split_target(struct http_request *r, const char **why);

/* --- response.c --- */
/** The status line and header of an answer, for a body of a->body.n bytes. */
void http_response_write_head(const struct http_response *a, bool is_keeping, int version_minor, struct buf *out);
/** Readies `a` for the next request; its body buffer is kept unless it has become big. */
void http_response_reset(struct http_response *a);

/* --- router.c --- */
/** The route of a request whose body has not been read yet; NULL when it is refused, with the answer in a. Yields when the
 * authorizer does. */
const struct http_route *http_admit(struct http_request *r, const struct http_framing *f, struct http_response *a);

/* --- observe.c --- */
/** Counts a request that has been answered with a in n_bytes_out, and tells the listener's on_done. May yield. */
void http_request_done(const struct http_request *r, const struct http_response *a, uint64_t n_bytes_out);
/** Readies the counters of a route; before the first request. */
void http_observe_route(const struct http_route *route);

/* --- listener.c, conn.c --- */
struct http_listener {
	struct http_listener_params p;
	struct listener *listener;
	atomic_bool is_stopping;
	atomic_uint n_sweeping;    /* workers that have not looked at their idle connections yet */
	struct event *swept;       /* fired by the last of them; NULL before http_listener_stop */
	struct list *conns;        /* struct http_conn.link, a list per worker, each touched by its worker only */
};
static inline bool http_listener_is_stopping(const struct http_listener *l)
{
	return atomic_load_explicit(&l->is_stopping, memory_order_acquire);
}
listener_fn http_conn_main;
/** Of the calling worker: cancels the connections that wait for a request. Does not yield. */
void http_conns_cancel_idle(struct list *conns);
