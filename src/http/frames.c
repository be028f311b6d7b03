/* frames.c - the frames of a websocket, with wslay: bytes received go in, whole messages come out, and so do
 * the bytes to be written, among them the answers to pings and closes that wslay gives by itself. No I/O.
 *
 * wslay pulls its input by a callback; what is fed is handed over until it is used up, so all of it is taken
 * at once. Messages that become whole meanwhile are kept one behind the other in `in`: never more than one of
 * the largest size and what one feed holds.
 *
 * A message may come in fragments, and wslay allocates for each of them; their number is limited, or empty
 * and tiny ones would make much of little. */
#include "http/websocket_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdlib.h>
#include <wslay/wslay.h>

enum { WS_MAX_FRAGMENTS = 1000, WS_MAX_REASON_BYTES = 123 };

struct ws_kept { /* in front of each message in ws_frames.in */
	enum websocket_got kind;
	size_t n_bytes;
};

static ssize_t ws_on_recv(wslay_event_context_ptr ctx, uint8_t *p, size_t n, int flags, void *arg)
{
	struct ws_frames *w = arg;
	if (w->feed.n == 0) {
		wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	str_t part = str_head(w->feed, n);
	memcpy(p, part.p, part.n);
	w->feed = str_skip(w->feed, part.n);
	return (ssize_t)part.n;
}

static ssize_t ws_on_send(wslay_event_context_ptr ctx, const uint8_t *p, size_t n, int flags, void *arg)
{
	struct ws_frames *w = arg;
	buf_add(&w->out, p, n);
	return (ssize_t)n;
}

static void ws_on_frame(wslay_event_context_ptr ctx, const struct wslay_event_on_frame_recv_start_arg *f,
			void *arg)
{
	struct ws_frames *w = arg;
	if (wslay_is_ctrl_frame(f->opcode) || ++w->n_fragments <= WS_MAX_FRAGMENTS)
		return;
	ws_frames_add_close(w, WEBSOCKET_POLICY, STR("a message in too many fragments"));
	wslay_event_shutdown_read(ctx);
}

static void ws_on_message(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m, void *arg)
{
	struct ws_frames *w = arg;
	if (wslay_is_ctrl_frame(m->opcode) || !wslay_event_get_read_enabled(ctx))
		return;
	w->n_fragments = 0;
	struct ws_kept kept = {.kind = m->opcode == WSLAY_TEXT_FRAME ? WEBSOCKET_TEXT : WEBSOCKET_BINARY,
			       .n_bytes = m->msg_length};
	buf_add(&w->in, &kept, sizeof(kept));
	buf_add(&w->in, m->msg, m->msg_length);
}

/* Of what can only fail for want of memory, or because nothing is sent after a close. */
static void ws_must(int rc, const char *what)
{
	if (rc == WSLAY_ERR_NOMEM || rc == WSLAY_ERR_INVALID_ARGUMENT)
		panic("websocket: %s: %s", what,
		      rc == WSLAY_ERR_NOMEM ? "out of memory" : "what wslay does not take");
}

void ws_frames_init(struct ws_frames *w)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = ws_on_recv,
		.send_callback = ws_on_send,
		.on_frame_recv_start_callback = ws_on_frame,
		.on_msg_recv_callback = ws_on_message,
	};
	*w = (struct ws_frames){0};
	ws_must(wslay_event_context_server_init(&w->wslay, &callbacks, w), "init");
	wslay_event_config_set_max_recv_msg_length(w->wslay, WEBSOCKET_MAX_MESSAGE_BYTES);
}

void ws_frames_fini(struct ws_frames *w)
{
	wslay_event_context_free(w->wslay);
	buf_fini(&w->out);
	buf_fini(&w->in);
	*w = (struct ws_frames){0};
}

static void ws_frames_write(struct ws_frames *w)
{
	ws_must(wslay_event_send(w->wslay), "send");
}

void ws_frames_feed(struct ws_frames *w, str_t bytes)
{
	buf_clear(&w->in);
	w->n_taken = 0;
	w->feed = bytes;
	int rc = wslay_event_recv(w->wslay);
	ws_must(rc, "receive");
	if (rc != 0) /* a frame that is none, which wslay has answered with an empty close */
		wslay_event_shutdown_read(w->wslay);
	w->feed = STR_NULL;
	ws_frames_write(w);
}

bool ws_frames_next(struct ws_frames *w, enum websocket_got *kind, str_t *message)
{
	struct ws_kept kept;
	str_t rest = str_skip(buf_str(&w->in), w->n_taken);
	if (rest.n == 0)
		return false;
	memcpy(&kept, rest.p, sizeof(kept));
	*kind = kept.kind;
	*message = str_head(str_skip(rest, sizeof(kept)), kept.n_bytes);
	w->n_taken += sizeof(kept) + kept.n_bytes;
	return true;
}

bool ws_frames_has_ended(const struct ws_frames *w)
{
	return !wslay_event_get_read_enabled(w->wslay);
}
bool ws_frames_peer_has_closed(const struct ws_frames *w)
{
	return wslay_event_get_close_received(w->wslay);
}

static void ws_frames_add(struct ws_frames *w, uint8_t opcode, str_t text)
{
	struct wslay_event_msg m = {.opcode = opcode, .msg = (const uint8_t *)text.p, .msg_length = text.n};
	ws_must(wslay_event_queue_msg(w->wslay, &m), "queue");
	ws_frames_write(w);
}

void ws_frames_add_text(struct ws_frames *w, str_t text)
{
	ws_frames_add(w, WSLAY_TEXT_FRAME, text);
}
void ws_frames_add_ping(struct ws_frames *w)
{
	ws_frames_add(w, WSLAY_PING, STR(""));
}

void ws_frames_add_close(struct ws_frames *w, unsigned code, str_t reason)
{
	if (reason.n > WS_MAX_REASON_BYTES)
		panic("websocket: the reason of a close has %zu bytes", reason.n);
	ws_must(wslay_event_queue_close(w->wslay, (uint16_t)code, (const uint8_t *)reason.p, reason.n),
		"close");
	ws_frames_write(w);
}
