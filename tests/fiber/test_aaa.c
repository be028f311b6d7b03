/* test_aaa.c - access control with a policy: kumo.aaa as a policy sees it, lists from get_acl_definition,
 * logins, what is cached for how long, and the accounting log. */
#include "policy_env.h"
#include "zstd_read.h"

#include "aaa/access.h"
#include "aaa/acct.h"
#include "aaa/login.h"
#include "api/api.h"
#include "base/text.h"
#include "bind/bind_aaa.h"
#include "http/http.h"
#include "record/record.h"
#include "stderr_capture.h"

#include <stdatomic.h>

static atomic_int n_probed;

/* probe(): counts how often the policy was asked. */
static int probe(lua_State *L)
{
	atomic_fetch_add(&n_probed, 1);
	return 0;
}

static void open_probe(lua_State *L)
{
	lua_pushcfunction(L, probe);
	lua_setglobal(L, "probe");
}

static int n_asked(void)
{
	return atomic_exchange(&n_probed, 0);
}

/* DIR in the text is the test's directory. */
static void start(const char *text)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, "local kumo = require 'kumo'\n");
	dir_expand(env.dir, text, &b);
	CHECK(env_start(b.p) == 0);
	buf_fini(&b);
	atomic_store(&n_probed, 0);
}

static void stop(void)
{
	access_reset();
	login_reset();
	policy_stop();
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

/* --- kumo.aaa --- */

static const char functions_policy[] =
	"local function who(t) return t end\n"
	"local function fails(text, fn, ...)\n"
	"  local ok, e = pcall(fn, ...)\n"
	"  assert(not ok and tostring(e):find(text, 1, true), tostring(e) .. ' lacks ' .. text)\n"
	"end\n"
	"local aaa = kumo.aaa\n"
	"local toml = [=[\n"
	"[[acl.'http_listener/*/own']]\nallow = true\nprivileges = ['GET', 'PUT']\nidentity.Group = 'ops'\n"
	"[[acl.'http_listener/127.0.0.1:80/own']]\nallow = false\n"
	"privileges = ['PUT']\nidentity.Individual = 'eve'\n]=]\n"
	"kumo.on('get_acl_definition', function(resource)\n"
	"  return aaa.load_acl_map({ key_data = toml }):get(resource)\n"
	"end)\n"
	"kumo.on('run', function()\n"
	"  local list = aaa.make_access_control_list {\n"
	"    { criteria = { AllOf = { { Identity = { Group = 'g' } }, { Machine = '10.0.0.1' } } }, "
	"privilege = 'GET', access = 'Deny' } }\n"
	"  assert(#list == 1 and #aaa.make_access_control_list {} == 0)\n"
	"  assert(tostring(list):find 'AccessControlList')\n"
	"  local e = kumo.json_parse(kumo.json_encode(list))\n"
	"  assert(e[1].access == 'Deny' and e[1].criteria.AllOf[2].Identity.Machine == '10.0.0.1')\n"
	"  fails('rule 1: deserialize error: missing field `access`', aaa.make_access_control_list,\n"
	"    { { criteria = { Identity = 'Any' }, privilege = 'GET' } })\n"
	"  fails('expected a list of rules', aaa.make_access_control_list, 5)\n"
	"  local _, trace = xpcall(aaa.make_access_control_list, debug.traceback, 5)\n"
	"  assert(trace:find('^deserialize error: ') and trace:find('policy.lua:', 1, true), trace)\n"
	"  local map = aaa.load_acl_map { key_data = toml }\n"
	"  assert(#map:get 'http_listener/*/own' == 2)\n"
	"  assert(map:get 'http_listener/*/metrics' == nil)\n"
	"  local f = aaa.load_acl_map 'DIR/acl.toml'\n"
	"  assert(#f:get 'x' == 1 and f:get 'y' == nil)\n"
	"  assert(#aaa.load_acl_map('DIR/acl.json'):get 'j' == 1)\n"
	"  assert(#aaa.load_acl_map({ event_name = 'acl_text', event_args = { 'e' } }):get 'e' == 1)\n"
	"  fails('DIR/none.toml', aaa.load_acl_map, 'DIR/none.toml')\n"
	"  fails('missing field `acl`', aaa.load_acl_map, { key_data = '' })\n"
	"  fails('key_dat', aaa.load_acl_map, { key_dat = '' })\n"
	"  fails('AclMap expected', function() map.get('x', 'y') end)\n"
	"  local r = aaa.make_http_url_resource('127.0.0.1:80', 'http://host/own/x?y')\n"
	"  assert(tostring(r) == 'http_listener/127.0.0.1:80/own/x')\n"
	"  assert(tostring(aaa.make_http_url_resource('unix:/run/x', '/a')) == "
	"'http_listener/unix:/run/x/a')\n"
	"  assert(tostring(aaa.make_http_url_resource('[0::0001]:80', '/a')) == 'http_listener/[::1]:80/a')\n"
	"  fails('is not an address', aaa.make_http_url_resource, 'here', 'http://host/own')\n"
	"  fails('is not the URL', aaa.make_http_url_resource, '127.0.0.1:80', 'own')\n"
	"  local q = aaa.query_resource_access(r, { groups = { 'ops' } }, 'GET')\n"
	"  assert(q.allow == true and q.resource == 'http_listener/*/own')\n"
	"  assert(q.rule.access == 'Allow' and q.rule.privilege == 'GET' "
	"and q.rule.criteria.Identity.Group == 'ops')\n"
	"  q = aaa.query_resource_access(r, { identities = { { identity = 'eve', context = 'GenericAuth' } "
	"}, groups = { 'ops' } }, 'PUT')\n"
	"  assert(q.allow == false and q.resource == 'http_listener/127.0.0.1:80/own' "
	"and q.rule.access == 'Deny')\n"
	"  q = aaa.query_resource_access(r, {}, 'GET')\n"
	"  assert(q.allow == false and q.resource == nil and q.rule == nil)\n"
	"  local metrics = aaa.make_http_url_resource('127.0.0.1:80', '/metrics')\n"
	"  local trusted = { groups = { 'kumomta:http-listener-trusted-ip' }, peer_address = '127.0.0.1' }\n"
	"  assert(aaa.query_resource_access(metrics, trusted, 'GET').allow)\n"
	"  aaa.set_fall_back_to_acl_map(false)\n"
	"  assert(not aaa.query_resource_access(metrics, trusted, 'GET').allow)\n"
	"  aaa.set_fall_back_to_acl_map(true)\n"
	"  assert(aaa.query_resource_access(metrics, trusted, 'GET').allow)\n"
	"  fails('a resource is expected', aaa.query_resource_access, '/metrics', trusted, 'GET')\n"
	"  fails('a resource is expected', aaa.query_resource_access, list, trusted, 'GET')\n"
	"  fails('unknown field `group`', aaa.query_resource_access, metrics, { group = {} }, 'GET')\n"
	"  fails('boolean expected', aaa.set_fall_back_to_acl_map, 'no')\n"
	"  aaa.set_acl_cache_ttl '5 minutes'\n  aaa.set_check_cache_ttl(0.5)\n"
	"  fails('a duration is expected', aaa.set_acl_cache_ttl, 'long')\n"
	"  fails('a duration is expected', aaa.set_check_cache_ttl, -1)\n"
	"  fails('must be called from', aaa.configure_acct_log, { log_dir = 'DIR/acct' })\n"
	"  return 'done'\n"
	"end)\n"
	"kumo.on('acl_text', function(name)\n"
	"  return '[[acl.' .. name .. ']]\\nallow = true\\nprivileges = [\"GET\"]\\nidentity.Any = {}'\n"
	"end)\n";

static void functions(void *arg)
{
	struct policy_call c;
	dir_write(env.dir, "acl.toml", "[[acl.x]]\nallow = true\nprivileges = ['GET']\nidentity.Any = {}\n");
	dir_write(env.dir, "acl.json",
		  "{\"acl\": {\"j\": [{\"allow\": false, \"privileges\": [\"GET\"], "
		  "\"identity\": {\"Any\": {}}}]}}");
	start(functions_policy);
	for (int i = 0; i < 2; i++) { /* a state's second use as well */
		CHECK(policy_call_begin(&c, "run", soon()) == 1);
		CHECK(policy_call_run(&c, 0, 1, soon()) == 1);
		CHECK(strcmp(lua_tostring(c.L, c.result_idx), "done") == 0);
		policy_call_end(&c);
		access_reset();
	}
	stop();
}
RUN_IN_FIBER(functions)

/* --- lists from the policy --- */

static struct resource metrics_resource(struct arena *arena)
{
	struct resource r;
	resource_of_path(arena, STR("127.0.0.1:80"), STR("/metrics"), &r);
	return r;
}

/* 'y', 'n', or 'e' for an error, of a trusted peer with this name. */
static char ask(const char *identity, const char *privilege)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	struct access_result result;
	struct resource what = metrics_resource(&arena);
	auth_info_init(&who, NULL, &arena);
	auth_info_add_group(&who, STR("kumomta:http-listener-trusted-ip"));
	if (identity != NULL)
		auth_info_add_identity(&who, str_of(identity), AUTH_GENERIC);
	int rc = access_check(&what, &who, str_of(privilege), &result, soon());
	char answer = rc != 0 ? 'e' : result.is_allowed ? 'y' : 'n';
	CHECK(rc == 0 || !result.is_allowed);
	err_clear();
	access_result_fini(&result);
	arena_fini(&arena);
	return answer;
}

