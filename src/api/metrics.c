/* metrics.c - GET /metrics and /metrics.json: every metric of the process, or those whose name starts with
 * `prefix`. */
#include "api/api_impl.h"

#include "base/metric.h"
#include "http/http.h"

static void api_metrics_text(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "text/plain; version=0.0.4; charset=utf-8";
	metric_render_text(&a->body, http_request_query(r, STR("prefix")));
}

static void api_metrics_json(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "application/json; charset=utf-8";
	metric_render_json(&a->body, http_request_query(r, STR("prefix")));
}

static const struct http_route api_metrics_routes[] = {
	{
		.method = "GET",
		.path = "/metrics",
		.handler = api_metrics_text,
		.summary = "The metrics in the Prometheus text format; ?prefix= selects by the start of the "
			   "name.",
		.is_immediate = true,
	},
	{
		.method = "GET",
		.path = "/metrics.json",
		.handler = api_metrics_json,
		.summary = "The metrics as JSON; ?prefix= selects by the start of the name.",
		.is_immediate = true,
	},
};

void api_metrics_register(void)
{
	http_routes_add(api_metrics_routes, ARRAY_SIZE(api_metrics_routes));
}
