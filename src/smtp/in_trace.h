/* in_trace.h - watching the sessions of the SMTP service from afar: everything that
 * they see (in_observe.c) as JSON events, in a bounded queue of each watcher. Sessions
 * never wait for a watcher: one that is slow loses the oldest events, and is told how
 * many. While there is no watcher this costs a session nothing but a look at a pointer. */
#pragma once

#include "net/addr.h"

enum { IN_TRACE_MAX_TRACERS = 32 };

struct in_tracer;

/** NULL, or why there can be no further tracer now. Any worker. */
const char *in_tracer_why_not(void);
/** Sees everything that happens from now on, also before it says what it wants to see. wake is called on the
 * loop stack of the calling worker when there is something to take after there was nothing; never after
 * in_tracer_free. NULL ERR_LIMIT: there are too many. */
MUST_CHECK struct in_tracer *in_tracer_new(void (*wake)(void *arg), void *arg);
/** What follows is the new tracer's worker's. */
void in_tracer_free(struct in_tracer *t); /* NULL is fine */
/** Keeps to the peers in source_addr (copied; empty: all of them), also of what is waiting to be taken.
 * is_terse: reads of several lines are abbreviated. Once. */
void in_tracer_set_filter(struct in_tracer *t, const struct cidr_set *source_addr, bool is_terse);
/** The next event, a JSON object, valid until the next call; false: there is none now. */
bool in_tracer_take(struct in_tracer *t, str_t *json);
