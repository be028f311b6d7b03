/* inject_request.h - the body of an injection request, checked. */
#pragma once

#include "base/clock.h"
#include "http/reference.h"
#include "mime/mime_build.h"
#include "template/template.h"

#include <jansson.h>

struct inject_recipient {
	str_t email;		     /* as sent */
	str_t name;		     /* p == NULL: not given */
	const json_t *substitutions; /* object, or NULL */
	const json_t *metadata;	     /* object, or NULL */
};
/** trace_headers. */
struct inject_trace {
	bool is_received_wanted, is_supplemental_wanted;
	str_t header_name; /* of the supplemental one */
	str_t *meta_name;
	size_t n_meta_names;
};
struct inject_request {
	json_t *root;	       /* owns what the slices point into */
	str_t envelope_sender; /* without brackets; empty: the null sender */
	str_t text;	       /* content as a string; p == NULL: it is an object */
	struct mime_content
		build; /* content as an object, without its attachments; texts as sent, templates or not */
	struct mime_header *header;	    /* build.header */
	struct mime_attachment *attachment; /* decoded */
	size_t n_attachments;
	const json_t *substitutions; /* object, or NULL */
	enum template_dialect dialect;
	struct inject_trace trace;
	bool is_spool_deferred, is_generation_deferred;
	struct inject_recipient *recipient;
	size_t n_recipients;
	struct buf *decoded; /* of attachments in base64 */
};
/** Its shape, as the API reference shows it. */
extern const struct http_schema inject_request_schema;
/** Parses and checks body. 0; or the HTTP status (400 syntax, 422 shape) with the error set to the whole text
 * of the answer; or -1 with an error that names the field, or ERR_TIMEOUT, ERR_CANCELLED. A large body is
 * parsed on another thread: may yield. */
MUST_CHECK int inject_request_read(str_t body, struct inject_request *out, mono_t deadline);
/** The same of a body that is parsed already, in place: 0,
 * 422 or -1, without yielding. Takes the reference. */
MUST_CHECK int inject_request_of_json(json_t *root, struct inject_request *out);
void inject_request_fini(struct inject_request *r);
