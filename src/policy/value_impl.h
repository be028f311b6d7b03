/* value_impl.h - shared by value*.c and toml*.c. */
#pragma once

#include "policy/value.h"

/** jansson reports only "out of memory" as NULL from its constructors: that is panic here. */
json_t *value_must(json_t *v);
/** Takes over value. key need not be UTF-8-checked again by the caller's contract. */
void value_obj_set(json_t *obj, str_t key, json_t *value);
void value_arr_add(json_t *arr, json_t *value);

/** JSON text, quickly. NULL, without an error, when that is not possible: then jansson is to say what it is.
 * A new reference. */
json_t *value_json_read(str_t text);

/** The entries of an object by key, in byte order. n of them; free() it. NULL when n is 0. */
struct value_entry {
	str_t key;
	json_t *value;
};
struct value_entry *value_sorted(const json_t *obj, size_t *n);

/** 1-based position of an offset, for error texts. */
void value_locate(str_t text, size_t at, size_t *line, size_t *column);