/* What each answer of get_acl_definition leads to, with and without the built-in map behind it. */
static const struct {
	const char *handler;
	char with, without;
} answers[] = {
	{"", 'y', 'y'}, /* no handler: nobody else could say */
	{"kumo.on('get_acl_definition', function() return nil end)", 'y', 'n'},
	{"kumo.on('get_acl_definition', function() end)", 'y', 'n'},
	{"kumo.on('get_acl_definition', function() end)\n"
	 "kumo.on('get_acl_definition', function() return nil end)",
	 'y', 'n'},
	{"kumo.on('get_acl_definition', function() return kumo.aaa.make_access_control_list {} end)", 'n',
	 'n'},
	{"kumo.on('get_acl_definition', function(r) if r == 'http_listener' then return "
	 "kumo.aaa.make_access_control_list {\n"
	 "{ criteria = { Identity = 'Any' }, privilege = 'GET', access = 'Allow' } } end end)",
	 'y', 'y'},
	{"kumo.on('get_acl_definition', function(r) if r == 'http_listener/127.0.0.1:80' then return "
	 "kumo.aaa.make_access_control_list {\n"
	 "{ criteria = { Identity = 'Any' }, privilege = 'GET', access = 'Deny' } } end end)",
	 'n', 'n'},
	{"kumo.on('get_acl_definition', function() end)\n"
	 "kumo.on('get_acl_definition', function() error 'x' end)",
	 'e', 'e'},
	{"kumo.on('get_acl_definition', function() return true end)", 'e', 'e'},
	{"kumo.on('get_acl_definition', function() return {} end)", 'e', 'e'},
	{"kumo.on('get_acl_definition', function() kumo.reject(550, 'no') end)", 'e', 'e'},
};

