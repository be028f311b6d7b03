/* spool_journal_notes.c - removals that the writer has not written yet, where a killed process leaves them
 * behind.
 *
 * A message that was delivered must not come back, but its TOMB waits for the writer, which may sit in an
 * fdatasync for long. Until the TOMB is with the kernel the id stands in `<path>/removals`, a small mapped
 * file: the store is in the page cache at once, so kill -9 does not lose it. At open, what stands there is
 * removed for good. After a power cut the file may hold anything old: ids that are not in the index mean
 * nothing, and an id is only ever noted when its message is to go. An id that was half written belongs to no
 * message. When all slots are taken, or there is no room for the file, removals do without.
 *
 * Slots are handed out and taken back under queue_lock. An operation is acknowledged after the notes of those
 * before it were cleared, so a later put of the same id is not affected. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOTES_MAX 16384u

void notes_open(struct spool *sp)
{
	struct notes *n = &sp->notes;
	size_t n_bytes = NOTES_MAX * sizeof(struct uuid);
	void *map = MAP_FAILED;
	int rc = 0, fd = openat(sp->dir_fd, "removals", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		rc = posix_fallocate(fd, 0,
				     (off_t)n_bytes); /* a hole that cannot be filled would be a SIGBUS */
	if (fd >= 0 && rc == 0)
		map = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		log_warn(JOURNAL_LOG,
			 "spool %s: no room for %s/removals (%s): a killed process may send more mail again",
			 sp->name, sp->path, strerror(rc != 0 ? rc : errno));
	else
		n->slot = map;
	if (fd >= 0)
		close(fd);
}

void notes_close(struct spool *sp)
{
	if (sp->notes.slot != NULL)
		munmap(sp->notes.slot, NOTES_MAX * sizeof(struct uuid));
	free(sp->notes.free_slot);
	sp->notes = (struct notes){0};
}

static void notes_put_back(struct notes *n, uint32_t slot)
{
	memset(&n->slot[slot], 0, sizeof(n->slot[slot]));
	if (n->n_free == n->cap_free) {
		n->cap_free = n->cap_free == 0 ? 64 : n->cap_free * 2;
		n->free_slot = xreallocarray(n->free_slot, n->cap_free, sizeof *n->free_slot);
	}
	n->free_slot[n->n_free++] = slot;
}

struct op *notes_apply(struct spool *sp)
{
	static const struct uuid nil;
	struct notes *n = &sp->notes;
	struct op *list = NULL;
	for (uint32_t i = 0; n->slot != NULL && i < NOTES_MAX; i++) {
		struct tomb tomb;
		if (uuid_eq(&n->slot[i], &nil))
			continue;
		while (n->n_used < i)
			notes_put_back(n, n->n_used++);
		n->n_used = i + 1;
		if (!index_remove(sp, &n->slot[i], &tomb)) {
			notes_put_back(n, i);
			continue;
		}
		struct op *op = op_new(OP_TOMBS, 0);
		tomb_list_add(&op->tombs, tomb);
		op->n_bytes = frame_bytes(0);
		op->note = i + 1;
		op->next = list;
		list = op;
	}
	return list;
}

void notes_add(struct spool *sp, struct op *op)
{
	struct notes *n = &sp->notes;
	if (n->slot == NULL || (n->n_free == 0 && n->n_used == NOTES_MAX))
		return;
	uint32_t slot = n->n_free > 0 ? n->free_slot[--n->n_free] : n->n_used++;
	n->slot[slot] = op->item[0].id;
	op->note = slot + 1;
}

void notes_clear(struct spool *sp, struct op *list)
{
	bool is_locked = false;
	for (struct op *op = list; op != NULL; op = op->next) {
		if (op->note == 0)
			continue;
		if (!is_locked)
			pthread_mutex_lock(&sp->queue_lock);
		is_locked = true;
		notes_put_back(&sp->notes, op->note - 1);
		op->note = 0;
	}
	if (is_locked)
		pthread_mutex_unlock(&sp->queue_lock);
}
