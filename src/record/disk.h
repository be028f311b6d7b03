/* disk.h - watching the free space under logs and spools. A thread looks every 5 s
 * with statvfs(2); the figures are the disk_free_* metrics, and a path under its
 * limit makes record_disk_health() say so until there is room again. Any thread. */
#pragma once

#include "base/str.h"

#include <jansson.h>

/** NULL, or "disk is too full" when a monitored path is under its min_free_space or min_free_inodes. Static
 * text. */
const char *record_disk_health(void);
/** Monitors a path from now on; looks at once, so that the metrics exist when it returns. A known name is
 * replaced.
 * @name  the metrics' label: "data spool", "log dir /var/log/x". @min_free_*  "10%" or a count (bytes,
 * inodes); empty: "10%". The limits must have passed disk_limit_check: panics otherwise. */
void disk_monitor_add(const char *name, const char *path, str_t min_free_space, str_t min_free_inodes);
/** Forgets every path and ends the thread. */
void disk_monitor_stop(void);
/** Looks at every path now instead of at the next 5 s. */
void disk_monitor_look(void);

/** -1 ERR_INVALID: neither "N%" with N up to 100 nor a count. */
MUST_CHECK int disk_limit_check(str_t text);
/** For PARAM_CUSTOM fields of type char *: takes "10%",
 * "1000" and 1000, keeps the text. Default: "\"10%\"". */
int disk_limit_param_parse(const json_t *value, void *field);
void disk_limit_param_fini(void *field);
