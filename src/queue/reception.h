/* reception.h - taking messages in, whatever they came by: the queue of each is found, all are stored
 * together, and only then are they logged and handed to their queues. A caller that answers its client
 * between store and enqueue, or after, keeps the promise of the durable answer. */
#pragma once

#include "queue/queue.h"
#include "record/record.h"

struct reception {
	const struct spool_key *key; /* to be stored with them, by reception_store; borrowed; NULL: none */
	struct message **msg;
	struct sched_queue **queue; /* of each */
	bool *is_silent;	    /* of each: it has no Reception record */
	size_t n, cap;
	bool logs_null;	      /* those of the null queue have a Reception record, too (SMTP) */
	struct message *also; /* stored already, with changes that the same commit is to store; NULL: none */
};
void reception_init(struct reception *r, size_t n_expected);
/** Lets go of what was not handed to the queues; what was stored stays in the spool (see reception_store). */
void reception_fini(struct reception *r);
/** Finds the queue of m (get_queue_config) and adds m, taking the caller's reference. Yields. -1 with the
 * error, and the reference stays with the caller. */
MUST_CHECK int reception_add(struct reception *r, struct message *m, mono_t deadline);
/** The message added last has no Reception record: another one tells that it came (Feedback). */
void reception_silence_last(struct reception *r);
/** Makes all of them durable with one commit, and the key, if there is one; those of the
 * null queue are not stored. Yields. -1 with spool_put's error (spool_put_with_key's):
 * then none counts as stored, and what may still become durable is removed again,
 * unless there is a key, which tells whoever repeats the request what became of it. */
MUST_CHECK int reception_store(struct reception *r, mono_t deadline);
/** Brings the body into memory, which a policy may have stored and let go. Yields. -1 with spool_load_body's
 * error. */
MUST_CHECK int reception_load_body(struct message *m, mono_t deadline);
/** A message that will not be received after all: takes it out of the spool, where a policy may have saved
 * it, and drops the caller's reference. NULL is fine. */
void reception_refuse(struct message *m);
/** Instead of reception_store: takes them without storing them (deferred_spool). They are stored when they
 * must wait; a crash loses them. What has to wait from the start, and what is too much to be held in memory
 * at all, is stored as by reception_store, so it may yield. -1 with its errors, or ERR_LIMIT: too many are in
 * memory already. */
MUST_CHECK int reception_defer(struct reception *r, mono_t deadline);
/** Whether a crash of the machine leaves alone what reception_store stores. */
bool reception_is_durable(void);
/** Logs a Reception record of each, and hands them to their queues with the references. how: what the records
 * say of the peer and the protocol; its msg, queue, site and response are filled in here; p NULL for the
 * protocol: what the message's metadata say. One that is not due yet has a Delayed record as well, one whose
 * schedule says that it is too late ends with an Expiration record. Those of the null queue end here, as a
 * rule without a record. May yield (a logger's back-pressure). */
void reception_enqueue(struct reception *r, const struct record *how);
/** Instead of reception_enqueue, where time has run out: logs a Reception record of each, and a Bounce record
 * that says why it is taken back, for whoever finds traces of a message that its client sends again. It is
 * the caller that takes them back. Yields likewise. */
void reception_log_unwound(const struct reception *r, const struct record *how, str_t why);
/** Empty again, as reception_fini and reception_init would make it. */
void reception_reset(struct reception *r);
