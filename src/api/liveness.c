/* liveness.c - GET /api/check-liveness/v1: can this service take mail? For load balancers, so anybody may
 * ask. */
#include "api/api_impl.h"

#include "base/defs.h"

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

static const char *const api_liveness_tags[] = {"liveness", NULL};
static const struct http_answer api_liveness_answers[] = {
	{200, "Messages are taken.", "text/plain", NULL, NULL},
	{503, "They are not; the text says why.", "text/plain", NULL, NULL},
	{0},
};
static const struct http_route api_liveness_routes[] = {
	{
		.method = "GET",
		.path = "/api/check-liveness/v1",
		.handler = api_check_liveness,
		.id = "check_liveness_v1",
		.tags = api_liveness_tags,
		.summary = "Tell whether the service can take messages.",
		.text = "For load balancers: anybody may ask, "
			"from any address. Starting, stopping, a full disk "
			"and a spool that takes nothing are reasons why not.",
		.answers = api_liveness_answers,
		.is_public = true,
		.is_immediate = true,
	},
};

void api_liveness_register(void)
{
	http_routes_add(api_liveness_routes, ARRAY_SIZE(api_liveness_routes));
}
