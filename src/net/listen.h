/* listen.h - listening sockets that are no address and port, for listener.c: in the file system, and handed
 * down by systemd. */
#pragma once

#include "base/defs.h"

#include <sys/stat.h>

/* A bound socket in the file system. Zero-initialised: none. */
struct listen_unix {
	char *path;
	dev_t dev;
	ino_t ino;
};
/** Returns the descriptor, -1 ERR_IO or ERR_EXISTS naming the path. */
MUST_CHECK int listen_unix_bind(const char *path, unsigned mode, int backlog, struct listen_unix *out);
/** Unlinks the path if it is still this socket, and releases u. */
void listen_unix_remove(struct listen_unix *u);
/** Returns the descriptor, set non-blocking and close-on-exec. -1 ERR_NOT_FOUND, ERR_INVALID (no listening
 * stream socket). */
MUST_CHECK int listen_inherit(const char *fd_name, int backlog);
