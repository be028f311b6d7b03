/* reception.c - what every way in has in common. A message is in its reception from reception_add until it is
 * handed to its queue, so whoever fails in between frees the reception and nothing else. */
#include "queue/reception.h"

#include "base/alloc.h"
#include "base/err.h"
#include "mail/schedule.h"
#include "queue/queue_impl.h"

#define ENQUEUE_AT_ONCE 500

void reception_init(struct reception *r, size_t n_expected)
{
	*r = (struct reception){.cap = n_expected};
	r->msg = xcalloc(n_expected + 1, sizeof(struct message *));
	r->queue = xcalloc(n_expected + 1, sizeof(struct sched_queue *));
	r->is_silent = xcalloc(n_expected + 1, sizeof(bool));
}

void reception_reset(struct reception *r)
{
	for (size_t i = 0; i < r->n; i++) {
		if (r->msg[i] != NULL)
			deferred_forget(r->msg[i]);
		message_unref(r->msg[i]);
		sched_queue_unref(r->queue[i]);
	}
	r->n = 0;
	r->key = NULL;
	r->also = NULL;
}

void reception_fini(struct reception *r)
{
	reception_reset(r);
	free(r->msg);
	free(r->queue);
	free(r->is_silent);
	*r = (struct reception){0};
}

static void reception_grow(struct reception *r)
{
	if (r->n < r->cap)
		return;
	r->cap = r->cap * 2 + 8;
	r->msg = xrealloc(r->msg, r->cap * sizeof(struct message *));
	r->queue = xrealloc(r->queue, r->cap * sizeof(struct sched_queue *));
	r->is_silent = xrealloc(r->is_silent, r->cap * sizeof(bool));
}

int reception_add(struct reception *r, struct message *m, mono_t deadline)
{
	struct buf name = BUF_INIT;
	struct sched_queue *q = NULL;
	if (message_queue_name(m, &name) == 0)
		q = sched_queue_get(buf_str(&name), deadline);
	buf_fini(&name);
	if (q == NULL)
		return -1;
	reception_grow(r);
	r->msg[r->n] = m;
	r->queue[r->n] = q;
	r->is_silent[r->n] = false;
	r->n++;
	return 0;
}

void reception_silence_last(struct reception *r)
{
	r->is_silent[r->n - 1] = true;
}

/** Those that are not of the null queue: a heap array of *n. */
static struct message **reception_kept(const struct reception *r, size_t *n)
{
	struct message **kept = xcalloc(r->n + 2, sizeof(struct message *));
	*n = 0;
	for (size_t i = 0; i < r->n; i++)
		if (!sched_queue_is_null(r->queue[i]))
			kept[(*n)++] = r->msg[i];
	return kept;
}

int reception_store(struct reception *r, mono_t deadline)
{
	size_t n;
	struct message **stored = reception_kept(r, &n);
	if (r->also != NULL)
		stored[n] = r->also;
	size_t n_all = n + (r->also != NULL);
	int rc = r->key != NULL ? spool_put_with_key(queue_g.spool, stored, n_all, r->key, deadline)
				: spool_put(queue_g.spool, stored, n_all, deadline);
	if (rc != 0 && r->key == NULL) {
		struct err e = err_take();
		for (size_t i = 0; i < n;
		     i++) /* it may become durable after a time-out: it was not accepted */
			spool_remove(queue_g.spool, &stored[i]->id);
		err_put(e);
	}
	free(stored);
	return rc;
}

/** Whether one of them has to wait before it is tried at all. */
static bool reception_has_to_wait(const struct reception *r)
{
	wall_t now = wall_now();
	for (size_t i = 0; i < r->n; i++)
		if (sched_queue_due_of(r->msg[i], now).ns > now.ns)
			return true;
	return false;
}

bool reception_is_durable(void)
{
	return spool_is_flushed(queue_g.spool);
}

