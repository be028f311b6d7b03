/* render.c - the JSON form of a record, in the documented order of fields (docs/reference/log_record.md).
 *
 * This is on the way of every message at least twice, so names and punctuation are constant text appended as
 * it is, and only values go through the escaper. Metadata values are JSON text already. Header fields are
 * looked for only when the logger asks for some; each is decoded once. */
#include "record/record_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "mime/header.h"

#include <ctype.h>
#include <stdlib.h>

#define LIT(b, text) buf_add((b), (text), sizeof(text) - 1)

static void render_str_or_null(struct buf *b, str_t v)
{
	if (v.p == NULL)
		LIT(b, "null");
	else
		json_escape(b, v);
}

static void render_uint(struct buf *b, uint64_t v)
{
	buf_add_u64(b, v);
}

/* --- parts --- */

static void render_recipients(struct buf *b, const struct record *r)
{
	const char *const *rcpt = r->rcpt;
	size_t n = rcpt != NULL ? r->n_rcpt : 0;
	if (rcpt == NULL && r->msg != NULL) {
		rcpt = (const char *const *)r->msg->rcpt;
		n = r->msg->n_rcpt;
	}
	if (n == 1) {
		json_escape(b, str_of(rcpt[0]));
		return;
	}
	if (n == 0 && r->msg == NULL) {
		LIT(b, "\"\"");
		return;
	}
	buf_add_c(b, '[');
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			buf_add_c(b, ',');
		json_escape(b, str_of(rcpt[i]));
	}
	buf_add_c(b, ']');
}

/* Line ends become one blank each. */
static void render_content(struct buf *b, str_t s)
{
	if (str_chr(s, '\n', 0) < 0 && str_chr(s, '\r', 0) < 0) {
		json_escape(b, s);
		return;
	}
	struct buf flat = BUF_INIT;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n')
			continue;
		buf_add_c(&flat, s.p[i] == '\r' || s.p[i] == '\n' ? ' ' : s.p[i]);
	}
	json_escape(b, buf_str(&flat));
	buf_fini(&flat);
}

static void render_response(struct buf *b, const struct smtp_response *r)
{
	LIT(b, ",\"response\":{\"code\":");
	buf_add_i64(b, r->code);
	if (r->enhanced[0] != 0) {
		LIT(b, ",\"enhanced_code\":{\"class\":");
		buf_add_i64(b, r->enhanced[0]);
		LIT(b, ",\"subject\":");
		buf_add_i64(b, r->enhanced[1]);
		LIT(b, ",\"detail\":");
		buf_add_i64(b, r->enhanced[2]);
		LIT(b, "},\"content\":");
	} else {
		LIT(b, ",\"enhanced_code\":null,\"content\":");
	}
	render_content(b, r->content);
	LIT(b, ",\"command\":");
	render_str_or_null(b, r->command);
	buf_add_c(b, '}');
}

static void render_peer(struct buf *b, const struct record *r)
{
	if (r->peer_name.p == NULL) {
		LIT(b, ",\"peer_address\":null");
		return;
	}
	LIT(b, ",\"peer_address\":{\"name\":");
	json_escape(b, r->peer_name);
	LIT(b, ",\"addr\":");
	json_escape(b, r->peer_addr);
	if (r->is_peer_secure)
		LIT(b, ",\"is_secure\":true");
	buf_add_c(b, '}');
}

static void render_source(struct buf *b, const struct record *r)
{
	if (r->source_addr.p == NULL) {
		LIT(b, ",\"source_address\":null");
		return;
	}
	LIT(b, ",\"source_address\":{\"address\":");
	json_escape(b, r->source_addr);
	if (r->source_server.p != NULL) {
		LIT(b, ",\"server\":");
		json_escape(b, r->source_server);
	}
	if (r->source_protocol.p != NULL) {
		LIT(b, ",\"protocol\":");
		json_escape(b, r->source_protocol);
	}
	buf_add_c(b, '}');
}

static void render_times(struct buf *b, const struct record *r, wall_t now)
{
	wall_t created = r->msg != NULL ? message_created(r->msg) : r->id != NULL ? uuid_v1_time(r->id) : now;
	if (r->when.ns != 0)
		now = r->when;
	LIT(b, ",\"timestamp\":");
	buf_add_i64(b, wall_unix_s(now));
	LIT(b, ",\"event_time\":\"");
	wall_fmt_rfc3339(now, 9, b);
	LIT(b, "\",\"created\":");
	buf_add_i64(b, wall_unix_s(created));
	LIT(b, ",\"created_time\":\"");
	wall_fmt_rfc3339(created, 9, b);
	buf_add_c(b, '"');
}

