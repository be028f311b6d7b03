/* queue_metrics.c - the series of the queues (reference/metrics.tsv): per ready queue, `smtp_client:<name>`,
 * and rolled up per protocol, `smtp_client`; per scheduled queue. */
#include "base/alloc.h"
#include "queue/queue_impl.h"

static const char *const label_service[] = {"service", NULL};

static struct metric_pair queue_metric_pair(enum metric_kind kind, const char *name, const char *help,
					    const char *protocol, const char *own)
{
	struct metric *m = metric_declare(kind, name, help, label_service, NULL, 0);
	str_t a = str_of(own), b = str_of(protocol);
	return (struct metric_pair){metric_get(m, &a), metric_get(m, &b)};
}

void queue_metrics_init(struct queue_metrics *m, const char *protocol, const char *ready_name)
{
	char *plain = str_dup(str_head(str_of(protocol), strcspn(protocol, ":"))); /* httpinject:generator */
	char *own = xasprintf("%s:%s", plain, ready_name);
	protocol = plain;
	m->connections = queue_metric_pair(METRIC_GAUGE, "connection_count", "number of active connections",
					   protocol, own);
	m->connections_total =
		queue_metric_pair(METRIC_COUNTER, "total_connection_count",
				  "total number of active connections ever made", protocol, own);
	m->ready = queue_metric_pair(METRIC_GAUGE, "ready_count", "number of messages in the ready queue",
				     protocol, own);
	m->delivered = queue_metric_pair(METRIC_COUNTER, "total_messages_delivered",
					 "total number of messages ever delivered", protocol, own);
	m->transfail = queue_metric_pair(METRIC_COUNTER, "total_messages_transfail",
					 "total number of message delivery attempts that transiently failed",
					 protocol, own);
	m->fail = queue_metric_pair(METRIC_COUNTER, "total_messages_fail",
				    "total number of message delivery attempts that permanently failed",
				    protocol, own);
	str_t own_label = str_of(own);
	m->full = metric_get(metric_declare(METRIC_COUNTER, "ready_full",
					    "number of times a message found no room in the ready queue",
					    label_service, NULL, 0),
			     &own_label);
	free(own);
	free(plain);
}

void queue_metrics_full(struct queue_metrics *m)
{
	metric_inc(m->full);
}

static void metric_pair_fini(struct metric_pair *p)
{
	metric_series_unref(p->own);
	metric_series_unref(p->rollup);
}

void queue_metrics_fini(struct queue_metrics *m)
{
	metric_pair_fini(&m->connections);
	metric_pair_fini(&m->connections_total);
	metric_pair_fini(&m->ready);
	metric_pair_fini(&m->delivered);
	metric_pair_fini(&m->transfail);
	metric_pair_fini(&m->fail);
	metric_series_unref(m->full);
}

static struct metric_series *sched_metric(const char *name, const char *help, const char *const *labels,
					  const str_t *values)
{
	return metric_get(metric_declare(METRIC_GAUGE, name, help, labels, NULL, 0), values);
}

void sched_metrics_init(struct sched_metrics *m, const char *queue_name, const struct queue_name *part)
{
	static const char *const by_queue[] = {"queue", NULL}, *const by_domain[] = {"domain", NULL},
				 *const by_tenant[] = {"tenant", NULL},
				 *const by_both[] = {"tenant", "campaign", NULL};
	str_t name = str_of(queue_name), both[] = {part->tenant, part->campaign};
	*m = (struct sched_metrics){
		.queue = sched_metric("scheduled_count", "number of messages in the scheduled queue",
				      by_queue, &name),
		.domain = sched_metric("scheduled_by_domain",
				       "number of messages in the scheduled queues of a domain", by_domain,
				       &part->domain),
		.queues = sched_metric("scheduled_queue_count", "number of scheduled queues", NULL, NULL)};
	if (part->tenant.p != NULL)
		m->tenant = sched_metric("scheduled_by_tenant",
					 "number of messages in the scheduled queues of a tenant", by_tenant,
					 &part->tenant);
	if (part->tenant.p != NULL && part->campaign.p != NULL)
		m->tenant_campaign = sched_metric(
			"scheduled_by_tenant_campaign",
			"number of messages in the scheduled queues of a tenant's campaign", by_both, both);
	metric_inc(m->queues);
}

void sched_metrics_fini(struct sched_metrics *m)
{
	metric_dec(m->queues);
	metric_series_unref(m->queues);
	metric_series_unref(m->queue);
	metric_series_unref(m->domain);
	metric_series_unref(m->tenant);
	metric_series_unref(m->tenant_campaign);
}

void sched_metrics_add(struct sched_metrics *m, int64_t n_messages)
{
	metric_add(queue_metric_scheduled_total(), n_messages);
	metric_add(m->queue, n_messages);
	metric_add(m->domain, n_messages);
	if (m->tenant != NULL)
		metric_add(m->tenant, n_messages);
	if (m->tenant_campaign != NULL)
		metric_add(m->tenant_campaign, n_messages);
}

struct metric_series *queue_metric_scheduled_total(void)
{
	static _Atomic(struct metric_series *) total;
	struct metric_series *s = atomic_load_explicit(&total, memory_order_acquire);
	if (s == NULL) { /* a race only finds the same series twice */
		s = metric_get(metric_declare(METRIC_GAUGE, "scheduled_count_total",
					      "total number of messages across all scheduled queues", NULL,
					      NULL, 0),
			       NULL);
		atomic_store_explicit(&total, s, memory_order_release);
	}
	return s;
}
