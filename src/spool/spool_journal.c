/* spool_journal.c - the journal: a spool of append-only segment files, and its public functions.
 *
 * On disk: <path>/lock (flock, holds the pid), <path>/reserve (space for what makes space, see
 * spool_journal_batch.c) and <path>/<seq, 16 hex digits>.journal. A segment is a header with a random salt
 * and then frames, 8-aligned: a head of 56 bytes and a payload. The head's CRC is seeded with the salt and
 * the frame's own offset, so bytes of another file, another life or another place never pass for a frame.
 *   BODY  a message body under a key of its own; messages of one put that share it refer to the same key
 *   META  a message: id, key of its body, record (message_encode). An update is another META; the latest one
 *         counts
 *   TOMB  the message is gone
 *   KEY   what was answered to a request, under the hash of its key, until it expires; in one put with its
 * messages PAD, MARK  filler after a recovery; a note of how far the segment is durable In memory: tables
 * from id to the latest META and from key to BODY, under 100 bytes a message together, and from id to the
 * latest KEY, 40 bytes a row.
 *
 * Who does what: workers encode records, compute checksums and queue operations; one writer thread gives them
 * their place, writes and syncs (spool_journal_writer.c explains batching, spool_journal_batch.c failures);
 * spool_journal_read.c finds and reads what is stored; spool_journal_recover.c reads everything at open;
 * spool_journal_compact.c gives space back and states the invariant that keeps dead messages dead. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/path.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_BYTES_DEFAULT (UINT64_C(64) << 20)
#define SEGMENT_BYTES_MIN (UINT64_C(64) << 10)
#define SEGMENT_BYTES_MAX (UINT64_C(16) << 30)

/* ---- open and close ---- */

/* A directory that was just made is on the disk only when the one that holds it is. */
static int journal_lock_dir(struct spool *sp)
{
	char pid[32];
	sp->lock_fd = openat(sp->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (sp->lock_fd < 0) {
		err_set_sys(errno, "spool %s: cannot open %s/lock", sp->name, sp->path);
		return -1;
	}
	if (flock(sp->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		int e = errno;
		ssize_t n = pread(sp->lock_fd, pid, sizeof pid - 1, 0);
		pid[n > 0 ? n : 0] = 0;
		pid[strcspn(pid, "\n")] = 0;
		if (e == EWOULDBLOCK)
			err_set(ERR_EXISTS, "spool %s: %s is locked by process %s", sp->name, sp->path,
				pid[0] != 0 ? pid : "?");
		else
			err_set_sys(e, "spool %s: cannot lock %s/lock", sp->name, sp->path);
		return -1;
	}
	int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
	if (ftruncate(sp->lock_fd, 0) != 0 || pwrite(sp->lock_fd, pid, (size_t)n, 0) != n) {
		err_set_sys(errno, "spool %s: cannot write %s/lock", sp->name, sp->path);
		return -1;
	}
	return 0;
}

static void journal_free(struct spool *sp)
{
	journal_drop_snapshot(sp);
	for (uint32_t i = 1; i < sp->n_slots; i++)
		segment_unref(sp->slot[i]);
	free(sp->slot);
	free(sp->by_seq);
	free(sp->unsynced);
	batch_fini(&sp->batch);
	table_fini(&sp->messages);
	table_fini(&sp->bodies);
	table_fini(&sp->keys);
	pthread_mutex_destroy(&sp->lock);
	pthread_mutex_destroy(&sp->queue_lock);
	pthread_cond_destroy(&sp->queue_cond);
	if (sp->dir_fd >= 0)
		close(sp->dir_fd);
	if (sp->reserve_fd >= 0)
		close(sp->reserve_fd);
	if (sp->lock_fd >= 0)
		close(sp->lock_fd); /* and with it the lock */
	notes_close(sp);
	metric_series_unref(sp->commits);
	free(sp->name);
	free(sp->path);
	free(sp);
}

static int journal_start_writer(struct spool *sp)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&sp->writer, NULL, journal_writer_main, sp);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		err_set_sys(rc, "spool %s: cannot start its writer", sp->name);
		return -1;
	}
	sp->has_writer = true;
	return 0;
}

