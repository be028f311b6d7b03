/* authorize.h - who may use the HTTP service: ties src/http's authorizer to src/aaa. */
#pragma once

#include "aaa/auth_info.h"
#include "http/http.h"

/** From then on logins and access control lists decide about
 * each request; before the first listener starts. */
void api_authorize_register(void);
/** Who sent the request; in its arena. What is known of the peer's address where nobody decided. */
const struct auth_info *api_request_who(struct http_request *r);
