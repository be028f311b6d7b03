/* tls.h - TLS 1.2 and 1.3 (RFC 5246, RFC 8446) below the calls of stream.h, by
 * OpenSSL: certificates and keys, what a server offers, what a client demands, and
 * what became of a handshake. Servers and clients are shared by all workers; streams
 * stay on theirs. There is no renegotiation, no compression and no early data. */
#pragma once

#include "base/clock.h"
#include "base/secret.h"
#include "net/stream.h"

enum tls_version { TLS_1_2, TLS_1_3 };

#define TLS_SECURITY_NONE (-1)

/** A certificate chain and its private key, each PEM (text around it is passed over; both
 * may be in one text) or DER. The chain has the leaf first, then each one's issuer; a
 * chain in another order is put right, which is a warning; one with a certificate that
 * belongs to no other is refused. Keys: PKCS#1, PKCS#8, SEC1; RSA, EC, Ed25519, Ed448;
 * not encrypted. The names are what error texts call the inputs: "file `/etc/cert.pem`". */
struct tls_credentials {
	const struct secret *cert, *key; /* both or neither */
	const char *cert_name, *key_name;
};

/* --- servers --- */

struct tls_server_params {
	struct tls_credentials credentials; /* none: self-signed, ECDSA P-256, in memory only, for a year */
	const char *hostname; /* of the self-signed one: a name or an IP address; NULL: localhost */
	/* PEM: clients must show a certificate that leads to one of these. NULL: none is asked for. */
	const struct secret *client_ca;
	const char *client_ca_name;
	bool is_client_optional; /* with client_ca: they need not; tls_info says whether a verified one was
				    shown */
	enum tls_version minimum_version;
	/* Protocols in the order of preference, NULL-terminated; NULL: ALPN is not taken part in. A client
	 * that offers others only is refused (RFC 7301 section 3.2). */
	const char *const *alpn;
	int security_level; /* OpenSSL's, 1 to 5; 0: the default, 2; TLS_SECURITY_NONE: 0 */
};

struct tls_server;
/** All params are copied or referenced. -1 ERR_INVALID names the input that is wrong and why. Never yields,
 * never blocks. */
MUST_CHECK struct tls_server *tls_server_new(const struct tls_server_params *p);
/** Handshakes that begin from now on use these params, connections that are there live on with theirs. With
 * an error everything stays as it was. A self-signed certificate for the same hostname is kept while it has a
 * month to go. Tickets stay valid unless the client CAs have changed. */
MUST_CHECK int tls_server_reload(struct tls_server *srv, const struct tls_server_params *p);
void tls_server_unref(struct tls_server *srv); /* NULL is fine */
/** When the certificate ends that new connections get. */
wall_t tls_server_not_after(struct tls_server *srv);
bool tls_server_is_self_signed(struct tls_server *srv);
/** What is odd but usable about the newest params, "; " between them: an expired certificate, an order put
 * right. Appends nothing when all is well. */
void tls_server_warnings(struct tls_server *srv, struct buf *out);

/* --- clients --- */

struct tls_client_params {
	bool is_unverified;	 /* any certificate will do; tls_info says what is wrong with it */
	const struct secret *ca; /* PEM; NULL: those of the system */
	const char *ca_name;
	struct tls_credentials credentials; /* shown when the server asks for one; none: nothing to show */
	enum tls_version minimum_version;
	const char
		*ciphers; /* TLS 1.2, in OpenSSL's words; NULL: its DEFAULT without NULL and anonymous ones */
	const char *ciphersuites; /* TLS 1.3, likewise; NULL: OpenSSL's */
	const char *const *alpn;
	int security_level;    /* as above */
	unsigned max_sessions; /* that are remembered, by the server's name, for resumption; 0: none */
};

struct tls_client;
MUST_CHECK struct tls_client *tls_client_new(const struct tls_client_params *p);
void tls_client_unref(struct tls_client *c);

/* --- on a stream --- */

/** What to do with bytes that were received in the clear and not consumed when TLS starts. */
enum tls_buffered {
	TLS_BUFFERED_REFUSE, /* ERR_PROTO: after STARTTLS nothing may follow in the clear */
	TLS_BUFFERED_DROP,
	TLS_BUFFERED_FEED, /* they are the beginning of the handshake: behind a PROXY header */
};

/** The handshake. Yields. 0: every stream call goes through TLS from now on. -1: ERR_PROTO with OpenSSL's
 * reason (and the verifier's), ERR_CLOSED, ERR_TIMEOUT, ERR_CANCELLED; the stream is in the clear again,
 * without what TLS has read of it, so as a rule it is closed then. After -1 for REFUSE nothing was read. */
MUST_CHECK int stream_start_tls_server(struct stream *st, struct tls_server *srv, enum tls_buffered buffered,
				       mono_t deadline);
/** @server_name  a domain name or an IP address: for SNI (names only), for the check of the certificate, and
 * to find a session to resume. May be NULL with is_unverified. Yields. -1 as stream_start_tls_server. */
MUST_CHECK int stream_start_tls_client(struct stream *st, struct tls_client *c, const char *server_name,
				       enum tls_buffered buffered, mono_t deadline);

enum tls_name_kind { TLS_NAME_SUBJECT, TLS_NAME_DNS, TLS_NAME_EMAIL, TLS_NAME_URI, TLS_NAME_IP };
struct tls_name {
	enum tls_name_kind kind;
	char *text; /* of the subject, one attribute: "CN=mail.example.com" */
};

struct tls_info {
	bool is_server;
	bool is_resumed;
	const char *version, *cipher;		/* OpenSSL's names: "TLSv1.3", "TLS_AES_256_GCM_SHA384" */
	const char *version_word, *cipher_word; /* "TLSv1_3", "TLS13_AES_256_GCM_SHA384" */
	str_t alpn;				/* empty: none */
	const char *server_name;		/* by SNI, as the peer wrote it; NULL: none */
	bool has_peer_certificate;
	bool is_peer_verified;	  /* its chain, and for clients its name */
	const char *peer_problem; /* why it is not, if there is one: "self-signed certificate" */
	/* Who the verified peer is: the attributes of its subject, then its subject alternative names. */
	size_t n_peer_names;
	const struct tls_name *peer_name;
};
/** NULL in the clear. Valid as long as the stream is. */
const struct tls_info *stream_tls_info(const struct stream *st);
