/* The policy: events and their chains, states and their pools, epochs, errors, waiting and runaway
 * handlers. */
#include "policy_env.h"

#include <stdatomic.h>
#include <unistd.h>

static int setup(void **state)
{
	env_begin(2);
	return 0;
}

static int teardown(void **state)
{
	env_end();
	return 0;
}

static int start(const char *text)
{
	return env_start(text);
}

static void check_error(int rc, enum err_kind kind, const char *text)
{
	if (rc != -1 || !err_is(kind) || strstr(err_text(), text) == NULL) {
		fprintf(stderr, "returned %d, %s: %s\nexpected %s\n", rc, err_kind_name(err_kind()),
			err_text(), text);
		abort();
	}
	err_clear();
}

/* --- registering and chains --- */

static void chains(void *arg)
{
	char out[200];
	CHECK(start("local kumo = require 'kumo'\n"
		    "assert(_KUMO_CURRENT_EVENT == nil and _VALIDATING_CONFIG == nil)\n"
		    "assert(kumo.version == '" ENV_VERSION "')\n"
		    "kumo.on('get_queue_config', function(a) if a == 'one' then return 'first' end end)\n"
		    "kumo.on('get_queue_config', function(a) if a == 'nil' then return nil end end)\n"
		    "kumo.on('get_queue_config', function(a) if a == 'two' then return 'third', 5 end end)\n"
		    "kumo.on('custom.event', function(a) return _KUMO_CURRENT_EVENT .. a end)\n"
		    "kumo.on('quiet', function() end)\n") == 0);
	CHECK(policy_has_handler("get_queue_config") && policy_has_handler("quiet") &&
	      !policy_has_handler("init"));
	CHECK(env_call("get_queue_config", "one", out, soon()) == 1 && strcmp(out, "first") == 0);
	CHECK(env_call("get_queue_config", "two", out, soon()) == 1 && strcmp(out, "third") == 0);
	CHECK(env_call("get_queue_config", "nil", out, soon()) == 1 && strcmp(out, "nil") == 0);
	CHECK(env_call("get_queue_config", "none", out, soon()) == 0);
	CHECK(env_call("custom.event", "!", out, soon()) == 1 && strcmp(out, "custom.event!") == 0);
	CHECK(env_call("quiet", "", out, soon()) == 0);
	CHECK(env_call("nobody", "", out, soon()) == 0);
	CHECK(policy_fire("quiet", soon()) == 0 && policy_fire("nobody", soon()) == 0);
	policy_stop();
	CHECK(!policy_has_handler("quiet"));
}
RUN_IN_FIBER(chains)

static void registration(void *arg)
{
	check_error(start("local kumo = require 'kumo'\n"
			  "kumo.on('init', function() end)\n"
			  "\n"
			  "kumo.on('init', function() end)\n"),
		    ERR_LUA, "policy.lua:4: init event already has a handler defined at ");
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('init', function() kumo.on('x', print) end)\n"
		    "kumo.on('main', function() kumo.on('x', print) end)\n"
		    "local function via() kumo.on('get_queue_config', print) end\n"
		    "via()\n"
		    "local r = kumo.get_event_registrars('get_queue_config')\n"
		    "assert(#r == 1 and #r[1] == 2, #r[1])\n"
		    "assert(r[1][1]:match('policy.lua:4$') and r[1][2]:match('policy.lua:5$'))\n"
		    "assert(kumo.get_event_registrars('nobody') == nil)\n") == 0);
	check_error(policy_fire("init", soon()), ERR_LUA,
		    "policy.lua:2: kumo.on(`x`) must not be called "
		    "while an event is being handled (called from `init`)");
	CHECK(policy_fire("main", soon()) == 0);
	policy_stop();
}
RUN_IN_FIBER(registration)

/* --- errors --- */

