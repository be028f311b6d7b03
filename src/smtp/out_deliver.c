/* out_deliver.c - one message over one connection (RFC 5321 section 3.3). Its recipients go in transactions
 * of at most max_recipients_per_batch; those that the peer calls too many come again in the next one. In a
 * transaction the commands RSET, MAIL, RCPT..., DATA go out in one group where the peer has PIPELINING (RFC
 * 2920), else one by one; their answers are read in order. A recipient's final answer is the first refusal
 * that concerns it, else the answer to the end of the data, else what became of the connection: an answer
 * that came counts, whatever happens after it. All is reported at once, at the end.
 *
 * A kept connection may turn out to be of no use before anything of the message was considered: then nothing
 * is reported, and the message is still the session's. */
#include "smtp/out_impl.h"

#include "mime/header.h"
#include "mail/message.h"

struct transaction {
	struct transaction *next; /* the one before, of the same message */
	struct out_conn *c;
	struct message *m;
	uint32_t n_rcpt; /* taking part */
	uint32_t *rcpt;	 /* indexes into m->rcpt */
	char *mail_command, **rcpt_command;
	struct smtp_reply mail_reply, *rcpt_reply; /* code 0: none came */
	struct smtp_reply end_reply;		   /* to the final dot; or to DATA, when that was the end */
	str_t end_command;			   /* which of them; p NULL: none came */
	uint32_t n_accepted;
	struct smtp_response *response; /* one per recipient, then mail's, end's and failure's */
	struct smtp_response failure;	/* of all that have no answer; code 0: none */
	struct buf failure_text;
	str_t in_flight; /* the command whose answer is awaited */
	dur_t in_flight_timeout;
	bool is_writing;
	bool is_closing; /* 421: the peer is about to close (RFC 5321 section 3.8) */
	bool is_stale;	 /* the connection had ended before this transaction began */
};

enum transaction_end { TRANSACTION_DONE, TRANSACTION_BROKEN, TRANSACTION_STALE, TRANSACTION_CANCELLED };

struct delivery {
	struct out_conn *c;
	struct message *m;
	struct transaction *last;	      /* and those before; they own what by_rcpt points at */
	const struct smtp_response **by_rcpt; /* for session_done */
	uint32_t n_left;		      /* without an answer */
};

/* --- the envelope --- */

static int transaction_write(struct transaction *t, dur_t timeout)
{
	struct buf *out = &t->c->out;
	if (out->n == 0)
		return 0;
	t->is_writing = true;
	int rc = stream_write(t->c->st, out->p, out->n, mono_min(mono_after(timeout), mono_after(dur_s(60))));
	if (rc == 0)
		t->is_writing = false;
	buf_clear(out);
	return rc;
}

/** Awaits the answer to `command`, which is sent first if it was not in the group. */
static int transaction_read(struct transaction *t, str_t command, struct smtp_reply *reply, dur_t timeout)
{
	struct smtp_reply r = {0};
	t->in_flight = command;
	t->in_flight_timeout = timeout;
	if (transaction_write(t, timeout) != 0 || smtp_reply_read(t->c->st, &r, mono_after(timeout)) != 0) {
		smtp_reply_fini(&r); /* half an answer is none */
		return -1;
	}
	smtp_reply_fini(reply);
	*reply = r;
	t->is_closing = t->is_closing || r.code == 421;
	return 0;
}

static void transaction_build(struct transaction *t)
{
	struct out_conn *c = t->c;
	struct message *m = t->m;
	struct buf b = BUF_INIT;
	buf_add_z(&b, "MAIL FROM:<");
	out_add_address(m->sender, &b);
	buf_add_c(&b, '>');
	if (c->has_size)
		buf_printf(&b, " SIZE=%u", m->size_bytes);
	if (m->is_8bit_body && c->has_8bitmime)
		buf_add_z(&b, " BODY=8BITMIME");
	if (c->has_smtputf8 && out_message_is_utf8(m))
		buf_add_z(&b, " SMTPUTF8");
	buf_add_z(&b, "\r\n");
	t->mail_command = buf_steal(&b, NULL);
	for (uint32_t i = 0; i < t->n_rcpt; i++) {
		struct buf to = BUF_INIT;
		buf_add_z(&to, "RCPT TO:<");
		out_add_address(m->rcpt[t->rcpt[i]], &to);
		buf_add_z(&to, ">\r\n");
		t->rcpt_command[i] = buf_steal(&to, NULL);
	}
}

