/* date.h - dates of header fields (RFC 5322 section 3.3 with its obsolete forms). */
#pragma once

#include "base/clock.h"

/** "Thu, 7 Jul 1994 17:15:49 -0400". The day of the week, seconds and comments may be missing or wrong; years
 * of two and three digits and zones by name are read as section 4.3 says: an unknown name is UTC. False: no
 * date. */
bool date_parse(str_t value, wall_t *out);
