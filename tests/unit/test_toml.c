/* TOML 1.0: what is read, what is refused and where, what is written. */
#include "ut.h"

#include "base/err.h"
#include "policy/value.h"

static void assert_reads(const char *toml, const char *json)
{
	struct buf b = BUF_INIT;
	json_t *v = value_parse_toml(str_of(toml));
	if (v == NULL)
		fail_msg("%s\n%s", toml, err_text());
	value_write_json(v, false, &b);
	if (strcmp(b.p, json) != 0)
		fail_msg("%s\ngave     %s\nexpected %s", toml, b.p, json);
	json_decref(v);
	buf_fini(&b);
}

static void assert_refuses(const char *toml, const char *at)
{
	json_t *v = value_parse_toml(str_of(toml));
	if (v != NULL)
		fail_msg("accepted: %s", toml);
	assert_true(err_is(ERR_INVALID));
	if (strstr(err_text(), at) == NULL)
		fail_msg("%s: \"%s\" does not say \"%s\"", toml, err_text(), at);
	err_clear();
}

static void test_values(void **state)
{
	assert_reads("", "{}");
	assert_reads("\xef\xbb\xbf# only a comment", "{}");
	assert_reads("a = 1\nb = -17\r\nc = +99 # c\nd=1_000\ne = 0",
		     "{\"a\":1,\"b\":-17,\"c\":99,\"d\":1000,\"e\":0}");
	assert_reads("a = 0xdead_beef\nb = 0o755\nc = 0b1101", "{\"a\":3735928559,\"b\":493,\"c\":13}");
	assert_reads("a = 1.5\nb = -0.01\nc = 5e+2\nd = 6.626e-3\ne = 224_617.445_991",
		     "{\"a\":1.5,\"b\":-0.01,\"c\":500.0,"
		     "\"d\":0.006626,\"e\":224617.445991}");
	assert_reads("a = 5.2e-6", "{\"a\":5.2e-6}");
	assert_reads("a = true\nb = false", "{\"a\":true,\"b\":false}");
	assert_reads("a = 9223372036854775807\nb = -9223372036854775808",
		     "{\"a\":9223372036854775807,\"b\":-9223372036854775808}");
	assert_reads("a = 1979-05-27T07:32:00Z\nb = 1979-05-27 07:32:00.999999-07:00\n"
		     "c = 1979-05-27\nd = 07:32:00",
		     "{\"a\":\"1979-05-27T07:32:00Z\",\"b\":\"1979-05-27 "
		     "07:32:00.999999-07:00\",\"c\":\"1979-05-27\","
		     "\"d\":\"07:32:00\"}");
	assert_reads("a = [1, 2,\n # c\n 3,\n]\nb = []\nc = [[1], ['x', 1.0]]",
		     "{\"a\":[1,2,3],\"b\":[],\"c\":[[1],[\"x\",1.0]]}");
	assert_reads("a = { x = 1, y.z = 2, y.w = 3 }\nb = {}",
		     "{\"a\":{\"x\":1,\"y\":{\"w\":3,\"z\":2}},\"b\":{}}");
}

static void test_strings(void **state)
{
	assert_reads(
		"a = \"\"\nb = ''\nc = \"x\\ty\\\"\\\\\\u00e9\\U0001F600\"\nd = 'C:\\n'",
		"{\"a\":\"\",\"b\":\"\",\"c\":\"x\\ty\\\"\\\\\xc3\xa9\xf0\x9f\x98\x80\",\"d\":\"C:\\\\n\"}");
	assert_reads("a = \"\"\"\none\ntwo\"\"\"", "{\"a\":\"one\\ntwo\"}");
	assert_reads("a = \"\"\"one \\\n\n   two \\  \n  three\"\"\"", "{\"a\":\"one two three\"}");
	assert_reads("a = '''\nraw \\n 'q' '''", "{\"a\":\"raw \\\\n 'q' \"}");
	assert_reads("a = \"\"\"\"quoted\"\"\"\"", "{\"a\":\"\\\"quoted\\\"\"}");
	assert_reads("a = '''''x'''''", "{\"a\":\"''x''\"}");
	assert_reads("a = \"\"\"\\\"\"\"\\\"\"\"\"", "{\"a\":\"\\\"\\\"\\\"\\\"\"}");
	assert_reads("a = [\"\\\\\", \"b\\\\\", 'c']", "{\"a\":[\"\\\\\",\"b\\\\\",\"c\"]}");
	assert_reads("a = \"\\u0000\"", "{\"a\":\"\\u0000\"}");
}