static void definitions(void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		start(answers[i].handler);
		char with = ask(NULL, "GET");
		CHECK(with == answers[i].with);
		CHECK(ask(NULL, "GET") == with); /* from the cache */
		access_set_fall_back(false);
		CHECK(ask(NULL, "GET") == answers[i].without);
		stop();
	}
}
RUN_IN_FIBER(definitions)

static const char counting_policy[] = "kumo.on('get_acl_definition', function(r) probe() end)\n";

static void caches(void *arg)
{
	clock_set_virtual(mono_now(), wall_now());
	start(counting_policy);
	CHECK(ask(NULL, "GET") == 'y' &&
	      n_asked() == 3); /* two of the listener, then the built-in list of the third */
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);
	CHECK(ask("eve", "GET") == 'y' && n_asked() == 0); /* another decision, but the lists are known */
	CHECK(ask("eve", "PUT") == 'n' && n_asked() == 1); /* one name further */
	clock_advance(dur_ms(299));
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);
	clock_advance(dur_ms(1));
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);

	policy_bump_epoch(); /* what the policy before said is forgotten */
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);

	access_set_acl_ttl(dur_s(100));
	access_set_check_ttl(dur_s(10));
	policy_bump_epoch();
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);
	clock_advance(dur_s(11)); /* the decision is over, the lists are not */
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);
	clock_advance(dur_s(88));
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);
	clock_advance(dur_s(5)); /* the lists are over, the decision made of them is not */
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 0);
	clock_advance(dur_s(6));
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);

	access_set_acl_ttl(DUR_ZERO);
	access_set_check_ttl(DUR_ZERO);
	policy_bump_epoch();
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);
	CHECK(ask(NULL, "GET") == 'y' && n_asked() == 3);
	stop();
	clock_set_real();
}
RUN_IN_FIBER(caches)

