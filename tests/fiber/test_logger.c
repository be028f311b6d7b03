/* test_logger.c - local logs as a whole: from record_log in fibers of several workers to the bytes in segment
 * files, with a full disk, a killed process, back pressure and every kind of configuration. */
#include "fiber_check.h"
#include "test_dir.h"
#include "zstd_read.h"

#include "base/log.h"
#include "fiber/offload.h"
#include "policy/policy.h"
#include "record/record_impl.h"

#include <fcntl.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

static char *dir;

static int setup(void **state)
{
	dir = dir_make();
	signal(SIGXFSZ, SIG_IGN);
	return 0;
}

static int teardown(void **state)
{
	record_set_body_loader(NULL);
	dir_remove(dir);
	free(dir);
	return 0;
}

/* --- helpers --- */

static int logger_try(const char *params, bool is_validating)
{
	json_t *v = dir_json(dir, params);
	struct param_object *o = param_object_from_json(&record_local_logs_schema, v);
	json_decref(v);
	if (o == NULL)
		return -1;
	int rc = record_add_local_logger(o, is_validating);
	param_object_unref(o);
	return rc;
}

static void logger_add(const char *params)
{
	CHECK(logger_try(params, false) == 0);
}

static struct message *message_make(const char *bytes)
{
	str_t rcpt = STR("r@x.example");
	struct body *body = body_new(str_of(bytes));
	struct message *m = message_new(STR("s@x.example"), &rcpt, 1, body);
	body_unref(body);
	return m;
}

/* A record that tells who wrote it (queue) and its number there (num_attempts). */
static void log_one(enum record_type t, const char *who, uint32_t no, mono_t deadline)
{
	struct message *m = message_make("Subject: hi\r\n\r\n");
	struct record r = {.type = t, .msg = m, .queue = str_of(who), .n_attempts = no};
	record_log(&r, deadline);
	message_unref(m);
}

static int64_t metric_of(const char *line_start)
{
	struct buf b = BUF_INIT;
	int64_t v = -1;
	metric_render_text(&b, STR("log_"));
	char *at = b.n > 0 ? strstr(b.p, line_start) : NULL;
	if (at != NULL)
		v = atoll(at + strlen(line_start));
	buf_fini(&b);
	return v;
}

static int64_t n_lost(void)
{
	return metric_of("\nlog_record_lost_count ");
}

static size_t count_lines(const struct buf *b)
{
	size_t n = 0;
	for (size_t i = 0; i < b->n; i++)
		n += b->p[i] == '\n';
	return n;
}

/* Real time: the logger's thread is not a fiber. */
static void nap(void)
{
	usleep(20000);
}

/* Waits until the segments of the directory hold at least n lines; returns how many. */
static size_t await_lines(const char *path, size_t n)
{
	mono_t give_up = mono_after(dur_s(60));
	for (;;) {
		struct buf b = BUF_INIT;
		dir_read(path, "", &b);
		size_t found = count_lines(&b);
		buf_fini(&b);
		if (found >= n)
			return found;
		CHECK(!mono_is_past(give_up));
		nap();
	}
}

static void in_fiber(fiber_fn *fn, void *arg)
{
	workers_start(2);
	worker_run(fn, arg);
	workers_stop(mono_after(dur_s(60)));
}

static void limit_file_size(rlim_t n_bytes)
{
	struct rlimit r;
	CHECK(getrlimit(RLIMIT_FSIZE, &r) == 0);
	r.rlim_cur = n_bytes;
	CHECK(setrlimit(RLIMIT_FSIZE, &r) == 0);
}

/* --- everything arrives --- */

#define WRITERS 8
#define EACH 500U

static atomic_int n_writers_done;

static void writer_run(void *arg)
{
	char who[8];
	snprintf(who, sizeof(who), "w%d", (int)(intptr_t)arg);
	for (uint32_t i = 0; i < EACH; i++) {
		log_one(RECORD_DELIVERY, who, i, MONO_NEVER);
		if (i % 16 == 0)
			fiber_yield();
	}
	atomic_fetch_add(&n_writers_done, 1);
}

static void crowd_run(void *arg)
{
	for (int i = 0; i < WRITERS; i++)
		worker_start_fiber(worker_get((unsigned)i % 2), "writer", writer_run, (void *)(intptr_t)i);
	while (atomic_load(&n_writers_done) < WRITERS)
		CHECK(fiber_sleep(dur_ms(5), MONO_NEVER) == 0);
}

