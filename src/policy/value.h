/* value.h - values between Lua, JSON and TOML/YAML. JSON null is the light userdata NULL
 * in Lua. A Lua table is an array when its keys are 1..n, else an object whose keys are
 * strings or integers (written in decimal); a table with both cannot be represented, nor
 * one with a NUL in a key. An empty table is an object unless it came from an empty JSON
 * array. Integers and floats stay apart. No function here yields; any thread. */
#pragma once

#include "base/buf.h"

#include <jansson.h>
#include <lua.h>

#define VALUE_DEPTH_MAX 128	/* nesting of what is read, whatever the form */
#define VALUE_NODES_MAX 1000000 /* values in one conversion: bounds tables that share subtables */

/** The value at idx; depth-limited. NULL with ERR_INVALID naming the key path of what cannot be represented.
 * Raises nothing. */
MUST_CHECK json_t *value_from_lua(lua_State *L, int idx);
/** May raise (memory; nesting over VALUE_DEPTH_MAX): v must be owned by something that survives that. */
void value_push_json(lua_State *L, const json_t *v);
/** Userdata with the metatable at idx are represented by what fn makes of them: a new reference, or NULL with
 * the error set. fn NULL: they cannot be. */
struct value_encoder {
	json_t *(*fn)(lua_State *L, int idx);
	/* For immutable, refcounted things that any Lua state may have; all three or none. */
	void *(*share)(lua_State *L,
		       int idx); /* a new reference, or NULL when there is nothing in it any more */
	void (*push)(lua_State *L, void *ref); /* takes its own reference; may raise */
	void (*unshare)(void *ref);	       /* any thread */
};
void value_set_encoder(lua_State *L, int metatable_idx, const struct value_encoder *enc);
/** Of the userdata at idx; NULL without one. Needs two slots of Lua's stack. */
const struct value_encoder *value_encoder_at(lua_State *L, int idx);

/** Text form: -1 ERR_INVALID with line and column. Nesting is checked before jansson's recursion sees the
 * text, so this is the one to use for JSON from the network. Strings may hold NUL, keys may not. */
MUST_CHECK json_t *value_parse_json(str_t text);
/** The same, but an object that has a key twice is an error: ERR_EXISTS. */
MUST_CHECK json_t *value_parse_json_unique(str_t text);
/** What policies get: comments (C, C++ and shell style) count as blanks. */
MUST_CHECK json_t *value_parse_json_relaxed(str_t text);
/** Dates and times become strings as written; inf and nan are refused. Source: TOML 1.0. */
MUST_CHECK json_t *value_parse_toml(str_t text);
/** One document; plain scalars by the core schema of YAML
 * 1.2 (`yes` is a string); `<<` is an ordinary key. */
MUST_CHECK json_t *value_parse_yaml(str_t text);
/** Keys sorted, so that equal values give equal text. Pretty: two blanks a level. Floats always look like
 * floats. */
void value_write_json(const json_t *v, bool is_pretty, struct buf *out);
/** -1 ERR_INVALID: the root is no table, or a null is in it. Keys sorted. Pretty: long arrays and texts over
 * several lines. */
MUST_CHECK int value_write_toml(const json_t *v, bool is_pretty, struct buf *out);
/** Pretty, with empty tables as `key = {}`. */
MUST_CHECK int value_write_toml_compact(const json_t *v, struct buf *out);
MUST_CHECK int value_write_yaml(const json_t *v, struct buf *out);
/** "string "x"", "integer `5`", "sequence" ...: a value as error texts name it. is_secret: its content is
 * "***". */
void value_describe(const json_t *v, bool is_secret, struct buf *out);
