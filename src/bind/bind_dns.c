/* bind_dns.c - kumo.dns: the lookups and the test resolver. Answers are held in a box while their Lua form is
 * made. Names come back fully qualified, with the final dot, as documented. */
#include "base/err.h"
#include "bind/bind.h"
#include "net/dns.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

#define DNS_MX_TIME dur_s(5)
#define DNS_TIME dur_s(30)

/* Reads an optional resolver name at idx: any other than nil raises, as no resolver can be defined in this
 * version. */
static void bind_refuse_resolver_name(lua_State *L, int idx)
{
	if (lua_isnoneornil(L, idx))
		return;
	luaL_error(
		L,
		"resolver `%s` has not been defined: this version of cirrus has no kumo.dns.define_resolver",
		luaL_tolstring(L, idx, NULL));
}

static mono_t dns_deadline(lua_State *L, dur_t limit)
{
	return mono_min(policy_deadline(L), mono_after(limit));
}

static str_t dns_check_name(lua_State *L)
{
	str_t name;
	name.p = luaL_checklstring(L, 1, &name.n);
	return name;
}

/* --- lookup_mx --- */

static void dns_free_mx(void *p)
{
	dns_mx_unref(p);
}

static void dns_push_host(lua_State *L, const char *name, bool is_name)
{
	lua_pushfstring(L, "%s%s", name, is_name ? "." : "");
}

static void dns_push_by_pref(lua_State *L, const struct dns_mx *mx)
{
	lua_newtable(L);
	for (size_t i = 0; i < mx->n; i++) {
		if (lua_rawgeti(L, -1, mx->host[i].pref) == LUA_TNIL) {
			lua_pop(L, 1);
			lua_newtable(L);
			lua_pushvalue(L, -1);
			lua_rawseti(L, -3, mx->host[i].pref);
		}
		dns_push_host(L, mx->host[i].name, !mx->is_domain_literal);
		lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
		lua_pop(L, 1);
	}
}

static void dns_push_mx(lua_State *L, const struct dns_mx *mx)
{
	lua_newtable(L);
	dns_push_host(L, mx->domain, !mx->is_domain_literal);
	lua_setfield(L, -2, "domain_name");
	lua_pushstring(L, mx->site_name != NULL ? mx->site_name : "");
	lua_setfield(L, -2, "site_name");
	lua_pushboolean(L, mx->is_domain_literal);
	lua_setfield(L, -2, "is_domain_literal");
	lua_pushboolean(L, mx->is_secure);
	lua_setfield(L, -2, "is_secure");
	lua_pushboolean(L, mx->is_mx);
	lua_setfield(L, -2, "is_mx");
	lua_pushliteral(L, "None"); /* no MTA-STS policy is ever applied by this version */
	lua_setfield(L, -2, "mta_sts");
	lua_createtable(L, (int)mx->n, 0);
	for (size_t i = 0; i < mx->n; i++) {
		dns_push_host(L, mx->host[i].name, !mx->is_domain_literal);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "hosts");
	dns_push_by_pref(L, mx);
	lua_setfield(L, -2, "by_pref");
}

static int dns_lua_lookup_mx(lua_State *L)
{
	str_t domain = dns_check_name(L);
	bind_refuse_resolver_name(L, 2);
	void **box = policy_box(L, dns_free_mx);
	const struct dns_mx *mx = dns_lookup_mx(domain, dns_deadline(L, DNS_MX_TIME));
	if (mx == NULL) {
		err_wrap("MX lookup for %s failed", domain.p);
		return policy_raise(L);
	}
	*box = (void *)(uintptr_t)mx;
	if (mx->status == DNS_NXDOMAIN)
		return luaL_error(L, "MX lookup for %s failed: NXDOMAIN, the domain does not exist",
				  domain.p);
	dns_push_mx(L, mx);
	policy_box_free(box);
	return 1;
}

/* --- the others --- */

static void dns_free_addrs(void *p)
{
	dns_addrs_unref(p);
}

static enum dns_ip_strategy dns_check_strategy(lua_State *L, int idx)
{
	static const char *const words[] = {
		[DNS_IPV4_AND_IPV6] = "Ipv4AndIpv6",   [DNS_IPV4_ONLY] = "Ipv4Only",
		[DNS_IPV6_ONLY] = "Ipv6Only",	       [DNS_IPV6_THEN_IPV4] = "Ipv6ThenIpv4",
		[DNS_IPV4_THEN_IPV6] = "Ipv4ThenIpv6", NULL};
	const char *given = luaL_optstring(L, idx, words[DNS_IPV4_AND_IPV6]);
	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(given, words[i]) == 0)
			return (enum dns_ip_strategy)i;
	param_err_variant(given, words);
	policy_raise(L);
	return DNS_IPV4_AND_IPV6;
}

