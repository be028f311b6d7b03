/* test_message.c - the message object of the policy language, method by method: scripts that assert, and
 * scripts that must fail with a text; then what reaches the spool and the queues. */
#include "fiber_check.h"
#include "queue_service.h"

#include "mail/schedule.h"

#include <lauxlib.h>
#include <stdatomic.h>

#define LIST "protocol = { smtp = { mx_list = { '127.0.0.1:9' } } }"
#define SAMPLE                     \
	"X-Campaign-ID: 12345\r\n" \
	"X-Mailer: foobar\r\n"     \
	"Subject: the subject\r\n" \
	"\r\n"                     \
	"The body\r\n"

static mono_t soon(void)
{
	return mono_after(dur_s(60));
}

/* --- a deliverer that takes everything --- */

static _Atomic unsigned n_delivered, n_rewritten;
static _Atomic bool is_rewriting; /* at the first attempt, which fails */
static char delivered[4096];	  /* of the last one: sender, recipients, data */

static void rewrite(struct session *s, struct message *m)
{
	static const struct smtp_response later = {.code = 450, .content = {"later", 5}};
	struct body *b = body_new(STR("Subject: rewritten\r\n\r\nin the queue\r\n"));
	message_replace_body(m, b);
	body_unref(b);
	session_done_all(s, m, &later, NULL);
	atomic_fetch_add(&n_rewritten, 1);
}

static void deliver_all(struct session *s)
{
	static const struct smtp_response ok = {.code = 250, .content = {"fine", 4}};
	for (struct message *m; (m = session_next(s, DUR_ZERO)) != NULL;) {
		if (atomic_load(&is_rewriting) && m->n_attempts == 0) {
			rewrite(s, m);
			continue;
		}
		int n = snprintf(delivered, sizeof(delivered), "%s>", m->sender);
		for (uint32_t i = 0; i < m->n_rcpt; i++)
			n += snprintf(delivered + n, sizeof(delivered) - (size_t)n, "%s%s", i > 0 ? "," : "",
				      m->rcpt[i]);
		snprintf(delivered + n, sizeof(delivered) - (size_t)n, "|%.*s%.*s", (int)m->n_prefix_bytes,
			 m->prefix != NULL ? m->prefix : "", (int)m->body->n_bytes, m->body->p);
		atomic_fetch_add(&n_delivered, 1);
		session_done_all(s, m, &ok, NULL);
	}
}
static const struct deliverer test_deliverer = {
	.protocol = "smtp_client", .record_name = "ESMTP", .run = deliver_all};

static void wait_for_deliveries(unsigned n)
{
	mono_t end = soon();
	while (atomic_load(&n_delivered) < n) {
		CHECK(!mono_is_past(end));
		usleep(2000);
	}
}

static uint64_t count_stored(void)
{
	struct spool_stats st;
	spool_get_stats(service.spool, &st);
	return st.n_messages;
}

/* --- before and after each test --- */

static int setup(void **state)
{
	service_make_dir();
	service.deliverer = &test_deliverer;
	atomic_store(&n_delivered, 0);
	return 0;
}

static int teardown(void **state)
{
	service_remove_dir();
	return 0;
}

static void begin(const char *handlers)
{
	service_write_policy(LIST, "", "", handlers);
	service_begin(false);
}

static void end(void)
{
	service_end(dur_s(10));
}

static struct message *message_of(const char *prefix, const char *body)
{
	str_t rcpt = STR("r@Example.com");
	struct body *b = body_new(str_of(body));
	struct message *m = message_new(STR("s@example.net"), &rcpt, 1, b);
	body_unref(b);
	message_set_prefix(m, str_of(prefix));
	m->is_changed = false;
	return m;
}

/* 1, 0 or -1 as policy_call_run, with the error in the slot. is_read: the handler may only look at it. */
static int call(const char *event, struct message *m, bool is_read)
{
	struct policy_call c;
	int rc = policy_call_begin(&c, event, soon());
	if (rc != 1)
		return rc;
	if (is_read)
		policy_push_message_to_read(c.L, m);
	else
		policy_push_message(c.L, m);
	rc = policy_call_run(&c, 1, 0, soon());
	policy_call_end(&c);
	return rc;
}

/* --- what methods do --- */

