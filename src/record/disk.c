/* disk.c - see disk.h. The thread is started by the first path and sleeps on a condition between looks, so
 * that it can be stopped at once. statvfs(2) may hang on a dead network mount: that is why it has a thread of
 * its own and why nothing here is called under somebody else's lock. The paths' list is under the mutex, held
 * during a look: only adding waits for it; record_disk_health reads one atomic. A path whose statvfs fails
 * keeps its last verdict and is logged once. */
#include "record/disk.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/metric.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>

#define LOOK_EVERY_S 5
#define LIMIT_DEFAULT STR("10%")

struct disk_limit {
	bool is_pct;
	uint64_t value;
};

struct disk_path {
	struct list link;
	char *name, *path;
	struct disk_limit space, inodes;
	bool is_low, is_failing;
	struct metric_series *bytes, *pct, *n_inodes, *inodes_pct;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list paths;
	bool is_running, is_stopping;
	pthread_t thread;
	atomic_bool is_low;
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER,
	  .wake = PTHREAD_COND_INITIALIZER,
	  .paths = {&disk.paths, &disk.paths}};

/* --- limits --- */

static int disk_limit_parse(str_t text, struct disk_limit *out)
{
	struct disk_limit l = {.is_pct = str_ends(text, STR("%"))};
	str_t digits = l.is_pct ? str_head(text, text.n - 1) : text;
	if (!str_to_u64(digits, &l.value) || (l.is_pct && l.value > 100)) {
		err_set(ERR_INVALID,
			"invalid value: string \"" STR_FMT
			"\", expected a percentage like \"10%%\" or a count",
			STR_ARG(text));
		return -1;
	}
	*out = l;
	return 0;
}

int disk_limit_check(str_t text)
{
	struct disk_limit l;
	return disk_limit_parse(text, &l);
}

int disk_limit_param_parse(const json_t *value, void *field)
{
	char **out = field;
	if (json_is_integer(value) && json_integer_value(value) >= 0) {
		*out = xasprintf("%lld", (long long)json_integer_value(value));
		return 0;
	}
	if (!json_is_string(value)) {
		err_set(ERR_INVALID, "invalid type: expected a percentage like \"10%%\" or a count");
		return -1;
	}
	str_t text = str_mk(json_string_value(value), json_string_length(value));
	if (disk_limit_check(text) != 0)
		return -1;
	*out = str_dup(text);
	return 0;
}

void disk_limit_param_fini(void *field)
{
	char **text = field;
	free(*text);
	*text = NULL;
}

static bool disk_limit_is_broken(const struct disk_limit *l, uint64_t free_count, uint64_t free_pct)
{
	return (l->is_pct ? free_pct : free_count) < l->value;
}

/* --- looking --- */

static void disk_path_look(struct disk_path *p)
{
	struct statvfs st;
	if (statvfs(p->path, &st) != 0) {
		if (!p->is_failing)
			log_error("kumod::record", "%s: free space of %s is unknown: %m", p->name, p->path);
		p->is_failing = true;
		return;
	}
	p->is_failing = false;
	uint64_t n_bytes = (uint64_t)st.f_bavail * st.f_frsize;
	uint64_t pct = st.f_blocks > 0 ? (uint64_t)((unsigned __int128)st.f_bavail * 100 / st.f_blocks) : 100;
	uint64_t inodes_pct =
		st.f_files > 0 ? (uint64_t)((unsigned __int128)st.f_favail * 100 / st.f_files) : 100;
	metric_set(p->bytes, (int64_t)n_bytes);
	metric_set(p->pct, (int64_t)pct);
	metric_set(p->n_inodes, (int64_t)st.f_favail);
	metric_set(p->inodes_pct, (int64_t)inodes_pct);

	/* A file system without a fixed number of inodes reports none at all. */
	bool is_low = disk_limit_is_broken(&p->space, n_bytes, pct) ||
		      (st.f_files > 0 && disk_limit_is_broken(&p->inodes, st.f_favail, inodes_pct));
	if (is_low && !p->is_low)
		log_error("kumod::record",
			  "%s (%s) has too little room: %llu bytes (%llu%%), %llu inodes (%llu%%) are free",
			  p->name, p->path, (unsigned long long)n_bytes, (unsigned long long)pct,
			  (unsigned long long)st.f_favail, (unsigned long long)inodes_pct);
	else if (!is_low && p->is_low)
		log_info("kumod::record", "%s (%s) has room again", p->name, p->path);
	p->is_low = is_low;
}

