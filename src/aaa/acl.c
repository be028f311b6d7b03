/* acl.c - access control lists. A list is read once, checked strictly, and then only evaluated: every text of
 * a rule lives in the list's arena, and the JSON form that the accounting log shows is made at the start. The
 * parameter layer reads the fields of a rule, so that a mistake is reported like one in any other table. */
#include "aaa/acl_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "policy/param.h"
#include "policy/value.h"

#include <stdlib.h>

enum { ACL_RULES_MAX = 10000 };

static const char *const acl_access[] = {"Allow", "Deny", NULL};

struct acl_rule_fields {
	json_t *criteria;
	char *privilege;
	int access;
};

static const struct param acl_rule_list[] = {
	PARAM_JSON(acl_rule_fields, criteria, .is_required = true, .doc = "Whom the rule matches."),
	PARAM_STR(acl_rule_fields, privilege, .is_required = true,
		  .doc = "What the rule is about; for HTTP the method."),
	PARAM_ENUM(acl_rule_fields, access, acl_access, .is_required = true,
		   .doc = "What a match decides: Allow or Deny."),
	{0},
};
static const struct param_schema acl_rule_schema = {
	.type_name = "AccessControlRule",
	.params = acl_rule_list,
	.size = sizeof(struct acl_rule_fields),
};

struct acl *acl_new(size_t n_rules, size_t n_terms)
{
	struct acl *a = xnew(struct acl);
	a->arena = ARENA_INIT;
	atomic_init(&a->refs, 1);
	a->rule = arena_zalloc(&a->arena, (n_rules + 1) * sizeof(*a->rule));
	a->term = arena_zalloc(&a->arena, (n_terms + 1) * sizeof(*a->term));
	return a;
}

struct acl *acl_ref(struct acl *a)
{
	atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	return a;
}

void acl_unref(struct acl *a)
{
	if (a == NULL || atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < a->n_terms; i++)
		acl_term_fini(&a->term[i]);
	arena_fini(&a->arena);
	free(a);
}

struct acl_term *acl_add_criteria(struct acl *a, const json_t *v)
{
	struct acl_term *t = &a->term[a->n_terms++];
	return acl_criteria_parse(t, v, &a->arena) == 0 ? t : NULL;
}

struct acl_term *acl_add_identity(struct acl *a, const json_t *v)
{
	struct acl_term *t = &a->term[a->n_terms++];
	return acl_identity_parse(t, v, &a->arena) == 0 ? t : NULL;
}

void acl_add_rule(struct acl *a, const struct acl_term *criteria, str_t privilege, bool is_allow)
{
	struct acl_rule *r = &a->rule[a->n_rules++];
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	*r = (struct acl_rule){
		.criteria = criteria, .privilege = arena_str(&a->arena, privilege), .is_allow = is_allow};
	json_obj_begin(&j);
	json_key(&j, STR("criteria"));
	acl_term_write(criteria, &j);
	json_kv_str(&j, STR("privilege"), r->privilege);
	json_kv_str(&j, STR("access"), str_of(acl_access[is_allow ? 0 : 1]));
	json_obj_end(&j);
	r->json = arena_str(&a->arena, buf_str(&b));
	buf_fini(&b);
}

static int acl_parse_rule(struct acl *a, const json_t *v)
{
	struct acl_rule_fields f;
	if (param_parse_json(&acl_rule_schema, v, &f) != 0)
		return -1;
	const struct acl_term *t = acl_add_criteria(a, f.criteria);
	if (t != NULL)
		acl_add_rule(a, t, str_of(f.privilege), f.access == 0);
	param_fini(&acl_rule_schema, &f);
	return t != NULL ? 0 : -1;
}

struct acl *acl_from_json(const json_t *rules)
{
	/* An empty Lua table is an object without fields. */
	bool is_empty = json_is_object(rules) && json_object_size(rules) == 0;
	if ((!json_is_array(rules) && !is_empty) || json_array_size(rules) > ACL_RULES_MAX) {
		struct buf what = BUF_INIT;
		value_describe(rules, false, &what);
		err_set(ERR_INVALID, "deserialize error: invalid type: %s, expected a list of rules", what.p);
		buf_fini(&what);
		return NULL;
	}
	struct acl *a = acl_new(json_array_size(rules), json_array_size(rules));
	for (size_t i = 0; i < json_array_size(rules); i++) {
		if (acl_parse_rule(a, json_array_get(rules, i)) != 0) {
			err_wrap("rule %zu", i + 1);
			acl_unref(a);
			return NULL;
		}
	}
	return a;
}

size_t acl_n_rules(const struct acl *a)
{
	return a->n_rules;
}

const struct acl_rule *acl_rule_at(const struct acl *a, size_t i)
{
	return &a->rule[i];
}

static bool acl_privilege_covers(str_t of_rule, str_t asked)
{
	return str_eq(of_rule, asked) || (str_eq(asked, STR("HEAD")) && str_eq(of_rule, STR("GET")));
}

const struct acl_rule *acl_find(const struct acl *a, const struct auth_info *who, str_t privilege)
{
	for (size_t i = 0; i < a->n_rules; i++) {
		const struct acl_rule *r = &a->rule[i];
		if (acl_privilege_covers(r->privilege, privilege) && acl_term_matches(r->criteria, who))
			return r;
	}
	return NULL;
}

void acl_write(const struct acl *a, struct buf *out)
{
	buf_add_c(out, '[');
	for (size_t i = 0; i < a->n_rules; i++) {
		if (i != 0)
			buf_add_c(out, ',');
		buf_add_str(out, a->rule[i].json);
	}
	buf_add_c(out, ']');
}
