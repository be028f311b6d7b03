/* session.c - a connection from its beginning to its end, whatever its protocol.
 *
 * First a peer that is a proxy says on whose behalf it comes, then the host is counted, then comes what the
 * listener has set up (TLS), then the protocol is found out: by ALPN, or else by the first bytes. The preface
 * of HTTP/2 (RFC 9113 section 3.4) begins with the method PRI, which HTTP/1 does not have; whatever is not
 * the preface is left to HTTP/1.
 *
 * Hosts are counted in a map of the listener, under its lock, for connections only and not for requests.
 * Peers that are trusted are not counted: that is where an application's connections come from. IPv6 hosts
 * are counted by /64, since that much a single customer gets. */
#include "http/http_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "net/proxy.h"

#include <stdio.h>
#include <stdlib.h>

enum { HTTP_PREFACE_FILL = 4096 };

struct http_host {
	uint8_t net[8]; /* an IPv4 address, or the first half of an IPv6 one */
	size_t n_net;
	unsigned n; /* connections */
};

/* --- counting hosts --- */

static void http_host_key(const struct net_addr *a, struct http_host *h)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	const uint8_t *v6 = a->in6.sin6_addr.s6_addr;
	if (a->sa.sa_family == AF_INET) {
		h->n_net = 4;
		memcpy(h->net, &a->in4.sin_addr, 4);
	} else if (memcmp(v6, mapped, sizeof(mapped)) == 0) {
		h->n_net = 4;
		memcpy(h->net, v6 + 12, 4);
	} else {
		h->n_net = 8;
		memcpy(h->net, v6, 8);
	}
}

/* False: there are enough of this peer's host. *host is what http_host_leave gets. */
static bool http_host_enter(struct http_listener *l, const struct net_addr *peer, struct http_host **host)
{
	struct http_host key = {0};
	*host = NULL;
	if (cidr_set_has(&l->p.trusted_hosts, peer))
		return true;
	http_host_key(peer, &key);
	pthread_mutex_lock(&l->lock);
	struct http_host *h = map_find(&l->hosts, str_mk((const char *)key.net, key.n_net));
	if (h == NULL) {
		h = xnew(struct http_host);
		*h = key;
		map_put(&l->hosts, str_mk((const char *)h->net, h->n_net), h);
	}
	bool is_in = h->n < l->p.max_connections_per_host;
	if (is_in) {
		h->n++;
		*host = h;
	}
	pthread_mutex_unlock(&l->lock);
	return is_in;
}

static void http_host_leave(struct http_listener *l, struct http_host *h)
{
	if (h == NULL)
		return;
	pthread_mutex_lock(&l->lock);
	if (--h->n == 0)
		map_remove(&l->hosts, str_mk((const char *)h->net, h->n_net));
	else
		h = NULL;
	pthread_mutex_unlock(&l->lock);
	free(h);
}

/* --- the beginning --- */

/* Waits for the first byte. False: there is none. */
static bool http_wait_first(struct http_session *s)
{
	if (http_listener_is_stopping(s->l))
		return false;
	s->is_idle = true;
	int rc = stream_fill(s->st, HTTP_PREFACE_FILL, mono_after(s->l->p.idle_timeout));
	s->is_idle = false;
	if (rc < 0)
		err_clear();
	return rc > 0 && !fiber_is_cancelled();
}

static enum http_protocol http_guess_protocol(struct http_session *s)
{
	static const str_t preface = {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24};
	mono_t deadline = MONO_NEVER;
	for (;;) {
		str_t in = str_head(stream_buffered(s->st), preface.n);
		if (in.n != 0 && !str_starts(preface, in))
			return HTTP_PROTOCOL_1;
		if (in.n == preface.n)
			return HTTP_PROTOCOL_2;
		if (in.n == 0) {
			if (!http_wait_first(s))
				return HTTP_PROTOCOL_UNKNOWN;
			deadline = mono_after(s->l->p.header_timeout);
			continue;
		}
		int rc = stream_fill(s->st, HTTP_PREFACE_FILL, deadline);
		if (rc == 0)
			return HTTP_PROTOCOL_1; /* which says what is missing */
		if (rc < 0) {
			err_clear();
			return HTTP_PROTOCOL_UNKNOWN;
		}
	}
}

/* -1: with an error for the log. */
static int http_session_begin(struct http_session *s, struct http_host **host, enum http_protocol *protocol)
{
	char peer[NET_ADDR_STRLEN];
	struct http_listener *l = s->l;
	mono_t deadline = mono_after(l->p.header_timeout);
	s->is_idle = true; /* there is no request that could be lost */
	if (cidr_set_has(&l->p.proxy_protocol, stream_peer(s->st)) && proxy_read(s->st, deadline) != 0)
		return -1;
	if (!http_host_enter(l, stream_peer(s->st), host)) {
		err_set(ERR_LIMIT, "too many connections from %s", net_addr_fmt_ip(stream_peer(s->st), peer));
		return -1;
	}
	if (l->p.setup != NULL && l->p.setup(s->st, protocol, l->p.setup_arg, deadline) != 0)
		return -1;
	s->is_idle = false;
	return 0;
}

/* For whoever looks at the fibers: whose connection it is. */
static void http_session_set_name(const struct http_session *s)
{
	char addr[NET_ADDR_STRLEN], name[NET_ADDR_STRLEN + 8];
	snprintf(name, sizeof(name), "http %s", net_addr_fmt(stream_peer(s->st), addr));
	fiber_set_name(name);
}

/* The connections that wait for a request end. */
static void http_session_stop(struct crowd_member *m)
{
	struct http_session *s = container_of(m, struct http_session, member);
	if (s->stop != NULL)
		s->stop(s);
	else if (s->is_idle)
		fiber_cancel(s->fiber);
}

void http_session_main(struct stream *st, void *arg)
{
	struct http_session s = {
		.st = st, .l = arg, .fiber = fiber_self(), .member = {.stop = http_session_stop}};
	struct http_host *host = NULL;
	enum http_protocol protocol = HTTP_PROTOCOL_UNKNOWN;
	crowd_enter(s.l->crowd, &s.member);
	if (http_session_begin(&s, &host, &protocol) != 0) {
		log_debug("kumod::http", "%s", err_text());
		err_clear();
	} else {
		http_session_set_name(&s);
		if (protocol == HTTP_PROTOCOL_UNKNOWN)
			protocol = http_guess_protocol(&s);
		if (protocol == HTTP_PROTOCOL_1)
			h1_conn_main(&s);
		else if (protocol == HTTP_PROTOCOL_2)
			h2_conn_main(&s);
	}
	crowd_leave(&s.member);
	http_host_leave(s.l, host);
	stream_free(st);
}