/** Between transactions; a peer that does not take it is of no more use. */
static int transaction_reset(struct transaction *t)
{
	struct smtp_reply reply = {0};
	int rc = transaction_read(t, STR("RSET\r\n"), &reply, session_path(t->c->s)->rset_timeout);
	if (rc == 0 && reply.code / 100 != 2) {
		err_set(ERR_PROTO, "RSET was answered with %d", reply.code);
		rc = -1;
	}
	t->is_stale = rc != 0;
	smtp_reply_fini(&reply);
	return rc;
}

/** RSET, MAIL, RCPT and DATA with their answers. 1: the peer waits for the data; 0: it does not; -1 with the
 * error. */
static int transaction_envelope(struct transaction *t)
{
	struct out_conn *c = t->c;
	const struct egress_path *path = session_path(c->s);
	bool is_reused = c->n_transactions > 0;
	bool has_rset = is_reused && (c->needs_rset || path->enable_rset);
	bool is_grouped = c->has_pipelining;

	buf_clear(&c->out);
	if (has_rset)
		buf_add_z(&c->out, "RSET\r\n");
	if (is_grouped) {
		buf_add_z(&c->out, t->mail_command);
		for (uint32_t i = 0; i < t->n_rcpt; i++)
			buf_add_z(&c->out, t->rcpt_command[i]);
		buf_add_z(&c->out, "DATA\r\n");
	}
	if (has_rset && transaction_reset(t) != 0)
		return -1;
	c->needs_rset = true;
	if (!is_grouped)
		buf_add_z(&c->out, t->mail_command);
	if (transaction_read(t, str_of(t->mail_command), &t->mail_reply, path->mail_from_timeout) != 0) {
		t->is_stale = is_reused && !has_rset && err_is(ERR_CLOSED);
		return -1;
	}
	bool is_mail_ok = t->mail_reply.code == 250;
	for (uint32_t i = 0; i < t->n_rcpt && !t->is_closing && (is_grouped || is_mail_ok); i++) {
		if (!is_grouped)
			buf_add_z(&c->out, t->rcpt_command[i]);
		if (transaction_read(t, str_of(t->rcpt_command[i]), &t->rcpt_reply[i],
				     path->rcpt_to_timeout) != 0)
			return -1;
		if (is_mail_ok && t->rcpt_reply[i].code / 100 == 2)
			t->n_accepted++;
	}
	if (t->is_closing || (!is_grouped && t->n_accepted == 0))
		return 0;
	if (!is_grouped)
		buf_add_z(&c->out, "DATA\r\n");
	if (transaction_read(t, STR("DATA\r\n"), &t->end_reply, path->data_timeout) != 0)
		return -1;
	if (t->end_reply.code == 354)
		return 1;
	t->end_command = STR("DATA\r\n");
	if (t->end_reply.code / 100 == 2) /* a success that is none: nothing was taken */
		t->end_reply.code = 451;
	return 0;
}

/* --- the data --- */

/** Appends bytes with each line's leading dot doubled. is_line_start tells whether they begin a line. */
static void data_stuff(struct buf *out, str_t in, bool is_line_start)
{
	const char *p = in.p;
	for (size_t n = in.n; n > 0;) {
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

/** True when it can be sent as it is: no line begins with a dot, and every line ends in CRLF with no CR or LF
 * elsewhere, which some peers would take for a line end, and a dot between two for the end of the data (RFC
 * 5321 section 2.3.8). */
static bool data_is_plain(str_t in)
{
	const char *end = in.n > 0 ? in.p + in.n : in.p;
	for (const char *p = in.p; p != end;) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		const char *stop = lf != NULL ? lf : end;
		const char *cr = memchr(p, '\r', (size_t)(stop - p));
		if (*p == '.' || (lf != NULL ? cr == NULL || cr + 1 != lf : cr != NULL))
			return false;
		p = lf != NULL ? lf + 1 : end;
	}
	return true;
}

/** As it goes over the wire, without the final dot. */
static void data_prepare(const struct message *m, struct buf *out)
{
	str_t part[] = {str_mk(m->prefix, m->n_prefix_bytes), str_mk(m->body->p, m->body->n_bytes)};
	buf_reserve(out, part[0].n + part[1].n + part[1].n / 16 + 64);
	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		struct buf crlf = BUF_INIT;
		bool is_line_start = out->n == 0 || out->p[out->n - 1] == '\n';
		data_stuff(out, text_normalise_crlf(part[i], &crlf) ? buf_str(&crlf) : part[i],
			   is_line_start);
		buf_fini(&crlf);
	}
}

