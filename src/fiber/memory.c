/* memory.c - sampling and limits. A sample reads one or two small files of /proc or /sys, some 20 us, so it
 * is taken on the loop. The limits are looked up anew with each sample, because a control group's can be
 * changed while the process runs. When the soft limit is reached the allocator is asked to give back what it
 * only keeps for later: often that is enough. */
#include "fiber/memory.h"

#include "base/err.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/worker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define MEMORY_EVERY dur_s(3)

/* jemalloc is linked into the daemon, not into builds with a sanitizer. */
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *new_value, size_t new_bytes)
	__attribute__((weak));

struct memory_limit {
	_Atomic uint64_t of_policy, of_environment; /* bytes; 0: not set */
};
static struct {
	struct memory_limit hard, soft, low;
	_Atomic uint64_t usage;
	_Atomic int level;
	struct metric_series *m_usage, *m_limit, *m_low, *n_over, *n_low;
} memory;

/* --- what the system says --- */

static bool memory_group_path(const char *file, char *path, size_t n_path)
{
	char group[256] = "";
	FILE *f = fopen("/proc/self/cgroup", "re");
	bool is_found = f != NULL && fscanf(f, "0::%255[^\n]", group) == 1;
	if (f != NULL)
		fclose(f);
	if (is_found)
		snprintf(path, n_path, "/sys/fs/cgroup%s/%s", strcmp(group, "/") == 0 ? "" : group, file);
	return is_found;
}

bool memory_read_group(const char *file, uint64_t *bytes)
{
	char path[512], value[32] = "";
	if (!memory_group_path(file, path, sizeof(path)))
		return false;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	bool is_found = fscanf(f, "%31s", value) == 1 && str_to_u64(str_of(value), bytes);
	fclose(f);
	return is_found;
}

/** A line "name number" of memory.stat; 0 when it is not there. */
static void memory_read_group_stat(uint64_t *inactive_file, uint64_t *anon)
{
	char path[512], name[64];
	unsigned long long value;
	*inactive_file = *anon = 0;
	FILE *f = memory_group_path("memory.stat", path, sizeof(path)) ? fopen(path, "re") : NULL;
	while (f != NULL && fscanf(f, "%63s %llu", name, &value) == 2) {
		if (strcmp(name, "inactive_file") == 0)
			*inactive_file = value;
		else if (strcmp(name, "anon") == 0)
			*anon = value;
	}
	if (f != NULL)
		fclose(f);
}

static uint64_t memory_resident(void)
{
	unsigned long long n_pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f == NULL || fscanf(f, "%*u %llu", &n_pages) != 1)
		n_pages = 0;
	if (f != NULL)
		fclose(f);
	return n_pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/** Of a control group that has a limit, its working set: page cache that nobody uses is no reason to refuse
 * mail. */
static uint64_t memory_sample(void)
{
	uint64_t limit, current, inactive_file, anon;
	if (!memory_read_group("memory.max", &limit) || !memory_read_group("memory.current", &current))
		return memory_resident();
	memory_read_group_stat(&inactive_file, &anon);
	uint64_t working = current > inactive_file ? current - inactive_file : 0;
	return working > anon ? working : anon;
}

/* --- limits --- */

static uint64_t memory_explicit(const struct memory_limit *l)
{
	uint64_t bytes = atomic_load(&l->of_policy);
	return bytes > 0 ? bytes : atomic_load(&l->of_environment);
}

uint64_t memory_hard_limit(void)
{
	uint64_t given = memory_explicit(&memory.hard), bytes;
	if (given > 0)
		return given;
	long n_pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	uint64_t least = n_pages > 0 && page > 0 ? (uint64_t)n_pages * (uint64_t)page : UINT64_MAX;
	static const int kind[] = {RLIMIT_AS, RLIMIT_DATA};
	struct rlimit r;
	for (size_t i = 0; i < ARRAY_SIZE(kind); i++)
		if (getrlimit(kind[i], &r) == 0 && r.rlim_cur < least)
			least = r.rlim_cur;
	if (memory_read_group("memory.max", &bytes) && bytes < least)
		least = bytes;
	return least;
}

uint64_t memory_soft_limit(void)
{
	uint64_t given = memory_explicit(&memory.soft), high;
	if (given > 0)
		return given;
	uint64_t share = memory_hard_limit() / 4 * 3;
	return memory_read_group("memory.high", &high) && high < share ? high : share;
}

uint64_t memory_low_threshold(void)
{
	uint64_t given = memory_explicit(&memory.low);
	return given > 0 ? given : memory_soft_limit() / 5 * 4;
}

