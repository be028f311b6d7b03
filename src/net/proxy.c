/* proxy.c - PROXY headers, to the letter: whatever is not exactly one is refused, since what stands here
 * decides whom we trust.
 *
 * Version 1 is a line of at most 107 bytes in which every blank is one blank and every number has the form
 * that a program writes. Version 2 is binary: a signature, version and command, family, length, addresses,
 * and type-length-value fields, of which the checksum is verified if it is there and the others are only
 * checked for their form. */
#include "net/proxy.h"

#include "base/err.h"
#include "net/stream_impl.h"

#include <arpa/inet.h>

enum {
	PROXY1_MAX_BYTES = 107,
	PROXY2_HEAD_BYTES = 16,
	PROXY2_TLV_CRC32C = 3,
};

static const char proxy2_signature[12] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

static int proxy_fail(const char *why)
{
	err_set(ERR_PROTO, "PROXY header: %s", why);
	return -1;
}

/* --- version 1 --- */

/* A port without leading zeros. */
static bool proxy1_port(str_t s, uint16_t *port)
{
	uint64_t v;
	if (s.n > 5 || !str_to_u64(s, &v) || v > UINT16_MAX || (s.n > 1 && s.p[0] == '0'))
		return false;
	*port = (uint16_t)v;
	return true;
}

static bool proxy1_addr(str_t ip, str_t port, int family, struct net_addr *out)
{
	uint16_t number;
	if (ip.n == 0 || ip.p[0] == '[' || !proxy1_port(port, &number))
		return false;
	if (net_addr_parse_ip(ip, number, out) != 0) {
		err_clear();
		return false;
	}
	return out->sa.sa_family == family;
}

static int proxy1_parse_line(str_t line, struct proxy_header *h)
{
	str_t rest = line, word[6];
	size_t n = 0;
	while (n < 6 && str_split(&rest, ' ', &word[n]))
		n++;
	/* Of UNKNOWN the rest of the line is to be passed over. */
	if (n >= 2 && str_eq(word[1], STR("UNKNOWN")))
		return 0;
	if (n != 6 || rest.p != NULL)
		return proxy_fail("the line has not six words");
	int family = str_eq(word[1], STR("TCP4"))   ? AF_INET
		     : str_eq(word[1], STR("TCP6")) ? AF_INET6
						    : AF_UNSPEC;
	if (family == AF_UNSPEC)
		return proxy_fail("unknown protocol");
	if (!proxy1_addr(word[2], word[4], family, &h->peer) ||
	    !proxy1_addr(word[3], word[5], family, &h->local))
		return proxy_fail("malformed address");
	h->is_known = true;
	return 0;
}

static int proxy1_parse(str_t in, struct proxy_header *h)
{
	str_t head = str_head(in, PROXY1_MAX_BYTES);
	for (size_t i = 0; i < head.n; i++) {
		char c = head.p[i];
		if (c == '\r') {
			if (i + 1 == head.n)
				break;
			if (head.p[i + 1] != '\n')
				return proxy_fail("carriage return without line feed");
			return proxy1_parse_line(str_head(head, i), h) == 0 ? (int)i + 2 : -1;
		}
		if (c < 0x20 || c > 0x7e)
			return proxy_fail("control character in the line");
	}
	return in.n >= PROXY1_MAX_BYTES ? proxy_fail("the line is too long") : 0;
}

/* --- version 2 --- */

