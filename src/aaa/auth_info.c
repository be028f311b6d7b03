/* auth_info.c - building an AuthInfo, and its JSON and Lua forms. Lists grow in the arena at each power of
 * two; what is left behind goes with it. */
#include "aaa/auth_info.h"

#include "base/err.h"
#include "policy/param.h"
#include "policy/value.h"

enum { AUTH_LIST_MAX = 1000 }; /* identities or groups in what a policy hands over */

static const char *const auth_contexts[] = {
	[AUTH_SMTP_AUTHORIZATION] = "SmtpAuthPlainAuthorization",
	[AUTH_SMTP_AUTHENTICATION] = "SmtpAuthPlainAuthentication",
	[AUTH_HTTP_BASIC] = "HttpBasicAuth",
	[AUTH_BEARER] = "BearerToken",
	[AUTH_PROXY_RFC1929] = "ProxyAuthRfc1929",
	[AUTH_LOCAL_SYSTEM] = "LocalSystem",
	[AUTH_TLS_CERTIFICATE] = "TlsClientCertificate",
	[AUTH_GENERIC] = "GenericAuth",
	NULL,
};

const char *auth_context_name(enum auth_context c)
{
	return auth_contexts[c];
}

void auth_info_init(struct auth_info *who, const struct net_addr *peer, struct arena *arena)
{
	*who = (struct auth_info){.arena = arena};
	if (peer != NULL)
		who->peer = *peer;
}

/* Room for one more at the end of a list of n. */
static void *auth_grow(struct arena *arena, void *list, size_t n, size_t size)
{
	if ((n & (n - 1)) != 0)
		return list;
	void *grown = arena_alloc(arena, (n != 0 ? 2 * n : 1) * size);
	if (n != 0)
		memcpy(grown, list, n * size);
	return grown;
}

void auth_info_add_identity(struct auth_info *who, str_t identity, enum auth_context context)
{
	for (size_t i = 0; i < who->n_identities; i++) {
		if (who->identity[i].context == context && str_eq(who->identity[i].identity, identity))
			return;
	}
	who->identity = auth_grow(who->arena, who->identity, who->n_identities, sizeof(*who->identity));
	who->identity[who->n_identities++] = (struct auth_identity){arena_str(who->arena, identity), context};
}

void auth_info_add_group(struct auth_info *who, str_t group)
{
	if (auth_info_has_group(who, group))
		return;
	who->group = auth_grow(who->arena, who->group, who->n_groups, sizeof(*who->group));
	who->group[who->n_groups++] = arena_str(who->arena, group);
}

void auth_info_merge(struct auth_info *who, const struct auth_info *more)
{
	for (size_t i = 0; i < more->n_identities; i++)
		auth_info_add_identity(who, more->identity[i].identity, more->identity[i].context);
	for (size_t i = 0; i < more->n_groups; i++)
		auth_info_add_group(who, more->group[i]);
}

bool auth_info_has_identity(const struct auth_info *who, str_t identity)
{
	for (size_t i = 0; i < who->n_identities; i++) {
		if (str_eq(who->identity[i].identity, identity))
			return true;
	}
	return false;
}

bool auth_info_has_group(const struct auth_info *who, str_t group)
{
	for (size_t i = 0; i < who->n_groups; i++) {
		if (str_eq(who->group[i], group))
			return true;
	}
	return false;
}

str_t auth_info_name(const struct auth_info *who)
{
	char ip[NET_ADDR_STRLEN];
	for (size_t i = 0; i < who->n_identities; i++) {
		if (who->identity[i].context == AUTH_HTTP_BASIC)
			return who->identity[i].identity;
	}
	if (who->n_identities != 0)
		return who->identity[0].identity;
	return arena_str(who->arena, who->peer.len != 0 ? str_of(net_addr_fmt_ip(&who->peer, ip)) : STR(""));
}

/* --- from JSON --- */

static str_t auth_text(const json_t *v)
{
	return str_mk(json_string_value(v), json_string_length(v));
}

/* Names go on to logs, metadata and C strings. */
static bool auth_is_name(const json_t *v)
{
	return json_is_string(v) && memchr(json_string_value(v), 0, json_string_length(v)) == NULL;
}

/* A list under that key, or NULL when there is none. An empty Lua table is an object without fields. */
static int auth_list(const json_t *v, const char *key, const json_t **out)
{
	const json_t *list = json_object_get(v, key);
	*out = NULL;
	if (list == NULL || json_is_null(list) || (json_is_object(list) && json_object_size(list) == 0))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > AUTH_LIST_MAX) {
		err_set(ERR_INVALID, "AuthInfo: `%s` must be a list", key);
		return -1;
	}
	*out = list;
	return 0;
}

static int auth_fail_key(const char *what, const char *key, const char *const *keys)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; keys[i] != NULL; i++)
		buf_printf(&b, "%s`%s`", i != 0 ? ", " : "", keys[i]);
	err_set(ERR_INVALID, "%s: unknown field `%.64s`, expected one of %s", what, key, b.p);
	buf_fini(&b);
	return -1;
}

