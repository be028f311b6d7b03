/* report_arf.c - abuse feedback (RFC 5965). The message that it is about was ours, perhaps: its supplemental
 * trace header (mail/trace.h) tells for which recipient it was. The header has any
 * name that begins with X-, so each such is looked at. */
#include "mime/report_impl.h"

#include "base/err.h"
#include "base/text.h"

#define TRACE_DEPTH_MAX 32	    /* jansson's parser recurses */
#define TRACE_BYTES_MAX (256 << 10) /* of the field: thousands of recipients */

static int arf_fail(const char *what)
{
	err_set(ERR_INVALID, "malformed feedback report: %s", what);
	return -1;
}

static void arf_field(struct arf_report *r, str_t *received_date, str_t name, str_t value)
{
	const struct {
		str_t name;
		str_t *text;
		struct report_fields *list;
	} known[] = {
		{STR("Feedback-Type"), &r->feedback_type, NULL},
		{STR("User-Agent"), &r->user_agent, NULL},
		{STR("Version"), &r->version, NULL},
		{STR("Original-Envelope-Id"), &r->original_envelope_id, NULL},
		{STR("Original-Mail-From"), &r->original_mail_from, NULL},
		{STR("Source-IP"), &r->source_ip, NULL},
		{STR("Received-Date"), received_date, NULL},
		{STR("Authentication-Results"), NULL, &r->authentication_results},
		{STR("Original-Rcpt-To"), NULL, &r->original_rcpt_to},
		{STR("Reported-Domain"), NULL, &r->reported_domain},
		{STR("Reported-URI"), NULL, &r->reported_uri},
	};
	uint64_t n;
	if (str_ieq(name, STR("Arrival-Date"))) {
		r->arrival_date = report_date(value);
		return;
	}
	if (str_ieq(name, STR("Incidents"))) {
		r->incidents = str_to_u64(value, &n) && n <= INT64_MAX ? (int64_t)n : -1;
		return;
	}
	if (str_ieq(name, STR("Reporting-MTA"))) {
		r->reporting_mta = report_typed_value(value, "dns", false);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!str_ieq(name, known[i].name))
			continue;
		if (known[i].list != NULL)
			report_fields_add(&r->arena, known[i].list, name, value);
		else
			*known[i].text = value;
		return;
	}
	report_fields_add(&r->arena, &r->extensions, name, value);
}

static int arf_read_fields(struct arf_report *r, str_t fields)
{
	struct header_iter it;
	struct header_field f;
	str_t received_date = STR_NULL;
	if (fields.n > REPORT_FIELDS_BYTES_MAX)
		return arf_fail("its fields are too long");
	while (fields.n > 0 && (fields.p[0] == '\r' || fields.p[0] == '\n'))
		fields = str_skip(fields, 1);
	header_iter_init(&it, fields);
	for (size_t n = 0; header_next(&it, &f); n++) {
		if (n == REPORT_FIELDS_MAX)
			return arf_fail("it has too many fields");
		arf_field(r, &received_date, arena_str(&r->arena, f.name),
			  report_value(&r->arena, f.raw_value));
	}
	if (r->arrival_date.ns == 0 && received_date.p != NULL)
		r->arrival_date = report_date(received_date);
	return r->feedback_type.n == 0 ? arf_fail("Feedback-Type is missing")
	       : r->user_agent.n == 0  ? arf_fail("User-Agent is missing")
	       : r->version.n == 0     ? arf_fail("Version is missing")
				       : 0;
}

/* --- the trace header --- */

static bool json_is_shallow(str_t s)
{
	size_t depth = 0;
	bool is_string = false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (is_string && c == '\\')
			i++;
		else if (c == '"')
			is_string = !is_string;
		else if (!is_string && (c == '{' || c == '['))
			depth++;
		else if (!is_string && (c == '}' || c == ']') && depth > 0)
			depth--;
		if (depth > TRACE_DEPTH_MAX)
			return false;
	}
	return true;
}

