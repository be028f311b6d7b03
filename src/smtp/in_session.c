/* in_session.c - one SMTP session, from the connection to its end, in a fiber of its own: the dialogue.
 *
 * Beginning (contracts C): is there room, and does the service take mail at all; a PROXY header, if the
 * parameters for this peer want one; the parameters for the addresses that hold from then on, and what the
 * policy makes of them; TLS, where it is implicit; the policy's word on the connection; the banner. Then
 * commands, one after the other, until QUIT, a 421, or the end of the connection.
 *
 * A command is a line that ends in CRLF. One that ends in a bare LF is answered, so that nobody hangs, and
 * not obeyed, unless invalid_line_endings says otherwise: what follows a message that somebody else has
 * delimited in another way would be such lines.
 *
 * Time: a client has client_timeout to complete a command, from when we begin to wait for it, not for each
 * byte. Stopping: a session that waits for its client is cancelled (in_listener.c); it says 421 and ends.
 * What it has buffered is obeyed. */
#include "smtp/in_impl.h"

#include "net/proxy.h"

#include <stdio.h>

#define IN_LINGER_TIMEOUT dur_s(2)
#define IN_STOP_TIMEOUT dur_s(1)

enum {
	IN_FILL_BYTES = 16384,	 /* of commands looked at in one piece */
	IN_SKIP_BYTES = 1 << 20, /* of a line that is too long; then the session ends */
	IN_TURN_COMMANDS = 16,	 /* without a wait, before other fibers get a turn */
};

/* --- reading --- */

/* Says why the session ends. The fiber may have been cancelled, and must get through to the client all the
 * same. */
static enum in_go in_bye(struct in_session *s, const char *why)
{
	fiber_shield_begin();
	in_reply_bye(s, why);
	(void)in_flush(s);
	fiber_shield_end();
	return IN_END;
}

enum in_go in_fill(struct in_session *s, size_t max_bytes, mono_t deadline)
{
	if (in_flush(s) != IN_GO)
		return IN_END;
	if (in_is_stopping(s) || fiber_is_cancelled())
		return in_bye(s, IN_WHY_STOPPING);
	s->is_waiting = true;
	int rc = stream_fill(s->st, max_bytes, deadline);
	s->is_waiting = false;
	if (rc > 0)
		return IN_GO;
	if (rc == 0)
		return IN_END;
	bool is_idle = err_is(ERR_TIMEOUT), is_cancelled = err_is(ERR_CANCELLED);
	if (!is_idle && !is_cancelled)
		log_debug(IN_LOG, "%s", err_text());
	err_clear();
	if (is_idle)
		return in_bye(s, "idle too long");
	return is_cancelled ? in_bye(s, IN_WHY_STOPPING) : IN_END;
}

/* Drops what there is of a line that has become too long. */
static enum in_go in_skip(struct in_session *s, size_t *n_skipped)
{
	size_t n = stream_buffered(s->st).n;
	stream_consume(s->st, n);
	*n_skipped += n;
	if (*n_skipped <= IN_SKIP_BYTES)
		return IN_GO;
	in_reply(s, 421, "4.7.0 %s line too long", s->set.hostname);
	return IN_END;
}

/* A line with its end, but for credentials: of AUTH the mechanism is shown, if it is one, and nothing of what
 * may be behind it, whether it is well formed or not. */
static void in_see_line(struct in_session *s, str_t line, enum in_line kind)
{
	str_t shown = str_trim(line), verb = {"AUTH", 4}, initial = str_skip(shown, 4);
	bool is_auth =
		str_istarts(shown, verb) && (initial.n == 0 || initial.p[0] == ' ' || initial.p[0] == '\t');
	initial = str_trim(initial);
	if (kind == IN_LINE_SASL)
		line = STR("***\r\n");
	else if (is_auth && str_istarts(initial, STR("PLAIN ")))
		line = STR("AUTH PLAIN ***\r\n");
	else if (is_auth && str_istarts(initial, STR("LOGIN ")))
		line = STR("AUTH LOGIN ***\r\n");
	else if (is_auth && initial.n > 0 && !str_ieq(initial, STR("PLAIN")) &&
		 !str_ieq(initial, STR("LOGIN")))
		line = STR("AUTH ***\r\n");
	in_see(s, &(struct in_seen){.kind = IN_SIGHT_READ, .text = line});
}

