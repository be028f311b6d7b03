/* accept.h - which of several forms an Accept header wants (RFC 9110 section 12.5.1). */
#pragma once

#include "base/str.h"

/** "0.25" as 250; -1 when it is no weight (section 12.4.2). */
int http_weight(str_t s);

struct http_media {
	const char *type;	 /* "text/plain" */
	const char *param;	 /* a parameter that tells versions apart, or NULL */
	const char *param_value; /* ranges that name another value do not match */
};

/** The index of the form with the highest quality; of several the one named most precisely, then the first. 0
 * also when there is no header or nothing of it fits: an answer in the usual form is more use than none. n is
 * at least 1. */
size_t http_accept_choose(str_t accept, const struct http_media *offered, size_t n);
