/* conn.c - the dialogue of one HTTP/1 connection, in its own fiber: read a header, decide, read the body, run
 * the handler, answer.
 *
 * Answers go to `out` first and are written when the connection is about to wait for anything, so the answers
 * of pipelined requests leave in one write; only a handler that may take long gets the ones before it flushed
 * first. A big body is written from where it is, after `out`, in the same system call.
 *
 * Every byte of a request is consumed before the next one is looked at, or else the connection closes: after
 * a refusal the rest of a small body is read and dropped, a big one is not waited for. Closing then lingers
 * (RFC 9112 section 9.6): our side is shut down, as always, and what still comes is dropped for a while,
 * since unread input would turn the close into a reset that can take the answer away from the client.
 *
 * Memory: arena, answer and body buffers are kept from request to request; a connection that has been idle
 * for HTTP_IDLE_TRIM holds nothing but its fiber and the stream. A body buffer grows with what has arrived,
 * whatever Content-Length promises. */
#include "http/websocket_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/worker.h"

#include <stdlib.h>

#define HTTP_IDLE_TRIM dur_s(1)
#define HTTP_LINGER_TIMEOUT dur_s(10)
#define HTTP_LINGER_STOPPING dur_ms(500)

enum {
	HTTP_FILL_BYTES = 65536,      /* of input looked at in one piece; above any header we take */
	HTTP_OUT_BYTES = 65536,	      /* of answers held back */
	HTTP_COPY_BYTES = 16384,      /* a body up to here is copied behind its header */
	HTTP_BODY_STEP_BYTES = 65536, /* first size of a body buffer */
	HTTP_DISCARD_BYTES = 65536,   /* of a refused body that are read to keep the connection */
	HTTP_TURN_REQUESTS = 16,      /* served without a wait before other fibers get a turn */
};

struct http_conn {
	struct http_session *session;
	struct stream *st; /* the session's */
	struct http_listener *l;
	bool is_lingering; /* the client may still be sending */
	unsigned n_turn;

	struct arena arena; /* of the request */
	struct buf out;
	struct http_body body;
	struct buf chunks; /* of a compressed body */
	struct http_request r;
	struct http_response a;
	struct http_framing f;
};

/* What the steps of the dialogue return, besides a status >= 400 to refuse the request with. */
enum { CONN_END = -1, CONN_OK = 0 };

/* --- writing --- */

static int conn_write_failed(void)
{
	log_debug("kumod::http", "%s", err_text());
	err_clear();
	return CONN_END;
}

static int conn_flush(struct http_conn *c)
{
	if (c->out.n == 0)
		return CONN_OK;
	mono_t deadline = http_deadline(mono_now(), c->l->p.write_timeout, c->out.n);
	int rc = stream_write(c->st, c->out.p, c->out.n, deadline);
	buf_clear(&c->out);
	return rc == 0 ? CONN_OK : conn_write_failed();
}

static int conn_flush_request(struct http_request *r)
{
	struct http_conn *c = container_of(r, struct http_conn, r);
	c->n_turn = 0;
	return conn_flush(c);
}

/* Puts the answer in c->a behind those that are held back. */
static int conn_answer(struct http_conn *c, bool is_keeping)
{
	bool has_body = !str_eq(c->r.method, STR("HEAD")) && c->a.status != 204 && c->a.status != 304;
	size_t n_before = c->out.n;
	http_response_write_head(&c->a, is_keeping, c->r.version_minor, &c->out);
	size_t n_answer = c->out.n - n_before + (has_body ? c->a.body.n : 0);
	int rc = CONN_OK;
	if (has_body && c->a.body.n > HTTP_COPY_BYTES) {
		size_t n = c->out.n + c->a.body.n;
		struct iovec iov[2] = {{c->out.p, c->out.n}, {c->a.body.p, c->a.body.n}};
		if (stream_writev(c->st, iov, 2, http_deadline(mono_now(), c->l->p.write_timeout, n)) != 0)
			rc = conn_write_failed();
		buf_clear(&c->out);
	} else {
		if (has_body)
			buf_add_str(&c->out, buf_str(&c->a.body));
		if (c->out.n > HTTP_OUT_BYTES)
			rc = conn_flush(c);
	}
	http_request_done(&c->r, &c->a, n_answer);
	return rc;
}

