/* dns.c - lookups: which source answers a question, and what callers see of the answers.
 *
 * A question is a normalised name and a type. Its answer comes from, in this order: for "localhost" the
 * hosts file (RFC 6761 section 6.3: such names never leave the machine); the zones of a test policy, if
 * there are any, and then nothing else; the cache; libunbound. Two questions that belong together (A and
 * AAAA) are sent before either is waited for.
 *
 * The zones in force sit behind a reader-writer lock: answering from them is pure computing, done under the
 * lock. */
#include "net/dns.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "net/dns_impl.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define HOSTS_FILE "/etc/hosts"
#define HOSTS_TTL_S 60
#define HOSTS_MAX_ADDRS 32

static struct {
	pthread_rwlock_t lock;
	struct dns_zones *zones; /* NULL: the real world */
} dns = {.lock = PTHREAD_RWLOCK_INITIALIZER};

int dns_configure_test_zones(const struct dns_test_zone *zone, size_t n, const str_t *servfail,
			     size_t n_servfail)
{
	struct dns_zones *zs = dns_zones_parse(zone, n, servfail, n_servfail);
	if (zs == NULL)
		return -1;
	pthread_rwlock_wrlock(&dns.lock);
	struct dns_zones *old = dns.zones;
	dns.zones = zs;
	pthread_rwlock_unlock(&dns.lock);
	dns_zones_free(old);
	dns_cache_clear();
	return 0;
}

void dns_stop(void)
{
	dns_unbound_stop();
	pthread_rwlock_wrlock(&dns.lock);
	struct dns_zones *old = dns.zones;
	dns.zones = NULL;
	pthread_rwlock_unlock(&dns.lock);
	dns_zones_free(old);
	dns_cache_clear();
}

/* --- localhost --- */

static bool dns_is_localhost(const char *name)
{
	return strcmp(name, "localhost") == 0 || str_ends(str_of(name), STR(".localhost"));
}

/* The address of a line of the hosts file when "localhost" is one of its names. */
static bool dns_parse_hosts_line(char *line, struct net_addr *a)
{
	char *save = NULL;
	line[strcspn(line, "#\r\n")] = 0;
	const char *ip = strtok_r(line, " \t", &save);
	if (ip == NULL)
		return false;
	for (const char *name; (name = strtok_r(NULL, " \t", &save)) != NULL;) {
		if (!str_ieq(str_of(name), STR("localhost")))
			continue;
		if (net_addr_parse_ip(str_of(ip), 0, a) == 0)
			return true;
		err_clear();
		return false;
	}
	return false;
}

static size_t dns_read_hosts(struct net_addr addr[HOSTS_MAX_ADDRS])
{
	char line[1024];
	size_t n = 0;
	FILE *f = fopen(HOSTS_FILE, "re");
	while (f != NULL && n < HOSTS_MAX_ADDRS && fgets(line, sizeof(line), f) != NULL)
		n += dns_parse_hosts_line(line, &addr[n]);
	if (f != NULL)
		fclose(f);
	if (n == 0) {
		n += net_addr_parse_ip(STR("127.0.0.1"), 0, &addr[n]) == 0;
		n += net_addr_parse_ip(STR("::1"), 0, &addr[n]) == 0;
	}
	return n;
}

static const struct dns_answer *dns_answer_localhost(uint16_t type)
{
	struct net_addr addr[HOSTS_MAX_ADDRS];
	str_t rdata[HOSTS_MAX_ADDRS];
	size_t n = 0;
	const struct dns_answer *a = dns_cache_get("localhost", type);
	if (a != NULL)
		return a;
	size_t n_addr = type == DNS_A || type == DNS_AAAA ? dns_read_hosts(addr) : 0;
	for (size_t i = 0; i < n_addr; i++) {
		if (type == DNS_A && addr[i].sa.sa_family == AF_INET)
			rdata[n++] = str_mk((const char *)&addr[i].in4.sin_addr, 4);
		else if (type == DNS_AAAA && addr[i].sa.sa_family == AF_INET6)
			rdata[n++] = str_mk((const char *)&addr[i].in6.sin6_addr, 16);
	}
	a = dns_answer_new(n > 0 ? DNS_OK : DNS_NODATA, false, HOSTS_TTL_S, rdata, n);
	dns_cache_put("localhost", type, a);
	return a;
}

