/* test_metric.c - metrics: both output forms for none, one and several labels; references; threads; many
 * series. The registry is the process's, so each test has names of its own and renders only those. */
#include "ut.h"

#include "base/clock.h"
#include "base/metric.h"

#include <math.h>
#include <pthread.h>

static void metric_expect(const char *prefix, const char *text, const char *json)
{
	struct buf b = BUF_INIT;
	metric_render_text(&b, str_of(prefix));
	assert_buf_is(&b, text);
	buf_clear(&b);
	metric_render_json(&b, str_of(prefix));
	assert_buf_is(&b, json);
	buf_fini(&b);
}

static void metric_without_labels(void **state)
{
	struct metric *m = metric_declare(METRIC_GAUGE, "plain_a", "one \"thing\"\\\nmore", NULL, NULL, 0);
	metric_expect("plain_", "", "{}");
	struct metric_series *s = metric_get(m, NULL);
	assert_ptr_equal(metric_get(m, NULL), s);
	metric_series_unref(s);
	metric_inc(s);
	metric_add(s, 5);
	metric_dec(s);
	assert_int_equal(metric_value(s), 5);
	metric_set(s, -7);
	metric_expect(
		"plain_", "# HELP plain_a one \"thing\"\\\\\\nmore\n# TYPE plain_a gauge\nplain_a -7\n",
		"{\"plain_a\":{\"help\":\"one \\\"thing\\\"\\\\\\nmore\",\"type\":\"gauge\",\"value\":-7}}");
	metric_series_unref(s);
	metric_expect("plain_", "", "{}");
	metric_series_unref(NULL);
}

static void metric_with_one_label(void **state)
{
	static const char *const labels[] = {"service", NULL};
	/* Declared out of order: the output is sorted by name. */
	struct metric *z = metric_declare(METRIC_COUNTER, "one_z", "z", labels, NULL, 0);
	struct metric *a = metric_declare(METRIC_COUNTER, "one_a", "a", labels, NULL, 0);
	assert_ptr_equal(metric_declare(METRIC_COUNTER, "one_z", "z", labels, NULL, 0), z);
	struct metric_series *zs = metric_get(z, (str_t[]){STR("smtp_client")});
	struct metric_series *a1 = metric_get(a, (str_t[]){STR("q\"b\\s\nl")}),
			     *a2 = metric_get(a, (str_t[]){STR_NULL});
	metric_inc(zs);
	metric_add(a1, 2);
	metric_expect("one_",
		      "# HELP one_a a\n# TYPE one_a counter\none_a{service=\"q\\\"b\\\\s\\nl\"} "
		      "2\none_a{service=\"\"} 0\n"
		      "# HELP one_z z\n# TYPE one_z counter\none_z{service=\"smtp_client\"} 1\n",
		      "{\"one_a\":{\"help\":\"a\",\"type\":\"counter\",\"value\":{\"service\":{"
		      "\"q\\\"b\\\\s\\nl\":2,\"\":0}}},"
		      "\"one_z\":{\"help\":\"z\",\"type\":\"counter\",\"value\":{\"service\":{\"smtp_"
		      "client\":1}}}}");
	metric_expect("one_z", "# HELP one_z z\n# TYPE one_z counter\none_z{service=\"smtp_client\"} 1\n",
		      "{\"one_z\":{\"help\":\"z\",\"type\":\"counter\",\"value\":{\"service\":{\"smtp_"
		      "client\":1}}}}");
	metric_series_unref(zs);
	metric_series_unref(a1);
	metric_series_unref(a2);
}

