/* dns_zone.c - the resolver of test policies: zones given as text, answered from memory.
 *
 * libldns reads the master-file syntax, one record at a time; the records of all zones go into one table of
 * names. A name is in the table when it has records, or when it lies between a name with records and the
 * apex of its zone (an empty non-terminal): the difference between NODATA and NXDOMAIN. The apex is the
 * owner of the SOA, else the $ORIGIN. Zones need neither SOA nor NS, and no delegation is made of NS
 * records: a policy's test lists only what it asks.
 *
 * Asking: the name itself; else "*" below its closest existing ancestor (RFC 4592 section 3.3.1); a CNAME is
 * followed through all zones. Everything lives in one arena and never changes after dns_zones_parse. */
#include "base/alloc.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/map.h"
#include "net/dns_impl.h"

#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>

#define ZONE_CNAME_DEPTH 16

struct zone_rrset {
	struct zone_rrset *next;
	uint16_t type;
	uint32_t ttl_s; /* the smallest of its records */
	size_t n, cap;
	str_t *rdata;
};

struct zone_node {
	bool is_secure;
	struct zone_rrset *sets;
};

struct dns_zones {
	struct arena mem;
	struct map nodes;    /* name -> struct zone_node */
	struct map servfail; /* name -> the zones themselves */
};

/* Reading one zone. */
struct zone_reader {
	struct dns_zones *zs;
	size_t number; /* 1-based, for messages */
	bool is_secure;
	bool has_apex;
	char apex[DNS_WIRE_TEXT_BYTES];
	FILE *file;
	int line;	/* libldns's count: the one after the entry just read */
	int entry_line; /* where that entry began */
	uint32_t default_ttl_s;
	ldns_rdf *origin, *previous;
};

/* --- building --- */

static const char *zone_parent(const char *name)
{
	const char *dot = strchr(name, '.');
	return dot != NULL ? dot + 1 : "";
}

static bool zone_is_below(const char *name, const char *apex)
{
	size_t n = strlen(name), n_apex = strlen(apex);
	if (n_apex == 0 || n < n_apex || strcmp(name + n - n_apex, apex) != 0)
		return false;
	return n == n_apex || name[n - n_apex - 1] == '.';
}

static struct zone_node *zone_make_node(struct dns_zones *zs, const char *name, bool is_secure)
{
	struct zone_node *node = map_find(&zs->nodes, str_of(name));
	if (node != NULL)
		return node;
	node = arena_zalloc(&zs->mem, sizeof(*node));
	node->is_secure = is_secure;
	map_put(&zs->nodes, str_of(arena_strdup(&zs->mem, name)), node);
	return node;
}

/* The node of a record's owner, with the empty non-terminals above it. */
static struct zone_node *zone_make_owner(struct zone_reader *r, const char *name)
{
	char origin[DNS_WIRE_TEXT_BYTES] = "";
	size_t pos = 0;
	const char *apex = r->apex;
	if (!zone_is_below(name, apex) && r->origin != NULL) {
		str_t wire = str_mk((const char *)ldns_rdf_data(r->origin), ldns_rdf_size(r->origin));
		if (dns_name_from_wire(wire, &pos, origin))
			apex = origin;
	}
	if (zone_is_below(name, apex))
		for (const char *up = name; strcmp(up, apex) != 0; up = zone_parent(up))
			zone_make_node(r->zs, zone_parent(up), r->is_secure);
	else if (name[0] == '*')
		zone_make_node(r->zs, zone_parent(name), r->is_secure);
	return zone_make_node(r->zs, name, r->is_secure);
}

static struct zone_rrset *zone_find_set(const struct zone_node *node, uint16_t type)
{
	for (struct zone_rrset *set = node->sets; set != NULL; set = set->next)
		if (set->type == type)
			return set;
	return NULL;
}

