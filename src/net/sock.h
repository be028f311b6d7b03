/* sock.h - making connections: listening and connecting sockets. */
#pragma once

#include "net/stream.h"

/** Connects over TCP. Yields. @source local address to bind (port 0 as a rule), or NULL. -1 ERR_CONNECT (with
 * sys_errno; the text names the address), ERR_TIMEOUT, ERR_CANCELLED. Sets TCP_NODELAY. */
MUST_CHECK struct stream *sock_connect(const struct net_addr *to, const struct net_addr *source,
				       mono_t deadline);

/** A listening socket. Bound by listener_open (any thread; fails with ERR_IO naming the address), accepting
 * from listener_start on. Each connection is handed to the least-loaded worker and runs fn(st, arg) in a
 * fiber there; fn owns st. Accept pauses for a while at EMFILE/ENFILE/ENOBUFS (logged), never spins. */
struct listener;
typedef void listener_fn(struct stream *st, void *arg);
MUST_CHECK struct listener *listener_open(const struct net_addr *addr, const char *fiber_name,
					  listener_fn *fn, void *arg);
/** On a stream socket in the file system, with these permissions, removed at the end. What is at the path is
 * replaced only if it is a socket that nobody listens on. Its peers, and the listener itself, have the
 * address 127.0.0.1:0. */
MUST_CHECK struct listener *listener_open_unix(const char *path, unsigned mode, const char *fiber_name,
					       listener_fn *fn, void *arg);
/** On a listening socket that systemd has handed down under this name (LISTEN_PID, LISTEN_FDS,
 * LISTEN_FDNAMES; sd_listen_fds(3)). ERR_NOT_FOUND names those that are there. Of several with one name each
 * call takes the next. Main thread or one worker. */
MUST_CHECK struct listener *listener_open_inherited(const char *fd_name, const char *fiber_name,
						    listener_fn *fn, void *arg);
/** Accepting pauses while there are that many connections; further ones wait in the kernel's queue. 0: no
 * limit. Before listener_start. */
void listener_set_max_connections(struct listener *l, size_t max);
/** The bound one: the real port when 0 was asked for. */
const struct net_addr *listener_addr(const struct listener *l);
const char *listener_name(const struct listener *l); /* "127.0.0.1:25", "unix:/run/x" */
void listener_start(struct listener *l);	     /* any thread */
/** Stops accepting and closes the socket; connections go on. Any thread; takes effect soon. */
void listener_stop(struct listener *l);
size_t listener_n_connections(const struct listener *l);
/** Cancels the connections' fibers on every worker and waits until they are gone. After
 * listener_stop. Yields. -1 ERR_TIMEOUT, ERR_CANCELLED: some are left. */
MUST_CHECK int listener_join(struct listener *l, bool is_cancelling, mono_t deadline);
void listener_free(struct listener *l); /* after a successful join */
