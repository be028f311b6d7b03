/* in_reply.c - what the client is told. A reply passes the policy's smtp_server_rewrite_response, is put
 * behind those that are held back for a client that pipelines (RFC 2920), and, when it refuses something,
 * becomes a Rejection record. Replies leave in one write when the session is about to wait.
 *
 * Texts may come from the policy or quote the client: whatever could end a line but LF becomes a question
 * mark. */
#include "smtp/in_impl.h"

#include "smtp/reply.h"

enum { IN_REPLY_LINE_BYTES = 2000, IN_REPLY_LINES = 4096 };

static void in_reply_add_line(struct in_session *s, int code, char mark, str_t text)
{
	size_t n_before = s->out.n;
	text = str_head(text, IN_REPLY_LINE_BYTES);
	buf_printf(&s->out, "%d%c", code, mark);
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];
		buf_add_c(&s->out, c < 0x20 || c == 0x7f ? '?' : text.p[i]);
	}
	buf_add_z(&s->out, "\r\n");
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_WRITE,
					    .text = str_skip(buf_str(&s->out), n_before)});
}

static str_t in_chop_cr(str_t line)
{
	return line.n > 0 && line.p[line.n - 1] == '\r' ? str_head(line, line.n - 1) : line;
}

static void in_reply_add(struct in_session *s, int code, str_t text)
{
	str_t line, next;
	if (text.n > 0 && text.p[text.n - 1] == '\n')
		text.n--;
	if (!str_split(&text, '\n', &line))
		line = STR("");
	for (unsigned n = 1; n < IN_REPLY_LINES && str_split(&text, '\n', &next); n++) {
		in_reply_add_line(s, code, '-', in_chop_cr(line));
		line = next;
	}
	in_reply_add_line(s, code, ' ', in_chop_cr(line));
}

/* Contracts B6: 4xx and 5xx, except that the service goes away, which is not about anything that the client
 * has said. */
static void in_reply_record(struct in_session *s, int code, str_t text)
{
	char peer[NET_ADDR_STRLEN];
	if (code == 421 && str_starts(text, STR("4.3.2 ")))
		return;
	metric_inc(in_metrics()->rejections);
	if (!record_is_wanted(RECORD_REJECTION))
		return;
	const char *rcpt = s->tx.n_rcpt > 0 ? s->tx.rcpt[s->tx.n_rcpt - 1].email : NULL;
	struct record r = {
		.type = RECORD_REJECTION,
		.sender = s->tx.sender != NULL ? str_of(s->tx.sender) : STR(""),
		.rcpt = rcpt != NULL ? &rcpt : NULL,
		.n_rcpt = rcpt != NULL,
		.queue = STR(""),
		.site = STR(""),
		.response = smtp_response_split(code, text, s->shown.n > 0 ? buf_str(&s->shown) : STR_NULL),
		.peer_name = s->ehlo != NULL ? str_of(s->ehlo) : STR(""),
		.peer_addr = str_of(net_addr_fmt_ip(&s->peer, peer)),
		.session_id = &s->id,
	};
	record_log(&r, mono_after(IN_EVENT_TIMEOUT));
}

void in_reply_text(struct in_session *s, int code, str_t text)
{
	struct buf b = BUF_INIT;
	buf_add_str(&b, text);
	in_event_rewrite_response(s, &code, &b);
	in_reply_add(s, code, buf_str(&b));
	if (code == 421)
		s->is_ending = true;
	if (code >= 400) {
		in_reply_record(s, code, buf_str(&b));
		s->n_refusals += code != 452; /* that there are too many recipients is no fault */
	}
	buf_fini(&b);
	if (s->out.n > IN_OUT_BYTES)
		(void)in_flush(s);
}

void in_reply(struct in_session *s, int code, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	in_reply_text(s, code, buf_str(&b));
	buf_fini(&b);
}

void in_reply_bye(struct in_session *s, const char *why)
{
	buf_clear(&s->shown); /* it is no answer to a command */
	in_reply(s, 421, "4.3.2 %s %s", s->set.hostname, why);
}

enum in_go in_flush(struct in_session *s)
{
	if (s->out.n == 0)
		return IN_GO;
	dur_t patience = in_is_stopping(s) ? dur_s(2) : IN_WRITE_TIMEOUT;
	int rc = stream_write(s->st, s->out.p, s->out.n, mono_after(patience));
	buf_clear(&s->out);
	s->n_turn = 0;
	if (rc == 0)
		return IN_GO;
	log_debug(IN_LOG, "%s", err_text());
	err_clear();
	s->is_ending = true; /* there is nobody to tell */
	return IN_END;
}