/* --- selected metadata and headers --- */

enum selected { SELECTED_NOT, SELECTED_PREFIX, SELECTED_EXACT };

/* The prefix form is weaker: for metadata it lets nulls through, so it wins over an exact name. */
static enum selected selection_match(const struct param_strs *names, str_t key, bool is_caseless)
{
	enum selected best = SELECTED_NOT;
	for (size_t i = 0; i < names->n && best != SELECTED_PREFIX; i++) {
		str_t name = str_of(names->v[i]);
		if (str_ends(name, STR("*"))) {
			str_t prefix = str_head(name, name.n - 1);
			if (is_caseless ? str_istarts(key, prefix) : str_starts(key, prefix))
				best = SELECTED_PREFIX;
		} else if (is_caseless ? str_ieq(key, name) : str_eq(key, name)) {
			best = SELECTED_EXACT;
		}
	}
	return best;
}

static void render_meta(struct buf *b, const struct record *r, const struct param_strs *names)
{
	LIT(b, ",\"meta\":{");
	bool is_first = true;
	str_t key, json;
	for (uint32_t i = 0; names->n > 0 && r->msg != NULL && meta_at(&r->msg->meta, i, &key, &json); i++) {
		enum selected how = selection_match(names, key, false);
		if (how == SELECTED_NOT || (how == SELECTED_EXACT && str_eq(json, STR("null"))))
			continue;
		if (!is_first)
			buf_add_c(b, ',');
		is_first = false;
		json_escape(b, key);
		buf_add_c(b, ':');
		buf_add_str(b, json);
	}
	buf_add_c(b, '}');
}

struct header_hit {
	struct header_hit *next; /* of the same name */
	str_t raw_value;
};
struct header_group {
	struct header_group *next;
	str_t name; /* as the first was written */
	struct header_hit *first, *last;
};
struct header_groups {
	struct arena arena;
	struct map by_name; /* lower case */
	struct header_group *first, *last;
};

static str_t header_name_lower(struct arena *a, str_t name)
{
	char *p = arena_alloc(a, name.n + 1);
	for (size_t i = 0; i < name.n; i++)
		p[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] | 0x20 : name.p[i]);
	return str_mk(p, name.n);
}

static void headers_collect(struct header_groups *hg, str_t bytes, const struct param_strs *names)
{
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, bytes);
	while (header_next(&it, &f)) {
		if (selection_match(names, f.name, true) == SELECTED_NOT)
			continue;
		str_t lower = header_name_lower(&hg->arena, f.name);
		struct header_group *g = map_find(&hg->by_name, lower);
		if (g == NULL) {
			g = arena_zalloc(&hg->arena, sizeof(*g));
			g->name = f.name;
			map_put(&hg->by_name, lower, g);
			if (hg->last != NULL)
				hg->last->next = g;
			else
				hg->first = g;
			hg->last = g;
		}
		struct header_hit *h = arena_zalloc(&hg->arena, sizeof(*h));
		h->raw_value = f.raw_value;
		if (g->last != NULL)
			g->last->next = h;
		else
			g->first = h;
		g->last = h;
	}
}

static void render_headers(struct buf *b, const struct record *r, const struct param_strs *names)
{
	LIT(b, ",\"headers\":{");
	if (names->n == 0 || r->msg == NULL)
		goto end;
	struct header_groups hg = {.arena = ARENA_INIT};
	struct buf value = BUF_INIT;
	headers_collect(&hg, str_mk(r->msg->prefix, r->msg->n_prefix_bytes), names);
	if (r->msg->body != NULL)
		headers_collect(&hg, str_mk(r->msg->body->p, r->msg->body->n_bytes), names);
	for (struct header_group *g = hg.first; g != NULL; g = g->next) {
		if (g != hg.first)
			buf_add_c(b, ',');
		json_escape(b, g->name);
		buf_add_c(b, ':');
		if (g->first != g->last)
			buf_add_c(b, '[');
		for (struct header_hit *h = g->first; h != NULL; h = h->next) {
			if (h != g->first)
				buf_add_c(b, ',');
			buf_clear(&value);
			header_decode(h->raw_value, &value);
			json_escape(b, str_trim(buf_str(&value)));
		}
		if (g->first != g->last)
			buf_add_c(b, ']');
	}
	buf_fini(&value);
	map_fini(&hg.by_name);
	arena_fini(&hg.arena);
end:
	buf_add_c(b, '}');
}

/* --- the whole --- */

static void render_reception_protocol(struct buf *b, const struct record *r)
{
	str_t json;
	LIT(b, ",\"reception_protocol\":");
	if (r->reception_protocol.p != NULL)
		json_escape(b, r->reception_protocol);
	else if (r->msg != NULL && meta_get_json(&r->msg->meta, STR("reception_protocol"), &json))
		buf_add_str(b, json);
	else
		LIT(b, "null");
}