static void check_crowd(const struct buf *all)
{
	uint32_t next[WRITERS] = {0};
	str_t rest = buf_str(all), line;
	assert_int_equal(count_lines(all), WRITERS * EACH);
	while (str_split(&rest, '\n', &line) && line.n > 0) {
		json_t *v = json_loadb(line.p, line.n, 0, NULL);
		assert_non_null(v);
		int who = atoi(json_string_value(json_object_get(v, "queue")) + 1);
		assert_int_equal(json_integer_value(json_object_get(v, "num_attempts")), next[who]++);
		json_decref(v);
	}
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(next[i], EACH);
}

static void every_record_arrives_once_in_order(void **state)
{
	struct buf all = BUF_INIT;
	char *name = xasprintf("log_submit_latency_count{logger=\"dir-%s/logs\"} ", dir);
	logger_add("{'log_dir': 'DIR/logs'}");
	assert_true(record_is_wanted(RECORD_DELIVERY));
	atomic_store(&n_writers_done, 0);
	in_fiber(crowd_run, NULL);
	assert_int_equal(metric_of(name), WRITERS * EACH);
	record_stop();
	assert_false(record_is_wanted(RECORD_DELIVERY));
	char *path = xasprintf("%s/logs", dir);
	assert_int_equal(dir_read(path, "", &all), 1);
	check_crowd(&all);
	buf_fini(&all);
	free(path), free(name);
}

/* With room for three records, all but three of the writers wait most of the time. */
static void back_pressure_slows_but_loses_nothing(void **state)
{
	struct buf all = BUF_INIT;
	logger_add("{'log_dir': 'DIR', 'back_pressure': 3, 'max_file_size': 200000}");
	atomic_store(&n_writers_done, 0);
	in_fiber(crowd_run, NULL);
	char *name = xasprintf("log_submit_full{logger=\"dir-%s\"} ", dir);
	assert_true(metric_of(name) > 0);
	free(name);
	record_stop();
	assert_true(dir_read(dir, "", &all) > 10);
	check_crowd(&all);
	buf_fini(&all);
}

/* --- what goes where --- */

static void records_go_where_the_configuration_says(void **state)
{
	static const struct {
		const char *sub, *suffix, *want;
	} files[] = {
		{"main", "_recv", "Reception "},
		{"main", "_both", "OOB Feedback "}, /* one file for two types that agree */
		{"else", "", "Delivery "},
		{"main", ".csv", NULL},
	};
	logger_add("{'log_dir': 'DIR/main', 'per_record': {'Reception': "
		   "{'suffix': '_recv'}, 'Delivery': {'log_dir': 'DIR/else'},'OOB': "
		   "{'suffix': '_both'}, 'Feedback': {'suffix': "
		   "'_both'},'TransientFailure': {'enable': false}, 'Any': "
		   "{'enable': false},'Bounce': {'suffix': '.csv', 'segment_header': "
		   "'# head\\n', 'template': '{{ type }}! {{ response.code }}'}}}");
	assert_true(record_is_wanted(RECORD_OOB));
	assert_false(record_is_wanted(RECORD_EXPIRATION));
	for (int t = 0; t < RECORD_TYPE_COUNT; t++)
		log_one((enum record_type)t, "q", 0, MONO_NEVER);
	record_stop();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct buf all = BUF_INIT, types = BUF_INIT;
		char *path = xasprintf("%s/%s", dir, files[i].sub);
		assert_int_equal(dir_read(path, files[i].suffix, &all), 1);
		str_t rest = buf_str(&all), line;
		while (files[i].want != NULL && str_split(&rest, '\n', &line) && line.n > 0) {
			json_t *v = json_loadb(line.p, line.n, 0, NULL);
			buf_printf(&types, "%s ", json_string_value(json_object_get(v, "type")));
			json_decref(v);
		}
		if (files[i].want != NULL)
			assert_string_equal(types.p, files[i].want);
		else
			assert_string_equal(all.p, "# head\nBounce! 0\n");
		buf_fini(&all);
		buf_fini(&types);
		free(path);
	}
}

