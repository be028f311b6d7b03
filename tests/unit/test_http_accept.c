/* test_http_accept.c - which form an Accept header wants, for the forms of /metrics. */
#include "ut.h"

#include "http/accept.h"

#define OPEN "application/openmetrics-text"

static void accept_chooses(void **state)
{
	static const struct http_media offered[] = {{"text/plain", "version", "0.0.4"},
						    {OPEN, "version", "1.0.0"}};
	static const struct {
		const char *accept;
		size_t wanted;
	} cases[] = {
		{NULL, 0},
		{"", 0},
		{"*/*", 0},
		{"text/plain", 0},
		{"text/*", 0},
		{"application/*", 1},
		{"application/json", 0},
		{OPEN, 1},
		{"Application/OpenMetrics-Text", 1},
		{OPEN ";version=1.0.0", 1},
		{OPEN "; version=\"1.0.0\" ; charset=utf-8", 1},
		{OPEN ";version=0.0.1", 0},
		{OPEN ";version=2.0.0, text/plain;q=0.1", 0},
		/* what Prometheus sends */
		{OPEN ";version=1.0.0;q=0.5," OPEN
		      ";version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
		 1},
		{OPEN ";version=1.0.0;q=0.8," OPEN
		      ";version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
		 1},
		{"application/vnd.google.protobuf;q=0.7," OPEN
		 ";version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5",
		 0},
		{"text/plain, " OPEN, 0},
		{"text/plain;q=0.9, " OPEN, 1},
		{"text/plain;q=0.5, " OPEN ";q=0.50", 0},
		{"*/*, " OPEN ";q=0", 0},
		{OPEN ";q=0", 0},
		{"text/plain;q=0, */*", 1},
		{"*/*;q=0.1, " OPEN ";q=0.2", 1},
		{OPEN ";version=1.0.0;q=0.1, " OPEN ";q=0.9, text/plain;q=0.5",
		 0}, /* the more precise range counts */
		{OPEN ";q=1.001", 0},
		{OPEN ";q=x", 0},
		{OPEN ";q=", 0},
		{OPEN ";q=0.0000, text/plain;q=0.001", 0},
		{"/,;,;q=1,*,,=," OPEN, 1},
		{";;;;", 0},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t got = http_accept_choose(str_of(cases[i].accept), offered, ARRAY_SIZE(offered));
		if (got != cases[i].wanted)
			fail_msg("Accept: %s chooses %zu", cases[i].accept, got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(accept_chooses)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
