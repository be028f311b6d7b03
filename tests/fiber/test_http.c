/* test_http.c - the HTTP service over real sockets: every refusal, the
 * order of pipelined answers, slow, broken and half-closed clients, and
 * the end of a listener. Clients are blocking sockets of the main thread. */
#include "http_raw.h"

#include "fiber_check.h"
#include "api/api.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/offload.h"
#include "http/http.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { BODY_LIMIT = 100000 };

/* --- the service under test --- */

static atomic_int n_held; /* requests inside /hold */
static atomic_bool is_hold_open;
static _Atomic(const char *) gate_reason, liveness_reason;

static void serve_hello(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	http_response_text(a, 200, "hello");
}

static void serve_echo(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "application/octet-stream";
	buf_add_str(&a->body, r->body);
}

static void serve_name(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	str_t name = http_request_query(r, STR("name"));
	http_response_add_header(r, a, STR("x-one"), STR("1"));
	http_response_add_header(r, a, STR("x-two"), STR("2"));
	http_response_add_header(r, a, STR("x-three"), STR("3"));
	http_response_text(a, 201, STR_FMT " at %s", STR_ARG(name), http_request_hostname(r));
}

static void serve_big(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	a->content_type = "text/plain";
	for (int i = 0; i < 500000; i++)
		buf_printf(&a->body, "%09d\n", i);
}

static void serve_hold(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	atomic_fetch_add(&n_held, 1);
	while (!atomic_load(&is_hold_open)) {
		if (fiber_sleep(dur_ms(2), deadline) != 0)
			break;
	}
	atomic_fetch_sub(&n_held, 1);
	if (err_kind() != ERR_NONE)
		http_response_err(a, 503);
	else
		http_response_text(a, 200, "held");
}

static void serve_last(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	http_response_text(a, 200, "bye");
	a->is_closing = true;
}

static const char *gate(void)
{
	return atomic_load(&gate_reason);
}

static const char *liveness(void)
{
	return atomic_load(&liveness_reason);
}

static const struct http_route routes[] = {
	{.method = "GET", .path = "/hello", .handler = serve_hello, .is_immediate = true},
	{.method = "POST", .path = "/echo", .handler = serve_echo},
	{.method = "GET", .path = "/echo", .handler = serve_echo},
	{.method = "POST",
	 .path = "/json",
	 .handler = serve_echo,
	 .consumes = "application/json",
	 .gate = gate},
	{.method = "GET", .path = "/name", .handler = serve_name},
	{.method = "GET", .path = "/big", .handler = serve_big},
	{.method = "GET", .path = "/hold", .handler = serve_hold},
	{.method = "GET", .path = "/last", .handler = serve_last},
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

static struct service service_start_with(const char *trusted, dur_t header, dur_t body, dur_t idle)
{
	struct service s = {.p = {.hostname = (char *)(uintptr_t) "mx.example.com",
				  .request_body_limit = BODY_LIMIT,
				  .header_timeout = header,
				  .body_timeout = body,
				  .idle_timeout = idle}};
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &s.p.listen), 0);
	assert_int_equal(cidr_set_add(&s.p.trusted_hosts, str_of(trusted)), 0);
	worker_run(service_open, &s);
	return s;
}

static struct service service_start(void)
{
	return service_start_with("127.0.0.1", DUR_ZERO, DUR_ZERO, DUR_ZERO);
}

static void service_stop(struct service *s)
{
	s->deadline = mono_after(dur_s(20));
	worker_run(service_close, s);
	cidr_set_fini(&s->p.trusted_hosts);
}

static struct raw client_of(const struct service *s)
{
	return raw_open(http_listener_addr(s->l));
}

static void expect(struct raw *c, int status, const char *body)
{
	struct raw_answer a = {0};
	assert_true(raw_read(c, &a, false));
	if (a.status != status || !str_eq(buf_str(&a.body), str_of(body)))
		fail_msg("%d \"%s\", not %d \"%s\"", a.status, a.body.p, status, body);
	raw_answer_fini(&a);
}

/* --- one request, one answer --- */

