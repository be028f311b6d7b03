/* test_message.c - messages, queue names and the spool record. */
#include "base/err.h"
#include "base/alloc.h"
#include "mail/message_utf8.h"
#include "mail/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static struct message *sample_message(void)
{
	str_t rcpt[] = {STR("one@Example.COM"), STR("two@example.net")};
	struct body *b = body_new(STR("Subject: x\r\n\r\nh\xe4\r\n"));
	struct message *m = message_new(STR("s@example.org"), rcpt, 2, b);
	body_unref(b);
	return m;
}

static void test_message_parts(void **state)
{
	size_t held = body_total_bytes();
	struct message *m = sample_message();
	assert_int_equal(body_total_bytes(), held + 18);
	assert_int_equal(m->size_bytes, 18);
	assert_true(m->is_8bit_body);
	message_set_prefix(m, STR("X-A: 1\r\n"));
	assert_int_equal(m->size_bytes, 26);
	message_set_prefix(m, STR("X: 1\r\n"));
	assert_int_equal(m->size_bytes, 24);
	message_set_body(m, NULL);
	assert_int_equal(m->size_bytes, 24);
	assert_true(m->is_8bit_body);
	assert_int_equal(body_total_bytes(), held);
	struct body *b = body_new(STR("plain"));
	message_set_body(m, b);
	message_set_body(m, b);
	assert_int_equal(m->size_bytes, 11);
	assert_false(m->is_8bit_body);
	body_unref(b);
	message_set_prefix(m, STR("X: \xe4\r\n"));
	assert_true(m->is_8bit_body);
	message_keep_recipients(m, (bool[]){false, true});
	assert_int_equal(m->n_rcpt, 1);
	assert_string_equal(m->rcpt[0], "two@example.net");
	message_set_recipients(m, (str_t[]){str_of(m->rcpt[0]), STR("three@example.net")},
			       2); /* from its own */
	assert_int_equal(m->n_rcpt, 2);
	assert_string_equal(m->rcpt[0], "two@example.net");
	assert_string_equal(m->rcpt[1], "three@example.net");
	message_set_sender(m, str_skip(str_of(m->sender), 2));
	assert_string_equal(m->sender, "example.org");
	dur_t age = wall_sub(wall_now(), message_created(m));
	assert_true(age.ns >= -NS_PER_S && age.ns < 60 * NS_PER_S);
	message_ref(m);
	message_unref(m);
	message_unref(m);
	assert_int_equal(body_total_bytes(), held);
}

