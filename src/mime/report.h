/* report.h - the reports that other servers send back: delivery status notifications (RFC 3464) and abuse
 * feedback (RFC 5965). Both are multipart/report (RFC 6522): a text for people, the fields, and the message
 * in question or its header. */
#pragma once

#include "base/arena.h"
#include "base/clock.h"

#include <jansson.h>

/** "dns; mx.example.com" */
struct report_typed {
	str_t type;  /* as written; what is usual for the field when the sender left it out */
	str_t value; /* p NULL: the field is missing; addresses without angle brackets */
};
/** A field that is not known here; several of one name are neighbours in no order but theirs. */
struct report_field {
	str_t name; /* lower case */
	str_t value;
};
struct report_fields {
	struct report_field *v;
	size_t n, cap;
};

struct dsn_recipient {
	struct report_typed original_recipient, final_recipient, remote_mta, diagnostic_code;
	str_t action;	    /* "failed", "delayed", "delivered", "relayed", "expanded"; lower case */
	unsigned status[3]; /* class, subject, detail */
	str_t final_log_id; /* p NULL: none; so for all texts */
	wall_t last_attempt_date, will_retry_until; /* ns 0: none, or no date */
	struct report_fields extensions;
};
struct dsn_report {
	struct arena arena; /* owns all */
	str_t original_envelope_id;
	struct report_typed reporting_mta, dsn_gateway, received_from_mta;
	wall_t arrival_date; /* ns 0: none */
	struct report_fields extensions;
	struct dsn_recipient *recipient;
	size_t n_recipients;
	str_t original_message; /* or its header; line ends are LF; p NULL: none */
};
/** 1: message is a delivery status notification; 0: it is something else; -1 ERR_INVALID: it says that it is
 * one but lacks what one must have (Reporting-MTA; a recipient; Action and Status of each), or has more
 * fields than anybody needs; out needs no fini then. */
MUST_CHECK int dsn_report_parse(str_t message, struct dsn_report *out);
void dsn_report_fini(struct dsn_report *r);
/** As policies and log records see it; a new reference. Absent fields are left out. */
json_t *dsn_report_json(const struct dsn_report *r);

struct arf_report {
	struct arena arena;
	str_t feedback_type, user_agent, version;
	wall_t arrival_date; /* ns 0: none */
	str_t original_envelope_id, original_mail_from, source_ip;
	struct report_typed reporting_mta;
	int64_t incidents; /* -1: not said */
	struct report_fields authentication_results, original_rcpt_to, reported_domain,
		reported_uri; /* names are not used */
	struct report_fields extensions;
	str_t original_message;
	json_t *supplemental_trace; /* of the header that trace_add_supplemental wrote, without its marker;
				       NULL: none */
};
/** As above; a report must have Feedback-Type, User-Agent and Version. */
MUST_CHECK int arf_report_parse(str_t message, struct arf_report *out);
void arf_report_fini(struct arf_report *r);
/** has_nulls: absent fields are null, as log records have them; else they are left out. */
json_t *arf_report_json(const struct arf_report *r, bool has_nulls);