static void metric_with_several_labels(void **state)
{
	static const char *const labels[] = {"provider", "source", "pool", NULL};
	struct metric *m = metric_declare(METRIC_GAUGE, "several", "s", labels, NULL, 0);
	str_t rows[][3] = {{STR("a"), STR("x"), STR("p")},
			   {STR("b"), STR("x"), STR("p")},
			   {STR("a"), STR("x"), STR("q")},
			   {STR("a"), STR("y"), STR("p")},
			   {STR("ax"), STR(""), STR("p")}};
	struct metric_series *s[ARRAY_SIZE(rows)];
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metric_set(s[i] = metric_get(m, rows[i]), (int64_t)i);
	metric_expect("several",
		      "# HELP several s\n# TYPE several gauge\n"
		      "several{provider=\"a\", source=\"x\", pool=\"p\"} 0\n"
		      "several{provider=\"b\", source=\"x\", pool=\"p\"} 1\n"
		      "several{provider=\"a\", source=\"x\", pool=\"q\"} 2\n"
		      "several{provider=\"a\", source=\"y\", pool=\"p\"} 3\n"
		      "several{provider=\"ax\", source=\"\", pool=\"p\"} 4\n",
		      "{\"several\":{\"help\":\"s\",\"type\":\"gauge\",\"value\":{\"provider\":{"
		      "\"a\":{\"source\":{\"x\":{\"pool\":{\"p\":0,\"q\":2}},\"y\":{\"pool\":{\"p\":3}}}},"
		      "\"b\":{\"source\":{\"x\":{\"pool\":{\"p\":1}}}},"
		      "\"ax\":{\"source\":{\"\":{\"pool\":{\"p\":4}}}}}}}}");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		metric_series_unref(s[i]);
}

static void metric_histograms(void **state)
{
	static const char *const labels[] = {"service", NULL};
	static const double bounds[] = {0.005, 1, 2.5, 10};
	struct metric *m =
		metric_declare(METRIC_HISTOGRAM, "hist_a", "h", labels, bounds, ARRAY_SIZE(bounds));
	struct metric *d = metric_declare(METRIC_HISTOGRAM, "hist_default", "h", NULL, NULL, 0);
	struct metric_series *s = metric_get(m, (str_t[]){STR("x")});
	metric_expect("hist_a",
		      "# HELP hist_a h\n# TYPE hist_a histogram\n"
		      "hist_a_bucket{service=\"x\",le=\"0.005\"} 0\nhist_a_bucket{service=\"x\",le=\"1\"} 0\n"
		      "hist_a_bucket{service=\"x\",le=\"2.5\"} 0\nhist_a_bucket{service=\"x\",le=\"10\"} 0\n"
		      "hist_a_bucket{service=\"x\",le=\"+Inf\"} 0\nhist_a_sum{service=\"x\"} "
		      "0\nhist_a_count{service=\"x\"} 0\n",
		      "{\"hist_a\":{\"help\":\"h\",\"type\":\"histogram\",\"value\":{\"service\":{\"x\":{"
		      "\"avg\":0.0,"
		      "\"bucket\":[[0.005,0.0],[1.0,0.0],[2.5,0.0],[10.0,0.0]],\"count\":0,\"sum\":0.0}}}}}");
	metric_observe(s, 0.005); /* a bound belongs to its bucket */
	metric_observe(s, 2);
	metric_observe(s, 2.495);
	metric_observe(s, 11.5);
	metric_observe(s, NAN); /* ignored */
	metric_expect(
		"hist_a",
		"# HELP hist_a h\n# TYPE hist_a histogram\n"
		"hist_a_bucket{service=\"x\",le=\"0.005\"} 1\nhist_a_bucket{service=\"x\",le=\"1\"} 1\n"
		"hist_a_bucket{service=\"x\",le=\"2.5\"} 3\nhist_a_bucket{service=\"x\",le=\"10\"} 3\n"
		"hist_a_bucket{service=\"x\",le=\"+Inf\"} 4\nhist_a_sum{service=\"x\"} "
		"16\nhist_a_count{service=\"x\"} 4\n",
		"{\"hist_a\":{\"help\":\"h\",\"type\":\"histogram\",\"value\":{\"service\":{\"x\":{\"avg\":4."
		"0,"
		"\"bucket\":[[0.005,1.0],[1.0,1.0],[2.5,3.0],[10.0,3.0]],\"count\":4,\"sum\":16.0}}}}}");
	metric_series_unref(s);
	s = metric_get(d, NULL);
	metric_observe(s, 0.02);
	struct buf b = BUF_INIT;
	metric_render_text(&b, STR("hist_default"));
	assert_true(
		str_find(buf_str(&b),
			 STR("hist_default_bucket{le=\"0.01\"} 0\nhist_default_bucket{le=\"0.025\"} 1\n")) >
		0);
	assert_true(str_ends(buf_str(&b), STR("{le=\"10\"} 1\nhist_default_bucket{le=\"+Inf\"} 1\n"
					      "hist_default_sum 0.02\nhist_default_count 1\n")));
	buf_fini(&b);
	metric_series_unref(s);
}

