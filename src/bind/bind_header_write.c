/* bind_header_write.c - fields from the values that bind_header_value.c makes, or from text. Tables come in
 * through JSON, so that nothing of Lua is left to raise while lists are made. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_mime_impl.h"
#include "mime/header.h"
#include "mime/header_lex.h"
#include "mime/message_id.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

static str_t json_text(const json_t *v)
{
	return json_is_string(v) ? str_mk(json_string_value(v), json_string_length(v)) : STR_NULL;
}

static int fail_type(const char *path, const json_t *v, const char *expected)
{
	struct buf what = BUF_INIT;
	if (v != NULL)
		value_describe(v, false, &what);
	err_set(ERR_INVALID, "%s: %s, expected %s", path, v != NULL ? what.p : "missing", expected);
	buf_fini(&what);
	return -1;
}

/* An empty table of Lua is an object. */
static bool is_list(const json_t *v)
{
	return json_is_array(v) || (json_is_object(v) && json_object_size(v) == 0);
}

/* A text that has to be there. */
static int take_text(const json_t *obj, const char *path, const char *key, str_t *out)
{
	const json_t *v = json_object_get(obj, key);
	struct buf sub = BUF_INIT;
	buf_printf(&sub, "%s.%s", path, key);
	*out = json_text(v);
	int rc = out->p != NULL ? 0 : fail_type(sub.p, v, "a string");
	buf_fini(&sub);
	return rc;
}

/* Absent and null are p NULL. */
static int take_opt_text(const json_t *obj, const char *path, const char *key, str_t *out)
{
	const json_t *v = json_object_get(obj, key);
	*out = STR_NULL;
	return v == NULL || json_is_null(v) ? 0 : take_text(obj, path, key, out);
}

static int take_opt_version(const json_t *obj, const char *path, const char *key, uint32_t *out)
{
	const json_t *v = json_object_get(obj, key);
	*out = 0;
	if (v == NULL || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX) {
		err_set(ERR_INVALID, "%s.%s: expected a whole number", path, key);
		return -1;
	}
	*out = (uint32_t)json_integer_value(v);
	return 0;
}

/* No other keys than these. */
static int check_keys(const json_t *obj, const char *path, const char *const *keys)
{
	json_t *w = (json_t *)(uintptr_t)obj; /* jansson's iterators want it so */
	for (void *it = json_object_iter(w); it != NULL; it = json_object_iter_next(w, it)) {
		const char *const *k = keys;
		while (*k != NULL && strcmp(*k, json_object_iter_key(it)) != 0)
			k++;
		if (*k == NULL) {
			err_set(ERR_INVALID, "%s: unknown field `%s`", path, json_object_iter_key(it));
			return -1;
		}
	}
	return 0;
}

static int take_mailbox(struct arena *a, const json_t *v, const char *path, struct address_mailbox *out)
{
	static const char *const keys[] = {"name", "address", NULL}, *const address_keys[] = {"local_part",
											      "domain", NULL};
	const json_t *address = json_object_get(v, "address");
	struct buf sub = BUF_INIT;
	struct address_mailbox m;
	int rc = -1;
	buf_printf(&sub, "%s.address", path);
	if (!json_is_object(v)) {
		fail_type(path, v, "a mailbox: { name, address = { local_part, domain } }");
	} else if (!json_is_object(address)) {
		fail_type(sub.p, address, "a table: { local_part, domain }");
	} else if (check_keys(v, path, keys) == 0 && check_keys(address, sub.p, address_keys) == 0 &&
		   take_opt_text(v, path, "name", &m.name) == 0 &&
		   take_text(address, sub.p, "local_part", &m.local) == 0 &&
		   take_text(address, sub.p, "domain", &m.domain) == 0) {
		rc = address_mailbox_check(&m);
		if (rc != 0)
			err_wrap("%s", path);
	}
	if (rc == 0)
		*out = (struct address_mailbox){.name = m.name.n > 0 ? arena_str(a, m.name) : STR_NULL,
						.local = arena_str(a, m.local),
						.domain = arena_str(a, m.domain)};
	buf_fini(&sub);
	return rc;
}

