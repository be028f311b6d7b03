/* http.h - the HTTP service: listeners, requests, responses, routes. It knows nothing of mail. A connection
 * of HTTP/1 is a fiber that reads a request, routes it, runs the handler and writes the answer (RFC 9110, RFC
 * 9112); ambiguous framing is 400 and the connection closes. Of HTTP/2 each stream is a fiber that does so
 * (RFC 9113). Handlers cannot tell the two apart. */
#pragma once

#include "base/arena.h"
#include "base/clock.h"
#include "net/addr.h"

struct http_route;
struct stream;
struct websocket;
struct http_header {
	str_t name, value; /* as sent, value trimmed */
};

struct http_request {
	str_t method;
	str_t target;	   /* as sent */
	str_t path;	   /* percent-decoded, without query */
	str_t query;	   /* as sent, without the '?' */
	int version_minor; /* of HTTP/1 */
	bool is_http2;	   /* otherwise HTTP/1: of interest to logs only */
	struct http_header *header;
	size_t n_headers;
	str_t body; /* whole, after decoding */
	const struct net_addr *peer, *local;
	const struct http_listener *listener;
	const struct stream *stream; /* for what its transport knows of the peer (stream_tls_info) */
	struct arena *arena;	     /* lives as long as the request */
	const struct http_route
		*route;	     /* what it asks for, also when that is refused; NULL: nothing that is there */
	uint64_t n_bytes_in; /* of its header and body, as they came over the wire so far */
	mono_t begun;	     /* when the header was complete; 0: it never was */
	void *auth; /* what the authorizer found out about the peer, in the arena; NULL without one */
	int (*flush)(struct http_request *r); /* http_request_flush; NULL: nothing is ever held back */
};
/** First header of that name (case-insensitive), or p == NULL. */
str_t http_request_header(const struct http_request *r, str_t name);
/** Decoded value of a query parameter, in the request's arena; p == NULL when absent. */
str_t http_request_query(const struct http_request *r, str_t name);
bool http_request_peer_is_trusted(const struct http_request *r);
/** Sends the answers to earlier requests that are held back, which an authorizer
 * does before it waits for anything. Yields, within the connection's write
 * time-out. What fails will be noticed with the next answer. */
void http_request_flush(struct http_request *r);
const char *http_request_hostname(const struct http_request *r);  /* the listener's */
dur_t http_request_idempotency_ttl(const struct http_request *r); /* the listener's */

struct http_response {
	int status;		  /* 200 unless changed */
	const char *content_type; /* static or arena; NULL: none */
	struct buf body;
	struct http_header *header; /* further ones */
	size_t n_headers;
	bool is_closing; /* close the connection after this answer */
};
/** Adds a header; name and value must live as long as the request (literals, arena). CR, LF or NUL in it
 * panics. */