/* --- questions --- */

/* name is normalised. -1 ERR_DNS. */
static int dns_query_begin(struct dns_query *q, const char *name, uint16_t type)
{
	snprintf(q->name, sizeof(q->name), "%s", name);
	q->type = type;
	q->answer = NULL;
	q->flight = NULL;
	if (FAULT(dns)) {
		err_set(ERR_DNS, "%s of %s: fault injected", dns_type_name(type), name);
		return -1;
	}
	if (dns_is_localhost(name)) {
		q->answer = dns_answer_localhost(type);
		return 0;
	}
	pthread_rwlock_rdlock(&dns.lock);
	bool has_zones = dns.zones != NULL;
	if (has_zones)
		q->answer = dns_zones_ask(dns.zones, name, type);
	pthread_rwlock_unlock(&dns.lock);
	if (!has_zones)
		q->answer = dns_cache_get(name, type);
	if (!has_zones && q->answer == NULL)
		q->flight = dns_flight_start(name, type);
	if (q->answer != NULL || q->flight != NULL)
		return 0;
	err_wrap("%s of %s", dns_type_name(type), name);
	return -1;
}

/* A reference to the answer; NULL and the error. Yields. */
static const struct dns_answer *dns_query_end(struct dns_query *q, mono_t deadline)
{
	const struct dns_answer *a = q->answer;
	if (q->flight != NULL && (a = dns_flight_land(q->flight, deadline)) == NULL)
		err_wrap("%s of %s", dns_type_name(q->type), q->name);
	q->answer = NULL;
	q->flight = NULL;
	return a;
}

const struct dns_answer *dns_query(const char *name, uint16_t type, mono_t deadline)
{
	struct dns_query q;
	return dns_query_begin(&q, name, type) == 0 ? dns_query_end(&q, deadline) : NULL;
}

/* --- addresses --- */

struct addrs_box {
	atomic_uint n_refs;
	struct dns_addrs pub;
	struct net_addr addr[];
};

/* Appends the addresses of an answer; NULL has none. */
static size_t dns_append_addrs(struct net_addr *out, const struct dns_answer *a, uint16_t type)
{
	size_t n = 0;
	for (size_t i = 0; a != NULL && i < a->n; i++) {
		struct net_addr *to = &out[n];
		memset(to, 0, sizeof(*to));
		if (type == DNS_A && a->rdata[i].n == 4) {
			to->in4.sin_family = AF_INET;
			memcpy(&to->in4.sin_addr, a->rdata[i].p, 4);
			to->len = sizeof(to->in4);
			n++;
		} else if (type == DNS_AAAA && a->rdata[i].n == 16) {
			to->in6.sin6_family = AF_INET6;
			memcpy(&to->in6.sin6_addr, a->rdata[i].p, 16);
			to->len = sizeof(to->in6);
			n++;
		}
	}
	return n;
}

/* Either may be NULL: not asked, or failed. At least one is an answer. */
static const struct dns_addrs *dns_make_addrs(const struct dns_answer *v4, const struct dns_answer *v6)
{
	size_t n_max = (v4 != NULL ? v4->n : 0) + (v6 != NULL ? v6->n : 0);
	struct addrs_box *box = xcalloc(1, sizeof(*box) + n_max * sizeof(box->addr[0]));
	atomic_init(&box->n_refs, 1);
	box->pub.addr = box->addr;
	box->pub.n = dns_append_addrs(box->addr, v4, DNS_A);
	box->pub.n += dns_append_addrs(box->addr + box->pub.n, v6, DNS_AAAA);
	bool has_nodata =
		(v4 != NULL && v4->status != DNS_NXDOMAIN) || (v6 != NULL && v6->status != DNS_NXDOMAIN);
	box->pub.status = box->pub.n > 0 ? DNS_OK : has_nodata ? DNS_NODATA : DNS_NXDOMAIN;
	return &box->pub;
}

/* Both at once. One of them failing is no failure when the
 * other one has addresses; the failure is lost then. */
