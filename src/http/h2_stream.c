/* h2_stream.c - one request of HTTP/2 in its own fiber: let in, body, handler, answer, by the same functions
 * as HTTP/1.
 *
 * The fiber is started when the header section is complete. Until http_admit has let the request in, which
 * may take a while when a policy is asked, what arrives of its body is kept as it came, within the stream's
 * first window of 64 KB. Then it is decoded as it comes, in the reader's callback, and the fiber only waits
 * for the end. The window is refilled with what was taken, so a client cannot send faster than bodies are
 * consumed.
 *
 * A reset by the client ends the wait for a body; a handler that has begun is left to finish, as it is with
 * HTTP/1 when the client has gone: what it does may be done already. The answer is handed to nghttp2 and sent
 * by the writer, paced by the client's windows; the fiber does not wait for that, so slow readers hold memory
 * but no fiber. When too much waits to be sent, no further handler is run. */
#include "http/h2_impl.h"

#include "base/alloc.h"
#include "base/err.h"

enum { H2_LOST = -1, H2_OK = 0 }; /* besides a status */

/* --- the header --- */

void h2_request_add_header(struct h2_stream *s, str_t name, str_t value)
{
	struct http_request *r = &s->r;
	size_t n = r->n_headers;
	if ((n & (n - 1)) == 0) { /* full at each power of two */
		struct http_header *grown = arena_alloc(&s->arena, (n != 0 ? 2 * n : 8) * sizeof(*grown));
		if (n != 0)
			memcpy(grown, r->header, n * sizeof(*grown));
		r->header = grown;
	}
	r->header[n] = (struct http_header){name, str_trim(value)};
	r->n_headers = n + 1;
}

static int h2_refuse(const char **why, int status, const char *text)
{
	*why = text;
	return status;
}

static int h2_parse_host(struct h2_stream *s, str_t value, bool *has_host, const char **why)
{
	if (*has_host)
		return h2_refuse(why, 400, "more than one Host");
	*has_host = true;
	if (s->authority.p != NULL && !str_ieq(value, s->authority))
		return h2_refuse(why, 400, "Host and :authority differ");
	return http_host_is_good(value) ? H2_OK : h2_refuse(why, 400, "malformed Host");
}

static int h2_parse_fields(struct h2_stream *s, const char **why)
{
	bool has_host = false;
	int rc = H2_OK;
	for (size_t i = 0; i < s->r.n_headers && rc == H2_OK; i++) {
		str_t name = s->r.header[i].name, value = s->r.header[i].value;
		if (str_eq(name, STR("host"))) {
			rc = h2_parse_host(s, value, &has_host, why);
		} else if (str_eq(name, STR("expect"))) {
			s->f.is_expecting = str_ieq(value, STR("100-continue"));
			s->f.is_expect_unknown = !s->f.is_expecting;
		} else if (str_eq(name, STR("content-encoding"))) {
			s->f.coding = http_coding_add(s->f.coding, value);
		} else if (str_eq(name, STR("content-length"))) {
			if (s->f.has_length || !str_to_u64(value, &s->f.content_length))
				return h2_refuse(why, 400, "malformed Content-Length");
			s->f.has_length = true;
		}
	}
	if (rc == H2_OK && !has_host)
		h2_request_add_header(s, STR("host"), s->authority);
	return rc;
}

/* Fills r and f from what has arrived; 0 or a status with *why. */
static int h2_parse_request(struct h2_stream *s, const char **why)
{
	struct http_request *r = &s->r;
	r->target = s->path;
	if (str_eq(r->method, STR("CONNECT")))
		return h2_refuse(why, 501, "this service is no proxy");
	if (r->target.n > HTTP_MAX_TARGET_BYTES)
		return h2_refuse(why, 414, "the request target is too long");
	if (!http_target_is_visible(r->target))
		return h2_refuse(why, 400, "malformed request target");
	if (!http_host_is_good(s->authority))
		return h2_refuse(why, 400, "malformed :authority");
	int rc = h2_parse_fields(s, why);
	if (rc != H2_OK)
		return rc;
	s->f.is_keep_alive = true;
	if (s->is_request_done && !s->f.has_length)
		s->f.has_length = true; /* of none */
	s->f.is_chunked = !s->f.has_length;
	rc = http_request_split_target(r, why);
	return rc == H1_DONE ? H2_OK : rc;
}

/* --- the body --- */

void h2_stream_wake(struct h2_stream *s)
{
	if (s->waiter == NULL)
		return;
	waiter_wake(s->waiter);
	s->waiter = NULL;
}

/* What has come before the request was let in. */
static int h2_take_early(struct h2_stream *s, const char **why)
{
	size_t n = s->early.n;
	int rc = http_body_add(&s->body, buf_str(&s->early), why);
	http_memory_give(n);
	buf_fini(&s->early);
	if (!s->is_closed && n != 0) {
		nghttp2_session_consume(s->c->h2, s->id, n);
		h2_want_write(s->c);
	}
	return rc == H1_MORE ? H2_OK : rc;
}

static void h2_ask_for_body(struct h2_stream *s)
{
	static const nghttp2_nv go_on = {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t) "100", 7, 3,
					 NGHTTP2_NV_FLAG_NONE};
	nghttp2_session *h2 = s->c->h2;
	if (s->f.is_expecting)
		nghttp2_submit_headers(h2, NGHTTP2_FLAG_NONE, s->id, NULL, &go_on, 1, NULL);
	if (s->f.is_chunked || s->f.content_length > H2_STREAM_WINDOW)
		nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, s->id, H2_BODY_WINDOW);
	h2_want_write(s->c);
}

