/* mime_params.h - Content-Type, Content-Disposition, Content-Transfer-Encoding: a value and parameters (RFC
 * 2045 section 5.1), these also in the forms of RFC 2231 (charsets, continuations) and, as many send them,
 * with RFC 2047 words. */
#pragma once

#include "base/arena.h"
#include "mime/header_write.h"

struct mime_param {
	str_t name;  /* lower case, without `*` */
	str_t value; /* decoded, UTF-8 */
};
struct mime_params {
	struct arena arena; /* owns all that was parsed */
	str_t value;	    /* "text/plain", as written */
	struct mime_param *param;
	size_t n;
};

/** Tolerates what is clear: empty parameters, blanks and specials in values without quotes, a missing closing
 * quote. The first of two parameters of one name counts. -1 ERR_INVALID: there is no value. */
MUST_CHECK int mime_params_parse(str_t value, struct mime_params *out);
void mime_params_fini(struct mime_params *p);
/** p NULL when there is none of that name (lower case). */
str_t mime_params_get(const struct mime_params *p, str_t name);
/** Sets or (value p NULL) removes. name and value are copied. */
void mime_params_set(struct mime_params *p, str_t name, str_t value);
/** -1 ERR_INVALID: cannot be written: value is not of the form token[/token], a name is no token, controls,
 * not UTF-8. */
MUST_CHECK int mime_params_check(const struct mime_params *p);
/** Makes it one that the check takes: parameters whose names cannot be written go, other bytes that cannot
 * stand become `_`. */
void mime_params_clean(struct mime_params *p);
/** After header_write_begin. */
void mime_params_write(const struct mime_params *p, struct header_writer *w);