static void errors(void *arg)
{
	check_error(start("local x = "), ERR_LUA, "policy.lua:1: unexpected symbol near <eof>");
	check_error(start("x = 1\nerror('boom')"), ERR_LUA, "policy.lua:2: boom\nstack traceback:\n");
	check_error(start("#!/usr/bin/env cirrusd\nx()"), ERR_LUA,
		    "policy.lua:2: attempt to call a nil value (global 'x')");
	unlink(env.policy_path);
	struct policy_params p = {.file = env.policy_path};
	check_error(policy_start(&p), ERR_IO, env.policy_path);
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('a', function()\n"
		    "  local t = nil\n"
		    "  return t.x\n"
		    "end)\n"
		    "kumo.on('t', function() error({}) end)\n"
		    "kumo.on('n', function() error() end)\n"
		    "kumo.on('m', function() error(setmetatable({}, "
		    "{__tostring = function() error('twice') end})) end)\n"
		    "kumo.on('d', function() kumo.time.parse_duration('x') end)\n") == 0);
	struct policy_call c;
	CHECK(policy_call_begin(&c, "a", soon()) == 1);
	CHECK(policy_call_run(&c, 0, 0, soon()) == -1 && c.is_failed);
	CHECK(strncmp(err_text(), "runtime error: ", 15) == 0);
	check_error(-1, ERR_LUA,
		    "policy.lua:4: attempt to index a nil value (local 't')\nstack traceback:\n\t");
	policy_call_end(&c);
	check_error(policy_fire("t", soon()), ERR_LUA, "table: 0x");
	check_error(policy_fire("n", soon()), ERR_LUA, "nil");
	CHECK(policy_fire("m", soon()) == -1 && err_is(ERR_LUA));
	err_clear();
	check_error(policy_fire("d", soon()), ERR_LUA,
		    "policy.lua:9: invalid value: string \"x\", expected a duration");
	policy_stop();
}
RUN_IN_FIBER(errors)

static void rejects(void *arg)
{
	static const struct {
		const char *how, *text;
		int code;
		enum policy_reject_mode mode;
	} c[] = {
		{"plain", "5.7.1 no", 550, POLICY_REJECT},
		{"pcall", "5.7.1 no", 550, POLICY_REJECT},
		{"coroutine", "5.7.1 no", 550, POLICY_REJECT},
		{"disconnect", "bye", 421, POLICY_DISCONNECT_FORCE},
		{"follow", "bye", 451, POLICY_DISCONNECT_FOLLOW_421},
		{"if", "bye", 451, POLICY_DISCONNECT_IF_421},
	};
	char out[200];
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('e', function(how)\n"
		    "  if how == 'plain' then kumo.reject(550, '5.7.1 no') end\n"
		    "  if how == 'disconnect' then kumo.disconnect(421, 'bye') end\n"
		    "  if how == 'follow' then kumo.disconnect(451, 'bye', 'FollowWith421') end\n"
		    "  if how == 'if' then kumo.disconnect(451, 'bye', 'If421') end\n"
		    "  if how == 'bad' then kumo.disconnect(451, 'bye', 'Maybe') end\n"
		    "  if how == 'code' then kumo.reject(42, 'bye') end\n"
		    "  if how == 'coroutine' then coroutine.wrap(function() "
		    "kumo.reject(550, '5.7.1 no') end)() end\n"
		    "  local ok, err = pcall(kumo.reject, 550, '5.7.1 no')\n"
		    "  assert(not ok and tostring(err) == '550 5.7.1 no' and err .. '!' == '550 5.7.1 no!')\n"
		    "  if how == 'pcall' then error(err) end\n"
		    "  return tostring(err)\n"
		    "end)\n") == 0);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct policy_call pc;
		CHECK(policy_call_begin(&pc, "e", soon()) == 1);
		lua_pushstring(pc.L, c[i].how);
		CHECK(policy_call_run(&pc, 1, 1, soon()) == -1);
		CHECK(err_is(ERR_REJECT) && pc.reject_mode == c[i].mode);
		struct err e = err_take();
		CHECK(e.code == c[i].code && strcmp(e.text, c[i].text) == 0);
		err_fini(&e);
		policy_call_end(&pc);
	}
	CHECK(env_call("e", "swallowed", out, soon()) == 1 && strcmp(out, "550 5.7.1 no") == 0);
	check_error(env_call("e", "bad", out, soon()), ERR_LUA,
		    "policy.lua:7: unknown variant `Maybe`, expected one of `If421`");
	check_error(env_call("e", "code", out, soon()), ERR_LUA, "a reply code is between 200 and 599");
	policy_stop();
}
RUN_IN_FIBER(rejects)

/* --- waiting --- */

static atomic_int n_done, n_other;

