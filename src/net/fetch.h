/* fetch.h - an HTTP and HTTPS client for the server's own needs (Vault, later policies), by libcurl on the
 * worker's loop: HTTP/1.1, connections kept for a while, names resolved as the system does (getaddrinfo; not
 * through dns.h), no proxy, whatever the environment says. */
#pragma once

#include "base/clock.h"
#include "base/secret.h"

#define FETCH_DEFAULT_BODY_BYTES (1 << 20)

struct fetch_header {
	const char *name;
	const char *value;	     /* of a request: NULL when secret is set */
	const struct secret *secret; /* a value that must not be seen; wiped behind the request */
};

struct fetch_request {
	const char *method; /* NULL: GET */
	const char *url;    /* http or https; errors and logs show it without user, query and fragment */
	const struct fetch_header *header;
	size_t n_headers;
	str_t body;	       /* p NULL: none */
	size_t max_body_bytes; /* of the answer; 0: FETCH_DEFAULT_BODY_BYTES */
	/* Followed within the scheme of url, within its host and port too when a header is secret; any other
	 * redirect is the answer. */
	unsigned max_redirects;
	const struct secret *ca; /* PEM; NULL: the authorities of the system */
	bool is_unverified;	 /* https with anybody */
	dur_t connect_timeout;	 /* 0: 10 s, never longer than the deadline */
};

struct fetch_response {
	int status; /* any: an answer is a value */
	struct buf body;
	struct fetch_header *header; /* of the last answer; values without blanks around them */
	size_t n_headers;
	char *location; /* absolute, when the answer is a redirect that was not followed; or NULL */
};

/** Yields. 0 with the answer in out, for fetch_response_fini. -1 (nothing to release): ERR_INVALID (the
 * request), ERR_DNS, ERR_CONNECT, ERR_CLOSED, ERR_PROTO (also TLS), ERR_LIMIT (larger than allowed),
 * ERR_TIMEOUT, ERR_CANCELLED; the text names method and address. From a fiber. */
MUST_CHECK int fetch_perform(const struct fetch_request *rq, struct fetch_response *out, mono_t deadline);
/** Wipes. */
void fetch_response_fini(struct fetch_response *rs);
/** The first value, or NULL; the name in any case. */
const char *fetch_response_header(const struct fetch_response *rs, const char *name);
/** Appends url without user, query and fragment. -1 ERR_INVALID: it is no http or https URL. */
MUST_CHECK int fetch_url_show(const char *url, struct buf *out);
