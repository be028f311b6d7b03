/* credential.h - the value of an Authorization header: HTTP Basic (RFC 7617) and Bearer (RFC 6750). */
#pragma once

#include "base/arena.h"

enum credential_kind { CREDENTIAL_BASIC, CREDENTIAL_BEARER };

struct credential {
	enum credential_kind kind;
	str_t secret;	/* as sent, after the scheme; of Bearer: the token. Never to be shown */
	str_t user;	/* Basic */
	str_t password; /* Basic; p NULL: there was no colon. Never to be shown */
};

/** Scheme in any case, then what the scheme's grammar allows and nothing else: base64 must be canonical, a
 * user and password are UTF-8 without control characters. Texts point into value or the arena. False with
 * *why, a static text without anything of the value. */
MUST_CHECK bool credential_parse(str_t value, struct arena *arena, struct credential *out, const char **why);
