/* wheel.c - a hierarchical timer wheel. Level 0 has a slot for each of the next 256 ticks; level k a slot for
 * 256^k ticks. A message goes to the lowest level whose span reaches its tick; when level k turns over, the
 * slot of level k+1 that begins is spread out again over the lower levels. The used bits let a long idle
 * stretch be crossed without touching empty slots. */
#include "queue/wheel.h"

#define TICK_NS (250 * INT64_C(1000000))

static uint64_t wheel_tick_floor(wall_t t)
{
	return t.ns <= 0 ? 0 : (uint64_t)(t.ns / TICK_NS);
}
static uint64_t wheel_tick_ceil(wall_t t)
{
	return t.ns <= 0 ? 0 : (uint64_t)((t.ns + TICK_NS - 1) / TICK_NS);
}

void wheel_init(struct wheel *w, wall_t now)
{
	memset(w->used, 0, sizeof(w->used));
	w->now_tick = wheel_tick_floor(now);
	w->n = 0;
	for (int l = 0; l < WHEEL_LEVELS; l++)
		for (int s = 0; s < WHEEL_SLOTS; s++)
			list_init(&w->slot[l][s]);
}

static void wheel_link(struct wheel *w, struct message *m, uint64_t tick)
{
	if (tick <= w->now_tick)
		tick = w->now_tick + 1;
	int level = 0;
	while (level < WHEEL_LEVELS - 1 &&
	       (tick >> (8 * level)) - (w->now_tick >> (8 * level)) >= WHEEL_SLOTS)
		level++;
	uint64_t max = (w->now_tick >> (8 * level)) + WHEEL_SLOTS - 1;
	uint64_t pos = tick >> (8 * level);
	if (pos > max) /* further off than the wheel reaches: looked at again when that slot comes */
		pos = max;
	unsigned s = (unsigned)(pos % WHEEL_SLOTS);
	list_push_back(&w->slot[level][s], &m->link);
	w->used[level][s / 64] |= UINT64_C(1) << (s % 64);
}

void wheel_insert(struct wheel *w, struct message *m)
{
	w->n++;
	wheel_link(w, m, wheel_tick_ceil(m->due));
}

void wheel_remove(struct wheel *w, struct message *m)
{
	list_remove(&m->link); /* the used bit may stay: it only says "may be non-empty" */
	w->n--;
}

/** Takes a slot's messages off and clears its bit. */
static void wheel_take_slot(struct wheel *w, int level, uint64_t pos, struct list *out)
{
	unsigned s = (unsigned)(pos % WHEEL_SLOTS);
	list_splice_back(out, &w->slot[level][s]);
	w->used[level][s / 64] &= ~(UINT64_C(1) << (s % 64));
}

/** Enters tick w->now_tick: spreads out the slots of higher
 * levels that begin with it, hands out what is due. */
static void wheel_enter_tick(struct wheel *w, struct list *due)
{
	struct list moved;
	list_init(&moved);
	for (int level = WHEEL_LEVELS - 1; level >= 0; level--) {
		if (level > 0 && (w->now_tick & ((UINT64_C(1) << (8 * level)) - 1)) != 0)
			continue;
		wheel_take_slot(w, level, w->now_tick >> (8 * level), &moved);
		for (struct list *n; (n = list_pop_front(&moved)) != NULL;) {
			struct message *m = list_entry(n, struct message, link);
			uint64_t tick = wheel_tick_ceil(m->due);
			if (tick <= w->now_tick) {
				list_push_back(due, n);
				w->n--;
			} else {
				wheel_link(w, m, tick);
			}
		}
	}
}

/** The next tick after now_tick at which something may have to be done, or UINT64_MAX. */
static uint64_t wheel_next_tick(const struct wheel *w)
{
	uint64_t best = UINT64_MAX;
	for (int level = 0; level < WHEEL_LEVELS; level++) {
		uint64_t here = w->now_tick >> (8 * level);
		for (unsigned i = 1; i < WHEEL_SLOTS; i++) {
			unsigned s = (unsigned)((here + i) % WHEEL_SLOTS);
			if (s % 64 == 0 && w->used[level][s / 64] == 0) { /* a whole word of empty slots */
				i += 63;
				continue;
			}
			if (w->used[level][s / 64] >> (s % 64) & 1) {
				uint64_t t = (here + i) << (8 * level);
				if (t < best)
					best = t;
				break;
			}
		}
	}
	return best;
}

void wheel_advance(struct wheel *w, wall_t now, struct list *due)
{
	uint64_t target = wheel_tick_floor(now);
	while (w->now_tick < target) {
		uint64_t next = w->n == 0 ? UINT64_MAX : wheel_next_tick(w);
		if (next > target) {
			w->now_tick = target;
			break;
		}
		w->now_tick = next;
		wheel_enter_tick(w, due);
	}
}

void wheel_rebuild(struct wheel *w, wall_t now)
{
	struct list all;
	list_init(&all);
	for (int l = 0; l < WHEEL_LEVELS; l++)
		for (int s = 0; s < WHEEL_SLOTS; s++)
			list_splice_back(&all, &w->slot[l][s]);
	wheel_init(w, now);
	for (struct list *n; (n = list_pop_front(&all)) != NULL;)
		wheel_insert(w, list_entry(n, struct message, link));
}

dur_t wheel_next(const struct wheel *w, wall_t now)
{
	if (w->n == 0)
		return DUR_MAX;
	uint64_t next = wheel_next_tick(w);
	if (next == UINT64_MAX)
		return DUR_MAX;
	int64_t at = (int64_t)next * TICK_NS;
	return dur_ns(at > now.ns ? at - now.ns : 0);
}
