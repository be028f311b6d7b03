/* dns_unbound.c - the real resolver: libunbound, following resolv.conf and the hosts file.
 *
 * One ub_ctx for the process, made by the first question (a process that never asks pays nothing). It works
 * on a thread of its own; questions are sent from any worker, and finished answers announced on a descriptor
 * that worker 0 polls. There ub_process() runs our callback on the loop stack: the answer goes to the cache
 * and into the flight, and the flight's event wakes the asking fiber on its worker.
 *
 * A flight has two references: the asking fiber's, and the air's, dropped by the callback (or by stop). A
 * fiber that gives up only drops its own; the answer still reaches the cache.
 *
 * `lock` guards ctx and everything sent to libunbound from workers. The callback takes only `flights_lock`:
 * it must never wait for somebody who is sending, since sending can wait for libunbound. Stopping is done in
 * three steps: no new questions; worker 0 lets go of the descriptor; the context is deleted and what was in
 * the air fails. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/worker.h"
#include "net/dns_impl.h"

#include <ldns/ldns.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unbound.h>

#define UNBOUND_TARGET "kumod::dns"
#define UNBOUND_MAX_RECORDS 4096 /* more than fit into a DNS message of 64 KB, except the smallest */

struct dns_flight {
	atomic_uint n_refs;
	struct list link; /* in the air */
	struct event *landed;
	/* Written before landed is fired, read after. */
	const struct dns_answer *answer;
	enum err_kind err_kind; /* when there is no answer */
	char why[160];
	uint16_t type;
	char name[DNS_NAME_BYTES];
};

/* The descriptor on worker 0's loop. Freed in the handle's close callback, or by whichever of start and close
 * comes last: their mails may have different senders. */
struct unbound_poll {
	uv_poll_t handle;
	struct ub_ctx *ctx;
	int fd;
	bool has_begun;	   /* start was here */
	bool is_open;	   /* the handle is initialised */
	bool is_cancelled; /* close was here first */
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t closed;
	struct ub_ctx *ctx;
	struct unbound_poll *poll;
	bool is_closing; /* stop waits for worker 0 */
	bool has_forwarder;
	struct net_addr forwarder;    /* tests */
	pthread_mutex_t flights_lock; /* taken inside lock, too */
	struct list flights;	      /* in the air */
} unbound = {.lock = PTHREAD_MUTEX_INITIALIZER,
	     .closed = PTHREAD_COND_INITIALIZER,
	     .flights_lock = PTHREAD_MUTEX_INITIALIZER,
	     .flights = {&unbound.flights, &unbound.flights}};

/* --- flights --- */

