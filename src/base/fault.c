/* fault.c - named fault points. Each point has a rule and a counter of passes. A rule fires at its n-th pass,
 * or at each. It is one atomic word, so that a test may change it while other threads pass the point: 0 is
 * unarmed, else the pass that fires (from 1), with flags in the upper bits. */
#include "base/fault.h"

#include "base/err.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define RULE_KILL (UINT64_C(1) << 63)
#define RULE_ALWAYS (UINT64_C(1) << 62)
#define RULE_SLOW (UINT64_C(1) << 61)
#define RULE_PASS (RULE_SLOW - 1)
#define SLOW_S 5

static _Atomic uint64_t fault_rules[FAULT_COUNT];
static _Atomic uint64_t fault_passes[FAULT_COUNT];

static const char *const fault_name[FAULT_COUNT] = {
#define FAULT_NAME(name) [FAULT_##name] = #name,
	FAULT_LIST(FAULT_NAME)
#undef FAULT_NAME
};

bool fault_hit(enum fault_point p)
{
	uint64_t rule = atomic_load_explicit(&fault_rules[p], memory_order_relaxed);
	if (LIKELY(rule == 0))
		return false;
	uint64_t pass = atomic_fetch_add(&fault_passes[p], 1) + 1;
	if ((rule & RULE_ALWAYS) == 0 && pass != (rule & RULE_PASS))
		return false;
	if ((rule & RULE_KILL) != 0)
		kill(getpid(), SIGKILL);
	if ((rule & RULE_SLOW) != 0) {
		sleep(SLOW_S);
		return false;
	}
	return true;
}

static int fault_find(str_t name)
{
	for (int i = 0; i < FAULT_COUNT; i++) {
		if (str_eq(name, str_of(fault_name[i])))
			return i;
	}
	return -1;
}

/* name=3, name=*, name=kill:3, name=slow:* */
static int fault_rule_parse(str_t one, int *point, uint64_t *rule)
{
	str_t rest = one, name;
	uint64_t flags = 0, at = 0;
	str_split(&rest, '=', &name);
	*point = fault_find(name);
	if (*point < 0) {
		err_set(ERR_INVALID, "CIRRUS_FAULTS: unknown fault point '" STR_FMT "'", STR_ARG(name));
		return -1;
	}
	if (str_starts(rest, STR("kill:")) || str_starts(rest, STR("slow:"))) {
		flags = rest.p[0] == 'k' ? RULE_KILL : RULE_SLOW;
		rest = str_skip(rest, 5);
	}
	if (str_eq(rest, STR("*"))) {
		flags |= RULE_ALWAYS;
	} else if (!str_to_u64(rest, &at) || at == 0 || at > RULE_PASS) {
		err_set(ERR_INVALID, "CIRRUS_FAULTS: '" STR_FMT "' wants a count from 1, or *", STR_ARG(one));
		return -1;
	}
	*rule = flags | at;
	return 0;
}

int fault_arm(str_t spec)
{
	uint64_t fresh[FAULT_COUNT] = {0};
	str_t one;
	while (str_split(&spec, ',', &one)) {
		uint64_t rule;
		int point;
		one = str_trim(one);
		if (one.n == 0)
			continue;
		if (fault_rule_parse(one, &point, &rule) != 0)
			return -1;
		fresh[point] = rule;
	}
	for (int i = 0; i < FAULT_COUNT; i++) { /* unarmed meanwhile: the new rule counts from 0 */
		atomic_store(&fault_rules[i], 0);
		atomic_store(&fault_passes[i], 0);
		atomic_store(&fault_rules[i], fresh[i]);
	}
	return 0;
}

int fault_init_from_env(void)
{
	const char *spec = getenv("CIRRUS_FAULTS");
	if (spec == NULL || spec[0] == 0)
		return 0;
#ifdef CIRRUS_FAULTS
	return fault_arm(str_of(spec));
#else
	err_set(ERR_UNSUPPORTED,
		"CIRRUS_FAULTS is set, but this build has no fault points (Meson option `faults`)");
	return -1;
#endif
}
