/* inject.c - who brings requests: POST /api/inject/v1, and policies. What is wrong with one recipient is
 * reported for it alone; when nothing can be stored, the whole request is 503 and nothing is kept. */
#include "api/inject.h"

#include "api/authorize.h"
#include "api/idempotency.h"
#include "api/inject_generate.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "http/http.h"
#include "http/reference.h"

#include <pthread.h>
#include <stdlib.h>

#define LOCAL_ADDR "127.0.0.1"
#define LOCAL_IDENTITY "kumomta.internal"

static struct {
	const char *(*why_not)(void);
	pthread_mutex_t limit_lock; /* of the next two */
	struct throttle limit;
	_Atomic bool is_limited;
} inject_g = {.limit_lock = PTHREAD_MUTEX_INITIALIZER};

/* --- HTTP --- */

void api_inject_set_rate_limit(const struct throttle_spec *spec)
{
	pthread_mutex_lock(&inject_g.limit_lock);
	if (spec != NULL &&
	    !(atomic_load(&inject_g.is_limited) && throttle_spec_eq(spec, &inject_g.limit.spec)))
		throttle_init(&inject_g.limit, spec);
	atomic_store(&inject_g.is_limited, spec != NULL);
	pthread_mutex_unlock(&inject_g.limit_lock);
}

/** When so many recipients may come in: *wait. False: not while the caller has the patience. */
static bool inject_limit_admit(size_t n, dur_t patience, dur_t *wait)
{
	bool is_admitted = true;
	*wait = DUR_ZERO;
	if (n == 0 || !atomic_load_explicit(&inject_g.is_limited, memory_order_relaxed))
		return true;
	pthread_mutex_lock(&inject_g.limit_lock);
	if (atomic_load(&inject_g.is_limited))
		is_admitted = throttle_admit(&inject_g.limit, n, patience, wait);
	pthread_mutex_unlock(&inject_g.limit_lock);
	return is_admitted;
}

static void inject_refuse(struct http_request *r, struct http_response *a, int status, int64_t retry_after_s)
{
	http_response_err(a, status);
	http_response_add_header(r, a, STR("Retry-After"),
				 str_of(arena_printf(r->arena, "%lld", (long long)retry_after_s)));
}

/** What is wrong with the request, or that there was no time for it. */
static void inject_err(struct http_request *r, struct http_response *a)
{
	if (err_is(ERR_TIMEOUT) || err_is(ERR_CANCELLED) || err_is(ERR_SHUTDOWN))
		inject_refuse(r, a, 503, 1);
	else
		http_response_err(a, 422);
}

/** The request, once its recipients are admitted. While it waits for that, only its body is held. Else -1,
 * with the answer. */
static int inject_read(struct http_request *r, struct http_response *a, struct inject_request *req,
		       mono_t deadline)
{
	dur_t patience = dur_ns(mono_sub(deadline, mono_now()).ns / 4 * 3),
	      wait; /* the rest is for the work */
	int status = inject_request_read(r->body, req, deadline);
	if (status != 0)
		goto refused;
	if (!inject_limit_admit(req->n_recipients, patience, &wait)) {
		inject_request_fini(req);
		err_set(ERR_LIMIT, "too many recipients: the rate limit would let these in after %lld s",
			(long long)(wait.ns / NS_PER_S));
		inject_refuse(r, a, 429, (wait.ns - patience.ns) / NS_PER_S + 1);
		return -1;
	}
	if (wait.ns <= 0)
		return 0;
	inject_request_fini(req);
	if (fiber_sleep(wait, MONO_NEVER) != 0) {
		inject_refuse(r, a, 503, 1);
		return -1;
	}
	status = inject_request_read(r->body, req, deadline);
	if (status == 0)
		return 0;
refused:
	if (status < 0) {
		inject_err(r, a);
		return -1;
	}
	http_response_text(a, status, "%s", err_text());
	err_clear();
	return -1;
}

static struct inject_origin inject_origin_of(struct http_request *r)
{
	char *peer = arena_alloc(r->arena, NET_ADDR_STRLEN), *local = arena_alloc(r->arena, NET_ADDR_STRLEN);
	const struct auth_info *who = api_request_who(r);
	return (struct inject_origin){.received_from = str_of(net_addr_fmt_ip(r->peer, peer)),
				      .received_via = str_of(net_addr_fmt_ip(r->local, local)),
				      .hostname = str_of(http_request_hostname(r)),
				      .who_name = auth_info_name(who),
				      .who = who};
}

