/* TLS: servers and clients of ours against each other over loopback, and raw sockets where one of them misbehaves. */
#include "base/alloc.h"
#include "fiber_check.h"
#include "net/sock.h"
#include "net/tls_impl.h"
#include "tls_certs.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define SOON mono_after(dur_s(30))

static struct cert root, intermediate, leaf, client_root, client_cert, stranger;
static struct secret *root_pem, *client_root_pem, *leaf_pem, *leaf_key;

static int group_setup(void **state)
{
	root = cert_make(&(struct cert_spec){.cn = "Root", .is_ca = true});
	intermediate = cert_make(&(struct cert_spec){.cn = "Intermediate", .issuer = &root, .is_ca = true});
	leaf = cert_make(&(struct cert_spec){.cn = "mail.example.com",
					     .alt = "DNS:mail.example.com,DNS:*.wild.example.com,IP:127.0.0.1",
					     .issuer = &intermediate});
	client_root = cert_make(&(struct cert_spec){.cn = "Client Root", .is_ca = true});
	client_cert = cert_make(&(struct cert_spec){
		.cn = "injector",
		.alt = "DNS:injector.example.com,email:a@example.com,URI:spiffe://example.com/x,IP:::1",
		.issuer = &client_root});
	stranger = cert_make(&(struct cert_spec){.cn = "Stranger", .is_ca = true});
	root_pem = CERT_PEM(&root);
	client_root_pem = CERT_PEM(&client_root);
	leaf_pem = CERT_PEM(&leaf, &intermediate);
	leaf_key = cert_key_pem(&leaf, KEY_PKCS8);
	return 0;
}

static int group_teardown(void **state)
{
	secret_unref(root_pem);
	secret_unref(client_root_pem);
	secret_unref(leaf_pem);
	secret_unref(leaf_key);
	cert_free(&root);
	cert_free(&intermediate);
	cert_free(&leaf);
	cert_free(&client_root);
	cert_free(&client_cert);
	cert_free(&stranger);
	return 0;
}

static struct tls_credentials leaf_credentials(void)
{
	return (struct tls_credentials){leaf_pem, leaf_key, "file `cert.pem`", "file `key.pem`"};
}

static struct tls_server *server_with(struct tls_server_params p)
{
	if (p.credentials.cert == NULL)
		p.credentials = leaf_credentials();
	struct tls_server *s = tls_server_new(&p);
	CHECK(s != NULL);
	return s;
}

static struct tls_client *client_with(struct tls_client_params p)
{
	if (p.ca == NULL)
		p.ca = root_pem;
	struct tls_client *c = tls_client_new(&p);
	CHECK(c != NULL);
	return c;
}

/* From now on it speaks TLS 1.2 only. */
static void make_old(struct tls_client *c)
{
	struct tls_context *context = tls_client_context(c);
	CHECK(SSL_CTX_set_max_proto_version(context->ctx, TLS1_2_VERSION) == 1);
	tls_context_unref(context);
}

/* --- two ends --- */

struct ends {
	struct stream *client, *server;
	int raw; /* the server's side as a descriptor, when server is NULL */
};

