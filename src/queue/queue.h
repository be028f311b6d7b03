/* queue.h - scheduled and ready queues. A message belongs to a scheduled queue
 * (campaign:tenant@domain) from the moment it is durable to its end; while due it also waits in,
 * or is held by a session of, a ready queue (source -> site). Everything here is process-wide
 * behind short mutexes; any worker may call. docs/userguide/general/queues (KumoMTA). */
#pragma once

#include "fiber/fiber.h"
#include "mail/message.h"
#include "spool/spool.h"

struct sched_queue;

struct queue_params {
	struct spool *spool;
	const char *hostname;
	size_t body_budget_bytes; /* of bodies in memory, over which waiting messages leave theirs to the
				     spool; 0: 64 MiB */
};
void queue_start(const struct queue_params *p);
/** No new sessions; sessions finish what they have in hand and say goodbye; at the deadline the rest is
 * cancelled. All that is not delivered stays in the spool. Yields. */
void queue_stop(mono_t deadline);
/** Releases every queue and message in memory; after the workers have stopped. */
void queue_free(void);

/** The queue of a message, made at first use (get_queue_config). Yields. A new reference; NULL with the
 * policy's error. */
MUST_CHECK struct sched_queue *sched_queue_get(str_t name, mono_t deadline);
void sched_queue_unref(struct sched_queue *q);
const char *sched_queue_name(const struct sched_queue *q);
bool sched_queue_is_null(const struct sched_queue *q); /* the `null` queue: messages end here silently */

/** Gives a durable message to its queue, which takes the caller's reference: due now, to a ready queue; else
 * to the timer wheel, where its schedule may put it too. Never yields, never fails. */
void sched_queue_insert(struct sched_queue *q, struct message *m);
/** Messages read back from the spool at start: finds the queue of each and inserts it. Yields.
 * -1 as spool_enumerate, or ERR_CANCELLED. */
MUST_CHECK int queue_recover(mono_t deadline);

/** How many messages belong to it, wherever they are. */
size_t sched_queue_count(struct sched_queue *q);

/** How many messages, and bytes of them, may be in memory without being stored (reception_defer). Default:
 * 100,000 and 64 MiB. Any time; what is over a new limit stays. */
void queue_set_deferred_limits(uint64_t n_messages, uint64_t n_bytes);

struct queue_totals {
	uint64_t n_scheduled, n_ready, n_sessions, n_deferred, n_deferred_bytes;
};
void queue_get_totals(struct queue_totals *out);