/* A failure is kept as well, but for a second at most. */
static void failures(void *arg)
{
	clock_set_virtual(mono_now(), wall_now());
	start("kumo.on('get_acl_definition', function(r) probe() error 'database away' end)");
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 1);
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 0);
	CHECK(ask("eve", "GET") == 'e' && n_asked() == 0);
	clock_advance(dur_ms(300));
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 1);
	access_set_acl_ttl(dur_s(300));
	access_set_check_ttl(dur_s(300));
	policy_bump_epoch();
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 1);
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 0);
	clock_advance(dur_s(1));
	CHECK(ask(NULL, "GET") == 'e' && n_asked() == 1);
	stop();
	clock_set_real();
}
RUN_IN_FIBER(failures)

static void nested(void *arg)
{
	start("kumo.on('get_acl_definition', function(r)\n"
	      "  kumo.aaa.query_resource_access(kumo.aaa.make_http_url_resource('127.0.0.1:80', "
	      "'/metrics'), {}, 'GET')\n"
	      "end)");
	CHECK(ask(NULL, "GET") == 'e');
	stop();
}
RUN_IN_FIBER(nested)

/* --- logins --- */

static const char login_policy[] =
	"kumo.on('http_server_validate_auth_basic', function(user, password)\n"
	"  probe()\n"
	"  if user == 'nil' then return nil end\n"
	"  if user == 'text' then return 'yes' end\n"
	"  if user == 'error' then error('cannot look up ' .. tostring(password) .. ' now') end\n"
	"  if user == 'reject' then kumo.reject(550, 'no') end\n"
	"  if user == 'typo' then return { group = { 'a' } } end\n"
	"  if user == 'slow' then kumo.sleep(100) end\n"
	"  if user == 'ann' then return { identities = { { identity = 'Ann', context = 'GenericAuth' },\n"
	"    { identity = user, context = 'HttpBasicAuth' } }, "
	"groups = { 'ops', 'dev' }, peer_address = '9.9.9.9' } end\n"
	"  if user == 'bare' then return {} end\n"
	"  if user == 'nopass' then return password == nil end\n"
	"  return password == 'tiger' or user:sub(1, 4) == 'many'\n"
	"end)\n"
	"kumo.on('http_server_validate_auth_bearer', function(token)\n"
	"  probe()\n"
	"  if token == 'sesame' then return true end\n"
	"  if token == 'ann' then return { identities = { { "
	"identity = 'ann', context = 'BearerToken' } } } end\n"
	"  return false\n"
	"end)\n";

static int login_by(mono_t deadline, const char *header, struct auth_info *who, struct arena *arena)
{
	struct credential c;
	const char *why;
	CHECK(credential_parse(str_of(header), arena, &c, &why));
	struct net_addr peer;
	CHECK(net_addr_parse_ip(STR("10.0.0.1"), 0, &peer) == 0);
	auth_info_init(who, &peer, arena);
	int rc = login_check(&c, who, deadline);
	CHECK(rc >= 0 || err_kind() != ERR_NONE);
	CHECK(rc == 1 || (who->n_identities == 0 && who->n_groups == 0));
	err_clear();
	return rc;
}

/* The outcome, and who it is in JSON. */
static int login(const char *user_and_password, char out[300])
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	struct buf b = BUF_INIT, json = BUF_INIT;
	if (strncmp(user_and_password, "Bearer ", 7) != 0) {
		buf_add_z(&b, "Basic ");
		base64_encode(&b, str_of(user_and_password));
	} else {
		buf_add_z(&b, user_and_password);
	}
	int rc = login_by(soon(), b.p, &who, &arena);
	struct json_out j = json_out_to(&json);
	auth_info_write(&who, &j);
	if (out != NULL)
		snprintf(out, 300, "%s", json.p);
	buf_fini(&b);
	buf_fini(&json);
	arena_fini(&arena);
	return rc;
}

