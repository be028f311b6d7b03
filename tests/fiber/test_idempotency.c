/* test_idempotency.c - Idempotency-Key over real sockets and a real spool: which keys there are, whose they
 * are, that a request is done once however many come with it at once, and what those get that come before,
 * meanwhile and after. Clients are blocking sockets of the main thread and of threads of their own; there are
 * two workers, so that two at once are mostly on both. */
#include "http_raw.h"

#include "api/authorize.h"
#include "api/idempotency.h"
#include "base/alloc.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/offload.h"
#include "fiber_check.h"
#include "spool_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#define SOON mono_after(dur_s(60))

/* --- the service under test: work that is done once --- */

static struct spool *spool;
static char dir[64];
static atomic_int n_done, n_at_work;
static atomic_bool is_hold_open, is_failing;

static void work(struct http_request *r, struct http_response *a, struct idempotency *k, mono_t deadline)
{
	while (str_starts(r->body, STR("hold")) && !atomic_load(&is_hold_open)) {
		if (fiber_sleep(dur_ms(2), deadline) != 0) {
			http_response_err(a, 503);
			return;
		}
	}
	if (str_starts(r->body, STR("bad")) ||
	    (str_starts(r->body, STR("hold")) && atomic_load(&is_failing))) {
		http_response_text(a, 422, "bad");
		return;
	}
	http_response_text(a, 200, "done %d", atomic_fetch_add(&n_done, 1) + 1);
	CHECK(idempotency_set_answer(k, a->content_type, buf_str(&a->body)) == 0);
	if (idempotency_key(k) != NULL &&
	    spool_put_with_key(spool, NULL, 0, idempotency_key(k), deadline) != 0)
		http_response_err(a, 503);
}

static void serve_work(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	struct idempotency k;
	str_t user = http_request_header(r, STR("x-user"));
	if (user.p != NULL) { /* who has logged in, as the authorizer would say it */
		struct auth_info *who = arena_alloc(r->arena, sizeof(*who));
		auth_info_init(who, r->peer, r->arena);
		auth_info_add_identity(who, user, AUTH_HTTP_BASIC);
		r->auth = who;
	}
	if (!idempotency_begin(&k, r, a, deadline))
		return;
	atomic_fetch_add(&n_at_work, 1);
	work(r, a, &k, deadline);
	atomic_fetch_sub(&n_at_work, 1);
	idempotency_end(&k);
}

static const struct http_route routes[] = {
	{.method = "POST", .path = "/work", .handler = serve_work},
	{.method = "POST", .path = "/other", .handler = serve_work},
};

struct service {
	struct http_listener *l;
	struct http_listener_params p;
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
	http_listener_close(s->l, SOON);
}

static struct service service_start_with(dur_t ttl, dur_t handler_timeout)
{
	struct service s = {.p = {.request_body_limit = 8 << 20,
				  .idempotency_ttl = ttl,
				  .handler_timeout = handler_timeout}};
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &s.p.listen), 0);
	assert_int_equal(cidr_set_add(&s.p.trusted_hosts, STR("127.0.0.1")), 0);
	worker_run(service_open, &s);
	return s;
}

static struct service service_start(void)
{
	return service_start_with(dur_s(3600), DUR_ZERO);
}

static void service_stop(struct service *s)
{
	worker_run(service_close, s);
	cidr_set_fini(&s->p.trusted_hosts);
}

static void spool_restart(uint64_t max_keys)
{
	spool_close(spool);
	spool = spool_open_journal(&(struct spool_params){.name = STR("test"),
							  .path = str_of(dir),
							  .is_flushed = true,
							  .segment_bytes = 64 << 10,
							  .max_keys = max_keys});
	assert_non_null(spool);
	idempotency_init(spool);
}

/* --- clients --- */

struct answer {
	int status;
	char body[200];
	bool is_replayed, is_retry_asked;
};