/* The line whose LF is at lf, which is consumed. */
static enum in_go in_take_line(struct in_session *s, size_t lf, enum in_line kind, bool is_skipping)
{
	str_t line = str_head(stream_buffered(s->st), lf);
	bool is_whole = line.n > 0 && line.p[line.n - 1] == '\r';
	if (is_whole)
		line.n--;
	buf_clear(&s->line);
	bool is_long_ok = kind == IN_LINE_SASL || str_istarts(line, STR("AUTH "));
	bool is_too_long = is_skipping || line.n > (is_long_ok ? IN_SASL_BYTES : IN_COMMAND_BYTES);
	if (!is_too_long && in_is_seen())
		in_see_line(s, str_head(stream_buffered(s->st), lf + 1), kind);
	if (!is_too_long)
		buf_add_str(&s->line, line);
	stream_consume(s->st, lf + 1);
	if (!is_too_long && (is_whole || s->set.invalid_line_endings != IN_ENDINGS_DENY))
		return IN_GO;
	buf_clear(&s->shown);
	if (is_too_long)
		in_reply(s, 500, "5.2.3 line too long");
	else
		in_reply(s, 500, "5.5.2 a command must end in CRLF");
	in_session_note_error(s);
	return IN_AGAIN;
}

enum in_go in_read_line(struct in_session *s, enum in_line kind)
{
	size_t n_scanned = 0, n_skipped = 0;
	mono_t deadline = MONO_NEVER;
	for (;;) {
		str_t in = stream_buffered(s->st);
		ptrdiff_t lf = str_chr(in, '\n', n_scanned);
		if (lf >= 0)
			return in_take_line(s, (size_t)lf, kind, n_skipped > 0);
		n_scanned = in.n;
		if (in.n > IN_SASL_BYTES + 1) {
			if (in_skip(s, &n_skipped) != IN_GO)
				return IN_END;
			n_scanned = 0;
		}
		if (deadline.ns == MONO_NEVER.ns)
			deadline = mono_after(s->set.client_timeout);
		if (in_fill(s, IN_FILL_BYTES, deadline) != IN_GO)
			return IN_END;
	}
}

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

/* --- parameters --- */

static void in_set_addresses(struct in_session *s)
{
	char text[NET_ADDR_STRLEN];
	meta_set_str(&s->conn.meta, STR("received_from"), str_of(net_addr_fmt(&s->peer, text)));
	meta_set_str(&s->conn.meta, STR("received_via"), str_of(net_addr_fmt(&s->local, text)));
	s->conn.who.peer = s->peer;
}

/* What the parameters have set for other addresses does not hold for these. */
static void in_drop_parameter_meta(struct in_session *s)
{
	str_t key, value;
	for (uint32_t i = 0; meta_at(&s->param_meta, i, &key, &value); i++)
		meta_remove(&s->conn.meta, key);
	meta_fini(&s->param_meta);
}

static void in_session_set_base(struct in_session *s)
{
	param_object_unref(s->dynamic);
	s->dynamic = NULL;
	in_drop_parameter_meta(s);
	in_settings_init(&s->set, s->l->params, s->l->machine_hostname, &s->peer, &s->local, &s->param_meta);
	meta_copy(&s->conn.meta, &s->param_meta);
	in_set_addresses(s);
	meta_set_str(&s->conn.meta, STR("hostname"), str_of(s->set.hostname));
	in_relay_forget(s);
}

enum in_go in_session_configure(struct in_session *s)
{
	in_session_set_base(s);
	if (in_event_dynamic_parameters(s, &s->dynamic) != IN_ACCEPTED)
		return IN_END;
	if (s->dynamic != NULL) {
		in_settings_apply(&s->set, (const void *)s->dynamic->data, &s->peer, &s->local,
				  &s->param_meta);
		meta_copy(&s->conn.meta, &s->param_meta);
	}
	meta_set_str(&s->conn.meta, STR("hostname"), str_of(s->set.hostname));
	return IN_GO;
}

/* The addresses before they were replaced; the first ones count. */
static void in_keep_original_addresses(struct in_session *s)
{
	str_t from, via, any;
	if (meta_get_json(&s->conn.meta, STR("orig_received_from"), &any))
		return;
	if (meta_get_json(&s->conn.meta, STR("received_from"), &from))
		meta_set_json(&s->conn.meta, STR("orig_received_from"), from);
	if (meta_get_json(&s->conn.meta, STR("received_via"), &via))
		meta_set_json(&s->conn.meta, STR("orig_received_via"), via);
}

/* What the client has said so far, before TLS (RFC 3207 section 4.2) or on somebody else's behalf. */
static void in_session_forget(struct in_session *s)
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

/* --- the beginning --- */

