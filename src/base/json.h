/* json.h - writing JSON straight into a buf. Reading is jansson's. Commas are kept by the writer; nesting is
 * not checked beyond 64 levels (panics). Output is compact, UTF-8; bytes that are not UTF-8 become U+FFFD. */
#pragma once

#include "base/clock.h"

struct json_out {
	struct buf *b;
	uint64_t has_item; /* bit per depth: a comma is due */
	int depth;
	bool is_after_key;
};

static inline struct json_out json_out_to(struct buf *b)
{
	return (struct json_out){.b = b};
}
void json_obj_begin(struct json_out *j);
void json_obj_end(struct json_out *j);
void json_arr_begin(struct json_out *j);
void json_arr_end(struct json_out *j);
void json_key(struct json_out *j, str_t key);
void json_str(struct json_out *j, str_t v);
void json_int(struct json_out *j, int64_t v);
void json_uint(struct json_out *j, uint64_t v);
void json_double(struct json_out *j,
		 double v); /* shortest form that reads back; NaN and infinities are null */
void json_bool(struct json_out *j, bool v);
void json_nil(struct json_out *j);	    /* null; the name that jansson leaves free */
void json_raw(struct json_out *j, str_t v); /* v is one JSON value already */
/** A quoted, escaped string without any comma logic. */
void json_escape(struct buf *out, str_t v);

/* Shorthands: json_key, then the value. */
static inline void json_kv_str(struct json_out *j, str_t k, str_t v)
{
	json_key(j, k);
	json_str(j, v);
}
static inline void json_kv_int(struct json_out *j, str_t k, int64_t v)
{
	json_key(j, k);
	json_int(j, v);
}
static inline void json_kv_bool(struct json_out *j, str_t k, bool v)
{
	json_key(j, k);
	json_bool(j, v);
}
static inline void json_kv_null(struct json_out *j, str_t k)
{
	json_key(j, k);
	json_nil(j);
}