static void metric_collect(void *arg, struct metric_out *out)
{
	for (int i = 0; i < *(int *)arg; i++)
		metric_sample(out, (str_t[]){i == 0 ? STR("data spool") : STR("meta spool")},
			      i + 0.5 * (i % 2));
}

static void metric_collect_big(void *arg, struct metric_out *out)
{
	metric_sample(out, NULL, 76121821184.0);
}

static void metric_collected(void **state)
{
	static const char *const labels[] = {"name", NULL};
	int n = 2;
	metric_declare_collected(METRIC_GAUGE, "coll_a", "c", labels, metric_collect, &n);
	metric_declare_collected(METRIC_COUNTER, "coll_b", "c", NULL, metric_collect_big, NULL);
	metric_expect("coll_",
		      "# HELP coll_a c\n# TYPE coll_a gauge\ncoll_a{name=\"data spool\"} "
		      "0\ncoll_a{name=\"meta spool\"} 1.5\n"
		      "# HELP coll_b c\n# TYPE coll_b counter\ncoll_b 76121821184\n",
		      "{\"coll_a\":{\"help\":\"c\",\"type\":\"gauge\",\"value\":{\"name\":{\"data "
		      "spool\":0,\"meta spool\":1.5}}},"
		      "\"coll_b\":{\"help\":\"c\",\"type\":\"counter\",\"value\":76121821184}}");
	metric_declare_collected(METRIC_GAUGE, "coll_a", "c", labels, NULL, NULL);
	metric_declare_collected(METRIC_COUNTER, "coll_b", "c", NULL, NULL, NULL);
	metric_expect("coll_", "", "{}");
}

enum { N_THREADS = 4, N_ROUNDS = 20000 };

/* Gets, counts and lets go; while one thread holds "kept", its count must not be lost. */
static void *metric_thread(void *arg)
{
	static const char *const name[] = {"a", "b", "c", "kept"};
	for (int i = 0; i < N_ROUNDS; i++) {
		struct metric_series *s = metric_get(arg, (str_t[]){str_of(name[i % 4])});
		metric_inc(s);
		metric_series_unref(s);
	}
	return arg;
}

static void metric_threads(void **state)
{
	static const char *const labels[] = {"l", NULL};
	struct metric *m = metric_declare(METRIC_COUNTER, "threads", "t", labels, NULL, 0);
	struct metric_series *kept = metric_get(m, (str_t[]){STR("kept")});
	pthread_t thread[N_THREADS];
	struct buf b = BUF_INIT;
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, metric_thread, m), 0);
	for (int i = 0; i < 200; i++) {
		buf_clear(&b);
		metric_render_text(&b, STR("threads"));
		assert_true(str_find(buf_str(&b), STR("threads{l=\"kept\"} ")) > 0);
	}
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(metric_value(kept), N_THREADS * N_ROUNDS / 4);
	buf_clear(&b);
	metric_render_text(&b, STR("threads"));
	char want[128];
	snprintf(want, sizeof(want), "# HELP threads t\n# TYPE threads counter\nthreads{l=\"kept\"} %d\n",
		 N_THREADS * N_ROUNDS / 4);
	assert_buf_is(&b, want);
	metric_series_unref(kept);
	buf_fini(&b);
}

