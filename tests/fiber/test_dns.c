/* Lookups as callers see them, from test zones; and through libunbound, against a small authoritative server
 * on loopback inside this program that answers real DNS messages and counts what it is asked. */
#include "base/alloc.h"
#include "fiber_check.h"
#include "net/dns_impl.h"

#include <ldns/ldns.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define SOON mono_after(dur_s(20))

static void run_on(unsigned n_workers, fiber_fn *fn)
{
	workers_start(n_workers);
	worker_run(fn, NULL);
	dns_stop();
	workers_stop(mono_after(dur_s(10)));
}

/* --- from test zones --- */

static const char zone[] = "$ORIGIN example.com.\n"
			   "@       600  IN MX 20 two\n"
			   "                MX 10 One\n"
			   "                MX 20 alt\n"
			   "                A  192.0.2.1\n"
			   "one     A    192.0.2.1\n"
			   "        A    192.0.2.2\n"
			   "        AAAA 2001:db8::1\n"
			   "v6      AAAA 2001:db8::6\n"
			   "plain   A    192.0.2.9\n"
			   "txt     TXT  \"v=spf1 \" \"-all\"\n"
			   "        TXT  \"\"\n"
			   "        TXT  \"other\"\n"
			   "null    MX   0 .\n"
			   "mixed   MX   0 .\n"
			   "        MX   10 one\n"
			   "twice   MX   10 one\n"
			   "        MX   20 one\n"
			   "alias   CNAME @\n"
			   "xn--mnchen-3ya MX 5 one\n";
static const char gmail[] = "$ORIGIN gmail.com.\n"
			    "@ 1620 MX 30 alt3.gmail-smtp-in.l.google.com.\n"
			    "  1620 MX 40 alt4.gmail-smtp-in.l.google.com.\n"
			    "  1620 MX 5 gmail-smtp-in.l.google.com.\n"
			    "  1620 MX 10 alt1.gmail-smtp-in.l.google.com.\n"
			    "  1620 MX 20 alt2.gmail-smtp-in.l.google.com.\n";
static const char reverse[] =
	"$ORIGIN 2.0.192.in-addr.arpa.\n1 PTR One.Example.COM.\n$ORIGIN 8.b.d.0.1.0.0.2.ip6.arpa.\n"
	"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR six.example.com.\n";

static void configure_zones(void)
{
	const struct dns_test_zone z[] = {{str_of(zone)}, {str_of(gmail), true}, {str_of(reverse)}};
	const str_t servfail[] = {STR("broken.example.com"), STR("half.example.com")};
	CHECK(dns_configure_test_zones(z, ARRAY_SIZE(z), servfail, ARRAY_SIZE(servfail)) == 0);
}

/* "10 one.example.com,20 alt.example.com" */
static void mx_text(const struct dns_mx *mx, struct buf *b)
{
	buf_clear(b);
	buf_add_z(b, "");
	for (size_t i = 0; i < mx->n; i++)
		buf_printf(b, "%s%u %s", i > 0 ? "," : "", mx->host[i].pref, mx->host[i].name);
}

enum { IS_MX = 1, IS_NULL = 2, IS_LITERAL = 4, IS_SECURE = 8 };

