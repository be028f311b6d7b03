/* acl_criteria.c - the criteria of a rule: a small tree of identities below AllOf, AnyOf and Not. Its JSON
 * form has one key at each level: {"AllOf": [{"Identity": {"Group": "ops"}}, {"Identity": {"Machine":
 * "10.0.0.1"}}]}. The documented short form without Identity ({"Machine": "10.0.0.1"} as a term) is taken
 * too. Depth and size are limited, since the tree is walked recursively for each check. An AllOf of nothing
 * would match everybody and an AnyOf of nothing nobody: both are refused as mistakes. */
#include "aaa/acl_impl.h"

#include "base/err.h"
#include "policy/param.h"

enum {
	CRITERIA_DEPTH_MAX = 16,   /* two levels of JSON each, and json.h has 64 */
	CRITERIA_TERMS_MAX = 1000, /* in one AllOf, AnyOf or MachineSet */
};

static const char *const term_names[] = {
	[TERM_INDIVIDUAL] = "Individual",
	[TERM_GROUP] = "Group",
	[TERM_MACHINE] = "Machine",
	[TERM_MACHINE_SET] = "MachineSet",
	[TERM_AUTHENTICATED] = "Authenticated",
	[TERM_UNAUTHENTICATED] = "Unauthenticated",
	[TERM_ANY] = "Any",
	NULL,
};

static const char *const criteria_names[] = {"Identity", "AllOf", "AnyOf", "Not", NULL};

static str_t term_text(const json_t *v)
{
	return str_mk(json_string_value(v), json_string_length(v));
}

/* The only key of v and its value. A bare text is the same as that key with an empty table. */
static int term_only_key(const json_t *v, const char *what, const char **key, const json_t **value)
{
	if (json_is_string(v)) {
		*key = json_string_value(v);
		*value = NULL;
		return 0;
	}
	if (!json_is_object(v) || json_object_size(v) != 1) {
		err_set(ERR_INVALID, "%s: a table with exactly one key is expected", what);
		return -1;
	}
	void *it = json_object_iter((json_t *)(uintptr_t)v);
	*key = json_object_iter_key(it);
	*value = json_object_iter_value(it);
	return 0;
}

static bool term_is_empty(const json_t *v)
{
	return v == NULL || (json_is_object(v) && json_object_size(v) == 0) ||
	       (json_is_array(v) && json_array_size(v) == 0);
}

/* --- identities --- */

static int term_add_net(struct acl_term *t, const json_t *v)
{
	if (!json_is_string(v)) {
		err_set(ERR_INVALID, "%s: an address as text is expected", term_names[t->kind]);
		return -1;
	}
	if (cidr_set_add(&t->nets, term_text(v)) == 0)
		return 0;
	err_wrap("%s", term_names[t->kind]);
	return -1;
}

static int term_parse_machine(struct acl_term *t, const json_t *v)
{
	struct net_addr a;
	if (json_is_string(v) && net_addr_parse_ip(term_text(v), 0, &a) != 0) {
		err_wrap("Machine");
		return -1;
	}
	return term_add_net(t, v);
}

static int term_parse_machine_set(struct acl_term *t, const json_t *v)
{
	if (!json_is_array(v) || json_array_size(v) > CRITERIA_TERMS_MAX) {
		if (term_is_empty(v)) /* an empty Lua table: a set without members */
			return 0;
		err_set(ERR_INVALID, "MachineSet: a list of addresses and networks is expected");
		return -1;
	}
	for (size_t i = 0; i < json_array_size(v); i++) {
		if (term_add_net(t, json_array_get(v, i)) != 0)
			return -1;
	}
	return 0;
}

static int term_parse_name(struct acl_term *t, const json_t *v, struct arena *arena)
{
	if (!json_is_string(v)) {
		err_set(ERR_INVALID, "%s: a name as text is expected", term_names[t->kind]);
		return -1;
	}
	t->name = arena_str(arena, term_text(v));
	return 0;
}

static int term_parse_identity(struct acl_term *t, const char *key, const json_t *value, struct arena *arena)
{
	size_t kind = 0;
	while (term_names[kind] != NULL && strcmp(term_names[kind], key) != 0)
		kind++;
	if (term_names[kind] == NULL) {
		param_err_variant(key, term_names);
		err_wrap("identity");
		return -1;
	}
	t->kind = (enum acl_term_kind)kind;
	switch (t->kind) {
	case TERM_INDIVIDUAL:
	case TERM_GROUP:
		return term_parse_name(t, value, arena);
	case TERM_MACHINE:
		return term_parse_machine(t, value);
	case TERM_MACHINE_SET:
		return term_parse_machine_set(t, value);
	default:
		if (term_is_empty(value))
			return 0;
		err_set(ERR_INVALID, "%s: an empty table is expected", key);
		return -1;
	}
}

int acl_identity_parse(struct acl_term *t, const json_t *v, struct arena *arena)
{
	const char *key;
	const json_t *value;
	if (term_only_key(v, "identity", &key, &value) != 0)
		return -1;
	return term_parse_identity(t, key, value, arena);
}

/* --- terms --- */

static int term_parse(struct acl_term *t, const json_t *v, struct arena *arena, int depth);

