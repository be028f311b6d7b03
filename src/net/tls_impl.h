/* tls_impl.h - what the TLS files share: certificates with their key, contexts, resumption, and the state
 * below a stream. */
#pragma once

#include "base/err.h"
#include "net/stream_impl.h"
#include "net/tls.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

/** The reason of the oldest error in OpenSSL's queue, static text. The queue is empty after. */
const char *tls_take_reason(void);

/* --- tls_pem.c --- */
struct tls_material {
	X509 *cert;
	STACK_OF(X509) * chain; /* without the leaf, in order */
	EVP_PKEY *key;
	bool is_self_signed; /* made by us */
	wall_t not_after;    /* of the leaf */
	struct buf warnings;
};
void tls_material_fini(struct tls_material *m);
/** -1 ERR_INVALID naming the input; nothing to release then. */
MUST_CHECK int tls_material_load(const struct tls_credentials *c, struct tls_material *out);
/** A self-signed certificate (tls_self_signed.c). */
MUST_CHECK int tls_material_make(const char *hostname, struct tls_material *out);
void tls_material_copy(struct tls_material *dst, const struct tls_material *src); /* new references */
bool tls_time(const ASN1_TIME *t, wall_t *out);
/** The PEM certificates as trust anchors; *names (may be NULL) gets their subjects. NULL ERR_INVALID. */
X509_STORE *tls_store_load(const struct secret *ca, const char *name, STACK_OF(X509_NAME) * *names);

/* --- tls_resume.c --- */
/* A server's ticket keys: shared by its contexts and all workers, new ones every few hours. */
struct tls_tickets;
struct tls_tickets *tls_tickets_new(void);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
void tls_tickets_unref(struct tls_tickets *t);
void tls_tickets_use(SSL_CTX *ctx); /* the context's app data is the tls_context */
/* A client's sessions by server name. */
struct tls_sessions;
struct tls_sessions *tls_sessions_new(unsigned max);
void tls_sessions_free(struct tls_sessions *ss);
void tls_sessions_put(struct tls_sessions *ss, const char *name, SSL_SESSION *s); /* takes the reference */
SSL_SESSION *tls_sessions_take(struct tls_sessions *ss, const char *name);	  /* a reference, or NULL */

/* --- tls_context.c --- */
/* Immutable but for what OpenSSL locks itself; connections hold a reference. */
struct tls_context {
	atomic_uint n_refs;
	SSL_CTX *ctx;
	unsigned char *alpn; /* wire form */
	unsigned n_alpn;
	bool is_unverified;	       /* client */
	bool has_client_ca;	       /* server */
	struct tls_tickets *tickets;   /* server */
	struct tls_sessions *sessions; /* client; NULL: none are kept */
	char *hostname;		       /* server */
	struct tls_material material;
};
void tls_context_unref(struct tls_context *c);
struct tls_context *tls_server_context(struct tls_server *srv); /* the newest, referenced */
struct tls_context *tls_client_context(struct tls_client *c);	/* referenced */

/* --- tls_stream.c --- */
/* Below one stream. */
struct tls {
	SSL *ssl;
	struct tls_context *context;
	char *fed; /* received in the clear, to be read first; NULL: none (left) */
	size_t n_fed, fed_off;
	char *session_name; /* client, with sessions */
	bool is_eof;	    /* the peer's end of the connection is closed */
	bool is_broken;	    /* no more calls into ssl */
	bool has_said_goodbye;
	int sys_errno;		/* of the last system call that failed */
	enum err_kind why_kind; /* of the failure that EPROTO stands for */
	char *why;
	struct tls_info info;
};

/* --- tls_info.c --- */
void tls_info_fill(struct tls_info *info, SSL *ssl, bool is_server);
void tls_info_fini(struct tls_info *info);