static void mx_run(void *arg)
{
	static const struct {
		const char *domain, *hosts, *site, *name;
		enum dns_status status;
		unsigned flags;
		uint16_t port;
	} cases[] = {
		{"example.com", "10 one.example.com,20 alt.example.com,20 two.example.com",
		 "(one|alt|two).example.com", "example.com", DNS_OK, IS_MX},
		{"EXAMPLE.com.", "10 one.example.com,20 alt.example.com,20 two.example.com",
		 "(one|alt|two).example.com", "example.com", DNS_OK, IS_MX},
		{"alias.example.com", "10 one.example.com,20 alt.example.com,20 two.example.com",
		 "(one|alt|two).example.com", "alias.example.com", DNS_OK, IS_MX},
		{"gmail.com",
		 "5 gmail-smtp-in.l.google.com,10 alt1.gmail-smtp-in.l.google.com,20 "
		 "alt2.gmail-smtp-in.l.google.com,"
		 "30 alt3.gmail-smtp-in.l.google.com,40 alt4.gmail-smtp-in.l.google.com",
		 "(alt1|alt2|alt3|alt4)?.gmail-smtp-in.l.google.com", "gmail.com", DNS_OK, IS_MX | IS_SECURE},
		{"example.com:2025", "10 one.example.com,20 alt.example.com,20 two.example.com",
		 "(one|alt|two).example.com:2025", "example.com", DNS_OK, IS_MX, 2025},
		{"plain.example.com", "1 plain.example.com", "plain.example.com", "plain.example.com", DNS_OK,
		 0},
		{"plain.example.com:25", "1 plain.example.com", "plain.example.com:25", "plain.example.com",
		 DNS_OK, 0, 25},
		{"txt.example.com", "1 txt.example.com", "txt.example.com", "txt.example.com", DNS_OK, 0},
		{"null.example.com", "", "", "null.example.com", DNS_OK, IS_MX | IS_NULL},
		{"mixed.example.com", "10 one.example.com", "one.example.com", "mixed.example.com", DNS_OK,
		 IS_MX},
		{"twice.example.com", "10 one.example.com,20 one.example.com", "one.example.com",
		 "twice.example.com", DNS_OK, IS_MX},
		{"m\xc3\xbcnchen.example.com", "5 one.example.com", "one.example.com",
		 "xn--mnchen-3ya.example.com", DNS_OK, IS_MX},
		{"nowhere.example.com", "", "", "nowhere.example.com", DNS_NXDOMAIN, 0},
		{"example.org", "", "", "example.org", DNS_NXDOMAIN, 0},
		{"localhost", "1 localhost", "localhost", "localhost", DNS_OK, 0},
		{"[1.2.3.4]", "1 1.2.3.4", "1.2.3.4", "[1.2.3.4]", DNS_OK, IS_LITERAL},
		{"[1.2.3.4]:2025", "1 1.2.3.4", "1.2.3.4:2025", "[1.2.3.4]", DNS_OK, IS_LITERAL, 2025},
		{"[1.2.3.4:2025]", "1 1.2.3.4", "1.2.3.4:2025", "[1.2.3.4]", DNS_OK, IS_LITERAL, 2025},
		{"[IPv6:::1]", "1 ::1", "::1", "[::1]", DNS_OK, IS_LITERAL},
		{"[ipv6:2001:DB8::1]", "1 2001:db8::1", "2001:db8::1", "[2001:db8::1]", DNS_OK, IS_LITERAL},
		{"[::1]", "1 ::1", "::1", "[::1]", DNS_OK, IS_LITERAL},
		{"[::1]:2025", "1 ::1", "[::1]:2025", "[::1]", DNS_OK, IS_LITERAL, 2025},
		{"[IPv6:::1]:2025", "1 ::1", "[::1]:2025", "[::1]", DNS_OK, IS_LITERAL, 2025},
		{"[[::1]:2025]", "1 ::1", "[::1]:2025", "[::1]", DNS_OK, IS_LITERAL, 2025},
		{"[IPv6:[::1]:2025]", "1 ::1", "[::1]:2025", "[::1]", DNS_OK, IS_LITERAL, 2025},
	};
	struct buf b = BUF_INIT;
	configure_zones();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_mx *mx = dns_lookup_mx(str_of(cases[i].domain), SOON);
		CHECK(mx != NULL);
		mx_text(mx, &b);
		unsigned flags = (mx->is_mx ? IS_MX : 0) | (mx->is_null_mx ? IS_NULL : 0) |
				 (mx->is_domain_literal ? IS_LITERAL : 0) | (mx->is_secure ? IS_SECURE : 0);
		if (strcmp(b.p, cases[i].hosts) != 0 || strcmp(mx->site_name, cases[i].site) != 0 ||
		    strcmp(mx->domain, cases[i].name) != 0 || mx->status != cases[i].status ||
		    flags != cases[i].flags || mx->port != cases[i].port) {
			fprintf(stderr, "%s: %s, hosts \"%s\", site \"%s\", status %d, flags %u, port %u\n",
				cases[i].domain, mx->domain, b.p, mx->site_name, mx->status, flags, mx->port);
			abort();
		}
		dns_mx_unref(mx);
	}
	buf_fini(&b);

	static const char *const bad[] = {
		"",
		"a b",
		"example.com:",
		"example.com:0",
		"example.com:65536",
		"example.com:25:25",
		":25",
		"[]",
		"[",
		"[1.2.3]",
		"[1.2.3.4",
		"[1.2.3.4]x",
		"[1.2.3.4]:",
		"[1.2.3.4:25]:25",
		"[IPv6:1.2.3.4]",
		"[example.com]",
		"[1.2.3.4:0]",
		"[[::1]]",
		"[::1]:99999",
		"ex..ample.com",
		"[IPv6:]",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct dns_mx *mx = dns_lookup_mx(str_of(bad[i]), SOON);
		if (mx != NULL || !err_is(ERR_INVALID)) {
			fprintf(stderr, "\"%s\": %s; %s\n", bad[i], mx != NULL ? mx->site_name : "failed",
				err_text());
			abort();
		}
		err_clear();
	}
	CHECK(dns_lookup_mx(STR("broken.example.com"), SOON) == NULL);
	CHECK(err_is(ERR_DNS) && strstr(err_text(), "MX of broken.example.com: SERVFAIL") != NULL);
	err_clear();
}