/* Refuses what cannot be followed by another request. */
static int conn_refuse(struct http_conn *c, int status, const char *why)
{
	http_response_refuse(&c->r, &c->a, status, why);
	c->is_lingering = true;
	if (conn_answer(c, false) == CONN_OK)
		(void)conn_flush(c);
	return CONN_END;
}

/* --- waiting for a request --- */

static void conn_trim(struct http_conn *c)
{
	arena_fini(&c->arena);
	buf_fini(&c->out);
	buf_fini(&c->chunks);
	http_body_fini(&c->body);
	buf_fini(&c->a.body);
}

/* Waits for the first byte of a request. stream_fill's result, the error taken. */
static int conn_wait_idle(struct http_conn *c)
{
	mono_t deadline = mono_after(c->l->p.idle_timeout);
	c->session->is_idle = true;
	int rc = stream_fill(c->st, HTTP_FILL_BYTES, mono_min(deadline, mono_after(HTTP_IDLE_TRIM)));
	if (rc < 0 && err_is(ERR_TIMEOUT) && !mono_is_past(deadline)) {
		conn_trim(c);
		rc = stream_fill(c->st, HTTP_FILL_BYTES, deadline);
	}
	c->session->is_idle = false;
	if (rc < 0)
		err_clear();
	/* http_listener_stop was faster: the request is not begun. */
	return rc > 0 && fiber_is_cancelled() ? CONN_END : rc;
}

/* Waits for more of a header. CONN_OK when there is. */
static int conn_wait_header(struct http_conn *c, mono_t deadline)
{
	int rc = stream_fill(c->st, HTTP_FILL_BYTES, deadline);
	if (rc > 0)
		return CONN_OK;
	if (rc == 0)
		return conn_refuse(c, 400, "the connection ended inside the request header");
	bool is_timeout = err_is(ERR_TIMEOUT);
	err_clear();
	return is_timeout ? conn_refuse(c, 408, "the request header took too long") : CONN_END;
}

/* Fills c->r and c->f. */
static int conn_read_head(struct http_conn *c)
{
	struct h1_scan scan = {.max_fields = c->l->p.max_request_headers};
	mono_t deadline = MONO_NEVER; /* of the header, from its first byte */
	const char *why = NULL;
	int rc;
	while ((rc = h1_scan_head(&scan, stream_buffered(c->st), &why)) == H1_MORE) {
		if (conn_flush(c) != CONN_OK)
			return CONN_END;
		c->n_turn = 0;
		/* A blank line between requests is not a begun one. */
		if (stream_buffered(c->st).n > scan.start) {
			if (deadline.ns == MONO_NEVER.ns)
				deadline = mono_after(c->l->p.header_timeout);
			if (conn_wait_header(c, deadline) != CONN_OK)
				return CONN_END;
		} else if (http_listener_is_stopping(c->l) || conn_wait_idle(c) <= 0) {
			return CONN_END;
		}
	}
	if (rc != H1_DONE)
		return conn_refuse(c, rc, why);
	str_t head = str_skip(str_head(stream_buffered(c->st), scan.pos), scan.start);
	head = arena_str(&c->arena, head);
	stream_consume(c->st, scan.pos);
	c->r.n_bytes_in = scan.pos;
	c->r.begun = mono_now();
	rc = h1_parse_head(head, scan.n_lines, &c->arena, &c->r, &c->f, &why);
	return rc == H1_DONE ? CONN_OK : conn_refuse(c, rc, why);
}

/* --- the body --- */

static int conn_body_failed(int rc, const char **why)
{
	if (rc == 0) {
		*why = "the connection ended inside the request body";
		return 400;
	}
	bool is_timeout = err_is(ERR_TIMEOUT);
	err_clear();
	*why = "the request body took too long";
	return is_timeout ? 408 : CONN_END;
}

/* Before waiting for a body: the client may be waiting for us, either for answers or for leave to send. */
static int conn_ask_for_body(struct http_conn *c)
{
	if (c->f.is_expecting && stream_buffered(c->st).n == 0)
		buf_add_str(&c->out, STR("HTTP/1.1 100 Continue\r\n\r\n"));
	c->n_turn = 0;
	return conn_flush(c);
}

