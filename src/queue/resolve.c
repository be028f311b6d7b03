/* resolve.c - finding the way out of a scheduled queue: refresh its configuration, then pool
 * -> sources -> site -> ready queues; or, for a maildir, deliver what is parked. The pump asks
 * for it when there is no fresh route; queues that ask line up, and at most MAX_RESOLVERS
 * fibers take them from there, since a start with many domains would ask the DNS for all of
 * them at once. A resolver may wait for DNS and for the policy, while messages pile up in
 * `parked`. What cannot be resolved makes every parked message fail transiently, with a text
 * that programs know; unless the process is stopping: then nobody was asked, and they stay. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "queue/queue_impl.h"

#define MAX_RESOLVERS 256
#define ROUTE_LIFE dur_s(60)	/* at most; the configuration, the pool and its sources may say less */
#define ROUTE_LIFE_MIN dur_s(1) /* or a queue that waits for room would be resolved over and over */
#define RESOLVE_TIMEOUT dur_s(30)

static struct {
	pthread_mutex_t lock;
	struct list waiting; /* sched_queue.resolve_link; a reference each */
	unsigned n_running;
} resolvers = {.lock = PTHREAD_MUTEX_INITIALIZER, .waiting = {&resolvers.waiting, &resolvers.waiting}};

static bool resolve_is_stopping(void)
{
	return atomic_load(&queue_g.is_stopping) || fiber_is_cancelled();
}
static const struct queue_config *config_of(const struct param_object *o)
{
	return (const void *)o->data;
}

/** Asks for the configuration again where it is due; a failure keeps the old one. */
static void resolve_refresh_config(struct sched_queue *q, mono_t deadline)
{
	uint64_t epoch = policy_epoch();
	if (config_of(q->config)->protocol.kind == DELIVERY_INTERNAL)
		return;
	bool is_due = q->config_epoch != epoch || (config_of(q->config)->refresh_strategy == REFRESH_TTL &&
						   mono_is_past(q->config_expires));
	if (!is_due)
		return;
	struct param_object *fresh = egress_get_queue_config(q->part.domain, q->part.tenant, q->part.campaign,
							     q->part.routing_domain, deadline);
	if (fresh == NULL) {
		struct err e = err_take();
		log_error(QUEUE_LOG, "%s: refreshing the queue configuration failed, the old one stays: %s",
			  q->name, e.text);
		err_fini(&e);
		fresh = param_object_ref(q->config);
	}
	pthread_mutex_lock(&q->lock);
	struct param_object *old = q->config;
	q->config = fresh;
	q->config_expires = mono_after(config_of(fresh)->refresh_interval);
	q->config_epoch = epoch;
	pthread_mutex_unlock(&q->lock);
	if (old != fresh) {
		template_free(q->maildir_path);
		q->maildir_path = NULL;
	}
	param_object_unref(old);
}

/** The part of a ready queue's name that says where to: the MX list as written, or the site name of the
 * exchangers. */
static char *resolve_site(const struct queue_config *cfg, const struct dns_mx *mx)
{
	if (mx != NULL)
		return xstrdup(mx->site_name);
	struct buf b = BUF_INIT;
	buf_add_z(&b, "mx_list:");
	for (size_t i = 0; i < cfg->protocol.n_mx; i++)
		buf_printf(&b, "%s%s", i > 0 ? "," : "", cfg->protocol.mx[i].label);
	return buf_steal(&b, NULL);
}

/** All parked messages fail with 451 4.4.4 and this text, which is consumed. */
static void resolve_fail(struct sched_queue *q, char *text)
{
	if (resolve_is_stopping()) {
		free(text);
		err_clear();
		return;
	}
	log_warn(QUEUE_LOG, "%s", text);
	sched_queue_requeue_parked(
		q, &(struct smtp_response){.code = 451, .enhanced = {4, 4, 4}, .content = str_of(text)});
	free(text);
	err_clear();
}

static char *resolve_insert_error(const struct sched_queue *q)
{
	return xasprintf("KumoMTA internal: %s error while inserting into ready queue: %s", q->name,
			 err_text());
}

static void resolve_shorten(dur_t *life, dur_t to)
{
	if (to.ns < life->ns)
		*life = to;
}

/** An egress source that cannot be used leaves the others to serve; of an only one, resolve_fail tells. */
static void resolve_note_bad_source(const struct sched_queue *q, const struct egress_pool *p,
				    const char *source)
{
	if (p->entries.n > 1)
		log_error(QUEUE_LOG, "%s: the egress source `%s` of pool `%s` is left out: %s", q->name,
			  source, p->name, err_text());
}