int reception_defer(struct reception *r, mono_t deadline)
{
	size_t n;
	if (reception_has_to_wait(r))
		return reception_store(r, deadline);
	struct message **kept = reception_kept(r, &n);
	int rc = n > 0 ? deferred_add(kept, n) : 0;
	free(kept);
	return rc == DEFERRED_NEVER_FITS ? reception_store(r, deadline) : rc;
}

static void reception_log(const struct record *how, const struct message *m, const struct sched_queue *q)
{
	if (!record_is_wanted(RECORD_RECEPTION))
		return;
	struct record rec = *how;
	rec.type = RECORD_RECEPTION;
	rec.msg = m;
	rec.queue = str_of(sched_queue_name(q));
	rec.site = STR("");
	rec.response = (struct smtp_response){.code = 250, .content = STR("")};
	record_log(&rec, MONO_NEVER);
}

/** It has to wait from the start. */
static void reception_log_delay(const struct record *how, const struct message *m,
				const struct sched_queue *q)
{
	wall_t now = wall_now(), due = sched_queue_due_of(m, now);
	struct buf text = BUF_INIT;
	if (due.ns <= now.ns || !record_is_wanted(RECORD_DELAYED))
		return;
	if (m->schedule != NULL && schedule_is_expired(m->schedule, due, &text)) {
		buf_fini(&text); /* it does not wait, it ends */
		return;
	}
	outcome_delayed_text(m->schedule != NULL ? "Received, ScheduledForLater" : "Received", now, due,
			     &text);
	struct record rec = {
		.type = RECORD_DELAYED,
		.msg = m,
		.queue = str_of(sched_queue_name(q)),
		.site = STR(""),
		.response = {.code = 400, .content = buf_str(&text)},
		.reception_protocol = how->reception_protocol,
	};
	record_log(&rec, MONO_NEVER);
	buf_fini(&text);
}

int reception_load_body(struct message *m, mono_t deadline)
{
	return m->body != NULL ? 0 : spool_load_body(queue_g.spool, m, deadline);
}

void reception_refuse(struct message *m)
{
	if (m != NULL && m->is_spooled)
		spool_remove(queue_g.spool, &m->id);
	message_unref(m);
}

/** Lets the loop turn: records are rendered here. */
static void reception_breathe(void)
{
	if (fiber_self() != NULL && fiber_sleep(dur_ns(1), MONO_NEVER) != 0)
		err_clear(); /* cancelled: they are handed over all the same */
}

void reception_log_unwound(const struct reception *r, const struct record *how, str_t why)
{
	struct smtp_response answer = {.code = 500, .content = why};
	for (size_t i = 0; i < r->n; i++) {
		if (i % ENQUEUE_AT_ONCE == ENQUEUE_AT_ONCE - 1)
			reception_breathe();
		if (r->is_silent[i] || (sched_queue_is_null(r->queue[i]) && !r->logs_null))
			continue;
		reception_log(how, r->msg[i], r->queue[i]);
		outcome_record(&(struct outcome){.q = r->queue[i]}, r->msg[i], RECORD_BOUNCE, &answer, NULL,
			       0);
	}
}

void reception_enqueue(struct reception *r, const struct record *how)
{
	for (size_t i = 0; i < r->n; i++) {
		if (i % ENQUEUE_AT_ONCE == ENQUEUE_AT_ONCE - 1)
			reception_breathe();
		if (sched_queue_is_null(r->queue[i])) {
			if (r->logs_null)
				reception_log(how, r->msg[i], r->queue[i]);
			reception_refuse(r->msg[i]);
		} else {
			if (!r->is_silent[i])
				reception_log(how, r->msg[i], r->queue[i]);
			reception_log_delay(how, r->msg[i], r->queue[i]);
			outcome_admit(r->queue[i], r->msg[i]);
		}
		r->msg[i] = NULL;
	}
	deferred_start(); /* if they were deferred, there may be too many now */
}
