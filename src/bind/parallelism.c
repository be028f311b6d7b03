/* parallelism.c - how many processors this process may use: the affinity mask, and cgroup v2's cpu.max from
 * the process's own group up to the root, the tightest of which counts, rounded up. */
#include "base/err.h"
#include "bind/bind.h"
#include "fiber/worker.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_BYTES 2048 /* of a line in /proc/self/cgroup; a longer one counts as no quota */

static unsigned parallelism_of_quota(const char *group)
{
	char path[GROUP_BYTES + 32], quota[32] = "max";
	unsigned long period = 0;
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return UINT_MAX;
	int n = fscanf(f, "%31s %lu", quota, &period);
	fclose(f);
	if (n != 2 || strcmp(quota, "max") == 0 || period == 0)
		return UINT_MAX;
	unsigned long q = strtoul(quota, NULL, 10);
	unsigned long cpus = (q + period - 1) / period;
	return cpus == 0 ? 1 : cpus > UINT_MAX ? UINT_MAX : (unsigned)cpus;
}

static unsigned parallelism_of_cgroup(void)
{
	char line[GROUP_BYTES] = "";
	unsigned least = UINT_MAX;
	FILE *f = fopen("/proc/self/cgroup", "re");
	if (f == NULL)
		return least;
	while (fgets(line, sizeof(line), f) != NULL) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, "0::/", 4) != 0)
			continue;
		for (char *group = line + 3, *slash;; *slash = 0) {
			unsigned n = parallelism_of_quota(strcmp(group, "/") == 0 ? "" : group);
			least = n < least ? n : least;
			slash = strrchr(group, '/');
			if (slash == NULL)
				break;
		}
		break;
	}
	fclose(f);
	return least;
}

#define VARIABLE "KUMO_AVAILABLE_PARALLELISM"

/** What the environment says; 0: nothing, or nonsense. */
static unsigned parallelism_of_environment(void)
{
	const char *text = getenv(VARIABLE);
	uint64_t n;
	return text != NULL && str_to_u64(str_of(text), &n) && n <= WORKERS_MAX ? (unsigned)n : 0;
}

int bind_check_parallelism(void)
{
	if (getenv(VARIABLE) == NULL || parallelism_of_environment() > 0)
		return 0;
	err_set(ERR_INVALID,
		"the environment variable " VARIABLE " is `%.40s`, expected a number from 1 to %d",
		getenv(VARIABLE), WORKERS_MAX);
	return -1;
}

unsigned bind_available_parallelism(void)
{
	unsigned forced = parallelism_of_environment();
	if (forced > 0)
		return forced;
	cpu_set_t set;
	unsigned cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
	unsigned quota = parallelism_of_cgroup();
	cpus = quota < cpus ? quota : cpus;
	cpus = cpus < WORKERS_MAX ? cpus : WORKERS_MAX;
	return cpus > 0 ? cpus : 1;
}
