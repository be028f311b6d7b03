/* egress.c - asking the policy: the events get_queue_config, get_egress_path_config,
 * get_egress_source and get_egress_pool. Queue configs and paths are kept and refreshed
 * by the queues that use them; sources and pools, which many queues share, are cached
 * here by their ttl behind one mutex. An answer that the policy gives is used as it is;
 * no answer is the default for queues and paths, and an error for sources and pools. */
#include "queue/egress.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "policy/policy.h"

#include <lauxlib.h>
#include <pthread.h>

static struct param_object *egress_default(const struct param_schema *schema)
{
	json_t *empty = json_object();
	struct param_object *o = param_object_from_json(schema, empty);
	json_decref(empty);
	return o;
}

static void egress_push_opt(lua_State *L, str_t s)
{
	if (s.p == NULL)
		lua_pushnil(L);
	else
		lua_pushlstring(L, s.p, s.n);
}

/** Calls `event` with string arguments; its result must be of `schema`. 1 and *out, 0 when nobody answered,
 * -1. */
static int egress_call(const char *event, const struct param_schema *schema, const str_t *arg, size_t n_args,
		       struct param_object **out, mono_t deadline)
{
	struct policy_call c;
	int rc = policy_call_begin(&c, event, deadline);
	if (rc <= 0)
		return rc;
	luaL_checkstack(c.L, (int)n_args + 1, NULL);
	for (size_t i = 0; i < n_args; i++)
		egress_push_opt(c.L, arg[i]);
	rc = policy_call_run(&c, (int)n_args, 1, deadline);
	if (rc == 1) {
		*out = param_object_at(c.L, c.result_idx, schema);
		if (*out == NULL) {
			err_wrap("event `%s`", event);
			rc = -1;
		}
	}
	policy_call_end(&c);
	return rc;
}

struct param_object *egress_get_queue_config(str_t domain, str_t tenant, str_t campaign, str_t routing_domain,
					     mono_t deadline)
{
	struct param_object *o = NULL;
	str_t arg[] = {domain, tenant, campaign, routing_domain};
	int rc = egress_call("get_queue_config", &queue_config_schema, arg, ARRAY_SIZE(arg), &o, deadline);
	return rc == 0 ? egress_default(&queue_config_schema) : o;
}

struct param_object *egress_get_path(str_t domain, str_t source, str_t site, mono_t deadline)
{
	struct param_object *o = NULL;
	str_t arg[] = {domain, source, site};
	int rc = egress_call("get_egress_path_config", &egress_path_schema, arg, ARRAY_SIZE(arg), &o,
			     deadline);
	return rc == 0 ? egress_default(&egress_path_schema) : o;
}

/* --- sources and pools --- */

struct egress_cached {
	char *name;
	struct param_object *object;
	mono_t expires;
	uint64_t epoch;
};
struct egress_cache {
	pthread_mutex_t lock;
	struct map by_name; /* name -> struct egress_cached */
};
static struct egress_cache source_cache = {.lock = PTHREAD_MUTEX_INITIALIZER};
static struct egress_cache pool_cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct param_object *egress_cache_find(struct egress_cache *c, str_t name)
{
	struct param_object *o = NULL;
	pthread_mutex_lock(&c->lock);
	struct egress_cached *e = map_find(&c->by_name, name);
	if (e != NULL && e->epoch == policy_epoch() && !mono_is_past(e->expires))
		o = param_object_ref(e->object);
	pthread_mutex_unlock(&c->lock);
	return o;
}

static void egress_cache_store(struct egress_cache *c, str_t name, struct param_object *o, dur_t ttl,
			       uint64_t epoch)
{
	pthread_mutex_lock(&c->lock);
	struct egress_cached *e = map_find(&c->by_name, name);
	if (e == NULL) {
		e = xnew(struct egress_cached);
		e->name = str_dup(name);
		map_put(&c->by_name, str_of(e->name), e);
	} else {
		param_object_unref(e->object);
	}
	e->object = param_object_ref(o);
	e->expires = mono_after(ttl);
	e->epoch = epoch;
	pthread_mutex_unlock(&c->lock);
}

static void egress_cache_clear(struct egress_cache *c)
{
	size_t pos = 0;
	str_t key;
	void *value;
	pthread_mutex_lock(&c->lock);
	while (map_next(&c->by_name, &pos, &key, &value)) {
		struct egress_cached *e = value;
		map_remove(&c->by_name, key);
		param_object_unref(e->object);
		free(e->name);
		free(e);
	}
	map_fini(&c->by_name);
	pthread_mutex_unlock(&c->lock);
}

void egress_caches_clear(void)
{
	egress_cache_clear(&source_cache);
	egress_cache_clear(&pool_cache);
}

/** The built-in object `unspecified`. */
static struct param_object *egress_unspecified(const struct param_schema *schema)
{
	json_t *t = schema == &egress_source_schema ? json_pack("{s:s}", "name", "unspecified")
						    : json_pack("{s:s, s:[{s:s}]}", "name", "unspecified",
								"entries", "name", "unspecified");
	struct param_object *o = param_object_from_json(schema, t);
	json_decref(t);
	return o;
}

static struct param_object *egress_get_cached(struct egress_cache *cache, const char *event,
					      const struct param_schema *schema, str_t name, mono_t deadline)
{
	struct param_object *o = egress_cache_find(cache, name);
	if (o != NULL)
		return o;
	dur_t ttl = dur_s(60);
	uint64_t epoch = policy_epoch(); /* before the call: an answer that a bump overtakes is not kept */
	if (str_eq(name, STR("unspecified"))) {
		o = egress_unspecified(schema);
		if (o == NULL)
			return NULL;
	} else {
		int rc = egress_call(event, schema, &name, 1, &o, deadline);
		if (rc == 0)
			err_set(ERR_INVALID, "Event %s has not been registered, asked for `" STR_FMT "`",
				event, STR_ARG(name));
		if (rc != 1)
			return NULL;
		ttl = schema == &egress_source_schema ? ((struct egress_source *)o->data)->ttl
						      : ((struct egress_pool *)o->data)->ttl;
	}
	egress_cache_store(cache, name, o, ttl, epoch);
	return o;
}

struct param_object *egress_get_source(str_t name, mono_t deadline)
{
	return egress_get_cached(&source_cache, "get_egress_source", &egress_source_schema, name, deadline);
}

struct param_object *egress_get_pool(str_t name, mono_t deadline)
{
	return egress_get_cached(&pool_cache, "get_egress_pool", &egress_pool_schema, name, deadline);
}
