/* Listeners: addresses, handing over to all workers, stopping, joining with and without cancel, running out
 * of descriptors. */
#include "fiber_check.h"
#include "net/sock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SOON mono_after(dur_s(20))
#define N_WORKERS 3

static atomic_uint n_served[N_WORKERS], n_open, n_cancelled;

static struct net_addr addr_of(const char *text)
{
	struct net_addr a;
	CHECK(net_addr_parse(str_of(text), &a) == 0);
	return a;
}

/* Answers each line with the same line, until the end of input. */
static void echo(struct stream *st, void *arg)
{
	str_t line;
	int rc;
	atomic_fetch_add(&n_served[worker_index(worker_self())], 1);
	atomic_fetch_add(&n_open, 1);
	CHECK(strcmp(fiber_name(fiber_self()), "echo") == 0);
	while ((rc = stream_read_line(st, &line, 1000, MONO_NEVER)) == 1) {
		struct iovec iov[] = {{(void *)(uintptr_t)line.p, line.n}, {(void *)(uintptr_t) "\n", 1}};
		if (stream_writev(st, iov, 2, SOON) != 0) {
			rc = -1;
			break;
		}
	}
	if (rc == -1 && err_is(ERR_CANCELLED))
		atomic_fetch_add(&n_cancelled, 1);
	err_clear();
	stream_free(st);
	atomic_fetch_sub(&n_open, 1);
}

static void reset_counts(void)
{
	for (unsigned i = 0; i < N_WORKERS; i++)
		atomic_store(&n_served[i], 0);
	atomic_store(&n_open, 0);
	atomic_store(&n_cancelled, 0);
}

static unsigned served(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < N_WORKERS; i++)
		n += atomic_load(&n_served[i]);
	return n;
}

static void wait_for(atomic_uint *v, unsigned value)
{
	mono_t give_up = SOON;
	while (atomic_load(v) != value)
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
}

static struct stream *call(struct listener *l)
{
	struct stream *st = sock_connect(listener_addr(l), NULL, SOON);
	str_t line;
	CHECK(st != NULL);
	CHECK(stream_write(st, "hello\n", 6, SOON) == 0);
	CHECK(stream_read_line(st, &line, 100, SOON) == 1 && str_eq(line, STR("hello")));
	return st;
}

static void run(unsigned n_workers, fiber_fn *fn)
{
	reset_counts();
	workers_start(n_workers);
	worker_run(fn, NULL);
	workers_stop(mono_after(dur_s(10)));
}

/* --- addresses --- */

static void addresses_run(void *arg)
{
	static const char *const at[] = {"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"};
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		struct net_addr a = addr_of(at[i]);
		struct listener *l = listener_open(&a, "echo", echo, NULL);
		CHECK(l != NULL);
		uint16_t port = net_addr_port(listener_addr(l));
		CHECK(port != 0);
		CHECK(net_addr_eq_ip(listener_addr(l), &a));

		struct net_addr same = a;
		char text[NET_ADDR_STRLEN];
		net_addr_set_port(&same, port);
		CHECK(listener_open(&same, "echo", echo, NULL) == NULL); /* in use, and says where */
		CHECK(err_is(ERR_IO) && strstr(err_text(), net_addr_fmt(&same, text)) != NULL);
		struct err e = err_take();
		CHECK(e.sys_errno == EADDRINUSE);
		err_fini(&e);

		listener_start(l);
		stream_free(call(l));
		listener_stop(l);
		CHECK(listener_join(l, false, SOON) == 0);
		listener_free(l);

		l = listener_open(&same, "echo", echo, NULL); /* the port is free at once, TIME_WAIT or not */
		CHECK(l != NULL);
		listener_stop(l); /* never started */
		CHECK(listener_join(l, true, SOON) == 0);
		listener_free(l);
	}
	struct net_addr foreign = addr_of("192.0.2.1:0");
	CHECK(listener_open(&foreign, "echo", echo, NULL) == NULL);
	CHECK(err_is(ERR_IO) && strstr(err_text(), "192.0.2.1:0") != NULL);
	err_clear();
}

static void test_addresses(void **state)
{
	run(2, addresses_run);
}

