/* Certificates and keys as servers are given them: what is usable, what is refused and how it is said; the
 * self-signed one. */
#include "base/alloc.h"
#include "tls_ends.h"

#include <openssl/err.h>

/* --- materials --- */

static struct secret *join(struct secret *a, const char *between, struct secret *b)
{
	struct buf all = BUF_INIT;
	buf_add_str(&all, secret_bytes(a));
	buf_add_z(&all, between);
	buf_add_str(&all, secret_bytes(b));
	secret_unref(a);
	secret_unref(b);
	return secret_from_buf(&all);
}

static struct secret *text(const char *z)
{
	return secret_new(str_of(z));
}

/* Takes both. why NULL: it is usable, with this warning ("": none). */
static void check_material(struct secret *cert, struct secret *key, const char *why, const char *warning)
{
	struct buf warnings = BUF_INIT;
	struct tls_server_params p = {.credentials = {cert, key, "file `C`", "file `K`"}};
	struct tls_server *srv = tls_server_new(&p);
	if (why == NULL) {
		if (srv == NULL)
			fprintf(stderr, "refused: %s\n", err_text());
		assert_non_null(srv);
		tls_server_warnings(srv, &warnings);
		if (warning[0] == 0 ? warnings.n != 0
				    : (warnings.n == 0 || strstr(warnings.p, warning) == NULL))
			fail_msg("warnings: %s", warnings.n > 0 ? warnings.p : "none");
		assert_false(tls_server_is_self_signed(srv));
	} else {
		if (srv != NULL || !err_is(ERR_INVALID) || strstr(err_text(), why) == NULL)
			fail_msg("expected: %s; got: %s", why, err_text());
		err_clear();
	}
	assert_int_equal(ERR_peek_error(), 0);
	buf_fini(&warnings);
	tls_server_unref(srv);
	secret_unref(cert);
	secret_unref(key);
}

