/* access_log.h - the access log of an HTTP listener (start_http_listener { access_log = { ... } }): a line of
 * JSON for each request that was answered, in segment files `access-...` like those of the records. Listeners
 * with the same log_dir share one log. Credentials never come here, and of the query only the values of
 * parameters that the API documents. */
#pragma once

#include "http/http.h"
#include "policy/param.h"

struct access_log;
extern const struct param_schema access_log_schema;

/** Makes the directory and, unless is_validating, starts the log; what there is already for the same
 * directory is used again, if it is configured alike. *out is for access_log_write and stays until
 * access_logs_stop; NULL when validating. In init, one at a time. -1 ERR_INVALID (the same directory,
 * otherwise configured), ERR_IO naming the path. */
MUST_CHECK int access_log_open(struct param_object *params, bool is_validating, struct access_log **out);
/** Logs a request, as a listener's on_done with its log as arg. Never waits: a line for which there is no
 * room is lost and counted. */
http_done_fn access_log_write;
/** Writes out and closes all of them, when the listeners are closed. Blocks, or yields in a fiber. */
void access_logs_stop(void);
