/* dns.h - names to addresses, mail exchangers, texts. Answers come from libunbound following resolv.conf,
 * or, once a test resolver is configured, only from its zones. Cached by TTL (bounded; negative answers too,
 * by the SOA minimum, at most 5 min). Absence is a value (NXDOMAIN, NODATA); -1 ERR_DNS means we could not
 * find out. All lookups yield; names are case-insensitive, IDNA names are converted to A-labels (RFC 5890).
 * Any worker. Results are immutable and refcounted. */
#pragma once

#include "net/addr.h"
#include "base/clock.h"

enum dns_status { DNS_OK, DNS_NODATA, DNS_NXDOMAIN };

struct dns_addrs { /* A and AAAA of one name */
	enum dns_status status;
	size_t n;
	struct net_addr *addr; /* port 0; v4 first, then v6 */
};
enum dns_ip_strategy {
	DNS_IPV4_AND_IPV6,
	DNS_IPV4_ONLY,
	DNS_IPV6_ONLY,
	DNS_IPV6_THEN_IPV4,
	DNS_IPV4_THEN_IPV6
};
/** An IP literal answers itself. "localhost" follows the hosts file. With one of two families failing, the
 * other's addresses are the answer. Also -1 ERR_INVALID (not a domain name), ERR_TIMEOUT, ERR_CANCELLED, as
 * for all lookups. */
MUST_CHECK const struct dns_addrs *dns_lookup_addr(str_t name, enum dns_ip_strategy strategy,
						   mono_t deadline);
void dns_addrs_unref(const struct dns_addrs *a);

struct dns_mx_host {
	char *name; /* lower-cased, no trailing dot */
	uint16_t pref;
};
struct dns_mx {
	char *domain;		/* as resolved: lower-cased A-label form, no trailing dot */
	enum dns_status status; /* of the domain: DNS_OK also for an implicit MX (RFC 5321 section 5.1) */
	bool is_mx;		/* the hosts come from MX records */
	bool is_null_mx;	/* RFC 7505; then n is 0 */
	bool is_domain_literal; /* [1.2.3.4], [IPv6:::1] */
	bool is_secure;		/* DNSSEC-validated */
	uint16_t port; /* from the domain's ":port" suffix; 0: none. The hosts' names do not carry it */
	size_t n;
	struct dns_mx_host *host; /* by preference, then name; of a domain literal: the bare address */
	char *site_name;	  /* "(alt1|alt2)?.mx.example.com" */
};
/** Mail exchangers of a domain (a ":port" suffix is allowed and ends in
 * the site name). A domain that exists but has no MX is its own
 * exchanger, preference 1. NXDOMAIN is a value: status DNS_NXDOMAIN, n 0. */
MUST_CHECK const struct dns_mx *dns_lookup_mx(str_t domain, mono_t deadline);
const struct dns_mx *dns_mx_ref(const struct dns_mx *mx);
void dns_mx_unref(const struct dns_mx *mx);

struct dns_texts { /* TXT or PTR */
	enum dns_status status;
	size_t n;
	str_t *text; /* TXT: its strings joined; PTR: the name without trailing dot */
};
MUST_CHECK const struct dns_texts *dns_lookup_txt(str_t name, mono_t deadline);
MUST_CHECK const struct dns_texts *dns_lookup_ptr(const struct net_addr *ip, mono_t deadline);
void dns_texts_unref(const struct dns_texts *t);
/** The name that dns_lookup_ptr asks for: "1.0.0.127.in-addr.arpa". */
void dns_ptr_name(const struct net_addr *ip, struct buf *out);

/** Replaces the resolver of the whole process by these zones (master-file syntax, RFC 1035 section 5; each
 * with its own $ORIGIN). Names below no zone are NXDOMAIN. -1 ERR_INVALID with zone number and line. Clears
 * the cache. */
struct dns_test_zone {
	str_t text;
	bool is_secure;
};
MUST_CHECK int dns_configure_test_zones(const struct dns_test_zone *zone, size_t n, const str_t *servfail,
					size_t n_servfail);
/** Ends the resolver (started by the first lookup that needs it) and forgets test zones and cache; lookups
 * under way fail with ERR_SHUTDOWN. While the workers run or after they have stopped; blocks for a moment. */
void dns_stop(void);
