/* outcome.c - what an attempt makes of a message: Delivery, Bounce or TransientFailure per
 * recipient, one record for each distinct answer, then the end of the message, or its next
 * attempt. What the spool must know is issued before the records are written: a record may wait
 * for its logger, and a crash meanwhile must not send the message again. Except where the body
 * is not in memory, so that nothing can have been sent: there the records may still want it. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/memory.h"
#include "mail/schedule.h"
#include "queue/queue_impl.h"

#define STORE_TIMEOUT dur_s(60)
#define LONG_WAIT dur_s(60) /* for a turn: from then on it is asked whether the message is too old by now */

static str_t outcome_str(const char *z)
{
	return z != NULL ? str_of(z) : STR_NULL;
}

void outcome_record(const struct outcome *o, struct message *m, enum record_type type,
		    const struct smtp_response *r, const char *const *rcpt, size_t n_rcpt)
{
	if (!record_is_wanted(type))
		return;
	struct buf scratch = BUF_INIT;
	struct record rec = {
		.type = type,
		.msg = m,
		.rcpt = rcpt,
		.n_rcpt = n_rcpt,
		.queue = o->q != NULL ? str_of(o->q->name) : STR(""),
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
						: &o->metrics->transfail,
			1);
}

void outcome_shed_body(struct message *m)
{
	if (m->body != NULL && m->is_spooled && !m->is_body_changed &&
	    (body_total_bytes() > queue_g.body_budget_bytes || memory_level() != MEMORY_PLENTY))
		message_set_body(m, NULL);
}

/** The one record of all recipients, and out of the spool. */
static void outcome_record_end(const struct outcome *o, struct message *m, enum record_type type,
			       const struct smtp_response *r)
{
	bool is_body_needed = m->body == NULL;
	if (!is_body_needed)
		deferred_remove(m);
	outcome_record(o, m, type, r, NULL, 0);
	if (is_body_needed)
		deferred_remove(m);
}

static void outcome_expire(struct sched_queue *q, struct message *m, const struct buf *why)
{
	struct outcome o = {.q = q};
	struct smtp_response r = {.code = 551, .enhanced = {5, 4, 7}, .content = buf_str(why)};
	outcome_record_end(&o, m, RECORD_EXPIRATION, &r);
}

void outcome_admit(struct sched_queue *q, struct message *m)
{
	struct buf why = BUF_INIT;
	if (m->schedule != NULL &&
	    schedule_is_expired(m->schedule, sched_queue_due_of(m, wall_now()), &why)) {
		outcome_expire(q, m, &why);
		deferred_forget(m);
		message_unref(m);
	} else {
		sched_queue_insert(q, m);
	}
	buf_fini(&why);
}

/** Tells the spool what has changed of m; one that was never stored is, and waits; with another body, or
 * where the message asks for it, waits until that is stored. A write that fails is logged: m lives on in
 * memory, and will be stored with its next change. */
static void outcome_store(struct message *m)
{
	if (!m->is_spooled) {
		deferred_keep(m);
		return;
	}
	if (m->is_body_changed || m->is_force_synced) {
		message_touch(m);
		if (spool_save(queue_g.spool, m, mono_after(STORE_TIMEOUT)) == 0)
			return;
		char id[33];
		uuid_fmt_simple(&m->id, id);
		log_error(QUEUE_LOG, "message %s could not be stored again: %s", id, err_text());
		err_clear();
	}
	spool_update(queue_g.spool, m);
}

void outcome_give_up(struct message *m, const struct smtp_response *r)
{
	struct outcome o = {.q = NULL};
	outcome_record_end(&o, m, RECORD_EXPIRATION, r);
	message_unref(m);
}

/** Whether a next attempt at `due` would be too late: by the message's own schedule, else by its queue's
 * max_age. */
static bool outcome_is_too_late(const struct message *m, const struct retry_policy *policy, wall_t now,
				wall_t due, struct buf *why)
{
	if (m->schedule != NULL && m->schedule->expires.is_set)
		return schedule_is_expired(m->schedule, due, why);
	return retry_is_expired(policy, message_created(m), now, wall_sub(due, now), why);
}

