/* bind_mime_impl.h - what the files of kumo.mimepart and of structured headers share. */
#pragma once

#include "bind/bind.h"
#include "mime/address_list.h"
#include "mime/auth_results.h"
#include "mime/header_value.h"
#include "mime/mime_conform.h"
#include "mime/mime_part.h"

#include <jansson.h>
#include <lua.h>

/* Each adds its classes to the state. */
void bind_open_header(lua_State *L);
void bind_open_header_map(lua_State *L);
void bind_open_mime_part(lua_State *L);
void bind_open_address_header(lua_State *L);
/** Adds its methods to the class table of messages on top. */
void bind_open_message_mime(lua_State *L);
/** Parameter tables. */
void bind_register_mime_part(void);
void bind_register_message_mime(void);

/* --- parts --- */
/** Pushes one that has no part yet: to be stored there, with the reference that the value is to have, before
 * anything else is done. */
struct mime_part **bind_new_mime_part(lua_State *L);
struct mime_part *bind_check_mime_part(lua_State *L, int idx); /* raises */
void bind_push_header_map(lua_State *L, struct mime_part *p);
/** The part of that type from the text at idx. Raises. */
void bind_push_text_part(lua_State *L, int idx, str_t type);
/** From content type, data and options (or nil) at idx, idx + 1 and idx + 2. Raises. */
void bind_push_binary_part(lua_State *L, int idx);
/** A string without CR, LF, NUL and other controls, of UTF-8; raises. */
str_t bind_check_header_text(lua_State *L, int idx);

/* --- values of headers --- */
/** An AddressHeader. Raises. */
void bind_push_address_header(lua_State *L, const struct address_list *l);
/** Pushes the form that the field's value has as `kind` (docs/mime.md). -1 ERR_INVALID, nothing
 * pushed: it has not. Raises what Lua raises. */
MUST_CHECK int bind_push_header_value(lua_State *L, enum header_kind kind, str_t raw_value);
/** Text of a field's value, decoded. */
void bind_push_header_text(lua_State *L, str_t raw_value);
/** Writes the field `name` of that kind from the value at idx: text, or what bind_push_header_value pushes.
 * -1 ERR_INVALID that says which element is wrong. Raises nothing. */
MUST_CHECK int bind_write_header_value(lua_State *L, int idx, enum header_kind kind, str_t name,
				       struct buf *out);
/** Results as bind_push_header_value makes them, in an array. -1 ERR_INVALID. */
MUST_CHECK int bind_to_auth_results(const json_t *list, struct auth_results *out);
