/* ready.c - ready queues: one per egress source and site; the messages that may be delivered now, bounded by
 * max_ready, and the sessions that deliver them. A push hands the message straight to an idle session, or
 * appends it and starts a session if the load asks for one (session.c). When the queue has drained to half,
 * the scheduled queues that wait for room are pumped, each in its turn; while some wait, nobody else is let
 * in, so that none waits for ever. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "queue/queue_impl.h"

#define IDLE_LIFE dur_s(600)
#define REFRESH_TIMEOUT dur_s(30)

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry; /* name -> struct ready_queue; the registry holds a reference */

static const struct egress_path *ready_queue_path(const struct ready_queue *rq)
{
	return (const void *)rq->path->data;
}

struct ready_queue *ready_queue_ref(struct ready_queue *rq)
{
	atomic_fetch_add_explicit(&rq->refs, 1, memory_order_relaxed);
	return rq;
}

void ready_queue_unref(struct ready_queue *rq)
{
	if (rq == NULL || atomic_fetch_sub_explicit(&rq->refs, 1, memory_order_acq_rel) != 1)
		return;
	queue_metrics_fini(&rq->metrics);
	param_object_unref(rq->path);
	param_object_unref(rq->source);
	param_object_unref(rq->config);
	if (rq->mx != NULL)
		dns_mx_unref(rq->mx);
	pthread_mutex_destroy(&rq->lock);
	free(rq->name);
	free(rq->domain);
	free(rq->site);
	free(rq);
}

static struct ready_queue *ready_queue_find(str_t name)
{
	pthread_mutex_lock(&registry_lock);
	struct ready_queue *rq = map_find(&registry, name);
	if (rq != NULL)
		ready_queue_ref(rq);
	pthread_mutex_unlock(&registry_lock);
	return rq;
}

static struct ready_queue *ready_queue_new(const struct deliverer *d, const char *name, const char *domain,
					   struct param_object *source, const char *site,
					   struct param_object *config, struct param_object *path,
					   uint64_t epoch)
{
	struct ready_queue *rq = xnew(struct ready_queue);
	atomic_init(&rq->refs, 1);
	rq->name = xstrdup(name);
	rq->domain = xstrdup(domain);
	rq->site = xstrdup(site);
	rq->deliverer = d;
	rq->source = param_object_ref(source);
	rq->config = param_object_ref(config);
	queue_metrics_init(&rq->metrics, rq->deliverer->protocol, rq->name);
	pthread_mutex_init(&rq->lock, NULL);
	list_init(&rq->fifo);
	list_init(&rq->sessions);
	list_init(&rq->idle_sessions);
	list_init(&rq->starved);
	rq->path = path;
	rq->path_expires = mono_after(ready_queue_path(rq)->refresh_interval);
	rq->path_epoch = epoch;
	rq->idle_since = mono_now();
	return rq;
}

/** What is behind the names may have changed since the queue was made: sessions that start from now on use
 * the latest. Takes over the reference to mx. */
static void ready_queue_update(struct ready_queue *rq, struct param_object *source,
			       struct param_object *config, const struct dns_mx *mx)
{
	pthread_mutex_lock(&rq->lock);
	struct param_object *old_source = rq->source, *old_config = rq->config;
	const struct dns_mx *old_mx = rq->mx;
	rq->source = param_object_ref(source);
	rq->config = param_object_ref(config);
	rq->mx = mx;
	pthread_mutex_unlock(&rq->lock);
	param_object_unref(old_source);
	param_object_unref(old_config);
	if (old_mx != NULL)
		dns_mx_unref(old_mx);
}

struct ready_queue *ready_queue_get(const struct deliverer *d, const char *domain,
				    struct param_object *source, const char *site,
				    struct param_object *config, const struct dns_mx *mx, mono_t deadline)
{
	const struct egress_source *src = (const void *)source->data;
	char *name = xasprintf("%s->%s@%s", src->name, site, d->protocol);
	struct ready_queue *rq = ready_queue_find(str_of(name)), *fresh = NULL;
	if (rq == NULL) {
		uint64_t epoch = policy_epoch();
		struct param_object *path =
			egress_get_path(str_of(domain), str_of(src->name), str_of(site), deadline);
		if (path == NULL)
			goto out;
		fresh = ready_queue_new(d, name, domain, source, site, config, path, epoch);
		pthread_mutex_lock(&registry_lock);
		rq = map_find(&registry, str_of(name));
		if (rq == NULL) {
			rq = fresh;
			fresh = NULL;
			map_put(&registry, str_of(rq->name), rq);
		}
		ready_queue_ref(rq);
		pthread_mutex_unlock(&registry_lock);
	}
	ready_queue_update(rq, source, config, mx);
	mx = NULL;
out:
	ready_queue_unref(fresh);
	if (mx != NULL)
		dns_mx_unref(mx);
	free(name);
	return rq;
}