static struct retry_policy outcome_retry_policy(const struct queue_config *cfg)
{
	return (struct retry_policy){cfg->retry_interval, cfg->max_retry_interval, cfg->max_age};
}

/** The next attempt after a failure, or expiration. */
static void outcome_requeue(struct sched_queue *q, struct message *m)
{
	struct param_object *config = sched_queue_config(q);
	struct retry_policy policy = outcome_retry_policy((const void *)config->data);
	struct buf why = BUF_INIT;
	wall_t now = wall_now();

	dur_t delay = retry_delay(&policy, m->n_attempts);
	delay.ns += retry_jitter(&policy).ns;
	m->n_attempts = m->n_attempts < UINT16_MAX ? (uint16_t)(m->n_attempts + 1) : UINT16_MAX;
	wall_t due = wall_add(now, delay);
	if (m->schedule != NULL)
		due = schedule_adjust(m->schedule, due);
	if (outcome_is_too_late(m, &policy, now, due, &why)) {
		outcome_expire(q, m, &why);
		sched_queue_finish(q, m);
	} else {
		m->due = due;
		outcome_store(m);
		outcome_shed_body(m);
		timer_insert(m);
	}
	buf_fini(&why);
	param_object_unref(config);
}

void outcome_delayed_text(const char *reasons, wall_t now, wall_t due, struct buf *out)
{
	buf_printf(out, "Context: %s. Next due in ", reasons);
	dur_fmt(dur_s((wall_sub(due, now).ns + NS_PER_S - 1) / NS_PER_S), out);
	buf_add_z(out, " at ");
	wall_fmt_rfc3339_at(due, 0, out);
}

/** The Delayed record of a message that goes back to its scheduled queue untried. */
static void outcome_log_delayed(struct sched_queue *q, struct message *m, wall_t now)
{
	struct outcome o = {.q = q};
	struct buf text = BUF_INIT;
	outcome_delayed_text("ScheduledForLater", now, m->due, &text);
	outcome_record(&o, m, RECORD_DELAYED, &(struct smtp_response){.code = 400, .content = buf_str(&text)},
		       NULL, 0);
	buf_fini(&text);
}

/** Whether m has waited for its turn so long that it may have become too old meanwhile; not counting the
 * time when nobody ran. */
static bool outcome_has_waited(const struct message *m, wall_t now)
{
	wall_t since = message_created(m);
	if (m->due.ns > since.ns)
		since = m->due;
	if (queue_g.started_at.ns > since.ns)
		since = queue_g.started_at;
	return wall_sub(now, since).ns > LONG_WAIT.ns;
}

bool outcome_begin(struct message *m)
{
	wall_t now = wall_now();
	bool is_long = outcome_has_waited(m, now);
	if (m->schedule == NULL && !is_long)
		return true;
	struct sched_queue *q = m->queue;
	struct param_object *config = sched_queue_config(q);
	struct retry_policy policy = outcome_retry_policy((const void *)config->data);
	struct buf why = BUF_INIT;
	wall_t due = m->schedule != NULL ? schedule_adjust(m->schedule, now) : now;
	bool has_end = m->schedule != NULL && m->schedule->expires.is_set;
	bool is_over =
		(is_long || has_end || due.ns > now.ns) && outcome_is_too_late(m, &policy, now, due, &why);
	bool may_be_tried = !is_over && due.ns <= now.ns;
	if (is_over) {
		outcome_expire(q, m, &why);
		sched_queue_finish(q, m);
	} else if (!may_be_tried) {
		m->due = due;
		outcome_store(m);
		outcome_log_delayed(q, m, now);
		outcome_shed_body(m);
		timer_insert(m);
	}
	buf_fini(&why);
	param_object_unref(config);
	return may_be_tried;
}

struct outcome_split {
	bool *keep;		       /* per recipient: it has no final answer yet */
	uint32_t n_final, n_transient; /* the others were not tried */
};

