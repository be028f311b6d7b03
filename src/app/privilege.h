/* privilege.h - becoming an ordinary user while still able to bind low ports, and then not even that. */
#pragma once

#include "base/defs.h"

/** Takes the identity of `user` with its groups, keeping only CAP_NET_BIND_SERVICE for the threads made from
 * now on. Files made from here belong to the user. From the main thread, before any other exists. -1
 * ERR_NOT_FOUND, ERR_IO, ERR_INVALID. */
MUST_CHECK int privilege_become(const char *user);
/** Gives the rest up, in all threads, for good. After the
 * ports are bound. -1 with the error of setresuid(2). */
MUST_CHECK int privilege_drop(void);
