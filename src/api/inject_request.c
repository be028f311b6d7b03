/* inject_request.c - from JSON to a checked request. Every mistake is answered with the path of the field
 * (`recipients[3].email`) and what was expected; unknown fields are mistakes. The schema here says the shape;
 * what goes beyond it is checked while the fields are collected. Whether texts, names and addresses can be
 * made into a message is inject_content.c's to say. */
#include "api/inject_request.h"

#include "api/json_shape.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/text.h"
#include "fiber/offload.h"
#include "mime/envelope.h"
#include "mime/header.h"

#include <stdlib.h>
#include <string.h>

#define INPLACE_BYTES \
	((size_t)128 << 10) /* what is larger would hold up the worker for more than a millisecond */

/* --- the shape --- */

static const struct http_field recipient_fields[] = {
	{.name = "email",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .format = "email",
	 .example = "\"john.smith@mailbox.example\"",
	 .doc = "The address in RCPT TO; {{ email }} in a template."},
	{.name = "name",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .example = "\"John Smith\"",
	 .doc = "The name that goes with the address; {{ name }} in a template."},
	{.name = "substitutions",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .example = "{\"code\":42}",
	 .doc = "Values for the template. They come before the predefined `name`, "
		"`email` and `to_header` (both of them, "
		"as a To header has it), and before those of the request."},
	{.name = "metadata",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .example = "{\"order\":\"A-7\"}",
	 .doc = "Kept as the message's metadata `extra`, for the policy and the logs."},
	{0},
};
static const struct http_schema recipient_schema = {.name = "Recipient",
						    .doc = "One recipient: a message of its own.",
						    .fields = recipient_fields,
						    .is_strict = true};

static const struct http_field from_fields[] = {
	{.name = "email",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .format = "email",
	 .example = "\"sales@example.com\"",
	 .doc = "The address."},
	{.name = "name",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .example = "\"Sales\"",
	 .doc = "The name that is shown with it."},
	{0},
};
static const struct http_schema from_schema = {.name = "FromHeader",
					       .doc = "An address with a name. Both may be templates.",
					       .fields = from_fields,
					       .is_strict = true};

static const struct http_field attachment_fields[] = {
	{.name = "data",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .doc = "What is attached: text, or base64 if `base64` says so. Not a template."},
	{.name = "content_type",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .example = "\"image/gif\"",
	 .doc = "Its media type, parameters included. Text that is given as text is sent as UTF-8."},
	{.name = "content_id",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .example = "\"logo\"",
	 .doc = "Makes it a part of the HTML, which refers to it as cid:logo."},
	{.name = "file_name",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .example = "\"logo.gif\"",
	 .doc = "The name to save it under."},
	{.name = "base64",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "false",
	 .doc = "`data` is in base64; line breaks in it are read over."},
	{0},
};
static const struct http_schema attachment_schema = {.name = "Attachment",
						     .doc = "Something that comes with the text.",
						     .fields = attachment_fields,
						     .is_strict = true};

static const struct http_field content_fields[] = {
	{.name = "text_body",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .doc = "The text. May be a template, as the next three."},
	{.name = "html_body",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .doc = "The same in HTML. What {{ }} puts into it is escaped for HTML."},
	{.name = "amp_html_body",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .doc = "The same in AMP for email, a part text/x-amp-html. Escaped as html_body."},
	{.name = "subject", .type = HTTP_STRING, .is_nullable = true, .doc = "The Subject header."},
	{.name = "from",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .schema = &from_schema,
	 .doc = "The From header."},
	{.name = "reply_to",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .schema = &from_schema,
	 .doc = "The Reply-To header."},
	{.name = "headers",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .is_map = true,
	 .example = "{\"X-Tenant\":\"MyTenant\"}",
	 .doc = "Further headers, whose values may be templates. "
		"With a To among them none is made for the recipient."},
	{.name = "attachments",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .is_list = true,
	 .schema = &attachment_schema,
	 .doc = "What comes with the text."},
	{0},
};
static const struct http_schema content_schema = {
	.name = "Content",
	.doc = "What is sent: a whole message, or the parts to make one of.",
	.fields = content_fields,
	.is_strict = true,
	.text_doc =
		"The whole message as text, header and body. Markup in it is expanded for each recipient.",
	.text_example = "\"Subject: hello\\r\\n\\r\\nHello {{ name }}\\r\\n\""};