static void disk_look_locked(void)
{
	bool is_low = false;
	list_for_each (it, &disk.paths) {
		struct disk_path *p = list_entry(it, struct disk_path, link);
		disk_path_look(p);
		is_low |= p->is_low;
	}
	atomic_store_explicit(&disk.is_low, is_low, memory_order_relaxed);
}

static void *disk_monitor_run(void *arg UNUSED)
{
	log_set_thread_name("disk-monitor");
	pthread_mutex_lock(&disk.lock);
	while (!disk.is_stopping) {
		struct timespec at;
		clock_gettime(CLOCK_MONOTONIC, &at); /* not the wall clock: it may be set back by hours */
		at.tv_sec += LOOK_EVERY_S;
		int rc = 0;
		while (!disk.is_stopping && rc != ETIMEDOUT)
			rc = pthread_cond_clockwait(&disk.wake, &disk.lock, CLOCK_MONOTONIC, &at);
		if (!disk.is_stopping)
			disk_look_locked();
	}
	pthread_mutex_unlock(&disk.lock);
	return NULL;
}

void disk_monitor_look(void)
{
	pthread_mutex_lock(&disk.lock);
	disk_look_locked();
	pthread_mutex_unlock(&disk.lock);
}

const char *record_disk_health(void)
{
	return atomic_load_explicit(&disk.is_low, memory_order_relaxed) ? "disk is too full" : NULL;
}

/* --- the list --- */

static struct metric_series *disk_series(const char *metric, const char *help, const char *name)
{
	static const char *const labels[] = {"name", NULL};
	str_t value = str_of(name);
	return metric_get(metric_declare(METRIC_GAUGE, metric, help, labels, NULL, 0), &value);
}

static void disk_path_free(struct disk_path *p)
{
	metric_series_unref(p->bytes);
	metric_series_unref(p->pct);
	metric_series_unref(p->n_inodes);
	metric_series_unref(p->inodes_pct);
	free(p->name);
	free(p->path);
	free(p);
}

/* Signals are for the application's threads. */
static void disk_monitor_start_locked(void)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&disk.thread, NULL, disk_monitor_run, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		panic("no thread for the disk monitor: %s", strerror(rc));
	disk.is_running = true;
	disk.is_stopping = false;
}

void disk_monitor_add(const char *name, const char *path, str_t min_free_space, str_t min_free_inodes)
{
	struct disk_path *p = xnew(struct disk_path);
	if (disk_limit_parse(min_free_space.n > 0 ? min_free_space : LIMIT_DEFAULT, &p->space) != 0 ||
	    disk_limit_parse(min_free_inodes.n > 0 ? min_free_inodes : LIMIT_DEFAULT, &p->inodes) != 0)
		panic("%s: limit was not checked: %s", name, err_text());
	p->name = xstrdup(name);
	p->path = xstrdup(path);
	p->bytes = disk_series("disk_free_bytes", "number of available bytes in a monitored location", name);
	p->pct = disk_series("disk_free_percent", "percentage of available bytes in a monitored location",
			     name);
	p->n_inodes =
		disk_series("disk_free_inodes", "number of available inodes in a monitored location", name);
	p->inodes_pct = disk_series("disk_free_inodes_percent",
				    "percentage of available inodes in a monitored location", name);

	pthread_mutex_lock(&disk.lock);
	list_for_each_safe (it, &disk.paths) {
		struct disk_path *old = list_entry(it, struct disk_path, link);
		if (strcmp(old->name, name) == 0) {
			list_remove(it);
			disk_path_free(old);
		}
	}
	list_push_back(&disk.paths, &p->link);
	disk_look_locked();
	if (!disk.is_running)
		disk_monitor_start_locked();
	pthread_mutex_unlock(&disk.lock);
}

void disk_monitor_stop(void)
{
	pthread_mutex_lock(&disk.lock);
	bool was_running = disk.is_running;
	disk.is_running = false;
	disk.is_stopping = true;
	pthread_cond_broadcast(&disk.wake);
	pthread_mutex_unlock(&disk.lock);
	if (was_running)
		pthread_join(disk.thread, NULL);

	pthread_mutex_lock(&disk.lock);
	for (struct list *it; (it = list_pop_front(&disk.paths)) != NULL;)
		disk_path_free(list_entry(it, struct disk_path, link));
	atomic_store_explicit(&disk.is_low, false, memory_order_relaxed);
	pthread_mutex_unlock(&disk.lock);
}
