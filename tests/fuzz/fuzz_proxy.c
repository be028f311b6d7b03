/* fuzz_proxy.c - PROXY headers from hostile bytes.
 *
 * What must hold: a header is found whole or not at all, at the same place however much of it has arrived; it
 * is never longer than what is taken; and addresses of version 1 are in the form that they would be printed
 * in. */
#include "net/proxy.h"

#include "base/err.h"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct proxy_header h = {0}, part = {0};
	str_t in = str_mk((const char *)data, n);
	int rc = proxy_parse(in, &h);
	MUST(rc <= PROXY_MAX_BYTES && rc <= (int)n);
	MUST((rc < 0) == err_is(ERR_PROTO));
	err_clear();
	for (size_t i = 0; i < n && i < 300; i++) {
		int some = proxy_parse(str_head(in, i), &part);
		err_clear();
		if (rc > 0)
			MUST(some == (i < (size_t)rc ? 0 : rc));
		if (rc == 0)
			MUST(some == 0);
		if (some > 0)
			MUST(some == rc);
	}
	if (rc <= 0)
		return 0;
	MUST(proxy_parse(str_head(in, (size_t)rc), &part) == rc && part.is_known == h.is_known);
	if (h.is_known) {
		char peer[NET_ADDR_STRLEN], local[NET_ADDR_STRLEN];
		MUST(h.peer.len != 0 && h.local.len != 0 && h.peer.sa.sa_family == h.local.sa.sa_family);
		net_addr_fmt(&h.peer, peer);
		net_addr_fmt(&h.local, local);
		MUST(peer[0] != 0 && local[0] != 0);
	}
	return 0;
}
