/* value.h - values between Lua, JSON and TOML/YAML. JSON null is the light userdata NULL in Lua (contracts A0). A Lua table is an
 * array when its keys are 1..n, else an object; an empty table is an object unless marked. */
#pragma once

#include "base/buf.h"

#include <jansson.h>
#include <lua.h>

/** The value at idx; depth-limited (128). NULL with ERR_INVALID naming the key path of what cannot be represented. Raises nothing. */
MUST_CHECK json_t *value_from_lua(lua_State *L, int idx);
void value_push_json(lua_State *L, const json_t *v);
/** Text form: -1 ERR_INVALID with line and column. */
MUST_CHECK json_t *value_parse_json(str_t text);
MUST_CHECK json_t *value_parse_toml(str_t text);
MUST_CHECK json_t *value_parse_yaml(str_t text);
MUST_CHECK int value_write_toml(const json_t *v, bool is_pretty, struct buf *out);
MUST_CHECK int value_write_yaml(const json_t *v, struct buf *out);
