/* stream_tcp.c - the transport of a plain socket: a system call each, never waiting.
 *
 * Two cases answer -EAGAIN without asking the kernel. After a short read the socket was empty, so the next
 * read would find nothing in nearly every case: going straight to the (level-triggered) poll saves a system
 * call a request. And after TCP_TURN_CALLS calls without a wait the fiber is sent through the loop once, so
 * that a peer that is faster than we are cannot keep a worker to itself. */
#include "net/stream_impl.h"

#include <errno.h>
#include <unistd.h>

#define TCP_TURN_CALLS 32

static ssize_t tcp_read(struct stream *st, void *p, size_t n_bytes, int *events)
{
	*events = UV_READABLE;
	if (st->is_drained || st->n_reads == TCP_TURN_CALLS) {
		st->is_drained = false;
		st->n_reads = 0;
		return -EAGAIN;
	}
	ssize_t n;
	do {
		n = recv(st->fd, p, n_bytes, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		st->n_reads = 0;
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	}
	st->n_reads++;
	st->is_drained = n > 0 && (size_t)n < n_bytes;
	return n;
}

static ssize_t tcp_write(struct stream *st, const struct iovec *iov, int n_iov, int *events)
{
	*events = UV_WRITABLE;
	if (st->n_writes == TCP_TURN_CALLS) {
		st->n_writes = 0;
		return -EAGAIN;
	}
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n_iov};
	ssize_t n;
	do {
		n = sendmsg(st->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		st->n_writes = 0;
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	}
	st->n_writes++;
	return n;
}

static bool tcp_has_input(struct stream *st)
{
	char c;
	ssize_t n = recv(st->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
	return n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void tcp_shutdown_write(struct stream *st)
{
	shutdown(st->fd, SHUT_WR); /* fails only when the peer is gone: the next read tells */
}

static void tcp_close(struct stream *st)
{
	close(st->fd);
}

const struct stream_ops stream_tcp_ops = {
	.read = tcp_read,
	.write = tcp_write,
	.has_input = tcp_has_input,
	.shutdown_write = tcp_shutdown_write,
	.close = tcp_close,
};