static void metric_many_series(void **state)
{
	static const char *const labels[] = {"queue", "site", NULL};
	enum { N = 100000 };
	static struct metric_series *s[N];
	struct metric *m = metric_declare(METRIC_GAUGE, "many", "m", labels, NULL, 0);
	char name[700];
	memset(name, 'x', sizeof(name)); /* one key too long for the stack */
	s[0] = metric_get(m, (str_t[]){str_mk(name, sizeof(name)), STR("s")});
	for (int i = 1; i < N; i++) {
		int n = snprintf(name, sizeof(name), "tenant%d@domain", i);
		s[i] = metric_get(m, (str_t[]){str_mk(name, (size_t)n), STR("s")});
	}
	assert_ptr_equal(metric_get(m, (str_t[]){STR("tenant777@domain"), STR("s")}), s[777]);
	metric_series_unref(s[777]);
	struct buf b = BUF_INIT;
	metric_render_text(&b, STR("many"));
	size_t n_lines = 0;
	for (ptrdiff_t at = -1; (at = str_chr(buf_str(&b), '\n', (size_t)(at + 1))) >= 0;)
		n_lines++;
	assert_int_equal(n_lines, N + 2);
	buf_clear(&b);
	metric_render_json(&b, STR("many"));
	assert_true(str_find(buf_str(&b), STR("\"tenant99999@domain\":{\"site\":{\"s\":0}}")) > 0);
	for (int i = 0; i < N; i++)
		metric_series_unref(s[i]);
	metric_expect("many", "", "{}");
	buf_fini(&b);
}

static void metric_open_expect(const char *prefix, const char *text)
{
	struct buf b = BUF_INIT;
	metric_render_openmetrics(&b, str_of(prefix));
	assert_buf_is(&b, text);
	buf_fini(&b);
}

static void metric_openmetrics(void **state)
{
	static const char *const labels[] = {"a", "b", NULL};
	static const double bounds[] = {0.5, 1, 1e-7 * 1e9};
	metric_open_expect("open_", "# EOF\n");
	struct metric_series *total =
		metric_get(metric_declare(METRIC_COUNTER, "open_a_total", "says \"hi\"\\\n", labels, NULL, 0),
			   (str_t[]){STR("x"), STR("y")});
	struct metric_series *count =
		metric_get(metric_declare(METRIC_COUNTER, "open_b", "b", NULL, NULL, 0), NULL);
	struct metric_series *gauge =
		metric_get(metric_declare(METRIC_GAUGE, "open_c_total", "c", NULL, NULL, 0), NULL);
	struct metric_series *h =
		metric_get(metric_declare(METRIC_HISTOGRAM, "open_d", "d", labels, bounds, 3),
			   (str_t[]){STR("1"), STR("2")});
	metric_inc(total);
	metric_add(count, 2);
	metric_set(gauge, -3);
	metric_observe(h, 0.75);
	/* A counter's family is without _total, its samples are with it; a gauge keeps its name. */
	metric_open_expect(
		"open_",
		"# HELP open_a says \\\"hi\\\"\\\\\\n\n"
		"# TYPE open_a counter\nopen_a_total{a=\"x\",b=\"y\"} 1\n"
		"# HELP open_b b\n# TYPE open_b counter\nopen_b_total 2\n"
		"# HELP open_c_total c\n# TYPE open_c_total gauge\nopen_c_total -3\n"
		"# HELP open_d d\n# TYPE open_d histogram\n"
		"open_d_bucket{a=\"1\",b=\"2\",le=\"0.5\"} 0\nopen_d_bucket{a=\"1\",b=\"2\",le=\"1.0\"} 1\n"
		"open_d_bucket{a=\"1\",b=\"2\",le=\"100.0\"} 1\n"
		"open_d_bucket{a=\"1\",b=\"2\",le=\"+Inf\"} 1\n"
		"open_d_sum{a=\"1\",b=\"2\"} 0.75\nopen_d_count{a=\"1\",b=\"2\"} 1\n# EOF\n");
	metric_open_expect("open_b", "# HELP open_b b\n# TYPE open_b counter\nopen_b_total 2\n# EOF\n");
	metric_series_unref(total);
	metric_series_unref(count);
	metric_series_unref(gauge);
	metric_series_unref(h);
}

