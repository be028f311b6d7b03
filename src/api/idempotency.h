/* idempotency.h - the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a request may be
 *sent again under its key, and is done once. A handler that takes keys begins with idempotency_begin, has the
 *key stored in one piece with what it changes (spool_put_with_key), and ends with idempotency_end:
 *
 *	if (!idempotency_begin(&k, r, a, deadline))
 *		return;                                 // answered: with the stored answer, or why not
 *	... the work, and the whole answer ...
 *	if (idempotency_set_answer(&k, content type, body) == 0)
 *		... spool_put_with_key(..., idempotency_key(&k), deadline) ...
 *	idempotency_end(&k);
 *
 * Only an answer of 200 may be stored, and only with what it promises: what is not made durable (a deferred
 *spool) has no place under a key, and is to be refused. */
#pragma once

#include "base/list.h"
#include "http/http.h"
#include "http/reference.h"
#include "spool/spool.h"

#define IDEMPOTENCY_KEY_MAX 255
#define IDEMPOTENCY_TTL_MAX dur_s(30 * 86400) /* of http_listener_params.idempotency_ttl */

/* A request under a key, while it is worked on. Without a key everything below does nothing. */
struct idempotency {
	bool is_keyed;
	bool is_found;	      /* by other requests with this key: they wait in line */
	struct spool_key key; /* as it will be stored */
	struct buf answer;
	struct list line; /* under the module's lock */
};

/** Where the keys are kept; before the first listener starts. */
void idempotency_init(struct spool *sp);
/** True: the request is to be done, and idempotency_end to be called in the end. False: it is answered in a,
 * with the answer that its repetition was stored with, or with 400 (the key), 409 (the key is another
 * request's, or the first one with it still runs at the deadline), 500, 503. Yields; waits for another
 * request with the same key, which may be on another worker. */
MUST_CHECK bool idempotency_begin(struct idempotency *k, struct http_request *r, struct http_response *a,
				  mono_t deadline);
/** The answer to store, complete, of status 200. -1 ERR_INVALID when it is too long for that. */
MUST_CHECK int idempotency_set_answer(struct idempotency *k, const char *content_type, str_t body);
/** To be stored with the work; NULL without a key. Valid until idempotency_end. */
const struct spool_key *idempotency_key(const struct idempotency *k);
/** Whether it was stored or not: the others look. */
void idempotency_end(struct idempotency *k);

/** For http_route.headers and http_answer.headers. */
extern const struct http_field idempotency_request_headers[], idempotency_answer_headers[];

/** The key in a header's value: an RFC 8941 string, or bare.
 * NULL, or what is wrong with it, a static text. */
const char *idempotency_parse_key(str_t value, char key[IDEMPOTENCY_KEY_MAX], size_t *n);
