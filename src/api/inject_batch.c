/* inject_batch.c - the way of a recipient: its message from the content, Received, the policy's
 * http_message_generated, the supplemental trace field, its scheduled queue; then all of the chunk to the
 * spool with one commit, and only when that is durable to the queues. */
#include "api/inject_batch.h"

#include "aaa/auth_info.h"
#include "api/idempotency.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/metric.h"
#include "mail/trace.h"
#include "policy/policy.h"
#include "policy/value.h"

#include <pthread.h>
#include <stdlib.h>

#define EVENT_GENERATED "http_message_generated"
#define CHUNK_BYTES ((size_t)64 << 20)
#define CHUNK_BYTES_LEAST ((size_t)4 << 20) /* while all bodies in memory are more than CROWD_BYTES */
#define CROWD_BYTES ((size_t)512 << 20)
#define CHUNK_MESSAGES 20000 /* for the spool to take at once without holding up the worker */
#define SLICE dur_ms(5)

static struct {
	str_t hostname;
	struct metric_series *received;
} batch_g;

void inject_batch_setup(const char *hostname)
{
	static const char *const label[] = {"service", NULL};
	str_t service = STR("http_listener");
	batch_g.hostname = str_of(hostname);
	batch_g.received =
		metric_get(metric_declare(METRIC_COUNTER, "total_messages_received",
					  "total number of messages ever received", label, NULL, 0),
			   &service);
}

int inject_batch_init(struct inject_batch *b, const struct inject_request *req,
		      const struct inject_origin *origin, mono_t deadline)
{
	*b = (struct inject_batch){.req = req, .origin = *origin, .slice_ends = mono_after(SLICE)};
	b->result = xcalloc(req->n_recipients + 1, sizeof(*b->result));
	b->recipient_of = xcalloc(req->n_recipients + 1, sizeof(*b->recipient_of));
	reception_init(&b->reception, req->n_recipients);
	return inject_content_init(&b->content, req, deadline);
}

void inject_batch_fini(struct inject_batch *b)
{
	reception_fini(&b->reception);
	inject_content_fini(&b->content);
	for (size_t i = 0; i < b->req->n_recipients; i++)
		free(b->result[i].error);
	free(b->result);
	free(b->recipient_of);
	json_decref(b->origin.who_json);
}

/* --- one recipient --- */

/** Takes the error in the slot. */
static void batch_fail(struct inject_batch *b, size_t i)
{
	struct err e = err_take();
	struct inject_result *r = &b->result[i];
	r->code = e.kind == ERR_REJECT ? e.code : 0;
	r->error = r->code != 0 ? xasprintf("%d %s", r->code, e.text) : xstrdup(e.text);
	err_fini(&e);
	b->n_failed++;
}

/** A mistake of the policy, which the one who posts cannot mend: for the operator, at most once a second. The
 * error stays. */
static void batch_complain(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static mono_t next;
	static uint64_t n_silent;
	pthread_mutex_lock(&lock);
	if (mono_is_past(next)) {
		if (n_silent > 0)
			log_error("kumod", "%llu more such errors since the last line",
				  (unsigned long long)n_silent);
		log_error("kumod", "an injected recipient failed: %s", err_text());
		next = mono_after(dur_s(1));
		n_silent = 0;
	} else {
		n_silent++;
	}
	pthread_mutex_unlock(&lock);
}

static void batch_set_meta(const struct inject_batch *b, struct message *m, const struct inject_recipient *r)
{
	const struct inject_origin *o = &b->origin;
	meta_set_str(&m->meta, STR("http_auth"), o->who_name);
	if (o->received_via.p != NULL)
		meta_set_str(&m->meta, STR("received_via"), o->received_via);
	meta_set_str(&m->meta, STR("received_from"), o->received_from);
	if (o->hostname.p != NULL)
		meta_set_str(&m->meta, STR("hostname"), o->hostname);
	meta_set_str(&m->meta, STR("reception_protocol"), STR("HTTP"));
	if (r->metadata != NULL) {
		char *text = json_dumps(r->metadata, JSON_COMPACT);
		meta_set_json(&m->meta, STR("extra"), str_of(text));
		free(text);
	}
}