static void sleeper(void *arg)
{
	char out[200];
	CHECK(env_call("nap", "0.5", out, soon()) == 1 && strcmp(out, "0.5") == 0);
	atomic_fetch_add(&n_done, 1);
}

static void bystander(void *arg)
{
	while (atomic_load(&n_done) == 0) {
		atomic_fetch_add(&n_other, 1);
		CHECK(fiber_sleep(dur_ms(1), soon()) == 0);
	}
}

static void waits(void *arg)
{
	struct fiber_group g;
	CHECK(start("local kumo = require 'kumo'\n"
		    "local used = false\n"
		    "kumo.on('nap', function(s)\n"
		    "  assert(not used, 'two handlers in one state')\n"
		    "  used = true kumo.sleep(tonumber(s)) used = false\n"
		    "  return s\n"
		    "end)\n") == 0);
	fiber_group_init(&g);
	fiber_start(&g, "bystander", bystander, NULL);
	for (int i = 0; i < 100; i++)
		fiber_start(&g, "sleeper", sleeper, NULL);
	mono_t begin = mono_now();
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(atomic_load(&n_done) == 100 && atomic_load(&n_other) > 1);
	CHECK(mono_sub(mono_now(), begin).ns < 40 * NS_PER_S); /* one after another would take 50 s */
	policy_stop();
}
RUN_IN_FIBER(waits)

static void cancelled_sleeper(void *arg)
{
	check_error(env_call("nap", "600", NULL, soon()), ERR_CANCELLED, "policy.lua:2: ");
	atomic_fetch_add(&n_done, 1);
}

static void deadlines(void *arg)
{
	struct fiber_group g;
	char out[200];
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('nap', function(s) kumo.sleep(tonumber(s)) end)\n"
		    "kumo.on('spin', function() while true do end end)\n"
		    "kumo.on('stubborn', function() while true do "
		    "pcall(function() while true do end end) end end)\n"
		    "kumo.on('threads', function()\n"
		    "  while true do coroutine.resume(coroutine.create(function() "
		    "while true do end end)) end\n"
		    "end)\n"
		    "kumo.on('greedy', function() local t = {} while true do "
		    "t[#t + 1] = ('x'):rep(1000000) .. #t end end)\n"
		    "kumo.on('fine', function() return 'fine' end)\n") == 0);
	check_error(env_call("nap", "600", out, mono_after(dur_ms(20))), ERR_TIMEOUT, "policy.lua:2: ");
	check_error(env_call("spin", "", out, mono_after(dur_ms(50))), ERR_TIMEOUT,
		    "policy.lua:3: the handler ran past its deadline");
	check_error(env_call("stubborn", "", out, mono_after(dur_ms(50))), ERR_TIMEOUT,
		    "ran past its deadline");
	check_error(env_call("threads", "", out, mono_after(dur_ms(50))), ERR_TIMEOUT,
		    "ran past its deadline");
	if (!CHECK_IS_SANITIZED)
		check_error(env_call("greedy", "", out, soon()), ERR_LUA, "not enough memory");
	CHECK(env_call("fine", "", out, soon()) == 1 && strcmp(out, "fine") == 0);
	atomic_store(&n_done, 0);
	fiber_group_init(&g);
	fiber_start(&g, "cancelled", cancelled_sleeper, NULL);
	fiber_yield();
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, soon()) == 0 && atomic_load(&n_done) == 1);
	policy_stop();
}
RUN_IN_FIBER(deadlines)

static void spinner(void *arg)
{
	CHECK(policy_fire("spin", soon()) == 0);
	atomic_fetch_add(&n_done, 1);
}

/* A long computation lets the others, and the loop's timers, have their turns. */
static void slices(void *arg)
{
	struct fiber_group g;
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('spin', function() local x = 0 for i = 1, 20000000 do x = x + i end end)\n") ==
	      0);
	fiber_group_init(&g);
	atomic_store(&n_done, 0);
	atomic_store(&n_other, 0);
	fiber_start(&g, "spinner", spinner, NULL);
	fiber_start(&g, "bystander", bystander, NULL);
	CHECK(fiber_group_join(&g, soon()) == 0);
	CHECK(atomic_load(&n_other) > 5);
	policy_stop();
}
RUN_IN_FIBER(slices)

/* --- pools and epochs --- */

static int count(const char *event)
{
	char out[200];
	CHECK(env_call(event, "", out, soon()) == 1);
	return atoi(out);
}

