/* tls_source.c - certificates of listeners, renewed. All sources are in a list under a mutex, which holds no
 * reference: what is being looked at is referenced first, and one that is on its way out is passed over.
 * tls_servers are OpenSSL's and refcounted; here is only what they are made of.
 *
 * Renewal: each source has a print of what was loaded last (keysource.h), which only the reloading fiber
 * touches. Whatever has changed, certificate, key and CAs are loaded again together, since they belong
 * together. While a certificate and its key are being replaced, one after the other, they do not match for a
 * moment: that attempt fails, is logged, and is_stale has it repeated with the next look even when nothing
 * has changed since. */
#include "net/tls_source.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/sync.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define WATCH_EVERY dur_s(10)
#define ASK_EVERY 6 /* looks: Vault and events once a minute */
#define LOAD_TIMEOUT dur_s(30)

enum tls_part { TLS_PART_CERTIFICATE, TLS_PART_KEY, TLS_PART_CLIENT_CA, TLS_PARTS };

struct tls_source {
	atomic_uint n_refs;
	struct list link; /* under tls_sources_lock */
	const char *service;
	char *name; /* under tls_sources_lock */
	char *hostname;
	struct keysource source[TLS_PARTS];
	enum tls_version minimum_version;
	bool is_client_optional;
	const char *const *alpn;
	struct tls_server *server;
	/* Of whoever loads: */
	struct keysource_print print[TLS_PARTS];
	bool is_stale; /* the last reload failed */
};

static struct list tls_sources = {&tls_sources, &tls_sources};
static pthread_mutex_t tls_sources_lock = PTHREAD_MUTEX_INITIALIZER;
static bool tls_sources_are_reloading, tls_sources_are_watched;
static struct fiber_cond tls_sources_reloaded = {
	{&tls_sources_reloaded.waiters, &tls_sources_reloaded.waiters}};

char *net_machine_hostname(void)
{
	char name[256] = "";
	if (gethostname(name, sizeof(name) - 1) != 0 || name[0] == 0)
		return xstrdup("localhost");
	return xstrdup(name);
}

/* --- the metric --- */

/* Of several with one name, as the overrides of a listener may be, the one that ends first. */
static bool tls_source_is_first_to_end(const struct tls_source *ts)
{
	wall_t end = tls_server_not_after(ts->server);
	bool is_behind = false;
	list_for_each (it, &tls_sources) {
		struct tls_source *other = list_entry(it, struct tls_source, link);
		if (other == ts) {
			is_behind = true;
			continue;
		}
		if (strcmp(other->name, ts->name) != 0)
			continue;
		wall_t others_end = tls_server_not_after(other->server);
		if (others_end.ns < end.ns || (others_end.ns == end.ns && !is_behind))
			return false;
	}
	return true;
}

static void tls_sources_collect(void *arg, struct metric_out *out)
{
	wall_t now = wall_now();
	pthread_mutex_lock(&tls_sources_lock);
	list_for_each (it, &tls_sources) {
		struct tls_source *ts = list_entry(it, struct tls_source, link);
		str_t name = str_of(ts->name);
		if (tls_source_is_first_to_end(ts))
			metric_sample(out, &name,
				      dur_seconds(wall_sub(tls_server_not_after(ts->server), now)));
	}
	pthread_mutex_unlock(&tls_sources_lock);
}

static void tls_sources_declare_metric(void)
{
	static const char *const label[] = {"listener", NULL};
	metric_declare_collected(METRIC_GAUGE, "tls_certificate_expiry_seconds",
				 "seconds until the certificate of a listener expires", label,
				 tls_sources_collect, NULL);
}

/* --- loading --- */