/* data: the message's afterwards; NULL: as it was, SAMPLE. */
static const struct script {
	const char *lua, *data;
} scripts[] = {
	/* id, sender, recipient: EnvelopeAddress */
	{"assert(#msg:id() == 32 and msg:id():match('^%x+$'))", NULL},
	{"local s = msg:sender()\n"
	 "assert(s.user == 's' and s.domain == 'example.net' "
	 "and s.email == 's@example.net' and tostring(s) == 's@example.net')\n"
	 "assert(s == msg:sender() and s ~= msg:recipient() "
	 "and 'a ' .. s == 'a s@example.net' and s.nothing == nil)",
	 NULL},
	{"for address, user in pairs { ['foo@example.com'] = 'foo', ['\"foo\"@example.com'] = 'foo', "
	 "['\"f\\\\oo\"@example.com'] = 'foo',\n"
	 "  ['\"info@\"@example.com'] = 'info@', ['<first.last@example.com>'] = 'first.last', "
	 "['<@a.example,@b.example:u@c.example>'] = 'u',\n"
	 "  ['Postmaster'] = 'postmaster', [''] = '', ['<>'] = '' } do\n"
	 "  msg:set_sender(address)\n"
	 "  assert(msg:sender().user == user, address)\n"
	 "end\n"
	 "msg:set_sender '<@a.example:u@c.example>'\n"
	 "assert(tostring(msg:sender()) == 'u@c.example' and msg:sender().domain == 'c.example')\n"
	 "msg:set_sender 'Postmaster'\n"
	 "assert(tostring(msg:sender()) == 'Postmaster' and msg:sender().domain == '')\n"
	 "msg:set_sender '<>'\n"
	 "assert(tostring(msg:sender()) == '' and msg:sender().email == '')",
	 NULL},
	{"msg:set_sender(string.format('bounce-%s@%s', 'a1b2', 'example.org'))\n"
	 "assert(msg:sender().user == 'bounce-a1b2')\n"
	 "msg:set_sender(msg:recipient())\n"
	 "assert(msg:sender() == msg:recipient() and msg:sender().domain == 'Example.com')",
	 NULL},
	{"msg:set_recipient 'someone.else@example.com'\n"
	 "assert(msg:recipient().email == 'someone.else@example.com' and #msg:recipient_list() == 1)\n"
	 "assert(msg:queue_name() == 'example.com')\n"
	 "msg:set_recipient(msg:sender())\n"
	 "assert(tostring(msg:recipient()) == 's@example.net')\n"
	 "msg:set_recipient { 'a@example.com', msg:sender(), '<b@example.org>' }\n"
	 "local list = msg:recipient()\n"
	 "assert(#list == 3 and list[2].email == 's@example.net' and tostring(list[3]) == 'b@example.org')\n"
	 "assert(#msg:recipient_list() == 3)\n"
	 "msg:set_recipient(msg:recipient_list())\n"
	 "assert(msg:recipient()[1].email == 'a@example.com')",
	 NULL},
	/* meta and the queue */
	{"msg:set_meta('foo', 'bar') assert(msg:get_meta 'foo' == 'bar')\n"
	 "msg:set_meta('foo', 123) assert(math.type(msg:get_meta 'foo') == 'integer' "
	 "and msg:get_meta 'foo' == 123)\n"
	 "msg:set_meta('foo', true) assert(msg:get_meta 'foo' == true)\n"
	 "msg:set_meta('foo', { key = 'value' }) assert(msg:get_meta('foo').key == 'value')\n"
	 "msg:set_meta('foo', msg:sender()) assert(msg:get_meta 'foo' == 's@example.net')\n"
	 "msg:set_meta('foo', nil) assert(msg:get_meta 'foo' == nil and msg:get_meta 'never' == nil)",
	 NULL},
	{"assert(msg:queue_name() == 'example.com')\n"
	 "msg:set_meta('tenant', 'mytenant') assert(msg:queue_name() == 'mytenant@example.com')\n"
	 "msg:set_meta('campaign', 'camp') assert(msg:queue_name() == 'camp:mytenant@example.com')\n"
	 "msg:set_meta('routing_domain', 'r.example') assert(msg:queue_name() == "
	 "'camp:mytenant@example.com!r.example')\n"
	 "msg:set_meta('queue', 'my:own@name') assert(msg:queue_name() == 'my:own@name')\n"
	 "msg:set_meta('queue', nil) msg:set_meta('campaign', nil) msg:set_meta('routing_domain', nil)\n"
	 "assert(msg:queue_name() == 'mytenant@example.com')",
	 NULL},
	{"assert(msg:num_attempts() == 0) msg:increment_num_attempts() msg:increment_num_attempts() "
	 "assert(msg:num_attempts() == 2)\n"
	 "for i = 1, 70000 do msg:increment_num_attempts() end\n"
	 "assert(msg:num_attempts() == 65535)",
	 NULL},
	/* data */
	{"assert(msg:get_data() == 'X-Campaign-ID: 12345\\r\\nX-Mailer: foobar\\r\\nSubject: the "
	 "subject\\r\\n\\r\\nThe body\\r\\n')",
	 NULL},
	{"msg:prepend_header('X', 'y')\n"
	 "msg:set_data('Subject: new\\r\\n\\r\\nall of it\\r\\n')\n"
	 "assert(msg:get_data() == 'Subject: new\\r\\n\\r\\nall of it\\r\\n')",
	 "Subject: new\r\n\r\nall of it\r\n"},
	{"msg:set_data('Subject: new\\n\\nall\\rof it')", "Subject: new\r\n\r\nall\r\nof it"},
	{"msg:set_data('') assert(msg:get_data() == '') assert(#msg:get_all_headers() == 0)", ""},
	/* headers: reading */
	{"msg:append_header('X-MAILER', '=?utf-8?q?h=C3=A9?= =?iso-8859-1?q?=E4?=') "
	 "msg:append_header('X-Raw', 'caf\\xe9')\n"
	 "local all = msg:get_all_headers()\n"
	 "assert(#all == 5 and all[1][1] == 'X-Campaign-ID' "
	 "and all[1][2] == '12345' and all[3][2] == 'the subject')\n"
	 "assert(all[4][1] == 'X-MAILER' and all[4][2] == 'h\xc3\xa9\xc3\xa4' "
	 "and all[5][2] == 'caf\xc3\xa9')\n"
	 "local mailers = msg:get_all_named_header_values 'x-mailer'\n"
	 "assert(#mailers == 2 and mailers[1] == 'foobar' and mailers[2] == 'h\xc3\xa9\xc3\xa4')\n"
	 "assert(#msg:get_all_named_header_values 'nothing' == 0)\n"
	 "assert(msg:get_first_named_header_value 'SUBJECT' == 'the subject' and "
	 "msg:get_first_named_header_value 'nothing' == nil)\n"
	 "assert(msg:get_first_named_header_value 'x-raw' == 'caf\xc3\xa9')\n"
	 "msg:remove_all_named_headers 'x-mailer' msg:remove_all_named_headers 'X-Raw'",
	 "X-Campaign-ID: 12345\r\nSubject: the subject\r\n\r\nThe body\r\n"},
	/* headers: adding */
	{"msg:append_header('X-New', 'value') msg:append_header('X-Newer', 'as\\r\\n given')",
	 "X-Campaign-ID: 12345\r\nX-Mailer: foobar\r\nSubject: the subject\r\nX-New: value\r\nX-Newer: "
	 "as\r\n given\r\n\r\nThe body\r\n"},
	{"msg:prepend_header('X-New', 'value') msg:prepend_header('X-Newer', 'first')\n"
	 "assert(msg:get_all_headers()[1][1] == 'X-Newer' "
	 "and msg:get_first_named_header_value 'x-new' == 'value')",
	 "X-Newer: first\r\nX-New: value\r\n" SAMPLE},
	{"msg:prepend_header('Subject', 'h\xc3\xa9llo', true) msg:prepend_header('A', 'plain', true) "
	 "msg:prepend_header('B', 'h\xc3\xa9', false)\n"
	 "msg:prepend_header('C', 'x', nil)\n"
	 "assert(msg:get_first_named_header_value 'subject' == 'h\xc3\xa9llo')",
	 "C: x\r\nB: h\xc3\xa9\r\nA: plain\r\nSubject: =?UTF-8?q?h=C3=A9llo?=\r\n" SAMPLE},
	{"msg:append_header('X-Long', ('word '):rep(20) .. 'end', true)",
	 "X-Campaign-ID: 12345\r\nX-Mailer: foobar\r\nSubject: the subject\r\n"
	 "X-Long: word word word word word word word word word word word word word\r\n"
	 " word word word word word word word end\r\n"
	 "\r\nThe body\r\n"},
	/* headers: removing */
	{"msg:remove_all_named_headers 'x-mailer' msg:remove_all_named_headers 'nothing'",
	 "X-Campaign-ID: 12345\r\nSubject: the subject\r\n\r\nThe body\r\n"},
	{"msg:remove_x_headers()", "Subject: the subject\r\n\r\nThe body\r\n"},
	{"msg:remove_x_headers(nil)", "Subject: the subject\r\n\r\nThe body\r\n"},
	{"msg:remove_x_headers { 'x-campaign-id' }",
	 "X-Mailer: foobar\r\nSubject: the subject\r\n\r\nThe body\r\n"},
	{"msg:remove_x_headers { 'subject', 'X-MAILER', 'no' }", "X-Campaign-ID: 12345\r\n\r\nThe body\r\n"},
	{"msg:remove_x_headers {}", NULL},
	{"msg:prepend_header('X-In-Prefix', 'v') msg:prepend_header('Y', 'v') msg:remove_x_headers()",
	 "Y: v\r\nSubject: the subject\r\n\r\nThe body\r\n"},
	/* headers: importing */
	{"msg:import_x_headers() assert(msg:get_meta 'x_campaign_id' == '12345' and msg:get_meta 'x_mailer' "
	 "== 'foobar' and msg:get_meta 'subject' == nil)",
	 NULL},
	{"msg:import_x_headers { 'x-campaign-id' } assert(msg:get_meta 'x_campaign_id' == '12345' and "
	 "msg:get_meta 'x_mailer' == nil)",
	 NULL},
	{"msg:import_x_headers { 'Subject' } assert(msg:get_meta 'subject' == 'the subject' "
	 "and msg:get_meta 'x_mailer' == nil)",
	 NULL},
	{"msg:append_header('X-Campaign-Id', '6')\n"
	 "msg:import_x_headers() assert(msg:get_meta 'x_campaign_id' == '6')\n"
	 "msg:import_x_headers({ 'x-campaign-id' }, true) assert(msg:get_meta 'x_campaign_id' == '12345')\n"
	 "msg:import_x_headers({ 'x-campaign-id' }, false) assert(msg:get_meta 'x_campaign_id' == '6')\n"
	 "msg:import_x_headers { 'x-campaign-id', true } assert(msg:get_meta 'x_campaign_id' == '12345')\n"
	 "msg:import_x_headers() msg:import_x_headers(nil, "
	 "true) assert(msg:get_meta 'x_campaign_id' == '12345')\n"
	 "msg:remove_all_named_headers 'x-campaign-id'",
	 "X-Mailer: foobar\r\nSubject: the subject\r\n\r\nThe body\r\n"},
	{"msg:import_headers { { name = 'X-*', remove = true } }\n"
	 "assert(msg:get_meta 'x_campaign_id' == '12345' and msg:get_meta 'x_mailer' == 'foobar')",
	 "Subject: the subject\r\n\r\nThe body\r\n"},
	{"msg:prepend_header('Received', 'two') msg:prepend_header('Received', 'one')\n"
	 "msg:import_headers { { name = 'Received', match = 'all' }, { name = 'Subject' } }\n"
	 "local r = msg:get_meta 'received'\n"
	 "assert(#r == 2 and r[1] == 'one' and r[2] == 'two' and msg:get_meta 'subject' == 'the subject')\n"
	 "msg:remove_all_named_headers 'received'",
	 NULL},
	{"msg:import_headers { { name = 'X-Campaign-Id', target = 'campaign_id' }, { name = 'X-*' } }\n"
	 "assert(msg:get_meta 'campaign_id' == '12345' and msg:get_meta 'x_campaign_id' == nil and "
	 "msg:get_meta 'x_mailer' == 'foobar')",
	 NULL},
	{"msg:import_headers { { name = 'X-*', transform = 'camel_case' } } assert(msg:get_meta "
	 "'xCampaignId' == '12345')\n"
	 "msg:import_headers { { name = 'x-campaign-ID', transform = 'pascal_case' } } assert(msg:get_meta "
	 "'XCampaignId' == '12345')\n"
	 "msg:import_headers { { name = 'x-*', transform = 'kebab_case', match = 'first' } } "
	 "assert(msg:get_meta 'x-mailer' == 'foobar')\n"
	 "msg:import_headers {} msg:import_headers { { name = 'None', "
	 "match = 'all' } } assert(msg:get_meta 'none' == nil)",
	 NULL},
	/* scheduling */
	{"local null = kumo.json_parse 'null'\n"
	 "local s = msg:set_scheduling { dow = 'Mon,Wed', tz = 'America/Phoenix', start = '09:00:00', "
	 "['end'] = '17:00:00' }\n"
	 "assert(s.dow == 'Mon,Wed' and s.tz == 'America/Phoenix' "
	 "and s.start == '09:00:00' and s['end'] == '17:00:00')\n"
	 "assert(s.first_attempt == null and s.expires == null)\n"
	 "s = msg:set_scheduling { first_attempt = '2023-03-01T17:00:00-08:00', expires = "
	 "'2030-01-01T00:00:00Z' }\n"
	 "assert(s.first_attempt == '2023-03-01T17:00:00-08:00' "
	 "and s.expires == '2030-01-01T00:00:00Z' and s.dow == nil)\n"
	 "s = msg:set_scheduling { first_attempt = '2023-03-01T17:00:00-08:00', dow = 'Monday,friday', tz = "
	 "'UTC', start = '22:00:00', ['end'] = '06:00:00' }\n"
	 "assert(s.dow == 'Mon,Fri' and s.first_attempt == '2023-03-01T17:00:00-08:00')\n"
	 "assert(msg:set_scheduling(s).dow == 'Mon,Fri')\n" /* what it gives it takes */
	 "assert(msg:set_scheduling(nil) == null and msg:set_scheduling(null) == null)\n"
	 "assert(msg:set_scheduling({}).first_attempt == null)",
	 NULL},
	{"msg:prepend_header('X-Schedule', "
	 "'{\"dow\":\"Mon,Wed\",\"tz\":\"America/Phoenix\",\"start\":\"09:00:00\",\"end\":\"17:00:00\"}')\n"
	 "local s = msg:import_scheduling_header 'x-schedule'\n"
	 "assert(s.dow == 'Mon,Wed' and s.tz == 'America/Phoenix' "
	 "and msg:get_first_named_header_value 'X-Schedule')\n"
	 "assert(msg:import_scheduling_header('X-Schedule', false).start == '09:00:00' and "
	 "msg:get_first_named_header_value 'X-Schedule')\n"
	 "assert(msg:import_scheduling_header('X-Schedule', true)['end'] == '17:00:00' and not "
	 "msg:get_first_named_header_value 'X-Schedule')\n"
	 "assert(msg:import_scheduling_header('X-Schedule', true) == kumo.json_parse 'null')",
	 NULL},
	{"assert(msg:set_due(nil) == kumo.json_parse 'null' and msg:set_due() == kumo.json_parse 'null')\n"
	 "assert(msg:set_due('2024-03-08T17:51:42.481711Z') == kumo.json_parse 'null')\n" /* past */
	 "assert(msg:set_due('2200-01-01T12:00:00+02:00') == '2200-01-01T10:00:00Z')\n"
	 "msg:set_scheduling { first_attempt = '2201-01-01T00:00:00Z' }\n"
	 "assert(msg:set_due('2200-01-01T12:00:00Z') == '2201-01-01T00:00:00Z' and msg:set_due(nil) == "
	 "'2201-01-01T00:00:00Z')",
	 NULL},
	{"msg:set_force_sync(true) msg:set_force_sync(false)", NULL},
	/* making messages */
	{"local m = kumo.make_message('a@example.com', 'b@example.com', 'Subject: x\\r\\n\\r\\nhi\\n')\n"
	 "assert(m:sender().email == 'a@example.com' and m:recipient().email == 'b@example.com' and "
	 "m:get_data() == 'Subject: x\\r\\n\\r\\nhi\\r\\n')\n"
	 "assert(#m:id() == 32 and m:id() ~= msg:id() and m ~= msg and m:num_attempts() == 0)\n"
	 "m = kumo.make_message('', { 'b@example.com', m:sender() }, '')\n"
	 "assert(m:sender().email == '' and #m:recipient() == 2)",
	 NULL},
};

