/* record.c - from an event of a message's life to a line for each logger that wants it.
 *
 * Loggers are added while `init` runs, before there is traffic, and live until record_stop: a fixed array
 * with an atomic count, read without a lock. The caller renders (what belongs to the message is in its
 * hands), the logger's thread compresses and writes. What goes wrong here is said in the diagnostic log, at
 * most once a second, and counted: a record must not stop mail. */
#include "record/record_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "fiber/offload.h"
#include "policy/policy.h"
#include "record/segment.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LOGGERS_MAX 64
#define DIRS_MAX (LOGGERS_MAX * 4)

static struct {
	struct logger *logger[LOGGERS_MAX];
	atomic_uint n;
	atomic_uint wanted; /* bit per record type */
	int (*load_body)(struct message *m, mono_t deadline);
	/* Directories that loggers of this process use: their
	 * segments are live, not left by an earlier run. */
	struct {
		dev_t dev;
		ino_t ino;
	} dir[DIRS_MAX];
	size_t n_dirs;
	struct metric_series *lost;
	/* Under lock: */
	pthread_mutex_t lock;
	mono_t complained;
	uint64_t n_silent;
} records = {.lock = PTHREAD_MUTEX_INITIALIZER};

void record_set_body_loader(int (*load)(struct message *m, mono_t deadline))
{
	records.load_body = load;
}

bool record_is_wanted(enum record_type t)
{
	return (atomic_load_explicit(&records.wanted, memory_order_relaxed) >> t & 1) != 0;
}

/* Consumes the error in the slot. */
static void record_complain(const struct record *r, const char *what)
{
	uint64_t n_silent = 0;
	mono_t now = mono_now();
	pthread_mutex_lock(&records.lock);
	bool is_due = records.complained.ns == 0 || mono_sub(now, records.complained).ns >= NS_PER_S;
	if (is_due) {
		n_silent = records.n_silent;
		records.n_silent = 0;
		records.complained = now;
	} else {
		records.n_silent++;
	}
	pthread_mutex_unlock(&records.lock);
	if (is_due && n_silent > 0)
		log_error(RECORD_LOG, "%llu more such errors since the last line",
			  (unsigned long long)n_silent);
	if (is_due)
		log_error(RECORD_LOG, "%s record: %s: %s", record_type_name(r->type), what, err_text());
	err_clear();
}

/* --- one record --- */

static struct message *record_message(const struct record *r)
{
	return (struct message *)(uintptr_t)r->msg; /* const for those who only render */
}

/* True when the filter keeps it. Its errors drop the record. */
static bool record_filter(const struct record *r, const char *event, mono_t deadline)
{
	struct policy_call c;
	bool is_kept = false;
	int rc = policy_call_begin(&c, event, deadline);
	if (rc == 0)
		err_set(ERR_INVALID, "no handler for the event %s", event);
	if (rc != 1)
		goto out;
	policy_push_message_to_read(c.L, record_message(r)); /* the record has slices of it */
	rc = policy_call_run(&c, 1, 1, deadline);
	if (rc == 1)
		is_kept = lua_toboolean(c.L, c.result_idx);
	policy_call_end(&c);
	if (rc == 0)
		return false;
out:
	if (rc != 1) {
		record_complain(r, "dropped because filter_event failed");
		metric_inc(records.lost);
	}
	return is_kept;
}

/* True when the body was brought into memory, to be let go again. */
static bool record_load_body(const struct record *r, mono_t deadline)
{
	bool is_needed = false;
	unsigned n = atomic_load_explicit(&records.n, memory_order_acquire);
	if (r->msg == NULL || r->msg->body != NULL || records.load_body == NULL)
		return false;
	for (unsigned i = 0; i < n; i++) {
		const struct local_logs_params *p = logger_params(records.logger[i]);
		is_needed |= logger_is_enabled(records.logger[i], r->type) && p->headers.n > 0;
	}
	if (!is_needed)
		return false;
	if (records.load_body(record_message(r), deadline) != 0) {
		record_complain(r, "logged without headers: the message could not be read");
		return false;
	}
	return true;
}

static int record_render(const struct record *r, const struct logger *l, wall_t now, struct buf *line)
{
	const struct local_logs_params *p = logger_params(l);
	const struct log_record_params *e = local_logs_entry(p, r->type);
	struct record_selection sel = {.meta = &p->meta, .headers = &p->headers};
	struct buf json = BUF_INIT;
	int rc = 0;
	if (e == NULL || e->compiled == NULL) {
		record_render_json(r, &sel, now, line);
	} else {
		record_render_json(r, &sel, now, &json);
		rc = record_render_template(e->compiled, buf_str(&json), line);
		buf_fini(&json);
	}
	if (rc == 0 && (line->n == 0 || line->p[line->n - 1] != '\n'))
		buf_add_c(line, '\n');
	return rc;
}