static void two_loggers_may_share_a_directory(void **state)
{
	struct buf all = BUF_INIT;
	char *left = xasprintf("%s/20200101-000000", dir);
	close(open(left, O_CREAT | O_WRONLY, 0600));
	logger_add("{'log_dir': 'DIR'}");
	assert_int_equal(path_mode(left), 0400); /* of an earlier run */
	log_one(RECORD_RECEPTION, "q", 0, MONO_NEVER);
	await_lines(dir, 1);
	logger_add("{'log_dir': 'DIR/.'}");
	log_one(RECORD_RECEPTION, "q", 1, MONO_NEVER);
	char *path[8];
	size_t n = dir_list(dir, "", path, 8);
	for (size_t i = 0; i < n; i++) {
		if (strcmp(path[i], left) != 0)
			assert_int_equal(path_mode(path[i]) & 0200,
					 0200); /* live, not marked by the second */
		free(path[i]);
	}
	record_stop();
	assert_int_equal(dir_read(dir, "", &all), 2);
	assert_int_equal(count_lines(&all), 3);
	buf_fini(&all);
	free(left);
}

/* --- segments --- */

static void a_live_segment_can_be_followed(void **state)
{
	logger_add("{'log_dir': 'DIR'}");
	for (uint32_t i = 0; i < 3; i++) {
		log_one(RECORD_RECEPTION, "q", i, MONO_NEVER);
		assert_int_equal(await_lines(dir, i + 1), i + 1);
	}
	record_stop();
}

/* Somebody takes the directory away, with the segment that is being written in it: what is logged after that
 * has one again. */
static void a_directory_that_is_gone_comes_back(void **state)
{
	char *aside = xasprintf("%s.aside", dir);
	mono_t give_up = mono_after(dur_s(60));
	logger_add("{'log_dir': 'DIR', 'max_segment_duration': '2s', 'back_pressure': 10}");
	log_one(RECORD_DELIVERY, "q", 0, MONO_NEVER);
	await_lines(dir, 1);
	CHECK(rename(dir, aside) == 0);
	for (uint32_t i = 1; access(dir, F_OK) != 0; i++) {
		log_one(RECORD_DELIVERY, "q", i, give_up);
		CHECK(!mono_is_past(give_up));
		nap();
	}
	log_one(RECORD_DELIVERY, "last", 0, give_up);
	record_stop();
	CHECK(await_lines(dir, 1) > 0 && await_lines(aside, 1) > 0);
	dir_remove(aside);
	free(aside);
}

static void an_idle_segment_ends_in_time(void **state)
{
	char *path[2];
	logger_add("{'log_dir': 'DIR', 'max_segment_duration': '1s'}");
	log_one(RECORD_RECEPTION, "q", 0, MONO_NEVER);
	await_lines(dir, 1);
	assert_int_equal(dir_list(dir, "", path, 2), 1);
	for (mono_t give_up = mono_after(dur_s(60)); (path_mode(path[0]) & 0222) != 0; nap())
		assert_false(mono_is_past(give_up));
	struct buf all = BUF_INIT;
	assert_true(zstd_read(path[0], &all));
	buf_fini(&all);
	free(path[0]);
	record_stop();
}

/* --- a full disk --- */

