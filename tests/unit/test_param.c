/* Parameter schemas: the exact shape of every error,
 * defaults, ownership, and objects as a policy sees them. */
#include "ut.h"

#include "base/err.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <lualib.h>

struct sample {
	char *name, *smtp_password;
	bool use_tls;
	int64_t port;
	uint64_t limit;
	dur_t timeout, pause;
	int mode;
	struct cidr_set hosts;
	struct param_strs list;
	struct net_addr listen, source;
	json_t *extra;
	int custom;
};

static const char *const modes[] = {"Opportunistic", "Required", "Disabled", NULL};

static int custom_parse(const json_t *v, void *field)
{
	if (!json_is_integer(v) || json_integer_value(v) % 2 != 0) {
		err_set(ERR_INVALID, "custom: not even");
		return -1;
	}
	*(int *)field = (int)json_integer_value(v);
	return 0;
}

static int sample_check(void *obj)
{
	const struct sample *s = obj;
	if (s->port != 666)
		return 0;
	err_set(ERR_INVALID, "port and soul do not go together");
	return -1;
}

static const struct param sample_params[] = {PARAM_STR(sample, name, .is_required = true),
					     PARAM_STR(sample, smtp_password),
					     PARAM_BOOL(sample, use_tls, .def = "false"),
					     PARAM_INT(sample, port, .def = "25", .min = 1, .max = 65535),
					     PARAM_BYTES(sample, limit, .def = "2097152"),
					     PARAM_DUR(sample, timeout, .def = "1m"),
					     PARAM_DUR(sample, pause),
					     PARAM_ENUM(sample, mode, modes, .def = "Required"),
					     PARAM_CIDRS(sample, hosts, .def = "127.0.0.1, ::1"),
					     PARAM_STRS(sample, list, .def = "a,b"),
					     PARAM_IP(sample, listen, .def = "127.0.0.1"),
					     PARAM_IP(sample, source),
					     PARAM_JSON(sample, extra),
					     PARAM_CUSTOM(sample, custom, .parse = custom_parse, .def = "4"),
					     PARAM_UNSUPPORTED(max_message_rate),
					     {0}};
static const struct param_schema schema = {"Sample", sample_params, sizeof(struct sample), sample_check};
static const struct param_schema other_schema = {"Other", sample_params, sizeof(struct sample), NULL};

#define FIELDS                                                                                               \
	"`name`, `smtp_password`, `use_tls`, `port`, `limit`, `timeout`, `pause`, `mode`, `hosts`, `list`, " \
	"`listen`, `source`, "                                                                               \
	"`extra`, `custom`"

static int parse(const char *json, struct sample *out)
{
	json_t *v = value_parse_json(str_of(json));
	assert_non_null(v);
	int rc = param_parse_json(&schema, v, out);
	json_decref(v);
	return rc;
}

static void test_defaults(void **state)
{
	struct sample s;
	char addr[NET_ADDR_STRLEN];
	param_schema_register(&schema);
	assert_int_equal(parse("{\"name\":\"x\"}", &s), 0);
	assert_string_equal(s.name, "x");
	assert_null(s.smtp_password);
	assert_false(s.use_tls);
	assert_int_equal(s.port, 25);
	assert_int_equal(s.limit, 2097152);
	assert_int_equal(s.timeout.ns, 60 * NS_PER_S);
	assert_int_equal(s.pause.ns, -1);
	assert_int_equal(s.mode, 1);
	assert_int_equal(s.hosts.n, 2);
	assert_int_equal(s.list.n, 2);
	assert_string_equal(s.list.v[1], "b");
	assert_string_equal(net_addr_fmt_ip(&s.listen, addr), "127.0.0.1");
	assert_int_equal(s.source.len, 0);
	assert_null(s.extra);
	assert_int_equal(s.custom, 4);
	param_fini(&schema, &s);
	assert_ptr_equal(param_schema_at(0), &schema);
	assert_null(param_schema_at(1));
}

