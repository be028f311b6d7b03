/* acl_map.c - maps from resources to lists: the files of kumo.aaa.load_acl_map,
 * and the built-in map, which is such a file and read by the same code. A rule
 * of a file names several privileges; in the list it becomes a rule for each. */
#include "aaa/acl_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "policy/param.h"
#include "policy/value.h"

#include <pthread.h>
#include <stdlib.h>

enum { ACL_MAP_PRIVILEGES_MAX = 100 }; /* of one rule */

struct acl_entry {
	char *resource;
	size_t n;
	struct acl *acl;
};

struct acl_map {
	_Atomic uint32_t refs;
	struct map entries; /* resource -> struct acl_entry */
};

/* --- reading --- */

struct acl_file_rule {
	bool allow;
	struct param_strs privileges;
	json_t *identity, *criteria; /* one of them */
};

static int acl_file_rule_check(void *obj)
{
	const struct acl_file_rule *r = obj;
	if ((r->identity != NULL) != (r->criteria != NULL) && r->privileges.n <= ACL_MAP_PRIVILEGES_MAX)
		return 0;
	if (r->privileges.n > ACL_MAP_PRIVILEGES_MAX)
		err_set(ERR_INVALID, "invalid value: `privileges`, expected at most %d of them",
			ACL_MAP_PRIVILEGES_MAX);
	else if (r->identity != NULL)
		err_set(ERR_INVALID, "`identity` and `criteria` exclude each other");
	else
		err_set(ERR_INVALID, "missing field `identity` or `criteria`");
	return -1;
}

static const struct param acl_file_rule_list[] = {
	PARAM_BOOL(acl_file_rule, allow, .is_required = true, .doc = "Whether a match allows or denies."),
	PARAM_STRS(acl_file_rule, privileges, .is_required = true,
		   .doc = "What the rule is about; for HTTP the methods."),
	PARAM_JSON(acl_file_rule, identity, .doc = "Whom the rule matches."),
	PARAM_JSON(acl_file_rule, criteria, .doc = "Whom the rule matches, with AllOf, AnyOf and Not."),
	{0},
};
static const struct param_schema acl_file_rule_schema = {
	.type_name = "AclMapRule",
	.params = acl_file_rule_list,
	.size = sizeof(struct acl_file_rule),
	.check = acl_file_rule_check,
};

static int acl_map_parse_rule(struct acl *a, const json_t *v)
{
	struct acl_file_rule f;
	if (param_parse_json(&acl_file_rule_schema, v, &f) != 0)
		return -1;
	const struct acl_term *t =
		f.criteria != NULL ? acl_add_criteria(a, f.criteria) : acl_add_identity(a, f.identity);
	if (t != NULL) {
		for (size_t i = 0; i < f.privileges.n; i++)
			acl_add_rule(a, t, str_of(f.privileges.v[i]), f.allow);
	}
	param_fini(&acl_file_rule_schema, &f);
	return t != NULL ? 0 : -1;
}

static size_t acl_map_count_privileges(const json_t *rules)
{
	size_t n = 0;
	for (size_t i = 0; i < json_array_size(rules); i++)
		n += json_array_size(json_object_get(json_array_get(rules, i), "privileges"));
	return n;
}

static struct acl *acl_map_parse_list(const json_t *rules)
{
	if (!json_is_array(rules)) {
		err_set(ERR_INVALID, "deserialize error: a list of rules is expected: [[acl.\"RESOURCE\"]]");
		return NULL;
	}
	struct acl *a = acl_new(acl_map_count_privileges(rules), json_array_size(rules));
	for (size_t i = 0; i < json_array_size(rules); i++) {
		if (acl_map_parse_rule(a, json_array_get(rules, i)) != 0) {
			err_wrap("rule %zu", i + 1);
			acl_unref(a);
			return NULL;
		}
	}
	return a;
}

static void acl_map_add(struct acl_map *m, str_t resource, struct acl *a)
{
	struct acl_entry *e = xnew(struct acl_entry);
	e->resource = str_dup(resource);
	e->acl = a;
	map_put(&m->entries, str_mk(e->resource, resource.n), e);
}

static const json_t *acl_map_root(const json_t *v)
{
	const json_t *acl = json_object_get(v, "acl");
	if (json_is_object(acl) && json_object_size(v) == 1)
		return acl;
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)v, key, value)
	{
		if (strcmp(key, "acl") != 0) {
			err_set(ERR_INVALID, "deserialize error: unknown field `%.64s`, expected `acl`", key);
			return NULL;
		}
	}
	err_set(ERR_INVALID, "deserialize error: %s `acl`, expected a table of lists by resource",
		acl == NULL ? "missing field" : "invalid type:");
	return NULL;
}