static void check_data(const struct message *m, const char *want, size_t i)
{
	char got[2048];
	snprintf(got, sizeof(got), "%.*s%.*s", (int)m->n_prefix_bytes, m->prefix != NULL ? m->prefix : "",
		 (int)m->body->n_bytes, m->body->p);
	if (strcmp(got, want) == 0 && m->size_bytes == strlen(want))
		return;
	fprintf(stderr, "script %zu made\n%s\n", i, got);
	abort();
}

static void run_scripts(void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		char event[32];
		struct message *m = message_of("", SAMPLE);
		snprintf(event, sizeof(event), "script%zu", i);
		if (call(event, m, false) < 0) {
			fprintf(stderr, "script %zu: %s\n", i, err_text());
			abort();
		}
		check_data(m, scripts[i].data != NULL ? scripts[i].data : SAMPLE, i);
		CHECK(atomic_load(&m->refs) == 1);
		message_unref(m);
	}
}

static void test_methods(void **state)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++)
		buf_printf(&b, "kumo.on('script%zu', function(msg)\n%s\nend)\n", i, scripts[i].lua);
	begin(b.p);
	worker_run(run_scripts, NULL);
	end();
	buf_fini(&b);
}

/* --- what is refused; the message stays as it was --- */

static const struct refusal {
	const char *lua, *error;
} refusals[] = {
	{"msg:set_sender 'no address'", "invalid address 'no address'"},
	{"msg:set_sender 'a@b\\r\\nRCPT TO:<c@d>'", "control byte 0x0d"},
	{"msg:set_sender 'a@b\\n'", "control byte 0x0a"},
	{"msg:set_sender 'a\\0@b'", "control byte 0x00"},
	{"msg:set_sender(5)", "invalid type: number, expected an address"},
	{"msg:set_sender(nil)", "invalid type: nil, expected an address"},
	{"msg:set_sender()", "invalid type: no value, expected an address"},
	{"msg:set_sender { 'a@b' }", "invalid type: table"},
	{"msg:set_sender(msg)", "invalid type: userdata"},
	{"msg:set_recipient ''", "the null address cannot be a recipient"},
	{"msg:set_recipient '<>'", "the null address cannot be a recipient"},
	{"msg:set_recipient 'a@b\\rc'", "control byte 0x0d"},
	{"msg:set_recipient {}", "a list of recipients has at least one"},
	{"msg:set_recipient { 'a@b', 'c' }", "recipient 2: invalid address 'c'"},
	{"msg:set_recipient { 'a@b', '' }", "recipient 2: the null address"},
	{"msg:set_recipient { 'a@b', x = 'c@d' }", "a list of recipients has no other keys"},
	{"msg:set_recipient { { 'a@b' } }", "recipient 1: invalid type: table"},
	{"msg:set_recipient(nil)", "invalid type: nil"},
	{"msg:set_meta(5, 'x')", "string expected"},
	{"msg:set_meta('\\xff', 'x')", "must be UTF-8"},
	{"msg:set_meta('f', print)", "function"},
	{"msg:set_meta('f', '\\xff')", "UTF-8"},
	{"msg:set_meta('tenant', 5) msg:queue_name()", "the metadata 'tenant' must be a string, but is 5"},
	{"msg:set_data(5)", "string expected"},
	{"msg:set_data()", "string expected"},
	{"msg:set_data('a\\0b')", "the data has a NUL byte at position 2"},
	{"msg:append_header('X', 'a\\r\\nBcc: b@c')",
	 "invalid value of header `X`: a CR at position 2 would end it"},
	{"msg:append_header('X', 'a\\nBcc: b@c')", "a LF at position 2"},
	{"msg:append_header('X', 'a\\0')", "a NUL byte at position 2"},
	{"msg:append_header('X\\r\\nBcc: b@c\\r\\nY', 'a')", "invalid header name"},
	{"msg:append_header('X Y', 'a')", "invalid header name"},
	{"msg:append_header('', 'a')", "invalid header name"},
	{"msg:append_header('X')", "string expected, got no value"},
	{"msg:append_header('X', 'a', 'yes')", "boolean expected, got string"},
	{"msg:append_header('X', 'a\\r\\n b', true)", "a CR at position 2"},
	{"msg:append_header('X', 'a\\xff', true)", "it is not UTF-8"},
	{"msg:prepend_header('X', 'a\\r\\n\\r\\nbody')", "a CR at position 2"},
	{"msg:prepend_header('X:', 'a')", "invalid header name"},
	{"msg:prepend_header('X', 'a\\r\\n b', true)", "a CR at position 2"},
	{"msg:get_first_named_header_value()", "string expected"},
	{"msg:get_all_named_header_values()", "string expected"},
	{"msg:remove_all_named_headers()", "string expected"},
	{"msg:remove_x_headers 'X-Mailer'", "table expected, got string"},
	{"msg:remove_x_headers { 'X-Mailer', 5 }",
	 "element 2 of the list is a number, expected the name of a header"},
	{"msg:remove_x_headers { 'X-Mailer', true }", "element 2 of the list is a boolean"},
	{"msg:remove_x_headers { name = 'X-Mailer' }", "no other keys than 1, 2"},
	{"msg:import_x_headers 'X-Mailer'", "table expected, got string"},
	{"msg:import_x_headers { true, 'X-Mailer' }", "element 1 of the list is a boolean"},
	{"msg:import_x_headers({ 'X-Mailer' }, 'yes')", "boolean expected, got string"},
	{"msg:import_headers()", "table expected"},
	{"msg:import_headers { name = 'X-*' }", "a list of tables was expected"},
	{"msg:import_headers { 'X-*' }", "spec 1: deserialize error: invalid type"},
	{"msg:import_headers { { name = 'A' }, {} }", "spec 2: deserialize error: missing field `name`"},
	{"msg:import_headers { { name = 'A', mach = 'all' } }",
	 "unknown field `mach`, expected one of `name`, `match`, `transform`, `target`, `remove`"},
	{"msg:import_headers { { name = 'A', match = 'some' } }",
	 "unknown variant `some`, expected one of `first`, `last`, `all`"},
	{"msg:import_headers { { name = 'A', transform = 'x' } }",
	 "unknown variant `x`, expected one of `snake_case`"},
	{"msg:import_headers { { name = '*' } }", "field `name`: invalid value: \"*\""},
	{"msg:import_headers { { name = '*-A' } }", "field `name`: invalid value"},
	{"msg:import_headers { { name = 'A*B' } }", "field `name`: invalid value"},
	{"msg:import_headers { { name = 'A**' } }", "field `name`: invalid value"},
	{"msg:import_headers { { name = '' } }", "field `name`: invalid value"},
	{"msg:import_headers { { name = 'A\\nB' } }", "field `name`: invalid value"},
	{"msg:import_headers { { name = 'X-*', target = 'x' } }",
	 "field `target`: it needs one name, and `X-*` may match several"},
	{"msg:set_scheduling 'soon'", "table expected, got string"},
	{"msg:set_scheduling { first_attempt = '2023-03-01T17:00:00:00-08:00' }",
	 "field `first_attempt`: invalid value: "
	 "\"2023-03-01T17:00:00:00-08:00\", expected a date and time of RFC 3339"},
	{"msg:set_scheduling { first_attempt = 5 }",
	 "field `first_attempt`: invalid type: integer `5`, expected a string"},
	{"msg:set_scheduling { expires = 'never' }", "field `expires`: invalid value"},
	{"msg:set_scheduling { dow = 'Mon' }",
	 "missing field `tz`: `dow`, `tz`, `start` and `end` are given all together or not at all"},
	{"msg:set_scheduling { dow = 'Moonday', tz = 'UTC', start = '09:00:00', ['end'] = '17:00:00' }",
	 "field `dow`: invalid value: \"Moonday\""},
	{"msg:set_scheduling { dow = 'Mon', tz = 'PST', start = '09:00:00', ['end'] = '17:00:00' }",
	 "field `tz`: invalid value: \"PST\", expected a name of the IANA"},
	{"msg:set_scheduling { dow = 'Mon', tz = 'UTC', start = '9:00', ['end'] = '17:00:00' }",
	 "field `start`: invalid value: \"9:00\""},
	{"msg:set_scheduling { dow = 'Mon', tz = 'UTC', start = '09:00:00', ['end'] = '24:00:00' }",
	 "field `end`: invalid value: \"24:00:00\""},
	{"msg:set_scheduling { dow = 'Mon', tz = 'UTC', start = '09:00:00', ['end'] = '09:00:00' }",
	 "field `end`: it is the same time as `start`"},
	{"msg:set_scheduling { days = 'Mon' }",
	 "unknown field `days`, expected one of `first_attempt`, `expires`, `dow`, `tz`, `start`, `end`"},
	{"msg:import_scheduling_header()", "string expected"},
	{"msg:import_scheduling_header 'Subject'", "header `Subject`: "},
	{"msg:prepend_header('X-S', '{\"first\": 1}') msg:import_scheduling_header('x-s', true)",
	 "header `X-S`: deserialize error: unknown field `first`"},
	{"msg:import_scheduling_header('Subject', 1)", "boolean expected"},
	{"msg:set_due 'tomorrow'", "invalid value: \"tomorrow\", expected a date and time of RFC 3339"},
	{"msg:set_due(5)", "string expected"},
	{"msg:set_force_sync(1)", "boolean expected"},
	{"kumo.make_message('x', 'a@b', 'data')", "the sender: invalid address 'x'"},
	{"kumo.make_message('x@y\\n', 'a@b', 'data')", "the sender: invalid address: control byte 0x0a"},
	{"kumo.make_message('x@y', '', 'data')", "the null address cannot be a recipient"},
	{"kumo.make_message('x@y', 'a@b')", "string expected, got no value"},
	{"kumo.make_message('x@y', 'a@b', 'da\\0ta')", "the data has a NUL byte at position 3"},
	{"msg.id()", "Message expected, got no value"},
	{"msg.save(msg:sender())", "Message expected, got EnvelopeAddress"},
	{"kumo.inject_message('x')", "Message expected, got string"},
	{"kumo.inject_message(msg)",
	 "only a message that kumo.make_message or build_v1 has made can be injected"},
	{"kumo.inject_message(kumo.make_message('x@y', 'Postmaster', 'data'))",
	 "kumo.inject_message: no queue for the message"},
	{"kumo.inject_message(kumo.make_message('x@y', 'a@b', ''))",
	 "a message without any data cannot be injected"},
	{"kumo.make_message('x@y', 'a@b', ''):save()", "has no data and cannot be stored"},
	{"local m = kumo.make_message('x@y', 'a@b', 'data') m:set_meta('queue', 5) kumo.inject_message(m)",
	 "the metadata 'queue' must be a string"},
};

