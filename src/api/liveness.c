/* liveness.c - GET /api/check-liveness/v1: can this service take mail? For load balancers, so anybody may
 * ask. */
#include "api/api.h"

#include "api/api_impl.h"
#include "http/http.h"

#include <stdatomic.h>

typedef const char *api_why_not_fn(void);
static _Atomic(api_why_not_fn *) api_liveness_condition;

void api_set_liveness(const char *(*why_not)(void))
{
	atomic_store(&api_liveness_condition, why_not);
}

static void api_check_liveness(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	api_why_not_fn *why_not = atomic_load(&api_liveness_condition);
	const char *why = why_not != NULL ? why_not() : NULL;
	if (why != NULL) {
		http_response_text(a, 503, "%s", why);
		return;
	}
	http_response_text(a, 200, "OK");
}

static const struct http_route api_liveness_routes[] = {
	{
		.method = "GET",
		.path = "/api/check-liveness/v1",
		.handler = api_check_liveness,
		.summary = "Tell whether the service can take messages: 200 OK, or 503 and the reason.",
		.is_public = true,
		.is_immediate = true,
	},
};

void api_liveness_register(void)
{
	http_routes_add(api_liveness_routes, 1);
}
