/* deliverer.h - the seam between queues and the protocols that deliver. A ready queue starts sessions; each
 * is a fiber that runs its deliverer's `run`, which takes messages from the queue one by one and reports what
 * became of each. Every message taken goes back through exactly one of session_done, session_return or
 * session_fail_queue's own. */
#pragma once

#include "queue/egress.h"
#include "record/record.h"

struct session;

struct deliverer {
	const char *protocol;	 /* in ready queue names: "smtp_client"; in metrics up to a colon */
	const char *record_name; /* `delivery_protocol` of the records: "ESMTP" */
	/** One session: from the first message to the end of its connection. In a fiber of its own; cancelled
	 * at shutdown's deadline. session_next gives the messages. */
	void (*run)(struct session *s);
};
/** For the app, before the first message: SMTP. (Maildir is inline: deliver_maildir.c.) */
void queue_set_smtp_deliverer(const struct deliverer *d);
/** Queues of this reserved domain are not asked about: d delivers what is in them, and
 * retries begin after retry_interval. Before the first message; domain and d must stay. */
void queue_set_internal_deliverer(const char *domain, const struct deliverer *d, dur_t retry_interval);

/* --- what a session is about; valid while `run` runs --- */
const struct egress_path *session_path(const struct session *s); /* may change between messages (refresh) */
const struct egress_source *session_source(const struct session *s);
const struct delivery_protocol *session_protocol(const struct session *s); /* mx_list */
const struct dns_mx *session_mx(const struct session *s);		   /* NULL with an mx_list */
const char *session_ready_queue_name(const struct session *s);
const char *session_hostname(const struct session *s); /* this machine's */

/** The next message, taken out of the queue, its body in memory. Waits at most `idle`. NULL: nothing came, or
 * the queue is being shut down or has too many sessions: say goodbye and return from run. Yields. */
MUST_CHECK struct message *session_next(struct session *s, dur_t idle);
bool session_is_stopping(const struct session *s);

struct session_peer {
	str_t name;	   /* MX host; p NULL: no peer was reached */
	str_t addr;	   /* "1.2.3.4:25" */
	str_t source_addr; /* p NULL: unknown */
};
/** Final answers, one per recipient of m (pointers: recipients with the same pointer share one record). 2xx:
 * Delivery. 3xx, 4xx and 503: TransientFailure, requeued with increment for those recipients. Other 5xx:
 * Bounce. A NULL entry: that recipient was not attempted and goes back without increment. peer may be NULL.
 * Consumes the reference that session_next gave. May yield (records). */
void session_done(struct session *s, struct message *m, const struct smtp_response *const *by_rcpt,
		  const struct session_peer *peer);
/** Between two transactions of one message: ends the recipients that have a final answer by now, in the
 * records and in the spool, unless all have one. m and by_rcpt go on without them. May yield. */
void session_settle(struct session *s, struct message *m, const struct smtp_response **by_rcpt,
		    const struct session_peer *peer);
/** As session_done with the same answer for all. */
void session_done_all(struct session *s, struct message *m, const struct smtp_response *r,
		      const struct session_peer *peer);
/** As session_done_all for a try that another host follows (try_next_host_on_transport_error): logs the
 * TransientFailure, and m stays with the session. */
void session_note_failure(struct session *s, struct message *m, const struct smtp_response *r,
			  const struct session_peer *peer);
/** A Bounce record of one recipient, which need not be one of m's; m stays with the session. May yield. */
void session_note_bounce(struct session *s, struct message *m, const struct smtp_response *r,
			 const char *rcpt);
/** For messages that were processed: m goes on to the queue that its metadata name now, which the spool
 * learns first, and a DeferredInjectionRebind record says so. Consumes the reference. -1 with the error: m is
 * still the session's. Yields. */
MUST_CHECK int session_rebind(struct session *s, struct message *m, mono_t deadline);
/** Puts m back at the head of the ready queue, not charged an attempt (the connection was gone before it was
 * used, cancel). */
void session_return(struct session *s, struct message *m);
/** Ends all messages of the ready queue, and m (may be NULL), with this answer: null MX, prohibited hosts,
 * nothing to connect to, too many failed plans. Bounce for 5xx, TransientFailure otherwise. */
void session_fail_queue(struct session *s, struct message *m, const struct smtp_response *r);
/** A connection stands (resets the queue's count of failed plans) / every candidate failed (m is reported
 * separately). True from the second when consecutive_connection_failures_before_delay is exceeded: call
 * session_fail_queue. */
void session_note_connected(struct session *s);
bool session_note_plan_failed(struct session *s);