static void run_refusals(void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		char event[32];
		struct message *m = message_of("", SAMPLE);
		snprintf(event, sizeof(event), "refusal%zu", i);
		int rc = call(event, m, false);
		if (rc != -1 || strstr(err_text(), refusals[i].error) == NULL) {
			fprintf(stderr, "%s\nreturned %d: %s\nexpected: %s\n", refusals[i].lua, rc,
				err_text(), refusals[i].error);
			abort();
		}
		err_clear();
		CHECK(m->schedule == NULL && m->due.ns == 0 && m->n_rcpt == 1 &&
		      strcmp(m->sender, "s@example.net") == 0);
		if (strstr(refusals[i].lua, "msg:prepend_header('X-S'") == NULL)
			check_data(m, SAMPLE, i);
		message_unref(m);
	}
	CHECK(count_stored() == 0);
}

static void test_refusals(void **state)
{
	struct buf b = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		buf_printf(&b, "kumo.on('refusal%zu', function(msg)\n%s\nend)\n", i, refusals[i].lua);
	begin(b.p);
	worker_run(run_refusals, NULL);
	end();
	buf_fini(&b);
}

/* Prepending is for the recipient alone: the body stays the shared one. */
static void run_shared(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	struct body *shared = m->body;
	CHECK(call("prepend", m, false) == 0 && m->body == shared && m->is_changed && !m->is_body_changed &&
	      m->is_8bit_body);
	CHECK(call("remove", m, false) == 0 && m->body == shared && m->n_prefix_bytes == 0);
	CHECK(call("append", m, false) == 0 && m->body != shared && m->is_body_changed);
	message_unref(m);
	/* Nothing changes: nothing has to be stored. */
	m = message_of("", SAMPLE);
	CHECK(call("look", m, false) == 0 && !m->is_changed && !m->is_body_changed);
	message_unref(m);
}

