/* openapi.c - the OpenAPI document, written from the table of routes, so that it lists what is served and
 * nothing else.
 *
 * OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0), whose schemas are JSON Schema 2020-12: a value that may be null
 * has a list of types. What the service itself answers on behalf of a route (a login is missing, a body is
 * too large) is added to the route's own answers. Objects with a name are written once, under components, and
 * referred to. */
#include "http/http.h"
#include "http/reference.h"

#include "base/alloc.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPENAPI_MAX_ANSWERS = 24, OPENAPI_MAX_SCHEMAS = 256 };

struct openapi {
	struct json_out j;
	const struct http_schema *schema[OPENAPI_MAX_SCHEMAS]; /* referred to so far */
	size_t n_schemas;
};

static void openapi_kv(struct json_out *j, const char *key, const char *value)
{
	if (value != NULL)
		json_kv_str(j, str_of(key), str_of(value));
}

/* --- schemas --- */

static void openapi_ref(struct openapi *o, const struct http_schema *s)
{
	struct buf ref = BUF_INIT;
	size_t i = 0;
	while (i < o->n_schemas && o->schema[i] != s) {
		if (strcmp(o->schema[i]->name, s->name) == 0)
			panic("http: two schemas are called %s", s->name);
		i++;
	}
	if (i == OPENAPI_MAX_SCHEMAS)
		panic("http: more than %d schemas", OPENAPI_MAX_SCHEMAS);
	if (i == o->n_schemas)
		o->schema[o->n_schemas++] = s;
	buf_printf(&ref, "#/components/schemas/%s", s->name);
	json_kv_str(&o->j, STR("$ref"), buf_str(&ref));
	buf_fini(&ref);
}

static const char *openapi_type_name(enum http_type t)
{
	static const char *const name[] = {
		[HTTP_STRING] = "string",   [HTTP_INTEGER] = "integer", [HTTP_NUMBER] = "number",
		[HTTP_BOOLEAN] = "boolean", [HTTP_OBJECT] = "object",	[HTTP_ANY] = NULL};
	return name[t];
}

static void openapi_type(struct json_out *j, const char *name, bool is_nullable)
{
	if (name == NULL)
		return;
	json_key(j, STR("type"));
	if (!is_nullable) {
		json_str(j, str_of(name));
		return;
	}
	json_arr_begin(j);
	json_str(j, str_of(name));
	json_str(j, STR("null"));
	json_arr_end(j);
}

/* The members of the schema of one value, without what surrounds it. */
static void openapi_value(struct openapi *o, const struct http_field *f, bool is_nullable)
{
	struct json_out *j = &o->j;
	if (f->schema != NULL && is_nullable) {
		json_key(j, STR("oneOf"));
		json_arr_begin(j);
		json_obj_begin(j);
		openapi_ref(o, f->schema);
		json_obj_end(j);
		json_raw(j, STR("{\"type\":\"null\"}"));
		json_arr_end(j);
		return;
	}
	if (f->schema != NULL) {
		openapi_ref(o, f->schema);
		return;
	}
	openapi_type(j, openapi_type_name(f->type), is_nullable);
	openapi_kv(j, "format", f->format);
	if (f->words == NULL)
		return;
	json_key(j, STR("enum"));
	json_arr_begin(j);
	for (size_t i = 0; f->words[i] != NULL; i++)
		json_str(j, str_of(f->words[i]));
	if (is_nullable)
		json_nil(j);
	json_arr_end(j);
}

static void openapi_example(struct json_out *j, const char *example)
{
	if (example == NULL)
		return;
	json_key(j, STR("examples"));
	json_arr_begin(j);
	json_raw(j, str_of(example));
	json_arr_end(j);
}