static int dns_lua_lookup_addr(lua_State *L)
{
	str_t name = dns_check_name(L);
	bind_refuse_resolver_name(L, 2);
	enum dns_ip_strategy strategy = dns_check_strategy(L, 3);
	void **box = policy_box(L, dns_free_addrs);
	const struct dns_addrs *a = dns_lookup_addr(name, strategy, dns_deadline(L, DNS_TIME));
	if (a == NULL) {
		err_wrap("address lookup for %s failed", name.p);
		return policy_raise(L);
	}
	*box = (void *)(uintptr_t)a;
	if (a->status == DNS_NXDOMAIN)
		return luaL_error(L, "address lookup for %s failed: NXDOMAIN, the name does not exist",
				  name.p);
	lua_createtable(L, (int)a->n, 0);
	for (size_t i = 0; i < a->n; i++) {
		char text[NET_ADDR_STRLEN];
		lua_pushstring(L, net_addr_fmt_ip(&a->addr[i], text));
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	policy_box_free(box);
	return 1;
}

static void dns_free_texts(void *p)
{
	dns_texts_unref(p);
}

static int dns_push_texts(lua_State *L, void **box, const struct dns_texts *t, const char *kind,
			  const char *suffix)
{
	const char *name = lua_tostring(L, 1);
	if (t == NULL) {
		err_wrap("%s lookup for %s failed", kind, name);
		return policy_raise(L);
	}
	*box = (void *)(uintptr_t)t;
	if (t->status == DNS_NXDOMAIN)
		return luaL_error(L, "%s lookup for %s failed: NXDOMAIN, the name does not exist", kind,
				  name);
	lua_createtable(L, (int)t->n, 0);
	for (size_t i = 0; i < t->n; i++) {
		lua_pushlstring(L, t->text[i].n != 0 ? t->text[i].p : "", t->text[i].n);
		lua_pushstring(L, suffix);
		lua_concat(L, 2);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	policy_box_free(box);
	return 1;
}

static int dns_lua_lookup_txt(lua_State *L)
{
	str_t name = dns_check_name(L);
	bind_refuse_resolver_name(L, 2);
	void **box = policy_box(L, dns_free_texts);
	return dns_push_texts(L, box, dns_lookup_txt(name, dns_deadline(L, DNS_TIME)), "TXT", "");
}

static int dns_lua_lookup_ptr(lua_State *L)
{
	struct net_addr ip;
	str_t text = dns_check_name(L);
	bind_refuse_resolver_name(L, 2);
	if (net_addr_parse_ip(text, 0, &ip) != 0)
		return policy_raise(L);
	void **box = policy_box(L, dns_free_texts);
	return dns_push_texts(L, box, dns_lookup_ptr(&ip, dns_deadline(L, DNS_TIME)), "PTR", ".");
}

/* --- configure_test_resolver --- */

struct dns_test_config {
	json_t *zones;
	struct param_strs servfail;
};

static const struct param dns_test_params[] = {
	PARAM_JSON(dns_test_config, zones, .def = "[]",
		   .doc = "Zones: text in master-file syntax, or {zone=, secure=}."),
	PARAM_STRS(dns_test_config, servfail, .doc = "Names that answer SERVFAIL for every type."),
	{0}};
static const struct param_schema dns_test_schema = {"TestResolverConfig", dns_test_params,
						    sizeof(struct dns_test_config), NULL};

struct dns_test_zone_config {
	char *zone;
	bool secure;
};

static const struct param dns_zone_params[] = {
	PARAM_STR(dns_test_zone_config, zone, .is_required = true,
		  .doc = "The zone, in master-file syntax with an $ORIGIN."),
	PARAM_BOOL(dns_test_zone_config, secure, .def = "false",
		   .doc = "Answers count as validated by DNSSEC."),
	{0}};
static const struct param_schema dns_zone_schema = {"TestZone", dns_zone_params,
						    sizeof(struct dns_test_zone_config), NULL};

static int dns_configure(const struct dns_test_config *c)
{
	size_t n = json_array_size(c->zones), n_parsed = 0, n_servfail = c->servfail.n;
	int rc = -1;
	struct dns_test_zone_config *parsed = calloc(n + 1, sizeof(*parsed));
	struct dns_test_zone *zone = calloc(n + 1, sizeof(*zone));
	str_t *servfail = calloc(n_servfail + 1, sizeof(*servfail));
	if (parsed == NULL || zone == NULL || servfail == NULL)
		panic("out of memory for %zu zones", n);
	for (; n_parsed < n; n_parsed++) {
		const json_t *item = json_array_get(c->zones, n_parsed);
		if (json_is_string(item)) {
			zone[n_parsed].text = str_mk(json_string_value(item), json_string_length(item));
			continue;
		}
		if (param_parse_json(&dns_zone_schema, item, &parsed[n_parsed]) != 0)
			goto out;
		zone[n_parsed].text = str_of(parsed[n_parsed].zone);
		zone[n_parsed].is_secure = parsed[n_parsed].secure;
	}
	for (size_t i = 0; i < n_servfail; i++)
		servfail[i] = str_of(c->servfail.v[i]);
	rc = dns_configure_test_zones(zone, n, servfail, n_servfail);
out:
	for (size_t i = 0; i < n_parsed; i++)
		param_fini(&dns_zone_schema, &parsed[i]);
	free(parsed);
	free(zone);
	free(servfail);
	return rc;
}

/* An array of zones, or {zones=, servfail=}. */
static int dns_configure_from(lua_State *L, int idx)
{
	struct dns_test_config c;
	json_t *v = value_from_lua(L, idx);
	if (v == NULL)
		return -1;
	if (json_is_array(v)) {
		json_t *object = json_object();
		json_object_set_new(object, "zones", v);
		v = object;
	}
	int rc = param_parse_json(&dns_test_schema, v, &c);
	json_decref(v);
	if (rc != 0)
		return -1;
	rc = dns_configure(&c);
	param_fini(&dns_test_schema, &c);
	return rc;
}

static int dns_configure_test_resolver(lua_State *L)
{
	if (dns_configure_from(L, 1) != 0)
		return policy_raise(L);
	return 0;
}

static void dns_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"lookup_mx", dns_lua_lookup_mx},
		{"lookup_addr", dns_lua_lookup_addr},
		{"lookup_txt", dns_lua_lookup_txt},
		{"lookup_ptr", dns_lua_lookup_ptr},
		{"configure_test_resolver", dns_configure_test_resolver},
		{NULL, NULL},
	};
	luaL_newlib(L, functions);
	lua_setfield(L, -2, "dns");
}

void bind_register_dns(void)
{
	param_schema_register(&dns_test_schema);
	param_schema_register(&dns_zone_schema);
	policy_add_library(dns_open);
}