static void test_materials(void **state)
{
	struct cert ec = cert_make(&(struct cert_spec){.cn = "ec", .issuer = &intermediate});
	struct cert rsa = cert_make(&(struct cert_spec){.cn = "rsa", .issuer = &root, .key_type = "rsa"});
	struct cert weak =
		cert_make(&(struct cert_spec){.cn = "weak", .issuer = &root, .key_type = "rsa1024"});
	struct cert late =
		cert_make(&(struct cert_spec){.cn = "late", .issuer = &root, .from_s = -200, .to_s = -100});
	struct cert early =
		cert_make(&(struct cert_spec){.cn = "early", .issuer = &root, .from_s = 3600, .to_s = 7200});
	struct cert x25519 = {.key = cert_key("X25519")};
	struct secret *(*key)(const struct cert *, enum key_form) = cert_key_pem;

	check_material(CERT_PEM(&ec), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec, &intermediate), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec, &intermediate, &root), key(&ec, KEY_TRADITIONAL), NULL, "");
	check_material(CERT_PEM(&ec, &ec, &intermediate), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&intermediate, &ec), key(&ec, KEY_PKCS8), NULL,
		       "`C` were not in order and have been put right");
	check_material(CERT_PEM(&ec, &root, &intermediate), key(&ec, KEY_PKCS8), NULL, "not in order");
	check_material(CERT_PEM(&root, &intermediate, &ec), key(&ec, KEY_PKCS8), NULL, "not in order");
	/* Both in one, with words around them; the parameters that openssl writes before an EC key. */
	check_material(join(key(&ec, KEY_TRADITIONAL), "Bag Attributes\n  friendlyName: x\n", CERT_PEM(&ec)),
		       key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec), join(CERT_PEM(&ec), "\n", key(&ec, KEY_TRADITIONAL)), NULL, "");
	check_material(
		CERT_PEM(&ec),
		join(text("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"),
		     "", key(&ec, KEY_TRADITIONAL)),
		NULL, "");
	check_material(cert_der(&rsa), key(&rsa, KEY_DER), NULL, "");

	/* Usable, but. */
	check_material(CERT_PEM(&late), key(&late, KEY_PKCS8), NULL,
		       "the certificate CN=late,O=Tests in file `C` has expired at 20");
	check_material(CERT_PEM(&early), key(&early, KEY_PKCS8), NULL, "is not valid before 20");

	/* Not usable. */
	check_material(CERT_PEM(&ec, &stranger), key(&ec, KEY_PKCS8),
		       "CN=Stranger,O=Tests in file `C` has issued none", NULL);
	check_material(
		CERT_PEM(&ec), key(&rsa, KEY_PKCS8),
		"the private key in file `K` does not belong to the certificate CN=ec,O=Tests in file `C`",
		NULL);
	check_material(CERT_PEM(&ec, &intermediate), key(&leaf, KEY_PKCS8), "does not belong", NULL);
	check_material(CERT_PEM(&weak), key(&weak, KEY_PKCS8),
		       "the certificate in file `C` cannot be used: ee key too small", NULL);
	check_material(key(&ec, KEY_PKCS8), CERT_PEM(&ec), "file `C` holds no certificate, but a private key",
		       NULL);
	check_material(CERT_PEM(&ec), CERT_PEM(&ec), "file `K` holds no private key, but a certificate",
		       NULL);
	check_material(CERT_PEM(&ec), key(&ec, KEY_ENCRYPTED), "the private key in file `K` is encrypted",
		       NULL);
	check_material(CERT_PEM(&ec), key(&x25519, KEY_PKCS8),
		       "the private key in file `K` is of the type X25519", NULL);
	check_material(text(""), key(&ec, KEY_PKCS8), "file `C` is empty", NULL);
	check_material(CERT_PEM(&ec), text(""), "file `K` is empty", NULL);
	check_material(text("nonsense"), key(&ec, KEY_PKCS8),
		       "file `C` holds no certificate in PEM or DER form", NULL);
	check_material(CERT_PEM(&ec), text("nonsense"), "file `K` holds no private key in PEM or DER form",
		       NULL);
	check_material(text("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"),
		       key(&ec, KEY_PKCS8), "file `C` holds no certificate, but a request for one", NULL);
	check_material(join(CERT_PEM(&ec), "",
			    text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
		       key(&ec, KEY_PKCS8), "certificate 2 in file `C` cannot be read: ", NULL);
	check_material(join(CERT_PEM(&ec), "", text("-----BEGIN CERTIFICATE-----\nMIIB")),
		       key(&ec, KEY_PKCS8), "certificate 2 in file `C` cannot be read: ", NULL);
	check_material(CERT_PEM(&ec), text("-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n"),
		       "the private key in file `K` cannot be read: ", NULL);
	check_material(CERT_PEM(&ec),
		       text("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"),
		       "the private key in file `K` cannot be read: ", NULL);

	struct secret *pem = CERT_PEM(&ec), *k = key(&ec, KEY_PKCS8);
	struct tls_server_params p = {.credentials = {.cert = pem, .cert_name = "file `C`"}};
	assert_null(tls_server_new(&p));
	assert_string_equal(err_text(), "there is a certificate (file `C`), but no private key");
	p.credentials = (struct tls_credentials){.key = k, .key_name = "file `K`"};
	assert_null(tls_server_new(&p));
	assert_string_equal(err_text(), "there is a private key (file `K`), but no certificate");
	p.credentials = (struct tls_credentials){.cert = pem, .key = k};
	p.client_ca = k;
	p.client_ca_name = "file `CA`";
	assert_null(tls_server_new(&p));
	assert_string_equal(err_text(), "file `CA` holds no certificate, but a private key");
	struct tls_client_params bad = {.ciphers = "NONSENSE"};
	assert_null(tls_client_new(&bad));
	assert_non_null(strstr(err_text(), "`NONSENSE` selects no TLS 1.2 cipher"));
	bad = (struct tls_client_params){.ciphersuites = "NONSENSE"};
	assert_null(tls_client_new(&bad));
	assert_true(err_is(ERR_INVALID));
	err_clear();
	/* A small key, where the level allows it. */
	struct secret *weak_pem = CERT_PEM(&weak), *weak_key = key(&weak, KEY_PKCS8);
	p = (struct tls_server_params){.credentials = {.cert = weak_pem, .key = weak_key},
				       .security_level = 1};
	struct tls_server *srv = tls_server_new(&p);
	assert_non_null(srv);
	wall_t end = tls_server_not_after(srv);
	assert_true(dur_seconds(wall_sub(end, wall_now())) > 86000 &&
		    dur_seconds(wall_sub(end, wall_now())) <= 86400);
	tls_server_unref(srv);
	secret_unref(weak_pem);
	secret_unref(weak_key);
	secret_unref(pem);
	secret_unref(k);
	cert_free(&ec);
	cert_free(&rsa);
	cert_free(&weak);
	cert_free(&late);
	cert_free(&early);
	cert_free(&x25519);
}

