/* https.c - a listener's TLS. The listeners that have it are in a list that only worker 0 touches: it is filled by init and walked by
 * the watch, both fibers of that worker, and connections on all workers only use the refcounted tls_server.
 *
 * Renewal: each source has a print of what was loaded last (keysource.h). Whatever has changed, certificate, key and CAs are loaded
 * again together, since they belong together. While a certificate and its key are being replaced, one after the other, they do
 * not match for a moment: that attempt fails, is logged, and is_stale has it repeated with the next look even when nothing
 * has changed since. */
#include "http/https.h"
#include "http/http_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/sync.h"

#include <pthread.h>
#include <stdlib.h>

#define WATCH_EVERY dur_s(10)
#define ASK_EVERY 6 /* looks: Vault and events once a minute */
#define LOAD_TIMEOUT dur_s(30)

enum https_part { HTTPS_CERTIFICATE, HTTPS_KEY, HTTPS_CLIENT_CA, HTTPS_PARTS };

struct https {
	struct list link;
	char *name, *hostname;
	struct keysource source[HTTPS_PARTS];
	struct keysource_print print[HTTPS_PARTS];
	enum tls_version minimum_version;
	struct tls_server *server;
	bool is_stale; /* the last reload failed */
};

static struct list https_listeners = {&https_listeners, &https_listeners};
static pthread_mutex_t https_lock = PTHREAD_MUTEX_INITIALIZER; /* of the list, against the metric's collector */
static bool https_is_reloading;
static struct fiber_cond https_reloaded = {{&https_reloaded.waiters, &https_reloaded.waiters}};

static const char *const https_alpn[] = {"h2", "http/1.1", NULL};

static void https_collect(void *arg, struct metric_out *out)
{
	wall_t now = wall_now();
	pthread_mutex_lock(&https_lock);
	list_for_each (it, &https_listeners) {
		struct https *h = list_entry(it, struct https, link);
		str_t name = str_of(h->name);
		metric_sample(out, &name, dur_seconds(wall_sub(tls_server_not_after(h->server), now)));
	}
	pthread_mutex_unlock(&https_lock);
}

static void https_declare_metric(void)
{
	static const char *const label[] = {"listener", NULL};
	static bool is_declared;
	if (!is_declared)
		metric_declare_collected(METRIC_GAUGE, "tls_certificate_expiry_seconds",
		                         "seconds until the certificate of a listener expires", label, https_collect, NULL);
	is_declared = true;
}

/** Makes the server of what the sources hold now, or gives it to the one there is. */
static int https_load(struct https *h, mono_t deadline)
{
	struct secret *part[HTTPS_PARTS] = {NULL};
	struct keysource_print print[HTTPS_PARTS] = {{0}};
	int rc = -1;
	for (int i = 0; i < HTTPS_PARTS; i++) {
		if (h->source[i].kind == KEYSOURCE_NONE)
			continue;
		part[i] = keysource_load_print(&h->source[i], &print[i], deadline);
		if (part[i] == NULL)
			goto out;
	}
	bool has_key = h->source[HTTPS_KEY].kind != KEYSOURCE_NONE;
	struct tls_server_params p = {
		.hostname = h->hostname,
		.client_ca = part[HTTPS_CLIENT_CA],
		.minimum_version = h->minimum_version,
		.alpn = https_alpn,
	};
	if (part[HTTPS_CLIENT_CA] != NULL)
		p.client_ca_name = keysource_text(&h->source[HTTPS_CLIENT_CA]);
	if (part[HTTPS_CERTIFICATE] != NULL) /* a text with the certificate may have the key, too */
		p.credentials = (struct tls_credentials){
			.cert = part[HTTPS_CERTIFICATE],
			.cert_name = keysource_text(&h->source[HTTPS_CERTIFICATE]),
			.key = part[has_key ? HTTPS_KEY : HTTPS_CERTIFICATE],
			.key_name = keysource_text(&h->source[has_key ? HTTPS_KEY : HTTPS_CERTIFICATE]),
		};
	if (h->server != NULL)
		rc = tls_server_reload(h->server, &p);
	else if ((h->server = tls_server_new(&p)) != NULL)
		rc = 0;
	if (rc == 0)
		memcpy(h->print, print, sizeof(print));
out:
	for (int i = 0; i < HTTPS_PARTS; i++)
		secret_unref(part[i]);
	return rc;
}

static void https_warn(const struct https *h)
{
	struct buf why = BUF_INIT;
	tls_server_warnings(h->server, &why);
	if (why.n > 0)
		log_warn("kumod", "https listener on %s: %s", h->name, why.p);
	buf_fini(&why);
}

