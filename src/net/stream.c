/* stream.c - buffered reading and complete writing over a transport (struct stream_ops).
 *
 * Every operation is the same loop: ask the transport; at -EAGAIN wait for the readiness that it named; ask
 * again.
 *
 * Input lies in one block, in[in_off .. in_n). It starts at STREAM_IN_FIRST, doubles when a caller wants to
 * see more at once, up to the caller's max_bytes, and is given back as soon as a wait begins with nothing
 * buffered: an idle connection is the struct, its poll handle and its fiber. Consumed bytes only move
 * in_off, so what a call returned stays valid until the next one; the rest moves down when the room behind
 * it is used up.
 *
 * Reading and writing share nothing but the descriptor, so one fiber may do each. */
#include "base/alloc.h"
#include "base/err.h"
#include "net/stream_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#define STREAM_IN_FIRST 4096

struct stream *stream_from_fd(int fd, const struct net_addr *local, const struct net_addr *peer)
{
	struct stream *st = xnew(struct stream);
	st->ops = &stream_tcp_ops;
	st->fd = fd;
	st->local = *local;
	st->peer = *peer;
	return st;
}

void stream_free(struct stream *st)
{
	if (st == NULL)
		return;
	sock_poll_close(st->poll);
	st->ops->close(st);
	free(st->in);
	free(st);
}

const struct net_addr *stream_local(const struct stream *st)
{
	return &st->local;
}

const struct net_addr *stream_peer(const struct stream *st)
{
	return &st->peer;
}

static void stream_fail(const struct stream *st, const char *what, int sys_errno)
{
	char peer[NET_ADDR_STRLEN];
	if (sys_errno == EPROTO && st->ops->fail != NULL && st->ops->fail(st, what))
		return;
	switch (sys_errno) {
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
	case ETIMEDOUT: /* the kernel gave up resending */
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ENETDOWN:
	case ENOTCONN:
		err_set_at(__FILE__, __LINE__, ERR_CLOSED, sys_errno, "%s %s", what,
			   net_addr_fmt(&st->peer, peer));
		return;
	default:
		err_set_sys(sys_errno, "%s %s", what, net_addr_fmt(&st->peer, peer));
	}
}

int stream_wait(struct stream *st, enum sock_side side, int events, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	const char *before = fiber_set_waits_for(side == SOCK_READER ? "input" : "room for output");
	int rc = sock_poll_wait(&st->poll, st->fd, side, events, deadline);
	fiber_set_waits_for(before);
	if (rc != 0)
		err_wrap("%s %s", side == SOCK_READER ? "reading from" : "writing to",
			 net_addr_fmt(&st->peer, peer));
	return rc;
}

/* --- reading --- */

str_t stream_buffered(const struct stream *st)
{
	return st->in_n > st->in_off ? str_mk(st->in + st->in_off, st->in_n - st->in_off) : STR_NULL;
}

void stream_consume(struct stream *st, size_t n_bytes)
{
	if (n_bytes > st->in_n - st->in_off)
		panic("stream_consume of %zu bytes, %zu are buffered", n_bytes, st->in_n - st->in_off);
	st->in_off += n_bytes;
}

/* Room for at least one more byte, with max_bytes buffered at most. Returns how many may be read. */
static size_t stream_make_room(struct stream *st, size_t max_bytes)
{
	size_t n_held = st->in_n - st->in_off, n_least = st->in_cap / 4;
	if (st->in_off > 0 && (n_held == 0 || st->in_cap - st->in_n < n_least)) {
		memmove(st->in, st->in + st->in_off, n_held);
		st->in_off = 0;
		st->in_n = n_held;
	}
	if (st->in_cap == 0 || st->in_cap < st->in_first || st->in_cap - st->in_n < n_least) {
		size_t n_first = st->in_first > STREAM_IN_FIRST ? st->in_first : STREAM_IN_FIRST;
		st->in_cap = st->in_cap < n_first ? n_first : st->in_cap * 2;
		st->in = xrealloc(st->in, st->in_cap);
	}
	size_t n_room = st->in_cap - st->in_n, n_allowed = max_bytes - n_held;
	return n_room < n_allowed ? n_room : n_allowed;
}

void stream_set_read_bytes(struct stream *st, size_t n_bytes)
{
	st->in_first = n_bytes;
}

static void stream_drop_empty_buffer(struct stream *st)
{
	if (st->in_n != st->in_off)
		return;
	free(st->in);
	st->in = NULL;
	st->in_off = st->in_n = st->in_cap = 0;
}

static bool stream_take_wake(struct stream *st)
{
	if (LIKELY(!st->is_woken))
		return false;
	st->is_woken = false;
	err_set(ERR_TIMEOUT, "the reader was woken");
	return true;
}

int stream_fill(struct stream *st, size_t max_bytes, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	int events;
	if (st->in_n - st->in_off >= max_bytes) {
		err_set(ERR_LIMIT, "more than %zu bytes from %s without an end", max_bytes,
			net_addr_fmt(&st->peer, peer));
		return -1;
	}
	for (;;) {
		size_t n_room = stream_make_room(st, max_bytes);
		ssize_t n = st->ops->read(st, st->in + st->in_n, n_room, &events);
		if (n > 0) {
			st->in_n += (size_t)n;
			return 1;
		}
		if (n == 0)
			return 0;
		if (n != -EAGAIN) {
			stream_fail(st, "reading from", (int)-n);
			return -1;
		}
		stream_drop_empty_buffer(st);
		if (stream_take_wake(st) || stream_wait(st, SOCK_READER, events, deadline) != 0 ||
		    stream_take_wake(st))
			return -1;
	}
}