/** A key promises that a crash changes nothing. */
static int inject_check_key(const struct idempotency *key, const struct inject_request *req)
{
	if (idempotency_key(key) == NULL || !req->is_spool_deferred)
		return 0;
	err_set(ERR_INVALID,
		"deferred_spool: what is kept in memory only cannot come under an Idempotency-Key");
	return -1;
}

static void inject(struct http_request *r, struct http_response *a, struct idempotency *key, mono_t deadline)
{
	struct inject_request req;
	struct inject_batch batch;
	struct inject_origin origin = inject_origin_of(r);
	origin.key = key;
	if (inject_read(r, a, &req, deadline) != 0)
		return;
	if (inject_batch_init(&batch, &req, &origin, deadline) != 0 || inject_check_key(key, &req) != 0) {
		inject_err(r, a);
		goto out;
	}
	int rc = req.is_generation_deferred
			 ? inject_generate_defer(&req, r->body, &origin, &a->body, deadline)
			 : inject_batch_run(&batch, &a->body, deadline);
	if (rc != 0 && err_is(ERR_INVALID)) {
		http_response_err(a, 422);
		goto out;
	}
	if (rc != 0) {
		if (!err_is(ERR_LIMIT))
			log_error("kumod", "an injection could not be stored: %s", err_text());
		inject_refuse(r, a, 503, err_is(ERR_LIMIT) ? 5 : 1);
		goto out;
	}
	a->content_type = "application/json";
out:
	inject_batch_fini(&batch);
	inject_request_fini(&req);
}

static void inject_handler(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	struct idempotency key;
	if (!idempotency_begin(&key, r, a, deadline))
		return;
	inject(r, a, &key, deadline);
	idempotency_end(&key);
}

static const char *inject_gate(void)
{
	return inject_g.why_not != NULL ? inject_g.why_not() : NULL;
}

/* --- policies --- */

/* What is local to this system has this identity. */
static void inject_local_who(struct auth_info *who, struct arena *arena)
{
	struct net_addr peer;
	if (net_addr_parse_ip(STR(LOCAL_ADDR), 0, &peer) != 0)
		panic("%s: %s", LOCAL_ADDR, err_text());
	auth_info_init(who, &peer, arena);
	auth_info_add_identity(who, STR(LOCAL_IDENTITY), AUTH_LOCAL_SYSTEM);
}

static struct inject_origin inject_local_origin(const struct auth_info *who)
{
	return (struct inject_origin){
		.received_from = STR(LOCAL_ADDR), .who_name = STR(LOCAL_IDENTITY), .who = who};
}

static int inject_local_gate(void)
{
	const char *why = inject_g.why_not != NULL ? inject_g.why_not() : "the service is not started yet";
	if (why == NULL)
		return 0;
	err_set(ERR_UNSUPPORTED, "%s", why);
	return -1;
}

int api_inject_local(json_t *request, struct buf *answer, mono_t deadline)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	struct inject_request req;
	struct inject_batch batch;
	if (inject_local_gate() != 0) {
		json_decref(request);
		return -1;
	}
	if (inject_request_of_json(request, &req) != 0)
		return -1;
	inject_local_who(&who, &arena);
	struct inject_origin origin = inject_local_origin(&who);
	int rc = inject_batch_init(&batch, &req, &origin, deadline);
	if (rc == 0 && req.is_generation_deferred) {
		char *body = json_dumps(req.root, JSON_COMPACT);
		if (body == NULL)
			err_set(ERR_INVALID, "content: not UTF-8, which deferred_generation needs");
		rc = body != NULL ? inject_generate_defer(&req, str_of(body), &origin, answer, deadline) : -1;
		free(body);
	} else if (rc == 0) {
		rc = inject_batch_run(&batch, answer, deadline);
	}
	inject_batch_fini(&batch);
	inject_request_fini(&req);
	arena_fini(&arena);
	return rc;
}

int api_inject_build(json_t *request, struct message ***out, size_t *n, mono_t deadline)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	struct inject_request req;
	struct inject_batch batch;
	if (inject_request_of_json(request, &req) != 0)
		return -1;
	inject_local_who(&who, &arena);
	struct inject_origin origin = inject_local_origin(&who);
	struct message **m = xcalloc(req.n_recipients + 1, sizeof(struct message *));
	size_t n_made = 0;
	int rc = inject_batch_init(&batch, &req, &origin, deadline);
	for (; rc == 0 && n_made < req.n_recipients; n_made++) {
		m[n_made] = inject_batch_make(&batch, n_made);
		if (m[n_made] == NULL) {
			err_wrap(STR_FMT, STR_ARG(req.recipient[n_made].email));
			rc = -1;
			break;
		}
	}
	for (size_t i = 0; rc != 0 && i < n_made; i++)
		message_unref(m[i]);
	if (rc == 0)
		*out = m, *n = n_made, m = NULL;
	free(m);
	inject_batch_fini(&batch);
	inject_request_fini(&req);
	arena_fini(&arena);
	return rc;
}

