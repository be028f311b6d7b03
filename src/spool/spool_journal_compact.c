/* spool_journal_compact.c - how space comes back: dead segments are unlinked, sparse ones rewritten first.
 *
 * The invariant: for every message that is gone, as long as any segment holds a META frame of it, some later
 * place in the log holds a TOMB for it; for every live one, its latest META and its BODY are on the disk.
 * Recovery replays segments in order of seq and frames in order of offset, the latest frame of an id wins.
 * From that follows, for a sealed segment X:
 *  1. X may go only when nothing in it is live (live_bytes is 0), and only after everything that made it so
 *     is durable: the newer META of an updated message, the copies made by compaction. Hence doom_gen: X is
 *     doomed when it is dead and unlinked after the next sync.
 *  2. X may have TOMBs for messages with frames in older segments. Each is kept in X's list with the range of
 *     segments its message had frames in. Before X goes, those whose range still has a segment other than X
 *     are written again at the tail (56 bytes each) and durable: by rule 1 in the same way. If that would be
 *     more than half of X, X stays as it is until older segments have gone.
 *  3. A TOMB that is written again comes after a put of the same id that happened since. It is not written
 *     then: the range of the live message is widened instead, so that its own TOMB will cover the old frames
 *     as well.
 *  4. "Still has a segment" means in the directory: doomed ones count until their unlink is durable
 *     (directory fsync).
 *  5. A copy made by compaction is the latest frame of its id when it is written, because only the writer
 *     writes.
 *  6. Keys have no TOMBs. A KEY frame says itself when it dies, and is as dead at the next open as it is now.
 * None is written while an earlier one of its id lives, so nothing depends on a later frame having ended an
 * earlier one. Only when the clock is set back in between can a key come back, as it was, if its segment is
 * still there.
 *
 * Compaction runs in the writer's thread in slices of half a megabyte, 32 MB/s at most, so a commit waits for
 * one slice at worst. It takes the sparsest segment under a quarter live; under half when the dead bytes
 * exceed the live ones, or on a full disk, where it takes none that it has no room to finish. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SLICE_BYTES (512u << 10)
#define SLICE_SCAN_BYTES (8u << 20)
#define RATE_BYTES (INT64_C(32) << 20)
#define LOOK_NS NS_PER_S
#define REMOVE_RETRY_NS (10 * NS_PER_S)
#define REMOVE_PER_TURN 4
#define DOOM_NS (NS_PER_S / 20)
#define TOMB_LOOK_NS 1000 /* a look takes 50 ns: five percent of the time */

/* ---- dead segments ---- */

void journal_add_tombs(struct spool *sp, struct batch *b, struct tomb_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		struct tomb *t = &l->tomb[i];
		struct index_entry *e = index_find(sp, &t->id);
		if (e != NULL && t->min_seq < e->first_seq) {
			pthread_mutex_lock(&sp->lock);
			e->first_seq = t->min_seq;
			pthread_mutex_unlock(&sp->lock);
		}
		if (e != NULL || !index_needs_tomb(sp, t, 0))
			continue;
		struct frame_head h = {.type = FRAME_TOMB, .id = t->id};
		batch_add(sp, b, &h, NULL);
	}
}

/* Keeps those of a dead segment's tombs that others still need. False when they are so many that writing
 * them again would free less than it costs: then the segment stays until what they cover has gone. */
static bool reclaim_prune_tombs(struct spool *sp, struct segment *seg, int64_t now)
{
	size_t n = 0;
	for (size_t i = 0; i < seg->tombs.n; i++) {
		if (index_needs_tomb(sp, &seg->tombs.tomb[i], seg->seq))
			seg->tombs.tomb[n++] = seg->tombs.tomb[i];
	}
	sp->tombs_ns = now + (int64_t)seg->tombs.n * TOMB_LOOK_NS;
	seg->tombs.n = n;
	seg->tombs_gen = sp->removed_gen;
	return n * frame_bytes(0) * 2 <= seg->n_bytes;
}

/* Writes the tombs of a dead segment to the tail. */
static int reclaim_carry_tombs(struct spool *sp, struct segment *seg)
{
	if (seg->tombs.n == 0)
		return 0;
	if (journal_make_room(sp, seg->tombs.n * frame_bytes(0)) != 0)
		return -1;
	batch_begin(&sp->batch, sp->active);
	journal_add_tombs(sp, &sp->batch, &seg->tombs);
	if (sp->batch.end > sp->batch.start && journal_commit(sp, &sp->batch, false) != 0)
		return -1;
	pthread_mutex_lock(&sp->lock);
	for (size_t i = 0; i < seg->tombs.n; i++) {
		if (index_find(sp, &seg->tombs.tomb[i].id) == NULL)
			index_note_tomb(sp, sp->active, &seg->tombs.tomb[i]);
	}
	pthread_mutex_unlock(&sp->lock);
	tomb_list_fini(&seg->tombs);
	return 0;
}