static const struct {
	const char *request;
	int status;
	bool is_closing;
	const char *field; /* "name: value" that must be there */
	const char *body;  /* exact; NULL: any */
} exchanges[] = {
	{"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 200, false, "content-type: text/plain; charset=utf-8",
	 "hello"},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200, true, "connection: close",
	 "hello"},
	{"GET /hello HTTP/1.0\r\n\r\n", 200, true, "connection: close", "hello"},
	{"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, false, "connection: keep-alive",
	 "hello"},
	{"GET http://example.com/hello HTTP/1.1\r\nHost: x\r\n\r\n", 200, false, NULL, "hello"},
	{"GET /%68ello HTTP/1.1\r\nHost: x\r\n\r\n", 200, false, NULL, "hello"},
	{"GET /last HTTP/1.1\r\nHost: x\r\n\r\n", 200, true, "connection: close", "bye"},
	{"GET /name?name=a%20b+c HTTP/1.1\r\nHost: x\r\n\r\n", 201, false, "x-three: 3",
	 "a b c at mx.example.com"},
	{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404, false, "content-length: 0", ""},
	{"GET /hello/ HTTP/1.1\r\nHost: x\r\n\r\n", 404, false, NULL, ""},
	{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, false, NULL, ""},
	{"DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n", 405, false, "allow: GET,HEAD", NULL},
	{"OPTIONS /echo HTTP/1.1\r\nHost: x\r\n\r\n", 405, false, "allow: POST,GET,HEAD", NULL},
	{"GET /json HTTP/1.1\r\nHost: x\r\n\r\n", 405, false, "allow: POST", NULL},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n\r\n", 401, false,
	 "www-authenticate: Basic realm=\"cirrus\"", NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 200, false, NULL, "hello"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\n\r\n", 200, false, NULL, ""},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 200, false, NULL, "hello"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
	 "chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n",
	 200, false, NULL, "abcde"},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\r\n", 411, false, NULL, NULL},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
	 200, false, NULL, "{}"},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: Application/JSON ; "
	 "charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
	 200, false, NULL, "{}"},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: "
	 "application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
	 200, false, NULL, "{}"},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 415, false, NULL,
	 "Expected request with `Content-Type: application/json`"},
	{"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/jsonx\r\nContent-Length: 2\r\n\r\n{}",
	 415, false, NULL, "Expected request with `Content-Type: application/json`"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", 415, false,
	 "accept-encoding: gzip, deflate, zstd", NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 400, true,
	 NULL, "Error: the request body is not valid gzip: incorrect header check"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n", 413, true, NULL,
	 "Failed to buffer the request body: length limit exceeded"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186A1\r\n", 413, true, NULL,
	 "Failed to buffer the request body: length limit exceeded"},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: wonders\r\n\r\nhello", 417, false,
	 NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, true,
	 NULL, NULL},
	{"FROB /hello HTTP/1.1\r\nHost: x\r\n\r\n", 501, true, NULL, NULL},
	{"GET /hello HTTP/3.0\r\nHost: x\r\n\r\n", 505, true, NULL, NULL},
	{"GET /hello HTTP/1.1\r\n\r\n", 400, true, "content-type: text/plain; charset=utf-8", NULL},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, true, NULL, NULL},
	{"GET /hello HTTP/1.1\nHost: x\n\n", 400, true, NULL, NULL},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", 400, true, NULL, NULL},
	{"GET /hello HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400, true, NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, true,
	 NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400, true, NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	 400, true, NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, true, NULL, NULL},
	{"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400,
	 true, NULL, NULL},
	{"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 404, false, NULL, ""},
	{"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 404, true,
	 "connection: close", ""},
	{"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 404, true,
	 NULL, ""},
};