static void flight_unref(struct dns_flight *fl)
{
	if (atomic_fetch_sub_explicit(&fl->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	event_unref(fl->landed);
	dns_answer_unref(fl->answer);
	free(fl);
}

static void flight_take_off(struct dns_flight *fl)
{
	pthread_mutex_lock(&unbound.flights_lock);
	list_push_back(&unbound.flights, &fl->link);
	pthread_mutex_unlock(&unbound.flights_lock);
}

static void flight_leave_air(struct dns_flight *fl)
{
	pthread_mutex_lock(&unbound.flights_lock);
	list_remove(&fl->link);
	pthread_mutex_unlock(&unbound.flights_lock);
}

static void flight_fail(struct dns_flight *fl, enum err_kind kind, const char *why)
{
	fl->err_kind = kind;
	snprintf(fl->why, sizeof(fl->why), "%s", why);
}

/* The smallest TTL of the answer section: that of a chain is the shortest of its links, and libunbound tells
 * only the last one's. */
static uint32_t unbound_chain_ttl(const struct ub_result *r, uint32_t ttl_s)
{
	ldns_pkt *pkt = NULL;
	if (r->answer_packet == NULL || r->answer_len <= 0 ||
	    ldns_wire2pkt(&pkt, r->answer_packet, (size_t)r->answer_len) != LDNS_STATUS_OK)
		return ttl_s;
	const ldns_rr_list *rrs = ldns_pkt_answer(pkt);
	for (size_t i = 0; i < ldns_rr_list_rr_count(rrs); i++) {
		const ldns_rr *rr = ldns_rr_list_rr(rrs, i);
		if (ldns_rr_ttl(rr) < ttl_s)
			ttl_s = ldns_rr_ttl(rr);
	}
	ldns_pkt_free(pkt);
	return ttl_s;
}

static const struct dns_answer *unbound_convert(const struct ub_result *r)
{
	uint32_t ttl_s = r->ttl > 0 ? (uint32_t)r->ttl : 0;
	size_t n = 0;
	if (!r->havedata)
		return dns_answer_new(r->nxdomain ? DNS_NXDOMAIN : DNS_NODATA, r->secure, ttl_s, NULL, 0);
	if (r->canonname != NULL && strcasecmp(r->canonname, r->qname) != 0)
		ttl_s = unbound_chain_ttl(r, ttl_s);
	while (r->data[n] != NULL && n < UNBOUND_MAX_RECORDS)
		n++;
	str_t *rdata = xreallocarray(NULL, n, sizeof(*rdata));
	for (size_t i = 0; i < n; i++)
		rdata[i] = str_mk(r->data[i], (size_t)r->len[i]);
	const struct dns_answer *a = dns_answer_new(DNS_OK, r->secure, ttl_s, rdata, n);
	free(rdata);
	return a;
}

static void unbound_describe_failure(struct dns_flight *fl, const struct ub_result *r)
{
	char text[160];
	const ldns_lookup_table *rcode = ldns_lookup_by_id(ldns_rcodes, r->rcode);
	if (r->bogus)
		snprintf(text, sizeof(text), "DNSSEC validation failed: %.120s",
			 r->why_bogus != NULL ? r->why_bogus : "bogus");
	else if (rcode != NULL)
		snprintf(text, sizeof(text), "%s", rcode->name);
	else
		snprintf(text, sizeof(text), "answer code %d", r->rcode);
	flight_fail(fl, ERR_DNS, text);
}

/* On worker 0's loop stack, in ub_process. */
static void unbound_on_answer(void *arg, int rc, struct ub_result *r)
{
	struct dns_flight *fl = arg;
	if (rc != 0)
		flight_fail(fl, ERR_DNS, ub_strerror(rc));
	else if (r->bogus || (r->rcode != 0 && !r->nxdomain))
		unbound_describe_failure(fl, r);
	else
		fl->answer = unbound_convert(r);
	ub_resolve_free(r);
	if (fl->answer != NULL)
		dns_cache_put(fl->name, fl->type, fl->answer);
	flight_leave_air(fl);
	event_fire(fl->landed);
	flight_unref(fl);
}

/* --- the descriptor, on worker 0 --- */

static void unbound_on_readable(uv_poll_t *h, int status UNUSED, int events UNUSED)
{
	struct unbound_poll *p = container_of(h, struct unbound_poll, handle);
	int rc = ub_process(p->ctx);
	if (rc != 0)
		log_error(UNBOUND_TARGET, "libunbound: %s", ub_strerror(rc));
}

static void unbound_poll_start(void *arg)
{
	struct unbound_poll *p = arg;
	if (p->is_cancelled) {
		free(p);
		return;
	}
	p->has_begun = true;
	int rc = uv_poll_init(worker_loop(worker_self()), &p->handle, p->fd);
	p->is_open = rc == 0;
	if (rc == 0)
		rc = uv_poll_start(&p->handle, UV_READABLE, unbound_on_readable);
	if (rc != 0)
		log_error(UNBOUND_TARGET, "cannot watch libunbound's descriptor: %s", uv_strerror(rc));
}

static void unbound_poll_on_closed(uv_handle_t *h)
{
	free(container_of((uv_poll_t *)h, struct unbound_poll, handle));
}

static void unbound_poll_close(void *arg)
{
	struct unbound_poll *p = arg;
	if (p->is_open)
		uv_close((uv_handle_t *)&p->handle, unbound_poll_on_closed);
	else if (p->has_begun)
		free(p);
	else
		p->is_cancelled = true;
	pthread_mutex_lock(&unbound.lock);
	unbound.is_closing = false;
	pthread_cond_broadcast(&unbound.closed);
	pthread_mutex_unlock(&unbound.lock);
}

/* --- the context --- */

static void unbound_option(struct ub_ctx *ctx, const char *opt, const char *value)
{
	int rc = ub_ctx_set_option(ctx, opt, value);
	if (rc != 0)
		log_warn(UNBOUND_TARGET, "libunbound option %s %s: %s", opt, value, ub_strerror(rc));
}

static void unbound_use_forwarder(struct ub_ctx *ctx)
{
	char ip[NET_ADDR_STRLEN], text[NET_ADDR_STRLEN + 8];
	snprintf(text, sizeof(text), "%s@%u", net_addr_fmt_ip(&unbound.forwarder, ip),
		 net_addr_port(&unbound.forwarder));
	unbound_option(ctx, "do-not-query-localhost:", "no");
	int rc = ub_ctx_set_fwd(ctx, text);
	if (rc != 0)
		log_warn(UNBOUND_TARGET, "forwarding to %s: %s", text, ub_strerror(rc));
}

static void unbound_use_system(struct ub_ctx *ctx)
{
	unbound_option(ctx, "do-not-query-localhost:", "no"); /* a resolver on 127.0.0.53 is usual */
	int rc = ub_ctx_resolvconf(ctx, NULL);
	if (rc != 0)
		log_warn(UNBOUND_TARGET, "resolv.conf: %s; asking the root servers instead", ub_strerror(rc));
	rc = ub_ctx_hosts(ctx, NULL);
	if (rc != 0)
		log_info(UNBOUND_TARGET, "hosts file: %s", ub_strerror(rc));
}

/* Under lock. */
static int unbound_open(void)
{
	struct ub_ctx *ctx = ub_ctx_create();
	if (ctx == NULL) {
		err_set(ERR_DNS, "libunbound cannot start");
		return -1;
	}
	if (!log_is_enabled(LOG_DEBUG, UNBOUND_TARGET))
		ub_ctx_debugout(ctx, NULL); /* its own lines on stderr: what matters comes back as an error */
	/* The library is made for a few questions at a time; a mail server has thousands. */
	unbound_option(ctx, "outgoing-range:", "256");
	unbound_option(ctx, "num-queries-per-thread:", "2048");
	/* Private networks have mail, too: what the system's resolver says about them counts. */
	unbound_option(ctx, "unblock-lan-zones:", "yes");
	unbound_option(ctx, "insecure-lan-zones:", "yes");
	if (unbound.has_forwarder)
		unbound_use_forwarder(ctx);
	else
		unbound_use_system(ctx);
	ub_ctx_async(ctx, 1);
	/* No option does it; this call settles all options, so it is the last one. */
	ub_ctx_zone_remove(ctx, "test.");
	unbound.ctx = ctx;
	return 0;
}

static void unbound_watch(void)
{
	if (unbound.poll != NULL)
		return;
	struct unbound_poll *p = unbound.poll = xnew(struct unbound_poll);
	p->ctx = unbound.ctx;
	p->fd = ub_fd(unbound.ctx);
	worker_post(worker_get(0), unbound_poll_start, p);
}

struct dns_flight *dns_flight_start(const char *name, uint16_t type)
{
	struct dns_flight *fl = xnew(struct dns_flight);
	atomic_init(&fl->n_refs, 2);
	list_init(&fl->link);
	fl->landed = event_new();
	fl->type = type;
	snprintf(fl->name, sizeof(fl->name), "%s", name);

	pthread_mutex_lock(&unbound.lock);
	int rc = unbound.ctx != NULL ? 0 : unbound_open();
	if (rc == 0) {
		flight_take_off(fl);
		rc = ub_resolve_async(unbound.ctx, fl->name, type, 1, fl, unbound_on_answer, NULL);
		if (rc != 0) {
			flight_leave_air(fl);
			err_set(ERR_DNS, "libunbound: %s", ub_strerror(rc));
		} else {
			unbound_watch();
		}
	}
	pthread_mutex_unlock(&unbound.lock);
	if (rc == 0)
		return fl;
	atomic_store_explicit(&fl->n_refs, 1, memory_order_relaxed);
	flight_unref(fl);
	return NULL;
}

const struct dns_answer *dns_flight_land(struct dns_flight *fl, mono_t deadline)
{
	const struct dns_answer *a = NULL;
	const char *before = fiber_set_waits_for("a DNS answer");
	int rc = event_wait(fl->landed, deadline);
	fiber_set_waits_for(before);
	if (rc == 0 && fl->answer != NULL)
		a = dns_answer_ref(fl->answer);
	else if (rc == 0)
		err_set(fl->err_kind, "%s", fl->why);
	flight_unref(fl);
	return a;
}

void dns_set_forwarder_for_test(const struct net_addr *server)
{
	pthread_mutex_lock(&unbound.lock);
	unbound.has_forwarder = server != NULL;
	if (server != NULL)
		unbound.forwarder = *server;
	pthread_mutex_unlock(&unbound.lock);
}

/* Worker 0 lets go of the descriptor; after this no callback runs any more. */
static void unbound_unwatch(struct unbound_poll *p, bool has_workers)
{
	if (!has_workers) {
		free(p); /* its loop is gone */
	} else if (worker_self() == worker_get(0)) {
		unbound_poll_close(p);
	} else {
		worker_post(worker_get(0), unbound_poll_close, p);
		pthread_mutex_lock(&unbound.lock);
		while (unbound.is_closing)
			pthread_cond_wait(&unbound.closed, &unbound.lock);
		pthread_mutex_unlock(&unbound.lock);
	}
}

void dns_unbound_stop(void)
{
	struct list flights;
	bool has_workers = workers_count() > 0;
	list_init(&flights);

	pthread_mutex_lock(&unbound.lock);
	struct ub_ctx *ctx = unbound.ctx;
	struct unbound_poll *p = unbound.poll;
	unbound.ctx = NULL;
	unbound.poll = NULL;
	unbound.is_closing = p != NULL;
	pthread_mutex_lock(&unbound.flights_lock);
	list_splice_back(&flights, &unbound.flights);
	pthread_mutex_unlock(&unbound.flights_lock);
	pthread_mutex_unlock(&unbound.lock);
	if (ctx == NULL)
		return;
	if (p != NULL)
		unbound_unwatch(p, has_workers);
	ub_ctx_delete(ctx);

	for (struct list *l; (l = list_pop_front(&flights)) != NULL;) {
		struct dns_flight *fl = list_entry(l, struct dns_flight, link);
		flight_fail(fl, ERR_SHUTDOWN, "the resolver has stopped");
		if (has_workers)
			event_fire(fl->landed);
		flight_unref(fl);
	}
}
