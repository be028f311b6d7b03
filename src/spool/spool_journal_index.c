/* spool_journal_index.c - which messages and keys are live, where their latest frames lie, and what that
 * makes of each segment. The same functions are used for replay at open and for every batch afterwards, so
 * that both come to the same state.
 *
 * A segment's live_bytes are the frames in it that something refers to: the META frame of each live message
 * and the BODY frame of each body that a live message has, and the KEY frame of each key. At zero a sealed
 * segment can go; see spool_journal_compact.c for what else must hold. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"

#include <stdlib.h>

void tomb_list_add(struct tomb_list *l, struct tomb t)
{
	if (l->n == l->cap) {
		l->cap = l->cap == 0 ? 16 : l->cap * 2;
		l->tomb = xreallocarray(l->tomb, l->cap, sizeof *l->tomb);
	}
	l->tomb[l->n++] = t;
}

void tomb_list_fini(struct tomb_list *l)
{
	free(l->tomb);
	*l = (struct tomb_list){0};
}

struct index_entry *index_find(struct spool *sp, const struct uuid *id)
{
	return table_find(&sp->messages, id);
}

struct index_body *index_find_body(struct spool *sp, uint64_t key)
{
	return table_find(&sp->bodies, &key);
}

static void index_live_add(struct spool *sp, uint32_t slot, uint64_t n_payload)
{
	if (slot == 0)
		return;
	sp->slot[slot]->live_bytes += frame_bytes(n_payload);
	sp->live_bytes += frame_bytes(n_payload);
}

static void index_live_sub(struct spool *sp, uint32_t slot, uint64_t n_payload)
{
	if (slot == 0)
		return;
	struct segment *seg = sp->slot[slot];
	if (seg->live_bytes < frame_bytes(n_payload))
		panic("spool %s: segment %llu counts less than nothing", sp->name,
		      (unsigned long long)seg->seq);
	seg->live_bytes -= frame_bytes(n_payload);
	sp->live_bytes -= frame_bytes(n_payload);
	sp->compaction.is_due = true;
	if (seg->live_bytes == 0)
		sp->has_dead = true;
}

void index_set_body(struct spool *sp, uint64_t key, const struct segment *seg, uint32_t off8,
		    uint32_t n_bytes)
{
	struct index_body *b = table_add(&sp->bodies, &key);
	if (b->n_refs > 0) {
		index_live_sub(sp, b->slot, b->n_bytes);
		index_live_add(sp, seg->slot, n_bytes);
	}
	b->slot = seg->slot;
	b->off8 = off8;
	b->n_bytes = n_bytes;
}

static void index_body_ref(struct spool *sp, uint64_t key)
{
	struct index_body *b = table_add(&sp->bodies, &key);
	if (b->n_refs++ == 0)
		index_live_add(sp, b->slot, b->n_bytes);
}

/* While replaying, a body without references stays: frames of a body that was moved may precede those that
 * refer to it. */
static void index_body_unref(struct spool *sp, uint64_t key)
{
	struct index_body *b = index_find_body(sp, key);
	if (b == NULL || b->n_refs == 0)
		panic("spool %s: a body is released more often than held", sp->name);
	if (--b->n_refs > 0)
		return;
	index_live_sub(sp, b->slot, b->n_bytes);
	if (!sp->is_replaying)
		table_remove(&sp->bodies, &key);
}

void index_set_message(struct spool *sp, const struct uuid *id, uint64_t key, const struct segment *seg,
		       uint32_t off8, uint32_t n_record)
{
	struct index_entry *e = table_add(&sp->messages, id);
	index_body_ref(sp, key);
	if (e->slot != 0) {
		index_live_sub(sp, e->slot, e->n_record);
		index_body_unref(sp, e->body_key);
	} else {
		e->first_seq = (uint32_t)seg->seq;
	}
	e->body_key = key;
	e->slot = seg->slot;
	e->off8 = off8;
	e->n_record = n_record;
	index_live_add(sp, seg->slot, n_record);
}

