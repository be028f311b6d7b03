/* session.c - the queue's side of a delivery session: a fiber, placed on the least-loaded worker, that runs
 * its deliverer until there is nothing more to do. How many run follows the load: with q messages ready or
 * in hand and a limit of L connections, min(q, ceil(L * min(1 - e^(-0.023 q), q))). A session that finds the
 * queue empty waits in idle_sessions for idle_timeout, and a push hands its message over directly. */
#include "queue/queue_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"

#include <math.h>

const struct egress_path *session_path(const struct session *s)
{
	return (const void *)s->path->data;
}
const struct egress_source *session_source(const struct session *s)
{
	return (const void *)s->source->data;
}
const struct delivery_protocol *session_protocol(const struct session *s)
{
	return &((const struct queue_config *)(const void *)s->config->data)->protocol;
}
const struct dns_mx *session_mx(const struct session *s)
{
	return s->mx;
}
const char *session_ready_queue_name(const struct session *s)
{
	return s->rq->name;
}
const char *session_hostname(const struct session *s)
{
	return queue_g.hostname;
}
bool session_is_stopping(const struct session *s)
{
	return atomic_load(&queue_g.is_stopping) || fiber_is_cancelled();
}

static uint32_t session_target(size_t n_messages, uint32_t limit)
{
	double q = (double)n_messages;
	double share = ceil((double)limit * fmin(1 - exp(-0.023 * q), q));
	return (uint32_t)fmin(q, fmin(share, limit));
}

/** With rq->lock held: it has no message in hand. */
static void session_set_idle_locked(struct session *s)
{
	if (s->is_busy) {
		s->is_busy = false;
		s->rq->n_busy--;
	}
}

static void session_set_path(struct session *s, struct param_object *path)
{
	param_object_unref(s->path);
	s->path = path;
}

static void session_free(struct session *s)
{
	param_object_unref(s->path);
	param_object_unref(s->source);
	param_object_unref(s->config);
	if (s->mx != NULL)
		dns_mx_unref(s->mx);
	ready_queue_unref(s->rq);
	free(s);
}

static void session_fiber(void *arg)
{
	struct session *s = arg;
	struct ready_queue *rq = s->rq;
	metric_pair_add(&rq->metrics.connections, 1);
	metric_pair_add(&rq->metrics.connections_total, 1);
	rq->deliverer->run(s);
	err_clear();
	metric_pair_add(&rq->metrics.connections, -1);

	pthread_mutex_lock(&rq->lock);
	session_set_idle_locked(s);
	list_remove(&s->link);
	if (s->is_leaving)
		rq->n_leaving--;
	if (--rq->n_sessions == 0)
		rq->idle_since = mono_now();
	session_spawn_locked(rq);
	pthread_mutex_unlock(&rq->lock);
	session_free(s);
	atomic_fetch_sub(&queue_g.n_sessions, 1);
}

void session_spawn_locked(struct ready_queue *rq)
{
	if (atomic_load(&queue_g.is_stopping))
		return;
	uint32_t limit = ((const struct egress_path *)(const void *)rq->path->data)->connection_limit.limit;
	uint32_t target = session_target(rq->n_fifo + rq->n_busy, limit);
	while (rq->n_sessions < limit && rq->n_sessions - rq->n_leaving < target &&
	       rq->n_sessions - rq->n_leaving - rq->n_busy < rq->n_fifo) {
		struct session *s = xnew(struct session);
		s->rq = ready_queue_ref(rq);
		s->id = uuid_new_v4();
		s->path = param_object_ref(rq->path);
		s->source = param_object_ref(rq->source);
		s->config = param_object_ref(rq->config);
		s->mx = rq->mx != NULL ? dns_mx_ref(rq->mx) : NULL;
		list_init(&s->idle_link);
		list_push_back(&rq->sessions, &s->link);
		rq->n_sessions++;
		atomic_fetch_add(&queue_g.n_sessions, 1);
		worker_start_fiber(worker_least_loaded(), "session", session_fiber, s);
	}
}

