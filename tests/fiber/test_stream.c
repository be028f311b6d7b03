/* Streams: reading, lines, writing against a slow reader, time-outs, cancel, half-close, reset, and what an
 * idle one costs. The peer is a plain blocking socket (of a socketpair or TCP) driven from the same test. */
#include "base/alloc.h"
#include "fiber_check.h"
#include "net/sock.h"
#include "net/stream_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SOON mono_after(dur_s(20))

/* A stream and the raw descriptor at its other end, over TCP so that resets are real. */
struct pair {
	struct stream *st;
	int peer;
};

static struct net_addr loopback(const char *ip)
{
	struct net_addr a;
	CHECK(net_addr_parse_ip(str_of(ip), 0, &a) == 0);
	return a;
}

static int listen_raw(struct net_addr *at, int backlog)
{
	int fd = socket(at->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && bind(fd, &at->sa, at->len) == 0 && listen(fd, backlog) == 0);
	CHECK(getsockname(fd, &at->sa, &at->len) == 0);
	return fd;
}

static struct pair pair_open(const char *ip)
{
	struct net_addr at = loopback(ip);
	struct pair p;
	int l = listen_raw(&at, 4);
	p.st = sock_connect(&at, NULL, SOON);
	CHECK(p.st != NULL);
	p.peer = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	CHECK(p.peer >= 0);
	close(l);
	return p;
}

static void pair_close(struct pair *p)
{
	stream_free(p->st);
	if (p->peer >= 0)
		close(p->peer);
}

static void peer_send(const struct pair *p, const char *text)
{
	size_t n = strlen(text);
	CHECK(write(p->peer, text, n) == (ssize_t)n);
}

static void run(fiber_fn *fn)
{
	workers_start(1);
	worker_run(fn, NULL);
	workers_stop(mono_after(dur_s(10)));
}

/* --- addresses and connecting --- */

static void connect_run(void *arg)
{
	static const char *const ips[] = {"127.0.0.1", "::1"};
	for (size_t i = 0; i < ARRAY_SIZE(ips); i++) {
		struct net_addr at = loopback(ips[i]), source = loopback(ips[i]);
		char a[NET_ADDR_STRLEN], b[NET_ADDR_STRLEN];
		int l = listen_raw(&at, 4), one = 0;
		socklen_t n = sizeof(one);
		struct stream *st = sock_connect(&at, &source, SOON);
		CHECK(st != NULL);
		CHECK(strcmp(net_addr_fmt(stream_peer(st), a), net_addr_fmt(&at, b)) == 0);
		CHECK(net_addr_eq_ip(stream_local(st), &source) && net_addr_port(stream_local(st)) != 0);
		CHECK(getsockopt(st->fd, IPPROTO_TCP, TCP_NODELAY, &one, &n) == 0 && one != 0);
		CHECK((fcntl(st->fd, F_GETFD) & FD_CLOEXEC) != 0);
		stream_free(st);
		close(l);
		CHECK(sock_connect(&at, NULL, SOON) == NULL);
		CHECK(err_is(ERR_CONNECT) && strstr(err_text(), net_addr_fmt(&at, a)) != NULL);
		struct err e = err_take();
		CHECK(e.sys_errno == ECONNREFUSED);
		err_fini(&e);
	}
}

static void test_connect(void **state)
{
	run(connect_run);
}

static void connect_fails_run(void *arg)
{
	struct net_addr at = loopback("127.0.0.1"), foreign = loopback("192.0.2.1"), v6 = loopback("::1");
	int l = listen_raw(&at, 4);
	CHECK(sock_connect(&at, &foreign, SOON) == NULL);
	CHECK(err_is(ERR_CONNECT) && strstr(err_text(), "192.0.2.1") != NULL);
	err_clear();
	CHECK(sock_connect(&at, &v6, SOON) == NULL);
	CHECK(err_is(ERR_CONNECT));
	err_clear();
	close(l);
}

