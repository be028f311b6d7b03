/* listener.c - listening sockets.
 *
 * One fiber on the listener's home worker (the one that started it, else worker 0) accepts, a bounded number
 * at a time, and hands each connection to the least-loaded worker: a mail carries the descriptor, the stream
 * and its fiber are made there. Each worker has a lane of the listener: the fiber group of its connections.
 *
 * Ending. listener_stop makes the accepting fiber return, which closes the socket and then posts a fence to
 * every lane. Mail from one sender stays in order, so behind the fence no connection can arrive any more;
 * only then is an empty lane empty for good. listener_join runs a fiber on every worker that cancels the
 * lane, waits for the fence and joins the group. These fibers may outlive the call (deadline), so they hold
 * references to the listener.
 *
 * At the cap of connections the accepting fiber raises is_full and waits; whoever ends a connection and finds
 * the flag raised takes it down and sends the home worker a mail. The flag is raised before the count is
 * looked at again, and taken down after the count has gone down, so one of the two sees the other.
 *
 * Threads: `lock` guards home, is_stopped and fd before the accepting fiber runs; a lane belongs to its
 * worker. */
#include "net/sock.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "fiber/sync.h"
#include "net/listen.h"
#include "net/stream_impl.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LISTENER_TARGET "kumod::net"
#define LISTENER_BACKLOG 4096
#define LISTENER_BATCH 64	   /* accepted before others get a turn */
#define LISTENER_PAUSE dur_ms(100) /* when descriptors or memory ran out */
#define LISTENER_COMPLAIN_EVERY dur_s(10)

struct lane {
	struct fiber_group group;
	struct listener *listener;
	bool is_cancelling; /* what arrives is closed at once */
	bool is_fenced;	    /* nothing arrives any more */
	struct fiber_cond fence;
};

struct listener {
	atomic_uint n_refs;
	atomic_size_t n_connections; /* accepted and not ended */
	atomic_bool is_full;	     /* the accepting fiber waits for one to end */
	size_t max_connections;	     /* 0: no limit */
	struct net_addr addr;	     /* the bound one */
	struct listen_unix path;     /* of a socket in the file system */
	char *name;		     /* for people */
	char fiber_name[32];
	listener_fn *fn;
	void *arg;

	pthread_mutex_t lock;
	int fd; /* -1: closed */
	bool is_stopped;
	struct worker *home; /* NULL: not started */
	struct lane *lane;   /* one per worker, from listener_start on */
	unsigned n_lanes;

	/* Of the home worker. */
	struct fiber_group accepting;
	struct fiber_cond room;
	struct sock_poll *poll;
	mono_t next_complaint;
};

/* A connection on its way to its worker. */
struct handover {
	struct mail mail;
	struct lane *lane;
	int fd;
	struct net_addr local, peer;
};

struct conn {
	struct lane *lane;
	struct stream *stream;
};

/* One listener_join on its way through the workers. */
struct joint {
	atomic_uint n_refs;
	atomic_uint n_left; /* lanes not joined yet */
	struct listener *listener;
	struct event *done;
	bool is_cancelling;
	mono_t deadline;
};

/* --- opening --- */

static int listener_bind(const struct net_addr *addr)
{
	char text[NET_ADDR_STRLEN];
	int one = 1;
	int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err_set_sys(errno, "listening on %s", net_addr_fmt(addr, text));
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* accepted sockets inherit it */
	if (addr->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, &addr->sa, addr->len) == 0 && listen(fd, LISTENER_BACKLOG) == 0)
		return fd;
	err_set_sys(errno, "listening on %s", net_addr_fmt(addr, text));
	close(fd);
	return -1;
}

/* A socket that is not of the Internet has no address that anybody could compare: it is this machine. */
static void listener_set_local_host(struct net_addr *a)
{
	memset(a, 0, sizeof(*a));
	a->in4.sin_family = AF_INET;
	a->in4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a->len = sizeof(a->in4);
}

static void listener_normalize(struct net_addr *a)
{
	if (a->len == 0 || (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6))
		listener_set_local_host(a);
}