static void metric_bad_utf8(void **state)
{
	static const char *const labels[] = {"v", NULL};
	struct metric_series *s = metric_get(metric_declare(METRIC_GAUGE, "utf8", "u", labels, NULL, 0),
					     (str_t[]){STR("a\xff\"\xc3\xa9\xe2\x82")});
	metric_open_expect("utf8", "# HELP utf8 u\n# TYPE utf8 "
				   "gauge\nutf8{v=\"a\xef\xbf\xbd\\\"\xc3\xa9\xef\xbf\xbd\"} 0\n# EOF\n");
	metric_series_unref(s);
}

enum { MANY_SERIES = 5000, MANY_ROUNDS = 50 };
static atomic_bool many_is_done;
static struct metric *many_metric;

/* Series that come and go while others are rendered. */
static void *metric_churn(void *arg)
{
	for (unsigned i = 0; !atomic_load(&many_is_done); i++) {
		char name[32];
		int n = snprintf(name, sizeof(name), "churn-%u", i % 300);
		metric_series_unref(metric_get(many_metric, (str_t[]){str_mk(name, (size_t)n)}));
	}
	return NULL;
}

/* More than a slice of them: each that stays is there once,
 * in each form, whatever comes and goes meanwhile. */
static void metric_slices(void **state)
{
	static const char *const labels[] = {"n", NULL};
	static struct metric_series *s[MANY_SERIES];
	pthread_t t;
	many_metric = metric_declare(METRIC_GAUGE, "sliced", "m", labels, NULL, 0);
	for (size_t i = 0; i < MANY_SERIES; i++) {
		char name[32];
		int n = snprintf(name, sizeof(name), "%zu", i);
		s[i] = metric_get(many_metric, (str_t[]){str_mk(name, (size_t)n)});
	}
	assert_int_equal(pthread_create(&t, NULL, metric_churn, NULL), 0);
	for (int round = 0; round < MANY_ROUNDS; round++) {
		struct buf b = BUF_INIT;
		size_t n_found = 0;
		void (*const form[])(struct buf *, str_t) = {metric_render_text, metric_render_openmetrics,
							     metric_render_json};
		form[round % 3](&b, STR("sliced"));
		str_t rest = buf_str(&b), line;
		if (round % 3 == 2) {
			assert_true(str_find(rest, STR("\"4999\":0")) > 0 &&
				    str_find(rest, STR("\"0\":0")) > 0);
			rest = STR_NULL;
			n_found = MANY_SERIES;
		}
		while (rest.n != 0 && str_split(&rest, '\n', &line))
			n_found += str_starts(line, STR("sliced{n=\"")) &&
				   !str_starts(line, STR("sliced{n=\"churn"));
		assert_int_equal(n_found, MANY_SERIES);
		buf_fini(&b);
	}
	atomic_store(&many_is_done, true);
	pthread_join(t, NULL);
	for (size_t i = 0; i < MANY_SERIES; i++)
		metric_series_unref(s[i]);
	metric_open_expect("sliced", "# EOF\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(metric_without_labels),
		cmocka_unit_test(metric_with_one_label),
		cmocka_unit_test(metric_with_several_labels),
		cmocka_unit_test(metric_histograms),
		cmocka_unit_test(metric_collected),
		cmocka_unit_test(metric_threads),
		cmocka_unit_test(metric_many_series),
		cmocka_unit_test(metric_openmetrics),
		cmocka_unit_test(metric_bad_utf8),
		cmocka_unit_test(metric_slices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