static const struct http_field trace_fields[] = {
	{.name = "received_header",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "false",
	 .doc = "A Received header is added, before the policy sees the message."},
	{.name = "supplemental_header",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "true",
	 .doc = "A header is added by which a feedback report is matched "
		"to its message, after the policy has seen the message."},
	{.name = "header_name",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .def = "\"X-KumoRef\"",
	 .doc = "Its name."},
	{.name = "include_meta_names",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .is_list = true,
	 .def = "[]",
	 .doc = "Metadata that it holds besides the recipient. Anybody can read them there."},
	{0},
};
static const struct http_schema trace_schema = {.name = "TraceHeaders",
						.doc = "Which headers are added to trace the message by.",
						.fields = trace_fields,
						.is_strict = true};

static const char *const dialect_words[] = {"Jinja", "Static", "Handlebars", NULL};
static const struct http_field request_fields[] = {
	{.name = "envelope_sender",
	 .type = HTTP_STRING,
	 .is_required = true,
	 .format = "email",
	 .example = "\"alice@example.com\"",
	 .doc = "The address in MAIL FROM; empty for the null sender."},
	{.name = "recipients",
	 .type = HTTP_OBJECT,
	 .is_list = true,
	 .is_required = true,
	 .schema = &recipient_schema,
	 .doc = "Who gets it: a message for each."},
	{.name = "content",
	 .type = HTTP_OBJECT,
	 .is_required = true,
	 .schema = &content_schema,
	 .doc = "What they get."},
	{.name = "substitutions",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .example = "{\"campaign_title\":\"Fall\"}",
	 .doc = "Values for the template, for all recipients."},
	{.name = "deferred_spool",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "false",
	 .doc = "The messages are kept in memory until they must wait, "
		"and only then stored: faster, but a crash loses them."},
	{.name = "deferred_generation",
	 .type = HTTP_BOOLEAN,
	 .is_nullable = true,
	 .def = "false",
	 .doc = "The request itself is stored and answered, and the messages are made afterwards. Nothing is "
		"counted in the answer then."},
	{.name = "trace_headers",
	 .type = HTTP_OBJECT,
	 .is_nullable = true,
	 .schema = &trace_schema,
	 .doc = "Headers to trace the messages by."},
	{.name = "template_dialect",
	 .type = HTTP_STRING,
	 .is_nullable = true,
	 .def = "\"Jinja\"",
	 .words = dialect_words,
	 .doc = "How the texts are expanded; Static: they are no templates."},
	{0},
};
const struct http_schema inject_request_schema = {.name = "InjectV1Request",
						  .doc = "One message for one or many recipients.",
						  .fields = request_fields,
						  .is_strict = true};

/* --- the fields --- */

/* p NULL when it is not there, or null; an empty string is there. */
static str_t request_str(const json_t *obj, const char *name)
{
	const json_t *v = json_object_get(obj, name);
	return json_shape_has(v) ? json_shape_str(v) : STR_NULL;
}

static const json_t *request_map(const json_t *obj, const char *name)
{
	const json_t *v = json_object_get(obj, name);
	return json_shape_has(v) && json_object_size(v) > 0 ? v : NULL;
}

static bool request_flag(const json_t *obj, const char *name, bool def)
{
	const json_t *v = json_object_get(obj, name);
	return json_shape_has(v) ? json_is_true(v) : def;
}

