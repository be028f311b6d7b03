/* report_dsn.c - delivery status notifications (RFC 3464): groups of fields parted by empty lines, the first
 * for the message, each other for a recipient. */
#include "mime/report_impl.h"

#include "base/err.h"
#include "mime/header_lex.h"

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

/* "5.7.1 (why)" */
static bool dsn_parse_status(str_t value, unsigned out[3])
{
	struct header_lex l = {value, 0};
	unsigned status[3];
	for (int i = 0; i < 3; i++) {
		uint64_t n;
		header_lex_skip(&l, NULL);
		if (i > 0 && !header_lex_eat(&l, '.'))
			return false;
		header_lex_skip(&l, NULL);
		if (!str_to_u64(header_lex_run(&l, is_digit), &n) || n > 999)
			return false;
		status[i] = (unsigned)n;
	}
	memcpy(out, status, sizeof status);
	return true;
}

static str_t dsn_lower(struct arena *a, str_t s)
{
	char *p = arena_alloc(a, s.n + 1);
	for (size_t i = 0; i < s.n; i++)
		p[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 32 : s.p[i]);
	p[s.n] = 0;
	return str_mk(p, s.n);
}

static void dsn_message_field(struct dsn_report *r, str_t name, str_t value)
{
	if (str_ieq(name, STR("Original-Envelope-Id")))
		r->original_envelope_id = value;
	else if (str_ieq(name, STR("Reporting-MTA")))
		r->reporting_mta = report_typed_value(value, "dns", false);
	else if (str_ieq(name, STR("DSN-Gateway")))
		r->dsn_gateway = report_typed_value(value, "dns", false);
	else if (str_ieq(name, STR("Received-From-MTA")))
		r->received_from_mta = report_typed_value(value, "dns", false);
	else if (str_ieq(name, STR("Arrival-Date")))
		r->arrival_date = report_date(value);
	else
		report_fields_add(&r->arena, &r->extensions, name, value);
}

/* A status that cannot be read counts as missing. */
static void dsn_recipient_field(struct dsn_report *r, struct dsn_recipient *to, bool *has_status, str_t name,
				str_t value)
{
	if (str_ieq(name, STR("Original-Recipient")))
		to->original_recipient = report_typed_value(value, "rfc822", true);
	else if (str_ieq(name, STR("Final-Recipient")))
		to->final_recipient = report_typed_value(value, "rfc822", true);
	else if (str_ieq(name, STR("Action")))
		to->action = dsn_lower(&r->arena, value);
	else if (str_ieq(name, STR("Status")))
		*has_status = dsn_parse_status(value, to->status);
	else if (str_ieq(name, STR("Remote-MTA")))
		to->remote_mta = report_typed_value(value, "dns", false);
	else if (str_ieq(name, STR("Diagnostic-Code")))
		to->diagnostic_code = report_typed_value(value, "smtp", false);
	else if (str_ieq(name, STR("Last-Attempt-Date")))
		to->last_attempt_date = report_date(value);
	else if (str_ieq(name, STR("Will-Retry-Until")))
		to->will_retry_until = report_date(value);
	else if (str_ieq(name, STR("Final-Log-ID")))
		to->final_log_id = value;
	else
		report_fields_add(&r->arena, &to->extensions, name, value);
}

static int dsn_fail(const char *what)
{
	err_set(ERR_INVALID, "malformed delivery status notification: %s", what);
	return -1;
}

static int dsn_check_recipient(const struct dsn_recipient *to, bool has_status)
{
	if (to->final_recipient.value.p == NULL && to->original_recipient.value.p == NULL)
		return dsn_fail("Final-Recipient is missing");
	if (to->action.p == NULL)
		return dsn_fail("Action is missing");
	return has_status ? 0 : dsn_fail("Status is missing or none");
}

static str_t dsn_cut_line(str_t s)
{
	ptrdiff_t nl = str_chr(s, '\n', 0);
	return str_skip(s, nl >= 0 ? (size_t)nl + 1 : s.n);
}

static bool dsn_line_is_empty(str_t s)
{
	return s.p[0] == '\n' || (s.p[0] == '\r' && (s.n == 1 || s.p[1] == '\n'));
}

/* The fields up to the empty line, which is left in *rest. Lines that are no fields are passed over. */
static int dsn_read_group(struct dsn_report *r, str_t *rest, size_t *n_fields, bool is_message,
			  struct dsn_recipient *to, bool *has_status)
{
	for (;;) {
		struct header_iter it;
		struct header_field f;
		header_iter_init(&it, *rest);
		while (header_next(&it, &f)) {
			if (++*n_fields > REPORT_FIELDS_MAX)
				return dsn_fail("it has too many fields");
			str_t value = report_value(&r->arena, f.raw_value),
			      name = arena_str(&r->arena, f.name);
			if (is_message)
				dsn_message_field(r, name, value);
			else
				dsn_recipient_field(r, to, has_status, name, value);
		}
		*rest = it.rest;
		if (!it.is_malformed)
			return 0;
		*rest = dsn_cut_line(*rest);
	}
}

