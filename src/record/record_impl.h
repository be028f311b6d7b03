/* record_impl.h - what the files of src/record share. */
#pragma once

#include "record/record.h"

#include "base/arena.h"
#include "base/metric.h"
#include "template/template.h"
#include "record/logger.h"

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
/** What a logger does with these parameters; a kind is a record type. */
void local_logs_spec(const struct local_logs_params *p, struct logger_spec *spec);

/* --- render.c --- */
/** Which metadata and header fields go into a record: names, or prefixes when they end in `*`. */
struct record_selection {
	const struct param_strs *meta, *headers;
};
/** Appends the JSON object, without a line end. Does not
 * yield; a body that is not in memory has no headers. */
void record_render_json(const struct record *r, const struct record_selection *sel, wall_t now,
			struct buf *out);
/** Evaluates the template over a record in its JSON form. -1: the template failed. */
MUST_CHECK int record_render_template(const struct template *t, str_t json, struct buf *out);
