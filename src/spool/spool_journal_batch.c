/* spool_journal_batch.c - frames on their way to the active segment, and what happens when they cannot get
 * there.
 *
 * A batch gathers frames in one large buffer; bodies over 16 KB go to the kernel from where they are.
 * journal_commit() writes it, syncs when somebody waits for that, and only then enters it into the index, so
 * a failed batch needs no undo:
 *  - The write fails (no space, mostly): the file is cut back to where the batch began. Whatever makes room
 *    (removals, compaction) has to be written too, so a reserve is kept allocated in a file beside the
 *    segments. Puts never use it; the others get it when there is nothing else, and puts wait until it is
 *    back: while it is out no space is allocated ahead. What is dead in the active segment comes back when
 * that segment has ended, so on a full disk it ends early.
 *  - fdatasync fails: which of the pages since the last sync are on the disk is unknown, and the kernel has
 *    forgotten that they were dirty. The segment is broken: nothing is appended to it any more, and the
 *    header of the next one says from which offset on its frames never counted. Frames written earlier
 *    without a sync (updates, tombs, compaction) are still in the page cache: journal_rescue() copies them to
 *    the new segment, durably, before anything else. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RETRY_NS NS_PER_S
#define RESERVE_MIN (UINT64_C(1) << 20)
#define RESERVE_MAX (UINT64_C(8) << 20)
#define APPLY_SLICE 256

/* ---- gathering ---- */

void batch_init(struct batch *b)
{
	*b = (struct batch){.buf = xmalloc(BATCH_BUF_BYTES)};
}

void batch_fini(struct batch *b)
{
	free(b->buf);
	free(b->applied);
}

void batch_begin(struct batch *b, struct segment *seg)
{
	b->seg = seg;
	b->start = b->end = b->flushed = seg->n_bytes;
	b->n_buf = b->buf_iov_from = 0;
	b->n_iov = 0;
	b->n_applied = 0;
	b->has_puts = b->must_sync = false;
	b->sys_errno = 0;
}

static void batch_close_piece(struct batch *b)
{
	if (b->n_buf > b->buf_iov_from)
		b->iov[b->n_iov++] = (struct iovec){b->buf + b->buf_iov_from, b->n_buf - b->buf_iov_from};
	b->buf_iov_from = b->n_buf;
}

int batch_flush(struct spool *sp, struct batch *b)
{
	batch_close_piece(b);
	if (b->sys_errno == 0 && b->end > b->flushed) {
		if (segment_allocate(sp, b->seg, b->end) != 0 ||
		    segment_writev(b->seg, b->iov, b->n_iov, b->flushed) != 0)
			b->sys_errno = errno;
	}
	b->flushed = b->end;
	b->n_buf = b->buf_iov_from = 0;
	b->n_iov = 0;
	return b->sys_errno == 0 ? 0 : -1;
}

static void batch_note_applied(struct batch *b, const struct frame_head *h, uint32_t n_payload)
{
	if (b->n_applied == b->cap_applied) {
		b->cap_applied = b->cap_applied == 0 ? 64 : b->cap_applied * 2;
		b->applied = xreallocarray(b->applied, b->cap_applied, sizeof *b->applied);
	}
	b->applied[b->n_applied++] = (struct applied){.type = h->type,
						      .id = h->id,
						      .key = le64toh(h->key),
						      .off8 = (uint32_t)(b->end / 8),
						      .n_payload = n_payload};
}

void batch_add(struct spool *sp, struct batch *b, struct frame_head *h, const void *payload)
{
	uint32_t n = le32toh(h->n_payload);
	size_t n_pad = (size_t)(frame_bytes(n) - sizeof *h - n);
	bool is_copied = n <= BATCH_COPY_MAX;
	size_t need = sizeof *h + n_pad + (is_copied ? n : 0);
	if (b->n_buf + need > BATCH_BUF_BYTES || b->n_iov + 4 > BATCH_IOV)
		batch_flush(sp, b); /* its failure is kept in the batch */
	frame_seal(h, b->seg, b->end);
	memcpy(b->buf + b->n_buf, h, sizeof *h);
	b->n_buf += sizeof *h;
	if (is_copied && n > 0) {
		memcpy(b->buf + b->n_buf, payload, n);
		b->n_buf += n;
	} else if (!is_copied) {
		batch_close_piece(b);
		b->iov[b->n_iov++] = (struct iovec){(void *)(uintptr_t)payload, n};
	}
	memset(b->buf + b->n_buf, 0, n_pad);
	b->n_buf += n_pad;
	if (h->type != FRAME_PAD && h->type != FRAME_MARK)
		batch_note_applied(b, h, n);
	b->end += frame_bytes(n);
}