static struct spool *journal_new(const struct spool_params *p)
{
	static const char *const label[] = {"name", NULL};
	struct spool *sp = xnew(struct spool);
	pthread_condattr_t attr;
	sp->name = str_dup(p->name);
	sp->commits =
		metric_get(metric_declare(METRIC_COUNTER, "cirrus_spool_commits_total",
					  "commits that brought messages into the spool", label, NULL, 0),
			   &p->name);
	sp->path = str_dup(p->path);
	sp->dir_fd = sp->lock_fd = sp->reserve_fd = -1;
	sp->is_flushed = p->is_flushed;
	sp->can_allocate = true;
	sp->removed_gen = 1;
	sp->segment_bytes = p->segment_bytes > 0 ? p->segment_bytes : SEGMENT_BYTES_DEFAULT;
	sp->max_keys = p->max_keys > 0 ? p->max_keys : SPOOL_MAX_KEYS;
	sp->expiry.soonest_ns = INT64_MAX;
	sp->queue_tail = &sp->queue_head;
	pthread_mutex_init(&sp->lock, NULL);
	pthread_mutex_init(&sp->queue_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&sp->queue_cond, &attr);
	pthread_condattr_destroy(&attr);
	table_init(&sp->messages, sizeof(struct index_entry), 16);
	table_init(&sp->bodies, sizeof(struct index_body), 8);
	table_init(&sp->keys, sizeof(struct index_key), 16);
	batch_init(&sp->batch);
	return sp;
}

