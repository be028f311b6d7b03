/* spool_save.c - storing what a policy has changed of a message, and no more: most changes are to its record,
 * which is small. */
#include "base/err.h"
#include "spool/spool.h"

int spool_save(struct spool *sp, struct message *m, mono_t deadline)
{
	if (m->size_bytes == 0) {
		char id[33];
		uuid_fmt_simple(&m->id, id);
		err_set(ERR_INVALID, "message %s has no data and cannot be stored", id);
		return -1;
	}
	if (!m->is_spooled || m->is_body_changed)
		return spool_put(sp, &m, 1, deadline);
	return m->is_changed ? spool_put_record(sp, m, deadline) : 0;
}
