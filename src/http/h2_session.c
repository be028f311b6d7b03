/* h2_session.c - frames to streams and back: the callbacks of nghttp2, and what a client may do at most.
 *
 * nghttp2 keeps the rules of RFC 9113: states, flow control, HPACK, the form of a header section
 * (section 8.2: names in lower case, no connection-specific fields, pseudo-header fields once and first, no
 * CR, LF or NUL), and that content-length agrees with the DATA frames. What breaks them is a stream or
 * connection error that it sends itself. A field with bytes that are not allowed, which it would pass over,
 * resets the stream here.
 *
 * Everything a client can have us do for nothing is bounded. Resets, ours on account of its mistakes as well
 * as its own, and frames that carry nothing (PING, SETTINGS, PRIORITY, unknown ones, empty DATA,
 * WINDOW_UPDATE of a few bytes or without any data to explain them) count towards budgets that refill with
 * time; more of them, more than a few CONTINUATION frames, or a header section that unpacks to eight times
 * its limit, end the connection with ENHANCE_YOUR_CALM. Streams whose fiber is at work count as concurrent
 * even after a reset: a client cannot have more requests in work than it was told.
 *
 * Callbacks run inside nghttp2_session_mem_recv and nghttp2_session_send, that is in the fiber that reads or
 * writes. None yields. */
#include "http/h2_impl.h"

#include "base/alloc.h"
#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>

#define H2_STOP_GRACE \
	dur_s(1) /* in which a client that was told of the end may begin streams, not knowing it yet */

static nghttp2_session_callbacks *h2_callbacks;
static nghttp2_option *h2_options;
static pthread_once_t h2_once = PTHREAD_ONCE_INIT;

static struct h2_stream *h2_stream_of(nghttp2_session *h2, int32_t id)
{
	return nghttp2_session_get_stream_user_data(h2, id);
}

/* --- what is too much --- */

