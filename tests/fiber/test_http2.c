/* test_http2.c - HTTP/2 where the handlers must be ours: answers that nobody reads, bodies that come before
 * the request is let in, the memory of all bodies, and the end by force. Frames are written by hand;
 * tests/e2e/test_http2.py has the rest. */
#include "http_raw.h"

#include "fiber_check.h"
#include "base/log.h"
#include "http/http.h"

#include <stdatomic.h>
#include <time.h>

enum {
	DATA = 0,
	HEADERS = 1,
	RST_STREAM = 3,
	SETTINGS = 4,
	GOAWAY = 7,
	WINDOW_UPDATE = 8,
	END_STREAM = 1,
	END_HEADERS = 4
};
enum { BIG = 3 << 20 };

/* --- the service --- */

static atomic_int n_big, n_held, n_cancelled, n_waiting;
static atomic_bool is_hold_open, is_door_open;

static void serve_big(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	atomic_fetch_add(&n_big, 1);
	a->content_type = "application/octet-stream";
	buf_reserve(&a->body, BIG);
	memset(a->body.p, 'x', BIG);
	a->body.n = BIG;
}

static void serve_echo(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "application/octet-stream";
	buf_add_str(&a->body, r->body);
	http_response_add_header(r, a, STR("X-Http2"), r->is_http2 ? STR("yes") : STR("no"));
}

static void serve_hold(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	atomic_fetch_add(&n_held, 1);
	while (!atomic_load(&is_hold_open)) {
		if (fiber_sleep(dur_ms(2), deadline) != 0) {
			atomic_fetch_add(&n_cancelled, 1);
			err_clear();
			break;
		}
	}
	atomic_fetch_sub(&n_held, 1);
	http_response_text(a, 200, "held");
}

static void serve_last(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	http_response_text(a, 200, "bye");
	a->is_closing = true;
}

/* Lets nobody in while the door is closed. */
static int authorize(struct http_request *r, struct http_response *a, mono_t deadline)
{
	atomic_fetch_add(&n_waiting, 1);
	while (!atomic_load(&is_door_open)) {
		if (fiber_sleep(dur_ms(1), deadline) != 0) {
			err_clear();
			break;
		}
	}
	atomic_fetch_sub(&n_waiting, 1);
	return 0;
}

static const struct http_route routes[] = {
	{.method = "GET", .path = "/big", .handler = serve_big},
	{.method = "GET", .path = "/hold", .handler = serve_hold},
	{.method = "GET", .path = "/last", .handler = serve_last},
	{.method = "POST", .path = "/echo", .handler = serve_echo},
};

struct service {
	struct http_listener *l;
	struct http_listener_params p;
	mono_t deadline;
};

static void service_open(void *arg)
{
	struct service *s = arg;
	s->l = http_listener_open(&s->p);
	CHECK(s->l != NULL);
	http_listener_start(s->l);
}

static void service_close(void *arg)
{
	struct service *s = arg;
	http_listener_close(s->l, s->deadline);
}

static struct service service_start(void)
{
	struct service s = {.p = {.request_body_limit = 1 << 20}};
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &s.p.listen), 0);
	assert_int_equal(cidr_set_add(&s.p.trusted_hosts, STR("127.0.0.1")), 0);
	atomic_store(&is_door_open, true);
	atomic_store(&is_hold_open, false);
	worker_run(service_open, &s);
	return s;
}

static void service_stop(struct service *s, dur_t patience)
{
	s->deadline = mono_after(patience);
	worker_run(service_close, s);
	cidr_set_fini(&s->p.trusted_hosts);
	assert_int_equal(http_body_memory(), 0);
}

/* --- the client --- */

static void put_frame(struct buf *b, int type, int flags, uint32_t stream, str_t payload)
{
	const uint8_t head[9] = {(uint8_t)(payload.n >> 16),
				 (uint8_t)(payload.n >> 8),
				 (uint8_t)payload.n,
				 (uint8_t)type,
				 (uint8_t)flags,
				 (uint8_t)(stream >> 24),
				 (uint8_t)(stream >> 16),
				 (uint8_t)(stream >> 8),
				 (uint8_t)stream};
	buf_add(b, head, sizeof(head));
	buf_add_str(b, payload);
}

/* A literal without indexing (RFC 7541 section 6.2.2); both shorter than 127 bytes. */
static void put_field(struct buf *b, str_t name, str_t value)
{
	buf_add_c(b, 0);
	buf_add_c(b, (char)name.n);
	buf_add_str(b, name);
	buf_add_c(b, (char)value.n);
	buf_add_str(b, value);
}

static void put_request(struct buf *out, uint32_t stream, const char *method, const char *path, bool is_end)
{
	struct buf b = BUF_INIT;
	put_field(&b, STR(":method"), str_of(method));
	put_field(&b, STR(":scheme"), STR("http"));
	put_field(&b, STR(":path"), str_of(path));
	put_field(&b, STR(":authority"), STR("x"));
	put_frame(out, HEADERS, END_HEADERS | (is_end ? END_STREAM : 0), stream, buf_str(&b));
	buf_fini(&b);
}