static void logins_answers(void *arg)
{
	char who[300];
	start(login_policy);
	CHECK(login("scott:tiger", who) == 1);
	CHECK(strcmp(who, "{\"peer_address\":\"10.0.0.1\",\"identities\":[{\"identity\":\"scott\","
			  "\"context\":\"HttpBasicAuth\"}],\"groups\":[]}") == 0);
	CHECK(login("scott:Tiger", NULL) == 0);
	CHECK(login("scott", NULL) == 0 && login("nopass", NULL) == 1 && login("nopass:", NULL) == 0);
	CHECK(login("ann:x", who) == 1); /* the address stays the connection's */
	CHECK(strcmp(who,
		     "{\"peer_address\":\"10.0.0.1\",\"identities\":[{\"identity\":\"Ann\",\"context\":"
		     "\"GenericAuth\"},"
		     "{\"identity\":\"ann\",\"context\":\"HttpBasicAuth\"}],\"groups\":[\"ops\",\"dev\"]}") ==
	      0);
	CHECK(login("bare:x", who) == 1 && strstr(who, "\"identities\":[]") != NULL);
	static const char *const failing[] = {"nil:x", "text:x", "error:x", "reject:x", "typo:x"};
	for (size_t i = 0; i < ARRAY_SIZE(failing); i++)
		CHECK(login(failing[i], NULL) == -1);
	CHECK(login("Bearer sesame", who) == 1);
	CHECK(strstr(who, "[{\"identity\":\"\",\"context\":\"BearerToken\"}]") != NULL);
	CHECK(login("Bearer ann", who) == 1 && strstr(who, "\"identity\":\"ann\"") != NULL);
	CHECK(login("Bearer scott", NULL) == 0);
	stop();
	start(""); /* no handlers: nobody can log in */
	CHECK(login("scott:tiger", NULL) == 0 && login("Bearer sesame", NULL) == 0);
	stop();
}
RUN_IN_FIBER(logins_answers)

static void logins_cached(void *arg)
{
	char name[40];
	clock_set_virtual(mono_now(), wall_now());
	start(login_policy);
	CHECK(login("scott:tiger", NULL) == 1 && login("scott:lion", NULL) == 0 && n_asked() == 2);
	CHECK(login("scott:tiger", NULL) == 1 && login("scott:lion", NULL) == 0 && n_asked() == 0);
	CHECK(login("Bearer sesame", NULL) == 1 && login("Bearer sesame", NULL) == 1 && n_asked() == 1);
	clock_advance(dur_s(59));
	CHECK(login("scott:tiger", NULL) == 1 && n_asked() == 0);
	clock_advance(dur_s(1));
	CHECK(login("scott:tiger", NULL) == 1 && n_asked() == 1);
	policy_bump_epoch();
	CHECK(login("scott:tiger", NULL) == 1 && n_asked() == 1);
	/* An error for a second. */
	CHECK(login("error:hidden", NULL) == -1 && login("error:hidden", NULL) == -1 && n_asked() == 1);
	clock_advance(dur_s(1));
	CHECK(login("error:hidden", NULL) == -1 && n_asked() == 1);
	/* 128 of them: the one that was not used for longest goes. */
	CHECK(login("many-first:x", NULL) == 1);
	for (int i = 0; i < 127; i++) {
		snprintf(name, sizeof(name), "many%d:x", i);
		CHECK(login(name, NULL) == 1);
	}
	n_asked();
	CHECK(login("many-first:x", NULL) == 1 && n_asked() == 0);
	CHECK(login("many-next:x", NULL) == 1 && n_asked() == 1);
	CHECK(login("many0:x", NULL) == 1 && n_asked() == 1);
	CHECK(login("many-first:x", NULL) == 1 && n_asked() == 0);
	stop();
	clock_set_real();
}
RUN_IN_FIBER(logins_cached)

