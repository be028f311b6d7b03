/* h2_conn.c - one connection of HTTP/2: reading, writing, time-outs, the end.
 *
 * The connection's fiber reads, and feeds the session; it never writes, so it cannot be kept from reading the
 * window updates that a write waits for. What is to be written is written by a fiber of its own, started when
 * there is something and gone when there is nothing: it runs after the requests that are ready, so that their
 * answers leave in one write, and an idle connection has one fiber. Every fiber of the connection may call
 * into the session (they share a thread, and no callback yields); only the writer takes what the session
 * wants to send.
 *
 * Time-outs. Without a stream: idle_timeout since the last one, whatever else the client sends. A header
 * section has header_timeout, and so has the client's first frame. Bodies are h2_stream.c's. An answer that
 * the client does not let through has write_timeout and what it takes at the slowest rate, and is then reset;
 * so has a write that TCP does not take, which is the end of the connection. While there are streams the
 * reader looks at all that at intervals.
 *
 * The end. A listener that stops says so (GOAWAY), lets the streams finish and then says which the last one
 * was. After any end of reading the requests at work are finished, and what the windows still allow is
 * written; a client that has closed its half gets its answers. Then, as with HTTP/1, what still comes is
 * dropped for a moment, so that no reset takes the last frames away. */
#include "http/h2_impl.h"

#include "base/err.h"
#include "base/log.h"
#include "fiber/worker.h"

#define H2_IDLE_TRIM dur_s(1)
#define H2_TICK_MAX dur_s(1)
#define H2_TICK_MIN dur_ms(20)
#define H2_LINGER_TIMEOUT dur_s(2)
#define H2_UNWANTED_TIMEOUT dur_s(1)

enum {
	H2_FILL_BYTES = 65536,
	H2_LINGER_BYTES = 1 << 20,
};

/* --- writing --- */

static void h2_write_failed(struct h2_conn *c)
{
	log_debug("kumod::http", "%s", err_text());
	err_clear();
	c->is_broken = true;
}

static void h2_write_main(void *arg)
{
	struct h2_conn *c = arg;
	while (!c->is_broken) {
		int rc = nghttp2_session_send(c->h2);
		if (rc != 0) {
			err_set(ERR_PROTO, "nghttp2: %s", nghttp2_strerror(rc));
			h2_write_failed(c);
			break;
		}
		if (c->out.n == 0)
			break;
		mono_t deadline = http_deadline(mono_now(), c->l->p.write_timeout, c->out.n);
		if (stream_write(c->st, c->out.p, c->out.n, deadline) != 0)
			h2_write_failed(c);
		buf_clear(&c->out);
	}
	c->is_writing = false;
	if (c->is_broken || (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2)))
		stream_wake_reader(c->st);
}

void h2_want_write(struct h2_conn *c)
{
	if (c->is_writing || c->is_broken || !nghttp2_session_want_write(c->h2))
		return;
	c->is_writing = true;
	fiber_start(&c->writers, "http2 write", h2_write_main, c);
}

/* --- time --- */

static dur_t h2_tick(const struct h2_conn *c)
{
	dur_t d = dur_ns(c->l->p.write_timeout.ns / 4);
	if (dur_cmp(d, H2_TICK_MIN) < 0)
		return H2_TICK_MIN;
	return dur_cmp(d, H2_TICK_MAX) > 0 ? H2_TICK_MAX : d;
}

static mono_t h2_idle_deadline(const struct h2_conn *c)
{
	return c->n_streams == 0 ? mono_add(c->idle_since, c->l->p.idle_timeout) : MONO_NEVER;
}

static mono_t h2_read_deadline(const struct h2_conn *c)
{
	mono_t t = mono_min(h2_idle_deadline(c), c->header_deadline);
	if (c->n_streams != 0)
		return mono_min(t, mono_after(h2_tick(c)));
	return c->out.p != NULL ? mono_min(t, mono_after(H2_IDLE_TRIM)) : t;
}

static void h2_stream_on_time(struct h2_stream *s)
{
	struct h2_conn *c = s->c;
	uint32_t code = NGHTTP2_NO_ERROR;
	if (s->is_sending && mono_is_past(http_deadline(s->send_begun, c->l->p.write_timeout, s->n_sent)))
		code = NGHTTP2_CANCEL;
	else if (s->unwanted_since.ns == 0 || !mono_is_past(mono_add(s->unwanted_since, H2_UNWANTED_TIMEOUT)))
		return;
	s->send_begun = s->unwanted_since = MONO_NEVER; /* once */
	nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, s->id, code);
}