static const struct dns_addrs *dns_lookup_both(const char *name, mono_t deadline)
{
	const struct dns_addrs *result = NULL;
	const struct dns_answer *v4 = NULL, *v6 = NULL;
	struct dns_query q4, q6;
	int rc4 = dns_query_begin(&q4, name, DNS_A);
	if (rc4 != 0)
		err_clear(); /* the other one fails for the same reason, or answers */
	int rc6 = dns_query_begin(&q6, name, DNS_AAAA);
	if (rc4 == 0)
		v4 = dns_query_end(&q4, deadline);
	bool is_cancelled = v4 == NULL && rc4 == 0 && err_is(ERR_CANCELLED);
	struct err e = v4 == NULL && err_kind() != ERR_NONE ? err_take() : (struct err){.kind = ERR_NONE};
	if (rc6 == 0)
		v6 = dns_query_end(&q6, deadline);
	is_cancelled = is_cancelled || (v6 == NULL && rc6 == 0 && err_is(ERR_CANCELLED));
	bool has_addrs = (v4 != NULL && v4->n > 0) || (v6 != NULL && v6->n > 0);
	if (!is_cancelled && (has_addrs || (v4 != NULL && v6 != NULL))) {
		err_clear();
		err_fini(&e);
		result = dns_make_addrs(v4, v6);
	} else if (err_kind() == ERR_NONE) {
		err_put(e);
	} else {
		err_fini(&e);
	}
	dns_answer_unref(v4);
	dns_answer_unref(v6);
	return result;
}

static const struct dns_addrs *dns_lookup_family(const char *name, uint16_t type, mono_t deadline)
{
	const struct dns_answer *a = dns_query(name, type, deadline);
	if (a == NULL)
		return NULL;
	const struct dns_addrs *result = type == DNS_A ? dns_make_addrs(a, NULL) : dns_make_addrs(NULL, a);
	dns_answer_unref(a);
	return result;
}

/* The second family only when the first one has no address or could not be found out. */
static const struct dns_addrs *dns_lookup_in_order(const char *name, uint16_t first, uint16_t second,
						   mono_t deadline)
{
	const struct dns_addrs *a = dns_lookup_family(name, first, deadline);
	if (a != NULL && a->n > 0)
		return a;
	if (a == NULL && (err_is(ERR_CANCELLED) || err_is(ERR_TIMEOUT)))
		return NULL;
	if (a == NULL)
		err_clear();
	const struct dns_addrs *b = dns_lookup_family(name, second, deadline);
	if (b != NULL && b->status == DNS_NXDOMAIN && a != NULL && a->status == DNS_NODATA) {
		dns_addrs_unref(b); /* inconsistent, but the name does exist */
		return a;
	}
	dns_addrs_unref(a);
	return b;
}

const struct dns_addrs *dns_lookup_addr(str_t name, enum dns_ip_strategy strategy, mono_t deadline)
{
	char norm[DNS_NAME_BYTES];
	struct net_addr literal;
	if (net_addr_parse_ip(name, 0, &literal) == 0) {
		struct addrs_box *box = xcalloc(1, sizeof(*box) + sizeof(box->addr[0]));
		atomic_init(&box->n_refs, 1);
		box->pub = (struct dns_addrs){.status = DNS_OK, .n = 1, .addr = box->addr};
		box->addr[0] = literal;
		return &box->pub;
	}
	err_clear();
	if (dns_name_normalize(name, norm) != 0)
		return NULL;
	switch (strategy) {
	case DNS_IPV4_AND_IPV6:
		return dns_lookup_both(norm, deadline);
	case DNS_IPV4_ONLY:
		return dns_lookup_family(norm, DNS_A, deadline);
	case DNS_IPV6_ONLY:
		return dns_lookup_family(norm, DNS_AAAA, deadline);
	case DNS_IPV6_THEN_IPV4:
		return dns_lookup_in_order(norm, DNS_AAAA, DNS_A, deadline);
	case DNS_IPV4_THEN_IPV6:
		return dns_lookup_in_order(norm, DNS_A, DNS_AAAA, deadline);
	}
	panic("dns_lookup_addr: strategy %d", (int)strategy);
}

