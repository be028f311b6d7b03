/* in_session.c - one SMTP session, from the connection to its end, in a fiber of its own: the dialogue. After
 * its beginning (in_begin.c), commands, one after the other (in_line.c), until QUIT, a 421, or the end of the
 * connection. */
#include "smtp/in_impl.h"

#define IN_LINGER_TIMEOUT dur_s(2)
#define IN_STOP_TIMEOUT dur_s(1)

enum {
	IN_DRAIN_BYTES = 1 << 20, /* read and dropped at the end */
	IN_TURN_COMMANDS = 16,	  /* without a wait, before other fibers get a turn */
};

/* --- errors --- */

void in_session_note_error(struct in_session *s)
{
	if (++s->n_errors > IN_MAX_ERRORS && !s->is_ending)
		in_reply(s, 421, "4.7.0 %s too many errors", s->set.hostname);
}

enum in_go in_out_of_order(struct in_session *s, const char *text)
{
	in_reply(s, 503, "%s", text);
	if (!s->is_excused)
		in_session_note_error(s);
	return IN_GO;
}

void in_session_forget(struct in_session *s)
{
	in_transaction_reset(s);
	free(s->ehlo);
	s->ehlo = NULL;
	s->is_authenticated = false;
	meta_remove(&s->conn.meta, STR("ehlo_domain"));
	meta_remove(&s->conn.meta, STR("authz_id"));
	meta_remove(&s->conn.meta, STR("authn_id"));
	auth_info_init(&s->conn.who, &s->peer, &s->conn.arena);
	in_relay_forget(s);
}

/* --- commands --- */

static void in_add_extensions(const struct in_session *s, struct buf *b)
{
	buf_printf(b, "PIPELINING\nENHANCEDSTATUSCODES\n8BITMIME\nSMTPUTF8\nSIZE %zu\nCHUNKING\n",
		   s->set.max_message_size);
	buf_add_z(b, s->is_tls ? "AUTH PLAIN LOGIN" : "STARTTLS");
	if (s->set.allow_xclient)
		buf_add_z(b, "\nXCLIENT ADDR PORT DESTADDR DESTPORT");
}

static enum in_go in_on_hello(struct in_session *s, const struct in_command *c)
{
	struct buf text = BUF_INIT;
	bool is_esmtp = c->verb == IN_EHLO;
	if (is_esmtp)
		in_add_extensions(s, &text);
	if (in_event_ehlo(s, c->arg, is_esmtp ? &text : NULL) == IN_ACCEPTED) {
		struct buf reply = BUF_INIT;
		in_transaction_reset(s);
		free(s->ehlo);
		s->ehlo = str_dup(c->arg);
		meta_set_str(&s->conn.meta, STR("ehlo_domain"), c->arg);
		in_relay_forget(s);
		buf_printf(&reply, is_esmtp ? "%s Aloha %s" : "%s Hello %s", s->set.hostname, s->ehlo);
		if (text.n > 0)
			buf_printf(&reply, "\n%s", text.p);
		in_reply_text(s, 250, buf_str(&reply));
		buf_fini(&reply);
	}
	buf_fini(&text);
	return IN_GO;
}

/* A reason to begin no transaction now; then the client was told. */
static bool in_mail_is_refused(struct in_session *s, const struct in_command *c)
{
	const char *why = in_why_not();
	if (s->tx.is_open)
		(void)in_out_of_order(s, "5.5.0 MAIL FROM already issued; RSET first");
	else if (why != NULL && strcmp(why, IN_WHY_STOPPING) == 0)
		in_reply_bye(s, why);
	else if (why != NULL)
		in_reply(s, 452, "4.3.1 %s. Try later", why);
	else if (s->n_messages >= s->set.max_messages_per_connection)
		in_reply(s, 421, "4.5.3 %s too many messages on this connection", s->set.hostname);
	else if (c->has_size && c->size_bytes > s->set.max_message_size)
		in_reply(s, 552, "5.3.4 message too big");
	else if (c->is_requiretls && !s->is_tls)
		in_reply(s, 550, "5.7.30 REQUIRETLS needs TLS");
	else
		return false;
	return true;
}

static enum in_go in_on_mail(struct in_session *s, const struct in_command *c)
{
	s->is_excused = true;
	if (in_mail_is_refused(s, c) || in_event_mail_from(s, c->box.email) != IN_ACCEPTED)
		return IN_GO;
	s->is_excused = false;
	s->tx.is_open = true;
	s->tx.begun = mono_now();
	s->tx.sender = c->box.email.n > 0 ? str_dup(c->box.email) : xstrdup("");
	s->tx.is_requiretls = c->is_requiretls;
	s->tx.ret = c->ret;
	s->tx.envid = c->envid.p != NULL ? str_dup(c->envid) : NULL;
	in_reply(s, 250, "OK <%s>", s->tx.sender);
	return IN_GO;
}