static void http_answers(void **state)
{
	struct service s = service_start();
	for (size_t i = 0; i < ARRAY_SIZE(exchanges); i++) {
		struct raw c = client_of(&s);
		struct raw_answer a = {0};
		raw_send_z(&c, exchanges[i].request);
		assert_true(raw_read(&c, &a, false));
		if (a.status != exchanges[i].status)
			fail_msg("%d, not %d: %s", a.status, exchanges[i].status, exchanges[i].request);
		if (exchanges[i].field != NULL && strstr(a.head.p, exchanges[i].field) == NULL)
			fail_msg("no %s: %s%s", exchanges[i].field, exchanges[i].request, a.head.p);
		if (exchanges[i].body != NULL)
			assert_buf_is(&a.body, exchanges[i].body);
		else
			assert_true(a.body.n > 0);
		assert_int_equal(raw_field(&a, "date").n, 29);
		if (exchanges[i].is_closing) {
			shutdown(c.fd, SHUT_WR);
			raw_expect_end(&c);
		} else {
			assert_true(!str_eq(raw_field(&a, "connection"), STR("close")));
			raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
			expect(&c, 200, "hello");
		}
		raw_answer_fini(&a);
		raw_close(&c);
	}
	service_stop(&s);
}

static void http_long_header(void **state)
{
	struct service s = service_start();
	struct buf b = BUF_INIT;
	buf_add_z(&b, "GET /");
	for (int i = 0; i < 100000; i++)
		buf_add_c(&b, 'a');
	struct raw c = client_of(&s);
	(void)raw_try_send(&c, buf_str(&b));
	struct raw_answer a = {0};
	assert_true(raw_read(&c, &a, false));
	assert_int_equal(a.status, 414);
	raw_close(&c);
	buf_clear(&b);
	buf_add_z(&b, "GET /hello HTTP/1.1\r\nHost: x\r\nA: ");
	for (int i = 0; i < 100000; i++)
		buf_add_c(&b, 'a');
	c = client_of(&s);
	(void)raw_try_send(&c, buf_str(&b));
	assert_true(raw_read(&c, &a, false));
	assert_int_equal(a.status, 431);
	raw_close(&c);
	raw_answer_fini(&a);
	buf_fini(&b);
	service_stop(&s);
}

static void http_head(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	struct raw_answer a = {0};
	raw_send_z(&c, "HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\nHEAD /big HTTP/1.1\r\nHost: x\r\n\r\n"
		       "HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\nHEAD /json HTTP/1.1\r\nHost: x\r\n\r\n"
		       "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	static const struct {
		int status;
		const char *length;
	} want[] = {{200, "5"}, {200, "5000000"}, {404, "0"}, {405, "38"}};
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_true(raw_read(&c, &a, true));
		assert_int_equal(a.status, want[i].status);
		assert_str_is(raw_field(&a, "content-length"), want[i].length);
	}
	expect(&c, 200, "hello");
	raw_answer_fini(&a);
	raw_close(&c);
	service_stop(&s);
}

/* --- bodies --- */

