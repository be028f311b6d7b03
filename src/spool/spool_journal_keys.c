/* spool_journal_keys.c - the end of keys.
 *
 * A key is dead from the moment that its frame names; whoever looks it up compares. Its row and its bytes are
 * given back later, by the writer, which goes through the table a shard at a time, so that no put waits for a
 * look at millions of rows. A round begins when the key that dies first has died, and not before the last one
 * has been over for as long as keeps the search to about a percent of the writer's time. Nothing is written:
 * see rule 6 in spool_journal_compact.c. */
#include "spool/spool_journal_impl.h"

#define ROUND_MIN_NS NS_PER_S
#define ROUND_MAX_NS (60 * NS_PER_S) /* the clock may be set meanwhile */
#define ROUND_KEY_NS 5000 /* pause for each key: looking at one, and placing it anew, takes about 50 ns */

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

static bool expire_keeps(void *row, void *arg)
{
	struct spool *sp = arg;
	const struct index_key *k = row;
	if (!key_is_alive(k)) {
		index_release_key(sp, k);
		return false;
	}
	if (k->expires_ns < sp->expiry.soonest_ns)
		sp->expiry.soonest_ns = k->expires_ns;
	return true;
}

static void expire_shard(struct spool *sp, uint32_t shard)
{
	pthread_mutex_lock(&sp->lock);
	table_filter_shard(&sp->keys, shard, expire_keeps, sp);
	pthread_mutex_unlock(&sp->lock);
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
	expire_shard(sp, x->shard);
	if (++x->shard == TABLE_SHARDS) {
		expire_end_round(sp, now);
		return x->next_ns;
	}
	return now; /* the next shard, after what was queued meanwhile */
}

void journal_expire_all_keys(struct spool *sp)
{
	sp->expiry.soonest_ns = INT64_MAX;
	for (uint32_t shard = 0; shard < TABLE_SHARDS; shard++)
		expire_shard(sp, shard);
	expire_end_round(sp, journal_now_ns());
}
