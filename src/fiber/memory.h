/* memory.h - how much memory the process uses, held against its limits (docs/reference/memory.md).
 * It is looked at every 3 s; over the soft limit the service takes no mail until it is below again,
 * above the low threshold messages that wait give up their bodies. Any thread, unless it is said. */
#pragma once

#include "base/str.h"

enum memory_level {
	MEMORY_PLENTY,
	MEMORY_LOW,  /* at or above the low threshold */
	MEMORY_OVER, /* at or above the soft limit */
};

/** Limits of the policy, in bytes: they win over those of
 * the environment, and those over what is detected. */
void memory_set_hard_limit(uint64_t bytes);
void memory_set_soft_limit(uint64_t bytes);
void memory_set_low_threshold(uint64_t bytes);
/** Detected: the least of the control group's limit, RLIMIT_AS, RLIMIT_DATA, and the machine's memory. Reads
 * files. */
uint64_t memory_hard_limit(void);
/** Else three quarters of the hard limit, and no more than the control group's memory.high. */
uint64_t memory_soft_limit(void);
/** Else four fifths of the soft limit. */
uint64_t memory_low_threshold(void);

/** Takes KUMOD_MEMORY_HARD_LIMIT and KUMOD_MEMORY_SOFT_LIMIT, looks once, and goes on looking in a fiber of
 * worker 0 that ends with it. From a fiber. -1 ERR_INVALID naming the variable. */
MUST_CHECK int memory_start(void);
/** When it was looked at last: the working set of the control group, or the resident set. */
uint64_t memory_usage(void);
enum memory_level memory_level(void);
/** NULL, or "load shedding" over the soft limit. */
const char *memory_health(void);

/** A number from a file of the process's control group, "memory.max" for instance; false when there is none
 * ("max" is none). */
bool memory_read_group(const char *file, uint64_t *bytes);