static void request_recipients(struct inject_request *r)
{
	const json_t *list = json_object_get(r->root, "recipients");
	r->n_recipients = json_array_size(list);
	r->recipient = xcalloc(r->n_recipients + 1, sizeof(*r->recipient));
	for (size_t i = 0; i < r->n_recipients; i++) {
		const json_t *v = json_array_get(list, i);
		r->recipient[i] = (struct inject_recipient){.email = request_str(v, "email"),
							    .name = request_str(v, "name"),
							    .substitutions = request_map(v, "substitutions"),
							    .metadata = request_map(v, "metadata")};
	}
}

static int request_sender(struct inject_request *r)
{
	struct mailbox box;
	if (mailbox_parse(request_str(r->root, "envelope_sender"), &box) != 0) {
		err_wrap("envelope_sender");
		return -1;
	}
	r->envelope_sender = box.email;
	return 0;
}

static struct mime_address request_address(const json_t *content, const char *name)
{
	const json_t *v = json_object_get(content, name);
	return (struct mime_address){.email = request_str(v, "email"), .name = request_str(v, "name")};
}

/* Base64 comes with line breaks or without. */
static bool request_decode(str_t data, struct buf *out)
{
	struct buf dense = BUF_INIT;
	if (base64_decode(out, data))
		return true;
	buf_reserve(&dense, data.n);
	for (size_t i = 0; i < data.n; i++)
		if (data.p[i] != '\r' && data.p[i] != '\n' && data.p[i] != ' ' && data.p[i] != '\t')
			buf_add_c(&dense, data.p[i]);
	buf_clear(out);
	bool is_good = dense.n < data.n && base64_decode(out, buf_str(&dense));
	buf_fini(&dense);
	return is_good;
}

static int request_attachments(struct inject_request *r, const json_t *list)
{
	size_t n = json_array_size(list);
	r->attachment = xcalloc(n + 1, sizeof(*r->attachment));
	r->decoded = xcalloc(n + 1, sizeof(*r->decoded));
	for (; r->n_attachments < n; r->n_attachments++) {
		const json_t *v = json_array_get(list, r->n_attachments);
		struct mime_attachment *a = &r->attachment[r->n_attachments];
		struct buf *bytes = &r->decoded[r->n_attachments];
		*a = (struct mime_attachment){.data = request_str(v, "data"),
					      .content_type = request_str(v, "content_type"),
					      .content_id = request_str(v, "content_id"),
					      .file_name = request_str(v, "file_name")};
		a->is_inline = a->content_id.p != NULL;
		a->is_utf8 = !request_flag(v, "base64", false);
		if (a->is_utf8)
			continue;
		bool is_good = request_decode(a->data, bytes);
		a->data = bytes->n > 0 ? buf_str(bytes) : STR("");
		if (!is_good) {
			err_set(ERR_INVALID, "content.attachments[%zu].data: not base64", r->n_attachments++);
			return -1;
		}
	}
	return 0;
}

/* null is as good as not there. */
static bool request_has_any(const json_t *obj)
{
	const char *key;
	const json_t *v;
	json_object_foreach((json_t *)(uintptr_t)obj, key, v) if (!json_is_null(v)) return true;
	return false;
}

static int request_content(struct inject_request *r)
{
	const json_t *content = json_object_get(r->root, "content"), *v;
	if (json_is_string(content)) {
		r->text = json_shape_str(content);
		if (r->text.n > 0)
			return 0;
	} else if (request_has_any(content)) {
		const json_t *headers = json_object_get(content, "headers");
		const char *key;
		size_t key_n;
		r->build = (struct mime_content){.text_body = request_str(content, "text_body"),
						 .html_body = request_str(content, "html_body"),
						 .amp_html_body = request_str(content, "amp_html_body"),
						 .subject = request_str(content, "subject"),
						 .from = request_address(content, "from"),
						 .reply_to = request_address(content, "reply_to")};
		r->header = xcalloc(json_object_size(headers) + 1, sizeof(*r->header));
		json_object_keylen_foreach((json_t *)(uintptr_t)headers, key, key_n, v)
			r->header[r->build.n_headers++] =
			(struct mime_header){str_mk(key, key_n), json_shape_str(v)};
		r->build.header = r->header;
		return request_attachments(r, json_object_get(content, "attachments"));
	}
	err_set(ERR_INVALID, "content: the message is empty");
	return -1;
}

