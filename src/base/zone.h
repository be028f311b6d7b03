/* zone.h - time zones by the names of the system's time zone database ("America/Phoenix"): the offset from
 * UTC at a time, and the time at which a local clock shows something. Any thread. */
#pragma once

#include "base/str.h"

struct zone;

/** NULL: the database has no such zone. The first call for a name reads its file (a few KB); a zone stays in
 * memory for the life of the process, so that the pointer may be kept. "UTC" is always there. */
const struct zone *zone_find(str_t name);
/** Seconds east of UTC at that time. */
int zone_offset(const struct zone *z, int64_t unix_s);
/** When the zone's clock shows local_s (seconds since 1970, as if they were UTC): the first time, where it
 * does so twice; the moment of the jump, where it jumps over it. */
int64_t zone_unix_of_local(const struct zone *z, int64_t local_s);
