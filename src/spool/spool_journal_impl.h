/* spool_journal_impl.h - what the files of the journal share. The design is at the top of spool_journal.c.
 * Threads: the writer is the only one that changes the index and the segments after open; others read them
 * under sp->lock, and the writer changes them under it. The writer's own reads take no lock. */
#pragma once

#include "spool/spool.h"

#include "base/err.h"
#include "base/metric.h"
#include "fiber/worker.h"

#include <pthread.h>
#include <sys/uio.h>

#define JOURNAL_FRAME_MAGIC UINT32_C(0x4a43f1a5)
#define JOURNAL_VERSION 1
#define JOURNAL_HEAD_BYTES 4096 /* of a segment: two copies of the header, then frames */
#define JOURNAL_PAYLOAD_MAX (UINT32_C(1) << 30)
#define JOURNAL_PUT_MAX (UINT64_C(8) << 30) /* one group; off8 reaches 32 GiB */
#define JOURNAL_LOG "spool"

/* ---- bytes on disk (little endian) ---- */

enum frame_type {
	FRAME_BODY = 1, /* key: its own. The payload is the body */
	FRAME_META = 2, /* id, key: of its body. The payload is the record; the latest one of an id counts */
	FRAME_TOMB = 3, /* id: all earlier frames of it are dead */
	FRAME_PAD = 4,	/* covers torn bytes after a recovery; the payload is unchecked */
	FRAME_MARK = 5, /* carries synced8 only */
	FRAME_KEY = 6, /* id: of the key; key: when it expires, in ns since 1970. The payload is the request's
			* print (KEY_PRINT_BYTES) and the answer; the latest one of an id counts */
};
#define KEY_PRINT_BYTES 32u
#define FRAME_GROUPED 1u /* part of a group of frames that counts only as a whole */
#define FRAME_LAST 2u	 /* the last of its group */

struct frame_head {
	uint32_t magic;
	uint8_t type, flags;
	uint16_t zero;
	uint32_t n_payload;
	uint32_t payload_crc;
	struct uuid id;
	uint64_t key;
	uint32_t group, index; /* of the group in the segment, from 1; of the frame in the group, from 0 */
	uint32_t synced8;      /* when this was written, the segment was durable up to 8 * synced8 */
	uint32_t head_crc;     /* of the above, seeded with the segment's salt and the frame's offset */
};
_Static_assert(sizeof(struct frame_head) == 56, "frames are 8-aligned and have no padding");

struct segment_head {
	char magic[8];
	uint32_t version, n_bytes;
	uint64_t seq, salt;
	uint64_t prev_seq,
		prev_durable; /* of the segment before this one: its frames from there on never counted */
	int64_t created_ns;
	uint32_t zero, crc;
};
_Static_assert(sizeof(struct segment_head) == 64, "no padding");

static inline uint64_t frame_bytes(uint64_t n_payload)
{
	return sizeof(struct frame_head) + ((n_payload + 7) & ~UINT64_C(7));
}

/* Fills magic, synced8 and head_crc of a frame that will stand at offset. */
struct segment;
void frame_seal(struct frame_head *h, const struct segment *seg, uint64_t offset);
/* A frame head that was written for this place; says nothing of the payload. */
bool frame_head_is_valid(const struct frame_head *h, uint64_t salt, uint64_t offset);

/* ---- tables: rows of fixed size, the key first, an all-zero key is no row ---- */

#define TABLE_SHARDS 64
struct table_shard {
	char *row;
	uint32_t n, cap;
};
struct table {
	struct table_shard shard[TABLE_SHARDS];
	uint32_t row_bytes, key_bytes; /* key: 8 or 16 */
	uint64_t n;
	uint64_t seed[2];
};
void table_init(struct table *t, uint32_t row_bytes, uint32_t key_bytes);
void table_fini(struct table *t);
void *table_find(const struct table *t, const void *key);
/* The row of the key, zeroed but for the key when it is new. Valid until the next add or remove. */
void *table_add(struct table *t, const void *key);
bool table_remove(struct table *t, const void *key);
/* Takes out the rows of a shard that fn says no to; it is asked once for each, and must not touch the table.
 * To take out many rows in the order of the table by table_remove would take quadratic time. */