/** Makes the server of what the sources hold now, or gives it to the one there is. */
static int tls_source_load(struct tls_source *ts, mono_t deadline)
{
	struct secret *part[TLS_PARTS] = {NULL};
	struct keysource_print print[TLS_PARTS] = {{0}};
	int rc = -1;
	for (int i = 0; i < TLS_PARTS; i++) {
		if (ts->source[i].kind == KEYSOURCE_NONE)
			continue;
		part[i] = keysource_load_print(&ts->source[i], &print[i], deadline);
		if (part[i] == NULL)
			goto out;
	}
	bool has_key = ts->source[TLS_PART_KEY].kind != KEYSOURCE_NONE;
	struct tls_server_params p = {
		.hostname = ts->hostname,
		.client_ca = part[TLS_PART_CLIENT_CA],
		.is_client_optional = ts->is_client_optional,
		.minimum_version = ts->minimum_version,
		.alpn = ts->alpn,
	};
	if (part[TLS_PART_CLIENT_CA] != NULL)
		p.client_ca_name = keysource_text(&ts->source[TLS_PART_CLIENT_CA]);
	if (part[TLS_PART_CERTIFICATE] != NULL) /* a text with the certificate may have the key, too */
		p.credentials = (struct tls_credentials){
			.cert = part[TLS_PART_CERTIFICATE],
			.cert_name = keysource_text(&ts->source[TLS_PART_CERTIFICATE]),
			.key = part[has_key ? TLS_PART_KEY : TLS_PART_CERTIFICATE],
			.key_name =
				keysource_text(&ts->source[has_key ? TLS_PART_KEY : TLS_PART_CERTIFICATE]),
		};
	if (ts->server != NULL)
		rc = tls_server_reload(ts->server, &p);
	else if ((ts->server = tls_server_new(&p)) != NULL)
		rc = 0;
	if (rc == 0)
		memcpy(ts->print, print, sizeof(print));
out:
	for (int i = 0; i < TLS_PARTS; i++)
		secret_unref(part[i]);
	return rc;
}

static void tls_source_free(struct tls_source *ts)
{
	for (int i = 0; i < TLS_PARTS; i++)
		keysource_fini(&ts->source[i]);
	tls_server_unref(ts->server);
	free(ts->name);
	free(ts->hostname);
	free(ts);
}

struct tls_source *tls_source_new(const struct tls_source_params *p, mono_t deadline)
{
	if (p->certificate->kind == KEYSOURCE_NONE && p->private_key->kind != KEYSOURCE_NONE) {
		err_set(ERR_INVALID, "%s listener on %s: tls_private_key is given without tls_certificate",
			p->service, p->name);
		return NULL;
	}
	struct tls_source *ts = xnew(struct tls_source);
	atomic_init(&ts->n_refs, 1);
	list_init(&ts->link);
	ts->service = p->service;
	ts->name = xstrdup(p->name);
	ts->hostname =
		p->hostname != NULL && p->hostname[0] != 0 ? xstrdup(p->hostname) : net_machine_hostname();
	ts->minimum_version = p->minimum_version;
	ts->is_client_optional = p->is_client_optional;
	ts->alpn = p->alpn;
	keysource_copy(&ts->source[TLS_PART_CERTIFICATE], p->certificate);
	keysource_copy(&ts->source[TLS_PART_KEY], p->private_key);
	keysource_copy(&ts->source[TLS_PART_CLIENT_CA], p->client_ca);
	if (tls_source_load(ts, deadline) != 0) {
		err_wrap("%s listener on %s", ts->service, ts->name);
		tls_source_free(ts);
		return NULL;
	}
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, tls_sources_declare_metric);
	pthread_mutex_lock(&tls_sources_lock);
	list_push_back(&tls_sources, &ts->link);
	pthread_mutex_unlock(&tls_sources_lock);
	return ts;
}

void tls_source_warn(struct tls_source *ts)
{
	struct buf why = BUF_INIT;
	tls_server_warnings(ts->server, &why);
	if (why.n > 0)
		log_warn("kumod", "%s listener on %s: %s", ts->service, ts->name, why.p);
	buf_fini(&why);
}

void tls_source_set_name(struct tls_source *ts, const char *name)
{
	pthread_mutex_lock(&tls_sources_lock);
	free(ts->name);
	ts->name = xstrdup(name);
	pthread_mutex_unlock(&tls_sources_lock);
}

struct tls_source *tls_source_ref(struct tls_source *ts)
{
	atomic_fetch_add_explicit(&ts->n_refs, 1, memory_order_relaxed);
	return ts;
}

