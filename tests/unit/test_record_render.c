/* test_record_render.c - the JSON form of records: field order, types, nulls and omissions as observed from
 * the reference implementation; selection of metadata and headers; templates. */
#include "ut.h"

#include "base/alloc.h"
#include "base/err.h"
#include "record/record_impl.h"

#define NODE "ed766af7-95dc-4d9c-b600-06599740bd13"

static const struct param_strs none;

static int setup(void **state)
{
	setenv("KUMO_NODE_ID", NODE, 1);
	return node_id_init();
}

static struct message *message_of(const char *id, const char *sender, const char *const *rcpt, uint32_t n,
				  const char *bytes)
{
	str_t to[4];
	for (uint32_t i = 0; i < n; i++)
		to[i] = str_of(rcpt[i]);
	struct body *body = body_new(str_of(bytes));
	struct message *m = message_new(str_of(sender), to, n, body);
	body_unref(body);
	assert_true(uuid_parse(str_of(id), &m->id));
	return m;
}

static struct message *message_plain(const char *bytes)
{
	static const char *const rcpt[] = {"r@maildir.example"};
	return message_of("466d82dde6e611f1bb36320a5753b5c1", "", rcpt, 1, bytes);
}

static void assert_renders(const struct record *r, wall_t now, const char *want)
{
	struct buf b = BUF_INIT;
	struct record_selection sel = {&none, &none};
	record_render_json(r, &sel, now, &b);
	assert_buf_is(&b, want);
	buf_fini(&b);
}

/* Two bodies of the right size, so that `size` is as observed. */
static char *filler(size_t n)
{
	char *p = xmalloc(n + 1);
	memset(p, 'x', n);
	p[n] = '\0';
	return p;
}

static void a_reception_as_observed(void **state)
{
	char *bytes = filler(162);
	struct message *m = message_plain(bytes);
	meta_set_str(&m->meta, STR("reception_protocol"), STR("HTTP"));
	struct record r = {.type = RECORD_RECEPTION,
			   .msg = m,
			   .queue = STR("maildir.example"),
			   .response = {.code = 250},
			   .peer_name = STR(""),
			   .peer_addr = STR("127.0.0.1")};
	assert_renders(
		&r, (wall_t){INT64_C(1795401212367785595)},
		"{\"type\":\"Reception\",\"id\":\"466d82dde6e611f1bb36320a5753b5c1\",\"sender\":\"\","
		"\"recipient\":\"r@maildir.example\",\"queue\":\"maildir.example\",\"site\":\"\",\"size\":"
		"162,"
		"\"response\":{\"code\":250,\"enhanced_code\":null,\"content\":\"\",\"command\":null},"
		"\"peer_address\":{\"name\":\"\",\"addr\":\"127.0.0.1\"},\"timestamp\":1795401212,"
		"\"event_time\":\"2026-11-23T02:33:32.367785595Z\",\"created\":1795401212,"
		"\"created_time\":\"2026-11-23T02:33:32.364463700Z\",\"num_attempts\":0,"
		"\"bounce_classification\":\"Uncategorized\",\"egress_pool\":null,\"egress_source\":null,"
		"\"source_address\":null,\"feedback_report\":null,\"meta\":{},\"headers\":{},"
		"\"delivery_protocol\":null,\"reception_protocol\":\"HTTP\",\"nodeid\":\"" NODE "\"}");
	message_unref(m);
	free(bytes);
}

