/* out_deliver.c - one mail transaction (RFC 5321 section 3.3). The commands RSET, MAIL, RCPT..., DATA go out in one group where the peer
 * has PIPELINING (RFC 2920), else one by one; their answers are read in order. A recipient's final answer is the first refusal that
 * concerns it, or the answer to the end of the data. Only the first max_recipients_per_batch recipients take part; the others
 * come back with the message at once. Lines that begin with a dot get another (section 4.5.2). */
#include "smtp/out_impl.h"

#include "mail/message.h"

struct transaction {
	struct out_conn *c;
	struct message *m;
	uint32_t n_rcpt;                        /* taking part */
	struct smtp_reply *rcpt_reply;          /* one each */
	char **rcpt_command;
	char *mail_command;
	struct smtp_reply mail_reply, data_reply;
	struct smtp_response *response;         /* one per recipient, plus one shared */
	const struct smtp_response **by_rcpt;   /* for session_done: n of m */
	uint32_t n_accepted;
	str_t in_flight;                        /* the command whose answer is awaited */
	dur_t in_flight_timeout;
	bool is_writing;
};

static bool text_is_8bit(const char *z)
{
	for (; *z != 0; z++)
		if ((unsigned char)*z >= 128)
			return true;
	return false;
}

static bool transaction_needs_utf8(const struct transaction *t)
{
	if (text_is_8bit(t->m->sender))
		return true;
	for (uint32_t i = 0; i < t->n_rcpt; i++)
		if (text_is_8bit(t->m->rcpt[i]))
			return true;
	return false;
}

/** What the peer cannot take is refused here, permanently (contracts B10). False, and *r, when it is so. */
static bool transaction_is_possible(const struct transaction *t, struct smtp_response *r)
{
	const struct out_conn *c = t->c;
	if (t->m->is_8bit_body && !c->has_8bitmime && !session_path(c->s)->ignore_8bit_checks) {
		*r = (struct smtp_response){.code = 554, .enhanced = {5, 6, 3},
		                            .content = STR("KumoMTA internal: DATA is 8bit, destination does not support 8BITMIME. "
		                                           "Conversion via msg:check_fix_conformance during reception is required")};
		return false;
	}
	if (transaction_needs_utf8(t) && !c->has_smtputf8) {
		*r = (struct smtp_response){.code = 554, .enhanced = {5, 6, 7},
		                            .content = STR("KumoMTA internal: envelope is 8bit, destination does not support SMTPUTF8.")};
		return false;
	}
	if (c->has_size && c->max_size_bytes > 0 && t->m->size_bytes > c->max_size_bytes) { /* RFC 1870 section 6.1 */
		*r = (struct smtp_response){.code = 552, .enhanced = {5, 3, 4},
		                            .content = STR("KumoMTA internal: the message is larger than the SIZE that the "
		                                           "destination accepts")};
		return false;
	}
	return true;
}

static int transaction_write(struct transaction *t, dur_t timeout)
{
	struct buf *out = &t->c->out;
	if (out->n == 0)
		return 0;
	t->is_writing = true;
	int rc = stream_write(t->c->st, out->p, out->n, mono_min(mono_after(timeout), mono_after(dur_s(60))));
	t->is_writing = false;
	buf_clear(out);
	return rc;
}

/** Awaits the answer to `command`; without pipelining it is sent first. */
static int transaction_read(struct transaction *t, str_t command, struct smtp_reply *reply, dur_t timeout)
{
	t->in_flight = command;
	t->in_flight_timeout = timeout;
	if (transaction_write(t, timeout) != 0)
		return -1;
	return smtp_reply_read(t->c->st, reply, mono_after(timeout));
}

static void transaction_build(struct transaction *t)
{
	struct out_conn *c = t->c;
	struct message *m = t->m;
	struct buf b = BUF_INIT;
	buf_printf(&b, "MAIL FROM:<%s>", m->sender);
	if (c->has_size)
		buf_printf(&b, " SIZE=%u", m->size_bytes);
	if (m->is_8bit_body && c->has_8bitmime)
		buf_add_z(&b, " BODY=8BITMIME");
	if (transaction_needs_utf8(t))
		buf_add_z(&b, " SMTPUTF8");
	buf_add_z(&b, "\r\n");
	t->mail_command = buf_steal(&b, NULL);
	for (uint32_t i = 0; i < t->n_rcpt; i++)
		t->rcpt_command[i] = xasprintf("RCPT TO:<%s>\r\n", m->rcpt[i]);
}

