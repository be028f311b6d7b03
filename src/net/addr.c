/* addr.c - socket addresses and sets of networks.
 *
 * An address is the kernel's own structure, so it goes to and comes from system calls without conversion. A
 * v4-mapped IPv6 address (::ffff:1.2.3.4) is the same host as its IPv4 form everywhere: in text, in
 * comparison, in networks.
 *
 * A network is kept as 16 bytes (IPv4 in the first four), the number of leading bits that count, and the
 * family. Sets are short (trusted hosts, relays), so looking up compares one after the other. */
#include "net/addr.h"

#include "base/alloc.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define CIDR_WORDS "couldn't parse address in network: invalid IP address syntax"

struct cidr {
	uint8_t net[16];
	uint8_t n_bits;
	uint8_t n_bytes; /* 4 or 16: the family */
};

static bool addr_parse_family(int family, str_t s, void *out)
{
	char z[INET6_ADDRSTRLEN];
	if (s.n == 0 || s.n >= sizeof(z) || memchr(s.p, 0, s.n) != NULL)
		return false;
	memcpy(z, s.p, s.n);
	z[s.n] = 0;
	return inet_pton(family, z, out) == 1;
}

static bool addr_try_ip(str_t s, uint16_t port, struct net_addr *out)
{
	struct net_addr a;
	memset(&a, 0, sizeof(a));
	if (addr_parse_family(AF_INET, s, &a.in4.sin_addr)) {
		a.in4.sin_family = AF_INET;
		a.len = sizeof(a.in4);
	} else {
		if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
			s = str_mk(s.p + 1, s.n - 2);
		if (!addr_parse_family(AF_INET6, s, &a.in6.sin6_addr))
			return false;
		a.in6.sin6_family = AF_INET6;
		a.len = sizeof(a.in6);
	}
	net_addr_set_port(&a, port);
	*out = a;
	return true;
}

int net_addr_parse(str_t s, struct net_addr *out)
{
	uint64_t port;
	size_t colon = s.n;
	while (colon > 0 && s.p[colon - 1] != ':')
		colon--;
	if (colon == 0) {
		err_set(ERR_INVALID, "\"" STR_FMT "\" is not an address: expected IP:PORT or [IPV6]:PORT",
			STR_ARG(s));
		return -1;
	}
	str_t host = str_head(s, colon - 1), number = str_skip(s, colon);
	if (number.n > 5 || !str_to_u64(number, &port) || port > UINT16_MAX) {
		err_set(ERR_INVALID, "\"" STR_FMT "\" is not an address: bad port \"" STR_FMT "\"",
			STR_ARG(s), STR_ARG(number));
		return -1;
	}
	bool is_v6_bare = str_chr(host, ':', 0) >= 0 && host.p[0] != '[';
	if (is_v6_bare || !addr_try_ip(host, (uint16_t)port, out)) {
		err_set(ERR_INVALID, "\"" STR_FMT "\" is not an address: expected IP:PORT or [IPV6]:PORT",
			STR_ARG(s));
		return -1;
	}
	return 0;
}

int net_addr_parse_ip(str_t s, uint16_t port, struct net_addr *out)
{
	if (addr_try_ip(s, port, out))
		return 0;
	err_set(ERR_INVALID, "\"" STR_FMT "\" is not an IP address", STR_ARG(s));
	return -1;
}

uint16_t net_addr_port(const struct net_addr *a)
{
	if (a->len == 0)
		return 0;
	return ntohs(a->sa.sa_family == AF_INET6 ? a->in6.sin6_port : a->in4.sin_port);
}

void net_addr_set_port(struct net_addr *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET6)
		a->in6.sin6_port = htons(port);
	else
		a->in4.sin_port = htons(port);
}

/* The bytes of the IP, 4 for IPv4 also when it is mapped into IPv6; 0 when there is no address. */
static size_t addr_bytes(const struct net_addr *a, const uint8_t **p)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	*p = NULL;
	if (a->len == 0)
		return 0;
	if (a->sa.sa_family == AF_INET) {
		*p = (const uint8_t *)&a->in4.sin_addr;
		return 4;
	}
	*p = a->in6.sin6_addr.s6_addr;
	if (memcmp(*p, mapped, sizeof(mapped)) != 0)
		return 16;
	*p += sizeof(mapped);
	return 4;
}

bool net_addr_eq_ip(const struct net_addr *a, const struct net_addr *b)
{
	const uint8_t *pa, *pb;
	size_t na = addr_bytes(a, &pa), nb = addr_bytes(b, &pb);
	return na == nb && (na == 0 || memcmp(pa, pb, na) == 0);
}

const char *net_addr_fmt_ip(const struct net_addr *a, char out[NET_ADDR_STRLEN])
{
	const uint8_t *p;
	size_t n = addr_bytes(a, &p);
	if (n == 0)
		strcpy(out, "none");
	else
		inet_ntop(n == 4 ? AF_INET : AF_INET6, p, out, NET_ADDR_STRLEN);
	return out;
}

const char *net_addr_fmt(const struct net_addr *a, char out[NET_ADDR_STRLEN])
{
	char ip[NET_ADDR_STRLEN];
	net_addr_fmt_ip(a, ip);
	if (a->len == 0)
		strcpy(out, ip);
	else
		snprintf(out, NET_ADDR_STRLEN, strchr(ip, ':') != NULL ? "[%.45s]:%u" : "%.45s:%u", ip,
			 net_addr_port(a));
	return out;
}

