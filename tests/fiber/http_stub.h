/* http_stub.h - an HTTP(S) server of a few lines: each request goes to a function, which answers. */
#pragma once

#include "tls_ends.h"

#include <stdatomic.h>
#include <strings.h>

struct stub_request {
	struct stream *st;
	char method[16], path[600];
	struct buf head; /* the header lines */
	struct buf body;
};
/** false: the connection is closed. */
typedef bool stub_fn(struct stub_request *rq);

struct stub {
	struct listener *listener;
	struct tls_server *tls; /* NULL: in the clear */
	stub_fn *fn;
	atomic_uint n_connections, n_requests;
};

/* The value of a header of the request, borrowed; STR_NULL when there is none. */
static inline str_t stub_header(const struct stub_request *rq, const char *name)
{
	str_t rest = buf_str(&rq->head), line, key;
	while (str_split(&rest, '\n', &line))
		if (str_split(&line, ':', &key) && str_ieq(key, str_of(name)))
			return str_trim(line);
	return STR_NULL;
}

static inline bool stub_answer(struct stub_request *rq, const char *status, const char *headers, str_t body)
{
	struct buf out = BUF_INIT;
	buf_printf(&out, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, body.n, headers);
	if (strcmp(rq->method, "HEAD") != 0)
		buf_add_str(&out, body);
	int rc = stream_write(rq->st, out.p, out.n, SOON);
	err_clear();
	buf_fini(&out);
	return rc == 0;
}

static inline bool stub_read(struct stub_request *rq)
{
	str_t line, word, rest;
	uint64_t n = 0;
	if (stream_read_line(rq->st, &line, 4000, SOON) != 1)
		return false;
	rest = line;
	str_split(&rest, ' ', &word);
	snprintf(rq->method, sizeof(rq->method), STR_FMT, STR_ARG(word));
	str_split(&rest, ' ', &word);
	snprintf(rq->path, sizeof(rq->path), STR_FMT, STR_ARG(word));
	buf_clear(&rq->head);
	buf_clear(&rq->body);
	for (;;) {
		if (stream_read_line(rq->st, &line, 4000, SOON) != 1)
			return false;
		if (line.n == 0)
			break;
		buf_add_str(&rq->head, line);
		buf_add_c(&rq->head, '\n');
	}
	str_to_u64(stub_header(rq, "Content-Length"), &n);
	while (rq->body.n < n) {
		char piece[1000];
		size_t n_left = (size_t)n - rq->body.n;
		ssize_t got =
			stream_read(rq->st, piece, n_left < sizeof(piece) ? n_left : sizeof(piece), SOON);
		if (got <= 0)
			return false;
		buf_add(&rq->body, piece, (size_t)got);
	}
	return true;
}

static inline void stub_serve(struct stream *st, void *arg)
{
	struct stub *s = arg;
	struct stub_request rq = {.st = st};
	atomic_fetch_add(&s->n_connections, 1);
	if (s->tls == NULL || stream_start_tls_server(st, s->tls, TLS_BUFFERED_REFUSE, SOON) == 0) {
		while (stub_read(&rq)) {
			atomic_fetch_add(&s->n_requests, 1);
			if (!s->fn(&rq))
				break;
		}
	}
	err_clear();
	buf_fini(&rq.head);
	buf_fini(&rq.body);
	stream_free(st);
}

static inline void stub_open(struct stub *s, stub_fn *fn, struct tls_server *tls)
{
	struct net_addr at;
	memset(s, 0, sizeof(*s));
	s->fn = fn;
	s->tls = tls;
	CHECK(net_addr_parse(STR("127.0.0.1:0"), &at) == 0);
	s->listener = listener_open(&at, "stub", stub_serve, s);
	CHECK(s->listener != NULL);
	listener_start(s->listener);
}

static inline uint16_t stub_port(const struct stub *s)
{
	return net_addr_port(listener_addr(s->listener));
}

static inline void stub_close(struct stub *s)
{
	listener_stop(s->listener);
	CHECK(listener_join(s->listener, true, SOON) == 0);
	listener_free(s->listener);
}