static struct raw send_to(const struct service *s, const char *path, const char *headers, str_t body)
{
	struct raw c = raw_open(http_listener_addr(s->l));
	struct buf b = BUF_INIT;
	buf_printf(&b, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n", path, headers, body.n);
	buf_add_str(&b, body);
	raw_send(&c, buf_str(&b));
	buf_fini(&b);
	return c;
}

static struct answer answer_of(struct raw *c)
{
	struct raw_answer a = {0};
	assert_true(raw_read(c, &a, false));
	struct answer out = {.status = a.status,
			     .is_replayed = str_eq(raw_field(&a, "idempotent-replayed"), STR("true")),
			     .is_retry_asked = raw_field(&a, "retry-after").p != NULL};
	snprintf(out.body, sizeof(out.body), "%s", a.body.n > 0 ? a.body.p : "");
	if (a.status == 200)
		assert_true(str_eq(raw_field(&a, "content-type"), STR("text/plain; charset=utf-8")));
	raw_answer_fini(&a);
	raw_close(c);
	return out;
}

static struct answer post_to(const struct service *s, const char *path, const char *headers, const char *body)
{
	struct raw c = send_to(s, path, headers, str_of(body));
	return answer_of(&c);
}

static struct answer post(const struct service *s, const char *key, const char *body)
{
	char header[400];
	snprintf(header, sizeof(header), "Idempotency-Key: %s\r\n", key);
	return post_to(s, "/work", header, body);
}

static void check_done(struct answer a, int n, bool is_replayed)
{
	char want[32];
	snprintf(want, sizeof(want), "done %d", n);
	assert_int_equal(a.status, 200);
	assert_string_equal(a.body, want);
	assert_int_equal(a.is_replayed, is_replayed);
}

static int64_t counter(const char *name)
{
	return metric_value(metric_get(metric_declare(METRIC_COUNTER, name, "", NULL, NULL, 0), NULL));
}

static void wait_for_work(int n)
{
	while (atomic_load(&n_at_work) != n)
		usleep(1000);
}

/* --- keys --- */

#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X255 X50 X50 X50 X50 X50 "xxxxx"

static const struct {
	const char *value, *key, *why; /* key NULL: refused */
} keys[] = {
	{"abc", "abc", NULL},
	{"8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324", NULL},
	{"\"abc\"", "abc", NULL},
	{"\"a b, c\"", "a b, c", NULL},
	{"\"a\\\"b\\\\c\"", "a\"b\\c", NULL},
	{"a\\b", "a\\b", NULL},
	{"a;b=c/d+e=", "a;b=c/d+e=", NULL},
	{"\" \"", " ", NULL},
	{"~", "~", NULL},
	{X255, X255, NULL},
	{"\"" X255 "\"", X255, NULL},
	{"", NULL, "it is empty"},
	{"\"\"", NULL, "it is empty"},
	{"\"", NULL, "the closing quote is missing"},
	{"\"abc", NULL, "the closing quote is missing"},
	{"\"abc\\\"", NULL, "the closing quote is missing"},
	{"\"abc\\", NULL, "a backslash in it must be followed by a quote or a backslash"},
	{"\"a\\bc\"", NULL, "a backslash in it must be followed by a quote or a backslash"},
	{"\"abc\";x=1", NULL, "there is something behind the closing quote"},
	{"\"abc\", \"def\"", NULL, "there is something behind the closing quote"},
	{"\"abc\"\"", NULL, "there is something behind the closing quote"},
	{"a b", NULL, "with a blank, a quote or a comma in it, it must stand in quotes"},
	{"a,b", NULL, "with a blank, a quote or a comma in it, it must stand in quotes"},
	{"a\"b\"", NULL, "with a blank, a quote or a comma in it, it must stand in quotes"},
	{"a\tb", NULL, "it may hold printable ASCII only"},
	{"\xc3\xa9", NULL, "it may hold printable ASCII only"},
	{"\"\xc3\xa9\"", NULL, "it may hold printable ASCII only"},
	{"\"a\tb\"", NULL, "it may hold printable ASCII only"},
	{"a\x7f", NULL, "it may hold printable ASCII only"},
	{X255 "x", NULL, "it is longer than 255 characters"},
	{"\"" X255 "x\"", NULL, "it is longer than 255 characters"},
};

static void test_which_keys(void **state)
{
	char key[IDEMPOTENCY_KEY_MAX];
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t n;
		const char *why = idempotency_parse_key(str_of(keys[i].value), key, &n);
		if ((why == NULL) != (keys[i].key != NULL) || (why != NULL && strcmp(why, keys[i].why) != 0))
			fail_msg("%s: %s", keys[i].value, why);
		if (why == NULL && !str_eq(str_mk(key, n), str_of(keys[i].key)))
			fail_msg("%s: %.*s", keys[i].value, (int)n, key);
	}
	size_t n;
	assert_string_equal(idempotency_parse_key(STR("a\0b"), key, &n), "it may hold printable ASCII only");
	assert_string_equal(idempotency_parse_key(STR("\"a\0b\""), key, &n),
			    "it may hold printable ASCII only");
}

