/* outcome.c - what an attempt makes of a message: Delivery, Bounce or TransientFailure per recipient, one record for each distinct
 * answer, then the end of the message, or its next attempt (contracts B4, B10). The removal from the spool is issued before
 * the records are written: a record may wait for its logger, and a crash meanwhile must not send the message again. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "queue/queue_impl.h"

/* A message that goes to sleep gives its body back while all bodies in memory are over this. */
#define BODY_BUDGET_BYTES ((size_t)64 << 20)

static str_t outcome_str(const char *z) { return z != NULL ? str_of(z) : STR_NULL; }

void outcome_record(const struct outcome *o, struct message *m, enum record_type type, const struct smtp_response *r,
                    const char *const *rcpt, size_t n_rcpt)
{
	if (!record_is_wanted(type))
		return;
	struct buf scratch = BUF_INIT;
	struct record rec = {
		.type = type,
		.msg = m,
		.rcpt = rcpt,
		.n_rcpt = n_rcpt,
		.queue = str_of(o->q->name),
		.site = o->ready_name != NULL ? str_of(o->ready_name) : STR(""),
		.response = *r,
		.egress_pool = outcome_str(o->pool),
		.egress_source = outcome_str(o->source),
		.delivery_protocol = outcome_str(o->protocol_name),
		.provider_name = outcome_str(o->provider),
		.session_id = o->session_id,
		.n_attempts = m->n_attempts,
	};
	if (o->peer != NULL) {
		rec.peer_name = o->peer->name;
		rec.peer_addr = o->peer->addr;
		rec.source_addr = o->peer->source_addr;
	}
	str_t protocol;
	if (meta_get_str(&m->meta, STR("reception_protocol"), &scratch, &protocol))
		rec.reception_protocol = protocol;
	record_log(&rec, MONO_NEVER);
	buf_fini(&scratch);
}

static enum record_type outcome_type(const struct smtp_response *r)
{
	if (r->code >= 200 && r->code < 300)
		return RECORD_DELIVERY;
	if (r->code >= 500 && r->code < 600 && r->code != 503)
		return RECORD_BOUNCE;
	return RECORD_TRANSIENT_FAILURE;
}

static void outcome_count(const struct outcome *o, enum record_type type)
{
	if (o->metrics == NULL)
		return;
	metric_pair_add(type == RECORD_DELIVERY ? &o->metrics->delivered
	                : type == RECORD_BOUNCE ? &o->metrics->fail
	                                        : &o->metrics->transfail, 1);
}

static void outcome_expire(struct sched_queue *q, struct message *m, const struct buf *why)
{
	struct outcome o = {.q = q};
	struct smtp_response r = {.code = 551, .enhanced = {5, 4, 7}, .content = buf_str(why)};
	spool_remove(queue_g.spool, &m->id);
	outcome_record(&o, m, RECORD_EXPIRATION, &r, NULL, 0);
	sched_queue_finish(q, m);
}

/** The next attempt after a failure, or expiration. */
static void outcome_requeue(struct sched_queue *q, struct message *m)
{
	struct param_object *config = sched_queue_config(q);
	const struct queue_config *cfg = (const void *)config->data;
	struct retry_policy policy = {cfg->retry_interval, cfg->max_retry_interval, cfg->max_age};
	struct buf why = BUF_INIT;
	wall_t now = wall_now();

	dur_t delay = retry_delay(&policy, m->n_attempts);
	delay.ns += retry_jitter(&policy).ns;
	m->n_attempts = m->n_attempts < UINT16_MAX ? (uint16_t)(m->n_attempts + 1) : UINT16_MAX;
	if (retry_is_expired(&policy, message_created(m), now, delay, &why)) {
		outcome_expire(q, m, &why);
	} else {
		m->due = wall_add(now, delay);
		spool_update(queue_g.spool, m);
		if (body_total_bytes() > BODY_BUDGET_BYTES)
			message_set_body(m, NULL);
		timer_insert(m);
	}
	buf_fini(&why);
	param_object_unref(config);
}

/** Logs one record per distinct answer and returns how many recipients got a final one, marking the others in keep. */
static uint32_t outcome_log_groups(const struct outcome *o, struct message *m, const struct smtp_response *const *by_rcpt,
                                   bool *keep, uint32_t *n_transient)
{
	const char **group = xcalloc(m->n_rcpt, sizeof(char *));
	uint32_t n_final = 0;
	*n_transient = 0;
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		keep[i] = by_rcpt[i] == NULL || outcome_type(by_rcpt[i]) == RECORD_TRANSIENT_FAILURE;
		n_final += !keep[i];
		*n_transient += keep[i] && by_rcpt[i] != NULL;
	}
	if (n_final == m->n_rcpt)
		spool_remove(queue_g.spool, &m->id);
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		size_t n = 0;
		bool is_first = by_rcpt[i] != NULL;
		for (uint32_t k = 0; k < i && is_first; k++)
			is_first = by_rcpt[k] != by_rcpt[i];
		if (!is_first)
			continue;
		for (uint32_t k = i; k < m->n_rcpt; k++)
			if (by_rcpt[k] == by_rcpt[i])
				group[n++] = m->rcpt[k];
		enum record_type type = outcome_type(by_rcpt[i]);
		outcome_count(o, type);
		outcome_record(o, m, type, by_rcpt[i], group, n);
	}
	free(group);
	return n_final;
}

void outcome_apply(const struct outcome *o, struct message *m, const struct smtp_response *const *by_rcpt, struct ready_queue *back)
{
	bool *keep = xcalloc(m->n_rcpt + 1, sizeof(bool));
	uint32_t n_transient;
	uint32_t n_final = outcome_log_groups(o, m, by_rcpt, keep, &n_transient);
	if (n_final == m->n_rcpt) {
		sched_queue_finish(o->q, m); /* already out of the spool */
	} else {
		if (n_final > 0)
			message_keep_recipients(m, keep);
		if (n_transient > 0 || back == NULL) {
			outcome_requeue(o->q, m);
		} else {
			if (n_final > 0)
				spool_update(queue_g.spool, m);
			ready_queue_push_front(back, m);
		}
	}
	free(keep);
}

void outcome_apply_all(const struct outcome *o, struct message *m, const struct smtp_response *r)
{
	enum record_type type = outcome_type(r);
	outcome_count(o, type);
	if (type == RECORD_TRANSIENT_FAILURE) {
		outcome_record(o, m, type, r, NULL, 0);
		outcome_requeue(o->q, m);
		return;
	}
	spool_remove(queue_g.spool, &m->id);
	outcome_record(o, m, type, r, NULL, 0);
	sched_queue_finish(o->q, m);
}