static struct ends ends_open(void)
{
	struct ends e = {.raw = -1};
	struct net_addr at;
	CHECK(net_addr_parse(STR("127.0.0.1:0"), &at) == 0);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(l >= 0 && bind(l, &at.sa, at.len) == 0 && listen(l, 4) == 0);
	CHECK(getsockname(l, &at.sa, &at.len) == 0);
	e.client = sock_connect(&at, NULL, SOON);
	CHECK(e.client != NULL);
	e.raw = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int one = 1;
	CHECK(e.raw >= 0 && setsockopt(e.raw, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	close(l);
	return e;
}

static struct ends ends_streams(void)
{
	struct ends e = ends_open();
	e.server = stream_from_fd(e.raw, stream_peer(e.client), stream_local(e.client));
	e.raw = -1;
	return e;
}

static void ends_close(struct ends *e)
{
	stream_free(e->client);
	stream_free(e->server);
	if (e->raw >= 0)
		close(e->raw);
}

struct shake {
	struct stream *st;
	struct tls_server *srv;
	struct tls_client *cl;
	const char *name;
	enum tls_buffered buffered;
	int rc;
	enum err_kind kind;
	char why[400];
};

static void shake_run(void *arg)
{
	struct shake *s = arg;
	s->rc = s->srv != NULL ? stream_start_tls_server(s->st, s->srv, s->buffered, SOON)
			       : stream_start_tls_client(s->st, s->cl, s->name, s->buffered, SOON);
	s->kind = s->rc == 0 ? ERR_NONE : err_kind();
	snprintf(s->why, sizeof(s->why), "%s", s->rc == 0 ? "" : err_text());
	err_clear();
}

struct outcome {
	struct shake server, client;
};

static struct outcome ends_shake(struct ends *e, struct tls_server *srv, struct tls_client *cl, const char *name)
{
	struct fiber_group g;
	struct outcome o = {.server = {.st = e->server, .srv = srv}, .client = {.st = e->client, .cl = cl, .name = name}};
	fiber_group_init(&g);
	fiber_start(&g, "server", shake_run, &o.server);
	shake_run(&o.client);
	CHECK(fiber_group_join(&g, SOON) == 0);
	return o;
}

static void say(struct stream *from, struct stream *to, const char *text)
{
	str_t line;
	struct iovec iov[] = {{(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t) "\r\n", 2}};
	CHECK(stream_writev(from, iov, 2, SOON) == 0);
	CHECK(stream_read_line(to, &line, 1000, SOON) == 1);
	CHECK(str_eq(line, str_of(text)));
}

static struct ends ends_secure(struct tls_server *srv, struct tls_client *cl, const char *name)
{
	struct ends e = ends_streams();
	struct outcome o = ends_shake(&e, srv, cl, name);
	if (o.server.rc != 0 || o.client.rc != 0)
		fprintf(stderr, "server: %s\nclient: %s\n", o.server.why, o.client.why);
	CHECK(o.server.rc == 0 && o.client.rc == 0);
	return e;
}

static void converse(struct ends *e)
{
	say(e->client, e->server, "hello");
	say(e->server, e->client, "well met");
}

static void run(fiber_fn *fn)
{
	workers_start(1);
	worker_run(fn, NULL);
	workers_stop(mono_after(dur_s(10)));
}

/* --- keys and versions --- */

static void keys_run(void *arg)
{
	static const struct {
		const char *type;
		enum key_form form;
	} keys[] = {
		{"rsa", KEY_TRADITIONAL}, {"rsa", KEY_PKCS8}, {"rsa", KEY_DER},	    {"ec", KEY_TRADITIONAL},
		{"ec", KEY_PKCS8},	  {"ec", KEY_DER},    {"ed25519", KEY_PKCS8}, {"ed25519", KEY_DER},
		{"ed448", KEY_PKCS8},
	};
	static const struct {
		enum tls_version server, client;
		bool is_old;
	} versions[] = {{TLS_1_2, TLS_1_2, true}, {TLS_1_2, TLS_1_3, false}, {TLS_1_3, TLS_1_2, false}};
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		struct cert c = cert_make(&(struct cert_spec){.cn = "k",
							      .alt = "DNS:k.example.com",
							      .key_type = keys[i].type,
							      .issuer = &root});
		struct secret *pem = keys[i].form == KEY_DER ? cert_der(&c) : CERT_PEM(&c);
		struct secret *key = cert_key_pem(&c, keys[i].form);
		for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
			struct tls_server *srv =
				server_with((struct tls_server_params){.credentials = {.cert = pem, .key = key},
								       .minimum_version = versions[v].server});
			struct tls_client *cl =
				client_with((struct tls_client_params){.minimum_version = versions[v].client});
			if (versions[v].is_old)
				make_old(cl);
			struct ends e = ends_secure(srv, cl, "k.example.com");
			const struct tls_info *in = stream_tls_info(e.client), *on = stream_tls_info(e.server);
			if (versions[v].is_old) {
				bool is_rsa = strcmp(keys[i].type, "rsa") == 0;
				CHECK(strcmp(in->version, "TLSv1.2") == 0 && strcmp(on->version_word, "TLSv1_2") == 0);
				CHECK(strcmp(on->cipher_word, is_rsa ? "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
								     : "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384") == 0);
			} else {
				CHECK(strcmp(in->version, "TLSv1.3") == 0 && strcmp(on->version_word, "TLSv1_3") == 0);
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
		struct old_client o = {.fd = fds[1], .max_version = cases[i].version, .ciphers = cases[i].ciphers};
		CHECK(pthread_create(&thread, NULL, old_client_thread, &o) == 0);
		int rc = stream_start_tls_server(st, srv, TLS_BUFFERED_REFUSE, SOON);
		if (cases[i].cipher == NULL) {
			CHECK_FAILS(rc, ERR_PROTO);
		} else {
			CHECK(rc == 0);
			const struct tls_info *info = stream_tls_info(st);
			CHECK(strcmp(info->version, "TLSv1.2") == 0 && strcmp(info->version_word, "TLSv1_2") == 0);
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
		{"mail.example.com", NULL},	    {"MAIL.Example.com.", NULL}, {"a.wild.example.com", NULL},
		{"127.0.0.1", NULL},		    {"127.0.0.2", "IP address mismatch"},
		{"other.example.com", "hostname mismatch"}, {"a.b.wild.example.com", "hostname mismatch"},
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
			CHECK(o.server.rc == 0 || o.server.kind == ERR_PROTO); /* TLS 1.3: it may not know yet */
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
	CHECK(tls_server_new(&(struct tls_server_params){.credentials = leaf_credentials(), .alpn = bad}) == NULL);
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
	struct tls_client *good =
		client_with((struct tls_client_params){.credentials = {.cert = cert, .key = key}, .max_sessions = 1});
	struct tls_client *bare = client_with((struct tls_client_params){0});
	struct tls_client *foreign =
		client_with((struct tls_client_params){.credentials = {.cert = foreign_cert, .key = foreign_key}});

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
		CHECK(o.server.rc == -1 && o.server.kind == ERR_PROTO && strstr(o.server.why, why[i]) != NULL);
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
	struct tls_client *cl =
		client_with((struct tls_client_params){.credentials = {.cert = cert, .key = key}, .max_sessions = 1});
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

/* --- peers that misbehave --- */

static void peer_send(const struct ends *e, const char *text)
{
	size_t n = strlen(text);
	CHECK(write(e->raw, text, n) == (ssize_t)n);
}

static void garbage_run(void *arg)
{
	static const struct {
		const char *sent;
		enum err_kind kind;
		const char *why;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ERR_PROTO, "http request"},
		{"EHLO somebody.example.com\r\n", ERR_PROTO, "TLS: "},
		{"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ERR_PROTO, "TLS: "}, /* only up to its first NUL */
		{"\x80\x2e\x01\x03\x01", ERR_PROTO, "TLS: "},
	};
	struct tls_server *srv = server_with((struct tls_server_params){0});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct ends e = ends_open();
		peer_send(&e, cases[i].sent);
		shutdown(e.raw, SHUT_WR);
		int rc = stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, SOON);
		CHECK(rc == -1 && (err_is(cases[i].kind) || err_is(ERR_CLOSED)));
		CHECK(err_is(ERR_CLOSED) || strstr(err_text(), cases[i].why) != NULL);
		CHECK(i >= 2 || err_is(ERR_PROTO));
		err_clear();
		CHECK(stream_tls_info(e.client) == NULL);
		ends_close(&e);
	}
	/* Random bytes, many times over: whatever happens, it is an error, and soon. */
	unsigned seed = 7;
	for (int i = 0; i < 300; i++) {
		char junk[200];
		struct ends e = ends_open();
		for (size_t k = 0; k < sizeof(junk); k++)
			junk[k] = (char)rand_r(&seed);
		junk[0] = 0x16;
		junk[1] = 3;
		junk[2] = 1;
		junk[3] = 0;
		junk[4] = (char)(sizeof(junk) - 5);
		if (i % 2 == 0) {
			junk[5] = 1;
			junk[6] = 0;
			junk[7] = 0;
			junk[8] = (char)(sizeof(junk) - 9);
		}
		CHECK(write(e.raw, junk, sizeof(junk)) == (ssize_t)sizeof(junk));
		shutdown(e.raw, SHUT_WR);
		CHECK(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, SOON) == -1);
		CHECK(err_is(ERR_PROTO) || err_is(ERR_CLOSED));
		err_clear();
		ends_close(&e);
	}
	tls_server_unref(srv);
}

static void test_garbage(void **state)
{
	run(garbage_run);
}

/* A failed handshake gives the stream back in the clear. */
static void fallback_run(void *arg)
{
	char alert[64];
	str_t line;
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct ends e = ends_open();
	peer_send(&e, "this is no ClientHello\r\n");
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, SOON), ERR_PROTO);
	CHECK(stream_write(e.client, "250 in the clear\r\n", 18, SOON) == 0);
	peer_send(&e, "QUIT\r\n");
	CHECK(stream_read_line(e.client, &line, 100, SOON) == 1 && str_eq(line, STR("QUIT")));
	ssize_t n = read(e.raw, alert, sizeof(alert));
	CHECK(n >= 18 && memcmp(alert + n - 18, "250 in the clear\r\n", 18) == 0);
	ends_close(&e);

