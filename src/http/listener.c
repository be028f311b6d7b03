/* listener.c - an HTTP listener: its parameters, and its end in good order.
 *
 * Sockets, accepting and the placing of connections are src/net's, and so is the list of the connections
 * (crowd.h). When the listener stops, those that wait for a request are cancelled: nothing is lost by that,
 * they have none. The others look at the crowd's flag before they wait for one, and when they write an
 * answer. */
#include "http/http_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "net/tls_source.h"

#include <stdlib.h>
#include <sys/resource.h>

#define HTTP_CANCEL_TIMEOUT dur_s(5) /* for cancelled fibers to return */

static void http_listener_set_defaults(struct http_listener_params *p)
{
	if (p->header_timeout.ns == 0)
		p->header_timeout = dur_s(30);
	if (p->body_timeout.ns == 0)
		p->body_timeout = dur_s(60);
	if (p->idle_timeout.ns == 0)
		p->idle_timeout = dur_s(75);
	if (p->write_timeout.ns == 0)
		p->write_timeout = dur_s(60);
	if (p->handler_timeout.ns == 0)
		p->handler_timeout = dur_s(300);
	if (p->max_connections == 0)
		p->max_connections = 15000;
	if (p->max_connections_per_host == 0)
		p->max_connections_per_host = 1000;
	if (p->max_concurrent_streams == 0)
		p->max_concurrent_streams = 100;
	if (p->max_request_headers == 0)
		p->max_request_headers = HTTP_MAX_HEADERS;
}

/* Mail needs descriptors, too: a listener may have three quarters of them. */
static void http_listener_fit_connections(struct http_listener *l)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == RLIM_INFINITY ||
	    l->p.max_connections <= r.rlim_cur / 4 * 3)
		return;
	unsigned max = (unsigned)(r.rlim_cur / 4 * 3);
	log_warn("kumod",
		 "max_connections of the listener on %s is %u instead of %u, "
		 "as this process may open %llu files only",
		 http_listener_name(l), max, l->p.max_connections, (unsigned long long)r.rlim_cur);
	l->p.max_connections = max;
}

static void http_listener_free(struct http_listener *l)
{
	listener_free(l->listener);
	crowd_free(l->crowd);
	free(l->p.hostname);
	cidr_set_fini(&l->p.trusted_hosts);
	cidr_set_fini(&l->p.proxy_protocol);
	map_fini(&l->hosts); /* its entries are those of connections */
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static struct listener *http_listener_bind(const struct http_listener_params *p, struct http_listener *l)
{
	if (p->unix_path != NULL)
		return listener_open_unix(p->unix_path, p->unix_mode, "http", http_session_main, l);
	if (p->fd_name != NULL)
		return listener_open_inherited(p->fd_name, "http", http_session_main, l);
	return listener_open(&p->listen, "http", http_session_main, l);
}

struct http_listener *http_listener_open(const struct http_listener_params *p)
{
	struct http_listener *l = xnew(struct http_listener);
	l->listener = http_listener_bind(p, l);
	if (l->listener == NULL) {
		free(l);
		return NULL;
	}
	l->p = *p;
	bool is_named = p->hostname != NULL && p->hostname[0] != 0;
	l->p.hostname = is_named ? xstrdup(p->hostname) : net_machine_hostname();
	l->p.trusted_hosts = (struct cidr_set){0};
	cidr_set_copy(&l->p.trusted_hosts, &p->trusted_hosts);
	cidr_set_copy(&l->p.proxy_protocol, &p->proxy_protocol);
	http_listener_set_defaults(&l->p);
	http_listener_fit_connections(l);
	listener_set_max_connections(l->listener, l->p.max_connections);
	pthread_mutex_init(&l->lock, NULL);
	l->crowd = crowd_new();
	if (p->setup == NULL) /* whoever sets it up says what it speaks */
		log_info("kumod", "http listener on %s", http_listener_name(l));
	return l;
}

const char *http_listener_name(const struct http_listener *l)
{
	return listener_name(l->listener);
}

const struct net_addr *http_listener_addr(const struct http_listener *l)
{
	return listener_addr(l->listener);
}

void http_listener_start(struct http_listener *l)
{
	uint64_t limit = http_body_limit(l);
	if (limit < l->p.request_body_limit)
		log_warn("kumod",
			 "request_body_limit of the listener on %s is %llu instead of %llu, as the bodies of "
			 "all requests may have no more memory together",
			 http_listener_name(l), (unsigned long long)limit,
			 (unsigned long long)l->p.request_body_limit);
	listener_start(l->listener);
}

void http_listener_stop(struct http_listener *l)
{
	if (crowd_is_stopping(l->crowd))
		return;
	crowd_stop(l->crowd);
	listener_stop(l->listener);
}

void http_listener_close(struct http_listener *l, mono_t deadline)
{
	if (l == NULL)
		return;
	http_listener_stop(l);
	bool is_gone = listener_join(l->listener, false, deadline) == 0;
	fiber_shield_begin(); /* from here on every wait is short, and l must not be left behind */
	if (!is_gone) {
		err_clear();
		log_warn("kumod", "http listener on %s: cancelling %zu connections", http_listener_name(l),
			 listener_n_connections(l->listener));
		is_gone = listener_join(l->listener, true, mono_after(HTTP_CANCEL_TIMEOUT)) == 0;
	}
	if (crowd_join(l->crowd, mono_after(HTTP_CANCEL_TIMEOUT)) != 0)
		is_gone = false;
	fiber_shield_end();
	if (is_gone) {
		http_listener_free(l);
		return;
	}
	/* Whoever is left points at l: it stays. */
	log_error("kumod", "http listener on %s did not end: %s", http_listener_name(l), err_text());
	err_clear();
}