/* The header of a segment says where its predecessor ends: it stays while that one's file is longer. */
static bool reclaim_is_held(struct spool *sp, size_t i)
{
	struct segment *prev = i > 0 ? sp->by_seq[i - 1] : NULL;
	if (prev == NULL || !prev->is_overlong)
		return false;
	prev->is_overlong = segment_truncate(prev, prev->n_bytes) != 0 || fdatasync(prev->fd) != 0;
	return prev->is_overlong;
}

static bool reclaim_is_dead(const struct spool *sp, const struct segment *seg)
{
	return seg->state == SEGMENT_SEALED && seg->live_bytes == 0 &&
	       (seg->tombs.n == 0 || seg->tombs_gen != sp->removed_gen);
}

/* Only the segments that were there before: carried tombs may begin new
 * ones. -1 when tombs could not be carried; the segments that have none
 * are doomed all the same, which is how a full disk gets room for tombs. */
static int reclaim_doom(struct spool *sp, int64_t now)
{
	int rc = 0;
	for (size_t i = 0, n = sp->n_segments; i < n; i++) {
		struct segment *seg = sp->by_seq[i];
		if (!reclaim_is_dead(sp, seg) || seg == sp->compaction.seg || reclaim_is_held(sp, i))
			continue;
		if (seg->tombs.n > 0 && (now < sp->tombs_ns || !reclaim_prune_tombs(sp, seg, now)))
			continue;
		if (seg->tombs.n > 0 && (rc != 0 || reclaim_carry_tombs(sp, seg) != 0)) {
			seg->tombs_gen = 0;
			rc = -1;
			continue;
		}
		seg->state = SEGMENT_DOOMED;
		seg->doom_gen = sp->write_gen;
	}
	return rc;
}

void journal_reclaim(struct spool *sp)
{
	if (!sp->has_dead)
		return;
	int64_t now = journal_now_ns();
	if (sp->remove_retry_ns > now)
		return;
	sp->remove_retry_ns = 0;
	bool must_sync = sp->has_doomed; /* doomed a moment ago, and nobody else synced since */
	bool is_behind = !sp->is_segment_broken && reclaim_doom(sp, now) != 0;
	if (sp->is_segment_broken || ((must_sync || sp->is_full) && journal_sync(sp) != 0)) {
		err_clear(); /* latched as health */
		sp->remove_retry_ns = now + NS_PER_S;
		return;
	}
	if (is_behind)
		err_clear();
	size_t n_removed = 0;
	bool is_left = false;
	sp->has_doomed = false;
	for (size_t i = 0; i < sp->n_segments;) {
		struct segment *seg = sp->by_seq[i];
		bool is_doomed = seg->state == SEGMENT_DOOMED;
		if (is_doomed && seg->doom_gen <= sp->synced_gen && n_removed < REMOVE_PER_TURN &&
		    sp->remove_retry_ns == 0) {
			if (segment_remove(sp, seg) == 0) {
				pthread_mutex_lock(&sp->lock);
				index_drop_segment(sp, seg);
				pthread_mutex_unlock(&sp->lock);
				n_removed++;
				sp->removed_gen++;
				continue;
			}
			log_error(JOURNAL_LOG, "spool %s: cannot remove segment %016llx: %s", sp->name,
				  (unsigned long long)seg->seq, strerror(errno));
			sp->remove_retry_ns = now + REMOVE_RETRY_NS;
		}
		sp->has_doomed = sp->has_doomed || (is_doomed && seg->doom_gen > sp->synced_gen);
		is_left = is_left || is_doomed || reclaim_is_dead(sp, seg);
		i++;
	}
	sp->has_dead = is_left || n_removed > 0; /* a removal may free others */
	if (sp->has_dead && sp->remove_retry_ns == 0)
		sp->remove_retry_ns =
			n_removed >= REMOVE_PER_TURN ? now : now + (is_behind ? NS_PER_S : DOOM_NS);
}

/* ---- sparse segments ---- */

