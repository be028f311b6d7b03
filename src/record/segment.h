/* segment.h - a run of log segment files in one directory. Private to src/record. A segment is one zstd frame
 * in a file that is writable while it grows and read-only once it is whole. Not thread-safe: one logger
 * thread owns it. Blocks. */
#pragma once

#include "base/clock.h"

struct ZSTD_CCtx_s;

struct segment_writer {
	/* Set by the owner before the first write; borrowed. */
	const char *dir, *prefix, *suffix; /* of the files' names; NULL prefix: none */
	int level;			   /* zstd's; 0: its default */
	uint64_t max_bytes;		   /* of records, uncompressed */
	dur_t max_age;			   /* ns < 0: any */

	int fd; /* -1: none open */
	char *path;
	struct ZSTD_CCtx_s *z; /* only while a segment is open */
	struct buf out;	       /* compressed, not yet in the file */
	uint64_t n_bytes;      /* of records in the open segment */
	mono_t opened;
	mono_t dirty_since; /* the oldest record that was not flushed; MONO_NEVER: none */
	bool is_ending;	    /* to be closed: takes no more records */
	bool is_framed;	    /* and the end of the frame is in `out` or written */
};

#define SEGMENT_WRITER_INIT ((struct segment_writer){.fd = -1, .dirty_since = MONO_NEVER})

/** Forgets an open segment as a crash would: what was not written is lost, the file stays writable. */
void segment_writer_fini(struct segment_writer *w);
/** How many bytes of records the open segment (or a new one) takes before it is full; at least 1. */
uint64_t segment_room(const struct segment_writer *w);
/** Takes whole records, each with its LF; opens a segment when none is, with `header` as its first bytes.
 * Once taken they are kept until the file has them. -1 ERR_IO: the file system refused, nothing was taken,
 * try again later. */
MUST_CHECK int segment_write(struct segment_writer *w, str_t records, str_t header);
/** Does what is due: hands the bytes of the last second to the file, ends a segment that is full or too old.
 * -1 ERR_IO: the file system refused, try again later. */
MUST_CHECK int segment_tick(struct segment_writer *w);
/** When segment_tick has work next; MONO_NEVER: not before the next write. */
mono_t segment_due(const struct segment_writer *w);
/** Ends the open segment, if any: frame, fdatasync, directory entry, and then read-only. -1 ERR_IO: try again
 * later. */
MUST_CHECK int segment_close(struct segment_writer *w);

/** Makes a directory with its parents where missing and checks that files can be made in it. -1 ERR_IO naming
 * the path. */
MUST_CHECK int segment_dir_prepare(const char *dir);
/** Takes the write permission off every regular file there that does not start with a dot: left by an earlier
 * run. -1 ERR_IO naming the path. */
MUST_CHECK int segment_dir_mark_done(const char *dir);
