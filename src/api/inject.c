/* inject.c - the way of an injected message: a message per recipient, the policy's http_message_generated on each, its scheduled
 * queue, then all of them to the spool in one batch, and only when that is durable the answer and the queues. What is wrong with one
 * recipient is reported for it alone; when the spool refuses the batch, the whole request is 503 and nothing is kept. The body is
 * shared by all recipients unless a template makes it differ. */
#include "api/inject.h"

#include "api/authorize.h"
#include "api/inject_content.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/metric.h"
#include "http/http.h"
#include "http/reference.h"
#include "mail/envelope.h"
#include "policy/policy.h"
#include "policy/value.h"
#include "queue/reception.h"

#include <pthread.h>
#include <stdlib.h>

#define EVENT_GENERATED "http_message_generated"

static struct {
	const char *(*why_not)(void);
	struct metric_series *received;
} inject_g;

struct injection {
	const struct http_request *http;
	const struct inject_request *req;
	const struct auth_info *who;    /* that posts it */
	str_t who_name;
	json_t *who_json;               /* for the policy; NULL until it is called */
	struct inject_content content;
	struct reception accepted;      /* so far */
	json_t *failed, *errors;        /* arrays */
};

static void injection_fail(struct injection *in, str_t email)
{
	struct err e = err_take();
	struct buf b = BUF_INIT;
	buf_add_str(&b, email); /* may hold NUL */
	buf_add_z(&b, ": ");
	if (e.kind == ERR_REJECT)
		buf_printf(&b, "%d ", e.code);
	buf_add_z(&b, e.text);
	json_array_append_new(in->failed, json_stringn(email.p, email.n));
	json_array_append_new(in->errors, json_stringn_nocheck(b.p, b.n)); /* a text that was cut may end inside a character */
	buf_fini(&b);
	err_fini(&e);
}

/** A mistake of the policy, which the one who posts cannot mend: for the operator, at most once a second. The error stays. */
static void injection_complain(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static mono_t next;
	static uint64_t n_silent;
	pthread_mutex_lock(&lock);
	if (mono_is_past(next)) {
		log_error("kumod", "an injected recipient failed: %s (%llu more such errors since the last line)", err_text(),
		          (unsigned long long)n_silent);
		next = mono_after(dur_s(1));
		n_silent = 0;
	} else {
		n_silent++;
	}
	pthread_mutex_unlock(&lock);
}

static void injection_set_meta(struct injection *in, struct message *m, const struct inject_recipient *r)
{
	char peer[NET_ADDR_STRLEN], local[NET_ADDR_STRLEN];
	net_addr_fmt_ip(in->http->peer, peer);
	net_addr_fmt_ip(in->http->local, local);
	meta_set_str(&m->meta, STR("http_auth"), in->who_name);
	meta_set_str(&m->meta, STR("received_via"), str_of(local));
	meta_set_str(&m->meta, STR("received_from"), str_of(peer));
	meta_set_str(&m->meta, STR("hostname"), str_of(http_request_hostname(in->http)));
	meta_set_str(&m->meta, STR("reception_protocol"), STR("HTTP"));
	if (r->metadata != NULL) {
		char *text = json_dumps(r->metadata, JSON_COMPACT);
		meta_set_json(&m->meta, STR("extra"), str_of(text));
		free(text);
	}
}

/** http_message_generated(msg, auth_info). A handler that rejects, or fails, fails this recipient. */
static int injection_call_policy(struct injection *in, struct message *m, mono_t deadline)
{
	struct policy_call c;
	if (!policy_has_handler(EVENT_GENERATED))
		return 0;
	int rc = policy_call_begin(&c, EVENT_GENERATED, deadline);
	if (rc <= 0)
		return rc;
	if (in->who_json == NULL)
		in->who_json = auth_info_json(in->who);
	policy_push_message(c.L, m);
	value_push_json(c.L, in->who_json);
	rc = policy_call_run(&c, 2, 0, deadline);
	policy_call_end(&c);
	return rc < 0 ? -1 : 0;
}

/** One recipient: -1 with the error of what is wrong with it. */
static int injection_add(struct injection *in, const struct inject_recipient *r, mono_t deadline)
{
	struct mailbox box;
	struct message *m = NULL;
	struct body *body = NULL;
	int rc = -1;

	if (mailbox_parse(r->email, &box) != 0) {
		err_wrap("recipient email");
		goto out;
	}
	if (box.email.n == 0) {
		err_set(ERR_INVALID, "recipient email: the null address cannot be a recipient");
		goto out;
	}
	body = inject_content_of(&in->content, r);
	if (body == NULL)
		goto out;
	m = message_new(in->req->envelope_sender, &box.email, 1, body);
	injection_set_meta(in, m, r);
	if (injection_call_policy(in, m, deadline) != 0 || reception_add(&in->accepted, m, deadline) != 0) {
		if (!err_is(ERR_REJECT))
			injection_complain();
		goto out;
	}
	m = NULL;
	rc = 0;
out:
	body_unref(body);
	reception_refuse(m);
	return rc;
}

