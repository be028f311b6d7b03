/* tasks.c - GET /api/admin/task-dump: every worker with its fibers and what they wait for.
 *
 * Only a worker can look at its own fibers, so each gets a mail and copies what it sees, as bare structs:
 * with 10,000 connections that takes a worker about a millisecond. Nobody waits for a worker that does not
 * come to its mail: after DUMP_PATIENCE it is listed with the name of what keeps it, which is what such a
 * dump is wanted for. The copies belong to a struct that everybody concerned has a reference to, as a late
 * worker may write after the answer has gone. The text is made on an offload thread. */
#include "api/api_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"
#include "fiber/worker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define DUMP_PATIENCE dur_s(2)
enum { DUMP_NAME_BYTES = 32 };

struct dump_fiber {
	uint64_t id;
	char name[DUMP_NAME_BYTES];
	const char *waits_for; /* static */
	dur_t waiting;
	bool is_cancelled;
};

struct dump_worker {
	struct dump *dump;
	struct dump_fiber *fiber; /* the worker's own until is_done */
	size_t n, cap;
	atomic_bool is_done;
};

struct dump {
	atomic_uint n_refs, n_left;
	struct event *all_done;
	unsigned n_workers;
	struct dump_worker of[];
};

static void dump_unref(struct dump *d)
{
	if (atomic_fetch_sub_explicit(&d->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned i = 0; i < d->n_workers; i++)
		free(d->of[i].fiber);
	event_unref(d->all_done);
	free(d);
}

static struct dump *dump_new(void)
{
	unsigned n = workers_count();
	struct dump *d = xcalloc(1, sizeof(*d) + n * sizeof(d->of[0]));
	atomic_init(&d->n_refs, n + 1);
	atomic_init(&d->n_left, n);
	d->all_done = event_new();
	d->n_workers = n;
	for (unsigned i = 0; i < n; i++)
		d->of[i].dump = d;
	return d;
}

/* --- on each worker's loop stack --- */

static void dump_add_fiber(const struct fiber_info *fi, void *arg)
{
	struct dump_worker *w = arg;
	if (w->n == w->cap) {
		w->cap = w->cap != 0 ? w->cap * 2 : 64;
		w->fiber = xreallocarray(w->fiber, w->cap, sizeof(*w->fiber));
	}
	struct dump_fiber *f = &w->fiber[w->n++];
	*f = (struct dump_fiber){.id = fi->id,
				 .waits_for = fi->waits_for,
				 .waiting = fi->waiting,
				 .is_cancelled = fi->is_cancelled};
	strncpy(f->name, fi->name, sizeof(f->name) - 1);
}

static void dump_look(void *arg)
{
	struct dump_worker *w = arg;
	struct dump *d = w->dump;
	fiber_each(dump_add_fiber, w);
	atomic_store_explicit(&w->is_done, true, memory_order_release);
	if (atomic_fetch_sub_explicit(&d->n_left, 1, memory_order_acq_rel) == 1)
		event_fire(d->all_done);
	dump_unref(d);
}

/* --- the text --- */

struct dump_text {
	struct dump *dump;
	struct buf *out;
};

/* Those that wait for the same thing together, the longest wait first. */
static int dump_fiber_cmp(const void *a, const void *b)
{
	const struct dump_fiber *x = a, *y = b;
	int c = strcmp(x->waits_for, y->waits_for);
	return c != 0 ? c : -dur_cmp(x->waiting, y->waiting);
}

static void dump_write_fiber(const struct dump_fiber *f, struct buf *out)
{
	char id[32];
	snprintf(id, sizeof(id), "%u.%llu", (unsigned)(f->id >> 48),
		 (unsigned long long)(f->id & ((UINT64_C(1) << 48) - 1)));
	buf_printf(out, "  %-12s %12.3f s  %-32s  %s%s\n", id, dur_seconds(f->waiting), f->waits_for, f->name,
		   f->is_cancelled ? "  (cancelled)" : "");
}

static void dump_write_worker(struct dump_worker *w, unsigned index, struct buf *out)
{
	char running[DUMP_NAME_BYTES];
	if (!atomic_load_explicit(&w->is_done, memory_order_acquire)) {
		worker_read_running(worker_get(index), running);
		buf_printf(out, "\nworker-%u: does not answer; it runs %s\n", index,
			   running[0] != 0 ? running : "nothing, or a call of the loop");
		return;
	}
	if (w->n != 0)
		qsort(w->fiber, w->n, sizeof(*w->fiber), dump_fiber_cmp);
	buf_printf(out, "\nworker-%u: %zu fibers\n", index, w->n);
	for (size_t i = 0, end; i < w->n; i = end) {
		for (end = i; end < w->n && strcmp(w->fiber[end].waits_for, w->fiber[i].waits_for) == 0;
		     end++)
			;
		buf_printf(out, "  %zu wait for %s, the longest for %.3f s\n", end - i, w->fiber[i].waits_for,
			   dur_seconds(w->fiber[i].waiting));
	}
	buf_printf(out, "  %-12s %14s  %-32s  %s\n", "fiber", "for", "waits for", "name");
	for (size_t i = 0; i < w->n; i++)
		dump_write_fiber(&w->fiber[i], out);
}

static int dump_write(void *arg)
{
	struct dump_text *t = arg;
	wall_fmt_rfc3339(wall_now(), 3, t->out);
	buf_printf(t->out, "  %u workers\n", t->dump->n_workers);
	for (unsigned i = 0; i < t->dump->n_workers; i++)
		dump_write_worker(&t->dump->of[i], i, t->out);
	return 0;
}

static void api_task_dump(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	struct dump *d = dump_new();
	for (unsigned i = 0; i < d->n_workers; i++)
		worker_post(worker_get(i), dump_look, &d->of[i]);
	int rc = event_wait(d->all_done, mono_min(deadline, mono_after(DUMP_PATIENCE)));
	if (rc != 0 && err_is(ERR_TIMEOUT)) {
		err_clear();
		rc = 0;
	}
	http_response_text(a, 200, "%s", "");
	struct dump_text t = {.dump = d, .out = &a->body};
	if (rc != 0 || offload_run(dump_write, &t, deadline) != 0)
		http_response_err(a, 503);
	dump_unref(d);
}

static const char *const api_tasks_tags[] = {"debugging", NULL};
static const struct http_answer api_tasks_answers[] = {{200, "The list.", "text/plain", NULL, NULL}, {0}};
static const struct http_route api_tasks_routes[] = {
	{
		.method = "GET",
		.path = "/api/admin/task-dump",
		.handler = api_task_dump,
		.id = "task_dump",
		.tags = api_tasks_tags,
		.summary = "Every worker thread with its fibers, what each waits for and for how long.",
		.text = "For people: its form may change with any version. "
			"A worker that does not answer within "
			"two seconds is listed with what it runs.",
		.answers = api_tasks_answers,
	},
};

void api_tasks_register(void)
{
	http_routes_add(api_tasks_routes, ARRAY_SIZE(api_tasks_routes));
}