/** The answer that a peer gave before it stopped reading, if there is one. Keeps the error otherwise. */
static int transaction_read_early_answer(struct transaction *t)
{
	struct err e = err_take();
	struct smtp_reply r = {0};
	if (e.kind == ERR_CLOSED && smtp_reply_read(t->c->st, &r, mono_after(dur_s(1))) == 0 &&
	    r.code >= 400) {
		err_fini(&e);
		smtp_reply_fini(&t->end_reply);
		t->end_reply = r;
		t->end_command = STR(".\r\n");
		t->is_closing = true;
		return 0;
	}
	smtp_reply_fini(&r);
	err_put(e);
	return -1;
}

/** The message and its final dot, and the answer to it. */
static int transaction_send_data(struct transaction *t)
{
	const struct egress_path *path = session_path(t->c->s);
	const struct message *m = t->m;
	str_t prefix = str_mk(m->prefix, m->n_prefix_bytes), body = str_mk(m->body->p, m->body->n_bytes);
	struct buf prepared = BUF_INIT;
	struct iovec iov[3];
	int n_iov = 0, rc;

	t->in_flight = STR(".\r\n");
	t->in_flight_timeout = path->data_timeout;
	if (!data_is_plain(prefix) || !data_is_plain(body)) {
		data_prepare(m, &prepared);
		body = buf_str(&prepared);
	} else if (prefix.n > 0) {
		iov[n_iov++] = (struct iovec){m->prefix, prefix.n};
	}
	iov[n_iov++] = (struct iovec){(void *)(uintptr_t)body.p, body.n};
	str_t last = body.n > 0 ? body : prefix;
	const char *end = last.n == 0 || last.p[last.n - 1] == '\n' ? ".\r\n" : "\r\n.\r\n";
	iov[n_iov++] = (struct iovec){(void *)(uintptr_t)end, strlen(end)};
	t->is_writing = true;
	rc = stream_writev(t->c->st, iov, n_iov, mono_after(path->data_timeout));
	buf_fini(&prepared);
	if (rc != 0)
		return transaction_read_early_answer(t);
	t->is_writing = false;
	if (transaction_read(t, STR(".\r\n"), &t->end_reply, path->data_dot_timeout) != 0)
		return -1;
	t->end_command = STR(".\r\n");
	t->c->needs_rset = t->end_reply.code / 100 != 2;
	return 0;
}

/** DATA was granted though there is nobody to send to: an empty message, whose answer means nothing. */
static int transaction_send_nothing(struct transaction *t)
{
	struct smtp_reply ignored = {0};
	buf_add_z(&t->c->out, ".\r\n");
	int rc = transaction_read(t, STR(".\r\n"), &ignored, session_path(t->c->s)->data_dot_timeout);
	smtp_reply_fini(&ignored);
	return rc;
}

/* --- what came of it --- */

/** The answer that a transport failure amounts to. Consumes the error. */
static void transaction_note_failure(struct transaction *t)
{
	struct buf *text = &t->failure_text;
	str_t command = str_trim(t->in_flight);
	bool is_body = t->is_writing && str_eq(command, STR("."));
	t->failure = (struct smtp_response){.code = 400, .command = t->in_flight};
	if (err_is(ERR_TIMEOUT)) {
		if (!is_body)
			t->failure = (struct smtp_response){
				.code = 421, .enhanced = {4, 4, 2}, .command = t->in_flight};
		buf_printf(text, "KumoMTA internal: failed to send message to %s %s: Timed Out waiting ",
			   session_ready_queue_name(t->c->s), t->c->addr_text);
		dur_fmt(t->in_flight_timeout, text);
		buf_printf(text, " %s " STR_FMT, t->is_writing ? "to write" : "for response to",
			   STR_ARG(command));
	} else {
		buf_printf(text, "KumoMTA internal: failed to send message: Error %s %s cmd=" STR_FMT,
			   err_text(), t->is_writing ? "writing" : "reading response to", STR_ARG(command));
	}
	err_clear();
	t->failure.content = buf_str(text);
}