/** With rq->lock held: it will take no message any more. It still holds its connection, so it still counts
 * against the limit. */
static void session_set_leaving_locked(struct session *s)
{
	if (!s->is_leaving) {
		s->is_leaving = true;
		s->rq->n_leaving++;
	}
}

/** Waits in idle_sessions until a message is handed over; NULL after `idle`, or when the process stops. */
static struct message *session_wait(struct session *s, dur_t idle)
{
	struct ready_queue *rq = s->rq;
	if (event_wait(s->wake, mono_after(idle)) != 0)
		err_clear();
	pthread_mutex_lock(&rq->lock);
	list_remove(&s->idle_link); /* harmless when a push took it out */
	struct message *m = s->handed;
	s->handed = NULL;
	if (m == NULL)
		session_set_leaving_locked(s);
	pthread_mutex_unlock(&rq->lock);
	event_unref(s->wake);
	s->wake = NULL;
	return m;
}

static struct message *session_take(struct session *s, dur_t idle)
{
	struct ready_queue *rq = s->rq;
	struct message *m = NULL;
	bool has_room = false;

	pthread_mutex_lock(&rq->lock);
	session_set_idle_locked(s);
	const struct egress_path *path = (const void *)rq->path->data;
	bool is_over = s->is_leaving || session_is_stopping(s) ||
		       rq->n_sessions - rq->n_leaving > path->connection_limit.limit;
	struct list *n = is_over ? NULL : list_pop_front(&rq->fifo);
	if (n != NULL) {
		m = list_entry(n, struct message, link);
		rq->n_fifo--;
		metric_pair_add(&rq->metrics.ready, -1);
		s->is_busy = true;
		rq->n_busy++;
		has_room = !list_is_empty(&rq->starved) && rq->n_fifo <= (size_t)path->max_ready / 2;
	} else if (!is_over && idle.ns > 0) {
		s->wake = event_new();
		list_push_back(&rq->idle_sessions, &s->idle_link);
	} else {
		session_set_leaving_locked(s);
		session_spawn_locked(rq); /* the limit may leave room for another in its place */
	}
	if (s->path != rq->path)
		session_set_path(s, param_object_ref(rq->path));
	pthread_mutex_unlock(&rq->lock);

	if (has_room)
		ready_queue_feed(rq);
	return s->wake != NULL ? session_wait(s, idle) : m;
}

struct message *session_next(struct session *s, dur_t idle)
{
	struct message *m;
	while ((m = session_take(s, idle)) != NULL) {
		if (!outcome_begin(m))
			continue;
		if (m->body != NULL || spool_load_body(queue_g.spool, m, MONO_NEVER) == 0)
			return m;
		if (err_is(ERR_CANCELLED)) {
			err_clear();
			session_return(s, m);
			return NULL;
		}
		struct err e = err_take();
		log_error(QUEUE_LOG, "%s: the body of a message could not be read: %s", s->rq->name, e.text);
		char *text = xasprintf("KumoMTA internal: error in deliver_message: %s", e.text);
		session_done_all(s, m, &(struct smtp_response){.code = 400, .content = str_of(text)}, NULL);
		free(text);
		err_fini(&e);
	}
	return NULL;
}

/** config: of the message's queue; several may share a ready queue. */
static struct outcome session_outcome(struct session *s, const struct message *m,
				      const struct param_object *config, const struct session_peer *peer)
{
	const struct queue_config *cfg = (const void *)config->data;
	const char *provider = session_path(s)->provider_name;
	return (struct outcome){.q = m->queue,
				.ready_name = s->rq->name,
				.pool = cfg->egress_pool != NULL ? cfg->egress_pool : "unspecified",
				.source = session_source(s)->name,
				.protocol_name = s->rq->deliverer->record_name,
				.provider = provider != NULL ? provider : cfg->provider_name,
				.session_id = &s->id,
				.peer = peer,
				.metrics = &s->rq->metrics};
}

