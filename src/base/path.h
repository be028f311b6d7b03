/* path.h - file system helpers. They block: for start-up and offload threads. */
#pragma once

#include "base/defs.h"

#include <sys/types.h>

/** Makes the directory and its missing parents, each durably (its parent is fsynced); what exists is left as
 * it is. -1 ERR_IO naming what failed. */
MUST_CHECK int path_make_dirs(const char *path, mode_t mode);
