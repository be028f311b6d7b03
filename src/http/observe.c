/* observe.c - counting requests by route, status and latency.
 *
 * Every route has its series from the start, so a request costs three atomic additions and the histogram's;
 * a path that is not served, or a request that could not be parsed, counts under the route "none", so that
 * clients cannot make series. Which route a request asks for is kept in it by the router; the counters are
 * found by the route's address. The table is filled before the first listener starts. */
#include "http/http_impl.h"

#include "base/alloc.h"
#include "base/map.h"
#include "base/metric.h"

#include <stdlib.h>

enum { HTTP_STATUS_CLASSES = 5 };

struct http_counters {
	const struct http_route *route; /* its address is the key */
	struct metric_series
		*requests[HTTP_STATUS_CLASSES]; /* 1xx to 5xx; of the first NULL but for websockets */
	struct metric_series *seconds, *bytes_in, *bytes_out;
};

static struct {
	struct map by_route; /* address of the route -> struct http_counters */
	struct http_counters *none;
} http_observed;

static const char *const http_labels_request[] = {"method", "route", "status", NULL};
static const char *const http_labels_route[] = {"method", "route", NULL};

/* 0.5 ms to 10 s: an injection is one fsync, a scrape of many queues may take long. */
static const double http_seconds_bounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
					     0.1,    0.25,  0.5,    1,	   2.5,	 5,	10};

static struct http_counters *http_counters_new(const char *method, const char *path, bool is_websocket)
{
	static const char *const status[HTTP_STATUS_CLASSES] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
	struct http_counters *c = xnew(struct http_counters);
	struct metric *requests = metric_declare(METRIC_COUNTER, "cirrus_http_requests_total",
						 "HTTP requests answered, by route and class of the status",
						 http_labels_request, NULL, 0);
	for (size_t i = is_websocket ? 0 : 1; i < HTTP_STATUS_CLASSES; i++)
		c->requests[i] =
			metric_get(requests, (str_t[]){str_of(method), str_of(path), str_of(status[i])});
	str_t route[] = {str_of(method), str_of(path)};
	c->seconds = metric_get(metric_declare(METRIC_HISTOGRAM, "cirrus_http_request_seconds",
					       "seconds from the end of a request's header to its answer",
					       http_labels_route, http_seconds_bounds,
					       ARRAY_SIZE(http_seconds_bounds)),
				route);
	c->bytes_in = metric_get(metric_declare(METRIC_COUNTER, "cirrus_http_request_bytes_total",
						"bytes of HTTP requests as received, headers included",
						http_labels_route, NULL, 0),
				 route);
	c->bytes_out = metric_get(metric_declare(METRIC_COUNTER, "cirrus_http_response_bytes_total",
						 "bytes of HTTP answers as sent, headers included",
						 http_labels_route, NULL, 0),
				  route);
	return c;
}

static str_t http_counters_key(const struct http_route *const *route)
{
	return str_mk((const char *)route, sizeof(*route));
}

void http_observe_route(const struct http_route *route)
{
	if (http_observed.none == NULL)
		http_observed.none = http_counters_new("any", "none", false);
	struct http_counters *c = http_counters_new(route->method, route->path, route->websocket != NULL);
	c->route = route;
	map_put(&http_observed.by_route, http_counters_key(&c->route), c);
}

static void http_count(const struct http_request *r, const struct http_done *d)
{
	struct http_counters *c = http_observed.none;
	if (r->route != NULL)
		c = map_find(&http_observed.by_route, http_counters_key(&r->route));
	if (c == NULL) /* no route was ever added */
		return;
	if (d->status >= 100 && d->status < 600 && c->requests[d->status / 100 - 1] != NULL)
		metric_inc(c->requests[d->status / 100 - 1]);
	metric_add(c->bytes_in, (int64_t)r->n_bytes_in);
	metric_add(c->bytes_out, (int64_t)d->n_bytes_out);
	metric_observe(c->seconds, dur_seconds(d->took));
}

void http_request_done(const struct http_request *r, const struct http_response *a, uint64_t n_bytes_out)
{
	struct http_done d = {.request = r, .status = a->status, .n_bytes_out = n_bytes_out};
	if (r->begun.ns != 0)
		d.took = mono_sub(mono_now(), r->begun);
	http_count(r, &d);
	const struct http_listener_params *p = &r->listener->p;
	if (p->on_done != NULL)
		p->on_done(&d, p->on_done_arg);
}
