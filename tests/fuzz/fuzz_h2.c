/* fuzz_h2.c - HTTP/2 from hostile bytes: frames into a connection as the daemon runs it, with fibers, over a
 * pair of sockets.
 *
 * The first byte says in how many pieces the bytes arrive, with the worker having its turn between them, and
 * whether the client's preface and an empty SETTINGS are put in front, so that most inputs get beyond them.
 * The client then closes its half.
 *
 * What must hold: the connection ends; what we send is whole frames, SETTINGS first, none for a stream that
 * the client has not begun; no memory of bodies is left taken. The sanitizers watch the rest. */
#include "http/h2_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/worker.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FUZZ_MAX = 30000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

static struct http_listener fuzz_listener;

static void fuzz_echo(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	for (size_t i = 0; i < r->n_headers; i++) {
		for (size_t k = 0; k < r->header[i].value.n; k++)
			MUST(strchr("\r\n", r->header[i].value.p[k]) == NULL); /* nor NUL */
		MUST(r->header[i].name.n != 0 && r->header[i].name.p[0] != ':');
		MUST(!str_eq(r->header[i].name, STR("connection")) &&
		     !str_eq(r->header[i].name, STR("transfer-encoding")));
	}
	MUST(r->body.n <= r->listener->p.request_body_limit);
	(void)http_request_query(r, STR("a"));
	a->content_type = "text/plain";
	buf_add_str(&a->body, r->body);
}

static void fuzz_wait(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	fiber_yield();
	http_response_text(a, 200, "later");
}

static const struct http_route fuzz_routes[] = {
	{.method = "GET", .path = "/", .handler = fuzz_wait, .is_public = true},
	{.method = "POST", .path = "/", .handler = fuzz_echo, .is_public = true},
};

struct fuzz_run {
	const uint8_t *data;
	size_t n, n_pieces;
	bool has_preface;
	int fd[2]; /* ours, the client's */
	struct buf out;
};

static void fuzz_feed(void *arg)
{
	struct fuzz_run *f = arg;
	static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	size_t step = f->n / f->n_pieces + 1;
	if (f->has_preface)
		MUST(send(f->fd[1], preface, sizeof(preface) - 1, MSG_NOSIGNAL) ==
		     (ssize_t)sizeof(preface) - 1);
	for (size_t i = 0; i < f->n; i += step) {
		size_t n = f->n - i < step ? f->n - i : step;
		if (send(f->fd[1], f->data + i, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
			break;				  /* the connection has ended */
		(void)fiber_sleep(dur_ns(1), MONO_NEVER); /* a turn of the loop */
	}
	shutdown(f->fd[1], SHUT_WR);
}

static void fuzz_drain(struct fuzz_run *f)
{
	char tmp[16384];
	ssize_t n;
	while ((n = recv(f->fd[1], tmp, sizeof(tmp), MSG_DONTWAIT)) > 0)
		buf_add(&f->out, tmp, (size_t)n);
}

static void fuzz_check_output(str_t out)
{
	bool is_first = true;
	while (out.n != 0) {
		const uint8_t *p = (const uint8_t *)out.p;
		MUST(out.n >= 9);
		size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
		uint32_t stream =
			(uint32_t)(p[5] & 0x7f) << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
		MUST(n <= 16384 && n <= out.n - 9);
		MUST(p[3] <= 9 && p[3] != 5 && p[3] != 2);
		MUST(stream == 0 || (stream & 1) == 1);
		if (is_first)
			MUST(p[3] == 4 && stream == 0);
		is_first = false;
		out = str_skip(out, 9 + n);
	}
}

static void fuzz_one(void *arg)
{
	struct fuzz_run *f = arg;
	struct fiber_group feeding;
	struct net_addr a;
	MUST(net_addr_parse(STR("127.0.0.1:1"), &a) == 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, f->fd) == 0);
	struct http_session s = {
		.st = stream_from_fd(f->fd[0], &a, &a), .l = &fuzz_listener, .fiber = fiber_self()};
	fiber_group_init(&feeding);
	fiber_start(&feeding, "client", fuzz_feed, f);
	h2_conn_main(&s);
	stream_free(s.st);
	MUST(fiber_group_join(&feeding, MONO_NEVER) == 0);
	fuzz_drain(f);
	close(f->fd[1]);
	MUST(err_kind() == ERR_NONE);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	MUST(log_set_filter(STR("error")) == 0);
	http_routes_add(fuzz_routes, ARRAY_SIZE(fuzz_routes));
	fuzz_listener.p = (struct http_listener_params){
		.request_body_limit = 5000,
		.header_timeout = dur_s(30),
		.body_timeout = dur_s(30),
		.idle_timeout = dur_s(30),
		.write_timeout = dur_s(30),
		.handler_timeout = dur_s(30),
		.max_concurrent_streams = 10,
		.max_request_headers = 20,
	};
	workers_start(1);
	fuzz_listener.crowd = crowd_new();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n < 1 || n > FUZZ_MAX)
		return 0;
	struct fuzz_run f = {.data = data + 1,
			     .n = n - 1,
			     .n_pieces = (size_t)(data[0] & 7) + 1,
			     .has_preface = (data[0] & 8) == 0};
	worker_run(fuzz_one, &f);
	fuzz_check_output(buf_str(&f.out));
	buf_fini(&f.out);
	MUST(http_body_memory() == 0);
	return 0;
}
