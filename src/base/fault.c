/* fault.c - named fault points. Each point has a rule, written while no point is being passed (at start, or
 * by a test between its steps), and a counter of passes, which any thread may bump. A rule fires at its n-th
 * pass, or at each. */
#include "base/fault.h"

#include "base/err.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static struct fault_rule {
	bool is_armed;
	bool is_always;
	bool is_kill;
	uint64_t at; /* the pass that fires, from 1 */
} fault_rules[FAULT_COUNT];

static _Atomic uint64_t fault_passes[FAULT_COUNT];

static const char *const fault_name[FAULT_COUNT] = {
#define FAULT_NAME(name) [FAULT_##name] = #name,
	FAULT_LIST(FAULT_NAME)
#undef FAULT_NAME
};

bool fault_hit(enum fault_point p)
{
	const struct fault_rule *r = &fault_rules[p];
	if (LIKELY(!r->is_armed))
		return false;
	uint64_t pass = atomic_fetch_add(&fault_passes[p], 1) + 1;
	if (!r->is_always && pass != r->at)
		return false;
	if (r->is_kill)
		kill(getpid(), SIGKILL);
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

/* name=3, name=*, name=kill:3, name=kill:* */
static int fault_rule_parse(str_t one, int *point, struct fault_rule *rule)
{
	str_t rest = one, name;
	*rule = (struct fault_rule){.is_armed = true};
	str_split(&rest, '=', &name);
	*point = fault_find(name);
	if (*point < 0) {
		err_set(ERR_INVALID, "CIRRUS_FAULTS: unknown fault point '" STR_FMT "'", STR_ARG(name));
		return -1;
	}
	if (str_starts(rest, STR("kill:"))) {
		rule->is_kill = true;
		rest = str_skip(rest, 5);
	}
	rule->is_always = str_eq(rest, STR("*"));
	if (!rule->is_always && (!str_to_u64(rest, &rule->at) || rule->at == 0)) {
		err_set(ERR_INVALID, "CIRRUS_FAULTS: '" STR_FMT "' wants a count from 1, or *", STR_ARG(one));
		return -1;
	}
	return 0;
}

int fault_arm(str_t spec)
{
	struct fault_rule fresh[FAULT_COUNT] = {0};
	str_t one;
	while (str_split(&spec, ',', &one)) {
		struct fault_rule rule;
		int point;
		one = str_trim(one);
		if (one.n == 0)
			continue;
		if (fault_rule_parse(one, &point, &rule) != 0)
			return -1;
		fresh[point] = rule;
	}
	memcpy(fault_rules, fresh, sizeof(fresh));
	for (int i = 0; i < FAULT_COUNT; i++)
		atomic_store(&fault_passes[i], 0);
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