static void test_mx(void **state)
{
	run_on(1, mx_run);
}

static void addr_run(void *arg)
{
	static const struct {
		const char *name;
		enum dns_ip_strategy strategy;
		enum dns_status status;
		const char *addrs;
	} cases[] = {
		{"one.example.com", DNS_IPV4_AND_IPV6, DNS_OK, "192.0.2.1 192.0.2.2 2001:db8::1 "},
		{"one.example.com", DNS_IPV4_ONLY, DNS_OK, "192.0.2.1 192.0.2.2 "},
		{"one.example.com", DNS_IPV6_ONLY, DNS_OK, "2001:db8::1 "},
		{"one.example.com", DNS_IPV6_THEN_IPV4, DNS_OK, "2001:db8::1 "},
		{"one.example.com", DNS_IPV4_THEN_IPV6, DNS_OK, "192.0.2.1 192.0.2.2 "},
		{"plain.example.com", DNS_IPV6_THEN_IPV4, DNS_OK, "192.0.2.9 "},
		{"plain.example.com", DNS_IPV6_ONLY, DNS_NODATA, ""},
		{"v6.example.com", DNS_IPV4_THEN_IPV6, DNS_OK, "2001:db8::6 "},
		{"v6.example.com", DNS_IPV4_AND_IPV6, DNS_OK, "2001:db8::6 "},
		{"txt.example.com", DNS_IPV4_AND_IPV6, DNS_NODATA, ""},
		{"txt.example.com", DNS_IPV4_THEN_IPV6, DNS_NODATA, ""},
		{"nowhere.example.com", DNS_IPV4_AND_IPV6, DNS_NXDOMAIN, ""},
		{"nowhere.example.com", DNS_IPV6_THEN_IPV4, DNS_NXDOMAIN, ""},
		{"1.2.3.4", DNS_IPV6_ONLY, DNS_OK, "1.2.3.4 "},
		{"::1", DNS_IPV4_AND_IPV6, DNS_OK, "::1 "},
		{"[::1]", DNS_IPV4_AND_IPV6, DNS_OK, "::1 "},
	};
	struct buf b = BUF_INIT;
	char text[NET_ADDR_STRLEN];
	configure_zones();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_addrs *a = dns_lookup_addr(str_of(cases[i].name), cases[i].strategy, SOON);
		CHECK(a != NULL);
		buf_clear(&b);
		buf_add_z(&b, "");
		for (size_t k = 0; k < a->n; k++) {
			buf_printf(&b, "%s ", net_addr_fmt_ip(&a->addr[k], text));
			CHECK(net_addr_port(&a->addr[k]) == 0 && a->addr[k].len > 0);
		}
		if (a->status != cases[i].status || strcmp(b.p, cases[i].addrs) != 0) {
			fprintf(stderr, "%s (%d): status %d, \"%s\"\n", cases[i].name, cases[i].strategy,
				a->status, b.p);
			abort();
		}
		dns_addrs_unref(a);
	}
	for (int strategy = DNS_IPV4_AND_IPV6; strategy <= DNS_IPV4_THEN_IPV6; strategy++) {
		CHECK(dns_lookup_addr(STR("broken.example.com"), (enum dns_ip_strategy)strategy, SOON) ==
		      NULL);
		CHECK(err_is(ERR_DNS) && strstr(err_text(), "broken.example.com") != NULL);
		err_clear();
		CHECK(dns_lookup_addr(STR("not a name"), (enum dns_ip_strategy)strategy, SOON) == NULL);
		CHECK(err_is(ERR_INVALID));
		err_clear();
	}
	const struct dns_addrs *a = dns_lookup_addr(STR("LOCALHOST."), DNS_IPV4_AND_IPV6, SOON);
	CHECK(a != NULL && a->status == DNS_OK && a->n > 0);
	struct cidr_set loopback = {.n = 0};
	CHECK(cidr_set_add(&loopback, STR("127.0.0.0/8")) == 0 && cidr_set_add(&loopback, STR("::1")) == 0);
	for (size_t i = 0; i < a->n; i++)
		CHECK(cidr_set_has(&loopback, &a->addr[i]));
	cidr_set_fini(&loopback);
	dns_addrs_unref(a);
	buf_fini(&b);
}