/* An IPv6 wildcard leaves the IPv4 port alone. */
static void v6_only_run(void *arg)
{
	struct net_addr v6 = addr_of("[::]:0"), v4 = addr_of("0.0.0.0:0");
	struct listener *l6 = listener_open(&v6, "echo", echo, NULL);
	CHECK(l6 != NULL);
	net_addr_set_port(&v4, net_addr_port(listener_addr(l6)));
	struct listener *l4 = listener_open(&v4, "echo", echo, NULL);
	CHECK(l4 != NULL);
	listener_stop(l4);
	listener_free(l4);
	listener_stop(l6);
	listener_free(l6);
}

static void test_v6_only(void **state)
{
	run(1, v6_only_run);
}

/* --- handing over --- */

static void remember_ends(struct stream *st, void *arg)
{
	struct net_addr *ends = arg;
	ends[0] = *stream_local(st);
	ends[1] = *stream_peer(st);
	stream_free(st);
	atomic_fetch_add(&n_served[0], 1);
}

static void ends_run(void *arg)
{
	struct net_addr any = addr_of("0.0.0.0:0"), to = addr_of("127.0.0.1:0"), ends[2];
	struct listener *l = listener_open(&any, "ends", remember_ends, ends);
	CHECK(l != NULL);
	listener_start(l);
	net_addr_set_port(&to, net_addr_port(listener_addr(l)));
	struct stream *st = sock_connect(&to, NULL, SOON);
	CHECK(st != NULL);
	wait_for(&n_served[0], 1);
	CHECK(net_addr_eq_ip(&ends[0], &to) && net_addr_port(&ends[0]) == net_addr_port(&to));
	CHECK(net_addr_eq_ip(&ends[1], stream_local(st)) &&
	      net_addr_port(&ends[1]) == net_addr_port(stream_local(st)));
	stream_free(st);
	listener_stop(l);
	CHECK(listener_join(l, false, SOON) == 0);
	listener_free(l);
}

static void test_ends(void **state)
{
	run(N_WORKERS, ends_run);
}

#define N_CALLS 60

static void spread_run(void *arg)
{
	struct net_addr a = addr_of("127.0.0.1:0");
	struct stream *st[N_CALLS];
	struct listener *l = listener_open(&a, "echo", echo, NULL);
	CHECK(l != NULL);
	listener_start(l);
	for (size_t i = 0; i < N_CALLS; i++)
		st[i] = call(l);
	CHECK(listener_n_connections(l) == N_CALLS);
	for (unsigned i = 0; i < N_WORKERS; i++)
		CHECK(atomic_load(&n_served[i]) >= N_CALLS / N_WORKERS / 2);

	/* Stopping refuses new ones and leaves the others alone. */
	listener_stop(l);
	listener_stop(l);
	mono_t give_up = SOON;
	for (struct stream *late; (late = sock_connect(listener_addr(l), NULL, SOON)) != NULL;
	     stream_free(late))
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
	CHECK(err_is(ERR_CONNECT));
	err_clear();
	CHECK_FAILS(listener_join(l, false, mono_after(dur_ms(50))), ERR_TIMEOUT);
	str_t line;
	CHECK(stream_write(st[0], "again\n", 6, SOON) == 0);
	CHECK(stream_read_line(st[0], &line, 100, SOON) == 1 && str_eq(line, STR("again")));

	for (size_t i = 0; i < N_CALLS; i++)
		stream_free(st[i]);
	CHECK(listener_join(l, false, SOON) == 0);
	CHECK(atomic_load(&n_open) == 0 && atomic_load(&n_cancelled) == 0);
	CHECK(listener_n_connections(l) == 0);
	listener_free(l);
}

static void test_spread_and_join(void **state)
{
	run(N_WORKERS, spread_run);
}

static void cancel_run(void *arg)
{
	struct net_addr a = addr_of("[::1]:0");
	struct stream *st[N_CALLS];
	str_t line;
	struct listener *l = listener_open(&a, "echo", echo, NULL);
	CHECK(l != NULL);
	listener_start(l);
	for (size_t i = 0; i < N_CALLS; i++)
		st[i] = call(l);
	listener_stop(l);
	CHECK(listener_join(l, true, SOON) == 0);
	CHECK(atomic_load(&n_cancelled) == N_CALLS && atomic_load(&n_open) == 0);
	CHECK(listener_n_connections(l) == 0);
	listener_free(l);
	for (size_t i = 0; i < N_CALLS; i++) {
		CHECK(stream_read_line(st[i], &line, 100, SOON) == 0);
		stream_free(st[i]);
	}
}

