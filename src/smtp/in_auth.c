/* in_auth.c - AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN, which is a way of sending the same two texts
 * one after the other. Only under TLS, once, and outside a transaction. What the client sends is wiped, and
 * shown to nobody but smtp_server_auth_plain. */
#include "smtp/in_impl.h"

#include "base/text.h"

/* Decodes a response of the client; "=" is an empty one where that cannot be written otherwise (initial
 * responses). IN_REFUSED: it cancelled, or made no sense, and was told so. */
static enum in_verdict in_decode(struct in_session *s, str_t text, bool is_initial, struct buf *out)
{
	if (str_eq(text, STR("*"))) {
		in_reply(s, 501, "5.5.0 AUTH cancelled by the client");
		return IN_REFUSED;
	}
	if (is_initial && str_eq(text, STR("=")))
		return IN_ACCEPTED;
	buf_reserve(out, text.n + 4); /* at once: no freed copies of it */
	if (base64_decode(out, text))
		return IN_ACCEPTED;
	in_reply(s, 501, "5.5.2 malformed base64");
	in_session_note_error(s);
	return IN_REFUSED;
}

/* Asks with a challenge in base64, and decodes the answer. */
static enum in_go in_challenge(struct in_session *s, const char *challenge, struct buf *out,
			       enum in_verdict *verdict)
{
	*verdict = IN_REFUSED;
	in_reply(s, 334, "%s", challenge);
	if (s->is_ending)
		return IN_END;
	enum in_go go = in_read_line(s, IN_LINE_SASL);
	if (go == IN_GO)
		*verdict = in_decode(s, buf_str(&s->line), false, out);
	secret_wipe(s->line.p, s->line.n);
	return go == IN_END ? IN_END : IN_GO;
}

static enum in_go in_get_plain(struct in_session *s, str_t initial, struct buf *message,
			       enum in_verdict *verdict)
{
	if (initial.p == NULL)
		return in_challenge(s, "", message, verdict);
	*verdict = in_decode(s, initial, true, message);
	return IN_GO;
}

/* Makes PLAIN's message of LOGIN's two answers. */
static enum in_go in_get_login(struct in_session *s, str_t initial, struct buf *message,
			       enum in_verdict *verdict)
{
	enum in_go go = IN_GO;
	buf_reserve(message, 2 * IN_SASL_BYTES);
	buf_add_c(message, 0);
	if (initial.p != NULL)
		*verdict = in_decode(s, initial, true, message);
	else
		go = in_challenge(s, "VXNlcm5hbWU6", message, verdict); /* Username: */
	if (go != IN_GO || *verdict != IN_ACCEPTED)
		return go;
	buf_add_c(message, 0);
	return in_challenge(s, "UGFzc3dvcmQ6", message, verdict); /* Password: */
}

/* What the policy has found the identity to be, if it says so in an AuthInfo; else what the client claims,
 * which the policy has then agreed to. */
static str_t in_auth_identity(const struct in_session *s, enum auth_context context, str_t claimed)
{
	const struct auth_info *who = &s->conn.who;
	for (size_t i = 0; i < who->n_identities; i++)
		if (who->identity[i].context == context)
			return who->identity[i].identity;
	return claimed;
}

static void in_auth_succeeded(struct in_session *s, str_t authz, str_t authc)
{
	s->is_authenticated = true;
	meta_set_str(&s->conn.meta, STR("authz_id"), in_auth_identity(s, AUTH_SMTP_AUTHORIZATION, authz));
	meta_set_str(&s->conn.meta, STR("authn_id"), in_auth_identity(s, AUTH_SMTP_AUTHENTICATION, authc));
	in_relay_forget(s);
	in_reply(s, 235, "2.7.0 AUTH OK!");
}

static void in_auth_check(struct in_session *s, str_t message)
{
	str_t authz, authc, password;
	bool is_good;
	if (!in_sasl_plain_parse(message, &authz, &authc, &password)) {
		in_reply(s, 501, "5.5.2 malformed credentials");
		in_session_note_error(s);
		return;
	}
	if (in_event_auth_plain(s, authz, authc, password, &is_good) != IN_ACCEPTED)
		return;
	if (is_good) {
		in_auth_succeeded(s, authz, authc);
		return;
	}
	in_reply(s, 535, "5.7.8 AUTH invalid");
	if (++s->n_failed_logins >= IN_MAX_LOGINS && !s->is_ending)
		in_reply(s, 421, "4.7.0 %s too many failed logins", s->set.hostname);
}

/* What speaks against AUTH now; false when nothing does. */
static bool in_auth_is_refused(struct in_session *s, const struct in_command *c)
{
	if (s->is_authenticated)
		in_reply(s, 503, "5.5.1 already authenticated");
	else if (s->tx.is_open)
		in_reply(s, 503, "5.5.1 AUTH is not permitted inside a transaction");
	else if (!str_ieq(c->arg, STR("PLAIN")) && !str_ieq(c->arg, STR("LOGIN")))
		in_reply(s, 504, "5.5.4 AUTH mechanism not supported");
	else if (!s->is_tls)
		in_reply(s, 524, "5.7.11 AUTH needs TLS");
	else
		return false;
	in_session_note_error(s);
	return true;
}

enum in_go in_auth(struct in_session *s, const struct in_command *c)
{
	struct buf message = BUF_INIT, initial = BUF_INIT;
	enum in_verdict verdict;
	enum in_go go = IN_GO;
	if (in_auth_is_refused(s, c))
		return IN_GO;
	bool is_login = str_ieq(c->arg, STR("LOGIN"));
	secret_buf_add(&initial, c->initial); /* it is in the line, which the next one replaces */
	str_t first = c->initial.p != NULL ? str_mk(initial.p, initial.n) : STR_NULL;
	go = is_login ? in_get_login(s, first, &message, &verdict)
		      : in_get_plain(s, first, &message, &verdict);
	if (go == IN_GO && verdict == IN_ACCEPTED)
		in_auth_check(s, buf_str(&message));
	secret_buf_fini(&initial);
	secret_buf_fini(&message);
	return go;
}
