/* inject_batch.h - from a checked request to messages in their queues, for whoever brings the request: HTTP,
 * a policy, the generator of deferred requests. A batch goes through it in chunks, each made durable by one
 * commit; a request is one chunk unless its messages are too large to be held in memory together. */
#pragma once

#include "api/inject_content.h"
#include "queue/reception.h"

struct auth_info;
struct idempotency;

/** Who brings the request, and from where. Slices are borrowed. */
struct inject_origin {
	str_t received_from;	      /* the peer's address, without port */
	str_t received_via, hostname; /* of the service, for the metadata; p NULL: not said */
	str_t who_name;		      /* for the metadata */
	const struct auth_info *who;  /* for the policy; or who_json: NULL until it is asked for */
	json_t *who_json;	      /* a reference, released with the batch */
	size_t chunk_bytes;	      /* of bodies; 0: 64 MiB */
	dur_t recipient_time; /* that each recipient may take; 0: all of them together have until the deadline
			       */
	bool (*should_stop)(void *arg); /* asked after each recipient; NULL: never */
	void *stop_arg;
	struct idempotency *key; /* that the request came under; NULL: none, as when it is without one */
};

/** What became of a recipient. */
struct inject_result {
	struct uuid id; /* of its message */
	bool is_taken;	/* its chunk is stored, or is going to be */
	int code;	/* kumo.reject's, of one that failed; 0: it was something else */
	char *error;	/* why it failed; NULL: it has not */
};

struct inject_batch {
	const struct inject_request *req;
	struct inject_origin origin;
	struct inject_content content;
	struct inject_result *result; /* by recipient */
	struct reception reception;   /* the chunk in hand */
	size_t *recipient_of;	      /* its messages' recipients */
	size_t n_taken, n_failed;     /* of those that were gone through */
	mono_t slice_ends;	      /* when others are to have their turn */
	bool is_crowded;	      /* the chunk is small because much is in memory */
};
/** Takes over origin->who_json. -1: what is wrong with the request as a whole (422), or ERR_TIMEOUT,
 * ERR_CANCELLED. The batch is to be released in every case, before req. Large templates are compiled on
 * another thread: may yield. */
MUST_CHECK int inject_batch_init(struct inject_batch *b, const struct inject_request *req,
				 const struct inject_origin *origin, mono_t deadline);
void inject_batch_fini(struct inject_batch *b);
/** Makes the messages of the recipients from `from` on, until the chunk is full, or the fiber is cancelled or
 * should stop, or there are no more. Returns the next recipient. What is wrong with one fails that one alone.
 * Yields. */
size_t inject_batch_prepare(struct inject_batch *b, size_t from, mono_t deadline);
/** Makes the chunk durable; or holds it in memory, if that is what the request says. Yields. -1 with the
 * error: nothing of it is stored, and may be tried again. */
MUST_CHECK int inject_batch_store(struct inject_batch *b, mono_t deadline);
/** Logs the chunk's messages and hands them to their queues. May yield. */
void inject_batch_enqueue(struct inject_batch *b);
/** All of it; answer gets what became of each recipient. -1 with the error when nothing could be stored, and
 * nothing is taken. When it is a later chunk that cannot be, its recipients and those after it have failed.
 * Under a key there is one chunk, stored with the key and the answer: -1 ERR_INVALID when it does not fit.
 * Yields. */
MUST_CHECK int inject_batch_run(struct inject_batch *b, struct buf *answer, mono_t deadline);
/** The message of recipient i, before the policy sees it, a new reference; NULL with the error of what is
 * wrong with it. */
MUST_CHECK struct message *inject_batch_make(struct inject_batch *b, size_t i);

/** Before the first batch. hostname: for Received and Message-ID; must stay. */
void inject_batch_setup(const char *hostname);