static enum transaction_end transaction_run(struct transaction *t)
{
	transaction_build(t);
	int rc = transaction_envelope(t);
	if (rc == 1)
		rc = t->n_accepted > 0 ? transaction_send_data(t) : transaction_send_nothing(t);
	if (rc == 0) {
		t->c->n_transactions++;
		return t->is_closing ? TRANSACTION_BROKEN : TRANSACTION_DONE;
	}
	if (err_is(ERR_CANCELLED)) {
		err_clear();
		return TRANSACTION_CANCELLED;
	}
	if (t->is_stale) {
		err_clear();
		return TRANSACTION_STALE;
	}
	transaction_note_failure(t);
	return TRANSACTION_BROKEN;
}

/** RFC 5321 section 4.5.3.1.10; 4.5.3 says it whatever the code, with which it may disagree. */
static bool response_is_too_many_recipients(const struct smtp_response *r)
{
	if (r->enhanced[0] != 0)
		return r->enhanced[1] == 5 && r->enhanced[2] == 3;
	return r->code == 452 || r->code == 552 || str_starts(r->content, STR("4.5.3"));
}

/** An answer that is there already, if it says the same: they share a record. */
static const struct smtp_response *delivery_same_answer(const struct delivery *d,
							const struct smtp_response *r)
{
	for (uint32_t i = 0; i < d->m->n_rcpt; i++) {
		const struct smtp_response *o = d->by_rcpt[i];
		if (o != NULL && o->code == r->code &&
		    memcmp(o->enhanced, r->enhanced, sizeof(r->enhanced)) == 0 &&
		    str_eq(o->content, r->content) &&
		    str_istarts(o->command, STR("RCPT")) == str_istarts(r->command, STR("RCPT")))
			return o;
	}
	return r;
}

static void delivery_answer(struct delivery *d, uint32_t rcpt, const struct smtp_response *r)
{
	d->by_rcpt[rcpt] = delivery_same_answer(d, r);
	d->n_left--;
}

/** Fills by_rcpt from the answers of a transaction. What has none stays without: it was cancelled, or comes
 * again. */
static void delivery_assign(struct delivery *d, struct transaction *t)
{
	struct smtp_response *mail = &t->response[t->n_rcpt], *end = mail + 1, *failure = mail + 2;
	if (t->mail_reply.code != 0 &&
	    t->mail_reply.code != 250) { /* of the sender: true for the rest of the recipients, too */
		*mail = smtp_reply_response(&t->mail_reply, str_of(t->mail_command));
		if (mail->code / 100 == 2) /* a success that is none */
			mail->code = 451;
		for (uint32_t i = 0; i < d->m->n_rcpt; i++)
			if (d->by_rcpt[i] == NULL)
				delivery_answer(d, i, mail);
		return;
	}
	*end = smtp_reply_response(&t->end_reply, t->end_command);
	*failure = t->failure;
	for (uint32_t i = 0; i < t->n_rcpt && failure->code == 0; i++)
		if (t->rcpt_reply[i].code == 421) /* who was not answered any more was answered by that */
			*failure = smtp_reply_response(&t->rcpt_reply[i], str_of(t->rcpt_command[i]));
	for (uint32_t i = 0; i < t->n_rcpt; i++) {
		struct smtp_response *own = &t->response[i];
		if (t->rcpt_reply[i].code != 0 && t->rcpt_reply[i].code / 100 != 2) {
			*own = smtp_reply_response(&t->rcpt_reply[i], str_of(t->rcpt_command[i]));
			if (i == 0 || t->n_accepted == 0 || !response_is_too_many_recipients(own))
				delivery_answer(d, t->rcpt[i], own);
		} else if (t->end_command.p != NULL) {
			delivery_answer(d, t->rcpt[i], end);
		} else if (failure->code != 0) {
			delivery_answer(d, t->rcpt[i], failure);
		}
	}
}

