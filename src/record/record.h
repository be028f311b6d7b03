/* record.h - log records: one JSON object per event of a message's life, in zstd-compressed segment
 * files (docs/reference/log_record.md). A record is rendered by the caller's thread into the logger's
 * pending buffer (short mutex) and compressed and written by the logger's own thread. Any worker. */
#pragma once

#include "fiber/fiber.h"
#include "mail/message.h"
#include "net/addr.h"
#include "policy/param.h"
#include "record/disk.h"
#include "record/node_id.h"

enum record_type {
	RECORD_RECEPTION,
	RECORD_DELIVERY,
	RECORD_BOUNCE,
	RECORD_TRANSIENT_FAILURE,
	RECORD_EXPIRATION,
	RECORD_ADMIN_BOUNCE,
	RECORD_OOB,
	RECORD_FEEDBACK,
	RECORD_REJECTION,
	RECORD_ADMIN_REBIND,
	RECORD_DEFERRED_INJECTION_REBIND,
	RECORD_DELAYED,
	RECORD_XFER_OUT,
	RECORD_XFER_IN,
	RECORD_TYPE_COUNT
};
const char *record_type_name(enum record_type t);

/** An SMTP answer, or one of our own making (docs: `response`). */
struct smtp_response {
	int code;
	int enhanced[3]; /* class, subject, detail; class 0: none */
	str_t content;
	str_t command; /* what it answers, CRLF included; p NULL: null */
};

struct record {
	enum record_type type;
	const struct message *msg; /* id, sender, size, created, meta, headers; NULL: a record without a
				    * message (Rejection, OOB): size 0, no meta, no headers, no filter */
	str_t sender;		   /* only when msg is NULL */
	/* Likewise: what the record has to do with, created then. NULL: id empty, created now. */
	const struct uuid *id;
	wall_t when;		 /* of the event; ns 0: now */
	const char *const *rcpt; /* NULL: the message's */
	size_t n_rcpt;
	str_t queue; /* scheduled queue */
	str_t site;  /* ready queue name, or empty */
	struct smtp_response response;
	str_t peer_name; /* p NULL: peer_address is null */
	str_t peer_addr;
	str_t source_addr;		      /* p NULL: null */
	str_t source_server, source_protocol; /* the proxy in between and its protocol; p NULL: omitted */
	str_t egress_pool, egress_source, delivery_protocol, provider_name; /* p NULL: null, or omitted */
	str_t reception_protocol;	     /* p NULL: what the message's metadata say */
	const struct uuid *session_id;	     /* NULL: omitted */
	str_t tls_cipher, tls_protocol;	     /* p NULL: omitted */
	const char *const *tls_peer_subject; /* "CN=..."; n 0: omitted */
	size_t n_tls_peer_subject;
	str_t feedback_report; /* a JSON object as text; p NULL: null */
	uint32_t n_attempts;
	bool is_peer_secure; /* the peer's name came by DNSSEC */
};
/** Writes it to every logger that wants it. May yield: a full pending buffer (back_pressure), loading headers
 * from the spool, filter_event. Errors are logged, counted and swallowed: a record must not stop mail. */
void record_log(const struct record *r, mono_t deadline);
/** True when some logger is enabled for the type: to skip the work otherwise. */
bool record_is_wanted(enum record_type t);
/** How record_log gets at a body that is not in memory, for `headers` (set by the app: spool_load_body). */
void record_set_body_loader(int (*load)(struct message *m, mono_t deadline));

/** kumo.configure_local_logs. Creates the directories; unless is_validating, marks old segments done and
 * starts the logger, which takes its own reference to params. -1 ERR_IO naming the path, ERR_INVALID (a
 * template), ERR_LIMIT (too many loggers). */
extern const struct param_schema record_local_logs_schema;
MUST_CHECK int record_add_local_logger(struct param_object *params, bool is_validating);
/** Writes out and closes every segment, stops the disk monitor. Blocks, or yields in a fiber; at shutdown,
 * after the last record. When the disk refuses the last records for two seconds, they are given up with their
 * number in the log. */
void record_stop(void);
