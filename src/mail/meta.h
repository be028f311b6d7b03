/* meta.h - a message's metadata: names to JSON values. Small (a dozen entries), so an array, searched
 * linearly; each value is kept as its JSON text. Zero-initialised is empty. Not thread-safe: a message has
 * one owner at a time. */
#pragma once

#include "base/json.h"

struct meta_entry;
struct meta {
	struct meta_entry *entry;
	uint32_t n, cap;
};

void meta_fini(struct meta *m);
/** json: one JSON value as text, copied. Order of first insertion is kept. */
void meta_set_json(struct meta *m, str_t key, str_t json);
/** The same for a key that is known to be absent: no search. */
void meta_add_json(struct meta *m, str_t key, str_t json);
void meta_set_str(struct meta *m, str_t key, str_t text);
bool meta_remove(struct meta *m, str_t key);
/** The JSON text, borrowed until the next change; false when unset. */
bool meta_get_json(const struct meta *m, str_t key, str_t *json);
/** A value that is a JSON string without escapes, borrowed; otherwise decoded into *scratch. False when unset
 * or not a string. */
bool meta_get_str(const struct meta *m, str_t key, struct buf *scratch, str_t *text);
bool meta_at(const struct meta *m, uint32_t i, str_t *key,
	     str_t *json); /* i in insertion order; false past the end */
void meta_copy(struct meta *dst, const struct meta *src);
void meta_write(const struct meta *m, struct json_out *j); /* as one object */