static int take_group(struct arena *a, const json_t *v, const char *path, struct address *out)
{
	static const char *const keys[] = {"name", "entries", NULL};
	const json_t *entries = json_object_get(v, "entries");
	struct buf sub = BUF_INIT;
	str_t name;
	buf_printf(&sub, "%s.entries", path);
	int rc = check_keys(v, path, keys) == 0 ? take_text(v, path, "name", &name) : -1;
	if (rc == 0 && (header_has_controls(name) || !str_is_utf8(name))) {
		err_set(ERR_INVALID, "%s.name: must be UTF-8 without controls", path);
		rc = -1;
	}
	if (rc == 0 && !is_list(entries))
		rc = fail_type(sub.p, entries, "a list of mailboxes");
	size_t n = json_array_size(entries);
	if (rc == 0)
		*out = (struct address){.is_group = true,
					.box.name = arena_str(a, name),
					.member = arena_alloc(a, (n + 1) * sizeof *out->member)};
	for (size_t i = 0; i < n && rc == 0; i++) {
		buf_clear(&sub);
		buf_printf(&sub, "%s.entries[%zu]", path, i + 1);
		rc = take_mailbox(a, json_array_get(entries, i), sub.p, &out->member[out->n_members]);
		out->n_members += rc == 0;
	}
	buf_fini(&sub);
	return rc;
}

static int take_addresses(const json_t *v, enum header_kind kind, struct address_list *l)
{
	bool is_one = kind == HEADER_MAILBOX;
	size_t n = is_one ? 1 : json_array_size(v);
	struct buf path = BUF_INIT;
	int rc = 0;
	if (!is_one && !is_list(v))
		rc = fail_type("the value", v, "a list of addresses");
	l->v = arena_alloc(&l->arena, (n + 1) * sizeof *l->v);
	for (size_t i = 0; i < n && rc == 0; i++) {
		const json_t *e = is_one ? v : json_array_get(v, i);
		buf_clear(&path);
		buf_printf(&path, is_one ? "the value" : "[%zu]", i + 1);
		l->v[i] = (struct address){0};
		if (json_object_get(e, "entries") == NULL)
			rc = take_mailbox(&l->arena, e, path.p, &l->v[i].box);
		else if (kind == HEADER_ADDRESSES)
			rc = take_group(&l->arena, e, path.p, &l->v[i]);
		else
			rc = fail_type(path.p, e, "a mailbox, not a group");
		l->n += rc == 0;
	}
	buf_fini(&path);
	return rc;
}

static int param_compare(const void *a, const void *b)
{
	const struct mime_param *x = a, *y = b;
	return str_cmp(x->name, y->name);
}

static int take_params(const json_t *v, struct mime_params *p)
{
	static const char *const keys[] = {"value", "parameters", NULL};
	const json_t *parameters = json_object_get(v, "parameters");
	str_t value;
	if (!json_is_object(v))
		return fail_type("the value", v, "a table: { value, parameters }");
	if (check_keys(v, "the value", keys) != 0 || take_text(v, "the value", "value", &value) != 0)
		return -1;
	if (parameters != NULL && !json_is_null(parameters) && !json_is_object(parameters))
		return fail_type("the value.parameters", parameters, "a table of texts");
	p->value = arena_str(&p->arena, value);
	json_t *w = (json_t *)(uintptr_t)parameters;
	for (void *it = json_object_iter(w); it != NULL; it = json_object_iter_next(w, it)) {
		str_t text = json_text(json_object_iter_value(it));
		if (text.p == NULL)
			return fail_type(json_object_iter_key(it), json_object_iter_value(it), "a string");
		mime_params_set(p, str_mk(json_object_iter_key(it), json_object_iter_key_len(it)), text);
	}
	if (p->n > 1)
		qsort(p->param, p->n, sizeof *p->param, param_compare); /* tables have no order */
	return mime_params_check(p);
}

