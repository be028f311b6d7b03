/* internal.c - reserved domains, whose queues are not asked about and whose messages
 * a part of this program delivers: requests to be made into messages. Their ready
 * queues are like any other, so the policy shapes them by get_egress_path_config.
 * The table is written before the first message and only read after. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/queue_impl.h"

#define INTERNAL_MAX 4

static struct {
	const char *domain;
	struct param_object *config;
} internal[INTERNAL_MAX];

void queue_set_internal_deliverer(const char *domain, const struct deliverer *d, dur_t retry_interval)
{
	struct buf text = BUF_INIT;
	size_t i = 0;
	while (i < INTERNAL_MAX && internal[i].domain != NULL && strcmp(internal[i].domain, domain) != 0)
		i++;
	if (i == INTERNAL_MAX)
		panic("more than %d internal queues", INTERNAL_MAX);
	dur_fmt(retry_interval, &text);
	json_t *table = json_pack("{s:s}", "retry_interval", text.p);
	struct param_object *config = param_object_from_json(&queue_config_schema, table);
	if (config == NULL)
		panic("the configuration of %s: %s", domain, err_text());
	struct delivery_protocol *p = &((struct queue_config *)(void *)config->data)->protocol;
	p->kind = DELIVERY_INTERNAL;
	p->internal = d;
	param_object_unref(internal[i].config);
	internal[i].domain = domain;
	internal[i].config = config;
	json_decref(table);
	buf_fini(&text);
}

struct param_object *internal_queue_config(str_t domain)
{
	for (size_t i = 0; i < INTERNAL_MAX && internal[i].domain != NULL; i++)
		if (str_eq(domain, str_of(internal[i].domain)))
			return param_object_ref(internal[i].config);
	return NULL;
}
