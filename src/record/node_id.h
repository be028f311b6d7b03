/* node_id.h - the UUID of this node, the same for all its life: the environment's KUMO_NODE_ID, else the one
 * in the file KUMO_NODE_ID_PATH (default /opt/kumomta/etc/.nodeid), which is made when missing. */
#pragma once

#include "base/defs.h"

/** Blocks (reads, perhaps writes a file): at start, before the first record. -1 ERR_INVALID naming the
 * variable or file that holds something else than a UUID, ERR_IO when the file is there and cannot be read. A
 * file that cannot be made is only warned about: the id is then derived from the machine's. */
MUST_CHECK int node_id_init(void);
/** 8-4-4-4-12. All zeros before node_id_init. */
const char *node_id(void);