/* An object: the schema of a field, or of a parameter (whose text stands beside it). */
static void openapi_field(struct openapi *o, const struct http_field *f, bool has_doc)
{
	struct json_out *j = &o->j;
	json_obj_begin(j);
	if (f->is_list || f->is_map) {
		openapi_type(j, f->is_list ? "array" : "object", f->is_nullable);
		json_key(j, f->is_list ? STR("items") : STR("additionalProperties"));
		json_obj_begin(j);
		openapi_value(o, f, false);
		json_obj_end(j);
	} else {
		openapi_value(o, f, f->is_nullable);
	}
	if (has_doc)
		openapi_kv(j, "description", f->doc);
	if (f->def != NULL) {
		json_key(j, STR("default"));
		json_raw(j, str_of(f->def));
	}
	openapi_example(j, f->example);
	json_obj_end(j);
}

/* An object, the schema's. */
static void openapi_object(struct openapi *o, const struct http_schema *s)
{
	struct json_out *j = &o->j;
	bool has_required = false;
	json_obj_begin(j);
	json_kv_str(j, STR("type"), STR("object"));
	openapi_kv(j, "description", s->doc);
	json_key(j, STR("properties"));
	json_obj_begin(j);
	for (const struct http_field *f = s->fields; f->name != NULL; f++) {
		has_required |= f->is_required;
		json_key(j, str_of(f->name));
		openapi_field(o, f, true);
	}
	json_obj_end(j);
	if (has_required) {
		json_key(j, STR("required"));
		json_arr_begin(j);
		for (const struct http_field *f = s->fields; f->name != NULL; f++) {
			if (f->is_required)
				json_str(j, str_of(f->name));
		}
		json_arr_end(j);
	}
	if (s->is_strict)
		json_kv_bool(j, STR("additionalProperties"), false);
	json_obj_end(j);
}

static void openapi_schema(struct openapi *o, const struct http_schema *s)
{
	struct json_out *j = &o->j;
	json_key(j, str_of(s->name));
	if (s->text_doc == NULL) {
		openapi_object(o, s);
		return;
	}
	json_obj_begin(j);
	openapi_kv(j, "description", s->doc);
	json_key(j, STR("oneOf"));
	json_arr_begin(j);
	json_obj_begin(j);
	openapi_type(j, "string", false);
	openapi_kv(j, "description", s->text_doc);
	openapi_example(j, s->text_example);
	json_obj_end(j);
	openapi_object(o, s);
	json_arr_end(j);
	json_obj_end(j);
}

/* --- answers --- */

/* What the service adds to a route's own answers. */
static const struct http_answer openapi_of_all[] = {
	{401,
	 "The login is wrong, or there is none and the route needs one: "
	 "the header WWW-Authenticate says which kinds are taken.",
	 "text/plain", NULL, NULL},
	{403, "The login is good, but may not do this.", "text/plain", NULL, NULL},
};
static const struct http_answer openapi_of_body[] = {
	{411, "The request has no length.", "text/plain", NULL, NULL},
	{413, "The body is larger than the listener's request_body_limit.", "text/plain", NULL, NULL},
	{415, "The body has another content type than this route takes, or an unknown content coding.",
	 "text/plain", NULL, NULL},
};
static const struct http_answer openapi_of_json[] = {
	{400, "The body is not JSON.", "text/plain", NULL, NULL},
	{422, "The body is JSON of another shape: the text names the field and what was expected.",
	 "text/plain", NULL, NULL},
};
static const struct http_answer openapi_of_gate[] = {
	{503, "No mail is taken now; the text says why, Retry-After when to try again.", "text/plain", NULL,
	 NULL},
};

struct openapi_answers {
	const struct http_answer *v[OPENAPI_MAX_ANSWERS]; /* by status; those of one status together */
	size_t n;
};

static void openapi_answer_add(struct openapi_answers *l, const struct http_answer *a)
{
	if (l->n == OPENAPI_MAX_ANSWERS)
		panic("http: more than %d answers", OPENAPI_MAX_ANSWERS);
	size_t at = l->n++;
	for (; at > 0 && l->v[at - 1]->status > a->status; at--)
		l->v[at] = l->v[at - 1];
	l->v[at] = a;
}

