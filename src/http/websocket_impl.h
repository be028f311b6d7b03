/* websocket_impl.h - a websocket's parts: the request that asks for it, and its frames, which do no I/O. */
#pragma once

#include "http/http_impl.h"
#include "http/websocket.h"

/* --- upgrade.c: RFC 6455 section 4.2 --- */
/** Whether r, which the router has let pass, may become a websocket; else the answer is in a. */
MUST_CHECK bool websocket_check_upgrade(struct http_request *r, const struct http_framing *f,
					struct http_response *a);
/** The answer 101 to such a request. */
void websocket_write_upgrade(const struct http_request *r, struct buf *out);

/* --- frames.c: RFC 6455 section 5 --- */
struct wslay_event_context;
struct ws_frames {
	struct wslay_event_context *wslay;
	struct buf out; /* frames to be written */
	struct buf in;	/* whole messages: kind, length, bytes; taken up to n_taken */
	size_t n_taken;
	str_t feed;	      /* of ws_frames_feed */
	unsigned n_fragments; /* of the message that is being received */
};
void ws_frames_init(struct ws_frames *w);
void ws_frames_fini(struct ws_frames *w);
/** Takes all of what was received, whatever it is; ws_frames_next must have returned false before. */
void ws_frames_feed(struct ws_frames *w, str_t bytes);
/** The next whole message, valid until the next feed. */
bool ws_frames_next(struct ws_frames *w, enum websocket_got *kind, str_t *message);
/** No more is read: the peer has closed, or has done wrong; out tells it so. */
bool ws_frames_has_ended(const struct ws_frames *w);
bool ws_frames_peer_has_closed(const struct ws_frames *w);
/** Each adds a frame to out; nothing once a close is in it. */
void ws_frames_add_text(struct ws_frames *w, str_t text);
void ws_frames_add_ping(struct ws_frames *w);
/** reason: at most 123 bytes of UTF-8. */
void ws_frames_add_close(struct ws_frames *w, unsigned code, str_t reason);

/* --- websocket.c --- */
/** Runs the route's handler on what was a connection of HTTP/1, and closes. held: the answer 101, behind
 * those to earlier requests, to be written first; taken over. */
void websocket_serve(struct http_session *s, struct http_request *r, const struct http_route *route,
		     struct buf *held);