static void outcome_split_init(struct outcome_split *s, const struct message *m,
			       const struct smtp_response *const *by_rcpt)
{
	*s = (struct outcome_split){.keep = xcalloc(m->n_rcpt + 1, sizeof(bool))};
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		s->keep[i] = by_rcpt[i] == NULL || outcome_type(by_rcpt[i]) == RECORD_TRANSIENT_FAILURE;
		s->n_final += !s->keep[i];
		s->n_transient += s->keep[i] && by_rcpt[i] != NULL;
	}
}

/** One record per distinct answer. rcpt: n of the recipients that by_rcpt is about. */
static void outcome_log_groups(const struct outcome *o, struct message *m,
			       const struct smtp_response *const *by_rcpt, char *const *rcpt, uint32_t n_rcpt)
{
	const char **group = xcalloc(n_rcpt + 1, sizeof(char *));
	for (uint32_t i = 0; i < n_rcpt; i++) {
		size_t n = 0;
		bool is_first = by_rcpt[i] != NULL;
		for (uint32_t k = 0; k < i && is_first; k++)
			is_first = by_rcpt[k] != by_rcpt[i];
		if (!is_first)
			continue;
		for (uint32_t k = i; k < n_rcpt; k++)
			if (by_rcpt[k] == by_rcpt[i])
				group[n++] = rcpt[k];
		enum record_type type = outcome_type(by_rcpt[i]);
		outcome_count(o, type);
		outcome_record(o, m, type, by_rcpt[i], group, n);
	}
	free(group);
}

/** Every recipient has a final answer. */
static void outcome_end(const struct outcome *o, struct message *m,
			const struct smtp_response *const *by_rcpt)
{
	bool is_body_needed = m->body == NULL;
	if (!is_body_needed)
		deferred_remove(m);
	outcome_log_groups(o, m, by_rcpt, m->rcpt, m->n_rcpt);
	if (is_body_needed)
		deferred_remove(m);
	sched_queue_finish(o->q, m);
}

/** Some have one: the message goes on without them. */
static void outcome_reduce(const struct outcome *o, struct message *m,
			   const struct smtp_response *const *by_rcpt, const bool *keep)
{
	uint32_t n = m->n_rcpt;
	/* the records name those that the message has lost by then */
	char **rcpt = xcalloc(n, sizeof(char *));
	for (uint32_t i = 0; i < n; i++)
		rcpt[i] = xstrdup(m->rcpt[i]);
	message_keep_recipients(m, keep);
	outcome_store(m);
	outcome_log_groups(o, m, by_rcpt, rcpt, n);
	for (uint32_t i = 0; i < n; i++)
		free(rcpt[i]);
	free(rcpt);
}

void outcome_settle(const struct outcome *o, struct message *m, const struct smtp_response **by_rcpt)
{
	struct outcome_split s;
	outcome_split_init(&s, m, by_rcpt);
	if (s.n_final > 0 && s.n_final < m->n_rcpt) {
		const struct smtp_response **final = xcalloc(m->n_rcpt, sizeof(struct smtp_response *));
		uint32_t n = 0, n_before = m->n_rcpt;
		for (uint32_t i = 0; i < n_before; i++) {
			if (s.keep[i])
				by_rcpt[n++] = by_rcpt[i];
			else
				final[i] = by_rcpt[i];
		}
		outcome_reduce(o, m, final, s.keep);
		free(final);
	}
	free(s.keep);
}

void outcome_apply(const struct outcome *o, struct message *m, const struct smtp_response *const *by_rcpt,
		   struct ready_queue *back)
{
	struct outcome_split s;
	outcome_split_init(&s, m, by_rcpt);
	if (s.n_final == m->n_rcpt) {
		outcome_end(o, m, by_rcpt);
	} else {
		if (s.n_final > 0)
			outcome_reduce(o, m, by_rcpt, s.keep);
		else
			outcome_log_groups(o, m, by_rcpt, m->rcpt, m->n_rcpt);
		if (s.n_transient > 0 || back == NULL)
			outcome_requeue(o->q, m);
		else
			ready_queue_push_front(back, m);
	}
	free(s.keep);
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
	outcome_record_end(o, m, type, r);
	sched_queue_finish(o->q, m);
}
