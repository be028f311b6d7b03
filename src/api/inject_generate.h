/* inject_generate.h - deferred_generation: the request is stored as one message of the queue
 * generator.kumomta.internal, answered, and made into messages afterwards. */
#pragma once

#include "api/inject_batch.h"

/** Before the first message of the spool is read. */
void inject_generate_setup(void);
void inject_generate_set_limit(uint64_t n_requests);
/** body: the request, as JSON. Appends the answer. Yields. -1 with the error: it is not taken (ERR_LIMIT: too
 * many wait already). */
MUST_CHECK int inject_generate_defer(const struct inject_request *req, str_t body,
				     const struct inject_origin *origin, struct buf *answer, mono_t deadline);
