/* config.c - POST /api/admin/bump-config-epoch and POST /api/admin/set_diagnostic_log_filter/v1: what an
 * operator may change while the daemon runs. */
#include "api/api_impl.h"

#include "api/json_shape.h"
#include "base/log.h"
#include "net/addr.h"
#include "policy/policy.h"

static void api_bump_config_epoch(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	log_info("kumod", "the policy is loaded again, as %s asks", net_addr_fmt_ip(r->peer, peer));
	policy_bump_epoch();
}

static void api_set_log_filter(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	json_t *root = json_shape_of_request(r, a);
	if (root == NULL)
		return;
	str_t filter = json_shape_str(json_object_get(root, "filter"));
	if (log_set_filter(filter) != 0)
		http_response_err(a, 500); /* the status that clients know */
	else
		log_info("kumod", "the filter of the diagnostic log is now '" STR_FMT "'", STR_ARG(filter));
	json_decref(root);
}

static const struct http_field api_filter_fields[] = {
	{.name = "filter",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"kumod=debug,lua=info,warn\"",
	 .doc = "target=level directives and at most one bare level, joined by commas."},
	{0},
};
static const struct http_schema api_filter_schema = {
	.name = "SetDiagnosticFilterRequest",
	.doc = "What the diagnostic log shall show.",
	.fields = api_filter_fields,
	.is_strict = true,
};
static const char *const api_config_tags[] = {"config", NULL}, *const api_filter_tags[] = {"logging", NULL};
static const struct http_answer api_bump_answers[] = {{200, "It was done.", NULL, NULL, NULL}, {0}};
static const struct http_answer api_filter_answers[] = {
	{200, "The filter is in use.", NULL, NULL, NULL},
	{500, "The filter cannot be parsed; the one before stays.", "text/plain", NULL, NULL},
	{0},
};
static const struct http_route api_config_routes[] = {
	{
		.method = "POST",
		.path = "/api/admin/bump-config-epoch",
		.handler = api_bump_config_epoch,
		.id = "bump_config_epoch",
		.tags = api_config_tags,
		.summary = "Load the policy again, as SIGHUP does.",
		.text = "Begins a new configuration epoch: Lua states of "
			"before are not used any more, queues "
			"and paths are asked for again, certificates are read again. "
			"A policy that does not compile is reported in "
			"the diagnostic log, and the one before stays.",
		.answers = api_bump_answers,
	},
	{
		.method = "POST",
		.path = "/api/admin/set_diagnostic_log_filter/v1",
		.handler = api_set_log_filter,
		.consumes = "application/json",
		.id = "set_diagnostic_log_filter_v1",
		.tags = api_filter_tags,
		.summary = "Change the filter of the diagnostic log.",
		.text = "It replaces the whole filter until the "
			"next change or restart. Levels are trace, "
			"debug, info, warn, error and off.",
		.body = &api_filter_schema,
		.answers = api_filter_answers,
	},
};

void api_config_register(void)
{
	http_routes_add(api_config_routes, ARRAY_SIZE(api_config_routes));
}