typedef bool table_keep_fn(void *row, void *arg);
void table_filter_shard(struct table *t, uint32_t shard, table_keep_fn *fn, void *arg);
/* Iteration: *pos = 0 to begin; NULL at the end. No changes meanwhile. */
void *table_next(const struct table *t, uint64_t *pos);

/* ---- index ---- */

struct index_entry { /* a live message */
	struct uuid id;
	uint64_t body_key;
	uint32_t slot, off8; /* its META frame */
	uint32_t n_record;
	uint32_t first_seq; /* no segment before this one holds a frame of it */
};
struct index_body {
	uint64_t key;
	uint32_t slot, off8; /* slot 0: its frame was not found */
	uint32_t n_bytes;
	uint32_t n_refs; /* live messages */
};
struct index_key { /* of a request that was answered */
	struct uuid id;
	int64_t expires_ns; /* UTC */
	uint32_t slot, off8;
	uint32_t n_payload;
};
struct tomb { /* a TOMB frame that older segments still need */
	struct uuid id;
	uint32_t min_seq, max_seq; /* frames of the id lie in segments of this range */
};
struct tomb_list {
	struct tomb *tomb;
	size_t n, cap;
};
void tomb_list_add(struct tomb_list *l, struct tomb t);
void tomb_list_fini(struct tomb_list *l);

/* ---- segments ---- */

enum segment_state { SEGMENT_ACTIVE, SEGMENT_SEALED, SEGMENT_DOOMED };
struct segment {
	_Atomic uint32_t refs; /* the index and each reader */
	int fd;
	uint32_t slot;
	uint64_t seq, salt;
	uint64_t n_bytes; /* header and whole frames */
	uint64_t n_durable;
	uint64_t n_allocated; /* preallocated up to here */
	uint64_t live_bytes;
	uint32_t next_group;
	enum segment_state state;
	uint64_t doom_gen;	 /* DOOMED: may be unlinked when writes up to here are durable */
	_Atomic bool is_damaged; /* any thread; kept aside instead of unlinked */
	bool is_stuck;		 /* compaction found what it cannot read: not tried again */
	bool is_overlong;   /* its file could not be cut to n_bytes: the next segment's header must stay */
	uint64_t tombs_gen; /* removed_gen when too many of its tombs were needed for it to go */
	struct tomb_list tombs; /* those of its TOMB frames that concern other segments */
};

/* Creates the next segment on disk, durably. -1 ERR_SPOOL_FULL, ERR_IO. */
MUST_CHECK struct segment *segment_create(struct spool *sp, uint64_t seq, const struct segment *prev);
/* Opens an existing one and reads its header; *prev_seq and *prev_durable tell about the one before. -1
 * ERR_IO, ERR_CORRUPT. */
MUST_CHECK struct segment *segment_open(struct spool *sp, uint64_t seq, struct segment_head *head);
struct segment *segment_ref(struct segment *seg);
void segment_unref(struct segment *seg);
/* Space for what is about to be written up to `end`. -1 with errno. */
MUST_CHECK int segment_allocate(struct spool *sp, struct segment *seg, uint64_t end);
/* Writes all of it at the offset. -1 with errno. iov is used up. */
MUST_CHECK int segment_writev(struct segment *seg, struct iovec *iov, int n_iov, uint64_t offset);
MUST_CHECK int segment_sync(struct segment *seg);	     /* -1 with errno */
int segment_truncate(struct segment *seg, uint64_t n_bytes); /* -1 with errno */
/* Unlinks it (or puts it aside) and makes that durable. -1 with errno. */
MUST_CHECK int segment_remove(struct spool *sp, struct segment *seg);