/** Hands the stored messages to their queues: from here on they are the queues' to end. */
static void injection_enqueue(struct injection *in)
{
	char peer[NET_ADDR_STRLEN];
	struct record how = {
		.peer_name = STR(""),
		.peer_addr = str_of(net_addr_fmt_ip(in->http->peer, peer)),
		.reception_protocol = STR("HTTP"),
	};
	reception_enqueue(&in->accepted, &how);
	metric_add(inject_g.received, (int64_t)in->accepted.n);
}

static void injection_answer(const struct injection *in, struct http_response *a)
{
	struct json_out j = json_out_to(&a->body);
	size_t n_failed = json_array_size(in->failed);
	const json_t *list[] = {in->failed, in->errors};
	const str_t name[] = {STR("failed_recipients"), STR("errors")};
	json_obj_begin(&j);
	json_kv_int(&j, STR("success_count"), (int64_t)in->accepted.n);
	json_kv_int(&j, STR("fail_count"), (int64_t)n_failed);
	for (size_t k = 0; k < ARRAY_SIZE(list); k++) {
		json_key(&j, name[k]);
		json_arr_begin(&j);
		for (size_t i = 0; i < n_failed; i++) {
			const json_t *v = json_array_get(list[k], i);
			json_str(&j, str_mk(json_string_value(v), json_string_length(v)));
		}
		json_arr_end(&j);
	}
	json_obj_end(&j);
	a->content_type = "application/json";
}

static void injection_fini(struct injection *in)
{
	reception_fini(&in->accepted);
	inject_content_fini(&in->content);
	json_decref(in->failed);
	json_decref(in->errors);
	json_decref(in->who_json);
}

static void inject_handler(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	struct inject_request req;
	int status = inject_request_parse(r->body, &req);
	if (status != 0) {
		http_response_text(a, status, "%s", err_text());
		err_clear();
		return;
	}
	struct injection in = {.http = r, .req = &req, .failed = json_array(), .errors = json_array()};
	in.who = api_request_who(r);
	in.who_name = auth_info_name(in.who);
	reception_init(&in.accepted, req.n_recipients);
	if (inject_content_init(&in.content, &req) != 0) {
		http_response_err(a, 422);
		goto out;
	}
	for (size_t i = 0; i < req.n_recipients; i++)
		if (injection_add(&in, &req.recipient[i], deadline) != 0)
			injection_fail(&in, req.recipient[i].email);
	if (reception_store(&in.accepted, deadline) != 0) {
		log_error("kumod", "an injected batch could not be stored: %s", err_text());
		http_response_err(a, 503);
		http_response_add_header(r, a, STR("Retry-After"), STR("1"));
		goto out;
	}
	injection_enqueue(&in);
	injection_answer(&in, a);
out:
	injection_fini(&in);
	inject_request_fini(&req);
}

static const char *inject_gate(void) { return inject_g.why_not != NULL ? inject_g.why_not() : NULL; }

static const struct http_field response_fields[] = {
	{.name = "success_count", .type = HTTP_INTEGER, .is_required = true, .doc = "How many recipients' messages are durable."},
	{.name = "fail_count", .type = HTTP_INTEGER, .is_required = true, .doc = "How many recipients were refused."},
	{.name = "failed_recipients", .type = HTTP_STRING, .is_list = true, .is_required = true, .doc = "The addresses that were refused, as they were sent."},
	{.name = "errors", .type = HTTP_STRING, .is_list = true, .is_required = true, .doc = "Why: a text for each of them, in the same order."},
	{0},
};
static const struct http_schema response_schema = {
	.name = "InjectV1Response", .doc = "What became of each recipient.", .fields = response_fields, .is_strict = true};

static const char *const inject_tags[] = {"inject", NULL};
static const struct http_answer inject_answers[] = {
	{200, "The successful recipients' messages are durable, the others are named, each with its error.", "application/json",
	 &response_schema, NULL},
	{0},
};
static const struct http_route inject_routes[] = {
	{.method = "POST", .path = "/api/inject/v1", .handler = inject_handler, .consumes = "application/json", .gate = inject_gate,
	 .id = "inject_v1", .tags = inject_tags, .body = &inject_request_schema, .answers = inject_answers,
	 .summary = "Inject a message, given as text, for one or many recipients.",
	 .text = "Each recipient is a message of its own. The answer comes when all of them are on stable storage. What is wrong "
		 "with one recipient fails that one alone; after a 503, or an answer that never came, post the request again."},
};

void api_inject_init(const char *(*why_not)(void))
{
	static const char *const label[] = {"service", NULL};
	str_t service = STR("http_listener");
	inject_g.why_not = why_not;
	inject_g.received = metric_get(metric_declare(METRIC_COUNTER, "total_messages_received",
	                                              "total number of messages ever received", label, NULL, 0), &service);
}

void api_inject_register(void) { http_routes_add(inject_routes, ARRAY_SIZE(inject_routes)); }
