/* logger.h - lines to segment files in the background: the machinery below the records of messages
 * (record.h), for other logs of the same make. A line has a kind, which says what files it goes to. */
#pragma once

#include "base/clock.h"
#include "policy/param.h"

#define LOGGER_KINDS_MAX 16

/** Where the lines of one kind go. */
struct logger_route {
	bool is_enabled;
	const char *dir, *suffix; /* suffix: "" for none */
	str_t header;		  /* the first bytes of a segment that a line of this kind opens */
};
struct logger_spec {
	const char *dir;      /* names the logger in metrics and diagnostics */
	const char *prefix;   /* of the segments' names; "" for none */
	uint64_t max_bytes;   /* of lines in a segment, uncompressed */
	dur_t max_age;	      /* of a segment; ns < 0: any */
	int level;	      /* zstd's; 0: its default */
	size_t back_pressure; /* lines that may wait before those who log wait too */
	struct logger_route route[LOGGER_KINDS_MAX];
};

struct logger;
/** Starts the thread. The texts of the spec must live as long as params, of which the logger keeps a
 * reference. NULL ERR_IO. */
MUST_CHECK struct logger *logger_start(struct param_object *params, const struct logger_spec *spec);
/** Blocks until everything is written, or given up, and its segments are closed. */
void logger_stop(struct logger *l);
const void *logger_params(const struct logger *l); /* the data of its parameter object */
bool logger_is_enabled(const struct logger *l, unsigned kind);
/** Takes one line, with its LF. Yields when back_pressure is reached (blocks, outside fibers). A cancelled
 * fiber does not wait any more: its line is taken over the limit. -1 ERR_TIMEOUT: not taken; ERR_LIMIT: too
 * large, never will be. */
MUST_CHECK int logger_submit(struct logger *l, unsigned kind, str_t line, mono_t deadline);

/** Before a logger writes to a directory: makes it, and unless is_validating marks as finished what an
 * earlier run left there. From init. -1 ERR_IO naming the path, ERR_LIMIT (too many directories). */
MUST_CHECK int logger_prepare_dir(const char *dir, bool is_validating);
/** Has the free space of a prepared directory watched (disk.h). */
void logger_monitor_dir(const char *dir, const char *min_free_space, const char *min_free_inodes);
