/* dns_impl.h - what the files of the resolver share: names, answers, and the places they come from (zones,
 * cache, libunbound). A name in here is always normalised: A-labels, lower case, no trailing dot, "" for the
 * root. */
#pragma once

#include "net/dns.h"

#include <stdatomic.h>

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_PTR = 12, DNS_MX = 15, DNS_TXT = 16, DNS_AAAA = 28 };
const char *dns_type_name(uint16_t type);

/* --- dns_name.c --- */
#define DNS_NAME_BYTES 254	 /* 253 characters (RFC 1035 section 2.3.4) and a NUL */
#define DNS_WIRE_TEXT_BYTES 1021 /* a 255-byte wire name, every byte as \DDD, and a NUL */
/** -1 ERR_INVALID naming the text. */
MUST_CHECK int dns_name_normalize(str_t name, char out[DNS_NAME_BYTES]);
/** Reads an uncompressed wire name at *pos and moves *pos behind it. Dots and unprintable bytes inside labels
 * become \DDD (RFC 4343 section 2.1). */
MUST_CHECK bool dns_name_from_wire(str_t wire, size_t *pos, char out[DNS_WIRE_TEXT_BYTES]);

/* --- dns_cache.c --- */
/* The answer to one question, immutable. Absence is a status; a failure to find out is no answer. */
struct dns_answer {
	atomic_uint n_refs;
	enum dns_status status;
	bool is_secure;
	uint32_t ttl_s;
	size_t n_bytes; /* of memory */
	size_t n;
	str_t rdata[]; /* wire form, names uncompressed; in the same block */
};
struct dns_answer *dns_answer_new(enum dns_status status, bool is_secure, uint32_t ttl_s, const str_t *rdata,
				  size_t n);
const struct dns_answer *dns_answer_ref(const struct dns_answer *a);
void dns_answer_unref(const struct dns_answer *a);

/** A reference, or NULL. Any thread. */
const struct dns_answer *dns_cache_get(const char *name, uint16_t type);
/** Keeps the answer for its TTL (negative ones for 5 minutes at most); a TTL of 0 is not kept. Any thread. */
void dns_cache_put(const char *name, uint16_t type, const struct dns_answer *a);
void dns_cache_clear(void);
size_t dns_cache_count(void);

/* --- dns_zone.c --- */
struct dns_zones;
struct dns_zones *dns_zones_parse(const struct dns_test_zone *zone, size_t n, const str_t *servfail,
				  size_t n_servfail);
void dns_zones_free(struct dns_zones *zs);
/** Never yields; any thread. NULL ERR_DNS: SERVFAIL was asked for, or an endless chain of CNAMEs. */
const struct dns_answer *dns_zones_ask(const struct dns_zones *zs, const char *name, uint16_t type);

/* --- dns_unbound.c --- */
struct dns_flight;
/** Sends the question. NULL ERR_DNS. From a fiber. */
struct dns_flight *dns_flight_start(const char *name, uint16_t type);
/** Waits for the answer and drops the flight. NULL ERR_DNS,
 * ERR_TIMEOUT, ERR_CANCELLED, ERR_SHUTDOWN. Yields. */
const struct dns_answer *dns_flight_land(struct dns_flight *fl, mono_t deadline);
void dns_unbound_stop(void);
/** Tests: the next start asks this server and nothing else,
 * hosts file included. NULL: back to the system's. */
void dns_set_forwarder_for_test(const struct net_addr *server);

/* --- dns.c --- */
/* One question under way; on the asking fiber's stack. */
struct dns_query {
	char name[DNS_NAME_BYTES];
	uint16_t type;
	const struct dns_answer *answer; /* known at once */
	struct dns_flight *flight;
};
/** A reference to the answer; NULL and the error. Yields. */
const struct dns_answer *dns_query(const char *name, uint16_t type, mono_t deadline);

/* --- dns_mx.c --- */
/** Contracts B3. */
void dns_site_name(const struct dns_mx_host *host, size_t n, uint16_t port, struct buf *out);