/* Takes the listening socket. */
static struct listener *listener_new(int fd, const char *fiber_name, listener_fn *fn, void *arg)
{
	char text[NET_ADDR_STRLEN];
	struct listener *l = xnew(struct listener);
	atomic_init(&l->n_refs, 1);
	l->fd = fd;
	l->fn = fn;
	l->arg = arg;
	snprintf(l->fiber_name, sizeof(l->fiber_name), "%s", fiber_name);
	pthread_mutex_init(&l->lock, NULL);
	fiber_cond_init(&l->room);
	l->addr.len = sizeof(l->addr.in6);
	if (getsockname(fd, &l->addr.sa, &l->addr.len) != 0)
		l->addr.len = 0;
	listener_normalize(&l->addr);
	l->name = xstrdup(net_addr_fmt(&l->addr, text));
	return l;
}

struct listener *listener_open(const struct net_addr *addr, const char *fiber_name, listener_fn *fn,
			       void *arg)
{
	int fd = listener_bind(addr);
	return fd >= 0 ? listener_new(fd, fiber_name, fn, arg) : NULL;
}

struct listener *listener_open_unix(const char *path, unsigned mode, const char *fiber_name, listener_fn *fn,
				    void *arg)
{
	struct listen_unix bound;
	int fd = listen_unix_bind(path, mode, LISTENER_BACKLOG, &bound);
	if (fd < 0)
		return NULL;
	struct listener *l = listener_new(fd, fiber_name, fn, arg);
	l->path = bound;
	free(l->name);
	l->name = xasprintf("unix:%s", path);
	return l;
}

struct listener *listener_open_inherited(const char *fd_name, const char *fiber_name, listener_fn *fn,
					 void *arg)
{
	int fd = listen_inherit(fd_name, LISTENER_BACKLOG);
	if (fd < 0)
		return NULL;
	struct listener *l = listener_new(fd, fiber_name, fn, arg);
	if (net_addr_port(&l->addr) == 0) {
		free(l->name);
		l->name = xasprintf("fd:%s", fd_name);
	}
	return l;
}

void listener_set_max_connections(struct listener *l, size_t max)
{
	l->max_connections = max;
}

const char *listener_name(const struct listener *l)
{
	return l->name;
}

const struct net_addr *listener_addr(const struct listener *l)
{
	return &l->addr;
}

size_t listener_n_connections(const struct listener *l)
{
	return atomic_load_explicit(&l->n_connections, memory_order_acquire);
}

static struct listener *listener_ref(struct listener *l)
{
	atomic_fetch_add_explicit(&l->n_refs, 1, memory_order_relaxed);
	return l;
}

