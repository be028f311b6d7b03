/* service.h - the daemon as a whole: what start and stop consist of. */
#pragma once

#include "app/options.h"

/** Loads the policy, runs pre_init and init, opens the spool, recovers the queues, accepts. In a fiber. -1:
 * the error is what to tell the operator; service_stop must still be called. 0 as well when it is cancelled
 * once the spool is being read: the end is then in good order. */
MUST_CHECK int service_start(const struct options *o);
/** pre_init, init and validate_config without opening anything. In a fiber. -1: not valid. */
MUST_CHECK int service_validate(const struct options *o);
/** In good order, bounded: no new work, what is in hand finishes, the rest stays in the spool. In a fiber. */
void service_stop(void);
/** SIGHUP: the policy is read again for everything that starts from now on. In a fiber. */
void service_reload(void);
/** What is left when the workers have stopped: the last records and the spool's last commit. Main thread. */
void service_close(void);
