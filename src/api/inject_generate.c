/* inject_generate.c - requests that are made into messages after their answer. A request is a message: its
 * body is the JSON, its metadata say who brought it, and it waits in a queue of its own, whose sessions (as
 * many as the policy gives its egress path connections) make messages of it.
 *
 * Each chunk of messages is stored by one commit, which also stores in the request's metadata (`generated`)
 * how far it has come. So whatever stops it in between, each recipient's message is made once: a crash before
 * the commit leaves neither, one after it both, and the request goes on behind that. When all are stored, the
 * request ends with a Delivery record. What fails a recipient is in a Bounce record of its own, for nobody
 * waits for an answer; a request that can no longer be read, or whose content is wrong, is one Bounce. A
 * spool that takes nothing now is a TransientFailure: the queue tries again. */
#include "api/inject_generate.h"

#include "aaa/auth_info.h"
#include "api/idempotency.h"
#include "base/alloc.h"
#include "base/err.h"
#include "policy/value.h"
#include "queue/deliverer.h"

#include <stdlib.h>

#define GENERATOR_QUEUE "generator.kumomta.internal"
#define GENERATED_KEY STR("generated")
#define CHUNK_BYTES ((size_t)8 << 20) /* many requests are at work at once */
#define RETRY_INTERVAL dur_s(10)
#define REQUEST_TIME dur_s(600)	 /* to read a request, which other threads may do */
#define RECIPIENT_TIME dur_s(60) /* for the policy, mostly */
#define DEFAULT_LIMIT 100000

static _Atomic uint64_t generate_limit = DEFAULT_LIMIT;

void inject_generate_set_limit(uint64_t n_requests)
{
	atomic_store(&generate_limit, n_requests);
}

/* --- taking requests --- */

static struct message *generate_make_request(const struct inject_request *req, str_t body,
					     const struct inject_origin *o)
{
	str_t nobody = STR("");
	struct body *b = body_new(body);
	struct message *m = message_new(req->envelope_sender, &nobody, 1, b);
	body_unref(b);
	meta_set_str(&m->meta, STR("http_auth"), o->who_name);
	meta_set_str(&m->meta, STR("received_from"), o->received_from);
	meta_set_str(&m->meta, STR("reception_protocol"), STR("HTTP"));
	meta_set_str(&m->meta, STR("queue"), STR(GENERATOR_QUEUE));
	struct buf who = BUF_INIT;
	struct json_out j = json_out_to(&who);
	auth_info_write(o->who, &j);
	meta_set_json(&m->meta, STR("auth_info"), buf_str(&who));
	buf_fini(&who);
	return m;
}

static void generate_write_answer(const struct inject_request *req, const struct message *m, struct buf *out)
{
	char id[33];
	uuid_fmt_simple(&m->id, id);
	buf_printf(out,
		   "{\"success_count\":0,\"fail_count\":0,\"failed_recipients\":[],\"errors\":[],"
		   "\"messages\":[],"
		   "\"durability\":\"%s\",\"request_id\":\"%s\"}",
		   !req->is_spool_deferred && reception_is_durable() ? "fsync" : "memory", id);
}

int inject_generate_defer(const struct inject_request *req, str_t body, const struct inject_origin *origin,
			  struct buf *answer, mono_t deadline)
{
	struct reception r;
	struct record how = {
		.peer_name = STR(""), .peer_addr = origin->received_from, .reception_protocol = STR("HTTP")};
	struct message *m = generate_make_request(req, body, origin);
	int rc = -1;
	reception_init(&r, 1);
	if (reception_add(&r, m, deadline) != 0) {
		message_unref(m);
		goto out;
	}
	if (sched_queue_count(r.queue[0]) >= atomic_load(&generate_limit)) {
		err_set(ERR_LIMIT, "too many requests wait for their messages to be generated");
		goto out;
	}
	generate_write_answer(req, m,
			      answer); /* complete before the commit, so that it can be stored with it */
	if (origin->key != NULL) {
		if (idempotency_set_answer(origin->key, "application/json", buf_str(answer)) != 0)
			goto out;
		r.key = idempotency_key(origin->key);
	}
	rc = req->is_spool_deferred ? reception_defer(&r, deadline) : reception_store(&r, deadline);
	if (rc == 0)
		reception_enqueue(&r, &how);
out:
	reception_fini(&r);
	return rc;
}

/* --- making messages of them --- */

struct generation {
	struct session *session;
	struct message *m;     /* the request */
	struct buf scratch[2]; /* texts of its metadata */
	struct inject_origin origin;
	struct inject_request req;
	struct inject_batch batch;
	bool has_request;
};

static str_t generate_meta(const struct message *m, str_t key, struct buf *scratch)
{
	str_t text;
	return meta_get_str(&m->meta, key, scratch, &text) ? text : STR("");
}

static size_t generate_progress(const struct message *m)
{
	str_t json;
	uint64_t n;
	return meta_get_json(&m->meta, GENERATED_KEY, &json) && str_to_u64(json, &n) ? (size_t)n : 0;
}

static void generate_set_progress(struct message *m, size_t n)
{
	char text[24];
	snprintf(text, sizeof(text), "%zu", n);
	meta_set_json(&m->meta, GENERATED_KEY, str_of(text));
}

static bool generate_should_stop(void *session)
{
	return session_is_stopping(session);
}

/** Anybody can send to an address of this domain; only requests have no recipient, which no protocol brings
 * in. */
