/* acl.h - access control lists: rules that allow or deny a privilege to whom their criteria match, and maps
 * from resources to lists. Both never change once made and are shared by reference count, from any thread.
 * The first rule that matches decides (docs/reference/access_control.md). */
#pragma once

#include "aaa/auth_info.h"

struct acl_term; /* of the criteria */
struct acl_rule {
	const struct acl_term *criteria;
	str_t privilege;
	bool is_allow;
	str_t json; /* {"criteria":...,"privilege":...,"access":...} */
};

struct acl;
/** From a list of {criteria, privilege, access}. NULL ERR_INVALID naming the rule and what is wrong. */
MUST_CHECK struct acl *acl_from_json(const json_t *rules);
struct acl *acl_ref(struct acl *a);
void acl_unref(struct acl *a); /* NULL is fine */
size_t acl_n_rules(const struct acl *a);
const struct acl_rule *acl_rule_at(const struct acl *a, size_t i);
/** The first rule about this privilege whose criteria match; NULL when none does. A rule about GET is also
 * one about HEAD, which is a GET without its body (RFC 9110 section 9.3.2). */
const struct acl_rule *acl_find(const struct acl *a, const struct auth_info *who, str_t privilege);
/** The list of rules in JSON. */
void acl_write(const struct acl *a, struct buf *out);

struct acl_map;
/** From the text of a file, in TOML or JSON (which begins with a brace):
 *   [[acl."http_listener/x"]]
 *   allow = true
 *   privileges = ["GET"]
 *   identity.Group = "ops"       (or criteria = ...)
 * NULL ERR_INVALID naming the place. */
MUST_CHECK struct acl_map *acl_map_parse(str_t text);
struct acl_map *acl_map_ref(struct acl_map *m);
void acl_map_unref(struct acl_map *m); /* NULL is fine */
/** The list of exactly this resource, borrowed from the map; NULL when it has none. */
struct acl *acl_map_find(const struct acl_map *m, str_t resource);

/** The list that the built-in map has for a resource, borrowed; NULL when it has none. */
struct acl *acl_default_find(str_t resource);