struct spool *spool_open_journal(const struct spool_params *p)
{
	struct spool *sp = journal_new(p);
	struct op *removals = NULL;
	if (p->path.n == 0 || memchr(p->path.p, 0, p->path.n) != NULL) {
		err_set(ERR_INVALID, "spool %s: the path is empty or has a NUL", sp->name);
		goto fail;
	}
	if (sp->segment_bytes < SEGMENT_BYTES_MIN || sp->segment_bytes > SEGMENT_BYTES_MAX) {
		err_set(ERR_INVALID, "spool %s: segments of %llu bytes; possible are 64 KiB to 16 GiB",
			sp->name, (unsigned long long)sp->segment_bytes);
		goto fail;
	}
	if (path_make_dirs(sp->path, 0750) != 0) {
		err_wrap("spool %s: %s", sp->name, sp->path);
		goto fail;
	}
	sp->dir_fd = open(sp->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sp->dir_fd < 0) {
		err_set_sys(errno, "spool %s: cannot open the directory %s", sp->name, sp->path);
		goto fail;
	}
	if (journal_lock_dir(sp) != 0 || journal_recover(sp) != 0)
		goto fail;
	notes_open(sp);
	removals = notes_apply(sp);
	journal_take_snapshot(sp);
	const struct segment *last = sp->n_segments > 0 ? sp->by_seq[sp->n_segments - 1] : NULL;
	sp->reserve_fd = openat(sp->dir_fd, "reserve", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (sp->reserve_fd < 0) {
		err_set_sys(errno, "spool %s: cannot open %s/reserve", sp->name, sp->path);
		goto fail;
	}
	struct segment *seg = segment_create(sp, sp->next_seq, last);
	if (seg == NULL)
		goto fail;
	index_add_segment(sp, seg);
	sp->active = seg;
	sp->next_seq++;
	if (journal_take_reserve(sp) != 0)
		err_clear(); /* latched as health: what is stored can still go out */
	if (journal_start_writer(sp) != 0)
		goto fail;
	for (struct op *op; (op = removals) != NULL;) {
		removals = op->next;
		journal_submit(sp, op);
	}
	return sp;
fail:
	for (struct op *op; (op = removals) != NULL;) {
		removals = op->next;
		op_unref(op);
	}
	journal_free(sp);
	return NULL;
}

void spool_close(struct spool *sp)
{
	if (sp == NULL)
		return;
	pthread_mutex_lock(&sp->queue_lock);
	sp->is_stopping = true;
	pthread_mutex_unlock(&sp->queue_lock);
	pthread_cond_signal(&sp->queue_cond);
	if (sp->has_writer)
		pthread_join(sp->writer, NULL);
	journal_free(sp);
}

/* ---- putting ---- */

/* For each item the first one with the same body. Batches of one body, the usual ones, are seen at once; else
 * by hash. */
static void put_find_shared(struct op *op)
{
	uint32_t cap = 8, *first = NULL;
	while (cap < 2 * op->n)
		cap *= 2;
	for (uint32_t i = 0; i < op->n; i++) {
		struct op_item *it = &op->item[i];
		it->same_body_as = i;
		if (it->body == NULL || op->n == 1)
			continue;
		if (i > 0 && op->item[i - 1].body == it->body) {
			it->same_body_as = op->item[i - 1].same_body_as;
			continue;
		}
		if (first == NULL) {
			first = xcalloc(cap, sizeof *first);
			memset(first, 0xff, cap * sizeof *first);
		}
		uint64_t h = (uint64_t)(uintptr_t)it->body * UINT64_C(0x9e3779b97f4a7c15) >> 32;
		for (;; h++) {
			uint32_t *at = &first[h & (cap - 1)];
			if (*at == UINT32_MAX)
				*at = i;
			if (op->item[*at].body == it->body) {
				it->same_body_as = *at;
				break;
			}
		}
	}
	free(first);
}

/* The print and the answer behind the records. */
static void put_fill_key(struct op *op, const struct spool_key *key, struct buf *rec)
{
	struct op_key *k = &op->key;
	k->id = key->id;
	k->expires_ns = (uint64_t)key->expires.ns;
	k->payload_at = rec->n;
	buf_add(rec, key->print, sizeof key->print);
	buf_add_str(rec, key->answer);
	k->n_payload = (uint32_t)(rec->n - k->payload_at);
	k->payload_crc = crc32c(0, rec->p + k->payload_at, k->n_payload);
	op->n_bytes += frame_bytes(k->n_payload);
}

static int put_fill(struct spool *sp, struct op *op, struct message *const *m, bool has_bodies,
		    const struct spool_key *key)
{
	static const struct uuid nil;
	struct buf rec = BUF_INIT;
	for (uint32_t i = 0; i < op->n; i++) {
		struct op_item *it = &op->item[i];
		if (uuid_eq(&m[i]->id, &nil))
			panic("spool %s: a message without an id",
			      sp->name); /* it marks a free row of the index */
		it->id = m[i]->id;
		it->body = has_bodies && m[i]->body != NULL ? body_ref(m[i]->body) : NULL;
		op->must_sync |= m[i]->is_force_synced;
		it->record_at = rec.n;
		message_encode(m[i], &rec);
		it->n_record = (uint32_t)(rec.n - it->record_at);
		it->record_crc = crc32c(0, rec.p + it->record_at, it->n_record);
		op->n_bytes += frame_bytes(it->n_record);
	}
	if (key != NULL)
		put_fill_key(op, key, &rec);
	op->record = buf_steal(&rec, NULL);
	put_find_shared(op);
	for (uint32_t i = 0; i < op->n; i++) {
		struct op_item *it = &op->item[i];
		if (it->body == NULL || it->same_body_as != i)
			continue;
		if (it->body->n_bytes > JOURNAL_PAYLOAD_MAX) {
			err_set(ERR_LIMIT, "spool %s: a body of %zu bytes is too large", sp->name,
				it->body->n_bytes);
			return -1;
		}
		it->body_crc = crc32c(0, it->body->p, it->body->n_bytes);
		op->n_bytes += frame_bytes(it->body->n_bytes);
	}
	if (op->n_bytes > JOURNAL_PUT_MAX) {
		err_set(ERR_LIMIT, "spool %s: %llu bytes are too many for one put", sp->name,
			(unsigned long long)op->n_bytes);
		return -1;
	}
	return 0;
}

/* Hands the operation to the writer and waits for its outcome. Takes over the caller's reference. */
static int journal_submit_and_wait(struct spool *sp, struct op *op, mono_t deadline)
{
	op->worker = worker_self();
	if (op->worker == NULL)
		panic("a spool operation that waits, outside of a fiber");
	waiter_init(&op->waiter);
	atomic_fetch_add_explicit(&op->refs, 1, memory_order_relaxed);
	journal_submit(sp, op);
	const char *outer = fiber_set_waits_for("the spool");
	int rc = fiber_wait(&op->waiter, deadline);
	if (rc != 0) {
		int waiting = OP_WAITING;
		if (!op_has_key(op) && atomic_compare_exchange_strong(&op->state, &waiting, OP_ABANDONED))
			goto out;
		/* The outcome is on its way, and so is a mail that wakes this fiber: it has to be here. With
		 * a key that may take until the disk answers: nobody else would know what became of it. */
		err_clear();
		fiber_shield_begin();
		rc = fiber_wait(&op->waiter, MONO_NEVER);
		fiber_shield_end();
		if (rc != 0)
			panic("a shielded wait without a deadline gave up");
	}
	rc = op->rc;
	if (rc != 0) {
		err_put(op->err);
		op->err = (struct err){0};
	}
out:
	fiber_set_waits_for(outer);
	op_unref(op);
	return rc;
}

static int put(struct spool *sp, struct message *const *m, size_t n, const struct spool_key *key,
	       mono_t deadline)
{
	if (n > UINT32_MAX / 4) {
		err_set(ERR_LIMIT, "spool %s: %zu messages are too many for one put", sp->name, n);
		return -1;
	}
	struct op *op = op_new(OP_PUT, (uint32_t)n);
	if (put_fill(sp, op, m, true, key) != 0) {
		op_unref(op);
		return -1;
	}
	if (journal_submit_and_wait(sp, op, deadline) != 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		m[i]->is_spooled = true;
		m[i]->is_changed = m[i]->is_body_changed = false;
	}
	return 0;
}

int spool_put(struct spool *sp, struct message *const *m, size_t n, mono_t deadline)
{
	return n > 0 ? put(sp, m, n, NULL, deadline) : 0;
}

static int put_check_key(struct spool *sp, const struct spool_key *key)
{
	static const struct uuid nil;
	if (uuid_eq(&key->id, &nil))
		panic("spool %s: a key without an id", sp->name); /* it marks a free row of the index */
	if (key->answer.n > SPOOL_ANSWER_MAX) {
		err_set(ERR_LIMIT, "spool %s: an answer of %zu bytes is too long", sp->name, key->answer.n);
		return -1;
	}
	/* Those that are on their way to the writer are not counted: there may be a few more in the end. */
	pthread_mutex_lock(&sp->lock);
	bool is_full = sp->keys.n >= sp->max_keys;
	pthread_mutex_unlock(&sp->lock);
	if (is_full)
		err_set(ERR_LIMIT, "spool %s: it holds %llu keys, and may hold no more", sp->name,
			(unsigned long long)sp->max_keys);
	return is_full ? -1 : 0;
}

static int put_check_time(struct spool *sp, mono_t deadline)
{
	if (!fiber_is_cancelled() && !mono_is_past(deadline))
		return 0;
	err_set(fiber_is_cancelled() ? ERR_CANCELLED : ERR_TIMEOUT, "spool %s: too late to begin with a put",
		sp->name);
	return -1;
}

/* Those that were stored before a put with a key that has failed. Their removal is noted in the journal only,
 * and there behind what makes the failed put not count: a crash before that may find the put complete, and
 * must find it whole. */
static void put_take_back(struct spool *sp, struct message *const *m, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (!m[i]->is_spooled)
			continue;
		struct op *op = op_new(OP_REMOVE, 1);
		op->item[0].id = m[i]->id;
		op->n_bytes = frame_bytes(0);
		op->is_not_noted = true;
		journal_submit(sp, op);
		m[i]->is_spooled = false;
	}
}