static void waiter_run(void *arg)
{
	log_one(RECORD_DELIVERY, "waiter", 0, MONO_NEVER);
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void full_disk_run(void *arg)
{
	uint32_t *n_sent = arg;
	atomic_int n_done = 0;
	struct fiber_group g;
	fiber_group_init(&g);
	limit_file_size(0);
	while (n_lost() == 0) { /* back pressure is reached, and the deadline too */
		log_one(RECORD_DELIVERY, "q", (*n_sent)++, mono_after(dur_ms(50)));
		CHECK(*n_sent < 1000000);
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	}
	for (int i = 0; i < 3; i++)
		fiber_start(&g, "waiter", waiter_run, &n_done);
	CHECK(fiber_sleep(dur_ms(100), MONO_NEVER) == 0);
	CHECK(atomic_load(&n_done) == 0);

	struct fiber *f = fiber_start(&g, "cancelled", waiter_run, &n_done);
	fiber_yield();
	fiber_cancel(f); /* does not wait, and is not lost either */
	while (atomic_load(&n_done) < 1)
		CHECK(fiber_sleep(dur_ms(1), MONO_NEVER) == 0);
	CHECK(atomic_load(&n_done) == 1);

	limit_file_size(RLIM_INFINITY);
	CHECK(fiber_group_join(&g, mono_after(dur_s(60))) == 0);
	*n_sent += 4;
}

static void a_full_disk_loses_only_what_timed_out(void **state)
{
	uint32_t n_sent = 0;
	struct buf all = BUF_INIT;
	logger_add("{'log_dir': 'DIR', 'back_pressure': 10}");
	in_fiber(full_disk_run, &n_sent);
	uint64_t lost = (uint64_t)n_lost();
	assert_in_range(lost, 1, 2);
	record_stop();
	assert_int_equal(dir_read(dir, "", &all), 1);
	assert_int_equal(count_lines(&all), n_sent - lost);
	buf_fini(&all);
}

static void stopping_on_a_full_disk_ends(void **state)
{
	logger_add("{'log_dir': 'DIR'}");
	limit_file_size(0);
	for (uint32_t i = 0; i < 10; i++)
		log_one(RECORD_DELIVERY, "q", i, MONO_NEVER);
	mono_t start = mono_now();
	record_stop();
	limit_file_size(RLIM_INFINITY);
	assert_true(mono_sub(mono_now(), start).ns < 60 * NS_PER_S);
	char *path[2];
	assert_int_equal(dir_list(dir, "", path, 2), 1);
	assert_int_not_equal(path_mode(path[0]) & 0200, 0); /* not marked whole: it is not */
	free(path[0]);
}

/* --- a killed process --- */

static void a_killed_process_leaves_readable_lines(void **state)
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		logger_add("{'log_dir': 'DIR'}");
		for (uint32_t i = 0;; i++) {
			log_one(RECORD_DELIVERY, "q", i, MONO_NEVER);
			if (i % 100 == 99)
				nap();
		}
	}
	size_t seen = await_lines(dir, 500);
	int status;
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	struct buf all = BUF_INIT;
	assert_int_equal(dir_read(dir, "", &all), 0);
	str_t rest = buf_str(&all), line;
	size_t n = 0;
	while (str_split(&rest, '\n', &line) && rest.n > 0) {
		json_t *v = json_loadb(line.p, line.n, 0, NULL);
		assert_non_null(v);
		assert_int_equal(json_integer_value(json_object_get(v, "num_attempts")), n++);
		json_decref(v);
	}
	assert_true(n + 1 >= seen);
	buf_fini(&all);

	char *path[2];
	assert_int_equal(dir_list(dir, "", path, 2), 1);
	assert_int_not_equal(path_mode(path[0]) & 0222, 0);
	logger_add("{'log_dir': 'DIR'}"); /* the next start */
	assert_int_equal(path_mode(path[0]) & 0222, 0);
	free(path[0]);
	record_stop();
}

/* --- headers of a message that is not in memory --- */

static int n_loads;

static int load_body(struct message *m, mono_t deadline)
{
	n_loads++;
	struct body *b = body_new(STR("Subject: from the spool\r\n\r\n"));
	message_set_body(m, b);
	body_unref(b);
	return 0;
}

static int load_nothing(struct message *m, mono_t deadline)
{
	err_set(ERR_NOT_FOUND, "not in the spool");
	return -1;
}

static void headers_come_from_the_spool(void **state)
{
	struct buf all = BUF_INIT;
	n_loads = 0;
	logger_add("{'log_dir': 'DIR', 'headers': ['subject']}");
	struct message *m = message_make("Subject: in memory\r\n\r\n");
	struct record r = {.type = RECORD_DELIVERY, .msg = m};
	record_set_body_loader(load_body);
	record_log(&r, MONO_NEVER);
	assert_int_equal(n_loads, 0);
	message_set_body(m, NULL);
	record_log(&r, MONO_NEVER);
	assert_int_equal(n_loads, 1);
	assert_null(m->body);
	record_set_body_loader(load_nothing);
	record_log(&r, MONO_NEVER);
	message_unref(m);
	record_stop();
	assert_int_equal(dir_read(dir, "", &all), 1);
	char *first = strstr(all.p, "\"headers\":{\"Subject\":\"in memory\"}");
	char *second = strstr(all.p, "\"headers\":{\"Subject\":\"from the spool\"}");
	char *third = strstr(all.p, "\"headers\":{}");
	assert_true(first != NULL && first < second && second < third);
	buf_fini(&all);
}

/* --- filter_event --- */

static int lua_on(lua_State *L)
{
	policy_register_handler(L, 1, 2);
	return 0;
}

static int lua_size(lua_State *L)
{
	lua_pushinteger(L, policy_check_message(L, 1)->size_bytes);
	return 1;
}

