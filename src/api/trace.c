/* trace.c - GET /api/admin/trace-smtp-server/v1: what happens
 * in SMTP sessions, while it happens, on a websocket.
 *
 * Events are kept for the client from the upgrade on; what it wants to see of them it says in its first
 * message, and then it says nothing more. The connection's fiber waits for the client and for events at once:
 * the hub wakes it (in_trace.h). */
#include "api/api_impl.h"

#include "api/json_shape.h"
#include "base/err.h"
#include "fiber/fiber.h"
#include "http/websocket.h"
#include "smtp/in_trace.h"

#define TRACE_REQUEST_TIMEOUT dur_s(60)

enum { TRACE_TURN_EVENTS = 64 }; /* sent before other fibers and the client get a turn */

static const struct http_field trace_fields[] = {
	{.name = "source_addr",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .is_list = true,
	 .example = "[\"192.0.2.0/24\"]",
	 .doc = "Networks and addresses: only sessions of these "
		"peers are shown. Empty, or not given: all of them."},
	{.name = "terse",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "false",
	 .doc = "Of what is read in several lines at once, a piece of a message, only the first one is "
		"shown, with the length of all."},
	{0},
};
static const struct http_schema trace_request_schema = {.name = "TraceSmtpServerV1Request",
							.doc = "Which sessions to trace.",
							.fields = trace_fields,
							.is_strict = true};

/* The request that is in text. -1 with an error that names what is wrong with it. */
static int trace_parse_request(str_t text, struct cidr_set *source_addr, bool *is_terse)
{
	int status = 0, rc = 0;
	size_t i;
	json_t *v, *obj = json_shape_parse(text, &trace_request_schema, &status);
	if (obj == NULL)
		return -1;
	if (json_shape_check(obj, &trace_request_schema) != 0)
		rc = -1;
	if (rc == 0)
		json_array_foreach(json_object_get(obj, "source_addr"), i, v)
		{
			rc = cidr_set_add(source_addr, json_shape_str(v));
			if (rc != 0) {
				err_wrap("source_addr[%zu]", i);
				break;
			}
		}
	if (rc == 0)
		*is_terse = json_is_true(json_object_get(obj, "terse"));
	json_decref(obj);
	return rc;
}

/* The error in the slot, without the words that would fill a reason by themselves. */
static void trace_refuse(struct websocket *ws)
{
	str_t why = str_of(err_text()), prefix = STR(JSON_SHAPE_BAD);
	if (str_starts(why, prefix))
		why = str_skip(why, prefix.n);
	websocket_close(ws, WEBSOCKET_INVALID, STR_FMT, STR_ARG(why));
	err_clear();
}

/* Waits for the request. False: the client is to be told what is wrong with it, or is gone. */
static bool trace_await_request(struct websocket *ws, struct in_tracer *t)
{
	struct cidr_set source_addr = {0};
	bool is_terse = false, is_good = false;
	str_t text = STR_NULL;
	enum websocket_got got;
	mono_t deadline = mono_after(TRACE_REQUEST_TIMEOUT);
	while ((got = websocket_receive(ws, &text, deadline)) == WEBSOCKET_WOKEN)
		; /* events wait, until it is known which of them are wanted */
	if (got == WEBSOCKET_FAILED && err_is(ERR_TIMEOUT)) {
		websocket_close(ws, WEBSOCKET_POLICY, "no request came in time");
	} else if (got == WEBSOCKET_BINARY) {
		websocket_close(ws, WEBSOCKET_UNSUPPORTED, "the request must be text");
	} else if (got == WEBSOCKET_TEXT) {
		is_good = trace_parse_request(text, &source_addr, &is_terse) == 0;
		if (!is_good)
			trace_refuse(ws);
	}
	if (is_good)
		in_tracer_set_filter(t, &source_addr, is_terse);
	cidr_set_fini(&source_addr);
	return is_good;
}

/* Sends what there is, up to a turn's worth. -1: the client is gone. */
static int trace_send_some(struct websocket *ws, struct in_tracer *t)
{
	str_t event;
	for (unsigned n = 0; n < TRACE_TURN_EVENTS; n++) {
		if (!in_tracer_take(t, &event))
			return 0;
		if (websocket_send_text(ws, event, MONO_NEVER) != 0)
			return -1;
	}
	websocket_wake(ws); /* there may be more */
	fiber_yield();
	return 0;
}

static void trace_stream(struct websocket *ws, struct in_tracer *t)
{
	enum websocket_got got = WEBSOCKET_WOKEN;
	str_t text;
	while (got == WEBSOCKET_WOKEN && trace_send_some(ws, t) == 0)
		got = websocket_receive(ws, &text, MONO_NEVER);
	if (got == WEBSOCKET_TEXT || got == WEBSOCKET_BINARY)
		websocket_close(ws, WEBSOCKET_POLICY, "after the request nothing more is expected");
}

static void trace_wake(void *arg)
{
	websocket_wake(arg);
}

static void api_trace_smtp_server(struct http_request *r, struct websocket *ws, void *arg)
{
	struct in_tracer *t = in_tracer_new(trace_wake, ws);
	if (t == NULL) {
		websocket_close(ws, WEBSOCKET_TRY_LATER, "%s", err_text());
		return;
	}
	if (trace_await_request(ws, t))
		trace_stream(ws, t);
	in_tracer_free(t);
}

static const char *const api_trace_tags[] = {"debugging", "kcli:trace-smtp-server", NULL};
static const struct http_answer api_trace_answers[] = {
	{101, "It is a websocket from here on.", NULL, NULL, NULL},
	{400, "The request does not ask for a websocket; the text names what is missing.", "text/plain", NULL,
	 NULL},
	{403, "The login is good, but may not do this; or the Origin is that of another site.", "text/plain",
	 NULL, NULL},
	{426, "Another version of websockets than 13.", "text/plain", NULL, NULL},
	{503, "There are as many tracers as there may be.", "text/plain", NULL, NULL},
	{0}};
static const struct http_route api_trace_routes[] = {
	{
		.method = "GET",
		.path = "/api/admin/trace-smtp-server/v1",
		.websocket = api_trace_smtp_server,
		.gate = in_tracer_why_not,
		.id = "trace_smtp_server_v1",
		.tags = api_trace_tags,
		.summary = "A websocket that shows SMTP sessions while they happen.",
		.text = "The client sends one text message, a JSON object: "
			"`source_addr`, a list of networks, keeps to the "
			"sessions of these peers; `terse`, true, "
			"abbreviates what is read in several lines at once. "
			"From then on it gets one JSON object a message: `conn_meta`, "
			"the session's metadata; `payload`, what has happened; `when`.",
		.answers = api_trace_answers,
	},
};

void api_trace_register(void)
{
	http_routes_add(api_trace_routes, ARRAY_SIZE(api_trace_routes));
}