static bool h2_body_is_over(const struct h2_stream *s)
{
	return s->is_request_done || s->is_closed || s->status != 0 || s->c->is_ending;
}

static int h2_wait_for_body(struct h2_stream *s, const char **why)
{
	mono_t begun = mono_now();
	const char *before = fiber_set_waits_for("a request's body");
	int rc = H2_OK;
	while (rc == H2_OK && !h2_body_is_over(s)) {
		struct waiter w;
		waiter_init(&w);
		s->waiter = &w;
		mono_t deadline = http_deadline(begun, s->c->l->p.body_timeout, s->body.n_received);
		if (fiber_wait(&w, deadline) != 0) {
			bool is_timeout = err_is(ERR_TIMEOUT);
			err_clear();
			if (!is_timeout)
				rc = H2_LOST;
			else if (mono_is_past(
					 http_deadline(begun, s->c->l->p.body_timeout, s->body.n_received)))
				rc = h2_refuse(why, 408, "the request body took too long");
		}
		s->waiter = NULL;
	}
	fiber_set_waits_for(before);
	return rc;
}

static int h2_read_body(struct h2_stream *s, const char **why)
{
	http_body_begin(&s->body, s->f.coding, http_body_limit(s->c->l));
	if (s->status != 0) {
		*why = s->why;
		return s->status;
	}
	int rc = h2_take_early(s, why);
	if (rc != H2_OK)
		return rc;
	s->intake = H2_TAKE;
	if (!h2_body_is_over(s)) {
		h2_ask_for_body(s);
		rc = h2_wait_for_body(s, why);
	}
	s->intake = H2_DROP;
	if (rc != H2_OK)
		return rc;
	if (s->status != 0) {
		*why = s->why;
		return s->status;
	}
	if (!s->is_request_done)
		return H2_LOST;
	rc = http_body_end(&s->body, why);
	s->r.body = buf_str(&s->body.buf);
	return rc == H1_DONE ? H2_OK : rc;
}

/* --- the answer --- */

/* Not while the client leaves too much of what it has asked for lying. */
static int h2_wait_for_reader(struct h2_stream *s, mono_t deadline, const char **why)
{
	while (s->c->n_unsent > H2_MAX_UNSENT && !s->is_closed && !s->c->is_ending) {
		if (fiber_cond_wait(&s->c->unsent_less, deadline) == 0)
			continue;
		err_clear();
		return h2_refuse(why, 503, "too many answers have not been read");
	}
	return s->is_closed ? H2_LOST : H2_OK;
}

static int h2_run_handler(struct h2_stream *s, const struct http_route *route, const char **why)
{
	mono_t deadline = mono_after(s->c->l->p.handler_timeout);
	int rc = h2_wait_for_reader(s, deadline, why);
	if (rc != H2_OK)
		return rc;
	route->handler(&s->r, &s->a, route->arg, deadline);
	http_response_encode(&s->r, &s->a, deadline);
	return H2_OK;
}

/* About what it takes in HTTP/1, so that the two can be compared. */
static uint64_t h2_answer_bytes(const struct h2_stream *s)
{
	uint64_t n = 64 + (s->a.content_type != NULL ? strlen(s->a.content_type) : 0);
	for (size_t i = 0; i < s->a.n_headers; i++)
		n += s->a.header[i].name.n + s->a.header[i].value.n + 4;
	return n + (str_eq(s->r.method, STR("HEAD")) ? 0 : s->a.body.n);
}

static void h2_answer(struct h2_stream *s)
{
	struct h2_conn *c = s->c;
	uint64_t n = h2_answer_bytes(s);
	if (!s->is_closed && !c->is_broken) {
		if (s->a.is_closing)
			nghttp2_submit_goaway(c->h2, NGHTTP2_FLAG_NONE,
					      nghttp2_session_get_last_proc_stream_id(c->h2),
					      NGHTTP2_NO_ERROR, NULL, 0);
		h2_submit_answer(s);
		h2_want_write(c);
	}
	http_request_done(&s->r, &s->a, n);
}

static void h2_stream_main(void *arg)
{
	struct h2_stream *s = arg;
	struct h2_conn *c = s->c;
	const struct http_route *route = NULL;
	const char *why = s->why;
	int rc = s->status;
	if (rc == H2_OK)
		rc = h2_parse_request(s, &why);
	if (rc == H2_OK && (route = http_admit(&s->r, &s->f, &s->a)) != NULL) {
		rc = h2_read_body(s, &why);
		if (rc == H2_OK)
			rc = h2_run_handler(s, route, &why);
	}
	s->intake = H2_DROP;
	if (rc > 0)
		http_response_refuse(&s->r, &s->a, rc, why);
	if (rc != H2_LOST)
		h2_answer(s);
	http_body_reset(&s->body);
	s->is_running = false;
	c->n_running--;
	if (s->is_closed)
		h2_stream_free(s);
}

void h2_stream_begin(struct h2_stream *s)
{
	struct h2_conn *c = s->c;
	s->r.peer = stream_peer(c->st);
	s->r.local = stream_local(c->st);
	s->r.listener = c->l;
	s->r.stream = c->st;
	s->r.version_minor = 1;
	s->r.is_http2 = true;
	s->r.n_bytes_in = s->n_header_list;
	s->r.begun = mono_now();
	s->is_running = true;
	c->n_running++;
	fiber_start(&c->requests, "http2 request", h2_stream_main, s);
}
