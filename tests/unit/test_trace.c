/* test_trace.c - trace fields: their exact bytes, folding, and texts that would break out of them. */
#include "mail/trace.h"

#include "base/text.h"
#include "mime/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct message *message_of(const char *rcpt, const char *other)
{
	str_t list[] = {str_of(rcpt), str_of(other)};
	struct body *body = body_new(STR("Subject: x\r\n\r\nhi\r\n"));
	struct message *m = message_new(STR("s@example.com"), list, other != NULL ? 2 : 1, body);
	body_unref(body);
	return m;
}

static void test_received(void **state)
{
	static const struct {
		struct trace_received t;
		const char *before, *after;
	} cases[] = {
		{{STR("example.com"),
		  STR("127.0.0.1"),
		  STR("mx.example"),
		  STR_NULL,
		  STR("HTTP"),
		  STR_NULL,
		  {0}},
		 "Received: from example.com (127.0.0.1)\r\n  by mx.example (Cirrus)\r\n  with HTTP id ",
		 " for <r@example.org>;\r\n  Thu, 01 Jan 1970 00:00:00 +0000\r\n"},
		{{STR(""),
		  STR("::1"),
		  STR("mx.example"),
		  STR("::2"),
		  STR("ESMTPS"),
		  STR("TLSv1.3:TLS_AES_256_GCM_SHA384"),
		  {0}},
		 "Received: from unspecified (::1)\r\n  by mx.example (Cirrus ::2)\r\n  with ESMTPS "
		 "(TLSv1.3:TLS_AES_256_GCM_SHA384) id ",
		 " for <r@example.org>;\r\n  Thu, 01 Jan 1970 00:00:00 +0000\r\n"},
		{{STR("a\r\nX: (y)\\\0z"), STR("h"), STR("b"), STR_NULL, STR("ESMTP"), STR_NULL, {0}},
		 "Received: from a??X: ?y???z (h)\r\n  by b (Cirrus)\r\n  with ESMTP id ",
		 " for <r@example.org>;\r\n  Thu, 01 Jan 1970 00:00:00 +0000\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message *m = message_of("r@example.org", NULL);
		struct buf want = BUF_INIT;
		char id[33];
		trace_add_received(m, &cases[i].t);
		uuid_fmt_simple(&m->id, id);
		buf_printf(&want, "%s%s%s", cases[i].before, id, cases[i].after);
		assert_string_equal(m->prefix, want.p);
		assert_int_equal(m->size_bytes, want.n + m->body->n_bytes);
		buf_fini(&want);
		message_unref(m);
	}
}

/** The JSON in the first field of the prefix. */
static char *payload_of(const struct message *m, str_t name)
{
	struct header_iter it;
	struct header_field f;
	struct buf text = BUF_INIT, json = BUF_INIT;
	header_iter_init(&it, str_mk(m->prefix, m->n_prefix_bytes));
	assert_true(header_next(&it, &f) && str_eq(f.name, name));
	for (size_t i = 0; i < f.raw_value.n; i++)
		if (f.raw_value.p[i] > ' ')
			buf_add_c(&text, f.raw_value.p[i]);
	assert_true(base64_decode(&json, buf_str(&text)));
	buf_fini(&text);
	return buf_steal(&json, NULL);
}

static void test_supplemental(void **state)
{
	static const str_t names[] = {STR("tenant"), STR("unset"), STR("n")};
	struct message *m = message_of("r@maildir.example", NULL);
	trace_add_supplemental(m, STR("X-KumoRef"), NULL, 0);
	assert_string_equal(
		m->prefix, "X-KumoRef: eyJfQF8iOiJcXF8vIiwicmVjaXBpZW50IjoickBtYWlsZGlyLmV4YW1wbGUifQ==\r\n");
	meta_set_str(&m->meta, STR("tenant"), STR("acme"));
	meta_set_json(&m->meta, STR("n"), STR("[1,{}]"));
	trace_add_supplemental(m, STR("X-Trace"), names, 1);
	assert_true(str_starts(str_mk(m->prefix, m->n_prefix_bytes),
			       STR("X-Trace: "
				   "eyJfQF8iOiJcXF8vIiwicmVjaXBpZW50IjoickBtYWlsZGlyLmV4YW1wbGUiLCJ0ZW5hbnQiO"
				   "iJ\r\n\thY21lIn0=\r\nX-KumoRef: ")));
	trace_add_supplemental(m, STR("X-Trace"), names, 3);
	char *json = payload_of(m, STR("X-Trace"));
	assert_string_equal(
		json,
		"{\"_@_\":\"\\\\_/"
		"\",\"recipient\":\"r@maildir.example\",\"tenant\":\"acme\",\"unset\":null,\"n\":[1,{}]}");
	free(json);
	message_unref(m);
	m = message_of("a@example.org", "b@example.org");
	trace_add_supplemental(m, STR("X-A"), NULL, 0);
	json = payload_of(m, STR("X-A"));
	assert_string_equal(json, "{\"_@_\":\"\\\\_/\",\"recipient\":[\"a@example.org\",\"b@example.org\"]}");
	free(json);
	for (str_t rest = str_mk(m->prefix, m->n_prefix_bytes), line; str_split(&rest, '\n', &line);)
		assert_true(line.n <= 75 + sizeof("X-A: "));
	message_unref(m);
}

static void test_header_name(void **state)
{
	char long_name[201];
	memset(long_name, 'x', sizeof(long_name));
	assert_true(header_name_is_valid(STR("X-KumoRef")) && header_name_is_valid(str_mk(long_name, 200)));
	assert_false(header_name_is_valid(str_mk(long_name, 201)) || header_name_is_valid(STR("")));
	static const str_t bad[] = {STR("a:"),	STR("a b"),	 STR("a\r"), STR("a\n"),
				    STR("a\0"), STR("\xc3\xa4"), STR("\x7f")};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(header_name_is_valid(bad[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_received),
					   cmocka_unit_test(test_supplemental),
					   cmocka_unit_test(test_header_name)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