static int prop_compare(const void *a, const void *b)
{
	const struct auth_prop *x = a, *y = b;
	return str_cmp(x->name, y->name);
}

static int take_props(struct arena *a, const json_t *v, const char *path, struct auth_result *out)
{
	json_t *w = (json_t *)(uintptr_t)v;
	if (v != NULL && !json_is_null(v) && !json_is_object(v))
		return fail_type(path, v, "a table of texts");
	out->prop = arena_alloc(a, (json_object_size(v) + 1) * sizeof *out->prop);
	for (void *it = json_object_iter(w); it != NULL; it = json_object_iter_next(w, it)) {
		str_t text = json_text(json_object_iter_value(it));
		if (text.p == NULL)
			return fail_type(path, json_object_iter_value(it), "texts");
		out->prop[out->n_props++] = (struct auth_prop){
			arena_str(a, str_mk(json_object_iter_key(it), json_object_iter_key_len(it))),
			arena_str(a, text)};
	}
	qsort(out->prop, out->n_props, sizeof *out->prop, prop_compare);
	return 0;
}

static int take_result(struct arena *a, const json_t *v, const char *path, struct auth_result *out)
{
	static const char *const keys[] = {"method", "method_version", "result", "reason", "props", NULL};
	struct auth_result r = {0};
	struct buf sub = BUF_INIT;
	if (!json_is_object(v))
		return fail_type(path, v, "a table: { method, result, reason, props }");
	buf_printf(&sub, "%s.props", path);
	int rc = check_keys(v, path, keys) == 0 && take_text(v, path, "method", &r.method) == 0 &&
				 take_opt_version(v, path, "method_version", &r.method_version) == 0 &&
				 take_text(v, path, "result", &r.result) == 0 &&
				 take_opt_text(v, path, "reason", &r.reason) == 0
			 ? take_props(a, json_object_get(v, "props"), sub.p, &r)
			 : -1;
	buf_fini(&sub);
	if (rc != 0)
		return -1;
	r.method = arena_str(a, r.method), r.result = arena_str(a, r.result);
	r.reason = r.reason.p != NULL ? arena_str(a, r.reason) : STR_NULL;
	*out = r;
	return 0;
}

int bind_to_auth_results(const json_t *list, struct auth_results *out)
{
	size_t n = json_array_size(list);
	int rc = 0;
	if (!is_list(list))
		return fail_type("results", list, "a list");
	out->v = arena_alloc(&out->arena, (n + 1) * sizeof *out->v);
	for (size_t i = 0; i < n && rc == 0; i++) {
		struct buf path = BUF_INIT;
		buf_printf(&path, "results[%zu]", i + 1);
		rc = take_result(&out->arena, json_array_get(list, i), path.p, &out->v[i]);
		out->n += rc == 0;
		buf_fini(&path);
	}
	return rc;
}

static int take_results(const json_t *v, struct auth_results *r)
{
	static const char *const keys[] = {"serv_id", "version", "results", NULL};
	str_t id;
	if (!json_is_object(v))
		return fail_type("the value", v, "a table: { serv_id, version, results }");
	if (check_keys(v, "the value", keys) != 0 || take_text(v, "the value", "serv_id", &id) != 0 ||
	    take_opt_version(v, "the value", "version", &r->version) != 0)
		return -1;
	r->server_id = arena_str(&r->arena, id);
	return bind_to_auth_results(json_object_get(v, "results"), r) == 0 ? auth_results_check(r) : -1;
}

static int take_ids(const json_t *v, struct header_writer *w)
{
	if (!is_list(v))
		return fail_type("the value", v, "a list of ids");
	for (size_t i = 0; i < json_array_size(v); i++) {
		str_t id = json_text(json_array_get(v, i));
		if (id.n > 2 && id.p[0] == '<' && id.p[id.n - 1] == '>')
			id = str_mk(id.p + 1, id.n - 2);
		if (!message_id_is_valid(id)) {
			err_set(ERR_INVALID, "[%zu]: invalid message id", i + 1);
			return -1;
		}
		message_id_write(w, id);
	}
	return 0;
}