/** With the next recipients that have no answer. */
static struct transaction *delivery_add_transaction(struct delivery *d)
{
	int64_t max = session_path(d->c->s)->max_recipients_per_batch;
	uint32_t n = d->n_left < max ? d->n_left : (uint32_t)max;
	struct transaction *t = xnew(struct transaction);
	t->c = d->c;
	t->m = d->m;
	t->rcpt = xcalloc(n + 1, sizeof(*t->rcpt));
	t->rcpt_reply = xcalloc(n + 1, sizeof(*t->rcpt_reply));
	t->rcpt_command = xcalloc(n + 1, sizeof(*t->rcpt_command));
	t->response = xcalloc(n + 3, sizeof(*t->response));
	for (uint32_t i = 0; i < d->m->n_rcpt && t->n_rcpt < n; i++)
		if (d->by_rcpt[i] == NULL)
			t->rcpt[t->n_rcpt++] = i;
	t->next = d->last;
	d->last = t;
	return t;
}

static void transaction_free(struct transaction *t)
{
	for (uint32_t i = 0; i < t->n_rcpt; i++) {
		smtp_reply_fini(&t->rcpt_reply[i]);
		free(t->rcpt_command[i]);
	}
	smtp_reply_fini(&t->mail_reply);
	smtp_reply_fini(&t->end_reply);
	buf_fini(&t->failure_text);
	free(t->mail_command);
	free(t->rcpt);
	free(t->rcpt_reply);
	free(t->rcpt_command);
	free(t->response);
	free(t);
}

static bool response_is_transient(const struct smtp_response *r)
{
	return r->code / 100 == 3 || r->code / 100 == 4;
}

/** A transport failure, for all recipients (no connection,
 * no time, or 421): what another host is tried after. */
static const struct smtp_response *delivery_transport_failure(const struct delivery *d)
{
	for (uint32_t i = 1; i < d->m->n_rcpt; i++)
		if (d->by_rcpt[i] == NULL || !response_is_transient(d->by_rcpt[i]))
			return NULL;
	const struct smtp_response *r = d->by_rcpt[0];
	return r != NULL && response_is_transient(r) ? r : NULL;
}

/** The recipients, transaction by transaction, as far as the connection carries. What one has brought to an
 * end is settled before the next begins: a crash during that must not deliver it again. */
static enum transaction_end delivery_run(struct delivery *d, const struct session_peer *peer)
{
	enum transaction_end end;
	do {
		struct transaction *t = delivery_add_transaction(d);
		end = transaction_run(t);
		delivery_assign(d, t);
		if (end == TRANSACTION_DONE && d->n_left > 0)
			session_settle(d->c->s, d->m, d->by_rcpt, peer);
	} while (end == TRANSACTION_DONE && d->n_left > 0);
	return end;
}

enum out_result out_deliver(struct out_conn *c, struct message *m, bool is_retry_wanted)
{
	struct session_peer peer = out_conn_peer(c);
	struct smtp_response impossible;
	if (!out_message_is_possible(c, m, &impossible)) {
		session_done_all(c->s, m, &impossible, &peer);
		return OUT_DONE;
	}
	struct delivery d = {
		.c = c, .m = m, .n_left = m->n_rcpt, .by_rcpt = xcalloc(m->n_rcpt + 1, sizeof(*d.by_rcpt))};
	enum transaction_end end = delivery_run(&d, &peer);
	bool is_untouched = d.n_left == m->n_rcpt;
	const struct smtp_response *retry =
		end == TRANSACTION_BROKEN && is_retry_wanted ? delivery_transport_failure(&d) : NULL;
	enum out_result result = end == TRANSACTION_DONE	? OUT_DONE
				 : end == TRANSACTION_CANCELLED ? OUT_CANCELLED
								: OUT_BROKEN;

	if (retry != NULL) {
		session_note_failure(c->s, m, retry, &peer);
		result = OUT_TRANSPORT;
	} else if (end == TRANSACTION_STALE && is_untouched) {
		result = OUT_STALE;
	} else if (end == TRANSACTION_CANCELLED && is_untouched) {
		session_return(c->s, m);
	} else {
		session_done(c->s, m, d.by_rcpt, &peer);
	}
	while (d.last != NULL) {
		struct transaction *t = d.last;
		d.last = t->next;
		transaction_free(t);
	}
	free(d.by_rcpt);
	return result;
}
