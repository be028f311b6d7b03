/* fault.h - named points where tests make a step fail. With the Meson option `faults` off, FAULT() is the
 * constant false. A point is armed through the environment at start, CIRRUS_FAULTS="spool_write=3,dns=*": the
 * third time it is passed it fires, "*" means each time, "kill:3" raises SIGKILL instead, and "slow:3" holds
 * up the thread for 5 seconds and then lets the step succeed. */
#pragma once

#include "base/str.h"

/* clang-format off */
#define FAULT_LIST(X) \
	X(accept) X(connect) X(dns) X(log_write) X(mailbox) X(spool_alloc) X(spool_commit) \
	X(spool_open) X(spool_read) X(spool_remove) X(spool_rotate) X(spool_sync) X(spool_write) \
	X(tls)
/* clang-format on */

enum fault_point {
#define FAULT_ENUM(name) FAULT_##name,
	FAULT_LIST(FAULT_ENUM)
#undef FAULT_ENUM
		FAULT_COUNT
};

#ifdef CIRRUS_FAULTS
#define FAULT(name) fault_hit(FAULT_##name)
#else
#define FAULT(name) false
#endif
bool fault_hit(enum fault_point p);
/** Arms exactly the points of spec, counting passes from 0; none when it is empty. Any thread; the points
 * change one after the other. -1 ERR_INVALID on an unknown point or a bad count; nothing has changed then. */
MUST_CHECK int fault_arm(str_t spec);
/** Reads CIRRUS_FAULTS; -1 ERR_INVALID as fault_arm, ERR_UNSUPPORTED when it is set and the option `faults`
 * is off. */
MUST_CHECK int fault_init_from_env(void);
