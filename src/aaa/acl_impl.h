/* acl_impl.h - what acl.c (the lists), acl_criteria.c (whom a rule matches) and acl_map.c share. */
#pragma once

#include "aaa/acl.h"

#include <stdatomic.h>

enum acl_term_kind {
	TERM_INDIVIDUAL,
	TERM_GROUP,
	TERM_MACHINE,
	TERM_MACHINE_SET,
	TERM_AUTHENTICATED,
	TERM_UNAUTHENTICATED,
	TERM_ANY, /* up to here: what an Identity can be */
	TERM_ALL_OF,
	TERM_ANY_OF,
	TERM_NOT,
};

struct acl_term {
	enum acl_term_kind kind;
	str_t name;	      /* Individual, Group */
	struct cidr_set nets; /* Machine (one), MachineSet; released by acl_term_fini */
	struct acl_term *sub; /* AllOf, AnyOf, Not */
	size_t n_sub;
};

struct acl {
	_Atomic uint32_t refs;
	struct arena arena; /* all that follows */
	struct acl_rule *rule;
	struct acl_term *term; /* the criteria that rules point at, each owned once */
	size_t n_rules, n_terms;
};

/** @n_rules, n_terms  room for that many. */
struct acl *acl_new(size_t n_rules, size_t n_terms);
void acl_add_rule(struct acl *a, const struct acl_term *criteria, str_t privilege, bool is_allow);
/** The next criteria of the list, from its JSON form. NULL ERR_INVALID. */
MUST_CHECK struct acl_term *acl_add_criteria(struct acl *a, const json_t *v);
MUST_CHECK struct acl_term *acl_add_identity(struct acl *a, const json_t *v);

/** t is zeroed. -1 ERR_INVALID; acl_term_fini is due in any case. */
MUST_CHECK int acl_criteria_parse(struct acl_term *t, const json_t *v, struct arena *arena);
MUST_CHECK int acl_identity_parse(struct acl_term *t, const json_t *v, struct arena *arena);
void acl_term_fini(struct acl_term *t);
bool acl_term_matches(const struct acl_term *t, const struct auth_info *who);
void acl_term_write(const struct acl_term *t, struct json_out *j);