/* Looks at every clock. */
static void h2_on_time(struct h2_conn *c)
{
	if (mono_is_past(c->header_deadline)) {
		c->header_deadline = MONO_NEVER;
		nghttp2_session_terminate_session(c->h2, NGHTTP2_ENHANCE_YOUR_CALM);
	}
	bool is_stopping = c->stopping_since.ns != 0;
	if (c->n_streams == 0 && (is_stopping || mono_is_past(h2_idle_deadline(c))))
		nghttp2_session_terminate_session(c->h2, NGHTTP2_NO_ERROR);
	if (c->n_streams == 0 && !c->is_writing)
		buf_fini(&c->out);
	list_for_each (it, &c->streams)
		h2_stream_on_time(list_entry(it, struct h2_stream, link));
	h2_want_write(c);
}

void h2_conn_stream_gone(struct h2_conn *c)
{
	if (c->n_streams != 0)
		return;
	c->idle_since = mono_now();
	if (c->stopping_since.ns != 0 && !c->is_ending)
		stream_wake_reader(c->st);
}

static void h2_conn_stop(struct http_session *session)
{
	struct h2_conn *c = session->conn;
	if (c->stopping_since.ns != 0)
		return;
	c->stopping_since = mono_now();
	nghttp2_submit_shutdown_notice(c->h2);
	h2_want_write(c);
	stream_wake_reader(c->st);
}

/* --- reading --- */

static void h2_input_failed(struct h2_conn *c, int lib_error)
{
	uint32_t code = NGHTTP2_INTERNAL_ERROR;
	if (lib_error == NGHTTP2_ERR_FLOODED || lib_error == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
		code = NGHTTP2_ENHANCE_YOUR_CALM;
	else if (lib_error == NGHTTP2_ERR_BAD_CLIENT_MAGIC)
		code = NGHTTP2_PROTOCOL_ERROR;
	log_debug("kumod::http", "nghttp2: %s", nghttp2_strerror(lib_error));
	nghttp2_session_terminate_session(c->h2, code);
	h2_want_write(c);
}

/* Feeds the session what is buffered. False: it takes no more. */
static bool h2_feed(struct h2_conn *c)
{
	uint64_t n_begun = c->n_begun;
	str_t in = stream_buffered(c->st);
	h2_count_frames(c, in);
	ssize_t n = nghttp2_session_mem_recv(c->h2, (const uint8_t *)in.p, in.n);
	if (n < 0) {
		h2_input_failed(c, (int)n);
		return false;
	}
	stream_consume(c->st, (size_t)n);
	h2_want_write(c);
	if (c->n_begun != n_begun)
		fiber_yield(); /* their fibers first, before there are more */
	return true;
}

static void h2_read(struct h2_conn *c)
{
	for (;;) {
		if (stream_buffered(c->st).n != 0 && !h2_feed(c))
			return;
		if (c->is_broken || (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2)))
			return;
		int rc = stream_fill(c->st, H2_FILL_BYTES, h2_read_deadline(c));
		if (rc == 0)
			return;
		if (rc < 0) {
			bool is_timeout = err_is(ERR_TIMEOUT);
			err_clear();
			if (!is_timeout)
				return;
			h2_on_time(c);
		}
	}
}

/* --- the end --- */

static void h2_linger(struct h2_conn *c)
{
	stream_shutdown_write(c->st);
	c->session->is_idle = true;
	stream_drain(c->st, H2_LINGER_BYTES, mono_after(H2_LINGER_TIMEOUT));
}

static void h2_end(struct h2_conn *c)
{
	c->is_ending = true;
	list_for_each (it, &c->streams)
		h2_stream_wake(list_entry(it, struct h2_stream, link));
	fiber_cond_broadcast(&c->unsent_less);
	if (fiber_group_join(&c->requests, MONO_NEVER) != 0) { /* the listener's patience is over */
		err_clear();
		fiber_group_cancel(&c->requests);
		fiber_shield_begin();
		if (fiber_group_join(&c->requests, MONO_NEVER) != 0)
			panic("a request of HTTP/2 is left behind");
		fiber_shield_end();
	}
	h2_want_write(c);
	if (fiber_group_join(&c->writers, mono_after(c->l->p.write_timeout)) != 0) {
		err_clear();
		c->is_broken = true;
		fiber_group_cancel(&c->writers);
		fiber_shield_begin();
		if (fiber_group_join(&c->writers, MONO_NEVER) != 0)
			panic("the writer of HTTP/2 is left behind");
		fiber_shield_end();
	}
}

void h2_conn_main(struct http_session *session)
{
	struct h2_conn c = {.session = session, .st = session->st, .l = session->l};
	c.idle_since = mono_now();
	c.header_deadline = mono_after(c.l->p.header_timeout);
	fiber_group_init(&c.requests);
	fiber_group_init(&c.writers);
	fiber_cond_init(&c.unsent_less);
	h2_session_open(&c);
	session->conn = &c;
	session->stop = h2_conn_stop;
	h2_want_write(&c);
	if (http_listener_is_stopping(c.l))
		h2_conn_stop(session);
	h2_read(&c);
	session->stop = NULL;
	h2_end(&c);
	h2_session_close(&c);
	buf_fini(&c.out);
	if (!c.is_broken)
		h2_linger(&c);
}