/** RSET, MAIL, RCPT and DATA with their answers. 1: the peer waits for the data; 0: it does not, the answers are in; -1. */
static int transaction_envelope(struct transaction *t)
{
	struct out_conn *c = t->c;
	const struct egress_path *path = session_path(c->s);
	bool has_rset = c->needs_rset || (c->n_transactions > 0 && path->enable_rset);
	bool is_grouped = c->has_pipelining;
	struct smtp_reply rset = {0};
	int rc = -1;

	buf_clear(&c->out);
	if (is_grouped) {
		if (has_rset)
			buf_add_z(&c->out, "RSET\r\n");
		buf_add_z(&c->out, t->mail_command);
		for (uint32_t i = 0; i < t->n_rcpt; i++)
			buf_add_z(&c->out, t->rcpt_command[i]);
		buf_add_z(&c->out, "DATA\r\n");
	}
	if (has_rset) {
		if (!is_grouped)
			buf_add_z(&c->out, "RSET\r\n");
		if (transaction_read(t, STR("RSET\r\n"), &rset, path->rset_timeout) != 0)
			goto out;
	}
	if (!is_grouped)
		buf_add_z(&c->out, t->mail_command);
	if (transaction_read(t, str_of(t->mail_command), &t->mail_reply, path->mail_from_timeout) != 0)
		goto out;
	bool is_mail_ok = t->mail_reply.code == 250;
	for (uint32_t i = 0; i < t->n_rcpt && (is_grouped || is_mail_ok); i++) {
		if (!is_grouped)
			buf_add_z(&c->out, t->rcpt_command[i]);
		if (transaction_read(t, str_of(t->rcpt_command[i]), &t->rcpt_reply[i], path->rcpt_to_timeout) != 0)
			goto out;
		if (is_mail_ok && t->rcpt_reply[i].code / 100 == 2)
			t->n_accepted++;
	}
	if (is_grouped || t->n_accepted > 0) {
		if (!is_grouped)
			buf_add_z(&c->out, "DATA\r\n");
		if (transaction_read(t, STR("DATA\r\n"), &t->data_reply, path->data_timeout) != 0)
			goto out;
	}
	rc = t->data_reply.code == 354;
out:
	smtp_reply_fini(&rset);
	return rc;
}

/** Appends bytes with each line's leading dot doubled. is_line_start tells whether they begin a line. */
static void data_stuff(struct buf *out, const char *p, size_t n, bool is_line_start)
{
	while (n > 0) {
		if (is_line_start && *p == '.')
			buf_add_c(out, '.');
		const char *lf = memchr(p, '\n', n);
		size_t len = lf != NULL ? (size_t)(lf - p) + 1 : n;
		buf_add(out, p, len);
		p += len;
		n -= len;
		is_line_start = true;
	}
}

static bool data_needs_stuffing(const char *p, size_t n)
{
	return n > 0 && (p[0] == '.' || memmem(p, n, "\n.", 2) != NULL);
}

