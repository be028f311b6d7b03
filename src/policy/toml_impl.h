/* toml_impl.h - the scalar half of the TOML reader (toml_scalar.c), used by its structural half
 * (toml_parse.c). */
#pragma once

#include "base/arena.h"
#include "base/map.h"
#include "policy/value_impl.h"

struct toml {
	str_t text;
	size_t at;	      /* offset of the next byte */
	struct arena arena;   /* decoded strings and marks, until the end of the parse */
	struct map marks;     /* json_t * -> struct toml_mark: how a container came to be */
	json_t *root, *table; /* table: the one that key/value lines go to, borrowed from root */
	size_t table_depth;
	str_t *part; /* a stack of key parts; those of outer keys stay below while values are read */
	size_t n_parts, cap_parts;
};

/** Sets ERR_INVALID with the position of offset `at`; returns -1. */
int toml_fail(const struct toml *t, size_t at, const char *fmt, ...) PRINTF_LIKE(3, 4);

static inline int toml_peek(const struct toml *t, size_t ahead)
{
	return t->at + ahead < t->text.n ? (unsigned char)t->text.p[t->at + ahead] : -1;
}
static inline bool toml_looking_at(const struct toml *t, str_t s)
{
	return str_starts(str_skip(t->text, t->at), s);
}

/** A string in any of the four forms; at stands on its first quote. The slice lives in the arena or the text.
 * has_lines: the forms in triple quotes are allowed (not for keys). */
MUST_CHECK int toml_read_string(struct toml *t, bool has_lines, str_t *out);
/** A boolean, number, date or time. NULL with the error set. */
MUST_CHECK json_t *toml_read_plain(struct toml *t);
