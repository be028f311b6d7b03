/* inject_request.c - from JSON to a checked request. Every mistake is answered with the path of the field (`recipients[3].email`)
 * and what was expected; unknown fields are mistakes. */
#include "api/inject_request.h"

#include "api/inject_content.h"
#include "base/alloc.h"
#include "base/err.h"
#include "mail/envelope.h"
#include "policy/value.h"

#include <stdlib.h>
#include <string.h>

#define BAD_SHAPE "Failed to deserialize the JSON body into the target type: "

static const char *const request_fields[] = {"envelope_sender", "recipients", "content", "substitutions", "deferred_spool",
                                             "deferred_generation", "trace_headers", "template_dialect", NULL};
static const char *const recipient_fields[] = {"email", "name", "substitutions", "metadata", NULL};

static int shape_err(const char *path, const json_t *given, const char *expected)
{
	struct buf b = BUF_INIT;
	value_describe(given, false, &b);
	err_set(ERR_INVALID, BAD_SHAPE "%s: invalid type: " STR_FMT ", expected %s", path, STR_ARG(str_head(buf_str(&b), 200)), expected);
	buf_fini(&b);
	return 422;
}

static int unsupported_err(const char *path)
{
	err_set(ERR_INVALID, BAD_SHAPE "%s: field `%s` is not supported by this version of cirrus", path, path);
	return 422;
}

/** prefix: "" or "recipients[3]." */
static int check_fields(const json_t *obj, const char *const *known, const char *prefix)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
		bool is_known = false;
		for (size_t i = 0; known[i] != NULL && !is_known; i++)
			is_known = strcmp(known[i], key) == 0;
		if (is_known)
			continue;
		struct buf b = BUF_INIT;
		for (size_t i = 0; known[i] != NULL; i++)
			buf_printf(&b, "%s`%s`", i > 0 ? ", " : "", known[i]);
		err_set(ERR_INVALID, BAD_SHAPE "%s%.100s: unknown field `%.100s`, expected one of %s", prefix, key, key, b.p);
		buf_fini(&b);
		return 422;
	}
	return 0;
}

static bool is_given(const json_t *v) { return v != NULL && !json_is_null(v); }

static str_t json_str_of(const json_t *v) { return str_mk(json_string_value(v), json_string_length(v)); }

static int missing_err(const char *prefix, const char *field)
{
	err_set(ERR_INVALID, BAD_SHAPE "%smissing field `%s`", prefix, field);
	return 422;
}

static int parse_recipient(const json_t *v, size_t i, struct inject_recipient *out)
{
	char at[64], prefix[80], path[96];
	snprintf(at, sizeof(at), "recipients[%zu]", i);
	snprintf(prefix, sizeof(prefix), "%s.", at);
	if (!json_is_object(v))
		return shape_err(at, v, "struct Recipient");
	int rc = check_fields(v, recipient_fields, prefix);
	if (rc != 0)
		return rc;
	const json_t *email = json_object_get(v, "email");
	const json_t *name = json_object_get(v, "name");
	const json_t *subst = json_object_get(v, "substitutions");
	const json_t *metadata = json_object_get(v, "metadata");
	if (email == NULL) {
		snprintf(prefix, sizeof(prefix), "%s: ", at);
		return missing_err(prefix, "email");
	}
	snprintf(path, sizeof(path), "%s.email", at);
	if (!json_is_string(email))
		return shape_err(path, email, "a string");
	snprintf(path, sizeof(path), "%s.name", at);
	if (is_given(name) && !json_is_string(name))
		return shape_err(path, name, "a string");
	snprintf(path, sizeof(path), "%s.substitutions", at);
	if (is_given(subst) && !json_is_object(subst))
		return shape_err(path, subst, "a map");
	snprintf(path, sizeof(path), "%s.metadata", at);
	if (is_given(metadata) && !json_is_object(metadata))
		return shape_err(path, metadata, "a map");
	out->email = json_str_of(email);
	out->name = is_given(name) ? json_str_of(name) : STR_NULL;
	out->substitutions = is_given(subst) ? subst : NULL;
	out->metadata = is_given(metadata) && json_object_size(metadata) > 0 ? metadata : NULL;
	return 0;
}

static int parse_recipients(struct inject_request *r)
{
	const json_t *list = json_object_get(r->root, "recipients");
	if (list == NULL)
		return missing_err("", "recipients");
	if (!json_is_array(list))
		return shape_err("recipients", list, "a sequence");
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
		return missing_err("", "content");
	if (json_is_object(content))
		return unsupported_err("content as an object");
	if (!json_is_string(content))
		return shape_err("content", content, "a string");
	r->content = json_str_of(content);
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
		return missing_err("", "envelope_sender");
	if (!json_is_string(sender))
		return shape_err("envelope_sender", sender, "a string");
	if (mailbox_parse(json_str_of(sender), &box) != 0) {
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
		if (is_given(v) && !json_is_boolean(v))
			return shape_err(flags[i], v, "a boolean");
		if (json_is_true(v))
			return unsupported_err(flags[i]);
	}
	const json_t *subst = json_object_get(r->root, "substitutions");
	if (is_given(subst) && !json_is_object(subst))
		return shape_err("substitutions", subst, "a map");
	r->substitutions = is_given(subst) ? subst : NULL;
	const json_t *trace = json_object_get(r->root, "trace_headers");
	if (is_given(trace) && !trace_headers_are_off(trace))
		return unsupported_err("trace_headers");
	const json_t *dialect = json_object_get(r->root, "template_dialect");
	if (!is_given(dialect))
		return 0;
	if (!json_is_string(dialect))
		return shape_err("template_dialect", dialect, "a string");
	const char *word = json_string_value(dialect);
	r->is_static = strcmp(word, "Static") == 0;
	if (r->is_static || strcmp(word, "Jinja") == 0)
		return 0;
	if (strcmp(word, "Handlebars") == 0)
		return unsupported_err("template_dialect = Handlebars");
	err_set(ERR_INVALID, BAD_SHAPE "template_dialect: unknown variant `%.100s`, expected one of `Jinja`, `Static`, `Handlebars`", word);
	return 422;
}

int inject_request_parse(str_t body, struct inject_request *out)
{
	struct inject_request r = {.root = value_parse_json(body)};
	int rc;
	if (r.root == NULL) {
		err_wrap("Failed to parse the request body as JSON");
		return 400;
	}
	if (!json_is_object(r.root)) {
		struct buf b = BUF_INIT;
		value_describe(r.root, false, &b);
		err_set(ERR_INVALID, BAD_SHAPE "invalid type: " STR_FMT ", expected struct InjectV1Request", STR_ARG(str_head(buf_str(&b), 200)));
		buf_fini(&b);
		rc = 422;
	} else if ((rc = check_fields(r.root, request_fields, "")) == 0 && (rc = parse_sender(&r)) == 0 &&
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