/* ---- state of the journal's health ---- */

static void ftruncate_quietly(int fd, uint64_t n_bytes)
{
	if (ftruncate(fd, (off_t)n_bytes) != 0)
		errno = 0; /* then the space is not free, which the next write tells */
}

static void journal_set_unhealthy(struct spool *sp)
{
	bool was = atomic_load_explicit(&sp->is_unhealthy, memory_order_relaxed);
	pthread_mutex_lock(&sp->lock);
	snprintf(sp->health, sizeof sp->health, "the spool is not accepting writes: %s", err_text());
	pthread_mutex_unlock(&sp->lock);
	atomic_store(&sp->is_unhealthy, true);
	if (!was)
		log_error(JOURNAL_LOG, "%s", sp->health);
	sp->compaction.is_due |= sp->is_full; /* by now more segments are worth it */
	if (sp->retry_ns == 0)
		sp->retry_ns = journal_now_ns() + RETRY_NS;
}

static void journal_set_healthy(struct spool *sp)
{
	if (!atomic_load_explicit(&sp->is_unhealthy, memory_order_relaxed) || !sp->has_reserve)
		return;
	sp->is_full = false;
	atomic_store(&sp->is_unhealthy, false);
	log_warn(JOURNAL_LOG, "spool %s: accepts writes again", sp->name);
}

static void journal_set_write_error(struct spool *sp, const struct segment *seg, int e, const char *what)
{
	sp->is_full = e == ENOSPC || e == EDQUOT || e == EFBIG;
	if (sp->is_full)
		err_set(ERR_SPOOL_FULL, "spool %s: no space left in %s", sp->name, sp->path);
	else
		err_set_sys(e, "spool %s: %s of %s/%016llx.journal", sp->name, what, sp->path,
			    (unsigned long long)seg->seq);
}

static void journal_schedule_lazy_sync(struct spool *sp)
{
	if (sp->unsynced_ns == 0)
		sp->unsynced_ns = journal_now_ns();
}

static bool reserve_allocate(struct spool *sp, uint64_t n_bytes)
{
	int rc;
	do
		rc = fallocate(sp->reserve_fd, 0, 0, (off_t)n_bytes);
	while (rc != 0 && errno == EINTR);
	return rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS;
}

int journal_take_reserve(struct spool *sp)
{
	uint64_t n = sp->segment_bytes / 16;
	n = n < RESERVE_MIN ? RESERVE_MIN : n > RESERVE_MAX ? RESERVE_MAX : n;
	if (sp->has_reserve)
		return 0;
	/* It must fit twice, or what was given back a moment ago would be taken again before it was of use.
	 * Space ahead of the active segment, which removals may have taken meanwhile, must not stand in its
	 * way. */
	bool is_taken = reserve_allocate(sp, 2 * n);
	if (!is_taken && sp->active->n_allocated > sp->active->n_bytes)
		is_taken =
			segment_truncate(sp->active, sp->active->n_bytes) == 0 && reserve_allocate(sp, 2 * n);
	if (is_taken) {
		ftruncate_quietly(sp->reserve_fd, n);
		sp->has_reserve = true;
		return 0;
	}
	sp->is_full = true;
	ftruncate_quietly(sp->reserve_fd, 0); /* a part of it would be worse than nothing */
	err_set(ERR_SPOOL_FULL, "spool %s: no space left in %s", sp->name, sp->path);
	journal_set_unhealthy(sp);
	return -1;
}