static void test_connect_fails(void **state)
{
	run(connect_fails_run);
}

/* A listener that never accepts and whose queue is full drops what else arrives: connecting takes forever. */
static void connect_timeout_run(void *arg)
{
	struct net_addr at = loopback("127.0.0.1");
	int l = listen_raw(&at, 0), fill[8];
	for (size_t i = 0; i < ARRAY_SIZE(fill); i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		CHECK(connect(fill[i], &at.sa, at.len) == 0 || errno == EINPROGRESS);
	}
	mono_t begin = mono_now();
	CHECK(sock_connect(&at, NULL, mono_after(dur_ms(100))) == NULL);
	CHECK(err_is(ERR_TIMEOUT) && strstr(err_text(), "connecting to 127.0.0.1:") != NULL);
	err_clear();
	CHECK(mono_sub(mono_now(), begin).ns >= 100 * 1000000);
	for (size_t i = 0; i < ARRAY_SIZE(fill); i++)
		close(fill[i]);
	close(l);
}

static void test_connect_timeout(void **state)
{
	run(connect_timeout_run);
}

/* --- reading --- */

static void lines_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	str_t line;
	peer_send(&p, "one\r\ntwo\n\r\n\nfour\rmore\r\r\nrest");
	static const char *const lines[] = {"one", "two", "", "", "four\rmore\r"};
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		CHECK(stream_read_line(p.st, &line, 100, SOON) == 1);
		CHECK(str_eq(line, str_of(lines[i])));
	}
	CHECK(str_eq(stream_buffered(p.st), STR("rest")));
	CHECK_FAILS(stream_read_line(p.st, &line, 100, mono_after(dur_ms(10))), ERR_TIMEOUT);
	peer_send(&p, "\r");
	CHECK_FAILS(stream_read_line(p.st, &line, 100, mono_after(dur_ms(10))), ERR_TIMEOUT);
	peer_send(&p, "\nlast");
	CHECK(stream_read_line(p.st, &line, 4, SOON) == 1 && str_eq(line, STR("rest")));
	shutdown(p.peer, SHUT_WR);
	CHECK_FAILS(stream_read_line(p.st, &line, 100, SOON), ERR_CLOSED);
	CHECK(str_eq(stream_buffered(p.st), STR("last")));
	stream_consume(p.st, 4);
	CHECK(stream_read_line(p.st, &line, 100, SOON) == 0);
	CHECK(stream_read_line(p.st, &line, 100, SOON) == 0);
	pair_close(&p);
}

static void test_lines(void **state)
{
	run(lines_run);
}

static void line_limit_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	str_t line;
	peer_send(&p, "12345678\r\n123456789\r\n");
	CHECK(stream_read_line(p.st, &line, 8, SOON) == 1 && line.n == 8);
	CHECK_FAILS(stream_read_line(p.st, &line, 8, SOON), ERR_LIMIT);
	CHECK(stream_read_line(p.st, &line, 9, SOON) == 1 && line.n == 9);
	/* Without an end in sight it is not buffered beyond the limit. */
	char *big = xcalloc(1, 20000);
	memset(big, 'x', 20000);
	CHECK(write(p.peer, big, 20000) == 20000);
	CHECK_FAILS(stream_read_line(p.st, &line, 10000, SOON), ERR_LIMIT);
	CHECK(stream_buffered(p.st).n <= 10002 && stream_buffered(p.st).n > 10000);
	free(big);
	pair_close(&p);
}

static void test_line_limit(void **state)
{
	run(line_limit_run);
}

