/* offload.h - blocking work on threads of our own (not libuv's four), so that a worker never blocks. */
#pragma once

#include "fiber/fiber.h"

/** Starts the pool: at most n threads, made when needed, named offload-N. Once. */
void offload_start(unsigned max_threads);
void offload_stop(void); /* waits for running jobs */

/** Runs fn(arg) on an offload thread and waits for it. Yields. fn returns 0 or -1 and may use the error slot:
 * its error is carried over. The wait is NOT given up at cancel or deadline once fn has begun, because arg is
 * the caller's: -1 ERR_TIMEOUT/ERR_CANCELLED means that fn has not run and will not, unless fn itself set
 * that kind; the same for ERR_SHUTDOWN after offload_stop. Outside fibers it runs fn in place. */
typedef int offload_fn(void *arg);
MUST_CHECK int offload_run(offload_fn *fn, void *arg, mono_t deadline);