static int auth_check_keys(const json_t *v, const char *what, const char *const *keys)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)v, key, value)
	{
		size_t i = 0;
		while (keys[i] != NULL && strcmp(keys[i], key) != 0)
			i++;
		if (keys[i] == NULL)
			return auth_fail_key(what, key, keys);
	}
	return 0;
}

static int auth_context_parse(const char *name, enum auth_context *out)
{
	for (size_t i = 0; auth_contexts[i] != NULL; i++) {
		if (strcmp(auth_contexts[i], name) == 0) {
			*out = (enum auth_context)i;
			return 0;
		}
	}
	param_err_variant(name, auth_contexts);
	err_wrap("AuthInfo: context");
	return -1;
}

static int auth_identity_parse(const json_t *v, struct auth_info *out)
{
	static const char *const keys[] = {"identity", "context", NULL};
	enum auth_context context;
	if (!json_is_object(v) || !auth_is_name(json_object_get(v, "identity")) ||
	    !auth_is_name(json_object_get(v, "context"))) {
		err_set(ERR_INVALID, "AuthInfo: an identity must be { identity = TEXT, context = TEXT }");
		return -1;
	}
	if (auth_check_keys(v, "AuthInfo: identities", keys) != 0 ||
	    auth_context_parse(json_string_value(json_object_get(v, "context")), &context) != 0)
		return -1;
	auth_info_add_identity(out, auth_text(json_object_get(v, "identity")), context);
	return 0;
}

static int auth_peer_parse(const json_t *v, struct auth_info *out)
{
	if (v == NULL || json_is_null(v))
		return 0;
	if (!json_is_string(v)) {
		err_set(ERR_INVALID, "AuthInfo: peer_address must be an IP address as text");
		return -1;
	}
	if (net_addr_parse_ip(auth_text(v), 0, &out->peer) == 0)
		return 0;
	err_wrap("AuthInfo: peer_address");
	return -1;
}

int auth_info_from_json(const json_t *v, struct arena *arena, struct auth_info *out)
{
	static const char *const keys[] = {"peer_address", "identities", "groups", NULL};
	const json_t *identities, *groups;
	struct auth_info who;
	auth_info_init(&who, NULL, arena);
	bool is_empty_list = json_is_array(v) && json_array_size(v) == 0;
	if (!json_is_object(v) && !is_empty_list) {
		err_set(ERR_INVALID, "AuthInfo: a table with identities and groups is expected");
		return -1;
	}
	if (!is_empty_list && (auth_check_keys(v, "AuthInfo", keys) != 0 ||
			       auth_peer_parse(json_object_get(v, "peer_address"), &who) != 0))
		return -1;
	if (auth_list(v, "identities", &identities) != 0 || auth_list(v, "groups", &groups) != 0)
		return -1;
	for (size_t i = 0; i < json_array_size(identities); i++) {
		if (auth_identity_parse(json_array_get(identities, i), &who) != 0)
			return -1;
	}
	for (size_t i = 0; i < json_array_size(groups); i++) {
		if (!auth_is_name(json_array_get(groups, i))) {
			err_set(ERR_INVALID, "AuthInfo: `groups` must be a list of names");
			return -1;
		}
		auth_info_add_group(&who, auth_text(json_array_get(groups, i)));
	}
	*out = who;
	return 0;
}

int auth_info_from_lua(lua_State *L, int idx, struct arena *arena, struct auth_info *out)
{
	json_t *v = value_from_lua(L, idx);
	if (v == NULL) {
		err_wrap("AuthInfo");
		return -1;
	}
	int rc = auth_info_from_json(v, arena, out);
	json_decref(v);
	return rc;
}

/* --- to JSON --- */

void auth_info_write(const struct auth_info *who, struct json_out *j)
{
	char ip[NET_ADDR_STRLEN];
	json_obj_begin(j);
	json_key(j, STR("peer_address"));
	if (who->peer.len != 0)
		json_str(j, str_of(net_addr_fmt_ip(&who->peer, ip)));
	else
		json_nil(j);
	json_key(j, STR("identities"));
	json_arr_begin(j);
	for (size_t i = 0; i < who->n_identities; i++) {
		json_obj_begin(j);
		json_kv_str(j, STR("identity"), who->identity[i].identity);
		json_kv_str(j, STR("context"), str_of(auth_context_name(who->identity[i].context)));
		json_obj_end(j);
	}
	json_arr_end(j);
	json_key(j, STR("groups"));
	json_arr_begin(j);
	for (size_t i = 0; i < who->n_groups; i++)
		json_str(j, who->group[i]);
	json_arr_end(j);
	json_obj_end(j);
}

json_t *auth_info_json(const struct auth_info *who)
{
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	auth_info_write(who, &j);
	json_t *v = value_parse_json_relaxed(buf_str(&b));
	if (v == NULL)
		panic("AuthInfo: %s", err_text());
	buf_fini(&b);
	return v;
}