static void a_bounce_over_tls_as_observed(void **state)
{
	static const char *const rcpt[] = {"permfail@sink.example"};
	static const char *const subject[] = {"CN=rcgen self signed cert"};
	char *bytes = filler(166);
	struct message *m = message_of("4687184ae6e611f1bb49320a5753b5c1", "s@example.com", rcpt, 1, bytes);
	struct uuid session;
	assert_true(uuid_parse(STR("c0abcdfe-b3f7-4265-a94b-dc6d761724c6"), &session));
	struct record r = {
		.type = RECORD_BOUNCE,
		.msg = m,
		.queue = STR("sink.example"),
		.site = STR("unspecified->mx_list:127.0.0.1:42565@smtp_client"),
		.response = {.code = 550,
			     .enhanced = {5, 1, 1},
			     .content = STR("unknown"),
			     .command = STR("RCPT TO:<permfail@sink.example>\r\n")},
		.peer_name = STR("sink"),
		.peer_addr = STR("127.0.0.1:42565"),
		.source_addr = STR("127.0.0.1:40918"),
		.egress_pool = STR("unspecified"),
		.egress_source = STR("unspecified"),
		.delivery_protocol = STR("ESMTP"),
		.reception_protocol = STR("HTTP"),
		.session_id = &session,
		.tls_cipher = STR("TLS13_AES_256_GCM_SHA384"),
		.tls_protocol = STR("TLSv1_3"),
		.tls_peer_subject = subject,
		.n_tls_peer_subject = 1,
	};
	assert_renders(
		&r, (wall_t){INT64_C(1795401212619820296)},
		"{\"type\":\"Bounce\",\"id\":\"4687184ae6e611f1bb49320a5753b5c1\",\"sender\":\"s@example."
		"com\","
		"\"recipient\":\"permfail@sink.example\",\"queue\":\"sink.example\","
		"\"site\":\"unspecified->mx_list:127.0.0.1:42565@smtp_client\",\"size\":166,"
		"\"response\":{\"code\":550,\"enhanced_code\":{\"class\":5,\"subject\":1,\"detail\":1},"
		"\"content\":\"unknown\",\"command\":\"RCPT TO:<permfail@sink.example>\\r\\n\"},"
		"\"peer_address\":{\"name\":\"sink\",\"addr\":\"127.0.0.1:42565\"},\"timestamp\":1795401212,"
		"\"event_time\":\"2026-11-23T02:33:32.619820296Z\",\"created\":1795401212,"
		"\"created_time\":\"2026-11-23T02:33:32.532129000Z\",\"num_attempts\":0,"
		"\"bounce_classification\":\"Uncategorized\",\"egress_pool\":\"unspecified\","
		"\"egress_source\":\"unspecified\",\"source_address\":{\"address\":\"127.0.0.1:40918\"},"
		"\"feedback_report\":null,\"meta\":{},\"headers\":{},\"delivery_protocol\":\"ESMTP\","
		"\"reception_protocol\":\"HTTP\",\"nodeid\":\"" NODE "\","
		"\"tls_cipher\":\"TLS13_AES_256_GCM_SHA384\",\"tls_protocol_version\":\"TLSv1_3\","
		"\"tls_peer_subject_name\":[\"CN=rcgen self signed cert\"],"
		"\"session_id\":\"c0abcdfe-b3f7-4265-a94b-dc6d761724c6\"}");
	message_unref(m);
	free(bytes);
}

static void a_rejection_has_no_message(void **state)
{
	static const char *const rcpt[] = {"b@maildir.example"};
	struct record r = {.type = RECORD_REJECTION,
			   .sender = STR("a@example.com"),
			   .rcpt = rcpt,
			   .n_rcpt = 1,
			   .response = {.code = 550,
					.enhanced = {5, 1, 1},
					.content = STR("no such user"),
					.command = STR("RCPT TO:<nobody@maildir.example>")},
			   .peer_name = STR("client.example"),
			   .peer_addr = STR("127.0.0.1"),
			   .is_peer_secure = true};
	wall_t now = {INT64_C(1795401220592599464)};
	struct buf b = BUF_INIT;
	struct record_selection sel = {&none, &none};
	record_render_json(&r, &sel, now, &b);
	assert_non_null(
		strstr(b.p, "{\"type\":\"Rejection\",\"id\":\"\",\"sender\":\"a@example.com\","
			    "\"recipient\":\"b@maildir.example\",\"queue\":\"\",\"site\":\"\",\"size\":0,"));
	assert_non_null(strstr(b.p,
			       "\"addr\":\"127.0.0.1\",\"is_secure\":true},\"timestamp\":1795401220,"
			       "\"event_time\":\"2026-11-23T02:33:40.592599464Z\",\"created\":1795401220,"
			       "\"created_time\":\"2026-11-23T02:33:40.592599464Z\""));
	assert_non_null(strstr(b.p, "\"reception_protocol\":null"));
	r.rcpt = NULL;
	buf_clear(&b);
	record_render_json(&r, &sel, now, &b);
	assert_non_null(strstr(b.p, ",\"recipient\":\"\","));
	buf_fini(&b);
}

