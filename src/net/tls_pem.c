/* tls_pem.c - certificates and keys as they come from files and vaults.
 *
 * One text may hold the chain, the key, or both, with anything around them; what begins like PEM is read as
 * PEM, the rest as DER. A file that is almost right is where people lose an hour, so every way of being wrong
 * has its own text: the key where the certificate belongs, a block that is cut off, a passphrase, two files
 * that do not belong together.
 *
 * The chain is sorted rather than trusted: the leaf is the certificate that the key belongs to; then follows,
 * from what is left, an issuer of the one before. Others that issued any of these are kept behind
 * (cross-signed intermediates); a certificate that issued none of them is a mistake and refused. */
#include "net/tls_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#define TLS_PEM_MAX_BYTES (1 << 20)
#define TLS_CHAIN_MAX 64
#define TLS_STORE_MAX 4096

const char *tls_take_reason(void)
{
	unsigned long e = ERR_peek_error();
	const char *text = e != 0 ? ERR_reason_error_string(e) : NULL;
	ERR_clear_error();
	return text != NULL ? text : "unknown reason";
}

void tls_material_fini(struct tls_material *m)
{
	X509_free(m->cert);
	sk_X509_pop_free(m->chain, X509_free);
	EVP_PKEY_free(m->key);
	buf_fini(&m->warnings);
	*m = (struct tls_material){0};
}

void tls_material_copy(struct tls_material *dst, const struct tls_material *src)
{
	*dst = *src;
	X509_up_ref(src->cert);
	dst->chain = X509_chain_up_ref(src->chain);
	EVP_PKEY_up_ref(src->key);
	dst->warnings = BUF_INIT;
	buf_add_str(&dst->warnings, buf_str(&src->warnings));
}

PRINTF_LIKE(2, 3) static void tls_material_warn(struct tls_material *m, const char *fmt, ...)
{
	va_list ap;
	if (m->warnings.n > 0)
		buf_add_z(&m->warnings, "; ");
	va_start(ap, fmt);
	buf_vprintf(&m->warnings, fmt, ap);
	va_end(ap);
}

bool tls_time(const ASN1_TIME *t, wall_t *out)
{
	struct tm tm;
	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return false;
	time_t s = timegm(&tm);
	/* The year 9999 of certificates without an end is beyond 64 bits of nanoseconds. */
	out->ns = s > INT64_MAX / NS_PER_S ? INT64_MAX : (int64_t)s * NS_PER_S;
	return true;
}

/* --- reading --- */

static bool pem_has(str_t text, const char *what)
{
	return str_find(text, str_of(what)) >= 0;
}

static bool pem_is_pem(str_t text)
{
	return pem_has(text, "-----BEGIN ");
}

/* OpenSSL would ask on the terminal. */
static int pem_no_passphrase(char *buf, int size, int is_writing, void *arg)
{
	bool *is_asked = arg;
	if (is_asked != NULL)
		*is_asked = true;
	return -1;
}

/* 1, 0 at the end, -1 when the n-th certificate cannot be read. */
static int pem_next_cert(BIO *bio, X509 **out)
{
	ERR_clear_error();
	X509 *x = PEM_read_bio_X509(bio, NULL, pem_no_passphrase, NULL);
	if (x != NULL) {
		*out = x;
		return 1;
	}
	unsigned long e = ERR_peek_last_error();
	return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE ? 0 : -1;
}

static int pem_read_certs(str_t text, const char *name, int max, STACK_OF(X509) * out)
{
	int rc = -1, found;
	X509 *x = NULL;
	BIO *bio = BIO_new_mem_buf(text.p, (int)text.n);
	while ((found = pem_next_cert(bio, &x)) == 1) {
		if (sk_X509_num(out) == max) {
			X509_free(x);
			err_set(ERR_INVALID, "%s holds more than %d certificates", name, max);
			goto out;
		}
		sk_X509_push(out, x);
	}
	if (found == -1) {
		err_set(ERR_INVALID, "certificate %d in %s cannot be read: %s", sk_X509_num(out) + 1, name,
			tls_take_reason());
		goto out;
	}
	rc = 0;
out:
	ERR_clear_error();
	BIO_free(bio);
	return rc;
}

static int pem_read_der_cert(str_t der, STACK_OF(X509) * out)
{
	const unsigned char *p = (const unsigned char *)der.p;
	X509 *x = d2i_X509(NULL, &p, (long)der.n);
	bool is_whole = x != NULL && p == (const unsigned char *)der.p + der.n;
	if (is_whole)
		sk_X509_push(out, x);
	else
		X509_free(x);
	ERR_clear_error();
	return is_whole ? 0 : -1;
}

static int pem_check_size(str_t text, const char *name)
{
	if (text.n > 0 && text.n <= TLS_PEM_MAX_BYTES)
		return 0;
	err_set(ERR_INVALID, text.n == 0 ? "%s is empty" : "%s is too large for certificates and keys", name);
	return -1;
}