static int request_trace(struct inject_request *r)
{
	const json_t *v = json_object_get(r->root, "trace_headers"),
		     *names = json_object_get(v, "include_meta_names");
	struct inject_trace *t = &r->trace;
	t->is_received_wanted = request_flag(v, "received_header", false);
	t->is_supplemental_wanted = request_flag(v, "supplemental_header", true);
	t->header_name = request_str(v, "header_name");
	if (t->header_name.p == NULL)
		t->header_name = STR("X-KumoRef");
	if (!header_name_is_valid(t->header_name)) {
		err_set(ERR_INVALID, "trace_headers.header_name: not the name of a header");
		return -1;
	}
	t->meta_name = xcalloc(json_array_size(names) + 1, sizeof(*t->meta_name));
	for (; t->n_meta_names < json_array_size(names); t->n_meta_names++)
		t->meta_name[t->n_meta_names] = json_shape_str(json_array_get(names, t->n_meta_names));
	return 0;
}

static void request_options(struct inject_request *r)
{
	str_t dialect = request_str(r->root, "template_dialect");
	r->is_spool_deferred = request_flag(r->root, "deferred_spool", false);
	r->is_generation_deferred = request_flag(r->root, "deferred_generation", false);
	r->substitutions = request_map(r->root, "substitutions");
	r->dialect = str_eq(dialect, STR("Static"))	  ? TEMPLATE_STATIC
		     : str_eq(dialect, STR("Handlebars")) ? TEMPLATE_HANDLEBARS
							  : TEMPLATE_JINJA;
}

/* The documentation writes its default, no names, as `{}`. */
static void request_take_no_names(json_t *root)
{
	json_t *trace = json_object_get(root, "trace_headers"),
	       *names = json_object_get(trace, "include_meta_names");
	if (json_is_object(names) && json_object_size(names) == 0)
		json_object_set_new(trace, "include_meta_names", json_array());
}

int inject_request_of_json(json_t *root, struct inject_request *out)
{
	struct inject_request r = {.root = root};
	request_take_no_names(root);
	int rc = json_shape_check(root, &inject_request_schema);
	if (rc == 0 && (rc = request_sender(&r)) == 0 && (rc = request_content(&r)) == 0 &&
	    (rc = request_trace(&r)) == 0) {
		request_options(&r);
		request_recipients(&r);
		*out = r;
		return 0;
	}
	inject_request_fini(&r);
	return rc;
}

void inject_request_fini(struct inject_request *r)
{
	for (size_t i = 0; i < r->n_attachments; i++)
		buf_fini(&r->decoded[i]);
	free(r->decoded);
	free(r->attachment);
	free(r->header);
	free(r->trace.meta_name);
	free(r->recipient);
	json_decref(r->root);
}

/* --- reading --- */

struct request_job {
	str_t body;
	struct inject_request *out;
	int status;
};

static int request_run_job(void *arg)
{
	struct request_job *j = arg;
	json_t *root = json_shape_parse(j->body, &inject_request_schema, &j->status);
	if (root != NULL)
		j->status = inject_request_of_json(root, j->out);
	return j->status == 0 ? 0 : -1;
}

int inject_request_read(str_t body, struct inject_request *out, mono_t deadline)
{
	struct request_job j = {.body = body, .out = out};
	if (body.n <= INPLACE_BYTES)
		(void)request_run_job(&j);
	else if (offload_run(request_run_job, &j, deadline) != 0 && j.status == 0)
		return -1; /* it was not run */
	return j.status;
}