static void h2_calm(struct h2_conn *c, const char *what)
{
	char peer[NET_ADDR_STRLEN];
	if (c->is_calmed)
		return;
	c->is_calmed = true;
	log_debug("kumod::http", "%s: the HTTP/2 connection ends: %s", net_addr_fmt(stream_peer(c->st), peer),
		  what);
	nghttp2_session_terminate_session(c->h2, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* Counts towards a budget; false, and the end of the connection, when it is used up. */
static bool h2_spend(struct h2_conn *c, struct h2_budget *b, unsigned burst, unsigned per_s, const char *what)
{
	mono_t now = mono_now();
	if (b->at.ns != 0)
		b->level -= dur_seconds(mono_sub(now, b->at)) * per_s;
	b->at = now;
	b->level = b->level > 0 ? b->level + 1 : 1;
	if (b->level <= burst)
		return true;
	h2_calm(c, what);
	return false;
}

static void h2_spend_control(struct h2_conn *c, const char *what)
{
	(void)h2_spend(c, &c->controls, H2_CONTROL_BURST, H2_CONTROLS_PER_S, what);
}

static void h2_spend_reset(struct h2_conn *c)
{
	(void)h2_spend(c, &c->resets, H2_RESET_BURST, H2_RESETS_PER_S, "too many streams are reset");
}

/* --- streams --- */

static struct h2_stream *h2_stream_new(struct h2_conn *c, int32_t id)
{
	struct h2_stream *s = xnew(struct h2_stream);
	s->c = c;
	s->id = id;
	s->a.status = 200;
	s->r.arena = &s->arena;
	list_push_back(&c->streams, &s->link);
	c->n_streams++;
	c->n_begun++;
	nghttp2_session_set_stream_user_data(c->h2, id, s);
	return s;
}

/* The answer is sent, or will not be. */
static void h2_stream_drop_answer(struct h2_stream *s)
{
	if (!s->is_sending)
		return;
	s->c->n_unsent -= s->a.body.n - s->n_sent;
	s->is_sending = false;
	buf_fini(&s->a.body);
	fiber_cond_broadcast(&s->c->unsent_less);
}

void h2_stream_free(struct h2_stream *s)
{
	struct h2_conn *c = s->c;
	h2_stream_drop_answer(s);
	buf_fini(&s->a.body);
	http_memory_give(s->early.n);
	buf_fini(&s->early);
	http_body_fini(&s->body);
	arena_fini(&s->arena);
	list_remove(&s->link);
	c->n_streams--;
	free(s);
	h2_conn_stream_gone(c);
}

static int h2_on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct h2_conn *c = arg;
	c->header_deadline = mono_after(c->l->p.header_timeout);
	c->header_stream = frame->hd.stream_id;
	if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	bool is_late = c->stopping_since.ns != 0 && mono_is_past(mono_add(c->stopping_since, H2_STOP_GRACE));
	/* nghttp2 holds the client to what it was told; this is about fibers of streams that are closed. */
	if (is_late || c->n_running >= c->l->p.max_concurrent_streams) {
		nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
		return 0;
	}
	h2_stream_new(c, frame->hd.stream_id);
	return 0;
}

static str_t h2_copy(struct h2_stream *s, nghttp2_rcbuf *b)
{
	nghttp2_vec v = nghttp2_rcbuf_get_buf(b);
	return arena_str(&s->arena, str_mk((const char *)v.base, v.len));
}

static void h2_take_field(struct h2_stream *s, str_t name, nghttp2_rcbuf *value)
{
	if (name.n == 0 || name.p[0] != ':') {
		if (s->r.n_headers == s->c->l->p.max_request_headers) {
			s->status = 431;
			s->why = "too many header fields";
			return;
		}
		h2_request_add_header(s, arena_str(&s->arena, name), h2_copy(s, value));
	} else if (str_eq(name, STR(":method"))) {
		s->r.method = h2_copy(s, value);
	} else if (str_eq(name, STR(":path"))) {
		s->path = h2_copy(s, value);
	} else if (str_eq(name, STR(":authority"))) {
		s->authority = h2_copy(s, value);
	}
}

static int h2_on_header(nghttp2_session *h2, const nghttp2_frame *frame, nghttp2_rcbuf *name,
			nghttp2_rcbuf *value, uint8_t flags, void *arg)
{
	struct h2_conn *c = arg;
	struct h2_stream *s = h2_stream_of(h2, frame->hd.stream_id);
	if (s == NULL)
		return 0;
	nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);
	s->n_header_list += n.len + v.len + 32;
	if (s->n_header_list > H2_CALM_HEADER_LIST) {
		h2_calm(c, "a header section is far too large");
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	if (s->n_header_list > H2_MAX_HEADER_LIST && s->status == 0) {
		s->status = 431;
		s->why = "the header section is too large";
	}
	/* Trailers are counted and dropped. */
	if (s->status == 0 && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		h2_take_field(s, str_mk((const char *)n.base, n.len), value);
	return 0;
}

static int h2_on_invalid_header(nghttp2_session *h2, const nghttp2_frame *frame, nghttp2_rcbuf *name,
				nghttp2_rcbuf *value, uint8_t flags, void *arg)
{
	return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* a stream error, PROTOCOL_ERROR */
}

static int h2_on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
		      void *arg)
{
	struct h2_stream *s = h2_stream_of(h2, id);
	str_t in = str_mk((const char *)data, n);
	if (s == NULL || s->intake == H2_DROP) {
		nghttp2_session_consume_connection(h2, n); /* the stream's window stays shut */
		return 0;
	}
	s->r.n_bytes_in += n;
	if (s->intake == H2_HOLD) {
		if (http_memory_take(n)) {
			buf_add_str(&s->early, in);
			return 0;
		}
		s->status = 503;
		s->why = "too many requests are being received";
	} else {
		int rc = http_body_add(&s->body, in, &s->why);
		s->status = rc != H1_MORE ? rc : 0;
	}
	nghttp2_session_consume(h2, id, n);
	if (s->status != 0) {
		s->intake = H2_DROP;
		h2_stream_wake(s);
	}
	return 0;
}

static int h2_on_stream_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *arg)
{
	struct h2_conn *c = arg;
	struct h2_stream *s = h2_stream_of(h2, id);
	if (id == c->header_stream) /* malformed: no other call says that its header section has ended */
		c->header_deadline = MONO_NEVER;
	if (s == NULL)
		return 0;
	nghttp2_session_set_stream_user_data(h2, id, NULL);
	s->is_closed = true;
	h2_stream_drop_answer(s);
	if (s->is_running)
		h2_stream_wake(s);
	else
		h2_stream_free(s);
	return 0;
}

/* --- frames --- */

void h2_count_frames(struct h2_conn *c, str_t in)
{
	while (in.n != 0) {
		if (c->n_skip != 0) {
			size_t n = in.n < c->n_skip ? in.n : c->n_skip;
			in = str_skip(in, n);
			c->n_skip -= n;
			continue;
		}
		c->head[c->n_head++] = (uint8_t)in.p[0];
		in = str_skip(in, 1);
		if (c->n_head < sizeof(c->head))
			continue;
		c->n_head = 0;
		c->n_skip = ((size_t)c->head[0] << 16 | (size_t)c->head[1] << 8 | c->head[2]) +
			    H2_FRAME_HEAD - sizeof(c->head);
		if (c->head[3] == NGHTTP2_PRIORITY || c->head[3] > NGHTTP2_CONTINUATION)
			h2_spend_control(c, "too many frames of types that are passed over");
	}
}

