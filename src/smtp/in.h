/* in.h - the SMTP service: RFC 5321 with the extensions of docs/smtp-listener.md, decided by the policy's
 * smtp_server_* events. A listener is opened by kumo.start_esmtp_listener during init and accepts once
 * everything behind it is ready. */
#pragma once

#include "smtp/in_params.h"

struct in_session;
struct in_listener;

/** Loads certificates and binds the port; takes its own reference to params (in_listener_schema). Yields.
 * NULL: the error names what is wrong. */
MUST_CHECK struct in_listener *in_listener_open(struct param_object *params, mono_t deadline);
/** What in_listener_open does before it binds: for --validate. Yields. */
MUST_CHECK int in_listener_check(struct param_object *params, mono_t deadline);
void in_listener_start(struct in_listener *l);
/** No new connections; those that wait for a command, or for the rest of a message, are answered 421 and
 * closed. */
void in_listener_stop(struct in_listener *l);
/** Waits until the others are done, by the deadline, after which they are cancelled; frees l. After
 * in_listener_stop, from the same worker. Yields. */
void in_listener_close(struct in_listener *l, mono_t deadline);
const char *in_listener_name(const struct in_listener *l); /* "127.0.0.1:25" */
/** Forgets the certificates, when there is no listener any more. */
void in_stop(void);

/* --- what the application says, before the first listener starts --- */

#define IN_WHY_STOPPING "shutting down"
#define IN_WHY_STARTING "waiting for spool startup"
/** NULL when mail can be taken, else why not (these two are told in words of their own); called from any
 * worker, must not yield. */
void in_set_gate(const char *(*why_not)(void));
/** Bytes that messages may have in memory while they are received, all together; over it they are answered
 * 452. */
void in_set_body_memory(uint64_t n_bytes);
uint64_t in_body_memory(void); /* in use */
/** Makes the queue of messages that are processed later (deferred_queue). Before the first message. */
void in_add_queues(void);
/** Pushes an EnvelopeAddress; raises. The bindings'. */
void in_set_address_pusher(void (*push)(lua_State *L, str_t text));

/* --- relaying: kumo.make_listener_domain --- */

enum in_report_mode { IN_REPORT_IGNORE, IN_REPORT_LOG_THEN_DROP, IN_REPORT_LOG_THEN_RELAY };
extern const char *const in_report_words[]; /* of each, NULL at the end */

struct in_domain {
	bool relay_to;
	struct cidr_set relay_from;
	struct param_strs relay_from_authz;
	int log_arf, log_oob; /* enum in_report_mode */
	dur_t ttl;	      /* of the answer, within a connection */
};
extern const struct param_schema in_domain_schema;

/* --- the connection as a policy sees it: userdata with metadata (docs/reference/connectionmeta.md) --- */

struct in_conn;
/** The object at idx, valid during the event that it was made for; raises. */
struct in_conn *in_conn_check(lua_State *L, int idx);
struct meta *in_conn_meta(struct in_conn *c);
const struct auth_info *in_conn_who(const struct in_conn *c);
/** Pushes the table of its methods, for bindings to add to. */
void in_conn_push_class(lua_State *L);

/* --- watching sessions: everything that is read, written or asked of the policy passes here --- */

enum in_sight {
	IN_SIGHT_CONNECTED,
	IN_SIGHT_CLOSED,
	IN_SIGHT_READ,	      /* text: a line with its end, or a piece of a message; credentials are *** */
	IN_SIGHT_WRITE,	      /* text: one line of a reply with its end */
	IN_SIGHT_DIAGNOSTIC,  /* text */
	IN_SIGHT_CALLBACK,    /* name: the event; text: its outcome, p NULL when it raised; error then */
	IN_SIGHT_DISPOSITION, /* message, and what is after it: what is to become of it; text: that in a word
			       */
};
struct in_seen {
	enum in_sight kind;
	str_t text, error;
	const char *name;
	const struct message *message;
	bool is_relayed;  /* it may go to its recipient, whatever it is */
	bool is_report;	  /* of a kind that is logged */
	bool is_enqueued; /* it goes to a queue, if the transaction comes to its end */
	enum in_report_mode log_arf, log_oob;
};
/** see is called by the session's fiber, on any worker; must not yield; the strings are gone after. NULL:
 * nobody watches. The struct must outlive every session that may be looking at it. */
struct in_observer {
	void (*see)(struct in_observer *o, struct in_conn *conn, const struct in_seen *what);
};
void in_set_observer(struct in_observer *o);
