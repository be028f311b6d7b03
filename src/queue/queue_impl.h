/* queue_impl.h - what the files of this folder share: the structs, the locks and their order.
 *
 * Locks, outermost first: registry (sched or ready) > sched_queue.lock > ready_queue.lock, resolvers > timer
 * lock. None is held across a yield. A message is in exactly one place: in the hands of a fiber, in
 * sched_queue.parked (due, waiting for a route or room), in a ready_queue.fifo, or in the timer wheel.
 * message.link belongs to that place and is guarded by its lock; message.queue is set from insertion to the
 * end and keeps the sched_queue alive through its n_messages. */
#pragma once

#include "base/map.h"
#include "base/metric.h"
#include "fiber/worker.h"
#include "template/template.h"
#include "policy/policy.h"
#include "queue/deliverer.h"
#include "queue/queue.h"
#include "queue/retry.h"
#include "queue/wheel.h"

#include <pthread.h>
#include <stdlib.h>

struct queue_globals {
	struct spool *spool;
	const char *hostname;
	wall_t started_at; /* nothing has waited for its turn since longer */
	const struct deliverer *smtp;
	size_t body_budget_bytes; /* of all bodies in memory: over it, messages that wait give theirs back */
	_Atomic bool is_stopping;
	_Atomic uint64_t n_sessions;
};
extern struct queue_globals queue_g;

/** Two series that move together: one queue's and the roll-up of its protocol. */
struct metric_pair {
	struct metric_series *own, *rollup;
};
struct queue_metrics {
	struct metric_pair connections, connections_total, ready, delivered, transfail, fail;
	struct metric_series *full;
};
void queue_metrics_init(struct queue_metrics *m, const char *protocol, const char *ready_name);
void queue_metrics_fini(struct queue_metrics *m);
static inline void metric_pair_add(struct metric_pair *p, int64_t v)
{
	metric_add(p->own, v);
	metric_add(p->rollup, v);
}
void queue_metrics_full(struct queue_metrics *m); /* a message found no room */
/** What a scheduled queue's messages count in; NULL: its name has no tenant, or no campaign. */
struct sched_metrics {
	struct metric_series *queue, *domain, *tenant, *tenant_campaign, *queues;
};
void sched_metrics_init(struct sched_metrics *m, const char *queue_name, const struct queue_name *part);
void sched_metrics_fini(struct sched_metrics *m);
void sched_metrics_add(struct sched_metrics *m, int64_t n_messages);
struct metric_series *queue_metric_scheduled_total(void);

/* --- ready queues --- */
struct ready_queue {
	_Atomic uint32_t refs; /* the registry's, each route's, each session's */
	char *name;	       /* source->site@protocol */
	char *domain, *site;   /* arguments of get_egress_path_config */
	const struct deliverer *deliverer;
	struct queue_metrics metrics;

	pthread_mutex_t lock;
	struct param_object *source,
		*config;	 /* EgressSource; the QueueConfig whose mx_list it serves: the latest ones */
	const struct dns_mx *mx; /* NULL with an mx_list */
	struct list fifo;	 /* messages */
	size_t n_fifo;
	struct list sessions;
	uint32_t n_sessions;
	uint32_t n_busy;    /* of them with a message in hand */
	uint32_t n_leaving; /* of them at their goodbye: they take no message any more */
	struct list idle_sessions;
	struct list starved;	   /* struct starve: queues with parked messages that wait for room here */
	struct param_object *path; /* EgressPath */
	mono_t path_expires;
	uint64_t path_epoch;
	uint32_t n_failed_plans; /* in a row */
	mono_t idle_since;
};
/** Finds or makes it (asks for its path: yields). A new reference. */
MUST_CHECK struct ready_queue *ready_queue_get(const struct deliverer *d, const char *domain,
					       struct param_object *source, const char *site,
					       struct param_object *config, const struct dns_mx *mx,
					       mono_t deadline);
struct ready_queue *ready_queue_ref(struct ready_queue *rq);
void ready_queue_unref(struct ready_queue *rq);
/** Takes m (due, in no list) unless the queue is full, or others have waited for room in it: then false.
 * Starts or wakes a session. is_turn: m's queue is the one whose turn among those has come. */