static void test_addr(void **state)
{
	run_on(1, addr_run);
}

static void texts_run(void *arg)
{
	configure_zones();
	const struct dns_texts *t = dns_lookup_txt(STR("TXT.example.com"), SOON);
	CHECK(t != NULL && t->status == DNS_OK && t->n == 3);
	CHECK(str_eq(t->text[0], STR("v=spf1 -all")) && t->text[1].n == 0 &&
	      str_eq(t->text[2], STR("other")));
	dns_texts_unref(t);
	t = dns_lookup_txt(STR("one.example.com"), SOON);
	CHECK(t != NULL && t->status == DNS_NODATA && t->n == 0);
	dns_texts_unref(t);
	t = dns_lookup_txt(STR("nowhere.example.com"), SOON);
	CHECK(t != NULL && t->status == DNS_NXDOMAIN && t->n == 0);
	dns_texts_unref(t);
	CHECK(dns_lookup_txt(STR("broken.example.com"), SOON) == NULL && err_is(ERR_DNS));
	err_clear();

	static const struct {
		const char *ip, *name;
	} ptrs[] = {
		{"192.0.2.1", "one.example.com"},
		{"::ffff:192.0.2.1", "one.example.com"},
		{"2001:db8::1", "six.example.com"},
		{"192.0.2.2", NULL},
		{"::1", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(ptrs); i++) {
		struct net_addr a;
		CHECK(net_addr_parse_ip(str_of(ptrs[i].ip), 0, &a) == 0);
		t = dns_lookup_ptr(&a, SOON);
		CHECK(t != NULL);
		if (ptrs[i].name == NULL)
			CHECK(t->status == DNS_NXDOMAIN && t->n == 0);
		else
			CHECK(t->n == 1 && str_eq(t->text[0], str_of(ptrs[i].name)));
		dns_texts_unref(t);
	}

	/* A faulty configuration changes nothing; a new one replaces all. */
	struct dns_test_zone bad = {STR("$ORIGIN a.example.\n@ A what\n")},
			     good = {STR("$ORIGIN b.example.\n@ TXT hello\n")};
	CHECK_FAILS(dns_configure_test_zones(&bad, 1, NULL, 0), ERR_INVALID);
	t = dns_lookup_txt(STR("txt.example.com"), SOON);
	CHECK(t != NULL && t->n == 3);
	dns_texts_unref(t);
	CHECK(dns_configure_test_zones(&good, 1, NULL, 0) == 0);
	t = dns_lookup_txt(STR("txt.example.com"), SOON);
	CHECK(t != NULL && t->status == DNS_NXDOMAIN);
	dns_texts_unref(t);
	t = dns_lookup_txt(STR("b.example"), SOON);
	CHECK(t != NULL && t->n == 1 && str_eq(t->text[0], STR("hello")));
	dns_texts_unref(t);
}

static void test_texts(void **state)
{
	run_on(1, texts_run);
}

/* --- a server to ask --- */

static struct {
	int fd;
	struct net_addr addr;
	pthread_t thread;
	atomic_bool is_stopping, is_talkative;	/* silent.example is answered only when talkative */
	atomic_uint n_a, n_aaaa, n_mx, n_other; /* questions */
} server;

static void server_count(ldns_rr_type type)
{
	atomic_fetch_add(type == LDNS_RR_TYPE_A	     ? &server.n_a
			 : type == LDNS_RR_TYPE_AAAA ? &server.n_aaaa
			 : type == LDNS_RR_TYPE_MX   ? &server.n_mx
						     : &server.n_other,
			 1);
}

static const char *const server_records[] = {
	"cached.example. 300 IN A 192.0.2.1",
	"cached.example. 300 IN MX 10 mx.cached.example.",
	"cached.example. 300 IN TXT \"some\" \"text\"",
	"zero.example. 0 IN A 192.0.2.2",
	"short.example. 1 IN A 192.0.2.3",
	"alias.example. 2 IN CNAME target.example.",
	"target.example. 300 IN A 192.0.2.4",
	"host.test. 60 IN A 192.0.2.5",
	"5.0.0.10.in-addr.arpa. 60 IN PTR host.test.",
	"silent.example. 60 IN A 192.0.2.6",
};

/* Adds what there is for the name, following one alias. False: the name does not exist. */
static bool server_add_records(ldns_pkt *reply, ldns_rdf *name, ldns_rr_type type)
{
	bool exists = false;
	for (size_t i = 0; i < ARRAY_SIZE(server_records); i++) {
		ldns_rr *rr = NULL;
		CHECK(ldns_rr_new_frm_str(&rr, server_records[i], 0, NULL, NULL) == LDNS_STATUS_OK);
		bool is_it = ldns_dname_compare(ldns_rr_owner(rr), name) == 0;
		bool is_alias = is_it && ldns_rr_get_type(rr) == LDNS_RR_TYPE_CNAME;
		exists = exists || is_it;
		if (is_it && (is_alias || ldns_rr_get_type(rr) == type)) {
			ldns_pkt_push_rr(reply, LDNS_SECTION_ANSWER, rr);
			if (is_alias && type != LDNS_RR_TYPE_CNAME)
				server_add_records(reply, ldns_rr_rdf(rr, 0), type);
		} else {
			ldns_rr_free(rr);
		}
	}
	return exists;
}

static void server_answer(const uint8_t *wire, size_t n, const struct net_addr *peer)
{
	ldns_pkt *query = NULL, *reply = ldns_pkt_new();
	CHECK(ldns_wire2pkt(&query, wire, n) == LDNS_STATUS_OK);
	ldns_rr *question = ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0));
	ldns_rdf *name = ldns_rr_owner(question);
	char *text = ldns_rdf2str(name);
	ldns_dname2canonical(name);
	bool is_silent = strcasecmp(text, "silent.example.") == 0 && !atomic_load(&server.is_talkative);
	server_count(ldns_rr_get_type(question));
	ldns_pkt_set_id(reply, ldns_pkt_id(query));
	ldns_pkt_set_qr(reply, true);
	ldns_pkt_set_aa(reply, true);
	ldns_pkt_set_rd(reply, ldns_pkt_rd(query));
	ldns_pkt_set_ra(reply, true);
	ldns_pkt_push_rr(reply, LDNS_SECTION_QUESTION,
			 ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(query), 0)));
	if (strcasecmp(text, "fail.example.") == 0) {
		ldns_pkt_set_rcode(reply, LDNS_RCODE_SERVFAIL);
	} else {
		if (!server_add_records(reply, name, ldns_rr_get_type(question)))
			ldns_pkt_set_rcode(reply, LDNS_RCODE_NXDOMAIN);
		if (ldns_pkt_ancount(reply) == 0) {
			ldns_rr *soa = NULL;
			CHECK(ldns_rr_new_frm_str(&soa, "example. 3600 IN SOA ns. root. 1 2 3 4 100000", 0,
						  NULL, NULL) == LDNS_STATUS_OK);
			ldns_pkt_push_rr(reply, LDNS_SECTION_AUTHORITY, soa);
		}
	}
	uint8_t *out = NULL;
	size_t n_out = 0;
	CHECK(ldns_pkt2wire(&out, reply, &n_out) == LDNS_STATUS_OK);
	if (!is_silent)
		sendto(server.fd, out, n_out, 0, &peer->sa, peer->len);
	free(out);
	free(text);
	ldns_rr_free(question);
	ldns_pkt_free(query);
	ldns_pkt_free(reply);
}

