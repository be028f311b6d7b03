/* test_record_disk.c - the disk monitor's limits, verdict and metrics. */
#include "ut.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/metric.h"
#include "record/disk.h"

#include <sys/statvfs.h>

static void limits_are_checked(void **state)
{
	static const char *const good[] = {"0%", "10%", "100%", "0", "1", "123456789012"};
	static const char *const bad[] = {"", "%", "101%", "-1", "10 %", "1.5%", "ten", "10%%", "1k"};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(disk_limit_check(str_of(good[i])), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(disk_limit_check(str_of(bad[i])), -1);
		assert_int_equal(err_kind(), ERR_INVALID);
		assert_non_null(strstr(err_text(), bad[i]));
		err_clear();
	}
}

static void params_take_text_and_numbers(void **state)
{
	static const struct {
		const char *json, *text;
	} cases[] = {{"\"25%\"", "25%"}, {"\"1000\"", "1000"}, {"1000", "1000"}, {"0", "0"},
		     {"-1", NULL},	 {"1.5", NULL},	       {"true", NULL},	 {"\"much\"", NULL},
		     {"[]", NULL},	 {"null", NULL}};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *field = NULL;
		json_t *v = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
		int rc = disk_limit_param_parse(v, &field);
		assert_int_equal(rc, cases[i].text != NULL ? 0 : -1);
		if (rc == 0)
			assert_string_equal(field, cases[i].text);
		else
			err_clear();
		disk_limit_param_fini(&field);
		assert_null(field);
		json_decref(v);
	}
}

static void the_verdict_follows_the_limits(void **state)
{
	static const struct {
		const char *space, *inodes;
		bool is_low;
	} cases[] = {
		{"0%", "0%", false},
		{"0", "0", false},
		{"1", "1", false},
		{"99999999999999999", "0", true},
		{"0", "99999999999999999", true},
		{"100%", "0", true},
	};
	struct statvfs st;
	assert_int_equal(statvfs("/tmp", &st), 0);
	bool has_inodes = st.f_files > 0;
	assert_null(record_disk_health());
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		disk_monitor_add("the spool", "/tmp", str_of(cases[i].space), str_of(cases[i].inodes));
		bool is_inode_case = cases[i].inodes[0] == '9';
		if (cases[i].is_low && (has_inodes || !is_inode_case))
			assert_string_equal(record_disk_health(), "disk is too full");
		else
			assert_null(record_disk_health());
	}
	disk_monitor_add("the spool", "/tmp", STR("99999999999999999"), STR("0"));
	disk_monitor_add("another", "/", STR("0"), STR("0"));
	assert_non_null(record_disk_health()); /* one is enough */
	disk_monitor_add("the spool", "/tmp", STR("0"), STR("0"));
	assert_null(record_disk_health());
	disk_monitor_stop();
}

static void figures_are_metrics(void **state)
{
	struct buf out = BUF_INIT;
	struct statvfs st;
	assert_int_equal(statvfs("/", &st), 0);
	disk_monitor_add("log dir /", "/", STR_NULL, STR_NULL);
	disk_monitor_add("nowhere", "/no/such/path", STR("0"), STR("0"));
	disk_monitor_look();
	metric_render_text(&out, STR("disk_free_"));
	char *pct = xasprintf("disk_free_percent{name=\"log dir /\"} %llu\n",
			      (unsigned long long)st.f_bavail * 100 / (unsigned long long)st.f_blocks);
	assert_non_null(strstr(out.p, pct));
	assert_non_null(strstr(out.p, "# TYPE disk_free_bytes gauge\n"));
	assert_non_null(strstr(out.p, "disk_free_bytes{name=\"log dir /\"} "));
	assert_non_null(strstr(out.p, "disk_free_inodes{name=\"log dir /\"} "));
	assert_non_null(strstr(out.p, "disk_free_inodes_percent{name=\"log dir /\"} "));
	free(pct);
	disk_monitor_stop();
	buf_clear(&out);
	metric_render_text(&out, STR("disk_free_"));
	assert_null(out.n > 0 ? strstr(out.p, "log dir") : NULL);
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_are_checked),
		cmocka_unit_test(params_take_text_and_numbers),
		cmocka_unit_test(the_verdict_follows_the_limits),
		cmocka_unit_test(figures_are_metrics),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
