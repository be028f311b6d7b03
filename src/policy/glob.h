/* glob.h - finding files by patterns. Within a component of a path `*`, `?` and `[a-z]` are as in fnmatch(3)
 * and do not match a leading dot; `**` as a component stands for any number of directories, none included;
 * `{a,b}` is either, also with slashes in it. Source: docs/reference/configuration.md, the patterns of
 * configuration monitoring. */
#pragma once

#include "base/defs.h"

struct glob_files {
	char **v; /* sorted, each once */
	size_t n;
};
/** -1 ERR_INVALID: a brace that is not closed, or too many alternatives. */
MUST_CHECK int glob_check(const char *pattern);
/** Every regular file (or link to one) that one of the patterns matches. What cannot be read is passed over.
 * Blocks on the disk. -1 ERR_INVALID as glob_check, ERR_LIMIT when there is far too much to look through. */
MUST_CHECK int glob_find(const char *const *pattern, size_t n, struct glob_files *out);
/** Adds a path to what was found, if it is not there; it need not exist. */
void glob_files_add(struct glob_files *f, const char *path);
void glob_files_fini(struct glob_files *f);
