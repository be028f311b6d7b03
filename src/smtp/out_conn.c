/* out_conn.c - from an address to a peer that has been greeted: TCP, banner, EHLO with its extensions. Each
 * phase has its own time limit. A failure is an error whose text says at which step; the session goes on to
 * the next address. A peer that does not know EHLO is greeted with HELO, if need be on a new connection,
 * since some close after a command that they do not know. */
#include "smtp/out_impl.h"

#define QUIT_TIMEOUT dur_s(5)

void out_conn_close(struct out_conn *c)
{
	stream_free(c->st);
	c->st = NULL;
}

void out_conn_fini(struct out_conn *c)
{
	out_conn_close(c);
	smtp_reply_fini(&c->reply);
	buf_fini(&c->out);
}

struct session_peer out_conn_peer(struct out_conn *c)
{
	return (struct session_peer){
		.name = c->to->name, .addr = str_of(c->addr_text), .source_addr = str_of(c->source_text)};
}

/** Sends c->out and reads the answer. */
static int conn_command(struct out_conn *c, dur_t timeout)
{
	mono_t deadline = mono_after(timeout);
	if (stream_write(c->st, c->out.p, c->out.n, mono_min(deadline, mono_after(dur_s(60)))) != 0)
		return -1;
	return smtp_reply_read(c->st, &c->reply, deadline);
}

static int conn_refused(const struct out_conn *c, const char *what)
{
	err_set(ERR_CONNECT, "%s was answered with %d " STR_FMT, what, c->reply.code,
		STR_ARG(str_head(buf_str(&c->reply.text), 512)));
	return -1;
}

static void conn_note_extension(struct out_conn *c, str_t line)
{
	ptrdiff_t sp = str_chr(line, ' ', 0);
	str_t keyword = sp >= 0 ? str_head(line, (size_t)sp) : line;
	str_t arg = sp >= 0 ? str_trim(str_skip(line, (size_t)sp)) : STR_NULL;
	if (str_ieq(keyword, STR("PIPELINING"))) {
		c->has_pipelining = true;
	} else if (str_ieq(keyword, STR("8BITMIME"))) {
		c->has_8bitmime = true;
	} else if (str_ieq(keyword, STR("SMTPUTF8"))) {
		c->has_smtputf8 = true;
	} else if (str_ieq(keyword, STR("SIZE"))) { /* RFC 1870 section 4 */
		c->has_size = true;
		if (!str_to_u64(arg, &c->max_size_bytes))
			c->max_size_bytes = 0;
	}
}

static int conn_say_helo(struct out_conn *c, const char *name)
{
	buf_clear(&c->out);
	buf_printf(&c->out, "HELO %s\r\n", name);
	if (conn_command(c, session_path(c->s)->ehlo_timeout) != 0) {
		err_wrap("HELO");
		return -1;
	}
	return c->reply.code == 250 ? 0 : conn_refused(c, "HELO");
}

/** The codes of a command that is not known or not wanted (RFC 5321 sections 3.2 and 4.2.4). Others refuse
 * us, not the word. */
static bool code_is_unknown_command(int code)
{
	return code == 500 || code == 501 || code == 502 || code == 504 || code == 550;
}

static int conn_greet(struct out_conn *c)
{
	const struct egress_path *path = session_path(c->s);
	const struct egress_source *src = session_source(c->s);
	const char *name = path->ehlo_domain != NULL  ? path->ehlo_domain
			   : src->ehlo_domain != NULL ? src->ehlo_domain
						      : session_hostname(c->s);
	const char *verb = path->use_lmtp ? "LHLO" : "EHLO";
	if (c->is_ehlo_unknown)
		return conn_say_helo(c, name);
	buf_clear(&c->out);
	buf_printf(&c->out, "%s %s\r\n", verb, name);
	if (conn_command(c, path->ehlo_timeout) != 0) {
		err_wrap("%s", verb);
		return -1;
	}
	if (c->reply.code == 250) {
		str_t rest = buf_str(&c->reply.text), line;
		for (bool is_first = true; str_split(&rest, '\n', &line); is_first = false)
			if (!is_first)
				conn_note_extension(c, line);
		if (!path->enable_pipelining)
			c->has_pipelining = false;
		return 0;
	}
	if (path->use_lmtp || !code_is_unknown_command(c->reply.code))
		return conn_refused(c, verb);
	c->is_ehlo_unknown = true;
	return conn_say_helo(c, name);
}

/** For a peer that has refused us: it may hear that we go (RFC 5321 section 4.1.1.10), but is not waited for.
 * Keeps the error. */
static void conn_leave(struct out_conn *c)
{
	struct err e = err_take();
	if (e.kind == ERR_CONNECT && stream_write(c->st, "QUIT\r\n", 6, mono_after(DUR_ZERO)) != 0)
		err_clear();
	out_conn_close(c);
	err_put(e);
}

static int conn_try(struct out_conn *c, const struct out_candidate *to)
{
	const struct egress_path *path = session_path(c->s);
	const struct egress_source *src = session_source(c->s);
	c->has_pipelining = c->has_8bitmime = c->has_smtputf8 = c->has_size = c->needs_rset = false;
	c->max_size_bytes = 0;
	c->n_transactions = 0;
	net_addr_fmt(&to->addr, c->addr_text);
	c->source_text[0] = 0;

	c->st = sock_connect(&to->addr, src->source_address.len != 0 ? &src->source_address : NULL,
			     mono_after(path->connect_timeout));
	if (c->st == NULL) {
		err_wrap("connect to " STR_FMT " %s", STR_ARG(to->name), c->addr_text);
		return -1;
	}
	net_addr_fmt(stream_local(c->st), c->source_text);
	if (smtp_reply_read(c->st, &c->reply, mono_after(path->banner_timeout)) != 0)
		err_wrap("connect to " STR_FMT " %s and read initial banner", STR_ARG(to->name),
			 c->addr_text);
	else if (c->reply.code != 220)
		(void)conn_refused(c, "the connection");
	else if (conn_greet(c) == 0)
		return 0;
	conn_leave(c);
	return -1;
}

int out_conn_open(struct out_conn *c, const struct out_candidate *to)
{
	c->to = to;
	c->is_ehlo_unknown = false;
	if (conn_try(c, to) == 0)
		return 0;
	if (!c->is_ehlo_unknown || !err_is(ERR_CLOSED))
		return -1;
	err_clear();
	return conn_try(c, to); /* with HELO from the beginning */
}

void out_conn_quit(struct out_conn *c)
{
	if (c->st == NULL)
		return;
	mono_t deadline = mono_after(QUIT_TIMEOUT);
	if (stream_write(c->st, "QUIT\r\n", 6, deadline) != 0 ||
	    smtp_reply_read(c->st, &c->reply, deadline) != 0)
		err_clear(); /* a goodbye that is not heard changes nothing */
	out_conn_close(c);
}
