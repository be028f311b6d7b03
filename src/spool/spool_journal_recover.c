/* spool_journal_recover.c - from the files to the index.
 *
 * Segments are replayed in order of seq. How far a segment is known to have been durable decides what damage
 * means:
 *  - A segment with a successor was synced before that was made, up to the length in the successor's header;
 *    what lies beyond never counted and is not read. In the last one every frame says how far it was durable
 *    when the frame was written (synced8), and a first pass finds the largest of these.
 *  - Below that offset everything was acknowledged. What does not verify is damage: it is reported with file
 *    and offset, counted, the scan goes on at the next place where a valid frame stands, and only what was
 *    hit is affected. A damaged BODY leaves its messages in the index, so that whoever loads them gets
 *    ERR_CORRUPT and can say which mail was lost.
 *  - Above it, a crash may have torn anything. A group counts only when all its frames are there; what does
 *    not count is overwritten with PAD frames, since for the next recovery it will lie below; the rest of the
 *    file after the last valid frame is cut off. Whole groups after a hole are kept: if the hole is damage,
 *    they were acknowledged.
 * Payloads over 64 KB are not read in the durable part: their head is verified, and their CRC when they are
 * loaded. Keys that have expired are left out. A new segment is begun at every open, so a salt is never used
 * for two lives of a tail. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LAZY_PAYLOAD (64u << 10)
#define DAMAGE_LOG_MAX 1000 /* lines; all are counted */

struct hole { /* torn: to be covered with PAD frames */
	uint64_t from, to;
};

struct scan {
	struct spool *sp;
	struct segment *seg;
	struct segment_reader r;
	uint64_t durable; /* damage below is damage; above, a crash may be the cause */
	uint64_t end;	  /* of the last valid frame */
	bool is_last;
	bool has_payload; /* of the frame in hand: its CRC was right, or not looked at */
	/* above durable: the group that is being read */
	uint32_t group; /* 0: none */
	struct applied *member;
	size_t n_member, cap_member;
	uint64_t group_from;
	struct hole *hole;
	size_t n_hole, cap_hole;
};