/* At least one certificate. */
static int pem_load_certs(const struct secret *from, const char *name, int max, STACK_OF(X509) * out)
{
	str_t text = secret_bytes(from);
	if (pem_check_size(text, name) != 0)
		return -1;
	if (pem_is_pem(text)) {
		if (pem_read_certs(text, name, max, out) != 0)
			return -1;
		if (sk_X509_num(out) > 0)
			return 0;
	} else if (pem_read_der_cert(text, out) == 0) {
		return 0;
	}
	err_set(ERR_INVALID, "%s holds no certificate%s", name,
		pem_has(text, "PRIVATE KEY-----")	    ? ", but a private key"
		: pem_has(text, "CERTIFICATE REQUEST-----") ? ", but a request for one"
							    : " in PEM or DER form");
	return -1;
}

static bool pem_is_usable_key(const EVP_PKEY *key)
{
	static const int usable[] = {EVP_PKEY_RSA, EVP_PKEY_RSA_PSS, EVP_PKEY_EC, EVP_PKEY_ED25519,
				     EVP_PKEY_ED448};
	for (size_t i = 0; i < ARRAY_SIZE(usable); i++)
		if (EVP_PKEY_get_id(key) == usable[i])
			return true;
	return false;
}

static EVP_PKEY *pem_load_key(const struct secret *from, const char *name)
{
	str_t text = secret_bytes(from);
	bool is_encrypted = false, is_pem = pem_is_pem(text);
	const unsigned char *p = (const unsigned char *)text.p;
	EVP_PKEY *key = NULL;
	if (pem_check_size(text, name) != 0)
		return NULL;
	ERR_clear_error();
	if (is_pem) {
		BIO *bio = BIO_new_mem_buf(text.p, (int)text.n);
		key = PEM_read_bio_PrivateKey(bio, NULL, pem_no_passphrase, &is_encrypted);
		BIO_free(bio);
	} else {
		key = d2i_AutoPrivateKey(NULL, &p, (long)text.n);
	}
	if (key == NULL) {
		bool has_one = is_pem && pem_has(text, "PRIVATE KEY-----");
		if (is_encrypted)
			err_set(ERR_INVALID,
				"the private key in %s is encrypted, "
				"and there is nobody to ask for its passphrase",
				name);
		else if (has_one)
			err_set(ERR_INVALID, "the private key in %s cannot be read: %s", name,
				tls_take_reason());
		else
			err_set(ERR_INVALID, "%s holds no private key%s", name,
				is_pem && pem_has(text, "CERTIFICATE-----") ? ", but a certificate"
									    : " in PEM or DER form");
	} else if (!pem_is_usable_key(key)) {
		const char *type = EVP_PKEY_get0_type_name(key);
		err_set(ERR_INVALID, "the private key in %s is of the type %s, which TLS does not sign with",
			name, type != NULL ? type : "unknown");
		EVP_PKEY_free(key);
		key = NULL;
	}
	ERR_clear_error();
	return key;
}

/* --- the chain --- */

static bool pem_has_issued(X509 *issuer, X509 *subject)
{
	bool has = X509_check_issued(issuer, subject) == X509_V_OK;
	ERR_clear_error();
	return has;
}

static bool pem_has_issued_any(X509 *issuer, X509 *leaf, STACK_OF(X509) * chain)
{
	if (pem_has_issued(issuer, leaf))
		return true;
	for (int i = 0; i < sk_X509_num(chain); i++)
		if (pem_has_issued(issuer, sk_X509_value(chain, i)))
			return true;
	return false;
}

static void pem_drop_duplicates(STACK_OF(X509) * certs)
{
	for (int i = 0; i < sk_X509_num(certs); i++)
		for (int k = sk_X509_num(certs) - 1; k > i; k--)
			if (X509_cmp(sk_X509_value(certs, i), sk_X509_value(certs, k)) == 0)
				X509_free(sk_X509_delete(certs, k));
}

static void pem_name(X509 *x, struct buf *out)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *p;
	X509_NAME_print_ex(bio, X509_get_subject_name(x), 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
	long n = BIO_get_mem_data(bio, &p);
	buf_add_str(out, n > 0 ? str_head(str_mk(p, (size_t)n), 256) : STR("without a subject"));
	BIO_free(bio);
}

/* Takes the leaf and then, one after the other, issuers out of certs. */
static int pem_sort_chain(STACK_OF(X509) * certs, const char *name, struct tls_material *m)
{
	int n = sk_X509_num(certs), at = 0;
	bool is_in_order = X509_check_private_key(sk_X509_value(certs, 0), m->key) == 1;
	while (at < n && X509_check_private_key(sk_X509_value(certs, at), m->key) != 1)
		at++;
	ERR_clear_error();
	if (at == n)
		return -1;
	m->cert = sk_X509_delete(certs, at);
	m->chain = sk_X509_new_null();
	for (X509 *last = m->cert; last != NULL;) {
		X509 *issuer = NULL;
		for (int i = 0; i < sk_X509_num(certs) && issuer == NULL; i++) {
			if (!pem_has_issued(sk_X509_value(certs, i), last))
				continue;
			is_in_order &= i == 0;
			issuer = sk_X509_delete(certs, i);
			sk_X509_push(m->chain, issuer);
		}
		last = issuer;
	}
	for (int i = 0; i < sk_X509_num(certs);) {
		if (pem_has_issued_any(sk_X509_value(certs, i), m->cert, m->chain)) {
			sk_X509_push(m->chain, sk_X509_delete(certs, i));
			i = 0;
		} else {
			i++;
		}
	}
	if (!is_in_order)
		tls_material_warn(m, "the certificates in %s were not in order and have been put right",
				  name);
	return 0;
}