static void test_message_queue_names(void **state)
{
	static const struct {
		const char *queue, *campaign, *tenant, *routing; /* JSON texts */
		const char *name;				 /* NULL: refused */
	} cases[] = {
		{NULL, NULL, NULL, NULL, "example.com"},
		{NULL, NULL, "\"t\"", NULL, "t@example.com"},
		{NULL, "\"c\"", "\"t\"", NULL, "c:t@example.com"},
		{NULL, "\"c\"", NULL, NULL, "c:@example.com"},
		{NULL, "\"c\"", "\"t\"", "\"R.example\"", "c:t@example.com!R.example"},
		{NULL, NULL, NULL, "\"r\"", "example.com!r"},
		{NULL, NULL, "\"a\\u00e4\"", NULL, "a\xc3\xa4@example.com"},
		{"\"Any:Thing@All\"", "1", NULL, NULL, "Any:Thing@All"},
		{"1", NULL, NULL, NULL, NULL},
		{NULL, "true", NULL, NULL, NULL},
		{NULL, NULL, "[\"t\"]", NULL, NULL},
		{NULL, NULL, NULL, "null", "example.com"}, /* what set_meta(name, nil) leaves */
		{"null", "null", "\"t\"", NULL, "t@example.com"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message *m = sample_message();
		struct buf out = BUF_INIT;
		if (cases[i].queue != NULL)
			meta_set_json(&m->meta, STR("queue"), str_of(cases[i].queue));
		if (cases[i].campaign != NULL)
			meta_set_json(&m->meta, STR("campaign"), str_of(cases[i].campaign));
		if (cases[i].tenant != NULL)
			meta_set_json(&m->meta, STR("tenant"), str_of(cases[i].tenant));
		if (cases[i].routing != NULL)
			meta_set_json(&m->meta, STR("routing_domain"), str_of(cases[i].routing));
		int rc = message_queue_name(m, &out);
		assert_int_equal(rc, cases[i].name != NULL ? 0 : -1);
		if (rc == 0)
			assert_string_equal(out.p, cases[i].name);
		else
			assert_true(err_is(ERR_INVALID));
		err_clear();
		buf_fini(&out);
		message_unref(m);
	}
}

static void test_message_queue_name_needs_domain(void **state)
{
	struct buf out = BUF_INIT;
	struct message *m = message_new(STR(""), (str_t[]){STR("Postmaster")}, 1, NULL);
	assert_int_equal(message_queue_name(m, &out), -1);
	message_keep_recipients(m, (bool[]){false});
	assert_int_equal(message_queue_name(m, &out), -1);
	meta_set_str(&m->meta, STR("queue"), STR("q"));
	assert_int_equal(message_queue_name(m, &out), 0);
	message_unref(m);
	m = message_new(STR(""), (str_t[]){STR("\"a@b\"@C.example")}, 1, NULL);
	buf_clear(&out);
	assert_int_equal(message_queue_name(m, &out), 0);
	assert_string_equal(out.p, "c.example");
	message_unref(m);
	buf_fini(&out);
	err_clear();
}

/* Both forms of an international name are one queue (RFC 5891). */
static void test_message_queue_name_is_ascii(void **state)
{
	static const char *const cases[][2] = {
		{"a@b\xc3\xbc"
		 "cher.example",
		 "xn--bcher-kva.example"},
		{"\xc3\xbc@B\xc3\x9c"
		 "CHER.Example",
		 "xn--bcher-kva.example"},
		{"a@XN--BCHER-KVA.example", "xn--bcher-kva.example"},
		{"a@\xef\xbc\xa0.Example", "\xef\xbc\xa0.example"}, /* its mapping is no name */
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		struct message *m = message_new(STR(""), (str_t[]){str_of(cases[i][0])}, 1, NULL);
		meta_set_str(&m->meta, STR("tenant"), STR("t"));
		assert_int_equal(message_queue_name(m, &out), 0);
		assert_memory_equal(out.p, "t@", 2);
		assert_string_equal(out.p + 2, cases[i][1]);
		buf_fini(&out);
		message_unref(m);
	}
}

static void test_message_header_utf8(void **state)
{
	static const struct {
		const char *prefix, *data;
		enum message_utf8 want;
	} cases[] = {
		{"", "Subject: x\r\n\r\nh\xc3\xa9\r\n", MESSAGE_UTF8_NONE},
		{"", "Subject: h\xc3\xa9\r\n\r\nx\r\n", MESSAGE_UTF8_TEXT},
		{"X: h\xc3\xa9\r\n", "Subject: x\r\n\r\nx\r\n", MESSAGE_UTF8_TEXT},
		{"", "Subject: h\xe9\r\nFrom: \xe9@example.com\r\n\r\n", MESSAGE_UTF8_NONE}, /* Latin-1 */
		{"", "From: J\xc3\xb6rg <j@example.com>\r\n\r\n", MESSAGE_UTF8_TEXT},
		{"", "From: j <j\xc3\xb6@example.com>\r\n\r\n", MESSAGE_UTF8_ADDRESS},
		{"", "Subject: h\xc3\xa9\r\nreply-TO: j\xc3\xb6@example.com\r\n\r\n", MESSAGE_UTF8_ADDRESS},
		{"", "Resent-Cc: a@b, g: x@y, z@\xc3\xbc.example;\r\n\r\n", MESSAGE_UTF8_ADDRESS},
		{"To: <\xc3\xa9@example.com>\r\n", "Subject: x\r\n\r\n", MESSAGE_UTF8_ADDRESS},
		{"", "From: not an address \xc3\xa9\r\n\r\n", MESSAGE_UTF8_TEXT},
		{"", "X-From: \xc3\xa9@example.com\r\n\r\n", MESSAGE_UTF8_TEXT},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct body *b = body_new(str_of(cases[i].data));
		struct message *m = message_new(STR("s@example.org"), (str_t[]){STR("r@example.org")}, 1, b);
		message_set_prefix(m, str_of(cases[i].prefix));
		assert_int_equal(message_header_utf8(m), cases[i].want);
		assert_true(err_is(ERR_NONE));
		body_unref(b);
		message_unref(m);
	}
}

static void check_part(str_t got, const char *want)
{
	if (want == NULL)
		assert_null(got.p);
	else
		assert_true(got.p != NULL && str_eq(got, str_of(want)));
}

static void test_queue_name_parse(void **state)
{
	static const struct {
		const char *name, *campaign, *tenant, *domain, *routing;
	} cases[] = {
		{"d", NULL, NULL, "d", NULL},	    {"t@d", NULL, "t", "d", NULL},
		{"c:t@d", "c", "t", "d", NULL},	    {"c:@d", "c", "", "d", NULL},
		{"@d", NULL, "", "d", NULL},	    {"c:t@d!r", "c", "t", "d", "r"},
		{"d!r", NULL, NULL, "d", "r"},	    {"d:2025", NULL, NULL, "d:2025", NULL},
		{"a:b:c@d", "a", "b:c", "d", NULL}, {"a@b@c", NULL, "a", "b@c", NULL},
		{"d!a!b", NULL, NULL, "d", "a!b"},  {"x!y@d", NULL, "x!y", "d", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct queue_name q;
		queue_name_parse(str_of(cases[i].name), &q);
		check_part(q.campaign, cases[i].campaign);
		check_part(q.tenant, cases[i].tenant);
		check_part(q.domain, cases[i].domain);
		check_part(q.routing_domain, cases[i].routing);
	}
}

/* What has to be stored again. */
static void test_message_changes(void **state)
{
	struct message *m = sample_message();
	assert_false(m->is_changed || m->is_body_changed);
	message_set_sender(m, STR(""));
	assert_true(m->is_changed);
	m->is_changed = false;
	message_set_recipients(m, (str_t[]){STR("a@b")}, 1);
	assert_true(m->is_changed);
	m->is_changed = false;
	message_add_prefix(m, STR("X: 1\r\n"));
	assert_true(m->is_changed);
	m->is_changed = false;
	message_set_schedule(m, xnew(struct schedule));
	assert_true(m->is_changed && m->schedule != NULL);
	message_set_schedule(m, NULL);
	m->is_changed = false;
	struct body *same = body_ref(m->body), *b = body_new(STR("new"));
	message_set_body(m, NULL); /* as the queues do: the spool has it */
	message_set_body(m, same);
	message_replace_body(m, same);
	assert_false(m->is_changed || m->is_body_changed);
	message_replace_body(m, b);
	assert_true(m->is_changed && m->is_body_changed);
	assert_int_equal(m->size_bytes, 6 + 3);
	body_unref(same);
	body_unref(b);
	message_unref(m);
}

static void test_record_round_trip(void **state)
{
	struct message *m = sample_message();
	struct buf rec = BUF_INIT;
	char prefix[256];
	for (int i = 0; i < 256; i++)
		prefix[i] = (char)i;
	message_set_prefix(m, str_mk(prefix, sizeof prefix));
	meta_set_str(&m->meta, STR("tenant"), STR("t\xc3\xa4\"\\"));
	meta_set_json(&m->meta, STR("k\xff\0z"), STR("{\"deep\":[1,2.5,null]}"));
	free(m->sender);
	m->sender = str_dup(STR("s\xff@\xfe"));
	m->n_attempts = 65535;
	m->due = (wall_t){-12345678901};
	message_encode(m, &rec);
	struct message *d = message_decode(&m->id, buf_str(&rec));
	assert_non_null(d);
	assert_true(uuid_eq(&d->id, &m->id));
	assert_string_equal(d->sender, m->sender);
	assert_int_equal(d->n_rcpt, 2);
	assert_string_equal(d->rcpt[0], "one@Example.COM");
	assert_string_equal(d->rcpt[1], "two@example.net");
	assert_int_equal(d->n_prefix_bytes, 256);
	assert_memory_equal(d->prefix, prefix, 256);
	assert_int_equal(d->size_bytes, m->size_bytes);
	assert_int_equal(d->n_attempts, 65535);
	assert_int_equal(d->due.ns, m->due.ns);
	assert_true(d->is_8bit_body);
	assert_null(d->body);
	str_t v;
	assert_true(meta_get_json(&d->meta, STR("k\xff\0z"), &v) &&
		    str_eq(v, STR("{\"deep\":[1,2.5,null]}")));
	assert_true(meta_get_json(&d->meta, STR("tenant"), &v) && str_eq(v, STR("\"t\xc3\xa4\\\"\\\\\"")));
	/* what was decoded encodes to the same bytes */
	struct buf again = BUF_INIT;
	message_encode(d, &again);
	assert_true(str_eq(buf_str(&rec), buf_str(&again)));
	buf_fini(&again);
	buf_fini(&rec);
	message_unref(d);
	message_unref(m);
}

static struct schedule *sample_schedule(unsigned parts)
{
	struct schedule *s = xnew(struct schedule);
	if ((parts & 1) != 0)
		s->first_attempt = (struct schedule_time){{1234567890123456789}, -28800, true};
	if ((parts & 2) != 0)
		s->expires = (struct schedule_time){{-5}, 86340, true};
	if ((parts & 4) != 0) {
		s->dow = 0x55;
		s->start = (struct schedule_clock){86399, true};
		s->end = (struct schedule_clock){0, true};
		assert_int_equal(schedule_set_zone(s, STR("America/Phoenix")), 0);
	}
	return s;
}

static void test_record_schedule(void **state)
{
	for (unsigned parts = 0; parts < 8; parts++) {
		struct message *m = sample_message();
		struct buf rec = BUF_INIT, again = BUF_INIT;
		message_set_schedule(m, sample_schedule(parts));
		message_encode(m, &rec);
		struct message *d = message_decode(&m->id, buf_str(&rec));
		assert_non_null(d);
		const struct schedule *s = d->schedule;
		assert_non_null(s);
		assert_int_equal(s->first_attempt.is_set, (parts & 1) != 0);
		assert_int_equal(s->first_attempt.at.ns, (parts & 1) != 0 ? 1234567890123456789 : 0);
		assert_int_equal(s->first_attempt.offset_s, (parts & 1) != 0 ? -28800 : 0);
		assert_int_equal(s->expires.is_set, (parts & 2) != 0);
		assert_int_equal(s->expires.at.ns, (parts & 2) != 0 ? -5 : 0);
		assert_int_equal(s->dow, (parts & 4) != 0 ? 0x55 : 0);
		assert_int_equal(s->start.s, (parts & 4) != 0 ? 86399 : 0);
		assert_int_equal(s->end.is_set, (parts & 4) != 0);
		if ((parts & 4) != 0) {
			assert_string_equal(s->tz, "America/Phoenix");
			assert_ptr_equal(s->zone, zone_find(STR("America/Phoenix")));
		}
		message_encode(d, &again);
		assert_true(str_eq(buf_str(&rec), buf_str(&again)));
		message_unref(d);
		message_unref(m);
		buf_fini(&rec);
		buf_fini(&again);
	}
}

/* The zone has gone from the system: the message is kept, and so is the name. */
static void test_record_unknown_zone(void **state)
{
	struct message *m = sample_message();
	struct buf rec = BUF_INIT, again = BUF_INIT;
	message_set_schedule(m, sample_schedule(4));
	memcpy(m->schedule->tz, "America/Foenixx", 15);
	message_encode(m, &rec);
	struct message *d = message_decode(&m->id, buf_str(&rec));
	assert_non_null(d);
	assert_null(d->schedule->zone);
	assert_string_equal(d->schedule->tz, "America/Foenixx");
	message_encode(d, &again);
	assert_true(str_eq(buf_str(&rec), buf_str(&again)));
	message_unref(d);
	message_unref(m);
	buf_fini(&rec);
	buf_fini(&again);
}

/* As the version before schedules wrote it. */
static void test_record_version_1(void **state)
{
	static const char rec[] = "\1\1\3\0\x1a\0\0\0\0\xca\x9a\x3b\0\0\0\0"
				  "\6s@a.bc"
				  "\2\3r@x\3q@y"
				  "\1\6tenant\3\"t\""
				  "\6X: 1\r\n";
	str_t text = str_mk(rec, sizeof rec - 1), v;
	struct uuid id = {{1}};
	struct message *d = message_decode(&id, text);
	assert_non_null(d);
	assert_true(d->is_8bit_body);
	assert_int_equal(d->n_attempts, 3);
	assert_int_equal(d->size_bytes, 26);
	assert_int_equal(d->due.ns, 1000000000);
	assert_string_equal(d->sender, "s@a.bc");
	assert_int_equal(d->n_rcpt, 2);
	assert_string_equal(d->rcpt[1], "q@y");
	assert_true(meta_get_json(&d->meta, STR("tenant"), &v) && str_eq(v, STR("\"t\"")));
	assert_true(str_eq(str_mk(d->prefix, d->n_prefix_bytes), STR("X: 1\r\n")));
	assert_null(d->schedule);
	message_unref(d);
	/* It had no schedules, and there is no version 0 or 3. */
	for (char version = 0; version < 4; version++) {
		char other[sizeof rec];
		memcpy(other, rec, sizeof rec);
		other[0] = version;
		other[1] = version == 1 ? 3 : 1;
		d = message_decode(&id, str_mk(other, text.n));
		assert_int_equal(d != NULL, version == 2);
		message_unref(d);
		err_clear();
	}
}

/* Every cut is refused; every changed byte is decoded or refused, never read out of bounds (the sanitizers
 * watch). */
static void test_record_hostile(void **state)
{
	struct message *m = sample_message();
	struct buf rec = BUF_INIT;
	meta_set_str(&m->meta, STR("tenant"), STR("t"));
	message_set_prefix(m, STR("X-A: 1\r\n"));
	message_set_schedule(m, sample_schedule(7));
	message_encode(m, &rec);
	for (size_t n = 0; n < rec.n; n++) {
		char *exact = test_malloc(n + 1);
		memcpy(exact, rec.p, n);
		assert_null(message_decode(&m->id, str_mk(exact, n)));
		assert_true(err_is(ERR_CORRUPT));
		test_free(exact);
	}
	uint32_t seed = 1;
	for (int round = 0; round < 20000; round++) {
		char *exact = test_malloc(rec.n);
		memcpy(exact, rec.p, rec.n);
		for (int k = 0; k <= round % 3; k++) {
			seed = seed * 1664525 + 1013904223;
			exact[(seed >> 8) % rec.n] = (char)(seed >> 24);
		}
		struct message *d = message_decode(&m->id, str_mk(exact, rec.n));
		if (d == NULL)
			assert_true(err_is(ERR_CORRUPT));
		message_unref(d);
		test_free(exact);
	}
	/* counts that do not fit are refused before anything is allocated for them */
	char huge[32] = {1, 0};
	memset(huge + 16, 0xff, 16);
	huge[16] = 0;
	huge[24] = 0x7f;
	assert_null(message_decode(&m->id, str_mk(huge, sizeof huge)));
	err_clear();
	buf_fini(&rec);
	message_unref(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message_parts),
		cmocka_unit_test(test_message_queue_names),
		cmocka_unit_test(test_message_queue_name_needs_domain),
		cmocka_unit_test(test_message_queue_name_is_ascii),
		cmocka_unit_test(test_message_header_utf8),
		cmocka_unit_test(test_queue_name_parse),
		cmocka_unit_test(test_message_changes),
		cmocka_unit_test(test_record_round_trip),
		cmocka_unit_test(test_record_schedule),
		cmocka_unit_test(test_record_unknown_zone),
		cmocka_unit_test(test_record_version_1),
		cmocka_unit_test(test_record_hostile),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