static int term_parse_list(struct acl_term *t, const json_t *v, struct arena *arena, int depth)
{
	size_t n = json_array_size(v);
	if (n == 0 || n > CRITERIA_TERMS_MAX) {
		err_set(ERR_INVALID, "%s: a list of 1 to %d terms is expected",
			t->kind == TERM_ALL_OF ? "AllOf" : "AnyOf", CRITERIA_TERMS_MAX);
		return -1;
	}
	t->sub = arena_zalloc(arena, n * sizeof(*t->sub));
	for (size_t i = 0; i < n; i++) {
		t->n_sub++;
		if (term_parse(&t->sub[i], json_array_get(v, i), arena, depth + 1) != 0)
			return -1;
	}
	return 0;
}

static int term_parse(struct acl_term *t, const json_t *v, struct arena *arena, int depth)
{
	const char *key;
	const json_t *value;
	if (depth > CRITERIA_DEPTH_MAX) {
		err_set(ERR_INVALID, "criteria are nested deeper than %d levels", CRITERIA_DEPTH_MAX);
		return -1;
	}
	if (term_only_key(v, "criteria", &key, &value) != 0)
		return -1;
	if (strcmp(key, "Identity") == 0)
		return acl_identity_parse(t, value, arena);
	if (strcmp(key, "AllOf") == 0 || strcmp(key, "AnyOf") == 0) {
		t->kind = strcmp(key, "AllOf") == 0 ? TERM_ALL_OF : TERM_ANY_OF;
		return term_parse_list(t, value, arena, depth);
	}
	if (strcmp(key, "Not") == 0) {
		t->kind = TERM_NOT;
		t->sub = arena_zalloc(arena, sizeof(*t->sub));
		t->n_sub = 1;
		return term_parse(t->sub, value, arena, depth + 1);
	}
	for (size_t i = 0; term_names[i] != NULL; i++) {
		if (strcmp(term_names[i], key) == 0)
			return term_parse_identity(t, key, value, arena);
	}
	param_err_variant(key, criteria_names);
	err_wrap("criteria");
	return -1;
}

int acl_criteria_parse(struct acl_term *t, const json_t *v, struct arena *arena)
{
	return term_parse(t, v, arena, 0);
}

void acl_term_fini(struct acl_term *t)
{
	cidr_set_fini(&t->nets);
	for (size_t i = 0; i < t->n_sub; i++)
		acl_term_fini(&t->sub[i]);
}

/* --- matching --- */

bool acl_term_matches(const struct acl_term *t, const struct auth_info *who)
{
	switch (t->kind) {
	case TERM_INDIVIDUAL:
		return auth_info_has_identity(who, t->name);
	case TERM_GROUP:
		return auth_info_has_group(who, t->name);
	case TERM_MACHINE:
	case TERM_MACHINE_SET:
		return who->peer.len != 0 && cidr_set_has(&t->nets, &who->peer);
	case TERM_AUTHENTICATED:
		return who->n_identities != 0;
	case TERM_UNAUTHENTICATED:
		return who->n_identities == 0;
	case TERM_ANY:
		return true;
	case TERM_ALL_OF:
		for (size_t i = 0; i < t->n_sub; i++) {
			if (!acl_term_matches(&t->sub[i], who))
				return false;
		}
		return true;
	case TERM_ANY_OF:
		for (size_t i = 0; i < t->n_sub; i++) {
			if (acl_term_matches(&t->sub[i], who))
				return true;
		}
		return false;
	case TERM_NOT:
		return !acl_term_matches(t->sub, who);
	}
	panic("acl: term of kind %d", (int)t->kind);
}

/* --- writing --- */

static void term_write_nets(const struct acl_term *t, struct json_out *j)
{
	struct buf text = BUF_INIT;
	for (size_t i = 0; i < t->nets.n; i++) {
		buf_clear(&text);
		cidr_set_fmt(&t->nets, i, &text);
		json_str(j, buf_str(&text));
	}
	buf_fini(&text);
}

static void term_write_identity(const struct acl_term *t, struct json_out *j)
{
	json_obj_begin(j);
	json_key(j, str_of(term_names[t->kind]));
	switch (t->kind) {
	case TERM_INDIVIDUAL:
	case TERM_GROUP:
		json_str(j, t->name);
		break;
	case TERM_MACHINE:
		term_write_nets(t, j);
		break;
	case TERM_MACHINE_SET:
		json_arr_begin(j);
		term_write_nets(t, j);
		json_arr_end(j);
		break;
	default:
		json_obj_begin(j);
		json_obj_end(j);
	}
	json_obj_end(j);
}

void acl_term_write(const struct acl_term *t, struct json_out *j)
{
	json_obj_begin(j);
	if (t->kind <= TERM_ANY) {
		json_key(j, STR("Identity"));
		term_write_identity(t, j);
	} else if (t->kind == TERM_NOT) {
		json_key(j, STR("Not"));
		acl_term_write(t->sub, j);
	} else {
		json_key(j, t->kind == TERM_ALL_OF ? STR("AllOf") : STR("AnyOf"));
		json_arr_begin(j);
		for (size_t i = 0; i < t->n_sub; i++)
			acl_term_write(&t->sub[i], j);
		json_arr_end(j);
	}
	json_obj_end(j);
}
