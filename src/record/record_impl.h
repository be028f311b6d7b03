/* record_impl.h - what the files of src/record share. */
#pragma once

#include "record/record.h"

#include "base/arena.h"
#include "base/metric.h"
#include "mail/template.h"

#define RECORD_LOG "kumod::record"

/* --- params.c: configure_local_logs --- */
struct log_record_params { /* one entry of per_record */
	bool enable;
	char *suffix, *log_dir, *segment_header;
	char *template;		   /* source text; NULL: JSON */
	struct template *compiled; /* NULL: JSON */
};

struct local_logs_params {
	char *log_dir;
	uint64_t max_file_size;
	dur_t max_segment_duration; /* ns -1: unlimited */
	int64_t compression_level;
	int64_t back_pressure; /* records */
	struct param_strs meta, headers;
	/* By record type, RECORD_TYPE_COUNT stands for Any; NULL: no entry. */
	struct log_record_params *per_record[RECORD_TYPE_COUNT + 1];
	char *filter_event; /* NULL: none */
	char *min_free_space, *min_free_inodes;
};
/** The entry that rules a type, or NULL for the defaults. */
const struct log_record_params *local_logs_entry(const struct local_logs_params *p, enum record_type t);

/* --- render.c --- */
/** Which metadata and header fields go into a record: names, or prefixes when they end in `*`. */
struct record_selection {
	const struct param_strs *meta, *headers;
};
/** Appends the JSON object, without a line end. Does not yield; a body that is not in memory has no headers.
 */
void record_render_json(const struct record *r, const struct record_selection *sel, wall_t now,
			struct buf *out);
/** Evaluates the template over a record in its JSON form. -1: the template failed. */
MUST_CHECK int record_render_template(const struct template *t, str_t json, struct buf *out);

/* --- logger.c --- */
struct logger;
/** Starts the thread; takes its own reference to params. -1 ERR_IO. */
MUST_CHECK struct logger *logger_start(struct param_object *params);
/** Blocks until everything is written, or given up, and its segments are closed. */
void logger_stop(struct logger *l);
const struct local_logs_params *logger_params(const struct logger *l);
bool logger_is_enabled(const struct logger *l, enum record_type t);
/** Takes one rendered line, with its LF. Yields when back_pressure is reached (blocks, outside fibers). A
 * cancelled fiber does not wait any more: its record is taken over the limit. -1 ERR_TIMEOUT: not taken;
 * ERR_LIMIT: too large, never will be. */
MUST_CHECK int logger_submit(struct logger *l, enum record_type t, str_t line, mono_t deadline);
