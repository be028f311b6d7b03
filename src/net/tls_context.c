/* tls_context.c - what handshakes start from: an OpenSSL context with our settings, for servers and for
 * clients.
 *
 * A context is immutable and counted; a connection holds a reference to the one that it began with. A server
 * is a place that the newest context stands in, under a mutex that is held to take a reference: replacing it
 * is all that a reload is. A context that cannot be made leaves the place as it was.
 *
 * Ciphers of TLS 1.2 servers: forward secrecy and AEAD only. The client's preference among them decides, as
 * it knows whether it has AES in hardware. Clients take whatever OpenSSL finds good enough at the security
 * level, since much of the mail world is older than that. */
#include "net/tls_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#define TLS_SERVER_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
#define TLS_CLIENT_CIPHERS "DEFAULT:!aNULL:!eNULL"
#define TLS_DEFAULT_LEVEL 2
#define TLS_SELF_SIGNED_KEEP dur_s(30 * 86400) /* a self-signed certificate with less to go is made anew */

struct tls_server {
	atomic_uint n_refs;
	pthread_mutex_t lock; /* of context */
	struct tls_context *context;
	struct tls_tickets *tickets;
};

struct tls_client {
	atomic_uint n_refs;
	struct tls_context *context;
};

void tls_context_unref(struct tls_context *c)
{
	if (c == NULL || atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	SSL_CTX_free(c->ctx);
	tls_tickets_unref(c->tickets);
	tls_sessions_free(c->sessions);
	tls_material_fini(&c->material);
	free(c->hostname);
	free(c->alpn);
	free(c);
}

static struct tls_context *context_ref(struct tls_context *c)
{
	atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed);
	return c;
}

/* --- what both have --- */

static int context_fail(const char *what)
{
	err_set(ERR_INVALID, "%s: %s", what, tls_take_reason());
	return -1;
}

static int context_set_alpn(struct tls_context *c, const char *const *alpn)
{
	struct buf wire = BUF_INIT;
	for (; alpn != NULL && *alpn != NULL; alpn++) {
		size_t n = strlen(*alpn);
		if (n == 0 || n > 255) {
			err_set(ERR_INVALID, "`%.300s` is no ALPN protocol name", *alpn);
			buf_fini(&wire);
			return -1;
		}
		buf_add_c(&wire, (char)n);
		buf_add_z(&wire, *alpn);
	}
	if (wire.n > 0) {
		c->n_alpn = (unsigned)wire.n;
		c->alpn = (unsigned char *)buf_steal(&wire, NULL);
	}
	buf_fini(&wire);
	return 0;
}

static int context_set_material(struct tls_context *c, const char *name)
{
	/* OpenSSL looks at algorithms and sizes here, by the security level. */
	if (SSL_CTX_use_cert_and_key(c->ctx, c->material.cert, c->material.key, c->material.chain, 1) == 1)
		return 0;
	err_set(ERR_INVALID, "the certificate in %s cannot be used: %s", name != NULL ? name : "its source",
		tls_take_reason());
	return -1;
}

