/* report_impl.h - what both kinds of reports are read and shown with: report.c. */
#pragma once

#include "mime/header.h"
#include "mime/mime_part.h"
#include "mime/report.h"

#define REPORT_FIELDS_MAX 100000
#define REPORT_FIELDS_BYTES_MAX (1 << 20) /* of the part with the fields: a recipient needs some 200 */

/** The parts of a multipart/report. */
struct report_parts {
	struct mime_part *root;	    /* owns the others */
	struct mime_part *fields;   /* NULL: there is no part of fields_type */
	struct mime_part *original; /* NULL: none */
};
/** False: message is no multipart/report of that report-type; nothing to release then. */
bool report_open(str_t message, str_t report_type, str_t fields_type, struct report_parts *out);
void report_close(struct report_parts *p);

/** One field: the value in one line, without blanks around it, as UTF-8, in the arena. */
str_t report_value(struct arena *a, str_t raw_value);
/** @is_address  the value is one, and comes without angle brackets. */
struct report_typed report_typed_value(str_t value, const char *usual_type, bool is_address);
wall_t report_date(str_t value);
void report_fields_add(struct arena *a, struct report_fields *f, str_t name, str_t value);
/** The original message or header with LF line ends, in the arena. */
str_t report_original(struct arena *a, const struct mime_part *p);

/* Absent values add nothing, or null. */
void report_json_text(json_t *obj, const char *key, str_t value, bool has_nulls);
void report_json_date(json_t *obj, const char *key, wall_t value, bool has_nulls);
void report_json_typed(json_t *obj, const char *key, const char *type_key, const char *value_key,
		       const struct report_typed *t, bool has_nulls);
void report_json_extensions(json_t *obj, const struct report_fields *f);
/** A string; an array of bytes when it is not UTF-8. */
json_t *report_json_bytes(str_t value);