static void pools(void *arg)
{
	struct policy_call a, b;
	const char *const text = "local kumo = require 'kumo'\n"
				 "local n = 0\n"
				 "kumo.on('count', function() n = n + 1 return n end)\n"
				 "kumo.on('fail', function() error('x') end)\n";
	CHECK(start(text) == 0);
	CHECK(count("count") == 1 && count("count") == 2); /* the same state again */
	CHECK(policy_call_begin(&a, "count", soon()) == 1 && policy_call_begin(&b, "count", soon()) == 1);
	CHECK(a.L != b.L);
	lua_State *last = b.L;
	policy_call_end(&a);
	policy_call_end(&b);
	CHECK(policy_call_begin(&a, "count", soon()) == 1 && a.L == last); /* last in, first out */
	policy_call_end(&a);
	CHECK(policy_fire("fail", soon()) == -1); /* its state is not used again */
	err_clear();
	CHECK(count("count") == 3);
	CHECK(policy_fire("fail", soon()) == -1);
	err_clear();
	CHECK(count("count") == 1);
	policy_set_max_uses(3);
	CHECK(count("count") == 2 && count("count") == 3 && count("count") == 1);
	policy_set_max_uses(1024);
	policy_set_max_age(DUR_ZERO);
	CHECK(count("count") == 1);
	policy_set_max_age(dur_s(300));
	CHECK(count("count") == 1 && count("count") == 2);
	policy_set_max_spares(0);
	CHECK(count("count") == 3 && count("count") == 1 && count("count") == 1);
	policy_set_max_spares(8192);
	policy_set_gc_on_put(100);
	CHECK(count("count") == 1 && count("count") == 2);
	policy_set_gc_on_put(0);
	policy_stop();
}
RUN_IN_FIBER(pools)

static _Atomic uint64_t seen_epoch; /* two workers may bump at once */
static void on_epoch(void *arg, uint64_t epoch)
{
	seen_epoch = epoch;
}

static void epochs(void *arg)
{
	char out[200];
	dir_write(env.dir, "helper.lua", "return {word = 'old'}");
	CHECK(start("local kumo, h = require 'kumo', require 'helper'\n"
		    "kumo.on('word', function() return 'one ' .. h.word end)\n"
		    "kumo.on('bump', function() kumo.bump_config_epoch() end)\n") == 0);
	policy_on_epoch(on_epoch, NULL);
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "one old") == 0);
	/* An edit is not seen before the bump, in no state. */
	dir_write(env.dir, "helper.lua", "return {word = 'new'}");
	dir_write(env.dir, "policy.lua",
		  "local kumo, h = require 'kumo', require 'helper'\n"
		  "kumo.on('word', function() return 'two ' .. h.word end)\n"
		  "kumo.on('added', function() return 'added' end)\n");
	policy_set_max_age(DUR_ZERO);
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "one old") == 0);
	policy_set_max_age(dur_s(300));
	uint64_t before = policy_epoch();
	CHECK(policy_fire("bump", soon()) == 0);
	CHECK(policy_epoch() == before + 1 && seen_epoch == before + 1);
	CHECK(env_call("added", "", out, soon()) == 1 && strcmp(out, "added") == 0);
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "two new") == 0);
	CHECK(!policy_has_handler("bump") && policy_has_handler("added"));
	/* A file that does not compile changes nothing. */
	dir_write(env.dir, "policy.lua", "this is no Lua");
	policy_bump_epoch();
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "two new") == 0);
	/* Nor does one that fails when it is run, or whose module is broken by now. */
	before = policy_epoch();
	dir_write(env.dir, "policy.lua", "error('at the top')");
	policy_bump_epoch();
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "two new") == 0);
	dir_write(env.dir, "policy.lua",
		  "local kumo, h = require 'kumo', require 'helper'\n"
		  "kumo.on('word', function() return 'three ' .. h.word end)\n");
	dir_write(env.dir, "helper.lua", "return nil +");
	policy_bump_epoch();
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "two new") == 0);
	CHECK(policy_epoch() == before && seen_epoch == before);
	dir_write(env.dir, "helper.lua", "return {word = 'mended'}");
	policy_bump_epoch();
	CHECK(env_call("word", "", out, soon()) == 1 && strcmp(out, "three mended") == 0);
	policy_stop();
}
RUN_IN_FIBER(epochs)