static struct acl_map *acl_map_from_json(const json_t *v)
{
	const json_t *root = acl_map_root(v);
	if (root == NULL)
		return NULL;
	struct acl_map *m = xnew(struct acl_map);
	atomic_init(&m->refs, 1);
	void *it = json_object_iter((json_t *)(uintptr_t)root);
	for (; it != NULL; it = json_object_iter_next((json_t *)(uintptr_t)root, it)) {
		str_t resource = str_mk(json_object_iter_key(it), json_object_iter_key_len(it));
		struct acl *a = acl_map_parse_list(json_object_iter_value(it));
		if (a == NULL) {
			err_wrap("acl.\"" STR_FMT "\"", STR_ARG(str_head(resource, 300)));
			acl_map_unref(m);
			return NULL;
		}
		acl_map_add(m, resource, a);
	}
	return m;
}

struct acl_map *acl_map_parse(str_t text)
{
	str_t body = str_trim(text);
	bool is_json = body.n != 0 && body.p[0] == '{';
	json_t *v = is_json ? value_parse_json_relaxed(text) : value_parse_toml(text);
	if (v == NULL)
		return NULL;
	struct acl_map *m = acl_map_from_json(v);
	json_decref(v);
	return m;
}

struct acl_map *acl_map_ref(struct acl_map *m)
{
	atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

void acl_map_unref(struct acl_map *m)
{
	if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	size_t pos = 0;
	for (void *value; map_next(&m->entries, &pos, NULL, &value);) {
		struct acl_entry *e = value;
		acl_unref(e->acl);
		free(e->resource);
		free(e);
	}
	map_fini(&m->entries);
	free(m);
}

struct acl *acl_map_find(const struct acl_map *m, str_t resource)
{
	const struct acl_entry *e = map_find(&m->entries, resource);
	return e != NULL ? e->acl : NULL;
}

/* --- the built-in map --- */

#define TRUSTED "identity.Group = \"kumomta:http-listener-trusted-ip\"\n"
#define ANYBODY "identity.Any = {}\n"
#define LOGGED_IN "identity.Authenticated = {}\n"
#define RULE(resource, privileges, who) \
	"[[acl.\"http_listener/*" resource "\"]]\nallow = true\nprivileges = [" privileges "]\n" who

/* Who may log in may send mail; all else is for the trusted addresses. */
/* clang-format off */
static const char acl_default_text[] =
	RULE("/api/check-liveness", "\"GET\"", ANYBODY)
	RULE("/rapidoc", "\"GET\"", ANYBODY)
	RULE("/api-docs/openapi.json", "\"GET\"", ANYBODY)
	RULE("/api/inject", "\"POST\"", TRUSTED)
	RULE("/api/inject", "\"POST\"", LOGGED_IN)
	RULE("/api/admin", "\"GET\", \"POST\", \"DELETE\"", TRUSTED)
	RULE("/api/machine-info", "\"GET\"", TRUSTED)
	RULE("/metrics", "\"GET\"", TRUSTED)
	RULE("/metrics.json", "\"GET\"", TRUSTED)
	RULE("/api/xfer", "\"POST\"", TRUSTED)
	/* of the traffic shaping service */
	RULE("/publish_log_v1", "\"POST\"", TRUSTED)
	RULE("/tsa/status", "\"GET\"", ANYBODY)
	RULE("/get_config_v1", "\"GET\"", TRUSTED)
	RULE("/get_suspension_v1", "\"GET\"", TRUSTED)
	RULE("/get_bounce_v1", "\"GET\"", TRUSTED)
	RULE("/subscribe_suspension_v1", "\"GET\"", TRUSTED)
	RULE("/subscribe_event_v1", "\"GET\"", TRUSTED);
/* clang-format on */

static struct acl_map *acl_default; /* stays for the life of the process */
static pthread_once_t acl_default_once = PTHREAD_ONCE_INIT;

static void acl_default_make(void)
{
	acl_default = acl_map_parse(str_mk(acl_default_text, sizeof(acl_default_text) - 1));
	if (acl_default == NULL)
		panic("the built-in access control lists: %s", err_text());
}

struct acl *acl_default_find(str_t resource)
{
	pthread_once(&acl_default_once, acl_default_make);
	return acl_map_find(acl_default, resource);
}
