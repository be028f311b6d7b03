/* auth_info.h - who is asking: the address of the peer, the identities it has proven, and the groups it
 * belongs to. Policies see it as a table (kumo.aaa AuthInfo), the accounting log as JSON: {"peer_address":
 * TEXT, "identities": [{"identity": TEXT, "context": TEXT}], "groups": [TEXT]}. */
#pragma once

#include "base/arena.h"
#include "base/json.h"
#include "net/addr.h"

#include <jansson.h>
#include <lua.h>

/** Where an identity comes from. */
enum auth_context {
	AUTH_SMTP_AUTHORIZATION,  /* SMTP AUTH PLAIN, authorization identity */
	AUTH_SMTP_AUTHENTICATION, /* the same, authentication identity */
	AUTH_HTTP_BASIC,
	AUTH_BEARER,
	AUTH_PROXY_RFC1929,
	AUTH_LOCAL_SYSTEM,
	AUTH_TLS_CERTIFICATE, /* of a client, verified: CN=NAME, and its subject alternative names */
	AUTH_GENERIC,
};
const char *auth_context_name(enum auth_context c);

struct auth_identity {
	str_t identity;
	enum auth_context context;
};

struct auth_info {
	struct arena *arena;  /* holds all that follows; not owned */
	struct net_addr peer; /* len 0: unknown */
	struct auth_identity *identity;
	size_t n_identities;
	str_t *group;
	size_t n_groups;
};

/** Nobody yet. @peer NULL: unknown. */
void auth_info_init(struct auth_info *who, const struct net_addr *peer, struct arena *arena);
/** Adds copies; what is there already is not added again. */
void auth_info_add_identity(struct auth_info *who, str_t identity, enum auth_context context);
void auth_info_add_group(struct auth_info *who, str_t group);
/** Adds the identities and groups of `more`; the address stays. */
void auth_info_merge(struct auth_info *who, const struct auth_info *more);

bool auth_info_has_identity(const struct auth_info *who, str_t identity);
bool auth_info_has_group(const struct auth_info *who, str_t group);
/** The name that a message's metadata http_auth gets: the first identity of HTTP Basic, else the first one,
 * else the peer's address. In the arena. */
str_t auth_info_name(const struct auth_info *who);

/** Strict: an unknown field, a context that does not exist or a wrong type is -1 ERR_INVALID. Nothing is
 * required. */
MUST_CHECK int auth_info_from_json(const json_t *v, struct arena *arena, struct auth_info *out);
/** The value at idx. Raises nothing. */
MUST_CHECK int auth_info_from_lua(lua_State *L, int idx, struct arena *arena, struct auth_info *out);
void auth_info_write(const struct auth_info *who, struct json_out *j);
/** A new reference. */
json_t *auth_info_json(const struct auth_info *who);
