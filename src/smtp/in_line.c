/* in_line.c - what a session reads from its client: lines, and more of anything.
 *
 * A command is a line that ends in CRLF. One that ends in a bare LF is answered, so that nobody hangs, and
 * not obeyed, unless invalid_line_endings says otherwise: what follows a message that somebody else has
 * delimited in another way would be such lines.
 *
 * Time: a client has client_timeout to complete a command, from when we begin to wait for it, not for each
 * byte. Stopping: a session that waits for its client is cancelled (in_listener.c); it says 421 and ends.
 * What it has buffered is obeyed. */
#include "smtp/in_impl.h"

enum {
	IN_FILL_BYTES = 16384,	 /* of commands looked at in one piece */
	IN_SKIP_BYTES = 1 << 20, /* of a line that is too long; then the session ends */
};

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
