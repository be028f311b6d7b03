/* crowd.h - the connections of a listener, and how they are told that it stops: each worker has a list of
 * those that it runs, touched by nobody else, and is sent a mail to go through it. */
#pragma once

#include "fiber/fiber.h"

struct crowd;
struct crowd_member {
	struct list link;
	/** Told that the listener stops; on the loop stack, must not wait. */
	void (*stop)(struct crowd_member *m);
};

struct crowd *crowd_new(void);
/** Of the calling fiber's worker, from here to crowd_leave. */
void crowd_enter(struct crowd *c, struct crowd_member *m);
void crowd_leave(struct crowd_member *m);
/** Raises the flag, then calls every member's stop. Members
 * that enter later see the flag. Any worker; once. */
void crowd_stop(struct crowd *c);
bool crowd_is_stopping(const struct crowd *c); /* any worker */
/** Waits until every worker has gone through its list. Yields. -1: not by the deadline; c must stay then. */
MUST_CHECK int crowd_join(struct crowd *c, mono_t deadline);
void crowd_free(struct crowd *c); /* empty; after crowd_join, or before crowd_stop. NULL is fine */
