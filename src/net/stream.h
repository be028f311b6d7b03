/* stream.h - a connection as straight-line code sees it: buffered reads, complete writes, a deadline on
 * each. One fiber reads and one writes at a time. TCP, and TLS (tls.h) below the same calls. Every function
 * with a deadline yields and may fail with ERR_TIMEOUT, ERR_CANCELLED, ERR_CLOSED (reset, broken pipe; with
 * TLS also an end of input without close_notify) or ERR_IO; with TLS also ERR_PROTO. A TLS stream on which a
 * write has failed cannot be written any more. */
#pragma once

#include "fiber/fiber.h"
#include "net/addr.h"

#include <sys/uio.h>

struct stream;

/** Takes the (non-blocking) socket. The stream belongs to the calling worker. */
struct stream *stream_from_fd(int fd, const struct net_addr *local, const struct net_addr *peer);
void stream_free(struct stream *st); /* closes at once; NULL is fine; never yields */
const struct net_addr *stream_local(const struct stream *st);
const struct net_addr *stream_peer(const struct stream *st);

/** What has been received and not consumed; valid until the next call on the stream. */
str_t stream_buffered(const struct stream *st);
void stream_consume(struct stream *st, size_t n_bytes);
/** Waits for more input: 1 when the buffer grew, 0 at end of input (buffer unchanged), -1. A buffer that
 * already holds `max_bytes` is -1 ERR_LIMIT. An idle stream holds no buffer memory while it waits. */
MUST_CHECK int stream_fill(struct stream *st, size_t max_bytes, mono_t deadline);
/** From now on a buffer has room for that many bytes to begin with, for who expects much; 0: as at first, 4
 * KB. */
void stream_set_read_bytes(struct stream *st, size_t n_bytes);
/** Ends the present stream_fill with ERR_TIMEOUT, or else the next one: for a reader that also waits for
 * something else. From the same worker, does not yield. */
void stream_wake_reader(struct stream *st);
/** For bulk: reads straight into p what there is, at least one byte; what is buffered comes first. Returns
 * the number of bytes, 0 at end of input, -1. n_bytes is not 0. */
MUST_CHECK ssize_t stream_read(struct stream *st, void *p, size_t n_bytes, mono_t deadline);
/** One line without its end (LF or CRLF), consumed, valid until the next call. 1, 0 at end of input with
 * nothing buffered, -1 (ERR_LIMIT: longer than max_bytes; ERR_CLOSED: the input ended inside the line). */
MUST_CHECK int stream_read_line(struct stream *st, str_t *line, size_t max_bytes, mono_t deadline);
/** Writes all of it. */
MUST_CHECK int stream_write(struct stream *st, const void *p, size_t n_bytes, mono_t deadline);
/** As above for several pieces; iov is consumed (changed). */
MUST_CHECK int stream_writev(struct stream *st, struct iovec *iov, int n_iov, mono_t deadline);
/** True when the peer has sent something or closed: a kept connection that is about to be reused must answer
 * false. */
bool stream_has_input(struct stream *st);
void stream_shutdown_write(
	struct stream *st); /* half-close; of TLS, the close_notify that fits into the socket at once */
/** Half-close in good order: with TLS, close_notify is sent first, for which it may have to wait. Does not
 * wait for the peer's. Without it or stream_shutdown_write, stream_free cuts a TLS stream off, which the peer
 * can tell. */
MUST_CHECK int stream_goodbye(struct stream *st, mono_t deadline);
/** Sets SO_LINGER 0: stream_free resets the connection instead of closing it in order. */
void stream_set_abort(struct stream *st);
/** Reads and drops until end of input, limit or deadline: a lingering close, so that a peer still sending
 * sees our answer. */
void stream_drain(struct stream *st, size_t max_bytes, mono_t deadline);