void memory_set_hard_limit(uint64_t bytes)
{
	atomic_store(&memory.hard.of_policy, bytes);
}
void memory_set_soft_limit(uint64_t bytes)
{
	atomic_store(&memory.soft.of_policy, bytes);
}
void memory_set_low_threshold(uint64_t bytes)
{
	atomic_store(&memory.low.of_policy, bytes);
}

/* --- looking --- */

/** Has jemalloc return the pages it holds for later (all arenas: MALLCTL_ARENAS_ALL). */
static void memory_purge(void)
{
	if (mallctl != NULL)
		(void)mallctl("arena.4096.purge", NULL, NULL, NULL, 0);
}

static enum memory_level memory_level_of(uint64_t usage, uint64_t soft, uint64_t low)
{
	return usage >= soft ? MEMORY_OVER : usage >= low ? MEMORY_LOW : MEMORY_PLENTY;
}

/* Looks now instead of in 3 s. */
static void memory_look(void)
{
	uint64_t soft = memory_soft_limit(), low = memory_low_threshold(), usage = memory_sample();
	if (usage >= soft) {
		memory_purge();
		usage = memory_sample();
	}
	enum memory_level level = memory_level_of(usage, soft, low),
			  before = (enum memory_level)atomic_exchange(&memory.level, (int)level);
	atomic_store(&memory.usage, usage);
	if (memory.m_usage != NULL) {
		metric_set(memory.m_usage, (int64_t)usage);
		metric_set(memory.m_limit, (int64_t)soft);
		metric_set(memory.m_low, (int64_t)low);
		metric_add(memory.n_over, level == MEMORY_OVER && before != MEMORY_OVER);
		metric_add(memory.n_low, level != MEMORY_PLENTY && before == MEMORY_PLENTY);
	}
	if (level == MEMORY_OVER && before != MEMORY_OVER)
		log_error("kumod",
			  "memory usage of %llu bytes is over the soft limit of %llu: "
			  "no mail is taken until it is below",
			  (unsigned long long)usage, (unsigned long long)soft);
	else if (level != MEMORY_OVER && before == MEMORY_OVER)
		log_info("kumod", "memory usage of %llu bytes is below the soft limit again",
			 (unsigned long long)usage);
}

uint64_t memory_usage(void)
{
	return atomic_load(&memory.usage);
}
enum memory_level memory_level(void)
{
	return (enum memory_level)atomic_load_explicit(&memory.level, memory_order_relaxed);
}
const char *memory_health(void)
{
	return memory_level() == MEMORY_OVER ? "load shedding" : NULL;
}

static int memory_read_environment(const char *name, struct memory_limit *l)
{
	const char *text = getenv(name);
	uint64_t bytes = 0;
	if (text != NULL && (!str_to_u64(str_of(text), &bytes) || bytes == 0)) {
		err_set(ERR_INVALID, "the environment variable %s is `%.40s`, expected a number of bytes",
			name, text);
		return -1;
	}
	atomic_store(&l->of_environment, bytes);
	return 0;
}

static void memory_fiber(void *arg UNUSED)
{
	while (fiber_sleep(MEMORY_EVERY, MONO_NEVER) == 0)
		memory_look();
	err_clear();
}

static struct metric_series *memory_metric(enum metric_kind kind, const char *name, const char *help)
{
	return metric_get(metric_declare(kind, name, help, NULL, NULL, 0), NULL);
}

int memory_start(void)
{
	if (memory_read_environment("KUMOD_MEMORY_HARD_LIMIT", &memory.hard) != 0 ||
	    memory_read_environment("KUMOD_MEMORY_SOFT_LIMIT", &memory.soft) != 0)
		return -1;
	memory.m_usage = memory_metric(METRIC_GAUGE, "memory_usage",
				       "bytes of memory in use, as the limits count them");
	memory.m_limit = memory_metric(METRIC_GAUGE, "memory_limit", "soft memory limit measured in bytes");
	memory.m_low =
		memory_metric(METRIC_GAUGE, "memory_low_thresh", "low memory threshold measured in bytes");
	memory.n_over = memory_metric(METRIC_COUNTER, "memory_over_limit_count",
				      "how many times the soft memory limit was exceeded");
	memory.n_low = memory_metric(METRIC_COUNTER, "memory_low_count",
				     "how many times the low memory threshold was exceeded");
	memory_look();
	worker_start_fiber(worker_get(0), "memory", memory_fiber, NULL);
	return 0;
}
