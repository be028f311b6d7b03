/* addr.h - socket addresses and sets of networks. */
#pragma once

#include "base/buf.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

struct net_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in4;
		struct sockaddr_in6 in6;
	};
	socklen_t len; /* 0: none */
};

/** "1.2.3.4:25", "[::1]:25", "0.0.0.0:0". -1 ERR_INVALID naming the text. */
MUST_CHECK int net_addr_parse(str_t s, struct net_addr *out);
/** An IP literal without a port; the port is set to `port`. Brackets are accepted around IPv6.
 * -1 as net_addr_parse. */
MUST_CHECK int net_addr_parse_ip(str_t s, uint16_t port, struct net_addr *out);
uint16_t net_addr_port(const struct net_addr *a);
void net_addr_set_port(struct net_addr *a, uint16_t port);
bool net_addr_eq_ip(const struct net_addr *a, const struct net_addr *b);
#define NET_ADDR_STRLEN 64
/** "1.2.3.4:25" / "[::1]:25"; v4-mapped v6 prints as v4. Returns out. */
const char *net_addr_fmt(const struct net_addr *a, char out[NET_ADDR_STRLEN]);
const char *net_addr_fmt_ip(const struct net_addr *a, char out[NET_ADDR_STRLEN]);

/** A set of networks: "10.0.0.0/8", "::1", "192.168.1.7". Lookup is linear over a packed array. */
struct cidr_set {
	struct cidr *item;
	size_t n;
};
void cidr_set_fini(struct cidr_set *s);
void cidr_set_copy(struct cidr_set *dst, const struct cidr_set *src);
/** -1 ERR_INVALID: "300.1.1.1: 300.1.1.1 is not a valid CIDR: ...". */
MUST_CHECK int cidr_set_add(struct cidr_set *s, str_t text);
bool cidr_set_has(const struct cidr_set *s, const struct net_addr *a); /* v4-mapped v6 counts as v4 */
/** The index of the smallest network that has a, of equal ones the first; -1: none has it. */
ptrdiff_t cidr_set_best(const struct cidr_set *s, const struct net_addr *a);
/** Canonical text of item i, e.g. "127.0.0.0/8"; a host without its /32 or /128. */
void cidr_set_fmt(const struct cidr_set *s, size_t i, struct buf *out);
