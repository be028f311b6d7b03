/* test_in_trace.c - tracing SMTP sessions: what reaches which tracer, in which order and form, from which
 * worker; what a slow one loses; and that sessions do nothing when nobody traces. The sessions are bare
 * structs that show things. */
#include "fiber_check.h"

#include "fiber/sync.h"
#include "fiber/worker.h"
#include "smtp/in_impl.h"
#include "smtp/in_trace.h"

enum { N_WORKERS = 4, N_EACH = 1500 };

struct watch {
	struct in_tracer *t;
	struct fiber_cond cond;
	unsigned n_wakes;
};

static void on_wake(void *arg)
{
	struct watch *w = arg;
	w->n_wakes++;
	fiber_cond_broadcast(&w->cond);
}

static void watch_begin(struct watch *w)
{
	*w = (struct watch){0};
	fiber_cond_init(&w->cond);
	w->t = in_tracer_new(on_wake, w);
	CHECK(w->t != NULL);
}

/* Waits for the next event. */
static json_t *watch_next(struct watch *w)
{
	str_t text;
	while (!in_tracer_take(w->t, &text))
		CHECK(fiber_cond_wait(&w->cond, mono_after(dur_s(20))) == 0);
	json_t *v = json_loadb(text.p, text.n, 0, NULL);
	CHECK(v != NULL);
	return v;
}

static json_t *watch_next_payload(struct watch *w)
{
	json_t *v = watch_next(w), *p = json_incref(json_object_get(v, "payload"));
	CHECK(p != NULL && json_is_string(json_object_get(v, "when")));
	json_decref(v);
	return p;
}

static bool watch_is_empty(struct watch *w)
{
	str_t text;
	return !in_tracer_take(w->t, &text);
}

static void show_text(const char *peer, str_t text)
{
	struct in_session *s = xnew(struct in_session);
	struct net_addr addr;
	CHECK(net_addr_parse(STR("127.0.0.1:1"), &addr) == 0);
	in_conn_init(&s->conn, &addr);
	meta_set_str(&s->conn.meta, STR("received_from"), str_of(peer));
	if (in_is_seen())
		in_see(s, &(struct in_seen){.kind = IN_SIGHT_READ, .text = text});
	in_conn_fini(&s->conn);
	free(s);
}

static void expect_read(struct watch *w, const char *text)
{
	json_t *p = watch_next_payload(w);
	CHECK(strcmp(json_string_value(json_object_get(p, "Read")), text) == 0);
	json_decref(p);
}

static void keep_to(struct watch *w, const char *network, bool is_terse)
{
	struct cidr_set set = {0};
	if (network != NULL)
		CHECK(cidr_set_add(&set, str_of(network)) == 0);
	in_tracer_set_filter(w->t, &set, is_terse);
	cidr_set_fini(&set);
}

/* --- tests, each in a fiber of worker 0 --- */

static void test_nobody(void *arg)
{
	struct watch one, two;
	CHECK(!in_is_seen());
	watch_begin(&one);
	CHECK(in_is_seen());
	watch_begin(&two);
	in_tracer_free(one.t);
	CHECK(in_is_seen());
	in_tracer_free(two.t);
	CHECK(!in_is_seen());
	show_text("127.0.0.1:1", STR("x"));
	watch_begin(&one);
	CHECK(watch_is_empty(&one));
	in_tracer_free(one.t);
}

static void test_filter(void *arg)
{
	struct watch w;
	watch_begin(&w);
	show_text("10.0.0.1:1", STR("before, not wanted"));
	show_text("10.0.0.2:1", STR("before"));
	show_text("[fe80::1]:25", STR("before, version 6"));
	keep_to(&w, "10.0.0.2", false);
	show_text("10.0.0.1:1", STR("not wanted"));
	show_text("[::ffff:10.0.0.2]:1", STR("mapped"));
	show_text("nonsense", STR("from nobody knows where"));
	show_text("10.0.0.2:1", STR("after"));
	static const char *const expected[] = {"before", "mapped", "from nobody knows where", "after"};
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
		expect_read(&w, expected[i]);
	CHECK(watch_is_empty(&w));
	in_tracer_free(w.t);
}