static void *server_main(void *arg)
{
	uint8_t wire[4096];
	for (;;) {
		struct net_addr peer = {.len = sizeof(peer.in6)};
		ssize_t n = recvfrom(server.fd, wire, sizeof(wire), 0, &peer.sa, &peer.len);
		if (atomic_load(&server.is_stopping))
			return NULL;
		if (n > 0)
			server_answer(wire, (size_t)n, &peer);
	}
}

static int server_start(void **state)
{
	assert_int_equal(net_addr_parse(STR("127.0.0.1:0"), &server.addr), 0);
	server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server.fd, &server.addr.sa, server.addr.len), 0);
	assert_int_equal(getsockname(server.fd, &server.addr.sa, &server.addr.len), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, server_main, NULL), 0);
	dns_set_forwarder_for_test(&server.addr);
	return 0;
}

static int server_stop(void **state)
{
	atomic_store(&server.is_stopping, true);
	sendto(server.fd, "", 1, 0, &server.addr.sa, server.addr.len);
	pthread_join(server.thread, NULL);
	close(server.fd);
	dns_set_forwarder_for_test(NULL);
	return 0;
}

/* --- through libunbound --- */

static void real_answers_run(void *arg)
{
	const struct dns_mx *mx = dns_lookup_mx(STR("cached.example"), SOON);
	CHECK(mx != NULL && mx->is_mx && mx->n == 1 && !mx->is_secure);
	CHECK(strcmp(mx->host[0].name, "mx.cached.example") == 0 && mx->host[0].pref == 10);
	dns_mx_unref(mx);
	mx = dns_lookup_mx(STR("host.test"),
			   SOON); /* neither .test nor private addresses are libunbound's to deny */
	CHECK(mx != NULL && !mx->is_mx && mx->n == 1 && strcmp(mx->host[0].name, "host.test") == 0);
	dns_mx_unref(mx);
	mx = dns_lookup_mx(STR("nx.example"), SOON);
	CHECK(mx != NULL && mx->status == DNS_NXDOMAIN && mx->n == 0);
	dns_mx_unref(mx);
	const struct dns_addrs *a = dns_lookup_addr(STR("alias.example"), DNS_IPV4_AND_IPV6, SOON);
	char text[NET_ADDR_STRLEN];
	CHECK(a != NULL && a->n == 1 && strcmp(net_addr_fmt_ip(&a->addr[0], text), "192.0.2.4") == 0);
	dns_addrs_unref(a);
	a = dns_lookup_addr(STR("nx.example"), DNS_IPV4_AND_IPV6, SOON);
	CHECK(a != NULL && a->status == DNS_NXDOMAIN && a->n == 0);
	dns_addrs_unref(a);
	const struct dns_texts *t = dns_lookup_txt(STR("cached.example"), SOON);
	CHECK(t != NULL && t->n == 1 && str_eq(t->text[0], STR("sometext")));
	dns_texts_unref(t);
	struct net_addr ip;
	CHECK(net_addr_parse_ip(STR("10.0.0.5"), 0, &ip) == 0);
	t = dns_lookup_ptr(&ip, SOON);
	CHECK(t != NULL && t->n == 1 && str_eq(t->text[0], STR("host.test")));
	dns_texts_unref(t);
}