/* The service's, unless the route says it itself. */
static void openapi_answers_add_common(struct openapi_answers *l, const struct http_answer *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bool is_there = false;
		for (size_t k = 0; k < l->n; k++)
			is_there |= l->v[k]->status == a[i].status;
		if (!is_there)
			openapi_answer_add(l, &a[i]);
	}
}

static void openapi_answers_of(const struct http_route *r, struct openapi_answers *l)
{
	for (const struct http_answer *a = r->answers; a != NULL && a->status != 0; a++)
		openapi_answer_add(l, a);
	openapi_answers_add_common(l, openapi_of_all, ARRAY_SIZE(openapi_of_all));
	if (r->consumes != NULL)
		openapi_answers_add_common(l, openapi_of_body, ARRAY_SIZE(openapi_of_body));
	if (r->body != NULL)
		openapi_answers_add_common(l, openapi_of_json, ARRAY_SIZE(openapi_of_json));
	if (r->gate != NULL)
		openapi_answers_add_common(l, openapi_of_gate, ARRAY_SIZE(openapi_of_gate));
}

static void openapi_media(struct openapi *o, const char *content_type, const struct http_schema *schema,
			  const struct http_field *list)
{
	struct json_out *j = &o->j;
	str_t type = str_of(content_type);
	ptrdiff_t semicolon = str_chr(type, ';', 0);
	json_key(j, semicolon >= 0 ? str_head(type, (size_t)semicolon) : type);
	json_obj_begin(j);
	json_key(j, STR("schema"));
	if (list != NULL) {
		openapi_field(o, list, true);
	} else {
		json_obj_begin(j);
		if (schema != NULL)
			openapi_ref(o, schema);
		else if (str_starts(type, STR("application/json")))
			openapi_type(j, "object", false);
		else
			openapi_type(j, "string", false);
		json_obj_end(j);
	}
	json_obj_end(j);
}

static void openapi_answer_headers(struct openapi *o, const struct http_field *headers)
{
	struct json_out *j = &o->j;
	json_key(j, STR("headers"));
	json_obj_begin(j);
	for (const struct http_field *f = headers; f->name != NULL; f++) {
		json_key(j, str_of(f->name));
		json_obj_begin(j);
		openapi_kv(j, "description", f->doc);
		json_key(j, STR("schema"));
		openapi_field(o, f, false);
		json_obj_end(j);
	}
	json_obj_end(j);
}

static void openapi_answers(struct openapi *o, const struct http_route *r)
{
	struct json_out *j = &o->j;
	struct openapi_answers l = {.n = 0};
	openapi_answers_of(r, &l);
	json_key(j, STR("responses"));
	json_obj_begin(j);
	for (size_t i = 0, end; i < l.n; i = end) {
		char status[8];
		snprintf(status, sizeof(status), "%d", l.v[i]->status);
		json_key(j, str_of(status));
		json_obj_begin(j);
		json_kv_str(j, STR("description"), str_of(l.v[i]->doc));
		for (end = i; end < l.n && l.v[end]->status == l.v[i]->status; end++)
			;
		if (l.v[i]->headers != NULL)
			openapi_answer_headers(o, l.v[i]->headers);
		if (l.v[i]->content_type != NULL) {
			json_key(j, STR("content"));
			json_obj_begin(j);
			for (size_t k = i; k < end; k++)
				openapi_media(o, l.v[k]->content_type, l.v[k]->schema, l.v[k]->list);
			json_obj_end(j);
		}
		json_obj_end(j);
	}
	json_obj_end(j);
}

/* --- operations --- */

/* place: "query" or "header". */
static void openapi_parameters(struct openapi *o, const char *place, const struct http_field *fields)
{
	struct json_out *j = &o->j;
	for (const struct http_field *f = fields; f != NULL && f->name != NULL; f++) {
		json_obj_begin(j);
		json_kv_str(j, STR("name"), str_of(f->name));
		json_kv_str(j, STR("in"), str_of(place));
		openapi_kv(j, "description", f->doc);
		json_kv_bool(j, STR("required"), f->is_required);
		json_key(j, STR("schema"));
		openapi_field(o, f, false);
		json_obj_end(j);
	}
}