static void expect_abbreviated(struct watch *w, const char *snippet, int len)
{
	json_t *p = watch_next_payload(w), *a = json_object_get(p, "AbbreviatedRead");
	CHECK(strcmp(json_string_value(json_object_get(a, "snippet")), snippet) == 0);
	CHECK(json_integer_value(json_object_get(a, "len")) == len);
	json_decref(p);
}

static void test_terse(void *arg)
{
	struct watch terse, whole, late;
	watch_begin(&terse);
	watch_begin(&whole);
	watch_begin(&late);
	keep_to(&terse, NULL, true);
	keep_to(&whole, NULL, false);
	show_text("10.0.0.1:1", STR("one line\r\n"));
	show_text("10.0.0.1:1", STR("first\r\nsecond\r\n"));
	show_text("10.0.0.1:1", STR("first\nhalf"));
	show_text("10.0.0.1:1", STR("\r\n\r\n"));
	keep_to(&late, NULL, true);
	struct watch *const both[] = {&terse, &late};
	for (size_t i = 0; i < 2; i++) {
		expect_read(both[i], "one line\r\n");
		expect_abbreviated(both[i], "first", 15);
		expect_abbreviated(both[i], "first", 10);
		expect_abbreviated(both[i], "", 4);
		in_tracer_free(both[i]->t);
	}
	expect_read(&whole, "one line\r\n");
	expect_read(&whole, "first\r\nsecond\r\n");
	in_tracer_free(whole.t);
}

static uint64_t expect_lag(struct watch *w)
{
	unsigned long long n;
	json_t *v = watch_next(w), *d = json_object_get(json_object_get(v, "payload"), "Diagnostic");
	CHECK(json_is_null(json_object_get(v, "conn_meta")) &&
	      strcmp(json_string_value(json_object_get(d, "level")), "ERROR") == 0);
	CHECK(sscanf(json_string_value(json_object_get(d, "message")),
		     "Tracer Lagged behind and missed %llu events", &n) == 1);
	json_decref(v);
	return n;
}

static void test_lag(void *arg)
{
	struct watch slow, quick;
	char text[32];
	watch_begin(&slow);
	watch_begin(&quick);
	for (int i = 0; i < 10000; i++) {
		snprintf(text, sizeof(text), "%d", i);
		show_text("10.0.0.1:1", str_of(text));
		expect_read(&quick, text);
	}
	CHECK(watch_is_empty(&quick));
	uint64_t n = expect_lag(&slow);
	CHECK(n == 10000 - 8192);
	for (int i = (int)n; i < 10000; i++) {
		snprintf(text, sizeof(text), "%d", i);
		expect_read(&slow, text);
	}
	CHECK(watch_is_empty(&slow)); /* it is told once */
	in_tracer_free(slow.t);
	in_tracer_free(quick.t);
}

static void test_lag_of_bytes(void *arg)
{
	struct watch w;
	struct buf big = BUF_INIT;
	watch_begin(&w);
	keep_to(&w, NULL, false);
	buf_reserve(&big, 3 << 20);
	while (big.n < 3 << 20)
		buf_add_c(&big, 'x');
	for (int i = 0; i < 10; i++)
		show_text("10.0.0.1:1", buf_str(&big));
	uint64_t n = expect_lag(&w);
	CHECK(n >= 8 && n < 10); /* 8 MB are kept */
	for (uint64_t i = n; i < 10; i++)
		expect_read(&w, big.p);
	while (big.n < 9 << 20)
		buf_add_c(&big, 'x');
	show_text("10.0.0.1:1", STR("small"));
	show_text("10.0.0.1:1", buf_str(&big)); /* more than fits, alone */
	CHECK(expect_lag(&w) == 2);
	CHECK(watch_is_empty(&w));
	buf_fini(&big);
	in_tracer_free(w.t);
}