static void test_shared_bodies(void **state)
{
	begin("kumo.on('prepend', function(msg) msg:prepend_header('X-In-Prefix', 'caf\\xe9') end)\n"
	      "kumo.on('remove', function(msg) msg:remove_all_named_headers('x-in-prefix') end)\n"
	      "kumo.on('append', function(msg) msg:append_header('X', 'y') end)\n"
	      "kumo.on('look', function(msg)\n"
	      "  msg:get_all_headers() msg:get_data() msg:remove_x_headers {} msg:remove_all_named_headers "
	      "'no' msg:get_meta 'x'\n"
	      "  msg:import_x_headers { 'no' } msg:import_headers { { name = 'no', remove = true } } "
	      "msg:import_scheduling_header('no', true)\n"
	      "  msg:queue_name() msg:recipient() end)\n");
	worker_run(run_shared, NULL);
	end();
}

/* --- events that may only look --- */

static const char *const changes[] = {
	"msg:set_sender 'a@b'",
	"msg:set_recipient 'a@b'",
	"msg:set_meta('a', 'b')",
	"msg:set_data 'x'",
	"msg:append_header('a', 'b')",
	"msg:prepend_header('a', 'b')",
	"msg:remove_all_named_headers 'a'",
	"msg:remove_x_headers()",
	"msg:import_x_headers()",
	"msg:import_headers {}",
	"msg:import_scheduling_header 'a'",
	"msg:set_scheduling(nil)",
	"msg:set_due(nil)",
	"msg:save()",
	"msg:shrink()",
	"msg:shrink_data()",
	"msg:set_force_sync(true)",
	"msg:increment_num_attempts()",
	"kumo.inject_message(msg)",
};