static void test_refused_keys(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	struct answer a = post(&s, "\"abc", "x");
	assert_int_equal(a.status, 400);
	assert_string_equal(a.body, "Error: Idempotency-Key: the closing quote is missing");
	a = post(&s, "", "x");
	assert_int_equal(a.status, 400);
	assert_string_equal(a.body, "Error: Idempotency-Key: it is empty");
	a = post_to(&s, "/work", "Idempotency-Key: a\r\nidempotency-key: a\r\n", "x");
	assert_int_equal(a.status, 400);
	assert_string_equal(a.body, "Error: Idempotency-Key: there is more than one");
	service_stop(&s);
	s = service_start_with(DUR_ZERO, DUR_ZERO);
	a = post(&s, "abc", "x");
	assert_int_equal(a.status, 400);
	assert_string_equal(a.body, "Error: Idempotency-Key: keys are switched off on this listener");
	assert_int_equal(atomic_load(&n_done), n);
	check_done(post_to(&s, "/work", "", "x"), n + 1, false);
	service_stop(&s);
}

/* --- one after the other --- */

static void test_once(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	int64_t n_replays = counter("cirrus_idempotency_replays_total"),
		n_conflicts = counter("cirrus_idempotency_conflicts_total");
	check_done(post_to(&s, "/work", "", "x"), n + 1, false);
	check_done(post_to(&s, "/work", "", "x"), n + 2, false); /* without a key there is nothing to go by */
	check_done(post(&s, "once", "x"), n + 3, false);
	check_done(post(&s, "once", "x"), n + 3, true);
	check_done(post(&s, "\"once\"", "x"), n + 3, true);
	struct answer a = post(&s, "once", "y");
	assert_int_equal(a.status, 409);
	assert_string_equal(a.body,
			    "Error: Idempotency-Key: a request with another body came under this key before");
	assert_false(a.is_retry_asked);
	check_done(post(&s, "once", "x"), n + 3, true);
	check_done(post(&s, "Once", "y"), n + 4, false);
	/* what fails leaves the key free, for another body too */
	assert_int_equal(post(&s, "mended", "bad").status, 422);
	assert_int_equal(post(&s, "mended", "bad").status, 422);
	check_done(post(&s, "mended", "good"), n + 5, false);
	check_done(post(&s, "mended", "good"), n + 5, true);
	/* no body at all */
	check_done(post(&s, "empty", ""), n + 6, false);
	check_done(post(&s, "empty", ""), n + 6, true);
	assert_int_equal(counter("cirrus_idempotency_replays_total") - n_replays, 5);
	assert_int_equal(counter("cirrus_idempotency_conflicts_total") - n_conflicts, 1);
	/* and after a restart */
	spool_restart(0);
	check_done(post(&s, "once", "x"), n + 3, true);
	assert_int_equal(post(&s, "once", "y").status, 409);
	struct buf text = BUF_INIT;
	metric_render_text(&text, STR("cirrus_idempotency_keys"));
	struct spool_stats st;
	spool_get_stats(spool, &st);
	char want[64];
	snprintf(want, sizeof(want), "cirrus_idempotency_keys %d\n", (int)st.n_keys);
	assert_true(st.n_keys >= 4 && strstr(text.p, want) != NULL);
	buf_fini(&text);
	service_stop(&s);
}

