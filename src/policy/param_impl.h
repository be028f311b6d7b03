/* param_impl.h - shared by param*.c. */
#pragma once

#include "policy/param.h"

/** True for fields whose value errors must not show: the name ends in password, key, key_data, token or
 * secret. */
bool param_is_secret(str_t name);
/** Fills the field from a JSON value; null never comes here. -1 ERR_INVALID with the WHY text; nothing to
 * release then. */
MUST_CHECK int param_field_parse(const struct param *p, const json_t *value, void *field);
/** The JSON form of a default's text; NULL with the error set. */
MUST_CHECK json_t *param_field_default(const struct param *p);
/** What a field is when nothing was given and there is no default. */
void param_field_clear(const struct param *p, void *field);
void param_field_fini(const struct param *p, void *field);
/** The effective value (new reference). given: the input it was made from, or NULL. */
json_t *param_field_dump(const struct param *p, const void *field, const json_t *given);
/** The effective values as a JSON object (new reference), durations in dur_fmt form. table: the input. */
json_t *param_dump_with(const struct param_schema *s, const void *obj, const json_t *table);