static void modules(void *arg)
{
	dir_write(env.dir, "helper.lua",
		  "local name, path = ...\nreturn {name = name, path = path, kumo = require 'kumo'}");
	CHECK(start("local h = require 'helper'\n"
		    "assert(h.name == 'helper' and h.path:match('/helper.lua$') "
		    "and h.kumo == require 'kumo')\n"
		    "assert(package.loaded.kumo == h.kumo)\n"
		    "local ok, err = pcall(require, 'no.such')\n"
		    "assert(not ok and err:find(\"module 'no.such' not found\", 1, true), err)\n"
		    "assert(err:find('/opt/kumomta/share/no/such.lua', 1, true), err)\n") == 0);
	policy_stop();
	dir_write(env.dir, "helper.lua", "\n\nreturn 1 +");
	check_error(start("require 'helper'"), ERR_LUA, "helper.lua:3: unexpected symbol near <eof>");
	/* Bytecode on disk is not Lua text. */
	dir_write(env.dir, "helper.lua", "\x1bLua");
	check_error(start("require 'helper'"), ERR_LUA, "attempt to load a binary chunk");
}
RUN_IN_FIBER(modules)

/* --- many at once, on all workers --- */

static struct event *all_done;
static atomic_int n_left;

static void caller(void *arg)
{
	char out[200];
	for (int i = 0; i < 20; i++) {
		CHECK(env_call("work", "x", out, soon()) == 1 && strcmp(out, "xx") == 0);
		if (i % 7 == 0)
			policy_bump_epoch();
	}
	if (atomic_fetch_sub(&n_left, 1) == 1)
		event_fire(all_done);
}

static void crowds(void *arg)
{
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('work', function(x) kumo.sleep(0.001) return x .. x end)\n") == 0);
	all_done = event_new();
	atomic_store(&n_left, 20);
	for (unsigned i = 0; i < 20; i++)
		worker_start_fiber(worker_get(i % workers_count()), "caller", caller, NULL);
	CHECK(event_wait(all_done, soon()) == 0);
	event_unref(all_done);
	policy_stop();
}
RUN_IN_FIBER(crowds)

/* --- init only --- */

static int probe(lua_State *L)
{
	policy_require_init(L, "kumo.probe");
	return 0;
}

static void open_probe(lua_State *L)
{
	lua_pushcfunction(L, probe);
	lua_setfield(L, -2, "probe");
}

static void init_only(void *arg)
{
	policy_add_library(open_probe);
	check_error(start("require('kumo').probe()"), ERR_LUA,
		    "policy.lua:1: kumo.probe must be called from the "
		    "`init` event (called from the policy file itself)");
	CHECK(start("local kumo = require 'kumo'\n"
		    "kumo.on('pre_init', function() kumo.probe() end)\n"
		    "kumo.on('init', function() kumo.probe() end)\n"
		    "kumo.on('other', function() kumo.probe() end)\n") == 0);
	CHECK(policy_fire("pre_init", soon()) == 0 && policy_fire("init", soon()) == 0);
	check_error(policy_fire("other", soon()), ERR_LUA,
		    "policy.lua:4: kumo.probe must be called from the `init` event (called from `other`)");
	policy_stop();
}
RUN_IN_FIBER(init_only)

/* --- messages --- */

static int call_with_message(const char *event, struct message *m)
{
	struct policy_call c;
	if (policy_call_begin(&c, event, soon()) != 1)
		return -1;
	policy_push_message(c.L, m);
	int rc = policy_call_run(&c, 1, 0, soon());
	policy_call_end(&c);
	return rc;
}

