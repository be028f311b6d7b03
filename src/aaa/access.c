/* access.c - resolving the lists and asking them, with two caches: of the list of each name, and of each
 * decision by privilege, resource and person. Both hold 128 entries and are bound to the configuration epoch.
 * A failure of the event is kept too, but for a second at most, so that a policy whose database is away is
 * not asked for each request and yet is asked again soon.
 *
 * Without a handler the built-in map is a hash look-up per name; that path takes no lock and no cache. */
#include "aaa/access.h"

#include "aaa/acct.h"
#include "aaa/acl_object.h"
#include "aaa/ttl_cache.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "policy/policy.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ACL_EVENT "get_acl_definition"
#define ACL_TTL dur_ms(300)
#define ACL_ERROR_TTL dur_s(1)

enum { ACL_CACHE_ENTRIES = 128 };

static struct ttl_cache acl_definitions = TTL_CACHE_INIT(acl_definitions, ACL_CACHE_ENTRIES);
static struct ttl_cache acl_checks = TTL_CACHE_INIT(acl_checks, ACL_CACHE_ENTRIES);
static _Atomic int64_t acl_ttl_ns = INT64_C(300000000), acl_check_ttl_ns = INT64_C(300000000);
static atomic_bool acl_is_falling_back = true;

void access_set_fall_back(bool is_falling_back)
{
	atomic_store(&acl_is_falling_back, is_falling_back);
	ttl_cache_clear(&acl_definitions);
	ttl_cache_clear(&acl_checks);
}

void access_set_acl_ttl(dur_t ttl)
{
	atomic_store(&acl_ttl_ns, ttl.ns);
}

void access_set_check_ttl(dur_t ttl)
{
	atomic_store(&acl_check_ttl_ns, ttl.ns);
}

void access_reset(void)
{
	access_set_fall_back(true);
	access_set_acl_ttl(ACL_TTL);
	access_set_check_ttl(ACL_TTL);
}

static dur_t access_ttl(_Atomic int64_t *ttl_ns, bool is_error)
{
	dur_t ttl = dur_ns(atomic_load(ttl_ns));
	return is_error && dur_cmp(ttl, ACL_ERROR_TTL) > 0 ? ACL_ERROR_TTL : ttl;
}

/* A cancelled or hurried caller says nothing about the policy. */
static bool access_is_worth_keeping(void)
{
	return !err_is(ERR_CANCELLED) && !err_is(ERR_TIMEOUT) && !err_is(ERR_SHUTDOWN);
}

/* --- the list of a name --- */

struct acl_definition {
	struct cached base;
	struct acl *acl; /* NULL: this name has none */
	bool is_error;
};

static void acl_definition_free(struct cached *v)
{
	struct acl_definition *d = container_of(v, struct acl_definition, base);
	acl_unref(d->acl);
	free(d);
}

static void acl_definition_keep(str_t name, struct acl *acl, bool is_error, uint64_t epoch)
{
	struct acl_definition *d = xnew(struct acl_definition);
	atomic_init(&d->base.refs, 1);
	d->base.free = acl_definition_free;
	d->acl = acl != NULL ? acl_ref(acl) : NULL;
	d->is_error = is_error;
	ttl_cache_put(&acl_definitions, name, &d->base, access_ttl(&acl_ttl_ns, is_error), epoch);
	cached_unref(&d->base);
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

/* A reference in *out, or NULL there. Yields. */
static int acl_resolve(str_t name, struct acl **out, mono_t deadline)
{
	uint64_t epoch = policy_epoch();
	struct cached *v = ttl_cache_get(&acl_definitions, name, epoch);
	if (v != NULL) {
		const struct acl_definition *d = container_of(v, struct acl_definition, base);
		bool is_error = d->is_error;
		*out = d->acl != NULL ? acl_ref(d->acl) : NULL;
		cached_unref(v);
		if (is_error)
			err_set(ERR_LUA, ACL_EVENT "(" STR_FMT ") has just failed", STR_ARG(name));
		return is_error ? -1 : 0;
	}
	if (acl_ask(name, out, deadline) == 0) {
		acl_definition_keep(name, *out, false, epoch);
		return 0;
	}
	err_wrap(ACL_EVENT "(" STR_FMT ")", STR_ARG(name));
	log_error("kumod::aaa", "%s", err_text());
	if (access_is_worth_keeping())
		acl_definition_keep(name, NULL, true, epoch);
	return -1;
}

/* --- decisions --- */

struct access_decision {
	struct cached base;
	struct access_result result;
	bool is_error;
};

static void access_decision_free(struct cached *v)
{
	struct access_decision *d = container_of(v, struct access_decision, base);
	access_result_fini(&d->result);
	free(d);
}

static void access_keep(str_t key, const struct access_result *r, bool is_error, uint64_t epoch)
{
	struct access_decision *d = xnew(struct access_decision);
	atomic_init(&d->base.refs, 1);
	d->base.free = access_decision_free;
	d->result = *r;
	if (r->acl != NULL)
		acl_ref(r->acl);
	d->is_error = is_error;
	ttl_cache_put(&acl_checks, key, &d->base, access_ttl(&acl_check_ttl_ns, is_error), epoch);
	cached_unref(&d->base);
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

static int access_decide_cached(const struct resource *what, const struct auth_info *who, str_t privilege,
				struct access_result *out, mono_t deadline)
{
	struct buf key = BUF_INIT;
	uint64_t epoch = policy_epoch();
	int rc;
	access_key(what, who, privilege, &key);
	struct cached *v = ttl_cache_get(&acl_checks, buf_str(&key), epoch);
	if (v != NULL) {
		const struct access_decision *d = container_of(v, struct access_decision, base);
		*out = d->result;
		if (out->acl != NULL)
			acl_ref(out->acl);
		rc = d->is_error ? -1 : 0;
		cached_unref(v);
		if (rc != 0)
			err_set(ERR_LUA, ACL_EVENT " has just failed");
	} else {
		rc = access_decide(what, who, privilege, true, out, deadline);
		if (rc == 0 || access_is_worth_keeping())
			access_keep(buf_str(&key), out, rc != 0, epoch);
	}
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
