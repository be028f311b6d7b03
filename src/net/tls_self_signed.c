/* tls_self_signed.c - the certificate of a server that was given none: ECDSA on P-256, signed by itself, for
 * one host name or address. It lives in memory; the key is never written anywhere. It says that it is no
 * authority, so that one who chooses to trust it trusts this server only. It begins an hour in the past, for
 * clients whose clocks are behind. */
#include "net/tls_impl.h"

#include "base/err.h"
#include "net/dns_impl.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#define SELF_SIGNED_DAYS 365
#define SELF_SIGNED_BACK_S 3600
#define SELF_SIGNED_CN_MAX 64 /* ub-common-name, RFC 5280 appendix A.1 */

static bool self_signed_add_serial(X509 *x)
{
	unsigned char serial[16];
	if (RAND_bytes(serial, sizeof(serial)) != 1)
		return false;
	serial[0] = (serial[0] & 0x3f) | 0x40; /* positive, and always of the same length */
	BIGNUM *n = BN_bin2bn(serial, sizeof(serial), NULL);
	bool is_done = n != NULL && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)) != NULL;
	BN_free(n);
	return is_done;
}

/* A name longer than a common name may be stands in the alternative name only. */
static bool self_signed_add_subject(X509 *x, const char *host)
{
	X509_NAME *name = X509_get_subject_name(x);
	const char *cn = strlen(host) <= SELF_SIGNED_CN_MAX ? host : "self-signed";
	return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0) ==
		       1 &&
	       X509_set_issuer_name(x, name) == 1;
}

/* Made by hand: in OpenSSL's textual form a comma in the name would begin another field. */
static bool self_signed_add_alt_name(X509 *x, const char *host, const struct net_addr *ip)
{
	GENERAL_NAMES *all = sk_GENERAL_NAME_new_null();
	GENERAL_NAME *one = GENERAL_NAME_new();
	sk_GENERAL_NAME_push(all, one);
	if (ip != NULL) {
		bool is_v6 = ip->sa.sa_family == AF_INET6;
		ASN1_OCTET_STRING *bytes = ASN1_OCTET_STRING_new();
		ASN1_OCTET_STRING_set(bytes,
				      is_v6 ? ip->in6.sin6_addr.s6_addr
					    : (const unsigned char *)&ip->in4.sin_addr.s_addr,
				      is_v6 ? 16 : 4);
		GENERAL_NAME_set0_value(one, GEN_IPADD, bytes);
	} else {
		ASN1_IA5STRING *text = ASN1_IA5STRING_new();
		ASN1_STRING_set(text, host, -1);
		GENERAL_NAME_set0_value(one, GEN_DNS, text);
	}
	bool is_done = X509_add1_ext_i2d(x, NID_subject_alt_name, all, 0, X509V3_ADD_DEFAULT) == 1;
	GENERAL_NAMES_free(all);
	return is_done;
}

static bool self_signed_add_extensions(X509 *x)
{
	static const struct {
		int nid;
		const char *value;
	} wanted[] = {
		{NID_basic_constraints, "critical,CA:FALSE"},
		{NID_key_usage, "critical,digitalSignature"},
		{NID_ext_key_usage, "serverAuth"},
		{NID_subject_key_identifier, "hash"},
	};
	X509V3_CTX ctx;
	X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, wanted[i].nid, wanted[i].value);
		bool is_done = e != NULL && X509_add_ext(x, e, -1) == 1;
		X509_EXTENSION_free(e);
		if (!is_done)
			return false;
	}
	return true;
}

int tls_material_make(const char *hostname, struct tls_material *out)
{
	char host[DNS_NAME_BYTES];
	struct tls_material m = {.is_self_signed = true};
	struct net_addr ip;
	int rc = -1;
	bool is_ip = net_addr_parse_ip(str_of(hostname), 0, &ip) == 0;
	if (is_ip) {
		snprintf(host, sizeof(host), "%s", hostname);
	} else if (dns_name_normalize(str_of(hostname), host) != 0) {
		err_wrap("a self-signed certificate for `%.300s` cannot be made", hostname);
		return -1;
	}
	err_clear();
	ERR_clear_error();
	time_t now = (time_t)wall_unix_s(wall_now());
	m.key = EVP_EC_gen("P-256");
	m.cert = X509_new();
	m.chain = sk_X509_new_null();
	if (m.key == NULL || m.cert == NULL || X509_set_version(m.cert, X509_VERSION_3) != 1 ||
	    !self_signed_add_serial(m.cert) || !self_signed_add_subject(m.cert, host) ||
	    ASN1_TIME_adj(X509_getm_notBefore(m.cert), now, 0, -SELF_SIGNED_BACK_S) == NULL ||
	    ASN1_TIME_adj(X509_getm_notAfter(m.cert), now, SELF_SIGNED_DAYS, 0) == NULL ||
	    X509_set_pubkey(m.cert, m.key) != 1 ||
	    !self_signed_add_alt_name(m.cert, host, is_ip ? &ip : NULL) ||
	    !self_signed_add_extensions(m.cert) || X509_sign(m.cert, m.key, EVP_sha256()) == 0 ||
	    !tls_time(X509_get0_notAfter(m.cert), &m.not_after)) {
		err_set(ERR_INVALID, "a self-signed certificate for `%.300s` cannot be made: %s", hostname,
			tls_take_reason());
		goto out;
	}
	*out = m;
	m = (struct tls_material){0};
	rc = 0;
out:
	tls_material_fini(&m);
	return rc;
}