void dns_addrs_unref(const struct dns_addrs *a)
{
	if (a == NULL)
		return;
	struct addrs_box *box = container_of((struct dns_addrs *)(uintptr_t)a, struct addrs_box, pub);
	if (atomic_fetch_sub_explicit(&box->n_refs, 1, memory_order_acq_rel) == 1)
		free(box);
}

/* --- texts --- */

struct texts_box {
	atomic_uint n_refs;
	struct dns_texts pub;
	struct buf bytes; /* of all texts */
	str_t text[];
};

/* TXT: the character-strings of a record, joined (RFC 7208 section 3.3). */
static void dns_add_txt(struct buf *out, str_t rdata)
{
	for (size_t i = 0; i < rdata.n;) {
		str_t part = str_head(str_skip(rdata, i + 1), (unsigned char)rdata.p[i]);
		buf_add_str(out, part);
		i += 1 + part.n;
	}
}

static bool dns_add_ptr(struct buf *out, str_t rdata)
{
	char name[DNS_WIRE_TEXT_BYTES];
	size_t pos = 0;
	if (!dns_name_from_wire(rdata, &pos, name))
		return false;
	buf_add_z(out, name);
	return true;
}

static const struct dns_texts *dns_lookup_texts(const char *name, uint16_t type, mono_t deadline)
{
	const struct dns_answer *a = dns_query(name, type, deadline);
	if (a == NULL)
		return NULL;
	struct texts_box *box = xcalloc(1, sizeof(*box) + a->n * sizeof(box->text[0]));
	atomic_init(&box->n_refs, 1);
	box->pub.status = a->status;
	box->pub.text = box->text;
	size_t *end = xreallocarray(NULL, a->n + 1, sizeof(*end));
	for (size_t i = 0; i < a->n; i++) {
		if (type == DNS_TXT)
			dns_add_txt(&box->bytes, a->rdata[i]);
		else if (!dns_add_ptr(&box->bytes, a->rdata[i]))
			continue;
		end[box->pub.n++] = box->bytes.n;
	}
	for (size_t i = 0; i < box->pub.n; i++) { /* now that the bytes stay where they are */
		size_t begin = i > 0 ? end[i - 1] : 0;
		box->text[i] = box->bytes.p != NULL ? str_mk(box->bytes.p + begin, end[i] - begin) : STR("");
	}
	free(end);
	dns_answer_unref(a);
	return &box->pub;
}

const struct dns_texts *dns_lookup_txt(str_t name, mono_t deadline)
{
	char norm[DNS_NAME_BYTES];
	return dns_name_normalize(name, norm) == 0 ? dns_lookup_texts(norm, DNS_TXT, deadline) : NULL;
}

void dns_ptr_name(const struct net_addr *ip, struct buf *out)
{
	static const char hex[] = "0123456789abcdef";
	char text[NET_ADDR_STRLEN];
	uint8_t b[16];
	net_addr_fmt_ip(ip, text); /* a v4-mapped address is an IPv4 address */
	if (inet_pton(AF_INET, text, b) == 1) {
		buf_printf(out, "%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
		return;
	}
	memcpy(b, &ip->in6.sin6_addr, sizeof(b));
	for (size_t i = sizeof(b); i-- > 0;)
		buf_printf(out, "%c.%c.", hex[b[i] & 15], hex[b[i] >> 4]);
	buf_add_z(out, "ip6.arpa");
}

const struct dns_texts *dns_lookup_ptr(const struct net_addr *ip, mono_t deadline)
{
	struct buf name = BUF_INIT;
	dns_ptr_name(ip, &name);
	const struct dns_texts *t = dns_lookup_texts(name.p, DNS_PTR, deadline);
	buf_fini(&name);
	return t;
}

void dns_texts_unref(const struct dns_texts *t)
{
	if (t == NULL)
		return;
	struct texts_box *box = container_of((struct dns_texts *)(uintptr_t)t, struct texts_box, pub);
	if (atomic_fetch_sub_explicit(&box->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	buf_fini(&box->bytes);
	free(box);
}
