/* spool_journal_read.c - reading back: bodies, messages, answers, and all that was there at open.
 *
 * A reader finds a place in the index under sp->lock and takes a reference to its segment, whose file stays
 * readable through that whatever becomes of it: frames never change, they only die. The bytes are read at
 * once when the page cache has them, else on an offload thread, and every frame is verified against its
 * place.
 *
 * The snapshot for spool_enumerate() is a list of places, taken at open in order of storage. A message that
 * was removed meanwhile is left out, one that was moved by compaction is read where it is now. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"
#include "fiber/offload.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define SNAPSHOT_BATCH 128
#define SNAPSHOT_GUESS 2048
#define READ_INLINE_MAX (1u << 20)

/* ---- reading ---- */

/* Where a frame is and what it must be. A reference to the
 * segment keeps its file readable, unlinked or not. */
struct place {
	struct segment *seg;
	uint64_t offset;
	uint32_t n_payload;
	enum frame_type type;
	struct uuid id; /* META, KEY */
	uint64_t key;	/* as in the frame's head */
};

struct read_job {
	struct spool *sp;
	struct place place;
	struct frame_head head;
	char *payload; /* place.n_payload bytes */
};

static ssize_t read_frame_bytes(struct read_job *j, int flags)
{
	struct iovec iov[2] = {{&j->head, sizeof j->head}, {j->payload, j->place.n_payload}};
	return preadv2(j->place.seg->fd, iov, 2, (off_t)j->place.offset, flags);
}

static int read_frame(void *arg)
{
	struct read_job *j = arg;
	const struct place *pl = &j->place;
	size_t want = sizeof j->head + pl->n_payload;
	if (FAULT(spool_read)) {
		err_set_sys(EIO, "spool %s: cannot read segment %016llx", j->sp->name,
			    (unsigned long long)pl->seg->seq);
		return -1;
	}
	ssize_t got = read_frame_bytes(j, 0);
	while (got >= 0 && (size_t)got < want) { /* a signal, or more than 2 GiB */
		size_t have = (size_t)got;
		if (have < sizeof j->head)
			break;
		ssize_t more = pread(pl->seg->fd, j->payload + (have - sizeof j->head), want - have,
				     (off_t)(pl->offset + have));
		if (more < 0 && errno == EINTR)
			continue;
		if (more <= 0) {
			got = more < 0 ? -1 : got;
			break;
		}
		got += more;
	}
	if (got < 0) {
		err_set_sys(errno, "spool %s: cannot read segment %016llx at %llu", j->sp->name,
			    (unsigned long long)pl->seg->seq, (unsigned long long)pl->offset);
		return -1;
	}
	if ((size_t)got < want)
		memset(&j->head, 0, sizeof j->head);
	return 0;
}

static const char *read_what(const struct place *pl)
{
	return pl->type == FRAME_BODY ? "body" : pl->type == FRAME_META ? "record" : "answer";
}

static int read_verify(struct read_job *j)
{
	const struct place *pl = &j->place;
	const struct frame_head *h = &j->head;
	bool is_ok = frame_head_is_valid(h, pl->seg->salt, pl->offset) && h->type == pl->type &&
		     le32toh(h->n_payload) == pl->n_payload && le64toh(h->key) == pl->key &&
		     (pl->type == FRAME_BODY || uuid_eq(&h->id, &pl->id)) &&
		     crc32c(0, j->payload, pl->n_payload) == le32toh(h->payload_crc);
	if (is_ok)
		return 0;
	journal_report_damage(j->sp, pl->seg, pl->offset, "a stored %s does not match its checksum",
			      read_what(pl));
	err_set(ERR_CORRUPT, "spool %s: a stored %s is damaged: %s/%016llx.journal at offset %llu",
		j->sp->name, read_what(pl), j->sp->path, (unsigned long long)pl->seg->seq,
		(unsigned long long)pl->offset);
	return -1;
}

/* The payload is read at once when the page cache has it, which costs less than a trip to another thread. */
static int read_place(struct read_job *j, mono_t deadline)
{
	size_t want = sizeof j->head + j->place.n_payload;
#ifdef CIRRUS_FAULTS
	bool may_inline = false; /* so that spool_read is passed */
#else
	bool may_inline = want <= READ_INLINE_MAX;
#endif
	if (!may_inline || read_frame_bytes(j, RWF_NOWAIT) != (ssize_t)want) {
		if (offload_run(read_frame, j, deadline) != 0)
			return -1;
	}
	return read_verify(j);
}

static int place_not_found(struct spool *sp, const char *what, const struct uuid *id)
{
	char name[33];
	uuid_fmt_simple(id, name);
	err_set(ERR_NOT_FOUND, "spool %s: %s %s is not stored", sp->name, what, name);
	return -1;
}