static void several_recipients_are_an_array(void **state)
{
	static const char *const rcpt[] = {"a@x.example", "b@x.example", "c@x.example"};
	struct message *m = message_of("466d82dde6e611f1bb36320a5753b5c1", "s@x.example", rcpt, 3, "x");
	struct record r = {.type = RECORD_DELIVERY, .msg = m};
	struct record_selection sel = {&none, &none};
	struct buf b = BUF_INIT;
	record_render_json(&r, &sel, wall_now(), &b);
	assert_non_null(strstr(b.p, "\"recipient\":[\"a@x.example\",\"b@x.example\",\"c@x.example\"],"));
	buf_clear(&b);
	r.rcpt = rcpt + 1, r.n_rcpt = 1; /* only those the answer was for */
	record_render_json(&r, &sel, wall_now(), &b);
	assert_non_null(strstr(b.p, "\"recipient\":\"b@x.example\","));
	buf_fini(&b);
	message_unref(m);
}

static void what_a_peer_says_cannot_break_a_line(void **state)
{
	static const struct {
		str_t content;
		const char *json;
	} cases[] = {
		{STR("one\r\ntwo\nthree\rfour"), "\"content\":\"one two three four\","},
		{STR("\r\n\r\n"), "\"content\":\"  \","},
		{STR("a\"b\\c\x01\t"), "\"content\":\"a\\\"b\\\\c\\u0001\\t\","},
		{STR("nul\0here"), "\"content\":\"nul\\u0000here\","},
		{STR("bad \xff\xfe utf"), "\"content\":\"bad \xef\xbf\xbd\xef\xbf\xbd utf\","},
	};
	struct message *m = message_plain("x");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct record r = {.type = RECORD_BOUNCE,
				   .msg = m,
				   .response = {.code = 500, .content = cases[i].content}};
		struct record_selection sel = {&none, &none};
		struct buf b = BUF_INIT;
		record_render_json(&r, &sel, wall_now(), &b);
		assert_non_null(strstr(b.p, cases[i].json));
		assert_null(strchr(b.p, '\n'));
		json_t *v = json_loadb(b.p, b.n, JSON_ALLOW_NUL, NULL);
		assert_non_null(v);
		json_decref(v);
		buf_fini(&b);
	}
	message_unref(m);
}

static void optional_fields(void **state)
{
	struct message *m = message_plain("x");
	struct record r = {.type = RECORD_FEEDBACK,
			   .msg = m,
			   .provider_name = STR("big"),
			   .source_addr = STR("10.0.0.1:0"),
			   .source_server = STR("192.0.2.1:5000"),
			   .source_protocol = STR("socks5"),
			   .n_attempts = 7,
			   .feedback_report = STR("{\"feedback_type\":\"abuse\"}")};
	struct record_selection sel = {&none, &none};
	struct buf b = BUF_INIT;
	record_render_json(&r, &sel, wall_now(), &b);
	assert_non_null(
		strstr(b.p, "\"source_address\":{\"address\":\"10.0.0.1:0\",\"server\":\"192.0.2.1:5000\","
			    "\"protocol\":\"socks5\"},\"feedback_report\":{\"feedback_type\":\"abuse\"},"));
	assert_non_null(strstr(b.p, "\"num_attempts\":7,"));
	assert_non_null(strstr(b.p, "\"nodeid\":\"" NODE "\",\"provider_name\":\"big\"}"));
	buf_fini(&b);
	message_unref(m);
}

static void assert_part(const struct record *r, const char *const *meta, const char *const *headers,
			const char *want)
{
	struct param_strs m = {0}, h = {0};
	char *meta_v[8], *headers_v[8];
	for (; meta != NULL && meta[m.n] != NULL; m.n++)
		meta_v[m.n] = (char *)(uintptr_t)meta[m.n];
	for (; headers != NULL && headers[h.n] != NULL; h.n++)
		headers_v[h.n] = (char *)(uintptr_t)headers[h.n];
	m.v = meta_v, h.v = headers_v;
	struct record_selection sel = {&m, &h};
	struct buf b = BUF_INIT;
	record_render_json(r, &sel, wall_now(), &b);
	char *at = strstr(b.p, "\"meta\":"), *end = strstr(b.p, ",\"delivery_protocol\"");
	assert_str_is(str_mk(at, (size_t)(end - at)), want);
	buf_fini(&b);
}

#define NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})

