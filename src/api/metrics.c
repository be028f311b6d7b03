/* metrics.c - GET /metrics and /metrics.json: every metric of the process,
 * or those whose name starts with `prefix`. A server with many queues has
 * 100,000 series and more, so the text is made on an offload thread. */
#include "api/api_impl.h"

#include "base/err.h"
#include "base/metric.h"
#include "fiber/offload.h"
#include "http/accept.h"

struct api_metrics_job {
	void (*render)(struct buf *out, str_t prefix);
	struct buf *out;
	str_t prefix;
};

static int api_metrics_run(void *arg)
{
	struct api_metrics_job *j = arg;
	j->render(j->out, j->prefix);
	return 0;
}

static void api_metrics_answer(struct http_request *r, struct http_response *a, const char *content_type,
			       void (*render)(struct buf *out, str_t prefix), mono_t deadline)
{
	struct api_metrics_job j = {
		.render = render, .out = &a->body, .prefix = http_request_query(r, STR("prefix"))};
	a->content_type = content_type;
	if (offload_run(api_metrics_run, &j, deadline) != 0)
		http_response_err(a, 503);
}

static void api_metrics_text(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	static const struct http_media offered[] = {
		{"text/plain", "version", "0.0.4"},
		{"application/openmetrics-text", "version", "1.0.0"},
	};
	http_response_add_header(r, a, STR("vary"), STR("accept"));
	if (http_accept_choose(http_request_header(r, STR("accept")), offered, ARRAY_SIZE(offered)) == 1)
		api_metrics_answer(r, a, "application/openmetrics-text; version=1.0.0; charset=utf-8",
				   metric_render_openmetrics, deadline);
	else
		api_metrics_answer(r, a, "text/plain; version=0.0.4; charset=utf-8", metric_render_text,
				   deadline);
}

static void api_metrics_json(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	api_metrics_answer(r, a, "application/json; charset=utf-8", metric_render_json, deadline);
}

static const struct http_field api_metrics_query[] = {
	{.name = "prefix",
	 .type = HTTP_STRING,
	 .example = "\"scheduled_\"",
	 .doc = "Only metrics whose name begins so."},
	{0},
};
static const struct http_field api_metrics_map[] = {
	{.name = "metrics", .type = HTTP_OBJECT, .is_map = true, .doc = "By name: help, type and value."}};
static const char *const api_metrics_tags[] = {"metrics", NULL};
static const struct http_answer api_metrics_text_answers[] = {
	{200, "The metrics, sorted by name.", "text/plain", NULL, NULL},
	{200, "The same as OpenMetrics.", "application/openmetrics-text", NULL, NULL},
	{0},
};
static const struct http_answer api_metrics_json_answers[] = {
	{200, "The metrics, sorted by name.", "application/json", NULL, api_metrics_map},
	{0},
};
static const struct http_route api_metrics_routes[] = {
	{
		.method = "GET",
		.path = "/metrics",
		.handler = api_metrics_text,
		.id = "report_metrics",
		.tags = api_metrics_tags,
		.summary = "The metrics in the text format of Prometheus, or as OpenMetrics.",
		.text = "OpenMetrics 1.0.0 when the Accept header prefers it. "
			"The series of a queue end with the queue.",
		.query = api_metrics_query,
		.answers = api_metrics_text_answers,
	},
	{
		.method = "GET",
		.path = "/metrics.json",
		.handler = api_metrics_json,
		.id = "report_metrics_json",
		.tags = api_metrics_tags,
		.summary = "The metrics as JSON.",
		.text = "Of a metric with labels the value is an object "
			"for each label, with the label's values as keys. "
			"Of a histogram it has avg, bucket, count and sum.",
		.query = api_metrics_query,
		.answers = api_metrics_json_answers,
	},
};

void api_metrics_register(void)
{
	http_routes_add(api_metrics_routes, ARRAY_SIZE(api_metrics_routes));
}