static void test_too_many(void *arg)
{
	struct watch w[IN_TRACE_MAX_TRACERS];
	for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
		CHECK(in_tracer_why_not() == NULL);
		watch_begin(&w[i]);
	}
	CHECK(in_tracer_why_not() != NULL);
	CHECK(in_tracer_new(on_wake, NULL) == NULL && err_is(ERR_LIMIT));
	err_clear();
	show_text("10.0.0.1:1", STR("to all"));
	for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
		expect_read(&w[i], "to all");
		in_tracer_free(w[i].t);
	}
	CHECK(in_tracer_why_not() == NULL);
}

/* --- from other workers --- */

static void shower(void *arg)
{
	char peer[32], text[32];
	snprintf(peer, sizeof(peer), "10.0.0.1:%u", *(unsigned *)arg);
	for (int i = 0; i < N_EACH; i++) {
		snprintf(text, sizeof(text), "%d", i);
		show_text(peer, str_of(text));
		if (i % 16 == 0)
			fiber_yield();
	}
}

static void test_workers(void *arg)
{
	struct watch w;
	unsigned port[N_WORKERS];
	int next[N_WORKERS] = {0};
	watch_begin(&w);
	keep_to(&w, NULL, false);
	for (unsigned i = 0; i < N_WORKERS; i++) {
		port[i] = i;
		worker_start_fiber(worker_get(i), "shower", shower, &port[i]);
	}
	for (int i = 0; i < N_WORKERS * N_EACH; i++) { /* fewer than a queue holds */
		json_t *v = watch_next(&w);
		const char *from =
			json_string_value(json_object_get(json_object_get(v, "conn_meta"), "received_from"));
		int who = from[strlen(from) - 1] - '0';
		CHECK(who >= 0 && who < N_WORKERS);
		CHECK(atoi(json_string_value(json_object_get(json_object_get(v, "payload"), "Read"))) ==
		      next[who]++);
		json_decref(v);
	}
	CHECK(w.n_wakes > 0 && watch_is_empty(&w));
	in_tracer_free(w.t);
}

/* Tracers come and go while sessions show things; a wake for one that is gone must reach nobody. */
static void test_coming_and_going(void *arg)
{
	unsigned port[N_WORKERS];
	for (unsigned i = 0; i < N_WORKERS; i++) {
		port[i] = i;
		worker_start_fiber(worker_get(i), "shower", shower, &port[i]);
	}
	for (int i = 0; i < 300; i++) {
		struct watch *w = xnew(struct watch);
		watch_begin(w);
		if (i % 3 == 0)
			keep_to(w, "10.0.0.0/8", i % 2 == 0);
		fiber_yield();
		str_t text;
		while (in_tracer_take(w->t, &text))
			CHECK(text.n > 0 && text.p[0] == '{');
		in_tracer_free(w->t);
		memset(w, 0xa5, sizeof(*w));
		free(w);
	}
}

static void run(fiber_fn *fn)
{
	workers_start(N_WORKERS);
	worker_run(fn, NULL);
	workers_stop(mono_after(dur_s(20)));
}

#define TEST(name)                           \
	static void run_##name(void **state) \
	{                                    \
		run(test_##name);            \
	}
TEST(nobody)
TEST(filter)
TEST(terse)
TEST(lag)
TEST(lag_of_bytes)
TEST(too_many)
TEST(workers)
TEST(coming_and_going)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(run_nobody),	    cmocka_unit_test(run_filter),
		cmocka_unit_test(run_terse),	    cmocka_unit_test(run_lag),
		cmocka_unit_test(run_lag_of_bytes), cmocka_unit_test(run_too_many),
		cmocka_unit_test(run_workers),	    cmocka_unit_test(run_coming_and_going),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
