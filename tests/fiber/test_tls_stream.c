/* TLS streams: peers that misbehave, bytes in the clear, endings, bulk, what an idle one costs, reload. */
#include "base/alloc.h"
#include "tls_ends.h"

#include <errno.h>
#include <malloc.h>
#include <openssl/err.h>

/* --- peers that misbehave --- */

static void garbage_run(void *arg)
{
	static const struct {
		const char *sent;
		enum err_kind kind;
		const char *why;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ERR_PROTO, "http request"},
		{"EHLO somebody.example.com\r\n", ERR_PROTO, "TLS: "},
		{"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ERR_PROTO,
		 "TLS: "}, /* only up to its first NUL */
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
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, mono_after(dur_ms(20))),
		    ERR_TIMEOUT);
	peer_send(&e, "\x16\x03\x01\x02"); /* begins a record and stops */
	CHECK_FAILS(stream_start_tls_server(e.client, srv, TLS_BUFFERED_REFUSE, mono_after(dur_ms(20))),
		    ERR_TIMEOUT);
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
			CHECK_FAILS(stream_start_tls_server(e.server, srv, TLS_BUFFERED_DROP,
							    mono_after(dur_ms(20))),
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
		CHECK_FAILS(stream_fill(e[i].client, 100, mono_after(DUR_ZERO)), ERR_TIMEOUT);
		CHECK_FAILS(stream_fill(e[i].server, 100, mono_after(DUR_ZERO)), ERR_TIMEOUT);
	}
	size_t per_pair = (mallinfo2().uordblks - before) / N_IDLE;
	print_message("an idle pair of TLS streams takes %zu bytes of heap\n", per_pair);
	if (!CHECK_IS_SANITIZED) /* no record buffers: those alone would be 2 * 34 KB */
		CHECK(per_pair < 44 << 10);
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
	struct cert other = cert_make(&(struct cert_spec){
		.cn = "new", .alt = "DNS:new.example.com", .issuer = &root, .key_type = "rsa"});
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_garbage),	 cmocka_unit_test(test_fallback),
		cmocka_unit_test(test_deadline), cmocka_unit_test(test_buffered),
		cmocka_unit_test(test_endings),	 cmocka_unit_test(test_has_input),
		cmocka_unit_test(test_bulk),	 cmocka_unit_test(test_cut),
		cmocka_unit_test(test_idle),	 cmocka_unit_test(test_reload),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
