/* memory.c - GET /api/admin/memory/stats: what the process has in memory, for people to read. The numbers
 * come from different places at slightly different times, so they need not add up. */
#include "api/api_impl.h"

#include "fiber/memory.h"
#include "mail/body.h"
#include "queue/queue.h"
#include "smtp/in.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#define API_MAX_BODIES (UINT64_C(256) << 20)

/* jemalloc is linked into the daemon, not into builds with a sanitizer. */
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *new_value, size_t new_bytes)
	__attribute__((weak));

static struct spool *api_memory_spool;

void api_set_spool(struct spool *sp)
{
	api_memory_spool = sp;
}

static void memory_line(struct buf *out, const char *what, uint64_t bytes)
{
	buf_printf(out, "  %-28s %14llu  %10.1f MiB\n", what, (unsigned long long)bytes,
		   (double)bytes / (1 << 20));
}

static void memory_count(struct buf *out, const char *what, uint64_t n)
{
	buf_printf(out, "  %-28s %14llu\n", what, (unsigned long long)n);
}

/* /proc/self/status counts in kB. */
static void memory_of_process(struct buf *out)
{
	static const char *const rows[][2] = {
		{"VmRSS:", "resident"},
		{"VmHWM:", "resident at most"},
		{"RssAnon:", "  of it anonymous"},
		{"RssFile:", "  of it files"},
		{"VmSwap:", "swapped out"},
		{"VmSize:", "address space"},
		{"VmPTE:", "page tables"},
	};
	char line[256];
	FILE *f = fopen("/proc/self/status", "re");
	buf_add_z(out, "process\n");
	while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			size_t n = strlen(rows[i][0]);
			if (strncmp(line, rows[i][0], n) == 0)
				memory_line(out, rows[i][1], strtoull(line + n, NULL, 10) * 1024);
		}
		if (strncmp(line, "Threads:", 8) == 0)
			memory_count(out, "threads", strtoull(line + 8, NULL, 10));
	}
	if (f != NULL)
		fclose(f);
}

void api_limit_bodies(void)
{
	uint64_t share = memory_soft_limit() / 6;
	share = share < API_MAX_BODIES ? share : API_MAX_BODIES;
	http_set_body_memory(share);
	in_set_body_memory(share);
}

static void memory_of_group(struct buf *out)
{
	static const char *const rows[][2] = {
		{"memory.current", "used"}, {"memory.high", "soft limit"}, {"memory.max", "limit"}};
	uint64_t bytes;
	bool is_first = true;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (!memory_read_group(rows[i][0], &bytes))
			continue;
		if (is_first)
			buf_add_z(out, "control group\n");
		is_first = false;
		memory_line(out, rows[i][1], bytes);
	}
}

static void memory_of_limits(struct buf *out)
{
	buf_add_z(out, "limits\n");
	memory_line(out, "usage", memory_usage());
	memory_line(out, "low threshold", memory_low_threshold());
	memory_line(out, "soft limit", memory_soft_limit());
	memory_line(out, "hard limit", memory_hard_limit());
}

static void memory_of_jemalloc(struct buf *out)
{
	static const char *const rows[][2] = {
		{"stats.allocated", "allocated"}, {"stats.active", "in active pages"},
		{"stats.metadata", "metadata"},	  {"stats.resident", "resident"},
		{"stats.mapped", "mapped"},	  {"stats.retained", "retained"},
	};
	uint64_t epoch = 1;
	unsigned n_arenas = 0;
	size_t n = sizeof(epoch), value;
	(void)mallctl("epoch", &epoch, &n, &epoch, n); /* refreshes the numbers */
	buf_add_z(out, "allocator (jemalloc)\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		n = sizeof(value);
		if (mallctl(rows[i][0], &value, &n, NULL, 0) == 0)
			memory_line(out, rows[i][1], value);
	}
	n = sizeof(n_arenas);
	if (mallctl("arenas.narenas", &n_arenas, &n, NULL, 0) == 0)
		memory_count(out, "arenas", n_arenas);
}

static void memory_of_libc(struct buf *out)
{
	struct mallinfo2 m = mallinfo2();
	buf_add_z(out, "allocator (C library)\n");
	memory_line(out, "allocated", m.uordblks + m.hblkhd);
	memory_line(out, "free in the heap", m.fordblks);
	memory_line(out, "mapped", m.arena + m.hblkhd);
}

static void memory_of_mail(struct buf *out)
{
	struct queue_totals t;
	struct spool_stats s;
	queue_get_totals(&t);
	buf_add_z(out, "mail\n");
	memory_line(out, "message bodies", body_total_bytes());
	memory_line(out, "bodies of HTTP requests", http_body_memory());
	memory_line(out, "messages being received", in_body_memory());
	memory_count(out, "messages scheduled", t.n_scheduled);
	memory_count(out, "messages ready", t.n_ready);
	memory_count(out, "delivery sessions", t.n_sessions);
	memory_count(out, "messages not stored", t.n_deferred);
	memory_line(out, "  they and their bodies", t.n_deferred_bytes);
	if (api_memory_spool == NULL)
		return;
	spool_get_stats(api_memory_spool, &s);
	buf_add_z(out, "spool\n");
	memory_count(out, "messages", s.n_messages);
	memory_count(out, "idempotency keys", s.n_keys);
	memory_line(out, "live", s.n_bytes_live);
	memory_line(out, "on disk", s.n_bytes_disk);
}

static void api_memory_stats(struct http_request *r, struct http_response *a, void *arg, mono_t deadline)
{
	http_response_text(a, 200, "%s", "");
	memory_of_process(&a->body);
	memory_of_group(&a->body);
	memory_of_limits(&a->body);
	if (mallctl != NULL)
		memory_of_jemalloc(&a->body);
	else
		memory_of_libc(&a->body);
	memory_of_mail(&a->body);
}

static const char *const api_memory_tags[] = {"memory", NULL};
static const struct http_answer api_memory_answers[] = {{200, "A table.", "text/plain", NULL, NULL}, {0}};
static const struct http_route api_memory_routes[] = {
	{
		.method = "GET",
		.path = "/api/admin/memory/stats",
		.handler = api_memory_stats,
		.id = "memory_stats",
		.tags = api_memory_tags,
		.summary = "What the process has in memory.",
		.text = "For people: its form may change with any version. The process, its control group, "
			"the allocator, the mail.",
		.answers = api_memory_answers,
	},
};

void api_memory_register(void)
{
	http_routes_add(api_memory_routes, ARRAY_SIZE(api_memory_routes));
}