static void fill_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	char *big = xcalloc(1, 300000);
	for (size_t i = 0; i < 300000; i++)
		big[i] = (char)(i * 7 + i / 256);
	for (size_t n_sent = 0; n_sent < 300000;) {
		ssize_t n = send(p.peer, big + n_sent, 300000 - n_sent, MSG_DONTWAIT);
		n_sent += n > 0 ? (size_t)n : 0;
		if (stream_buffered(p.st).n < 100000)
			CHECK(stream_fill(p.st, 100000, SOON) == 1);
		else
			stream_consume(p.st, 0);
		CHECK(stream_buffered(p.st).n <= 100000);
		if (stream_buffered(p.st).n == 100000 && n <= 0)
			break;
	}
	while (stream_buffered(p.st).n < 100000)
		CHECK(stream_fill(p.st, 100000, SOON) == 1);
	CHECK_FAILS(stream_fill(p.st, 100000, SOON), ERR_LIMIT);
	CHECK(memcmp(stream_buffered(p.st).p, big, 100000) == 0);
	stream_consume(p.st, 99990);
	while (stream_buffered(p.st).n < 5000)
		CHECK(stream_fill(p.st, 5000, SOON) == 1);
	CHECK(stream_buffered(p.st).n == 5000 && memcmp(stream_buffered(p.st).p, big + 99990, 5000) == 0);
	stream_consume(p.st, 5000);
	/* Bulk: buffered bytes first, then straight from the socket. */
	close(p.peer);
	p.peer = -1;
	char got[1000];
	ssize_t n;
	size_t at = 104990;
	CHECK(stream_fill(p.st, 100, SOON) == 1);
	while ((n = stream_read(p.st, got, sizeof(got), SOON)) > 0) {
		CHECK(memcmp(got, big + at, (size_t)n) == 0);
		at += (size_t)n;
	}
	CHECK(n == 0 && at > 104990 + 100);
	free(big);
	pair_close(&p);
}

static void test_fill(void **state)
{
	run(fill_run);
}

/* --- time-out, cancel --- */

struct waiting {
	struct pair p;
	bool is_done;
	bool is_writing;
};

static void wait_until_cancelled(void *arg)
{
	struct waiting *w = arg;
	char *big = xcalloc(1, 16 << 20);
	if (w->is_writing)
		CHECK_FAILS(stream_write(w->p.st, big, 16 << 20, MONO_NEVER), ERR_CANCELLED);
	else
		CHECK_FAILS(stream_fill(w->p.st, 100, MONO_NEVER), ERR_CANCELLED);
	free(big);
	w->is_done = true;
}

static void limits_run(void *arg)
{
	struct fiber_group g;
	for (int is_writing = 0; is_writing <= 1; is_writing++) {
		struct waiting w = {.p = pair_open("::1"), .is_writing = is_writing};
		char *big = xcalloc(1, 16 << 20);
		fiber_group_init(&g);
		if (is_writing)
			CHECK_FAILS(stream_write(w.p.st, big, 16 << 20, mono_after(dur_ms(30))), ERR_TIMEOUT);
		else
			CHECK_FAILS(stream_fill(w.p.st, 100, mono_after(dur_ms(30))), ERR_TIMEOUT);
		fiber_start(&g, "waits", wait_until_cancelled, &w);
		CHECK(fiber_sleep(dur_ms(10), MONO_NEVER) ==
		      0); /* it waits by now; if not, it fails at its wait */
		fiber_group_cancel(&g);
		CHECK(fiber_group_join(&g, SOON) == 0);
		CHECK(w.is_done);
		free(big);
		pair_close(&w.p);
	}
}

static void test_timeout_and_cancel(void **state)
{
	run(limits_run);
}

/* --- writing --- */

#define BULK (8u << 20)

static char bulk_byte(size_t i)
{
	return (char)(i ^ (i >> 8) ^ (i >> 16));
}

static void bulk_write(void *arg)
{
	struct pair *p = arg;
	char *big = xmalloc(BULK);
	for (size_t i = 0; i < BULK; i++)
		big[i] = bulk_byte(i);
	struct iovec iov[] = {{big, 1},
			      {NULL, 0},
			      {big + 1, BULK / 2},
			      {big + 1 + BULK / 2, BULK - 1 - BULK / 2},
			      {NULL, 0}};
	CHECK(stream_writev(p->st, iov, ARRAY_SIZE(iov), SOON) == 0);
	stream_shutdown_write(p->st);
	free(big);
}

