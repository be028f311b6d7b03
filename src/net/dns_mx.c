/* dns_mx.c - mail exchangers of a domain, and the name of the site that they make up.
 *
 * A domain is a name with an optional port, or an address literal (RFC 5321 section 4.1.3) with an optional
 * port inside or behind the brackets: [1.2.3.4], [1.2.3.4:25], [IPv6:::1], [::1]:25, [[::1]:25]. A literal
 * is its own host.
 *
 * The site name is made from the hosts in the order in which they would be
 * tried: their labels are aligned from the right, and each position lists
 * its distinct labels. Domains with the same hosts so share one ready queue. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/map.h"
#include "net/dns_impl.h"

#include <stdio.h>
#include <stdlib.h>

struct mx_box {
	atomic_uint n_refs;
	struct dns_mx pub;
};

static struct mx_box *mx_box_new(const char *domain)
{
	struct mx_box *box = xnew(struct mx_box);
	atomic_init(&box->n_refs, 1);
	box->pub.domain = xstrdup(domain);
	return box;
}

const struct dns_mx *dns_mx_ref(const struct dns_mx *mx)
{
	struct mx_box *box = container_of((struct dns_mx *)(uintptr_t)mx, struct mx_box, pub);
	atomic_fetch_add_explicit(&box->n_refs, 1, memory_order_relaxed);
	return mx;
}

void dns_mx_unref(const struct dns_mx *mx)
{
	if (mx == NULL)
		return;
	struct mx_box *box = container_of((struct dns_mx *)(uintptr_t)mx, struct mx_box, pub);
	if (atomic_fetch_sub_explicit(&box->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < box->pub.n; i++)
		free(box->pub.host[i].name);
	free(box->pub.host);
	free(box->pub.domain);
	free(box->pub.site_name);
	free(box);
}

static void mx_add_host(struct dns_mx *mx, const char *name, uint16_t pref)
{
	mx->host = xreallocarray(mx->host, mx->n + 1, sizeof(*mx->host));
	mx->host[mx->n++] = (struct dns_mx_host){.name = xstrdup(name), .pref = pref};
}

/* --- the site name --- */

/* The label at `position` from the right; false when the name is shorter. */
static bool mx_label_at(str_t name, size_t position, str_t *label)
{
	size_t end = name.n;
	for (;; position--) {
		size_t begin = end;
		while (begin > 0 && name.p[begin - 1] != '.')
			begin--;
		*label = str_mk(name.p + begin, end - begin);
		if (position == 0)
			return true;
		if (begin == 0)
			return false;
		end = begin - 1;
	}
}

/* "one", "(one|two)", "(one|two)?" */
static void mx_add_position(const struct dns_mx_host *host, size_t n, size_t position, uint16_t port,
			    struct buf *out)
{
	struct map seen = {0};
	size_t at = out->n;
	bool is_lacking = false;
	str_t label;
	for (size_t i = 0; i < n; i++) {
		if (!mx_label_at(str_of(host[i].name), position, &label)) {
			is_lacking = true;
			continue;
		}
		if (map_put(&seen, label, host[i].name) != NULL)
			continue;
		buf_add_c(out, seen.n == 1 ? '(' : '|');
		buf_add_str(out, label);
		if (position == 0 && port != 0)
			buf_printf(out, ":%u", port);
	}
	if (seen.n > 1) {
		buf_add_c(out, ')');
	} else { /* no alternatives: no parentheses */
		memmove(out->p + at, out->p + at + 1, out->n - at - 1);
		buf_truncate(out, out->n - 1);
	}
	if (is_lacking)
		buf_add_c(out, '?');
	map_fini(&seen);
}

void dns_site_name(const struct dns_mx_host *host, size_t n, uint16_t port, struct buf *out)
{
	size_t n_positions = 0;
	for (size_t i = 0; i < n; i++) {
		size_t n_labels = 1;
		for (const char *p = host[i].name; *p != 0; p++)
			n_labels += *p == '.';
		n_positions = n_labels > n_positions ? n_labels : n_positions;
	}
	for (size_t position = n_positions; position-- > 0;) {
		mx_add_position(host, n, position, port, out);
		if (position > 0)
			buf_add_c(out, '.');
	}
}

/* --- domain literals --- */

static int mx_fail_domain(str_t domain, const char *why)
{
	err_set(ERR_INVALID, "\"" STR_FMT "\" is not a mail domain: %s", STR_ARG(str_head(domain, 1000)),
		why);
	return -1;
}

static bool mx_parse_port(str_t s, uint16_t *port)
{
	uint64_t v;
	if (s.n == 0 || s.n > 5 || !str_to_u64(s, &v) || v == 0 || v > UINT16_MAX)
		return false;
	*port = (uint16_t)v;
	return true;
}

