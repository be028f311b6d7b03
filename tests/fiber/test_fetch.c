/* fetch: what is sent, what comes back, limits, redirects, TLS, time-outs, and the hub behind it. */
#include "http_stub.h"
#include "net/fetch.h"

#include "base/alloc.h"

static struct stub plain, other, secure;

static bool serve(struct stub_request *rq)
{
	char text[600];
	if (strcmp(rq->path, "/hello") == 0)
		return stub_answer(rq, "200 OK", "X-Test:  one \r\nx-test: two\r\n", STR("hello"));
	if (strncmp(rq->path, "/echo", 5) == 0) {
		struct buf out = BUF_INIT;
		buf_printf(&out, "%s %s\n", rq->method, rq->path);
		buf_add_str(&out, buf_str(&rq->head));
		buf_add_c(&out, '\n');
		buf_add_str(&out, buf_str(&rq->body));
		bool is_on = stub_answer(rq, "200 OK", "", buf_str(&out));
		buf_fini(&out);
		return is_on;
	}
	if (strcmp(rq->path, "/none") == 0)
		return stub_answer(rq, "404 Not Found", "", STR("no"));
	if (strcmp(rq->path, "/interim") == 0) {
		static const char interim[] = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
		return stream_write(rq->st, interim, sizeof(interim) - 1, SOON) == 0 &&
		       stub_answer(rq, "200 OK", "X-Last: 1\r\n", STR("after"));
	}
	if (strcmp(rq->path, "/slow") == 0) { /* says nothing until the other side gives up */
		(void)!stream_fill(rq->st, 1000, SOON);
		return false;
	}
	if (strcmp(rq->path, "/endless") == 0) {
		static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
		char piece[4000] = {0};
		int rc = stream_write(rq->st, head, sizeof(head) - 1, SOON);
		while (rc == 0)
			rc = stream_write(rq->st, piece, sizeof(piece), SOON);
		return false;
	}
	if (strcmp(rq->path, "/headers") == 0) {
		int rc = stream_write(rq->st, "HTTP/1.1 200 OK\r\n", 17, SOON);
		while (rc == 0)
			rc = stream_write(rq->st, "X-More: and more\r\n", 18, SOON);
		return false;
	}
	if (strcmp(rq->path, "/short") == 0) {
		static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
		(void)!stream_write(rq->st, head, sizeof(head) - 1, SOON);
		return false;
	}
	if (strcmp(rq->path, "/garbage") == 0) {
		(void)!stream_write(rq->st, "\1\2\3 what?\r\n\r\n", 14, SOON);
		return false;
	}
	if (strcmp(rq->path, "/nothing") == 0)
		return false;
	if (strcmp(rq->path, "/here") == 0)
		return stub_answer(rq, "302 Found", "Location: /echo\r\n", STR(""));
	if (strcmp(rq->path, "/see") == 0)
		return stub_answer(rq, "303 See Other", "Location: /echo\r\n", STR(""));
	if (strcmp(rq->path, "/keep") == 0)
		return stub_answer(rq, "307 Temporary Redirect", "Location: /echo\r\n", STR(""));
	if (strcmp(rq->path, "/loop") == 0)
		return stub_answer(rq, "301 Moved", "Location: /loop\r\n", STR("round"));
	if (strcmp(rq->path, "/ftp") == 0)
		return stub_answer(rq, "302 Found", "Location: ftp://127.0.0.1/\r\n", STR(""));
	if (strcmp(rq->path, "/file") == 0)
		return stub_answer(rq, "302 Found", "Location: file:///etc/passwd\r\n", STR(""));
	if (strcmp(rq->path, "/there") == 0) {
		snprintf(text, sizeof(text), "Location: http://127.0.0.1:%u/echo?there\r\n",
			 stub_port(&other));
		return stub_answer(rq, "302 Found", text, STR(""));
	}
	if (strcmp(rq->path, "/up") == 0) {
		snprintf(text, sizeof(text), "Location: https://127.0.0.1:%u/echo\r\n", stub_port(&secure));
		return stub_answer(rq, "302 Found", text, STR(""));
	}
	return stub_answer(rq, "500 Internal Server Error", "", STR("?"));
}

static char *url_of(const struct stub *s, const char *path)
{
	static char ring[4][700];
	static unsigned turn;
	char *url = ring[turn++ % 4];
	snprintf(url, sizeof(ring[0]), "%s://127.0.0.1:%u%s", s->tls != NULL ? "https" : "http", stub_port(s),
		 path);
	return url;
}

static bool has(const struct fetch_response *rs, const char *text)
{
	return str_find(buf_str(&rs->body), str_of(text)) >= 0;
}