static void metadata_is_selected(void **state)
{
	struct message *m = message_plain("x");
	struct record r = {.type = RECORD_DELIVERY, .msg = m};
	meta_set_str(&m->meta, STR("tenant"), STR("a\"b"));
	meta_set_json(&m->meta, STR("nothing"), STR("null"));
	meta_set_json(&m->meta, STR("xfer_n"), STR("{\"k\":[1,2.5,true]}"));
	meta_set_json(&m->meta, STR("xfer_null"), STR("null"));
	assert_part(&r, NULL, NULL, "\"meta\":{},\"headers\":{}");
	assert_part(&r, NAMES("tenant", "unset"), NULL, "\"meta\":{\"tenant\":\"a\\\"b\"},\"headers\":{}");
	assert_part(&r, NAMES("Tenant", "ten"), NULL, "\"meta\":{},\"headers\":{}");
	assert_part(&r, NAMES("nothing", "xfer_null"), NULL, "\"meta\":{},\"headers\":{}");
	assert_part(&r, NAMES("xfer_*"), NULL,
		    "\"meta\":{\"xfer_n\":{\"k\":[1,2.5,true]},\"xfer_null\":null},\"headers\":{}");
	assert_part(&r, NAMES("xfer_null", "xfer_*", "xfer_n"), NULL,
		    "\"meta\":{\"xfer_n\":{\"k\":[1,2.5,true]},\"xfer_null\":null},\"headers\":{}");
	assert_part(&r, NAMES("*"), NULL,
		    "\"meta\":{\"tenant\":\"a\\\"b\",\"nothing\":null,\"xfer_n\":{\"k\":[1,2.5,true]},"
		    "\"xfer_null\":null},\"headers\":{}");
	assert_part(&r, NAMES("x*_n"), NULL, "\"meta\":{},\"headers\":{}");
	message_unref(m);
}

static void headers_are_selected(void **state)
{
	struct message *m = message_plain("Subject: =?utf-8?q?caf=C3=A9?= and\r\n more\r\n"
					  "X-Tag: one\r\nx-tag:two\r\nX-TAG: \r\n three\r\nX-Other:  4 \r\n"
					  "From: a@b.example\r\n\r\nX-Tag: in the body\r\n");
	struct record r = {.type = RECORD_DELIVERY, .msg = m};
	assert_part(&r, NULL, NAMES("subject"),
		    "\"meta\":{},\"headers\":{\"Subject\":\"caf\xc3\xa9 and more\"}");
	assert_part(&r, NULL, NAMES("x-tag"),
		    "\"meta\":{},\"headers\":{\"X-Tag\":[\"one\",\"two\",\"three\"]}");
	assert_part(&r, NULL, NAMES("x-*", "FROM"),
		    "\"meta\":{},\"headers\":{\"X-Tag\":[\"one\",\"two\",\"three\"],"
		    "\"X-Other\":\"4\",\"From\":\"a@b.example\"}");
	assert_part(&r, NULL, NAMES("To", "X", "x-o*r"), "\"meta\":{},\"headers\":{}");
	message_set_prefix(m, STR("X-Tag: zero\r\n"));
	assert_part(&r, NULL, NAMES("x-tag"),
		    "\"meta\":{},\"headers\":{\"X-Tag\":[\"zero\",\"one\",\"two\",\"three\"]}");
	message_set_body(m, NULL);
	assert_part(&r, NULL, NAMES("x-tag", "subject"), "\"meta\":{},\"headers\":{\"X-Tag\":\"zero\"}");
	message_unref(m);
}

/* Many distinct and many equal names at once: time stays proportional. */
static void many_headers_are_no_trouble(void **state)
{
	struct buf bytes = BUF_INIT;
	for (int i = 0; i < 50000; i++)
		buf_printf(&bytes, "X-%d: a\r\nX-Same: b\r\n", i);
	buf_add_z(&bytes, "\r\n");
	struct message *m = message_plain(bytes.p);
	struct record r = {.type = RECORD_DELIVERY, .msg = m};
	char *v = (char *)(uintptr_t) "x-*";
	struct param_strs h = {&v, 1};
	struct record_selection sel = {&none, &h};
	struct buf b = BUF_INIT;
	record_render_json(&r, &sel, wall_now(), &b);
	json_t *doc = json_loadb(b.p, b.n, 0, NULL);
	assert_int_equal(json_object_size(json_object_get(doc, "headers")), 50001);
	assert_int_equal(json_array_size(json_object_get(json_object_get(doc, "headers"), "X-Same")), 50000);
	json_decref(doc);
	buf_fini(&b);
	buf_fini(&bytes);
	message_unref(m);
}