void record_log(const struct record *r, mono_t deadline)
{
	if (!record_is_wanted(r->type))
		return;
	unsigned n = atomic_load_explicit(&records.n, memory_order_acquire);
	wall_t now = wall_now();
	struct buf line = BUF_INIT;

	/* A cancelled fiber still has to say what became of its message; the deadline bounds what is waited
	 * for. */
	bool is_fiber = fiber_self() != NULL;
	mono_t bound = mono_min(deadline, mono_after(dur_s(10)));
	if (is_fiber)
		fiber_shield_begin();
	bool is_loaded = record_load_body(r, bound);
	unsigned keep_it[(LOGGERS_MAX + 31) / 32] = {0};
	for (unsigned i = 0; i < n; i++) {
		const struct local_logs_params *p = logger_params(records.logger[i]);
		if (logger_is_enabled(records.logger[i], r->type) &&
		    (p->filter_event == NULL || r->msg == NULL || record_filter(r, p->filter_event, bound)))
			keep_it[i / 32] |= 1U << (i % 32);
	}
	if (is_fiber)
		fiber_shield_end();

	for (unsigned i = 0; i < n; i++) {
		if ((keep_it[i / 32] >> (i % 32) & 1) == 0)
			continue;
		buf_clear(&line);
		if (record_render(r, records.logger[i], now, &line) != 0 ||
		    logger_submit(records.logger[i], r->type, buf_str(&line), deadline) != 0) {
			record_complain(r, "lost");
			metric_inc(records.lost);
		}
	}
	if (is_loaded)
		message_set_body(record_message(r), NULL);
	buf_fini(&line);
}

/* --- loggers --- */

/* Marks what an earlier run left, unless a logger of this one has the directory already. */
static int record_claim_dir(const char *dir)
{
	struct stat st;
	if (stat(dir, &st) != 0) {
		err_set_sys(errno, "log directory %s", dir);
		return -1;
	}
	for (size_t i = 0; i < records.n_dirs; i++) {
		if (records.dir[i].dev == st.st_dev && records.dir[i].ino == st.st_ino)
			return 0;
	}
	if (records.n_dirs == DIRS_MAX) {
		err_set(ERR_LIMIT, "more than %d log directories", DIRS_MAX);
		return -1;
	}
	if (segment_dir_mark_done(dir) != 0)
		return -1;
	records.dir[records.n_dirs].dev = st.st_dev;
	records.dir[records.n_dirs++].ino = st.st_ino;
	return 0;
}

int logger_prepare_dir(const char *dir, bool is_validating)
{
	if (segment_dir_prepare(dir) != 0)
		return -1;
	return is_validating ? 0 : record_claim_dir(dir);
}

void logger_monitor_dir(const char *dir, const char *min_free_space, const char *min_free_inodes)
{
	char *name = xasprintf("log dir %s", dir);
	disk_monitor_add(name, dir, str_of(min_free_space), str_of(min_free_inodes));
	free(name);
}

int record_add_local_logger(struct param_object *params, bool is_validating)
{
	const struct local_logs_params *p = (const struct local_logs_params *)params->data;
	unsigned n = atomic_load_explicit(&records.n, memory_order_relaxed);
	if (n == LOGGERS_MAX) {
		err_set(ERR_LIMIT, "more than %d loggers", LOGGERS_MAX);
		return -1;
	}
	if (logger_prepare_dir(p->log_dir, is_validating) != 0)
		return -1;
	for (size_t i = 0; i <= RECORD_TYPE_COUNT; i++) {
		const struct log_record_params *e = p->per_record[i];
		if (e != NULL && e->log_dir != NULL && logger_prepare_dir(e->log_dir, is_validating) != 0)
			return -1;
	}
	if (is_validating)
		return 0;

	struct logger_spec spec;
	local_logs_spec(p, &spec);
	struct logger *l = logger_start(params, &spec);
	if (l == NULL)
		return -1;
	logger_monitor_dir(p->log_dir, p->min_free_space, p->min_free_inodes);
	for (size_t i = 0; i <= RECORD_TYPE_COUNT; i++) {
		const struct log_record_params *e = p->per_record[i];
		if (e != NULL && e->log_dir != NULL)
			logger_monitor_dir(e->log_dir, p->min_free_space, p->min_free_inodes);
	}
	if (records.lost == NULL)
		records.lost = metric_get(metric_declare(METRIC_COUNTER, "log_record_lost_count",
							 "records that were not logged because of an error",
							 NULL, NULL, 0),
					  NULL);
	unsigned wanted = atomic_load_explicit(&records.wanted, memory_order_relaxed);
	for (int t = 0; t < RECORD_TYPE_COUNT; t++)
		wanted |= logger_is_enabled(l, (enum record_type)t) ? 1U << t : 0;
	records.logger[n] = l;
	atomic_store_explicit(&records.n, n + 1, memory_order_release);
	atomic_store_explicit(&records.wanted, wanted, memory_order_release);
	return 0;
}

static int record_stop_all(void *arg UNUSED)
{
	unsigned n = atomic_exchange(&records.n, 0);
	for (unsigned i = 0; i < n; i++)
		logger_stop(records.logger[i]);
	disk_monitor_stop();
	return 0;
}

void record_stop(void)
{
	atomic_store(&records.wanted, 0);
	if (offload_run(record_stop_all, NULL, MONO_NEVER) != 0) {
		err_clear(); /* cancelled before it ran, or the threads are gone: here, then */
		(void)record_stop_all(NULL);
	}
	records.n_dirs = 0;
	metric_series_unref(records.lost);
	records.lost = NULL;
}