static void render_tls(struct buf *b, const struct record *r)
{
	if (r->tls_cipher.p != NULL) {
		LIT(b, ",\"tls_cipher\":");
		json_escape(b, r->tls_cipher);
	}
	if (r->tls_protocol.p != NULL) {
		LIT(b, ",\"tls_protocol_version\":");
		json_escape(b, r->tls_protocol);
	}
	if (r->n_tls_peer_subject > 0) {
		LIT(b, ",\"tls_peer_subject_name\":[");
		for (size_t i = 0; i < r->n_tls_peer_subject; i++) {
			if (i > 0)
				buf_add_c(b, ',');
			json_escape(b, str_of(r->tls_peer_subject[i]));
		}
		buf_add_c(b, ']');
	}
}

void record_render_json(const struct record *r, const struct record_selection *sel, wall_t now, struct buf *b)
{
	char id[33] = "", session[37];
	if (r->msg != NULL || r->id != NULL)
		uuid_fmt_simple(r->msg != NULL ? &r->msg->id : r->id, id);
	buf_reserve(b, 1536);

	LIT(b, "{\"type\":\"");
	buf_add_z(b, record_type_name(r->type));
	LIT(b, "\",\"id\":\"");
	buf_add_z(b, id);
	LIT(b, "\",\"sender\":");
	json_escape(b, r->msg != NULL ? str_of(r->msg->sender) : r->sender);
	LIT(b, ",\"recipient\":");
	render_recipients(b, r);
	LIT(b, ",\"queue\":");
	json_escape(b, r->queue);
	LIT(b, ",\"site\":");
	json_escape(b, r->site);
	LIT(b, ",\"size\":");
	render_uint(b, r->msg != NULL ? r->msg->size_bytes : 0);
	render_response(b, &r->response);
	render_peer(b, r);
	render_times(b, r, now);
	LIT(b, ",\"num_attempts\":");
	render_uint(b, r->n_attempts);
	LIT(b, ",\"bounce_classification\":\"Uncategorized\",\"egress_pool\":");
	render_str_or_null(b, r->egress_pool);
	LIT(b, ",\"egress_source\":");
	render_str_or_null(b, r->egress_source);
	render_source(b, r);
	LIT(b, ",\"feedback_report\":");
	buf_add_str(b, r->feedback_report.p != NULL ? r->feedback_report : STR("null"));
	render_meta(b, r, sel->meta);
	render_headers(b, r, sel->headers);
	LIT(b, ",\"delivery_protocol\":");
	render_str_or_null(b, r->delivery_protocol);
	render_reception_protocol(b, r);
	LIT(b, ",\"nodeid\":\"");
	buf_add_z(b, node_id());
	buf_add_c(b, '"');
	render_tls(b, r);
	if (r->provider_name.p != NULL) {
		LIT(b, ",\"provider_name\":");
		json_escape(b, r->provider_name);
	}
	if (r->session_id != NULL) {
		uuid_fmt_dashed(r->session_id, session);
		LIT(b, ",\"session_id\":\"");
		buf_add_z(b, session);
		buf_add_c(b, '"');
	}
	buf_add_c(b, '}');
}

/** The headers of a record under their names in lower case besides, which is how the documentation has
 * templates ask for them. A new reference. */
static json_t *render_headers_in_any_case(const json_t *record)
{
	json_t *headers = json_object_get(record, "headers"), *all = json_copy(headers), *value;
	const char *name;
	json_object_foreach(headers, name, value)
	{
		char *lower = xstrdup(name);
		for (char *c = lower; *c != 0; c++)
			*c = (char)tolower((unsigned char)*c);
		if (json_object_get(all, lower) == NULL)
			json_object_set(all, lower, value);
		free(lower);
	}
	return all;
}

int record_render_template(const struct template *t, str_t json, struct buf *out)
{
	json_error_t e;
	json_t *record = json_loadb(json.p, json.n, JSON_ALLOW_NUL, &e);
	if (record == NULL) {
		err_set(ERR_INVALID, "a record is not JSON: %s", e.text);
		return -1;
	}
	json_t *globals = json_object();
	json_object_set(globals, "log_record", record);
	json_t *over = json_object();
	json_object_set_new(over, "headers", render_headers_in_any_case(record));
	const json_t *contexts[] = {over, record, globals};
	int rc = template_render_layered(t, contexts, ARRAY_SIZE(contexts), out);
	json_decref(over);
	json_decref(globals);
	json_decref(record);
	return rc;
}