int spool_put_with_key(struct spool *sp, struct message *const *m, size_t n, const struct spool_key *key,
		       mono_t deadline)
{
	if (put_check_key(sp, key) == 0 && put_check_time(sp, deadline) == 0 &&
	    put(sp, m, n, key, deadline) == 0)
		return 0;
	put_take_back(sp, m, n);
	return -1;
}

int spool_put_record(struct spool *sp, struct message *m, mono_t deadline)
{
	struct op *op = op_new(OP_PUT, 1);
	if (put_fill(sp, op, &m, false, NULL) != 0) {
		op_unref(op);
		return -1;
	}
	if (journal_submit_and_wait(sp, op, deadline) != 0)
		return -1;
	m->is_changed = false;
	return 0;
}

void spool_update(struct spool *sp, struct message *m)
{
	if (m->is_meta_shed)
		return;
	struct op *op = op_new(OP_UPDATE, 1);
	struct buf rec = BUF_INIT;
	message_encode(m, &rec);
	op->item[0].id = m->id;
	op->item[0].n_record = (uint32_t)rec.n;
	op->item[0].record_crc = crc32c(0, rec.p, rec.n);
	op->n_bytes = frame_bytes(rec.n);
	op->record = buf_steal(&rec, NULL);
	m->is_changed = false;
	journal_submit(sp, op);
}

void spool_remove(struct spool *sp, const struct uuid *id)
{
	struct op *op = op_new(OP_REMOVE, 1);
	op->item[0].id = *id;
	op->n_bytes = frame_bytes(0);
	journal_submit(sp, op);
}

int spool_compact(struct spool *sp, mono_t deadline)
{
	return journal_submit_and_wait(sp, op_new(OP_COMPACT, 0), deadline);
}

/* ---- state ---- */

bool spool_is_flushed(const struct spool *sp)
{
	return sp->is_flushed;
}

const char *spool_health(struct spool *sp)
{
	static _Thread_local char text[sizeof sp->health];
	if (!atomic_load_explicit(&sp->is_unhealthy, memory_order_acquire))
		return NULL;
	pthread_mutex_lock(&sp->lock);
	memcpy(text, sp->health, sizeof text);
	pthread_mutex_unlock(&sp->lock);
	return text;
}

void spool_get_stats(struct spool *sp, struct spool_stats *out)
{
	pthread_mutex_lock(&sp->lock);
	*out = (struct spool_stats){.n_messages = sp->messages.n,
				    .n_keys = sp->keys.n,
				    .n_bytes_live = sp->live_bytes,
				    .n_bytes_disk = sp->disk_bytes,
				    .n_segments = sp->n_segments,
				    .n_damaged = sp->n_damaged};
	pthread_mutex_unlock(&sp->lock);
}