static bool generate_is_request(const struct message *m)
{
	str_t json;
	return m->n_rcpt == 1 && m->rcpt[0][0] == 0 && meta_get_json(&m->meta, STR("auth_info"), &json);
}

/** -1: it cannot be read, or its content is wrong. */
static int generate_begin(struct generation *g, mono_t deadline)
{
	str_t json;
	if (!generate_is_request(g->m)) {
		err_set(ERR_INVALID, "the domain %s is reserved: no mail can be sent there", GENERATOR_QUEUE);
		return -1;
	}
	g->origin = (struct inject_origin){.received_from =
						   generate_meta(g->m, STR("received_from"), &g->scratch[0]),
					   .who_name = generate_meta(g->m, STR("http_auth"), &g->scratch[1]),
					   .chunk_bytes = CHUNK_BYTES,
					   .recipient_time = RECIPIENT_TIME,
					   .should_stop = generate_should_stop,
					   .stop_arg = g->session};
	if (meta_get_json(&g->m->meta, STR("auth_info"), &json))
		g->origin.who_json = value_parse_json(json);
	if (g->origin.who_json == NULL) {
		err_clear();
		g->origin.who_json = json_object();
	}
	if (inject_request_read(str_mk(g->m->body->p, g->m->body->n_bytes), &g->req, deadline) != 0) {
		json_decref(g->origin.who_json);
		return -1;
	}
	g->has_request = true;
	return inject_batch_init(&g->batch, &g->req, &g->origin, deadline);
}

static void generate_end(struct generation *g)
{
	if (g->has_request) {
		inject_batch_fini(&g->batch);
		inject_request_fini(&g->req);
	}
	buf_fini(&g->scratch[0]);
	buf_fini(&g->scratch[1]);
}

/** A Bounce record for each that has failed, of [from, to). */
static void generate_log_failed(const struct generation *g, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		const struct inject_result *r = &g->batch.result[i];
		if (r->error == NULL)
			continue;
		char *rcpt = str_dup(g->req.recipient[i].email);
		struct smtp_response answer = {.code = r->code != 0 ? r->code : 500,
					       .content = str_of(r->error)};
		session_note_bounce(g->session, g->m, &answer, rcpt);
		free(rcpt);
	}
}

/** One chunk from recipient *at on, which moves on. -1: it could not be stored, and nothing has changed. */
static int generate_chunk(struct generation *g, size_t *at)
{
	struct inject_batch *b = &g->batch;
	size_t before = *at, next = inject_batch_prepare(b, before, MONO_NEVER);
	generate_set_progress(g->m, next);
	if (g->m->is_spooled)
		message_set_body(g->m, NULL); /* or the commit would store it again */
	b->reception.also = g->m->is_spooled ? g->m : NULL;
	/* Whether it is stored must be known, or the request would not know how far it has come. */
	fiber_shield_begin();
	int rc = inject_batch_store(b, MONO_NEVER);
	if (rc != 0 && err_is(ERR_LIMIT) &&
	    g->req.is_spool_deferred) /* no room in memory: nobody is in a hurry here */
		rc = reception_store(&b->reception, MONO_NEVER);
	fiber_shield_end();
	if (rc != 0) {
		generate_set_progress(g->m, before);
		return -1;
	}
	inject_batch_enqueue(b);
	generate_log_failed(g, before, next);
	*at = next;
	return 0;
}

/** -1 with the error: some are left to do. */
static int generate_all(struct generation *g)
{
	size_t at = generate_progress(g->m);
	while (at < g->req.n_recipients) {
		if (session_is_stopping(g->session)) {
			err_set(ERR_CANCELLED, "stopping");
			return -1;
		}
		if (generate_chunk(g, &at) != 0)
			return -1;
	}
	return 0;
}

static struct smtp_response generate_answer(const struct generation *g, struct buf *text)
{
	buf_add_z(text, "ok");
	if (g->batch.n_failed > 0)
		buf_printf(text, ", but %zu of %zu recipients failed", g->batch.n_failed,
			   g->req.n_recipients);
	return (struct smtp_response){.code = 250, .content = buf_str(text)};
}

/** Ends m, or gives it back. False: the session is to end. */
static bool generate_one(struct session *s, struct message *m)
{
	struct generation g = {.session = s, .m = m};
	struct buf text = BUF_INIT;
	struct smtp_response answer;
	bool is_begun = generate_begin(&g, mono_after(REQUEST_TIME)) == 0;
	if (is_begun && generate_all(&g) == 0) {
		answer = generate_answer(&g, &text);
	} else if (session_is_stopping(s)) {
		err_clear();
		generate_end(&g);
		session_return(s, m);
		return false;
	} else {
		bool is_final =
			!is_begun && !err_is(ERR_TIMEOUT) && !err_is(ERR_CANCELLED) && !err_is(ERR_SHUTDOWN);
		buf_add_z(&text, err_text());
		answer = (struct smtp_response){.code = is_final ? 500 : 451, .content = buf_str(&text)};
		err_clear();
	}
	generate_end(&g);
	session_done_all(s, m, &answer, NULL);
	buf_fini(&text);
	return true;
}

static void generate_run(struct session *s)
{
	for (struct message *m; (m = session_next(s, DUR_ZERO)) != NULL;)
		if (!generate_one(s, m))
			return;
}

void inject_generate_setup(void)
{
	static const struct deliverer generator = {.protocol = "httpinject:generator",
						   .record_name = "HttpInjectionGenerator",
						   .run = generate_run};
	queue_set_internal_deliverer(GENERATOR_QUEUE, &generator, RETRY_INTERVAL);
}