/* Expired, or not valid yet. */
static void pem_check_times(X509 *x, const char *name, struct tls_material *m)
{
	struct buf who = BUF_INIT, when = BUF_INIT;
	wall_t from = {INT64_MIN}, to = {INT64_MAX};
	bool is_early = tls_time(X509_get0_notBefore(x), &from) && from.ns > wall_now().ns;
	bool is_late = tls_time(X509_get0_notAfter(x), &to) && to.ns < wall_now().ns;
	if (is_early || is_late) {
		pem_name(x, &who);
		wall_fmt_rfc3339(is_late ? to : from, 0, &when);
		tls_material_warn(m,
				  is_late ? "the certificate %s in %s has expired at %s"
					  : "the certificate %s in %s is not valid before %s",
				  who.p, name, when.p);
	}
	buf_fini(&who);
	buf_fini(&when);
}

static int pem_fail_mismatch(X509 *first, const char *cert_name, const char *key_name)
{
	struct buf who = BUF_INIT;
	pem_name(first, &who);
	err_set(ERR_INVALID, "the private key in %s does not belong to the certificate %s in %s", key_name,
		who.p, cert_name);
	buf_fini(&who);
	return -1;
}

static int pem_fail_stranger(X509 *x, const char *name)
{
	struct buf who = BUF_INIT;
	pem_name(x, &who);
	err_set(ERR_INVALID, "the certificate %s in %s has issued none of the others there", who.p, name);
	buf_fini(&who);
	return -1;
}

int tls_material_load(const struct tls_credentials *c, struct tls_material *out)
{
	int rc = -1;
	struct tls_material m = {0};
	const char *cert_name = c->cert_name != NULL ? c->cert_name : "the certificate's source";
	const char *key_name = c->key_name != NULL ? c->key_name : "the private key's source";
	STACK_OF(X509) *certs = sk_X509_new_null();

	if (c->cert == NULL || c->key == NULL) {
		if (c->key == NULL)
			err_set(ERR_INVALID, "there is a certificate (%s), but no private key", cert_name);
		else
			err_set(ERR_INVALID, "there is a private key (%s), but no certificate", key_name);
		goto out;
	}
	if (pem_load_certs(c->cert, cert_name, TLS_CHAIN_MAX, certs) != 0)
		goto out;
	if ((m.key = pem_load_key(c->key, key_name)) == NULL)
		goto out;
	pem_drop_duplicates(certs);
	if (pem_sort_chain(certs, cert_name, &m) != 0) {
		pem_fail_mismatch(sk_X509_value(certs, 0), cert_name, key_name);
		goto out;
	}
	if (sk_X509_num(certs) > 0) {
		pem_fail_stranger(sk_X509_value(certs, 0), cert_name);
		goto out;
	}
	if (!tls_time(X509_get0_notAfter(m.cert), &m.not_after)) {
		err_set(ERR_INVALID, "the certificate in %s has no readable end of its validity", cert_name);
		goto out;
	}
	pem_check_times(m.cert, cert_name, &m);
	for (int i = 0; i < sk_X509_num(m.chain); i++)
		pem_check_times(sk_X509_value(m.chain, i), cert_name, &m);
	*out = m;
	m = (struct tls_material){0};
	rc = 0;
out:
	sk_X509_pop_free(certs, X509_free);
	tls_material_fini(&m);
	return rc;
}

X509_STORE *tls_store_load(const struct secret *ca, const char *name, STACK_OF(X509_NAME) * *names)
{
	X509_STORE *store = NULL;
	STACK_OF(X509) *certs = sk_X509_new_null();
	if (name == NULL)
		name = "the source of the certificate authorities";
	if (pem_load_certs(ca, name, TLS_STORE_MAX, certs) != 0)
		goto out;
	pem_drop_duplicates(certs);
	store = X509_STORE_new();
	/* An intermediate authority may be trusted without the root above it. */
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	if (names != NULL)
		*names = sk_X509_NAME_new_null();
	for (int i = 0; i < sk_X509_num(certs); i++) {
		X509 *x = sk_X509_value(certs, i);
		X509_STORE_add_cert(store, x);
		if (names != NULL)
			sk_X509_NAME_push(*names, X509_NAME_dup(X509_get_subject_name(x)));
	}
out:
	sk_X509_pop_free(certs, X509_free);
	ERR_clear_error();
	return store;
}