void journal_release_reserve(struct spool *sp)
{
	if (sp->has_reserve)
		sp->retry_ns = journal_now_ns();
	sp->has_reserve = false;
	ftruncate_quietly(sp->reserve_fd, 0);
}

/* ---- the index follows ---- */

static void journal_apply_one(struct spool *sp, struct segment *seg, const struct applied *a)
{
	struct tomb tomb;
	if (a->type == FRAME_BODY)
		index_set_body(sp, a->key, seg, a->off8, a->n_payload);
	else if (a->type == FRAME_META)
		index_set_message(sp, &a->id, a->key, seg, a->off8, a->n_payload);
	else if (a->type == FRAME_KEY)
		index_set_key(sp, &a->id, (int64_t)a->key, seg, a->off8, a->n_payload);
	else if (index_remove(sp, &a->id, &tomb))
		index_note_tomb(sp, seg, &tomb);
}

static void journal_apply(struct spool *sp, const struct batch *b)
{
	for (size_t i = 0; i < b->n_applied;) {
		pthread_mutex_lock(&sp->lock);
		for (size_t end = i + APPLY_SLICE; i < b->n_applied && i < end; i++)
			journal_apply_one(sp, b->seg, &b->applied[i]);
		pthread_mutex_unlock(&sp->lock);
	}
}

static void journal_note_unsynced(struct spool *sp, const struct batch *b)
{
	size_t n = sp->n_unsynced + b->n_applied;
	if (n > sp->cap_unsynced) {
		sp->cap_unsynced = n * 2;
		sp->unsynced = xreallocarray(sp->unsynced, sp->cap_unsynced, sizeof *sp->unsynced);
	}
	memcpy(sp->unsynced + sp->n_unsynced, b->applied, b->n_applied * sizeof *b->applied);
	sp->n_unsynced = n;
}

static void journal_set_bytes(struct spool *sp, struct segment *seg, uint64_t n_bytes)
{
	pthread_mutex_lock(&sp->lock);
	sp->disk_bytes += n_bytes - seg->n_bytes;
	seg->n_bytes = n_bytes;
	pthread_mutex_unlock(&sp->lock);
}

/* ---- writing ---- */

static void journal_synced(struct spool *sp, struct segment *seg)
{
	seg->n_durable = seg->n_bytes;
	sp->synced_gen = sp->write_gen;
	sp->unsynced_ns = 0;
	sp->n_unsynced = 0;
	if (sp->cap_unsynced > BATCH_MAX_FRAMES) {
		free(sp->unsynced);
		sp->unsynced = NULL, sp->cap_unsynced = 0;
	}
}

int journal_sync(struct spool *sp)
{
	struct segment *seg = sp->active;
	sp->unsynced_ns = 0;
	if (sp->is_segment_broken) {
		err_set(ERR_IO, "spool %s: its last segment is broken", sp->name);
		return -1;
	}
	if (seg->n_durable == seg->n_bytes || segment_sync(seg) == 0) {
		journal_synced(sp, seg);
		return 0;
	}
	journal_set_write_error(sp, seg, errno, "fdatasync");
	journal_set_unhealthy(sp);
	sp->is_segment_broken = true;
	return -1;
}

static int journal_commit_failed(struct spool *sp, struct batch *b, int e, const char *what)
{
	journal_set_write_error(sp, b->seg, e, what);
	journal_set_unhealthy(sp);
	if (sp->is_full && !b->has_puts)
		journal_release_reserve(sp);
	return -1;
}

int journal_commit(struct spool *sp, struct batch *b, bool must_sync)
{
	struct segment *seg = b->seg;
	if (batch_flush(sp, b) != 0) {
		int e = b->sys_errno;
		if (segment_truncate(seg, b->start) != 0)
			sp->is_segment_broken = true;
		return journal_commit_failed(sp, b, e, "write");
	}
	if (must_sync && FAULT(spool_commit)) {
		sp->is_segment_broken = true;
		return journal_commit_failed(sp, b, EIO, "commit");
	}
	if (must_sync && segment_sync(seg) != 0) {
		sp->is_segment_broken = true;
		return journal_commit_failed(sp, b, errno, "fdatasync");
	}
	journal_set_bytes(sp, seg, b->end);
	sp->write_gen++;
	if (b->has_puts)
		metric_inc(sp->commits);
	if (must_sync) {
		journal_synced(sp, seg);
	} else if (sp->is_flushed && b->n_applied > 0) {
		journal_note_unsynced(sp, b);
		journal_schedule_lazy_sync(sp);
	}
	journal_apply(sp, b);
	if (b->cap_applied > 2 * BATCH_MAX_FRAMES) {
		free(b->applied);
		b->applied = NULL, b->n_applied = b->cap_applied = 0;
	}
	if (b->has_puts || !sp->is_full) /* that a removal finds room says nothing of puts */
		journal_set_healthy(sp);
	return 0;
}