static void open_test(lua_State *L)
{
	lua_pushcfunction(L, lua_on);
	lua_setfield(L, -2, "on");
	lua_pushcfunction(L, lua_size);
	lua_setfield(L, -2, "size");
}

static void log_sizes(uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		char bytes[64] = "";
		memset(bytes, 'x', i);
		struct message *m = message_make(bytes);
		struct record r = {.type = RECORD_RECEPTION, .msg = m, .n_attempts = i};
		record_log(&r, mono_after(dur_s(60)));
		message_unref(m);
	}
}

static void filter_run(void *arg)
{
	char *file = arg;
	struct policy_params p = {.file = file, .version = "test"};
	policy_add_library(open_test);
	CHECK(policy_start(&p) == 0);
	logger_add("{'log_dir': 'DIR/odd', 'filter_event': 'keep_odd'}");
	logger_add("{'log_dir': 'DIR/boom', 'filter_event': 'boom'}");
	logger_add("{'log_dir': 'DIR/pass', 'filter_event': 'pass'}");
	logger_add("{'log_dir': 'DIR/nobody', 'filter_event': 'nobody'}");
	logger_add("{'log_dir': 'DIR/all'}");
	log_sizes(1, 9);
	struct record rejection = {.type = RECORD_REJECTION, .sender = STR("a@b.example")};
	record_log(&rejection, MONO_NEVER);
	record_stop(); /* yields: its threads are joined elsewhere */
	policy_stop();
}

static void a_filter_event_decides(void **state)
{
	static const struct {
		const char *sub;
		size_t n;
	} dirs[] = {{"odd", 5}, {"boom", 1}, {"pass", 1}, {"nobody", 1}, {"all", 9}};
	char *file = xasprintf("%s/policy.lua", dir);
	FILE *f = fopen(file, "we");
	fputs("local kumo = require 'kumo'\n"
	      "kumo.on('keep_odd', function(msg) return kumo.size(msg) % 2 == 1 end)\n"
	      "kumo.on('boom', function(msg) error('no') end)\n"
	      "kumo.on('pass', function(msg) end)\n",
	      f);
	fclose(f);
	offload_start(4);
	in_fiber(filter_run, file);
	offload_stop();
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		struct buf all = BUF_INIT;
		char *path = xasprintf("%s/%s", dir, dirs[i].sub);
		assert_int_equal(dir_read(path, "", &all), 1);
		assert_int_equal(count_lines(&all), dirs[i].n);
		assert_non_null(strstr(all.p, "\"type\":\"Rejection\""));
		if (i == 0)
			assert_non_null(strstr(all.p, "\"num_attempts\":7,"));
		buf_fini(&all);
		free(path);
	}
	free(file);
}

/* --- configuration --- */

static void mistakes_are_errors_that_name_them(void **state)
{
	static const struct {
		const char *params, *text;
		enum err_kind kind;
	} cases[] = {
		{"{}", "missing field `log_dir`", ERR_INVALID},
		{"{'log_dir': 1}", "expected a string", ERR_INVALID},
		{"{'log_dir': 'DIR', 'log_dri': 'x'}", "unknown field `log_dri`, expected one of `log_dir`, ",
		 ERR_INVALID},
		{"{'log_dir': 'DIR', 'max_file_size': 0}", "max_file_size", ERR_INVALID},
		{"{'log_dir': 'DIR', 'compression_level': 23}", "between 0 and 22", ERR_INVALID},
		{"{'log_dir': 'DIR', 'compression_level': -1}", "between 0 and 22", ERR_INVALID},
		{"{'log_dir': 'DIR', 'back_pressure': 0}", "invalid value", ERR_INVALID},
		{"{'log_dir': 'DIR', 'max_segment_duration': 'soon'}", "expected a duration", ERR_INVALID},
		{"{'log_dir': 'DIR', 'min_free_space': '200%'}", "\"200%\"", ERR_INVALID},
		{"{'log_dir': 'DIR', 'min_free_inodes': 'few'}", "\"few\"", ERR_INVALID},
		{"{'log_dir': 'DIR', 'meta': 'x'}", "expected a sequence", ERR_INVALID},
		{"{'log_dir': 'DIR', 'per_record': 'x'}", "expected a map", ERR_INVALID},
		{"{'log_dir': 'DIR', 'per_record': {'Delivry': {}}}",
		 "unknown variant `Delivry`, expected one of `Reception`", ERR_INVALID},
		{"{'log_dir': 'DIR', 'per_record': {'Any': {'sufix': 'x'}}}",
		 "deserialize error: per_record.Any: "
		 "unknown field `sufix`, expected one of `enable`, `suffix`",
		 ERR_INVALID},
		{"{'log_dir': 'DIR', 'per_record': {'Any': {'suffix': '/x'}}}", "part of a file name",
		 ERR_INVALID},
		{"{'log_dir': 'DIR', 'per_record': {'Bounce': {'template': '{{ 1 +'}}}",
		 "per_record.Bounce: ", ERR_INVALID},
		{"{'log_dir': '/proc/logs'}", "/proc/logs", ERR_IO},
		{"{'log_dir': 'DIR/file'}", "/file", ERR_IO},
		{"{'log_dir': 'DIR', 'per_record': {'OOB': {'log_dir': 'DIR/file/x'}}}", "/file/x", ERR_IO},
	};
	char *file = xasprintf("%s/file", dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int is_validating = 1; is_validating >= 0; is_validating--) {
			assert_int_equal(logger_try(cases[i].params, is_validating), -1);
			if (!err_is(cases[i].kind) || strstr(err_text(), cases[i].text) == NULL)
				fail_msg("%s: %s: %s", cases[i].params, err_kind_name(err_kind()),
					 err_text());
			err_clear();
			assert_false(record_is_wanted(RECORD_RECEPTION));
		}
	}
	free(file);
}