/* What is not compressed is read to where it stays. */
static int conn_read_plain_body(struct http_conn *c, mono_t begun, const char **why)
{
	struct buf *b = &c->body.buf;
	size_t n = (size_t)c->f.content_length; /* within the limit */
	while (b->n < n) {
		size_t n_left = n - b->n;
		size_t n_step = b->n < HTTP_BODY_STEP_BYTES ? HTTP_BODY_STEP_BYTES : b->n;
		size_t n_want = n_step < n_left ? n_step : n_left;
		int status = http_body_reserve(&c->body, n_want, why);
		if (status != H1_MORE)
			return status;
		mono_t deadline = http_deadline(begun, c->l->p.body_timeout, b->n);
		ssize_t rc = stream_read(c->st, b->p + b->n, n_want, deadline);
		if (rc <= 0)
			return conn_body_failed((int)rc, why);
		b->n += (size_t)rc;
		b->p[b->n] = 0;
		c->r.n_bytes_in += (uint64_t)rc;
	}
	return CONN_OK;
}

static int conn_read_sized_body(struct http_conn *c, const char **why)
{
	size_t n_left = (size_t)c->f.content_length, n_received = 0;
	mono_t begun = mono_now();
	if (stream_buffered(c->st).n < n_left && conn_ask_for_body(c) != CONN_OK)
		return CONN_END;
	if (c->f.coding == HTTP_CODING_IDENTITY)
		return conn_read_plain_body(c, begun, why);
	while (n_left != 0) {
		str_t in = str_head(stream_buffered(c->st), n_left);
		int rc = in.n == 0 ? stream_fill(c->st, HTTP_FILL_BYTES,
						 http_deadline(begun, c->l->p.body_timeout, n_received))
				   : http_body_add(&c->body, in, why);
		if (in.n == 0 && rc <= 0)
			return conn_body_failed(rc, why);
		if (in.n != 0 && rc != H1_MORE)
			return rc;
		stream_consume(c->st, in.n);
		c->r.n_bytes_in += in.n;
		n_received += in.n;
		n_left -= in.n;
	}
	return CONN_OK;
}

/* What of a chunked body has arrived. *n_data: its bytes without the framing, over all calls. */
static int conn_take_chunks(struct http_conn *c, struct h1_chunks *chunks, str_t in, size_t *n_used,
			    uint64_t *n_data, const char **why)
{
	uint64_t limit = http_body_wire_limit(c->f.coding, http_body_limit(c->l));
	if (c->f.coding == HTTP_CODING_IDENTITY) {
		int rc = http_body_reserve(&c->body, in.n, why);
		return rc == H1_MORE ? h1_chunks_decode(chunks, in, n_used, &c->body.buf, limit, why) : rc;
	}
	buf_clear(&c->chunks);
	int rc = h1_chunks_decode(chunks, in, n_used, &c->chunks, limit - *n_data, why);
	*n_data += c->chunks.n;
	if (rc != H1_MORE && rc != H1_DONE)
		return rc;
	int status = http_body_add(&c->body, buf_str(&c->chunks), why);
	return status == H1_MORE ? rc : status;
}

static int conn_read_chunked_body(struct http_conn *c, const char **why)
{
	struct h1_chunks chunks = {0};
	mono_t begun = mono_now();
	size_t n_received = 0;
	uint64_t n_data = 0;
	for (;;) {
		str_t in = stream_buffered(c->st);
		size_t n_used = 0;
		int rc = conn_take_chunks(c, &chunks, in, &n_used, &n_data, why);
		stream_consume(c->st, n_used);
		n_received += n_used;
		c->r.n_bytes_in += n_used;
		if (rc != H1_MORE)
			return rc == H1_DONE ? CONN_OK : rc;
		if (conn_ask_for_body(c) != CONN_OK)
			return CONN_END;
		c->f.is_expecting = false;
		mono_t deadline = http_deadline(begun, c->l->p.body_timeout, n_received);
		rc = stream_fill(c->st, HTTP_FILL_BYTES, deadline);
		if (rc <= 0)
			return conn_body_failed(rc, why);
	}
}

static int conn_read_body(struct http_conn *c)
{
	const char *why = NULL;
	int rc = CONN_OK;
	http_body_begin(&c->body, c->f.coding, http_body_limit(c->l));
	if (c->f.is_chunked)
		rc = conn_read_chunked_body(c, &why);
	else if (c->f.content_length != 0)
		rc = conn_read_sized_body(c, &why);
	if (rc == CONN_OK && (rc = http_body_end(&c->body, &why)) == H1_DONE)
		rc = CONN_OK;
	c->r.body = buf_str(&c->body.buf);
	return rc >= 400 ? conn_refuse(c, rc, why) : rc;
}

