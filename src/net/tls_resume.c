/* tls_resume.c - resuming sessions.
 *
 * Servers keep nothing per session: the state is in the ticket, sealed by keys that all workers share (RFC
 * 5077 section 4; also for TLS 1.3). New keys every TICKET_ROTATE; the pair before opens what it sealed for
 * as long as a session lives, no longer, so that taken keys open a few hours of TLS 1.2, not years. The keys
 * belong to the server, not to its context: a reload leaves tickets valid. Whether a session may be used in a
 * context at all (the same client authorities) is what the context's session id says, which OpenSSL compares.
 *
 * Clients keep sessions by server name, the newest per name, oldest out first. A TLS 1.3 ticket is used once
 * (RFC 8446 appendix C.4), so taking one removes it. */
#include "net/tls_impl.h"

#include "base/alloc.h"
#include "base/map.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>

#define TICKET_ROTATE dur_s(4 * 3600)
#define TICKET_LIFE_S (4 * 3600) /* at most TICKET_ROTATE: then two keys are enough */
#define TICKET_NAME_BYTES 16
#define TICKET_KEY_BYTES 32

struct ticket_key {
	unsigned char name[TICKET_NAME_BYTES];
	unsigned char aes[TICKET_KEY_BYTES];
	unsigned char hmac[TICKET_KEY_BYTES];
	mono_t born;
};

struct tls_tickets {
	atomic_uint n_refs;
	pthread_mutex_t lock;
	struct ticket_key key[2]; /* the newest first */
	unsigned n;
};

struct tls_tickets *tls_tickets_new(void)
{
	struct tls_tickets *t = xnew(struct tls_tickets);
	atomic_init(&t->n_refs, 1);
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
	atomic_fetch_add_explicit(&t->n_refs, 1, memory_order_relaxed);
	return t;
}

void tls_tickets_unref(struct tls_tickets *t)
{
	if (t == NULL || atomic_fetch_sub_explicit(&t->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_destroy(&t->lock);
	secret_wipe(t, sizeof(*t));
	free(t);
}

/* Under the lock. False: no random bytes. */
static bool tickets_rotate(struct tls_tickets *t)
{
	mono_t now = mono_now();
	while (t->n > 0 && mono_sub(now, t->key[t->n - 1].born).ns >= 2 * TICKET_ROTATE.ns)
		secret_wipe(&t->key[--t->n], sizeof(t->key[0]));
	if (t->n > 0 && mono_sub(now, t->key[0].born).ns < TICKET_ROTATE.ns)
		return true;
	struct ticket_key fresh = {.born = now};
	if (RAND_bytes(fresh.name, sizeof(fresh.name)) != 1 ||
	    RAND_bytes(fresh.aes, sizeof(fresh.aes)) != 1 || RAND_bytes(fresh.hmac, sizeof(fresh.hmac)) != 1)
		return false;
	t->key[1] = t->key[0];
	t->key[0] = fresh;
	t->n = t->n == 0 ? 1 : 2;
	secret_wipe(&fresh, sizeof(fresh));
	return true;
}

/* 1: found (the newest when name is NULL), 2: found, but not the newest; 0: unknown; -1: no random bytes. */
static int tickets_find(struct tls_tickets *t, const unsigned char *name, struct ticket_key *out)
{
	int rc = 0;
	pthread_mutex_lock(&t->lock);
	if (!tickets_rotate(t)) {
		rc = -1;
	} else if (name == NULL) {
		*out = t->key[0];
		rc = 1;
	}
	for (unsigned i = 0; rc == 0 && i < t->n; i++) {
		if (memcmp(t->key[i].name, name, TICKET_NAME_BYTES) != 0)
			continue;
		*out = t->key[i];
		rc = i == 0 ? 1 : 2;
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3) says what the results mean. */
static int tickets_on_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
			  EVP_MAC_CTX *mac, int is_sealing)
{
	struct tls_context *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	struct ticket_key k;
	int rc = tickets_find(c->tickets, is_sealing ? NULL : name, &k);
	if (rc <= 0)
		return rc;
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k.hmac, sizeof(k.hmac)),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};
	bool is_ready = EVP_MAC_CTX_set_params(mac, params) == 1;
	if (is_sealing) {
		memcpy(name, k.name, TICKET_NAME_BYTES);
		is_ready = is_ready && RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
			   EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, k.aes, iv) == 1;
	} else {
		is_ready = is_ready && EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, k.aes, iv) == 1;
	}
	secret_wipe(&k, sizeof(k));
	if (!is_sealing && SSL_version(ssl) >= TLS1_3_VERSION)
		rc = 2; /* a ticket serves once: it is replaced */
	return is_ready ? rc : -1;
}

void tls_tickets_use(SSL_CTX *ctx)
{
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_timeout(ctx, TICKET_LIFE_S);
	SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, tickets_on_key);
}

/* --- clients --- */

struct session_entry {
	struct list link; /* oldest first */
	char *name;
	SSL_SESSION *session;
};

struct tls_sessions {
	pthread_mutex_t lock;
	struct list all;
	struct map by_name;
	unsigned max;
};

struct tls_sessions *tls_sessions_new(unsigned max)
{
	struct tls_sessions *ss = xnew(struct tls_sessions);
	pthread_mutex_init(&ss->lock, NULL);
	list_init(&ss->all);
	ss->max = max;
	return ss;
}

/* Under the lock. */
static void sessions_drop(struct tls_sessions *ss, struct session_entry *e)
{
	list_remove(&e->link);
	map_remove(&ss->by_name, str_of(e->name));
	SSL_SESSION_free(e->session);
	free(e->name);
	free(e);
}

void tls_sessions_free(struct tls_sessions *ss)
{
	if (ss == NULL)
		return;
	while (!list_is_empty(&ss->all))
		sessions_drop(ss, list_entry(ss->all.next, struct session_entry, link));
	map_fini(&ss->by_name);
	pthread_mutex_destroy(&ss->lock);
	free(ss);
}

void tls_sessions_put(struct tls_sessions *ss, const char *name, SSL_SESSION *s)
{
	struct session_entry *e = xnew(struct session_entry);
	e->name = xstrdup(name);
	e->session = s;
	pthread_mutex_lock(&ss->lock);
	struct session_entry *before = map_find(&ss->by_name, str_of(name));
	if (before != NULL)
		sessions_drop(ss, before);
	else if (ss->by_name.n >= ss->max)
		sessions_drop(ss, list_entry(ss->all.next, struct session_entry, link));
	list_push_back(&ss->all, &e->link);
	map_put(&ss->by_name, str_of(e->name), e);
	pthread_mutex_unlock(&ss->lock);
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *ss, const char *name)
{
	SSL_SESSION *s = NULL;
	pthread_mutex_lock(&ss->lock);
	struct session_entry *e = map_find(&ss->by_name, str_of(name));
	if (e != NULL) {
		s = e->session;
		SSL_SESSION_up_ref(s);
		if (SSL_SESSION_get_protocol_version(s) >= TLS1_3_VERSION || !SSL_SESSION_is_resumable(s))
			sessions_drop(ss, e);
	}
	pthread_mutex_unlock(&ss->lock);
	return s;
}
