/* tls_info.c - what became of a handshake: version, cipher, ALPN, and who the peer is.
 *
 * Names of a peer are taken only from a certificate that was verified, and only if they cannot deceive who
 * compares them as text: one with a NUL in it is left out. */
#include "net/tls_impl.h"

#include "base/alloc.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

static const char *tls_version_word(int version)
{
	return version == TLS1_3_VERSION ? "TLSv1_3" : version == TLS1_2_VERSION ? "TLSv1_2" : "unknown";
}

/* The standard names, but those of TLS 1.3 begin with TLS13_. */
static const char *tls_cipher_word(const SSL_CIPHER *cipher)
{
	static const char *const suites[][2] = {
		{"TLS_AES_128_GCM_SHA256", "TLS13_AES_128_GCM_SHA256"},
		{"TLS_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"},
		{"TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"},
		{"TLS_AES_128_CCM_SHA256", "TLS13_AES_128_CCM_SHA256"},
		{"TLS_AES_128_CCM_8_SHA256", "TLS13_AES_128_CCM_8_SHA256"},
	};
	const char *name = SSL_CIPHER_standard_name(cipher);
	for (size_t i = 0; name != NULL && i < ARRAY_SIZE(suites); i++)
		if (strcmp(name, suites[i][0]) == 0)
			return suites[i][1];
	return name != NULL ? name : SSL_CIPHER_get_name(cipher);
}

/* text is copied. */
static void info_add_name(struct tls_info *info, enum tls_name_kind kind, str_t prefix, str_t text)
{
	struct buf b = BUF_INIT;
	if (text.n == 0 || memchr(text.p, 0, text.n) != NULL)
		return;
	buf_add_str(&b, prefix);
	buf_add_str(&b, text);
	struct tls_name *v =
		xreallocarray((void *)(uintptr_t)info->peer_name, info->n_peer_names + 1, sizeof(*v));
	v[info->n_peer_names++] = (struct tls_name){kind, buf_steal(&b, NULL)};
	info->peer_name = v;
}

static void info_add_subject(struct tls_info *info, X509_NAME *name)
{
	char type[80];
	struct buf prefix = BUF_INIT;
	for (int i = 0; i < X509_NAME_entry_count(name); i++) {
		const X509_NAME_ENTRY *e = X509_NAME_get_entry(name, i);
		ASN1_OBJECT *object = X509_NAME_ENTRY_get_object(e);
		int nid = OBJ_obj2nid(object);
		unsigned char *text = NULL;
		int n = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(e));
		if (nid == NID_undef)
			OBJ_obj2txt(type, sizeof(type), object, 1);
		buf_clear(&prefix);
		buf_printf(&prefix, "%s=", nid == NID_undef ? type : OBJ_nid2sn(nid));
		if (n > 0)
			info_add_name(info, TLS_NAME_SUBJECT, buf_str(&prefix),
				      str_mk((char *)text, (size_t)n));
		OPENSSL_free(text);
	}
	buf_fini(&prefix);
}

static str_t info_ia5(const ASN1_STRING *s)
{
	return str_mk((const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
}

static void info_add_ip(struct tls_info *info, const ASN1_OCTET_STRING *bytes)
{
	struct net_addr a;
	char text[NET_ADDR_STRLEN];
	memset(&a, 0, sizeof(a));
	str_t s = info_ia5(bytes);
	if (s.n == 4) {
		a.in4.sin_family = AF_INET;
		memcpy(&a.in4.sin_addr, s.p, 4);
		a.len = sizeof(a.in4);
	} else if (s.n == 16) {
		a.in6.sin6_family = AF_INET6;
		memcpy(&a.in6.sin6_addr, s.p, 16);
		a.len = sizeof(a.in6);
	} else {
		return;
	}
	info_add_name(info, TLS_NAME_IP, STR_NULL, str_of(net_addr_fmt_ip(&a, text)));
}

static void info_add_alt_names(struct tls_info *info, X509 *x)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) { /* of NULL it is -1 */
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		switch (g->type) {
		case GEN_DNS:
			info_add_name(info, TLS_NAME_DNS, STR_NULL, info_ia5(g->d.dNSName));
			break;
		case GEN_EMAIL:
			info_add_name(info, TLS_NAME_EMAIL, STR_NULL, info_ia5(g->d.rfc822Name));
			break;
		case GEN_URI:
			info_add_name(info, TLS_NAME_URI, STR_NULL, info_ia5(g->d.uniformResourceIdentifier));
			break;
		case GEN_IPADD:
			info_add_ip(info, g->d.iPAddress);
			break;
		default:
			break;
		}
	}
	GENERAL_NAMES_free(names);
}

void tls_info_fill(struct tls_info *info, SSL *ssl, bool is_server)
{
	const unsigned char *alpn = NULL;
	unsigned n_alpn = 0;
	const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
	X509 *x = SSL_get0_peer_certificate(ssl);
	info->is_server = is_server;
	info->is_resumed = SSL_session_reused(ssl) == 1;
	info->version = SSL_get_version(ssl);
	info->version_word = tls_version_word(SSL_version(ssl));
	info->cipher = cipher != NULL ? SSL_CIPHER_get_name(cipher) : "none";
	info->cipher_word = cipher != NULL ? tls_cipher_word(cipher) : "none";
	SSL_get0_alpn_selected(ssl, &alpn, &n_alpn);
	info->alpn = str_mk((const char *)alpn, n_alpn);
	info->server_name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	info->has_peer_certificate = x != NULL;
	if (x == NULL)
		return;
	long verdict = SSL_get_verify_result(ssl);
	info->is_peer_verified = verdict == X509_V_OK;
	if (!info->is_peer_verified) {
		info->peer_problem = X509_verify_cert_error_string(verdict);
		return;
	}
	info_add_subject(info, X509_get_subject_name(x));
	info_add_alt_names(info, x);
	ERR_clear_error();
}

void tls_info_fini(struct tls_info *info)
{
	for (size_t i = 0; i < info->n_peer_names; i++)
		free(info->peer_name[i].text);
	free((void *)(uintptr_t)info->peer_name);
}
