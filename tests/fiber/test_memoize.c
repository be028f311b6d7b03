/* kumo.memoize: what is kept, for whom, for how long, and that of many callers one computes. */
#include "base/alloc.h"
#include "base/metric.h"
#include "bind/bind_aaa.h"
#include "policy/memoize.h"
#include "policy_env.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_int n_computed; /* calls of probe() by the policy */

static int probe(lua_State *L)
{
	lua_pushinteger(L, atomic_fetch_add(&n_computed, 1) + 1);
	return 1;
}

static void open_probe(lua_State *L)
{
	lua_pushcfunction(L, probe);
	lua_setglobal(L, "probe");
}

static int start(const char *text)
{
	char *whole = xasprintf("local kumo = require 'kumo'\n%s", text);
	atomic_store(&n_computed, 0);
	int rc = env_start(whole);
	free(whole);
	return rc;
}

static int setup(void **state)
{
	env_begin(2);
	bind_register_aaa();
	policy_add_library(open_probe);
	return 0;
}

static int teardown(void **state)
{
	env_end();
	return 0;
}

static void check_call(const char *event, const char *arg, const char *expected)
{
	char out[200];
	int rc = env_call(event, arg, out, soon());
	if (rc != 1 || strcmp(out, expected) != 0) {
		fprintf(stderr, "%s(%s): %d, got %s\nexpected %s\n", event, arg, rc,
			rc == 1 ? out : err_text(), expected);
		abort();
	}
}

static void check_call_fails(const char *event, const char *text)
{
	char out[200];
	if (env_call(event, "", out, soon()) != -1 || strstr(err_text(), text) == NULL) {
		fprintf(stderr, "%s: %s\nexpected an error with %s\n", event, err_text(), text);
		abort();
	}
	err_clear();
}

#define RUN(fn)                             \
	static void test_##fn(void **state) \
	{                                   \
		worker_run(fn, NULL);       \
	}

/* What comes out of the cache is what came out of the function, in every Lua state: each call of an event
 * that fails or bumps gets a new one. */
