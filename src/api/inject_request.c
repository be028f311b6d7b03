/* inject_request.c - from JSON to a checked request. Every mistake is answered with the path of the field (`recipients[3].email`)
 * and what was expected; unknown fields are mistakes. */
#include "api/inject_request.h"

#include "api/inject_content.h"
#include "api/json_shape.h"
#include "base/alloc.h"
#include "base/err.h"
#include "mail/envelope.h"

#include <stdlib.h>
#include <string.h>

static const struct http_field recipient_fields[] = {
	{.name = "email", .type = HTTP_STRING, .is_required = true, .format = "email", .example = "\"john.smith@mailbox.example\"",
	 .doc = "The address in RCPT TO."},
	{.name = "name", .type = HTTP_STRING, .is_nullable = true, .example = "\"John Smith\"",
	 .doc = "The name that goes with the address; {{ name }} in a template."},
	{.name = "substitutions", .type = HTTP_OBJECT, .is_nullable = true, .example = "{\"code\":42}",
	 .doc = "Values for the template, before `name`, `email` and those of the request."},
	{.name = "metadata", .type = HTTP_OBJECT, .is_nullable = true, .example = "{\"order\":\"A-7\"}",
	 .doc = "Kept as the message's metadata `extra`, for the policy and the logs."},
	{0},
};
static const struct http_schema inject_recipient_schema = {
	.name = "Recipient", .doc = "One recipient: a message of its own.", .fields = recipient_fields, .is_strict = true};

static const struct http_field trace_fields[] = {
	{.name = "received_header", .type = HTTP_BOOLEAN, .doc = "Only false is taken in this version."},
	{.name = "supplemental_header", .type = HTTP_BOOLEAN, .is_required = true, .doc = "Only false is taken in this version."},
	{.name = "header_name", .type = HTTP_STRING, .doc = "Has no effect while the header is off."},
	{.name = "include_meta_names", .type = HTTP_STRING, .is_list = true, .doc = "Has no effect while the header is off."},
	{0},
};
static const struct http_schema trace_schema = {
	.name = "TraceHeaders", .doc = "Which headers are added to trace the message by.", .fields = trace_fields, .is_strict = true};

static const char *const dialect_words[] = {"Jinja", "Static", "Handlebars", NULL};
static const struct http_field request_fields[] = {
	{.name = "envelope_sender", .type = HTTP_STRING, .is_required = true, .example = "\"alice@example.com\"",
	 .doc = "The address in MAIL FROM; empty for the null sender."},
	{.name = "recipients", .type = HTTP_OBJECT, .is_list = true, .is_required = true, .schema = &inject_recipient_schema,
	 .doc = "Who gets it: a message for each."},
	{.name = "content", .type = HTTP_STRING, .is_required = true, .example = "\"Subject: hello\\r\\n\\r\\nHello {{ name }}\\r\\n\"",
	 .doc = "The whole message as text, header and body. Markup in it is expanded for each recipient."},
	{.name = "substitutions", .type = HTTP_OBJECT, .is_nullable = true, .doc = "Values for the template, for all recipients."},
	{.name = "deferred_spool", .type = HTTP_BOOLEAN, .def = "false", .is_nullable = true, .doc = "true is refused in this version."},
	{.name = "deferred_generation", .type = HTTP_BOOLEAN, .def = "false", .is_nullable = true, .doc = "true is refused in this version."},
	{.name = "trace_headers", .type = HTTP_OBJECT, .is_nullable = true, .schema = &trace_schema,
	 .doc = "No trace headers are added in this version, so only a table that switches them off is taken."},
	{.name = "template_dialect", .type = HTTP_STRING, .is_nullable = true, .def = "\"Jinja\"", .words = dialect_words,
	 .doc = "Static: the content is no template. Handlebars is refused in this version."},
	{0},
};
const struct http_schema inject_request_schema = {
	.name = "InjectV1Request", .doc = "One message for one or many recipients.", .fields = request_fields, .is_strict = true};

static int parse_recipient(const json_t *v, size_t i, struct inject_recipient *out)
{
	char at[64], prefix[80], path[96];
	snprintf(at, sizeof(at), "recipients[%zu]", i);
	snprintf(prefix, sizeof(prefix), "%s.", at);
	if (!json_is_object(v))
		return json_shape_err_type(at, v, "struct Recipient");
	int rc = json_shape_check_names(v, &inject_recipient_schema, prefix);
	if (rc != 0)
		return rc;
	const json_t *email = json_object_get(v, "email");
	const json_t *name = json_object_get(v, "name");
	const json_t *subst = json_object_get(v, "substitutions");
	const json_t *metadata = json_object_get(v, "metadata");
	if (email == NULL) {
		snprintf(prefix, sizeof(prefix), "%s: ", at);
		return json_shape_err_missing(prefix, "email");
	}
	snprintf(path, sizeof(path), "%s.email", at);
	if (!json_is_string(email))
		return json_shape_err_type(path, email, "a string");
	snprintf(path, sizeof(path), "%s.name", at);
	if (json_shape_has(name) && !json_is_string(name))
		return json_shape_err_type(path, name, "a string");
	snprintf(path, sizeof(path), "%s.substitutions", at);
	if (json_shape_has(subst) && !json_is_object(subst))
		return json_shape_err_type(path, subst, "a map");
	snprintf(path, sizeof(path), "%s.metadata", at);
	if (json_shape_has(metadata) && !json_is_object(metadata))
		return json_shape_err_type(path, metadata, "a map");
	out->email = json_shape_str(email);
	out->name = json_shape_has(name) ? json_shape_str(name) : STR_NULL;
	out->substitutions = json_shape_has(subst) ? subst : NULL;
	out->metadata = json_shape_has(metadata) && json_object_size(metadata) > 0 ? metadata : NULL;
	return 0;
}