static void messages(void *arg)
{
	str_t rcpt[2] = {STR("\"qu\\\"oted\"@Example.com"), STR("two@example.org")};
	struct body *body = body_new(STR("Subject: x\r\n\r\nhi\r\n"));
	struct message *m = message_new(STR("me@example.net"), rcpt, 1, body);
	struct message *m2 = message_new(STR(""), rcpt, 2, NULL);
	str_t json;
	CHECK(start("local kumo = require 'kumo'\n"
		    "local kept\n"
		    "kumo.on('one', function(m)\n"
		    "  assert(#m:id() == 32 and m:num_attempts() == 0)\n"
		    "  local s, r = m:sender(), m:recipient()\n"
		    "  assert(s.user == 'me' and s.domain == 'example.net' and s.email == 'me@example.net')\n"
		    "  assert(tostring(s) == 'me@example.net' "
		    "and s == m:sender() and s ~= r and s.nope == nil)\n"
		    "  assert(r.user == 'qu\"oted' and r.domain == 'Example.com', r.user)\n"
		    "  assert('<' .. s .. '>' == '<me@example.net>')\n"
		    "  assert(kumo.json_encode { s } == '[\"me@example.net\"]')\n"
		    "  assert(#m:recipient_list() == 1)\n"
		    "  assert(m:get_data() == 'X-A: b\\r\\nSubject: x\\r\\n\\r\\nhi\\r\\n')\n"
		    "  assert(m:get_meta('nope') == nil)\n"
		    "  m:set_meta('tenant', 'acme') m:set_meta('t', "
		    "{1, {x = true}}) m:set_meta('gone', nil)\n"
		    "  assert(m:get_meta('tenant') == 'acme' "
		    "and m:get_meta('t')[2].x and m:get_meta('gone') == nil)\n"
		    "  assert(m:queue_name() == 'acme@example.com', m:queue_name())\n"
		    "  assert(not pcall(m.set_meta, m, 'f', print))\n"
		    "  assert(tostring(m):match('^Message: '))\n"
		    "  local ok, err = pcall(function() m:no_such_method() end)\n"
		    "  assert(err:find(\"attempt to call a nil value "
		    "(method 'no_such_method')\", 1, true), err)\n"
		    "  ok, err = pcall(m.id, io.stdout)\n"
		    "  assert(err:find('Message expected', 1, true), err)\n"
		    "  kept = m\n"
		    "end)\n"
		    "kumo.on('two', function(m)\n"
		    "  local ok, err = pcall(kept.id, kept)\n"
		    "  assert(err:find('belonged to an event that is over', 1, true), err)\n"
		    "  assert(tostring(m:sender()) == '' "
		    "and m:sender().domain == '' and #m:recipient() == 2)\n"
		    "  assert(m:recipient()[2].email == 'two@example.org')\n"
		    "  ok, err = pcall(m.get_data, m)\n"
		    "  assert(err:find('no spool is open', 1, true), err)\n"
		    "end)\n") == 0);
	message_set_prefix(m, STR("X-A: b\r\n"));
	CHECK(call_with_message("one", m) == 0);
	CHECK(meta_get_json(&m->meta, STR("t"), &json) && str_eq(json, STR("[1,{\"x\":true}]")));
	CHECK(meta_get_json(&m->meta, STR("gone"), &json) && str_eq(json, STR("null")));
	/* The state is pooled, its garbage not collected: the message is let go all the same. */
	CHECK(atomic_load(&m->refs) == 1);
	CHECK(call_with_message("two", m2) == 0);
	message_unref(m);
	message_unref(m2);
	body_unref(body);
	policy_stop();
}
RUN_IN_FIBER(messages)

/* --- what bindings do, told by scripts that assert --- */