/** With rq->lock held: m goes to a session that waits, or nowhere (false). */
static bool ready_queue_hand_over_locked(struct ready_queue *rq, struct message *m)
{
	struct list *n = list_pop_front(&rq->idle_sessions);
	if (n == NULL)
		return false;
	struct session *s = list_entry(n, struct session, idle_link);
	s->handed = m;
	s->is_busy = true;
	rq->n_busy++;
	event_fire(s->wake);
	return true;
}

bool ready_queue_push(struct ready_queue *rq, struct message *m, bool is_turn)
{
	pthread_mutex_lock(&rq->lock);
	bool has_room = rq->n_fifo < (size_t)ready_queue_path(rq)->max_ready &&
			(is_turn || list_is_empty(&rq->starved));
	bool is_taken = has_room && ready_queue_hand_over_locked(rq, m);
	if (has_room && !is_taken) {
		outcome_shed_body(m);
		list_push_back(&rq->fifo, &m->link);
		rq->n_fifo++;
		metric_pair_add(&rq->metrics.ready, 1);
		session_spawn_locked(rq);
		is_taken = true;
	}
	pthread_mutex_unlock(&rq->lock);
	if (!is_taken)
		queue_metrics_full(&rq->metrics);
	return is_taken;
}

void ready_queue_push_front(struct ready_queue *rq, struct message *m)
{
	pthread_mutex_lock(&rq->lock);
	if (!ready_queue_hand_over_locked(rq, m)) {
		list_push_front(&rq->fifo, &m->link);
		rq->n_fifo++;
		metric_pair_add(&rq->metrics.ready, 1);
		session_spawn_locked(rq);
	}
	pthread_mutex_unlock(&rq->lock);
}

void starve_unref(struct starve *s)
{
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1)
		free(s);
}

bool ready_queue_add_starved(struct ready_queue *rq, struct starve *s, struct sched_queue *q)
{
	if (atomic_exchange(&s->is_linked, true))
		return true;
	pthread_mutex_lock(&rq->lock);
	/* Behind others that wait there is no room either; whoever feeds them comes to this one too. */
	bool is_full =
		rq->n_fifo > (size_t)ready_queue_path(rq)->max_ready / 2 || !list_is_empty(&rq->starved);
	if (is_full) {
		sched_queue_ref(q);
		s->q = q;
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
		list_push_back(&rq->starved, &s->link);
	} else {
		atomic_store(&s->is_linked, false);
	}
	pthread_mutex_unlock(&rq->lock);
	return is_full;
}

void ready_queue_feed(struct ready_queue *rq)
{
	for (;;) {
		pthread_mutex_lock(&rq->lock);
		struct list *n = rq->n_fifo <= (size_t)ready_queue_path(rq)->max_ready / 2
					 ? list_pop_front(&rq->starved)
					 : NULL;
		pthread_mutex_unlock(&rq->lock);
		if (n == NULL)
			return;
		struct starve *s = list_entry(n, struct starve, link);
		struct sched_queue *q = s->q;
		atomic_store(&s->is_linked, false);
		sched_queue_pump(q, rq);
		sched_queue_unref(q);
		starve_unref(s);
	}
}

void ready_queue_take_all(struct ready_queue *rq, struct list *out)
{
	pthread_mutex_lock(&rq->lock);
	list_splice_back(out, &rq->fifo);
	metric_pair_add(&rq->metrics.ready, -(int64_t)rq->n_fifo);
	rq->n_fifo = 0;
	pthread_mutex_unlock(&rq->lock);
}

void ready_queues_take_deferred(struct deferred_take *t)
{
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	while (!t->is_full && map_next(&registry, &pos, &key, &value)) {
		struct ready_queue *rq = value;
		pthread_mutex_lock(&rq->lock);
		size_t n = deferred_take_from(t, &rq->fifo);
		rq->n_fifo -= n;
		metric_pair_add(&rq->metrics.ready, -(int64_t)n);
		pthread_mutex_unlock(&rq->lock);
	}
	pthread_mutex_unlock(&registry_lock);
}

