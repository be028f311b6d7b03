/* monitor.c - every MONITOR_INTERVAL the patterns are expanded on an offload thread and the files compared
 * with the last time.
 *
 * A file's content counts, by its SHA-256, not its times: to write the same text again is no change. But a
 * file whose inode, size and times are as they were is not read again, so a look costs a stat a file. Times
 * have the resolution of the kernel's tick; a file that was changed less than MONITOR_FRESH before it was
 * read may change again without a trace and is read once more the next time.
 *
 * The first look is the baseline: the policy was loaded just before. Only what has changed since then, while
 * `init` ran, is a change. A file that cannot be read counts as one of another content, and is warned about
 * once. */
#include "policy/monitor.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/offload.h"
#include "policy/policy_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MONITOR_INTERVAL dur_s(10)
#define MONITOR_FRESH dur_s(2)
#define MONITOR_DEFAULT_GLOB "/opt/kumomta/etc/**/*.{lua,json,toml,yaml}"
enum { MONITOR_READ_BYTES = 65536, MONITOR_HASH_BYTES = 32 };

struct monitored {
	char *path;
	struct stat st;
	int error;     /* errno, when it cannot be read */
	bool is_fresh; /* read so soon after its last change that it is read again */
	unsigned char hash[MONITOR_HASH_BYTES];
};

struct monitored_set {
	struct monitored *v; /* by path */
	size_t n;
};

static struct {
	pthread_mutex_t lock;
	struct glob_files globs; /* under the lock: patterns, in the order given; none: the default */
	bool has_globs;

	/* Of the fiber. */
	struct monitored_set seen;
	bool has_baseline, is_empty_told, is_failing;
	struct fiber_group group;
	bool is_started;
} monitor = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- patterns --- */

static void monitor_copy_strs(const char *const *v, size_t n, struct glob_files *out)
{
	out->v = xcalloc(n + 1, sizeof(*out->v));
	out->n = n;
	for (size_t i = 0; i < n; i++)
		out->v[i] = xstrdup(v[i]);
}

int monitor_set_globs(const char *const *pattern, size_t n)
{
	struct glob_files copy;
	for (size_t i = 0; i < n; i++) {
		if (glob_check(pattern[i]) != 0) {
			err_wrap("%s", pattern[i]);
			return -1;
		}
	}
	monitor_copy_strs(pattern, n, &copy);
	pthread_mutex_lock(&monitor.lock);
	struct glob_files old = monitor.globs;
	monitor.globs = copy;
	monitor.has_globs = true;
	pthread_mutex_unlock(&monitor.lock);
	glob_files_fini(&old);
	return 0;
}

static int monitor_find(void *arg)
{
	struct glob_files *out = arg, globs;
	const char *usual[] = {MONITOR_DEFAULT_GLOB};
	pthread_mutex_lock(&monitor.lock);
	bool is_default = !monitor.has_globs;
	if (is_default)
		monitor_copy_strs(usual, ARRAY_SIZE(usual), &globs);
	else
		monitor_copy_strs((const char *const *)monitor.globs.v, monitor.globs.n, &globs);
	pthread_mutex_unlock(&monitor.lock);
	int rc = glob_find((const char *const *)globs.v, globs.n, out);
	glob_files_fini(&globs);
	if (rc == 0 && is_default && policy_self.file != NULL)
		glob_files_add(out, policy_self.file);
	return rc;
}

int monitor_find_files(struct glob_files *out, mono_t deadline)
{
	return offload_run(monitor_find, out, deadline);
}

/* --- one file --- */

static int monitor_hash_fd(int fd, unsigned char hash[MONITOR_HASH_BYTES])
{
	char *block = xmalloc(MONITOR_READ_BYTES);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	ssize_t n = -1;
	if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
		panic("SHA-256 is not available");
	while ((n = read(fd, block, MONITOR_READ_BYTES)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		EVP_DigestUpdate(md, block, (size_t)n);
	}
	int error = n < 0 ? errno : 0;
	EVP_DigestFinal_ex(md, hash, NULL);
	EVP_MD_CTX_free(md);
	free(block);
	return error;
}

static int64_t monitor_ns(struct timespec t)
{
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static bool monitor_is_untouched(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       monitor_ns(a->st_mtim) == monitor_ns(b->st_mtim) &&
	       monitor_ns(a->st_ctim) == monitor_ns(b->st_ctim);
}

/* before: how it was the last time, or NULL. */
static void monitor_look_at(struct monitored *m, const struct monitored *before)
{
	int fd = open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &m->st) != 0 || !S_ISREG(m->st.st_mode)) {
		m->error = fd < 0 ? errno : EINVAL;
		m->st = (struct stat){0};
	} else if (before != NULL && before->error == 0 && !before->is_fresh &&
		   monitor_is_untouched(&m->st, &before->st)) {
		memcpy(m->hash, before->hash, sizeof(m->hash));
	} else {
		m->is_fresh = monitor_ns(m->st.st_ctim) > wall_add(wall_now(), dur_ns(-MONITOR_FRESH.ns)).ns;
		m->error = monitor_hash_fd(fd, m->hash);
	}
	if (m->error != 0 && (before == NULL || before->error != m->error))
		log_warn("kumod", "%s is watched, but cannot be read: %s", m->path, strerror(m->error));
	if (fd >= 0)
		close(fd);
}

