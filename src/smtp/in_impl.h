/* in_impl.h - what the files of the SMTP service share. A session is a fiber, and all of this belongs to it
 * unless it is said. */
#pragma once

#include "aaa/auth_info.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/fiber.h"
#include "mime/report.h"
#include "net/crowd.h"
#include "net/sock.h"
#include "net/tls_source.h"
#include "policy/policy.h"
#include "queue/reception.h"
#include "smtp/in.h"
#include "smtp/in_command.h"

#include <stdatomic.h>
#include <stdlib.h>

#define IN_LOG "kumod::smtp_server"
#define IN_EVENT_TIMEOUT dur_s(300) /* of handlers, but for those of a received message */
#define IN_WRITE_TIMEOUT dur_s(60)

enum {
	IN_COMMAND_BYTES = 2000, /* of a line, without its end: the parameters of DSN need 1,012 more than RFC
				    5321's 512 */
	IN_SASL_BYTES = 12288,	 /* of AUTH, and of what follows it: RFC 4954 section 4 */
	IN_OUT_BYTES = 16384,	 /* of replies held back */
	IN_MAX_ERRORS = 20,	 /* commands that were none, or out of order */
	IN_MAX_REFUSALS = 1000,	 /* of any kind, since the last message was taken */
	IN_MAX_LOGINS = 5,	 /* that failed */
	IN_MAX_HOPS = 100,	 /* RFC 5321 section 6.3 */
	IN_DOMAINS = 16,	 /* answers of get_listener_domain that are kept */
};

/* What the steps of a session return. IN_AGAIN: what came was refused, and the client told so. */
enum in_go { IN_GO, IN_AGAIN, IN_END };

struct in_conn {
	struct meta meta;
	struct auth_info who;
	struct arena arena; /* who's */
};

struct in_listener {
	struct param_object *params_object;
	const struct in_params *params;
	char *machine_hostname;
	struct listener *listener;
	struct crowd *crowd;	 /* of struct in_session.member */
	struct tls_source **tls; /* kept so that what the parameters name is loaded and renewed */
	size_t n_tls;
};

struct in_recipient {
	char *email;
	char *notify, *orcpt; /* NULL: not given */
};
struct in_transaction {
	bool is_open;	   /* MAIL has been accepted */
	mono_t begun;	   /* then */
	mono_t data_begun; /* its message */
	char *sender;
	struct in_recipient *rcpt;
	size_t n_rcpt, cap_rcpt;
	bool is_requiretls;
	enum in_ret ret;
	char *envid;	  /* NULL: none */
	bool is_chunking; /* BDAT has begun; data is in use */
	struct in_data data;
	size_t n_charged; /* of the memory of all bodies */
};

struct in_domain_entry {
	char *name;		     /* NULL: unused */
	struct param_object *object; /* NULL: the policy says nothing of it */
	mono_t expires;
};

struct in_session {
	struct crowd_member member;
	struct in_listener *l;
	struct fiber *fiber;
	bool is_waiting; /* for the client, with nothing in hand that would be lost */
	struct stream *st;
	struct uuid id;
	struct net_addr peer, local; /* after PROXY and XCLIENT */
	struct in_settings set;
	struct param_object *dynamic; /* what set points into, besides the listener's params; NULL: none */
	struct in_conn conn;
	struct meta param_meta; /* of conn.meta, what set says */

	struct buf line;  /* the command in hand */
	struct buf shown; /* as records and the policy see it; empty: none */
	struct buf out;	  /* replies not written yet */
	bool is_ending;	  /* a 421 was said, or the policy wants it so */
	unsigned n_turn, n_errors, n_refusals, n_failed_logins;
	size_t n_messages; /* recipients, of all transactions */
	bool is_excused; /* a refusal of ours may have put what a pipelining client sends next out of order */

	char *ehlo; /* the name that the client has given; NULL: none yet */
	bool is_tls, is_authenticated;
	struct in_transaction tx;
	struct in_domain_entry domain[IN_DOMAINS];
	unsigned next_domain;
};

static inline bool in_is_stopping(const struct in_session *s)
{
	return crowd_is_stopping(s->l->crowd);
}