/** Asks for the path again; a failure keeps the old one. */
static void ready_queue_refresh(struct ready_queue *rq, mono_t deadline)
{
	pthread_mutex_lock(&rq->lock);
	struct param_object *source = param_object_ref(rq->source);
	pthread_mutex_unlock(&rq->lock);
	const struct egress_source *src = (const void *)source->data;
	uint64_t epoch = policy_epoch();
	struct param_object *path =
		egress_get_path(str_of(rq->domain), str_of(src->name), str_of(rq->site), deadline);
	param_object_unref(source);
	if (path == NULL) {
		struct err e = err_take();
		log_error(QUEUE_LOG, "%s: refreshing the egress path failed, the old one stays: %s", rq->name,
			  e.text);
		err_fini(&e);
		path = param_object_ref(rq->path);
	}
	pthread_mutex_lock(&rq->lock);
	struct param_object *old = rq->path;
	rq->path = path;
	rq->path_expires = mono_after(ready_queue_path(rq)->refresh_interval);
	rq->path_epoch = epoch;
	session_spawn_locked(rq); /* the limit may have been raised */
	pthread_mutex_unlock(&rq->lock);
	param_object_unref(old);
}

static bool ready_queue_needs_refresh(const struct ready_queue *rq)
{
	if (rq->path_epoch != policy_epoch())
		return true;
	return ready_queue_path(rq)->refresh_strategy == REFRESH_TTL && mono_is_past(rq->path_expires);
}

void ready_queues_maintain(mono_t deadline)
{
	struct ready_queue **todo = NULL;
	size_t n_todo = 0, pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	todo = xcalloc(registry.n + 1, sizeof(struct ready_queue *));
	while (map_next(&registry, &pos, &key, &value)) {
		struct ready_queue *rq = value;
		pthread_mutex_lock(&rq->lock);
		bool is_idle = rq->n_fifo == 0 && rq->n_sessions == 0 && list_is_empty(&rq->starved);
		bool is_dead = is_idle && atomic_load(&rq->refs) == 1 &&
			       mono_is_past(mono_add(rq->idle_since, IDLE_LIFE));
		bool is_stale = !is_idle && ready_queue_needs_refresh(rq);
		bool is_hungry = !list_is_empty(&rq->starved);
		pthread_mutex_unlock(&rq->lock);
		if (is_dead) {
			map_remove(&registry, key);
			ready_queue_unref(rq);
		} else if (is_stale || is_hungry) {
			todo[n_todo++] = ready_queue_ref(rq);
		}
	}
	pthread_mutex_unlock(&registry_lock);
	for (size_t i = 0; i < n_todo; i++) {
		if (ready_queue_needs_refresh(todo[i]) && !atomic_load(&queue_g.is_stopping))
			ready_queue_refresh(todo[i], mono_min(deadline, mono_after(REFRESH_TIMEOUT)));
		ready_queue_feed(todo[i]);
		ready_queue_unref(todo[i]);
	}
	free(todo);
}

void ready_queues_stop(void)
{
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	while (map_next(&registry, &pos, &key, &value)) {
		struct ready_queue *rq = value;
		pthread_mutex_lock(&rq->lock);
		for (struct list *n; (n = list_pop_front(&rq->idle_sessions)) != NULL;)
			event_fire(list_entry(n, struct session, idle_link)->wake);
		pthread_mutex_unlock(&rq->lock);
	}
	pthread_mutex_unlock(&registry_lock);
}

uint64_t ready_queues_count_messages(void)
{
	uint64_t total = 0;
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	while (map_next(&registry, &pos, &key, &value)) {
		struct ready_queue *rq = value;
		pthread_mutex_lock(&rq->lock);
		total += rq->n_fifo;
		pthread_mutex_unlock(&rq->lock);
	}
	pthread_mutex_unlock(&registry_lock);
	return total;
}

void ready_queues_free_all(void)
{
	size_t pos = 0;
	str_t key;
	void *value;
	while (map_next(&registry, &pos, &key, &value)) {
		struct ready_queue *rq = value;
		for (struct list *n; (n = list_pop_front(&rq->fifo)) != NULL;)
			message_unref(list_entry(n, struct message, link));
		metric_pair_add(&rq->metrics.ready, -(int64_t)rq->n_fifo);
		for (struct list *n; (n = list_pop_front(&rq->starved)) != NULL;) {
			struct starve *s = list_entry(n, struct starve, link);
			sched_queue_unref(s->q);
			starve_unref(s);
		}
		map_remove(&registry, key);
		ready_queue_unref(rq);
	}
	map_fini(&registry);
}
