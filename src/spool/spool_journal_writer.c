/* spool_journal_writer.c - the one thread that writes.
 *
 * Operations queue up in a list under a short mutex. The writer takes all there are, makes frames of them,
 * writes, syncs once if anybody waits, wakes all that waited with one mail a worker, and looks again: what
 * arrived during the sync is the next batch, so batches grow with the load and a lone message waits for
 * nothing. Two refinements:
 *  - Under load, waking the waiters of one batch brings their next messages a few at a time. When the last
 *    batches had N puts, the writer gives the next one up to 200 us to reach half of N before it spends a
 *    sync on it.
 *  - Updates and removals have no waiter. Alone they are gathered for up to 1 ms before they are written,
 *    else each one would cost two context switches. They are synced with the next put, or within a second.
 *
 * The frames of one put, its key's among them, stand next to each other in one segment, each with the group's
 * number, the last one marked: recovery takes them all or none. Operations take effect in the order of the
 * queue. One that must look at the index (an update, a put without body) closes the batch before it when its
 * message is not there but may be in that batch.
 *
 * When a write fails, puts fail with its error; updates and removals stay in a list and are tried again
 * before anything else. Their removals leave the index at once, so that dead segments can be unlinked and a
 * full disk gets free again. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define LAZY_SYNC_NS NS_PER_S
#define LAZY_GATHER_NS (NS_PER_S / 1000)
#define PUT_GATHER_NS (NS_PER_S / 5000)
#define RETRY_NS NS_PER_S

int64_t journal_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC,
		      &t); /* not mono_now(): tests with virtual time still have a real disk */
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* ---- operations ---- */

struct op *op_new(enum op_kind kind, uint32_t n)
{
	struct op *op = xcalloc(1, sizeof *op + n * sizeof *op->item);
	op->kind = kind;
	op->n = n;
	op->item = (struct op_item *)(op + 1);
	atomic_init(&op->refs, 1);
	atomic_init(&op->state, OP_WAITING);
	return op;
}