static void test_whose_it_is(void **state)
{
	static const struct {
		const char *path, *who;
	} scope[] = {{"/work", ""},
		     {"/other", ""},
		     {"/work", "X-User: ann\r\n"},
		     {"/work", "X-User: bob\r\n"},
		     {"/other", "X-User: bob\r\n"}};
	struct service s = service_start();
	int n = atomic_load(&n_done);
	char header[100];
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(scope); i++) {
			snprintf(header, sizeof(header), "%sIdempotency-Key: shared\r\n", scope[i].who);
			check_done(post_to(&s, scope[i].path, header, "x"), n + 1 + (int)i, round > 0);
		}
	}
	service_stop(&s);
}

static void test_large_bodies(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	size_t n_bytes = (5 << 20) + 17;
	char *body = xmalloc(n_bytes);
	memset(body, 'x', n_bytes);
	struct raw c = send_to(&s, "/work", "Idempotency-Key: large\r\n", str_mk(body, n_bytes));
	check_done(answer_of(&c), n + 1, false);
	c = send_to(&s, "/work", "Idempotency-Key: large\r\n", str_mk(body, n_bytes));
	check_done(answer_of(&c), n + 1, true);
	for (size_t at = 0; at < n_bytes; at += n_bytes - 1) { /* another first byte, another last one */
		body[at] = 'y';
		c = send_to(&s, "/work", "Idempotency-Key: large\r\n", str_mk(body, n_bytes));
		assert_int_equal(answer_of(&c).status, 409);
		body[at] = 'x';
	}
	free(body);
	service_stop(&s);
}

static void test_expiry(void **state)
{
	struct service s = service_start_with(dur_ms(400), DUR_ZERO);
	int n = atomic_load(&n_done);
	int64_t begun = mono_now().ns;
	check_done(post(&s, "short", "x"), n + 1, false);
	struct answer a = post(&s, "short", "x");
	if (mono_now().ns - begun < 400 * 1000000) /* on a busy machine it may be over by now */
		check_done(a, n + 1, true);
	while ((a = post(&s, "short", "x")).is_replayed) {
		check_done(a, n + 1, true);
		usleep(5000);
	}
	assert_true(mono_now().ns - begun >= 400 * 1000000);
	assert_int_equal(a.status, 200);
	while ((a = post(&s, "short", "y")).status == 409) /* another body, once that is over too */
		usleep(5000);
	assert_int_equal(a.status, 200);
	assert_false(a.is_replayed);
	service_stop(&s);
}

/* --- at once --- */