static void test_real_answers(void **state)
{
	run_on(1, real_answers_run);
}

static void look_up_a(const char *name)
{
	const struct dns_answer *a = dns_query(name, DNS_A, SOON);
	CHECK(a != NULL && a->status == DNS_OK && a->n == 1);
	dns_answer_unref(a);
}

static bool is_cached(const char *name, uint16_t type)
{
	const struct dns_answer *a = dns_cache_get(name, type);
	dns_answer_unref(a);
	return a != NULL;
}

static void ttl_run(void *arg)
{
	unsigned n = atomic_load(&server.n_a);
	for (int i = 0; i < 100; i++)
		look_up_a("cached.example");
	CHECK(atomic_load(&server.n_a) == n + 1);
	CHECK(is_cached("cached.example", DNS_A));

	/* A TTL of 0 is not kept; one of a second for no longer than that. (libunbound may count in whole
	 * seconds.) */
	static const char *const names[] = {"zero.example", "short.example"};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		mono_t give_up = SOON;
		n = atomic_load(&server.n_a);
		while (atomic_load(&server.n_a) < n + 2) {
			look_up_a(names[i]);
			if (i == 0)
				CHECK(!is_cached(names[i], DNS_A));
			CHECK(fiber_sleep(dur_ms(5), give_up) == 0);
		}
	}

	const struct dns_answer *a = dns_query("alias.example", DNS_A, SOON);
	CHECK(a != NULL && a->n == 1 && a->ttl_s <= 2); /* the alias's, not the target's 300 */
	dns_answer_unref(a);
	a = dns_query("nx.example", DNS_MX, SOON);
	CHECK(a != NULL && a->status == DNS_NXDOMAIN && a->ttl_s > 300 && is_cached("nx.example", DNS_MX));
	dns_answer_unref(a);
}