void stream_wake_reader(struct stream *st)
{
	st->is_woken = true;
	sock_poll_wake(st->poll, SOCK_READER);
}

ssize_t stream_read(struct stream *st, void *p, size_t n_bytes, mono_t deadline)
{
	int events;
	str_t in = str_head(stream_buffered(st), n_bytes);
	if (n_bytes == 0)
		panic("stream_read of no bytes");
	if (in.n > 0) {
		memcpy(p, in.p, in.n);
		st->in_off += in.n;
		return (ssize_t)in.n;
	}
	for (;;) {
		ssize_t n = st->ops->read(st, p, n_bytes, &events);
		if (n >= 0)
			return n;
		if (n != -EAGAIN) {
			stream_fail(st, "reading from", (int)-n);
			return -1;
		}
		stream_drop_empty_buffer(st);
		if (stream_wait(st, SOCK_READER, events, deadline) != 0)
			return -1;
	}
}

int stream_read_line(struct stream *st, str_t *line, size_t max_bytes, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	size_t n_scanned = 0;
	/* The buffer may hold more than a line: pipelined commands should not cost a read each. */
	size_t max_held = max_bytes + 2 > STREAM_IN_FIRST ? max_bytes + 2 : STREAM_IN_FIRST;
	for (;;) {
		str_t in = stream_buffered(st);
		ptrdiff_t lf = str_chr(in, '\n', n_scanned);
		size_t n_line = lf >= 0 ? (size_t)lf : in.n;
		if (n_line > 0 && in.p[n_line - 1] == '\r')
			n_line--; /* without an LF yet, it may become a line end */
		if (n_line > max_bytes) {
			err_set(ERR_LIMIT, "a line longer than %zu bytes from %s", max_bytes,
				net_addr_fmt(&st->peer, peer));
			return -1;
		}
		if (lf >= 0) {
			*line = str_head(in, n_line);
			stream_consume(st, (size_t)lf + 1);
			return 1;
		}
		n_scanned = in.n;
		int rc = stream_fill(st, max_held, deadline);
		if (rc < 0)
			return -1;
		if (rc == 0 && in.n == 0)
			return 0;
		if (rc == 0) {
			err_set(ERR_CLOSED, "%s closed the connection inside a line",
				net_addr_fmt(&st->peer, peer));
			return -1;
		}
	}
}

bool stream_has_input(struct stream *st)
{
	return st->in_n != st->in_off || st->ops->has_input(st);
}

void stream_drain(struct stream *st, size_t max_bytes, mono_t deadline)
{
	char waste[4096];
	int events;
	size_t n_dropped = st->in_n - st->in_off;
	st->in_off = st->in_n;
	while (n_dropped < max_bytes) {
		size_t n_left = max_bytes - n_dropped;
		ssize_t n =
			st->ops->read(st, waste, n_left < sizeof(waste) ? n_left : sizeof(waste), &events);
		if (n > 0) {
			n_dropped += (size_t)n;
			continue;
		}
		if (n != -EAGAIN)
			return;
		stream_drop_empty_buffer(st);
		if (stream_wait(st, SOCK_READER, events, deadline) != 0) {
			err_clear(); /* nobody waits for input any more; a cancel shows at the next wait */
			return;
		}
	}
}

/* --- writing --- */

int stream_write(struct stream *st, const void *p, size_t n_bytes, mono_t deadline)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n_bytes};
	return stream_writev(st, &iov, 1, deadline);
}

int stream_writev(struct stream *st, struct iovec *iov, int n_iov, mono_t deadline)
{
	int events;
	for (;;) {
		while (n_iov > 0 && iov->iov_len == 0)
			iov++, n_iov--;
		if (n_iov == 0)
			return 0;
		ssize_t n = st->ops->write(st, iov, n_iov < IOV_MAX ? n_iov : IOV_MAX, &events);
		if (n == -EAGAIN) {
			if (stream_wait(st, SOCK_WRITER, events, deadline) != 0) {
				st->is_write_cut = true;
				return -1;
			}
			continue;
		}
		if (n < 0) {
			stream_fail(st, "writing to", (int)-n);
			return -1;
		}
		for (size_t n_done = (size_t)n; n_done > 0;) {
			size_t n_step = n_done < iov->iov_len ? n_done : iov->iov_len;
			iov->iov_base = (char *)iov->iov_base + n_step;
			iov->iov_len -= n_step;
			n_done -= n_step;
			if (iov->iov_len == 0)
				iov++, n_iov--;
		}
	}
}

void stream_shutdown_write(struct stream *st)
{
	st->ops->shutdown_write(st);
}

int stream_goodbye(struct stream *st, mono_t deadline)
{
	ssize_t rc = 0;
	int events;
	while (st->ops->goodbye != NULL && (rc = st->ops->goodbye(st, &events)) == -EAGAIN)
		if (stream_wait(st, SOCK_WRITER, events, deadline) != 0)
			return -1;
	if (rc != 0) {
		stream_fail(st, "ending the stream to", (int)-rc);
		return -1;
	}
	st->ops->shutdown_write(st);
	return 0;
}

void stream_set_abort(struct stream *st)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};
	setsockopt(st->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}
