/* KeySource as an event of the policy: arguments, results, and what a handler does wrong. */
#include "base/alloc.h"
#include "bind/bind.h"
#include "fiber/offload.h"
#include "fiber_check.h"
#include "net/keysource.h"
#include "policy/policy.h"

#include <string.h>
#include <unistd.h>

static const char policy[] = "local kumo = require 'kumo'\n"
			     "kumo.on('get_key', function(domain, n, opts, null)\n"
			     "  assert(domain == 'example.com' and n == 7 and opts.deep[2] == true)\n"
			     "  kumo.sleep(0.001)\n"
			     "  return 'key of ' .. domain .. '\\0\\255'\n"
			     "end)\n"
			     "kumo.on('count', function(...) return tostring(select('#', ...)) end)\n"
			     "kumo.on('number', function() return 7 end)\n"
			     "kumo.on('table', function() return { key_data = 'hush' } end)\n"
			     "kumo.on('null', function() return nil end)\n"
			     "kumo.on('nothing', function() end)\n"
			     "kumo.on('raises', function() error('no such key') end)\n"
			     "kumo.on('slow', function() kumo.sleep(60) return 'late' end)\n"
			     "kumo.on('large', function() return string.rep('x', 1024 * 1024 + 1) end)\n";

static struct keysource source_of(const char *text)
{
	struct keysource ks;
	json_error_t e;
	json_t *v = json_loads(text, 0, &e);
	CHECK(v != NULL && keysource_parse_json(v, &ks) == 0);
	json_decref(v);
	return ks;
}

static void check_loads(const char *source, str_t expected)
{
	struct keysource ks = source_of(source);
	struct secret *s = keysource_load(&ks, mono_after(dur_s(30)));
	CHECK(s != NULL && secret_eq(s, expected));
	secret_unref(s);
	keysource_fini(&ks);
}

static void check_load_fails(const char *event, enum err_kind kind, const char *why, dur_t patience)
{
	char source[100], expected[300];
	snprintf(source, sizeof(source), "{\"event_name\": \"%s\"}", event);
	snprintf(expected, sizeof(expected), "KeySource failed to load data from event `%s`: ", event);
	struct keysource ks = source_of(source);
	struct secret *s = keysource_load(&ks, mono_after(patience));
	if (s != NULL || err_kind() != kind || strstr(err_text(), why) == NULL)
		fprintf(stderr, "%s: %s: %s\n", event, err_kind_name(err_kind()), err_text());
	CHECK(s == NULL && err_is(kind));
	CHECK(strncmp(err_text(), expected, strlen(expected)) == 0 && strstr(err_text(), why) != NULL);
	CHECK(strstr(err_text(), "hush") == NULL);
	err_clear();
	keysource_fini(&ks);
}

static void events_run(void *arg)
{
	struct policy_params p = {.file = arg, .version = "test"};
	CHECK(policy_start(&p) == 0);
	check_loads("{\"event_name\": \"get_key\", \"event_args\": "
		    "[\"example.com\", 7, {\"deep\": [1, true]}, null]}",
		    STR("key of example.com\0\377"));
	check_loads("{\"event_name\": \"count\"}", STR("0"));
	check_loads("{\"event_name\": \"count\", \"event_args\": [1, 2, null]}", STR("3"));
	check_loads(
		"{\"event_name\": \"count\", \"event_args\": "
		"[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32]}",
		STR("32"));
	dur_t patience = dur_s(30);
	check_load_fails("absent", ERR_NOT_FOUND, "the policy has no handler for it", patience);
	check_load_fails(
		"number", ERR_INVALID,
		"its handler returned a value of the type number where the key is expected as a string",
		patience);
	check_load_fails("table", ERR_INVALID, "its handler returned a value of the type table", patience);
	check_load_fails("null", ERR_INVALID, "its handler returned a value of the type nil", patience);
	check_load_fails("nothing", ERR_INVALID, "its handler returned no value", patience);
	check_load_fails("raises", ERR_LUA, "no such key", patience);
	check_load_fails("large", ERR_LIMIT, "it is larger than 1048576 bytes", patience);
	struct keysource ks = source_of("{\"event_name\": \"slow\"}");
	CHECK(keysource_load(&ks, mono_after(dur_ms(30))) == NULL);
	err_clear();
	keysource_fini(&ks);
	check_loads("{\"event_name\": \"count\"}", STR("0"));
	policy_stop();
}

static void test_events(void **state)
{
	char path[] = "/tmp/cirrus-keysource-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, policy, sizeof(policy) - 1) == (ssize_t)sizeof(policy) - 1);
	close(fd);
	workers_start(2);
	offload_start(2);
	bind_register_core(); /* serves KeySources, too */
	worker_run(events_run, path);
	workers_stop(mono_after(dur_s(10)));
	offload_stop();
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_events)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
