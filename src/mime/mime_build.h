/* mime_build.h - a message from its parts: what the `content` object of an injection is made into. The work
 *is split so that the recipients of a batch share it: attachments are encoded once, mime_build_rest makes
 *what all recipients get (while nothing in it is templated: once), mime_build_recipient the few fields of one
 *recipient, which go before the rest.
 *
 *	mime_encode_attachment() each, once a request
 *	mime_check_content(), mime_build_rest()      once a request, or for each recipient where texts are
 *templated mime_check_address(), mime_build_recipient()  for each recipient
 *
 * Nothing is built before it was checked. Slices are borrowed. */
#pragma once

#include "base/buf.h"

struct mime_address {
	str_t email; /* p NULL: the whole is absent */
	str_t name;  /* p NULL or empty: none */
};
struct mime_header {
	str_t name, value;
};
struct mime_attachment {
	str_t data;	    /* decoded */
	str_t content_type; /* may have parameters; p NULL: application/octet-stream */
	str_t content_id;   /* with or without angle brackets; p NULL: none */
	str_t file_name;    /* p NULL: none */
	bool is_inline;	    /* belongs to the HTML */
	bool is_utf8;	    /* data is text in UTF-8, whatever charset content_type may have */
};
/** A part as it stands in the message: fields, empty line, encoded data. Immutable once made; any thread. */
struct mime_encoded_part {
	struct buf bytes;
	bool is_inline;
	bool has_dash_line; /* a boundary must be compared with it */
};
struct mime_content {
	str_t text_body, html_body, amp_html_body; /* UTF-8; p NULL: absent */
	const struct mime_encoded_part *part;	   /* the attachments, in order */
	size_t n_parts;
	str_t subject; /* p NULL: absent */
	struct mime_address from, reply_to;
	const struct mime_header *header; /* the caller's own, in order */
	size_t n_headers;
};

/** -1 ERR_INVALID that begins with the field's path below `path`: "content.headers[X-Tag]: CR, LF or NUL
 * ...". Refused are controls in any name, value and address, texts that are not UTF-8, invalid header names
 * and addresses, fields that are not the caller's (Content-Type, Content-Transfer-Encoding, MIME-Version) and
 * fields given twice that may occur only once (RFC 5322 section 3.6). To, Date and Message-ID of the caller
 * replace the generated ones. */
MUST_CHECK int mime_check_content(const struct mime_content *c, const char *path);
MUST_CHECK int mime_check_address(const struct mime_address *a, const char *path);
/** index: in the caller's array. "content.attachments[2].file_name: ..." */
MUST_CHECK int mime_check_attachment(const struct mime_attachment *a, const char *path, size_t index);

/** Appends to out->bytes, which is empty or initialised. */
void mime_encode_attachment(const struct mime_attachment *a, struct mime_encoded_part *out);
void mime_encoded_part_fini(struct mime_encoded_part *p);

/** Appends the shared header fields (From, Reply-To, Subject, the caller's, Date, MIME-Version, Content-...),
 * the empty line, the body. */
void mime_build_rest(const struct mime_content *c, struct buf *out);
/** Appends `To` and `Message-ID: <id_left@id_domain>`, each unless the caller's headers have one. */
void mime_build_recipient(const struct mime_content *c, const struct mime_address *to, str_t id_left,
			  str_t id_domain, struct buf *out);