static void test_keys_and_tables(void **state)
{
	assert_reads("a.b.c = 1\na.b.d = 2\n\"x y\" = 3\n'' = 4\na.'q.r' = 5\n1-2 = 6",
		     "{\"\":4,\"1-2\":6,\"a\":{\"b\":{\"c\":1,\"d\":2},\"q.r\":5},\"x y\":3}");
	assert_reads("[a]\nx=1\n[a.b]\ny=2\n[c . d]\nz=3",
		     "{\"a\":{\"b\":{\"y\":2},\"x\":1},\"c\":{\"d\":{\"z\":3}}}");
	assert_reads("[a.b]\nx=1\n[a]\ny=2", "{\"a\":{\"b\":{\"x\":1},\"y\":2}}");
	assert_reads("[[p]]\nn=1\n[[p]]\n[[p]]\nn=3\n[p.q]\nr=1\n[[p.s]]\n[[p.s]]\nt=1",
		     "{\"p\":[{\"n\":1},{},{\"n\":3,\"q\":{\"r\":1},\"s\":[{},{\"t\":1}]}]}");
	assert_reads("[fruit]\napple.color = 1\n[fruit.apple.texture]\nsmooth = true",
		     "{\"fruit\":{\"apple\":{\"color\":1,\"texture\":{\"smooth\":true}}}}");
}

static void test_refusals(void **state)
{
	static const struct {
		const char *toml, *at;
	} c[] = {
		{"a", "`=` was expected at line 1 column 2"},
		{"= 1", "a key was expected at line 1 column 1"},
		{"a = ", "a value is missing at line 1 column 5"},
		{"a = 1 b = 2", "the end of the line was expected at line 1 column 7"},
		{"a = 1\na = 2", "key `a` is defined already at line 2 column 1"},
		{"[a]\n[a]", "key `a` is defined already at line 2 column 1"},
		{"a = 1\n[a]", "key `a` is defined already at line 2"},
		{"a = 1\n[a.b]", "key `a` is defined already, and not as a table that can grow at line 2"},
		{"a = {}\n[a.b]", "line 2"},
		{"a = {}\na.b = 1", "line 2"},
		{"a = []\n[[a]]", "line 2"},
		{"[[a]]\n[a]", "line 2"},
		{"[a]\n[[a]]", "line 2"},
		{"[a.b.c]\nz=9\n[a]\nb.c.t=1", "line 4"},
		{"[fruit]\napple.color = 1\n[fruit.apple]", "line 3"},
		{"a = 'x", "a string that does not end at line 1 column 5"},
		{"a = \"\"\"x\n", "a string that does not end at line 1 column 5"},
		{"a = \"x\ny\"", "a string that does not end"},
		{"a = \"\\q\"", "an unknown escape at line 1 column 6"},
		{"a = \"\\ud800\"", "no Unicode scalar value"},
		{"a = \"\\u12\"", "needs 4 hex digits"},
		{"a = \"\x01\"", "a control character (0x01)"},
		{"# \x01", "a control character"},
		{"a = 01", "a malformed value"},
		{"a = 1__0", "a malformed value"},
		{"a = 1_", "a malformed value"},
		{"a = _1", "a malformed value"},
		{"a = 1.", "a malformed value"},
		{"a = .5", "a malformed value"},
		{"a = 1e", "a malformed value"},
		{"a = +0x1", "a malformed value"},
		{"a = 0x", "a malformed value"},
		{"a = 0xg", "a malformed number"},
		{"a = 9223372036854775808", "beyond 64 bits"},
		{"a = 0x8000000000000000", "beyond 64 bits"},
		{"a = 1e999", "beyond the range"},
		{"a = inf", "not finite"},
		{"a = -nan", "not finite"},
		{"a = 2026-13-01", "a malformed date"},
		{"a = 2026-02-29", "a malformed date"},
		{"a = 25:00:00", "a malformed date"},
		{"a = 2026-01-01T10:00", "a malformed date"},
		{"a = yes", "a malformed value"},
		{"a = [1 2]", "`,` or `]` was expected"},
		{"a = [1,", "an array that does not end at line 1 column 5"},
		{"a = {x = 1,}", "a key was expected"},
		{"a = {x = 1\n}", "`,` or `}` was expected"},
		{"[a", "`]` was expected"},
		{"[[a]", "`]]` was expected"},
		{"[]", "a key was expected"},
		{"\"\"\"a\"\"\" = 1", "a key cannot be a multi-line string"},
		{"\"x\\u0000\" = 1", "a key with a NUL in it at line 1 column 1"},
		{"a = 1\rb = 2", "the end of the line was expected"},
		{"a = '\xff'", "not UTF-8"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		assert_refuses(c[i].toml, c[i].at);
}

static void test_depth(void **state)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, "a = ");
	for (int i = 0; i < 100000; i++)
		buf_add_c(&b, '[');
	assert_refuses(b.p, "nested deeper");
	buf_clear(&b);
	buf_add_z(&b, "a");
	for (int i = 0; i < 200; i++)
		buf_add_z(&b, ".a");
	buf_add_z(&b, " = 1");
	assert_refuses(b.p, "nested deeper");
	buf_clear(&b);
	buf_add_z(&b, "a = ");
	for (int i = 0; i < 200; i++)
		buf_add_z(&b, "{a = ");
	assert_refuses(b.p, "nested deeper");
	buf_clear(&b);
	/* The deepest document that is read can be written. */
	buf_add_z(&b, "a = ");
	for (int i = 0; i < 127; i++)
		buf_add_c(&b, '[');
	for (int i = 0; i < 127; i++)
		buf_add_c(&b, ']');
	json_t *v = value_parse_toml(buf_str(&b));
	assert_non_null(v);
	buf_clear(&b);
	assert_int_equal(value_write_toml(v, true, &b), 0);
	json_decref(v);
	buf_fini(&b);
}

