/* bind_serde.c - kumo.serde: JSON, TOML and YAML, and the older names of the same functions directly under
 * kumo. What is parsed or encoded is owned by a box while Lua values are made, since making them can run out
 * of memory. */
#include "base/err.h"
#include "bind/bind.h"
#include "policy/value.h"

#include <lauxlib.h>

#define SERDE_FILE_BYTES_MAX ((size_t)256 << 20)

static void serde_free_json(void *p)
{
	json_decref(p);
}

typedef json_t *serde_parse_fn(str_t text);

static int serde_push_parsed(lua_State *L, void **box, str_t text, serde_parse_fn *parse, const char *file)
{
	json_t *v = parse(text);
	if (v == NULL) {
		if (file != NULL)
			err_wrap("%s", file);
		return policy_raise(L);
	}
	*box = v;
	value_push_json(L, v);
	policy_box_free(box);
	return 1;
}

static int serde_parse(lua_State *L, serde_parse_fn *parse)
{
	str_t text;
	text.p = luaL_checklstring(L, 1, &text.n);
	return serde_push_parsed(L, policy_box(L, serde_free_json), text, parse, NULL);
}

static int serde_load(lua_State *L, serde_parse_fn *parse)
{
	const char *path = luaL_checkstring(L, 1);
	struct buf *content = policy_box_buf(L);
	void **box = policy_box(L, serde_free_json);
	if (policy_read_file(path, SERDE_FILE_BYTES_MAX, content, policy_deadline(L)) != 0)
		return policy_raise(L);
	int n = serde_push_parsed(L, box, buf_str(content), parse, path);
	buf_fini(content);
	return n;
}

typedef int serde_write_fn(const json_t *v, struct buf *out);

static int serde_encode(lua_State *L, serde_write_fn *write)
{
	luaL_checkany(L, 1);
	struct buf *text = policy_box_buf(L);
	json_t *v = value_from_lua(L, 1);
	if (v == NULL)
		return policy_raise(L);
	int rc = write(v, text);
	json_decref(v);
	if (rc != 0)
		return policy_raise(L);
	lua_pushlstring(L, text->n != 0 ? text->p : "", text->n);
	buf_fini(text);
	return 1;
}

static int serde_write_json(const json_t *v, struct buf *out)
{
	value_write_json(v, false, out);
	return 0;
}

static int serde_write_json_pretty(const json_t *v, struct buf *out)
{
	value_write_json(v, true, out);
	return 0;
}

static int serde_write_toml(const json_t *v, struct buf *out)
{
	return value_write_toml(v, false, out);
}
static int serde_write_toml_pretty(const json_t *v, struct buf *out)
{
	return value_write_toml(v, true, out);
}

static int serde_json_parse(lua_State *L)
{
	return serde_parse(L, value_parse_json_relaxed);
}
static int serde_json_load(lua_State *L)
{
	return serde_load(L, value_parse_json_relaxed);
}
static int serde_json_encode(lua_State *L)
{
	return serde_encode(L, serde_write_json);
}
static int serde_json_encode_pretty(lua_State *L)
{
	return serde_encode(L, serde_write_json_pretty);
}
static int serde_toml_parse(lua_State *L)
{
	return serde_parse(L, value_parse_toml);
}
static int serde_toml_load(lua_State *L)
{
	return serde_load(L, value_parse_toml);
}
static int serde_toml_encode(lua_State *L)
{
	return serde_encode(L, serde_write_toml);
}
static int serde_toml_encode_pretty(lua_State *L)
{
	return serde_encode(L, serde_write_toml_pretty);
}
static int serde_toml_encode_pretty_compact(lua_State *L)
{
	return serde_encode(L, value_write_toml_compact);
}
static int serde_yaml_parse(lua_State *L)
{
	return serde_parse(L, value_parse_yaml);
}
static int serde_yaml_load(lua_State *L)
{
	return serde_load(L, value_parse_yaml);
}
static int serde_yaml_encode(lua_State *L)
{
	return serde_encode(L, value_write_yaml);
}

static void serde_open(lua_State *L)
{
	/* The first group also has its older place, directly under kumo. */
	static const luaL_Reg old[] = {
		{"json_parse", serde_json_parse},
		{"json_load", serde_json_load},
		{"json_encode", serde_json_encode},
		{"json_encode_pretty", serde_json_encode_pretty},
		{"toml_parse", serde_toml_parse},
		{"toml_load", serde_toml_load},
		{"toml_encode", serde_toml_encode},
		{"toml_encode_pretty", serde_toml_encode_pretty},
		{NULL, NULL},
	};
	static const luaL_Reg more[] = {
		{"toml_encode_pretty_compact", serde_toml_encode_pretty_compact},
		{"yaml_parse", serde_yaml_parse},
		{"yaml_load", serde_yaml_load},
		{"yaml_encode", serde_yaml_encode},
		{NULL, NULL},
	};
	luaL_setfuncs(L, old, 0);
	lua_newtable(L);
	luaL_setfuncs(L, old, 0);
	luaL_setfuncs(L, more, 0);
	lua_setfield(L, -2, "serde");
}

void bind_register_serde(void)
{
	policy_add_library(serde_open);
}
