/* test_json.c - the JSON writer: commas, nesting, escapes, bytes that are not UTF-8, numbers. */
#include "ut.h"

#include "base/json.h"

#include <math.h>

static void json_structure(void **state)
{
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	json_obj_begin(&j);
	json_kv_str(&j, STR("a"), STR("x"));
	json_key(&j, STR("b"));
	json_arr_begin(&j);
	json_arr_begin(&j);
	json_arr_end(&j);
	json_int(&j, INT64_MIN);
	json_uint(&j, UINT64_MAX);
	json_obj_begin(&j);
	json_obj_end(&j);
	json_raw(&j, STR("{\"k\":1}"));
	json_arr_end(&j);
	json_kv_bool(&j, STR("t"), true);
	json_kv_bool(&j, STR("f"), false);
	json_kv_null(&j, STR("n"));
	json_kv_int(&j, STR("i"), -1);
	json_key(&j, STR("d"));
	json_double(&j, 4);
	json_key(&j, STR("nan"));
	json_double(&j, NAN);
	json_key(&j, STR("inf"));
	json_double(&j, -INFINITY);
	json_obj_end(&j);
	assert_buf_is(&b, "{\"a\":\"x\",\"b\":[[],-9223372036854775808,18446744073709551615,{},{\"k\":1}],"
			  "\"t\":true,\"f\":false,\"n\":null,\"i\":-1,\"d\":4.0,\"nan\":null,\"inf\":null}");
	assert_int_equal(j.depth, 0);
	buf_fini(&b);
}

static void json_deep(void **state)
{
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	for (int i = 0; i < 64; i++) {
		json_arr_begin(&j);
		json_int(&j, i % 10);
	}
	for (int i = 0; i < 64; i++) {
		json_int(&j, 7);
		json_arr_end(&j);
	}
	assert_true(str_starts(buf_str(&b), STR("[0,[1,[2,[3,")));
	assert_true(str_find(buf_str(&b), STR("[2,[3,7],7],7],")) > 0); /* 63 % 10 is 3 */
	assert_true(str_ends(buf_str(&b), STR("],7],7],7]")));
	assert_int_equal(str_find(buf_str(&b), STR("[,")), -1);
	assert_int_equal(str_find(buf_str(&b), STR("][")), -1);
	buf_fini(&b);
}

static void json_escapes(void **state)
{
	static const struct {
		str_t in;
		const char *out;
	} rows[] = {
		{{"", 0}, "\"\""},
		{{"plain /", 7}, "\"plain /\""},
		{{"q\"b\\", 4}, "\"q\\\"b\\\\\""},
		{{"\b\f\n\r\t\0\x1f\x7f", 8}, "\"\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\""},
		{{"\xc3\xa9\xf0\x9f\x98\x80", 6}, "\"\xc3\xa9\xf0\x9f\x98\x80\""},
		{{"a\xff"
		  "b",
		  3},
		 "\"a\xef\xbf\xbd"
		 "b\""},
		{{"\xe2\x82", 2}, "\"\xef\xbf\xbd\""},
		{{"\xf0\x9f\x98z", 4}, "\"\xef\xbf\xbdz\""},
		{{"\xed\xa0\x80", 3}, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct buf b = BUF_INIT;
		json_escape(&b, rows[i].in);
		assert_buf_is(&b, rows[i].out);
		assert_true(str_is_utf8(buf_str(&b)));
		buf_fini(&b);
	}
}

/* Every byte at every place of a word comes out as it does alone. */
static void json_escapes_anywhere(void **state)
{
	for (int c = 0; c < 256; c++) {
		for (size_t at = 0; at < 20; at++) {
			char text[20], byte = (char)c;
			struct buf b = BUF_INIT, want = BUF_INIT;
			memset(text, 'x', sizeof(text));
			text[at] = byte;
			json_escape(&b, str_mk(text, sizeof(text)));
			json_escape(&want, str_mk(&byte, 1));
			assert_int_equal(b.n, want.n + 19);
			assert_true(str_starts(str_skip(buf_str(&b), at + 1),
					       str_head(str_skip(buf_str(&want), 1), want.n - 2)));
			buf_fini(&b);
			buf_fini(&want);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_structure),
		cmocka_unit_test(json_deep),
		cmocka_unit_test(json_escapes),
		cmocka_unit_test(json_escapes_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