void session_done(struct session *s, struct message *m, const struct smtp_response *const *by_rcpt,
		  const struct session_peer *peer)
{
	struct param_object *config = sched_queue_config(m->queue);
	struct outcome o = session_outcome(s, m, config, peer);
	outcome_apply(&o, m, by_rcpt, s->rq);
	param_object_unref(config);
}

void session_settle(struct session *s, struct message *m, const struct smtp_response **by_rcpt,
		    const struct session_peer *peer)
{
	struct param_object *config = sched_queue_config(m->queue);
	struct outcome o = session_outcome(s, m, config, peer);
	outcome_settle(&o, m, by_rcpt);
	param_object_unref(config);
}

void session_done_all(struct session *s, struct message *m, const struct smtp_response *r,
		      const struct session_peer *peer)
{
	struct param_object *config = sched_queue_config(m->queue);
	struct outcome o = session_outcome(s, m, config, peer);
	outcome_apply_all(&o, m, r);
	param_object_unref(config);
}

void session_note_failure(struct session *s, struct message *m, const struct smtp_response *r,
			  const struct session_peer *peer)
{
	struct param_object *config = sched_queue_config(m->queue);
	struct outcome o = session_outcome(s, m, config, peer);
	metric_pair_add(&s->rq->metrics.transfail, 1);
	outcome_record(&o, m, RECORD_TRANSIENT_FAILURE, r, NULL, 0);
	param_object_unref(config);
}

void session_note_bounce(struct session *s, struct message *m, const struct smtp_response *r,
			 const char *rcpt)
{
	struct param_object *config = sched_queue_config(m->queue);
	struct outcome o = session_outcome(s, m, config, NULL);
	metric_pair_add(&s->rq->metrics.fail, 1);
	outcome_record(&o, m, RECORD_BOUNCE, r, &rcpt, 1);
	param_object_unref(config);
}

int session_rebind(struct session *s, struct message *m, mono_t deadline)
{
	struct buf name = BUF_INIT;
	struct sched_queue *from = m->queue, *to = NULL;
	int rc = -1;
	if (message_queue_name(m, &name) == 0)
		to = sched_queue_get(buf_str(&name), deadline);
	if (to == from)
		err_set(ERR_INVALID, "the message is in the queue %s again", sched_queue_name(from));
	if (to == NULL || to == from)
		goto out;
	m->n_attempts = 0;
	m->due = (wall_t){0};
	message_touch(m);
	if (m->is_spooled && spool_save(queue_g.spool, m, deadline) != 0)
		goto out;
	struct outcome o = {.q = to, .protocol_name = s->rq->deliverer->record_name, .session_id = &s->id};
	outcome_record(&o, m, RECORD_DEFERRED_INJECTION_REBIND,
		       &(struct smtp_response){.code = 250, .content = STR("ok")}, NULL, 0);
	sched_queue_leave(from, m);
	outcome_admit(to, m);
	rc = 0;
out:
	sched_queue_unref(to);
	buf_fini(&name);
	return rc;
}

void session_return(struct session *s, struct message *m)
{
	if (!m->is_spooled && session_is_stopping(s))
		deferred_keep(m); /* what waits in the queues may have been stored before this */
	ready_queue_push_front(s->rq, m);
}

void session_fail_queue(struct session *s, struct message *m, const struct smtp_response *r)
{
	struct list all;
	list_init(&all);
	if (m != NULL)
		session_done_all(s, m, r, NULL);
	ready_queue_take_all(s->rq, &all);
	for (struct list *n; (n = list_pop_front(&all)) != NULL;)
		session_done_all(s, list_entry(n, struct message, link), r, NULL);
	ready_queue_feed(s->rq);
}

void session_note_connected(struct session *s)
{
	pthread_mutex_lock(&s->rq->lock);
	s->rq->n_failed_plans = 0;
	pthread_mutex_unlock(&s->rq->lock);
}

bool session_note_plan_failed(struct session *s)
{
	pthread_mutex_lock(&s->rq->lock);
	bool is_too_many =
		s->rq->n_failed_plans++ > session_path(s)->consecutive_connection_failures_before_delay;
	pthread_mutex_unlock(&s->rq->lock);
	return is_too_many;
}