static int parse_recipients(struct inject_request *r)
{
	const json_t *list = json_object_get(r->root, "recipients");
	if (list == NULL)
		return json_shape_err_missing("", "recipients");
	if (!json_is_array(list))
		return json_shape_err_type("recipients", list, "a sequence");
	size_t n = json_array_size(list);
	r->recipient = xcalloc(n + 1, sizeof(*r->recipient));
	for (size_t i = 0; i < n; i++) {
		int rc = parse_recipient(json_array_get(list, i), i, &r->recipient[i]);
		if (rc != 0)
			return rc;
	}
	r->n_recipients = n;
	return 0;
}

static int parse_content(struct inject_request *r)
{
	const json_t *content = json_object_get(r->root, "content");
	if (content == NULL)
		return json_shape_err_missing("", "content");
	if (json_is_object(content))
		return json_shape_err_unsupported("content as an object");
	if (!json_is_string(content))
		return json_shape_err_type("content", content, "a string");
	r->content = json_shape_str(content);
	if (r->content.n == 0) {
		err_set(ERR_INVALID, "Error: content: the message is empty");
		return 422;
	}
	if (inject_content_check(r->content) == 0)
		return 0;
	err_wrap("Error");
	return 422;
}

static int parse_sender(struct inject_request *r)
{
	const json_t *sender = json_object_get(r->root, "envelope_sender");
	struct mailbox box;
	if (sender == NULL)
		return json_shape_err_missing("", "envelope_sender");
	if (!json_is_string(sender))
		return json_shape_err_type("envelope_sender", sender, "a string");
	if (mailbox_parse(json_shape_str(sender), &box) != 0) {
		err_wrap("Error: envelope_sender");
		return 422;
	}
	r->envelope_sender = box.email;
	return 0;
}

/** trace_headers with everything off says what is done anyway. */
static bool trace_headers_are_off(const json_t *v)
{
	return json_is_object(v) && json_is_false(json_object_get(v, "supplemental_header")) &&
	       !json_is_true(json_object_get(v, "received_header"));
}

static int parse_options(struct inject_request *r)
{
	static const char *const flags[] = {"deferred_spool", "deferred_generation"};
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		const json_t *v = json_object_get(r->root, flags[i]);
		if (json_shape_has(v) && !json_is_boolean(v))
			return json_shape_err_type(flags[i], v, "a boolean");
		if (json_is_true(v))
			return json_shape_err_unsupported(flags[i]);
	}
	const json_t *subst = json_object_get(r->root, "substitutions");
	if (json_shape_has(subst) && !json_is_object(subst))
		return json_shape_err_type("substitutions", subst, "a map");
	r->substitutions = json_shape_has(subst) ? subst : NULL;
	const json_t *trace = json_object_get(r->root, "trace_headers");
	if (json_shape_has(trace) && !trace_headers_are_off(trace))
		return json_shape_err_unsupported("trace_headers");
	const json_t *dialect = json_object_get(r->root, "template_dialect");
	if (!json_shape_has(dialect))
		return 0;
	if (!json_is_string(dialect))
		return json_shape_err_type("template_dialect", dialect, "a string");
	const char *word = json_string_value(dialect);
	r->is_static = strcmp(word, "Static") == 0;
	if (r->is_static || strcmp(word, "Jinja") == 0)
		return 0;
	if (strcmp(word, "Handlebars") == 0)
		return json_shape_err_unsupported("template_dialect = Handlebars");
	err_set(ERR_INVALID, JSON_SHAPE_BAD "template_dialect: unknown variant `%.100s`, expected one of `Jinja`, `Static`, `Handlebars`", word);
	return 422;
}

int inject_request_parse(str_t body, struct inject_request *out)
{
	int rc;
	struct inject_request r = {.root = json_shape_parse(body, &inject_request_schema, &rc)};
	if (r.root == NULL)
		return rc;
	if ((rc = json_shape_check_names(r.root, &inject_request_schema, "")) == 0 && (rc = parse_sender(&r)) == 0 &&
	    (rc = parse_recipients(&r)) == 0 && (rc = parse_content(&r)) == 0 && (rc = parse_options(&r)) == 0) {
		*out = r;
		return 0;
	}
	inject_request_fini(&r);
	return rc;
}

void inject_request_fini(struct inject_request *r)
{
	free(r->recipient);
	json_decref(r->root);
}
