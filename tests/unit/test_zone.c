/* The zones of test policies: reading master-file text, answering from it. */
#include "base/err.h"
#include "net/dns_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SERVFAIL (-1)

static const char example_zone[] = "$ORIGIN example.com.\n"
				   "@       600  IN MX 2 two.example.com.\n"
				   "                MX 1 one.example.com.\n"
				   "one     30   A    192.0.2.1\n"
				   "        60   A    192.0.2.2\n"
				   "        A    192.0.2.2 ; again\n"
				   "two          AAAA 2001:db8::2\n"
				   "a.b.c        A    192.0.2.3\n"
				   "txt          TXT  \"v=spf1 \" \"-all\"\n"
				   "alias   5    CNAME chain\n"
				   "chain        CNAME one\n"
				   "away         CNAME host.other.test.\n"
				   "lost         CNAME nothing.example.net.\n"
				   "loop         CNAME loop2\n"
				   "loop2        CNAME loop\n"
				   "tobroken     CNAME broken\n"
				   "*.wild       A    192.0.2.9\n"
				   "*.wild       MX   5 one\n"
				   "x.wild       TXT  \"here\"\n"
				   "deep.sub.wild A   192.0.2.10\n"
				   "CAPS         A    192.0.2.4\n"
				   "*.cw         CNAME one\n";

static const char other_zone[] = "$ORIGIN other.test.\nhost A 192.0.2.77\n";
static const char signed_zone[] = "$TTL 300\n"
				  "$ORIGIN test.\n"
				  "signed IN SOA ns.signed.test. root.signed.test. ( 1 2 3\n  4 5 )\n"
				  "       IN NS ns\n"
				  "$ORIGIN signed.test.\n"
				  "@      MX 0 .\n"
				  "out    CNAME one.example.com.\n";

static struct dns_zones *zones_of(const char *text)
{
	struct dns_test_zone z = {.text = str_of(text)};
	struct dns_zones *zs = dns_zones_parse(&z, 1, NULL, 0);
	if (zs == NULL)
		fail_msg("%s", err_text());
	return zs;
}

static struct dns_zones *all_zones(void)
{
	const struct dns_test_zone z[] = {
		{STR_NULL}, {str_of(example_zone)}, {str_of(other_zone)}, {str_of(signed_zone), true}};
	const str_t servfail[] = {STR("Broken.Example.com."), STR("gone.test")};
	struct dns_zones *zs = dns_zones_parse(z, ARRAY_SIZE(z), servfail, ARRAY_SIZE(servfail));
	if (zs == NULL)
		fail_msg("%s", err_text());
	return zs;
}

