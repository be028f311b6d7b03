/* access.c - resolving the lists and asking them, with two caches: of the list of each name, and of each
 * decision by privilege, resource and person. Both hold 128 entries and are bound to the configuration epoch.
 * Requests that want the same at the same time ask once. A failure of the event is kept too, but for a second
 * at most, so that a policy whose database is away is not asked for each request and yet is asked again soon.
 *
 * Without a handler the built-in map is a hash look-up per name; that path takes no lock and no cache. */
#include "aaa/access.h"

#include "aaa/acct.h"
#include "aaa/acl_object.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "policy/memoize.h"
#include "policy/policy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define ACL_EVENT "get_acl_definition"
#define ACL_TTL dur_ms(300)
#define ACL_ERROR_TTL dur_s(1)

enum { ACL_CACHE_ENTRIES = 128 };

static struct memo_cache *acl_definitions, *acl_checks;
static pthread_once_t access_once = PTHREAD_ONCE_INIT;
static atomic_bool acl_is_falling_back = true;

static void access_init(void)
{
	struct memo_params p = {.ttl = ACL_TTL,
				.capacity = ACL_CACHE_ENTRIES,
				.invalidate_with_epoch = true,
				.populate_timeout = {-1}};
	acl_definitions = memo_cache_new(&p);
	acl_checks = memo_cache_new(&p);
}

void access_set_fall_back(bool is_falling_back)
{
	pthread_once(&access_once, access_init);
	atomic_store(&acl_is_falling_back, is_falling_back);
	memo_cache_clear(acl_definitions);
	memo_cache_clear(acl_checks);
}

void access_set_acl_ttl(dur_t ttl)
{
	pthread_once(&access_once, access_init);
	memo_cache_set_ttl(acl_definitions, ttl);
}

void access_set_check_ttl(dur_t ttl)
{
	pthread_once(&access_once, access_init);
	memo_cache_set_ttl(acl_checks, ttl);
}

void access_reset(void)
{
	access_set_fall_back(true);
	access_set_acl_ttl(ACL_TTL);
	access_set_check_ttl(ACL_TTL);
}

/* A cancelled or hurried caller says nothing about the policy. */
static bool access_is_worth_keeping(void)
{
	return !err_is(ERR_CANCELLED) && !err_is(ERR_TIMEOUT) && !err_is(ERR_SHUTDOWN);
}

/* --- the list of a name --- */

struct acl_definition {
	struct memo_value base;
	struct acl *acl; /* NULL: this name has none */
	bool is_error;
};

static void acl_definition_free(struct memo_value *v)
{
	struct acl_definition *d = container_of(v, struct acl_definition, base);
	acl_unref(d->acl);
	free(d);
}

static struct acl *acl_built_in(str_t name)
{
	struct acl *a = acl_default_find(name);
	return a != NULL ? acl_ref(a) : NULL;
}

/* What a handler returned for the name. */
static int acl_take_answer(struct policy_call *c, str_t name, struct acl **out)
{
	if (!lua_isnil(c->L, c->result_idx)) {
		*out = acl_object_at(c->L, c->result_idx);
		return *out != NULL ? 0 : -1;
	}
	*out = atomic_load(&acl_is_falling_back) ? acl_built_in(name) : NULL;
	return 0;
}

/* Asks the policy. *out NULL: the name has no list. Yields. */
static int acl_ask(str_t name, struct acl **out, mono_t deadline)
{
	struct policy_call c;
	int rc = policy_call_begin(&c, ACL_EVENT, deadline);
	if (rc < 0)
		return -1;
	if (rc == 0) { /* nobody else could say */
		*out = acl_built_in(name);
		return 0;
	}
	lua_pushlstring(c.L, name.p, name.n);
	rc = policy_call_run(&c, 1, 1, deadline);
	if (rc == 0) {
		*out = atomic_load(&acl_is_falling_back) ? acl_built_in(name) : NULL;
	} else if (rc == 1) {
		rc = acl_take_answer(&c, name, out);
	}
	policy_call_end(&c);
	return rc < 0 ? -1 : 0;
}

/* Asks the policy, for everybody who waits for the same. A reference. Yields. */
static struct acl_definition *acl_ask_once(str_t name, uint64_t epoch, mono_t deadline)
{
	struct acl_definition *d = xnew(struct acl_definition);
	bool is_kept = true;
	atomic_init(&d->base.refs, 1);
	d->base.free_fn = acl_definition_free;
	if (acl_ask(name, &d->acl, deadline) != 0) {
		err_wrap(ACL_EVENT "(" STR_FMT ")", STR_ARG(name));
		log_error("kumod::aaa", "%s", err_text());
		is_kept = access_is_worth_keeping();
		d->base.max_ttl = ACL_ERROR_TTL;
		d->is_error = true;
	}
	memo_finish(acl_definitions, name, is_kept ? &d->base : NULL, epoch);
	return d;
}