static void h2_on_request_end(struct h2_conn *c, int32_t id)
{
	struct h2_stream *s = h2_stream_of(c->h2, id);
	if (s == NULL)
		return;
	s->is_request_done = true;
	h2_stream_wake(s);
}

static void h2_on_headers(struct h2_conn *c, const nghttp2_frame *frame)
{
	struct h2_stream *s = h2_stream_of(c->h2, frame->hd.stream_id);
	c->header_deadline = MONO_NEVER;
	if (s == NULL)
		return;
	if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
		s->is_request_done = true;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		h2_stream_begin(s);
	else
		h2_stream_wake(s);
}

/* A client answers each DATA frame with two of these at
 * most; some send more, so four are taken as explained. */
static void h2_on_window_update(struct h2_conn *c, const nghttp2_frame *frame)
{
	bool is_tiny = frame->window_update.window_size_increment < H2_TINY_WINDOW;
	if (!is_tiny && c->n_update_credit > 0)
		c->n_update_credit--;
	else
		h2_spend_control(c, "too many window updates");
}

static int h2_on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct h2_conn *c = arg;
	switch (frame->hd.type) {
	case NGHTTP2_HEADERS:
		h2_on_headers(c, frame);
		break;
	case NGHTTP2_DATA:
		if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
			h2_on_request_end(c, frame->hd.stream_id);
		else if (frame->hd.length == frame->data.padlen)
			h2_spend_control(c, "too many empty frames");
		break;
	case NGHTTP2_RST_STREAM:
		h2_spend_reset(c);
		break;
	case NGHTTP2_SETTINGS:
		if (!c->has_settings)
			c->header_deadline = MONO_NEVER;
		c->has_settings = true;
		h2_spend_control(c, "too many SETTINGS");
		break;
	case NGHTTP2_WINDOW_UPDATE:
		h2_on_window_update(c, frame);
		break;
	case NGHTTP2_PING:
		h2_spend_control(c, "too many PING");
		break;
	}
	return 0;
}

/* The answer is out. A request that is still coming is not wanted any more, and is reset (RFC 9113
 * section 8.1), but not at once: a client that is busy sending may see the reset first and drop the answer,
 * as curl 7.88 does. Its window stays shut. */
static void h2_on_answer_sent(struct h2_conn *c, int32_t id)
{
	struct h2_stream *s = h2_stream_of(c->h2, id);
	if (s == NULL)
		return;
	h2_stream_drop_answer(s);
	if (!s->is_request_done)
		s->unwanted_since = mono_now();
}

static int h2_on_frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	struct h2_conn *c = arg;
	switch (frame->hd.type) {
	case NGHTTP2_DATA:
		c->n_update_credit += 4;
		/* fallthrough */
	case NGHTTP2_HEADERS:
		if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0)
			h2_on_answer_sent(c, frame->hd.stream_id);
		break;
	case NGHTTP2_RST_STREAM:
		if (frame->rst_stream.error_code != NGHTTP2_NO_ERROR)
			h2_spend_reset(c);
		break;
	}
	return 0;
}

/* --- sending --- */

static ssize_t h2_send(nghttp2_session *h2, const uint8_t *data, size_t n, int flags, void *arg)
{
	struct h2_conn *c = arg;
	if (c->out.n >= H2_OUT_BYTES)
		return NGHTTP2_ERR_WOULDBLOCK;
	buf_add(&c->out, data, n);
	return (ssize_t)n;
}

static ssize_t h2_read_answer(nghttp2_session *h2, int32_t id, uint8_t *unused, size_t n, uint32_t *flags,
			      nghttp2_data_source *source, void *arg)
{
	struct h2_stream *s = source->ptr;
	size_t n_left = s->a.body.n - s->n_sent;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n_left <= n)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)(n_left < n ? n_left : n);
}

static int h2_send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *head, size_t n,
			nghttp2_data_source *source, void *arg)
{
	struct h2_conn *c = arg;
	struct h2_stream *s = source->ptr;
	if (c->out.n >= H2_OUT_BYTES)
		return NGHTTP2_ERR_WOULDBLOCK;
	buf_reserve(&c->out, 9 + n);
	buf_add(&c->out, head, 9);
	buf_add(&c->out, s->a.body.p + s->n_sent, n);
	s->n_sent += n;
	c->n_unsent -= n;
	return 0;
}

