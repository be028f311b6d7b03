/* policy_env.h - what a test of the policy runs in: workers, the library kumo.* and a directory with the
 * policy's files. There is one environment at a time; policies come and go in it. */
#pragma once

#include "fiber_check.h"
#include "test_dir.h"

#include "bind/bind.h"
#include "fiber/offload.h"
#include "net/dns.h"
#include "policy/policy.h"

#include <lauxlib.h>
#include <string.h>

#define ENV_VERSION "1.2.3-test" /* kumo.version */

static struct {
	char *dir;
	char *policy_path; /* policy.lua in it */
} env;

/** Before the first policy. Functions of the core are registered; a test adds those of other layers. */
static inline void env_begin(unsigned n_workers)
{
	env.dir = dir_make();
	env.policy_path = xasprintf("%s/policy.lua", env.dir);
	workers_start(n_workers);
	offload_start(n_workers);
	bind_register_core();
}

static inline void env_end(void)
{
	workers_stop(mono_after(dur_s(10)));
	offload_stop();
	dns_stop();
	dir_remove(env.dir);
	free(env.policy_path);
	free(env.dir);
}

/** Starts a policy of this text: 0, or -1 with the error. */
static inline int env_start(const char *text)
{
	struct policy_params p = {.file = env.policy_path, .version = ENV_VERSION};
	dir_write(env.dir, "policy.lua", text);
	return policy_start(&p);
}

/** A deadline that only a test that hangs comes to. */
static inline mono_t soon(void)
{
	return mono_after(dur_s(60));
}

/** Calls an event with one string. Yields. Returns what policy_call_run() does, or 0 without a handler; the
 * text of a result goes to out, unless that is NULL. */
static inline int env_call(const char *event, const char *arg, char out[200], mono_t deadline)
{
	struct policy_call c;
	int rc = policy_call_begin(&c, event, deadline);
	if (rc != 1)
		return rc;
	lua_pushstring(c.L, arg);
	rc = policy_call_run(&c, 1, 1, deadline);
	if (rc == 1 && out != NULL)
		snprintf(out, 200, "%s", luaL_tolstring(c.L, c.result_idx, NULL));
	policy_call_end(&c);
	return rc;
}

/** test_FN() runs FN() in a fiber. */
#define RUN_IN_FIBER(fn)                    \
	static void test_##fn(void **state) \
	{                                   \
		worker_run(fn, NULL);       \
	}
