/* out_impl.h - what the files of the SMTP client share. */
#pragma once

#include "base/alloc.h"
#include "base/err.h"
#include "net/sock.h"
#include "queue/deliverer.h"
#include "smtp/reply.h"

#include <stdlib.h>

/** An address to try. */
struct out_candidate {
	str_t name;	      /* MX host; memory of the plan */
	struct net_addr addr; /* with the port */
};
struct out_plan {
	struct out_candidate *v;
	size_t n;
	char **names; /* owns what candidates point into */
	size_t n_names;
};
/** Where to connect, in order. Yields. 0; or -1 after *r says why nothing of the queue can be delivered now:
 * r->content is written into text. -1 with r->code 0: cancelled. */
MUST_CHECK int out_plan_make(struct session *s, struct out_plan *p, struct smtp_response *r,
			     struct buf *text);
void out_plan_fini(struct out_plan *p);

/** One connection and what the peer said it can do. */
struct out_conn {
	struct session *s;
	struct stream *st; /* NULL: none */
	const struct out_candidate *to;
	bool has_pipelining, has_8bitmime, has_smtputf8, has_size;
	uint64_t max_size_bytes; /* with has_size; 0: no limit was named */
	uint32_t n_transactions;
	bool needs_rset;      /* the last transaction did not end in an accepted message */
	bool is_ehlo_unknown; /* answered as an unknown command */
	struct smtp_reply reply;
	struct buf out; /* commands being built */
	char addr_text[NET_ADDR_STRLEN], source_text[NET_ADDR_STRLEN];
};
/** Connects, reads the banner, says EHLO (or HELO, LHLO). Yields. -1: the error says what failed; nothing is
 * left open. */
MUST_CHECK int out_conn_open(struct out_conn *c, const struct out_candidate *to);
void out_conn_close(struct out_conn *c); /* at once */
void out_conn_quit(struct out_conn *c);	 /* QUIT, and waits for its answer; yields */
void out_conn_fini(struct out_conn *c);
struct session_peer out_conn_peer(struct out_conn *c);

/** Appends the address as the peer gets it. */
void out_add_address(const char *address, struct buf *out);
/** Whether SMTPUTF8 is to be announced where it is offered. The body is in memory. */
bool out_message_is_utf8(const struct message *m);
/** What the peer cannot take is refused here, permanently: false, and *r, when it is so. */
bool out_message_is_possible(const struct out_conn *c, const struct message *m, struct smtp_response *r);

/** What came of a transaction, as far as the connection is concerned. */
enum out_result {
	OUT_DONE,      /* reported; the connection stands */
	OUT_BROKEN,    /* reported; the connection is of no more use */
	OUT_TRANSPORT, /* m is still ours, logged as a transport failure: another host may be tried */
	OUT_STALE,     /* m is still ours, untouched: the kept connection was of no more use */
	OUT_CANCELLED, /* m was given back */
};
/** A message to all its recipients, as far as the connection carries. Consumes m unless OUT_STALE, or
 * OUT_TRANSPORT, which is only returned when is_retry_wanted. Yields. */
enum out_result out_deliver(struct out_conn *c, struct message *m, bool is_retry_wanted);
