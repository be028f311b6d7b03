/* sched.c - scheduled queues: one per campaign:tenant@domain, made at first use from get_queue_config, kept
 * while it has messages and for reap_interval after. A message that is due is parked and pumped on: into a
 * ready queue with room, in the order of arrival, sources taking turns by weight. Where no route is known (or
 * it is stale) a resolver fiber finds one (resolve.c) and pumps again; where all ready queues are full, the
 * queue registers with one of them and is pumped when that has room. So a burst waits in order in its own
 * queue instead of coming back at random. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "mail/schedule.h"
#include "queue/queue_impl.h"

struct queue_globals queue_g;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map registry; /* name -> struct sched_queue; the registry holds a reference */

const char *sched_queue_name(const struct sched_queue *q)
{
	return q->name;
}
bool sched_queue_is_null(const struct sched_queue *q)
{
	return q->is_null;
}
void sched_queue_ref(struct sched_queue *q)
{
	atomic_fetch_add_explicit(&q->refs, 1, memory_order_relaxed);
}

static void sched_queue_drop_routes(struct sched_queue *q)
{
	for (size_t i = 0; i < q->n_routes; i++) {
		ready_queue_unref(q->route[i].rq);
		starve_unref(q->route[i].starve);
	}
	free(q->route);
	q->route = NULL;
	q->n_routes = 0;
}

void sched_queue_unref(struct sched_queue *q)
{
	if (q == NULL || atomic_fetch_sub_explicit(&q->refs, 1, memory_order_acq_rel) != 1)
		return;
	sched_queue_drop_routes(q);
	if (q->config != NULL)
		param_object_unref(q->config);
	template_free(q->maildir_path);
	sched_metrics_fini(&q->scheduled);
	pthread_mutex_destroy(&q->lock);
	free(q->name);
	free(q);
}

static struct sched_queue *sched_queue_new(str_t name, struct param_object *config, uint64_t epoch)
{
	struct sched_queue *q = xnew(struct sched_queue);
	atomic_init(&q->refs, 1);
	q->name = str_dup(name);
	queue_name_parse(str_of(q->name), &q->part);
	q->is_null = str_eq(q->part.domain, STR("null"));
	sched_metrics_init(&q->scheduled, q->name, &q->part);
	pthread_mutex_init(&q->lock, NULL);
	q->config = config;
	if (config != NULL)
		q->config_expires = mono_after(((struct queue_config *)config->data)->refresh_interval);
	q->config_epoch = epoch;
	list_init(&q->parked);
	list_init(&q->resolve_link);
	q->empty_since = mono_now();
	return q;
}

/** Looks the name up; the queue cannot be reaped from here to the caller's unref. */
static struct sched_queue *sched_queue_find(str_t name)
{
	pthread_mutex_lock(&registry_lock);
	struct sched_queue *q = map_find(&registry, name);
	if (q != NULL)
		sched_queue_ref(q);
	pthread_mutex_unlock(&registry_lock);
	return q;
}

struct sched_queue *sched_queue_get(str_t name, mono_t deadline)
{
	struct sched_queue *q = sched_queue_find(name);
	if (q != NULL)
		return q;
	struct queue_name part;
	struct param_object *config = NULL;
	/* before the policy is asked: what a bump overtakes is asked for again */
	uint64_t epoch = policy_epoch();
	if (memchr(name.p, 0, name.n) != NULL) {
		err_set(ERR_INVALID, "queue name `" STR_FMT "` contains a NUL byte",
			STR_ARG(str_head(name, strlen(name.p))));
		return NULL;
	}
	queue_name_parse(name, &part);
	if (part.domain.n == 0) {
		err_set(ERR_INVALID, "queue name `" STR_FMT "` has no domain", STR_ARG(name));
		return NULL;
	}
	if (!str_eq(part.domain, STR("null"))) { /* `null` is never asked about */
		config = internal_queue_config(part.domain);
		if (config == NULL)
			config = egress_get_queue_config(part.domain, part.tenant, part.campaign,
							 part.routing_domain, deadline);
		if (config == NULL) {
			if (!err_is(ERR_REJECT)) /* its text is an answer */
				err_wrap("queue `" STR_FMT "`", STR_ARG(name));
			return NULL;
		}
	}
	struct sched_queue *fresh = sched_queue_new(name, config, epoch);
	pthread_mutex_lock(&registry_lock);
	q = map_find(&registry, name); /* somebody may have made it while the policy was asked */
	if (q == NULL) {
		q = fresh;
		fresh = NULL;
		map_put(&registry, str_of(q->name), q);
	}
	sched_queue_ref(q);
	pthread_mutex_unlock(&registry_lock);
	sched_queue_unref(fresh);
	return q;
}