static void run_read_only(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	CHECK(call("look", m, true) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		char event[32], want[100];
		snprintf(event, sizeof(event), "change%zu", i);
		snprintf(want, sizeof(want), "the event `%s` may look at the message but not change it",
			 event);
		CHECK(call(event, m, true) == -1);
		if (strstr(err_text(), want) == NULL) {
			fprintf(stderr, "%s: %s\n", changes[i], err_text());
			abort();
		}
		err_clear();
	}
	CHECK(!m->is_changed && m->meta.n == 0);
	message_unref(m);
}

static void test_read_only(void **state)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, "kumo.on('look', function(msg)\n"
		      "  assert(msg:get_data() and msg:sender() and msg:recipient() and msg:queue_name() and "
		      "#msg:get_all_headers() == 3)\n"
		      "  assert(msg:get_first_named_header_value 'subject' == 'the subject' and "
		      "msg:num_attempts() == 0 and msg:id())\n"
		      "end)\n");
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
		buf_printf(&b, "kumo.on('change%zu', function(msg) %s end)\n", i, changes[i]);
	begin(b.p);
	worker_run(run_read_only, NULL);
	end();
	buf_fini(&b);
}

/* --- the spool --- */

static void check_stored(const struct message *m, const char *sender, const char *data)
{
	char got[2048];
	struct message *s = spool_load(service.spool, &m->id, soon());
	CHECK(s != NULL);
	snprintf(got, sizeof(got), "%.*s%.*s", (int)s->n_prefix_bytes, s->prefix != NULL ? s->prefix : "",
		 (int)s->body->n_bytes, s->body->p);
	if (strcmp(got, data) != 0 || strcmp(s->sender, sender) != 0) {
		fprintf(stderr, "the spool has, from %s:\n%s\n", s->sender, got);
		abort();
	}
	message_unref(s);
}

static unsigned n_meta_loads;

static int count_meta_load(struct message *m, mono_t deadline)
{
	CHECK(m->meta.n == 0 && m->body == NULL);
	n_meta_loads++;
	return service_load_meta(m, deadline);
}

static int fail_meta_load(struct message *m, mono_t deadline)
{
	err_set(ERR_CORRUPT, "no metadata");
	return -1;
}

static void check_seen(struct message *m)
{
	str_t seen;
	CHECK(!m->is_meta_shed && meta_get_json(&m->meta, STR("seen"), &seen) && str_eq(seen, STR("true")));
}

