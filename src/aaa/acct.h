/* acct.h - the accounting log (kumo.aaa.configure_acct_log): a line of JSON for
 * each login that was tried and for each decision about access, in segment files
 * `acct-...` like those of the records. Passwords and tokens never come here. */
#pragma once

#include "aaa/access.h"
#include "policy/param.h"

extern const struct param_schema acct_log_schema;
/** Makes the directory and, unless is_validating, starts the log. Once. -1 ERR_EXISTS, ERR_IO naming the
 * path. */
MUST_CHECK int acct_log_configure(struct param_object *params, bool is_validating);
/** Nothing unless a log is configured that wants it. They yield when the log has no room; what cannot be
 * logged is counted and said in the diagnostic log, and does not stop the request. */
void acct_log_login(const struct auth_info *who, str_t identity, enum auth_context context, bool is_success,
		    mono_t deadline);
void acct_log_access(const struct resource *what, const struct auth_info *who, str_t privilege,
		     const struct access_result *r, mono_t deadline);
/** Writes out and closes; nothing may be logged any more. Blocks, or yields in a fiber. */
void acct_log_stop(void);
