/* websocket.c - a websocket on what was a connection of HTTP/1: its handler, and the two ends of it.
 *
 * The answer 101 is the first thing that is held back: a handler sets up what the peer may count on from then
 * on, and it leaves with the first websocket_receive. From then on reading and writing are frames (frames.c),
 * in the one fiber of the connection.
 *
 * Silence: who has not been heard of for the listener's idle_timeout is sent a ping, and is lost when the
 * same time goes by again. That a write has been taken counts as a sign of life, too, since a peer that reads
 * slowly answers late; one that does not read at all is found out by write_timeout.
 *
 * Stopping: the fiber is cancelled, so that whatever the handler waits for fails. What is said then - close,
 * 1001 - and the wait for the peer's answer to it are shielded, and short. */
#include "http/websocket_impl.h"

#include "base/err.h"
#include "base/log.h"

#include <stdarg.h>

#define WS_CLOSE_TIMEOUT dur_s(5)
#define WS_CLOSE_STOPPING dur_ms(500)

enum {
	WS_FILL_BYTES = 16384, /* of input looked at in one piece */
	WS_OUT_BYTES = 65536,  /* of frames held back */
	WS_REASON_BYTES = 124, /* with a NUL */
};

struct websocket {
	struct http_session *s;
	struct ws_frames frames;
	bool is_woken;
	bool is_pinged;	 /* and nothing was heard since */
	bool has_end;	 /* of input */
	bool has_failed; /* to write */
	mono_t heard;
	unsigned code; /* of the close; 0: none was asked for */
	char reason[WS_REASON_BYTES];
};

/* --- writing --- */

static int ws_write(struct websocket *ws, mono_t deadline)
{
	struct buf *out = &ws->frames.out;
	mono_t patience = http_deadline(mono_now(), ws->s->l->p.write_timeout, out->n);
	int rc = stream_write(ws->s->st, out->p, out->n, mono_min(deadline, patience));
	if (out->cap > 2 * (size_t)WS_OUT_BYTES)
		buf_fini(out);
	buf_clear(out);
	ws->has_failed = rc != 0; /* a frame may have been cut */
	return rc;
}

static int ws_flush(struct websocket *ws, mono_t deadline)
{
	if (ws->frames.out.n == 0)
		return 0;
	int rc = ws_write(ws, deadline);
	if (rc == 0)
		ws->heard = mono_now();
	return rc;
}

int websocket_send_text(struct websocket *ws, str_t text, mono_t deadline)
{
	if (ws_frames_has_ended(&ws->frames) || ws->has_failed) {
		err_set(ERR_CLOSED, "the websocket was closed");
		return -1;
	}
	ws_frames_add_text(&ws->frames, text);
	return ws->frames.out.n > WS_OUT_BYTES ? ws_flush(ws, deadline) : 0;
}

/* --- reading --- */

/* The peer has been silent up to now. That a ping could be written tells nothing of the peer. */
static int ws_keep_alive(struct websocket *ws, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	if (ws->is_pinged) {
		err_set(ERR_CLOSED, "%s does not answer a ping", net_addr_fmt(stream_peer(ws->s->st), peer));
		return -1;
	}
	ws->is_pinged = true;
	ws->heard = mono_now();
	ws_frames_add_ping(&ws->frames);
	return ws_write(ws, deadline);
}

/* Waits for more input: WEBSOCKET_TEXT when there may be some. */
static enum websocket_got ws_fill(struct websocket *ws, mono_t deadline)
{
	mono_t silent = mono_add(ws->heard, ws->s->l->p.idle_timeout);
	int rc = stream_fill(ws->s->st, WS_FILL_BYTES, mono_min(deadline, silent));
	if (rc > 0) {
		ws->heard = mono_now();
		ws->is_pinged = false;
		return WEBSOCKET_TEXT;
	}
	if (rc == 0) {
		ws->has_end = true;
		return WEBSOCKET_ENDED;
	}
	if (!err_is(ERR_TIMEOUT))
		return WEBSOCKET_FAILED;
	if (ws->is_woken) {
		err_clear();
		ws->is_woken = false;
		return WEBSOCKET_WOKEN;
	}
	if (mono_is_past(deadline))
		return WEBSOCKET_FAILED;
	err_clear();
	return mono_is_past(silent) && ws_keep_alive(ws, deadline) != 0 ? WEBSOCKET_FAILED : WEBSOCKET_TEXT;
}

