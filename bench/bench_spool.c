/* bench_spool.c - messages a second and CPU a message of the journal, at several numbers of fibers that put
 * at once:
 *   bench_spool [-d DIR] [-n MESSAGES] [-b BODY_BYTES] [-k ANSWER_BYTES] [-w WORKERS] [CONCURRENCY ...]
 * (default: 1 100 1000). With -k each put has a key of its own, with an answer of that size. For each it puts
 * the messages, removes them as they are stored, closes and opens again. CPU is that of the whole process,
 * encoding, checksums, wake-ups and fibers included. Each put stores its own body. */
#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"
#include "fiber/worker.h"
#include "spool/spool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static struct bench {
	struct spool *sp;
	size_t body_bytes, answer_bytes;
	bool has_keys;
	unsigned n_messages, n_fibers;
	bool must_remove;
	atomic_uint n_begun, n_done, n_fibers_done;
	struct uuid *id;
} bench;

static void die(const char *what)
{
	fprintf(stderr, "bench_spool: %s: %s\n", what, err_text());
	exit(1);
}

/* Under the message's id, which is as good a key as any. */
static int bench_put(struct message *m, const char *answer)
{
	mono_t deadline = mono_after(dur_s(60));
	if (!bench.has_keys)
		return spool_put(bench.sp, &m, 1, deadline);
	struct spool_key k = {.id = m->id,
			      .expires = wall_add(wall_now(), dur_s(86400)),
			      .answer = str_mk(answer, bench.answer_bytes)};
	return spool_put_with_key(bench.sp, &m, 1, &k, deadline);
}

static void bench_fiber(void *arg)
{
	char *answer = xcalloc(1, bench.answer_bytes + 1);
	struct body *b = body_alloc(bench.body_bytes);
	memset(b->p, 'x', b->n_bytes);
	str_t rcpt = STR("somebody@example.com");
	for (unsigned i; (i = atomic_fetch_add(&bench.n_begun, 1)) < bench.n_messages;) {
		struct message *m = message_new(STR("sender@example.org"), &rcpt, 1, b);
		meta_set_str(&m->meta, STR("tenant"), STR("a-tenant"));
		if (bench_put(m, answer) != 0)
			die("put");
		bench.id[i] = m->id;
		if (bench.must_remove)
			spool_remove(bench.sp, &m->id);
		message_unref(m);
		atomic_fetch_add(&bench.n_done, 1);
	}
	body_unref(b);
	free(answer);
	atomic_fetch_add(&bench.n_fibers_done, 1);
}

static double cpu_seconds(void)
{
	struct rusage ru;
	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static void bench_wait(void *arg)
{
	while (atomic_load(&bench.n_fibers_done) < bench.n_fibers) {
		if (fiber_sleep(dur_ms(1), MONO_NEVER) != 0)
			die("wait");
	}
}

static void bench_start_fibers(unsigned n_workers)
{
	for (unsigned i = 0; i < bench.n_fibers; i++)
		worker_start_fiber(worker_get(i % n_workers), "bench", bench_fiber, NULL);
	worker_run(bench_wait, NULL);
}

static struct spool *bench_open(const char *dir)
{
	struct spool *sp = spool_open_journal(
		&(struct spool_params){.name = STR("bench"), .path = str_of(dir), .is_flushed = true});
	if (sp == NULL)
		die("open");
	return sp;
}

static void bench_clean(const char *dir)
{
	char cmd[600];
	snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
	if (system(cmd) != 0)
		exit(1);
}

static void bench_run(const char *dir, unsigned n_workers, unsigned concurrency, bool must_remove)
{
	bench_clean(dir);
	bench.sp = bench_open(dir);
	bench.n_fibers = concurrency;
	bench.must_remove = must_remove;
	bench.n_begun = bench.n_done = bench.n_fibers_done = 0;
	mono_t from = mono_now();
	double cpu = cpu_seconds();
	bench_start_fibers(n_workers);
	double wall = dur_seconds(mono_sub(mono_now(), from)), n = bench.n_messages;
	cpu = cpu_seconds() - cpu;
	spool_close(bench.sp);
	from = mono_now();
	bench.sp = bench_open(dir);
	double reopen = dur_seconds(mono_sub(mono_now(), from));
	struct spool_stats st;
	spool_get_stats(bench.sp, &st);
	printf("%5u at once%s: %8.0f messages/s, %6.2f us CPU each; "
	       "open again: %.3f s for %llu messages, %llu keys, %llu MB\n",
	       concurrency, must_remove ? ", each removed" : "              ", n / wall, cpu * 1e6 / n,
	       reopen, (unsigned long long)st.n_messages, (unsigned long long)st.n_keys,
	       (unsigned long long)st.n_bytes_disk >> 20);
	fflush(stdout);
	spool_close(bench.sp);
}

int main(int argc, char **argv)
{
	const char *dir = "bench_spool.dir";
	unsigned n_workers = 1, n_messages = 100000;
	bench.body_bytes = 2048;
	for (int c; (c = getopt(argc, argv, "d:n:b:k:w:")) != -1;) {
		if (c == 'd')
			dir = optarg;
		else if (c == 'n')
			n_messages = (unsigned)strtoul(optarg, NULL, 10);
		else if (c == 'b')
			bench.body_bytes = strtoul(optarg, NULL, 10);
		else if (c == 'k')
			bench.answer_bytes = strtoul(optarg, NULL, 10), bench.has_keys = true;
		else if (c == 'w')
			n_workers = (unsigned)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (n_messages == 0 || n_workers == 0)
		return 2;
	workers_start(n_workers);
	offload_start(2);
	static unsigned standard[] = {1, 100, 1000};
	size_t n_levels = optind < argc ? (size_t)(argc - optind) : ARRAY_SIZE(standard);
	bench.id = xcalloc(n_messages, sizeof *bench.id);
	for (size_t i = 0; i < n_levels; i++) {
		unsigned level =
			optind < argc ? (unsigned)strtoul(argv[optind + (int)i], NULL, 10) : standard[i];
		bench.n_messages = level < 10 && n_messages > 5000 ? 5000 : n_messages; /* a sync each */
		bench_run(dir, n_workers, level, false);
		bench_run(dir, n_workers, level, true);
	}
	bench_clean(dir);
	free(bench.id);
	workers_stop(mono_after(dur_s(5)));
	offload_stop();
	return 0;
}