static void openapi_operation(struct openapi *o, const struct http_route *r)
{
	struct json_out *j = &o->j;
	char method[16] = "";
	for (size_t i = 0; r->method[i] != 0 && i + 1 < sizeof(method); i++)
		method[i] = (char)(r->method[i] | 0x20);
	json_key(j, str_of(method));
	json_obj_begin(j);
	json_key(j, STR("tags"));
	json_arr_begin(j);
	for (size_t i = 0; r->tags != NULL && r->tags[i] != NULL; i++)
		json_str(j, str_of(r->tags[i]));
	json_arr_end(j);
	openapi_kv(j, "summary", r->summary);
	openapi_kv(j, "description", r->text);
	openapi_kv(j, "operationId", r->id);
	if (r->query != NULL || r->headers != NULL) {
		json_key(j, STR("parameters"));
		json_arr_begin(j);
		openapi_parameters(o, "query", r->query);
		openapi_parameters(o, "header", r->headers);
		json_arr_end(j);
	}
	if (r->consumes != NULL) {
		json_key(j, STR("requestBody"));
		json_obj_begin(j);
		json_kv_bool(j, STR("required"), true);
		json_key(j, STR("content"));
		json_obj_begin(j);
		openapi_media(o, r->consumes, r->body, NULL);
		json_obj_end(j);
		json_obj_end(j);
	}
	openapi_answers(o, r);
	json_obj_end(j);
}

static bool openapi_is_first_of_path(size_t at)
{
	const char *path = http_route_at(at)->path;
	for (size_t i = 0; i < at; i++) {
		if (strcmp(http_route_at(i)->path, path) == 0)
			return false;
	}
	return true;
}

static void openapi_paths(struct openapi *o)
{
	const struct http_route *r, *same;
	json_key(&o->j, STR("paths"));
	json_obj_begin(&o->j);
	for (size_t i = 0; (r = http_route_at(i)) != NULL; i++) {
		if (!openapi_is_first_of_path(i))
			continue;
		json_key(&o->j, str_of(r->path));
		json_obj_begin(&o->j);
		for (size_t k = i; (same = http_route_at(k)) != NULL; k++) {
			if (strcmp(same->path, r->path) == 0)
				openapi_operation(o, same);
		}
		json_obj_end(&o->j);
	}
	json_obj_end(&o->j);
}

static void openapi_components(struct openapi *o)
{
	struct json_out *j = &o->j;
	json_key(j, STR("components"));
	json_obj_begin(j);
	json_key(j, STR("schemas"));
	json_obj_begin(j);
	for (size_t i = 0; i < o->n_schemas; i++) /* writing one may refer to further ones */
		openapi_schema(o, o->schema[i]);
	json_obj_end(j);
	json_key(j, STR("securitySchemes"));
	json_raw(j, STR("{\"basic_auth\":{\"type\":\"http\",\"scheme\":\"basic\"},"
			"\"bearer_auth\":{\"type\":\"http\",\"scheme\":\"bearer\"}}"));
	json_obj_end(j);
}

void http_write_openapi(const struct http_reference_info *info, struct buf *out)
{
	struct openapi *o = xnew(struct openapi);
	struct json_out *j = &o->j;
	*j = json_out_to(out);
	json_obj_begin(j);
	json_kv_str(j, STR("openapi"), STR("3.1.0"));
	json_key(j, STR("info"));
	json_obj_begin(j);
	openapi_kv(j, "title", info->title);
	openapi_kv(j, "description", info->doc);
	json_key(j, STR("license"));
	json_raw(j, STR("{\"name\":\"Apache-2.0\",\"identifier\":\"Apache-2.0\"}"));
	openapi_kv(j, "version", info->version);
	json_obj_end(j);
	openapi_paths(o);
	openapi_components(o);
	json_key(j, STR("security")); /* from a trusted address no login is needed */
	json_raw(j, STR("[{},{\"basic_auth\":[]},{\"bearer_auth\":[]}]"));
	json_obj_end(j);
	free(o);
}
