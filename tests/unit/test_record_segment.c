/* test_record_segment.c - segment files: names, rotation, what a reader sees while one grows, after its end
 * and after a crash, and a file system that refuses. Time is virtual. */
#include "ut.h"
#include "test_dir.h"
#include "zstd_read.h"

#include "base/err.h"
#include "base/uuid.h"
#include "record/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#define WALL_NS INT64_C(1795401212367785595) /* 2026-11-23T02:33:32.367785595Z */

static char *dir;

static int setup(void **state)
{
	dir = dir_make();
	clock_set_virtual((mono_t){1000 * NS_PER_S}, (wall_t){WALL_NS});
	umask(022);
	return 0;
}

static int teardown(void **state)
{
	clock_set_real();
	dir_remove(dir);
	free(dir);
	return 0;
}

static struct segment_writer writer(void)
{
	struct segment_writer w = SEGMENT_WRITER_INIT;
	w.dir = dir;
	w.suffix = "";
	w.max_bytes = 1000000000;
	w.max_age = dur_ns(-1);
	return w;
}

static void put(struct segment_writer *w, const char *line)
{
	assert_int_equal(segment_write(w, str_of(line), STR_NULL), 0);
}

static void names_are_utc_and_never_collide(void **state)
{
	static const struct {
		int64_t ns;
		const char *suffix, *name;
	} cases[] = {
		{WALL_NS, "", "20261123-023332.367785595"},
		{WALL_NS, "", "20261123-023332.367785596"},
		{WALL_NS - WALL_NS % 1000, "_recv", "20261123-023332.367785_recv"},
		{WALL_NS - WALL_NS % 1000000, "", "20261123-023332.367"},
		{WALL_NS - WALL_NS % NS_PER_S, ".csv", "20261123-023332.csv"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct segment_writer w = writer();
		clock_set_virtual(mono_now(), (wall_t){cases[i].ns});
		w.suffix = cases[i].suffix;
		put(&w, "x\n");
		char *path = xasprintf("%s/%s", dir, cases[i].name);
		assert_string_equal(w.path, path);
		assert_int_equal(path_mode(path), 0644);
		assert_int_equal(segment_close(&w), 0);
		assert_int_equal(path_mode(path), 0444);
		assert_int_equal(w.fd, -1);
		assert_null(w.z);
		free(path);
	}
}

static void full_segments_end_between_records(void **state)
{
	struct segment_writer w = writer();
	struct buf all = BUF_INIT;
	w.max_bytes = 10;
	assert_int_equal(segment_room(&w), 10);
	assert_int_equal(segment_write(&w, STR("abc\n"), STR("# head\n")), 0);
	assert_int_equal(segment_room(&w), 6); /* the header is not counted */
	assert_int_equal(segment_write(&w, STR("defgh\n"), STR("# head\n")), 0);
	assert_int_equal(w.fd, -1);
	assert_int_equal(segment_room(&w), 10);
	assert_int_equal(segment_write(&w, STR("a record larger than a segment\n"), STR("# other\n")), 0);
	assert_int_equal(w.fd, -1);
	assert_int_equal(dir_read(dir, "", &all), 2);
	assert_buf_is(&all, "# head\nabc\ndefgh\n# other\na record larger than a segment\n");
	buf_fini(&all);
}

static void old_segments_end_while_idle(void **state)
{
	struct segment_writer w = writer();
	struct buf all = BUF_INIT;
	w.max_age = dur_s(60);
	assert_int_equal(segment_due(&w).ns, MONO_NEVER.ns);
	put(&w, "one\n");
	assert_int_equal(segment_due(&w).ns, mono_after(dur_s(1)).ns);
	clock_advance(dur_s(1));
	assert_int_equal(segment_tick(&w), 0);
	assert_int_equal(segment_due(&w).ns, mono_after(dur_s(59)).ns);
	clock_advance(dur_s(58));
	assert_int_equal(segment_tick(&w), 0);
	assert_int_not_equal(w.fd, -1);
	clock_advance(dur_s(1));
	assert_int_equal(segment_tick(&w), 0);
	assert_int_equal(w.fd, -1);
	assert_int_equal(dir_read(dir, "", &all), 1);

	put(&w, "two\n"); /* nobody ticks: the next write finds it too old */
	clock_advance(dur_s(61));
	put(&w, "three\n");
	assert_int_equal(segment_close(&w), 0);
	buf_clear(&all);
	assert_int_equal(dir_read(dir, "", &all), 3);
	assert_buf_is(&all, "one\ntwo\nthree\n");
	buf_fini(&all);
}

static void a_live_segment_is_readable_after_a_second(void **state)
{
	struct segment_writer w = writer();
	struct buf all = BUF_INIT;
	for (int i = 0; i < 5; i++) {
		put(&w, "record\n");
		clock_advance(dur_s(1));
		assert_int_equal(segment_tick(&w), 0);
		buf_clear(&all);
		assert_int_equal(dir_read(dir, "", &all), 0); /* not whole, but: */
		assert_int_equal(all.n, (size_t)(i + 1) * 7);
	}
	put(&w, "lost with the crash\n");
	segment_writer_fini(&w);
	buf_clear(&all);
	assert_int_equal(dir_read(dir, "", &all), 0);
	assert_buf_is(&all, "record\nrecord\nrecord\nrecord\nrecord\n");
	buf_fini(&all);
}

static void marking_spares_what_is_no_segment(void **state)
{
	char *live = xasprintf("%s/20261123-023332", dir), *dot = xasprintf("%s/.cursor", dir);
	char *sub = xasprintf("%s/sub", dir), *outside = xasprintf("%s.outside", dir),
	     *ln = xasprintf("%s/link", dir);
	close(open(live, O_CREAT | O_WRONLY, 0660));
	close(open(dot, O_CREAT | O_WRONLY, 0600));
	close(open(outside, O_CREAT | O_WRONLY, 0600));
	chmod(live, 0660);
	mkdir(sub, 0755);
	assert_int_equal(symlink(outside, ln), 0);
	assert_int_equal(segment_dir_mark_done(dir), 0);
	assert_int_equal(path_mode(live), 0440);
	assert_int_equal(path_mode(dot), 0600);
	assert_int_equal(path_mode(sub), 0755);
	assert_int_equal(path_mode(outside), 0600);
	unlink(outside);
	free(live), free(dot), free(sub), free(outside), free(ln);
}

static void directories_are_made_or_refused_by_name(void **state)
{
	char *deep = xasprintf("%s/a/b//c/", dir), *file = xasprintf("%s/file", dir),
	     *under = xasprintf("%s/file/x", dir);
	assert_int_equal(segment_dir_prepare(deep), 0);
	assert_int_equal(segment_dir_prepare(deep), 0);
	assert_int_equal(path_mode(deep), 0755);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	const char *const bad[] = {file, under, "/proc/no-logs-here", ""};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(segment_dir_prepare(bad[i]), -1);
		assert_int_equal(err_kind(), ERR_IO);
		assert_non_null(strstr(err_text(), bad[i]));
		err_clear();
	}
	assert_int_equal(segment_dir_mark_done(under), -1);
	assert_non_null(strstr(err_text(), under));
	err_clear();
	free(deep), free(file), free(under);
}