static void http_big_bodies(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	struct raw_answer a = {0};
	struct buf req = BUF_INIT;
	for (int round = 0; round < 3;
	     round++) { /* the body at the limit, sized and chunked; then a big answer */
		buf_clear(&req);
		buf_printf(&req, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", BODY_LIMIT);
		for (int i = 0; i < BODY_LIMIT; i++)
			buf_add_c(&req, (char)('a' + i % 26));
		raw_send(&c, buf_str(&req));
		assert_true(raw_read(&c, &a, false));
		assert_int_equal(a.body.n, BODY_LIMIT);
		assert_memory_equal(a.body.p, req.p + req.n - BODY_LIMIT, BODY_LIMIT);
		raw_send_z(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (int i = 0; i < 10; i++) {
			raw_send_z(&c, "2710\r\n");
			raw_send(&c, str_mk(req.p + req.n - BODY_LIMIT + i * 10000, 10000));
			raw_send_z(&c, "\r\n");
		}
		raw_send_z(&c, "0\r\n\r\n");
		assert_true(raw_read(&c, &a, false));
		assert_int_equal(a.body.n, BODY_LIMIT);
		assert_memory_equal(a.body.p, req.p + req.n - BODY_LIMIT, BODY_LIMIT);
		raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /big HTTP/1.1\r\nHost: x\r\n\r\n");
		expect(&c, 200, "hello");
		assert_true(raw_read(&c, &a, false));
		assert_int_equal(a.body.n, 5000000);
		assert_memory_equal(a.body.p + a.body.n - 10, "000499999\n", 10);
	}
	buf_fini(&req);
	raw_answer_fini(&a);
	raw_close(&c);
	service_stop(&s);
}

/* The client gets to read the 413 although it goes on sending what nobody wants. */
static void http_413_reaches_a_sender(void **state)
{
	struct service s = service_start();
	static const char *const heads[] = {
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
	};
	struct buf piece = BUF_INIT;
	buf_add_z(&piece, "1000\r\n");
	for (int i = 0; i < 4096; i++)
		buf_add_c(&piece, 'x');
	buf_add_z(&piece, "\r\n");
	for (size_t k = 0; k < ARRAY_SIZE(heads); k++) {
		struct raw c = client_of(&s);
		raw_send_z(&c, heads[k]);
		for (int i = 0; i < 1900; i++)
			assert_true(raw_try_send(&c, buf_str(&piece)));
		expect(&c, 413, "Failed to buffer the request body: length limit exceeded");
		shutdown(c.fd, SHUT_WR);
		raw_expect_end(&c);
		raw_close(&c);
	}
	buf_fini(&piece);
	service_stop(&s);
}

static void http_continue(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	for (int i = 0; i < 2; i++) {
		raw_send_z(&c, i == 0 ? "POST /echo HTTP/1.1\r\nHost: x\r\n"
					"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
				      : "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
					"chunked\r\nExpect: 100-continue\r\n\r\n");
		struct raw_answer a = {0};
		assert_true(raw_read(&c, &a, false));
		assert_int_equal(a.status, 100);
		raw_answer_fini(&a);
		raw_send_z(&c, i == 0 ? "hello" : "5\r\nhel");
		if (i == 1)
			raw_send_z(&c, "lo\r\n0\r\n\r\n");
		expect(&c, 200, "hello");
	}
	/* Not asked for when the body is there already, or not wanted. */
	raw_send_z(
		&c,
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
	expect(&c, 200, "hello");
	raw_send_z(
		&c,
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n");
	expect(&c, 413, "Failed to buffer the request body: length limit exceeded");
	raw_close(&c);
	atomic_store(&gate_reason, "the disk is too full");
	c = client_of(&s);
	raw_send_z(&c,
		   "POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n"
		   "Expect: 100-continue\r\n\r\n");
	struct raw_answer a = {0};
	assert_true(raw_read(&c, &a, false));
	assert_int_equal(a.status, 503);
	assert_str_is(raw_field(&a, "retry-after"), "1");
	assert_buf_is(&a.body, "Error: the disk is too full");
	atomic_store(&gate_reason, NULL);
	raw_answer_fini(&a);
	raw_close(&c);
	service_stop(&s);
}

static void http_byte_by_byte(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	str_t req = STR("\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
			"5;ext=\"v\"\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: dropped\r\n\r\n");
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < req.n; i++)
			raw_send(&c, str_mk(req.p + i, 1));
		expect(&c, 200, "hello!");
	}
	raw_close(&c);
	service_stop(&s);
}

/* --- many requests --- */

static void *send_all(void *arg)
{
	struct {
		struct raw *c;
		struct buf *b;
	} *job = arg;
	raw_send(job->c, buf_str(job->b));
	return NULL;
}

static void http_pipelines(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	struct buf b = BUF_INIT;
	char text[64];
	for (int i = 0; i < 1000; i++) {
		switch (i % 4) {
		case 0:
			buf_add_z(&b, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
			break;
		case 1:
			buf_printf(&b, "GET /name?name=%d HTTP/1.1\r\nHost: x\r\n\r\n", i);
			break;
		case 2:
			buf_printf(&b, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d", i);
			break;
		case 3:
			buf_printf(&b, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d",
				   i);
			break;
		}
	}
	struct {
		struct raw *c;
		struct buf *b;
	} job = {&c, &b};
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, send_all, &job), 0);
	for (int i = 0; i < 1000; i++) {
		switch (i % 4) {
		case 0:
			expect(&c, 200, "hello");
			break;
		case 1:
			snprintf(text, sizeof(text), "%d at mx.example.com", i);
			expect(&c, 201, text);
			break;
		case 2:
			snprintf(text, sizeof(text), "%04d", i);
			expect(&c, 200, text);
			break;
		case 3:
			expect(&c, 404, "");
			break;
		}
	}
	pthread_join(thread, NULL);
	raw_close(&c);

	/* A request that cannot be read ends the pipeline after the answers before it. */
	c = client_of(&s);
	raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
		       "GET /name?name=a HTTP/1.1\r\nHost: x\r\n\r\nboo\r\n\r\n"
		       "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "hello");
	expect(&c, 201, "a at mx.example.com");
	expect(&c, 400, "Error: malformed request line");
	raw_expect_end(&c);
	raw_close(&c);
	buf_fini(&b);
	service_stop(&s);
}

static void http_keeps_alive(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	int n = CHECK_IS_SANITIZED ? 10000 : 50000;
	for (int i = 0; i < n; i++) {
		raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
		expect(&c, 200, "hello");
	}
	raw_close(&c);
	service_stop(&s);
}

/* --- clients that leave or are slow --- */

static void http_half_closed(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	raw_send_z(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /name?name=a "
		       "HTTP/1.1\r\nHost: x\r\n\r\n");
	shutdown(c.fd, SHUT_WR);
	expect(&c, 200, "hello");
	expect(&c, 201, "a at mx.example.com");
	raw_expect_end(&c);
	raw_close(&c);
	c = client_of(&s);
	raw_send_z(&c, "GET /hello HT");
	shutdown(c.fd, SHUT_WR);
	expect(&c, 400, "Error: the connection ended inside the request header");
	raw_expect_end(&c);
	raw_close(&c);
	c = client_of(&s);
	raw_send_z(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
	shutdown(c.fd, SHUT_WR);
	expect(&c, 400, "Error: the connection ended inside the request body");
	raw_expect_end(&c);
	raw_close(&c);
	c = client_of(&s);
	shutdown(c.fd, SHUT_WR);
	raw_expect_end(&c);
	raw_close(&c);
	service_stop(&s);
}

static void http_resets(void **state)
{
	struct service s = service_start();
	static const char *const beginnings[] = {
		"",
		"GET /hel",
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\nhel",
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n500\r\nhel",
		"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\nhel",
	};
	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++) {
			struct raw c = client_of(&s);
			raw_send_z(&c, beginnings[i]);
			struct linger l = {.l_onoff = 1, .l_linger = 0};
			setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
			raw_close(&c);
		}
	}
	struct raw c = client_of(&s);
	raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "hello");
	raw_close(&c);
	service_stop(&s);
}

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void http_times_out(void **state)
{
	struct service s = service_start_with("127.0.0.1", dur_s(1), dur_s(1), dur_s(1));
	/* The whole header has one deadline, however busily it drips. */
	double begun = now_s();
	struct raw c = client_of(&s);
	raw_send_z(&c, "GET /hello HTTP/1.1\r\n");
	struct timeval tv = {.tv_usec = 20000};
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	char byte;
	while (recv(c.fd, &byte, 1, MSG_PEEK) < 0 && now_s() < begun + 20)
		raw_send_z(&c, "A: b\r\n");
	tv = (struct timeval){.tv_sec = 20};
	setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	expect(&c, 408, "Error: the request header took too long");
	assert_true(now_s() - begun > 0.9 && now_s() - begun < 20);
	shutdown(c.fd, SHUT_WR);
	raw_expect_end(&c);
	raw_close(&c);
	/* So has a body. */
	static const char *const bodies[] = {
		"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel",
		"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		c = client_of(&s);
		raw_send_z(&c, bodies[i]);
		expect(&c, 408, "Error: the request body took too long");
		shutdown(c.fd, SHUT_WR);
		raw_expect_end(&c);
		raw_close(&c);
	}
	/* An idle connection ends without a word, new or used. */
	c = client_of(&s);
	raw_expect_end(&c);
	raw_close(&c);
	c = client_of(&s);
	raw_send_z(&c, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "hello");
	raw_expect_end(&c);
	raw_close(&c);
	service_stop(&s);
}

