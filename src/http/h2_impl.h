/* h2_impl.h - what the files of HTTP/2 (RFC 9113) share. h2_session.c turns frames into streams and back,
 * without I/O; h2_stream.c answers one request; h2_conn.c reads and writes. All of a connection belongs to
 * one worker. */
#pragma once

#include "fiber/sync.h"
#include "http/http_impl.h"
#include "net/stream.h"

#include <nghttp2/nghttp2.h>

enum {
	H2_MAX_HEADER_LIST = HTTP_MAX_HEADER_BYTES,   /* as RFC 9113 section 6.5.2 counts; more: 431 */
	H2_CALM_HEADER_LIST = 8 * H2_MAX_HEADER_LIST, /* of one header section; more ends the connection */
	H2_STREAM_WINDOW = 65535,		      /* until a request is let in */
	H2_BODY_WINDOW = 512 << 10,		      /* then, for large bodies */
	H2_CONN_WINDOW = 1 << 20,
	H2_OUT_BYTES = 65536, /* of frames gathered for one write */
	/* bytes of answers that wait for the client; then no further handler is run */
	H2_MAX_UNSENT = 8 << 20,
	H2_RESET_BURST = 500,
	H2_RESETS_PER_S = 25,
	H2_CONTROL_BURST = 1000,
	H2_CONTROLS_PER_S = 100,
	H2_FRAME_HEAD = 9,
	H2_TINY_WINDOW = 256, /* a smaller increment counts as control frame */
};

/* What a client may do for free: `level` drains at a rate and must not exceed a burst. */
struct h2_budget {
	double level;
	mono_t at;
};

struct h2_conn {
	struct http_session *session;
	struct stream *st;
	struct http_listener *l;
	nghttp2_session *h2;
	struct fiber_group requests; /* a fiber for each stream that is being worked on */
	struct fiber_group writers;  /* one at most, while there is something to write */
	struct fiber_cond unsent_less;
	struct list streams;	     /* struct h2_stream.link */
	size_t n_streams, n_running; /* in the list; of these, with a fiber */
	uint64_t n_begun;	     /* streams ever */
	size_t n_unsent;	     /* bytes of answers that have not been sent */
	uint64_t n_update_credit;    /* WINDOW_UPDATE frames that our DATA frames explain */
	struct buf out;
	bool is_writing;	/* there is a writer */
	bool is_broken;		/* nothing can be written any more */
	bool is_calmed;		/* ended with ENHANCE_YOUR_CALM */
	bool is_ending;		/* no more input */
	bool has_settings;	/* the client's first frame is there */
	mono_t stopping_since;	/* 0: the listener goes on */
	mono_t idle_since;	/* the last stream ended; or the connection began */
	mono_t header_deadline; /* of the header section that is arriving, or of the first frame; MONO_NEVER:
				   none */
	int32_t header_stream;	/* whose it is, or was */
	struct h2_budget resets, controls;
	/* h2_count_frames: length and type of the next frame, as far as they have come; bytes until it
	 * begins. */
	uint8_t head[4];
	size_t n_head, n_skip;
};

enum h2_intake {
	H2_HOLD, /* the request has not been let in: its body is kept as it is, within the stream's window */
	H2_TAKE, /* into the body */
	H2_DROP, /* nobody will look at it */
};

struct h2_stream {
	struct h2_conn *c;
	struct list link;
	int32_t id;
	bool is_running;      /* its fiber uses it */
	bool is_closed;	      /* nghttp2 has forgotten it */
	bool is_request_done; /* all of it is here */
	bool is_sending;      /* the answer is submitted and not sent yet */
	enum h2_intake intake;
	int status; /* why the request is refused, found out while it arrived; 0: it is not */
	const char *why;
	struct waiter *waiter; /* of its fiber, while that waits for the body */

	struct arena arena;
	struct http_request r;
	struct http_framing f;
	struct http_response a;
	struct http_body body;
	struct buf early;     /* H2_HOLD */
	size_t n_header_list; /* bytes, as they are counted */
	str_t path, authority;
	size_t n_sent; /* of a.body */
	mono_t send_begun;
	mono_t unwanted_since; /* answered, with the request still coming; 0: it is not so */
};

/* --- h2_session.c --- */
void h2_session_open(struct h2_conn *c);
void h2_session_close(struct h2_conn *c); /* frees the streams, none of which is running */
void h2_stream_free(struct h2_stream *s);
/** Counts the frames that nghttp2 passes over without a
 * word; `in` is all that comes, the preface included. */
void h2_count_frames(struct h2_conn *c, str_t in);
void h2_submit_answer(struct h2_stream *s);

/* --- h2_stream.c --- */
/** The header section is complete: starts the fiber that answers. Does not yield. */
void h2_stream_begin(struct h2_stream *s);
/** More of the request has come, or will not come. Does not yield. */
void h2_stream_wake(struct h2_stream *s);
void h2_request_add_header(struct h2_stream *s, str_t name, str_t value); /* copied by the caller */

/* --- h2_conn.c --- */
/** There may be something to write. Does not yield. */
void h2_want_write(struct h2_conn *c);
/** A stream is gone. Does not yield. */
void h2_conn_stream_gone(struct h2_conn *c);
