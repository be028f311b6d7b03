/* mime_part.h - a message as a tree of parts, to read and to change. What is not changed is written exactly
 * as it was read, whatever it was: the parts are slices of the message's bytes, and every byte is in one of
 * them.
 *
 * Malformed input is taken as far as it makes sense: a multipart without its end, without a part, or with a
 * boundary that nobody has; a header section that ends without an empty line; fields without a colon. Bounds:
 * MIME_DEPTH_MAX levels (a deeper multipart is a part without children), MIME_PARTS_MAX parts and
 * MIME_FIELDS_MAX fields in all (what comes then is content of the last part, and one field without a name).
 * Parsing takes linear time and no recursion; the other functions recurse once a level.
 *
 * Parts are refcounted, not atomically: a tree belongs to one thread, a policy's state. */
#pragma once

#include "mime/mime_params.h"
#include "mime/transfer.h"

#define MIME_DEPTH_MAX 64
#define MIME_PARTS_MAX 10000
#define MIME_FIELDS_MAX 20000

struct mime_source; /* the bytes that slices point into; shared */

struct mime_field {
	str_t name;	 /* as written; empty: a line of the section that is no field */
	str_t raw_value; /* after the colon, folds included, without the last line end */
	str_t whole;	 /* with its line end, if it has one */
	char *own;	 /* heap: whole is there; NULL: in the source */
	bool has_colon;
	bool has_space; /* between name and colon */
};
struct mime_child {
	struct mime_part *part;
	str_t delimiter; /* the line before the part, with the line end before it; p NULL: to be made */
};
struct mime_part {
	uint32_t refs;
	struct mime_part *parent; /* not a reference; NULL: the root, or a part by itself */
	struct mime_source
		*source; /* of fields, separator, delimiters, and of content unless it has its own */
	struct mime_field *field;
	size_t n_fields, cap_fields;
	str_t separator; /* the empty line after the fields; p NULL: there was none */
	struct mime_source *content_source;
	str_t content;		  /* as encoded for transfer; of a multipart: all of it, as it was read */
	struct mime_child *child; /* of a multipart */
	size_t n_children, cap_children;
	char *boundary;		 /* heap; set when there are children */
	str_t preamble, closing; /* around the children: before the first delimiter, from the last one on */
	bool is_touched;	 /* something was changed: an empty line is put where one is missing */
	bool is_digest;		 /* child of a multipart/digest: message/rfc822 by default */
	uint32_t index;		 /* among its siblings when it was parsed, from 1; 0 the root */
};

/** The bytes are copied. */
struct mime_part *mime_part_parse(str_t bytes);
struct mime_part *mime_part_new(void); /* no fields, no content */
struct mime_part *mime_part_ref(struct mime_part *p);
/** Children whose parent is gone live on while they are referenced. NULL is fine. */
void mime_part_unref(struct mime_part *p);
struct mime_part *mime_part_copy(const struct mime_part *p); /* deep */
void mime_part_write(const struct mime_part *p, struct buf *out);
void mime_part_write_fields(const struct mime_part *p, struct buf *out); /* without the empty line */
/** Where it stood when it was parsed: "" the root, "2" its second child, "2.1" ... */
void mime_part_id(const struct mime_part *p, struct buf *out);

/* --- fields --- */
/** Takes name, value and flags from f->whole. False: no field; name and value are empty. */
bool mime_field_split(struct mime_field *f);
/** The first of that name (any case) at or after *at, which is moved behind it; NULL: none. */
const struct mime_field *mime_field_find(const struct mime_part *p, str_t name, size_t *at);
static inline const struct mime_field *mime_field_first(const struct mime_part *p, str_t name)
{
	size_t at = 0;
	return mime_field_find(p, name, &at);
}
/** whole: as header_write_* make them. Copied. A Content-Type of a part with children gets the boundary they
 * have, or gives them its own. */
void mime_field_append(struct mime_part *p, str_t whole);
void mime_field_prepend(struct mime_part *p, str_t whole);
/** In the place of the first of its name; further ones go. Appended when there is none. */
void mime_field_set(struct mime_part *p, str_t whole);
size_t mime_field_remove(struct mime_part *p, str_t name); /* all of that name; how many there were */

/* --- content --- */
/** The part's type, lower case: "text/plain" when there is none that can be read ("message/rfc822" in a
 * digest). */
void mime_part_type(const struct mime_part *p, struct buf *out);
bool mime_part_is_type(const struct mime_part *p, str_t type); /* "text/html"; "text/" for any subtype */
/** TRANSFER_BINARY when it is none that is known. */
enum transfer_encoding mime_part_encoding(const struct mime_part *p);
/** p NULL when the field or the parameter is missing; copied into scratch. */
str_t mime_part_param(const struct mime_part *p, str_t field, str_t param, struct buf *scratch);
/** Transfer-decoded. A multipart's are its children as they are written. */
void mime_part_decode(const struct mime_part *p, struct buf *out);
/** The same, and text as UTF-8 where its charset says how; else as it is. */
void mime_part_decode_text(const struct mime_part *p, struct buf *out);
/** Replaces content and children. type: as in Content-Type, or p NULL: as it is, or by what the content is.
 * The encoding is chosen; charset follows for text. -1 ERR_INVALID: type is none, or a multipart. */
MUST_CHECK int mime_part_set_body(struct mime_part *p, str_t content, str_t type);

/* --- trees --- */
/** Appends a copy of child. -1 ERR_LIMIT: too deep, or too many parts; ERR_INVALID: p is no multipart. */
MUST_CHECK int mime_part_append(struct mime_part *p, const struct mime_part *child);
/** boundary p NULL: one that no child contains. -1/NULL ERR_INVALID: type or boundary is none. */
MUST_CHECK struct mime_part *mime_part_new_multipart(str_t type, str_t boundary);
MUST_CHECK struct mime_part *mime_part_new_text(str_t type, str_t text); /* type may have parameters */
struct mime_disposition {
	bool is_given; /* false: no Content-Disposition */
	bool is_inline;
	str_t file_name;  /* p NULL: none */
	str_t content_id; /* p NULL: none */
};
MUST_CHECK struct mime_part *mime_part_new_binary(str_t type, str_t data, const struct mime_disposition *d);

/** The usual shape of a message: see mime_build.c. Parts may be NULL; attached ones are copied. is_stable:
 * fixed boundaries and date, for tests. */
struct mime_composition {
	const struct mime_part *text, *amp, *html;
	struct mime_part *const *attachment;
	size_t n_attachments;
	bool is_stable;
};
MUST_CHECK struct mime_part *mime_part_compose(const struct mime_composition *c);

/* --- what a reader would show --- */
struct mime_attached {
	struct mime_part *part;		   /* borrowed from the tree */
	str_t type, file_name, content_id; /* p NULL: none; in the arena */
	bool is_inline;
};
struct mime_structure {
	struct arena arena;
	struct mime_part *text, *html, *amp; /* the first of their kind that is no attachment; borrowed */
	struct mime_part *header;	     /* the part whose fields are the message's */
	struct mime_attached *attached;
	size_t n_attached;
};
void mime_part_structure(struct mime_part *root, struct mime_structure *out);
void mime_structure_fini(struct mime_structure *s);