void tls_source_unref(struct tls_source *ts)
{
	if (ts == NULL || atomic_fetch_sub_explicit(&ts->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&tls_sources_lock);
	list_remove(&ts->link);
	pthread_mutex_unlock(&tls_sources_lock);
	tls_source_free(ts);
}

struct tls_server *tls_source_server(const struct tls_source *ts)
{
	return ts->server;
}

/* --- renewal --- */

static bool tls_source_is_remote(const struct keysource *ks)
{
	return ks->kind == KEYSOURCE_VAULT || ks->kind == KEYSOURCE_EVENT;
}

static void tls_source_complain(const struct tls_source *ts)
{
	log_error("kumod", "%s listener on %s keeps its certificate: %s", ts->service, ts->name, err_text());
}

/** Whether there is a reason to load again. A source that cannot be looked at is logged. */
static bool tls_source_has_changed(struct tls_source *ts, bool is_all, mono_t deadline)
{
	bool has_changed = ts->is_stale;
	for (int i = 0; i < TLS_PARTS; i++) {
		/* the real one moves on with a load that succeeds */
		struct keysource_print print = ts->print[i];
		if (ts->source[i].kind == KEYSOURCE_NONE || (tls_source_is_remote(&ts->source[i]) && !is_all))
			continue;
		int rc = keysource_has_changed(&ts->source[i], &print, NULL, deadline);
		if (rc < 0) {
			tls_source_complain(ts);
			err_clear();
		}
		has_changed = has_changed || rc == 1;
	}
	/* A self-signed one of our own is made anew in time. */
	bool is_own = ts->source[TLS_PART_CERTIFICATE].kind == KEYSOURCE_NONE;
	return has_changed ||
	       (is_own && wall_sub(tls_server_not_after(ts->server), wall_now()).ns < dur_s(30 * 86400).ns);
}

static void tls_source_reload(struct tls_source *ts, bool is_all, mono_t deadline)
{
	wall_t was = tls_server_not_after(ts->server);
	bool is_own = tls_server_is_self_signed(ts->server) &&
		      ts->source[TLS_PART_CERTIFICATE].kind == KEYSOURCE_NONE;
	if (!tls_source_has_changed(ts, is_all, deadline))
		return;
	if (tls_source_load(ts, deadline) != 0) {
		if (!ts->is_stale || is_all)
			tls_source_complain(ts);
		err_clear();
		ts->is_stale = true;
		return;
	}
	ts->is_stale = false;
	wall_t now = tls_server_not_after(ts->server);
	if (is_own && now.ns == was.ns)
		return;
	struct buf until = BUF_INIT;
	wall_fmt_rfc3339(now, 0, &until);
	log_info("kumod", "%s listener on %s: certificate loaded, valid until %s", ts->service, ts->name,
		 until.p);
	buf_fini(&until);
	tls_source_warn(ts);
}

/** References to all that are there. */
static struct tls_source **tls_sources_snapshot(size_t *n_out)
{
	size_t n = 0, i = 0;
	pthread_mutex_lock(&tls_sources_lock);
	list_for_each (it, &tls_sources)
		n++;
	struct tls_source **v = xcalloc(n + 1, sizeof(*v));
	list_for_each (it, &tls_sources) {
		struct tls_source *ts = list_entry(it, struct tls_source, link);
		unsigned refs = atomic_load_explicit(&ts->n_refs, memory_order_relaxed);
		while (refs != 0 && !atomic_compare_exchange_weak(&ts->n_refs, &refs, refs + 1))
			;
		if (refs != 0)
			v[i++] = ts;
	}
	pthread_mutex_unlock(&tls_sources_lock);
	*n_out = i;
	return v;
}

void tls_sources_reload(bool is_all, mono_t deadline)
{
	while (tls_sources_are_reloading) {
		if (fiber_cond_wait(&tls_sources_reloaded, deadline) != 0) {
			err_clear();
			return;
		}
	}
	size_t n;
	struct tls_source **v = tls_sources_snapshot(&n);
	tls_sources_are_reloading = true;
	for (size_t i = 0; i < n; i++) {
		tls_source_reload(v[i], is_all, mono_min(deadline, mono_after(LOAD_TIMEOUT)));
		tls_source_unref(v[i]);
	}
	tls_sources_are_reloading = false;
	fiber_cond_broadcast(&tls_sources_reloaded);
	free(v);
}

static void tls_sources_watch(void *arg)
{
	for (unsigned n = 1;; n++) {
		if (fiber_sleep(WATCH_EVERY, MONO_NEVER) != 0) { /* cancelled */
			err_clear();
			return;
		}
		tls_sources_reload(n % ASK_EVERY == 0, MONO_NEVER);
	}
}

void tls_sources_start_watch(void)
{
	if (tls_sources_are_watched)
		return;
	tls_sources_are_watched = true;
	fiber_start(NULL, "tls-watch", tls_sources_watch, NULL);
}