	e = ends_open();
	peer_send(&e, "454 no\r\n");
	CHECK_FAILS(stream_start_tls_client(e.client, cl, "x.example", TLS_BUFFERED_REFUSE, SOON), ERR_PROTO);
	peer_send(&e, "250 ok\r\n");
	CHECK(stream_read_line(e.client, &line, 100, SOON) == 1 && str_eq(line, STR("250 ok")));
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_fallback(void **state)
{
	run(fallback_run);
}

struct silent {
	struct stream *st;
	struct tls_server *srv;
	int rc;
	enum err_kind kind;
};

static void silent_shake(void *arg)
{
	struct silent *s = arg;
	s->rc = stream_start_tls_server(s->st, s->srv, TLS_BUFFERED_REFUSE, MONO_NEVER);
	s->kind = err_kind();
	err_clear();
}

static void deadline_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct ends e = ends_open();
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, mono_after(dur_ms(20))), ERR_TIMEOUT);
	peer_send(&e, "\x16\x03\x01\x02"); /* begins a record and stops */
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, mono_after(dur_ms(20))), ERR_TIMEOUT);
	ends_close(&e);

	struct fiber_group g;
	e = ends_open();
	struct silent s = {.st = e.client, .srv = srv};
	fiber_group_init(&g);
	fiber_start(&g, "silent", silent_shake, &s);
	CHECK(fiber_sleep(dur_ms(5), SOON) == 0);
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, SOON) == 0);
	CHECK(s.rc == -1 && s.kind == ERR_CANCELLED);
	ends_close(&e);

	e = ends_open();
	close(e.raw);
	e.raw = -1;
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, SOON), ERR_CLOSED);
	ends_close(&e);
	tls_server_unref(srv);
}

