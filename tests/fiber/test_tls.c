/* TLS handshakes: keys and versions, who the peers are, ALPN, resumption, certificates of both sides; servers
 * and clients of ours against each other over loopback. */
#include "base/alloc.h"
#include "tls_ends.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <pthread.h>

/* --- keys and versions --- */

static void keys_run(void *arg)
{
	static const struct {
		const char *type;
		enum key_form form;
	} keys[] = {
		{"rsa", KEY_TRADITIONAL}, {"rsa", KEY_PKCS8},	{"rsa", KEY_DER},
		{"ec", KEY_TRADITIONAL},  {"ec", KEY_PKCS8},	{"ec", KEY_DER},
		{"ed25519", KEY_PKCS8},	  {"ed25519", KEY_DER}, {"ed448", KEY_PKCS8},
	};
	static const struct {
		enum tls_version server, client;
		bool is_old;
	} versions[] = {{TLS_1_2, TLS_1_2, true}, {TLS_1_2, TLS_1_3, false}, {TLS_1_3, TLS_1_2, false}};
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		struct cert c = cert_make(&(struct cert_spec){
			.cn = "k", .alt = "DNS:k.example.com", .key_type = keys[i].type, .issuer = &root});
		struct secret *pem = keys[i].form == KEY_DER ? cert_der(&c) : CERT_PEM(&c);
		struct secret *key = cert_key_pem(&c, keys[i].form);
		for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
			struct tls_server *srv = server_with(
				(struct tls_server_params){.credentials = {.cert = pem, .key = key},
							   .minimum_version = versions[v].server});
			struct tls_client *cl = client_with(
				(struct tls_client_params){.minimum_version = versions[v].client});
			if (versions[v].is_old)
				make_old(cl);
			struct ends e = ends_secure(srv, cl, "k.example.com");
			const struct tls_info *in = stream_tls_info(e.client),
					      *on = stream_tls_info(e.server);
			if (versions[v].is_old) {
				bool is_rsa = strcmp(keys[i].type, "rsa") == 0;
				CHECK(strcmp(in->version, "TLSv1.2") == 0 &&
				      strcmp(on->version_word, "TLSv1_2") == 0);
				CHECK(strcmp(on->cipher_word,
					     is_rsa ? "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
						    : "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384") == 0);
			} else {
				CHECK(strcmp(in->version, "TLSv1.3") == 0 &&
				      strcmp(on->version_word, "TLSv1_3") == 0);
				CHECK(strcmp(on->cipher, "TLS_AES_256_GCM_SHA384") == 0);
				CHECK(strcmp(on->cipher_word, "TLS13_AES_256_GCM_SHA384") == 0);
			}
			CHECK(on->is_server && !in->is_server && !on->is_resumed);
			CHECK(in->is_peer_verified && in->peer_problem == NULL);
			CHECK(!on->has_peer_certificate && on->n_peer_names == 0);
			CHECK(strcmp(on->server_name, "k.example.com") == 0 && on->alpn.n == 0);
			converse(&e);
			ends_close(&e);
			tls_server_unref(srv);
			tls_client_unref(cl);
		}
		secret_unref(pem);
		secret_unref(key);
		cert_free(&c);
	}
}

static void test_keys(void **state)
{
	run(keys_run);
}

/* A client that speaks TLS 1.2 at most: OpenSSL itself, over the raw descriptor, in a thread of its own. */
struct old_client {
	int fd;
	int max_version;
	const char *ciphers;
	char version[16], cipher[64];
	bool is_done;
	bool is_renegotiation_refused;
};