bool index_remove(struct spool *sp, const struct uuid *id, struct tomb *tomb)
{
	struct index_entry *e = index_find(sp, id);
	if (e == NULL)
		return false;
	*tomb = (struct tomb){*id, e->first_seq, (uint32_t)sp->slot[e->slot]->seq};
	index_live_sub(sp, e->slot, e->n_record);
	index_body_unref(sp, e->body_key);
	table_remove(&sp->messages, id);
	return true;
}

struct index_key *index_find_key(struct spool *sp, const struct uuid *id)
{
	return table_find(&sp->keys, id);
}

void index_release_key(struct spool *sp, const struct index_key *k)
{
	index_live_sub(sp, k->slot, k->n_payload);
}

static void index_remove_key(struct spool *sp, const struct uuid *id)
{
	const struct index_key *k = index_find_key(sp, id);
	if (k == NULL)
		return;
	index_release_key(sp, k);
	table_remove(&sp->keys, id);
}

void index_set_key(struct spool *sp, const struct uuid *id, int64_t expires_ns, const struct segment *seg,
		   uint32_t off8, uint32_t n_payload)
{
	if (expires_ns <= wall_now().ns) {
		index_remove_key(sp, id);
		return;
	}
	struct index_key *k = table_add(&sp->keys, id);
	index_live_sub(sp, k->slot, k->n_payload);
	k->expires_ns = expires_ns;
	k->slot = seg->slot;
	k->off8 = off8;
	k->n_payload = n_payload;
	index_live_add(sp, seg->slot, n_payload);
	if (expires_ns < sp->expiry.soonest_ns)
		sp->expiry.soonest_ns = expires_ns;
}

/* The first place in by_seq with a seq not below this one. */
static size_t index_seek(const struct spool *sp, uint64_t seq)
{
	size_t lo = 0, hi = sp->n_segments;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (sp->by_seq[mid]->seq < seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool index_needs_tomb(const struct spool *sp, const struct tomb *tomb, uint64_t except_seq)
{
	size_t i = index_seek(sp, tomb->min_seq);
	if (i < sp->n_segments && sp->by_seq[i]->seq == except_seq)
		i++;
	return i < sp->n_segments && sp->by_seq[i]->seq <= tomb->max_seq;
}

void index_note_tomb(struct spool *sp, struct segment *seg, const struct tomb *tomb)
{
	if (index_needs_tomb(sp, tomb, seg->seq))
		tomb_list_add(&seg->tombs, *tomb);
}

void index_add_segment(struct spool *sp, struct segment *seg)
{
	uint32_t slot = 1;
	while (slot < sp->n_slots && sp->slot[slot] != NULL)
		slot++;
	if (slot >= sp->n_slots) {
		uint32_t n = sp->n_slots == 0 ? 16 : sp->n_slots * 2;
		sp->slot = xreallocarray(sp->slot, n, sizeof *sp->slot);
		for (uint32_t i = sp->n_slots; i < n; i++)
			sp->slot[i] = NULL;
		sp->n_slots = n;
	}
	if (sp->n_segments == sp->cap_by_seq) {
		sp->cap_by_seq = sp->cap_by_seq == 0 ? 16 : sp->cap_by_seq * 2;
		sp->by_seq = xreallocarray(sp->by_seq, sp->cap_by_seq, sizeof *sp->by_seq);
	}
	seg->slot = slot;
	sp->slot[slot] = seg;
	sp->by_seq[sp->n_segments++] = seg;
	sp->disk_bytes += seg->n_bytes;
}

/* Releases the index's reference. */
void index_drop_segment(struct spool *sp, struct segment *seg)
{
	size_t i = index_seek(sp, seg->seq);
	memmove(sp->by_seq + i, sp->by_seq + i + 1, (sp->n_segments - i - 1) * sizeof *sp->by_seq);
	sp->n_segments--;
	sp->slot[seg->slot] = NULL;
	sp->disk_bytes -= seg->n_bytes;
	segment_unref(seg);
}