static void test_ttl(void **state)
{
	run_on(1, ttl_run);
}

static void failures_run(void *arg)
{
	CHECK(dns_query("fail.example", DNS_A, SOON) == NULL);
	CHECK(err_is(ERR_DNS) && strstr(err_text(), "A of fail.example: SERVFAIL") != NULL);
	err_clear();
	CHECK(!is_cached("fail.example", DNS_A));

	/* Nobody answers: the deadline counts, and what comes later is kept all the same. */
	mono_t begin = mono_now();
	CHECK(dns_lookup_mx(STR("silent.example"), mono_after(dur_ms(50))) == NULL && err_is(ERR_TIMEOUT));
	CHECK(strstr(err_text(), "MX of silent.example") != NULL);
	err_clear();
	CHECK(mono_sub(mono_now(), begin).ns < 10 * NS_PER_S);
	CHECK(dns_lookup_addr(STR("silent.example"), DNS_IPV4_AND_IPV6, mono_after(dur_ms(50))) == NULL);
	CHECK(err_is(ERR_TIMEOUT));
	err_clear();
	atomic_store(&server.is_talkative, true);
	mono_t give_up = SOON;
	while (!is_cached("silent.example", DNS_A))
		CHECK(fiber_sleep(dur_ms(5), give_up) == 0);
	look_up_a("silent.example");
	atomic_store(&server.is_talkative, false);
}

