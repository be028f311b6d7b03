/* trace.c - trace fields go into the message's prefix, so that recipients go on sharing one body. */
#include "mail/trace.h"

#include "base/text.h"

#define TRACE_COLUMNS 75 /* of the value, as its readers know it */

/** A client chooses some of these texts: none of them may end the line, close the comment early or be
 * invisible. */
static void trace_add_text(struct buf *b, str_t s)
{
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		buf_add_c(b, c < 0x20 || c == 0x7f || c == '(' || c == ')' || c == '\\' ? '?' : s.p[i]);
	}
}

void trace_add_received(struct message *m, const struct trace_received *t)
{
	struct buf b = BUF_INIT;
	char id[33];
	uuid_fmt_simple(&m->id, id);
	buf_add_z(&b, "Received: from ");
	trace_add_text(&b, t->from.n > 0 ? t->from : STR("unspecified"));
	buf_add_z(&b, " (");
	trace_add_text(&b, t->from_addr);
	buf_add_z(&b, ")\r\n  by ");
	trace_add_text(&b, t->by);
	buf_add_z(&b, " (Cirrus");
	if (t->by_addr.n > 0) {
		buf_add_c(&b, ' ');
		trace_add_text(&b, t->by_addr);
	}
	buf_add_z(&b, ")\r\n  with ");
	buf_add_str(&b, t->protocol);
	if (t->tls.n > 0) {
		buf_add_z(&b, " (");
		trace_add_text(&b, t->tls);
		buf_add_c(&b, ')');
	}
	buf_add_z(&b, " id ");
	buf_add_z(&b, id);
	if (m->n_rcpt > 0) {
		buf_add_z(&b, " for <");
		buf_add_z(&b, m->rcpt[0]); /* a checked mailbox */
		buf_add_c(&b, '>');
	}
	buf_add_z(&b, ";\r\n  ");
	wall_fmt_rfc2822(t->when, &b);
	buf_add_z(&b, "\r\n");
	message_add_prefix(m, buf_str(&b));
	buf_fini(&b);
}

static void trace_write_json(const struct message *m, const str_t *meta_names, size_t n, struct buf *out)
{
	struct json_out j = json_out_to(out);
	json_obj_begin(&j);
	json_kv_str(&j, STR("_@_"), STR("\\_/"));
	json_key(&j, STR("recipient"));
	if (m->n_rcpt != 1)
		json_arr_begin(&j);
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		json_str(&j, str_of(m->rcpt[i]));
	if (m->n_rcpt != 1)
		json_arr_end(&j);
	for (size_t i = 0; i < n; i++) {
		str_t value;
		json_key(&j, meta_names[i]);
		if (meta_get_json(&m->meta, meta_names[i], &value))
			json_raw(&j, value);
		else
			json_nil(&j);
	}
	json_obj_end(&j);
}

void trace_add_supplemental(struct message *m, str_t name, const str_t *meta_names, size_t n)
{
	struct buf json = BUF_INIT, text = BUF_INIT, field = BUF_INIT;
	trace_write_json(m, meta_names, n, &json);
	base64_encode(&text, buf_str(&json));
	buf_add_str(&field, name);
	buf_add_z(&field, ": ");
	for (str_t rest = buf_str(&text); rest.n > 0; rest = str_skip(rest, TRACE_COLUMNS)) {
		buf_add_str(&field, str_head(rest, TRACE_COLUMNS));
		if (rest.n > TRACE_COLUMNS)
			buf_add_z(&field, "\r\n\t");
	}
	buf_add_z(&field, "\r\n");
	message_add_prefix(m, buf_str(&field));
	buf_fini(&json);
	buf_fini(&text);
	buf_fini(&field);
}
