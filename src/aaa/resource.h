/* resource.h - what is asked for, as a name, and the more general names whose lists are asked
 * next. A URL path /a/b at the listener 127.0.0.1:8000 is http_listener/127.0.0.1:8000/a/b;
 * then come the same up to a, and up to the address; then both paths with a star in the place
 * of the address; then http_listener alone (docs/reference/access_control.md). */
#pragma once

#include "base/arena.h"

enum {
	RESOURCE_PATH_BYTES = 256, /* of a path: what is behind is not looked at */
	RESOURCE_COMPONENTS = 10,  /* of a path: the same */
	RESOURCE_CANDIDATES_MAX = 2 * RESOURCE_COMPONENTS + 2,
};

struct resource {
	str_t candidate[RESOURCE_CANDIDATES_MAX]; /* [0] is the name of the resource itself */
	size_t n;				  /* at least 2 */
};

/** @listener  what it is bound to, as text: "127.0.0.1:8000", "unix:/run/cirrus.sock". @path  decoded, begins
 * with a slash; empty components do not count. The names are in the arena. */
void resource_of_path(struct arena *arena, str_t listener, str_t path, struct resource *out);
/** Of a whole URL, whose scheme (http, https), host, query and fragment do not matter, or of a path alone.
 * Dot segments are resolved. -1 ERR_INVALID. */
MUST_CHECK int resource_of_url(struct arena *arena, str_t listener, str_t url, struct resource *out);