static void batch_add_received(const struct inject_batch *b, struct message *m)
{
	struct mailbox sender = {.domain = STR_NULL};
	if (mailbox_parse(b->req->envelope_sender, &sender) != 0)
		err_clear();
	trace_add_received(m, &(struct trace_received){.from = sender.domain,
						       .from_addr = b->origin.received_from,
						       .by = batch_g.hostname,
						       .protocol = STR("HTTP"),
						       .when = wall_now()});
}

/** http_message_generated(msg, auth_info). A handler that rejects, or fails, fails this recipient. */
static int batch_call_policy(struct inject_batch *b, struct message *m, mono_t deadline)
{
	struct policy_call c;
	if (!policy_has_handler(EVENT_GENERATED))
		return 0;
	int rc = policy_call_begin(&c, EVENT_GENERATED, deadline);
	if (rc <= 0)
		return rc;
	if (b->origin.who_json == NULL)
		b->origin.who_json = auth_info_json(b->origin.who);
	policy_push_message(c.L, m);
	value_push_json(c.L, b->origin.who_json);
	rc = policy_call_run(&c, 2, 0, deadline);
	policy_call_end(&c);
	if (rc >= 0 && m->size_bytes == 0) {
		err_set(ERR_INVALID, "the event " EVENT_GENERATED " has left no data of the message");
		rc = -1;
	}
	return rc < 0 ? -1 : 0;
}

struct message *inject_batch_make(struct inject_batch *b, size_t i)
{
	const struct inject_recipient *r = &b->req->recipient[i];
	struct mailbox box;
	if (mailbox_parse(r->email, &box) != 0) {
		err_wrap("recipient email");
		return NULL;
	}
	if (box.email.n == 0) {
		err_set(ERR_INVALID, "recipient email: the null address cannot be a recipient");
		return NULL;
	}
	struct body *body = inject_content_body(&b->content, i, &box);
	if (body == NULL)
		return NULL;
	struct message *m = message_new(b->req->envelope_sender, &box.email, 1, body);
	body_unref(body);
	inject_content_add_fields(&b->content, m, i, &box, batch_g.hostname);
	batch_set_meta(b, m, r);
	if (b->req->trace.is_received_wanted)
		batch_add_received(b, m);
	return m;
}

static int batch_add(struct inject_batch *b, size_t i, mono_t deadline)
{
	const struct inject_trace *t = &b->req->trace;
	struct message *m = inject_batch_make(b, i);
	if (m == NULL)
		return -1;
	int rc = batch_call_policy(b, m, deadline);
	if (rc == 0 && t->is_supplemental_wanted)
		trace_add_supplemental(m, t->header_name, t->meta_name, t->n_meta_names);
	if (rc == 0)
		rc = reception_add(&b->reception, m, deadline);
	if (rc != 0) {
		if (!err_is(ERR_REJECT) && !err_is(ERR_CANCELLED))
			batch_complain();
		reception_refuse(m);
		return -1;
	}
	b->recipient_of[b->reception.n - 1] = i;
	b->result[i] = (struct inject_result){.id = m->id, .is_taken = true};
	b->n_taken++;
	return 0;
}

/* --- chunks --- */

static size_t batch_chunk_bytes(const struct inject_batch *b)
{
	if (b->origin.chunk_bytes != 0)
		return b->origin.chunk_bytes;
	return body_total_bytes() > CROWD_BYTES ? CHUNK_BYTES_LEAST : CHUNK_BYTES;
}

/** What the last message has brought into memory. */
static size_t batch_last_bytes(const struct inject_batch *b)
{
	const struct reception *r = &b->reception;
	const struct message *m = r->msg[r->n - 1], *before = r->n > 1 ? r->msg[r->n - 2] : NULL;
	size_t n = m->n_prefix_bytes;
	if (m->body != NULL && (before == NULL || before->body != m->body))
		n += m->body->n_bytes;
	return n;
}