/* A field name in lower case, which HTTP/2 demands. */
static str_t h2_lower(struct arena *arena, str_t s)
{
	size_t i = 0;
	while (i < s.n && !(s.p[i] >= 'A' && s.p[i] <= 'Z'))
		i++;
	if (i == s.n)
		return s;
	char *p = arena_alloc(arena, s.n);
	for (i = 0; i < s.n; i++)
		p[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] | 0x20 : s.p[i]);
	return str_mk(p, s.n);
}

static nghttp2_nv h2_nv(str_t name, str_t value)
{
	return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n,
			    NGHTTP2_NV_FLAG_NONE};
}

void h2_submit_answer(struct h2_stream *s)
{
	struct http_response *a = &s->a;
	nghttp2_nv *nv = arena_alloc(&s->arena, (a->n_headers + 4) * sizeof(*nv));
	size_t n = 0;
	nv[n++] = h2_nv(STR(":status"), str_of(arena_printf(&s->arena, "%d", a->status)));
	if (a->content_type != NULL)
		nv[n++] = h2_nv(STR("content-type"), str_of(a->content_type));
	if (a->status != 204 && a->status != 304)
		nv[n++] = h2_nv(STR("content-length"), str_of(arena_printf(&s->arena, "%zu", a->body.n)));
	nv[n++] = h2_nv(STR("date"), http_date());
	for (size_t i = 0; i < a->n_headers; i++)
		nv[n++] = h2_nv(h2_lower(&s->arena, a->header[i].name), a->header[i].value);
	bool has_body =
		a->body.n != 0 && !str_eq(s->r.method, STR("HEAD")) && a->status != 204 && a->status != 304;
	if (!has_body)
		buf_clear(&a->body);
	nghttp2_data_provider body = {.source.ptr = s, .read_callback = h2_read_answer};
	s->is_sending = true;
	s->send_begun = mono_now();
	s->c->n_unsent += a->body.n;
	int rc = nghttp2_submit_response(s->c->h2, s->id, nv, n, has_body ? &body : NULL);
	if (rc != 0) { /* the stream is not in a state to be answered */
		log_debug("kumod::http", "an answer over HTTP/2 cannot be sent: %s", nghttp2_strerror(rc));
		nghttp2_submit_rst_stream(s->c->h2, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_INTERNAL_ERROR);
	}
}

/* --- the session --- */

static void *h2_malloc(size_t n, void *arg)
{
	return xmalloc(n);
}

static void h2_free(void *p, void *arg)
{
	free(p);
}

static void *h2_calloc(size_t n, size_t size, void *arg)
{
	return xcalloc(n, size);
}

static void *h2_realloc(void *p, size_t n, void *arg)
{
	return xrealloc(p, n);
}

static void h2_init(void)
{
	if (nghttp2_session_callbacks_new(&h2_callbacks) != 0 || nghttp2_option_new(&h2_options) != 0)
		panic("nghttp2: out of memory");
	nghttp2_session_callbacks *cb = h2_callbacks;
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, h2_on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback2(cb, h2_on_header);
	nghttp2_session_callbacks_set_on_invalid_header_callback2(cb, h2_on_invalid_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2_on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2_on_stream_close);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, h2_on_frame);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, h2_on_frame_sent);
	nghttp2_session_callbacks_set_send_callback(cb, h2_send);
	nghttp2_session_callbacks_set_send_data_callback(cb, h2_send_data);
	nghttp2_option_set_no_auto_window_update(h2_options, 1);
	nghttp2_option_set_no_closed_streams(h2_options, 1);
}

void h2_session_open(struct h2_conn *c)
{
	nghttp2_mem mem = {NULL, h2_malloc, h2_free, h2_calloc, h2_realloc};
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->l->p.max_concurrent_streams},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_MAX_HEADER_LIST},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	pthread_once(&h2_once, h2_init);
	list_init(&c->streams);
	c->n_skip = NGHTTP2_CLIENT_MAGIC_LEN;
	if (nghttp2_session_server_new3(&c->h2, h2_callbacks, c, h2_options, &mem) != 0 ||
	    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) != 0 ||
	    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, H2_CONN_WINDOW) != 0)
		panic("nghttp2: no session");
}

void h2_session_close(struct h2_conn *c)
{
	list_for_each_safe (it, &c->streams) {
		struct h2_stream *s = list_entry(it, struct h2_stream, link);
		if (s->is_running)
			panic("a stream of HTTP/2 is freed while it is worked on");
		h2_stream_free(s);
	}
	nghttp2_session_del(c->h2);
	c->h2 = NULL;
}
