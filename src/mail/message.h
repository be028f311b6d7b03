/* message.h - a message on its way: identity, envelope, metadata, body. Refcounted (atomically) because a session, a queue
 * and a log call may hold it at once; its fields belong to whoever has it in hand: the session while delivering, else its queue
 * under that queue's lock. */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "base/uuid.h"
#include "mail/body.h"
#include "mail/meta.h"

struct message {
	_Atomic uint32_t refs;
	struct uuid id;          /* version 1: holds the creation time */
	char *sender;            /* "" is the null sender */
	char **rcpt;             /* recipients still to be served */
	uint32_t n_rcpt;
	struct meta meta;
	char *prefix;            /* header lines of this recipient that come before the body, CRLF each; NULL: none */
	uint32_t n_prefix_bytes;
	struct body *body;       /* NULL: in the spool only; see spool_load_body */
	uint32_t size_bytes;     /* prefix + body */

	uint16_t n_attempts;     /* completed attempts that were requeued with increment (contracts B4) */
	bool is_spooled;         /* durable in the spool; false while deferred_spool */
	bool is_8bit_body;       /* computed once when the body first came: has bytes over 127 */
	wall_t due;              /* earliest next attempt */

	struct list link;        /* the queue's */
	void *queue;             /* the scheduled queue it belongs to (queue/scheduled.h), or NULL */
};

/** A new message with a fresh id, one reference. Copies sender and recipients. body may be NULL; takes its own reference. */
struct message *message_new(str_t sender, const str_t *rcpt, uint32_t n_rcpt, struct body *body);
struct message *message_ref(struct message *m);
void message_unref(struct message *m);
wall_t message_created(const struct message *m);
void message_set_body(struct message *m, struct body *body); /* takes its own reference; NULL drops it */
void message_set_prefix(struct message *m, str_t headers);
/** Puts whole header lines, each with its CRLF, before all others. */
void message_add_prefix(struct message *m, str_t headers);
/** Drops the recipients for which keep[i] is false. */
void message_keep_recipients(struct message *m, const bool *keep);

/** The name of the queue (contracts B3): meta `queue` verbatim, else [campaign:][tenant]@domain[!routing_domain] from the metadata and
 * the lower-cased domain of the first recipient. -1 ERR_INVALID when one of these keys is not a string. */
MUST_CHECK int message_queue_name(const struct message *m, struct buf *out);

/** The taken-apart form of such a name; slices into it. Absent parts have p NULL (a tenant may be present and empty). */
struct queue_name {
	str_t campaign, tenant, domain, routing_domain;
};
void queue_name_parse(str_t name, struct queue_name *out);

/** Metadata record of the spool: a versioned binary record of sender, recipients, meta, attempts, due time, size and prefix (JSON
 * cannot hold a prefix that is not UTF-8); appended to out. message_decode reads it back into a message without body, safe
 * for any bytes: NULL ERR_CORRUPT. The layout is in message_record.c. */
void message_encode(const struct message *m, struct buf *out);
MUST_CHECK struct message *message_decode(const struct uuid *id, str_t record);