/** The message and its final dot, and the answer to it. */
static int transaction_send_data(struct transaction *t)
{
	const struct egress_path *path = session_path(t->c->s);
	const struct message *m = t->m;
	const struct body *b = m->body;
	struct buf stuffed = BUF_INIT;
	bool ends_line = b->n_bytes >= 2 && memcmp(b->p + b->n_bytes - 2, "\r\n", 2) == 0;
	if (b->n_bytes == 0)
		ends_line = true;
	const char *end = ends_line ? ".\r\n" : "\r\n.\r\n";
	struct iovec iov[3];
	int n_iov = 0, rc = -1;

	t->in_flight = STR(".\r\n");
	t->in_flight_timeout = path->data_dot_timeout;
	if (data_needs_stuffing(b->p, b->n_bytes) || data_needs_stuffing(m->prefix, m->n_prefix_bytes)) {
		buf_reserve(&stuffed, m->n_prefix_bytes + b->n_bytes + b->n_bytes / 16 + 64);
		data_stuff(&stuffed, m->prefix, m->n_prefix_bytes, true);
		data_stuff(&stuffed, b->p, b->n_bytes, true);
		iov[n_iov++] = (struct iovec){stuffed.p, stuffed.n};
	} else {
		if (m->n_prefix_bytes > 0)
			iov[n_iov++] = (struct iovec){m->prefix, m->n_prefix_bytes};
		iov[n_iov++] = (struct iovec){(void *)(uintptr_t)b->p, b->n_bytes};
	}
	iov[n_iov++] = (struct iovec){(void *)(uintptr_t)end, strlen(end)};
	t->is_writing = true;
	if (stream_writev(t->c->st, iov, n_iov, mono_after(path->data_timeout)) == 0) {
		t->is_writing = false;
		rc = smtp_reply_read(t->c->st, &t->data_reply, mono_after(path->data_dot_timeout));
	}
	buf_fini(&stuffed);
	return rc;
}

static bool reply_is_too_many_recipients(const struct smtp_response *r)
{
	bool is_453 = r->enhanced[1] == 5 && r->enhanced[2] == 3 && r->enhanced[0] != 0;
	return is_453 || ((r->code == 452 || r->code == 552) && r->enhanced[0] == 0);
}

/** Fills by_rcpt from the answers. end_reply_command: ".\r\n" or "DATA\r\n", what data_reply answers. */
static void transaction_assign(struct transaction *t, str_t end_reply_command)
{
	struct smtp_response *shared = &t->response[t->n_rcpt];
	if (t->mail_reply.code != 250) {
		*shared = smtp_reply_response(&t->mail_reply, str_of(t->mail_command));
		if (shared->code / 100 == 2) /* a success that is none */
			shared->code = 451;
		for (uint32_t i = 0; i < t->n_rcpt; i++)
			t->by_rcpt[i] = shared;
		return;
	}
	*shared = smtp_reply_response(&t->data_reply, end_reply_command);
	if (shared->code / 100 == 2 && str_eq(end_reply_command, STR("DATA\r\n")))
		shared->code = 451; /* 2xx to DATA: nothing was taken */
	for (uint32_t i = 0; i < t->n_rcpt; i++) {
		if (t->rcpt_reply[i].code / 100 == 2) {
			t->by_rcpt[i] = shared;
			continue;
		}
		t->response[i] = smtp_reply_response(&t->rcpt_reply[i], str_of(t->rcpt_command[i]));
		t->by_rcpt[i] = &t->response[i];
		if (i > 0 && t->n_accepted > 0 && reply_is_too_many_recipients(&t->response[i])) {
			t->by_rcpt[i] = NULL; /* comes again at once, in a batch of its own */
			continue;
		}
		for (uint32_t k = 0; k < i; k++) { /* equal answers share a record */
			const struct smtp_response *o = t->by_rcpt[k];
			if (o != NULL && o != shared && o->code == t->response[i].code && str_eq(o->content, t->response[i].content)) {
				t->by_rcpt[i] = o;
				break;
			}
		}
	}
}

/** The answer that a transport failure amounts to (contracts B10, "Dropped connection / timeout mapping"). Consumes the error. */
static struct smtp_response transaction_transport_response(struct transaction *t, struct buf *text)
{
	struct smtp_response r = {.code = 400, .command = t->in_flight};
	str_t command = str_trim(t->in_flight);
	buf_clear(text);
	if (err_is(ERR_TIMEOUT)) {
		r = (struct smtp_response){.code = 421, .enhanced = {4, 4, 2}, .command = t->in_flight};
		buf_printf(text, "KumoMTA internal: failed to send message to %s %s: Timed Out waiting ",
		           session_ready_queue_name(t->c->s), t->c->addr_text);
		dur_fmt(t->in_flight_timeout, text);
		buf_printf(text, " %s " STR_FMT, t->is_writing ? "to write" : "for response to", STR_ARG(command));
	} else {
		buf_printf(text, "KumoMTA internal: failed to send message: Error %s %s cmd=" STR_FMT, err_text(),
		           t->is_writing ? "writing" : "reading response to", STR_ARG(command));
	}
	err_clear();
	r.content = buf_str(text);
	return r;
}