struct param_object *sched_queue_config(struct sched_queue *q)
{
	pthread_mutex_lock(&q->lock);
	struct param_object *c = param_object_ref(q->config);
	pthread_mutex_unlock(&q->lock);
	return c;
}

/** The route whose turn it is among those not yet tried (bit set in `full`), by smooth weighted round robin;
 * or -1. */
static int sched_queue_pick_route(struct sched_queue *q, uint64_t full)
{
	int best = -1;
	int64_t total = 0;
	for (size_t i = 0; i < q->n_routes && i < 64; i++) {
		if (full >> i & 1)
			continue;
		q->route[i].current += q->route[i].weight;
		total += q->route[i].weight;
		if (best < 0 || q->route[i].current > q->route[best].current)
			best = (int)i;
	}
	if (best >= 0)
		q->route[best].current -= total;
	return best;
}

/** With q->lock held: puts m into a ready queue; false when there are no routes or all of them are full. */
static bool sched_queue_route_locked(struct sched_queue *q, struct message *m, const struct ready_queue *turn)
{
	uint64_t tried = 0;
	for (int i; (i = sched_queue_pick_route(q, tried)) >= 0; tried |= UINT64_C(1) << i)
		if (ready_queue_push(q->route[i].rq, m, q->route[i].rq == turn))
			return true;
	return false;
}

static bool sched_queue_has_routes_locked(const struct sched_queue *q)
{
	return q->n_routes > 0 && q->routes_epoch == policy_epoch() && !mono_is_past(q->routes_expire);
}

/** With q->lock held: asks every (full) ready queue to be told of room. False when one has room by now. */
static bool sched_queue_wait_for_room_locked(struct sched_queue *q)
{
	for (size_t i = 0; i < q->n_routes; i++)
		if (q->route[i].weight > 0 && !ready_queue_add_starved(q->route[i].rq, q->route[i].starve, q))
			return false;
	return true;
}

/** With q->lock held: starts the resolver unless it runs. */
static void sched_queue_start_resolver_locked(struct sched_queue *q)
{
	if (q->is_resolving || atomic_load(&queue_g.is_stopping))
		return;
	q->is_resolving = true;
	resolve_start(q);
}

static void sched_queue_pump_locked(struct sched_queue *q, const struct ready_queue *turn)
{
	if (list_is_empty(&q->parked))
		return;
	if (!sched_queue_has_routes_locked(q)) {
		sched_queue_start_resolver_locked(q);
		if (q->n_routes == 0)
			return;
	}
	int64_t n_moved = 0;
	do {
		for (struct list *n; (n = list_pop_front(&q->parked)) != NULL; n_moved++) {
			if (!sched_queue_route_locked(q, list_entry(n, struct message, link), turn)) {
				list_push_front(&q->parked, n);
				break;
			}
		}
	} while (!list_is_empty(&q->parked) && !sched_queue_wait_for_room_locked(q));
	q->n_parked -= (size_t)n_moved;
	sched_metrics_add(&q->scheduled, -n_moved);
}

void sched_queue_set_routes(struct sched_queue *q, struct route *route, size_t n, mono_t expire,
			    uint64_t epoch)
{
	struct sched_queue old = {0};
	pthread_mutex_lock(&q->lock);
	old.route = q->route, old.n_routes = q->n_routes;
	q->route = route, q->n_routes = n;
	q->routes_expire = expire, q->routes_epoch = epoch;
	pthread_mutex_unlock(&q->lock);
	sched_queue_drop_routes(&old);
}

void sched_queue_pump(struct sched_queue *q, const struct ready_queue *turn)
{
	pthread_mutex_lock(&q->lock);
	sched_queue_pump_locked(q, turn);
	pthread_mutex_unlock(&q->lock);
}

static void sched_queue_make_due_locked(struct sched_queue *q, struct message *m)
{
	if (list_is_empty(&q->parked) && sched_queue_has_routes_locked(q) &&
	    sched_queue_route_locked(q, m, NULL))
		return; /* the common case: nobody waits before it */
	outcome_shed_body(m);
	list_push_back(&q->parked, &m->link);
	sched_metrics_add(&q->scheduled, 1);
	if (q->n_parked++ == 0) /* else whoever parked the first one has arranged for more */
		sched_queue_pump_locked(q, NULL);
}