/* Both ends are streams here: the reader takes little at a time and lets the loop turn. */
static void slow_reader_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	struct fiber_group g;
	struct net_addr none = {.len = 0};
	size_t n_read = 0;
	int rc;
	fiber_group_init(&g);
	fcntl(p.peer, F_SETFL, O_NONBLOCK);
	struct stream *reader = stream_from_fd(p.peer, &none, &none);
	p.peer = -1;
	fiber_start(&g, "bulk", bulk_write, &p);
	while ((rc = stream_fill(reader, 65536, SOON)) == 1) {
		str_t in = stream_buffered(reader);
		for (size_t i = 0; i < in.n; i++)
			if (in.p[i] != bulk_byte(n_read + i))
				CHECK(!"the bytes arrive as they were sent");
		n_read += in.n;
		stream_consume(reader, in.n);
		fiber_yield();
	}
	CHECK(rc == 0 && n_read == BULK);
	CHECK(fiber_group_join(&g, SOON) == 0);
	CHECK(stream_write(reader, "x", 0, SOON) == 0);
	stream_free(reader);
	pair_close(&p);
}

static void test_slow_reader(void **state)
{
	run(slow_reader_run);
}

/* --- ends --- */

static void half_close_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	char got[16];
	str_t line;
	CHECK(stream_write(p.st, "question\n", 9, SOON) == 0);
	stream_shutdown_write(p.st);
	CHECK(read(p.peer, got, sizeof(got)) == 9);
	CHECK(read(p.peer, got, sizeof(got)) == 0); /* our end of output */
	peer_send(&p, "answer\n");
	CHECK(stream_read_line(p.st, &line, 100, SOON) == 1 && str_eq(line, STR("answer")));
	CHECK_FAILS(stream_write(p.st, "x", 1, SOON), ERR_CLOSED);
	pair_close(&p);
}

static void test_half_close(void **state)
{
	run(half_close_run);
}

static void peer_reset(struct pair *p)
{
	struct linger l = {.l_onoff = 1};
	setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
	close(p->peer);
	p->peer = -1;
}

static void read_until_reset(void *arg)
{
	struct waiting *w = arg;
	CHECK_FAILS(stream_fill(w->p.st, 100, SOON), ERR_CLOSED);
	w->is_done = true;
}

static void reset_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	peer_reset(&p);
	CHECK(stream_fill(p.st, 100, SOON) == -1);
	struct err e = err_take();
	CHECK(e.kind == ERR_CLOSED && e.sys_errno == ECONNRESET);
	CHECK(strstr(e.text, "127.0.0.1:") != NULL);
	err_fini(&e);
	CHECK_FAILS(stream_write(p.st, "x", 1, SOON), ERR_CLOSED);
	pair_close(&p);

	struct waiting w = {.p = pair_open("127.0.0.1")}; /* and while somebody waits */
	struct fiber_group g;
	fiber_group_init(&g);
	fiber_start(&g, "waits", read_until_reset, &w);
	CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
	peer_reset(&w.p);
	CHECK(fiber_group_join(&g, SOON) == 0 && w.is_done);
	pair_close(&w.p);

	p = pair_open("127.0.0.1"); /* the other way round */
	stream_set_abort(p.st);
	stream_free(p.st);
	p.st = NULL;
	char c;
	CHECK(read(p.peer, &c, 1) == -1 && errno == ECONNRESET);
	pair_close(&p);
}

static void test_reset(void **state)
{
	run(reset_run);
}

static void await_input(struct stream *st)
{
	struct pollfd pf = {.fd = st->fd, .events = POLLIN};
	CHECK(poll(&pf, 1, 20000) == 1);
}

