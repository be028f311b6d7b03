/* tls_ends.h - the two ends of a TLS connection in one
 * worker, and the certificates that the TLS tests share. */
#pragma once

#include "fiber_check.h"
#include "net/sock.h"
#include "net/tls_impl.h"
#include "tls_certs.h"

#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define SOON mono_after(dur_s(30))

static struct cert root, intermediate, leaf, client_root, client_cert, stranger;
static struct secret *root_pem, *client_root_pem, *leaf_pem, *leaf_key;

static inline int group_setup(void **state)
{
	root = cert_make(&(struct cert_spec){.cn = "Root", .is_ca = true});
	intermediate = cert_make(&(struct cert_spec){.cn = "Intermediate", .issuer = &root, .is_ca = true});
	leaf = cert_make(
		&(struct cert_spec){.cn = "mail.example.com",
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

static inline int group_teardown(void **state)
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

static inline struct tls_credentials leaf_credentials(void)
{
	return (struct tls_credentials){leaf_pem, leaf_key, "file `cert.pem`", "file `key.pem`"};
}

static inline struct tls_server *server_with(struct tls_server_params p)
{
	if (p.credentials.cert == NULL)
		p.credentials = leaf_credentials();
	struct tls_server *s = tls_server_new(&p);
	CHECK(s != NULL);
	return s;
}

static inline struct tls_client *client_with(struct tls_client_params p)
{
	if (p.ca == NULL)
		p.ca = root_pem;
	struct tls_client *c = tls_client_new(&p);
	CHECK(c != NULL);
	return c;
}

/* From now on it speaks TLS 1.2 only. */
static inline void make_old(struct tls_client *c)
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

static inline struct ends ends_open(void)
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

static inline struct ends ends_streams(void)
{
	struct ends e = ends_open();
	e.server = stream_from_fd(e.raw, stream_peer(e.client), stream_local(e.client));
	e.raw = -1;
	return e;
}

static inline void ends_close(struct ends *e)
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

static inline void shake_run(void *arg)
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

static inline struct outcome ends_shake(struct ends *e, struct tls_server *srv, struct tls_client *cl,
					const char *name)
{
	struct fiber_group g;
	struct outcome o = {.server = {.st = e->server, .srv = srv},
			    .client = {.st = e->client, .cl = cl, .name = name}};
	fiber_group_init(&g);
	fiber_start(&g, "server", shake_run, &o.server);
	shake_run(&o.client);
	CHECK(fiber_group_join(&g, SOON) == 0);
	return o;
}

static inline void say(struct stream *from, struct stream *to, const char *text)
{
	str_t line;
	struct iovec iov[] = {{(void *)(uintptr_t)text, strlen(text)}, {(void *)(uintptr_t) "\r\n", 2}};
	CHECK(stream_writev(from, iov, 2, SOON) == 0);
	CHECK(stream_read_line(to, &line, 1000, SOON) == 1);
	CHECK(str_eq(line, str_of(text)));
}

static inline struct ends ends_secure(struct tls_server *srv, struct tls_client *cl, const char *name)
{
	struct ends e = ends_streams();
	struct outcome o = ends_shake(&e, srv, cl, name);
	if (o.server.rc != 0 || o.client.rc != 0)
		fprintf(stderr, "server: %s\nclient: %s\n", o.server.why, o.client.why);
	CHECK(o.server.rc == 0 && o.client.rc == 0);
	return e;
}

static inline void converse(struct ends *e)
{
	say(e->client, e->server, "hello");
	say(e->server, e->client, "well met");
}

static inline void run(fiber_fn *fn)
{
	workers_start(1);
	worker_run(fn, NULL);
	workers_stop(mono_after(dur_s(10)));
}

static inline void peer_send(const struct ends *e, const char *text)
{
	size_t n = strlen(text);
	CHECK(write(e->raw, text, n) == (ssize_t)n);
}
