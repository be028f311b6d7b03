/* login.h - is the credential good, and who is it? The policy says:
 * http_server_validate_auth_basic(user, password) and http_server_validate_auth_bearer(token)
 * return true, false, or an AuthInfo with identities and groups
 * (docs/reference/events/http_server_validate_auth_basic.md). No handler: nobody can log in. */
#pragma once

#include "aaa/auth_info.h"
#include "aaa/credential.h"

/** 1: good, and who has got the identities and groups; 0: wrong, who is as before; -1: the policy failed,
 * which the diagnostic log says. Any of them is cached and goes to the accounting log. Yields when a handler
 * does. */
MUST_CHECK int login_check(const struct credential *c, struct auth_info *who, mono_t deadline);
/** Forgets what is cached; at shutdown and between tests. */
void login_reset(void);