/* Who gave up waiting has found out nothing. */
static void logins_timeout(void *arg)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	start(login_policy);
	for (int i = 1; i <= 2; i++) {
		CHECK(login_by(mono_after(dur_s(1)), "Basic c2xvdzp4", &who, &arena) == -1); /* slow:x */
		CHECK(n_asked() == 1);
	}
	stop();
	arena_fini(&arena);
}
RUN_IN_FIBER(logins_timeout)

static void login_errors(void *arg)
{
	start(login_policy);
	CHECK(login("error:correct-horse", NULL) == -1);
	stop();
}

static void test_login_error_hides_the_password(void **state)
{
	struct stderr_capture capture;
	char text[4096] = "";
	stderr_capture_begin(&capture);
	worker_run(login_errors, NULL);
	ssize_t n = pread(capture.fd, text, sizeof(text) - 1, 0);
	stderr_capture_end(&capture);
	assert_true(n > 0);
	assert_non_null(strstr(text, "cannot look up *** now"));
	assert_null(strstr(text, "correct-horse"));
	assert_null(strstr(text, "ZXJyb3I6Y29ycmVjdC1ob3JzZQ=="));
}

/* --- the accounting log --- */

static int configure(const char *params)
{
	json_t *v = dir_json(env.dir, params);
	struct param_object *o = param_object_from_json(&acct_log_schema, v);
	json_decref(v);
	if (o == NULL)
		return -1;
	int rc = acct_log_configure(o, false);
	param_object_unref(o);
	return rc;
}

/* Takes "timestamp" out, after a look at it. */
static void cut_time(struct buf *b)
{
	static const char mark[] = "\"timestamp\":\"";
	struct buf out = BUF_INIT;
	str_t rest = buf_str(b);
	for (ptrdiff_t at; (at = str_find(rest, STR("\"timestamp\":\""))) >= 0;) {
		wall_t t;
		str_t text = str_skip(rest, (size_t)at + sizeof(mark) - 1);
		ptrdiff_t end = str_chr(text, '"', 0);
		CHECK(end == 30 && text.p[29] == 'Z' && wall_parse_rfc3339(str_head(text, 30), &t));
		buf_add_str(&out, str_head(rest, (size_t)at));
		rest = str_skip(text, 32); /* with quote and comma */
	}
	buf_add_str(&out, rest);
	buf_fini(b);
	*b = out;
}

static void acct_run(void *arg)
{
	start("kumo.on('http_server_validate_auth_basic', function(u, p) return p == 'tiger' end)\n"
	      "kumo.on('get_acl_definition', function(r) if r == 'http_listener' then return "
	      "kumo.aaa.make_access_control_list {\n"
	      "{ criteria = { Not = { Identity = { Group = 'x' } } }, "
	      "privilege = 'PUT', access = 'Deny' } } end end)");
	CHECK(login("scott:tiger", NULL) == 1);
	CHECK(login("sc\"ott:lion", NULL) == 0);
	CHECK(ask("eve", "HEAD") == 'y');
	CHECK(ask("eve", "HEAD") == 'y'); /* also when the decision comes from the cache */
	CHECK(ask(NULL, "PUT") == 'n');
	CHECK(ask(NULL, "POST") == 'n');
	stop();
}

#define TRUSTED_INFO(identities)                                           \
	"\"auth_info\":{\"peer_address\":null,\"identities\":[" identities \
	"],\"groups\":[\"kumomta:http-listener-trusted-ip\"]}"
#define EVE "{\"identity\":\"eve\",\"context\":\"GenericAuth\"}"
#define LOGIN_OK_LINE                                                                                       \
	"{\"type\":\"Authentication\",\"attempted_identity\":{\"identity\":\"scott\",\"context\":"          \
	"\"HttpBasicAuth\"},\"success\":true,"                                                              \
	"\"auth_info\":{\"peer_address\":\"10.0.0.1\",\"identities\":[{\"identity\":\"scott\",\"context\":" \
	"\"HttpBasicAuth\"}],\"groups\":[]}}\n"
#define LOGIN_FAIL_LINE                                                                                \
	"{\"type\":\"Authentication\",\"attempted_identity\":{\"identity\":\"sc\\\"ott\",\"context\":" \
	"\"HttpBasicAuth\"},\"success\":false,"                                                        \
	"\"auth_info\":{\"peer_address\":\"10.0.0.1\",\"identities\":[],\"groups\":[]}}\n"