void http_response_add_header(struct http_request *r, struct http_response *a, str_t name, str_t value);
/** Sets status and a text/plain body. */
void http_response_text(struct http_response *a, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
/** As above with `Error: ` in front of the error in the slot, which it takes. */
void http_response_err(struct http_response *a, int status);

/** Answers the request. Runs in the connection's fiber, may yield until the deadline. */
typedef void http_handler_fn(struct http_request *r, struct http_response *a, void *arg, mono_t deadline);

/** The dialogue on a websocket (websocket.h), from its beginning: the request was for one, and its peer may.
 * When it returns the websocket is closed. An error that it leaves in the slot goes to the diagnostic log, at
 * level debug. */
typedef void http_websocket_fn(struct http_request *r, struct websocket *ws, void *arg);

/* A route is declared once, next to its handler, with what the API reference says of it (reference.h). */
struct http_field;
struct http_schema;
struct http_answer;
struct http_route {
	const char *method; /* "GET" (serves HEAD too), "POST", "DELETE" */
	const char *path;   /* exact */
	http_handler_fn *handler;
	http_websocket_fn *websocket; /* instead of a handler; of a GET */
	void *arg;
	const char *consumes;	 /* required content type of the request body ("application/json"), else 415;
				    NULL: any, or none */
	const char *summary;	 /* a line for the API reference */
	const char *text;	 /* further sentences for it; may be NULL */
	const char *id;		 /* its name in the API reference: "check_liveness_v1" */
	const char *const *tags; /* groups that it is listed in, ended by NULL */
	const struct http_field *query; /* parameters of the query, ended by one without a name; NULL: none */
	const struct http_field
		*headers; /* the same of the header, those that are this route's own; NULL: none */
	const struct http_schema *body; /* of the JSON in the request; NULL: no body, or not JSON */
	const struct http_answer
		*answers; /* of the handler, ended by status 0; the service's own are added */
	/* Asked once the header is in and before a body is read: NULL, or why the service cannot take it now
	 * (503 with Retry-After: 1). Does not yield. */
	const char *(*gate)(void);
	bool is_public;	   /* served to any peer; otherwise to trusted ones only (401) */
	bool is_immediate; /* the handler never yields: its answer may be held back for a moment, to be
			    * written together with those of the requests pipelined behind it */
};
/** Adds routes to the process-wide table; before the first listener starts. The array must stay. */
void http_routes_add(const struct http_route *route, size_t n);
const struct http_route *http_route_at(size_t i); /* NULL past the end */

/* --- what became of a request --- */
struct http_done {
	const struct http_request *request; /* one that could not be parsed has an empty method */
	int status;
	uint64_t n_bytes_out; /* header and body of the answer */
	dur_t took; /* from the end of the request's header to the answer's having been written or held back
		     */
};
/** Told of each request once it is answered, in its connection's fiber. May yield, for a moment. */
typedef void http_done_fn(const struct http_done *d, void *arg);

/** Decides whether a request for a path that is served may go on, from its header alone: 0, or -1 with the
 * answer in a. May yield until the deadline. Without one (the default) trusted hosts may, and others get what
 * is_public; then nobody can log in. */
typedef int http_authorize_fn(struct http_request *r, struct http_response *a, mono_t deadline);
void http_set_authorizer(http_authorize_fn *fn); /* before the first listener starts */

/* --- listeners --- */

/** What a connection begins with before its first request, a TLS handshake for instance. Runs in the
 * connection's fiber. 0, and *protocol when it was agreed upon (ALPN); -1 with the error set closes the
 * connection. */
enum http_protocol {
	HTTP_PROTOCOL_UNKNOWN /* the first bytes will tell */,
	HTTP_PROTOCOL_1,
	HTTP_PROTOCOL_2
};
typedef int http_setup_fn(struct stream *st, enum http_protocol *protocol, void *arg, mono_t deadline);

struct http_listener_params {
	struct net_addr listen;
	/* Instead of an address, a path in the file system or the name of a descriptor that systemd has
	 * handed down (sock.h). Their peers, if they have no address of their own, count as 127.0.0.1. */
	const char *unix_path;
	unsigned unix_mode;
	const char *fd_name;
	char *hostname; /* NULL: the machine's */
	struct cidr_set trusted_hosts;
	uint64_t request_body_limit;
	/* Zero: the default. A body and an answer get the stated time plus what they take at 4 KB/s. */
	dur_t header_timeout;  /* from the first byte of a request to the end of its header; 30 s */
	dur_t body_timeout;    /* 60 s */
	dur_t idle_timeout;    /* between requests; 75 s */
	dur_t write_timeout;   /* 60 s */
	dur_t handler_timeout; /* the deadline that a handler gets; 5 min */
	/* Zero: the default */
	unsigned max_connections;	   /* further ones wait in the kernel's queue; 15000 */
	unsigned max_connections_per_host; /* of an IPv4 address or IPv6 /64 that is not trusted; further ones
					      are closed; 1000 */
	unsigned max_concurrent_streams;   /* of a connection of HTTP/2; 100 */
	unsigned max_request_headers;	   /* fields; 100 */
	dur_t idempotency_ttl; /* how long handlers that take an Idempotency-Key keep it; zero: they refuse
				  keys */
	struct cidr_set proxy_protocol; /* peers that must begin with a PROXY header (net/proxy.h), and are
					   then who it says */
	http_setup_fn *setup;		/* may be NULL; gets header_timeout */
	void *setup_arg;
	http_done_fn *on_done; /* may be NULL */
	void *on_done_arg;
};
struct http_listener;
/** Binds; accepts from http_listener_start on. Copies p. -1/NULL ERR_IO naming the address. */
MUST_CHECK struct http_listener *http_listener_open(const struct http_listener_params *p);
/** 127.0.0.1:0 of one that has none. */
const struct net_addr *http_listener_addr(const struct http_listener *l);
const char *http_listener_name(const struct http_listener *l); /* "127.0.0.1:8000", "unix:/run/cirrus.sock" */
void http_listener_start(struct http_listener *l);
/** Stops accepting and closes idle connections; requests in flight go on and are answered with Connection:
 * close. From a fiber, of the worker that calls http_listener_close later. Again: no effect. */
void http_listener_stop(struct http_listener *l);
/** Does http_listener_stop, waits for the requests in flight, after the deadline cancels the rest, and frees
 * l. Yields. */
void http_listener_close(struct http_listener *l, mono_t deadline);

/** How much memory the bodies of requests may take that are being received or handled, of all listeners
 * together (256 MB); beyond it requests are answered 503. Any thread. */
void http_set_body_memory(uint64_t max_bytes);
uint64_t http_body_memory(void); /* taken at this moment */
