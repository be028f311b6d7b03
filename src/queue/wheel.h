/* wheel.h - the timer wheel that holds messages until they are due: a hierarchy of
 * 256-slot wheels over ticks of 250 ms, so inserting and removing are O(1) and a
 * tick touches only what is due. Messages are linked through message.link. Not
 * thread-safe: its owner locks. A message is never early and at most one tick late. */
#pragma once

#include "mail/message.h"

#define WHEEL_SLOTS 256
#define WHEEL_LEVELS 4 /* 256^4 ticks: 34 years */

struct wheel {
	uint64_t now_tick; /* everything due at or before it has been handed out */
	size_t n;
	struct list slot[WHEEL_LEVELS][WHEEL_SLOTS];
	uint64_t used[WHEEL_LEVELS][WHEEL_SLOTS / 64]; /* a bit per slot that may be non-empty */
};

void wheel_init(struct wheel *w, wall_t now);
/** m->due says when; m->link must be in no list. */
void wheel_insert(struct wheel *w, struct message *m);
void wheel_remove(struct wheel *w, struct message *m);
/** Moves every message due at `now` to the end of `due`. */
void wheel_advance(struct wheel *w, wall_t now, struct list *due);
/** Starts over at `now`, with all messages: for a clock that was set back, by which a wheel would stand
 * still. */
void wheel_rebuild(struct wheel *w, wall_t now);
/** How long from now until the wheel must be advanced again; DUR_MAX when it is empty. */
dur_t wheel_next(const struct wheel *w, wall_t now);