/* A window that moves over a segment. */
#define READER_WINDOW (1u << 18)
struct segment_reader {
	struct segment *seg;
	char *window;
	uint64_t at; /* offset of the window's first byte */
	size_t n;
	uint64_t limit; /* reads end here */
};
void segment_reader_init(struct segment_reader *r, struct segment *seg, uint64_t limit);
void segment_reader_fini(struct segment_reader *r);
/* n bytes at the offset (n at most READER_WINDOW), borrowed until the next call; NULL when they are not all
 * there or cannot be read (errno; 0 at the limit). */
const char *segment_reader_get(struct segment_reader *r, uint64_t offset, size_t n);
/* The CRC of n bytes at the offset; -1 when they cannot all be read. */
MUST_CHECK int segment_reader_crc(struct segment_reader *r, uint64_t offset, uint64_t n, uint32_t *crc);
/* The first offset from `offset` on at which a whole frame may stand, or the limit. */
uint64_t segment_reader_resync(struct segment_reader *r, uint64_t offset);

/* ---- operations on their way to the writer ---- */

enum op_kind { OP_PUT, OP_UPDATE, OP_REMOVE, OP_TOMBS, OP_COMPACT };
struct op_item {
	struct uuid id;
	struct body *body;     /* a reference; NULL: the stored one */
	uint32_t same_body_as; /* the first item with this body (itself, usually) */
	uint32_t body_crc;     /* of the first one */
	uint32_t record_crc, n_record;
	uint64_t record_at; /* in op.record */
	uint64_t key;	    /* the writer's */
};
struct op {
	struct op *next;
	uint32_t note;	   /* its slot in the removals noted, plus 1; 0: none */
	bool is_not_noted; /* REMOVE: what is to be noted is another's to say */
	enum op_kind kind;
	uint32_t n;
	struct op_item *item;	/* in the same block; n of them */
	char *record;		/* heap */
	uint64_t n_bytes;	/* of its frames */
	struct op_key {		/* PUT */
		struct uuid id; /* nil: without a key */
		uint64_t expires_ns;
		uint32_t payload_crc, n_payload;
		uint64_t payload_at; /* in record */
	} key;
	bool must_sync;		/* whatever is_flushed says */
	struct tomb_list tombs; /* OP_TOMBS: frames that could not be written, or have to move on */
	/* PUT, COMPACT: somebody may wait */
	_Atomic uint32_t refs; /* the fiber and the writer */
	_Atomic int state;     /* enum op_state */
	struct worker *worker;
	struct waiter waiter; /* of the worker */
	struct mail mail;
	struct op *next_done;
	int rc;
	struct err err; /* when rc is -1 */
};
enum op_state { OP_WAITING, OP_ABANDONED, OP_DONE };
struct op *op_new(enum op_kind kind, uint32_t n);
void op_unref(struct op *op);
static inline bool op_has_key(const struct op *op)
{
	return op->key.n_payload > 0; /* the print at least */
}

/* ---- a batch: what one write holds ---- */

struct applied { /* a frame of the batch, to be entered into the index once it is written */
	enum frame_type type;
	struct uuid id;
	uint64_t key; /* as in the frame's head */
	uint32_t off8, n_payload;
};
#define BATCH_BUF_BYTES (512u << 10)
#define BATCH_IOV 64
#define BATCH_COPY_MAX (16u << 10) /* larger payloads are written from where they are */
#define BATCH_MAX_BYTES (32u << 20)
#define BATCH_MAX_FRAMES 16384u
struct batch {
	struct segment *seg;
	uint64_t start, end;	    /* offsets: of its first byte, of its next frame */
	uint64_t flushed;	    /* bytes before this are with the kernel */
	char *buf;		    /* BATCH_BUF_BYTES */
	size_t n_buf, buf_iov_from; /* bytes used; where the piece that is no iovec yet begins */
	struct iovec iov[BATCH_IOV];
	int n_iov;
	struct applied *applied;
	size_t n_applied, cap_applied;
	bool has_puts, must_sync;
	int sys_errno; /* the first failure; later frames are dropped */
};
void batch_init(struct batch *b);
void batch_fini(struct batch *b);
void batch_begin(struct batch *b, struct segment *seg);
/* Appends a frame; payload must live until batch_flush when it is larger than BATCH_COPY_MAX. */
void batch_add(struct spool *sp, struct batch *b, struct frame_head *h, const void *payload);
int batch_flush(struct spool *sp, struct batch *b); /* -1: b->sys_errno, which stays and fails the commit */

