/* message_id.h - Message-ID, Content-ID, References and their like (RFC 5322 section 3.6.4): ids in angle
 * brackets. What is between the brackets need not be of the RFC's grammar, as many are not: no blanks,
 * controls and brackets is all that is asked. */
#pragma once

#include "mime/header_write.h"

/** The one id of value, without its brackets; "<<id>>", which some make, is read as <id>. A slice of value.
 * -1 ERR_INVALID. */
MUST_CHECK int message_id_parse(str_t value, str_t *id);
/** The next id of a list (References, In-Reply-To), parted by blanks, comments or commas. 1: *id is set,
 * *value what is left; 0: the end; -1 ERR_INVALID. Phrases, which old In-Reply-To fields have, are errors. */
MUST_CHECK int message_id_next(str_t *value, str_t *id);
/** Whether it can stand between brackets: what setters ask. */
bool message_id_is_valid(str_t id);
/** After header_write_begin: `<id>`. */
void message_id_write(struct header_writer *w, str_t id);