struct https *https_new(const struct https_params *p, mono_t deadline)
{
	if (p->certificate->kind == KEYSOURCE_NONE && p->private_key->kind != KEYSOURCE_NONE) {
		err_set(ERR_INVALID, "https listener on %s: tls_private_key is given without tls_certificate", p->listener_name);
		return NULL;
	}
	struct https *h = xnew(struct https);
	list_init(&h->link);
	h->name = xstrdup(p->listener_name);
	h->hostname = p->hostname != NULL && p->hostname[0] != 0 ? xstrdup(p->hostname) : http_machine_hostname();
	h->minimum_version = p->minimum_version;
	keysource_copy(&h->source[HTTPS_CERTIFICATE], p->certificate);
	keysource_copy(&h->source[HTTPS_KEY], p->private_key);
	keysource_copy(&h->source[HTTPS_CLIENT_CA], p->client_ca);
	if (https_load(h, deadline) != 0) {
		err_wrap("https listener on %s", h->name);
		https_free(h);
		return NULL;
	}
	https_declare_metric();
	pthread_mutex_lock(&https_lock);
	list_push_back(&https_listeners, &h->link);
	pthread_mutex_unlock(&https_lock);
	return h;
}

void https_set_name(struct https *h, const char *listener_name)
{
	pthread_mutex_lock(&https_lock);
	free(h->name);
	h->name = xstrdup(listener_name);
	pthread_mutex_unlock(&https_lock);
	log_info("kumod", "https listener on %s", listener_name);
	https_warn(h);
}

void https_free(struct https *h)
{
	if (h == NULL)
		return;
	pthread_mutex_lock(&https_lock);
	list_remove(&h->link);
	pthread_mutex_unlock(&https_lock);
	for (int i = 0; i < HTTPS_PARTS; i++)
		keysource_fini(&h->source[i]);
	tls_server_unref(h->server);
	free(h->name);
	free(h->hostname);
	free(h);
}

int https_setup(struct stream *st, enum http_protocol *protocol, void *arg, mono_t deadline)
{
	struct https *h = arg;
	if (stream_start_tls_server(st, h->server, TLS_BUFFERED_FEED, deadline) != 0) {
		err_wrap("https listener on %s", h->name);
		return -1;
	}
	*protocol = str_eq(stream_tls_info(st)->alpn, STR("h2")) ? HTTP_PROTOCOL_2 : HTTP_PROTOCOL_1;
	return 0;
}

/* --- renewal --- */

static bool https_is_remote(const struct keysource *ks)
{
	return ks->kind == KEYSOURCE_VAULT || ks->kind == KEYSOURCE_EVENT;
}

/** Whether there is a reason to load again. A source that cannot be looked at is logged. */
static bool https_has_changed(struct https *h, bool is_all, mono_t deadline)
{
	bool has_changed = h->is_stale;
	for (int i = 0; i < HTTPS_PARTS; i++) {
		struct keysource_print print = h->print[i]; /* the real one moves on with a load that succeeds */
		if (h->source[i].kind == KEYSOURCE_NONE || (https_is_remote(&h->source[i]) && !is_all))
			continue;
		int rc = keysource_has_changed(&h->source[i], &print, NULL, deadline);
		if (rc < 0) {
			log_error("kumod", "https listener on %s keeps its certificate: %s", h->name, err_text());
			err_clear();
		}
		has_changed = has_changed || rc == 1;
	}
	/* A self-signed one of our own is made anew in time. */
	bool is_own = h->source[HTTPS_CERTIFICATE].kind == KEYSOURCE_NONE;
	return has_changed || (is_own && wall_sub(tls_server_not_after(h->server), wall_now()).ns < dur_s(30 * 86400).ns);
}

static void https_reload(struct https *h, bool is_all, mono_t deadline)
{
	wall_t was = tls_server_not_after(h->server);
	bool is_own = tls_server_is_self_signed(h->server) && h->source[HTTPS_CERTIFICATE].kind == KEYSOURCE_NONE;
	if (!https_has_changed(h, is_all, deadline))
		return;
	if (https_load(h, deadline) != 0) {
		if (!h->is_stale || is_all)
			log_error("kumod", "https listener on %s keeps its certificate: %s", h->name, err_text());
		err_clear();
		h->is_stale = true;
		return;
	}
	h->is_stale = false;
	wall_t now = tls_server_not_after(h->server);
	if (is_own && now.ns == was.ns)
		return;
	struct buf until = BUF_INIT;
	wall_fmt_rfc3339(now, 0, &until);
	log_info("kumod", "https listener on %s: certificate loaded, valid until %s", h->name, until.p);
	buf_fini(&until);
	https_warn(h);
}

void https_reload_all(bool is_all, mono_t deadline)
{
	while (https_is_reloading) {
		if (fiber_cond_wait(&https_reloaded, deadline) != 0) {
			err_clear();
			return;
		}
	}
	https_is_reloading = true;
	/* Listeners are only added and removed by this worker, at its start and end. */
	list_for_each (it, &https_listeners)
		https_reload(list_entry(it, struct https, link), is_all, mono_min(deadline, mono_after(LOAD_TIMEOUT)));
	https_is_reloading = false;
	fiber_cond_broadcast(&https_reloaded);
}

static void https_watch_fiber(void *arg)
{
	for (unsigned n = 1;; n++) {
		if (fiber_sleep(WATCH_EVERY, MONO_NEVER) != 0) { /* cancelled */
			err_clear();
			return;
		}
		https_reload_all(n % ASK_EVERY == 0, MONO_NEVER);
	}
}

void https_start_watch(void)
{
	if (!list_is_empty(&https_listeners))
		fiber_start(NULL, "https-watch", https_watch_fiber, NULL);
}
