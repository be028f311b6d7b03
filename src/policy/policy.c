/* policy.c - the policy of the process: its file, its epoch, its settings.
 *
 * The epoch is a counter that moves when configuration may have changed. A bump compiles the file again and
 * runs it once, in a state that nobody else sees; only what passes replaces the policy in use, since
 * otherwise a slip of the pen would fail every event from then on. It then puts the file in, drops the cached
 * modules and moves the counter, all under the lock, so that a state's epoch and its code always belong
 * together. The trial may yield, so bumps can overlap: the later one wins. Subscribers are called without any
 * lock. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "policy/policy_impl.h"

#include <limits.h>
#include <stdlib.h>

#define POLICY_SUBSCRIBERS_MAX 32
#define POLICY_TRIAL_TIME dur_s(30)

struct policy policy_self = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.max_age_ns = 300 * NS_PER_S,
	.max_uses = 1024,
	.max_spares = 8192,
};

static pthread_mutex_t policy_bump_lock = PTHREAD_MUTEX_INITIALIZER; /* reads of the file */
static uint64_t policy_n_reads, policy_read_in_use; /* under policy_bump_lock; under the lock */
static struct policy_subscriber {
	policy_epoch_fn *fn;
	void *arg;
} policy_subscriber[POLICY_SUBSCRIBERS_MAX];
static size_t policy_n_subscribers;
static _Atomic bool policy_validation_has_failed;

static struct policy_metrics policy_metric_set;
static pthread_once_t policy_metrics_once = PTHREAD_ONCE_INIT;

static void policy_declare_metrics(void)
{
	static const char *const event_label[] = {"event", NULL};
	struct policy_metrics *m = &policy_metric_set;
	m->states = metric_get(metric_declare(METRIC_GAUGE, "lua_count",
					      "the number of lua contexts currently alive", NULL, NULL, 0),
			       NULL);
	m->loads = metric_get(
		metric_declare(METRIC_COUNTER, "lua_load_count",
			       "how many times the policy lua script has been loaded into a new context",
			       NULL, NULL, 0),
		NULL);
	m->spares = metric_get(metric_declare(METRIC_GAUGE, "lua_spare_count",
					      "the number of lua contexts available for reuse in the pool",
					      NULL, NULL, 0),
			       NULL);
	m->started = metric_declare(METRIC_COUNTER, "lua_event_started",
				    "Incremented each time we start to call a lua event callback. Use "
				    "lua_event_latency_count to track completed events",
				    event_label, NULL, 0);
	m->latency = metric_declare(METRIC_HISTOGRAM, "lua_event_latency",
				    "how long a given lua event callback took", event_label, NULL, 0);
}

const struct policy_metrics *policy_metrics(void)
{
	pthread_once(&policy_metrics_once, policy_declare_metrics);
	return &policy_metric_set;
}

void policy_add_library(policy_open_fn *fn)
{
	if (policy_self.is_started)
		panic("a library is added after the policy was started");
	for (size_t i = 0; i < policy_self.n_libraries; i++)
		if (policy_self.library[i] == fn)
			return;
	if (policy_self.n_libraries == POLICY_LIBRARIES_MAX)
		panic("more than %d libraries", POLICY_LIBRARIES_MAX);
	policy_self.library[policy_self.n_libraries++] = fn;
}

/* Where the policy's own modules are. NULL when the name of the folder cannot stand in a search path. */
static char *policy_folder(const char *file)
{
	char *path = realpath(file, NULL);
	if (path == NULL)
		return NULL;
	char *slash = strrchr(path, '/');
	slash[slash == path] = 0;
	if (strpbrk(path, ";?") == NULL)
		return path;
	log_warn("lua", "modules beside the policy are not found: %s has a ; or ? in it", path);
	free(path);
	return NULL;
}

int policy_start(const struct policy_params *p)
{
	if (policy_self.is_started)
		panic("the policy is started twice");
	policy_self.loaded = wall_now();
	struct chunk *main = chunk_new(p->file);
	if (main == NULL)
		return -1;
	policy_self.file = xstrdup(p->file);
	policy_self.dir = policy_folder(p->file);
	policy_self.version = xstrdup(p->version != NULL ? p->version : "");
	policy_self.is_validating = p->is_validating;
	policy_self.main = main;
	policy_self.is_started = true;
	atomic_store(&policy_validation_has_failed, false);
	atomic_fetch_add(&policy_self.epoch, 1);
	pool_start();
	struct policy_state *st = vm_new(MONO_NEVER);
	if (st == NULL) {
		struct err e = err_take();
		policy_stop();
		err_put(e);
		return -1;
	}
	handlers_publish(st);
	pool_put(st, true);
	return 0;
}