#define ALLOW_LINE                                                                                           \
	"{\"type\":\"Authorization\",\"target_resource\":\"http_listener/127.0.0.1:80/"                      \
	"metrics\",\"privilege\":\"HEAD\",\"access\":\"Allow\","                                             \
	"\"matching_resource\":\"http_listener/*/metrics\",\"rule\":{\"criteria\":{\"Identity\":{\"Group\":" \
	"\"kumomta:http-listener-trusted-ip\"}},\"privilege\":\"GET\",\"access\":\"Allow\"}," TRUSTED_INFO(  \
		EVE) ",\"considered_resources\":[\"http_listener/127.0.0.1:80/metrics\",\"http_listener/"    \
		     "127.0.0.1:80\"]}\n"
#define DENY_LINES                                                                                          \
	"{\"type\":\"Authorization\",\"target_resource\":\"http_listener/127.0.0.1:80/"                     \
	"metrics\",\"privilege\":\"PUT\",\"access\":\"Deny\","                                              \
	"\"matching_resource\":\"http_listener\",\"rule\":{\"criteria\":{\"Not\":{\"Identity\":{\"Group\":" \
	"\"x\"}}},"                                                                                         \
	"\"privilege\":\"PUT\",\"access\":\"Deny\"}," TRUSTED_INFO(                                         \
		"") ",\"considered_resources\":[\"http_listener/127.0.0.1:80/metrics\",\"http_listener/"    \
		    "127.0.0.1:80\",\"http_listener/*/metrics\"]}\n"                                        \
		    "{\"type\":\"Authorization\",\"target_resource\":\"http_listener/127.0.0.1:80/"         \
		    "metrics\",\"privilege\":\"POST\",\"access\":\"Deny\","                                 \
		    "\"matching_resource\":null,\"rule\":null," TRUSTED_INFO(                               \
			    "") ",\"considered_resources\":[\"http_listener/127.0.0.1:80/"                  \
				"metrics\",\"http_listener/127.0.0.1:80\",\"http_listener/*/metrics\","     \
				"\"http_listener\"]}\n"

static void test_acct_lines(void **state)
{
	static const struct {
		const char *params, *want;
	} cases[] = {
		{"{'log_dir': 'DIR/acct0'}", LOGIN_OK_LINE LOGIN_FAIL_LINE ALLOW_LINE ALLOW_LINE DENY_LINES},
		{"{'log_dir': 'DIR/acct1', 'log_authn_ok': false}",
		 LOGIN_FAIL_LINE ALLOW_LINE ALLOW_LINE DENY_LINES},
		{"{'log_dir': 'DIR/acct2', 'log_authn_fail': false, 'log_authz_deny': false}",
		 LOGIN_OK_LINE ALLOW_LINE ALLOW_LINE},
		{"{'log_dir': 'DIR/acct3', 'log_authz_allow': false, 'log_authn_ok': false, "
		 "'compression_level': 9}",
		 LOGIN_FAIL_LINE DENY_LINES},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(configure(cases[i].params), 0);
		worker_run(acct_run, NULL);
		acct_log_stop();
		struct buf all = BUF_INIT;
		char *path = xasprintf("%s/acct%zu", env.dir, i), *file[2] = {NULL, NULL};
		assert_int_equal(dir_list(path, "", file, 2), 1);
		assert_true(strncmp(strrchr(file[0], '/'), "/acct-20", 8) == 0);
		assert_int_equal(path_mode(file[0]) & 0222, 0);
		assert_int_equal(dir_read(path, "", &all), 1);
		cut_time(&all);
		assert_string_equal(all.p, cases[i].want);
		buf_fini(&all);
		free(path);
		free(file[0]);
	}
}

static void acct_many(void *arg)
{
	start("");
	for (int i = 0; i < 200; i++)
		CHECK(ask(NULL, "GET") == 'y');
	stop();
}