static void test_deadline(void **state)
{
	run(deadline_run);
}

/* --- what came in the clear --- */

/* The client's handshake, sent behind some clear text in the same segment. */
static void buffered_run(void *arg)
{
	static const char clear[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	for (int i = 0; i < 3; i++) {
		struct fiber_group g;
		str_t line;
		struct ends e = ends_streams();
		struct shake c = {.st = e.client, .cl = cl, .name = "mail.example.com"};
		CHECK(stream_write(e.client, clear, sizeof(clear) - 1, SOON) == 0);
		fiber_group_init(&g);
		fiber_start(&g, "client", shake_run, &c);
		while (stream_buffered(e.server).n < sizeof(clear) + 100) /* with the ClientHello */
			CHECK(stream_fill(e.server, 8000, SOON) == 1);
		CHECK(stream_read_line(e.server, &line, 200, SOON) == 1);
		CHECK(str_eq(line, str_mk(clear, sizeof(clear) - 3)));
		size_t n_held = stream_buffered(e.server).n;
		CHECK(n_held > 0);
		struct shake s = {.st = e.server, .srv = srv};
		s.buffered = i == 0 ? TLS_BUFFERED_FEED : i == 1 ? TLS_BUFFERED_REFUSE : TLS_BUFFERED_DROP;
		if (i == 0) {
			shake_run(&s);
			CHECK(s.rc == 0);
			CHECK(fiber_group_join(&g, SOON) == 0);
			CHECK(c.rc == 0);
			converse(&e);
		} else if (i == 1) {
			shake_run(&s);
			CHECK(s.rc == -1 && s.kind == ERR_PROTO && strstr(s.why, "in the clear") != NULL);
			CHECK(stream_buffered(e.server).n == n_held);
			fiber_group_cancel(&g);
		} else { /* without its first flight the client is not understood */
			CHECK_FAILS(stream_start_tls_server(e.server, srv, TLS_BUFFERED_DROP, mono_after(dur_ms(20))),
				    ERR_TIMEOUT);
			CHECK(stream_buffered(e.server).n == 0);
			fiber_group_cancel(&g);
		}
		CHECK(fiber_group_join(&g, SOON) == 0);
		ends_close(&e);
	}
	/* Twice is a mistake. */
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	CHECK_FAILS(stream_start_tls_server(e.server, srv, TLS_BUFFERED_REFUSE, SOON), ERR_INVALID);
	converse(&e);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_buffered(void **state)
{
	run(buffered_run);
}

/* --- endings --- */

static void endings_run(void *arg)
{
	char c;
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});

	/* close_notify: the end of input; the other direction goes on. */
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	converse(&e);
	CHECK(stream_write(e.client, "last", 4, SOON) == 0);
	CHECK(stream_goodbye(e.client, SOON) == 0);
	CHECK(stream_goodbye(e.client, SOON) == 0);
	CHECK_FAILS(stream_write(e.client, "x", 1, SOON), ERR_CLOSED);
	CHECK(stream_fill(e.server, 100, SOON) == 1 && str_eq(stream_buffered(e.server), STR("last")));
	stream_consume(e.server, 4);
	CHECK(stream_fill(e.server, 100, SOON) == 0);
	CHECK(stream_read(e.server, &c, 1, SOON) == 0);
	say(e.server, e.client, "answer to the last");
	stream_shutdown_write(e.server);
	CHECK(stream_fill(e.client, 100, SOON) == 0);
	ends_close(&e);

	/* Cut off. */
	e = ends_secure(srv, cl, "mail.example.com");
	converse(&e);
	CHECK(stream_write(e.client, "half", 4, SOON) == 0);
	stream_free(e.client);
	e.client = NULL;
	CHECK(stream_fill(e.server, 100, SOON) == 1);
	for (int i = 0; i < 2; i++) {
		CHECK(stream_fill(e.server, 100, SOON) == -1);
		CHECK(err_is(ERR_CLOSED) && strstr(err_text(), "close_notify") != NULL);
		err_clear();
	}
	CHECK(stream_has_input(e.server)); /* not to be used again */
	ends_close(&e);

	/* Reset. */
	e = ends_secure(srv, cl, "mail.example.com");
	stream_set_abort(e.client);
	stream_free(e.client);
	e.client = NULL;
	CHECK_FAILS(stream_fill(e.server, 100, SOON), ERR_CLOSED);
	CHECK_FAILS(stream_write(e.server, "x", 1, SOON), ERR_CLOSED);
	CHECK(stream_goodbye(e.server, SOON) == 0); /* nobody there to hear it */
	ends_close(&e);

	/* In the clear it is a half-close. */
	e = ends_streams();
	CHECK(stream_goodbye(e.client, SOON) == 0);
	CHECK(stream_fill(e.server, 100, SOON) == 0);
	say(e.server, e.client, "still");
	ends_close(&e);

	/* A line that ends with the stream, and a drain. */
	e = ends_secure(srv, cl, "mail.example.com");
	CHECK(stream_write(e.client, "some words", 10, SOON) == 0);
	CHECK(stream_goodbye(e.client, SOON) == 0);
	stream_drain(e.server, 1000, SOON);
	CHECK(stream_fill(e.server, 100, SOON) == 0);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_endings(void **state)
{
	run(endings_run);
}

/* Tickets that lie in the socket are no input. */
static void has_input_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){.minimum_version = TLS_1_3});
	struct tls_client *cl = client_with((struct tls_client_params){.max_sessions = 1});
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	char c;
	mono_t give_up = SOON;
	while (recv(e.client->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
	CHECK(!stream_has_input(e.client));
	CHECK(recv(e.client->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) == -1); /* it has been read */
	CHECK(!stream_has_input(e.server));
	CHECK(stream_write(e.server, "x\n", 2, SOON) == 0);
	while (!stream_has_input(e.client))
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
	str_t line;
	CHECK(stream_read_line(e.client, &line, 10, SOON) == 1 && str_eq(line, STR("x")));
	CHECK(!stream_has_input(e.client));
	CHECK(stream_goodbye(e.server, SOON) == 0);
	while (!stream_has_input(e.client))
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_has_input(void **state)
{
	run(has_input_run);
}

/* --- much --- */

#define BULK_BYTES ((size_t)(CHECK_IS_SANITIZED ? 3 : 24) << 20)

struct bulk {
	struct stream *st;
	unsigned seed;
	size_t pause_every; /* bytes; 0: as fast as it goes */
	bool is_lines;
};

static char bulk_byte(unsigned seed, size_t i)
{
	return (char)((i * 2654435761u >> 13) + seed);
}

static void bulk_write(void *arg)
{
	struct bulk *b = arg;
	char *p = xmalloc(100000);
	size_t sizes[] = {1, 17, 4000, 16384, 16385, 70000, 3, 99999};
	for (size_t n_done = 0, k = 0; n_done < BULK_BYTES; k++) {
		size_t n = sizes[k % ARRAY_SIZE(sizes)];
		if (n > BULK_BYTES - n_done)
			n = BULK_BYTES - n_done;
		for (size_t i = 0; i < n; i++)
			p[i] = bulk_byte(b->seed, n_done + i);
		/* In pieces of odd sizes, empty ones among them. */
		struct iovec iov[40];
		int n_iov = 0;
		for (size_t at = 0; at < n && n_iov < 39;) {
			size_t step = n_iov == 38 ? n - at : (size_t)(n_iov * 7) % 900;
			if (step > n - at)
				step = n - at;
			iov[n_iov++] = (struct iovec){p + at, step};
			at += step;
		}
		CHECK(stream_writev(b->st, iov, n_iov, SOON) == 0);
		n_done += n;
	}
	CHECK(stream_goodbye(b->st, SOON) == 0);
	free(p);
}

static void bulk_read(void *arg)
{
	struct bulk *b = arg;
	char *p = xmalloc(50000);
	size_t n_done = 0, n_next = b->pause_every;
	for (;;) {
		ssize_t n;
		if (n_done % 3 == 0) { /* through the buffer, too */
			n = stream_fill(b->st, 30000, SOON);
			if (n == 1)
				n = stream_read(b->st, p, 50000, SOON);
		} else {
			n = stream_read(b->st, p, 50000, SOON);
		}
		CHECK(n >= 0);
		if (n == 0)
			break;
		for (size_t i = 0; i < (size_t)n; i++)
			if (p[i] != bulk_byte(b->seed, n_done + i))
				CHECK(p[i] == bulk_byte(b->seed, n_done + i));
		n_done += (size_t)n;
		if (b->pause_every != 0 && n_done >= n_next) {
			n_next = n_done + b->pause_every;
			CHECK(fiber_sleep(dur_ms(2), SOON) == 0);
		}
	}
	CHECK(n_done == BULK_BYTES);
	free(p);
}

static void bulk_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	struct fiber_group g;
	struct bulk up = {.st = e.client, .seed = 1}, down = {.st = e.server, .seed = 2};
	struct bulk up_end = {.st = e.server, .seed = 1, .pause_every = 256 << 10},
		    down_end = {.st = e.client, .seed = 2, .pause_every = 1 << 20};
	fiber_group_init(&g);
	fiber_start(&g, "up", bulk_write, &up);
	fiber_start(&g, "down", bulk_write, &down);
	fiber_start(&g, "up end", bulk_read, &up_end);
	fiber_start(&g, "down end", bulk_read, &down_end);
	CHECK(fiber_group_join(&g, mono_after(dur_s(100))) == 0);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_bulk(void **state)
{
	run(bulk_run);
}

/* A write that was given up leaves a record half sent: nothing may follow it. */
static void cut_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct ends e = ends_secure(srv, cl, "mail.example.com");
	size_t n = 16 << 20;
	char *p = xcalloc(1, n);
	memset(p, 'a', n);
	CHECK_FAILS(stream_write(e.client, p, n, mono_after(dur_ms(50))), ERR_TIMEOUT);
	CHECK_FAILS(stream_write(e.client, "b", 1, SOON), ERR_CLOSED);
	memset(p, 'b', n);
	CHECK_FAILS(stream_write(e.client, p, n, SOON), ERR_CLOSED);
	CHECK(stream_goodbye(e.client, SOON) == 0); /* a lie would be worse than none */
	size_t n_got = 0;
	ssize_t got;
	while ((got = stream_read(e.server, p, n, SOON)) > 0) {
		n_got += (size_t)got;
		CHECK(memchr(p, 'b', (size_t)got) == NULL);
	}
	CHECK(got == -1 && err_is(ERR_CLOSED) && n_got < n);
	err_clear();
	free(p);
	ends_close(&e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_cut(void **state)
{
	run(cut_run);
}

#define N_IDLE 300

static void idle_run(void *arg)
{
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct ends *e = xcalloc(N_IDLE, sizeof(*e));
	struct ends warm = ends_secure(srv, cl, "mail.example.com");
	converse(&warm);
	size_t before = mallinfo2().uordblks;
	for (size_t i = 0; i < N_IDLE; i++) {
		e[i] = ends_secure(srv, cl, "mail.example.com");
		converse(&e[i]);
		CHECK(!stream_has_input(e[i].client) && !stream_has_input(e[i].server));
	}
	size_t per_pair = (mallinfo2().uordblks - before) / N_IDLE;
	print_message("an idle pair of TLS streams takes %zu bytes of heap\n", per_pair);
	if (!CHECK_IS_SANITIZED) /* no record buffers: those alone would be 2 * 34 KB */
		CHECK(per_pair < 48 << 10);
	for (size_t i = 0; i < N_IDLE; i++)
		ends_close(&e[i]);
	ends_close(&warm);
	free(e);
	tls_client_unref(cl);
	tls_server_unref(srv);
}

static void test_idle(void **state)
{
	run(idle_run);
}

/* --- reload --- */

static void reload_run(void *arg)
{
	struct cert other = cert_make(&(struct cert_spec){.cn = "new", .alt = "DNS:new.example.com", .issuer = &root, .key_type = "rsa"});
	struct secret *pem = CERT_PEM(&other), *key = cert_key_pem(&other, KEY_TRADITIONAL);
	struct tls_server *srv = server_with((struct tls_server_params){0});
	struct tls_client *cl = client_with((struct tls_client_params){0});
	struct ends old = ends_secure(srv, cl, "mail.example.com");

	/* A bad one is refused, and nothing has changed. */
	struct tls_server_params p = {.credentials = {pem, leaf_key, "file `new.pem`", "file `old.key`"}};
	CHECK(tls_server_reload(srv, &p) == -1 && err_is(ERR_INVALID));
	CHECK(strstr(err_text(), "`new.pem`") != NULL && strstr(err_text(), "`old.key`") != NULL);
	err_clear();
	struct ends same = ends_secure(srv, cl, "mail.example.com");

	p.credentials.key = key;
	CHECK(tls_server_reload(srv, &p) == 0);
	struct ends now = ends_secure(srv, cl, "new.example.com");
	converse(&old);
	converse(&same);
	converse(&now);
	tls_server_unref(srv); /* connections need the server no more */
	converse(&old);
	converse(&now);
	ends_close(&old);
	ends_close(&same);
	ends_close(&now);
	tls_client_unref(cl);
	secret_unref(pem);
	secret_unref(key);
	cert_free(&other);
}

static void test_reload(void **state)
{
	run(reload_run);
}

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
		if (warning[0] == 0 ? warnings.n != 0 : (warnings.n == 0 || strstr(warnings.p, warning) == NULL))
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
	struct cert weak = cert_make(&(struct cert_spec){.cn = "weak", .issuer = &root, .key_type = "rsa1024"});
	struct cert late = cert_make(&(struct cert_spec){.cn = "late", .issuer = &root, .from_s = -200, .to_s = -100});
	struct cert early = cert_make(&(struct cert_spec){.cn = "early", .issuer = &root, .from_s = 3600, .to_s = 7200});
	struct cert x25519 = {.key = cert_key("X25519")};
	struct secret *(*key)(const struct cert *, enum key_form) = cert_key_pem;

	check_material(CERT_PEM(&ec), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec, &intermediate), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec, &intermediate, &root), key(&ec, KEY_TRADITIONAL), NULL, "");
	check_material(CERT_PEM(&ec, &ec, &intermediate), key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&intermediate, &ec), key(&ec, KEY_PKCS8), NULL, "`C` were not in order and have been put right");
	check_material(CERT_PEM(&ec, &root, &intermediate), key(&ec, KEY_PKCS8), NULL, "not in order");
	check_material(CERT_PEM(&root, &intermediate, &ec), key(&ec, KEY_PKCS8), NULL, "not in order");
	/* Both in one, with words around them; the parameters that openssl writes before an EC key. */
	check_material(join(key(&ec, KEY_TRADITIONAL), "Bag Attributes\n  friendlyName: x\n", CERT_PEM(&ec)),
		       key(&ec, KEY_PKCS8), NULL, "");
	check_material(CERT_PEM(&ec), join(CERT_PEM(&ec), "\n", key(&ec, KEY_TRADITIONAL)), NULL, "");
	check_material(CERT_PEM(&ec),
		       join(text("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), "",
			    key(&ec, KEY_TRADITIONAL)),
		       NULL, "");
	check_material(cert_der(&rsa), key(&rsa, KEY_DER), NULL, "");

	/* Usable, but. */
	check_material(CERT_PEM(&late), key(&late, KEY_PKCS8), NULL, "the certificate CN=late,O=Tests in file `C` has expired at 20");
	check_material(CERT_PEM(&early), key(&early, KEY_PKCS8), NULL, "is not valid before 20");

	/* Not usable. */
	check_material(CERT_PEM(&ec, &stranger), key(&ec, KEY_PKCS8), "CN=Stranger,O=Tests in file `C` has issued none", NULL);
	check_material(CERT_PEM(&ec), key(&rsa, KEY_PKCS8),
		       "the private key in file `K` does not belong to the certificate CN=ec,O=Tests in file `C`", NULL);
	check_material(CERT_PEM(&ec, &intermediate), key(&leaf, KEY_PKCS8), "does not belong", NULL);
	check_material(CERT_PEM(&weak), key(&weak, KEY_PKCS8), "the certificate in file `C` cannot be used: ee key too small", NULL);
	check_material(key(&ec, KEY_PKCS8), CERT_PEM(&ec), "file `C` holds no certificate, but a private key", NULL);
	check_material(CERT_PEM(&ec), CERT_PEM(&ec), "file `K` holds no private key, but a certificate", NULL);
	check_material(CERT_PEM(&ec), key(&ec, KEY_ENCRYPTED), "the private key in file `K` is encrypted", NULL);
	check_material(CERT_PEM(&ec), key(&x25519, KEY_PKCS8), "the private key in file `K` is of the type X25519", NULL);
	check_material(text(""), key(&ec, KEY_PKCS8), "file `C` is empty", NULL);
	check_material(CERT_PEM(&ec), text(""), "file `K` is empty", NULL);
	check_material(text("nonsense"), key(&ec, KEY_PKCS8), "file `C` holds no certificate in PEM or DER form", NULL);
	check_material(CERT_PEM(&ec), text("nonsense"), "file `K` holds no private key in PEM or DER form", NULL);
	check_material(text("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"),
		       key(&ec, KEY_PKCS8), "file `C` holds no certificate, but a request for one", NULL);
	check_material(join(CERT_PEM(&ec), "", text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
		       key(&ec, KEY_PKCS8), "certificate 2 in file `C` cannot be read: ", NULL);
	check_material(join(CERT_PEM(&ec), "", text("-----BEGIN CERTIFICATE-----\nMIIB")), key(&ec, KEY_PKCS8),
		       "certificate 2 in file `C` cannot be read: ", NULL);
	check_material(CERT_PEM(&ec), text("-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n"),
		       "the private key in file `K` cannot be read: ", NULL);
	check_material(CERT_PEM(&ec), text("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"),
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
	p = (struct tls_server_params){.credentials = {.cert = weak_pem, .key = weak_key}, .security_level = 1};
	struct tls_server *srv = tls_server_new(&p);
	assert_non_null(srv);
	wall_t end = tls_server_not_after(srv);
	assert_true(dur_seconds(wall_sub(end, wall_now())) > 86000 && dur_seconds(wall_sub(end, wall_now())) <= 86400);
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
		{"a-name-that-is-longer-than-a-common-name-may-be.a-name-that-is-longer.example.com", "self-signed",
		 "a-name-that-is-longer-than-a-common-name-may-be.a-name-that-is-longer.example.com", GEN_DNS},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char cn[100];
		struct tls_server *srv = tls_server_new(&(struct tls_server_params){.hostname = cases[i].hostname});
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
		CHECK((size_t)ASN1_STRING_length(s) == n_alt && memcmp(ASN1_STRING_get0_data(s), cases[i].alt, n_alt) == 0);
		GENERAL_NAMES_free(names);
		CHECK(EVP_PKEY_get_id(X509_get0_pubkey(x)) == EVP_PKEY_EC && EVP_PKEY_get_bits(X509_get0_pubkey(x)) == 256);
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
		cmocka_unit_test(test_keys),	    cmocka_unit_test(test_old_versions), cmocka_unit_test(test_names),
		cmocka_unit_test(test_alpn),	    cmocka_unit_test(test_resume),	 cmocka_unit_test(test_rotate),
		cmocka_unit_test(test_workers),	    cmocka_unit_test(test_mutual),	 cmocka_unit_test(test_mutual_end),
		cmocka_unit_test(test_garbage),	    cmocka_unit_test(test_fallback),	 cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_buffered),    cmocka_unit_test(test_endings),	 cmocka_unit_test(test_has_input),
		cmocka_unit_test(test_bulk),	    cmocka_unit_test(test_cut),		 cmocka_unit_test(test_idle),
		cmocka_unit_test(test_reload),	    cmocka_unit_test(test_materials),	 cmocka_unit_test(test_self_signed),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