/* --- all of them --- */

static void monitored_set_fini(struct monitored_set *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->v[i].path);
	free(s->v);
	*s = (struct monitored_set){NULL, 0};
}

struct monitor_look {
	struct monitored_set now;
	size_t n_changed;
	const char *first; /* of them; belongs to one of the two sets */
};

static void monitor_note_change(struct monitor_look *l, const char *path)
{
	if (l->n_changed++ == 0)
		l->first = path;
}

/* Of two errors only the kind counts. */
static bool monitor_is_changed(const struct monitored *m, const struct monitored *before)
{
	if (!monitor.has_baseline)
		return m->error == 0 && monitor_ns(m->st.st_ctim) > policy_self.loaded.ns;
	return before == NULL || m->error != before->error ||
	       memcmp(m->hash, before->hash, sizeof(m->hash)) != 0;
}

/* Both lists are sorted: one walk through them finds what
 * is new, gone and different. On an offload thread. */
static int monitor_compare(void *arg)
{
	struct monitor_look *l = arg;
	struct glob_files files;
	size_t k = 0;
	if (monitor_find(&files) != 0)
		return -1;
	l->now.v = xcalloc(files.n + 1, sizeof(*l->now.v));
	for (size_t i = 0; i < files.n; i++) {
		struct monitored *m = &l->now.v[l->now.n++];
		m->path = files.v[i];
		files.v[i] = NULL;
		for (; k < monitor.seen.n && strcmp(monitor.seen.v[k].path, m->path) < 0; k++)
			monitor_note_change(l, monitor.seen.v[k].path);
		bool is_known = k < monitor.seen.n && strcmp(monitor.seen.v[k].path, m->path) == 0;
		const struct monitored *before = is_known ? &monitor.seen.v[k++] : NULL;
		monitor_look_at(m, before);
		if (monitor_is_changed(m, before))
			monitor_note_change(l, m->path);
	}
	for (; k < monitor.seen.n; k++)
		monitor_note_change(l, monitor.seen.v[k].path);
	glob_files_fini(&files);
	return 0;
}

/* --- the fiber --- */

static void monitor_report(const struct monitor_look *l)
{
	if (l->now.n == 0 && !monitor.is_empty_told)
		log_warn("kumod", "no file matches the patterns of "
				  "kumo.set_config_monitor_globs: "
				  "changes of the configuration are not noticed");
	monitor.is_empty_told = l->now.n == 0;
	if (l->n_changed == 1)
		log_info("kumod", "%s has changed: a new configuration epoch", l->first);
	else if (l->n_changed > 1)
		log_info("kumod", "%s and %zu further files have changed: a new configuration epoch",
			 l->first, l->n_changed - 1);
}

static void monitor_look_once(void)
{
	struct monitor_look l = {.n_changed = 0};
	if (offload_run(monitor_compare, &l, MONO_NEVER) != 0) {
		if (!monitor.is_failing && !err_is(ERR_CANCELLED))
			log_error("kumod", "the files of the configuration cannot be watched: %s",
				  err_text());
		monitor.is_failing = true;
		err_clear();
		return;
	}
	monitor.is_failing = false;
	monitor_report(&l);
	monitored_set_fini(&monitor.seen);
	monitor.seen = l.now;
	monitor.has_baseline = true;
	if (l.n_changed != 0)
		policy_bump_epoch();
}

static void monitor_run(void *arg UNUSED)
{
	do
		monitor_look_once();
	while (fiber_sleep(MONITOR_INTERVAL, MONO_NEVER) == 0);
	err_clear();
}

void monitor_start(void)
{
	if (monitor.is_started)
		panic("the monitor is started twice");
	monitor.is_started = true;
	fiber_group_init(&monitor.group);
	fiber_start(&monitor.group, "config-monitor", monitor_run, NULL);
}

void monitor_stop(mono_t deadline)
{
	if (!monitor.is_started)
		return;
	fiber_group_cancel(&monitor.group);
	if (fiber_group_join(&monitor.group, deadline) != 0) {
		log_warn("kumod", "the monitor of the configuration does not end: %s", err_text());
		err_clear();
		return; /* it still uses what is below */
	}
	monitored_set_fini(&monitor.seen);
	glob_files_fini(&monitor.globs);
	monitor.has_globs = monitor.has_baseline = monitor.is_started = false;
}
