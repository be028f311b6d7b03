/* logger.c - one per configured log: a buffer that all threads append rendered lines to, and a thread that
 * compresses and writes them.
 *
 * Two batches take turns: producers fill one under a short mutex, the thread owns the other until it is
 * written. The order of lines is the order of appending. A batch remembers each line's length and kind,
 * because kinds may go to different files (a stream per directory and suffix) and a segment ends between
 * lines.
 *
 * Waking a thread costs more than rendering a record, so the thread is woken by the first line after a pause
 * and then lingers for LINGER, until WAKE_BYTES have come, or until somebody waits for room. A second after
 * its arrival at the latest a line is readable in the file (segment.c).
 *
 * A write error loses nothing: the batch stays, the thread tries again every RETRY, and records pile up to
 * back_pressure (or PENDING_BYTES_MAX, whichever comes first); from then on producers wait until their
 * deadlines. The diagnostic log has a line when errors begin and one when they end. */
#include "record/record_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "fiber/worker.h"
#include "record/segment.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define LINGER dur_ms(100)
#define RETRY dur_s(1)
#define STOP_PATIENCE dur_s(2)
#define WAKE_BYTES ((size_t)256 * 1024)
#define IDLE_BYTES ((size_t)64 * 1024) /* what an empty batch keeps while there is nothing to do */
#define PENDING_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define LINE_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define RUN_BYTES_MAX ((size_t)256 * 1024) /* what the compressor is given at once */

struct line_mark {
	uint32_t n_bytes : 28;
	uint32_t kind : 4;
};
_Static_assert(LINE_BYTES_MAX < (1U << 28) && LOGGER_KINDS_MAX <= 16, "line_mark has room");
_Static_assert(RECORD_TYPE_COUNT <= LOGGER_KINDS_MAX, "record types are kinds");

struct batch {
	struct buf bytes;
	struct line_mark *mark;
	size_t n, cap;
	size_t n_done, n_bytes_done; /* of the thread: written so far */
};

struct stream {
	struct segment_writer seg;
};

struct route {
	bool is_enabled;
	size_t stream;
	str_t header;
};

struct logger_waiter {
	struct list link;    /* in logger.waiters while not woken */
	struct event *event; /* NULL: a plain thread, which waits for has_room */
};

struct logger {
	struct param_object *params; /* owned; spec points into it */
	struct logger_spec spec;
	struct route route[LOGGER_KINDS_MAX];
	struct metric_series *submit_full, *submit_latency;
	pthread_t thread;

	/* Under lock. */
	pthread_mutex_t lock;
	pthread_cond_t work, has_room; /* on CLOCK_MONOTONIC */
	struct batch *fill;
	size_t n_pending, n_pending_bytes; /* in both batches, not written */
	struct list waiters;
	bool is_asleep; /* the thread waits for the first line */
	bool is_lingering;
	bool is_stopping;

	/* The thread's. */
	struct batch *drain;
	struct batch batches[2];
	struct stream *stream;
	size_t n_streams;
	bool is_failing;
};

/* --- batches --- */

static void batch_add(struct batch *b, unsigned kind, str_t line)
{
	if (b->n == b->cap) {
		b->cap = b->cap > 0 ? 2 * b->cap : 256;
		b->mark = xreallocarray(b->mark, b->cap, sizeof(*b->mark));
	}
	b->mark[b->n++] = (struct line_mark){.n_bytes = (uint32_t)line.n, .kind = kind};
	buf_add_str(&b->bytes, line);
}

static void batch_fini(struct batch *b)
{
	buf_fini(&b->bytes);
	free(b->mark);
	*b = (struct batch){.bytes = BUF_INIT};
}

static void batch_reset(struct batch *b)
{
	buf_clear(&b->bytes);
	b->n = b->n_done = b->n_bytes_done = 0;
}

/* Gives a burst's memory back. */
static void batch_shrink(struct batch *b)
{
	if (b->bytes.cap > IDLE_BYTES)
		batch_fini(b);
}

/* --- producers --- */

const void *logger_params(const struct logger *l)
{
	return l->params->data;
}

bool logger_is_enabled(const struct logger *l, unsigned kind)
{
	return l->route[kind].is_enabled;
}