static json_t *arf_decode_trace(str_t raw_value)
{
	struct buf text = BUF_INIT, json = BUF_INIT;
	for (size_t i = 0; i < raw_value.n; i++)
		if (strchr(" \t\r\n", raw_value.p[i]) == NULL || raw_value.p[i] == 0)
			buf_add_c(&text, raw_value.p[i]);
	json_t *v = NULL;
	if (text.n > 0 && base64_decode(&json, buf_str(&text)) && json_is_shallow(buf_str(&json)))
		v = json_loadb(json.n > 0 ? json.p : "", json.n, 0, NULL);
	const json_t *marker = json_object_get(v, "_@_");
	if (!json_is_string(marker) || strcmp(json_string_value(marker), "\\_/") != 0) {
		json_decref(v);
		v = NULL;
	} else {
		json_object_del(v, "_@_");
	}
	buf_fini(&text);
	buf_fini(&json);
	return v;
}

static json_t *arf_find_trace(str_t original)
{
	struct header_iter it;
	struct header_field f;
	json_t *v = NULL;
	header_iter_init(&it, original);
	while (v == NULL && header_next(&it, &f))
		if (str_istarts(f.name, STR("X-")) && f.raw_value.n <= TRACE_BYTES_MAX)
			v = arf_decode_trace(f.raw_value);
	return v;
}

int arf_report_parse(str_t message, struct arf_report *out)
{
	struct report_parts parts;
	if (!report_open(message, STR("feedback-report"), STR("message/feedback-report"), &parts))
		return 0;
	struct arf_report r = {.arena = ARENA_INIT, .incidents = -1};
	struct buf fields = BUF_INIT;
	int rc;
	if (parts.fields != NULL) {
		mime_part_decode(parts.fields, &fields);
		rc = arf_read_fields(&r, buf_str(&fields));
	} else {
		rc = arf_fail("the message/feedback-report part is missing");
	}
	if (rc == 0) {
		r.original_message = report_original(&r.arena, parts.original);
		r.supplemental_trace = arf_find_trace(r.original_message);
		*out = r;
	} else {
		arena_fini(&r.arena);
	}
	buf_fini(&fields);
	report_close(&parts);
	return rc == 0 ? 1 : -1;
}

void arf_report_fini(struct arf_report *r)
{
	json_decref(r->supplemental_trace);
	arena_fini(&r->arena);
}

/* --- JSON --- */

static void arf_json_list(json_t *obj, const char *key, const struct report_fields *f)
{
	json_t *list = json_array();
	for (size_t i = 0; i < f->n; i++)
		json_array_append_new(list, report_json_bytes(f->v[i].value));
	json_object_set_new(obj, key, list);
}

json_t *arf_report_json(const struct arf_report *r, bool has_nulls)
{
	json_t *obj = json_object();
	report_json_text(obj, "feedback_type", r->feedback_type, has_nulls);
	report_json_text(obj, "user_agent", r->user_agent, has_nulls);
	report_json_text(obj, "version", r->version, has_nulls);
	report_json_date(obj, "arrival_date", r->arrival_date, has_nulls);
	if (r->incidents >= 0)
		json_object_set_new(obj, "incidents", json_integer(r->incidents));
	else if (has_nulls)
		json_object_set_new(obj, "incidents", json_null());
	report_json_text(obj, "original_envelope_id", r->original_envelope_id, has_nulls);
	report_json_text(obj, "original_mail_from", r->original_mail_from, has_nulls);
	report_json_typed(obj, "reporting_mta", "mta_type", "name", &r->reporting_mta, has_nulls);
	report_json_text(obj, "source_ip", r->source_ip, has_nulls);
	arf_json_list(obj, "authentication_results", &r->authentication_results);
	arf_json_list(obj, "original_rcpto_to", &r->original_rcpt_to); /* so it is called in the records */
	arf_json_list(obj, "reported_domain", &r->reported_domain);
	arf_json_list(obj, "reported_uri", &r->reported_uri);
	report_json_extensions(obj, &r->extensions);
	report_json_text(obj, "original_message", r->original_message, has_nulls);
	if (r->supplemental_trace != NULL)
		json_object_set(obj, "supplemental_trace", r->supplemental_trace);
	else if (has_nulls)
		json_object_set_new(obj, "supplemental_trace", json_null());
	return obj;
}