/* What is between the brackets: an address, with or without a port. */
static bool mx_parse_inner(str_t inner, struct net_addr *a, uint16_t *port)
{
	bool is_tagged = str_istarts(inner, STR("ipv6:"));
	bool is_ok;
	*port = 0;
	inner = is_tagged ? str_skip(inner, 5) : inner;
	if (net_addr_parse_ip(inner, 0, a) == 0) {
		is_ok = inner.p[0] != '['; /* brackets inside brackets are for a port */
	} else if (net_addr_parse(inner, a) == 0) {
		*port = net_addr_port(a);
		is_ok = *port != 0;
	} else {
		is_ok = false;
	}
	err_clear();
	return is_ok && (!is_tagged || a->sa.sa_family == AF_INET6);
}

static const struct dns_mx *mx_make_literal(str_t domain)
{
	char ip[NET_ADDR_STRLEN], site[NET_ADDR_STRLEN], canonical[NET_ADDR_STRLEN + 2];
	struct net_addr a;
	uint16_t port, port_after = 0;
	size_t close = domain.n;
	while (close > 0 && domain.p[close - 1] != ']')
		close--;
	if (close < 2 || !mx_parse_inner(str_mk(domain.p + 1, close - 2), &a, &port)) {
		mx_fail_domain(domain, "no address between the brackets");
		return NULL;
	}
	str_t rest = str_skip(domain, close);
	if (rest.n > 0 && (rest.p[0] != ':' || port != 0 || !mx_parse_port(str_skip(rest, 1), &port_after))) {
		mx_fail_domain(domain, "bad port");
		return NULL;
	}
	port = port != 0 ? port : port_after;
	net_addr_set_port(&a, port);
	net_addr_fmt_ip(&a, ip);
	snprintf(canonical, sizeof(canonical), "[%s]", ip);
	struct mx_box *box = mx_box_new(canonical);
	box->pub.is_domain_literal = true;
	box->pub.port = port;
	mx_add_host(&box->pub, ip, 1);
	box->pub.site_name = xstrdup(port != 0 ? net_addr_fmt(&a, site) : ip);
	return &box->pub;
}

/* --- names --- */

static int mx_compare(const void *a, const void *b)
{
	const struct dns_mx_host *x = a, *y = b;
	return x->pref != y->pref ? (x->pref > y->pref) - (x->pref < y->pref) : strcmp(x->name, y->name);
}

/* Hosts that a record names twice at one preference are tried once. */
static void mx_sort_hosts(struct dns_mx *mx)
{
	size_t n = 0;
	qsort(mx->host, mx->n, sizeof(*mx->host), mx_compare);
	for (size_t i = 0; i < mx->n; i++) {
		if (n > 0 && mx_compare(&mx->host[n - 1], &mx->host[i]) == 0)
			free(mx->host[i].name);
		else
			mx->host[n++] = mx->host[i];
	}
	mx->n = n;
}

static void mx_take_records(struct dns_mx *mx, const struct dns_answer *a)
{
	char name[DNS_WIRE_TEXT_BYTES];
	mx->is_mx = true;
	for (size_t i = 0; i < a->n; i++) {
		size_t pos = 2;
		str_t r = a->rdata[i];
		if (!dns_name_from_wire(r, &pos, name))
			continue;
		if (name[0] == 0) {
			mx->is_null_mx = true; /* RFC 7505; together with others it is just no host */
			continue;
		}
		mx_add_host(mx, name, (uint16_t)((unsigned char)r.p[0] << 8 | (unsigned char)r.p[1]));
	}
	mx->is_null_mx = mx->is_null_mx && mx->n == 0;
	if (mx->n > 0)
		mx_sort_hosts(mx);
}

static const struct dns_mx *mx_lookup_name(const char *name, uint16_t port, mono_t deadline)
{
	const struct dns_answer *a = dns_query(name, DNS_MX, deadline);
	if (a == NULL)
		return NULL;
	struct mx_box *box = mx_box_new(name);
	struct dns_mx *mx = &box->pub;
	struct buf site = BUF_INIT;
	mx->port = port;
	mx->is_secure = a->is_secure;
	if (a->status == DNS_OK)
		mx_take_records(mx, a);
	else if (a->status == DNS_NODATA)
		mx_add_host(mx, name, 1); /* RFC 5321 section 5.1: the implicit MX */
	else
		mx->status = DNS_NXDOMAIN;
	dns_answer_unref(a);
	dns_site_name(mx->host, mx->n, port, &site);
	mx->site_name = buf_steal(&site, NULL);
	return mx;
}

const struct dns_mx *dns_lookup_mx(str_t domain, mono_t deadline)
{
	char name[DNS_NAME_BYTES];
	uint16_t port = 0;
	str_t host = domain;
	if (domain.n > 0 && domain.p[0] == '[')
		return mx_make_literal(domain);
	ptrdiff_t colon = str_chr(domain, ':', 0);
	if (colon >= 0) {
		host = str_head(domain, (size_t)colon);
		if (!mx_parse_port(str_skip(domain, (size_t)colon + 1), &port)) {
			mx_fail_domain(domain, "bad port");
			return NULL;
		}
	}
	return dns_name_normalize(host, name) == 0 ? mx_lookup_name(name, port, deadline) : NULL;
}
