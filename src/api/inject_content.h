/* inject_content.h - the content of an injection, for each of its recipients. */
#pragma once

#include "api/inject_request.h"
#include "mime/envelope.h"
#include "mail/message.h"

struct content_slot;
struct inject_content {
	const struct inject_request *req;
	struct body *body;	   /* what all recipients get; NULL: it differs */
	struct template *template; /* of content as a string */
	bool common_has_breaks;	   /* in req->substitutions, see inject_content.c */
	bool has_to_header;	   /* some template asks for it */
	/* content as an object */
	struct mime_content
		made; /* what is sent as it is, and what the slots make for the recipient in hand */
	struct mime_header *made_header; /* made.header */
	struct mime_encoded_part *part;	 /* made.part */
	struct content_slot *slot;	 /* the texts that are templates */
	size_t n_slots;
	/* for one recipient after the other */
	json_t *names;
	struct template_run *run;
	struct buf text, out;
};
/** Compiles the templates, checks and encodes what is the same for all. Much of it is done on another thread:
 * may yield. req must live as long as c. -1 ERR_INVALID, ERR_LIMIT naming the field; ERR_TIMEOUT,
 * ERR_CANCELLED. c is to be released in every case. */
MUST_CHECK int inject_content_init(struct inject_content *c, const struct inject_request *req,
				   mono_t deadline);
void inject_content_fini(struct inject_content *c);
/** The body for recipient i, a new reference; to: its address. NULL with the error set: the template, or what
 * it made, is wrong. */
MUST_CHECK struct body *inject_content_body(struct inject_content *c, size_t i, const struct mailbox *to);
/** Gives m, of the same recipient and with that body, the header fields that are its own. hostname: for want
 * of another domain. */
void inject_content_add_fields(const struct inject_content *c, struct message *m, size_t i,
			       const struct mailbox *to, str_t hostname);