static struct tls_context *context_new(const SSL_METHOD *method, enum tls_version minimum, int level)
{
	struct tls_context *c = xnew(struct tls_context);
	atomic_init(&c->n_refs, 1);
	ERR_clear_error();
	c->ctx = SSL_CTX_new(method);
	if (c->ctx == NULL ||
	    SSL_CTX_set_min_proto_version(c->ctx, minimum == TLS_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION) !=
		    1 ||
	    SSL_CTX_set_max_proto_version(c->ctx, TLS1_3_VERSION) != 1) {
		context_fail("OpenSSL cannot do TLS");
		tls_context_unref(c);
		return NULL;
	}
	SSL_CTX_set_app_data(c->ctx, c);
	SSL_CTX_set_security_level(c->ctx, level == TLS_SECURITY_NONE ? 0
					   : level == 0		      ? TLS_DEFAULT_LEVEL
								      : level);
	SSL_CTX_set_options(c->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	/* What the system's configuration file may have switched on. */
	SSL_CTX_clear_options(c->ctx, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_TICKET |
					      SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION);
	SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					 SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_read_ahead(c->ctx, 1); /* a record in one system call instead of two */
	SSL_CTX_set_max_early_data(c->ctx, 0);
	return c;
}

/* --- servers --- */

static int server_on_alpn(SSL *ssl, const unsigned char **out, unsigned char *n_out,
			  const unsigned char *offered, unsigned n_offered, void *arg)
{
	const struct tls_context *c = arg;
	unsigned char *chosen;
	if (SSL_select_next_proto(&chosen, n_out, c->alpn, c->n_alpn, offered, n_offered) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* Any name is served; saying so makes OpenSSL remember it in the session. */
static int server_on_name(SSL *ssl, int *alert, void *arg)
{
	return SSL_TLSEXT_ERR_OK;
}

/* Goes on with a certificate that is no good: the verdict stays with the connection. */
static int server_on_verify(int is_good, X509_STORE_CTX *ctx)
{
	return 1;
}

static int server_set_client_ca(struct tls_context *c, const struct tls_server_params *p)
{
	STACK_OF(X509_NAME) *names = NULL;
	X509_STORE *store = tls_store_load(p->client_ca, p->client_ca_name, &names);
	if (store == NULL)
		return -1;
	SSL_CTX_set_cert_store(c->ctx, store);
	SSL_CTX_set_client_CA_list(c->ctx, names);
	if (p->is_client_optional)
		SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, server_on_verify);
	else
		SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	c->has_client_ca = true;
	return 0;
}

/* A session of other client authorities must not open this context. */
static int server_set_session_id(struct tls_context *c, const struct tls_server_params *p)
{
	unsigned char id[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	str_t ca = p->client_ca != NULL ? secret_bytes(p->client_ca) : STR("no client authorities");
	if (EVP_Digest(ca.p, ca.n, id, &n, EVP_sha256(), NULL) != 1 ||
	    SSL_CTX_set_session_id_context(c->ctx, id, n) != 1)
		return context_fail("no session id");
	return 0;
}

static int server_get_material(struct tls_context *c, const struct tls_server_params *p,
			       const struct tls_context *before)
{
	if (p->credentials.cert != NULL || p->credentials.key != NULL)
		return tls_material_load(&p->credentials, &c->material);
	bool is_kept = before != NULL && before->material.is_self_signed &&
		       strcmp(before->hostname, c->hostname) == 0 &&
		       wall_sub(before->material.not_after, wall_now()).ns > TLS_SELF_SIGNED_KEEP.ns;
	if (!is_kept)
		return tls_material_make(c->hostname, &c->material);
	tls_material_copy(&c->material, &before->material);
	return 0;
}

/* before: the context that this one is to replace, or NULL. */
static struct tls_context *server_context_new(const struct tls_server_params *p, struct tls_tickets *tickets,
					      const struct tls_context *before)
{
	struct tls_context *c = context_new(TLS_server_method(), p->minimum_version, p->security_level);
	if (c == NULL)
		return NULL;
	c->tickets = tls_tickets_ref(tickets);
	c->hostname = xstrdup(p->hostname != NULL && p->hostname[0] != 0 ? p->hostname : "localhost");
	tls_tickets_use(c->ctx);
	SSL_CTX_set_tlsext_servername_callback(c->ctx, server_on_name);
	if (SSL_CTX_set_cipher_list(c->ctx, TLS_SERVER_CIPHERS) != 1) {
		context_fail("the ciphers of TLS 1.2");
		goto fail;
	}
	if (context_set_alpn(c, p->alpn) != 0 || server_get_material(c, p, before) != 0 ||
	    context_set_material(c, p->credentials.cert_name) != 0 || server_set_session_id(c, p) != 0 ||
	    (p->client_ca != NULL && server_set_client_ca(c, p) != 0))
		goto fail;
	if (c->alpn != NULL)
		SSL_CTX_set_alpn_select_cb(c->ctx, server_on_alpn, c);
	return c;
fail:
	tls_context_unref(c);
	return NULL;
}

struct tls_server *tls_server_new(const struct tls_server_params *p)
{
	struct tls_tickets *tickets = tls_tickets_new();
	struct tls_context *c = server_context_new(p, tickets, NULL);
	if (c == NULL) {
		tls_tickets_unref(tickets);
		return NULL;
	}
	struct tls_server *srv = xnew(struct tls_server);
	atomic_init(&srv->n_refs, 1);
	pthread_mutex_init(&srv->lock, NULL);
	srv->context = c;
	srv->tickets = tickets;
	return srv;
}

struct tls_context *tls_server_context(struct tls_server *srv)
{
	pthread_mutex_lock(&srv->lock);
	struct tls_context *c = context_ref(srv->context);
	pthread_mutex_unlock(&srv->lock);
	return c;
}

int tls_server_reload(struct tls_server *srv, const struct tls_server_params *p)
{
	struct tls_context *before = tls_server_context(srv);
	struct tls_context *c = server_context_new(p, srv->tickets, before);
	tls_context_unref(before);
	if (c == NULL)
		return -1;
	pthread_mutex_lock(&srv->lock);
	before = srv->context;
	srv->context = c;
	pthread_mutex_unlock(&srv->lock);
	tls_context_unref(before);
	return 0;
}

void tls_server_unref(struct tls_server *srv)
{
	if (srv == NULL || atomic_fetch_sub_explicit(&srv->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	tls_context_unref(srv->context);
	tls_tickets_unref(srv->tickets);
	pthread_mutex_destroy(&srv->lock);
	free(srv);
}

wall_t tls_server_not_after(struct tls_server *srv)
{
	struct tls_context *c = tls_server_context(srv);
	wall_t t = c->material.not_after;
	tls_context_unref(c);
	return t;
}

bool tls_server_is_self_signed(struct tls_server *srv)
{
	struct tls_context *c = tls_server_context(srv);
	bool is_self_signed = c->material.is_self_signed;
	tls_context_unref(c);
	return is_self_signed;
}

void tls_server_warnings(struct tls_server *srv, struct buf *out)
{
	struct tls_context *c = tls_server_context(srv);
	buf_add_str(out, buf_str(&c->material.warnings));
	tls_context_unref(c);
}

/* --- clients --- */

/* OpenSSL hands over the reference when this returns 1. */
static int client_on_session(SSL *ssl, SSL_SESSION *s)
{
	const struct tls *t = SSL_get_app_data(ssl);
	if (t == NULL || t->session_name == NULL)
		return 0;
	tls_sessions_put(t->context->sessions, t->session_name, s);
	return 1;
}

static int client_set_trust(struct tls_context *c, const struct tls_client_params *p)
{
	c->is_unverified = p->is_unverified;
	/* Without SSL_VERIFY_PEER a client looks at the certificate all the same, and goes on. */
	SSL_CTX_set_verify(c->ctx, p->is_unverified ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	if (p->ca == NULL)
		return SSL_CTX_set_default_verify_paths(c->ctx) == 1
			       ? 0
			       : context_fail("the certificate authorities of the system");
	X509_STORE *store = tls_store_load(p->ca, p->ca_name, NULL);
	if (store == NULL)
		return -1;
	SSL_CTX_set_cert_store(c->ctx, store);
	return 0;
}

static int client_set_ciphers(struct tls_context *c, const struct tls_client_params *p)
{
	if (SSL_CTX_set_cipher_list(c->ctx, p->ciphers != NULL ? p->ciphers : TLS_CLIENT_CIPHERS) != 1) {
		err_set(ERR_INVALID, "`%s` selects no TLS 1.2 cipher: %s",
			p->ciphers != NULL ? p->ciphers : TLS_CLIENT_CIPHERS, tls_take_reason());
		return -1;
	}
	if (p->ciphersuites != NULL && SSL_CTX_set_ciphersuites(c->ctx, p->ciphersuites) != 1) {
		err_set(ERR_INVALID, "`%s` are no TLS 1.3 ciphersuites: %s", p->ciphersuites,
			tls_take_reason());
		return -1;
	}
	return 0;
}

static struct tls_context *client_context_new(const struct tls_client_params *p)
{
	struct tls_context *c = context_new(TLS_client_method(), p->minimum_version, p->security_level);
	if (c == NULL)
		return NULL;
	if (client_set_ciphers(c, p) != 0 || context_set_alpn(c, p->alpn) != 0 || client_set_trust(c, p) != 0)
		goto fail;
	if (p->credentials.cert != NULL || p->credentials.key != NULL)
		if (tls_material_load(&p->credentials, &c->material) != 0 ||
		    context_set_material(c, p->credentials.cert_name) != 0)
			goto fail;
	if (c->alpn != NULL && SSL_CTX_set_alpn_protos(c->ctx, c->alpn, c->n_alpn) != 0) { /* 0 is success */
		context_fail("ALPN");
		goto fail;
	}
	SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
	if (p->max_sessions > 0) {
		c->sessions = tls_sessions_new(p->max_sessions);
		SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(c->ctx, client_on_session);
	}
	return c;
fail:
	tls_context_unref(c);
	return NULL;
}

struct tls_client *tls_client_new(const struct tls_client_params *p)
{
	struct tls_context *context = client_context_new(p);
	if (context == NULL)
		return NULL;
	struct tls_client *c = xnew(struct tls_client);
	atomic_init(&c->n_refs, 1);
	c->context = context;
	return c;
}

struct tls_context *tls_client_context(struct tls_client *c)
{
	return context_ref(c->context);
}

void tls_client_unref(struct tls_client *c)
{
	if (c == NULL || atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	tls_context_unref(c->context);
	free(c);
}
