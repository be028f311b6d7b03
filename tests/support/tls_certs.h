/* tls_certs.h - certificates and keys made on the spot, for tests. */
#pragma once

#include "base/secret.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CERT_MUST(cond) cert_must((cond), #cond, __LINE__)
static inline void cert_must(bool is_true, const char *text, int line)
{
	if (is_true)
		return;
	fprintf(stderr, "tls_certs.h:%d: %s\n", line, text);
	abort();
}

/* Making an RSA key takes long: one for the whole program. */
static inline EVP_PKEY *cert_key(const char *type)
{
	static EVP_PKEY *rsa;
	EVP_PKEY *k;
	if (strcmp(type, "rsa") == 0) {
		if (rsa == NULL)
			rsa = EVP_RSA_gen(2048);
		k = rsa;
		CERT_MUST(k != NULL && EVP_PKEY_up_ref(k) == 1);
	} else if (strcmp(type, "ec") == 0) {
		k = EVP_EC_gen("P-256");
	} else if (strcmp(type, "rsa1024") == 0) {
		k = EVP_RSA_gen(1024);
	} else {
		k = EVP_PKEY_Q_keygen(NULL, NULL, type);
	}
	CERT_MUST(k != NULL);
	return k;
}

static inline void cert_add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	CERT_MUST(e != NULL && X509_add_ext(x, e, -1) == 1);
	X509_EXTENSION_free(e);
}

struct cert {
	X509 *x;
	EVP_PKEY *key;
};

struct cert_spec {
	const char *cn;
	const char *key_type;	   /* NULL: ec */
	const char *alt;	   /* "DNS:localhost,IP:127.0.0.1" */
	const struct cert *issuer; /* NULL: itself */
	bool is_ca;
	long from_s, to_s; /* from now; both 0: an hour ago, in a day */
};

static inline struct cert cert_make(const struct cert_spec *s)
{
	static long serial = 1;
	struct cert c = {X509_new(), cert_key(s->key_type != NULL ? s->key_type : "ec")};
	const struct cert *by = s->issuer != NULL ? s->issuer : &c;
	X509_NAME *name = X509_get_subject_name(c.x);
	bool is_default = s->from_s == 0 && s->to_s == 0;
	CERT_MUST(X509_set_version(c.x, X509_VERSION_3) == 1);
	CERT_MUST(ASN1_INTEGER_set(X509_get_serialNumber(c.x), ++serial) == 1);
	CERT_MUST(X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Tests", -1, -1,
					     0) == 1);
	CERT_MUST(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)s->cn, -1, -1,
					     0) == 1);
	X509_gmtime_adj(X509_getm_notBefore(c.x), is_default ? -3600 : s->from_s);
	X509_gmtime_adj(X509_getm_notAfter(c.x), is_default ? 86400 : s->to_s);
	CERT_MUST(X509_set_pubkey(c.x, c.key) == 1);
	CERT_MUST(X509_set_issuer_name(c.x, X509_get_subject_name(by->x)) == 1);
	cert_add_ext(c.x, by->x, NID_basic_constraints, s->is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	cert_add_ext(c.x, by->x, NID_subject_key_identifier, "hash");
	if (s->issuer != NULL)
		cert_add_ext(c.x, by->x, NID_authority_key_identifier, "keyid");
	if (s->alt != NULL)
		cert_add_ext(c.x, by->x, NID_subject_alt_name, s->alt);
	int type = EVP_PKEY_get_id(by->key);
	const EVP_MD *md = type == EVP_PKEY_ED25519 || type == EVP_PKEY_ED448 ? NULL : EVP_sha256();
	CERT_MUST(X509_sign(c.x, by->key, md) > 0);
	return c;
}

static inline void cert_free(struct cert *c)
{
	X509_free(c->x);
	EVP_PKEY_free(c->key);
}

static inline struct secret *cert_take_bio(BIO *bio)
{
	char *p;
	long n = BIO_get_mem_data(bio, &p);
	struct secret *s = secret_new(str_mk(p, (size_t)n));
	BIO_free(bio);
	return s;
}

/* The certificates one after the other; NULL-terminated. */
static inline struct secret *cert_pem(const struct cert *const *c)
{
	BIO *bio = BIO_new(BIO_s_mem());
	for (; *c != NULL; c++)
		CERT_MUST(PEM_write_bio_X509(bio, (*c)->x) == 1);
	return cert_take_bio(bio);
}
#define CERT_PEM(...) cert_pem((const struct cert *const[]){__VA_ARGS__, NULL})

static inline struct secret *cert_der(const struct cert *c)
{
	BIO *bio = BIO_new(BIO_s_mem());
	CERT_MUST(i2d_X509_bio(bio, c->x) == 1);
	return cert_take_bio(bio);
}

enum key_form { KEY_PKCS8, KEY_TRADITIONAL, KEY_DER, KEY_ENCRYPTED };

static inline struct secret *cert_key_pem(const struct cert *c, enum key_form form)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int rc = 0;
	switch (form) {
	case KEY_PKCS8:
		rc = PEM_write_bio_PKCS8PrivateKey(bio, c->key, NULL, NULL, 0, NULL, NULL);
		break;
	case KEY_TRADITIONAL:
		rc = PEM_write_bio_PrivateKey_traditional(bio, c->key, NULL, NULL, 0, NULL, NULL);
		break;
	case KEY_DER:
		rc = i2d_PrivateKey_bio(bio, c->key);
		break;
	case KEY_ENCRYPTED:
		rc = PEM_write_bio_PKCS8PrivateKey(bio, c->key, EVP_aes_128_cbc(), "pass", 4, NULL, NULL);
		break;
	}
	CERT_MUST(rc == 1);
	return cert_take_bio(bio);
}
