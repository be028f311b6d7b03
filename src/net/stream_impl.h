/* stream_impl.h - what sockets, streams and transports share inside src/net: readiness of a descriptor as
 * something a fiber waits for, and the seam below the stream calls. All of it belongs to one worker. */
#pragma once

#include "fiber/worker.h"
#include "net/stream.h"

/* Who waits. One fiber may read while another one writes; each has its own place, whichever readiness it is
 * after (a TLS reader may have to wait for writability). */
enum sock_side { SOCK_READER, SOCK_WRITER, SOCK_SIDES };

struct sock_poll;

/** @events UV_READABLE, UV_WRITABLE. *pp starts as NULL and is made at the first wait. Yields. The wait may
 * end without the socket being ready: try the system call again. -1 ERR_TIMEOUT, ERR_CANCELLED. */
MUST_CHECK int sock_poll_wait(struct sock_poll **pp, int fd, enum sock_side side, int events,
			      mono_t deadline);
/** Ends the wait of one side, if there is one. p may be NULL. */
void sock_poll_wake(struct sock_poll *p, enum sock_side side);
/** Before the descriptor is closed; NULL is fine. The handle outlives this call by a turn of the loop. */
void sock_poll_close(struct sock_poll *p);

/* A transport never waits. read and write return bytes moved (read: 0 is the end of input), or a negated
 * errno; with -EAGAIN, *events says which readiness to wait for before trying again. */
struct stream_ops {
	ssize_t (*read)(struct stream *st, void *p, size_t n_bytes, int *events);
	ssize_t (*write)(struct stream *st, const struct iovec *iov, int n_iov, int *events);
	bool (*has_input)(struct stream *st); /* beyond what the stream has buffered */
	void (*shutdown_write)(struct stream *st);
	void (*close)(struct stream *st); /* releases what the transport has, the descriptor included */
	/* Both may be NULL. goodbye: 0 once the end of the output is on its way, else as write. fail sets the
	 * error of a failure that an errno cannot tell; false: there is none. */
	ssize_t (*goodbye)(struct stream *st, int *events);
	bool (*fail)(const struct stream *st, const char *what);
};

struct tls;

struct stream {
	const struct stream_ops *ops;
	int fd;
	bool is_drained; /* TCP: the last read got less than it asked for, so the next would find nothing */
	uint8_t n_reads; /* TCP: calls since the last wait, see TCP_TURN_CALLS */
	uint8_t n_writes;
	bool is_woken;		     /* stream_wake_reader */
	bool is_write_cut;	     /* a write was given up with a part of it sent, perhaps */
	struct tls *tls;	     /* NULL in the clear */
	struct sock_poll *poll;	     /* NULL until something had to wait */
	char *in;		     /* NULL when nothing is buffered */
	size_t in_off, in_n, in_cap; /* in[in_off .. in_n) is buffered */
	size_t in_first;	     /* stream_set_read_bytes */
	struct net_addr local, peer;
};

extern const struct stream_ops stream_tcp_ops;

/** Waits on behalf of a transport; the error names the peer. Yields. */
MUST_CHECK int stream_wait(struct stream *st, enum sock_side side, int events, mono_t deadline);
