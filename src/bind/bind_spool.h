/* bind_spool.h - kumo.define_spool: what the policy says of the spools. The application opens them after
 * init. */
#pragma once

#include "base/defs.h"

struct spool_definition {
	char *name; /* "data" or "meta" */
	char *path;
	int kind;
	bool flush;
	char *min_free_space, *min_free_inodes;
	int64_t max_idempotency_keys;
};

/** Registers the function; before policy_start. */
void bind_register_spool(void);
/** The definition of that name, or NULL. After init; valid for the life of the process. */
const struct spool_definition *bind_spool_find(const char *name);
