/* bind_message_impl.h - what the files of the message object share. */
#pragma once

#include "bind/bind.h"
#include "mime/envelope.h"

#include <lua.h>

void bind_open_address(lua_State *L);
/** Each adds its methods to the class table on top. */
void bind_open_message_headers(lua_State *L);
void bind_open_message_schedule(lua_State *L);
/** Their parameter tables. */
void bind_register_message_headers(void);
void bind_register_message_schedule(void);

/** A string or EnvelopeAddress at idx; slices of that value. -1 ERR_INVALID. Raises nothing. */
MUST_CHECK int bind_to_address(lua_State *L, int idx, struct mailbox *out);

/** The message at 1, its body in memory: brought from the spool where it is only there. Yields, raises. */
struct message *bind_check_message_with_body(lua_State *L);
/** The same for a method that changes it. */
struct message *bind_check_message_to_rewrite(lua_State *L);
/** An optional boolean; anything else raises. */
bool bind_opt_bool(lua_State *L, int idx, bool if_absent);
/** nil, no value, or the null of JSON. */
static inline bool bind_is_null(lua_State *L, int idx)
{
	return lua_isnoneornil(L, idx) || (lua_islightuserdata(L, idx) && lua_touserdata(L, idx) == NULL);
}
