/* inject_request.h - the body of an injection request, checked. */
#pragma once

#include "http/reference.h"
#include "template/template.h"

#include <jansson.h>

struct inject_recipient {
	str_t email;                 /* as sent */
	str_t name;                  /* p == NULL: not given */
	const json_t *substitutions; /* object, or NULL */
	const json_t *metadata;      /* object, or NULL */
};
struct inject_request {
	json_t *root;                /* owns what the slices point into */
	str_t envelope_sender;       /* without brackets; empty: the null sender */
	str_t content;
	const json_t *substitutions; /* object, or NULL */
	bool is_static;              /* template_dialect Static */
	struct inject_recipient *recipient;
	size_t n_recipients;
};
/** Its shape, as the API reference shows it. */
extern const struct http_schema inject_request_schema;
/** Parses and checks body. 0; or the HTTP status (400 syntax, 422 shape) with the error set to the text of the answer.
 * Fields that this version does not honour are 422 by name. */
MUST_CHECK int inject_request_parse(str_t body, struct inject_request *out);
void inject_request_fini(struct inject_request *r);