static void dsn_append_recipient(struct dsn_report *r, size_t *cap, const struct dsn_recipient *to)
{
	if (r->n_recipients == *cap) {
		*cap = *cap == 0 ? 4 : *cap * 2;
		struct dsn_recipient *v = arena_alloc(&r->arena, *cap * sizeof *v);
		if (r->n_recipients > 0)
			memcpy(v, r->recipient, r->n_recipients * sizeof *v);
		r->recipient = v;
	}
	r->recipient[r->n_recipients++] = *to;
}

static int dsn_read_fields(struct dsn_report *r, str_t rest)
{
	if (rest.n > REPORT_FIELDS_BYTES_MAX)
		return dsn_fail("its fields are too long");
	size_t cap = 0, n_fields = 0;
	for (bool is_message = true;; is_message = false) {
		struct dsn_recipient to = {0};
		bool has_status = false;
		while (rest.n > 0 && dsn_line_is_empty(rest))
			rest = dsn_cut_line(rest);
		if (rest.n == 0)
			break;
		if (dsn_read_group(r, &rest, &n_fields, is_message, &to, &has_status) != 0)
			return -1;
		if (is_message)
			continue;
		if (dsn_check_recipient(&to, has_status) != 0)
			return -1;
		dsn_append_recipient(r, &cap, &to);
	}
	if (r->reporting_mta.value.p == NULL)
		return dsn_fail("Reporting-MTA is missing");
	return r->n_recipients > 0 ? 0 : dsn_fail("it has no recipients");
}

int dsn_report_parse(str_t message, struct dsn_report *out)
{
	struct report_parts parts;
	if (!report_open(message, STR("delivery-status"), STR("message/delivery-status"), &parts))
		return 0;
	struct dsn_report r = {.arena = ARENA_INIT};
	struct buf fields = BUF_INIT;
	int rc;
	if (parts.fields != NULL) {
		mime_part_decode(parts.fields, &fields);
		rc = dsn_read_fields(&r, buf_str(&fields));
	} else {
		rc = dsn_fail("the message/delivery-status part is missing");
	}
	if (rc == 0) {
		r.original_message = report_original(&r.arena, parts.original);
		*out = r;
	} else {
		arena_fini(&r.arena);
	}
	buf_fini(&fields);
	report_close(&parts);
	return rc == 0 ? 1 : -1;
}

void dsn_report_fini(struct dsn_report *r)
{
	arena_fini(&r->arena);
}

/* --- JSON --- */

static json_t *dsn_recipient_json(const struct dsn_recipient *to)
{
	json_t *obj = json_object(), *status = json_object();
	report_json_typed(obj, "original_recipient", "recipient_type", "recipient", &to->original_recipient,
			  false);
	report_json_typed(
		obj, "final_recipient", "recipient_type", "recipient",
		to->final_recipient.value.p != NULL ? &to->final_recipient : &to->original_recipient, false);
	report_json_text(obj, "action", to->action, false);
	json_object_set_new(status, "class", json_integer(to->status[0]));
	json_object_set_new(status, "subject", json_integer(to->status[1]));
	json_object_set_new(status, "detail", json_integer(to->status[2]));
	json_object_set_new(obj, "status", status);
	report_json_typed(obj, "remote_mta", "mta_type", "name", &to->remote_mta, false);
	report_json_typed(obj, "diagnostic_code", "diagnostic_type", "diagnostic", &to->diagnostic_code,
			  false);
	report_json_date(obj, "last_attempt_date", to->last_attempt_date, false);
	report_json_text(obj, "final_log_id", to->final_log_id, false);
	report_json_date(obj, "will_retry_until", to->will_retry_until, false);
	report_json_extensions(obj, &to->extensions);
	return obj;
}

json_t *dsn_report_json(const struct dsn_report *r)
{
	json_t *obj = json_object(), *message = json_object(), *recipients = json_array();
	report_json_text(message, "original_envelope_id", r->original_envelope_id, false);
	report_json_typed(message, "reporting_mta", "mta_type", "name", &r->reporting_mta, false);
	report_json_typed(message, "dsn_gateway", "mta_type", "name", &r->dsn_gateway, false);
	report_json_typed(message, "received_from_mta", "mta_type", "name", &r->received_from_mta, false);
	report_json_date(message, "arrival_date", r->arrival_date, false);
	report_json_extensions(message, &r->extensions);
	json_object_set_new(obj, "per_message", message);
	for (size_t i = 0; i < r->n_recipients; i++)
		json_array_append_new(recipients, dsn_recipient_json(&r->recipient[i]));
	json_object_set_new(obj, "per_recipient", recipients);
	report_json_text(obj, "original_message", r->original_message, false);
	return obj;
}