static void test_statuses(void **state)
{
	static const struct {
		const char *name;
		int type, status;
		size_t n;
	} cases[] = {
		{"example.com", DNS_MX, DNS_OK, 2},
		{"example.com", DNS_A, DNS_NODATA, 0},
		{"one.example.com", DNS_A, DNS_OK, 2},
		{"one.example.com", DNS_AAAA, DNS_NODATA, 0},
		{"two.example.com", DNS_AAAA, DNS_OK, 1},
		{"three.example.com", DNS_A, DNS_NXDOMAIN, 0},
		{"b.c.example.com", DNS_A, DNS_NODATA, 0}, /* empty non-terminals */
		{"c.example.com", DNS_A, DNS_NODATA, 0},
		{"x.c.example.com", DNS_A, DNS_NXDOMAIN, 0},
		{"com", DNS_A, DNS_NXDOMAIN, 0}, /* above the apex */
		{"example.org", DNS_MX, DNS_NXDOMAIN, 0},
		{"notexample.com", DNS_MX, DNS_NXDOMAIN, 0},
		{"caps.example.com", DNS_A, DNS_OK, 1},
		{"alias.example.com", DNS_A, DNS_OK, 2},
		{"alias.example.com", DNS_MX, DNS_NODATA, 0},
		{"alias.example.com", DNS_CNAME, DNS_OK, 1},
		{"away.example.com", DNS_A, DNS_OK, 1},
		{"lost.example.com", DNS_A, DNS_NXDOMAIN, 0},
		{"loop.example.com", DNS_A, SERVFAIL, 0},
		{"loop.example.com", DNS_CNAME, DNS_OK, 1},
		{"broken.example.com", DNS_MX, SERVFAIL, 0},
		{"tobroken.example.com", DNS_A, SERVFAIL, 0},
		{"gone.test", DNS_TXT, SERVFAIL, 0},
		{"any.wild.example.com", DNS_A, DNS_OK, 1},
		{"any.wild.example.com", DNS_MX, DNS_OK, 1},
		{"any.wild.example.com", DNS_TXT, DNS_NODATA, 0},
		{"more.any.wild.example.com", DNS_A, DNS_OK, 1},
		{"x.wild.example.com", DNS_A, DNS_NODATA,
		 0}, /* exists: no wildcard (RFC 4592 section 2.2.1) */
		{"y.x.wild.example.com", DNS_A, DNS_NXDOMAIN, 0},
		{"sub.wild.example.com", DNS_A, DNS_NODATA, 0},
		{"other.sub.wild.example.com", DNS_A, DNS_NXDOMAIN, 0},
		{"wild.example.com", DNS_A, DNS_NODATA, 0},
		{"*.wild.example.com", DNS_A, DNS_OK, 1},
		{"any.cw.example.com", DNS_A, DNS_OK, 2},
		{"signed.test", DNS_MX, DNS_OK, 1},
	};
	struct dns_zones *zs = all_zones();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_answer *a = dns_zones_ask(zs, cases[i].name, (uint16_t)cases[i].type);
		int status = a != NULL ? (int)a->status : SERVFAIL;
		if (a == NULL)
			assert_true(err_is(ERR_DNS));
		err_clear();
		if (status != cases[i].status || (a != NULL && a->n != cases[i].n))
			fail_msg("%s %s: status %d with %zu records", cases[i].name,
				 dns_type_name((uint16_t)cases[i].type), status, a != NULL ? a->n : 0);
		dns_answer_unref(a);
	}
	dns_zones_free(zs);
}

static void test_rdata_and_ttl(void **state)
{
	struct dns_zones *zs = all_zones();
	const struct dns_answer *a = dns_zones_ask(zs, "txt.example.com", DNS_TXT);
	assert_int_equal(a->n, 1);
	assert_true(str_eq(a->rdata[0], STR("\007v=spf1 \004-all")));
	dns_answer_unref(a);

	a = dns_zones_ask(zs, "example.com", DNS_MX);
	assert_true(str_eq(a->rdata[0], STR("\0\002\003two\007example\003com\0")));
	assert_true(str_eq(a->rdata[1], STR("\0\001\003one\007example\003com\0")));
	assert_int_equal(a->ttl_s, 600);
	dns_answer_unref(a);

	a = dns_zones_ask(zs, "one.example.com", DNS_A);
	assert_int_equal(a->ttl_s, 30); /* the smallest of the set */
	dns_answer_unref(a);
	a = dns_zones_ask(zs, "alias.example.com", DNS_A);
	assert_int_equal(a->ttl_s, 5); /* and of the chain */
	dns_answer_unref(a);
	dns_zones_free(zs);
}

static void test_secure(void **state)
{
	static const struct {
		const char *name;
		int type;
		bool is_secure;
	} cases[] = {
		{"signed.test", DNS_MX, true},
		{"no.signed.test", DNS_MX, true},
		{"one.example.com", DNS_A, false},
		{"out.signed.test", DNS_A, false}, /* the chain leaves the signed zone */
		{"nowhere.net", DNS_A, false},
	};
	struct dns_zones *zs = all_zones();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_answer *a = dns_zones_ask(zs, cases[i].name, (uint16_t)cases[i].type);
		assert_non_null(a);
		if (a->is_secure != cases[i].is_secure)
			fail_msg("%s", cases[i].name);
		dns_answer_unref(a);
	}
	dns_zones_free(zs);
}

