/* The cache of answers: by TTL, under virtual time, and within its bounds. */
#include "base/alloc.h"
#include "base/err.h"
#include "net/dns_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void put(const char *name, uint16_t type, enum dns_status status, uint32_t ttl_s, str_t rdata)
{
	const struct dns_answer *a = dns_answer_new(status, false, ttl_s, &rdata, status == DNS_OK ? 1 : 0);
	dns_cache_put(name, type, a);
	dns_answer_unref(a);
}

static bool has(const char *name, uint16_t type)
{
	const struct dns_answer *a = dns_cache_get(name, type);
	dns_answer_unref(a);
	return a != NULL;
}

static int setup(void **state)
{
	clock_set_virtual((mono_t){1000 * NS_PER_S}, (wall_t){1000 * NS_PER_S});
	return 0;
}

static int teardown(void **state)
{
	dns_cache_clear();
	clock_set_real();
	return 0;
}

static void test_ttl(void **state)
{
	put("a.example", DNS_A, DNS_OK, 30, STR("abcd"));
	put("zero.example", DNS_A, DNS_OK, 0, STR("abcd"));
	put("no.example", DNS_MX, DNS_NXDOMAIN, 86400, STR_NULL);
	put("long.example", DNS_MX, DNS_OK, UINT32_MAX, STR_NULL);
	assert_true(has("a.example", DNS_A));
	assert_false(has("a.example", DNS_AAAA));
	assert_false(has("zero.example", DNS_A));
	clock_advance(dur_ns(30 * NS_PER_S - 1));
	assert_true(has("a.example", DNS_A));
	clock_advance(dur_ns(1));
	assert_false(has("a.example", DNS_A));
	clock_advance(dur_s(269));
	assert_true(has("no.example", DNS_MX));
	clock_advance(dur_s(1)); /* five minutes are the most for an absence */
	assert_false(has("no.example", DNS_MX));
	assert_true(has("long.example", DNS_MX));
	clock_advance(dur_s(86400));
	assert_false(has("long.example", DNS_MX));
	assert_int_equal(dns_cache_count(), 0);
}

static void test_replace(void **state)
{
	put("a.example", DNS_A, DNS_OK, 30, STR("old!"));
	const struct dns_answer *old = dns_cache_get("a.example", DNS_A);
	put("a.example", DNS_A, DNS_OK, 60, STR("new!"));
	const struct dns_answer *new = dns_cache_get("a.example", DNS_A);
	assert_int_equal(dns_cache_count(), 1);
	assert_true(str_eq(old->rdata[0], STR("old!"))); /* whoever holds it keeps it */
	assert_true(str_eq(new->rdata[0], STR("new!")));
	dns_answer_unref(old);
	dns_cache_clear();
	assert_true(str_eq(new->rdata[0], STR("new!")));
	dns_answer_unref(new);
}

static void test_entry_bound(void **state)
{
	char name[32];
	put("first.example", DNS_A, DNS_OK, 3600, STR("abcd"));
	put("second.example", DNS_A, DNS_OK, 3600, STR("abcd"));
	for (int i = 0; i < 65534; i++) {
		snprintf(name, sizeof(name), "h%d.example", i);
		put(name, DNS_A, DNS_OK, 3600, STR("abcd"));
	}
	assert_int_equal(dns_cache_count(), 65536);
	assert_true(has("first.example", DNS_A)); /* used: not the next to go */
	put("one.more.example", DNS_A, DNS_OK, 3600, STR("abcd"));
	assert_int_equal(dns_cache_count(), 65536);
	assert_true(has("first.example", DNS_A));
	assert_false(has("second.example", DNS_A));
	assert_true(has("one.more.example", DNS_A));
}

static void test_byte_bound(void **state)
{
	char name[32], *big = xcalloc(1, 60000);
	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "h%d.example", i);
		put(name, DNS_TXT, DNS_OK, 3600, str_mk(big, 60000));
	}
	free(big);
	assert_in_range(dns_cache_count(), 1000, (64 << 20) / 60000);
	assert_true(has("h1999.example", DNS_TXT));
	assert_false(has("h0.example", DNS_TXT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ttl, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
		cmocka_unit_test_setup_teardown(test_entry_bound, setup, teardown),
		cmocka_unit_test_setup_teardown(test_byte_bound, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