static void with_servers(fiber_fn *fn)
{
	struct tls_server *tls = server_with((struct tls_server_params){0});
	stub_open(&plain, serve, NULL);
	stub_open(&other, serve, NULL);
	stub_open(&secure, serve, tls);
	fn(NULL);
	stub_close(&plain);
	stub_close(&other);
	stub_close(&secure);
	tls_server_unref(tls);
}

static void run_with_servers(void *arg)
{
	with_servers(*(fiber_fn **)arg);
}

static void run_fetch(fiber_fn *fn)
{
	workers_start(2);
	worker_run(run_with_servers, &fn);
	workers_stop(mono_after(dur_s(10)));
}

/* --- requests and answers --- */

static void answers_run(void *arg)
{
	struct fetch_response rs;
	struct fetch_request rq = {.url = url_of(&plain, "/hello")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0);
	CHECK(rs.status == 200 && str_eq(buf_str(&rs.body), STR("hello")) && rs.location == NULL);
	CHECK(strcmp(fetch_response_header(&rs, "X-TEST"), "one") == 0);
	CHECK(strcmp(fetch_response_header(&rs, "content-length"), "5") == 0);
	CHECK(fetch_response_header(&rs, "X-Other") == NULL);
	fetch_response_fini(&rs);

	for (int i = 0; i < 5; i++) { /* over the connection that is there */
		CHECK(fetch_perform(&rq, &rs, SOON) == 0);
		fetch_response_fini(&rs);
	}
	CHECK(atomic_load(&plain.n_connections) == 1 && atomic_load(&plain.n_requests) == 6);

	struct secret *token = secret_new(STR("s3cret"));
	const struct fetch_header headers[] = {{.name = "X-Token", .secret = token},
					       {.name = "X-Plain", .value = "p"},
					       {.name = "X-Empty", .value = ""}};
	rq = (struct fetch_request){.method = "POST",
				    .url = url_of(&plain, "/echo?a=b"),
				    .header = headers,
				    .n_headers = 3,
				    .body = STR("the body\0with a NUL")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0);
	CHECK(has(&rs, "POST /echo?a=b\n") && has(&rs, "\nX-Token: s3cret\n") && has(&rs, "\nX-Plain: p\n"));
	CHECK(has(&rs, "\nX-Empty:\n") && !has(&rs, "Expect"));
	CHECK(str_ends(buf_str(&rs.body), STR("\n\nthe body\0with a NUL")));
	fetch_response_fini(&rs);

	static const char *const methods[] = {"PUT", "PATCH", "DELETE", "LIST"};
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		char first[30];
		rq = (struct fetch_request){.method = methods[i], .url = url_of(&plain, "/echo")};
		snprintf(first, sizeof(first), "%s /echo\n", methods[i]);
		CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, first));
		fetch_response_fini(&rs);
	}
	rq = (struct fetch_request){.method = "PUT", .url = url_of(&plain, "/echo"), .body = STR("")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, "Content-Length: 0\n"));
	fetch_response_fini(&rs);
	rq = (struct fetch_request){.method = "HEAD", .url = url_of(&plain, "/hello")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 200 && rs.body.n == 0);
	fetch_response_fini(&rs);
	rq = (struct fetch_request){.url = url_of(&plain, "/none")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 404 && has(&rs, "no"));
	fetch_response_fini(&rs);
	rq = (struct fetch_request){.url = url_of(&plain, "/interim")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 200 && has(&rs, "after"));
	CHECK(fetch_response_header(&rs, "Link") == NULL && fetch_response_header(&rs, "X-Last") != NULL);
	fetch_response_fini(&rs);
	secret_unref(token);
}

static void test_answers(void **state)
{
	run_fetch(answers_run);
}

/* --- what is refused, and what goes wrong --- */

static void check_fetch_fails(const struct fetch_request *rq, enum err_kind kind, const char *text,
			      mono_t deadline)
{
	struct fetch_response rs;
	int rc = fetch_perform(rq, &rs, deadline);
	if (rc != -1 || err_kind() != kind || strstr(err_text(), text) == NULL)
		fprintf(stderr, "%s: %d %s: %s\n", rq->url, rc, err_kind_name(err_kind()), err_text());
	CHECK(rc == -1 && err_is(kind) && strstr(err_text(), text) != NULL);
	CHECK(strstr(err_text(), "pass") == NULL && strstr(err_text(), "query") == NULL);
	err_clear();
}

