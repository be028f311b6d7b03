/* test_listen.c - listening sockets that are no address and port, the cap of connections, and PROXY headers
 * on a stream. */
#include "fiber_check.h"
#include "net/proxy.h"
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOON mono_after(dur_s(20))

static char dir[] = "/tmp/cirrus-listen-XXXXXX";
static atomic_uint n_open;
static atomic_bool is_shut; /* connections end */

/* Sends the peer's and its own address, then waits until it is told. */
static void greet(struct stream *st, void *arg)
{
	char peer[NET_ADDR_STRLEN], local[NET_ADDR_STRLEN], line[2 * NET_ADDR_STRLEN + 2];
	const struct cidr_set *proxies = arg;
	atomic_fetch_add(&n_open, 1);
	if (proxies != NULL && cidr_set_has(proxies, stream_peer(st)) &&
	    proxy_read(st, mono_after(dur_s(3))) != 0) {
		err_clear();
		goto out;
	}
	int n = snprintf(line, sizeof(line), "%s %s\n", net_addr_fmt(stream_peer(st), peer),
			 net_addr_fmt(stream_local(st), local));
	if (stream_write(st, line, (size_t)n, SOON) != 0)
		err_clear();
	while (!atomic_load(&is_shut) && !fiber_is_cancelled()) {
		int rc = stream_fill(st, 100, mono_after(dur_ms(10)));
		bool is_over = rc == 0 || (rc < 0 && !err_is(ERR_TIMEOUT));
		if (rc < 0)
			err_clear();
		if (is_over)
			break;
		stream_consume(st, stream_buffered(st).n);
	}
out:
	stream_free(st);
	atomic_fetch_sub(&n_open, 1);
}

static void wait_for_open(unsigned n)
{
	mono_t give_up = SOON;
	while (atomic_load(&n_open) != n)
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
}

static void end(struct listener *l)
{
	listener_stop(l);
	CHECK(listener_join(l, true, SOON) == 0);
	listener_free(l);
}

static struct listener *start_local(void *arg)
{
	struct net_addr a;
	CHECK(net_addr_parse(STR("127.0.0.1:0"), &a) == 0);
	struct listener *l = listener_open(&a, "greet", greet, arg);
	CHECK(l != NULL);
	return l;
}

/* --- the cap --- */

static struct stream *dial(struct listener *l)
{
	struct stream *st = sock_connect(listener_addr(l), NULL, SOON);
	CHECK(st != NULL);
	return st;
}

static void caps(void *arg)
{
	struct stream *st[8];
	str_t line;
	struct listener *l = start_local(NULL);
	listener_set_max_connections(l, 3);
	listener_start(l);
	for (int i = 0; i < 8; i++)
		st[i] = dial(l);
	for (int i = 0; i < 3; i++)
		CHECK(stream_read_line(st[i], &line, 200, SOON) == 1);
	for (int i = 3; i < 8; i++) { /* the kernel has them; nobody answers */
		CHECK_FAILS(stream_read_line(st[i], &line, 200, mono_after(dur_ms(20))), ERR_TIMEOUT);
		CHECK(listener_n_connections(l) == 3);
	}
	/* For each that ends, one is let in. */
	for (int i = 0; i < 5; i++) {
		stream_free(st[i]);
		st[i] = NULL;
		CHECK(stream_read_line(st[i + 3], &line, 200, SOON) == 1);
		CHECK(listener_n_connections(l) <= 3);
	}
	for (int i = 5; i < 8; i++)
		stream_free(st[i]);
	wait_for_open(0);
	/* A listener that is full can be stopped. */
	for (int i = 0; i < 4; i++)
		st[i] = dial(l);
	for (int i = 0; i < 3; i++)
		CHECK(stream_read_line(st[i], &line, 200, SOON) == 1);
	end(l);
	for (int i = 0; i < 4; i++)
		stream_free(st[i]);
}

static void test_caps(void **state)
{
	worker_run(caps, NULL);
}

/* --- in the file system --- */

