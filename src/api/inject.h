/* inject.h - messages in, as POST /api/inject/v1 describes them
 * (docs/reference/http/kumod/api_inject_v1_post.md): over HTTP, and from a policy. */
#pragma once

#include "base/throttle.h"
#include "mail/message.h"

#include <jansson.h>

struct api_inject_params {
	const char *(*why_not)(void); /* NULL when the service can take mail, else why not (503 before the
				       * body is read); called from any worker, must not yield */
	const char *hostname;	      /* this machine's; must stay */
};
/** Before the first message, also before those in the spool are read. */
void api_inject_init(const struct api_inject_params *p);
/** Adds its route. */
void api_inject_register(void);

/** How many recipients HTTP requests may bring; NULL: any number. Any thread. */
void api_inject_set_rate_limit(const struct throttle_spec *spec);
/** How many requests with deferred_generation may wait (100,000). Any thread. */
void api_inject_set_generation_limit(uint64_t n_requests);

/** kumo.api.inject.inject_v1: as a request that this system brings; appends the answer. Takes the reference.
 * Yields. -1 with what HTTP would have answered. */
MUST_CHECK int api_inject_local(json_t *request, struct buf *answer, mono_t deadline);
/** kumo.api.inject.build_v1: one message for each recipient in a heap array of *n, each a reference, that
 * nobody else knows of. Takes the reference. Yields. -1: the request, or a recipient, is wrong. */
MUST_CHECK int api_inject_build(json_t *request, struct message ***out, size_t *n, mono_t deadline);