/* --- sets of networks --- */

void cidr_set_fini(struct cidr_set *s)
{
	free(s->item);
	s->item = NULL;
	s->n = 0;
}

void cidr_set_copy(struct cidr_set *dst, const struct cidr_set *src)
{
	dst->n = src->n;
	dst->item = NULL;
	if (src->n == 0)
		return;
	dst->item = xreallocarray(NULL, src->n, sizeof(*src->item));
	memcpy(dst->item, src->item, src->n * sizeof(*src->item));
}

/* True when the bits of p after the first n_bits are all zero. */
static bool cidr_is_host_part_zero(const struct cidr *c)
{
	for (size_t i = 0; i < c->n_bytes; i++) {
		unsigned n_kept = c->n_bits > 8 * i ? c->n_bits - 8 * (unsigned)i : 0;
		if (n_kept < 8 && (uint8_t)(c->net[i] << n_kept) != 0)
			return false;
	}
	return true;
}

/* The networks inside ::ffff:0:0/96 are IPv4's. */
static void cidr_unmap(struct cidr *c)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	if (c->n_bytes != 16 || c->n_bits < 96 || memcmp(c->net, mapped, sizeof(mapped)) != 0)
		return;
	memmove(c->net, c->net + 12, 4);
	memset(c->net + 4, 0, 12);
	c->n_bytes = 4;
	c->n_bits = (uint8_t)(c->n_bits - 96);
}

int cidr_set_add(struct cidr_set *s, str_t text)
{
	struct cidr c = {0};
	uint64_t n_bits;
	ptrdiff_t slash = str_chr(text, '/', 0);
	str_t ip = slash >= 0 ? str_head(text, (size_t)slash) : text;
	if (addr_parse_family(AF_INET, ip, c.net)) {
		c.n_bytes = 4;
	} else if (addr_parse_family(AF_INET6, ip, c.net)) {
		c.n_bytes = 16;
	} else {
		err_set(ERR_INVALID, STR_FMT ": " STR_FMT " is not a valid CIDR: " CIDR_WORDS, STR_ARG(text),
			STR_ARG(text));
		return -1;
	}
	n_bits = 8u * c.n_bytes;
	if (slash >= 0) {
		str_t number = str_skip(text, (size_t)slash + 1);
		if (number.n > 3 || !str_to_u64(number, &n_bits)) {
			err_set(ERR_INVALID,
				STR_FMT ": " STR_FMT " is not a valid CIDR: bad network length \"" STR_FMT
					"\"",
				STR_ARG(text), STR_ARG(text), STR_ARG(number));
			return -1;
		}
		if (n_bits > 8u * c.n_bytes) {
			err_set(ERR_INVALID,
				STR_FMT ": " STR_FMT
					" is not a valid CIDR: network length %u is longer than %u",
				STR_ARG(text), STR_ARG(text), (unsigned)n_bits, 8u * c.n_bytes);
			return -1;
		}
	}
	c.n_bits = (uint8_t)n_bits;
	if (!cidr_is_host_part_zero(&c)) {
		err_set(ERR_INVALID,
			STR_FMT ": " STR_FMT " is not a valid CIDR: the host part of the address is not zero",
			STR_ARG(text), STR_ARG(text));
		return -1;
	}
	cidr_unmap(&c);
	s->item = xreallocarray(s->item, s->n + 1, sizeof(*s->item));
	s->item[s->n++] = c;
	return 0;
}

static bool cidr_has(const struct cidr *c, const uint8_t *ip)
{
	size_t n_whole = c->n_bits / 8;
	unsigned n_rest = c->n_bits % 8;
	if (memcmp(c->net, ip, n_whole) != 0)
		return false;
	return n_rest == 0 || ((c->net[n_whole] ^ ip[n_whole]) >> (8 - n_rest)) == 0;
}

bool cidr_set_has(const struct cidr_set *s, const struct net_addr *a)
{
	const uint8_t *ip;
	size_t n = addr_bytes(a, &ip);
	if (n == 0)
		return false;
	for (size_t i = 0; i < s->n; i++)
		if (s->item[i].n_bytes == n && cidr_has(&s->item[i], ip))
			return true;
	return false;
}

ptrdiff_t cidr_set_best(const struct cidr_set *s, const struct net_addr *a)
{
	const uint8_t *ip;
	size_t n = addr_bytes(a, &ip);
	ptrdiff_t best = -1;
	for (size_t i = 0; n != 0 && i < s->n; i++) {
		bool is_better = best < 0 || s->item[i].n_bits > s->item[best].n_bits;
		if (is_better && s->item[i].n_bytes == n && cidr_has(&s->item[i], ip))
			best = (ptrdiff_t)i;
	}
	return best;
}

void cidr_set_fmt(const struct cidr_set *s, size_t i, struct buf *out)
{
	const struct cidr *c = &s->item[i];
	char ip[INET6_ADDRSTRLEN];
	inet_ntop(c->n_bytes == 4 ? AF_INET : AF_INET6, c->net, ip, sizeof(ip));
	buf_add_z(out, ip);
	if (c->n_bits != 8 * c->n_bytes)
		buf_printf(out, "/%u", c->n_bits);
}