static void listener_unref(struct listener *l)
{
	if (atomic_fetch_sub_explicit(&l->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	if (l->fd >= 0)
		close(l->fd);
	listen_unix_remove(&l->path);
	pthread_mutex_destroy(&l->lock);
	free(l->name);
	free(l->lane);
	free(l);
}

/* --- connections, on their worker --- */

static void listener_make_room(void *arg)
{
	struct listener *l = arg;
	fiber_cond_broadcast(&l->room);
	listener_unref(l);
}

static void listener_connection_ended(struct listener *l)
{
	atomic_fetch_sub(&l->n_connections, 1);
	if (l->max_connections != 0 && atomic_load(&l->is_full) && atomic_exchange(&l->is_full, false))
		worker_post(l->home, listener_make_room, listener_ref(l));
}

static void listener_run_connection(void *arg)
{
	struct conn *c = arg;
	struct listener *l = c->lane->listener;
	struct stream *st = c->stream;
	free(c);
	l->fn(st, l->arg);
	listener_connection_ended(l);
}

static void listener_arrive(void *arg)
{
	struct handover *h = arg;
	struct lane *lane = h->lane;
	if (lane->is_cancelling) {
		close(h->fd);
		listener_connection_ended(lane->listener);
	} else {
		struct conn *c = xnew(struct conn);
		c->lane = lane;
		c->stream = stream_from_fd(h->fd, &h->local, &h->peer);
		fiber_start(&lane->group, lane->listener->fiber_name, listener_run_connection, c);
	}
	free(h);
}

static void listener_hand_over(struct listener *l, int fd, const struct net_addr *peer)
{
	struct worker *w = worker_least_loaded();
	struct handover *h = xnew(struct handover);
	h->lane = &l->lane[worker_index(w)];
	h->fd = fd;
	h->peer = *peer;
	h->local.len = sizeof(h->local.in6);
	if (getsockname(fd, &h->local.sa, &h->local.len) != 0)
		h->local = l->addr;
	listener_normalize(&h->peer);
	listener_normalize(&h->local);
	h->mail.fn = listener_arrive;
	h->mail.arg = h;
	atomic_fetch_add_explicit(&l->n_connections, 1, memory_order_relaxed);
	if (w == worker_self())
		listener_arrive(h);
	else
		worker_post_mail(w, &h->mail);
}

/* --- accepting, on the home worker --- */

static int listener_accept_one(struct listener *l, struct net_addr *peer)
{
	memset(peer, 0, sizeof(*peer));
	peer->len = sizeof(peer->in6);
	if (FAULT(accept)) {
		errno = EMFILE;
		return -1;
	}
	return accept4(l->fd, &peer->sa, &peer->len, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static void listener_complain(struct listener *l, int sys_errno)
{
	if (!mono_is_past(l->next_complaint))
		return;
	l->next_complaint = mono_after(LISTENER_COMPLAIN_EVERY);
	log_error(LISTENER_TARGET, "cannot accept connections on %s, trying again soon: %s", l->name,
		  strerror(sys_errno));
}

static bool listener_is_full(const struct listener *l)
{
	return l->max_connections != 0 && atomic_load(&l->n_connections) >= l->max_connections;
}

/* -1: cancelled. */
static int listener_wait_for_room(struct listener *l)
{
	const char *before = fiber_set_waits_for("fewer connections");
	log_debug(LISTENER_TARGET, "%s has all %zu connections that it may have", l->name,
		  l->max_connections);
	int rc = 0;
	for (;;) {
		atomic_store(&l->is_full, true);
		if (!listener_is_full(l))
			break;
		if ((rc = fiber_cond_wait(&l->room, MONO_NEVER)) != 0)
			break;
	}
	atomic_store(&l->is_full, false);
	fiber_set_waits_for(before);
	return rc;
}

/* Accepts what is there, up to a batch. -1: cancelled. */
static int listener_accept_batch(struct listener *l)
{
	struct net_addr peer;
	if (listener_is_full(l))
		return listener_wait_for_room(l);
	for (int i = 0; i < LISTENER_BATCH; i++) {
		int fd = listener_accept_one(l, &peer);
		if (fd >= 0) {
			listener_hand_over(l, fd, &peer);
			if (listener_is_full(l))
				return 0;
			continue;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			listener_complain(l, errno);
			return fiber_sleep(LISTENER_PAUSE, MONO_NEVER);
		}
		/* Anything else is the fate of one connection (accept(2), "Error handling"). */
	}
	/* Also after a full batch: the poll is level-triggered, and the worker's other sockets get their
	 * turn. */
	return sock_poll_wait(&l->poll, l->fd, SOCK_READER, UV_READABLE, MONO_NEVER);
}

static void listener_arrive_fence(void *arg)
{
	struct lane *lane = arg;
	lane->is_fenced = true;
	fiber_cond_broadcast(&lane->fence);
	listener_unref(lane->listener);
}

/* On the home worker: the socket goes, then the fences. */
static void listener_close(struct listener *l)
{
	sock_poll_close(l->poll);
	l->poll = NULL;
	pthread_mutex_lock(&l->lock);
	close(l->fd);
	l->fd = -1;
	pthread_mutex_unlock(&l->lock);
	for (unsigned i = 0; i < l->n_lanes; i++) {
		listener_ref(l);
		if (worker_get(i) == worker_self())
			listener_arrive_fence(&l->lane[i]);
		else
			worker_post(worker_get(i), listener_arrive_fence, &l->lane[i]);
	}
	listener_unref(l); /* listener_start's */
}

static void listener_accept(void *arg)
{
	struct listener *l = arg;
	fiber_set_waits_for("connections");
	while (listener_accept_batch(l) == 0)
		;
	if (!err_is(ERR_CANCELLED))
		log_error(LISTENER_TARGET, "a listener ends: %s", err_text());
	err_clear();
	listener_close(l);
}

static void listener_begin(void *arg)
{
	struct listener *l = arg;
	char name[40];
	pthread_mutex_lock(&l->lock);
	bool is_stopped = l->is_stopped; /* by another thread, whose mail may have come first */
	pthread_mutex_unlock(&l->lock);
	if (is_stopped) {
		listener_close(l);
		return;
	}
	snprintf(name, sizeof(name), "accept %s", l->fiber_name);
	fiber_start(&l->accepting, name, listener_accept, l);
}

static void listener_end(void *arg)
{
	struct listener *l = arg;
	fiber_group_cancel(&l->accepting);
	listener_unref(l);
}

void listener_start(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	if (l->home == NULL && !l->is_stopped) {
		l->home = worker_self() != NULL ? worker_self() : worker_get(0);
		l->n_lanes = workers_count();
		l->lane = xcalloc(l->n_lanes, sizeof(*l->lane));
		for (unsigned i = 0; i < l->n_lanes; i++) {
			l->lane[i].listener = l;
			fiber_group_init(&l->lane[i].group);
			fiber_cond_init(&l->lane[i].fence);
		}
		fiber_group_init(&l->accepting);
		worker_post(l->home, listener_begin, listener_ref(l));
	}
	pthread_mutex_unlock(&l->lock);
}

void listener_stop(struct listener *l)
{
	pthread_mutex_lock(&l->lock);
	if (!l->is_stopped) {
		l->is_stopped = true;
		if (l->home != NULL) {
			worker_post(l->home, listener_end, listener_ref(l));
		} else {
			close(l->fd);
			l->fd = -1;
		}
	}
	pthread_mutex_unlock(&l->lock);
}

/* --- joining --- */

static void listener_joint_unref(struct joint *j)
{
	if (atomic_fetch_sub_explicit(&j->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	event_unref(j->done);
	listener_unref(j->listener);
	free(j);
}

static int listener_join_lane(struct lane *lane, mono_t deadline)
{
	while (!lane->is_fenced)
		if (fiber_cond_wait(&lane->fence, deadline) != 0)
			return -1;
	return fiber_group_join(&lane->group, deadline);
}

static void listener_join_on_worker(void *arg)
{
	struct joint *j = arg;
	struct lane *lane = &j->listener->lane[worker_index(worker_self())];
	if (j->is_cancelling) {
		lane->is_cancelling = true;
		fiber_group_cancel(&lane->group);
	}
	if (listener_join_lane(lane, j->deadline) != 0)
		err_clear(); /* the joiner has the same deadline, and a text of its own */
	else if (atomic_fetch_sub_explicit(&j->n_left, 1, memory_order_acq_rel) == 1)
		event_fire(j->done);
	listener_joint_unref(j);
}

int listener_join(struct listener *l, bool is_cancelling, mono_t deadline)
{
	if (l->home == NULL)
		return 0;
	struct joint *j = xnew(struct joint);
	atomic_init(&j->n_refs, l->n_lanes + 1);
	atomic_init(&j->n_left, l->n_lanes);
	j->listener = listener_ref(l);
	j->done = event_new();
	j->is_cancelling = is_cancelling;
	j->deadline = deadline;
	for (unsigned i = 0; i < l->n_lanes; i++)
		worker_start_fiber(worker_get(i), "listener-join", listener_join_on_worker, j);
	int rc = event_wait(j->done, deadline);
	if (rc != 0)
		err_wrap("%zu connections of %s are left", listener_n_connections(l), l->name);
	listener_joint_unref(j);
	return rc;
}

void listener_free(struct listener *l)
{
	if (l != NULL)
		listener_unref(l);
}