/* What can be written, with the reserve given up for it. */
static uint64_t compact_room(const struct spool *sp)
{
	struct statvfs fs;
	struct stat reserve;
	if (fstatvfs(sp->dir_fd, &fs) != 0 || fstat(sp->reserve_fd, &reserve) != 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize +
	       (sp->has_reserve ? (uint64_t)reserve.st_blocks * 512 : 0);
}

static struct segment *compact_pick(struct spool *sp)
{
	struct compaction *c = &sp->compaction;
	struct segment *best = NULL;
	/* On a full disk only what can be finished: the reserve is for removals, too. */
	uint64_t room = sp->is_full && c->forced_below == 0 ? compact_room(sp) : UINT64_MAX;
	bool is_wasteful =
		sp->is_full || sp->disk_bytes - sp->live_bytes > sp->live_bytes + 4 * sp->segment_bytes;
	for (size_t i = 0; i < sp->n_segments; i++) {
		struct segment *seg = sp->by_seq[i];
		uint64_t n = seg->n_bytes - JOURNAL_HEAD_BYTES;
		if (seg->state != SEGMENT_SEALED || seg->is_stuck || seg->live_bytes == 0 ||
		    seg->live_bytes + JOURNAL_HEAD_BYTES > room)
			continue;
		bool is_worth = c->forced_below > 0
					? seg->seq < c->forced_below && seg->live_bytes * 10 < n * 9
					: seg->live_bytes * (is_wasteful ? 2 : 4) < n;
		if (is_worth &&
		    (best == NULL || seg->live_bytes * best->n_bytes < best->live_bytes * seg->n_bytes))
			best = seg;
	}
	return best;
}

/* Copies one live frame; p are its payload's bytes, or NULL when they have to be read. */
static void compact_copy(struct spool *sp, struct segment_reader *r, const struct frame_head *was,
			 uint64_t offset)
{
	struct segment *seg = r->seg;
	uint32_t n = le32toh(was->n_payload);
	struct frame_head h = {.type = was->type,
			       .id = was->id,
			       .key = was->key,
			       .n_payload = was->n_payload,
			       .payload_crc = was->payload_crc};
	char *heap = NULL;
	const char *p = "";
	if (n > BATCH_COPY_MAX) {
		p = heap = xmalloc(n);
		if (pread(seg->fd, heap, n, (off_t)(offset + sizeof h)) != (ssize_t)n)
			p = NULL;
	} else if (n > 0) {
		p = segment_reader_get(r, offset + sizeof h, n);
	}
	if (p == NULL || crc32c(0, p, n) != le32toh(was->payload_crc)) {
		journal_report_damage(sp, seg, offset,
				      "the payload of a live frame is damaged; it stays where it is");
		seg->is_stuck = true;
	} else {
		batch_add(sp, &sp->batch, &h, p);
		if (heap != NULL)
			batch_flush(sp, &sp->batch); /* before heap goes; its failure is kept in the batch */
	}
	free(heap);
}

static bool compact_is_live(struct spool *sp, const struct segment *seg, const struct frame_head *h,
			    uint64_t offset)
{
	if (h->type == FRAME_META) {
		const struct index_entry *e = index_find(sp, &h->id);
		return e != NULL && e->slot == seg->slot && e->off8 == offset / 8;
	}
	if (h->type == FRAME_KEY) {
		const struct index_key *k = index_find_key(sp, &h->id);
		return k != NULL && k->slot == seg->slot && k->off8 == offset / 8;
	}
	if (h->type != FRAME_BODY)
		return false;
	const struct index_body *b = index_find_body(sp, le64toh(h->key));
	return b != NULL && b->n_refs > 0 && b->slot == seg->slot && b->off8 == offset / 8;
}

/* Scans on from c->offset until the batch or the scan is a slice. */
static void compact_gather(struct spool *sp, struct compaction *c, uint64_t slice_bytes)
{
	struct segment_reader r;
	struct batch *b = &sp->batch;
	uint64_t from = c->offset;
	segment_reader_init(&r, c->seg, c->seg->n_bytes);
	while (c->offset < c->seg->n_bytes && b->end - b->start < slice_bytes &&
	       c->offset - from < SLICE_SCAN_BYTES) {
		struct frame_head h;
		const char *p = segment_reader_get(&r, c->offset, sizeof h);
		if (p != NULL)
			memcpy(&h, p, sizeof h);
		if (p == NULL || !frame_head_is_valid(&h, c->seg->salt, c->offset)) {
			uint64_t next = segment_reader_resync(&r, c->offset + 8);
			journal_report_damage(sp, c->seg, c->offset, "%llu bytes are no frame",
					      (unsigned long long)(next - c->offset));
			c->offset = next;
			continue;
		}
		if (compact_is_live(sp, c->seg, &h, c->offset))
			compact_copy(sp, &r, &h, c->offset);
		c->offset += frame_bytes(le32toh(h.n_payload));
	}
	segment_reader_fini(&r);
}

static void compact_end(struct spool *sp)
{
	segment_unref(sp->compaction.seg);
	sp->compaction.seg = NULL;
}

/* Everybody who waits for a forced compaction gets the outcome: the error slot's, or success when it is
 * empty. */
static void compact_finish_forced(struct spool *sp)
{
	struct err e = err_take();
	struct op *done = NULL;
	for (struct op *op; (op = sp->compact_op) != NULL;) {
		sp->compact_op = op->next;
		if (e.kind != ERR_NONE) {
			op->rc = -1;
			op->err = e;
			op->err.text = xstrdup(e.text);
		}
		journal_op_done(op, &done);
	}
	sp->compaction.forced_below = 0;
	journal_deliver_done(done);
	err_fini(&e);
}

static void compact_failed(struct spool *sp, int64_t now)
{
	compact_end(sp);
	sp->compaction.is_due = true;
	sp->compaction.look_ns = now + (sp->is_full ? NS_PER_S / 10 : REMOVE_RETRY_NS);
	compact_finish_forced(sp);
}

static void compact_begin_forced(struct spool *sp)
{
	struct segment *seg = sp->active;
	uint64_t n = seg->n_bytes - JOURNAL_HEAD_BYTES;
	journal_expire_all_keys(sp);
	if (n > 0 && seg->live_bytes * 10 < n * 9 && !sp->is_segment_broken && journal_rotate(sp) != 0)
		err_clear(); /* then without it */
	for (size_t i = 0; i < sp->n_segments; i++)
		sp->by_seq[i]->is_stuck = false; /* may have been a passing read error */
	sp->compaction.forced_below = sp->active->seq;
}

/* The segment to work on. NULL: none, and *next is when to look again. */
static struct segment *compact_choose(struct spool *sp, int64_t now, int64_t *next)
{
	struct compaction *c = &sp->compaction;
	*next = 0;
	if (c->seg != NULL)
		return c->seg;
	if (c->forced_below == UINT64_MAX)
		compact_begin_forced(sp);
	if (c->forced_below == 0 && (!c->is_due || now < c->look_ns)) {
		*next = c->is_due ? c->look_ns : 0;
		return NULL;
	}
	bool is_able = !atomic_load(&sp->is_unhealthy) || sp->is_full || c->forced_below > 0;
	c->look_ns = now + LOOK_NS;
	c->is_due = !is_able;
	struct segment *seg = is_able ? compact_pick(sp) : NULL;
	if (seg != NULL) {
		c->seg = segment_ref(seg);
		c->offset = JOURNAL_HEAD_BYTES;
	} else if (c->forced_below > 0) {
		if (journal_sync(sp) == 0) /* so that what was emptied can go at once */
			err_clear();
		sp->remove_retry_ns = 0;
		journal_reclaim(sp);
		compact_finish_forced(sp);
	}
	return seg;
}

int64_t journal_compact_slice(struct spool *sp)
{
	struct compaction *c = &sp->compaction;
	int64_t now = journal_now_ns(), next;
	struct segment *seg = compact_choose(sp, now, &next);
	if (seg == NULL)
		return next;
	if (c->forced_below == 0 && now < c->next_ns)
		return c->next_ns;
	uint64_t slice_bytes = sp->segment_bytes / 4 < SLICE_BYTES ? sp->segment_bytes / 4 : SLICE_BYTES,
		 from = c->offset;
	if (journal_make_room(sp, slice_bytes) != 0) {
		if (sp->is_full)
			journal_release_reserve(sp);
		compact_failed(sp, now);
		return c->look_ns;
	}
	batch_begin(&sp->batch, sp->active);
	compact_gather(sp, c, slice_bytes);
	uint64_t n_written = sp->batch.end - sp->batch.start;
	if (n_written > 0 && journal_commit(sp, &sp->batch, false) != 0) {
		compact_failed(sp, now);
		return c->look_ns;
	}
	if (c->offset >= seg->n_bytes) {
		if (seg->live_bytes > 0)
			seg->is_stuck = true;
		log_debug(JOURNAL_LOG, "spool %s: segment %016llx is rewritten, %llu bytes are left",
			  sp->name, (unsigned long long)seg->seq, (unsigned long long)seg->live_bytes);
		c->is_due = true;
		c->look_ns = now;
		compact_end(sp);
	}
	/* Reading what is skipped costs a quarter of what is written. */
	c->next_ns = now + (int64_t)(n_written + (c->offset - from) / 4) * NS_PER_S / RATE_BYTES;
	return c->forced_below > 0 ? now : c->next_ns;
}