static void test_two_at_once(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	int64_t n_waits = counter("cirrus_idempotency_waits_total");
	struct raw c[6];
	for (int is_bad = 0; is_bad < 2; is_bad++) {
		atomic_store(&is_hold_open, false);
		const char *header =
			is_bad ? "Idempotency-Key: bad-at-once\r\n" : "Idempotency-Key: good-at-once\r\n";
		for (int i = 0; i < 6; i++)
			c[i] = send_to(&s, "/work", header, STR("hold"));
		while (counter("cirrus_idempotency_waits_total") < n_waits + 5)
			usleep(1000);
		n_waits += 5;
		wait_for_work(1);
		/* another body meanwhile: it need not wait */
		struct answer a = post_to(&s, "/work", header, "y");
		assert_int_equal(a.status, 409);
		assert_false(a.is_retry_asked);
		/* another key meanwhile */
		check_done(post(&s, is_bad ? "other-1" : "other-0", "x"), ++n, false);
		atomic_store(&is_failing, is_bad);
		atomic_store(&is_hold_open, true);
		int n_replayed = 0, n_bad = 0;
		for (int i = 0; i < 6; i++) {
			a = answer_of(&c[i]);
			n_replayed += a.is_replayed;
			n_bad += a.status == 422;
			if (a.status == 200)
				check_done(a, n + 1, a.is_replayed);
		}
		/* When the first one fails each of the others tries, and fails, as it goes on failing. */
		assert_int_equal(n_replayed, is_bad ? 0 : 5);
		assert_int_equal(n_bad, is_bad ? 6 : 0);
		n += !is_bad;
		n_waits = counter("cirrus_idempotency_waits_total");
		atomic_store(&is_failing, false);
	}
	assert_int_equal(atomic_load(&n_done), n);
	service_stop(&s);
}

/* The first one's client has gone, or its time is up: the one that waited goes on itself. */
static void test_the_first_one_fails(void **state)
{
	struct service slow = service_start(), quick = service_start_with(dur_s(3600), dur_s(3));
	int n = atomic_load(&n_done);
	int64_t n_waits = counter("cirrus_idempotency_waits_total");
	atomic_store(&is_hold_open, false);
	struct raw first = send_to(&quick, "/work", "Idempotency-Key: taken-over\r\n", STR("hold"));
	wait_for_work(1);
	struct raw second = send_to(&slow, "/work", "Idempotency-Key: taken-over\r\n", STR("hold"));
	while (counter("cirrus_idempotency_waits_total") == n_waits)
		usleep(1000);
	assert_int_equal(answer_of(&first).status, 503); /* its time was up */
	wait_for_work(1);
	atomic_store(&is_hold_open, true);
	check_done(answer_of(&second), n + 1, false);
	check_done(post(&quick, "taken-over", "hold"), n + 1, true);
	service_stop(&slow);
	service_stop(&quick);
}

static void test_waits_end(void **state)
{
	struct service slow = service_start(), quick = service_start_with(dur_s(3600), dur_s(2));
	int n = atomic_load(&n_done);
	atomic_store(&is_hold_open, false);
	struct raw first = send_to(&slow, "/work", "Idempotency-Key: slow\r\n", STR("hold"));
	wait_for_work(1);
	struct answer a = post(&quick, "slow", "hold");
	assert_int_equal(a.status, 409);
	assert_true(a.is_retry_asked);
	assert_string_equal(a.body, "Error: Idempotency-Key: the request that came "
				    "first under this key is still being worked on");
	atomic_store(&is_hold_open, true);
	check_done(answer_of(&first), n + 1, false);
	check_done(post(&quick, "slow", "hold"), n + 1, true);
	service_stop(&slow);
	service_stop(&quick);
}

enum { CROWD_THREADS = 8, CROWD_KEYS = 40 };
static struct crowd {
	struct service s;
	char answer[CROWD_KEYS][200];
	pthread_mutex_t lock;
} crowd;

static void *crowd_main(void *arg)
{
	for (int i = 0; i < CROWD_KEYS; i++) {
		char key[32];
		snprintf(key, sizeof(key), "crowd-%d", i);
		struct answer a = post(&crowd.s, key, "x");
		pthread_mutex_lock(&crowd.lock);
		bool is_right =
			a.status == 200 && (crowd.answer[i][0] == 0 || strcmp(crowd.answer[i], a.body) == 0);
		snprintf(crowd.answer[i], sizeof(crowd.answer[i]), "%s", a.body);
		pthread_mutex_unlock(&crowd.lock);
		if (!is_right) {
			fprintf(stderr, "%s: %d %s\n", key, a.status, a.body);
			abort();
		}
	}
	return NULL;
}