static uint32_t proxy_crc32c_add(uint32_t crc, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

/* Over the whole header with the checksum itself as zeros. */
static bool proxy2_crc_is_good(const uint8_t *p, size_t n, size_t at)
{
	static const uint8_t zeros[4];
	uint32_t crc = proxy_crc32c_add(~0u, p, at);
	crc = proxy_crc32c_add(crc, zeros, 4);
	crc = ~proxy_crc32c_add(crc, p + at + 4, n - at - 4);
	uint32_t sent =
		(uint32_t)p[at] << 24 | (uint32_t)p[at + 1] << 16 | (uint32_t)p[at + 2] << 8 | p[at + 3];
	return crc == sent;
}

/* The fields from `at` on. */
static int proxy2_check_fields(const uint8_t *p, size_t n, size_t at)
{
	while (at < n) {
		if (n - at < 3)
			return proxy_fail("truncated field");
		size_t len = (size_t)p[at + 1] << 8 | p[at + 2];
		if (len > n - at - 3)
			return proxy_fail("a field is longer than the header");
		if (p[at] == PROXY2_TLV_CRC32C && (len != 4 || !proxy2_crc_is_good(p, n, at + 3)))
			return proxy_fail("wrong checksum");
		at += 3 + len;
	}
	return 0;
}

static void proxy2_addr(const uint8_t *ip, const uint8_t *port, int family, struct net_addr *out)
{
	memset(out, 0, sizeof(*out));
	if (family == AF_INET) {
		out->in4.sin_family = AF_INET;
		memcpy(&out->in4.sin_addr, ip, 4);
		memcpy(&out->in4.sin_port, port, 2);
		out->len = sizeof(out->in4);
	} else {
		out->in6.sin6_family = AF_INET6;
		memcpy(&out->in6.sin6_addr, ip, 16);
		memcpy(&out->in6.sin6_port, port, 2);
		out->len = sizeof(out->in6);
	}
}

static int proxy2_parse(str_t in, struct proxy_header *h)
{
	const uint8_t *p = (const uint8_t *)in.p;
	if (in.n < PROXY2_HEAD_BYTES)
		return 0;
	size_t n = PROXY2_HEAD_BYTES + ((size_t)p[14] << 8 | p[15]), n_addr;
	if (p[12] != 0x20 && p[12] != 0x21)
		return proxy_fail("unknown version or command");
	if (n > PROXY_MAX_BYTES)
		return proxy_fail("it is too long");
	if (in.n < n)
		return 0;
	bool is_local = p[12] == 0x20;
	switch (p[13]) {
	case 0x00: /* UNSPEC: what follows is to be passed over */
		return (int)n;
	case 0x11:
		n_addr = 12;
		break;
	case 0x21:
		n_addr = 36;
		break;
	case 0x31: /* from a socket in the file system: no address that we could use */
		n_addr = 216;
		break;
	default:
		return is_local ? (int)n : proxy_fail("unknown family");
	}
	if (n < PROXY2_HEAD_BYTES + n_addr)
		return is_local ? (int)n : proxy_fail("truncated addresses");
	if (proxy2_check_fields(p, n, PROXY2_HEAD_BYTES + n_addr) != 0)
		return -1;
	if (is_local || p[13] == 0x31)
		return (int)n;
	int family = p[13] == 0x11 ? AF_INET : AF_INET6;
	size_t n_ip = family == AF_INET ? 4 : 16;
	const uint8_t *a = p + PROXY2_HEAD_BYTES;
	proxy2_addr(a, a + 2 * n_ip, family, &h->peer);
	proxy2_addr(a + n_ip, a + 2 * n_ip + 2, family, &h->local);
	h->is_known = true;
	return (int)n;
}

int proxy_parse(str_t in, struct proxy_header *out)
{
	struct proxy_header h = {0};
	str_t v1 = STR("PROXY "), v2 = str_mk(proxy2_signature, sizeof(proxy2_signature));
	bool may_be_v1 = str_starts(in, str_head(v1, in.n)), may_be_v2 = str_starts(in, str_head(v2, in.n));
	if (!may_be_v1 && !may_be_v2)
		return proxy_fail("there is none");
	if (in.n < (may_be_v1 ? v1.n : v2.n))
		return 0;
	int rc = may_be_v1 ? proxy1_parse(in, &h) : proxy2_parse(in, &h);
	if (rc > 0)
		*out = h;
	return rc;
}

int proxy_read(struct stream *st, mono_t deadline)
{
	char peer[NET_ADDR_STRLEN];
	struct proxy_header h;
	int n;
	while ((n = proxy_parse(stream_buffered(st), &h)) == 0) {
		int rc = stream_fill(st, PROXY_MAX_BYTES, deadline);
		if (rc == 0)
			n = proxy_fail("the connection ended before it was complete");
		if (rc <= 0)
			break;
	}
	if (n <= 0) {
		err_wrap("from %s", net_addr_fmt(stream_peer(st), peer));
		return -1;
	}
	stream_consume(st, (size_t)n);
	if (h.is_known) {
		st->peer = h.peer;
		st->local = h.local;
	}
	return 0;
}