/** One route per source of the pool with weight; their number, or -1 with the error (ERR_NOT_FOUND: the pool
 * has none). Shortens *life to what the policy says of pool and sources. */
static int resolve_sources(struct sched_queue *q, struct param_object *config, const char *site,
			   const struct dns_mx *mx, struct route *route, size_t max, dur_t *life,
			   mono_t deadline)
{
	const struct queue_config *cfg = config_of(config);
	const struct deliverer *d =
		cfg->protocol.kind == DELIVERY_INTERNAL ? cfg->protocol.internal : queue_g.smtp;
	const char *pool_name = cfg->egress_pool != NULL ? cfg->egress_pool : "unspecified";
	struct param_object *pool = egress_get_pool(str_of(pool_name), deadline);
	size_t n = 0;
	if (pool == NULL)
		return -1;
	const struct egress_pool *p = (const void *)pool->data;
	resolve_shorten(life, p->ttl);
	str_t domain = q->part.routing_domain.p != NULL ? q->part.routing_domain : q->part.domain;
	char *domain_z = str_dup(domain);
	for (size_t i = 0; i < p->entries.n && n < max && !resolve_is_stopping(); i++) {
		if (p->entries.v[i].weight == 0)
			continue;
		struct ready_queue *rq = NULL;
		struct param_object *source = egress_get_source(str_of(p->entries.v[i].name), deadline);
		if (source != NULL) {
			resolve_shorten(life,
					((const struct egress_source *)(const void *)source->data)->ttl);
			rq = ready_queue_get(d, domain_z, source, site, config,
					     mx != NULL ? dns_mx_ref(mx) : NULL, deadline);
			param_object_unref(source);
		}
		if (rq == NULL) {
			resolve_note_bad_source(q, p, p->entries.v[i].name);
			continue;
		}
		route[n].rq = rq;
		route[n].weight = p->entries.v[i].weight;
		route[n].current = 0;
		route[n].starve = xnew(struct starve);
		atomic_init(&route[n].starve->refs, 1);
		list_init(&route[n].starve->link);
		n++;
	}
	if (n == 0 && err_kind() == ERR_NONE)
		err_set(ERR_NOT_FOUND, "KumoMTA internal: no sources available for %s pool=`%s`", q->name,
			pool_name);
	else if (n > 0)
		err_clear();
	free(domain_z);
	param_object_unref(pool);
	return n > 0 ? (int)n : -1;
}

static void resolve_routes(struct sched_queue *q, struct param_object *config, mono_t deadline)
{
	enum { MAX_ROUTES = 64 };
	uint64_t epoch = policy_epoch();
	const struct queue_config *cfg = config_of(config);
	const struct dns_mx *mx = NULL;
	struct route *route = NULL;
	dur_t life = ROUTE_LIFE;
	char *site = NULL;

	if (cfg->protocol.kind == DELIVERY_SMTP && cfg->protocol.n_mx == 0) {
		str_t domain = q->part.routing_domain.p != NULL ? q->part.routing_domain : q->part.domain;
		mx = dns_lookup_mx(domain, deadline);
		if (mx != NULL && mx->status == DNS_NXDOMAIN)
			err_set(ERR_DNS, "the domain " STR_FMT " does not exist (NXDOMAIN)", STR_ARG(domain));
		if (mx == NULL || mx->status == DNS_NXDOMAIN) {
			resolve_fail(q, xasprintf("failed to resolve queue %s: %s", q->name, err_text()));
			goto out;
		}
	}
	site = cfg->protocol.kind == DELIVERY_INTERNAL ? str_dup(q->part.domain) : resolve_site(cfg, mx);
	route = xcalloc(MAX_ROUTES, sizeof(*route));
	err_clear();
	if (cfg->refresh_strategy == REFRESH_TTL)
		resolve_shorten(&life, cfg->refresh_interval);
	int n = resolve_sources(q, config, site, mx, route, MAX_ROUTES, &life, deadline);
	if (n < 0) {
		bool is_no_source = err_is(ERR_NOT_FOUND);
		resolve_fail(q, is_no_source ? xstrdup(err_text()) : resolve_insert_error(q));
		goto out;
	}
	if (life.ns < ROUTE_LIFE_MIN.ns)
		life = ROUTE_LIFE_MIN;
	sched_queue_set_routes(q, route, (size_t)n, mono_after(life), epoch);
	route = NULL;
out:
	free(route);
	free(site);
	if (mx != NULL)
		dns_mx_unref(mx);
}