/* --- self-signed --- */

static void self_signed_run(void *arg)
{
	static const struct {
		const char *hostname, *cn, *alt;
		int type;
	} cases[] = {
		{"Mail.Example.com", "mail.example.com", "mail.example.com", GEN_DNS},
		{"bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example", GEN_DNS},
		{"192.0.2.7", "192.0.2.7", "\xc0\x00\x02\x07", GEN_IPADD},
		{NULL, "localhost", "localhost", GEN_DNS},
		{"a-name-that-is-longer-than-a-common-name-may-be.a-name-that-is-longer.example.com",
		 "self-signed",
		 "a-name-that-is-longer-than-a-common-name-may-be.a-name-that-is-longer.example.com",
		 GEN_DNS},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char cn[100];
		struct tls_server *srv =
			tls_server_new(&(struct tls_server_params){.hostname = cases[i].hostname});
		CHECK(srv != NULL && tls_server_is_self_signed(srv));
		double days = dur_seconds(wall_sub(tls_server_not_after(srv), wall_now())) / 86400;
		CHECK(days > 364.9 && days <= 365);
		struct tls_context *c = tls_server_context(srv);
		X509 *x = c->material.cert;
		CHECK(c->material.warnings.n == 0);
		X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn));
		CHECK(strcmp(cn, cases[i].cn) == 0);
		GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
		CHECK(sk_GENERAL_NAME_num(names) == 1);
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, 0);
		CHECK(g->type == cases[i].type);
		const ASN1_STRING *s = g->type == GEN_DNS ? g->d.dNSName : g->d.iPAddress;
		size_t n_alt = g->type == GEN_IPADD ? 4 : strlen(cases[i].alt);
		CHECK((size_t)ASN1_STRING_length(s) == n_alt &&
		      memcmp(ASN1_STRING_get0_data(s), cases[i].alt, n_alt) == 0);
		GENERAL_NAMES_free(names);
		CHECK(EVP_PKEY_get_id(X509_get0_pubkey(x)) == EVP_PKEY_EC &&
		      EVP_PKEY_get_bits(X509_get0_pubkey(x)) == 256);
		CHECK(X509_verify(x, X509_get0_pubkey(x)) == 1);
		CHECK(X509_check_ca(x) == 0 && X509_check_purpose(x, X509_PURPOSE_SSL_SERVER, 0) == 1);

		/* A client that was given this certificate trusts it, and for this name only. */
		const char *name = cases[i].hostname != NULL ? cases[i].hostname : "localhost";
		struct cert mine = {.x = x};
		struct secret *pem = CERT_PEM(&mine);
		struct tls_client *cl = client_with((struct tls_client_params){.ca = pem});
		struct ends e = ends_secure(srv, cl, name);
		converse(&e);
		ends_close(&e);
		e = ends_streams();
		CHECK(ends_shake(&e, srv, cl, "other.example").client.rc == -1);
		ends_close(&e);
		struct tls_client *any = client_with((struct tls_client_params){.is_unverified = true});
		e = ends_secure(srv, any, name);
		CHECK(strcmp(stream_tls_info(e.client)->peer_problem, "self-signed certificate") == 0);
		ends_close(&e);

		/* Kept over a reload, made anew for another name. */
		struct tls_server_params p = {.hostname = cases[i].hostname};
		CHECK(tls_server_reload(srv, &p) == 0);
		e = ends_secure(srv, cl, name);
		ends_close(&e);
		p.hostname = "another.example";
		CHECK(tls_server_reload(srv, &p) == 0);
		struct tls_context *now = tls_server_context(srv);
		CHECK(X509_cmp(now->material.cert, x) != 0);
		tls_context_unref(now);
		tls_context_unref(c);
		tls_client_unref(any);
		tls_client_unref(cl);
		secret_unref(pem);
		tls_server_unref(srv);
	}
	CHECK(tls_server_new(&(struct tls_server_params){.hostname = "no name at all"}) == NULL);
	CHECK(err_is(ERR_INVALID) && strstr(err_text(), "no name at all") != NULL);
	err_clear();
}

static void test_self_signed(void **state)
{
	run(self_signed_run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_materials),
		cmocka_unit_test(test_self_signed),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