void op_unref(struct op *op)
{
	if (op == NULL || atomic_fetch_sub_explicit(&op->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (uint32_t i = 0; i < op->n; i++)
		body_unref(op->item[i].body);
	free(op->record);
	tomb_list_fini(&op->tombs);
	err_fini(&op->err);
	free(op);
}

static bool op_has_waiter(const struct op *op)
{
	return op->kind == OP_PUT || op->kind == OP_COMPACT;
}

void journal_submit(struct spool *sp, struct op *op)
{
	bool is_urgent = op_has_waiter(op);
	op->next = NULL;
	pthread_mutex_lock(&sp->queue_lock);
	if (op->kind == OP_REMOVE && !op->is_not_noted)
		notes_add(sp, op);
	*sp->queue_tail = op;
	sp->queue_tail = &op->next;
	sp->n_queued_puts += is_urgent;
	bool must_wake = sp->is_writer_idle || (is_urgent && sp->n_queued_puts == sp->n_wanted_puts);
	sp->is_writer_idle = false;
	pthread_mutex_unlock(&sp->queue_lock);
	if (must_wake)
		pthread_cond_signal(&sp->queue_cond);
}

/* Moves the outcome in the operation to whoever waits for it: onto one of the lists, one a worker. The
 * writer's reference goes along. */
void journal_op_done(struct op *op, struct op **done_list)
{
	if (atomic_exchange_explicit(&op->state, OP_DONE, memory_order_acq_rel) == OP_ABANDONED) {
		op_unref(op);
		return;
	}
	op->next_done = *done_list;
	*done_list = op;
}

static void journal_wake_waiters(void *arg)
{
	struct op *first = NULL, *next;
	for (struct op *op = arg; op != NULL; op = next) { /* back into the order in which they came */
		next = op->next_done;
		op->next_done = first;
		first = op;
	}
	for (struct op *op = first; op != NULL; op = next) {
		next = op->next_done;
		waiter_wake(&op->waiter);
		op_unref(op);
	}
}

void journal_deliver_done(struct op *done_list)
{
	while (done_list != NULL) {
		struct worker *w = done_list->worker;
		struct op *mine = NULL, **mine_tail = &mine, *rest = NULL, **rest_tail = &rest;
		for (struct op *op = done_list, *next; op != NULL; op = next) {
			next = op->next_done;
			op->next_done = NULL;
			struct op ***tail = op->worker == w ? &mine_tail : &rest_tail;
			**tail = op;
			*tail = &op->next_done;
		}
		mine->mail = (struct mail){.fn = journal_wake_waiters, .arg = mine};
		worker_post_mail(w, &mine->mail);
		done_list = rest;
	}
}

/* ---- from operations to frames ---- */

enum op_fit { OP_FITS, OP_NEXT_BATCH, OP_REFUSED };

/* May it be decided now? Operations on a message that an earlier put of this batch may have brought wait for
 * that. */
static enum op_fit journal_resolve(struct spool *sp, struct op *op, bool has_puts)
{
	const struct index_key *k = op_has_key(op) ? index_find_key(sp, &op->key.id) : NULL;
	if (k != NULL && key_is_alive(k)) {
		err_set(ERR_EXISTS, "spool %s: there is such a key already", sp->name);
		return OP_REFUSED;
	}
	for (uint32_t i = 0; i < op->n; i++) {
		struct op_item *it = &op->item[i];
		if (op->kind != OP_UPDATE && (op->kind != OP_PUT || it->body != NULL))
			continue;
		const struct index_entry *e = index_find(sp, &it->id);
		if (e != NULL) {
			it->key = e->body_key;
			continue;
		}
		if (has_puts)
			return OP_NEXT_BATCH;
		if (op->kind == OP_PUT) {
			char id[33];
			uuid_fmt_simple(&it->id, id);
			err_set(ERR_NOT_FOUND, "spool %s: message %s has no body and is not stored", sp->name,
				id);
		}
		return OP_REFUSED;
	}
	return OP_FITS;
}

static void journal_add_put(struct spool *sp, struct batch *b, struct op *op)
{
	uint32_t n_frames = op->n + op_has_key(op), index = 0;
	uint32_t group = htole32(b->seg->next_group++);
	for (uint32_t i = 0; i < op->n; i++)
		n_frames += op->item[i].body != NULL && op->item[i].same_body_as == i;
	for (uint32_t i = 0; i < op->n; i++) {
		struct op_item *it = &op->item[i];
		struct frame_head h = {.flags = FRAME_GROUPED, .group = group};
		if (it->body != NULL && it->same_body_as == i) {
			it->key = b->seg->seq << 32 | b->end / 8;
			h.type = FRAME_BODY;
			h.n_payload = htole32((uint32_t)it->body->n_bytes);
			h.payload_crc = htole32(it->body_crc);
			h.key = htole64(it->key);
			h.index = htole32(index++);
			batch_add(sp, b, &h, it->body->p);
		} else if (it->body != NULL) {
			it->key = op->item[it->same_body_as].key;
		}
		h.type = FRAME_META;
		h.id = it->id;
		h.n_payload = htole32(it->n_record);
		h.payload_crc = htole32(it->record_crc);
		h.key = htole64(it->key);
		h.index = htole32(index++);
		if (index == n_frames)
			h.flags |= FRAME_LAST;
		batch_add(sp, b, &h, op->record + it->record_at);
	}
	if (op_has_key(op)) {
		struct frame_head h = {.type = FRAME_KEY,
				       .flags = FRAME_GROUPED | FRAME_LAST,
				       .id = op->key.id,
				       .key = htole64(op->key.expires_ns),
				       .n_payload = htole32(op->key.n_payload),
				       .payload_crc = htole32(op->key.payload_crc),
				       .group = group,
				       .index = htole32(index)};
		batch_add(sp, b, &h, op->record + op->key.payload_at);
	}
}

static void journal_add_op(struct spool *sp, struct batch *b, struct op *op, bool has_puts)
{
	struct op_item *it = &op->item[0];
	if (op->kind == OP_PUT) {
		journal_add_put(sp, b, op);
	} else if (op->kind == OP_UPDATE) {
		struct frame_head h = {.type = FRAME_META,
				       .id = it->id,
				       .key = htole64(it->key),
				       .n_payload = htole32(it->n_record),
				       .payload_crc = htole32(it->record_crc)};
		batch_add(sp, b, &h, op->record);
	} else if (op->kind == OP_REMOVE) {
		struct frame_head h = {.type = FRAME_TOMB, .id = it->id};
		if (has_puts || index_find(sp, &it->id) != NULL)
			batch_add(sp, b, &h, NULL);
	} else if (op->kind == OP_TOMBS) {
		journal_add_tombs(sp, b, &op->tombs);
	}
}

/* ---- failure ---- */

static void journal_fail_op(struct spool *sp, struct op *op, const struct err *e, struct op **done)
{
	op->rc = -1;
	op->err = *e;
	op->err.text = xstrdup(e->text);
	journal_op_done(op, done);
}

/* What nobody waits for is kept; see the top of the file for removals. */
static void journal_stall_op(struct spool *sp, struct op *op, struct op ***tail)
{
	struct tomb tomb;
	if (op->kind == OP_REMOVE) {
		pthread_mutex_lock(&sp->lock);
		bool was_there = index_remove(sp, &op->item[0].id, &tomb);
		pthread_mutex_unlock(&sp->lock);
		if (!was_there) {
			op->next = NULL;
			notes_clear(sp, op);
			op_unref(op);
			return;
		}
		tomb_list_add(&op->tombs, tomb);
		op->kind = OP_TOMBS;
		op->n_bytes = frame_bytes(0);
	}
	op->next = NULL;
	**tail = op;
	*tail = &op->next;
}

/* Nothing of the list could be written: the error slot says why. */
static void journal_refuse(struct spool *sp, struct op *list)
{
	struct err e = err_take();
	struct op *done = NULL, **tail = &sp->stalled;
	while (*tail != NULL)
		tail = &(*tail)->next;
	for (struct op *op = list, *next; op != NULL; op = next) {
		next = op->next;
		if (op_has_waiter(op))
			journal_fail_op(sp, op, &e, &done);
		else
			journal_stall_op(sp, op, &tail);
	}
	journal_deliver_done(done);
	err_fini(&e);
	int64_t retry = journal_now_ns() + (sp->is_full && sp->has_reserve ? 0 : RETRY_NS);
	if (sp->stalled != NULL && (sp->retry_ns == 0 || sp->retry_ns > retry))
		sp->retry_ns = retry;
}

/* Room for the head of the list, and the reserve, when there are puts in it. */
static int journal_prepare(struct spool *sp, const struct op *list)
{
	bool has_puts = false;
	for (const struct op *op = list; op != NULL && !has_puts; op = op->next)
		has_puts = op->kind == OP_PUT;
	if (has_puts && journal_take_reserve(sp) != 0)
		return -1;
	if (journal_make_room(sp, list->n_bytes) == 0)
		return 0;
	if (sp->is_full && !has_puts)
		journal_release_reserve(sp);
	return -1;
}

/* ---- batches ---- */

static void journal_finish_op(struct spool *sp, struct op *op, struct op **done)
{
	if (op_has_waiter(op)) {
		journal_op_done(op, done);
		return;
	}
	pthread_mutex_lock(&sp->lock);
	for (size_t i = 0; i < op->tombs.n; i++) {
		if (index_find(sp, &op->tombs.tomb[i].id) == NULL)
			index_note_tomb(sp, sp->active, &op->tombs.tomb[i]);
	}
	pthread_mutex_unlock(&sp->lock);
	op_unref(op);
}

/* Frames of as many operations from the head of the list as make one batch. Returns what is left; *taken are
 * those whose frames are in the batch, *n_puts how many of them wait for a sync. */
static struct op *journal_fill(struct spool *sp, struct batch *b, struct op *list, struct op **taken,
			       size_t *n_puts)
{
	struct op *done = NULL, **tail = taken;
	*taken = NULL;
	*n_puts = 0;
	while (list != NULL) {
		struct op *op = list;
		bool is_first = b->end == b->start;
		if (!is_first &&
		    (b->end + op->n_bytes > sp->segment_bytes || b->n_applied >= BATCH_MAX_FRAMES ||
		     b->end - b->start + op->n_bytes > BATCH_MAX_BYTES))
			break;
		enum op_fit fit = journal_resolve(sp, op, *n_puts > 0);
		if (fit == OP_NEXT_BATCH)
			break;
		list = op->next;
		op->next = NULL;
		if (fit == OP_REFUSED) {
			if (op_has_waiter(op)) {
				op->rc = -1;
				op->err = err_take();
				journal_op_done(op, &done);
			} else {
				op_unref(op); /* an update of a message that is gone */
			}
			continue;
		}
		journal_add_op(sp, b, op, *n_puts > 0);
		*n_puts += op->kind == OP_PUT;
		b->must_sync |= op->must_sync;
		b->has_puts = *n_puts > 0;
		*tail = op;
		tail = &op->next;
	}
	journal_deliver_done(done);
	return list;
}

static void journal_process(struct spool *sp, struct op *list)
{
	while (list != NULL) {
		struct batch *b = &sp->batch;
		struct op *taken, *done = NULL;
		size_t n_puts;
		if (journal_prepare(sp, list) != 0) {
			journal_refuse(sp, list);
			return;
		}
		batch_begin(b, sp->active);
		struct op *rest = journal_fill(sp, b, list, &taken, &n_puts);
		if (b->end > b->start &&
		    journal_commit(sp, b, b->must_sync || (n_puts > 0 && sp->is_flushed)) != 0) {
			struct op **tail = &taken;
			while (*tail != NULL)
				tail = &(*tail)->next;
			*tail = rest;
			journal_refuse(sp, taken);
			return;
		}
		notes_clear(sp, taken);
		for (struct op *op = taken, *next; op != NULL; op = next) {
			next = op->next;
			journal_finish_op(sp, op, &done);
		}
		journal_deliver_done(done);
		if (n_puts > 0)
			sp->puts_expected = n_puts;
		list = rest;
	}
}

/* A frame that says how far the segment is durable: without it, recovery could not tell damage of the last
 * batch from a batch that never counted. Written when there is time for it, never synced for its own sake. */
static void journal_add_mark(struct spool *sp)
{
	struct batch *b = &sp->batch;
	struct frame_head h = {.type = FRAME_MARK};
	batch_begin(b, sp->active);
	batch_add(sp, b, &h, NULL);
	if (journal_commit(sp, b, false) != 0)
		err_clear(); /* latched as health */
}

/* A spool that failed and that nobody writes to any more finds out by itself when it works again. */
static void journal_probe(struct spool *sp)
{
	struct batch *b = &sp->batch;
	struct frame_head h = {.type = FRAME_MARK};
	sp->retry_ns = 0;
	struct op *list = sp->stalled;
	sp->stalled = NULL;
	journal_process(sp, list);
	if (!atomic_load_explicit(&sp->is_unhealthy, memory_order_relaxed) || sp->retry_ns != 0)
		return;
	int rc = journal_make_room(sp, frame_bytes(0)); /* for which the reserve may have been given up */
	if (rc == 0)
		rc = journal_take_reserve(sp);
	if (rc == 0) {
		batch_begin(b, sp->active);
		b->has_puts = true; /* must not use the reserve */
		batch_add(sp, b, &h, NULL);
		rc = segment_allocate(sp, sp->active, b->end + BATCH_BUF_BYTES) == 0
			     ? journal_commit(sp, b, sp->is_flushed)
			     : -1;
	}
	if (rc == 0)
		return;
	err_clear();
	if (sp->is_segment_broken && sp->is_full)
		journal_release_reserve(sp); /* nothing else may come that would be worth it */
	journal_seal_dead(sp);
	if (sp->retry_ns == 0)
		sp->retry_ns = journal_now_ns() + RETRY_NS;
}

/* ---- the thread ---- */

static void journal_wait_until(struct spool *sp, int64_t until_ns)
{
	if (until_ns == 0) {
		pthread_cond_wait(&sp->queue_cond, &sp->queue_lock);
		return;
	}
	struct timespec t = {until_ns / NS_PER_S, until_ns % NS_PER_S};
	pthread_cond_timedwait(&sp->queue_cond, &sp->queue_lock, &t);
}

static void journal_gather(struct spool *sp)
{
	int64_t now = journal_now_ns(),
		until = now + (sp->n_queued_puts > 0 ? PUT_GATHER_NS : LAZY_GATHER_NS);
	size_t wanted = sp->n_queued_puts > 0 ? sp->puts_expected / 2 : 1;
	sp->n_wanted_puts = wanted;
	while (sp->n_queued_puts < wanted && !sp->is_stopping && now < until) {
		journal_wait_until(sp, until);
		if (sp->n_queued_puts > 0 && wanted == 1)
			break;
		now = journal_now_ns();
	}
	sp->n_wanted_puts = 0;
}

/* All that is queued, or NULL when it is time for something else. */
static struct op *journal_take(struct spool *sp, int64_t until_ns, bool *is_stopping)
{
	pthread_mutex_lock(&sp->queue_lock);
	while (sp->queue_head == NULL && !sp->is_stopping && (until_ns == 0 || journal_now_ns() < until_ns)) {
		sp->is_writer_idle = true;
		journal_wait_until(sp, until_ns);
		sp->is_writer_idle = false;
	}
	if (sp->queue_head != NULL)
		journal_gather(sp);
	struct op *list = sp->queue_head;
	sp->queue_head = NULL;
	sp->queue_tail = &sp->queue_head;
	sp->n_queued_puts = 0;
	*is_stopping = sp->is_stopping && list == NULL;
	pthread_mutex_unlock(&sp->queue_lock);
	return list;
}

static bool journal_has_queued(struct spool *sp)
{
	pthread_mutex_lock(&sp->queue_lock);
	bool has = sp->queue_head != NULL;
	pthread_mutex_unlock(&sp->queue_lock);
	return has;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

/* Takes the requests for a compaction out of the list. */
static struct op *journal_start_compactions(struct spool *sp, struct op *list)
{
	struct op **at = &list;
	while (*at != NULL) {
		struct op *op = *at;
		if (op->kind != OP_COMPACT) {
			at = &op->next;
			continue;
		}
		*at = op->next;
		op->next = sp->compact_op;
		sp->compact_op = op;
		sp->compaction.forced_below = UINT64_MAX; /* up to what is active when its turn comes */
	}
	return list;
}

static int64_t journal_housekeep(struct spool *sp)
{
	int64_t now = journal_now_ns();
	if (sp->retry_ns != 0 && sp->retry_ns <= now)
		journal_probe(sp);
	if (sp->unsynced_ns != 0 && now >= sp->unsynced_ns + LAZY_SYNC_NS && !sp->is_segment_broken) {
		if (journal_sync(sp) == 0)
			journal_add_mark(sp);
		else
			err_clear();
	}
	int64_t next = journal_compact_slice(sp);
	next = earlier(next, journal_expire_keys(sp));
	journal_reclaim(sp);
	if (sp->unsynced_ns != 0 && !sp->is_segment_broken)
		next = earlier(next, sp->unsynced_ns + LAZY_SYNC_NS);
	if (sp->has_dead && sp->remove_retry_ns != 0)
		next = earlier(next, sp->remove_retry_ns);
	return earlier(next, sp->retry_ns);
}

static void journal_stop(struct spool *sp)
{
	if (sp->stalled != NULL || sp->is_segment_broken)
		journal_probe(sp);
	if (!sp->is_segment_broken && journal_sync(sp) == 0) {
		journal_add_mark(sp);
		if (sp->active->n_allocated > sp->active->n_bytes)
			segment_truncate(sp->active, sp->active->n_bytes);
	}
	struct op *done = NULL;
	for (struct op *op; (op = sp->compact_op) != NULL;) {
		sp->compact_op = op->next;
		struct err e = {.kind = ERR_SHUTDOWN, .text = (char *)(uintptr_t) "the spool is closing"};
		journal_fail_op(sp, op, &e, &done);
	}
	journal_deliver_done(done);
	segment_unref(sp->compaction.seg);
	sp->compaction.seg = NULL;
	size_t n_lost = 0;
	for (struct op *op; (op = sp->stalled) != NULL; n_lost++) {
		sp->stalled = op->next;
		op_unref(op);
	}
	if (n_lost > 0)
		log_error(JOURNAL_LOG,
			  "spool %s: closed with %zu updates and removals that could not be written",
			  sp->name, n_lost);
	err_clear();
}

void *journal_writer_main(void *arg)
{
	struct spool *sp = arg;
	bool is_stopping = false;
	log_set_thread_name("spool-writer");
	while (!is_stopping) {
		int64_t until = journal_housekeep(sp);
		struct op *list = journal_take(sp, until, &is_stopping);
		list = journal_start_compactions(sp, list);
		if (list == NULL)
			continue;
		if (sp->stalled != NULL) { /* they came first */
			struct op **tail = &sp->stalled;
			while (*tail != NULL)
				tail = &(*tail)->next;
			*tail = list;
			list = sp->stalled;
			sp->stalled = NULL;
		}
		journal_process(sp, list);
		if (sp->active->n_durable == sp->active->n_bytes && !sp->is_segment_broken &&
		    !journal_has_queued(sp))
			journal_add_mark(sp);
	}
	journal_stop(sp);
	return NULL;
}