/* ---- the journal ---- */

struct compaction {
	struct segment *seg; /* a reference; NULL: none under way */
	uint64_t offset;
	uint64_t forced_below; /* segments before this seq are rewritten for spool_compact(); 0: none */
	int64_t next_ns;       /* the next slice, not before */
	int64_t look_ns;       /* candidates are looked for not before */
	bool is_due;	       /* something died since the last look */
};

struct expiry {		    /* the search for expired keys, a shard of the table at a time */
	uint32_t shard;	    /* the next one; 0: a new round */
	int64_t next_ns;    /* the next round, not before */
	int64_t soonest_ns; /* UTC; no key of the shards passed, or added since, expires before */
};

struct spool {
	char *name, *path;
	struct metric_series *commits;
	int dir_fd, lock_fd, reserve_fd;
	bool is_flushed;
	bool can_allocate; /* false once the file system refused to preallocate */
	uint64_t segment_bytes, max_keys;

	/* the queue to the writer */
	struct notes {		   /* under queue_lock once the writer runs */
		struct uuid *slot; /* mapped; NULL: there are none */
		uint32_t n_used;   /* slots from here on were never taken */
		uint32_t *free_slot, n_free, cap_free;
	} notes;
	pthread_mutex_t queue_lock;
	pthread_cond_t queue_cond;
	struct op *queue_head, **queue_tail;
	size_t n_queued_puts;
	size_t n_wanted_puts; /* the writer is to be woken at this many */
	bool is_writer_idle;  /* any operation wakes it */
	bool is_stopping;
	pthread_t writer;
	bool has_writer;

	/* under lock; changed by the writer only */
	pthread_mutex_t lock;
	struct table messages; /* struct index_entry */
	struct table bodies;   /* struct index_body */
	struct table keys;     /* struct index_key */
	struct segment **slot; /* by segment.slot; slot[0] is NULL, others while free */
	uint32_t n_slots;
	struct segment **by_seq; /* n_segments, ascending */
	size_t cap_by_seq;
	size_t n_segments;
	uint64_t live_bytes, disk_bytes, n_damaged;
	bool is_replaying; /* bodies without references stay until the end */
	char health[300];
	_Atomic bool is_unhealthy;

	/* the writer's own */
	struct batch batch;
	struct segment *active;
	uint64_t next_seq;
	uint64_t write_gen, synced_gen;
	struct applied *unsynced; /* applied frames that no sync covers yet: rewritten when one fails */
	size_t n_unsynced, cap_unsynced;
	int64_t unsynced_ns;	/* since when something waits for the lazy sync; 0: nothing */
	struct op *stalled;	/* operations without a waiter that could not be written, oldest first */
	int64_t retry_ns;	/* next attempt at them, or at a broken spool; 0: none */
	bool has_reserve;	/* space set aside for removals and compaction; without it no put is taken */
	bool is_full;		/* the last failure was for want of space */
	bool is_segment_broken; /* nothing may be appended to the active segment any more */
	bool has_doomed;	/* some wait for a sync */
	bool has_dead;		/* a segment may have become empty */
	int64_t remove_retry_ns;
	uint64_t removed_gen; /* counts segments that were removed, from 1 */
	int64_t tombs_ns;     /* tombs are looked through not before */
	size_t puts_expected; /* recent puts per batch */
	struct expiry expiry;
	struct compaction compaction;
	struct op *compact_op; /* they wait for a forced compaction */

	/* present at open, for spool_enumerate; one fiber at a time */
	struct snapshot_item {
		uint32_t seg, off8;
	} * snapshot;
	size_t n_snapshot, at_snapshot;
	struct segment **snapshot_seg; /* references, by slot at open */
	uint32_t n_snapshot_seg;
};

int64_t journal_now_ns(void);