static bool in_rcpt_is_refused(struct in_session *s)
{
	if (!s->tx.is_open)
		(void)in_out_of_order(s, "5.5.0 MAIL FROM must be issued first");
	else if (s->tx.is_chunking)
		(void)in_out_of_order(s, "5.5.0 the message has begun; no more recipients");
	else if (s->tx.n_rcpt >= s->set.max_recipients_per_message)
		in_reply(s, 452, "4.5.3 too many recipients");
	else if (s->n_messages >= s->set.max_messages_per_connection && s->tx.n_rcpt == 0)
		in_reply(s, 421, "4.5.3 %s too many messages on this connection", s->set.hostname);
	else if (s->n_messages >= s->set.max_messages_per_connection)
		in_reply(s, 452, "4.5.3 too many messages on this connection");
	else
		return false;
	return true;
}

static void in_add_recipient(struct in_session *s, const struct in_command *c)
{
	struct in_transaction *t = &s->tx;
	if (t->n_rcpt == t->cap_rcpt) {
		t->cap_rcpt = t->cap_rcpt == 0 ? 4 : t->cap_rcpt * 2;
		t->rcpt = xreallocarray(t->rcpt, t->cap_rcpt, sizeof(*t->rcpt));
	}
	t->rcpt[t->n_rcpt++] = (struct in_recipient){
		.email = str_dup(c->box.email),
		.notify = c->notify.p != NULL ? str_dup(c->notify) : NULL,
		.orcpt = c->orcpt.p != NULL ? str_dup(c->orcpt) : NULL,
	};
}

static enum in_go in_on_rcpt(struct in_session *s, const struct in_command *c)
{
	char peer[NET_ADDR_STRLEN];
	struct in_disposition d;
	if (in_rcpt_is_refused(s))
		return IN_GO;
	s->n_messages++; /* whatever the policy says: it was asked */
	s->is_excused = true;
	struct buf scratch = BUF_INIT;
	str_t to = in_relay_address(s, c->box.email, &scratch);
	enum in_verdict verdict = in_relay_decide(s, str_of(s->tx.sender), to, false, &d);
	buf_fini(&scratch);
	if (verdict != IN_ACCEPTED)
		return IN_GO;
	if (!d.is_relayed && d.log_arf == IN_REPORT_IGNORE && d.log_oob == IN_REPORT_IGNORE) {
		in_reply(s, 550, "5.7.1 relaying not permitted for %s", net_addr_fmt(&s->peer, peer));
		return IN_GO;
	}
	if (in_event_rcpt_to(s, c->box.email) != IN_ACCEPTED)
		return IN_GO;
	in_add_recipient(s, c);
	in_reply(s, 250, "OK <%s>", s->tx.rcpt[s->tx.n_rcpt - 1].email);
	return IN_GO;
}

static enum in_go in_on_starttls(struct in_session *s)
{
	if (s->is_tls) {
		in_reply(s, 501, "5.5.1 TLS is on already");
		in_session_note_error(s);
		return IN_GO;
	}
	struct tls_source *source = in_tls_get(s->l, &s->set, mono_after(s->set.client_timeout));
	if (source == NULL) {
		log_error(IN_LOG, "STARTTLS is refused: %s", err_text());
		err_clear();
		in_reply(s, 454, "4.7.0 TLS is not available now");
		return IN_GO;
	}
	in_reply(s, 220, "2.0.0 Ready to start TLS");
	enum in_go go = s->is_ending ? IN_END : in_flush(s);
	if (go == IN_GO) {
		s->is_waiting = true;
		go = in_tls_start(s, source, TLS_BUFFERED_DROP);
		s->is_waiting = false;
	}
	tls_source_unref(source);
	if (go == IN_GO)
		in_session_forget(s);
	else if (go == IN_AGAIN)
		in_session_note_error(s);
	return go == IN_END ? IN_END : IN_GO;
}

static enum in_go in_on_xclient(struct in_session *s, const struct in_command *c)
{
	struct in_xclient x;
	struct in_refusal why;
	if (!s->set.allow_xclient) {
		in_reply(s, 550, "5.7.1 XCLIENT is not permitted");
		return IN_GO;
	}
	if (s->tx.is_open)
		return in_out_of_order(s, "5.5.1 XCLIENT is not permitted inside a transaction");
	if (in_xclient_parse(c->arg, &x, &why) != 0) {
		in_reply(s, why.code, "%s", why.text);
		in_session_note_error(s);
		return IN_GO;
	}
	return in_session_begin_as(s, &x);
}

static enum in_go in_on_rset(struct in_session *s)
{
	in_transaction_reset(s);
	in_reply(s, 250, "2.0.0 Reset state");
	return IN_GO;
}

static enum in_go in_on_quit(struct in_session *s)
{
	in_reply(s, 221, "2.0.0 %s closing connection", s->set.hostname);
	s->is_ending = true;
	return IN_END;
}

static enum in_go in_on_unimplemented(struct in_session *s)
{
	in_reply(s, 502, "5.5.1 Command unimplemented");
	in_session_note_error(s);
	return IN_GO;
}

static enum in_go in_on_http(struct in_session *s)
{
	in_reply(s, 421, "4.7.0 %s speaks SMTP, not HTTP", s->set.hostname);
	return IN_END;
}