bool ready_queue_push(struct ready_queue *rq, struct message *m, bool is_turn);
void ready_queue_push_front(struct ready_queue *rq,
			    struct message *m); /* back from a session: never refused */
/** A scheduled queue that waits for room in a ready queue:
 * linked there, and held by the route it belongs to. */
struct starve {
	_Atomic uint32_t refs;
	_Atomic bool is_linked;
	struct sched_queue *q; /* a reference while linked */
	struct list link;      /* ready_queue.starved, under its lock */
};
void starve_unref(struct starve *s);
/** Registers q to be pumped when there is room. False: there is room by now. */
bool ready_queue_add_starved(struct ready_queue *rq, struct starve *s, struct sched_queue *q);
/** Pumps the queues that wait for room, while there is room. Holds no lock. */
void ready_queue_feed(struct ready_queue *rq);
/** Empties the fifo into out. */
void ready_queue_take_all(struct ready_queue *rq, struct list *out);
struct deferred_take;
void ready_queues_take_deferred(struct deferred_take *t);
/** Refreshes expired paths and forgets queues that have been idle for 10 minutes. Yields. */
void ready_queues_maintain(mono_t deadline);
void ready_queues_stop(void); /* wakes every idle session */
uint64_t ready_queues_count_messages(void);
void ready_queues_free_all(void);

/* --- sessions --- */
struct session {
	struct ready_queue *rq; /* a reference */
	struct uuid id;
	struct param_object *path;	      /* a reference; that of the message in hand */
	struct param_object *source, *config; /* references; those of the start */
	const struct dns_mx *mx;	      /* a reference; NULL with an mx_list */
	struct list link;		      /* rq->sessions */
	struct list idle_link;		      /* rq->idle_sessions, or nowhere */
	struct event *wake;		      /* while idle */
	struct message *handed;		      /* given while idle; under rq->lock */
	bool is_busy, is_leaving;
};
/** With rq->lock held: starts as many sessions as the load asks for. */
void session_spawn_locked(struct ready_queue *rq);

/* --- scheduled queues --- */
struct route {
	struct ready_queue *rq;
	uint32_t weight;
	int64_t current;       /* smooth weighted round robin */
	struct starve *starve; /* a reference */
};
struct sched_queue {
	_Atomic uint32_t refs;
	char *name;
	struct queue_name part; /* slices of name */
	bool is_null;
	struct sched_metrics scheduled;

	pthread_mutex_t lock;
	struct param_object *config; /* QueueConfig */
	mono_t config_expires;
	uint64_t config_epoch;
	struct template *maildir_path; /* compiled, of config; only for the resolver fiber */
	size_t n_messages;	       /* everything that belongs here, wherever it is */
	struct list parked;
	size_t n_parked;
	bool is_resolving;	  /* a resolver fiber is at work, or will be: resolve_link */
	struct list resolve_link; /* resolve.c's */
	struct route *route;
	size_t n_routes;
	mono_t routes_expire;
	uint64_t routes_epoch;
	mono_t empty_since;
};
/** Moves parked messages on: into ready queues, or starts the resolver. turn: the ready queue that has room
 * for this one now (ready_queue_push), or NULL. */
void sched_queue_pump(struct sched_queue *q, const struct ready_queue *turn);
/** m (in no list) is due: it goes on. */
void sched_queue_make_due(struct sched_queue *q, struct message *m);
void sched_queue_ref(struct sched_queue *q);
/** Takes over the array and its references; the old routes are dropped. */
void sched_queue_set_routes(struct sched_queue *q, struct route *route, size_t n, mono_t expire,
			    uint64_t epoch);
/** When m would be tried if it were given to its queue `now`; that, if at once. */
wall_t sched_queue_due_of(const struct message *m, wall_t now);
/** m has come to its end: forgets it and drops the queue's reference to it. */
void sched_queue_finish(struct sched_queue *q, struct message *m);
/** m leaves for another queue: q forgets it. */
void sched_queue_leave(struct sched_queue *q, struct message *m);
struct param_object *sched_queue_config(struct sched_queue *q); /* a new reference */
void sched_queues_maintain(void);
void sched_queues_take_deferred(struct deferred_take *t);
void sched_queues_free_all(void);
void sched_queue_requeue_parked(struct sched_queue *q,
				const struct smtp_response *r); /* all parked fail transiently; yields */

