/* mime_impl.h - shared by mime_tree.c, mime_parse.c, mime_content.c and mime_rebuild.c. */
#pragma once

#include "mime/mime_part.h"

struct mime_source {
	uint32_t refs;
	size_t n_bytes;
	char p[];
};

struct mime_source *mime_source_new(str_t bytes); /* copies */

/** Room for one more; its bytes are not set. */
struct mime_field *mime_field_grow(struct mime_part *p);
/** A new child at the end, of the same source. */
struct mime_part *mime_part_add_child(struct mime_part *p, str_t delimiter);
/** Takes the caller's reference. */
void mime_child_append(struct mime_part *p, struct mime_part *child);
/** A new boundary (heap, taken over) for all children and the Content-Type. */
void mime_part_set_boundary(struct mime_part *p, char *boundary);
void mime_part_drop_children(struct mime_part *p);
/** Sets content to a source of its own. */
void mime_part_own_content(struct mime_part *p, str_t content);
/** Levels of p and below; *n_parts grows by its parts. */
size_t mime_part_measure(const struct mime_part *p, size_t *n_parts);
/** A boundary that others read back: RFC 2046 section 5.1.1. */
bool mime_boundary_is_valid(str_t boundary);
/** Whether a delimiter of that boundary could be in bytes. */
bool mime_boundary_is_in(str_t boundary, str_t bytes);
/** A boundary that does not occur in bytes. Heap. */
char *mime_boundary_new(str_t bytes);
