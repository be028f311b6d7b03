/* access.h - may they? The lists of a resource and of its more general names are
 * asked one after the other for a rule; where none decides, the answer is no. A
 * list is what the event get_acl_definition returns, or the built-in map's. Answers
 * are cached for a moment; with no handler for the event nothing needs to be. */
#pragma once

#include "aaa/acl.h"
#include "aaa/resource.h"

struct access_result {
	bool is_allowed;
	struct acl *acl;	     /* a reference to the list that decided; NULL: none did */
	const struct acl_rule *rule; /* of that list */
	size_t n_considered;	     /* candidates before the one that decided; all, when none did */
};
static inline void access_result_fini(struct access_result *r)
{
	acl_unref(r->acl);
}

/** Decides, and writes it to the accounting log. Yields when a handler does. -1: the event failed (the
 * diagnostic log says why; a failure is cached as well); then access is denied. */
MUST_CHECK int access_check(const struct resource *what, const struct auth_info *who, str_t privilege,
			    struct access_result *out, mono_t deadline);

/** Whether the built-in map stands in where a handler has no list for a resource. Default: true. */
void access_set_fall_back(bool is_falling_back);
/** How long lists and decisions are kept. Default: 300 ms. */
void access_set_acl_ttl(dur_t ttl);
void access_set_check_ttl(dur_t ttl);
/** Empties the caches and restores the defaults; at shutdown and between tests. */
void access_reset(void);
