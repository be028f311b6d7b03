/* spool.h - durable store for queued messages, and for what was answered to the requests that brought them.
 * Under one id a message has a META record (message_encode) and a body; bodies are shared between the
 * messages of a batch and stored once. Both survive power loss once spool_put() returns 0. Callable from any
 * worker; spool_journal.c explains batching. */
#pragma once

#include "fiber/fiber.h"
#include "mail/message.h"

struct spool;

struct spool_params {
	str_t name;	      /* for messages and metrics */
	str_t path;	      /* directory; made with its parents when missing */
	bool is_flushed;      /* false: answers after write(2), without fdatasync */
	size_t segment_bytes; /* 0: 64 MiB */
	uint64_t max_keys;    /* held at a time; 0: SPOOL_MAX_KEYS */
};
/** Opens (recovers, locks) a journal. Blocks: for start-up. -1 ERR_IO, ERR_EXISTS (locked by another
 * process), ERR_CORRUPT only when nothing can be read at all; lesser damage is logged with file and offset,
 * counted, and skipped. */
MUST_CHECK struct spool *spool_open_journal(const struct spool_params *p);
/** Writes out what is pending, fdatasyncs, stops its threads. Blocks. */
void spool_close(struct spool *sp);

/** Store messages together (one batch, one shared fsync) and wait until they are durable. Yields. Sets
 * is_spooled. A message that is stored already is replaced; without a body in memory it keeps the stored one
 * (ERR_NOT_FOUND when there is none). After a crash either all messages of a put are there or none.
 *
 * @deadline  bounds the wait, not the write: after ERR_TIMEOUT or ERR_CANCELLED they may still become
 *            durable, so call spool_remove() or put again (put is idempotent by id).
 *
 * Returns 0, or -1 with ERR_TIMEOUT, ERR_CANCELLED, ERR_SPOOL_FULL (temporary), ERR_LIMIT or ERR_IO: then
 * none counts as stored. */
MUST_CHECK int spool_put(struct spool *sp, struct message *const *m, size_t n, mono_t deadline);
/* A key is the name that a client gives to a request, so that it may send it again without having it done
 * twice. It is kept until it expires, together with what was answered, whatever becomes of the messages. */
#define SPOOL_MAX_KEYS UINT64_C(4000000) /* of 40 bytes each, in a table that is two thirds full */
#define SPOOL_ANSWER_MAX (UINT32_C(16) << 20)
struct spool_key {
	struct uuid id;	   /* names it among all others: a hash; not nil */
	uint8_t print[32]; /* of the request that it stands for */
	wall_t expires;
	str_t answer;
};
/** As spool_put, with a key: after a crash all messages and the key are there, or none of them. There may be
 * no message (n 0). A key that is there and has not expired is not replaced; the same key is not to be put
 * twice at once.
 *
 * @deadline  bounds the beginning only: once handed over it is waited for, also when the fiber is cancelled,
 * because a key of which nobody knows whether it is stored could not be answered for.
 *
 * After an error none of the messages is stored, also those that were stored before. Should the put survive a
 * crash all the same, then as a whole: they must not be removed once more.
 *
 * -1 also ERR_EXISTS: there is such a key; ERR_LIMIT: there are max_keys already, or the answer is longer
 * than SPOOL_ANSWER_MAX. */
MUST_CHECK int spool_put_with_key(struct spool *sp, struct message *const *m, size_t n,
				  const struct spool_key *key, mono_t deadline);
/** Whether there is such a key that has not expired. Any thread. */
bool spool_has_key(struct spool *sp, const struct uuid *id);
/** Reads it back; the answer lies in *bytes. Yields. -1 ERR_NOT_FOUND (it may just have expired),
 * ERR_CORRUPT, ERR_IO. */
MUST_CHECK int spool_load_key(struct spool *sp, const struct uuid *id, struct spool_key *out,
			      struct buf *bytes, mono_t deadline);

/** As spool_put of one message, but keeps the stored body, whatever is in memory: ERR_NOT_FOUND when it is
 * not stored. */
MUST_CHECK int spool_put_record(struct spool *sp, struct message *m, mono_t deadline);
/** Makes durable what the spool does not have of m yet: nothing, the record, or record and body. Yields. As
 * spool_put; also ERR_INVALID for a message without any data. */
MUST_CHECK int spool_save(struct spool *sp, struct message *m, mono_t deadline);
/** Records new attempts, due time, recipients or metadata of a stored message. Does not wait: it is written
 * in order with the rest and durable with the next commit. Never yields, never fails (a later write error is
 * latched: spool_health). One whose metadata could not be brought back stays as it was stored. */
void spool_update(struct spool *sp, struct message *m);
/** Forgets a message. As spool_update. */
void spool_remove(struct spool *sp, const struct uuid *id);
/** Brings the body back into m->body. Yields (reads on an offload thread). -1 ERR_NOT_FOUND, ERR_CORRUPT,
 * ERR_IO. */
MUST_CHECK int spool_load_body(struct spool *sp, struct message *m, mono_t deadline);
/** Brings back the metadata of a message that has let go of them (message_shed_meta). As spool_load_body. */
MUST_CHECK int spool_load_meta(struct spool *sp, struct message *m, mono_t deadline);
/** Reads a message back whole by id. NULL: ERR_NOT_FOUND, ERR_CORRUPT, ERR_IO. Yields. */
MUST_CHECK struct message *spool_load(struct spool *sp, const struct uuid *id, mono_t deadline);

/** Every message present at open, in order of storage, without bodies. fn takes the reference. Yields between
 * batches. Once: after ERR_TIMEOUT or ERR_CANCELLED a further call goes on where this one stopped. */
typedef void spool_enum_fn(struct message *m, void *arg);
MUST_CHECK int spool_enumerate(struct spool *sp, spool_enum_fn *fn, void *arg, mono_t deadline);
/** Whether what is put is on the disk, and not only with the kernel, when spool_put returns. */
bool spool_is_flushed(const struct spool *sp);
/** NULL when it takes mail; else why not ("the spool is not accepting writes: ..."), static until the next
 * call. Any thread. */
const char *spool_health(struct spool *sp);
struct spool_stats {
	uint64_t n_messages, n_keys, n_bytes_live, n_bytes_disk, n_segments, n_damaged;
};
void spool_get_stats(struct spool *sp, struct spool_stats *out);
/** Forgets the keys that have expired and rewrites what can be rewritten now. Yields. */
MUST_CHECK int spool_compact(struct spool *sp, mono_t deadline);