static enum out_result transaction_fail_transport(struct transaction *t, bool is_retry_wanted)
{
	struct session *s = t->c->s;
	struct session_peer peer = out_conn_peer(t->c);
	struct buf text = BUF_INIT;
	if (err_is(ERR_CANCELLED)) {
		err_clear();
		session_return(s, t->m);
		return OUT_CANCELLED;
	}
	struct smtp_response r = transaction_transport_response(t, &text);
	enum out_result result = is_retry_wanted ? OUT_TRANSPORT : OUT_BROKEN;
	if (is_retry_wanted)
		session_note_failure(s, t->m, &r, &peer);
	else
		session_done_all(s, t->m, &r, &peer);
	buf_fini(&text);
	return result;
}

static void transaction_init(struct transaction *t, struct out_conn *c, struct message *m)
{
	int64_t max = session_path(c->s)->max_recipients_per_batch;
	*t = (struct transaction){.c = c, .m = m};
	t->n_rcpt = m->n_rcpt < max ? m->n_rcpt : (uint32_t)max;
	t->rcpt_reply = xcalloc(t->n_rcpt + 1, sizeof(*t->rcpt_reply));
	t->rcpt_command = xcalloc(t->n_rcpt + 1, sizeof(*t->rcpt_command));
	t->response = xcalloc(t->n_rcpt + 1, sizeof(*t->response));
	t->by_rcpt = xcalloc(m->n_rcpt + 1, sizeof(*t->by_rcpt));
}

static void transaction_fini(struct transaction *t)
{
	for (uint32_t i = 0; i < t->n_rcpt; i++) {
		smtp_reply_fini(&t->rcpt_reply[i]);
		free(t->rcpt_command[i]);
	}
	smtp_reply_fini(&t->mail_reply);
	smtp_reply_fini(&t->data_reply);
	free(t->mail_command);
	free(t->rcpt_reply);
	free(t->rcpt_command);
	free(t->response);
	free(t->by_rcpt);
}

enum out_result out_deliver(struct out_conn *c, struct message *m, bool is_retry_wanted)
{
	struct transaction t;
	struct smtp_response impossible;
	enum out_result result = OUT_DONE;
	transaction_init(&t, c, m);
	struct session_peer peer = out_conn_peer(c);

	if (!transaction_is_possible(&t, &impossible)) {
		session_done_all(c->s, m, &impossible, &peer);
		goto out;
	}
	transaction_build(&t);
	int rc = transaction_envelope(&t);
	if (rc < 0) {
		result = transaction_fail_transport(&t, is_retry_wanted);
		goto out;
	}
	c->needs_rset = true;
	str_t answered = STR("DATA\r\n");
	if (rc == 1 && t.n_accepted == 0) { /* DATA was granted for nobody: an empty message, whose answer means nothing */
		struct smtp_reply ignored = {0};
		buf_add_z(&c->out, ".\r\n");
		if (transaction_read(&t, STR(".\r\n"), &ignored, session_path(c->s)->data_dot_timeout) != 0) {
			err_clear();
			result = OUT_BROKEN;
		}
		smtp_reply_fini(&ignored);
	} else if (rc == 1) {
		answered = STR(".\r\n");
		if (transaction_send_data(&t) != 0) {
			result = transaction_fail_transport(&t, is_retry_wanted);
			goto out;
		}
		c->needs_rset = t.data_reply.code / 100 != 2;
	}
	c->n_transactions++;
	transaction_assign(&t, answered);
	if (t.mail_reply.code == 421 || t.data_reply.code == 421) /* the peer is about to close (RFC 5321 section 3.8) */
		result = OUT_BROKEN;
	for (uint32_t i = 0; i < t.n_rcpt; i++)
		if (t.rcpt_reply[i].code == 421)
			result = OUT_BROKEN;
	session_done(c->s, m, t.by_rcpt, &peer);
out:
	transaction_fini(&t);
	return result;
}