static void templates_see_the_record(void **state)
{
	static const struct {
		const char *source, *want;
	} cases[] = {
		{"Bounce! id={{ id }}, from={{ sender }} code={{ response.code }}",
		 "Bounce! id=466d82dde6e611f1bb36320a5753b5c1, from= code=550"},
		{"{{ log_record.response.content }}|{{ log_record.id == id }}", "sorry|true"},
		{"{{ headers['X-Tag'] }}", "seven"},
		{"{{ headers['x-tag'] }} {{ log_record.headers | tojson }}", "seven {\"X-Tag\":\"seven\"}"},
	};
	struct message *m = message_plain("X-Tag: seven\r\n\r\n");
	struct record r = {
		.type = RECORD_BOUNCE, .msg = m, .response = {.code = 550, .content = STR("sorry")}};
	char *name = (char *)(uintptr_t) "x-tag";
	struct param_strs h = {&name, 1};
	struct record_selection sel = {&none, &h};
	struct buf json = BUF_INIT;
	record_render_json(&r, &sel, wall_now(), &json);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		struct template *t = template_compile("t", str_of(cases[i].source), false);
		assert_non_null(t);
		assert_int_equal(record_render_template(t, buf_str(&json), &out), 0);
		assert_buf_is(&out, cases[i].want);
		template_free(t);
		buf_fini(&out);
	}
	struct template *t = template_compile("t", STR("{{ log_record | tojson }}"), false);
	struct buf out = BUF_INIT;
	assert_int_equal(record_render_template(t, buf_str(&json), &out), 0);
	json_t *a = json_loadb(json.p, json.n, 0, NULL), *b = json_loadb(out.p, out.n, 0, NULL);
	assert_true(json_equal(a, b));
	json_decref(a);
	json_decref(b);
	template_free(t);
	buf_fini(&out);
	buf_fini(&json);
	message_unref(m);
}

static void what_a_record_is_about_may_have_an_id_and_a_time(void **state)
{
	static const char *const rcpt[] = {"r@far.example"};
	struct uuid id;
	assert_true(uuid_parse(STR("466d82dde6e611f1bb36320a5753b5c1"), &id));
	struct record r = {.type = RECORD_OOB,
			   .id = &id,
			   .when = {INT64_C(1772529630000000000)},
			   .sender = STR("bounces@s.example"),
			   .rcpt = rcpt,
			   .n_rcpt = 1,
			   .response = {.code = 550, .enhanced = {5, 1, 1}, .content = STR("no")},
			   .peer_name = STR("mx.far.example"),
			   .peer_addr = STR("192.0.2.1")};
	assert_renders(&r, (wall_t){INT64_C(1800000000000000000)},
		       "{\"type\":\"OOB\",\"id\":\"466d82dde6e611f1bb36320a5753b5c1\",\"sender\":\"bounces@s."
		       "example\",\"recipient\":\"r@far.example\","
		       "\"queue\":\"\",\"site\":\"\",\"size\":0,\"response\":{\"code\":550,\"enhanced_code\":"
		       "{\"class\":5,\"subject\":1,\"detail\":1},"
		       "\"content\":\"no\",\"command\":null},\"peer_address\":{\"name\":\"mx.far.example\","
		       "\"addr\":\"192.0.2.1\"},"
		       "\"timestamp\":1772529630,\"event_time\":\"2026-03-03T09:20:30.000000000Z\","
		       "\"created\":1795401212,"
		       "\"created_time\":\"2026-11-23T02:33:32.364463700Z\",\"num_attempts\":0,\"bounce_"
		       "classification\":\"Uncategorized\","
		       "\"egress_pool\":null,\"egress_source\":null,\"source_address\":null,\"feedback_"
		       "report\":null,\"meta\":{},\"headers\":{},"
		       "\"delivery_protocol\":null,\"reception_protocol\":null,\"nodeid\":\"" NODE "\"}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reception_as_observed),
		cmocka_unit_test(a_bounce_over_tls_as_observed),
		cmocka_unit_test(a_rejection_has_no_message),
		cmocka_unit_test(what_a_record_is_about_may_have_an_id_and_a_time),
		cmocka_unit_test(several_recipients_are_an_array),
		cmocka_unit_test(what_a_peer_says_cannot_break_a_line),
		cmocka_unit_test(optional_fields),
		cmocka_unit_test(metadata_is_selected),
		cmocka_unit_test(headers_are_selected),
		cmocka_unit_test(many_headers_are_no_trouble),
		cmocka_unit_test(templates_see_the_record),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