/** Lets the loop turn once in a while. */
static void batch_breathe(struct inject_batch *b)
{
	if (!mono_is_past(b->slice_ends))
		return;
	if (fiber_sleep(dur_ns(1), MONO_NEVER) != 0)
		err_clear(); /* storing will tell */
	b->slice_ends = mono_after(SLICE);
}

/** 1: another one; 0: the chunk is to end before i. */
static int batch_step(struct inject_batch *b, size_t i, size_t *n_bytes, mono_t deadline)
{
	const struct inject_origin *o = &b->origin;
	if ((o->should_stop != NULL && o->should_stop(o->stop_arg)) || mono_is_past(deadline))
		return 0;
	if (o->recipient_time.ns > 0)
		deadline = mono_min(deadline, mono_after(o->recipient_time));
	if (batch_add(b, i, deadline) == 0) {
		*n_bytes += batch_last_bytes(b);
	} else if (err_is(ERR_CANCELLED)) { /* not the recipient's fault */
		err_clear();
		return 0;
	} else {
		batch_fail(b, i);
	}
	batch_breathe(b);
	return 1;
}

size_t inject_batch_prepare(struct inject_batch *b, size_t from, mono_t deadline)
{
	size_t n_bytes = 0, max = batch_chunk_bytes(b), i = from;
	b->is_crowded = max == CHUNK_BYTES_LEAST;
	while (i < b->req->n_recipients && n_bytes < max && b->reception.n < CHUNK_MESSAGES &&
	       batch_step(b, i, &n_bytes, deadline))
		i++;
	return i;
}

int inject_batch_store(struct inject_batch *b, mono_t deadline)
{
	return b->req->is_spool_deferred ? reception_defer(&b->reception, deadline)
					 : reception_store(&b->reception, deadline);
}

/* All recipients of the chunk have failed, with the error in the slot, which it takes. */
static void batch_drop(struct inject_batch *b)
{
	struct err e = err_take();
	for (size_t k = 0; k < b->reception.n; k++) {
		err_set(e.kind, "%s", e.text);
		b->result[b->recipient_of[k]].is_taken = false;
		b->n_taken--;
		batch_fail(b, b->recipient_of[k]);
	}
	err_fini(&e);
	reception_reset(&b->reception);
}

void inject_batch_enqueue(struct inject_batch *b)
{
	struct reception *r = &b->reception;
	struct record how = {.peer_name = STR(""),
			     .peer_addr = b->origin.received_from,
			     .reception_protocol = STR("HTTP")};
	metric_add(batch_g.received, (int64_t)r->n);
	reception_enqueue(r, &how);
	reception_reset(r);
}

/** The recipients from `from` on have failed as those of the chunk do. */
static void batch_drop_rest(struct inject_batch *b, size_t from)
{
	struct err e = err_take();
	log_error("kumod", "%zu messages of an injection could not be stored: %s",
		  b->req->n_recipients - from + b->reception.n, e.text);
	for (size_t i = from; i < b->req->n_recipients; i++) {
		err_set(e.kind, "%s", e.text);
		batch_fail(b, i);
	}
	err_put(e);
	batch_drop(b);
}

/* --- the answer --- */

static void batch_write_failed(const struct inject_batch *b, struct json_out *j)
{
	struct buf text = BUF_INIT;
	json_key(j, STR("failed_recipients"));
	json_arr_begin(j);
	for (size_t i = 0; i < b->req->n_recipients; i++)
		if (b->result[i].error != NULL)
			json_str(j, b->req->recipient[i].email);
	json_arr_end(j);
	json_key(j, STR("errors"));
	json_arr_begin(j);
	for (size_t i = 0; i < b->req->n_recipients; i++) {
		if (b->result[i].error == NULL)
			continue;
		buf_clear(&text);
		buf_add_str(&text, b->req->recipient[i].email); /* may hold NUL */
		buf_add_z(&text, ": ");
		buf_add_z(&text, b->result[i].error);
		json_str(j, buf_str(&text));
	}
	json_arr_end(j);
	buf_fini(&text);
}