/* Takes a reference to the segment. */
static int place_of_message(struct spool *sp, const struct uuid *id, struct place *out)
{
	pthread_mutex_lock(&sp->lock);
	const struct index_entry *e = index_find(sp, id);
	if (e != NULL)
		*out = (struct place){.seg = segment_ref(sp->slot[e->slot]),
				      .offset = (uint64_t)e->off8 * 8,
				      .n_payload = e->n_record,
				      .type = FRAME_META,
				      .id = *id,
				      .key = e->body_key};
	pthread_mutex_unlock(&sp->lock);
	return e != NULL ? 0 : place_not_found(sp, "message", id);
}

static int place_of_body(struct spool *sp, const struct uuid *id, struct place *out)
{
	int rc = -1;
	pthread_mutex_lock(&sp->lock);
	const struct index_entry *e = index_find(sp, id);
	const struct index_body *b = e != NULL ? index_find_body(sp, e->body_key) : NULL;
	if (b != NULL && b->slot != 0) {
		*out = (struct place){.seg = segment_ref(sp->slot[b->slot]),
				      .offset = (uint64_t)b->off8 * 8,
				      .n_payload = b->n_bytes,
				      .type = FRAME_BODY,
				      .key = b->key};
		rc = 0;
	}
	pthread_mutex_unlock(&sp->lock);
	if (e == NULL)
		return place_not_found(sp, "message", id);
	if (rc != 0) {
		char name[33];
		uuid_fmt_simple(id, name);
		err_set(ERR_CORRUPT, "spool %s: the body of message %s was lost by damage", sp->name, name);
	}
	return rc;
}

int spool_load_body(struct spool *sp, struct message *m, mono_t deadline)
{
	struct read_job j = {.sp = sp};
	if (place_of_body(sp, &m->id, &j.place) != 0)
		return -1;
	struct body *body = body_alloc(j.place.n_payload);
	j.payload = body->p;
	int rc = read_place(&j, deadline);
	if (rc == 0)
		message_set_body(m, body);
	body_unref(body);
	segment_unref(j.place.seg);
	return rc;
}

static struct message *load_record(struct spool *sp, const struct uuid *id, mono_t deadline)
{
	struct message *m = NULL;
	struct read_job j = {.sp = sp};
	if (place_of_message(sp, id, &j.place) != 0)
		return NULL;
	j.payload = xmalloc(j.place.n_payload + 1);
	if (read_place(&j, deadline) == 0)
		m = message_decode(id, str_mk(j.payload, j.place.n_payload));
	if (m != NULL)
		m->is_spooled = true;
	free(j.payload);
	segment_unref(j.place.seg);
	return m;
}

int spool_load_meta(struct spool *sp, struct message *m, mono_t deadline)
{
	struct message *stored = load_record(sp, &m->id, deadline);
	if (stored == NULL)
		return -1;
	message_take_meta(m, stored);
	message_unref(stored);
	return 0;
}

struct message *spool_load(struct spool *sp, const struct uuid *id, mono_t deadline)
{
	struct message *m = load_record(sp, id, deadline);
	if (m != NULL && spool_load_body(sp, m, deadline) != 0) {
		message_unref(m);
		m = NULL;
	}
	return m;
}

/* ---- keys ---- */

static int place_of_key(struct spool *sp, const struct uuid *id, struct place *out)
{
	pthread_mutex_lock(&sp->lock);
	const struct index_key *k = index_find_key(sp, id);
	bool is_there = k != NULL && key_is_alive(k);
	if (is_there)
		*out = (struct place){.seg = segment_ref(sp->slot[k->slot]),
				      .offset = (uint64_t)k->off8 * 8,
				      .n_payload = k->n_payload,
				      .type = FRAME_KEY,
				      .id = *id,
				      .key = (uint64_t)k->expires_ns};
	pthread_mutex_unlock(&sp->lock);
	return is_there ? 0 : place_not_found(sp, "key", id);
}

int spool_load_key(struct spool *sp, const struct uuid *id, struct spool_key *out, struct buf *bytes,
		   mono_t deadline)
{
	struct read_job j = {.sp = sp};
	if (place_of_key(sp, id, &j.place) != 0)
		return -1;
	buf_clear(bytes);
	buf_reserve(bytes, j.place.n_payload + 1);
	j.payload = bytes->p;
	int rc = read_place(&j, deadline);
	segment_unref(j.place.seg);
	if (rc != 0)
		return -1;
	bytes->n = j.place.n_payload;
	bytes->p[bytes->n] = 0;
	*out = (struct spool_key){.id = *id,
				  .expires = {(int64_t)j.place.key},
				  .answer = str_skip(buf_str(bytes), KEY_PRINT_BYTES)};
	memcpy(out->print, bytes->p, KEY_PRINT_BYTES);
	return 0;
}

