/* monitor.h - watching the files that the configuration is made of: when one
 * changes, the epoch moves (policy.h). Source: docs/reference/configuration.md. */
#pragma once

#include "base/clock.h"
#include "policy/glob.h"

/** Watches what these patterns match, from the next look on, instead of the default: the files that usually
 * hold configuration, and the policy file. -1 ERR_INVALID naming the pattern. Any thread. */
MUST_CHECK int monitor_set_globs(const char *const *pattern, size_t n);
/** What is watched at this moment. Yields. -1 ERR_LIMIT, ERR_TIMEOUT, ERR_CANCELLED. */
MUST_CHECK int monitor_find_files(struct glob_files *out, mono_t deadline);
/** Starts a fiber in the calling worker that looks every 10 s. Once, after `init`. */
void monitor_start(void);
/** Ends it. From a fiber of the same worker; yields. No effect when it was never started. */
void monitor_stop(mono_t deadline);