void policy_stop(void)
{
	if (!policy_self.is_started)
		return;
	pool_stop();
	handlers_stop();
	pthread_mutex_lock(&policy_bump_lock);
	pthread_mutex_lock(&policy_self.lock);
	atomic_store(&policy_self.handlers_epoch, atomic_load(&policy_self.epoch)); /* known: none */
	chunk_cache_clear_locked();
	chunk_unref(policy_self.main);
	free(policy_self.file);
	free(policy_self.dir);
	free(policy_self.version);
	policy_self.main = NULL;
	policy_self.file = policy_self.dir = policy_self.version = NULL;
	policy_self.is_started = false;
	pthread_mutex_unlock(&policy_self.lock);
	pthread_mutex_unlock(&policy_bump_lock);
}

bool policy_is_validating(void)
{
	return policy_self.is_validating;
}

bool policy_is_validation_failed(void)
{
	return atomic_load(&policy_validation_has_failed);
}

void policy_set_validation_failed(void)
{
	atomic_store(&policy_validation_has_failed, true);
}

struct chunk *policy_main_chunk(uint64_t *epoch)
{
	pthread_mutex_lock(&policy_self.lock);
	struct chunk *c = policy_self.main;
	if (c == NULL)
		panic("a Lua state is made while no policy is started");
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	*epoch = atomic_load(&policy_self.epoch);
	pthread_mutex_unlock(&policy_self.lock);
	return c;
}

/* --- the epoch --- */

uint64_t policy_epoch(void)
{
	return atomic_load_explicit(&policy_self.epoch, memory_order_acquire);
}

/* The file as it is now, when it can be used; *n_read numbers the readings. NULL: it cannot, which was
 * logged. */
static struct chunk *policy_read_again(uint64_t *n_read)
{
	pthread_mutex_lock(&policy_bump_lock);
	struct chunk *fresh = policy_self.is_started ? chunk_new(policy_self.file) : NULL;
	bool is_wanted = policy_self.is_started;
	*n_read = ++policy_n_reads;
	pthread_mutex_unlock(&policy_bump_lock);
	if (!is_wanted)
		return NULL;
	if (fresh != NULL && vm_try(fresh, mono_after(POLICY_TRIAL_TIME)) == 0)
		return fresh;
	log_error("lua", "the policy stays as it was: %s", err_text());
	err_clear();
	chunk_unref(fresh);
	return NULL;
}

void policy_bump_epoch(void)
{
	struct policy_subscriber sub[POLICY_SUBSCRIBERS_MAX];
	uint64_t n_read;
	struct chunk *fresh = policy_read_again(&n_read), *unused = fresh;
	pthread_mutex_lock(&policy_self.lock);
	bool is_started = policy_self.is_started;
	if (is_started && fresh == NULL) {
		pthread_mutex_unlock(&policy_self.lock);
		return;
	}
	if (is_started && n_read > policy_read_in_use) {
		unused = policy_self.main;
		policy_self.main = fresh;
		policy_read_in_use = n_read;
	}
	chunk_cache_clear_locked();
	uint64_t epoch = atomic_fetch_add(&policy_self.epoch, 1) + 1;
	if (!is_started)
		atomic_store(&policy_self.handlers_epoch, epoch); /* known: none */
	size_t n = policy_n_subscribers;
	memcpy(sub, policy_subscriber, n * sizeof(sub[0]));
	pthread_mutex_unlock(&policy_self.lock);
	chunk_unref(unused);
	for (size_t i = 0; i < n; i++)
		sub[i].fn(sub[i].arg, epoch);
}

void policy_on_epoch(policy_epoch_fn *fn, void *arg)
{
	pthread_mutex_lock(&policy_self.lock);
	if (policy_n_subscribers == POLICY_SUBSCRIBERS_MAX)
		panic("more than %d subscribers of the epoch", POLICY_SUBSCRIBERS_MAX);
	policy_subscriber[policy_n_subscribers++] = (struct policy_subscriber){fn, arg};
	pthread_mutex_unlock(&policy_self.lock);
}

/* --- settings --- */

void policy_set_max_age(dur_t age)
{
	atomic_store(&policy_self.max_age_ns, age.ns);
}

void policy_set_max_uses(uint32_t n)
{
	atomic_store(&policy_self.max_uses, n);
}

void policy_set_max_spares(uint32_t n)
{
	atomic_store(&policy_self.max_spares, n);
}

void policy_set_gc_on_put(uint8_t pct)
{
	atomic_store(&policy_self.gc_pct, pct);
}
