/* spool_journal_keys.c - the end of keys.
 *
 * A key is dead from the moment that its frame names; whoever looks it up compares. Its row and its bytes are given
 * back later, by the writer, which goes through the table a shard at a time, so that no put waits for a look at
 * millions of rows. A round begins when the key that dies first has died, and not before the last one has been over
 * for as long as keeps the search to about a percent of the writer's time. Nothing is written: see rule 6 in
 * spool_journal_compact.c. */
#include "spool/spool_journal_impl.h"

#define ROUND_MIN_NS NS_PER_S
#define ROUND_MAX_NS (60 * NS_PER_S) /* the clock may be set meanwhile */
#define ROUND_KEY_NS 2000	     /* pause for each key: looking at one takes about 20 ns */
#define EXPIRE_SLICE 256	     /* rows that one look takes out */

bool key_is_alive(const struct index_key *k)
{
	return k->expires_ns > wall_now().ns;
}

bool spool_has_key(struct spool *sp, const struct uuid *id)
{
	pthread_mutex_lock(&sp->lock);
	const struct index_key *k = index_find_key(sp, id);
	bool is_alive = k != NULL && key_is_alive(k);
	pthread_mutex_unlock(&sp->lock);
	return is_alive;
}

/* Takes out what is dead in the shard; false when there may be more. */
static bool expire_shard(struct spool *sp, uint32_t shard)
{
	struct uuid dead[EXPIRE_SLICE];
	size_t n = 0;
	uint64_t pos = (uint64_t)shard << 32;
	pthread_mutex_lock(&sp->lock);
	while (n < EXPIRE_SLICE) {
		const struct index_key *k = table_next(&sp->keys, &pos);
		if (k == NULL || pos >> 32 != shard)
			break;
		if (!key_is_alive(k))
			dead[n++] = k->id;
		else if (k->expires_ns < sp->expiry.soonest_ns)
			sp->expiry.soonest_ns = k->expires_ns;
	}
	for (size_t i = 0; i < n; i++)
		index_remove_key(sp, &dead[i]);
	pthread_mutex_unlock(&sp->lock);
	return n < EXPIRE_SLICE;
}

static void expire_end_round(struct spool *sp, int64_t now)
{
	int64_t pause = (int64_t)sp->keys.n * ROUND_KEY_NS;
	sp->expiry.shard = 0;
	sp->expiry.next_ns = now + (pause > ROUND_MIN_NS ? pause : ROUND_MIN_NS);
}

int64_t journal_expire_keys(struct spool *sp)
{
	struct expiry *x = &sp->expiry;
	if (sp->keys.n == 0)
		return 0;
	int64_t now = journal_now_ns(), left = x->soonest_ns - wall_now().ns;
	if (now < x->next_ns)
		return x->next_ns;
	if (x->shard == 0 && left > 0)
		return now + (left < ROUND_MAX_NS ? left : ROUND_MAX_NS);
	if (x->shard == 0)
		x->soonest_ns = INT64_MAX;
	if (expire_shard(sp, x->shard) && ++x->shard == TABLE_SHARDS) {
		expire_end_round(sp, now);
		return x->next_ns;
	}
	return now; /* the next shard, after what was queued meanwhile */
}

void journal_expire_all_keys(struct spool *sp)
{
	sp->expiry.soonest_ns = INT64_MAX;
	for (uint32_t shard = 0; shard < TABLE_SHARDS;)
		shard += expire_shard(sp, shard);
	expire_end_round(sp, journal_now_ns());
}