/* Many escaped strings on one line take memory in proportion to the line. */
static void test_many_escapes(void **state)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, "a = [");
	for (int i = 0; i < 20000; i++)
		buf_add_z(&b, "\"\\n\",");
	buf_add_z(&b, "]");
	json_t *v = value_parse_toml(buf_str(&b));
	assert_non_null(v);
	assert_int_equal(json_array_size(json_object_get(v, "a")), 20000);
	json_decref(v);
	buf_fini(&b);
}

static void assert_writes(const char *json, int mode, const char *toml)
{
	struct buf b = BUF_INIT;
	json_t *v = value_parse_json(str_of(json));
	assert_non_null(v);
	assert_int_equal(mode == 2 ? value_write_toml_compact(v, &b) : value_write_toml(v, mode == 1, &b), 0);
	assert_buf_is(&b, toml);
	json_decref(v);
	buf_fini(&b);
}

static void test_writing(void **state)
{
	static const char doc[] =
		"{\"n\":1,\"f\":2.0,\"s\":\"a\\n\\\"b\",\"l\":[1,2],\"one\":[1],\"t\":{\"x\":true,\"e\":{}},"
		"\"deep\":{\"er\":{\"k\":1}},\"a\":[{\"i\":1},{\"i\":2,\"j\":{\"k\":3}}],\"m\":[{\"z\":1},5],"
		"\"we ird\":\"\"}";
	assert_writes("{}", 0, "");
	assert_writes(doc, 0,
		      "f = 2.0\nl = [1, 2]\nm = [{ z = 1 }, 5]\nn = 1\n"
		      "one = [1]\ns = \"a\\n\\\"b\"\n\"we ird\" = \"\"\n"
		      "\n[[a]]\ni = 1\n\n[[a]]\ni = 2\n\n[a.j]\nk = 3\n"
		      "\n[deep.er]\nk = 1\n\n[t]\nx = true\n\n[t.e]\n");
	assert_writes(
		doc, 1,
		"f = 2.0\nl = [\n    1,\n    2,\n]\nm = [\n    { z = 1 },\n    5,\n]\nn = 1\none = [1]\n"
		"s = \"\"\"\na\n\\\"b\"\"\"\n\"we ird\" = \"\"\n"
		"\n[[a]]\ni = 1\n\n[[a]]\ni = 2\n\n[a.j]\nk = 3\n"
		"\n[deep.er]\nk = 1\n\n[t]\nx = true\n\n[t.e]\n");
	assert_writes("{\"t\":{\"x\":true,\"e\":{}}}", 2, "[t]\ne = {}\nx = true\n");
	static const char *const bad[] = {"[1]", "5", "{\"a\":null}", "{\"a\":{\"b\":[1,null]}}"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct buf b = BUF_INIT;
		json_t *v = value_parse_json(str_of(bad[i]));
		assert_int_equal(value_write_toml(v, false, &b), -1);
		assert_true(err_is(ERR_INVALID));
		err_clear();
		assert_int_equal(b.n, 0);
		json_decref(v);
		buf_fini(&b);
	}
}

static void test_round_trip(void **state)
{
	static const char *const docs[] = {
		"{\"a\":{\"b\":[{\"c\":[{\"d\":1},{\"d\":[[],[{}]]}]},{}]},\"k\\\"ey\":"
		"\"\\u0001\\u007f\\t\\r\\n\",\"\":{\"\":1}}",
		"{\"x\":[{}],\"y\":[[{\"a\":1}]],\"z\":{\"z\":{\"z\":{}}}}",
		"{\"text\":\"line\\n\\\"\\\"\\\" quotes\\\\ end\\\"\\n\"}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(docs); i++) {
		for (int mode = 0; mode < 3; mode++) {
			struct buf b = BUF_INIT;
			json_t *v = value_parse_json(str_of(docs[i]));
			assert_non_null(v);
			assert_int_equal(mode == 2 ? value_write_toml_compact(v, &b)
						   : value_write_toml(v, mode == 1, &b),
					 0);
			json_t *back = value_parse_toml(buf_str(&b));
			if (back == NULL || !json_equal(v, back))
				fail_msg("%s became:\n%s\n%s", docs[i], b.p, err_text());
			json_decref(back);
			json_decref(v);
			buf_fini(&b);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),		cmocka_unit_test(test_strings),
		cmocka_unit_test(test_keys_and_tables), cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_depth),		cmocka_unit_test(test_many_escapes),
		cmocka_unit_test(test_writing),		cmocka_unit_test(test_round_trip),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
