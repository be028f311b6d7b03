/* sock_poll.c - waiting for a socket to become readable or writable.
 *
 * A uv_poll is level-triggered and stays registered after it fired: the usual cycle of a connection (wait,
 * read, answer, wait) then costs no epoll_ctl at all. Only when it fires and nobody waits for that readiness
 * is that one taken out of the registration, and it comes back with the next wait for it. `registered` is
 * what the kernel watches, `wanted` the union of what the two sides wait for at this moment; wanted is
 * always within registered.
 *
 * libuv reports POLLERR by stopping the handle with a status: everybody is woken and learns the error from
 * the system call he tries next.
 *
 * uv_close is asynchronous, so the handle is a block of its own, freed in the close callback. */
#include "base/alloc.h"
#include "base/err.h"
#include "net/stream_impl.h"

#include <stdlib.h>

struct sock_poll {
	uv_poll_t handle;
	int registered;
	struct {
		struct waiter *waiter; /* on the waiting fiber's stack; NULL when nobody waits */
		int events;
	} side[SOCK_SIDES];
};

static void sock_poll_on_event(uv_poll_t *h, int status, int events);

static int sock_poll_register(struct sock_poll *p, int events)
{
	if (events == p->registered)
		return 0;
	int rc = events != 0 ? uv_poll_start(&p->handle, events, sock_poll_on_event)
			     : uv_poll_stop(&p->handle);
	p->registered = rc == 0 ? events : 0;
	return rc;
}

static void sock_poll_on_event(uv_poll_t *h, int status, int events)
{
	struct sock_poll *p = container_of(h, struct sock_poll, handle);
	int wanted = 0;
	if (status < 0)
		p->registered = 0;
	for (int i = 0; i < SOCK_SIDES; i++) {
		if (p->side[i].waiter == NULL)
			continue;
		wanted |= p->side[i].events;
		if (status >= 0 && (p->side[i].events & events) == 0)
			continue;
		waiter_wake(p->side[i].waiter);
		p->side[i].waiter = NULL;
	}
	/* Narrowing cannot fail: the descriptor is registered already. */
	if (status >= 0 && (events & ~wanted) != 0)
		(void)sock_poll_register(p, p->registered & ~(events & ~wanted));
}

static struct sock_poll *sock_poll_new(int fd)
{
	struct sock_poll *p = xnew(struct sock_poll);
	int rc = uv_poll_init(worker_loop(worker_self()), &p->handle, fd);
	if (rc == 0)
		return p;
	err_set_sys(-rc, "watching descriptor %d", fd);
	free(p);
	return NULL;
}

int sock_poll_wait(struct sock_poll **pp, int fd, enum sock_side side, int events, mono_t deadline)
{
	struct waiter w;
	struct sock_poll *p = *pp;
	if (p == NULL && (p = *pp = sock_poll_new(fd)) == NULL)
		return -1;
	if (p->side[side].waiter != NULL)
		panic("two fibers wait for the same side of descriptor %d", fd);
	int rc = sock_poll_register(p, p->registered | events);
	if (rc != 0) {
		err_set_sys(-rc, "watching descriptor %d", fd);
		return -1;
	}
	waiter_init(&w);
	p->side[side].waiter = &w;
	p->side[side].events = events;
	rc = fiber_wait(&w, deadline);
	p->side[side].waiter = NULL;
	return rc;
}

void sock_poll_wake(struct sock_poll *p, enum sock_side side)
{
	if (p == NULL || p->side[side].waiter == NULL)
		return;
	waiter_wake(p->side[side].waiter);
	p->side[side].waiter = NULL;
}

static void sock_poll_on_closed(uv_handle_t *h)
{
	free(container_of((uv_poll_t *)h, struct sock_poll, handle));
}

void sock_poll_close(struct sock_poll *p)
{
	if (p == NULL)
		return;
	for (int i = 0; i < SOCK_SIDES; i++)
		if (p->side[i].waiter != NULL)
			panic("a socket is closed while a fiber waits for it");
	uv_close((uv_handle_t *)&p->handle, sock_poll_on_closed);
}