static void has_input_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	CHECK(!stream_has_input(p.st));
	peer_send(&p, "x");
	await_input(p.st);
	CHECK(stream_has_input(p.st));
	CHECK(stream_fill(p.st, 10, SOON) == 1);
	CHECK(stream_has_input(p.st)); /* buffered now */
	stream_consume(p.st, 1);
	CHECK(!stream_has_input(p.st));
	close(p.peer);
	p.peer = -1;
	await_input(p.st);
	CHECK(stream_has_input(p.st)); /* the end counts, too */
	pair_close(&p);

	p = pair_open("127.0.0.1");
	peer_reset(&p);
	await_input(p.st);
	CHECK(stream_has_input(p.st));
	pair_close(&p);
}

static void test_has_input(void **state)
{
	run(has_input_run);
}

static void drain_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	peer_send(&p, "some input that nobody wants");
	shutdown(p.peer, SHUT_WR);
	stream_drain(p.st, 1 << 20, SOON);
	CHECK(err_kind() == ERR_NONE && stream_fill(p.st, 10, SOON) == 0);
	pair_close(&p);

	p = pair_open("127.0.0.1"); /* a peer that does not end: by deadline; and by limit */
	peer_send(&p, "0123456789");
	stream_drain(p.st, 1 << 20, mono_after(dur_ms(20)));
	CHECK(err_kind() == ERR_NONE && stream_buffered(p.st).n == 0);
	peer_send(&p, "0123456789");
	await_input(p.st);
	stream_drain(p.st, 4, SOON);
	CHECK(stream_fill(p.st, 100, SOON) == 1 && str_eq(stream_buffered(p.st), STR("456789")));
	pair_close(&p);
}

static void test_drain(void **state)
{
	run(drain_run);
}

/* --- one that sends all the time does not keep the worker to itself --- */

static void ticker_run(void *arg)
{
	int *n_ticks = arg;
	while (fiber_sleep(dur_ms(1), MONO_NEVER) == 0)
		++*n_ticks;
	err_clear();
}

static void fairness_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	struct fiber_group g;
	int n_ticks = 0;
	char *some = xcalloc(1, 65536);
	fiber_group_init(&g);
	fiber_start(&g, "ticks", ticker_run, &n_ticks);
	mono_t give_up = SOON;
	for (size_t i = 0; n_ticks < 5 && !mono_is_past(give_up); i++) {
		CHECK(send(p.peer, some, 65536, MSG_DONTWAIT) > 0); /* there is always input */
		CHECK(stream_read(p.st, some, 65536, SOON) > 0);
		while (stream_has_input(p.st))
			CHECK(stream_read(p.st, some, 65536, SOON) > 0);
	}
	CHECK(n_ticks >= 5);
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, SOON) == 0);
	free(some);
	pair_close(&p);
}

static void test_fairness(void **state)
{
	run(fairness_run);
}

/* --- an idle stream is small --- */

static void idle_reader(void *arg)
{
	struct pair *p = arg;
	CHECK(stream_fill(p->st, 65536, SOON) == 1);
	stream_consume(p->st, stream_buffered(p->st).n);
	CHECK(stream_fill(p->st, 65536, SOON) == 0);
}

static void idle_run(void *arg)
{
	struct pair p = pair_open("127.0.0.1");
	struct fiber_group g;
	int n_left = -1;
	fiber_group_init(&g);
	fiber_start(&g, "idle", idle_reader, &p);
	peer_send(&p, "something");
	mono_t give_up = SOON;
	while (n_left != 0 || p.st->in != NULL || p.st->poll == NULL) {
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
		CHECK(ioctl(p.st->fd, FIONREAD, &n_left) == 0);
	}
	CHECK(sizeof(struct stream) + sizeof(uv_poll_t) + 64 < 1024);
	shutdown(p.peer, SHUT_WR);
	CHECK(fiber_group_join(&g, SOON) == 0);
	pair_close(&p);
}

static void test_idle(void **state)
{
	run(idle_run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_connect_fails),
		cmocka_unit_test(test_connect_timeout),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_line_limit),
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_timeout_and_cancel),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_half_close),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_has_input),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_fairness),
		cmocka_unit_test(test_idle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