/* A reference in *out, or NULL there. Yields. */
static int acl_resolve(str_t name, struct acl **out, mono_t deadline)
{
	uint64_t epoch = policy_epoch();
	struct memo_value *known = NULL;
	int rc = memo_begin(acl_definitions, name, &known, deadline);
	if (rc < 0)
		return -1;
	struct acl_definition *d = rc > 0 ? container_of(known, struct acl_definition, base)
					  : acl_ask_once(name, epoch, deadline);
	*out = d->acl != NULL ? acl_ref(d->acl) : NULL;
	if (d->is_error && rc > 0)
		err_set(ERR_LUA, ACL_EVENT "(" STR_FMT ") has just failed", STR_ARG(name));
	rc = d->is_error ? -1 : 0;
	memo_value_unref(&d->base);
	return rc;
}

/* --- decisions --- */

struct access_decision {
	struct memo_value base;
	struct access_result result;
	bool is_error;
};

static void access_decision_free(struct memo_value *v)
{
	struct access_decision *d = container_of(v, struct access_decision, base);
	access_result_fini(&d->result);
	free(d);
}

static void access_key(const struct resource *what, const struct auth_info *who, str_t privilege,
		       struct buf *out)
{
	struct json_out j = json_out_to(out);
	json_arr_begin(&j);
	json_str(&j, privilege);
	json_str(&j, what->candidate[0]);
	auth_info_write(who, &j);
	json_arr_end(&j);
}

/* Asks each name's list. resolve: a reference, or NULL. */
static int access_decide(const struct resource *what, const struct auth_info *who, str_t privilege,
			 bool is_policy, struct access_result *out, mono_t deadline)
{
	*out = (struct access_result){.n_considered = 0};
	for (; out->n_considered < what->n; out->n_considered++) {
		str_t name = what->candidate[out->n_considered];
		struct acl *a = NULL;
		if (!is_policy) {
			a = acl_built_in(name);
		} else if (acl_resolve(name, &a, deadline) != 0) {
			out->n_considered++; /* this one was considered, in vain */
			return -1;
		}
		if (a == NULL)
			continue;
		out->rule = acl_find(a, who, privilege);
		if (out->rule != NULL) {
			out->acl = a;
			out->is_allowed = out->rule->is_allow;
			return 0;
		}
		acl_unref(a);
	}
	return 0;
}

/* The same for everybody who waits for it. A reference. */
static struct access_decision *access_decide_once(str_t key, const struct resource *what,
						  const struct auth_info *who, str_t privilege,
						  uint64_t epoch, mono_t deadline)
{
	struct access_decision *d = xnew(struct access_decision);
	bool is_kept = true;
	atomic_init(&d->base.refs, 1);
	d->base.free_fn = access_decision_free;
	if (access_decide(what, who, privilege, true, &d->result, deadline) != 0) {
		is_kept = access_is_worth_keeping();
		d->base.max_ttl = ACL_ERROR_TTL;
		d->is_error = true;
	}
	memo_finish(acl_checks, key, is_kept ? &d->base : NULL, epoch);
	return d;
}

static int access_decide_cached(const struct resource *what, const struct auth_info *who, str_t privilege,
				struct access_result *out, mono_t deadline)
{
	struct buf key = BUF_INIT;
	uint64_t epoch = policy_epoch();
	struct memo_value *known = NULL;
	pthread_once(&access_once, access_init);
	access_key(what, who, privilege, &key);
	int rc = memo_begin(acl_checks, buf_str(&key), &known, deadline);
	*out = (struct access_result){.n_considered = 0};
	if (rc < 0)
		goto out;
	struct access_decision *d =
		rc > 0 ? container_of(known, struct access_decision, base)
		       : access_decide_once(buf_str(&key), what, who, privilege, epoch, deadline);
	*out = d->result;
	if (out->acl != NULL)
		acl_ref(out->acl);
	if (d->is_error && rc > 0)
		err_set(ERR_LUA, ACL_EVENT " has just failed");
	rc = d->is_error ? -1 : 0;
	memo_value_unref(&d->base);
out:
	buf_fini(&key);
	return rc;
}

int access_check(const struct resource *what, const struct auth_info *who, str_t privilege,
		 struct access_result *out, mono_t deadline)
{
	int rc = policy_has_handler(ACL_EVENT) ? access_decide_cached(what, who, privilege, out, deadline)
					       : access_decide(what, who, privilege, false, out, deadline);
	struct err e = err_take();
	acct_log_access(what, who, privilege, out, deadline);
	err_put(e);
	return rc;
}