static void serde(void *arg)
{
	dir_write(env.dir, "data.json", "{\"a\": [1, 2.5, null, \"x\"]} // end\n");
	dir_write(env.dir, "data.toml", "[t]\nk = 'v'\n");
	dir_write(env.dir, "data.yaml", "k: [1, two]\n");
	CHECK(start("local kumo = require 'kumo'\n"
		    "local here = debug.getinfo(1, 'S').source:match('^@(.*)/')\n"
		    "local s = kumo.serde\n"
		    "for _, n in ipairs { 'json_parse', 'json_load', "
		    "'json_encode', 'json_encode_pretty', 'toml_parse',\n"
		    "    'toml_load', 'toml_encode', "
		    "'toml_encode_pretty' } do assert(kumo[n] == s[n], n) end\n"
		    "local v = s.json_load(here .. '/data.json')\n"
		    "assert(v.a[1] == 1 and math.type(v.a[1]) == 'integer' "
		    "and v.a[2] == 2.5 and v.a[4] == 'x')\n"
		    "assert(type(v.a[3]) == 'userdata')\n"
		    "assert(s.json_encode(v) == '{\"a\":[1,2.5,null,\"x\"]}')\n"
		    "assert(s.json_encode_pretty({x = {}}) == '{\\n  \"x\": {}\\n}')\n"
		    "assert(s.toml_load(here .. '/data.toml').t.k == 'v')\n"
		    "assert(s.toml_encode { a = 1, b = { c = 'x' } } == 'a = 1\\n\\n[b]\\nc = \"x\"\\n')\n"
		    "assert(s.toml_encode_pretty { l = { 1, 2 } } == 'l = [\\n    1,\\n    2,\\n]\\n')\n"
		    "assert(s.toml_encode_pretty_compact { l = {} } == 'l = {}\\n')\n"
		    "assert(s.yaml_load(here .. '/data.yaml').k[2] == 'two')\n"
		    "assert(s.yaml_encode { k = { 1, 'true' } } == \"k:\\n- 1\\n- 'true'\\n\", s.yaml_encode "
		    "{ k = { 1, 'true' } })\n"
		    "local function fails(text, f, ...)\n"
		    "  local ok, err = pcall(f, ...)\n"
		    "  assert(not ok and tostring(err):find(text, 1, true), tostring(err))\n"
		    "  assert(tostring(err):match('policy.lua:%d+: '), tostring(err))\n"
		    "end\n"
		    "fails('line 2 column', s.json_parse, '[1,\\n x]')\n"
		    "fails('TOML: `=` was expected at line 1', s.toml_parse, 'x')\n"
		    "fails('YAML: ', s.yaml_parse, '[')\n"
		    "fails('/data.nope: No such file', s.json_load, here .. '/data.nope')\n"
		    "fails('data.toml: ', s.json_load, here .. '/data.toml')\n"
		    "fails('only a table', s.toml_encode, 5)\n"
		    "fails('a function cannot be represented, at `a.b`', "
		    "s.json_encode, { a = { b = print } })\n"
		    "fails('nested deeper', s.json_parse, ('['):rep(1000))\n") == 0);
	policy_stop();
}
RUN_IN_FIBER(serde)

static void dns(void *arg)
{
	CHECK(start("local kumo = require 'kumo'\n"
		    "local zone = [[\n"
		    "$ORIGIN example.com.\n"
		    "@ 600 IN SOA ns.example.com. root.example.com. 1 2 3 4 5\n"
		    "@ 600 IN MX 10 b.mx.example.com.\n"
		    "@ 600 IN MX 10 a.mx.example.com.\n"
		    "@ 600 IN MX 1 mx.example.com.\n"
		    "mx 600 IN A 10.0.0.1\n"
		    "mx 600 IN AAAA ::1\n"
		    "@ 600 IN TXT \"one\" \"two\"\n"
		    "]]\n"
		    "local rev = '$ORIGIN 0.0.10.in-addr.arpa.\\n1 600 IN PTR mx.example.com.\\n'\n"
		    "kumo.dns.configure_test_resolver { zone, rev }\n"
		    "local mx = kumo.dns.lookup_mx 'example.com'\n"
		    "assert(mx.domain_name == 'example.com.' and mx.is_mx "
		    "and not mx.is_domain_literal and not mx.is_secure)\n"
		    "assert(table.concat(mx.hosts, ' ') == 'mx.example.com. "
		    "a.mx.example.com. b.mx.example.com.',\n"
		    "  table.concat(mx.hosts, ' '))\n"
		    "assert(mx.site_name == '(a|b)?.mx.example.com', mx.site_name)\n"
		    "assert(mx.by_pref[1][1] == 'mx.example.com.' "
		    "and #mx.by_pref[10] == 2 and mx.mta_sts == 'None')\n"
		    "assert(kumo.json_encode(mx.by_pref):find('\"10\":[\"a.mx.example.com.\"', 1, true))\n"
		    "assert(table.concat(kumo.dns.lookup_addr 'mx.example.com', ' ') == '10.0.0.1 ::1')\n"
		    "assert(table.concat(kumo.dns.lookup_addr('mx.example.com', "
		    "nil, 'Ipv6Only'), ' ') == '::1')\n"
		    "assert(table.concat(kumo.dns.lookup_txt 'example.com', ' ') == 'onetwo')\n"
		    "assert(table.concat(kumo.dns.lookup_ptr '10.0.0.1', ' ') == 'mx.example.com.')\n"
		    "local function fails(text, f, ...)\n"
		    "  local ok, err = pcall(f, ...)\n"
		    "  assert(not ok and tostring(err):find(text, 1, true), tostring(err))\n"
		    "end\n"
		    "fails('NXDOMAIN', kumo.dns.lookup_mx, 'nope.invalid')\n"
		    "fails('NXDOMAIN', kumo.dns.lookup_addr, 'nope.example.com')\n"
		    "fails('NXDOMAIN', kumo.dns.lookup_txt, 'nope.example.com')\n"
		    "fails('resolver `other` has not been defined', "
		    "kumo.dns.lookup_mx, 'example.com', 'other')\n"
		    "fails('unknown variant `Ipv5`', kumo.dns.lookup_addr, 'mx.example.com', nil, 'Ipv5')\n"
		    "fails('nonsense', kumo.dns.lookup_ptr, 'nonsense')\n"
		    "kumo.dns.configure_test_resolver { zones = { { zone = zone, secure = true } },\n"
		    "  servfail = { 'broken.example.com' } }\n"
		    "assert(kumo.dns.lookup_mx('example.com').is_secure)\n"
		    "fails('failed', kumo.dns.lookup_addr, 'broken.example.com')\n"
		    "fails('unknown field `zone`', kumo.dns.configure_test_resolver, { zone = {} })\n"
		    "fails('missing field `zone`', kumo.dns.configure_test_resolver, { {} })\n"
		    "fails('zone', kumo.dns.configure_test_resolver, { 'complete nonsense here' })\n") == 0);
	policy_stop();
}
RUN_IN_FIBER(dns)