static void test_several_origins(void **state)
{
	struct dns_zones *zs = zones_of("$ORIGIN a.example.\n@ A 1.1.1.1\n$ORIGIN b.example.\nx.y A 1.1.1.2\n"
					"absolute.example. A 1.1.1.3\n");
	static const struct {
		const char *name;
		int status;
	} cases[] = {
		{"a.example", DNS_OK},	   {"x.y.b.example", DNS_OK}, {"y.b.example", DNS_NODATA},
		{"b.example", DNS_NODATA}, {"example", DNS_NXDOMAIN}, {"absolute.example", DNS_OK},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_answer *a = dns_zones_ask(zs, cases[i].name, DNS_A);
		if ((int)a->status != cases[i].status)
			fail_msg("%s: %d", cases[i].name, a->status);
		dns_answer_unref(a);
	}
	dns_zones_free(zs);
}

static void test_syntax_errors(void **state)
{
	static const struct {
		const char *text;
		const char *where;
	} cases[] = {
		{"$ORIGIN example.com.\n@ MX ten mail\n", "zone 2, line 2: "},
		{"$ORIGIN example.com.\n@ A 1.2.3\n", "zone 2, line 2: "},
		{"$ORIGIN example.com.\n\n; nothing\n@ A 1.2.3.4\n@ NOSUCHTYPE foo\n@ A 1.2.3.5\n",
		 "zone 2, line 5: "},
		{"$ORIGIN example.com.\n@ CH A 1.2.3.4\n", "zone 2, line 2: "},
		{"$ORIGIN example.com.\n$INCLUDE other.zone\n", "zone 2, line 2: "},
		{"$ORIGIN example.com.\n@ A 1.2.3.4\n@ MX\n", "zone 2, line 3: "},
		{"$ORIGIN example.com.\n@ MX 10", "zone 2, line 2: "},
		{"$ORIGIN example.com.\nthis is not a zone\n", "zone 2, line 2: "},
		{"$ORIGIN example..com.\n", "zone 2, line 1: "},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct dns_test_zone z[] = {{str_of(other_zone)}, {str_of(cases[i].text)}};
		struct dns_zones *zs = dns_zones_parse(z, 2, NULL, 0);
		if (zs != NULL || !err_is(ERR_INVALID) ||
		    strncmp(err_text(), cases[i].where, strlen(cases[i].where)) != 0)
			fail_msg("case %zu: %s: %s", i, zs != NULL ? "accepted" : "refused", err_text());
		err_clear();
	}
	struct dns_test_zone nul = {.text = STR("$ORIGIN example.com.\n\0@ A 1.2.3.4\n")};
	assert_null(dns_zones_parse(&nul, 1, NULL, 0));
	assert_true(err_is(ERR_INVALID));
	str_t bad = STR("not..a.name");
	assert_null(dns_zones_parse(NULL, 0, &bad, 1));
	assert_true(err_is(ERR_INVALID));
	err_clear();
}

static void test_no_final_newline(void **state)
{
	struct dns_zones *zs = zones_of("$ORIGIN example.com.\n@ A 1.2.3.4");
	const struct dns_answer *a = dns_zones_ask(zs, "example.com", DNS_A);
	assert_int_equal(a->n, 1);
	dns_answer_unref(a);
	dns_zones_free(zs);
	dns_zones_free(zones_of("; only a comment\n\n\n"));
	dns_zones_free(zones_of("\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_statuses),      cmocka_unit_test(test_rdata_and_ttl),
		cmocka_unit_test(test_secure),	      cmocka_unit_test(test_several_origins),
		cmocka_unit_test(test_syntax_errors), cmocka_unit_test(test_no_final_newline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