static void zone_add_rdata(struct dns_zones *zs, struct zone_node *node, uint16_t type, uint32_t ttl_s,
			   str_t rdata)
{
	struct zone_rrset *set = zone_find_set(node, type);
	if (set == NULL) {
		set = arena_zalloc(&zs->mem, sizeof(*set));
		set->type = type;
		set->ttl_s = ttl_s;
		set->next = node->sets;
		node->sets = set;
	}
	if (ttl_s < set->ttl_s)
		set->ttl_s = ttl_s;
	for (size_t i = 0; i < set->n; i++)
		if (str_eq(set->rdata[i], rdata))
			return;
	if (set->n == set->cap) {
		size_t cap = set->cap == 0 ? 4 : set->cap * 2;
		str_t *bigger = arena_alloc(&zs->mem, cap * sizeof(*bigger));
		if (set->n > 0)
			memcpy(bigger, set->rdata, set->n * sizeof(*bigger));
		set->rdata = bigger;
		set->cap = cap;
	}
	set->rdata[set->n++] = arena_str(&zs->mem, rdata);
}

static int zone_fail(const struct zone_reader *r, const char *why)
{
	err_set(ERR_INVALID, "zone %zu, line %d: %s", r->number, r->entry_line, why);
	return -1;
}

static void zone_set_apex(struct zone_reader *r, const ldns_rdf *name)
{
	size_t pos = 0;
	str_t wire = str_mk((const char *)ldns_rdf_data(name), ldns_rdf_size(name));
	if (!dns_name_from_wire(wire, &pos, r->apex) || r->apex[0] == 0)
		return;
	r->has_apex = true;
	zone_make_node(r->zs, r->apex, r->is_secure);
}

static int zone_add_record(struct zone_reader *r, const ldns_rr *rr)
{
	char owner[DNS_WIRE_TEXT_BYTES];
	size_t pos = 0;
	const ldns_rdf *name = ldns_rr_owner(rr);
	str_t wire = str_mk((const char *)ldns_rdf_data(name), ldns_rdf_size(name));
	if (ldns_rr_get_class(rr) != LDNS_RR_CLASS_IN)
		return zone_fail(r, "only records of class IN are possible");
	if (!dns_name_from_wire(wire, &pos, owner))
		return zone_fail(r, "bad owner name");
	if (ldns_rr_get_type(rr) == LDNS_RR_TYPE_SOA)
		zone_set_apex(r, name);
	struct buf rdata = BUF_INIT;
	for (size_t i = 0; i < ldns_rr_rd_count(rr); i++) {
		const ldns_rdf *f = ldns_rr_rdf(rr, i);
		buf_add(&rdata, ldns_rdf_data(f), ldns_rdf_size(f));
	}
	zone_add_rdata(r->zs, zone_make_owner(r, owner), (uint16_t)ldns_rr_get_type(rr), ldns_rr_ttl(rr),
		       buf_str(&rdata));
	buf_fini(&rdata);
	return 0;
}

/* One entry of the file: a record, a directive or nothing. */
static int zone_read_entry(struct zone_reader *r)
{
	ldns_rr *rr = NULL;
	int rc = 0;
	r->entry_line = r->line;
	ldns_status s =
		ldns_rr_new_frm_fp_l(&rr, r->file, &r->default_ttl_s, &r->origin, &r->previous, &r->line);
	switch (s) {
	case LDNS_STATUS_OK:
		rc = zone_add_record(r, rr);
		break;
	case LDNS_STATUS_SYNTAX_ORIGIN:
		if (!r->has_apex && r->origin != NULL)
			zone_set_apex(r, r->origin);
		break;
	case LDNS_STATUS_SYNTAX_EMPTY:
	case LDNS_STATUS_SYNTAX_TTL:
		break;
	case LDNS_STATUS_SYNTAX_INCLUDE:
	case LDNS_STATUS_SYNTAX_INCLUDE_ERR_NOTIMPL:
		rc = zone_fail(r, "$INCLUDE is not possible here");
		break;
	default:
		rc = zone_fail(r, ldns_get_errorstr_by_id(s));
	}
	ldns_rr_free(rr);
	return rc;
}