static void failures_run(void *arg)
{
	static const char *const bad[] = {"ftp://127.0.0.1/", "file:///etc/passwd", "no url", "",
					  "http://",	      "http://a b/"};
	struct fetch_request rq = {0};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		rq.url = bad[i];
		check_fetch_fails(&rq, ERR_INVALID, "not an http or https URL", SOON);
	}
	rq.url = url_of(&plain, "/hello");
	rq.method = "GET / HTTP/1.1\r\nX:";
	check_fetch_fails(&rq, ERR_INVALID, "not a method", SOON);
	rq.method = NULL;
	static const char *const bad_values[] = {"a\r\nB: c", "a\nb", "a\x7f"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_values); i++) {
		struct fetch_header h = {.name = "X-A", .value = bad_values[i]};
		rq.header = &h;
		rq.n_headers = 1;
		check_fetch_fails(&rq, ERR_INVALID, "`X-A`", SOON);
	}
	struct fetch_header h = {.name = "X A", .value = "b"};
	rq.header = &h;
	check_fetch_fails(&rq, ERR_INVALID, "`X A`", SOON);
	rq.n_headers = 0;

	char text[100];
	snprintf(text, sizeof(text),
		 "GET http://127.0.0.1:%u/endless: the answer is larger than 100000 bytes",
		 stub_port(&plain));
	rq.url = url_of(&plain, "/endless?query");
	rq.max_body_bytes = 100000;
	rq.url = url_of(&plain, "/endless");
	check_fetch_fails(&rq, ERR_LIMIT, text, SOON);
	rq.max_body_bytes = 0;
	rq.url = url_of(&plain, "/headers");
	check_fetch_fails(&rq, ERR_LIMIT, "larger", SOON);
	rq.url = url_of(&plain, "/short");
	check_fetch_fails(&rq, ERR_CLOSED, "/short: ", SOON);
	rq.url = url_of(&plain, "/nothing");
	check_fetch_fails(&rq, ERR_CLOSED, "/nothing: ", SOON);
	rq.url = url_of(&plain, "/garbage");
	check_fetch_fails(&rq, ERR_PROTO, "/garbage: ", SOON);
	rq.url = url_of(&plain, "/slow");
	check_fetch_fails(&rq, ERR_TIMEOUT, "/slow", mono_after(dur_ms(30)));
	rq.url = "http://user:pass@127.0.0.1:1/a?query#frag";
	check_fetch_fails(&rq, ERR_CONNECT, "GET http://127.0.0.1:1/a: ", SOON);
	rq.url = "http://nowhere.invalid/";
	struct fetch_response rs;
	CHECK(fetch_perform(&rq, &rs, SOON) == -1 && (err_is(ERR_DNS) || err_is(ERR_TIMEOUT)));
	err_clear();

	/* And after all that it works. */
	rq.url = url_of(&plain, "/hello");
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, "hello"));
	fetch_response_fini(&rs);
}

static void test_failures(void **state)
{
	run_fetch(failures_run);
}

/* --- redirects --- */

static void redirects_run(void *arg)
{
	struct fetch_response rs;
	struct secret *token = secret_new(STR("s3cret"));
	const struct fetch_header secret_header = {.name = "X-Token", .secret = token},
				  open_header = {.name = "X-Token", .value = "open"};
	struct fetch_request rq = {.url = url_of(&plain, "/here"), .header = &secret_header, .n_headers = 1};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 302);
	CHECK(strcmp(rs.location, url_of(&plain, "/echo")) == 0);
	fetch_response_fini(&rs);
	rq.max_redirects = 3;
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 200 && has(&rs, "X-Token: s3cret"));
	fetch_response_fini(&rs);

	/* A secret stays with its server. */
	rq.url = url_of(&plain, "/there");
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 302 && rs.location != NULL);
	fetch_response_fini(&rs);
	CHECK(atomic_load(&other.n_requests) == 0);
	rq.header = &open_header;
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 200 && has(&rs, "GET /echo?there\n"));
	fetch_response_fini(&rs);
	CHECK(atomic_load(&other.n_requests) == 1);

	/* Nothing leaves its scheme. */
	static const char *const away[] = {"/up", "/ftp", "/file"};
	for (size_t i = 0; i < ARRAY_SIZE(away); i++) {
		rq.url = url_of(&plain, away[i]);
		CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 302 && rs.body.n == 0);
		fetch_response_fini(&rs);
	}
	CHECK(atomic_load(&secure.n_connections) == 0);
	rq.url = url_of(&plain, "/loop");
	unsigned before = atomic_load(&plain.n_requests);
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 301 && has(&rs, "round"));
	fetch_response_fini(&rs);
	CHECK(atomic_load(&plain.n_requests) - before == 4);

	/* What becomes of the method. */
	static const struct {
		const char *path, *method, *seen;
		bool has_body;
	} cases[] = {{"/here", "POST", "GET /echo", false},
		     {"/see", "PUT", "GET /echo", false},
		     {"/keep", "POST", "POST /echo", true},
		     {"/here", "PUT", "PUT /echo", true}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		rq = (struct fetch_request){.url = url_of(&plain, cases[i].path),
					    .method = cases[i].method,
					    .body = STR("payload"),
					    .max_redirects = 1};
		CHECK(fetch_perform(&rq, &rs, SOON) == 0 && rs.status == 200);
		CHECK(has(&rs, cases[i].seen) && has(&rs, "payload") == cases[i].has_body);
		fetch_response_fini(&rs);
	}
	secret_unref(token);
}