static int write_table(const json_t *v, enum header_kind kind, struct header_writer *w)
{
	struct address_list addresses = {.arena = ARENA_INIT};
	struct mime_params params = {.arena = ARENA_INIT};
	struct auth_results results = {.arena = ARENA_INIT};
	int rc;
	switch (kind) {
	case HEADER_ADDRESSES:
	case HEADER_MAILBOXES:
	case HEADER_MAILBOX:
		rc = take_addresses(v, kind, &addresses);
		if (rc == 0)
			address_list_write(&addresses, w);
		address_list_fini(&addresses);
		return rc;
	case HEADER_MIME_PARAMS:
		rc = take_params(v, &params);
		if (rc == 0)
			mime_params_write(&params, w);
		mime_params_fini(&params);
		return rc;
	case HEADER_AUTH_RESULTS:
		rc = take_results(v, &results);
		if (rc == 0)
			auth_results_write(&results, w);
		auth_results_fini(&results);
		return rc;
	case HEADER_MESSAGE_ID_LIST:
		return take_ids(v, w);
	case HEADER_MESSAGE_ID:
	case HEADER_TEXT:
		break;
	}
	return fail_type("the value", v, "a string");
}

/* Text must be what it would be read as. */
static int write_text(str_t text, enum header_kind kind, struct header_writer *w)
{
	struct address_list addresses;
	struct mime_params params;
	struct auth_results results;
	str_t id;
	int rc = 0;
	if (header_has_controls(text) || !str_is_utf8(text)) {
		err_set(ERR_INVALID, "the value must be UTF-8 without CR, LF, NUL and other controls");
		return -1;
	}
	switch (kind) {
	case HEADER_ADDRESSES:
	case HEADER_MAILBOXES:
	case HEADER_MAILBOX:
		if ((kind == HEADER_ADDRESSES ? address_list_parse
					      : address_list_parse_mailboxes)(text, &addresses) != 0)
			return -1;
		if (kind == HEADER_MAILBOX && addresses.n != 1) {
			err_set(ERR_INVALID, "invalid address: expected one, found %zu", addresses.n);
			rc = -1;
		} else {
			address_list_write(&addresses, w);
		}
		address_list_fini(&addresses);
		return rc;
	case HEADER_MESSAGE_ID:
		if (message_id_is_valid(text))
			id = text; /* as getters have it */
		else if (message_id_parse(text, &id) != 0)
			return -1;
		message_id_write(w, id);
		return 0;
	case HEADER_MESSAGE_ID_LIST:
		while ((rc = message_id_next(&text, &id)) == 1)
			message_id_write(w, id);
		return rc;
	case HEADER_MIME_PARAMS:
		if (mime_params_parse(text, &params) != 0)
			return -1;
		rc = mime_params_check(&params);
		if (rc == 0)
			mime_params_write(&params, w);
		mime_params_fini(&params);
		return rc;
	case HEADER_AUTH_RESULTS:
		if (auth_results_parse(text, &results) != 0)
			return -1;
		rc = auth_results_check(&results);
		if (rc == 0)
			auth_results_write(&results, w);
		auth_results_fini(&results);
		return rc;
	case HEADER_TEXT:
		break;
	}
	header_write_text(w, text);
	return 0;
}

int bind_write_header_value(lua_State *L, int idx, enum header_kind kind, str_t name, struct buf *out)
{
	struct header_writer w;
	int rc = -1;
	header_write_begin(&w, out, name);
	if (lua_type(L, idx) == LUA_TSTRING) {
		str_t text;
		text.p = lua_tolstring(L, idx, &text.n);
		rc = write_text(text, kind, &w);
	} else {
		json_t *v = value_from_lua(L, idx);
		if (v != NULL)
			rc = write_table(v, kind, &w);
		json_decref(v);
	}
	header_write_end(&w);
	if (rc != 0)
		err_wrap("invalid header `" STR_FMT "`", STR_ARG(name));
	return rc;
}