static bool logger_has_room(const struct logger *l, str_t line)
{
	return l->n_pending == 0 ||
	       (l->n_pending < l->spec.back_pressure && l->n_pending_bytes + line.n <= PENDING_BYTES_MAX);
}

/* With the lock held: wakes the thread if it waits for lines, or for more of them. */
static void logger_hurry(struct logger *l)
{
	if (!l->is_asleep && !l->is_lingering)
		return;
	l->is_asleep = l->is_lingering = false;
	pthread_cond_signal(&l->work);
}

/* Waits for at most d of real time, 1 ms to 1 hour: a virtual clock stands still, so callers look again now
 * and then. */
static void logger_wait_for(struct logger *l, pthread_cond_t *cond, dur_t d)
{
	struct timespec at;
	if (d.ns > 3600 * NS_PER_S)
		d = dur_s(3600);
	if (d.ns < dur_ms(1).ns)
		d = dur_ms(1);
	clock_gettime(CLOCK_MONOTONIC, &at);
	int64_t ns = at.tv_nsec + d.ns;
	at.tv_sec += ns / NS_PER_S;
	at.tv_nsec = ns % NS_PER_S;
	pthread_cond_timedwait(cond, &l->lock, &at);
}

/* Outside fibers. With the lock held, which is given up while waiting. */
static int logger_wait_thread(struct logger *l, mono_t deadline)
{
	if (mono_is_past(deadline)) {
		err_set(ERR_TIMEOUT, "the log has no room");
		return -1;
	}
	logger_wait_for(l, &l->has_room, mono_sub(deadline, mono_now()));
	return 0;
}

/* As above, in a fiber. The node is unlinked by the thread that wakes it, or here. */
static int logger_wait_fiber(struct logger *l, mono_t deadline)
{
	struct logger_waiter w = {.event = event_new()};
	list_push_back(&l->waiters, &w.link);
	pthread_mutex_unlock(&l->lock);
	int rc = event_wait(w.event, deadline);
	pthread_mutex_lock(&l->lock);
	list_remove(&w.link);
	event_unref(w.event);
	return rc;
}

int logger_submit(struct logger *l, unsigned kind, str_t line, mono_t deadline)
{
	int rc = -1;
	bool is_first = true;
	mono_t start = mono_now();
	if (line.n > LINE_BYTES_MAX) {
		err_set(ERR_LIMIT, "a record of %zu bytes is too large to be logged", line.n);
		return -1;
	}
	pthread_mutex_lock(&l->lock);
	while (!logger_has_room(l, line)) {
		if (is_first)
			metric_inc(l->submit_full);
		is_first = false;
		logger_hurry(l);
		int waited = fiber_self() != NULL ? logger_wait_fiber(l, deadline)
						  : logger_wait_thread(l, deadline);
		if (waited != 0 && err_is(ERR_CANCELLED)) {
			err_clear(); /* it may be the only trace of a delivery; one record for each fiber
					bounds it */
			break;
		}
		if (waited != 0)
			goto out;
	}
	batch_add(l->fill, kind, line);
	l->n_pending++;
	l->n_pending_bytes += line.n;
	if (l->is_asleep || l->n_pending_bytes >= WAKE_BYTES)
		logger_hurry(l);
	rc = 0;
out:
	pthread_mutex_unlock(&l->lock);
	metric_observe(l->submit_latency, dur_seconds(mono_sub(mono_now(), start)));
	return rc;
}

/* --- the thread --- */

static void logger_wake_waiters(struct logger *l)
{
	for (struct list *it; (it = list_pop_front(&l->waiters)) != NULL;)
		event_fire(list_entry(it, struct logger_waiter, link)->event);
	pthread_cond_broadcast(&l->has_room);
}

static void logger_note(struct logger *l, int rc)
{
	if (rc != 0 && !l->is_failing)
		log_error(RECORD_LOG, "%s; trying again until it works", err_text());
	else if (rc == 0 && l->is_failing)
		log_info(RECORD_LOG, "writing to %s works again", l->spec.dir);
	l->is_failing = rc != 0;
	err_clear();
}

