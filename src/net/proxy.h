/* proxy.h - the PROXY protocol, versions 1 and 2: a proxy in front of us says on whose behalf it connects.
 * Only for peers that are known to be proxies: anybody else could claim to be anybody. (The specification is
 * HAProxy's, "The PROXY protocol".) */
#pragma once

#include "base/clock.h"
#include "net/addr.h"

struct stream;

struct proxy_header {
	bool is_known; /* false: a connection of the proxy's own (LOCAL), or of a kind it has no address for
			  (UNKNOWN) */
	struct net_addr peer, local;
};
#define PROXY_MAX_BYTES 4096 /* longest header that is taken */

/** Parses the header at the beginning of `in`: its length, 0 when more is needed, -1 ERR_PROTO. Does not
 * yield. */
MUST_CHECK int proxy_parse(str_t in, struct proxy_header *out);
/** Reads the header, which must come, and nothing behind it; from then on the stream's peer and local address
 * are those of the header. Yields. -1 ERR_PROTO, or what stream_fill says. */
MUST_CHECK int proxy_read(struct stream *st, mono_t deadline);