static void test_failures(void **state)
{
	run_on(1, failures_run);
}

static atomic_uint n_asked;

static void ask_many(void *arg)
{
	char name[64];
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "h%d-%u.example", i, worker_index(worker_self()));
		const struct dns_answer *a = dns_query(name, DNS_MX, SOON);
		CHECK(a != NULL && a->status == DNS_NXDOMAIN);
		dns_answer_unref(a);
		look_up_a("cached.example");
	}
	atomic_fetch_add(&n_asked, 1);
}

static void all_workers_run(void *arg)
{
	mono_t give_up = mono_after(dur_s(60));
	for (unsigned i = 0; i < workers_count(); i++)
		for (int k = 0; k < 4; k++)
			worker_start_fiber(worker_get(i), "asks", ask_many, NULL);
	while (atomic_load(&n_asked) < 4 * workers_count())
		CHECK(fiber_sleep(dur_ms(5), give_up) == 0);
}

static void test_all_workers(void **state)
{
	run_on(3, all_workers_run);
}

/* --- giving up, and stopping --- */

static atomic_uint n_asking, n_ended;

static void ask_silent(void *arg)
{
	enum err_kind *kind = arg;
	atomic_fetch_add(&n_asking, 1);
	CHECK(dns_query("silent.example", DNS_TXT, MONO_NEVER) == NULL);
	*kind = err_kind();
	err_clear();
	atomic_fetch_add(&n_ended, 1);
}

static void cancel_run(void *arg)
{
	struct fiber_group g;
	enum err_kind kind = ERR_NONE;
	fiber_group_init(&g);
	fiber_start(&g, "asks", ask_silent, &kind);
	CHECK(fiber_sleep(dur_ms(10), MONO_NEVER) == 0);
	fiber_group_cancel(&g);
	CHECK(fiber_group_join(&g, SOON) == 0);
	CHECK(kind == ERR_CANCELLED);
}

static void test_cancel(void **state)
{
	run_on(1, cancel_run);
}

static void ask_everywhere_run(void *arg)
{
	enum err_kind *kind = arg;
	mono_t give_up = SOON;
	for (unsigned i = 0; i < workers_count(); i++)
		worker_start_fiber(worker_get(i), "asks", ask_silent, &kind[i]);
	while (atomic_load(&n_asking) < workers_count())
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
	CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
}

static void wait_ended_run(void *arg)
{
	mono_t give_up = SOON;
	while (atomic_load(&n_ended) < workers_count())
		CHECK(fiber_sleep(dur_ms(1), give_up) == 0);
}

static void test_stop(void **state)
{
	enum err_kind kind[2] = {ERR_NONE};
	workers_start(2);
	atomic_store(&n_asking, 0);
	atomic_store(&n_ended, 0);
	worker_run(ask_everywhere_run, kind);
	dns_stop();
	worker_run(wait_ended_run, NULL);
	assert_int_equal(kind[0], ERR_SHUTDOWN);
	assert_int_equal(kind[1], ERR_SHUTDOWN);
	worker_run(real_answers_run, NULL); /* starts again when it is needed again */
	workers_stop(mono_after(dur_s(10)));
	dns_stop(); /* also after the workers */
	dns_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mx),	    cmocka_unit_test(test_addr),
		cmocka_unit_test(test_texts),	    cmocka_unit_test(test_real_answers),
		cmocka_unit_test(test_ttl),	    cmocka_unit_test(test_failures),
		cmocka_unit_test(test_all_workers), cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_stop),
	};
	return cmocka_run_group_tests(tests, server_start, server_stop);
}