/* --- in_listener.c --- */
const char *in_why_not(void); /* the gate's */
struct in_metrics {
	struct metric_series *connections, *connections_total, *denied, *received, *rejections;
	struct metric_series *read_duration, *process_duration, *transaction_duration;
};
const struct in_metrics *in_metrics(void);
MUST_CHECK bool in_memory_take(size_t n_bytes);
void in_memory_give(size_t n_bytes);

/* --- in_tls.c --- */
/** The certificate that these settings name, loaded once for all sessions of l. A reference. Yields. NULL
 * with the error set. */
MUST_CHECK struct tls_source *in_tls_get(const struct in_listener *l, const struct in_settings *set,
					 mono_t deadline);
/** The handshake, and what it tells about the peer. Yields. IN_AGAIN: it has failed in such a way that the
 * client may go on in the clear. */
enum in_go in_tls_start(struct in_session *s, struct tls_source *source, enum tls_buffered buffered);

/* --- in_session.c --- */
listener_fn in_session_main;
/** What the client has said so far, before TLS (RFC 3207 section 4.2) or on somebody else's behalf. */
void in_session_forget(struct in_session *s);
void in_session_note_error(
	struct in_session *s); /* a command that was none, or out of order; too many end the session */
enum in_go in_out_of_order(struct in_session *s, const char *text); /* 503 */

/* --- in_begin.c: both yield, and send the greeting. IN_END: the client was told why, if it is to know --- */
enum in_go in_session_begin(struct in_session *s);
/** Once more, for the addresses that a proxy has given by XCLIENT. */
enum in_go in_session_begin_as(struct in_session *s, const struct in_xclient *x);

/* --- in_line.c --- */
enum in_line { IN_LINE_COMMAND, IN_LINE_SASL };
/** Waits for one line within the time-out of the client, without its end, into s->line. Yields. */
enum in_go in_read_line(struct in_session *s, enum in_line kind);
/** Reads more into the stream's buffer; IN_END: there will be none, and the client was told why. Yields. */
enum in_go in_fill(struct in_session *s, size_t max_bytes, mono_t deadline);

