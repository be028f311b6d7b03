/* keysource_impl.h - what the files of keysource share. */
#pragma once

#include "net/keysource.h"

/* --- keysource_file.c --- */
/** before: NULL, or a print; when the file still has its stamp, 0 and *out is NULL. print (may be NULL) gets
 * the stamp of what was read. Yields (outside fibers it blocks). -1 ERR_IO, ERR_NOT_FOUND, ERR_INVALID,
 * ERR_LIMIT. */
MUST_CHECK int keysource_file_read(const char *path, const struct keysource_print *before,
				   struct keysource_print *print, struct secret **out, mono_t deadline);

/* --- keysource_vault.c --- */
/** -1 ERR_INVALID: no address of an HTTP server. */
MUST_CHECK int keysource_vault_check_address(const char *address);
/** -1 ERR_INVALID: not a path below a mount. */
MUST_CHECK int keysource_vault_check_path(const char *field, const char *path);
/** The text has the request and the answer in it, never the token. Yields. */
MUST_CHECK struct secret *keysource_vault_load(const struct keysource *ks, mono_t deadline);