/* Metadata come back with the next use, and when the event is over however it ended. */
static void run_shrunk_metadata(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	policy_set_meta_loader(count_meta_load);
	CHECK(call("shrink", m, false) == 0 && n_meta_loads == 1);
	check_seen(m);
	CHECK(call("shrink_data", m, false) == 0 && n_meta_loads == 1);
	CHECK(call("shrink_and_use", m, false) == 0 && n_meta_loads == 3);
	check_seen(m);
	CHECK(call("shrink_and_refuse", m, false) == -1 && n_meta_loads == 4);
	CHECK(err_is(ERR_REJECT) && strstr(err_text(), "no thanks") != NULL);
	err_clear();
	check_seen(m);
	CHECK(call("shrink_a_draft", m, false) == 0 && n_meta_loads == 4);

	policy_set_meta_loader(fail_meta_load);
	CHECK(call("shrink", m, false) == -1 && strstr(err_text(), "no metadata") != NULL);
	err_clear();
	spool_update(service.spool, m); /* does not store the lack of them */
	CHECK(m->is_meta_shed && service_load_meta(m, soon()) == 0);
	check_seen(m);
	CHECK(call("shrink_and_use", m, false) == -1 && strstr(err_text(), "no metadata") != NULL);
	err_clear();
	message_unref(m);
	policy_set_meta_loader(service_load_meta);
}

static void run_spool(void *arg)
{
	struct message *m = message_of("P: 1\r\n", SAMPLE);
	CHECK(call("save", m, false) == 0 && m->is_spooled && m->body != NULL);
	check_stored(m, "s@example.net", "P: 1\r\n" SAMPLE);
	CHECK(call("change", m, false) == 0 && m->is_changed && m->is_body_changed);
	check_stored(m, "s@example.net", "P: 1\r\n" SAMPLE);
	CHECK(call("save", m, false) == 0 && !m->is_changed && !m->is_body_changed);
	check_stored(m, "new@example.net", "Subject: other\r\nX: y\r\n\r\ndata\r\n");

	/* What shrinks is stored first, comes back when it is asked for, and may be changed then. */
	CHECK(call("shrink", m, false) == 0 && m->body == NULL && !m->is_changed);
	CHECK(call("read", m, false) == 0 && m->body != NULL);
	CHECK(call("rewrite", m, false) == 0);
	check_stored(m, "new@example.net", "Subject: other\r\nX: y\r\n\r\ndata\r\n");
	CHECK(call("shrink_data", m, false) == 0 && m->body == NULL &&
	      strcmp(m->sender, "new@example.net") == 0);
	check_stored(m, "new@example.net", "Z: first\r\nSubject: other\r\nX: y\r\nZ: last\r\n\r\ndata\r\n");
	/* Metadata and prefix do not need the body. */
	CHECK(call("light", m, false) == 0 && m->body == NULL);
	check_stored(m, "new@example.net",
		     "Y: 1\r\nZ: first\r\nSubject: other\r\nX: y\r\nZ: last\r\n\r\ndata\r\n");
	message_unref(m);
	/* Gone from the spool behind its back. */
	m = message_of("", SAMPLE);
	CHECK(call("shrink", m, false) == 0);
	spool_remove(service.spool, &m->id);
	struct message *other = message_of("", SAMPLE);
	CHECK(call("save", other, false) == 0); /* in the queue behind it */
	message_unref(other);
	CHECK(call("read", m, false) == -1 && strstr(err_text(), "get_first_named_header_value") != NULL);
	err_clear();
	CHECK(call("save", m, false) == 0); /* nothing has changed */
	CHECK(call("light", m, false) == -1 && strstr(err_text(), "no body and is not stored") != NULL);
	err_clear();
	message_unref(m);
}

static void test_spool(void **state)
{
	begin("kumo.on('save', function(msg) msg:save() msg:save() end)\n"
	      "kumo.on('change', function(msg) msg:set_sender 'new@example.net' msg:set_data 'Subject: "
	      "other\\n\\ndata\\n' msg:append_header('X', 'y') end)\n"
	      "kumo.on('shrink', function(msg) msg:set_meta('seen', true) msg:shrink() end)\n"
	      "kumo.on('shrink_data', function(msg) msg:shrink_data() end)\n"
	      "kumo.on('shrink_and_use', function(msg) msg:shrink() assert(msg:get_meta 'seen') msg:shrink() "
	      "end)\n"
	      "kumo.on('shrink_and_refuse', function(msg) msg:shrink() kumo.reject(550, 'no thanks') end)\n"
	      "kumo.on('shrink_a_draft', function() kumo.make_message('a@b', 'c@d', 'X: y'):shrink() end)\n"
	      "kumo.on('read', function(msg) assert(msg:get_first_named_header_value 'Subject') "
	      "assert(msg:get_meta 'seen') end)\n"
	      "kumo.on('rewrite', function(msg) msg:shrink() msg:append_header('Z', 'last') "
	      "msg:prepend_header('Z', 'first') end)\n"
	      "kumo.on('light', function(msg) msg:set_meta('a', 1) msg:prepend_header('Y', '1') "
	      "msg:set_force_sync(true) msg:save() end)\n");
	worker_run(run_spool, NULL);
	worker_run(run_shrunk_metadata, NULL);
	end();
}

/* --- injection --- */

static void run_inject(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	CHECK(call("inject", m, false) == 0);
	message_unref(m);
}

static const char inject_policy[] =
	"kumo.on('inject', function(msg)\n"
	"  local m = kumo.make_message('from@example.org', { 'one@a.example', "
	"'two@a.example' }, 'Subject: made\\n\\nhello\\n')\n"
	"  m:prepend_header('X-First', '1')\n"
	"  m:set_meta('tenant', 't')\n"
	"  kumo.inject_message(m)\n"
	"  for _, method in ipairs { 'id', 'get_data', 'save' } do\n"
	"    local ok, err = pcall(m[method], m)\n"
	"    assert(not ok and err:find('this message was given to kumo.inject_message', 1, true), err)\n"
	"  end\n"
	"  local ok, err = pcall(kumo.inject_message, m)\n"
	"  assert(not ok and err:find('was given to kumo.inject_message', 1, true), err)\n"
	"end)\n";

static void test_inject(void **state)
{
	begin(inject_policy);
	worker_run(run_inject, NULL);
	wait_for_deliveries(1);
	end();
	assert_string_equal(
		delivered,
		"from@example.org>one@a.example,two@a.example|X-First: 1\r\nSubject: made\r\n\r\nhello\r\n");
}

