/* Socket addresses as text and back; sets of networks. */
#include "base/err.h"
#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct net_addr ip_of(const char *text)
{
	struct net_addr a;
	assert_int_equal(net_addr_parse_ip(str_of(text), 0, &a), 0);
	return a;
}

static void assert_error_has(const char *part)
{
	assert_true(err_is(ERR_INVALID));
	if (strstr(err_text(), part) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err_text(), part);
	err_clear();
}

static void test_parse_and_print(void **state)
{
	static const struct {
		const char *in, *out;
		uint16_t port;
	} good[] = {
		{"1.2.3.4:25", "1.2.3.4:25", 25},
		{"0.0.0.0:0", "0.0.0.0:0", 0},
		{"127.0.0.1:65535", "127.0.0.1:65535", 65535},
		{"[::1]:25", "[::1]:25", 25},
		{"[::]:0", "[::]:0", 0},
		{"[2001:DB8:0:0:0:0:0:1]:587", "[2001:db8::1]:587", 587},
		{"[::ffff:10.1.2.3]:25", "10.1.2.3:25", 25},
		{"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		 "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", 65535},
	};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct net_addr a;
		char text[NET_ADDR_STRLEN];
		assert_int_equal(net_addr_parse(str_of(good[i].in), &a), 0);
		assert_string_equal(net_addr_fmt(&a, text), good[i].out);
		assert_int_equal(net_addr_port(&a), good[i].port);
	}
}

static void test_parse_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		":25",
		"1.2.3.4",
		"1.2.3.4:",
		"1.2.3.4:x",
		"1.2.3.4:65536",
		"1.2.3.4:-1",
		"1.2.3.4:+5",
		"1.2.3:25",
		"1.2.3.4.5:25",
		"1.2.3.256:25",
		"01.2.3.4:25",
		"::1:25",
		"[::1]",
		"[::1:25",
		"::1]:25",
		"[]:25",
		"[1.2.3.4]:25",
		"localhost:25",
		" 1.2.3.4:25",
		"1.2.3.4:25 ",
		"1.2.3.4:000025",
		"[[::1]]:25",
		"[::1]x:25",
		"[fe80::1%eth0]:25",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_addr a;
		if (net_addr_parse(str_of(bad[i]), &a) == 0)
			fail_msg("\"%s\" was accepted", bad[i]);
		assert_error_has(bad[i]);
	}
	struct net_addr a;
	assert_int_equal(net_addr_parse(str_mk("1.2.3.4\0:25", 11), &a), -1);
	err_clear();
}

static void test_parse_ip(void **state)
{
	char text[NET_ADDR_STRLEN];
	struct net_addr a = ip_of("[::1]");
	net_addr_set_port(&a, 2525);
	assert_string_equal(net_addr_fmt(&a, text), "[::1]:2525");
	assert_string_equal(net_addr_fmt_ip(&a, text), "::1");
	assert_int_equal(net_addr_parse_ip(STR("10.0.0.1"), 25, &a), 0);
	assert_string_equal(net_addr_fmt(&a, text), "10.0.0.1:25");
	assert_int_equal(net_addr_parse_ip(STR("10.0.0.1:25"), 0, &a), -1);
	assert_error_has("10.0.0.1:25");
	assert_int_equal(net_addr_parse_ip(STR_NULL, 0, &a), -1);
	err_clear();
	struct net_addr none = {.len = 0};
	assert_string_equal(net_addr_fmt(&none, text), "none");
	assert_int_equal(net_addr_port(&none), 0);
}

static void test_compare(void **state)
{
	struct net_addr v4 = ip_of("10.0.0.1"), mapped = ip_of("::ffff:10.0.0.1"), v6 = ip_of("::1"),
			other = ip_of("10.0.0.2");
	assert_true(net_addr_eq_ip(&v4, &mapped));
	assert_false(net_addr_eq_ip(&v4, &other));
	assert_false(net_addr_eq_ip(&v4, &v6));
}