void sched_queue_make_due(struct sched_queue *q, struct message *m)
{
	pthread_mutex_lock(&q->lock);
	sched_queue_make_due_locked(q, m);
	pthread_mutex_unlock(&q->lock);
}

wall_t sched_queue_due_of(const struct message *m, wall_t now)
{
	wall_t due = m->due.ns > now.ns ? m->due : now;
	return m->schedule != NULL ? schedule_adjust(m->schedule, due) : due;
}

void sched_queue_insert(struct sched_queue *q, struct message *m)
{
	list_init(&m->link);
	m->queue = q;
	if (m->schedule != NULL) /* also of one that was due while nobody ran: its hours may be over */
		m->due = sched_queue_due_of(m, wall_now());
	bool is_due = wall_now().ns >= m->due.ns;
	pthread_mutex_lock(&q->lock);
	q->n_messages++;
	if (is_due && !q->is_null)
		sched_queue_make_due_locked(q, m);
	pthread_mutex_unlock(&q->lock);
	if (q->is_null) {
		deferred_remove(m);
		sched_queue_finish(q, m);
	} else if (!is_due) {
		timer_insert(m);
	}
}

void sched_queue_leave(struct sched_queue *q, struct message *m)
{
	pthread_mutex_lock(&q->lock);
	if (--q->n_messages == 0)
		q->empty_since = mono_now();
	pthread_mutex_unlock(&q->lock);
	m->queue = NULL;
}

void sched_queue_finish(struct sched_queue *q, struct message *m)
{
	sched_queue_leave(q, m);
	deferred_forget(m);
	message_unref(m);
}

void sched_queue_requeue_parked(struct sched_queue *q, const struct smtp_response *r)
{
	struct list failed;
	list_init(&failed);
	pthread_mutex_lock(&q->lock);
	list_splice_back(&failed, &q->parked);
	int64_t n = (int64_t)q->n_parked;
	q->n_parked = 0;
	pthread_mutex_unlock(&q->lock);
	sched_metrics_add(&q->scheduled, -n);
	struct outcome o = {.q = q};
	for (struct list *n_; (n_ = list_pop_front(&failed)) != NULL;)
		outcome_apply_all(&o, list_entry(n_, struct message, link), r);
}

void sched_queues_take_deferred(struct deferred_take *t)
{
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	while (!t->is_full && map_next(&registry, &pos, &key, &value)) {
		struct sched_queue *q = value;
		pthread_mutex_lock(&q->lock);
		size_t n = deferred_take_from(t, &q->parked);
		q->n_parked -= n;
		pthread_mutex_unlock(&q->lock);
		sched_metrics_add(&q->scheduled, -(int64_t)n);
	}
	pthread_mutex_unlock(&registry_lock);
}

size_t sched_queue_count(struct sched_queue *q)
{
	pthread_mutex_lock(&q->lock);
	size_t n = q->n_messages;
	pthread_mutex_unlock(&q->lock);
	return n;
}

void sched_queues_maintain(void)
{
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&registry_lock);
	while (map_next(&registry, &pos, &key, &value)) {
		struct sched_queue *q = value;
		pthread_mutex_lock(&q->lock);
		dur_t reap = q->config != NULL ? ((struct queue_config *)q->config->data)->reap_interval
					       : dur_s(600);
		bool is_dead = q->n_messages == 0 && !q->is_resolving && atomic_load(&q->refs) == 1 &&
			       mono_is_past(mono_add(q->empty_since, reap));
		pthread_mutex_unlock(&q->lock);
		if (is_dead) {
			map_remove(&registry, key);
			sched_queue_unref(q);
		}
	}
	pthread_mutex_unlock(&registry_lock);
}

void sched_queues_free_all(void)
{
	size_t pos = 0;
	str_t key;
	void *value;
	while (map_next(&registry, &pos, &key, &value)) {
		struct sched_queue *q = value;
		for (struct list *n; (n = list_pop_front(&q->parked)) != NULL;)
			message_unref(list_entry(n, struct message, link));
		metric_add(queue_metric_scheduled_total(), -(int64_t)q->n_parked);
		map_remove(&registry, key);
		sched_queue_unref(q);
	}
	map_fini(&registry);
}