/* --- in_reply.c: all yield (the policy's smtp_server_rewrite_response, a logger, a slow client) --- */
/** Replies; lines of the text are parted by LF. 421 ends the session. */
void in_reply(struct in_session *s, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
void in_reply_text(struct in_session *s, int code, str_t text);
/** "421 4.3.2 HOSTNAME why". */
void in_reply_bye(struct in_session *s, const char *why);
enum in_go in_flush(struct in_session *s);

/* --- in_conn.c --- */
void in_conn_init(struct in_conn *c, const struct net_addr *peer);
void in_conn_fini(struct in_conn *c);
/** Pushes it for the event in hand. In the same state, in_conn_release ends that. */
void in_conn_push(lua_State *L, struct in_conn *c);
void in_conn_release(lua_State *L);

/* --- in_observe.c --- */
void in_see(struct in_session *s, const struct in_seen *what);
extern _Atomic(struct in_observer *) in_observer;
/** Somebody watches. */
static inline bool in_is_seen(void)
{
	return atomic_load_explicit(&in_observer, memory_order_relaxed) != NULL ||
	       (atomic_load_explicit(&log_max_level, memory_order_relaxed) >= LOG_TRACE &&
		log_is_enabled(LOG_TRACE, IN_LOG));
}

/* --- in_events.c: the policy. They yield; where a handler refuses, or fails, the client has been told when
 * they return --- */
enum in_verdict {
	IN_ACCEPTED,
	IN_REFUSED, /* and told so; s->is_ending says whether that was all */
};
enum in_verdict in_event_connection_accepted(struct in_session *s);
/** *block: a reference to what it says of the parameters, or NULL. */
enum in_verdict in_event_dynamic_parameters(struct in_session *s, struct param_object **block);
/** extensions: lines parted by LF, without one at the end; replaced by the handler's. NULL for HELO. */
enum in_verdict in_event_ehlo(struct in_session *s, str_t name, struct buf *extensions);
enum in_verdict in_event_mail_from(struct in_session *s, str_t sender);
enum in_verdict in_event_rcpt_to(struct in_session *s, str_t recipient);
/** *is_good: the credentials are; the session knows who it is then. */
enum in_verdict in_event_auth_plain(struct in_session *s, str_t authz, str_t authc, str_t password,
				    bool *is_good);
/** smtp_server_data, smtp_server_message_received. */
enum in_verdict in_event_message(struct in_session *s, const char *event, struct message *m, mono_t deadline);
/** *batches: an array of arrays of addresses in text, or NULL: the policy leaves it to batch_handling. */
enum in_verdict in_event_split(struct in_session *s, struct message *m, json_t **batches, mono_t deadline);
/** *object: a reference, or NULL. */
enum in_verdict in_event_listener_domain(struct in_session *s, str_t domain, struct param_object **object);
/** Changes *code and the text of a reply. Never refuses. */
void in_event_rewrite_response(struct in_session *s, int *code, struct buf *text);
/** What the error in the slot means for the client. during: the step of a message that the time ran out in,
 * or NULL. */
void in_refuse_error(struct in_session *s, enum policy_reject_mode mode, const char *during);

/* --- in_relay.c --- */
struct in_disposition {
	bool is_relayed;
	enum in_report_mode log_arf, log_oob;
};
/** May this recipient have mail from this sender, by this peer? Yields (get_listener_domain). @wants_reports
 * also asks what is to become of reports where the answer is clear without. */
enum in_verdict in_relay_decide(struct in_session *s, str_t sender, str_t recipient, bool wants_reports,
				struct in_disposition *out);
/** The recipient as it is relayed: <Postmaster> without a domain is ours (RFC 5321 section 4.5.1). out: room
 * for it. */
str_t in_relay_address(const struct in_session *s, str_t recipient, struct buf *out);
void in_relay_forget(struct in_session *s); /* what the policy said before things changed */

/* --- in_report.c --- */
struct in_report; /* what a body has been found to be */
struct in_report_entry {
	struct in_report *report; /* reference */
	struct message *m;	  /* reference */
	bool is_dropped;
};
/* Those of a transaction, to be logged when it is accepted. Zero: none. */
struct in_reports {
	struct in_report *last;
	struct in_report_entry *v;
	size_t n, cap, n_dropped;
};
enum in_report_fate {
	IN_REPORT_NONE, /* m is no report of a kind that this domain wants logged */
	IN_REPORT_DROPPED,
	IN_REPORT_RELAYED,
};
/** Looks whether m is a report, and remembers it. Yields. */
enum in_verdict in_report_look(struct in_session *s, struct in_reports *r, struct message *m,
			       const struct in_disposition *d, enum in_report_fate *fate, mono_t deadline);
/** Whether the report looked at last is a complaint, whose Feedback record stands for a Reception record. */
bool in_report_is_feedback(const struct in_reports *r);
/** Logs them. how: as for reception_enqueue. Yields. */
void in_reports_log(const struct in_reports *r, const struct record *how);
void in_reports_fini(struct in_reports *r);
/** Whether mail to this recipient has bounced, and what its record says of it, in slices. For in_report.c
 * itself and its test. */
MUST_CHECK bool in_report_bounce(const struct dsn_report *d, const struct dsn_recipient *to,
				 struct record *out);

/* --- in_auth.c --- */
enum in_go in_auth(struct in_session *s, const struct in_command *c);

/* --- in_defer.c --- */
/** Sends m by the queue of deferred messages. */
void in_defer(struct message *m);

/* --- in_receive.c --- */
enum in_go in_on_data(struct in_session *s);
enum in_go in_on_bdat(struct in_session *s, const struct in_command *c);

/* --- in_transaction.c --- */
void in_transaction_reset(struct in_session *s);
/** True when what was received so far of the message cannot be taken; then the client was told so. */
bool in_transaction_refuse_data(struct in_session *s);
/** The message in s->tx.data is complete: it is taken or refused, and the transaction is over. Yields. */
void in_transaction_end(struct in_session *s);