static void validating_makes_directories_and_no_more(void **state)
{
	char *left = xasprintf("%s/20200101-000000", dir), *made = xasprintf("%s/a/b", dir);
	close(open(left, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(
		logger_try("{'log_dir': 'DIR', 'per_record': {'Any': {'log_dir': 'DIR/a/b'}}}", true), 0);
	assert_int_equal(path_mode(left), 0600);
	assert_int_equal(path_mode(made) & 0700, 0700);
	assert_false(record_is_wanted(RECORD_RECEPTION));
	free(left), free(made);
}

static void defaults_are_as_documented(void **state)
{
	param_schema_register(&record_local_logs_schema);
	json_t *v = dir_json(dir, "{'log_dir': 'DIR'}");
	struct param_object *o = param_object_from_json(&record_local_logs_schema, v);
	assert_non_null(o);
	const struct local_logs_params *p = (const struct local_logs_params *)o->data;
	assert_int_equal(p->max_file_size, 1000000000);
	assert_int_equal(p->max_segment_duration.ns, -1);
	assert_int_equal(p->compression_level, 0);
	assert_int_equal(p->back_pressure, 128000);
	assert_int_equal(p->meta.n + p->headers.n, 0);
	assert_null(p->filter_event);
	assert_string_equal(p->min_free_space, "10%");
	assert_string_equal(p->min_free_inodes, "10%");
	param_object_unref(o);
	json_decref(v);
}

static void many_loggers_have_a_limit(void **state)
{
	for (int i = 0; i < 64; i++)
		logger_add("{'log_dir': 'DIR'}");
	assert_int_equal(logger_try("{'log_dir': 'DIR'}", false), -1);
	assert_int_equal(err_kind(), ERR_LIMIT);
	err_clear();
	log_one(RECORD_RECEPTION, "q", 0, MONO_NEVER);
	record_stop();
	struct buf all = BUF_INIT;
	assert_int_equal(dir_read(dir, "", &all), 64);
	assert_int_equal(count_lines(&all), 64);
	buf_fini(&all);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_killed_process_leaves_readable_lines), /* forks: before there are threads */
		T(every_record_arrives_once_in_order),
		T(back_pressure_slows_but_loses_nothing),
		T(records_go_where_the_configuration_says),
		T(two_loggers_may_share_a_directory),
		T(a_live_segment_can_be_followed),
		T(an_idle_segment_ends_in_time),
		T(a_directory_that_is_gone_comes_back),
		T(a_full_disk_loses_only_what_timed_out),
		T(stopping_on_a_full_disk_ends),
		T(headers_come_from_the_spool),
		T(mistakes_are_errors_that_name_them),
		T(validating_makes_directories_and_no_more),
		T(defaults_are_as_documented),
		T(many_loggers_have_a_limit),
		T(a_filter_event_decides),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
