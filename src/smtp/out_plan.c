/* out_plan.c - the addresses of a site in the order in which they are tried (RFC 5321 section 5.1): by
 * preference, and within one preference all addresses of all hosts shuffled, so that load spreads; an mx_list
 * in its own order. Hosts that do not resolve are passed over. A prohibited address anywhere in the plan
 * fails the whole queue: it means that the DNS of the destination points at ourselves. */
#include "smtp/out_impl.h"

#include "base/uuid.h"

#define RESOLVE_TIMEOUT dur_s(30) /* of one host */
#define PLAN_TIMEOUT dur_s(60)	  /* of all */

void out_plan_fini(struct out_plan *p)
{
	for (size_t i = 0; i < p->n_names; i++)
		free(p->names[i]);
	free(p->names);
	free(p->v);
	*p = (struct out_plan){0};
}

static void plan_add(struct out_plan *p, str_t name, const struct net_addr *addr, uint16_t port)
{
	p->v = xreallocarray(p->v, p->n + 1, sizeof(*p->v));
	p->v[p->n] = (struct out_candidate){.name = name, .addr = *addr};
	net_addr_set_port(&p->v[p->n].addr, port);
	p->n++;
}

static str_t plan_own_name(struct out_plan *p, const char *name)
{
	p->names = xreallocarray(p->names, p->n_names + 1, sizeof(*p->names));
	p->names[p->n_names] = xstrdup(name);
	return str_of(p->names[p->n_names++]);
}

/** Every address of a host, `shown` by a name of the plan's. A host that cannot be resolved adds none and
 * leaves its error in `why`. -1 only when cancelled, or the resolver has stopped because everything stops. */
static int plan_add_host(struct session *s, struct out_plan *p, const char *name, str_t shown, uint16_t port,
			 struct buf *why, mono_t deadline)
{
	const struct dns_addrs *a =
		dns_lookup_addr(str_of(name), (enum dns_ip_strategy)session_path(s)->ip_lookup_strategy,
				mono_min(deadline, mono_after(RESOLVE_TIMEOUT)));
	if (a == NULL) {
		if (err_is(ERR_CANCELLED) || err_is(ERR_SHUTDOWN))
			return -1;
		buf_printf(why, "%s%s: %s", why->n > 0 ? ", " : "", name, err_text());
		err_clear();
		return 0;
	}
	for (size_t i = 0; i < a->n; i++)
		plan_add(p, shown, &a->addr[i], port);
	dns_addrs_unref(a);
	return 0;
}

static void plan_shuffle(struct out_candidate *v, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = (size_t)random_below(i);
		struct out_candidate t = v[i - 1];
		v[i - 1] = v[k];
		v[k] = t;
	}
}

static uint16_t plan_port(const struct session *s, uint16_t named)
{
	const struct egress_source *src = session_source(s);
	if (src->remote_port != 0)
		return (uint16_t)src->remote_port;
	return named != 0 ? named : (uint16_t)session_path(s)->smtp_port;
}

static int plan_from_list(struct session *s, struct out_plan *p, const struct delivery_protocol *proto,
			  struct buf *why, mono_t deadline)
{
	for (size_t i = 0; i < proto->n_mx; i++) {
		const struct mx_list_entry *e = &proto->mx[i];
		uint16_t port = plan_port(s, e->port);
		if (e->addr.len != 0)
			plan_add(p, plan_own_name(p, e->name), &e->addr, port);
		else if (plan_add_host(s, p, e->name, plan_own_name(p, e->name), port, why, deadline) != 0)
			return -1;
	}
	return 0;
}

/** An exchanger's name as records show it: complete, with its dot (docs/reference/log_record.md); an address
 * is an address. */
static str_t plan_own_mx_name(struct out_plan *p, const struct dns_mx *mx, size_t i)
{
	if (mx->is_domain_literal)
		return plan_own_name(p, mx->host[i].name);
	char *name = xasprintf("%s.", mx->host[i].name);
	str_t owned = plan_own_name(p, name);
	free(name);
	return owned;
}

static int plan_from_mx(struct session *s, struct out_plan *p, const struct dns_mx *mx, struct buf *why,
			mono_t deadline)
{
	bool is_in_order = session_path(s)->ip_lookup_strategy == DNS_IPV6_THEN_IPV4 ||
			   session_path(s)->ip_lookup_strategy == DNS_IPV4_THEN_IPV6;
	for (size_t i = 0; i < mx->n;) {
		size_t first = p->n;
		uint16_t pref = mx->host[i].pref;
		for (; i < mx->n && mx->host[i].pref == pref; i++)
			if (plan_add_host(s, p, mx->host[i].name, plan_own_mx_name(p, mx, i),
					  plan_port(s, mx->port), why, deadline) != 0)
				return -1;
		if (!is_in_order)
			plan_shuffle(p->v + first, p->n - first);
	}
	return 0;
}

/** Drops skipped candidates; true when one is prohibited, which *bad tells. */
static bool plan_filter(struct session *s, struct out_plan *p, struct out_candidate *bad)
{
	const struct egress_path *path = session_path(s);
	size_t n = 0;
	for (size_t i = 0; i < p->n; i++) {
		if (cidr_set_has(&path->prohibited_hosts, &p->v[i].addr)) {
			*bad = p->v[i];
			return true;
		}
		if (!cidr_set_has(&path->skip_hosts, &p->v[i].addr))
			p->v[n++] = p->v[i];
	}
	p->n = n;
	return false;
}

int out_plan_make(struct session *s, struct out_plan *p, struct smtp_response *r, struct buf *text)
{
	const struct dns_mx *mx = session_mx(s);
	struct out_candidate bad;
	struct buf why = BUF_INIT;
	int rc = -1;

	*r = (struct smtp_response){0};
	buf_clear(text);
	if (mx != NULL && mx->is_null_mx) { /* RFC 7505 */
		buf_add_z(text, "Recipient address has a null MX");
		*r = (struct smtp_response){.code = 556, .enhanced = {5, 1, 10}};
		goto out;
	}
	mono_t deadline = mono_after(PLAN_TIMEOUT);
	if ((mx != NULL ? plan_from_mx(s, p, mx, &why, deadline)
			: plan_from_list(s, p, session_protocol(s), &why, deadline)) != 0)
		goto out; /* cancelled: code stays 0 */
	size_t n_found = p->n;
	if (plan_filter(s, p, &bad)) {
		char ip[NET_ADDR_STRLEN];
		buf_printf(text, "%s is on the list of prohibited_hosts ", net_addr_fmt_ip(&bad.addr, ip));
		for (size_t i = 0; i < session_path(s)->prohibited_hosts.n; i++) {
			if (i > 0)
				buf_add_z(text, ", ");
			cidr_set_fmt(&session_path(s)->prohibited_hosts, i, text);
		}
		*r = (struct smtp_response){.code = 550, .enhanced = {5, 4, 4}};
		goto out;
	}
	if (p->n == 0) {
		if (n_found > 0)
			buf_add_z(text,
				  "KumoMTA internal: MX consisted solely of hosts on the skip_hosts list");
		else
			buf_printf(text, "MX didn't resolve to any hosts%s" STR_FMT, why.n > 0 ? ": " : "",
				   STR_ARG(buf_str(&why)));
		*r = (struct smtp_response){.code = 451, .enhanced = {4, 4, 4}};
		goto out;
	}
	rc = 0;
out:
	r->content = buf_str(text);
	buf_fini(&why);
	return rc;
}