/* --- maildir --- */

static struct message *resolve_pop_parked(struct sched_queue *q, size_t *n_left)
{
	pthread_mutex_lock(&q->lock);
	struct list *n = atomic_load(&queue_g.is_stopping) ? NULL : list_pop_front(&q->parked);
	if (n != NULL)
		*n_left = --q->n_parked;
	pthread_mutex_unlock(&q->lock);
	if (n == NULL)
		return NULL;
	sched_metrics_add(&q->scheduled, -1);
	return list_entry(n, struct message, link);
}

struct maildir_job {
	struct sched_queue *q;
	struct param_object *config;
	struct fiber_group helpers;
};

static void resolve_maildir_helper(void *arg);

/** Delivers what is parked, with more fibers where more waits: their fsyncs overlap. */
static void resolve_deliver_maildir(struct maildir_job *j)
{
	enum { MAX_HELPERS = 7, MESSAGES_PER_HELPER = 4 };
	size_t n_left;
	for (struct message *m; (m = resolve_pop_parked(j->q, &n_left)) != NULL;) {
		if (j->helpers.n < MAX_HELPERS && n_left > j->helpers.n * MESSAGES_PER_HELPER)
			fiber_start(&j->helpers, "maildir", resolve_maildir_helper, j);
		maildir_deliver(j->q, m, config_of(j->config), j->q->maildir_path);
	}
}

static void resolve_maildir_helper(void *arg)
{
	resolve_deliver_maildir(arg);
}

static void resolve_maildir(struct sched_queue *q, struct param_object *config)
{
	const struct queue_config *cfg = config_of(config);
	if (q->maildir_path == NULL) {
		q->maildir_path = template_compile("maildir_path", str_of(cfg->protocol.maildir_path), false);
		if (q->maildir_path == NULL) {
			resolve_fail(q, resolve_insert_error(q));
			return;
		}
	}
	struct maildir_job job = {.q = q, .config = config};
	fiber_group_init(&job.helpers);
	fiber_shield_begin(); /* a file is written whole, and its message charged for what happened; and
				 helpers use this frame */
	resolve_deliver_maildir(&job);
	if (fiber_group_join(&job.helpers, MONO_NEVER) != 0)
		panic("joining maildir deliveries failed: %s", err_text());
	fiber_shield_end();
}

/** Until nothing is parked or there are routes. Takes over the reference. */
static void resolve_queue(struct sched_queue *q)
{
	for (;;) {
		mono_t deadline = mono_after(RESOLVE_TIMEOUT);
		err_clear();
		resolve_refresh_config(q, deadline);
		struct param_object *config = sched_queue_config(q);
		if (config_of(config)->protocol.kind != DELIVERY_MAILDIR) {
			resolve_routes(q, config, deadline);
		} else {
			sched_queue_set_routes(q, NULL, 0, MONO_NEVER, 0);
			resolve_maildir(q, config);
		}
		param_object_unref(config);

		pthread_mutex_lock(&q->lock);
		bool is_done = resolve_is_stopping() || list_is_empty(&q->parked) || q->n_routes > 0;
		if (is_done)
			q->is_resolving = false;
		pthread_mutex_unlock(&q->lock);
		if (is_done)
			break;
	}
	sched_queue_pump(q, NULL);
	sched_queue_unref(q);
}

static void resolve_fiber(void *arg)
{
	for (;;) {
		pthread_mutex_lock(&resolvers.lock);
		struct list *n = resolve_is_stopping() ? NULL : list_pop_front(&resolvers.waiting);
		if (n == NULL)
			resolvers.n_running--;
		pthread_mutex_unlock(&resolvers.lock);
		if (n == NULL)
			return;
		resolve_queue(list_entry(n, struct sched_queue, resolve_link));
	}
}

void resolve_start(struct sched_queue *q)
{
	sched_queue_ref(q);
	pthread_mutex_lock(&resolvers.lock);
	list_push_back(&resolvers.waiting, &q->resolve_link);
	bool has_room = resolvers.n_running < MAX_RESOLVERS;
	if (has_room)
		resolvers.n_running++;
	pthread_mutex_unlock(&resolvers.lock);
	if (has_room)
		worker_start_fiber(worker_least_loaded(), "resolve", resolve_fiber, NULL);
}

void resolve_drop_all(void)
{
	for (struct list *n; (n = list_pop_front(&resolvers.waiting)) != NULL;)
		sched_queue_unref(list_entry(n, struct sched_queue, resolve_link));
	resolvers.n_running = 0;
}