static void results(void *arg)
{
	CHECK(start("local function same(name, fn)\n"
		    "  local f = kumo.memoize(fn, { name = name, ttl = '1 hour', capacity = 10 })\n"
		    "  kumo.on(name, function(check) return load(check)()(f) end)\n"
		    "end\n"
		    "same('r.nil', function() probe() return nil end)\n"
		    "same('r.none', function() probe() end)\n"
		    "same('r.many', function() probe() return 1, 2.0, 'a\\0\\xff', true, nil, false end)\n"
		    "same('r.table', function() probe() return { a = { 1, 2, { b = 'c' } }, d = 1.5 } end)\n"
		    "same('r.map', function() probe() return kumo.aaa.load_acl_map { key_data = "
		    "'{\"acl\":{}}' } end)\n"
		    "same('r.list', function() probe() return kumo.aaa.make_access_control_list {} end)\n") ==
	      0);
	static const struct {
		const char *event, *check;
	} cases[] = {
		{"r.nil", "return function(f) return select('#', f()) == 1 and f() == nil end"},
		{"r.none", "return function(f) return select('#', f()) == 0 end"},
		{"r.many", "return function(f) local a, b, c, d, e, g = f() return math.type(a) == 'integer' "
			   "and math.type(b) == 'float' and "
			   "c == 'a\\0\\xff' and d == true and e == nil and g == false end"},
		{"r.table", "return function(f) local t = f() local u = f() t.a[1] = 'changed' return u.a[1] "
			    "== 1 and u.a[3].b == 'c' and u.d == 1.5 end"},
		{"r.map", "return function(f) return f():get('nothing') == nil end"},
		{"r.list", "return function(f) return #f() == 0 end"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		atomic_store(&n_computed, 0);
		check_call(cases[i].event, cases[i].check, "true");
		policy_bump_epoch(); /* a fresh state */
		check_call(cases[i].event, cases[i].check, "true");
		CHECK(atomic_load(&n_computed) == 1);
	}
	policy_stop();
}
RUN(results)

static void keys_and_capacity(void *arg)
{
	CHECK(start("local f = kumo.memoize(function(...) return probe() end, { name = 'keys', ttl = '1 "
		    "hour', capacity = 3 })\n"
		    "kumo.on('k', function(args) return f(table.unpack(load('return ' .. args)())) end)\n") ==
	      0);
	check_call("k", "{'a'}", "1");
	check_call("k", "{'a', 'b'}", "2");
	check_call("k", "{'a'}", "1");
	check_call("k", "{'ab'}", "3");
	check_call("k", "{'a'}", "1");
	check_call("k", "{{y = 2, x = 1}}", "4"); /* over the capacity: ('a', 'b') was used the longest ago */
	check_call("k", "{{x = 1, y = 2}}", "4");
	check_call("k", "{'a'}", "1");
	check_call("k", "{'a', 'b'}", "5");
	check_call("k", "{1}", "6");
	check_call("k", "{'1'}", "7");
	policy_stop();
}
RUN(keys_and_capacity)

static void expiry(void *arg)
{
	CHECK(start("local function on(name, params)\n"
		    "  params.name, params.capacity = name, 1\n"
		    "  local f = kumo.memoize(function() return probe() end, params)\n"
		    "  kumo.on(name, function() return f() end)\n"
		    "end\n"
		    "on('e.short', { ttl = 0.02 })\n"
		    "on('e.epoch', { ttl = 3600, invalidate_with_epoch = true })\n"
		    "on('e.long', { ttl = '1 hour' })\n") == 0);
	check_call("e.short", "", "1");
	CHECK(fiber_sleep(dur_ms(30), soon()) == 0);
	check_call("e.short", "", "2");
	check_call("e.epoch", "", "3");
	check_call("e.epoch", "", "3");
	check_call("e.long", "", "4");
	policy_bump_epoch();
	check_call("e.epoch", "", "5");
	check_call("e.long", "", "4");
	policy_stop();
}
RUN(expiry)

static void errors(void *arg)
{
	CHECK(start("local function on(name, fn)\n"
		    "  local f = kumo.memoize(fn, { name = name, ttl = '1 hour', capacity = 1 })\n"
		    "  kumo.on(name, function(a) return f(a) end)\n"
		    "end\n"
		    "on('x.fails', function() if probe() < 2 then error('not yet') end return 'now' end)\n"
		    "on('x.rejects', function() kumo.reject(451, 'later') end)\n"
		    "on('x.function', function() return print end)\n"
		    "on('x.nested', function() return { kumo.aaa.make_access_control_list {} } end)\n"
		    "on('x.loop', function() local t = {} t[1] = t return t end)\n"
		    "kumo.on('x.key', function() return kumo.memoize(function() end, { name = 'k', ttl = 1, "
		    "capacity = 1 })(print) end)\n") == 0);
	check_call_fails("x.fails", "not yet");
	check_call("x.fails", "", "now"); /* an error is not kept */
	check_call("x.fails", "", "now");
	CHECK(atomic_load(&n_computed) == 2);
	check_call_fails("x.rejects", "later");
	check_call_fails("x.function", "the cache `x.function`: result 1: a function cannot be represented");
	check_call_fails("x.nested", "an object inside a table cannot be kept");
	check_call_fails("x.loop", "nested deeper");
	check_call_fails("x.key", "memoize: argument 1: a function cannot be represented");
	policy_stop();
	static const char *const bad[][2] = {
		{"kumo.memoize(print, { ttl = 1, capacity = 1 })", "missing field `name`"},
		{"kumo.memoize(print, { name = 'n', ttl = 1, capacity = 0 })", "capacity"},
		{"kumo.memoize(print, { name = 'n', ttl = 'soon', capacity = 1 })", "ttl"},
		{"kumo.memoize(print, { name = 'n', ttl = 1, capacity = 1, size = 2 })",
		 "unknown field `size`, expected one of"},
		{"kumo.memoize({}, { name = 'n', ttl = 1, capacity = 1 })", "function expected"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK(start(bad[i][0]) != 0);
		if (strstr(err_text(), bad[i][1]) == NULL) {
			fprintf(stderr, "%s: %s\n", bad[i][0], err_text());
			abort();
		}
		err_clear();
	}
}
RUN(errors)

/* --- many callers --- */

static struct event *all_done;
static atomic_int n_left, n_failed;

static void caller(void *arg)
{
	char out[200];
	int rc = env_call(arg, "x", out, soon());
	if (rc != 1) {
		CHECK(strstr(err_text(), "was not populated in time") != NULL);
		err_clear();
		atomic_fetch_add(&n_failed, 1);
	}
	if (atomic_fetch_sub(&n_left, 1) == 1)
		event_fire(all_done);
}

static void call_from_everywhere(char *event, int n)
{
	all_done = event_new();
	atomic_store(&n_left, n);
	atomic_store(&n_failed, 0);
	for (int i = 0; i < n; i++)
		worker_start_fiber(worker_get((unsigned)i % workers_count()), "caller", caller, event);
	CHECK(event_wait(all_done, soon()) == 0);
	event_unref(all_done);
}

static void crowds(void *arg)
{
	static char once[] = "c.once", impatient[] = "c.impatient", retrying[] = "c.retrying",
		    stale[] = "c.stale";
	CHECK(start("local function on(name, params)\n"
		    "  params.name, params.capacity = name, 1\n"
		    "  local f = kumo.memoize(function() local n = probe() kumo.sleep(0.2) return n end, "
		    "params)\n"
		    "  kumo.on(name, function() return f() end)\n"
		    "end\n"
		    "on('c.once', { ttl = 3600 })\n"
		    "on('c.impatient', { ttl = 3600, populate_timeout = 0.02 })\n"
		    "on('c.retrying', { ttl = 3600, populate_timeout = 0.02, retry_on_populate_timeout = "
		    "true })\n"
		    "on('c.stale', { ttl = 0.001, allow_stale_reads = true })\n") == 0);
	call_from_everywhere(once, 20);
	CHECK(atomic_load(&n_computed) == 1 && atomic_load(&n_failed) == 0);
	atomic_store(&n_computed, 0);
	call_from_everywhere(impatient, 20);
	CHECK(atomic_load(&n_computed) == 1 && atomic_load(&n_failed) == 19);
	atomic_store(&n_computed, 0);
	call_from_everywhere(retrying, 5);
	CHECK(atomic_load(&n_computed) == 5 && atomic_load(&n_failed) == 0);
	atomic_store(&n_computed, 0);
	check_call(stale, "", "1");
	CHECK(fiber_sleep(dur_ms(5), soon()) == 0);
	call_from_everywhere(stale, 20);
	CHECK(atomic_load(&n_computed) == 2 && atomic_load(&n_failed) == 0);
	policy_stop();
}
RUN(crowds)

static int64_t count(const char *metric)
{
	static const char *const label[] = {"cache_name", NULL};
	str_t name = STR("metered");
	struct metric_series *s =
		metric_get(metric_declare(METRIC_COUNTER, metric, "", label, NULL, 0), &name);
	int64_t n = metric_value(s);
	metric_series_unref(s);
	return n;
}

static void metrics(void *arg)
{
	CHECK(start("local f = kumo.memoize(function() return probe() end, { name = 'metered', ttl = 3600, "
		    "capacity = 1 })\n"
		    "kumo.on('m', function() return f() end)\n") == 0);
	for (int i = 0; i < 3; i++)
		check_call("m", "", "1");
	CHECK(count("memoize_cache_lookup_count") == 3 && count("memoize_cache_hit_count") == 2);
	CHECK(count("memoize_cache_miss_count") == 1 && count("memoize_cache_populated_count") == 1);
	policy_stop();
}
RUN(metrics)

/* --- a cache of one's own --- */

static atomic_int n_values;

static void value_free(struct memo_value *v)
{
	atomic_fetch_sub(&n_values, 1);
	free(v);
}

static struct memo_value *value_new(dur_t max_ttl)
{
	struct memo_value *v = xnew(struct memo_value);
	atomic_init(&v->refs, 1);
	v->free_fn = value_free;
	v->max_ttl = max_ttl;
	atomic_fetch_add(&n_values, 1);
	return v;
}

/* Whether it is there; if not, it is from now on. */
static bool has(struct memo_cache *c, const char *key, dur_t max_ttl)
{
	struct memo_value *v = NULL;
	uint64_t epoch = policy_epoch();
	int rc = memo_begin(c, str_of(key), &v, soon());
	CHECK(rc >= 0);
	if (rc == 0) {
		v = value_new(max_ttl);
		memo_finish(c, str_of(key), v, epoch);
	}
	memo_value_unref(v);
	return rc == 1;
}

static void own(void *arg)
{
	CHECK(start("") == 0);
	static struct memo_cache *c;
	c = memo_cache_new(&(struct memo_params){
		.ttl = dur_s(3600), .capacity = 3, .invalidate_with_epoch = true, .populate_timeout = {-1}});
	CHECK(!has(c, "a", DUR_ZERO) && !has(c, "b", DUR_ZERO) && !has(c, "c", DUR_ZERO));
	CHECK(has(c, "a", DUR_ZERO)); /* b is now the least recently used */
	CHECK(!has(c, "d", DUR_ZERO) && atomic_load(&n_values) == 3);
	CHECK(has(c, "a", DUR_ZERO) && has(c, "c", DUR_ZERO) && has(c, "d", DUR_ZERO));
	memo_cache_clear(c);
	CHECK(atomic_load(&n_values) == 0);

	CHECK(!has(c, "short", dur_ms(1)));
	CHECK(fiber_sleep(dur_ms(5), soon()) == 0);
	CHECK(!has(c, "short", dur_s(7200)));
	CHECK(has(c, "short", DUR_ZERO));

	struct memo_value *v = NULL;
	memo_cache_set_ttl(c, DUR_ZERO); /* then nobody waits for anybody */
	CHECK(memo_begin(c, STR("x"), &v, soon()) == 0 && memo_begin(c, STR("x"), &v, soon()) == 0);
	memo_finish(c, STR("x"), NULL, policy_epoch());
	memo_finish(c, STR("x"), NULL, policy_epoch());
	CHECK(!has(c, "x", DUR_ZERO) && !has(c, "x", DUR_ZERO));
	memo_cache_clear(c);
	CHECK(atomic_load(&n_values) == 0);
	policy_stop();
}
RUN(own)

#define TEST(fn) cmocka_unit_test_setup_teardown(test_##fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(results), TEST(keys_and_capacity), TEST(expiry), TEST(errors),
					   TEST(crowds),  TEST(metrics),	   TEST(own)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