static int unix_connect(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void unix_expect(const char *path, const char *text)
{
	char line[200] = "";
	size_t n = 0;
	int fd = unix_connect(path);
	CHECK(fd >= 0);
	while (n + 1 < sizeof(line) && strchr(line, '\n') == NULL) {
		ssize_t rc = recv(fd, line + n, sizeof(line) - 1 - n, MSG_DONTWAIT);
		CHECK(rc > 0 || (rc < 0 && errno == EAGAIN));
		if (rc > 0)
			n += (size_t)rc;
		else
			CHECK(fiber_sleep(dur_ms(1), SOON) == 0);
	}
	CHECK(strcmp(line, text) == 0);
	close(fd);
}

static void unix_socket(void *arg)
{
	char path[64], other[64];
	struct stat st, again;
	snprintf(path, sizeof(path), "%s/a.sock", dir);
	struct listener *l = listener_open_unix(path, 0620, "greet", greet, NULL);
	CHECK(l != NULL);
	CHECK(lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0620);
	CHECK(strncmp(listener_name(l), "unix:", 5) == 0 && strcmp(listener_name(l) + 5, path) == 0);
	listener_start(l);
	unix_expect(path, "127.0.0.1:0 127.0.0.1:0\n");
	/* Somebody listens on it: nobody else may. */
	CHECK(listener_open_unix(path, 0620, "greet", greet, NULL) == NULL);
	CHECK(err_is(ERR_IO) && strstr(err_text(), path) != NULL && strstr(err_text(), "in use") != NULL);
	err_clear();
	end(l);
	CHECK(lstat(path, &st) != 0 && errno == ENOENT);

	/* What a killed process has left is replaced... */
	int dead = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	CHECK(bind(dead, (struct sockaddr *)&a, sizeof(a)) == 0);
	close(dead);
	l = listener_open_unix(path, 0600, "greet", greet, NULL);
	CHECK(l != NULL);
	CHECK(lstat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	/* ...and what a successor has put there is left alone. */
	snprintf(other, sizeof(other), "%s/b.sock", dir);
	CHECK(rename(path, other) == 0);
	struct listener *next = listener_open_unix(path, 0600, "greet", greet, NULL);
	CHECK(next != NULL && lstat(path, &again) == 0);
	listener_stop(l);
	listener_free(l);
	CHECK(lstat(path, &st) == 0 && st.st_ino == again.st_ino);
	listener_stop(next);
	listener_free(next);
	CHECK(unlink(other) == 0);

	/* A file is never removed. */
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	close(fd);
	CHECK(listener_open_unix(path, 0600, "greet", greet, NULL) == NULL);
	CHECK(err_is(ERR_EXISTS) && strstr(err_text(), "no socket") != NULL);
	err_clear();
	CHECK(unlink(path) == 0);

	char far[200];
	memset(far, 'a', sizeof(far));
	far[0] = '/';
	far[sizeof(far) - 1] = 0;
	CHECK(listener_open_unix(far, 0600, "greet", greet, NULL) == NULL);
	CHECK(err_is(ERR_INVALID) && strstr(err_text(), "1 to 107 bytes") != NULL);
	err_clear();
	CHECK(listener_open_unix("/nowhere/at/all.sock", 0600, "greet", greet, NULL) == NULL);
	CHECK(err_is(ERR_IO) && strstr(err_text(), "/nowhere/at/all.sock") != NULL);
	err_clear();
}

static void test_unix(void **state)
{
	worker_run(unix_socket, NULL);
}

/* --- handed down --- */

static int saved[8];

/* Descriptors from 3 on are what systemd would have made. */
static void hand_down(int fd, int at)
{
	if (fd == at)
		return;
	CHECK(dup2(fd, at) == at);
	close(fd);
}

static int tcp_listener(int type)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	CHECK(type != SOCK_STREAM || listen(fd, 5) == 0);
	return fd;
}

static void set_env(const char *pid, const char *fds, const char *names)
{
	CHECK(setenv("LISTEN_PID", pid, 1) == 0 && setenv("LISTEN_FDS", fds, 1) == 0);
	if (names != NULL)
		CHECK(setenv("LISTEN_FDNAMES", names, 1) == 0);
	else
		unsetenv("LISTEN_FDNAMES");
}

static void fails(const char *name, enum err_kind kind, const char *text)
{
	CHECK(listener_open_inherited(name, "greet", greet, NULL) == NULL);
	if (!err_is(kind) || strstr(err_text(), text) == NULL) {
		fprintf(stderr, "%s: %s\n", name, err_text());
		abort();
	}
	err_clear();
}

static void inherited(void *arg)
{
	char pid[16], path[64], expected[64];
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	unsetenv("LISTEN_PID");
	fails("web", ERR_NOT_FOUND, "no descriptors were handed to this process");
	set_env("1", "3", "web:api:api");
	fails("web", ERR_NOT_FOUND, "no descriptors were handed to this process");
	set_env(pid, "x", "web:api:api");
	fails("web", ERR_NOT_FOUND, "no descriptors were handed to this process");

	snprintf(path, sizeof(path), "%s/c.sock", dir);
	int un = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	CHECK(bind(un, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(un, 5) == 0);
	for (int i = 0; i < 5; i++)
		saved[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 100);
	hand_down(un, 3);
	hand_down(tcp_listener(SOCK_STREAM), 4);
	hand_down(tcp_listener(SOCK_DGRAM), 5);
	hand_down(tcp_listener(SOCK_STREAM), 6);
	set_env(pid, "4", "local:web:dgram:web");
	fails("api", ERR_NOT_FOUND, "are `local`, `web`, `dgram`, `web`");
	fails("dgram", ERR_INVALID, "it is no listening stream socket");
	struct listener *l = listener_open_inherited("local", "greet", greet, NULL);
	struct listener *w1 = listener_open_inherited("web", "greet", greet, NULL);
	struct listener *w2 = listener_open_inherited("web", "greet", greet, NULL);
	CHECK(l != NULL && w1 != NULL && w2 != NULL);
	fails("web", ERR_NOT_FOUND, "`web` (in use)");
	CHECK(strcmp(listener_name(l), "fd:local") == 0);
	CHECK(net_addr_port(listener_addr(w1)) != 0 &&
	      net_addr_port(listener_addr(w1)) != net_addr_port(listener_addr(w2)));
	CHECK(strcmp(listener_name(w1), net_addr_fmt(listener_addr(w1), expected)) == 0);
	CHECK((fcntl(4, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(4, F_GETFL) & O_NONBLOCK) != 0);
	listener_start(l);
	listener_start(w1);
	unix_expect(path, "127.0.0.1:0 127.0.0.1:0\n");
	struct stream *st = dial(w1);
	str_t line;
	CHECK(stream_read_line(st, &line, 200, SOON) == 1);
	stream_free(st);
	end(l);
	end(w1);
	listener_stop(w2);
	listener_free(w2);
	close(5);
	for (int i = 0; i < 5; i++) {
		if (saved[i] < 0)
			continue;
		dup2(saved[i], 3 + i);
		close(saved[i]);
	}
	/* It is not ours to remove: systemd made it. */
	struct stat stbuf;
	CHECK(lstat(path, &stbuf) == 0);
	unlink(path);
}

/* Before there are workers, whose own descriptors lie there. */
static void test_inherited(void **state)
{
	worker_run(inherited, NULL);
}

/* --- PROXY --- */

static void proxy_expect(struct listener *l, const char *send, const char *want)
{
	str_t line;
	struct stream *st = dial(l);
	for (const char *p = send; *p != 0; p++) /* however it is cut */
		if (stream_write(st, p, 1, SOON) != 0) {
			err_clear(); /* refused already */
			break;
		}
	int rc = stream_read_line(st, &line, 200, SOON);
	if (want == NULL) {
		CHECK(rc == 0 || (rc < 0 && err_is(ERR_CLOSED)));
		err_clear();
	} else {
		CHECK(rc == 1);
		if (!str_starts(line, str_of(want))) {
			fprintf(stderr, STR_FMT "\n", STR_ARG(line));
			abort();
		}
	}
	stream_free(st);
}

static void proxies(void *arg)
{
	struct cidr_set set = {0}, others = {0};
	CHECK(cidr_set_add(&set, STR("127.0.0.0/8")) == 0 && cidr_set_add(&others, STR("10.0.0.0/8")) == 0);
	struct listener *l = start_local(&set);
	listener_start(l);
	proxy_expect(l, "PROXY TCP4 192.0.2.7 198.51.100.2 4711 25\r\n", "192.0.2.7:4711 198.51.100.2:25");
	proxy_expect(l, "PROXY TCP6 2001:db8::7 ::1 4711 25\r\nmore", "[2001:db8::7]:4711 [::1]:25");
	proxy_expect(l, "PROXY UNKNOWN\r\n", "127.0.0.1:");
	proxy_expect(l, "PROXY TCP4 192.0.2.7 198.51.100.2 4711 99999\r\n", NULL);
	proxy_expect(l, "hello\r\n", NULL);
	proxy_expect(l, "PROXY TCP4 192.0.2.7", NULL); /* and no more: the time is over */
	end(l);
	l = start_local(&others);
	listener_start(l);
	proxy_expect(l, "", "127.0.0.1:"); /* nobody waits for a header */
	end(l);
	cidr_set_fini(&set);
	cidr_set_fini(&others);
}

static void test_proxy(void **state)
{
	worker_run(proxies, NULL);
}

/* --- waking a reader --- */

static struct stream *read_by_two;

static void wakes(void *arg)
{
	stream_wake_reader(read_by_two);
}

static void wake(void *arg)
{
	struct fiber_group g;
	struct listener *l = start_local(NULL);
	listener_start(l);
	fiber_group_init(&g);
	read_by_two = dial(l);
	str_t line;
	CHECK(stream_read_line(read_by_two, &line, 200, SOON) == 1);
	fiber_start(&g, "waker", wakes, NULL);
	CHECK_FAILS(stream_fill(read_by_two, 100, SOON), ERR_TIMEOUT);
	/* Once: the next waits for input. */
	CHECK_FAILS(stream_fill(read_by_two, 100, mono_after(dur_ms(20))), ERR_TIMEOUT);
	stream_wake_reader(read_by_two); /* before the wait */
	mono_t begun = mono_now();
	CHECK_FAILS(stream_fill(read_by_two, 100, SOON), ERR_TIMEOUT);
	CHECK(dur_seconds(mono_sub(mono_now(), begun)) < 10);
	CHECK(fiber_group_join(&g, SOON) == 0);
	atomic_store(&is_shut, true);
	CHECK(stream_fill(read_by_two, 100, SOON) == 0);
	stream_free(read_by_two);
	end(l);
	atomic_store(&is_shut, false);
}

static void test_wake(void **state)
{
	worker_run(wake, NULL);
}

static int setup(void **state)
{
	if (mkdtemp(dir) == NULL)
		return -1;
	/* Room for descriptors that are handed down. */
	for (int i = 0; i < 6; i++)
		saved[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	workers_start(2);
	for (int i = 0; i < 6; i++)
		close(saved[i]);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inherited), cmocka_unit_test(test_unix), cmocka_unit_test(test_caps),
		cmocka_unit_test(test_proxy),	  cmocka_unit_test(test_wake),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