static void test_redirects(void **state)
{
	run_fetch(redirects_run);
}

/* --- TLS --- */

static void tls_run(void *arg)
{
	struct fetch_response rs;
	char url[100];
	struct fetch_request rq = {.url = url_of(&secure, "/hello"), .ca = root_pem};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, "hello"));
	fetch_response_fini(&rs);
	rq.ca = NULL; /* the system does not know this authority */
	check_fetch_fails(&rq, ERR_PROTO, "certificate", SOON);
	rq.ca = client_root_pem;
	check_fetch_fails(&rq, ERR_PROTO, "certificate", SOON);
	rq.is_unverified = true;
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, "hello"));
	fetch_response_fini(&rs);
	rq = (struct fetch_request){.ca = root_pem, .url = url};
	snprintf(url, sizeof(url), "https://localhost:%u/hello", stub_port(&secure)); /* another name */
	check_fetch_fails(&rq, ERR_PROTO, "localhost", SOON);
	rq.ca = leaf_key; /* no certificate at all */
	check_fetch_fails(&rq, ERR_INVALID, "GET https://", SOON);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/hello", stub_port(&plain)); /* speaks no TLS */
	rq.ca = root_pem;
	rq.connect_timeout = dur_ms(50); /* which the handshake is part of */
	check_fetch_fails(&rq, ERR_TIMEOUT, "/hello: ", SOON);
}

static void test_tls(void **state)
{
	run_fetch(tls_run);
}

/* --- many, and given up --- */

static void fetch_one(void *arg)
{
	atomic_uint *n_good = arg;
	struct fetch_response rs;
	struct fetch_request rq = {.url = url_of(&plain, "/hello")};
	char *url = xstrdup(rq.url); /* the ring turns */
	rq.url = url;
	if (fetch_perform(&rq, &rs, SOON) == 0) {
		if (has(&rs, "hello"))
			atomic_fetch_add(n_good, 1);
		fetch_response_fini(&rs);
	} else {
		CHECK(err_is(ERR_CANCELLED));
		err_clear();
	}
	free(url);
}

static void many_run(void *arg)
{
	atomic_uint n_good = 0;
	struct fiber_group g;
	fiber_group_init(&g);
	for (int i = 0; i < 100; i++)
		fiber_start(&g, "one", fetch_one, &n_good);
	CHECK(fiber_group_join(&g, SOON) == 0);
	CHECK(atomic_load(&n_good) == 100);
	for (int round = 0; round < 20; round++) { /* given up at every point of their way */
		for (int i = 0; i < 10; i++)
			fiber_start(&g, "one", fetch_one, &n_good);
		for (int i = 0; i < round; i++)
			CHECK(fiber_sleep(dur_us(100), SOON) == 0);
		fiber_group_cancel(&g);
		CHECK(fiber_group_join(&g, SOON) == 0);
	}
	struct fetch_response rs;
	struct fetch_request rq = {.url = url_of(&plain, "/hello")};
	CHECK(fetch_perform(&rq, &rs, SOON) == 0 && has(&rs, "hello"));
	fetch_response_fini(&rs);
}

static void test_many(void **state)
{
	run_fetch(many_run);
}

/* The worker stops while somebody fetches: he is cancelled, the hub goes after him. */
static void fetch_for_ever(void *arg)
{
	struct fetch_response rs;
	char url[60];
	struct fetch_request rq = {.url = url};
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/", *(uint16_t *)arg);
	CHECK_FAILS(fetch_perform(&rq, &rs, MONO_NEVER), ERR_CANCELLED);
}

static void stop_run(void *arg)
{
	static uint16_t port;
	struct ends e = ends_open(); /* only for an address that takes connections and says nothing */
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct net_addr at;
	CHECK(net_addr_parse(STR("127.0.0.1:0"), &at) == 0);
	CHECK(l >= 0 && bind(l, &at.sa, at.len) == 0 && listen(l, 4) == 0);
	CHECK(getsockname(l, &at.sa, &at.len) == 0);
	port = net_addr_port(&at);
	fiber_start(NULL, "for ever", fetch_for_ever, &port);
	CHECK(fiber_sleep(dur_ms(20), SOON) == 0);
	ends_close(&e);
	*(int *)arg = l;
}

static void test_stop(void **state)
{
	int l = -1;
	workers_start(1);
	worker_run(stop_run, &l);
	workers_stop(mono_after(dur_s(10)));
	close(l);
	test_answers(state); /* with new workers in the same process */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),	  cmocka_unit_test(test_failures),
		cmocka_unit_test(test_redirects), cmocka_unit_test(test_tls),
		cmocka_unit_test(test_many),	  cmocka_unit_test(test_stop),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
