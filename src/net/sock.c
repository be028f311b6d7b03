/* sock.c - outgoing connections.
 *
 * The stream is made before the connection is there, so that the poll handle that waits for it to be
 * established is the one it goes on with. IP_BIND_ADDRESS_NO_PORT leaves the choice of the local port to
 * connect(): with thousands of connections from one source address, bind() would run out of ports that are
 * free for every destination. */
#include "net/sock.h"

#include "base/err.h"
#include "base/fault.h"
#include "net/stream_impl.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

static void sock_fail_connect(int sys_errno, const struct net_addr *to, const struct net_addr *source)
{
	char a[NET_ADDR_STRLEN], b[NET_ADDR_STRLEN];
	if (source != NULL)
		err_set_at(__FILE__, __LINE__, ERR_CONNECT, sys_errno, "connecting to %s from %s",
			   net_addr_fmt(to, a), net_addr_fmt_ip(source, b));
	else
		err_set_at(__FILE__, __LINE__, ERR_CONNECT, sys_errno, "connecting to %s",
			   net_addr_fmt(to, a));
}

static int sock_bind_source(int fd, const struct net_addr *source)
{
	int one = 1;
	if (net_addr_port(source) == 0)
		setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
			   sizeof(one)); /* bind() works without it, too */
	else
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, &source->sa, source->len) == 0 ? 0 : errno;
}

/* 0, or the errno of the connection attempt; -1 with the error set when the wait failed. */
static int sock_await_connect(struct stream *st, const struct net_addr *to, mono_t deadline)
{
	char a[NET_ADDR_STRLEN];
	struct net_addr peer;
	const char *before = fiber_set_waits_for("a connection");
	int rc;
	do {
		rc = sock_poll_wait(&st->poll, st->fd, SOCK_WRITER, UV_WRITABLE, deadline);
		if (rc != 0)
			break;
		int e = 0;
		socklen_t n = sizeof(e);
		if (getsockopt(st->fd, SOL_SOCKET, SO_ERROR, &e, &n) != 0)
			e = errno;
		if (e != 0) {
			rc = e;
			break;
		}
		peer.len = sizeof(peer.in6);
		rc = getpeername(st->fd, &peer.sa, &peer.len) == 0 ? 0 : errno;
	} while (rc == ENOTCONN); /* woken for nothing */
	fiber_set_waits_for(before);
	if (rc == -1)
		err_wrap("connecting to %s", net_addr_fmt(to, a));
	return rc;
}

struct stream *sock_connect(const struct net_addr *to, const struct net_addr *source, mono_t deadline)
{
	struct net_addr none = {.len = 0};
	struct stream *st = NULL;
	int one = 1, e = 0;

	if (FAULT(connect)) {
		sock_fail_connect(ECONNREFUSED, to, source);
		return NULL;
	}
	int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		sock_fail_connect(errno, to, source);
		return NULL;
	}
	st = stream_from_fd(fd, &none, to);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (source != NULL && (e = sock_bind_source(fd, source)) != 0)
		goto fail;
	if (connect(fd, &to->sa, to->len) != 0) {
		e = errno;
		if (e == EINPROGRESS)
			e = sock_await_connect(st, to, deadline);
		if (e == -1)
			goto out;
		if (e != 0)
			goto fail;
	}
	st->local.len = sizeof(st->local.in6);
	if (getsockname(fd, &st->local.sa, &st->local.len) != 0) {
		e = errno;
		goto fail;
	}
	/* A port of the local range that nobody listens on may be the one that connect() picked: it then met
	 * itself. */
	if (net_addr_eq_ip(&st->local, to) && net_addr_port(&st->local) == net_addr_port(to)) {
		e = ECONNREFUSED;
		goto fail;
	}
	return st;
fail:
	sock_fail_connect(e, to, source);
out:
	stream_free(st);
	return NULL;
}