/* spool_journal_index.c; all under lock once the writer runs */
struct index_entry *index_find(struct spool *sp, const struct uuid *id);
struct index_body *index_find_body(struct spool *sp, uint64_t key);
void index_set_body(struct spool *sp, uint64_t key, const struct segment *seg, uint32_t off8,
		    uint32_t n_bytes);
void index_set_message(struct spool *sp, const struct uuid *id, uint64_t key, const struct segment *seg,
		       uint32_t off8, uint32_t n_record);
/* Forgets the message; true with its segments in *tomb when it was there. */
bool index_remove(struct spool *sp, const struct uuid *id, struct tomb *tomb);
/* A TOMB frame was written to seg: notes it when other segments need it. */
void index_note_tomb(struct spool *sp, struct segment *seg, const struct tomb *tomb);
bool index_needs_tomb(const struct spool *sp, const struct tomb *tomb, uint64_t except_seq);
/* An expired key is taken out, whichever frame says so. */
void index_set_key(struct spool *sp, const struct uuid *id, int64_t expires_ns, const struct segment *seg,
		   uint32_t off8, uint32_t n_payload);
struct index_key *index_find_key(struct spool *sp, const struct uuid *id);
/* Its row is about to go. */
void index_release_key(struct spool *sp, const struct index_key *k);
void index_add_segment(struct spool *sp, struct segment *seg);
void index_drop_segment(struct spool *sp, struct segment *seg);

/* spool_journal_keys.c */
/* Looks at one shard when it is time for that. Returns when it is again, 0: there are no keys. */
int64_t journal_expire_keys(struct spool *sp);
void journal_expire_all_keys(struct spool *sp);
bool key_is_alive(const struct index_key *k);

/* spool_journal_read.c */
void journal_take_snapshot(struct spool *sp);
void journal_drop_snapshot(struct spool *sp);

/* spool_journal_notes.c */
void notes_open(struct spool *sp);
void notes_close(struct spool *sp);
/* After recovery, before the writer runs: what was to go is taken out of the index. Returns the operations
 * that make it so on disk, to be submitted. */
struct op *notes_apply(struct spool *sp);
void notes_add(struct spool *sp, struct op *op);     /* a removal, with queue_lock held */
void notes_clear(struct spool *sp, struct op *list); /* their frames are written */

/* spool_journal_recover.c */
MUST_CHECK int journal_recover(struct spool *sp);
PRINTF_LIKE(4, 5)
void journal_report_damage(struct spool *sp, struct segment *seg, uint64_t offset, const char *fmt, ...);

/* spool_journal_writer.c */
void *journal_writer_main(void *arg);
void journal_submit(struct spool *sp, struct op *op);
/* Writes the frames of the batch to the active segment's end. 0: they are there, entered into the index, and
 * durable when must_sync. -1: none counts, and the error slot says why. */
MUST_CHECK int journal_commit(struct spool *sp, struct batch *b, bool must_sync);
MUST_CHECK int journal_sync(struct spool *sp);
/* Sets space aside; -1 ERR_SPOOL_FULL. Giving it back leaves room for what makes room. */
MUST_CHECK int journal_take_reserve(struct spool *sp);
void journal_release_reserve(struct spool *sp);
/* With a full disk and an active segment that is dead for the most part: ends it, so that its space comes
 * back. */
void journal_seal_dead(struct spool *sp);
/* Makes room for n_bytes in the active segment: a new one when it is full. -1 ERR_SPOOL_FULL, ERR_IO. */
MUST_CHECK int journal_make_room(struct spool *sp, uint64_t n_bytes);
MUST_CHECK int journal_rotate(struct spool *sp);
void journal_op_done(struct op *op, struct op **done_list);
void journal_deliver_done(struct op *done_list);

/* spool_journal_compact.c */
/* Unlinks what is dead and durable so. */
void journal_reclaim(struct spool *sp);
/* One slice, when one is due. Returns when the next one is, 0: nothing to do. */
int64_t journal_compact_slice(struct spool *sp);
/* Appends the TOMB frames that are still needed to the batch; those that a live message stands for are folded
 * into it. */
void journal_add_tombs(struct spool *sp, struct batch *b, struct tomb_list *l);