static void test_crowd(void **state)
{
	crowd = (struct crowd){.s = service_start(), .lock = PTHREAD_MUTEX_INITIALIZER};
	int n = atomic_load(&n_done);
	pthread_t t[CROWD_THREADS];
	for (int i = 0; i < CROWD_THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, crowd_main, NULL), 0);
	for (int i = 0; i < CROWD_THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&n_done), n + CROWD_KEYS);
	service_stop(&crowd.s);
}

/* --- what the spool says --- */

static void test_full(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	strcat(dir, "-small"); /* a spool of its own, where no key expires */
	spool_restart(1);
	check_done(post(&s, "last-one", "x"), n + 1, false);
	struct answer a = post(&s, "one-too-many", "x");
	assert_int_equal(a.status, 503);
	assert_non_null(strstr(a.body, "keys, and may hold no more"));
	check_done(post(&s, "last-one", "x"), n + 1, true);
	spool_restart(0);
	struct answer b = post(&s, "one-too-many", "x");
	assert_int_equal(b.status, 200);
	assert_false(b.is_replayed);
	service_stop(&s);
	char small[sizeof(dir)];
	memcpy(small, dir, sizeof(small));
	dir[strlen(dir) - strlen("-small")] = 0;
	spool_restart(0);
	model_remove_dir(small);
}

/* Overwrites `what` wherever it stands in the journal; returns how often. */
static int spoil(const char *what)
{
	int n = 0;
	DIR *d = opendir(dir);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		char path[400];
		static char bytes[1 << 20];
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		int fd = strstr(e->d_name, ".journal") != NULL ? open(path, O_RDWR) : -1;
		ssize_t got = fd >= 0 ? pread(fd, bytes, sizeof(bytes), 0) : 0;
		char *at = got > 0 ? memmem(bytes, (size_t)got, what, strlen(what)) : NULL;
		if (at != NULL) {
			assert_int_equal(pwrite(fd, "X", 1, at - bytes), 1);
			n++;
		}
		if (fd >= 0)
			close(fd);
	}
	closedir(d);
	return n;
}

static void test_unreadable(void **state)
{
	struct service s = service_start();
	int n = atomic_load(&n_done);
	assert_int_equal(log_set_filter(STR("off")), 0);
	check_done(post(&s, "unreadable", "x"), n + 1, false);
	struct answer a;
#ifdef CIRRUS_FAULTS
	assert_int_equal(fault_arm(STR("spool_read=1")), 0);
	a = post(&s, "unreadable", "x");
	assert_int_equal(fault_arm(STR("")), 0);
	assert_int_equal(a.status, 503);
	assert_true(a.is_retry_asked);
	check_done(post(&s, "unreadable", "x"), n + 1, true);
#endif
	char text[32];
	snprintf(text, sizeof(text), "done %d", n + 1);
	assert_int_equal(spoil(text), 1);
	a = post(&s, "unreadable", "x");
	assert_int_equal(a.status, 500); /* and it is not done again */
	assert_non_null(strstr(
		a.body, "Error: Idempotency-Key: the request was done, but its answer cannot be read: "));
	assert_int_equal(atomic_load(&n_done), n + 1);
	assert_int_equal(log_set_filter(STR("warn")), 0);
	service_stop(&s);
}

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/cirrus-idempotency-%d", (int)getpid());
	workers_start(2);
	offload_start(2);
	http_routes_add(routes, ARRAY_SIZE(routes));
	spool_restart(0);
	return log_set_filter(STR("warn"));
}

static int teardown(void **state)
{
	workers_stop(mono_after(dur_s(20)));
	offload_stop();
	spool_close(spool);
	model_remove_dir(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_which_keys),   cmocka_unit_test(test_refused_keys),
		cmocka_unit_test(test_once),	     cmocka_unit_test(test_whose_it_is),
		cmocka_unit_test(test_large_bodies), cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_two_at_once),  cmocka_unit_test(test_the_first_one_fails),
		cmocka_unit_test(test_waits_end),    cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_full),	     cmocka_unit_test(test_unreadable),
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
