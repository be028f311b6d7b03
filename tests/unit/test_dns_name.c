/* Domain names: what people write, what the wire holds, and the names of sites. */
#include "base/err.h"
#include "net/dns_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_normalize(void **state)
{
	static const struct {
		const char *in, *out;
	} good[] = {
		{"example.com", "example.com"},
		{"Example.COM.", "example.com"},
		{"_dmarc.Example.com", "_dmarc.example.com"},
		{"m\xc3\xbcnchen.de", "xn--mnchen-3ya.de"},
		{"M\xc3\x9cNCHEN.DE", "xn--mnchen-3ya.de"},
		{"stra\xc3\x9f"
		 "e.de",
		 "xn--strae-oqa.de"}, /* non-transitional */
		{"_dmarc.b\xc3\xbc"
		 "cher.example",
		 "_dmarc.xn--bcher-kva.example"},
		{"\xe4\xbe\x8b\xe3\x80\x82jp", "xn--fsq.jp"}, /* an ideographic full stop is a dot */
		{"0/26.2.0.192.in-addr.arpa", "0/26.2.0.192.in-addr.arpa"},
		{"localhost", "localhost"},
		{"xn--mnchen-3ya.de", "xn--mnchen-3ya.de"},
	};
	char out[DNS_NAME_BYTES];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(dns_name_normalize(str_of(good[i].in), out), 0);
		assert_string_equal(out, good[i].out);
	}
	char label63[64], label64[65], name253[254], name255[256];
	memset(label63, 'a', 63), label63[63] = 0;
	memset(label64, 'a', 64), label64[64] = 0;
	snprintf(name253, sizeof(name253), "%s.%s.%s.%.61s", label63, label63, label63, label63);
	snprintf(name255, sizeof(name255), "%s.%s.%s.%s", label63, label63, label63, label63);
	assert_int_equal(dns_name_normalize(str_of(name253), out), 0);
	const char *const bad[] = {
		"",
		".",
		"..",
		"a..b",
		".a",
		"a b",
		"a\tb",
		"a\nb",
		"a\\.b",
		"a\x7f"
		"b",
		"\xff\xfe.com",
		"\xc3\xbc..de",
		label64,
		name255,
		"\xe2\x80\x8b.com",
		"a\xc2\xa0"
		"b.com",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (dns_name_normalize(str_of(bad[i]), out) == 0)
			fail_msg("case %zu, \"%s\", became \"%s\"", i, bad[i], out);
		assert_true(err_is(ERR_INVALID));
		err_clear();
	}
	assert_int_equal(dns_name_normalize(STR("a\0b"), out), -1);
	err_clear();
}

static void test_wire(void **state)
{
	static const struct {
		str_t wire;
		const char *text;
	} good[] = {
		{{"\0", 1}, ""},
		{{"\003WWW\007example\003com\0", 17}, "www.example.com"},
		{{"\003a.b\001c\0", 7}, "a\\046b.c"},
		{{"\004a\0\\ \0", 6}, "a\\000\\092\\032"},
	};
	char out[DNS_WIRE_TEXT_BYTES];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		size_t pos = 0;
		assert_true(dns_name_from_wire(good[i].wire, &pos, out));
		assert_string_equal(out, good[i].text);
		assert_int_equal(pos, good[i].wire.n);
	}
	static const str_t bad[] = {
		{"", 0}, {"\003ab", 3}, {"\003abc", 4}, {"\300\014", 2}, {"\100abc\0", 5},
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		size_t pos = 0;
		assert_false(dns_name_from_wire(bad[i], &pos, out));
	}
	char big[400];
	for (size_t i = 0; i < sizeof(big); i += 2)
		big[i] = 1, big[i + 1] = 7;
	size_t pos = 0;
	big[254] = 0; /* the longest: 127 labels of one byte */
	assert_true(dns_name_from_wire(str_mk(big, sizeof(big)), &pos, out));
	assert_int_equal(pos, 255);
	big[254] = 1, big[256] = 0, pos = 0;
	assert_false(dns_name_from_wire(str_mk(big, sizeof(big)), &pos, out));
}

static void test_site_names(void **state)
{
	static const struct {
		const char *hosts[8];
		uint16_t port;
		const char *site;
	} cases[] = {
		{{"gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com",
		  "alt2.gmail-smtp-in.l.google.com", "alt3.gmail-smtp-in.l.google.com",
		  "alt4.gmail-smtp-in.l.google.com"},
		 0,
		 "(alt1|alt2|alt3|alt4)?.gmail-smtp-in.l.google.com"},
		{{"mx.example.com"}, 0, "mx.example.com"},
		{{"mx1.example.com", "mx2.example.com"}, 0, "(mx1|mx2).example.com"},
		{{"mx2.example.com", "mx1.example.com"},
		 0,
		 "(mx2|mx1).example.com"}, /* in the order of preference */
		{{"example.com", "mx.example.com"}, 0, "mx?.example.com"},
		{{"a.x.example", "b.x.example", "c.y.example"}, 0, "(a|b|c).(x|y).example"},
		{{"mx.a.com", "mx.b.net"}, 0, "mx.(a|b).(com|net)"},
		{{"mx.example.com"}, 2025, "mx.example.com:2025"},
		{{"mx.a.com", "mx.b.net"}, 2025, "mx.(a|b).(com:2025|net:2025)"},
		{{"a", "b.c"}, 0, "b?.(a|c)"},
		{{"localhost"}, 0, "localhost"},
		{{"a.b.c", "c"}, 0, "a?.b?.c"},
		{{NULL}, 0, ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct dns_mx_host host[8];
		struct buf site = BUF_INIT;
		size_t n = 0;
		for (; cases[i].hosts[n] != NULL; n++)
			host[n] = (struct dns_mx_host){.name = (char *)(uintptr_t)cases[i].hosts[n]};
		dns_site_name(host, n, cases[i].port, &site);
		assert_string_equal(site.p != NULL ? site.p : "", cases[i].site);
		buf_fini(&site);
	}
}

static void test_ptr_names(void **state)
{
	static const struct {
		const char *ip, *name;
	} cases[] = {
		{"127.0.0.1", "1.0.0.127.in-addr.arpa"},
		{"::ffff:192.0.2.1", "1.2.0.192.in-addr.arpa"},
		{"::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa"},
		{"2001:db8::af", "f.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct net_addr a;
		struct buf b = BUF_INIT;
		assert_int_equal(net_addr_parse_ip(str_of(cases[i].ip), 25, &a), 0);
		dns_ptr_name(&a, &b);
		assert_string_equal(b.p, cases[i].name);
		buf_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_normalize),
		cmocka_unit_test(test_wire),
		cmocka_unit_test(test_site_names),
		cmocka_unit_test(test_ptr_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