static int zone_read(struct dns_zones *zs, size_t number, const struct dns_test_zone *zone)
{
	struct zone_reader r = {
		.zs = zs, .number = number, .is_secure = zone->is_secure, .line = 1, .default_ttl_s = 3600};
	int rc = 0;
	if (memchr(zone->text.p, 0, zone->text.n) != NULL) {
		err_set(ERR_INVALID, "zone %zu: a NUL byte in the text", number);
		return -1;
	}
	r.file = fmemopen((void *)(uintptr_t)zone->text.p, zone->text.n, "r");
	if (r.file == NULL) {
		err_set_sys(errno, "zone %zu", number);
		return -1;
	}
	while (rc == 0 && !feof(r.file))
		rc = zone_read_entry(&r);
	fclose(r.file);
	ldns_rdf_deep_free(r.origin);
	ldns_rdf_deep_free(r.previous);
	return rc;
}

struct dns_zones *dns_zones_parse(const struct dns_test_zone *zone, size_t n, const str_t *servfail,
				  size_t n_servfail)
{
	struct dns_zones *zs = xnew(struct dns_zones);
	char name[DNS_NAME_BYTES];
	for (size_t i = 0; i < n; i++)
		if (zone[i].text.n > 0 && zone_read(zs, i + 1, &zone[i]) != 0)
			goto fail;
	for (size_t i = 0; i < n_servfail; i++) {
		if (dns_name_normalize(servfail[i], name) != 0)
			goto fail;
		map_put(&zs->servfail, str_of(arena_strdup(&zs->mem, name)), zs);
	}
	return zs;
fail:
	dns_zones_free(zs);
	return NULL;
}

void dns_zones_free(struct dns_zones *zs)
{
	if (zs == NULL)
		return;
	map_fini(&zs->nodes);
	map_fini(&zs->servfail);
	arena_fini(&zs->mem);
	free(zs);
}

/* --- asking --- */

/* The node that answers for the name: its own, or the wildcard's. *encloser is the name's closest existing
 * ancestor (or itself), NULL when it is below no zone. */
static const struct zone_node *zone_find_node(const struct dns_zones *zs, const char *name,
					      const struct zone_node **encloser)
{
	char wild[DNS_WIRE_TEXT_BYTES + 2];
	const struct zone_node *node = map_find(&zs->nodes, str_of(name));
	*encloser = node;
	while (*encloser == NULL && *name != 0) {
		name = zone_parent(name);
		*encloser = map_find(&zs->nodes, str_of(name));
	}
	if (node != NULL || *encloser == NULL)
		return node;
	snprintf(wild, sizeof(wild), "*.%s", name);
	return map_find(&zs->nodes, str_of(wild));
}

const struct dns_answer *dns_zones_ask(const struct dns_zones *zs, const char *name, uint16_t type)
{
	char at[DNS_WIRE_TEXT_BYTES];
	bool is_secure = true;
	uint32_t ttl_s = UINT32_MAX;
	snprintf(at, sizeof(at), "%s", name);
	for (int depth = 0; depth <= ZONE_CNAME_DEPTH; depth++) {
		const struct zone_node *encloser;
		if (map_find(&zs->servfail, str_of(at)) != NULL) {
			err_set(ERR_DNS, "SERVFAIL for %s", at);
			return NULL;
		}
		const struct zone_node *node = zone_find_node(zs, at, &encloser);
		is_secure = is_secure && encloser != NULL && encloser->is_secure;
		if (node == NULL)
			return dns_answer_new(DNS_NXDOMAIN, is_secure, 0, NULL, 0);
		const struct zone_rrset *set = zone_find_set(node, type);
		if (set != NULL) {
			ttl_s = set->ttl_s < ttl_s ? set->ttl_s : ttl_s;
			return dns_answer_new(DNS_OK, is_secure, ttl_s, set->rdata, set->n);
		}
		set = zone_find_set(node, DNS_CNAME);
		if (set == NULL)
			return dns_answer_new(DNS_NODATA, is_secure, 0, NULL, 0);
		size_t pos = 0;
		ttl_s = set->ttl_s < ttl_s ? set->ttl_s : ttl_s;
		if (!dns_name_from_wire(set->rdata[0], &pos, at))
			break;
	}
	err_set(ERR_DNS, "the CNAMEs of %s do not come to an end", name);
	return NULL;
}
