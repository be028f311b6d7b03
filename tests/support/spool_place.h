/* spool_place.h - a spool in a directory of its own, for the tests of the journal. */
#pragma once

#include "fiber_check.h"

#include "fiber/offload.h"
#include "spool_model.h"

#define N_WORKERS 2
#define SOON mono_after(dur_s(60))

static char dir[64];

static struct spool *open_spool(size_t segment_bytes)
{
	struct spool *sp = spool_open_journal(&(struct spool_params){.name = STR("test"),
								     .path = str_of(dir),
								     .is_flushed = true,
								     .segment_bytes = segment_bytes});
	CHECK(sp != NULL);
	return sp;
}

static int setup(void **state)
{
	static int n;
	snprintf(dir, sizeof dir, "/tmp/cirrus-spool-%d-%d", (int)getpid(), n++);
	return 0;
}

static int teardown(void **state)
{
	model_remove_dir(dir);
	return 0;
}

static int group_setup(void **state)
{
	workers_start(N_WORKERS);
	offload_start(4);
	return 0;
}

static int group_teardown(void **state)
{
	workers_stop(mono_after(dur_s(20)));
	offload_stop();
	return 0;
}

static void put_numbers(struct spool *sp, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i < from + n; i++) {
		struct message *m = model_message(i, 0, NULL);
		CHECK(spool_put(sp, &m, 1, SOON) == 0);
		CHECK(m->is_spooled);
		message_unref(m);
	}
}

static struct spool_stats stats_of(struct spool *sp)
{
	struct spool_stats st;
	spool_get_stats(sp, &st);
	return st;
}