static int old_client_run(void *arg)
{
	struct old_client *o = arg;
	char c;
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(ctx, o->max_version);
	if (o->ciphers != NULL)
		SSL_CTX_set_cipher_list(ctx, o->ciphers);
	SSL *ssl = SSL_new(ctx);
	SSL_set_fd(ssl, o->fd);
	o->is_done = SSL_connect(ssl) == 1;
	if (o->is_done) {
		snprintf(o->version, sizeof(o->version), "%s", SSL_get_version(ssl));
		snprintf(o->cipher, sizeof(o->cipher), "%s", SSL_get_cipher_name(ssl));
		SSL_write(ssl, "old\n", 4);
		SSL_read(ssl, &c, 1); /* the other side is ready */
		if (o->max_version < TLS1_3_VERSION) {
			SSL_renegotiate(ssl);
			o->is_renegotiation_refused = SSL_do_handshake(ssl) != 1;
		}
		SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	ERR_clear_error();
	close(o->fd);
	return 0;
}

static void *old_client_thread(void *arg)
{
	old_client_run(arg);
	return NULL;
}

static void old_run(void *arg)
{
	static const struct {
		int version;
		const char *ciphers;
		enum tls_version minimum;
		const char *cipher, *word; /* NULL: refused */
	} cases[] = {
		{TLS1_2_VERSION, NULL, TLS_1_2, "ECDHE-ECDSA-AES256-GCM-SHA384",
		 "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
		{TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", TLS_1_2, "ECDHE-ECDSA-CHACHA20-POLY1305",
		 "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"},
		{TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", TLS_1_2, NULL, NULL}, /* CBC */
		{TLS1_2_VERSION, NULL, TLS_1_3, NULL, NULL},
		{TLS1_1_VERSION, NULL, TLS_1_2, NULL, NULL},
		{TLS1_VERSION, NULL, TLS_1_2, NULL, NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		pthread_t thread;
		str_t line;
		struct tls_server *srv =
			server_with((struct tls_server_params){.minimum_version = cases[i].minimum});
		int fds[2];
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
		CHECK(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
		struct net_addr none = {.len = 0};
		struct stream *st = stream_from_fd(fds[0], &none, &none);
		struct old_client o = {
			.fd = fds[1], .max_version = cases[i].version, .ciphers = cases[i].ciphers};
		CHECK(pthread_create(&thread, NULL, old_client_thread, &o) == 0);
		int rc = stream_start_tls_server(st, srv, TLS_BUFFERED_REFUSE, SOON);
		if (cases[i].cipher == NULL) {
			CHECK_FAILS(rc, ERR_PROTO);
		} else {
			CHECK(rc == 0);
			const struct tls_info *info = stream_tls_info(st);
			CHECK(strcmp(info->version, "TLSv1.2") == 0 &&
			      strcmp(info->version_word, "TLSv1_2") == 0);
			CHECK(strcmp(info->cipher_word, cases[i].word) == 0);
			CHECK(stream_read_line(st, &line, 100, SOON) == 1 && str_eq(line, STR("old")));
			CHECK(stream_write(st, "x", 1, SOON) == 0);
			/* It asks to renegotiate, in vain, and says goodbye. */
			int n = stream_fill(st, 100, SOON);
			CHECK(n <= 0);
			err_clear();
		}
		stream_free(st);
		pthread_join(thread, NULL);
		CHECK(o.is_done == (cases[i].cipher != NULL));
		if (o.is_done) {
			CHECK(strcmp(o.version, "TLSv1.2") == 0 && strcmp(o.cipher, cases[i].cipher) == 0);
			CHECK(o.is_renegotiation_refused);
		}
		tls_server_unref(srv);
	}
}

static void test_old_versions(void **state)
{
	run(old_run);
}

/* --- who the server is --- */

static void names_run(void *arg)
{
	static const struct {
		const char *name;
		const char *problem; /* NULL: good */
	} cases[] = {
		{"mail.example.com", NULL},
		{"MAIL.Example.com.", NULL},
		{"a.wild.example.com", NULL},
		{"127.0.0.1", NULL},
		{"127.0.0.2", "IP address mismatch"},
		{"other.example.com", "hostname mismatch"},
		{"a.b.wild.example.com", "hostname mismatch"},
	};
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct tls_client *any = client_with((struct tls_client_params){.is_unverified = true});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ends e = ends_streams();
		struct outcome o = ends_shake(&e, srv, cl, cases[i].name);
		if (cases[i].problem == NULL) {
			CHECK(o.client.rc == 0 && o.server.rc == 0);
			const struct tls_info *info = stream_tls_info(e.client);
			CHECK(info->is_peer_verified && info->n_peer_names == 5);
			CHECK(strcmp(info->peer_name[0].text, "O=Tests") == 0);
			CHECK(strcmp(info->peer_name[1].text, "CN=mail.example.com") == 0);
			CHECK(info->peer_name[4].kind == TLS_NAME_IP &&
			      strcmp(info->peer_name[4].text, "127.0.0.1") == 0);
			bool is_ip = cases[i].name[0] == '1';
			CHECK((stream_tls_info(e.server)->server_name == NULL) == is_ip);
			converse(&e);
		} else {
			CHECK(o.client.rc == -1 && o.client.kind == ERR_PROTO);
			CHECK(strstr(o.client.why, cases[i].problem) != NULL);
			CHECK(o.server.rc == 0 ||
			      o.server.kind == ERR_PROTO); /* TLS 1.3: it may not know yet */
		}
		ends_close(&e);

		e = ends_secure(srv, any, cases[i].name);
		const struct tls_info *info = stream_tls_info(e.client);
		CHECK(info->has_peer_certificate && info->is_peer_verified == (cases[i].problem == NULL));
		CHECK(cases[i].problem == NULL || strstr(info->peer_problem, cases[i].problem) != NULL);
		CHECK(info->is_peer_verified || info->n_peer_names == 0);
		converse(&e);
		ends_close(&e);
	}
	struct ends e = ends_secure(srv, any, NULL);
	ends_close(&e);
	e = ends_streams();
	CHECK_FAILS(stream_start_tls_client(e.client, cl, NULL, TLS_BUFFERED_REFUSE, SOON), ERR_INVALID);
	CHECK_FAILS(stream_start_tls_client(e.client, cl, "a b", TLS_BUFFERED_REFUSE, SOON), ERR_INVALID);
	ends_close(&e);

	/* An authority that is not known. */
	struct tls_client *foreign = client_with((struct tls_client_params){.ca = client_root_pem});
	e = ends_streams();
	struct outcome o = ends_shake(&e, srv, foreign, "mail.example.com");
	CHECK(o.client.rc == -1 && strstr(o.client.why, "certificate verify failed: ") != NULL);
	ends_close(&e);
	/* The system's do not know it either. */
	struct tls_client *system = tls_client_new(&(struct tls_client_params){0});
	CHECK(system != NULL);
	e = ends_streams();
	o = ends_shake(&e, srv, system, "mail.example.com");
	CHECK(o.client.rc == -1 && o.client.kind == ERR_PROTO);
	ends_close(&e);
	tls_client_unref(system);
	tls_client_unref(foreign);
	tls_client_unref(any);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_names(void **state)
{
	run(names_run);
}

/* --- ALPN --- */

static void alpn_run(void *arg)
{
	static const char *const both[] = {"h2", "http/1.1", NULL}, *const old[] = {"http/1.1", NULL},
				 *const turned[] = {"http/1.1", "h2", NULL}, *const other[] = {"imap", NULL};
	static const struct {
		const char *const *server, *const *client;
		const char *chosen; /* NULL: refused */
	} cases[] = {
		{both, both, "h2"},  {both, turned, "h2"}, {both, old, "http/1.1"}, {old, both, "http/1.1"},
		{both, other, NULL}, {both, NULL, ""},	   {NULL, both, ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct tls_server *srv = server_with((struct tls_server_params){.alpn = cases[i].server});
		struct tls_client *cl = client_with((struct tls_client_params){.alpn = cases[i].client});
		struct ends e = ends_streams();
		struct outcome o = ends_shake(&e, srv, cl, "mail.example.com");
		if (cases[i].chosen != NULL) {
			CHECK(o.server.rc == 0 && o.client.rc == 0);
			CHECK(str_eq(stream_tls_info(e.server)->alpn, str_of(cases[i].chosen)));
			CHECK(str_eq(stream_tls_info(e.client)->alpn, str_of(cases[i].chosen)));
		} else {
			CHECK(o.server.rc == -1 && o.client.rc == -1);
			CHECK(strstr(o.client.why, "no application protocol") != NULL);
		}
		ends_close(&e);
		tls_server_unref(srv);
		tls_client_unref(cl);
	}
	static const char *const bad[] = {"", NULL};
	CHECK(tls_server_new(&(struct tls_server_params){.credentials = leaf_credentials(), .alpn = bad}) ==
	      NULL);
	CHECK(err_is(ERR_INVALID));
	err_clear();
}

static void test_alpn(void **state)
{
	run(alpn_run);
}

/* --- resumption --- */

static bool is_resumed(struct tls_server *srv, struct tls_client *cl)
{
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	converse(&e); /* the tickets of TLS 1.3 come with the first bytes */
	bool is = stream_tls_info(e.client)->is_resumed;
	CHECK(stream_tls_info(e.server)->is_resumed == is);
	CHECK(stream_tls_info(e.client)->is_peer_verified);
	CHECK(strcmp(stream_tls_info(e.server)->server_name, "mail.example.com") == 0);
	CHECK(stream_goodbye(e.client, SOON) == 0);
	ends_close(&e);
	return is;
}

static void resume_run(void *arg)
{
	for (int i = 0; i < 2; i++) {
		struct tls_server_params p = {.credentials = leaf_credentials()};
		struct tls_server *srv = server_with(p);
		struct tls_client *cl = client_with((struct tls_client_params){.max_sessions = 2});
		if (i == 1)
			make_old(cl);
		CHECK(!is_resumed(srv, cl));
		for (int k = 0; k < 3; k++)
			CHECK(is_resumed(srv, cl));
		CHECK(tls_server_reload(srv, &p) == 0); /* tickets survive */
		CHECK(is_resumed(srv, cl));
		struct tls_server *stranger_srv = server_with(p); /* has other keys */
		CHECK(!is_resumed(stranger_srv, cl));
		CHECK(!is_resumed(srv, cl)); /* the session of the other one took the place */
		CHECK(is_resumed(srv, cl));

		struct tls_client *none = client_with((struct tls_client_params){0});
		CHECK(!is_resumed(srv, none) && !is_resumed(srv, none));
		tls_client_unref(none);
		tls_client_unref(cl);
		tls_server_unref(srv);
		tls_server_unref(stranger_srv);
	}
}

static void test_resume(void **state)
{
	run(resume_run);
}

/* Keys live for two periods. Only our clock moves: OpenSSL's own limit is not in the way. */
static void rotate_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){.max_sessions = 1});
	CHECK(!is_resumed(srv, cl) && is_resumed(srv, cl));
	clock_advance(dur_s(4 * 3600 + 1));
	worker_clock_changed();
	CHECK(is_resumed(srv, cl)); /* by the key before, and has a ticket of the new one */
	clock_advance(dur_s(4 * 3600 + 1));
	worker_clock_changed();
	CHECK(is_resumed(srv, cl));
	clock_advance(dur_s(8 * 3600 + 1));
	worker_clock_changed();
	CHECK(!is_resumed(srv, cl));
	CHECK(is_resumed(srv, cl));
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_rotate(void **state)
{
	clock_set_virtual(mono_now(), wall_now());
	run(rotate_run);
	clock_set_real();
}

/* Sessions are shared by all workers. */
static void serve_line(struct stream *st, void *arg)
{
	str_t line;
	if (stream_start_tls_server(st, arg, TLS_BUFFERED_REFUSE, SOON) == 0 &&
	    stream_read_line(st, &line, 100, SOON) == 1) {
		char answer[40];
		int n = snprintf(answer, sizeof(answer), "%u %d\n", worker_index(worker_self()),
				 stream_tls_info(st)->is_resumed);
		CHECK(stream_write(st, answer, (size_t)n, SOON) == 0);
		CHECK(stream_goodbye(st, SOON) == 0);
		while (stream_fill(st, 10, SOON) == 1)
			;
	}
	err_clear();
	stream_free(st);
}

static void spread_run(void *arg)
{
	struct net_addr any;
	bool is_seen[3] = {0};
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){.max_sessions = 1});
	CHECK(net_addr_parse(STR("127.0.0.1:0"), &any) == 0);
	struct listener *l = listener_open(&any, "tls", serve_line, srv);
	CHECK(l != NULL);
	listener_start(l);
	for (int i = 0; i < 30; i++) {
		str_t line;
		struct stream *st = sock_connect(listener_addr(l), NULL, SOON);
		CHECK(st != NULL);
		CHECK(stream_start_tls_client(st, cl, "mail.example.com", TLS_BUFFERED_REFUSE, SOON) == 0);
		CHECK(stream_tls_info(st)->is_resumed == (i > 0));
		CHECK(stream_write(st, "x\n", 2, SOON) == 0);
		CHECK(stream_read_line(st, &line, 100, SOON) == 1 && line.n == 3);
		CHECK(line.p[2] == (i > 0 ? '1' : '0'));
		is_seen[line.p[0] - '0'] = true;
		CHECK(stream_fill(st, 100, SOON) == 0);
		stream_free(st);
	}
	CHECK(is_seen[0] + is_seen[1] + is_seen[2] >= 2);
	listener_stop(l);
	CHECK(listener_join(l, false, SOON) == 0);
	listener_free(l);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_workers(void **state)
{
	workers_start(3);
	worker_run(spread_run, NULL);
	workers_stop(mono_after(dur_s(10)));
}

/* --- mutual TLS --- */

static const char *mutual_name(const struct tls_info *info, enum tls_name_kind kind)
{
	for (size_t i = info->n_peer_names; i-- > 0;)
		if (info->peer_name[i].kind == kind)
			return info->peer_name[i].text;
	return "";
}

static void mutual_run(void *arg)
{
	struct secret *cert = CERT_PEM(&client_cert), *key = cert_key_pem(&client_cert, KEY_PKCS8);
	struct secret *foreign_cert = CERT_PEM(&stranger), *foreign_key = cert_key_pem(&stranger, KEY_PKCS8);
	struct tls_server_params p = {.client_ca = client_root_pem, .credentials = leaf_credentials()};
	struct tls_server *srv = server_with(p);
	struct tls_client *good = client_with(
		(struct tls_client_params){.credentials = {.cert = cert, .key = key}, .max_sessions = 1});
	struct tls_client *bare = client_with((struct tls_client_params){0});
	struct tls_client *foreign = client_with(
		(struct tls_client_params){.credentials = {.cert = foreign_cert, .key = foreign_key}});

	for (int i = 0; i < 2; i++) { /* the second time from the session */
		struct ends e = ends_secure(srv, good, "mail.example.com");
		const struct tls_info *info = stream_tls_info(e.server);
		CHECK(info->is_resumed == (i == 1));
		CHECK(info->has_peer_certificate && info->is_peer_verified && info->n_peer_names == 6);
		CHECK(strcmp(mutual_name(info, TLS_NAME_SUBJECT), "CN=injector") == 0);
		CHECK(strcmp(mutual_name(info, TLS_NAME_DNS), "injector.example.com") == 0);
		CHECK(strcmp(mutual_name(info, TLS_NAME_EMAIL), "a@example.com") == 0);
		CHECK(strcmp(mutual_name(info, TLS_NAME_URI), "spiffe://example.com/x") == 0);
		CHECK(strcmp(mutual_name(info, TLS_NAME_IP), "::1") == 0);
		converse(&e);
		ends_close(&e);
	}
	static const char *const why[] = {"peer did not return a certificate", "certificate verify failed: "};
	for (int i = 0; i < 2; i++) {
		struct ends e = ends_streams();
		struct outcome o = ends_shake(&e, srv, i == 0 ? bare : foreign, "mail.example.com");
		CHECK(o.server.rc == -1 && o.server.kind == ERR_PROTO &&
		      strstr(o.server.why, why[i]) != NULL);
		/* With TLS 1.3 the client learns it from the alert that answers its last flight. */
		CHECK(o.client.rc == 0);
		CHECK_FAILS(stream_fill(e.client, 100, SOON), ERR_PROTO);
		CHECK_FAILS(stream_fill(e.client, 100, SOON), ERR_PROTO); /* and goes on to say so */
		CHECK_FAILS(stream_write(e.client, "x", 1, SOON), ERR_PROTO);
		ends_close(&e);
	}
	/* Other authorities: the session that the old ones let in is worth nothing. */
	struct secret *stranger_pem = CERT_PEM(&stranger);
	p.client_ca = stranger_pem;
	CHECK(tls_server_reload(srv, &p) == 0);
	struct ends e = ends_streams();
	struct outcome o = ends_shake(&e, srv, good, "mail.example.com");
	CHECK(o.server.rc == -1 && strstr(o.server.why, "certificate verify failed: ") != NULL);
	ends_close(&e);
	secret_unref(stranger_pem);
	secret_unref(cert);
	secret_unref(key);
	secret_unref(foreign_cert);
	secret_unref(foreign_key);
	tls_client_unref(good);
	tls_client_unref(bare);
	tls_client_unref(foreign);
	tls_server_unref(srv);
}

static void test_mutual(void **state)
{
	run(mutual_run);
}

/* A certificate that ends while its session could still be resumed: OpenSSL does not look again, we do. */
static void mutual_end_run(void *arg)
{
	struct secret *cert = CERT_PEM(&client_cert), *key = cert_key_pem(&client_cert, KEY_PKCS8);
	struct tls_server *srv = server_with((struct tls_server_params){.client_ca = client_root_pem});
	struct tls_client *cl = client_with(
		(struct tls_client_params){.credentials = {.cert = cert, .key = key}, .max_sessions = 1});
	CHECK(!is_resumed(srv, cl) && is_resumed(srv, cl));
	clock_set_virtual(mono_now(), wall_add(wall_now(), dur_s(86400 + 10)));
	worker_clock_changed();
	struct ends e = ends_streams();
	struct outcome o = ends_shake(&e, srv, cl, "mail.example.com");
	CHECK(o.server.rc == -1 && o.server.kind == ERR_PROTO && strstr(o.server.why, "has expired") != NULL);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
	secret_unref(cert);
	secret_unref(key);
}

static void test_mutual_end(void **state)
{
	clock_set_virtual(mono_now(), wall_now());
	run(mutual_end_run);
	clock_set_real();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),	   cmocka_unit_test(test_old_versions),
		cmocka_unit_test(test_names),	   cmocka_unit_test(test_alpn),
		cmocka_unit_test(test_resume),	   cmocka_unit_test(test_rotate),
		cmocka_unit_test(test_workers),	   cmocka_unit_test(test_mutual),
		cmocka_unit_test(test_mutual_end),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