/* ---- the next segment ---- */

/* Takes over the reference. */
static void journal_switch_to(struct spool *sp, struct segment *next)
{
	struct segment *old = sp->active;
	pthread_mutex_lock(&sp->lock);
	index_add_segment(sp, next);
	old->state = SEGMENT_SEALED;
	if (old->live_bytes == 0)
		sp->has_dead = true;
	pthread_mutex_unlock(&sp->lock);
	sp->active = next;
	sp->next_seq = next->seq + 1;
	sp->compaction.is_due = true; /* what had died in it by now was not looked at while it was active */
}

int journal_rotate(struct spool *sp)
{
	if (journal_sync(sp) != 0)
		return -1;
	struct segment *next = segment_create(sp, sp->next_seq, sp->active);
	if (next == NULL) {
		sp->is_full = err_is(ERR_SPOOL_FULL);
		journal_set_unhealthy(sp);
		return -1;
	}
	if (sp->active->n_allocated > sp->active->n_bytes)
		segment_truncate(sp->active, sp->active->n_bytes); /* gives space back, no more */
	journal_switch_to(sp, next);
	return 0;
}

void journal_seal_dead(struct spool *sp)
{
	const struct segment *seg = sp->active;
	uint64_t n = seg->n_bytes - JOURNAL_HEAD_BYTES, n_dead = n - seg->live_bytes;
	if (!sp->is_full || sp->is_segment_broken || n_dead < RESERVE_MIN || n_dead < seg->live_bytes ||
	    journal_rotate(sp) == 0)
		return;
	if (sp->is_full)
		journal_release_reserve(sp); /* a header has room then, at the next attempt */
	err_clear();
}

/* Whether the index refers to this very frame. */
static bool rescue_is_live(struct spool *sp, const struct segment *old, const struct applied *a)
{
	if (a->type == FRAME_META) {
		const struct index_entry *e = index_find(sp, &a->id);
		return e != NULL && e->slot == old->slot && e->off8 == a->off8;
	}
	if (a->type == FRAME_KEY) {
		const struct index_key *k = index_find_key(sp, &a->id);
		return k != NULL && k->slot == old->slot && k->off8 == a->off8;
	}
	const struct index_body *body = index_find_body(sp, a->key);
	return body != NULL && body->slot == old->slot && body->off8 == a->off8;
}

/* One frame of the broken segment, if it still counts, to the batch; reads it back from the page cache. */
static void journal_rescue_one(struct spool *sp, struct batch *b, struct segment_reader *r,
			       const struct applied *a)
{
	struct segment *old = r->seg;
	uint64_t offset = (uint64_t)a->off8 * 8;
	struct frame_head h = {.type = (uint8_t)a->type, .id = a->id, .key = htole64(a->key)};

	if (a->type == FRAME_TOMB) {
		if (index_find(sp, &a->id) == NULL)
			batch_add(sp, b, &h, NULL);
		return;
	}
	if (!rescue_is_live(sp, old, a))
		return;
	const char *p = segment_reader_get(r, offset, sizeof h);
	struct frame_head was;
	if (p != NULL)
		memcpy(&was, p, sizeof was);
	if (p == NULL || !frame_head_is_valid(&was, old->salt, offset) ||
	    le32toh(was.n_payload) != a->n_payload) {
		journal_report_damage(sp, old, offset, "a frame is lost after a failed fdatasync");
		return;
	}
	char *payload = xmalloc(a->n_payload + 1);
	ssize_t got = pread(old->fd, payload, a->n_payload, (off_t)(offset + sizeof h));
	if (got != (ssize_t)a->n_payload || crc32c(0, payload, a->n_payload) != le32toh(was.payload_crc)) {
		journal_report_damage(sp, old, offset, "a frame is lost after a failed fdatasync");
	} else {
		h.n_payload = was.n_payload;
		h.payload_crc = was.payload_crc;
		batch_add(sp, b, &h, payload);
		batch_flush(sp, b); /* before payload goes; its failure is kept in the batch */
	}
	free(payload);
}

