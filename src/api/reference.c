/* reference.c - GET /api-docs/openapi.json, the description of the API for programs, and GET /rapidoc, a page
 * that shows it to people and lets them try it. The page is one file without any other (web/, put together by
 * tools/embed.py when this is built); it reads the description from the service. Both are open to anybody:
 * they say what there is, not what is in it. Nothing but the page's own script and style may run or load
 * there, see the policy that goes with it. */
#include "api/api_impl.h"

#include "reference_page.h"

#include <pthread.h>

static struct buf api_openapi;
static pthread_once_t api_openapi_once = PTHREAD_ONCE_INIT;

static void api_openapi_write(void)
{
	http_write_openapi(
		&(struct http_reference_info){
			.title = "cirrusd",
			.version = api_info.version,
			.doc = "The HTTP API of a mail transfer agent. Requests from a trusted host need no "
			       "login. Errors are plain text.",
		},
		&api_openapi);
}

static void api_get_openapi(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	pthread_once(&api_openapi_once, api_openapi_write);
	a->content_type = "application/json";
	buf_add_str(&a->body, buf_str(&api_openapi));
}

static void api_get_page(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "text/html; charset=utf-8";
	http_response_add_header(r, a, STR("content-security-policy"), STR(REFERENCE_PAGE_CSP));
	http_response_add_header(r, a, STR("x-content-type-options"), STR("nosniff"));
	http_response_add_header(r, a, STR("referrer-policy"), STR("no-referrer"));
	http_response_add_header(r, a, STR("cache-control"), STR("no-cache"));
	buf_add(&a->body, reference_page, sizeof(reference_page));
}

static const char *const api_reference_tags[] = {"docs", NULL};
static const struct http_answer api_openapi_answers[] = {
	{200, "An OpenAPI 3.1 document.", "application/json", NULL, NULL}, {0}};
static const struct http_answer api_page_answers[] = {{200, "The page.", "text/html", NULL, NULL}, {0}};
static const struct http_route api_reference_routes[] = {
	{
		.method = "GET",
		.path = "/api-docs/openapi.json",
		.handler = api_get_openapi,
		.id = "openapi",
		.tags = api_reference_tags,
		.summary = "This description of the API, for programs.",
		.answers = api_openapi_answers,
		.is_public = true,
		.is_immediate = true,
	},
	{
		.method = "GET",
		.path = "/rapidoc",
		.handler = api_get_page,
		.id = "rapidoc",
		.tags = api_reference_tags,
		.summary = "This description of the API, as a page that "
			   "works without any network but this service.",
		.answers = api_page_answers,
		.is_public = true,
		.is_immediate = true,
	},
};

void api_reference_register(void)
{
	http_routes_add(api_reference_routes, ARRAY_SIZE(api_reference_routes));
}