/* Durable when it returns: a stop that delivers nothing does not lose it. */
static void test_inject_is_durable(void **state)
{
	service_write_policy(LIST, "", "connection_limit = 0", inject_policy);
	service_begin(false);
	worker_run(run_inject, NULL);
	assert_int_equal(count_stored(), 1);
	end();
	assert_int_equal(atomic_load(&n_delivered), 0);
	service_write_policy(LIST, "", "", "");
	service_begin(true);
	wait_for_deliveries(1);
	end();
	assert_non_null(strstr(delivered, "X-First: 1\r\nSubject: made\r\n"));
}

static const char *refuse_mail(void)
{
	return "disk is too full";
}

static void run_inject_refused(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	CHECK(call("broken_queue", m, false) == 0);
	bind_inject_message_set_gate(refuse_mail);
	CHECK(call("gate", m, false) == -1 &&
	      strstr(err_text(), "kumo.inject_message: the message is not taken: disk is too full") != NULL);
	err_clear();
	bind_inject_message_set_gate(NULL);
	CHECK(call("gate", m, false) == -1 && strstr(err_text(), "the queues are not running yet") != NULL);
	err_clear();
	bind_inject_message_set_gate(service_takes_mail);
	CHECK(call("null", m, false) == 0);
	message_unref(m);
}

/* A failure raises, leaves nothing behind, and the message can be mended and tried again. */
static void test_inject_refused(void **state)
{
	char *file = xasprintf("%s/policy.lua", service.dir);
	FILE *f = fopen(file, "we");
	assert_non_null(f);
	fputs("local kumo = require 'kumo'\n"
	      "kumo.on('get_queue_config', function(domain)\n"
	      "  if domain == 'broken.example' then error('no such customer') end\n"
	      "  if domain == 'refused.example' then kumo.reject(550, 'not here') end\n"
	      "  return kumo.make_queue_config { " LIST " } end)\n"
	      "local top_ok, top_err = pcall(kumo.inject_message, kumo.make_message('', 'x@good.example', "
	      "'Subject: x\\n\\nhello\\n'))\n"
	      "kumo.on('broken_queue', function(msg)\n"
	      "  assert(not top_ok and top_err:find('must be called from an event, not from the policy file "
	      "itself', 1, true), top_err)\n"
	      "  local m = kumo.make_message('', 'x@broken.example', 'Subject: x\\n\\nhello\\n')\n"
	      "  local ok, err = pcall(kumo.inject_message, m)\n"
	      "  assert(not ok and tostring(err):find('no such customer', 1, true), err)\n"
	      "  m:set_recipient 'x@refused.example'\n"
	      "  ok, err = pcall(kumo.inject_message, m)\n"
	      "  assert(not ok and tostring(err):find('^550 .*not here'), err)\n"
	      "  m:set_recipient 'x@good.example'\n"
	      "  kumo.inject_message(m)\n"
	      "end)\n"
	      "kumo.on('gate', function(msg) kumo.inject_message(kumo.make_message('', 'x@good.example', "
	      "'Subject: x\\n\\nhello\\n')) end)\n"
	      "kumo.on('null', function(msg)\n"
	      "  local m = kumo.make_message('', 'x@good.example', 'Subject: x\\n\\nhello\\n')\n"
	      "  m:save()\n" /* into the spool, and out of it again */
	      "  m:set_meta('queue', 'null')\n"
	      "  kumo.inject_message(m)\n"
	      "end)\n",
	      f);
	fclose(f);
	free(file);
	service_begin(false);
	worker_run(run_inject_refused, NULL);
	wait_for_deliveries(1);
	for (mono_t until = soon(); count_stored() > 0;)
		CHECK(!mono_is_past(until) && usleep(2000) == 0);
	end();
	assert_int_equal(atomic_load(&n_delivered), 1);
}

/* A policy whose events bring about themselves ends with an error, not with the process. */
static void run_nested(void *arg)
{
	struct message *m = message_of("", SAMPLE);
	CHECK(call("begin", m, false) == -1);
	CHECK(strstr(err_text(), "nested") != NULL && strstr(err_text(), "get_queue_config") != NULL);
	err_clear();
	CHECK(call("harmless", m, false) == 0);
	message_unref(m);
}

static void test_nested_events(void **state)
{
	char *file = xasprintf("%s/policy.lua", service.dir);
	FILE *f = fopen(file, "we");
	assert_non_null(f);
	fputs("local kumo = require 'kumo'\n"
	      "local function inject(n) kumo.inject_message(kumo.make_message('', 'x@n' .. n .. '.example', "
	      "'Subject: x\\n\\nhello\\n')) end\n"
	      "kumo.on('get_queue_config', function(domain)\n"
	      "  if domain ~= 'end.example' then inject(tonumber(domain:match('%d+')) + 1) end\n"
	      "  return kumo.make_queue_config { " LIST " } end)\n"
	      "kumo.on('begin', function(msg) inject(1) end)\n"
	      "kumo.on('harmless', function(msg) kumo.inject_message(kumo.make_message('', 'x@end.example', "
	      "'Subject: x\\n\\nhello\\n')) end)\n",
	      f);
	fclose(f);
	free(file);
	service_begin(false);
	worker_run(run_nested, NULL);
	wait_for_deliveries(1);
	end();
}

/* What a message becomes while it is queued is stored before its body leaves the memory. */
static void test_rewritten_in_the_queue(void **state)
{
	service.body_budget_bytes = 1;
	atomic_store(&is_rewriting, true);
	service_write_policy(LIST ", retry_interval = '1h'", "", "", inject_policy);
	service_begin(false);
	worker_run(run_inject, NULL);
	for (mono_t until = soon(); atomic_load(&n_rewritten) == 0;)
		CHECK(!mono_is_past(until) && usleep(2000) == 0);
	end();
	assert_int_equal(atomic_load(&n_delivered), 0);
	clock_set_virtual(mono_now(), wall_add(wall_now(), dur_s(3 * 3600)));
	service_begin(true);
	wait_for_deliveries(1);
	clock_set_real();
	worker_clock_changed();
	end();
	service.body_budget_bytes = 0;
	atomic_store(&is_rewriting, false);
	assert_string_equal(delivered, "from@example.org>one@a.example,two@a.example|X-First: 1\r\nSubject: "
				       "rewritten\r\n\r\nin the queue\r\n");
}

int main(void)
{
	service_register();
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_methods),
		T(test_refusals),
		T(test_shared_bodies),
		T(test_read_only),
		T(test_spool),
		T(test_inject),
		T(test_inject_is_durable),
		T(test_inject_refused),
		T(test_nested_events),
		T(test_rewritten_in_the_queue),
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
