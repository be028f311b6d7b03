/* in_trace.c - the hub between sessions and tracers (in_trace.h).
 *
 * A session shows what it does in its own fiber, on any worker; a tracer takes it on its own worker. Between
 * them is a queue of each tracer under the hub's mutex, which is held for a walk through the tracers and
 * never while JSON is written: a session asks first who wants to see the event and in which form, writes each
 * form that is wanted once, and then hands it to those. An event is refcounted, so that many tracers share
 * it. A tracer that says later what it wants to see gets both forms until then.
 *
 * A queue is bounded in events and in bytes. When it is full the oldest are dropped and counted. A mail wakes
 * the tracer's worker when its queue is no longer empty; it holds a reference to the tracer, which may be
 * gone by then.
 *
 * The hub is the observer of sessions (in_set_observer) while there is a tracer, and is static: a session
 * that still sees it as one finds an empty list. */
#include "smtp/in_impl.h"

#include "fiber/worker.h"
#include "smtp/in_trace.h"
#include "smtp/in_trace_impl.h"

#include <pthread.h>

enum {
	TRACE_MAX_EVENTS = 8192, /* a power of two */
	TRACE_MAX_BYTES = 8 << 20,
};

struct trace_event {
	_Atomic unsigned refs;
	struct net_addr peer; /* len 0: unknown, and nobody's filter holds against it */
	struct buf form[2];   /* whole, terse; empty: nobody wanted it */
	bool is_same;	      /* there is no other form than the whole one */
};

struct in_tracer {
	_Atomic unsigned refs;
	struct worker *worker;
	/* Of the worker. */
	void (*wake)(void *arg); /* NULL: it is gone */
	void *arg;
	struct trace_event *taken; /* what in_tracer_take has returned */
	struct buf lag;		   /* or this */
	struct mail mail;	   /* to the worker, while is_mailed */
	/* Under trace_hub.lock. */
	struct list link;
	bool is_filtered;
	bool is_terse; /* once is_filtered */
	struct cidr_set source_addr;
	bool is_mailed;
	size_t first, n, n_bytes; /* of ring */
	uint64_t n_missed;	  /* since it was told so */
	struct trace_event *ring[TRACE_MAX_EVENTS];
};

static void trace_see(struct in_observer *o, struct in_conn *conn, const struct in_seen *what);

static struct {
	pthread_mutex_t lock;
	struct list tracers;
	size_t n;
	struct in_observer observer;
} trace_hub = {.lock = PTHREAD_MUTEX_INITIALIZER,
	       .tracers = {&trace_hub.tracers, &trace_hub.tracers},
	       .observer = {.see = trace_see}};

/* --- events --- */