static void test_cidr_membership(void **state)
{
	static const struct {
		const char *net, *in, *out;
	} cases[] = {
		{"10.0.0.0/8", "10.255.255.255", "11.0.0.0"},
		{"192.168.1.7", "192.168.1.7", "192.168.1.8"},
		{"192.168.1.8/29", "192.168.1.15", "192.168.1.16"},
		{"0.0.0.0/0", "255.1.2.3", "::1"},
		{"::/0", "2001:db8::1", "1.2.3.4"},
		{"::1", "::1", "::2"},
		{"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"},
		{"10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"},
		{"::ffff:10.0.0.0/104", "10.200.0.1", "11.0.0.1"},
		{"127.0.0.1/32", "127.0.0.1", "127.0.0.2"},
		{"128.0.0.0/1", "200.0.0.1", "127.0.0.1"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cidr_set s = {0};
		assert_int_equal(cidr_set_add(&s, str_of(cases[i].net)), 0);
		struct net_addr in = ip_of(cases[i].in), out = ip_of(cases[i].out);
		if (!cidr_set_has(&s, &in) || cidr_set_has(&s, &out))
			fail_msg("%s: wrong about %s or %s", cases[i].net, cases[i].in, cases[i].out);
		cidr_set_fini(&s);
	}
	struct cidr_set empty = {0};
	struct net_addr a = ip_of("::1"), none = {.len = 0};
	assert_false(cidr_set_has(&empty, &a));
	assert_false(cidr_set_has(&empty, &none));
}

static void test_cidr_smallest(void **state)
{
	static const struct {
		const char *ip;
		ptrdiff_t best;
	} cases[] = {
		{"10.1.2.3", 3},	{"10.1.9.9", 2},    {"10.2.0.1", 1}, {"11.0.0.1", 0},
		{"::ffff:10.1.2.3", 3}, {"2001:db8::1", 5}, {"::1", 4},
	};
	static const char *const nets[] = {"0.0.0.0/0", "10.0.0.0/8",	 "10.1.0.0/16", "10.1.2.3",
					   "::/0",	"2001:db8::/32", "10.1.0.0/16"};
	struct cidr_set s = {0};
	struct net_addr a;
	for (size_t i = 0; i < ARRAY_SIZE(nets); i++)
		assert_int_equal(cidr_set_add(&s, str_of(nets[i])), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(net_addr_parse_ip(str_of(cases[i].ip), 0, &a), 0);
		assert_int_equal(cidr_set_best(&s, &a), cases[i].best);
	}
	struct cidr_set empty = {0};
	assert_int_equal(cidr_set_best(&empty, &a), -1);
	assert_int_equal(cidr_set_best(&s, &(struct net_addr){.len = 0}), -1);
	cidr_set_fini(&s);
}

static void test_cidr_text(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"127.0.0.0/8", "127.0.0.0/8"},
		{"1.2.3.4/32", "1.2.3.4"},
		{"1.2.3.4", "1.2.3.4"},
		{"::1/128", "::1"},
		{"2001:DB8::/32", "2001:db8::/32"},
		{"::ffff:1.2.3.0/120", "1.2.3.0/24"},
		{"0.0.0.0/0", "0.0.0.0/0"},
	};
	struct cidr_set s = {0}, copy;
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(cidr_set_add(&s, str_of(cases[i].in)), 0);
	cidr_set_copy(&copy, &s);
	cidr_set_fini(&s);
	assert_int_equal(copy.n, ARRAY_SIZE(cases));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		buf_clear(&b);
		cidr_set_fmt(&copy, i, &b);
		assert_string_equal(b.p, cases[i].out);
	}
	buf_fini(&b);
	cidr_set_fini(&copy);
}

static void test_cidr_refuses(void **state)
{
	static const struct {
		const char *in, *why;
	} cases[] = {
		{"300.1.1.1", "300.1.1.1: 300.1.1.1 is not a valid CIDR: couldn't parse address in network: "
			      "invalid IP address syntax"},
		{"", "is not a valid CIDR"},
		{"10.0.0.0/33", "length 33 is longer than 32"},
		{"::/129", "length 129 is longer than 128"},
		{"10.0.0.0/", "bad network length"},
		{"10.0.0.0/-1", "bad network length"},
		{"10.0.0.0/8/8", "bad network length"},
		{"10.0.0.1/8", "host part"},
		{"2001:db8::1/64", "host part"},
		{"localhost", "is not a valid CIDR"},
		{"10.0.0.0 /8", "is not a valid CIDR"},
		{"[::1]", "is not a valid CIDR"},
	};
	struct cidr_set s = {0};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cidr_set_add(&s, str_of(cases[i].in)) == 0)
			fail_msg("\"%s\" was accepted", cases[i].in);
		assert_error_has(cases[i].why);
	}
	assert_int_equal(s.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_and_print), cmocka_unit_test(test_parse_refuses),
		cmocka_unit_test(test_parse_ip),	cmocka_unit_test(test_compare),
		cmocka_unit_test(test_cidr_membership), cmocka_unit_test(test_cidr_smallest),
		cmocka_unit_test(test_cidr_text),	cmocka_unit_test(test_cidr_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