static void a_missing_directory_comes_back(void **state)
{
	struct segment_writer w = writer();
	w.dir = xasprintf("%s/gone", dir);
	put(&w, "x\n");
	assert_int_equal(segment_close(&w), 0);
	assert_int_equal(path_mode(w.dir), 0755);
	free((char *)(uintptr_t)w.dir);
}

static void limit_file_size(rlim_t n_bytes)
{
	struct rlimit r;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
	r.rlim_cur = n_bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

/* A file that may not grow stands for a full disk: write(2) takes a part, then refuses. */
static void a_refusing_file_system_loses_nothing(void **state)
{
	struct segment_writer w = writer();
	struct buf all = BUF_INIT, want = BUF_INIT;
	int n_refused = 0;
	signal(SIGXFSZ, SIG_IGN);
	limit_file_size(10000);
	for (int i = 0; i < 2000; i++) {
		char line[70];
		struct uuid a = uuid_new_v4(), b = uuid_new_v4();
		uuid_fmt_simple(&a, line);
		uuid_fmt_simple(&b, line + 32);
		line[64] = '\n';
		if (i % 100 == 99) {
			clock_advance(dur_s(1));
			if (segment_tick(&w) != 0)
				err_clear();
		}
		while (segment_write(&w, str_mk(line, 65), STR_NULL) != 0) {
			assert_int_equal(err_kind(), ERR_IO);
			assert_non_null(strstr(err_text(), w.path));
			err_clear();
			n_refused++;
			assert_true(mono_now().ns >= segment_due(&w).ns);
			assert_int_equal(segment_close(&w), -1); /* nor does it end half-written */
			err_clear();
			assert_int_equal(path_mode(w.path) & 0200, 0200);
			struct rlimit r;
			getrlimit(RLIMIT_FSIZE, &r);
			limit_file_size(r.rlim_cur + 10000);
		}
		buf_add(&want, line, 65);
	}
	limit_file_size(RLIM_INFINITY);
	assert_int_equal(segment_close(&w), 0);
	assert_true(n_refused > 2);
	assert_true(dir_read(dir, "", &all) >= 1);
	assert_int_equal(all.n, want.n);
	assert_memory_equal(all.p, want.p, want.n);
	buf_fini(&all);
	buf_fini(&want);
}

static void every_level_works_in_little_memory(void **state)
{
	for (int level = 0; level <= 22; level++) {
		struct segment_writer w = writer();
		struct buf all = BUF_INIT;
		const char *line = "{\"type\":\"Reception\",\"id\":\"466d82dde6e611f1bb36320a5753b5c1\"}\n";
		char suffix[16];
		snprintf(suffix, sizeof(suffix), ".%d", level);
		w.level = level;
		w.suffix = suffix;
		for (int i = 0; i < 1000; i++)
			put(&w, line);
		if (level <= 3)
			assert_in_range(ZSTD_sizeof_CCtx(w.z) + w.out.cap, 1, 1000000);
		assert_int_equal(segment_close(&w), 0);
		assert_int_equal(dir_read(dir, suffix, &all), 1);
		assert_int_equal(all.n, 1000 * strlen(line));
		buf_fini(&all);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(names_are_utc_and_never_collide),    T(full_segments_end_between_records),
		T(old_segments_end_while_idle),	       T(a_live_segment_is_readable_after_a_second),
		T(marking_spares_what_is_no_segment),  T(directories_are_made_or_refused_by_name),
		T(a_missing_directory_comes_back),     T(a_refusing_file_system_loses_nothing),
		T(every_level_works_in_little_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