static void odds_and_ends(void *arg)
{
	setenv("KUMO_AVAILABLE_PARALLELISM", "7", 1);
	CHECK(start("local kumo = require 'kumo'\n"
		    "assert(kumo.available_parallelism() == 7)\n"
		    "local d = kumo.time.parse_duration '1m 30s'\n"
		    "assert(d.seconds == 90 and d.milliseconds == 90000 and d.human == '1m 30s' and "
		    "tostring(d) == '1m 30s')\n"
		    "assert((d + kumo.time.parse_duration(10)).seconds == 100 and (d - d).nanoseconds == 0 "
		    "and d == d + (d - d))\n"
		    "assert(kumo.time.sleep == kumo.sleep)\n"
		    "assert(not pcall(kumo.sleep, -1) and not pcall(kumo.sleep, 0 / 0))\n"
		    "kumo.sleep(0)\n"
		    "local function f() return kumo.traceback(1) end\n"
		    "local t = f()\n"
		    "assert(t[1].curr_line == 9 or t[1].curr_line == 10, t[1].curr_line)\n"
		    "assert(t[1].what == 'Lua' or t[1].what == 'main')\n"
		    "kumo.log_info('x', 1, nil, {}, '\\xff\\0z')\n"
		    "kumo.log_debug(setmetatable({}, "
		    "{ __tostring = function() error('not to be called') end }))\n"
		    "local ok, err = pcall(kumo.set_diagnostic_log_filter, 'kumod=nonsense')\n"
		    "assert(not ok and err:find(\"parsing log filter 'kumod=nonsense'\", 1, true), err)\n"
		    "assert(not pcall(kumo.set_lua_gc_on_put, 256) and not "
		    "pcall(kumo.set_max_spare_lua_contexts, -1))\n"
		    "setmetatable(_G, { __newindex = function(_, k) error('no new globals: ' .. k) end })\n"
		    "kumo.on('strict', function() return _KUMO_CURRENT_EVENT end)\n"
		    "kumo.on('fails', function() kumo.validation_failed() end)\n") == 0);
	unsetenv("KUMO_AVAILABLE_PARALLELISM");
	CHECK(bind_available_parallelism() >= 1);
	char out[200];
	CHECK(env_call("strict", "", out, soon()) == 1 && strcmp(out, "strict") == 0);
	CHECK(!bind_validation_has_failed());
	CHECK(policy_fire("fails", soon()) == 0 && bind_validation_has_failed());
	policy_stop();
}
RUN_IN_FIBER(odds_and_ends)

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(test_##fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(chains),   T(registration), T(errors), T(rejects),	   T(waits),  T(deadlines),
		T(slices),   T(pools),	      T(epochs), T(modules),	   T(crowds), T(init_only),
		T(messages), T(serde),	      T(dns),	 T(odds_and_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
