/* in_trace_event.c - the events of a trace as JSON: {"conn_meta":
 * {...}, "payload": "Connected" or {"Read": "..."}, "when": ...}. */
#include "smtp/in_impl.h"

#include "mail/message.h"
#include "smtp/in_trace_impl.h"

enum { IN_TRACE_SNIPPET_BYTES = 256 };

bool in_trace_is_abbreviated(const struct in_seen *w)
{
	ptrdiff_t lf = str_chr(w->text, '\n', 0);
	return w->kind == IN_SIGHT_READ && lf >= 0 && (size_t)lf + 1 < w->text.n;
}

/* The first line, without its end; no half characters. */
static str_t in_trace_snippet(str_t text)
{
	size_t n = 0, n_bad;
	str_t line = str_head(text, (size_t)str_chr(text, '\n', 0));
	if (line.n > 0 && line.p[line.n - 1] == '\r')
		line.n--;
	if (line.n <= IN_TRACE_SNIPPET_BYTES)
		return line;
	for (size_t step = 0; n + step <= IN_TRACE_SNIPPET_BYTES; n += step) {
		step = str_utf8_step(str_skip(line, n), &n_bad);
		step = step != 0 ? step : n_bad;
		if (n + step > IN_TRACE_SNIPPET_BYTES)
			break;
	}
	return str_head(line, n);
}

static void in_trace_read(struct json_out *j, const struct in_seen *w, bool is_terse)
{
	if (!is_terse || !in_trace_is_abbreviated(w)) {
		json_kv_str(j, STR("Read"), w->text);
		return;
	}
	json_key(j, STR("AbbreviatedRead"));
	json_obj_begin(j);
	json_kv_str(j, STR("snippet"), in_trace_snippet(w->text));
	json_kv_int(j, STR("len"), (int64_t)w->text.n);
	json_obj_end(j);
}

static void in_trace_diagnostic(struct json_out *j, str_t message)
{
	json_key(j, STR("Diagnostic"));
	json_obj_begin(j);
	json_kv_str(j, STR("level"), STR("ERROR"));
	json_kv_str(j, STR("message"), message);
	json_obj_end(j);
}

static void in_trace_callback(struct json_out *j, const struct in_seen *w)
{
	json_key(j, STR("Callback"));
	json_obj_begin(j);
	json_kv_str(j, STR("name"), str_of(w->name));
	json_key(j, STR("result"));
	if (w->text.n > 0)
		json_raw(j, w->text);
	else
		json_nil(j);
	if (w->error.p != NULL)
		json_kv_str(j, STR("error"), w->error);
	else
		json_kv_null(j, STR("error"));
	json_obj_end(j);
}

static void in_trace_envelope(struct json_out *j, const struct message *m)
{
	char id[33];
	struct buf queue = BUF_INIT;
	if (message_queue_name(m, &queue) != 0)
		err_clear(); /* it has none; the session will find out, too */
	json_kv_str(j, STR("queue"), buf_str(&queue));
	json_key(j, STR("meta"));
	meta_write(&m->meta, j);
	json_kv_str(j, STR("sender"), str_of(m->sender));
	json_key(j, STR("recipient"));
	if (m->n_rcpt != 1)
		json_arr_begin(j);
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		json_str(j, str_of(m->rcpt[i]));
	if (m->n_rcpt != 1)
		json_arr_end(j);
	uuid_fmt_simple(&m->id, id);
	json_kv_str(j, STR("id"), str_of(id));
	buf_fini(&queue);
}

static void in_trace_disposition(struct json_out *j, const struct in_seen *w)
{
	bool was_looked_at = w->log_arf != IN_REPORT_IGNORE || w->log_oob != IN_REPORT_IGNORE;
	json_key(j, STR("MessageDisposition"));
	json_obj_begin(j);
	json_kv_bool(j, STR("relay"), w->is_relayed);
	json_kv_str(j, STR("log_arf"), str_of(in_report_words[w->log_arf]));
	json_kv_str(j, STR("log_oob"), str_of(in_report_words[w->log_oob]));
	in_trace_envelope(j, w->message);
	if (was_looked_at)
		json_kv_bool(j, STR("was_arf_or_oob"), w->is_report);
	else
		json_kv_null(j, STR("was_arf_or_oob"));
	json_kv_bool(j, STR("will_enqueue"), w->is_enqueued);
	json_obj_end(j);
}

static void in_trace_payload(struct json_out *j, const struct in_seen *w, bool is_terse)
{
	switch (w->kind) {
	case IN_SIGHT_CONNECTED:
	case IN_SIGHT_CLOSED:
		json_str(j, w->kind == IN_SIGHT_CONNECTED ? STR("Connected") : STR("Closed"));
		return;
	case IN_SIGHT_READ:
		json_obj_begin(j);
		in_trace_read(j, w, is_terse);
		break;
	case IN_SIGHT_WRITE:
		json_obj_begin(j);
		json_kv_str(j, STR("Write"), w->text);
		break;
	case IN_SIGHT_DIAGNOSTIC:
		json_obj_begin(j);
		in_trace_diagnostic(j, w->text);
		break;
	case IN_SIGHT_CALLBACK:
		json_obj_begin(j);
		in_trace_callback(j, w);
		break;
	case IN_SIGHT_DISPOSITION:
		json_obj_begin(j);
		in_trace_disposition(j, w);
		break;
	}
	json_obj_end(j);
}

static void in_trace_end(struct json_out *j, wall_t when)
{
	struct buf text = BUF_INIT;
	wall_fmt_rfc3339(when, 6, &text);
	json_kv_str(j, STR("when"), buf_str(&text));
	json_obj_end(j);
	buf_fini(&text);
}

void in_trace_write(const struct in_conn *conn, const struct in_seen *w, wall_t when, bool is_terse,
		    struct buf *out)
{
	struct json_out j = json_out_to(out);
	json_obj_begin(&j);
	json_key(&j, STR("conn_meta"));
	meta_write(&conn->meta, &j);
	json_key(&j, STR("payload"));
	in_trace_payload(&j, w, is_terse);
	in_trace_end(&j, when);
}

void in_trace_write_lag(uint64_t n_missed, wall_t when, struct buf *out)
{
	char text[80];
	struct json_out j = json_out_to(out);
	snprintf(text, sizeof(text), "Tracer Lagged behind and missed %llu events",
		 (unsigned long long)n_missed);
	json_obj_begin(&j);
	json_kv_null(&j, STR("conn_meta"));
	json_key(&j, STR("payload"));
	json_obj_begin(&j);
	in_trace_diagnostic(&j, str_of(text));
	json_obj_end(&j);
	in_trace_end(&j, when);
}