/* Reads and drops the body of a refused request. CONN_OK: the next request begins here. */
static int conn_discard_body(struct http_conn *c)
{
	size_t n_left = (size_t)c->f.content_length;
	mono_t deadline = mono_after(c->l->p.body_timeout);
	while (n_left != 0) {
		str_t in = str_head(stream_buffered(c->st), n_left);
		stream_consume(c->st, in.n);
		n_left -= in.n;
		if (n_left == 0)
			break;
		if (conn_flush(c) != CONN_OK)
			return CONN_END;
		int rc = stream_fill(c->st, HTTP_FILL_BYTES, deadline);
		if (rc < 0)
			err_clear();
		if (rc <= 0)
			return CONN_END;
	}
	return CONN_OK;
}

/* --- one request --- */

/* The answer to a request that http_admit did not let pass is in c->a. */
static int conn_answer_refused(struct http_conn *c)
{
	bool is_small = !c->f.is_chunked && !c->f.is_expecting && c->f.content_length <= HTTP_DISCARD_BYTES;
	bool is_keeping = c->f.is_keep_alive && is_small && !http_listener_is_stopping(c->l);
	c->is_lingering = !is_keeping;
	if (conn_answer(c, is_keeping) != CONN_OK)
		return CONN_END;
	return is_keeping ? conn_discard_body(c) : CONN_END;
}

static int conn_run_handler(struct http_conn *c, const struct http_route *route)
{
	if (!route->is_immediate && conn_flush(c) != CONN_OK)
		return CONN_END;
	mono_t deadline = mono_after(c->l->p.handler_timeout);
	route->handler(&c->r, &c->a, route->arg, deadline);
	http_response_encode(&c->r, &c->a, deadline);
	bool is_keeping = c->f.is_keep_alive && !c->a.is_closing && !http_listener_is_stopping(c->l);
	c->is_lingering = c->f.is_keep_alive && !is_keeping; /* then the client did not expect it */
	if (conn_answer(c, is_keeping) != CONN_OK)
		return CONN_END;
	return is_keeping ? CONN_OK : CONN_END;
}

/* What was a connection of HTTP becomes one of something else, for good. */
static int conn_run_websocket(struct http_conn *c, const struct http_route *route)
{
	size_t n_before = c->out.n;
	websocket_write_upgrade(&c->r, &c->out);
	c->a.status = 101;
	http_request_done(&c->r, &c->a, c->out.n - n_before);
	websocket_serve(c->session, &c->r, route, &c->out);
	c->is_lingering = true;
	return CONN_END;
}

static void conn_begin_request(struct http_conn *c)
{
	arena_reset(&c->arena);
	http_body_reset(&c->body);
	http_response_reset(&c->a);
	c->r = (struct http_request){
		.peer = stream_peer(c->st),
		.local = stream_local(c->st),
		.listener = c->l,
		.stream = c->st,
		.arena = &c->arena,
		.version_minor = 1,
		.flush = conn_flush_request,
	};
}

/* CONN_OK: another one may follow. */
static int conn_serve_request(struct http_conn *c)
{
	conn_begin_request(c);
	if (conn_read_head(c) != CONN_OK)
		return CONN_END;
	const struct http_route *route = http_admit(&c->r, &c->f, &c->a);
	if (route == NULL)
		return conn_answer_refused(c);
	if (route->websocket != NULL)
		return conn_run_websocket(c, route);
	if (conn_read_body(c) != CONN_OK)
		return CONN_END;
	return conn_run_handler(c, route);
}

static void conn_linger(struct http_conn *c)
{
	c->session->is_idle = true;
	dur_t patience = http_listener_is_stopping(c->l) ? HTTP_LINGER_STOPPING : HTTP_LINGER_TIMEOUT;
	stream_drain(c->st, SIZE_MAX, mono_after(patience));
}

void h1_conn_main(struct http_session *s)
{
	struct http_conn c = {.session = s, .st = s->st, .l = s->l, .a = {.status = 200}};
	while (conn_serve_request(&c) == CONN_OK) {
		if (++c.n_turn == HTTP_TURN_REQUESTS) {
			c.n_turn = 0;
			fiber_yield();
		}
	}
	bool is_flushed = conn_flush(&c) == CONN_OK;
	conn_trim(&c);
	if (!is_flushed)
		return;
	stream_shutdown_write(
		c.st); /* by TLS a client must be told that this is all (RFC 9112 section 9.8) */
	if (c.is_lingering)
		conn_linger(&c);
}
