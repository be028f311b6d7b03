/* json_shape.h - holding the JSON of a request against its schema (http/reference.h), with errors that name
 * the path of the field (`recipients[3].email`) and what was expected. Where a function returns an HTTP
 * status, the error in the slot is the whole text of the answer. */
#pragma once

#include "http/http.h"
#include "http/reference.h"

#include <jansson.h>

/** Starts an answer's text when the JSON has another shape than it should. */
#define JSON_SHAPE_BAD "Failed to deserialize the JSON body into the target type: "

/** Present, and not null. */
static inline bool json_shape_has(const json_t *v)
{
	return v != NULL && !json_is_null(v);
}
static inline str_t json_shape_str(const json_t *v)
{
	return str_mk(json_string_value(v), json_string_length(v));
}

/** Parses a body: a new reference, or NULL with *status 400 (no JSON) or 422 (no object). */
MUST_CHECK json_t *json_shape_parse(str_t body, const struct http_schema *s, int *status);
/** Holds a whole object against its schema, fields in it too: 0 or 422. */
MUST_CHECK int json_shape_check(const json_t *obj, const struct http_schema *s);
/** What most handlers begin with: parse and check the body
 * of r by its route's schema. NULL: a is the answer. */
MUST_CHECK json_t *json_shape_of_request(const struct http_request *r, struct http_response *a);