/** The configuration of queues that are not asked about, a new reference; NULL: they are (internal.c). */
struct param_object *internal_queue_config(str_t domain);

/* --- the way out of a queue: resolve.c --- */
/** With q->lock held and q->is_resolving just set: has a resolver fiber find routes, or deliver into
 * maildirs, and pump. */
void resolve_start(struct sched_queue *q);
void resolve_drop_all(void);

/* --- timer.c --- */
void timer_start(void);
void timer_stop(void);
void timer_insert(struct message *m); /* by m->due */
uint64_t timer_count(void);
void timer_take_deferred(struct deferred_take *t);
void timer_drop_all(void);

/* --- outcome.c: what a delivery attempt does to a message --- */
struct outcome {
	struct sched_queue *q;
	const char *ready_name; /* NULL: the attempt never reached a ready queue */
	const char *pool, *source, *protocol_name, *provider; /* NULL: null in the record */
	const struct uuid *session_id;
	const struct session_peer *peer;
	struct queue_metrics *metrics; /* NULL: not counted */
};
/** Records the answers and ends or requeues m, consuming the reference. Recipients with a NULL answer go back
 * without increment (through `back`, if every remaining one is such). Yields. */
void outcome_apply(const struct outcome *o, struct message *m, const struct smtp_response *const *by_rcpt,
		   struct ready_queue *back);
/** Ends the recipients with a final answer, unless all have one; m and by_rcpt lose them. */
void outcome_settle(const struct outcome *o, struct message *m, const struct smtp_response **by_rcpt);
void outcome_apply_all(const struct outcome *o, struct message *m, const struct smtp_response *r);
/** Gives a stored message to q, as sched_queue_insert does; one whose schedule says that its first attempt
 * would come too late ends instead, with an Expiration record. Takes over the reference. Yields. */
void outcome_admit(struct sched_queue *q, struct message *m);
/** A message that is going to wait gives its body back while all bodies in memory are over the budget. */
void outcome_shed_body(struct message *m);
/** The text of a Delayed record. */
void outcome_delayed_text(const char *reasons, wall_t now, wall_t due, struct buf *out);
/** m's turn has come: true when it may be tried. False when its hours have ended or its time has run out
 * while it waited for room: then it waits in the wheel again, or has ended. Yields: writes a record. */
MUST_CHECK bool outcome_begin(struct message *m);
/** The end of a message that was never in a queue, with an
 * Expiration record. Consumes the reference. Yields. */
void outcome_give_up(struct message *m, const struct smtp_response *r);
void outcome_record(const struct outcome *o, struct message *m, enum record_type type,
		    const struct smtp_response *r, const char *const *rcpt, size_t n_rcpt);

/* --- deferred.c --- */
#define DEFERRED_NEVER_FITS 1
/** Counts them in. -1 ERR_LIMIT: there are too many already, none is; DEFERRED_NEVER_FITS: nor would they be
 * when there are none. */
MUST_CHECK int deferred_add(struct message *const *m, size_t n);
/** m is stored, or has come to its end. */
void deferred_forget(struct message *m);
/** What the spool is to know of m, which the caller has in hand: updates it, or stores it if it was deferred
 * (yields then). */
void deferred_keep(struct message *m);
/** The same at its end. */
void deferred_remove(struct message *m);
/** Stores what waits in the queues. Yields. */
void deferred_save_all(mono_t deadline);
/** Has them stored, by a fiber, if there are so many that they should. Any thread. */
void deferred_start(void);
void deferred_reset(void); /* after the last message is gone */
void deferred_get_totals(struct queue_totals *out);
struct deferred_take {
	struct list messages; /* in the hands of the caller, who gives them back (sched_queue_make_due,
				 timer_insert) */
	size_t n, n_bytes;
	bool is_full;
};
/** Takes what is deferred from a list whose lock is held, until it is full. Returns how many. */
size_t deferred_take_from(struct deferred_take *t, struct list *messages);

/* --- deliver_maildir.c --- */
/** Delivers m to every recipient's maildir and reports. Consumes the reference. Yields. */
void maildir_deliver(struct sched_queue *q, struct message *m, const struct queue_config *cfg,
		     const struct template *path);

#define QUEUE_LOG "kumod::queue"
