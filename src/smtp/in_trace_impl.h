/* in_trace_impl.h - what a session does, as JSON. */
#pragma once

#include "smtp/in.h"

/** Appends the event; is_terse: of a read of several lines, an abbreviation. */
void in_trace_write(const struct in_conn *conn, const struct in_seen *w, wall_t when, bool is_terse,
		    struct buf *out);
/** Whether the terse form differs. */
bool in_trace_is_abbreviated(const struct in_seen *w);
/** The event that tells a slow tracer what it has missed. */
void in_trace_write_lag(uint64_t n_missed, wall_t when, struct buf *out);
