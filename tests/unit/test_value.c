/* Values between Lua, JSON and YAML: shapes, limits, error texts with key paths and positions. */
#include "ut.h"

#include "base/err.h"
#include "policy/value_impl.h"

#include <lauxlib.h>
#include <lualib.h>

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

static void push_lua(const char *expression)
{
	char code[4096];
	lua_settop(L, 0);
	snprintf(code, sizeof(code), "return %s", expression);
	if (luaL_dostring(L, code) != LUA_OK)
		fail_msg("%s: %s", code, lua_tostring(L, -1));
}

static void assert_json(const json_t *v, const char *expected)
{
	struct buf b = BUF_INIT;
	value_write_json(v, false, &b);
	assert_buf_is(&b, expected);
	buf_fini(&b);
}

static void assert_error(const char *expected)
{
	assert_true(err_is(ERR_INVALID));
	assert_string_equal(err_text(), expected);
	err_clear();
}

static void test_from_lua(void **state)
{
	static const struct {
		const char *lua, *json;
	} c[] = {
		{"nil", "null"},
		{"true", "true"},
		{"5", "5"},
		{"5.0", "5.0"},
		{"1e100", "1e100"},
		{"-0.5", "-0.5"},
		{"9223372036854775807", "9223372036854775807"},
		{"'a\\\"\\n'", "\"a\\\"\\n\""},
		{"'a\\0b'", "\"a\\u0000b\""},
		{"{}", "{}"},
		{"{1, 2, {3}}", "[1,2,[3]]"},
		{"{b = 1, a = {c = 2}}", "{\"a\":{\"c\":2},\"b\":1}"},
		{"{[5] = 'x', [10] = 'y'}", "{\"10\":\"y\",\"5\":\"x\"}"},
		{"{[0] = 'x'}", "{\"0\":\"x\"}"},
		{"{[0] = 'x', [2] = 'y'}", "{\"0\":\"x\",\"2\":\"y\"}"},
		{"{1, nil, 3}", "{\"1\":1,\"3\":3}"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		push_lua(c[i].lua);
		json_t *v = value_from_lua(L, 1);
		if (v == NULL)
			fail_msg("%s: %s", c[i].lua, err_text());
		assert_json(v, c[i].json);
		json_decref(v);
		assert_int_equal(lua_gettop(L), 1);
	}
}

static void test_from_lua_errors(void **state)
{
	static const struct {
		const char *lua, *error;
	} c[] = {
		{"print", "a function cannot be represented"},
		{"{a = {1, 2, print}}", "a function cannot be represented, at `a[3]`"},
		{"{a = {b = coroutine.create(print)}}", "a thread cannot be represented, at `a.b`"},
		{"{x = {1, foo = 2}}",
		 "a table with both array items and named keys cannot be represented, at `x.foo`"},
		{"{x = {[true] = 2}}", "a table with a boolean as key cannot be represented, at `x`"},
		{"{x = {[1.5] = 2}}", "a table with a number as key cannot be represented, at `x`"},
		{"{x = 0/0}", "a number that is not finite cannot be represented, at `x`"},
		{"{x = 1/0}", "a number that is not finite cannot be represented, at `x`"},
		{"{x = '\\xff'}", "a string that is not UTF-8 cannot be represented, at `x`"},
		{"{x = {['a\\0b'] = 1}}",
		 "a key that is not UTF-8 or has a NUL in it cannot be represented, at `x`"},
		{"{x = io.stdout}", "a userdata cannot be represented, at `x`"},
		{"(function() local t = {} t.t = t return t end)()",
		 "nested deeper than 128 levels (a table that contains itself?)"},
		{"(function() local t = {} for i = 1, 127 do t = {t, t} end return t end)()",
		 "more than 1000000 values in one structure"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		push_lua(c[i].lua);
		assert_null(value_from_lua(L, 1));
		assert_error(c[i].error);
		assert_int_equal(lua_gettop(L), 1);
	}
}

/* JSON to Lua and back is the same text: null, [] and {}, integers and floats survive. */
static void test_round_trip(void **state)
{
	static const char *const c[] = {"null",
					"[]",
					"{}",
					"[[],{}]",
					"{\"a\":null,\"b\":[1,2.0,\"x\"]}",
					"[null]",
					"[1,2,[null,{\"x\":[]}]]",
					"\"\"",
					"1.0e-10"};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		json_t *v = value_parse_json(str_of(c[i]));
		assert_non_null(v);
		lua_settop(L, 0);
		value_push_json(L, v);
		json_t *back = value_from_lua(L, 1);
		assert_non_null(back);
		assert_true(json_equal(v, back));
		json_decref(v);
		json_decref(back);
	}
}

/* A parsed array to which a policy adds named fields is judged as the table it then is. */
static void test_marked_array(void **state)
{
	json_t *v = value_parse_json(STR("[]"));
	lua_settop(L, 0);
	value_push_json(L, v);
	json_decref(v);
	lua_pushinteger(L, 1);
	lua_setfield(L, 1, "x");
	v = value_from_lua(L, 1);
	assert_json(v, "{\"x\":1}");
	json_decref(v);
}

static void test_parse_json(void **state)
{
	char deep[400];
	assert_null(value_parse_json(STR("{\"a\": tru}")));
	assert_true(err_is(ERR_INVALID));
	assert_non_null(strstr(err_text(), "at line 1 column"));
	err_clear();
	memset(deep, '[', sizeof(deep));
	assert_null(value_parse_json(str_mk(deep, sizeof(deep))));
	assert_error("nested deeper than 128 levels at line 1 column 129");
	memset(deep + 128, ']', 128);
	json_t *v = value_parse_json(str_mk(deep, 256));
	assert_non_null(v);
	json_decref(v);
	assert_null(value_parse_json(STR("")));
	err_clear();
	assert_null(value_parse_json(STR("1 // no comments here")));
	err_clear();
	v = value_parse_json(STR("\"a\\u0000b\""));
	assert_non_null(v);
	assert_int_equal(json_string_length(v), 3);
	json_decref(v);
	assert_null(value_parse_json(STR("{\"a\\u0000b\": 1}")));
	err_clear();
	assert_null(value_parse_json(STR("\"\xff\"")));
	err_clear();
	assert_null(value_parse_json(STR("[1]x")));
	err_clear();
	assert_null(value_parse_json(STR("[1]\n\0x")));
	assert_string_equal(err_text(), "a NUL byte at line 2 column 1");
	err_clear();
}

/* Each is read at once, as jansson reads it. */
static void test_quick_json(void **state)
{
	static const char *const text[] = {
		"null",
		" true ",
		"[false]",
		"0",
		"-0",
		"-12",
		"123456789012345678",
		"-123456789012345678",
		"1.5",
		"[-1e3,2E-2,0.25e+1]",
		"\"\"",
		"\"a\"",
		"{}",
		"[]",
		" { \"a\" : [ 1 , { \"b\" : null } ] , \"\" : \"\" } ",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
		"\"\\u0041\\u00e9\\u20ac\\uD83D\\udE00\\u0000\"",
		"{\"\\u0041\\n\":\"\\u0042\"}",
		"\"0123456789 abcdefghijklmnopqrstuvwxyz\\r\\n0123456789 \xe2\x82\xac \xf0\x9f\x98\x80 "
		"\x7f\"",
	};
	for (size_t i = 0; i < ARRAY_SIZE(text); i++) {
		json_t *quick = value_json_read(str_of(text[i]));
		json_t *v = json_loads(text[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		if (quick == NULL || !json_equal(quick, v))
			fail_msg("%s", text[i]);
		json_decref(quick);
		json_decref(v);
	}
	/* A quote and other special characters in each place of a word of eight bytes. */
	for (size_t n = 0; n < 40; n++) {
		char s[64];
		int len = snprintf(s, sizeof s, "\"%.*s\\t%.*s\"", (int)n,
				   "0123456789012345678901234567890123456789", (int)(n / 2),
				   "0123456789012345678901234567890123456789");
		json_t *quick = value_json_read(str_mk(s, (size_t)len));
		assert_int_equal(json_string_length(quick), n + 1 + n / 2);
		assert_null(value_json_read(str_mk(s, (size_t)len - 1)));
		json_decref(quick);
	}
}

/* Left to jansson, which takes some and refuses others. */
static void test_no_quick_json(void **state)
{
	static const char *const text[] = {
		"",
		" ",
		"nul",
		"nullx",
		"tru",
		"1x",
		"01",
		"-",
		"-a",
		"1.",
		"1e",
		".5",
		"+1",
		"1e999",
		"1234567890123456789",
		"12345678901234567890",
		"[1,]",
		"[,1]",
		"[1 2]",
		"[1",
		"[",
		"]",
		"{",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{a:1}",
		"{1:1}",
		"{\"a\":1 \"b\":2}",
		"\"",
		"\"a",
		"\"\\",
		"\"\\x\"",
		"\"\\u12\"",
		"\"\\u12g4\"",
		"\"\\ud800\"",
		"\"\\ud800\\u0041\"",
		"\"\\udc00\"",
		"\"\n\"",
		"\"\x1f\"",
		"\"\x80\"",
		"\"\xc3\"",
		"\"\xc0\xaf\"",
		"\"\xed\xa0\x80\"",
		"\"\xf5\x80\x80\x80\"",
		"{\"\\u0000\":1}",
		"{\"a\":1,\"b\":2,\"a\":3}",
		"1 1",
		"'a'",
		"\xef\xbb\xbf{}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(text); i++) {
		if (value_json_read(str_of(text[i])) != NULL)
			fail_msg("%s", text[i]);
	}
	assert_null(value_json_read(STR("\"a\0b\"")));
	assert_null(value_json_read(STR("\"\\\0\"")));
	char deep[129];
	memset(deep, '[', sizeof(deep));
	assert_null(value_json_read(str_mk(deep, sizeof(deep))));
}

static void test_json_keys_twice(void **state)
{
	json_t *v = value_parse_json(STR("{\"a\":1,\"b\":2,\"a\":3}"));
	assert_int_equal(json_integer_value(json_object_get(v, "a")), 3);
	json_decref(v);
	v = value_parse_json_unique(STR("[{\"a\":{\"a\":1}},{\"a\":2}]"));
	assert_int_equal(json_array_size(v), 2);
	json_decref(v);
	assert_null(value_parse_json_unique(STR("[{\"b\":{\"a\":1,\n\"a\":1}}]")));
	assert_true(err_is(ERR_EXISTS));
	assert_string_equal(err_text(), "duplicate object key near '\"a\"' at line 2 column 3");
	err_clear();
	assert_null(value_parse_json_unique(STR("{\"a\":1,\"a\"}")));
	assert_true(err_is(ERR_INVALID) || err_is(ERR_EXISTS));
	err_clear();
}

static void test_parse_json_relaxed(void **state)
{
	json_t *v = value_parse_json_relaxed(
		STR("{ // one\n  \"a#/*\": 1, /* two\n lines */ # three\n \"b\": [\"\\u0000\"] } # end"));
	assert_non_null(v);
	assert_json(v, "{\"a#/*\":1,\"b\":[\"\\u0000\"]}");
	json_decref(v);
	assert_null(value_parse_json_relaxed(STR("[1, /* open")));
	assert_error("a comment that does not end at line 1 column 5");
	assert_null(value_parse_json_relaxed(STR("/* c */\n[1, x]")));
	assert_non_null(strstr(err_text(), "at line 2 column"));
	err_clear();
	assert_null(value_parse_json_relaxed(STR("[1 / 2]")));
	err_clear();
}

static void test_write_pretty(void **state)
{
	struct buf b = BUF_INIT;
	json_t *v = value_parse_json(STR("{\"b\":[1,{}],\"a\":{\"x\":[]},\"c\":null}"));
	value_write_json(v, true, &b);
	assert_buf_is(
		&b, "{\n  \"a\": {\n    \"x\": []\n  },\n  \"b\": [\n    1,\n    {}\n  ],\n  \"c\": null\n}");
	json_decref(v);
	buf_fini(&b);
}

static void test_yaml(void **state)
{
	static const struct {
		const char *yaml, *json;
	} c[] = {
		{"", "null"},
		{"a: 1\nb: [x, 'y', \"z\\n\"]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\\n\"]}"},
		{"- yes\n- true\n- ~\n- 0x1f\n- 0o17\n- 1.5\n- '1'\n- 1e3\n- 2026-01-01\n-\n",
		 "[\"yes\",true,null,31,15,1.5,\"1\",1000.0,\"2026-01-01\",null]"},
		{"a: &x {k: v}\nb: *x\n", "{\"a\":{\"k\":\"v\"},\"b\":{\"k\":\"v\"}}"},
		{"a: !!str 123\nb: !!int '7'\n", "{\"a\":\"123\",\"b\":7}"},
		{"1: one\ntrue: two\n", "{\"1\":\"one\",\"true\":\"two\"}"},
		{"text: |\n  a\n  b\n", "{\"text\":\"a\\nb\\n\"}"},
		{"big: 123456789012345678901234567890", "{\"big\":\"123456789012345678901234567890\"}"},
		{"v: 1.2.3.4", "{\"v\":\"1.2.3.4\"}"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		json_t *v = value_parse_yaml(str_of(c[i].yaml));
		if (v == NULL)
			fail_msg("%s: %s", c[i].yaml, err_text());
		assert_json(v, c[i].json);
		json_decref(v);
	}
}

static void test_yaml_errors(void **state)
{
	static const char *const c[] = {
		"a: [1,",    "a: 1\na: 2\n", "a: *nope",       "[a]: 1\n? {b: 1}\n: 2\n",
		"a: !foo 1", "a: .inf",	     "--- 1\n--- 2\n", "&a [*a]",
		"a: \xff",   "\"a\\0b\": 1"};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		json_t *v = value_parse_yaml(str_of(c[i]));
		if (v != NULL)
			fail_msg("accepted: %s", c[i]);
		assert_true(err_is(ERR_INVALID));
		assert_true(strncmp(err_text(), "YAML: ", 6) == 0);
		err_clear();
	}
}

static void test_yaml_bomb(void **state)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
	for (int i = 1; i < 10; i++) {
		buf_printf(&b, "a%d: &a%d [", i, i);
		for (int k = 0; k < 10; k++)
			buf_printf(&b, "%s*a%d", k != 0 ? "," : "", i - 1);
		buf_add_z(&b, "]\n");
	}
	assert_null(value_parse_yaml(buf_str(&b)));
	assert_non_null(strstr(err_text(), "more than 1000000 values"));
	err_clear();
	buf_clear(&b);
	for (int i = 0; i < 1000; i++)
		buf_add_c(&b, '[');
	assert_null(value_parse_yaml(buf_str(&b)));
	err_clear();
	buf_fini(&b);
}

static void test_yaml_round_trip(void **state)
{
	static const char *const c[] = {"null",
					"1",
					"1.5",
					"\"\"",
					"\"yes\"",
					"\"1\"",
					"\"null\"",
					"\"- x\"",
					"\"a: b\"",
					"\"# c\"",
					"\"line\\nline\\n\"",
					"\" lead\"",
					"\"tab\\there\"",
					"\"\\u00e9\"",
					"[]",
					"{}",
					"{\"a\":[],\"b\":{\"c\":[1,[2,{\"d\":null}]]}}",
					"{\"0x1f\":\"0x1f\",\"true\":false}",
					"[\".inf\",\"~\",\"1e3\",\"<<\"]",
					"\"\\n\"",
					"\"a\\n\\n b\"",
					"\"bell\\u0007\""};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct buf b = BUF_INIT;
		json_t *v = value_parse_json(str_of(c[i]));
		assert_non_null(v);
		assert_int_equal(value_write_yaml(v, &b), 0);
		json_t *back = value_parse_yaml(buf_str(&b));
		if (back == NULL || !json_equal(v, back))
			fail_msg("%s became:\n%s\n%s", c[i], b.p, err_text());
		json_decref(v);
		json_decref(back);
		buf_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_from_lua, setup, teardown),
		cmocka_unit_test_setup_teardown(test_from_lua_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_marked_array, setup, teardown),
		cmocka_unit_test(test_parse_json),
		cmocka_unit_test(test_quick_json),
		cmocka_unit_test(test_no_quick_json),
		cmocka_unit_test(test_json_keys_twice),
		cmocka_unit_test(test_parse_json_relaxed),
		cmocka_unit_test(test_write_pretty),
		cmocka_unit_test(test_yaml),
		cmocka_unit_test(test_yaml_errors),
		cmocka_unit_test(test_yaml_bomb),
		cmocka_unit_test(test_yaml_round_trip),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