static void ws_take_input(struct websocket *ws)
{
	str_t in = stream_buffered(ws->s->st);
	ws_frames_feed(&ws->frames, in);
	stream_consume(ws->s->st, in.n);
}

enum websocket_got websocket_receive(struct websocket *ws, str_t *message, mono_t deadline)
{
	enum websocket_got got;
	for (;;) {
		if (ws_frames_next(&ws->frames, &got, message))
			return got;
		if (stream_buffered(ws->s->st).n > 0 && !ws_frames_has_ended(&ws->frames)) {
			ws_take_input(ws);
			continue;
		}
		if (ws->has_end || ws_frames_has_ended(&ws->frames))
			return WEBSOCKET_ENDED;
		if (ws_flush(ws, deadline) != 0)
			return WEBSOCKET_FAILED;
		got = ws_fill(ws, deadline);
		if (got != WEBSOCKET_TEXT)
			return got;
	}
}

void websocket_wake(struct websocket *ws)
{
	ws->is_woken = true;
	stream_wake_reader(ws->s->st);
}

/* --- the end --- */

void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason, ...)
{
	struct buf text = BUF_INIT;
	size_t n_bad;
	va_list ap;
	if (ws->code != 0)
		return;
	ws->code = code;
	va_start(ap, reason);
	buf_vprintf(&text, reason, ap);
	va_end(ap);
	size_t n = 0;
	for (size_t step; n < text.n && (step = str_utf8_step(str_skip(buf_str(&text), n), &n_bad)) != 0;
	     n += step)
		if (n + step >= WS_REASON_BYTES)
			break;
	memcpy(ws->reason, text.p, n); /* whole characters */
	ws->reason[n] = 0;
	buf_fini(&text);
}

/* Says close, unless that has been said, and waits for the peer's. */
static int ws_say_goodbye(struct websocket *ws, mono_t deadline)
{
	if (ws->has_failed)
		return 0;
	ws_frames_add_close(&ws->frames, ws->code, str_of(ws->reason));
	if (ws_flush(ws, deadline) != 0)
		return -1;
	while (!ws->has_end && !ws_frames_peer_has_closed(&ws->frames) && !ws_frames_has_ended(&ws->frames)) {
		int rc = stream_buffered(ws->s->st).n > 0 ? 1
							  : stream_fill(ws->s->st, WS_FILL_BYTES, deadline);
		if (rc < 0)
			return -1;
		ws->has_end = rc == 0;
		ws_take_input(ws);
	}
	return stream_goodbye(ws->s->st, deadline);
}

static void ws_end(struct websocket *ws)
{
	bool is_stopping = http_listener_is_stopping(ws->s->l);
	if (ws->code == 0)
		ws->code = is_stopping ? WEBSOCKET_GOING_AWAY : WEBSOCKET_NORMAL;
	fiber_shield_begin();
	if (ws_say_goodbye(ws, mono_after(is_stopping ? WS_CLOSE_STOPPING : WS_CLOSE_TIMEOUT)) != 0) {
		log_debug("kumod::http", "%s", err_text());
		err_clear();
	}
	fiber_shield_end();
}

/* The listener stops. */
static void ws_on_stop(struct http_session *s)
{
	fiber_cancel(s->fiber);
}

void websocket_serve(struct http_session *s, struct http_request *r, const struct http_route *route,
		     struct buf *held)
{
	struct websocket ws = {.s = s, .heard = mono_now()};
	ws_frames_init(&ws.frames);
	ws.frames.out = *held;
	*held = BUF_INIT;
	s->stop = ws_on_stop;
	if (http_listener_is_stopping(s->l))
		fiber_cancel(s->fiber);
	route->websocket(r, &ws, route->arg);
	if (err_kind() != ERR_NONE) {
		log_debug("kumod::http", "%s", err_text());
		err_clear();
	}
	ws_end(&ws);
	s->stop = NULL;
	ws_frames_fini(&ws.frames);
}