/* Gives up the active segment beyond its durable part and goes on in a new one. */
static int journal_rescue(struct spool *sp)
{
	struct segment *old = sp->active;
	if (!sp->is_flushed)
		/* nobody was promised more than the page cache, which still has it */
		old->n_durable = old->n_bytes;
	struct segment *next = segment_create(sp, sp->next_seq, old);
	if (next == NULL) {
		sp->is_full = err_is(ERR_SPOOL_FULL);
		return -1;
	}
	sp->next_seq++;
	pthread_mutex_lock(&sp->lock);
	index_add_segment(sp, next); /* it needs a slot before frames can point to it */
	pthread_mutex_unlock(&sp->lock);

	struct batch b;
	struct segment_reader r;
	batch_init(&b);
	batch_begin(&b, next);
	segment_reader_init(&r, old, UINT64_MAX / 2);
	for (size_t i = 0; i < sp->n_unsynced; i++)
		journal_rescue_one(sp, &b, &r, &sp->unsynced[i]);
	segment_reader_fini(&r);
	int rc = batch_flush(sp, &b);
	int e = b.sys_errno;
	if (rc == 0 && (rc = segment_sync(next)) != 0)
		e = errno;
	if (rc != 0) {
		journal_set_write_error(sp, next, e, "rescue");
		bool is_gone = segment_remove(sp, next) == 0; /* what it repeats will be repeated again */
		pthread_mutex_lock(&sp->lock);
		if (is_gone)
			index_drop_segment(sp, next);
		else
			next->state = SEGMENT_SEALED, sp->has_dead = true;
		pthread_mutex_unlock(&sp->lock);
		batch_fini(&b);
		return -1;
	}
	log_error(JOURNAL_LOG, "spool %s: segment %016llx is given up beyond %llu bytes; going on in %016llx",
		  sp->name, (unsigned long long)old->seq, (unsigned long long)old->n_durable,
		  (unsigned long long)next->seq);
	journal_set_bytes(sp, next, b.end);
	journal_apply(sp, &b);
	for (size_t i = 0; i < b.n_applied; i++) {
		/* Tombs of the lost part: which segments they concern was noted with that part, or is not
		 * known any more. */
		struct tomb tomb = {b.applied[i].id, 0, (uint32_t)old->seq};
		pthread_mutex_lock(&sp->lock);
		if (b.applied[i].type == FRAME_TOMB)
			index_note_tomb(sp, next, &tomb);
		pthread_mutex_unlock(&sp->lock);
	}
	journal_set_bytes(sp, old, old->n_durable);
	old->is_overlong = segment_truncate(old, old->n_durable) != 0;
	pthread_mutex_lock(&sp->lock);
	old->state = SEGMENT_SEALED;
	sp->has_dead = true;
	pthread_mutex_unlock(&sp->lock);
	sp->active = next;
	sp->is_segment_broken = false;
	sp->write_gen++;
	journal_synced(sp, next);
	batch_fini(&b);
	return 0;
}

int journal_make_room(struct spool *sp, uint64_t n_bytes)
{
	uint64_t n_used = sp->active->n_bytes;
	bool is_full = n_used > JOURNAL_HEAD_BYTES && n_used + n_bytes > sp->segment_bytes;
	if (!sp->is_segment_broken && (!is_full || journal_rotate(sp) == 0))
		return 0;
	if (!sp->is_segment_broken)
		return -1;
	if (journal_rescue(sp) == 0) /* which ends in a fresh segment as well */
		return 0;
	journal_set_unhealthy(sp);
	return -1;
}