static enum in_go in_greet(struct in_session *s)
{
	in_reply(s, 220, "%s %s", s->set.hostname, s->set.banner);
	return s->is_ending ? IN_END : IN_GO;
}

/* False: denied. With implicit TLS there is no way to say why. */
static bool in_is_admitted(struct in_session *s)
{
	const char *why = in_why_not(), *what_then = ". Try later";
	bool is_full = listener_n_connections(s->l->listener) > (size_t)s->l->params->max_connections;
	if (in_is_stopping(s))
		why = IN_WHY_STOPPING;
	if (!is_full && why == NULL)
		return true;
	metric_inc(in_metrics()->denied);
	s->is_ending = true;
	if (s->set.implicit_tls)
		return false;
	if (is_full) { /* says so at no expense */
		buf_printf(&s->out, "421 4.3.2 %s too many concurrent sessions. Try later\r\n",
			   s->set.hostname);
		return false;
	}
	if (strcmp(why, IN_WHY_STOPPING) == 0)
		what_then = "";
	else if (strcmp(why, IN_WHY_STARTING) == 0)
		what_then = ". Try again soon!";
	buf_clear(&s->shown);
	in_reply(s, 421, "4.3.2 %s %s%s", s->set.hostname, why, what_then);
	return false;
}

/* IN_END without a word: who does not send the header is not who was expected. */
static enum in_go in_read_proxy(struct in_session *s)
{
	s->is_waiting = true;
	int rc = proxy_read(s->st, mono_after(s->set.client_timeout));
	s->is_waiting = false;
	if (rc != 0) {
		log_debug(IN_LOG, "%s", err_text());
		err_clear();
		return IN_END;
	}
	if (net_addr_eq_ip(&s->peer, stream_peer(s->st)) &&
	    net_addr_port(&s->peer) == net_addr_port(stream_peer(s->st)))
		return IN_GO; /* the proxy comes for itself */
	in_keep_original_addresses(s);
	s->peer = *stream_peer(s->st);
	s->local = *stream_local(s->st);
	return IN_GO;
}

static enum in_go in_start_implicit_tls(struct in_session *s)
{
	struct tls_source *source = in_tls_get(s->l, &s->set, mono_after(s->set.client_timeout));
	enum in_go go = IN_END;
	if (source == NULL) {
		log_error(IN_LOG, "a connection is closed: %s", err_text());
		err_clear();
		return IN_END;
	}
	s->is_waiting = true;
	go = in_tls_start(s, source, TLS_BUFFERED_FEED);
	s->is_waiting = false;
	tls_source_unref(source);
	return go == IN_GO ? IN_GO : IN_END;
}

/* For whoever looks at the fibers: whose connection it is. */
static void in_session_set_name(const struct in_session *s)
{
	char addr[NET_ADDR_STRLEN], name[NET_ADDR_STRLEN + 8];
	snprintf(name, sizeof(name), "smtp %s", net_addr_fmt(&s->peer, addr));
	fiber_set_name(name);
}

static enum in_go in_session_begin(struct in_session *s)
{
	in_session_set_name(s);
	meta_set_str(&s->conn.meta, STR("reception_protocol"), STR("ESMTP"));
	in_session_set_base(s);
	if (!in_is_admitted(s))
		return IN_END;
	if (s->set.require_proxy_protocol && in_read_proxy(s) != IN_GO)
		return IN_END;
	in_session_set_name(s);
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_CONNECTED});
	if (in_session_configure(s) != IN_GO)
		return IN_END;
	if (s->set.implicit_tls && in_start_implicit_tls(s) != IN_GO)
		return IN_END;
	if (in_event_connection_accepted(s) != IN_ACCEPTED)
		return IN_END;
	return in_greet(s);
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
	if (in_relay_decide(s, str_of(s->tx.sender), c->box.email, false, &d) != IN_ACCEPTED)
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
	uint16_t port = net_addr_port(&s->peer), local_port = net_addr_port(&s->local);
	in_keep_original_addresses(s);
	s->peer = x.addr.len != 0 ? x.addr : s->peer;
	s->local = x.dest.len != 0 ? x.dest : s->local;
	net_addr_set_port(&s->peer, x.port >= 0 ? (uint16_t)x.port : port);
	net_addr_set_port(&s->local, x.dest_port >= 0 ? (uint16_t)x.dest_port : local_port);
	in_session_forget(s);
	in_session_set_name(s);
	return in_session_configure(s) == IN_GO ? in_greet(s) : IN_END;
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
		stream_drain(s->st, IN_SKIP_BYTES, mono_after(patience));
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