static enum in_go in_obey(struct in_session *s, const struct in_command *c)
{
	switch (c->verb) {
	case IN_HELO:
	case IN_EHLO:
		return in_on_hello(s, c);
	case IN_MAIL:
		return in_on_mail(s, c);
	case IN_RCPT:
		return in_on_rcpt(s, c);
	case IN_DATA:
		return in_on_data(s);
	case IN_BDAT:
		return in_on_bdat(s, c);
	case IN_RSET:
		return in_on_rset(s);
	case IN_NOOP:
		in_reply(s, 250, "2.0.0 OK");
		return IN_GO;
	case IN_QUIT:
		return in_on_quit(s);
	case IN_STARTTLS:
		return in_on_starttls(s);
	case IN_AUTH:
		return in_auth(s, c);
	case IN_XCLIENT:
		return in_on_xclient(s, c);
	case IN_UNIMPLEMENTED:
		return in_on_unimplemented(s);
	case IN_HTTP:
		return in_on_http(s);
	}
	return IN_END;
}

/* What records and the policy see of a command: no credentials. */
static void in_show(struct in_session *s, const struct in_command *c)
{
	buf_clear(&s->shown);
	buf_add_str(&s->shown, c->verb == IN_AUTH ? str_head(buf_str(&s->line), 4) : buf_str(&s->line));
	if (c->verb == IN_AUTH && c->arg.n > 0) {
		buf_add_c(&s->shown, ' ');
		buf_add_str(&s->shown, c->arg);
	}
}

static enum in_go in_session_step(struct in_session *s)
{
	struct in_command c;
	struct in_refusal why;
	if (s->n_turn++ >= IN_TURN_COMMANDS) {
		s->n_turn = 0;
		fiber_yield();
	}
	enum in_go go = in_read_line(s, IN_LINE_COMMAND);
	if (go != IN_GO)
		return go == IN_AGAIN ? IN_GO : IN_END;
	if (in_command_parse(buf_str(&s->line), &c, &why) == 0) {
		in_show(s, &c);
		go = in_obey(s, &c);
	} else {
		in_show(s, &c);
		in_reply(s, why.code, "%s", why.text);
		in_session_note_error(s);
		if (c.verb == IN_BDAT && !s->is_ending) /* nobody knows where the chunk ends */
			in_reply(s, 421, "4.7.0 %s cannot find the end of the chunk", s->set.hostname);
	}
	if (c.verb == IN_AUTH)
		secret_wipe(s->line.p, s->line.n);
	buf_clear(&s->shown);
	if (s->n_refusals > IN_MAX_REFUSALS && !s->is_ending)
		in_reply(s, 421, "4.7.0 %s too many errors", s->set.hostname);
	return go;
}

/* --- the whole --- */

/* The listener stops. */
static void in_session_on_stop(struct crowd_member *m)
{
	struct in_session *s = container_of(m, struct in_session, member);
	if (s->is_waiting)
		fiber_cancel(s->fiber);
}

static struct in_session *in_session_new(struct stream *st, struct in_listener *l)
{
	struct in_session *s = xnew(struct in_session);
	s->l = l;
	s->st = st;
	s->fiber = fiber_self();
	s->member.stop = in_session_on_stop;
	s->id = uuid_new_v4();
	s->peer = *stream_peer(st);
	s->local = *stream_local(st);
	in_conn_init(&s->conn, &s->peer);
	return s;
}

static void in_session_free(struct in_session *s)
{
	in_transaction_reset(s);
	in_relay_forget(s);
	in_conn_fini(&s->conn);
	meta_fini(&s->param_meta);
	param_object_unref(s->dynamic);
	free(s->ehlo);
	secret_wipe(s->line.p, s->line.n);
	buf_fini(&s->line);
	buf_fini(&s->shown);
	buf_fini(&s->out);
	stream_free(s->st);
	free(s);
}

/* The client gets our last words: input that nobody has read would turn the close into a reset, which may
 * take them away. */
static void in_session_close(struct in_session *s)
{
	fiber_shield_begin();
	dur_t patience = in_is_stopping(s) ? IN_STOP_TIMEOUT : IN_LINGER_TIMEOUT;
	if (in_flush(s) == IN_GO && stream_goodbye(s->st, mono_after(patience)) == 0 && s->is_ending)
		stream_drain(s->st, IN_DRAIN_BYTES, mono_after(patience));
	err_clear();
	fiber_shield_end();
}

void in_session_main(struct stream *st, void *arg)
{
	struct in_session *s = in_session_new(st, arg);
	crowd_enter(s->l->crowd, &s->member);
	metric_inc(in_metrics()->connections);
	metric_inc(in_metrics()->connections_total);
	if (in_session_begin(s) == IN_GO)
		while (!s->is_ending && in_session_step(s) == IN_GO)
			;
	in_session_close(s);
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_CLOSED});
	metric_dec(in_metrics()->connections);
	crowd_leave(&s->member);
	in_session_free(s);
}