static void trace_event_unref(struct trace_event *e)
{
	if (e == NULL || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
		return;
	buf_fini(&e->form[false]);
	buf_fini(&e->form[true]);
	free(e);
}

static size_t trace_event_bytes(const struct trace_event *e)
{
	return sizeof(*e) + e->form[false].cap + e->form[true].cap;
}

static bool trace_matches(const struct in_tracer *t, const struct net_addr *peer)
{
	return t->source_addr.n == 0 || peer->len == 0 || cidr_set_has(&t->source_addr, peer);
}

/* --- a queue, under the lock --- */

static struct trace_event *trace_pop(struct in_tracer *t)
{
	struct trace_event *e = t->ring[t->first];
	t->first = (t->first + 1) % TRACE_MAX_EVENTS;
	t->n--;
	t->n_bytes -= trace_event_bytes(e);
	return e;
}

static void trace_push(struct in_tracer *t, struct trace_event *e)
{
	size_t n_bytes = trace_event_bytes(e);
	while (t->n > 0 && (t->n == TRACE_MAX_EVENTS || t->n_bytes + n_bytes > TRACE_MAX_BYTES)) {
		trace_event_unref(trace_pop(t));
		t->n_missed++;
	}
	if (n_bytes > TRACE_MAX_BYTES) {
		t->n_missed++;
		return;
	}
	atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
	t->ring[(t->first + t->n++) % TRACE_MAX_EVENTS] = e;
	t->n_bytes += n_bytes;
}

/* --- from the session's side --- */

/* Whom the event is about: what the filters go by. */
static void trace_peer_of(const struct in_conn *conn, struct net_addr *peer)
{
	struct buf scratch = BUF_INIT;
	str_t text;
	*peer = (struct net_addr){.len = 0};
	if (meta_get_str(&conn->meta, STR("received_from"), &scratch, &text) &&
	    net_addr_parse(text, peer) != 0) {
		err_clear(); /* the policy has put something else there */
		*peer = (struct net_addr){.len = 0};
	}
	buf_fini(&scratch);
}

/* wanted[is_terse]: somebody wants that form. */
static void trace_ask(const struct net_addr *peer, bool wanted[2])
{
	pthread_mutex_lock(&trace_hub.lock);
	for (struct list *l = trace_hub.tracers.next; l != &trace_hub.tracers; l = l->next) {
		const struct in_tracer *t = list_entry(l, struct in_tracer, link);
		if (!trace_matches(t, peer))
			continue;
		wanted[false] |= !t->is_filtered || !t->is_terse;
		wanted[true] |= !t->is_filtered || t->is_terse;
	}
	pthread_mutex_unlock(&trace_hub.lock);
}

static void trace_on_mail(void *arg);

static void trace_hand_out(struct trace_event *e)
{
	pthread_mutex_lock(&trace_hub.lock);
	for (struct list *l = trace_hub.tracers.next; l != &trace_hub.tracers; l = l->next) {
		struct in_tracer *t = list_entry(l, struct in_tracer, link);
		bool is_whole = e->form[false].n > 0, is_terse = e->is_same || e->form[true].n > 0;
		if (!trace_matches(t, &e->peer))
			continue;
		if (t->is_filtered ? !(t->is_terse ? is_terse : is_whole) : !(is_terse && is_whole))
			continue; /* it has come since the question */
		trace_push(t, e);
		if (t->is_mailed)
			continue;
		t->is_mailed = true;
		atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
		t->mail = (struct mail){.fn = trace_on_mail, .arg = t};
		worker_post_mail(t->worker, &t->mail);
	}
	pthread_mutex_unlock(&trace_hub.lock);
}

static void trace_see(struct in_observer *o, struct in_conn *conn, const struct in_seen *what)
{
	struct net_addr peer;
	bool wanted[2] = {false, false};
	wall_t when = wall_now();
	trace_peer_of(conn, &peer);
	trace_ask(&peer, wanted);
	if (!wanted[false] && !wanted[true])
		return;
	struct trace_event *e = xnew(struct trace_event);
	atomic_init(&e->refs, 1);
	e->peer = peer;
	e->is_same = !in_trace_is_abbreviated(what);
	if (wanted[false] || e->is_same)
		in_trace_write(conn, what, when, false, &e->form[false]);
	if (wanted[true] && !e->is_same)
		in_trace_write(conn, what, when, true, &e->form[true]);
	trace_hand_out(e);
	trace_event_unref(e);
}

/* --- from the tracer's side --- */

static void in_tracer_unref(struct in_tracer *t)
{
	if (atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	cidr_set_fini(&t->source_addr);
	buf_fini(&t->lag);
	free(t);
}

static void trace_on_mail(void *arg)
{
	struct in_tracer *t = arg;
	pthread_mutex_lock(&trace_hub.lock);
	t->is_mailed = false;
	pthread_mutex_unlock(&trace_hub.lock);
	if (t->wake != NULL)
		t->wake(t->arg);
	in_tracer_unref(t);
}

const char *in_tracer_why_not(void)
{
	pthread_mutex_lock(&trace_hub.lock);
	bool is_full = trace_hub.n >= IN_TRACE_MAX_TRACERS;
	pthread_mutex_unlock(&trace_hub.lock);
	return is_full ? "there are as many tracers as there may be" : NULL;
}

struct in_tracer *in_tracer_new(void (*wake)(void *arg), void *arg)
{
	struct in_tracer *t = xnew(struct in_tracer);
	atomic_init(&t->refs, 1);
	t->worker = worker_self();
	t->wake = wake;
	t->arg = arg;
	pthread_mutex_lock(&trace_hub.lock);
	bool is_in = trace_hub.n < IN_TRACE_MAX_TRACERS;
	if (is_in) {
		list_push_back(&trace_hub.tracers, &t->link);
		if (trace_hub.n++ == 0)
			in_set_observer(&trace_hub.observer);
	}
	pthread_mutex_unlock(&trace_hub.lock);
	if (is_in)
		return t;
	in_tracer_unref(t);
	err_set(ERR_LIMIT, "there are %d tracers already", IN_TRACE_MAX_TRACERS);
	return NULL;
}

void in_tracer_free(struct in_tracer *t)
{
	if (t == NULL)
		return;
	pthread_mutex_lock(&trace_hub.lock);
	list_remove(&t->link);
	if (--trace_hub.n == 0)
		in_set_observer(NULL);
	while (t->n > 0)
		trace_event_unref(trace_pop(t));
	pthread_mutex_unlock(&trace_hub.lock);
	t->wake = NULL;
	trace_event_unref(t->taken);
	t->taken = NULL;
	in_tracer_unref(t);
}

void in_tracer_set_filter(struct in_tracer *t, const struct cidr_set *source_addr, bool is_terse)
{
	pthread_mutex_lock(&trace_hub.lock);
	cidr_set_copy(&t->source_addr, source_addr);
	t->is_filtered = true;
	t->is_terse = is_terse;
	for (size_t n = t->n; n > 0; n--) {
		struct trace_event *e = trace_pop(t);
		if (trace_matches(t, &e->peer))
			trace_push(t, e);
		trace_event_unref(e);
	}
	pthread_mutex_unlock(&trace_hub.lock);
}

/* Under the lock: what was missed comes before what was kept. */
static bool trace_take_lag(struct in_tracer *t, uint64_t *n_missed)
{
	*n_missed = t->n_missed;
	t->n_missed = 0;
	return *n_missed != 0;
}

bool in_tracer_take(struct in_tracer *t, str_t *json)
{
	uint64_t n_missed;
	trace_event_unref(t->taken);
	t->taken = NULL;
	pthread_mutex_lock(&trace_hub.lock);
	bool has_missed = trace_take_lag(t, &n_missed);
	if (!has_missed && t->n > 0)
		t->taken = trace_pop(t);
	bool is_terse = t->is_filtered && t->is_terse;
	pthread_mutex_unlock(&trace_hub.lock);
	if (has_missed) {
		buf_clear(&t->lag);
		in_trace_write_lag(n_missed, wall_now(), &t->lag);
		*json = buf_str(&t->lag);
	} else if (t->taken != NULL) {
		*json = buf_str(&t->taken->form[is_terse && !t->taken->is_same]);
	}
	return has_missed || t->taken != NULL;
}