static void test_acct_rotates(void **state)
{
	struct buf all = BUF_INIT;
	char *path = xasprintf("%s/size", env.dir);
	assert_int_equal(configure("{'log_dir': 'DIR/size', 'max_file_size': 5000}"), 0);
	worker_run(acct_many, NULL);
	acct_log_stop();
	size_t n_files = dir_read(path, "", &all), n_lines = 0;
	for (size_t i = 0; i < all.n; i++)
		n_lines += all.p[i] == '\n';
	assert_int_equal(n_lines, 200);
	assert_in_range(n_files, all.n / 6000, all.n / 5000 + 1);
	free(path);
	buf_fini(&all);

	path = xasprintf("%s/time", env.dir);
	assert_int_equal(configure("{'log_dir': 'DIR/time', 'max_segment_duration': '100ms'}"), 0);
	worker_run(acct_many, NULL);
	for (int i = 0; i < 3000; i++) { /* the segment ends by itself */
		char *file[2] = {NULL, NULL};
		size_t n = dir_list(path, "", file, 2);
		bool is_done = n == 1 && (path_mode(file[0]) & 0222) == 0;
		free(file[0]);
		if (is_done)
			break;
		assert_true(i < 2999);
		usleep(10000);
	}
	worker_run(acct_many, NULL);
	acct_log_stop();
	assert_true(dir_read(path, "", &all) >= 2);
	free(path);
	buf_fini(&all);
}

static void test_acct_configuration(void **state)
{
	static const struct {
		const char *params, *error;
	} bad[] = {
		{"{}", "missing field `log_dir`"},
		{"{'log_dir': 'DIR/x', 'max_file_size': 0}", "max_file_size 0"},
		{"{'log_dir': 'DIR/x', 'log_authn': true}", "unknown field `log_authn`"},
		{"{'log_dir': 'DIR/x', 'back_pressure': 0}", "invalid value: integer `0`"},
		{"{'log_dir': 'DIR/x', 'min_free_space': 'much'}", "much"},
		{"{'log_dir': '/proc/none/acct'}", "/proc/none"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(configure(bad[i].params), -1);
		if (strstr(err_text(), bad[i].error) == NULL)
			fail_msg("%s: %s", bad[i].params, err_text());
		err_clear();
	}
	assert_int_equal(configure("{'log_dir': 'DIR/once'}"), 0);
	assert_int_equal(configure("{'log_dir': 'DIR/twice'}"), -1);
	assert_non_null(strstr(err_text(), "configured already"));
	err_clear();
	acct_log_stop();
	acct_log_stop();
	assert_int_equal(configure("{'log_dir': 'DIR/again'}"), 0);
	acct_log_stop();
	record_stop(); /* ends the disk monitor */
}

/* --- every endpoint of this daemon has its default --- */

static void test_routes_are_covered(void **state)
{
	struct arena arena = ARENA_INIT;
	struct auth_info trusted, nobody;
	const struct http_route *route;
	size_t n = 0;
	api_set_info("test", 1);
	api_register_routes();
	auth_info_init(&nobody, NULL, &arena);
	auth_info_init(&trusted, NULL, &arena);
	auth_info_add_group(&trusted, STR("kumomta:http-listener-trusted-ip"));
	for (; (route = http_route_at(n)) != NULL; n++) {
		const struct auth_info *who[] = {&trusted, &nobody};
		for (size_t i = 0; i < 2; i++) {
			struct resource what;
			struct access_result result;
			resource_of_path(&arena, STR("127.0.0.1:80"), str_of(route->path), &what);
			assert_int_equal(access_check(&what, who[i], str_of(route->method), &result, soon()),
					 0);
			if (result.is_allowed != (i == 0 || route->is_public))
				fail_msg("%s %s: %s", route->method, route->path,
					 i == 0 ? "trusted" : "anybody");
			access_result_fini(&result);
		}
	}
	assert_true(n >= 3);
	arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_functions),
		cmocka_unit_test(test_definitions),
		cmocka_unit_test(test_caches),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_logins_answers),
		cmocka_unit_test(test_logins_cached),
		cmocka_unit_test(test_logins_timeout),
		cmocka_unit_test(test_login_error_hides_the_password),
		cmocka_unit_test(test_acct_lines),
		cmocka_unit_test(test_acct_rotates),
		cmocka_unit_test(test_acct_configuration),
		cmocka_unit_test(test_routes_are_covered),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