void journal_report_damage(struct spool *sp, struct segment *seg, uint64_t offset, const char *fmt, ...)
{
	char text[200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	atomic_store(&seg->is_damaged, true);
	pthread_mutex_lock(&sp->lock);
	uint64_t n = ++sp->n_damaged;
	pthread_mutex_unlock(&sp->lock);
	if (n <= DAMAGE_LOG_MAX)
		log_error(JOURNAL_LOG, "spool %s: damage in %s/%016llx.journal at offset %llu: %s", sp->name,
			  sp->path, (unsigned long long)seg->seq, (unsigned long long)offset, text);
}

/* ---- one segment ---- */

static void scan_add_hole(struct scan *sc, uint64_t from, uint64_t to)
{
	if (sc->n_hole > 0 && sc->hole[sc->n_hole - 1].to == from) {
		sc->hole[sc->n_hole - 1].to = to;
		return;
	}
	if (sc->n_hole == sc->cap_hole) {
		sc->cap_hole = sc->cap_hole == 0 ? 8 : sc->cap_hole * 2;
		sc->hole = xreallocarray(sc->hole, sc->cap_hole, sizeof *sc->hole);
	}
	sc->hole[sc->n_hole++] = (struct hole){from, to};
}

static void scan_apply(struct scan *sc, const struct applied *a)
{
	struct tomb tomb;
	if (a->type == FRAME_BODY)
		index_set_body(sc->sp, a->key, sc->seg, a->off8, a->n_payload);
	else if (a->type == FRAME_META)
		index_set_message(sc->sp, &a->id, a->key, sc->seg, a->off8, a->n_payload);
	else if (a->type == FRAME_KEY)
		index_set_key(sc->sp, &a->id, (int64_t)a->key, sc->seg, a->off8, a->n_payload);
	else if (index_remove(sc->sp, &a->id, &tomb))
		index_note_tomb(sc->sp, sc->seg, &tomb);
}

/* The open group did not end as it should: it never counted. */
static void scan_drop_group(struct scan *sc, uint64_t to)
{
	if (sc->group == 0)
		return;
	scan_add_hole(sc, sc->group_from, to);
	sc->group = 0;
	sc->n_member = 0;
}

static void scan_group_member(struct scan *sc, const struct frame_head *h, const struct applied *a,
			      uint64_t offset)
{
	uint32_t group = le32toh(h->group), index = le32toh(h->index);
	uint64_t end = offset + frame_bytes(a->n_payload);
	if (sc->group != 0 && sc->group != group)
		scan_drop_group(sc, offset);
	if (sc->group == 0) {
		sc->group = group;
		sc->group_from = offset;
		sc->n_member = 0;
	}
	if (!sc->has_payload || index != sc->n_member) { /* a member is missing or damaged */
		scan_drop_group(sc, end);
		if ((h->flags & FRAME_LAST) == 0)
			sc->group = group, sc->group_from = end,
			sc->n_member = SIZE_MAX / 2; /* the rest of it neither */
		return;
	}
	if (sc->n_member == sc->cap_member) {
		sc->cap_member = sc->cap_member == 0 ? 64 : sc->cap_member * 2;
		sc->member = xreallocarray(sc->member, sc->cap_member, sizeof *sc->member);
	}
	sc->member[sc->n_member++] = *a;
	if ((h->flags & FRAME_LAST) != 0) {
		for (size_t i = 0; i < sc->n_member; i++)
			scan_apply(sc, &sc->member[i]);
		sc->group = 0;
		sc->n_member = 0;
	}
}

static void scan_report_payload(struct scan *sc, const struct applied *a, uint64_t offset)
{
	char id[33];
	uuid_fmt_simple(&a->id, id);
	if (a->type == FRAME_BODY)
		journal_report_damage(sc->sp, sc->seg, offset,
				      "the %u bytes of a body do not match their checksum", a->n_payload);
	else
		journal_report_damage(sc->sp, sc->seg, offset, "the %s %s does not match its checksum",
				      a->type == FRAME_KEY ? "answer under the key" : "record of message",
				      id);
}

static void scan_frame(struct scan *sc, const struct frame_head *h, uint64_t offset)
{
	struct applied a = {.type = h->type,
			    .id = h->id,
			    .key = le64toh(h->key),
			    .off8 = (uint32_t)(offset / 8),
			    .n_payload = le32toh(h->n_payload)};
	bool is_grouped = (h->flags & FRAME_GROUPED) != 0;
	if (h->type == FRAME_PAD || h->type == FRAME_MARK) {
		scan_drop_group(sc, offset);
		return;
	}
	uint32_t crc = 0;
	sc->has_payload = (a.n_payload > LAZY_PAYLOAD && offset < sc->durable) ||
			  (segment_reader_crc(&sc->r, offset + sizeof *h, a.n_payload, &crc) == 0 &&
			   crc == le32toh(h->payload_crc));
	if (offset >= sc->durable && is_grouped) {
		scan_group_member(sc, h, &a, offset);
		return;
	}
	scan_drop_group(sc, offset);
	if (offset >= sc->durable && a.type == FRAME_META && index_find(sc->sp, &a.id) == NULL &&
	    index_find_body(sc->sp, a.key) == NULL) {
		scan_add_hole(sc, offset,
			      offset + frame_bytes(a.n_payload)); /* an update of a put that was torn */
		return;
	}
	if (!sc->has_payload) {
		scan_report_payload(sc, &a, offset);
		if (a.type != FRAME_BODY)
			return;
	}
	scan_apply(sc, &a);
}

/* The next valid frame at or after *offset. False at the
 * end. Gaps before it are reported, or noted as torn. */
static bool scan_next(struct scan *sc, uint64_t *offset, struct frame_head *h, bool is_dry)
{
	uint64_t at = *offset;
	const char *p = segment_reader_get(&sc->r, at, sizeof *h);
	if (p != NULL)
		memcpy(h, p, sizeof *h);
	if (p != NULL && frame_head_is_valid(h, sc->seg->salt, at) &&
	    at + frame_bytes(le32toh(h->n_payload)) <= sc->r.limit)
		return true;
	at = segment_reader_resync(&sc->r, at);
	bool is_end = at >= sc->r.limit;
	p = is_end ? NULL : segment_reader_get(&sc->r, at, sizeof *h);
	if (p != NULL)
		memcpy(h, p, sizeof *h);
	if (!is_dry && *offset < sc->r.limit && (!is_end || *offset < sc->durable))
		journal_report_damage(sc->sp, sc->seg, *offset, "%llu bytes are no frame",
				      (unsigned long long)(at - *offset));
	if (!is_dry && !is_end && *offset >= sc->durable) {
		scan_drop_group(sc, *offset);
		scan_add_hole(sc, *offset, at);
	}
	*offset = at;
	return p != NULL;
}

static uint64_t scan_find_durable(struct scan *sc)
{
	uint64_t durable = JOURNAL_HEAD_BYTES, offset = JOURNAL_HEAD_BYTES;
	struct frame_head h;
	while (scan_next(sc, &offset, &h, true)) {
		uint64_t synced = (uint64_t)le32toh(h.synced8) * 8;
		if (synced > durable)
			durable = synced;
		offset += frame_bytes(le32toh(h.n_payload));
	}
	return durable;
}

static void scan_segment(struct scan *sc)
{
	struct frame_head h;
	uint64_t offset = JOURNAL_HEAD_BYTES;
	if (sc->is_last)
		sc->durable = scan_find_durable(sc);
	sc->end = JOURNAL_HEAD_BYTES;
	while (scan_next(sc, &offset, &h, false)) {
		scan_frame(sc, &h, offset);
		offset += frame_bytes(le32toh(h.n_payload));
		sc->end = offset;
	}
	scan_drop_group(sc, sc->end);
	if (sc->durable > sc->r.limit)
		journal_report_damage(sc->sp, sc->seg, sc->r.limit,
				      "the file is %llu bytes shorter than it was",
				      (unsigned long long)(sc->durable - sc->r.limit));
}

/* ---- repair of the last one ---- */

static int repair_hole(struct scan *sc, struct hole hole)
{
	while (hole.from < hole.to) {
		uint64_t n = hole.to - hole.from - sizeof(struct frame_head);
		if (n > JOURNAL_PAYLOAD_MAX)
			n = JOURNAL_PAYLOAD_MAX;
		struct frame_head h = {.type = FRAME_PAD, .n_payload = htole32((uint32_t)n)};
		frame_seal(&h, sc->seg, hole.from);
		if (segment_writev(sc->seg, &(struct iovec){&h, sizeof h}, 1, hole.from) != 0)
			return -1;
		hole.from += frame_bytes(n);
	}
	return 0;
}

static int repair_last(struct scan *sc)
{
	struct segment *seg = sc->seg;
	uint64_t n_cut = seg->n_bytes - sc->end;
	seg->n_durable = 0; /* what a PAD frame says of it */
	for (size_t i = 0; i < sc->n_hole; i++) {
		log_warn(JOURNAL_LOG,
			 "spool %s: %s/%016llx.journal, bytes %llu to %llu: writes that did not end",
			 sc->sp->name, sc->sp->path, (unsigned long long)seg->seq,
			 (unsigned long long)sc->hole[i].from, (unsigned long long)sc->hole[i].to);
		if (repair_hole(sc, sc->hole[i]) != 0)
			goto fail;
	}
	if (n_cut > 0) {
		log_warn(JOURNAL_LOG,
			 "spool %s: %s/%016llx.journal: cut %llu bytes of a torn write at offset %llu",
			 sc->sp->name, sc->sp->path, (unsigned long long)seg->seq, (unsigned long long)n_cut,
			 (unsigned long long)sc->end);
	}
	if (segment_truncate(seg, sc->end) != 0) /* gives back the space that was allocated ahead, too */
		goto fail;
	/* What a killed process left in the page cache counts from now on, so it must be on the disk. */
	if (segment_sync(seg) != 0)
		goto fail;
	sc->sp->disk_bytes -= n_cut;
	seg->n_bytes = seg->n_durable = sc->end;
	return 0;
fail:
	err_set_sys(errno, "spool %s: cannot repair %s/%016llx.journal", sc->sp->name, sc->sp->path,
		    (unsigned long long)seg->seq);
	return -1;
}

/* ---- all of them ---- */

static int seq_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static bool seq_parse(const char *name, const char *suffix, uint64_t *seq)
{
	uint64_t v = 0;
	for (int i = 0; i < 16; i++) {
		char c = name[i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
		v = v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	*seq = v;
	return strcmp(name + 16, suffix) == 0;
}

static int recover_list(struct spool *sp, uint64_t **seq, size_t *n)
{
	size_t cap = 0;
	int fd = dup(sp->dir_fd);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (d == NULL) {
		err_set_sys(errno, "spool %s: cannot list %s", sp->name, sp->path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	rewinddir(d);
	for (struct dirent *e; (errno = 0, e = readdir(d)) != NULL;) {
		uint64_t s;
		if (seq_parse(e->d_name, ".tmp", &s)) {
			unlinkat(sp->dir_fd, e->d_name, 0); /* a segment that was never begun */
		} else if (seq_parse(e->d_name, ".journal", &s) && s > 0 && s < UINT32_MAX) {
			if (*n == cap) {
				cap = cap == 0 ? 64 : cap * 2;
				*seq = xreallocarray(*seq, cap, sizeof **seq);
			}
			(*seq)[(*n)++] = s;
		}
	}
	int e = errno;
	closedir(d);
	if (e != 0) {
		err_set_sys(e, "spool %s: cannot list %s", sp->name, sp->path);
		return -1;
	}
	if (*n > 1)
		qsort(*seq, *n, sizeof **seq, seq_cmp);
	return 0;
}

/* Opens all segments; those without a header are left alone. */
static int recover_open(struct spool *sp, const uint64_t *seq, size_t n, struct segment_head *head)
{
	size_t n_bad = 0;
	for (size_t i = 0; i < n; i++) {
		struct segment *seg = segment_open(sp, seq[i], &head[sp->n_segments]);
		if (seg != NULL) {
			index_add_segment(sp, seg);
			continue;
		}
		if (!err_is(ERR_CORRUPT))
			return -1;
		log_error(JOURNAL_LOG, "%s; its messages cannot be recovered, the file is left as it is",
			  err_text());
		sp->n_damaged++;
		n_bad++;
	}
	if (n_bad > 0 && n_bad == n)
		return -1;
	err_clear();
	return 0;
}

static int recover_replay(struct spool *sp, const struct segment_head *head)
{
	for (size_t i = 0; i < sp->n_segments; i++) {
		struct segment *seg = sp->by_seq[i];
		struct scan sc = {
			.sp = sp, .seg = seg, .is_last = i + 1 == sp->n_segments, .durable = seg->n_bytes};
		if (!sc.is_last && le64toh(head[i + 1].prev_seq) == seg->seq)
			sc.durable = le64toh(head[i + 1].prev_durable);
		uint64_t limit = seg->n_bytes;
		if (!sc.is_last && sc.durable < limit) {
			limit = sc.durable; /* the rest failed to become durable and was repeated elsewhere */
			seg->is_overlong = true;
			sp->disk_bytes -= seg->n_bytes - limit;
			seg->n_bytes = seg->n_durable = limit;
		}
		segment_reader_init(&sc.r, seg, limit);
		scan_segment(&sc);
		segment_reader_fini(&sc.r);
		int rc = sc.is_last ? repair_last(&sc) : 0;
		free(sc.member);
		free(sc.hole);
		if (rc != 0)
			return -1;
	}
	return 0;
}

static bool sweep_keeps(void *row, void *arg)
{
	const struct index_body *b = row;
	return b->n_refs > 0;
}

/* After the last frame: bodies that nobody refers to go, messages whose body is nowhere are reported. */
static void recover_sweep(struct spool *sp)
{
	uint64_t pos = 0;
	for (uint32_t shard = 0; shard < TABLE_SHARDS; shard++)
		table_filter_shard(&sp->bodies, shard, sweep_keeps, NULL);
	sp->is_replaying = false;

	for (struct index_entry *e; (e = table_next(&sp->messages, &pos)) != NULL;) {
		const struct index_body *b = index_find_body(sp, e->body_key);
		if (b->slot == 0) {
			char id[33];
			uuid_fmt_simple(&e->id, id);
			journal_report_damage(sp, sp->slot[e->slot], (uint64_t)e->off8 * 8,
					      "the body of message %s is nowhere", id);
		}
	}
}

int journal_recover(struct spool *sp)
{
	int rc = -1;
	uint64_t *seq = NULL;
	size_t n = 0;
	struct segment_head *head = NULL;
	int64_t from = journal_now_ns();

	if (recover_list(sp, &seq, &n) != 0)
		goto out;
	head = xcalloc(n + 1, sizeof *head);
	sp->next_seq = n > 0 ? seq[n - 1] + 1 : 1;
	sp->is_replaying = true;
	if (recover_open(sp, seq, n, head) != 0 || recover_replay(sp, head) != 0)
		goto out;
	recover_sweep(sp);
	sp->has_dead = true;
	sp->compaction.is_due = true;
	log_info(JOURNAL_LOG,
		 "spool %s: %llu messages "
		 "and %llu keys in %zu segments, %llu bytes, "
		 "read in %.3f s; %llu places are damaged",
		 sp->name, (unsigned long long)sp->messages.n, (unsigned long long)sp->keys.n, sp->n_segments,
		 (unsigned long long)sp->disk_bytes, (double)(journal_now_ns() - from) / 1e9,
		 (unsigned long long)sp->n_damaged);
	rc = 0;
out:
	free(seq);
	free(head);
	return rc;
}
