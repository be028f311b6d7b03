/* JSON and YAML text (the first byte chooses): nothing breaks, an error says why, and what was read survives
 * the way through our writers and through Lua. */
#include "base/err.h"
#include "policy/value_impl.h"

#include <lauxlib.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const json_t *v, json_t *back)
{
	if (back == NULL || !json_equal(v, back))
		abort();
	json_decref(back);
}

static void through_text(const json_t *v, bool is_pretty)
{
	struct buf b = BUF_INIT;
	value_write_json(v, is_pretty, &b);
	check_same(v, value_parse_json_relaxed(buf_str(&b)));
	buf_clear(&b);
	if (value_write_yaml(v, &b) != 0)
		err_clear(); /* characters that YAML does not take */
	buf_fini(&b);
}

/* What the quick reader reads is what jansson reads; what it does not, only jansson can. */
static void hold_against_jansson(str_t text)
{
	json_t *quick = value_json_read(text);
	json_t *v = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	if (quick != NULL && (v == NULL || !json_equal(quick, v)))
		abort();
	json_decref(quick);
	json_decref(v);
}

static int push(lua_State *L)
{
	value_push_json(L, lua_touserdata(L, 1));
	return 1;
}

static void through_lua(json_t *v)
{
	lua_State *L = luaL_newstate();
	lua_pushcfunction(L, push);
	lua_pushlightuserdata(L, v);
	if (lua_pcall(L, 1, 1, 0) != LUA_OK)
		abort();
	check_same(v, value_from_lua(L, -1));
	lua_close(L);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	str_t text = str_mk((const char *)data + 1, size - 1);
	hold_against_jansson(text);
	json_t *v = data[0] == 'y'   ? value_parse_yaml(text)
		    : data[0] == 'r' ? value_parse_json_relaxed(text)
				     : value_parse_json(text);
	if (v == NULL) {
		if (!err_is(ERR_INVALID))
			abort();
		err_clear();
		return 0;
	}
	through_text(v, data[0] & 1);
	through_lua(v);
	json_decref(v);
	return 0;
}
