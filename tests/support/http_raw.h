/* http_raw.h - a client that sends bytes exactly as given and reads whole answers, over blocking sockets from
 * a thread that is no worker. A read that takes 20 s fails the test. */
#pragma once

#include "ut.h"

#include "net/addr.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <unistd.h>

struct raw {
	int fd;
	struct buf in; /* received, not yet taken */
};
struct raw_answer {
	int status;
	struct buf head, body;
};

static inline struct raw raw_open(const struct net_addr *to)
{
	struct raw c = {.fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	assert_true(c.fd >= 0);
	struct timeval tv = {.tv_sec = 20};
	int one = 1;
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(c.fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	assert_int_equal(connect(c.fd, &to->sa, to->len), 0);
	return c;
}

static inline void raw_close(struct raw *c)
{
	close(c->fd);
	buf_fini(&c->in);
}

/** False when the peer is gone. */
static inline bool raw_try_send(struct raw *c, str_t bytes)
{
	for (size_t i = 0; i < bytes.n;) {
		ssize_t n = send(c->fd, bytes.p + i, bytes.n - i, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		i += (size_t)n;
	}
	return true;
}

static inline void raw_send(struct raw *c, str_t bytes)
{
	assert_true(raw_try_send(c, bytes));
}
#define raw_send_z(c, z) raw_send((c), str_of(z))

/** 1: more arrived, 0: end of input, -1: reset. */
static inline int raw_fill(struct raw *c)
{
	char tmp[16384];
	ssize_t n = recv(c->fd, tmp, sizeof(tmp), 0);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		fail_msg("no answer in 20 s");
	if (n > 0)
		buf_add(&c->in, tmp, (size_t)n);
	return n > 0 ? 1 : (int)n;
}

static inline str_t raw_field(const struct raw_answer *a, const char *name)
{
	str_t rest = buf_str(&a->head), line;
	while (str_split(&rest, '\n', &line)) {
		ptrdiff_t colon = str_chr(line, ':', 0);
		if (colon > 0 && str_ieq(str_head(line, (size_t)colon), str_of(name)))
			return str_trim(str_skip(line, (size_t)colon + 1));
	}
	return STR_NULL;
}

/** One answer; false at the end of input. The answer to HEAD has no body. A 1xx is an answer by itself. */
static inline bool raw_read(struct raw *c, struct raw_answer *a, bool is_head)
{
	ptrdiff_t end;
	uint64_t n = 0;
	buf_clear(&a->head);
	buf_clear(&a->body);
	a->status = 0;
	while ((end = str_find(buf_str(&c->in), STR("\r\n\r\n"))) < 0) {
		if (raw_fill(c) <= 0)
			return false;
	}
	buf_add(&a->head, c->in.p, (size_t)end + 2);
	buf_consume(&c->in, (size_t)end + 4);
	assert_true(str_starts(buf_str(&a->head), STR("HTTP/1.1 ")));
	a->status = atoi(a->head.p + 9);
	if (is_head || a->status < 200 || a->status == 204)
		return true;
	assert_true(str_to_u64(raw_field(a, "content-length"), &n));
	while (c->in.n < n)
		assert_int_equal(raw_fill(c), 1);
	buf_add(&a->body, c->in.p, n);
	buf_consume(&c->in, n);
	return true;
}

static inline void raw_answer_fini(struct raw_answer *a)
{
	buf_fini(&a->head);
	buf_fini(&a->body);
}

/** The connection ends in order, without another byte. */
static inline void raw_expect_end(struct raw *c)
{
	assert_int_equal(c->in.n, 0);
	assert_int_equal(raw_fill(c), 0);
}
