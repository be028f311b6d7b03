/* inject_content.h - the content of an injection, for each of its recipients. */
#pragma once

#include "api/inject_request.h"
#include "mail/body.h"

struct inject_content {
	const struct inject_request *req;
	struct body *body;              /* what all recipients get, when there is no markup */
	struct template *template;      /* else */
	bool common_has_breaks;         /* in req->substitutions, see inject_content.c */
};
/** Compiles content that has markup; the rest is shared as it is. req must live as long as c. -1 ERR_INVALID, ERR_LIMIT. */
MUST_CHECK int inject_content_init(struct inject_content *c, const struct inject_request *req);
void inject_content_fini(struct inject_content *c);
/** The recipient's body, a new reference. NULL with the error set: the template, or what it made, is wrong. */
struct body *inject_content_of(const struct inject_content *c, const struct inject_recipient *r);
/** NUL anywhere, or a CR without LF in the header section: -1 ERR_INVALID that says where. */
MUST_CHECK int inject_content_check(str_t content);