/* The next lines that go to one stream together. */
static str_t batch_run(const struct logger *l, const struct batch *b, size_t *n_lines)
{
	const struct route *route = &l->route[b->mark[b->n_done].kind];
	uint64_t room = segment_room(&l->stream[route->stream].seg);
	size_t n = 0, n_bytes = 0;
	do {
		n_bytes += b->mark[b->n_done + n++].n_bytes;
	} while (b->n_done + n < b->n && n_bytes < room && n_bytes < RUN_BYTES_MAX &&
		 l->route[b->mark[b->n_done + n].kind].stream == route->stream);
	*n_lines = n;
	return str_mk(b->bytes.p + b->n_bytes_done, n_bytes);
}

/* Writes what it can of the batch in hand. */
static int logger_drain(struct logger *l)
{
	struct batch *b = l->drain;
	while (b->n_done < b->n) {
		size_t n;
		str_t run = batch_run(l, b, &n);
		const struct route *route = &l->route[b->mark[b->n_done].kind];
		if (segment_write(&l->stream[route->stream].seg, run, route->header) != 0)
			return -1;
		b->n_done += n;
		b->n_bytes_done += run.n;
		pthread_mutex_lock(&l->lock);
		l->n_pending -= n;
		l->n_pending_bytes -= run.n;
		logger_wake_waiters(l);
		pthread_mutex_unlock(&l->lock);
	}
	batch_reset(b);
	return 0;
}

static int logger_tick(struct logger *l)
{
	int rc = 0;
	for (size_t i = 0; i < l->n_streams; i++) {
		if (segment_tick(&l->stream[i].seg) != 0)
			rc = -1;
	}
	return rc;
}

static mono_t logger_due(const struct logger *l)
{
	mono_t due = MONO_NEVER;
	for (size_t i = 0; i < l->n_streams; i++)
		due = mono_min(due, segment_due(&l->stream[i].seg));
	return due;
}

/* Waits until there is something to do; then owns a batch if one is filled. False: stopping, and nothing is
 * left. */
static bool logger_await(struct logger *l)
{
	pthread_mutex_lock(&l->lock);
	if (l->is_failing && !l->is_stopping) {
		logger_wait_for(l, &l->work, RETRY);
	} else if (l->fill->n == 0 && l->drain->n == 0 && !l->is_stopping) {
		batch_shrink(l->fill);
		batch_shrink(l->drain);
		l->is_asleep = true;
		logger_wait_for(l, &l->work, mono_sub(logger_due(l), mono_now()));
	}
	l->is_asleep = false;
	if (!l->is_failing && l->fill->n > 0 && l->n_pending_bytes < WAKE_BYTES && !l->is_stopping) {
		l->is_lingering = true;
		logger_wait_for(l, &l->work, LINGER);
		l->is_lingering = false;
	}
	if (l->drain->n == 0) {
		struct batch *full = l->fill;
		l->fill = l->drain;
		l->drain = full;
	}
	bool is_going_on = !l->is_stopping || l->drain->n > 0;
	pthread_mutex_unlock(&l->lock);
	return is_going_on;
}

static int logger_close_segments(struct logger *l)
{
	int rc = 0;
	for (size_t i = 0; i < l->n_streams; i++) {
		if (segment_close(&l->stream[i].seg) != 0)
			rc = -1;
	}
	return rc;
}

static bool logger_is_stopping(struct logger *l)
{
	pthread_mutex_lock(&l->lock);
	bool yes = l->is_stopping;
	pthread_mutex_unlock(&l->lock);
	return yes;
}

/* While stopping, after an error: a little later, or false when the patience is used up. */
static bool logger_pause(dur_t *waited)
{
	struct timespec t = {.tv_nsec = 100 * 1000 * 1000};
	if (waited->ns >= STOP_PATIENCE.ns)
		return false;
	nanosleep(&t, NULL);
	waited->ns += t.tv_nsec;
	return true;
}

