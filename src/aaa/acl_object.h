/* acl_object.h - lists, maps of lists and resources as values of a policy:
 * userdata that hold a reference. A map has the method get(NAME). In JSON
 * a list is the list of its rules. Raise nothing but where it is said. */
#pragma once

#include "aaa/acl.h"
#include "aaa/resource.h"

/** Take their own reference. May raise (memory). */
void acl_object_push(lua_State *L, struct acl *a);
void acl_map_object_push(lua_State *L, struct acl_map *m);
/** Pushes a copy. May raise (memory). */
void resource_object_push(lua_State *L, const struct resource *r);
/** A new reference; NULL ERR_INVALID when the value is something else. */
MUST_CHECK struct acl *acl_object_at(lua_State *L, int idx);
/** Valid as long as the value; NULL ERR_INVALID when it is something else. */
MUST_CHECK const struct resource *resource_object_at(lua_State *L, int idx);