static void test_cancel(void **state)
{
	run(N_WORKERS, cancel_run);
}

/* Connections that arrive while the listener is being stopped and joined end one way or the other. */
static void hammer(void *arg)
{
	struct listener *l = arg;
	for (;;) {
		struct stream *st = sock_connect(listener_addr(l), NULL, SOON);
		if (st == NULL)
			break;
		if (stream_write(st, "x\n", 2, SOON) != 0 || stream_fill(st, 10, SOON) != 1)
			err_clear();
		stream_free(st);
	}
	err_clear();
}

static void storm_run(void *arg)
{
	struct net_addr a = addr_of("127.0.0.1:0");
	for (int round = 0; round < 20; round++) {
		struct fiber_group g;
		struct listener *l = listener_open(&a, "echo", echo, NULL);
		CHECK(l != NULL);
		unsigned before = served();
		listener_start(l);
		fiber_group_init(&g);
		for (int i = 0; i < 8; i++)
			fiber_start(&g, "hammer", hammer, l);
		mono_t give_up = SOON;
		while (served() < before + 20)
			CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
		listener_stop(l);
		CHECK(listener_join(l, true, SOON) == 0);
		CHECK(atomic_load(&n_open) == 0 && listener_n_connections(l) == 0);
		CHECK(fiber_group_join(&g, SOON) == 0);
		listener_free(l);
	}
}

static void test_storm(void **state)
{
	run(N_WORKERS, storm_run);
}

/* --- from other threads --- */

static void quit_run(void *arg)
{
	struct listener *l = arg;
	stream_free(call(l));
	listener_stop(l);
	CHECK(listener_join(l, true, SOON) == 0);
}

static void test_main_thread(void **state)
{
	reset_counts();
	struct net_addr a = addr_of("127.0.0.1:0");
	struct listener *l = listener_open(&a, "echo", echo,
					   NULL); /* before there are workers: ports below 1024 need it */
	assert_non_null(l);
	workers_start(2);
	listener_start(l);
	worker_run(quit_run, l);
	listener_free(l);
	for (int i = 0; i < 20; i++) { /* stopped before it has begun */
		l = listener_open(&a, "echo", echo, NULL);
		assert_non_null(l);
		listener_start(l);
		listener_stop(l);
		struct listener *again = NULL;
		struct net_addr same = *listener_addr(l);
		for (mono_t give_up = SOON; again == NULL && !mono_is_past(give_up);) {
			again = listener_open(&same, "echo", echo, NULL);
			err_clear();
		}
		assert_non_null(again); /* so the first one did close its socket */
		listener_stop(again);
		listener_free(again);
		listener_free(l);
	}
	workers_stop(mono_after(dur_s(10)));
}

/* --- no descriptors left --- */

static void shortage_run(void *arg)
{
	struct net_addr a = addr_of("127.0.0.1:0");
	struct rlimit before, tight;
	struct listener *l = listener_open(&a, "echo", echo, NULL);
	CHECK(l != NULL);
	listener_start(l);
	stream_free(call(l));
	wait_for(&n_open, 0);

	CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
	struct stream *st = NULL;
	int spare = dup(0);
	CHECK(spare >= 0);
	close(spare);
	tight = before;
	tight.rlim_cur = (rlim_t)spare + 1; /* room for our end of the connection, not for the listener's */
	CHECK(setrlimit(RLIMIT_NOFILE, &tight) == 0);
	st = sock_connect(listener_addr(l), NULL, SOON);
	CHECK(st != NULL);
	CHECK(stream_write(st, "hello\n", 6, SOON) == 0);
	CHECK_FAILS(stream_fill(st, 100, mono_after(dur_ms(150))), ERR_TIMEOUT);
	CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
	str_t line;
	CHECK(stream_read_line(st, &line, 100, SOON) == 1 &&
	      str_eq(line, STR("hello"))); /* it was only late */
	stream_free(st);
	listener_stop(l);
	CHECK(listener_join(l, false, SOON) == 0);
	listener_free(l);
}

static void test_shortage(void **state)
{
	run(1, shortage_run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),   cmocka_unit_test(test_v6_only),
		cmocka_unit_test(test_ends),	    cmocka_unit_test(test_spread_and_join),
		cmocka_unit_test(test_cancel),	    cmocka_unit_test(test_storm),
		cmocka_unit_test(test_main_thread), cmocka_unit_test(test_shortage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
