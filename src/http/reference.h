/* reference.h - what the API reference says of a route: its parameters, the JSON that it takes and gives, its
 * answers. All of it is static data, declared next to the handler; texts are plain sentences. The OpenAPI
 * document (openapi.c), the page at /rapidoc and the check of a request's body (api/json_shape.h) are made
 * from it. */
#pragma once

#include "base/buf.h"

enum http_type {
	HTTP_STRING,
	HTTP_INTEGER,
	HTTP_NUMBER,
	HTTP_BOOLEAN,
	HTTP_OBJECT, /* with any fields, unless `schema` says which */
	HTTP_ANY,
};

/* A field of a JSON object, a parameter of the query, or a header field. */
struct http_field {
	const char *name; /* NULL ends an array of fields */
	const char *doc;
	enum http_type type;
	bool is_list, is_map; /* it is a list, or an object with any keys, of values of this type */
	bool is_required, is_nullable;
	const struct http_schema *schema; /* of an HTTP_OBJECT; NULL: any */
	const char *const *words;	  /* what a string may be, ended by NULL; NULL: any text */
	const char *format;		  /* "email", "date-time" ...; NULL: none */
	const char *def, *example;	  /* JSON text; NULL: none */
};

/* A JSON object with a name of its own. */
struct http_schema {
	const char *name; /* unique: "InjectV1Request" */
	const char *doc;
	const struct http_field *fields;
	bool is_strict; /* it has no other fields than these */
	/* A string is taken in its place: what it means then, and one as JSON text; NULL: none is. */
	const char *text_doc, *text_example;
};

/* Several of the same status, one after the other, are one answer in several forms. */
struct http_answer {
	int status; /* 0 ends an array of answers */
	const char *doc;
	const char *content_type;	  /* NULL: without a body */
	const struct http_schema *schema; /* of a JSON body; NULL: any, or text */
	const struct http_field
		*list; /* instead of schema: a field that describes the body, as a list mostly */
	const struct http_field
		*headers; /* that it may have, ended by one without a name; NULL: none of its own */
};

struct http_reference_info {
	const char *title, *version, *doc;
};
/** Writes the OpenAPI 3.1 document of every route there is. Needs all of them to be added. */
void http_write_openapi(const struct http_reference_info *info, struct buf *out);