/* --- the route --- */

static const struct http_field message_fields[] = {
	{.name = "recipient",
	 .type = HTTP_STRING,
	 .format = "email",
	 .is_required = true,
	 .doc = "The address, as it was sent."},
	{.name = "id",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .doc = "The message's id in the logs and in the other endpoints."},
	{0},
};
static const struct http_schema message_schema = {.name = "InjectV1Message",
						  .doc = "A message that was taken.",
						  .fields = message_fields,
						  .is_strict = true};

static const char *const durability_words[] = {"fsync", "memory", NULL};
static const struct http_field response_fields[] = {
	{.name = "success_count",
	 .type = HTTP_INTEGER,
	 .is_required = true,
	 .doc = "How many recipients' messages are taken."},
	{.name = "fail_count",
	 .type = HTTP_INTEGER,
	 .is_required = true,
	 .doc = "How many recipients were refused."},
	{.name = "failed_recipients",
	 .type = HTTP_STRING,
	 .format = "email",
	 .is_list = true,
	 .is_required = true,
	 .doc = "The addresses that were refused, as they were sent."},
	{.name = "errors",
	 .type = HTTP_STRING,
	 .is_list = true,
	 .is_required = true,
	 .doc = "Why: a text for each of them, in the same order."},
	{.name = "messages",
	 .type = HTTP_OBJECT,
	 .schema = &message_schema,
	 .is_list = true,
	 .is_required = true,
	 .doc = "The messages that are taken, in the order of the recipients."},
	{.name = "durability",
	 .type = HTTP_STRING,
	 .words = durability_words,
	 .is_required = true,
	 .doc = "What a crash of the machine after this answer does to them: "
		"nothing (fsync), or they may be lost (memory)."},
	{.name = "request_id",
	 .type = HTTP_STRING,
	 .doc = "With deferred_generation: the id under which the logs have the request."},
	{0},
};
static const struct http_schema response_schema = {.name = "InjectV1Response",
						   .doc = "What became of each recipient.",
						   .fields = response_fields,
						   .is_strict = true};

static const char *const inject_tags[] = {"inject", NULL};
static const struct http_answer inject_answers[] = {
	{200, "The successful recipients' messages are taken, the others are named, each with its error.",
	 "application/json", &response_schema, NULL, idempotency_answer_headers},
	{400, "The body is not JSON, or the Idempotency-Key is not one.", "text/plain", NULL, NULL},
	{409,
	 "A request with another body came under this Idempotency-Key before. With Retry-After: the first "
	 "one with it is still worked on.",
	 "text/plain", NULL, NULL},
	{422,
	 "The body is JSON of another shape, or a field has an error, "
	 "in its template for instance: the text names it.",
	 "text/plain", NULL, NULL},
	{429, "The rate limit lets no more recipients in for a while; Retry-After says when to try again.",
	 "text/plain", NULL, NULL},
	{503,
	 "No mail is taken now, or nothing could be stored, and nothing is kept; the text says why, "
	 "Retry-After when to try again.",
	 "text/plain", NULL, NULL},
	{0},
};
static const struct http_route inject_routes[] = {
	{.method = "POST",
	 .path = "/api/inject/v1",
	 .handler = inject_handler,
	 .consumes = "application/json",
	 .gate = inject_gate,
	 .id = "inject_v1",
	 .tags = inject_tags,
	 .headers = idempotency_request_headers,
	 .body = &inject_request_schema,
	 .answers = inject_answers,
	 .summary = "Inject a message for one or many recipients.",
	 .text = "Each recipient is a message of its own. The answer comes when "
		 "all of them are on stable storage, unless the request says otherwise. "
		 "What is wrong with one recipient fails that one alone; "
		 "after a 503, or an answer that never came, post the request again: "
		 "with an Idempotency-Key that brings no second mail."},
};

void api_inject_init(const struct api_inject_params *p)
{
	inject_g.why_not = p->why_not;
	inject_batch_setup(p->hostname);
	inject_generate_setup();
}

void api_inject_set_generation_limit(uint64_t n_requests)
{
	inject_generate_set_limit(n_requests);
}

void api_inject_register(void)
{
	http_routes_add(inject_routes, ARRAY_SIZE(inject_routes));
}