/* The answer as JSON, once all recipients are gone through. */
static void batch_write_answer(const struct inject_batch *b, struct buf *out)
{
	struct json_out j = json_out_to(out);
	json_obj_begin(&j);
	json_kv_int(&j, STR("success_count"), (int64_t)b->n_taken);
	json_kv_int(&j, STR("fail_count"), (int64_t)b->n_failed);
	batch_write_failed(b, &j);
	json_key(&j, STR("messages"));
	json_arr_begin(&j);
	for (size_t i = 0; i < b->req->n_recipients; i++) {
		char id[33];
		if (!b->result[i].is_taken)
			continue;
		uuid_fmt_simple(&b->result[i].id, id);
		json_obj_begin(&j);
		json_kv_str(&j, STR("recipient"), b->req->recipient[i].email);
		json_kv_str(&j, STR("id"), str_of(id));
		json_obj_end(&j);
	}
	json_arr_end(&j);
	json_kv_str(&j, STR("durability"),
		    !b->req->is_spool_deferred && reception_is_durable() ? STR("fsync") : STR("memory"));
	json_obj_end(&j);
}

/* --- chunk by chunk --- */

/* Takes those of the chunk out of the spool that the policy has saved. */
static void batch_refuse_saved(struct inject_batch *b)
{
	for (size_t k = 0; k < b->reception.n; k++) {
		if (!b->reception.msg[k]->is_spooled)
			continue;
		reception_refuse(b->reception.msg[k]);
		b->reception.msg[k] = NULL;
	}
}

/** The answer is complete before the last commit; the key is stored with that, which then has to be the only
 * one. */
static int batch_finish(struct inject_batch *b, size_t next, struct buf *answer)
{
	struct idempotency *k = b->origin.key;
	bool is_keyed = k != NULL && idempotency_key(k) != NULL, is_complete = next == b->req->n_recipients;
	if (is_complete)
		batch_write_answer(b, answer);
	if (!is_keyed)
		return 0;
	if (!is_complete) {
		err_set(b->is_crowded ? ERR_LIMIT : ERR_INVALID,
			"the messages are too many or too large to be stored together, "
			"as they must be under an Idempotency-Key");
		return -1;
	}
	if (idempotency_set_answer(k, "application/json", buf_str(answer)) != 0)
		return -1;
	b->reception.key = idempotency_key(k);
	return 0;
}

/** Whether there may be another chunk. */
static int batch_check_time(const struct inject_batch *b, size_t n_done, mono_t deadline)
{
	if (fiber_is_cancelled())
		err_set(ERR_CANCELLED, "the service stops");
	else if (mono_is_past(deadline))
		err_set(ERR_TIMEOUT,
			"the request takes too long: the time was over after %zu of %zu recipients", n_done,
			b->req->n_recipients);
	else
		return 0;
	return -1;
}

int inject_batch_run(struct inject_batch *b, struct buf *answer, mono_t deadline)
{
	size_t i = 0, n_stored = 0;
	do {
		i = inject_batch_prepare(b, i, deadline);
		if (i < b->req->n_recipients && batch_check_time(b, i, deadline) != 0)
			goto fail;
		if (batch_finish(b, i, answer) != 0 || inject_batch_store(b, deadline) != 0)
			goto fail;
		n_stored += b->reception.n;
		inject_batch_enqueue(b);
	} while (i < b->req->n_recipients);
	return 0;
fail:
	buf_clear(answer);
	batch_refuse_saved(b);
	if (n_stored == 0)
		return -1;
	batch_drop_rest(b, i);
	batch_write_answer(b, answer);
	return 0;
}