static void test_given(void **state)
{
	struct sample s;
	assert_int_equal(parse("{\"name\":\"x\",\"smtp_password\":null,\"use_tls\":true,\"port\":587.0,"
			       "\"limit\":0,\"timeout\":1.5,"
			       "\"pause\":\"1h "
			       "30m\",\"mode\":\"Disabled\",\"hosts\":[],\"list\":{},\"source\":\"::1\","
			       "\"extra\":{\"a\":1},\"custom\":8}",
			       &s),
			 0);
	assert_null(s.smtp_password);
	assert_true(s.use_tls);
	assert_int_equal(s.port, 587);
	assert_int_equal(s.limit, 0);
	assert_int_equal(s.timeout.ns, 1500 * 1000000LL);
	assert_int_equal(s.pause.ns, 5400 * NS_PER_S);
	assert_int_equal(s.mode, 2);
	assert_int_equal(s.hosts.n, 0);
	assert_int_equal(s.list.n, 0);
	assert_int_equal(s.source.sa.sa_family, AF_INET6);
	assert_int_equal(json_integer_value(json_object_get(s.extra, "a")), 1);
	assert_int_equal(s.custom, 8);
	param_fini(&schema, &s);
}

static void test_errors(void **state)
{
	static const struct {
		const char *json, *why;
	} c[] = {
		{"{\"name\":\"x\",\"usetls\":true}",
		 "unknown field `usetls`, expected one of " FIELDS " (did you mean `use_tls`?)"},
		{"{\"zzzzzzzzzzzz\":1,\"name\":\"x\"}",
		 "unknown field `zzzzzzzzzzzz`, expected one of " FIELDS},
		{"{}", "missing field `name`"},
		{"{\"name\":null}", "missing field `name`"},
		{"{\"name\":5}", "invalid type: integer `5`, expected a string"},
		{"{\"name\":\"a\\u0007b\",\"use_tls\":\"maybe\"}",
		 "invalid type: string \"maybe\", expected a boolean"},
		{"{\"name\":\"x\",\"port\":\"25\"}", "invalid type: string \"25\", expected an integer"},
		{"{\"name\":\"x\",\"port\":2.5}", "invalid type: floating point `2.5`, expected an integer"},
		{"{\"name\":\"x\",\"port\":70000}",
		 "invalid value: integer `70000`, expected an integer between 1 and 65535"},
		{"{\"name\":\"x\",\"port\":[1]}", "invalid type: sequence, expected an integer"},
		{"{\"name\":\"x\",\"port\":true}", "invalid type: boolean `true`, expected an integer"},
		{"{\"name\":\"x\",\"limit\":-1}",
		 "invalid value: integer `-1`, expected a number of bytes, 0 or more"},
		{"{\"name\":\"x\",\"timeout\":\"x\"}", "invalid value: string \"x\", expected a duration"},
		{"{\"name\":\"x\",\"timeout\":-5}", "invalid value: integer `-5`, expected a duration"},
		{"{\"name\":\"x\",\"timeout\":{}}", "invalid type: map, expected a duration"},
		{"{\"name\":\"x\",\"mode\":\"Sometimes\"}",
		 "unknown variant `Sometimes`, expected one of `Opportunistic`, `Required`, `Disabled`"},
		{"{\"name\":\"x\",\"list\":\"a\"}",
		 "invalid type: string \"a\", expected a sequence of strings"},
		{"{\"name\":\"x\",\"list\":[\"a\",1]}", "invalid type: integer `1`, expected a string"},
		{"{\"name\":\"x\",\"custom\":3}", "custom: not even"},
		{"{\"name\":\"x\",\"port\":666}", "port and soul do not go together"},
		{"{\"max_message_rate\":\"1/s\",\"name\":\"x\"}",
		 "field `max_message_rate` is not supported by this version of cirrus"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct sample s;
		struct buf expected = BUF_INIT;
		json_t *v = value_parse_json(str_of(c[i].json));
		buf_printf(&expected, "deserialize error: %s, while processing ", c[i].why);
		value_write_json(v, false, &expected);
		assert_int_equal(param_parse_json(&schema, v, &s), -1);
		assert_true(err_is(ERR_INVALID));
		assert_string_equal(err_text(), expected.p);
		err_clear();
		json_decref(v);
		buf_fini(&expected);
	}
}

static void test_bad_networks(void **state)
{
	struct sample s;
	assert_int_equal(parse("{\"name\":\"x\",\"hosts\":[\"10.0.0.0/8\",\"300.1.1.1\"]}", &s), -1);
	assert_non_null(strstr(err_text(), "deserialize error: 300.1.1.1: 300.1.1.1 is not a valid CIDR"));
	assert_non_null(strstr(
		err_text(), ", while processing {\"hosts\":[\"10.0.0.0/8\",\"300.1.1.1\"],\"name\":\"x\"}"));
	err_clear();
	assert_int_equal(parse("{\"name\":\"x\",\"listen\":\"nonsense\"}", &s), -1);
	assert_non_null(strstr(err_text(), "nonsense"));
	err_clear();
}

static void test_secrets(void **state)
{
	struct sample s;
	static const char *const c[] = {
		"{\"name\":\"x\",\"smtp_password\":\"hunter2\",\"use_tls\":1}",
		"{\"name\":\"x\",\"smtp_password\":[\"hunter2\"]}",
		"{\"name\":\"x\",\"smtp_password\":{\"value\":\"hunter2\"}}",
		"{\"name\":\"x\",\"extra\":{\"api_Token\":\"hunter2\",\"k\":[{\"private_key\":\"hunter2\"}]},"
		"\"port\":0}",
		"{\"name\":\"x\",\"secret\":\"hunter2\"}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		assert_int_equal(parse(c[i], &s), -1);
		assert_null(strstr(err_text(), "hunter2"));
		assert_non_null(strstr(err_text(), "***"));
		err_clear();
	}
}

static void test_not_a_table(void **state)
{
	struct sample s;
	assert_int_equal(parse("\"x\"", &s), -1);
	assert_string_equal(
		err_text(),
		"deserialize error: invalid type: string, expected table, while processing \"x\"");
	err_clear();
	assert_int_equal(parse("[1]", &s), -1);
	assert_string_equal(
		err_text(),
		"deserialize error: invalid type: sequence, expected table, while processing [1]");
	err_clear();
}

/* --- objects --- */

static lua_State *L;

static int setup(void **state)
{
	L = luaL_newstate();
	luaL_openlibs(L);
	return L == NULL;
}

static int teardown(void **state)
{
	lua_close(L);
	return 0;
}

static void run(const char *code)
{
	if (luaL_dostring(L, code) != LUA_OK)
		fail_msg("%s", lua_tostring(L, -1));
}

static void test_object(void **state)
{
	run("return {name='x', pause=90, hosts={'10.0.0.0/8'}, custom=6, extra={1,2}}");
	struct param_object *o = param_object_from_lua(&schema, L, -1);
	assert_non_null(o);
	assert_int_equal(((const struct sample *)(const void *)o->data)->custom, 6);
	lua_settop(L, 0);
	param_object_push(L, o);
	param_object_unref(o); /* the userdata keeps it */
	lua_setglobal(L, "o");
	run("assert(tostring(o):match('^Sample: '), tostring(o))\n"
	    "assert(o.name == 'x' and o.port == 25 and o.timeout == '1m' and o.pause == '1m 30s')\n"
	    "assert(o.hosts[1] == '10.0.0.0/8' and o.mode == 'Required' "
	    "and o.custom == 6 and o.extra[2] == 2)\n"
	    "assert(o.source == nil and o.nope == nil and o[1] == nil)\n"
	    "local n = 0 for k, v in pairs(o) do assert(v ~= nil) n = n + 1 end\n"
	    "assert(n == 14 and #o == 14, n)\n"
	    "assert(not pcall(function() o.port = 1 end))\n"
	    "assert(getmetatable(o) == false)");
	lua_getglobal(L, "o");
	json_t *v = value_from_lua(L, -1);
	assert_non_null(v);
	assert_true(json_is_null(json_object_get(v, "source")));
	assert_int_equal(json_integer_value(json_object_get(v, "port")), 25);
	json_decref(v);
	o = param_object_at(L, -1, &schema);
	assert_non_null(o);
	param_object_unref(o);
	assert_null(param_object_at(L, -1, &other_schema));
	assert_string_equal(err_text(), "a Other was expected, not a Sample");
	err_clear();
	run("return 5, io.stdout, nil");
	for (int i = -3; i < 0; i++) {
		assert_null(param_object_at(L, i, &schema));
		err_clear();
	}
}

static void test_from_lua(void **state)
{
	struct sample s;
	run("return {name='x', extra={f=print}}");
	assert_int_equal(param_parse_lua(&schema, L, -1, &s), -1);
	assert_string_equal(err_text(), "deserialize error: a function cannot be represented, at `extra.f`, "
					"while processing a table");
	err_clear();
	run("return nil");
	assert_int_equal(param_parse_lua(&schema, L, -1, &s), -1);
	assert_string_equal(err_text(),
			    "deserialize error: invalid type: null, expected table, while processing null");
	err_clear();
	run("return {name='\\0'}");
	assert_int_equal(param_parse_lua(&schema, L, -1, &s), -1);
	assert_non_null(strstr(err_text(), "expected a string without NUL"));
	err_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_given),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_bad_networks),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_not_a_table),
		cmocka_unit_test_setup_teardown(test_object, setup, teardown),
		cmocka_unit_test_setup_teardown(test_from_lua, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