/* ---- enumeration ---- */

static int snapshot_cmp(const void *a, const void *b)
{
	const struct snapshot_item *x = a, *y = b;
	return x->seg != y->seg ? (x->seg > y->seg) - (x->seg < y->seg)
				: (x->off8 > y->off8) - (x->off8 < y->off8);
}

/* What spool_enumerate will go through. At open slots were given out in order of seq. */
void journal_take_snapshot(struct spool *sp)
{
	uint64_t pos = 0;
	size_t n = 0;
	sp->n_snapshot_seg = sp->n_slots;
	sp->snapshot_seg = xcalloc(sp->n_slots + 1, sizeof(struct segment *));
	for (uint32_t i = 1; i < sp->n_slots; i++)
		sp->snapshot_seg[i] = sp->slot[i] != NULL ? segment_ref(sp->slot[i]) : NULL;
	sp->snapshot = xcalloc(sp->messages.n + 1, sizeof *sp->snapshot);
	for (const struct index_entry *e; (e = table_next(&sp->messages, &pos)) != NULL;)
		sp->snapshot[n++] = (struct snapshot_item){e->slot, e->off8};
	sp->n_snapshot = n;
	qsort(sp->snapshot, n, sizeof *sp->snapshot, snapshot_cmp);
}

void journal_drop_snapshot(struct spool *sp)
{
	for (uint32_t i = 0; i < sp->n_snapshot_seg; i++)
		segment_unref(sp->snapshot_seg[i]);
	free(sp->snapshot_seg);
	free(sp->snapshot);
	sp->snapshot_seg = NULL;
	sp->snapshot = NULL;
	sp->n_snapshot = sp->at_snapshot = sp->n_snapshot_seg = 0;
}

struct enum_job {
	struct spool *sp;
	size_t n;
	struct message *m[SNAPSHOT_BATCH]; /* NULL: gone meanwhile, or damaged */
};

/* The message at a place of the snapshot. What it says may be old by now (somebody put the same id again),
 * whether it is there is not: then the record is the index's. */
static struct message *snapshot_read(struct spool *sp, const struct snapshot_item *at)
{
	struct segment *seg = sp->snapshot_seg[at->seg];
	struct message *m = NULL;
	char guess[SNAPSHOT_GUESS], *heap = NULL; /* head and record in one read, mostly */
	uint64_t offset = (uint64_t)at->off8 * 8;
	struct read_job j = {.sp = sp};
	ssize_t got = pread(seg->fd, guess, sizeof guess, (off_t)offset);
	if (got >= (ssize_t)sizeof j.head)
		memcpy(&j.head, guess, sizeof j.head);
	if (got < (ssize_t)sizeof j.head || !frame_head_is_valid(&j.head, seg->salt, offset)) {
		journal_report_damage(sp, seg, offset, "a record cannot be read any more");
		return NULL;
	}
	if (place_of_message(sp, &j.head.id, &j.place) != 0) {
		err_clear();
		return NULL;
	}
	bool is_same = j.place.seg == seg && j.place.offset == offset;
	j.payload = guess + sizeof j.head;
	if (!is_same || sizeof j.head + j.place.n_payload > (size_t)got) {
		is_same = false;
		j.payload = heap = xmalloc(j.place.n_payload + 1);
	}
	if ((is_same || read_frame(&j) == 0) && read_verify(&j) == 0)
		m = message_decode(&j.place.id, str_mk(j.payload, j.place.n_payload));
	if (m != NULL)
		m->is_spooled = true;
	else
		log_error(JOURNAL_LOG, "%s; the message is left out", err_text());
	err_clear();
	free(heap);
	segment_unref(j.place.seg);
	return m;
}

static int snapshot_read_batch(void *arg)
{
	struct enum_job *j = arg;
	struct spool *sp = j->sp;
	j->n = sp->n_snapshot - sp->at_snapshot;
	if (j->n > SNAPSHOT_BATCH)
		j->n = SNAPSHOT_BATCH;
	for (size_t i = 0; i < j->n; i++)
		j->m[i] = snapshot_read(sp, &sp->snapshot[sp->at_snapshot + i]);
	return 0;
}

int spool_enumerate(struct spool *sp, spool_enum_fn *fn, void *arg, mono_t deadline)
{
	struct enum_job j = {.sp = sp};
	while (sp->at_snapshot < sp->n_snapshot) {
		if (offload_run(snapshot_read_batch, &j, deadline) != 0)
			return -1;
		sp->at_snapshot += j.n;
		for (size_t i = 0; i < j.n; i++) {
			if (j.m[i] != NULL)
				fn(j.m[i], arg);
		}
	}
	journal_drop_snapshot(sp);
	return 0;
}