/* Buffers are given back after a second of idleness, and the connection works on. */
static void http_idle_then_busy(void **state)
{
	struct service s = service_start();
	struct raw c = client_of(&s);
	for (int i = 0; i < 2; i++) {
		raw_send_z(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
		expect(&c, 200, "hello");
		struct timeval tv = {.tv_usec = 1200000 - 1000000, .tv_sec = 1};
		setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
		char byte;
		assert_true(recv(c.fd, &byte, 1, 0) < 0 && errno == EAGAIN); /* it stays open meanwhile */
		tv = (struct timeval){.tv_sec = 20};
		setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	}
	raw_close(&c);
	service_stop(&s);
}

/* --- who may ask, and what --- */

static void http_untrusted(void **state)
{
	struct service s = service_start_with("10.0.0.0/8", DUR_ZERO, DUR_ZERO, DUR_ZERO);
	struct raw c = client_of(&s);
	struct raw_answer a = {0};
	char addr[NET_ADDR_STRLEN], want[200];
	net_addr_fmt(http_listener_addr(s.l), addr);
	static const struct {
		const char *request, *what;
		int status;
	} asked[] = {
		{"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", "GET on http_listener/%s/hello", 401},
		{"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "GET on http_listener/%s/metrics", 401},
		{"POST /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n",
		 "POST on http_listener/%s/api/check-liveness/v1", 401},
		{"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		 "POST on http_listener/%s/echo", 401},
	};
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		raw_send_z(&c, asked[i].request);
		assert_true(raw_read(&c, &a, false));
		assert_int_equal(a.status, asked[i].status);
		assert_str_is(raw_field(&a, "www-authenticate"), "Basic realm=\"cirrus\"");
		const char *mark = strstr(asked[i].what, "%s");
		snprintf(want, sizeof(want), "<Unauthenticated>@ ip=127.0.0.1 not permitted %.*s%s%s",
			 (int)(mark - asked[i].what), asked[i].what, addr, mark + 2);
		assert_buf_is(&a.body, want);
	}
	raw_send_z(&c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 404, "");
	raw_send_z(&c, "GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "OK");
	raw_answer_fini(&a);
	raw_close(&c);
	service_stop(&s);
}

static void http_api(void **state)
{
	static const char *const labels[] = {"kind", NULL};
	struct metric *m =
		metric_declare(METRIC_COUNTER, "test_http_total", "requests of this test", labels, NULL, 0);
	struct metric_series *series = metric_get(m, (str_t[]){STR("x")});
	metric_add(series, 7);
	struct service s = service_start();
	struct raw c = client_of(&s);
	struct raw_answer a = {0};
	api_set_liveness(liveness);
	raw_send_z(&c, "GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "OK");
	atomic_store(&liveness_reason, "waiting for spool startup");
	raw_send_z(&c, "GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 503, "waiting for spool startup");
	api_set_liveness(NULL);

	raw_send_z(&c, "GET /metrics?prefix=test_http HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(raw_read(&c, &a, false));
	assert_str_is(raw_field(&a, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
	assert_buf_is(&a.body,
		      "# HELP test_http_total requests of this test\n# TYPE test_http_total counter\n"
		      "test_http_total{kind=\"x\"} 7\n");
	raw_send_z(&c, "GET /metrics?prefix=none_such HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&c, 200, "");
	raw_send_z(&c, "GET /metrics.json?prefix=test_http HTTP/1.1\r\nHost: x\r\n\r\n");
	assert_true(raw_read(&c, &a, false));
	assert_str_is(raw_field(&a, "content-type"), "application/json; charset=utf-8");
	assert_buf_is(&a.body,
		      "{\"test_http_total\":{\"help\":\"requests of this test\",\"type\":\"counter\","
		      "\"value\":{\"kind\":{\"x\":7}}}}");
	metric_series_unref(series);
	raw_answer_fini(&a);
	raw_close(&c);
	service_stop(&s);
}

/* --- the end of a listener --- */

static void *stop_thread(void *arg)
{
	service_stop(arg);
	return NULL;
}

static void wait_for_held(int n)
{
	double begun = now_s();
	while (atomic_load(&n_held) != n) {
		assert_true(now_s() < begun + 20);
		usleep(1000);
	}
}

static void http_closes_in_order(void **state)
{
	struct service s = service_start();
	struct raw idle = client_of(&s), used = client_of(&s), busy = client_of(&s);
	raw_send_z(&used, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
	expect(&used, 200, "hello");
	atomic_store(&is_hold_open, false);
	raw_send_z(&busy, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
	wait_for_held(1);
	struct net_addr addr = *http_listener_addr(s.l);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, stop_thread, &s), 0);
	raw_expect_end(&used);
	raw_expect_end(&idle);
	/* Nobody new is let in... */
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, &addr.sa, addr.len), -1);
	close(fd);
	/* ...and who is in gets the answer. */
	atomic_store(&is_hold_open, true);
	struct raw_answer a = {0};
	assert_true(raw_read(&busy, &a, false));
	assert_int_equal(a.status, 200);
	assert_buf_is(&a.body, "held");
	assert_str_is(raw_field(&a, "connection"), "close");
	raw_expect_end(&busy);
	pthread_join(thread, NULL);
	raw_answer_fini(&a);
	raw_close(&idle);
	raw_close(&used);
	raw_close(&busy);
}

static void http_closes_by_force(void **state)
{
	struct service s = service_start();
	struct raw held = client_of(&s), slow = client_of(&s), deaf = client_of(&s);
	atomic_store(&is_hold_open, false);
	raw_send_z(&held, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
	raw_send_z(&slow, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhel");
	raw_send_z(&deaf, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
	wait_for_held(1);
	double begun = now_s();
	s.deadline = mono_after(dur_ms(200));
	worker_run(service_close, &s);
	assert_true(now_s() - begun < 10);
	assert_int_equal(atomic_load(&n_held), 0);
	cidr_set_fini(&s.p.trusted_hosts);
	raw_close(&held);
	raw_close(&slow);
	raw_close(&deaf);
}

static void http_open_fails(void *arg)
{
	struct service *s = arg;
	struct http_listener_params p = s->p;
	p.listen = *http_listener_addr(s->l);
	char addr[NET_ADDR_STRLEN];
	CHECK(http_listener_open(&p) == NULL);
	CHECK(err_is(ERR_IO));
	CHECK(strstr(err_text(), net_addr_fmt(&p.listen, addr)) != NULL);
	err_clear();
}

static void http_port_in_use(void **state)
{
	struct service s = service_start();
	worker_run(http_open_fails, &s);
	service_stop(&s);
}

static int setup(void **state)
{
	if (log_set_filter(STR("error")) != 0)
		return -1;
	api_register_routes();
	http_routes_add(routes, ARRAY_SIZE(routes));
	workers_start(2);
	offload_start(2);
	return 0;
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(10)));
	offload_stop();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(http_answers),
		cmocka_unit_test(http_long_header),
		cmocka_unit_test(http_head),
		cmocka_unit_test(http_big_bodies),
		cmocka_unit_test(http_413_reaches_a_sender),
		cmocka_unit_test(http_continue),
		cmocka_unit_test(http_byte_by_byte),
		cmocka_unit_test(http_pipelines),
		cmocka_unit_test(http_keeps_alive),
		cmocka_unit_test(http_half_closed),
		cmocka_unit_test(http_resets),
		cmocka_unit_test(http_times_out),
		cmocka_unit_test(http_idle_then_busy),
		cmocka_unit_test(http_untrusted),
		cmocka_unit_test(http_api),
		cmocka_unit_test(http_closes_in_order),
		cmocka_unit_test(http_closes_by_force),
		cmocka_unit_test(http_port_in_use),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
