/* message.h - a message on its way: identity, envelope, metadata, body. Refcounted (atomically) because a
 * session, a queue and a log call may hold it at once; its fields belong to whoever has it in hand: the
 * session while delivering, else its queue under that queue's lock. */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "base/uuid.h"
#include "mail/body.h"
#include "mail/meta.h"

struct schedule;

struct message {
	_Atomic uint32_t refs;
	struct uuid id; /* version 1: holds the creation time */
	/* What the spool has of it. The second and third are set by what changes it (message_touch) and
	 * cleared when it is stored. */
	bool is_spooled;      /* durable in the spool; false while deferred_spool */
	bool is_changed;      /* the spool has an older state of all but the body */
	bool is_body_changed; /* the spool has another body; so long, this one is kept in memory */
	bool is_8bit_body;    /* it has, or had, bytes over 127, prefix included */
	bool is_meta_shed;    /* its metadata are in the spool only, and meta is empty: see spool_load_meta */
	char *sender;	      /* "" is the null sender */
	char **rcpt;	      /* recipients still to be served */
	uint32_t n_rcpt;
	uint16_t n_attempts;  /* completed attempts that were requeued with increment */
	bool is_force_synced; /* what is written of it waits for stable storage, whatever the spool's `flush`
				 says */
	bool is_draft;	      /* a policy has had it made, and has not injected it yet */
	struct meta meta;
	char *prefix; /* header lines of this recipient that come before the body, CRLF each; NULL: none */
	struct body *body; /* NULL: in the spool only; see spool_load_body */
	uint32_t n_prefix_bytes;
	uint32_t size_bytes;	   /* prefix + body */
	uint32_t n_deferred_bytes; /* not 0: it is to be stored when it must wait, and counted as so many
				      (queue/deferred.c) */
	wall_t due;		   /* earliest next attempt */
	struct schedule
		*schedule; /* constrains the attempts; NULL, as for most: nothing does (mail/schedule.h) */

	struct list link; /* the queue's */
	void *queue;	  /* the scheduled queue it belongs to (queue/scheduled.h), or NULL */
};

/** A new message with a fresh id, one reference. Copies sender and recipients. body may be NULL; takes its
 * own reference. */
struct message *message_new(str_t sender, const str_t *rcpt, uint32_t n_rcpt, struct body *body);
struct message *message_ref(struct message *m);
void message_unref(struct message *m);
wall_t message_created(const struct message *m);
void message_set_body(struct message *m, struct body *body); /* takes its own reference; NULL drops it */
/** Gives it another body than it had. Takes its own reference. */
void message_replace_body(struct message *m, struct body *body);
/** Lets go of the metadata, which the spool has. It is not to be stored before they are back. */
void message_shed_meta(struct message *m);
/** Takes them back out of what was stored. */
void message_take_meta(struct message *m, struct message *stored);
/** Something of it besides the body is not what the spool has any more. */
static inline void message_touch(struct message *m)
{
	m->is_changed = true;
}
/** Copies the texts. */
void message_set_sender(struct message *m, str_t sender);
void message_set_recipients(struct message *m, const str_t *rcpt, uint32_t n);
/** Takes over the heap object; NULL: none. */
void message_set_schedule(struct message *m, struct schedule *s);
void message_set_prefix(struct message *m, str_t headers);
/** Puts whole header lines, each with its CRLF, before all others. */
void message_add_prefix(struct message *m, str_t headers);
/** Drops the recipients for which keep[i] is false. */
void message_keep_recipients(struct message *m, const bool *keep);

/** The name of the queue: meta `queue` verbatim, else
 * [campaign:][tenant]@domain[!routing_domain] from the metadata and the lower-cased ASCII form of the domain
 * of the first recipient. A key that is null is not set. -1 ERR_INVALID when one of them is not a string. */
MUST_CHECK int message_queue_name(const struct message *m, struct buf *out);

/** The taken-apart form of such a name; slices into it. Absent parts have p NULL (a tenant may be present and
 * empty). */
struct queue_name {
	str_t campaign, tenant, domain, routing_domain;
};
void queue_name_parse(str_t name, struct queue_name *out);

/** Metadata record of the spool: a versioned binary record of sender, recipients, meta, attempts, due time,
 * size, prefix and schedule (JSON cannot hold a prefix that is not UTF-8); appended to out. message_decode
 * reads it back into a message without body, safe for any bytes: NULL ERR_CORRUPT. The layout is in
 * message_record.c. */
void message_encode(const struct message *m, struct buf *out);
MUST_CHECK struct message *message_decode(const struct uuid *id, str_t record);