static void *logger_run(void *arg)
{
	struct logger *l = arg;
	dur_t waited = DUR_ZERO;
	log_set_thread_name("logger");
	while (logger_await(l)) {
		int rc = logger_drain(l);
		if (rc == 0)
			rc = logger_tick(l);
		logger_note(l, rc);
		if (rc != 0 && logger_is_stopping(l) && !logger_pause(&waited))
			break;
	}
	while (logger_close_segments(l) != 0) {
		if (!logger_pause(&waited)) {
			log_error(RECORD_LOG, "the last segment is incomplete: %s", err_text());
			break;
		}
	}
	err_clear();
	return NULL;
}

/* --- life --- */

/* The stream of a directory and suffix, made when it is new. */
static size_t logger_stream(struct logger *l, const char *dir, const char *suffix)
{
	for (size_t i = 0; i < l->n_streams; i++) {
		const struct segment_writer *w = &l->stream[i].seg;
		if (strcmp(w->dir, dir) == 0 && strcmp(w->suffix, suffix) == 0)
			return i;
	}
	l->stream = xreallocarray(l->stream, l->n_streams + 1, sizeof(*l->stream));
	struct segment_writer w = SEGMENT_WRITER_INIT;
	w.dir = dir;
	w.prefix = l->spec.prefix;
	w.suffix = suffix;
	w.level = l->spec.level;
	w.max_bytes = l->spec.max_bytes;
	w.max_age = l->spec.max_age;
	l->stream[l->n_streams].seg = w;
	return l->n_streams++;
}

static void logger_init_routes(struct logger *l)
{
	for (size_t k = 0; k < LOGGER_KINDS_MAX; k++) {
		const struct logger_route *given = &l->spec.route[k];
		struct route *r = &l->route[k];
		r->is_enabled = given->is_enabled;
		if (!r->is_enabled)
			continue;
		r->header = given->header;
		r->stream = logger_stream(l, given->dir, given->suffix);
	}
}

static void logger_free(struct logger *l)
{
	for (size_t i = 0; i < l->n_streams; i++)
		segment_writer_fini(&l->stream[i].seg);
	free(l->stream);
	batch_fini(&l->batches[0]);
	batch_fini(&l->batches[1]);
	metric_series_unref(l->submit_full);
	metric_series_unref(l->submit_latency);
	pthread_cond_destroy(&l->work);
	pthread_cond_destroy(&l->has_room);
	pthread_mutex_destroy(&l->lock);
	param_object_unref(l->params);
	free(l);
}

static void logger_init_metrics(struct logger *l)
{
	static const char *const labels[] = {"logger", NULL};
	char *name = xasprintf("dir-%s", l->spec.dir);
	str_t value = str_of(name);
	l->submit_full =
		metric_get(metric_declare(METRIC_COUNTER, "log_submit_full",
					  "how many times submission of a log event hit the back_pressure",
					  labels, NULL, 0),
			   &value);
	l->submit_latency =
		metric_get(metric_declare(METRIC_HISTOGRAM, "log_submit_latency",
					  "latency of log event submission operations", labels, NULL, 0),
			   &value);
	free(name);
}

struct logger *logger_start(struct param_object *params, const struct logger_spec *spec)
{
	struct logger *l = xnew(struct logger);
	l->params = param_object_ref(params);
	l->spec = *spec;
	l->fill = &l->batches[0];
	l->drain = &l->batches[1];
	list_init(&l->waiters);
	logger_init_routes(l);
	logger_init_metrics(l);
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->work, &attr);
	pthread_cond_init(&l->has_room, &attr);
	pthread_condattr_destroy(&attr);

	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the application's threads */
	int rc = pthread_create(&l->thread, NULL, logger_run, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		logger_free(l);
		err_set_sys(rc, "starting the thread of a logger");
		return NULL;
	}
	return l;
}

void logger_stop(struct logger *l)
{
	pthread_mutex_lock(&l->lock);
	l->is_stopping = true;
	pthread_cond_signal(&l->work);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);

	pthread_mutex_lock(&l->lock);
	if (l->n_pending > 0)
		log_error(RECORD_LOG, "%zu records for %s are lost: they could not be written", l->n_pending,
			  l->spec.dir);
	l->n_pending = l->n_pending_bytes = 0;
	logger_wake_waiters(l);
	pthread_mutex_unlock(&l->lock);
	logger_free(l);
}