static void put_u32(struct buf *b, uint32_t v)
{
	const uint8_t p[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
	buf_add(b, p, 4);
}

static void put_window_update(struct buf *out, uint32_t stream, uint32_t n)
{
	struct buf b = BUF_INIT;
	put_u32(&b, n);
	put_frame(out, WINDOW_UPDATE, 0, stream, buf_str(&b));
	buf_fini(&b);
}

/* With this initial window. */
static struct raw h2_open(const struct service *s, uint32_t window)
{
	struct raw c = raw_open(http_listener_addr(s->l));
	struct buf out = BUF_INIT, settings = BUF_INIT;
	buf_add_str(&out, STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
	buf_add(&settings, "\0\4", 2);
	put_u32(&settings, window);
	put_frame(&out, SETTINGS, 0, 0, buf_str(&settings));
	raw_send(&c, buf_str(&out));
	buf_fini(&settings);
	buf_fini(&out);
	return c;
}

static void h2_send(struct raw *c, struct buf *out)
{
	raw_send(c, buf_str(out));
	buf_clear(out);
}

struct h2_frame {
	int type, flags;
	uint32_t stream;
	struct buf payload;
};

/* False at the end of input. */
static bool h2_next(struct raw *c, struct h2_frame *f)
{
	while (c->in.n < 9 || c->in.n < 9 + ((size_t)(uint8_t)c->in.p[0] << 16 |
					     (size_t)(uint8_t)c->in.p[1] << 8 | (uint8_t)c->in.p[2])) {
		if (raw_fill(c) <= 0)
			return false;
	}
	const uint8_t *p = (const uint8_t *)c->in.p;
	size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
	f->type = p[3];
	f->flags = p[4];
	f->stream = (uint32_t)p[5] << 24 | (uint32_t)p[6] << 16 | (uint32_t)p[7] << 8 | p[8];
	buf_clear(&f->payload);
	buf_add(&f->payload, p + 9, n);
	buf_consume(&c->in, 9 + n);
	return true;
}

static bool h2_wait(struct raw *c, struct h2_frame *f, int type, uint32_t stream)
{
	while (h2_next(c, f)) {
		if (f->type == type && f->stream == stream)
			return true;
	}
	return false;
}

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void wait_for(atomic_int *v, int n)
{
	double begun = now_s();
	while (atomic_load(v) != n) {
		assert_true(now_s() < begun + 20);
		usleep(1000);
	}
}

/* --- the tests --- */

/* Three answers of 3 MB are more than a connection may leave lying: a fourth is not made before one of them
 * has gone. */
static void http2_unread_answers(void **state)
{
	struct service s = service_start();
	struct raw c = h2_open(&s, 0);
	struct buf out = BUF_INIT;
	struct h2_frame f = {0};
	size_t n_got = 0;
	atomic_store(&n_big, 0);
	for (uint32_t i = 0; i < 10; i++)
		put_request(&out, 1 + 2 * i, "GET", "/big", true);
	h2_send(&c, &out);
	wait_for(&n_big, 3);
	usleep(100000);
	assert_int_equal(atomic_load(&n_big), 3);
	put_window_update(&out, 0, 0x7fff0000);
	put_window_update(&out, 1, 2 * BIG);
	h2_send(&c, &out);
	while (n_got < BIG && h2_next(&c, &f)) {
		if (f.type == DATA) {
			assert_int_equal(f.stream, 1);
			n_got += f.payload.n;
		}
	}
	assert_int_equal(n_got, BIG);
	wait_for(&n_big, 4);
	/* Whoever loses patience frees what waits for him. */
	for (uint32_t i = 1; i < 4; i++) {
		struct buf code = BUF_INIT;
		put_u32(&code, 8);
		put_frame(&out, RST_STREAM, 0, 1 + 2 * i, buf_str(&code));
		buf_fini(&code);
	}
	h2_send(&c, &out);
	wait_for(&n_big, 7);
	raw_close(&c);
	buf_fini(&out);
	buf_fini(&f.payload);
	service_stop(&s, dur_s(20));
}

/* What comes while nobody has decided whether the request is let in: it is kept, up to the stream's first
 * window. */
static void http2_early_body(void **state)
{
	struct service s = service_start();
	struct raw c = h2_open(&s, 1 << 20);
	struct buf out = BUF_INIT, body = BUF_INIT, got = BUF_INIT;
	struct h2_frame f = {0};
	atomic_store(&is_door_open, false);
	for (int i = 0; i < 65535; i++)
		buf_add_c(&body, (char)('a' + i % 26));
	put_request(&out, 1, "POST", "/echo", false);
	for (size_t i = 0; i < body.n; i += 16000)
		put_frame(&out, DATA, 0, 1, str_head(str_skip(buf_str(&body), i), 16000));
	h2_send(&c, &out);
	wait_for(&n_waiting, 1);
	double begun = now_s();
	while (http_body_memory() != 65535 && now_s() < begun + 20)
		usleep(1000);
	assert_int_equal(http_body_memory(), 65535);
	atomic_store(&is_door_open, true);
	assert_true(h2_wait(&c, &f, WINDOW_UPDATE, 1)); /* now there is room for more */
	put_frame(&out, DATA, END_STREAM, 1, STR("the end"));
	put_window_update(&out, 0, 1 << 20);
	h2_send(&c, &out);
	assert_true(h2_wait(&c, &f, HEADERS, 1));
	do {
		assert_true(h2_next(&c, &f));
		if (f.type == DATA)
			buf_add_str(&got, buf_str(&f.payload));
	} while (f.type != DATA || (f.flags & END_STREAM) == 0);
	assert_int_equal(got.n, body.n + 7);
	assert_memory_equal(got.p, body.p, body.n);
	assert_string_equal(got.p + body.n, "the end");

	/* Reset while it waits: nothing is left. */
	atomic_store(&is_door_open, false);
	put_request(&out, 3, "POST", "/echo", false);
	put_frame(&out, DATA, 0, 3, str_head(buf_str(&body), 10000));
	h2_send(&c, &out);
	wait_for(&n_waiting, 1);
	struct buf code = BUF_INIT;
	put_u32(&code, 8);
	put_frame(&out, RST_STREAM, 0, 3, buf_str(&code));
	h2_send(&c, &out);
	atomic_store(&is_door_open, true);
	wait_for(&n_waiting, 0);

	/* No memory for it: 503, before anybody has looked at the request. */
	http_set_body_memory(5000);
	atomic_store(&is_door_open, false);
	put_request(&out, 5, "POST", "/echo", false);
	put_frame(&out, DATA, 0, 5, str_head(buf_str(&body), 10000));
	h2_send(&c, &out);
	wait_for(&n_waiting, 1);
	usleep(20000);
	atomic_store(&is_door_open, true);
	assert_true(h2_wait(&c, &f, HEADERS, 5));
	assert_true(h2_wait(&c, &f, DATA, 5));
	assert_buf_is(&f.payload, "Error: too many requests are being received");
	http_set_body_memory(256u << 20);
	raw_close(&c);
	buf_fini(&code);
	buf_fini(&out);
	buf_fini(&body);
	buf_fini(&got);
	buf_fini(&f.payload);
	service_stop(&s, dur_s(20));
}

/* An answer after which the connection shall close: GOAWAY, and what was asked for before is answered. */
static void http2_last_answer(void **state)
{
	struct service s = service_start();
	struct raw c = h2_open(&s, 65535);
	struct buf out = BUF_INIT;
	struct h2_frame f = {0};
	put_request(&out, 1, "GET", "/hold", true);
	put_request(&out, 3, "GET", "/last", true);
	h2_send(&c, &out);
	assert_true(h2_wait(&c, &f, DATA, 3));
	assert_buf_is(&f.payload, "bye");
	atomic_store(&is_hold_open, true);
	assert_true(h2_wait(&c, &f, DATA, 1));
	assert_buf_is(&f.payload, "held");
	while (h2_next(&c, &f))
		;
	raw_close(&c);
	buf_fini(&out);
	buf_fini(&f.payload);
	service_stop(&s, dur_s(20));
}

/* Handlers go on when their stream is reset or their client
 * gone, and end when the listener's patience does. */
static void http2_closes_by_force(void **state)
{
	struct service s = service_start();
	struct raw gone = h2_open(&s, 65535), waiting = h2_open(&s, 65535), blocked = h2_open(&s, 0);
	struct buf out = BUF_INIT;
	struct h2_frame f = {0};
	atomic_store(&n_cancelled, 0);
	put_request(&out, 1, "GET", "/hold", true);
	put_request(&out, 3, "GET", "/hold", true);
	h2_send(&gone, &out);
	wait_for(&n_held, 2);
	raw_close(&gone);
	put_request(&out, 1, "GET", "/hold", true);
	put_request(&out, 3, "POST", "/echo", false);
	h2_send(&waiting, &out);
	put_request(&out, 1, "GET", "/big", true);
	h2_send(&blocked, &out);
	wait_for(&n_held, 3);
	assert_int_equal(atomic_load(&n_cancelled), 0);
	double begun = now_s();
	service_stop(&s, dur_ms(300));
	assert_true(now_s() - begun < 10);
	assert_int_equal(atomic_load(&n_held), 0);
	assert_int_equal(atomic_load(&n_cancelled), 3);
	while (h2_next(&waiting, &f))
		;
	raw_close(&waiting);
	raw_close(&blocked);
	buf_fini(&out);
	buf_fini(&f.payload);
}

static int setup(void **state)
{
	if (log_set_filter(STR("error")) != 0)
		return -1;
	http_routes_add(routes, ARRAY_SIZE(routes));
	http_set_authorizer(authorize);
	workers_start(2);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(http2_unread_answers),
		cmocka_unit_test(http2_early_body),
		cmocka_unit_test(http2_last_answer),
		cmocka_unit_test(http2_closes_by_force),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
