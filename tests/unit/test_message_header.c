/* test_message_header.c - the header of a message in two pieces: read, added to, taken from, imported into
 * metadata. */
#include "ut.h"

#include "base/err.h"
#include "mail/message_header.h"

static struct message *message_of(const char *prefix, const char *body)
{
	str_t rcpt = STR("r@example.com");
	struct body *b = body_new(str_of(body));
	struct message *m = message_new(STR("s@example.com"), &rcpt, 1, b);
	body_unref(b);
	message_set_prefix(m, str_of(prefix));
	m->is_changed = false;
	return m;
}

static void check_data(const struct message *m, const char *prefix, const char *body)
{
	assert_str_is(str_mk(m->prefix, m->n_prefix_bytes), prefix);
	assert_str_is(str_mk(m->body->p, m->body->n_bytes), body);
	assert_int_equal(m->size_bytes, strlen(prefix) + strlen(body));
}

static void test_iteration(void **state)
{
	static const struct {
		const char *prefix, *body, *names;
	} cases[] = {
		{"", "A: 1\r\nB: 2\r\n\r\nC: 3\r\n", "A B "},
		{"P: 0\r\nQ: 0\r\n", "A: 1\r\n\r\nC: 3\r\n", "P Q A "},
		{"P: 0\r\n", "\r\nC: 3\r\n", "P "},
		{"P: 0\r\n", "", "P "},
		{"", "", ""},
		{"", "no header\r\n", ""},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message *m = message_of(cases[i].prefix, cases[i].body);
		struct message_header_iter it;
		struct header_field f;
		struct buf names = BUF_INIT;
		buf_add_z(&names, "");
		message_header_iter_init(&it, m);
		while (message_header_next(&it, &f))
			buf_printf(&names, STR_FMT " ", STR_ARG(f.name));
		assert_buf_is(&names, cases[i].names);
		buf_fini(&names);
		message_unref(m);
	}
	struct message *m = message_of("x-a: 1\r\n", "X-A: 2\r\nSubject: s\r\n\r\n");
	struct header_field f;
	assert_true(message_header_find(m, STR("X-a"), &f));
	assert_str_is(f.raw_value, " 1");
	assert_true(message_header_find(m, STR("subject"), &f));
	assert_false(message_header_find(m, STR("Subjec"), &f));
	message_unref(m);
}

static void test_append(void **state)
{
	static const struct {
		const char *body, *want;
	} cases[] = {
		{"A: 1\r\n\r\nbody\r\n", "A: 1\r\nX: y\r\n\r\nbody\r\n"},
		{"A: 1\r\n folded\r\n\r\nbody\r\n", "A: 1\r\n folded\r\nX: y\r\n\r\nbody\r\n"},
		{"\r\nbody", "X: y\r\n\r\nbody"},
		{"A: 1\r\n", "A: 1\r\nX: y\r\n"},
		{"A: 1", "A: 1\r\nX: y\r\n"},
		{"", "X: y\r\n"},
		{"A: 1\r\nno field\r\n", "A: 1\r\nX: y\r\nno field\r\n"},
		{"A: 1\n\nbody", "A: 1\nX: y\r\n\nbody"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message *m = message_of("P: 0\r\n", cases[i].body);
		struct body *shared = body_ref(m->body);
		message_append_header(m, STR("X: y\r\n"));
		check_data(m, "P: 0\r\n", cases[i].want);
		assert_true(m->is_changed && m->is_body_changed);
		assert_str_is(str_mk(shared->p, shared->n_bytes), cases[i].body); /* others may have it */
		body_unref(shared);
		message_unref(m);
	}
}

static bool name_is(str_t name, void *arg)
{
	return str_ieq(name, str_of(arg));
}

static void test_remove(void **state)
{
	static const struct {
		const char *prefix, *body, *want_prefix, *want_body;
		size_t n;
	} cases[] = {
		{"x: 1\r\nP: 0\r\n", "A: 1\r\nX: 2\r\n folded\r\nB: 2\r\nX: 3\r\n\r\nX: body\r\n", "P: 0\r\n",
		 "A: 1\r\nB: 2\r\n\r\nX: body\r\n", 3},
		{"P: 0\r\n", "A: 1\r\n\r\nX: body\r\n", "P: 0\r\n", "A: 1\r\n\r\nX: body\r\n", 0},
		{"X: 1\r\n", "A: 1\r\n\r\n", "", "A: 1\r\n\r\n", 1},
		{"", "X: 1\r\n\r\nb", "", "\r\nb", 1},
		{"", "X: 1", "", "", 1},
		{"", "X : 1\r\nA: 1\r\n", "", "A: 1\r\n", 1},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char x[] = "X";
		struct message *m = message_of(cases[i].prefix, cases[i].body);
		assert_int_equal(message_remove_headers(m, name_is, x), cases[i].n);
		check_data(m, cases[i].want_prefix, cases[i].want_body);
		assert_int_equal(m->is_changed, cases[i].n > 0);
		assert_int_equal(m->is_body_changed, strcmp(cases[i].body, cases[i].want_body) != 0);
		message_unref(m);
	}
}

/* --- import --- */

static void check_meta(const struct message *m, const char *want)
{
	struct buf b = BUF_INIT;
	struct json_out j = json_out_to(&b);
	meta_write(&m->meta, &j);
	assert_buf_is(&b, want);
	buf_fini(&b);
}

static const char sample[] = "Received: one\r\n"
			     "X-Campaign-ID: 12345\r\n"
			     "Received: two\r\n folded\r\n"
			     "x-campaign-id: 6\r\n"
			     "X-Mailer: =?utf-8?q?f=C3=B6?=\r\n"
			     "Subject: the subject\r\n"
			     "\r\n"
			     "X-Body: not a header\r\n";

static void test_import(void **state)
{
	static const struct {
		struct header_import spec[3];
		size_t n;
		const char *meta, *body; /* body NULL: unchanged */
	} cases[] = {
		{{{.name = {"x-", 2}, .is_prefix = true, .match = HEADER_LAST}},
		 1,
		 "{\"x_campaign_id\":\"6\",\"x_mailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .match = HEADER_FIRST}},
		 1,
		 "{\"x_campaign_id\":\"12345\",\"x_mailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .match = HEADER_ALL}},
		 1,
		 "{\"x_campaign_id\":[\"12345\",\"6\"],\"x_mailer\":[\"f\xc3\xb6\"]}",
		 NULL},
		{{{.name = {"Received", 8}, .match = HEADER_ALL},
		  {.name = {"Subject", 7}, .match = HEADER_LAST}},
		 2,
		 "{\"received\":[\"one\",\"two folded\"],\"subject\":\"the subject\"}",
		 NULL},
		/* the first spec that matches has it */
		{{{.name = {"X-CAMPAIGN-ID", 13}, .target = {"campaign_id", 11}, .match = HEADER_LAST},
		  {.name = {"X-", 2}, .is_prefix = true}},
		 2,
		 "{\"campaign_id\":\"6\",\"x_mailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .transform = HEADER_CAMEL_CASE}},
		 1,
		 "{\"xCampaignId\":\"12345\",\"xMailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .transform = HEADER_PASCAL_CASE}},
		 1,
		 "{\"XCampaignId\":\"12345\",\"XMailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .transform = HEADER_KEBAB_CASE}},
		 1,
		 "{\"x-campaign-id\":\"12345\",\"x-mailer\":\"f\xc3\xb6\"}",
		 NULL},
		{{{.name = {"X-", 2}, .is_prefix = true, .is_removed = true}},
		 1,
		 "{\"x_campaign_id\":\"12345\",\"x_mailer\":\"f\xc3\xb6\"}",
		 "Received: one\r\nReceived: two\r\n folded\r\n"
		 "Subject: the subject\r\n\r\nX-Body: not a header\r\n"},
		{{{.name = {"X-Nothing", 9}, .match = HEADER_ALL, .is_removed = true}}, 1, "{}", NULL},
		{{{.name = {"", 0}}}, 0, "{}", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct message *m = message_of("", sample);
		assert_int_equal(message_import_headers(m, cases[i].spec, cases[i].n), 0);
		check_meta(m, cases[i].meta);
		check_data(m, "", cases[i].body != NULL ? cases[i].body : sample);
		assert_int_equal(m->is_changed, m->meta.n > 0);
		message_unref(m);
	}
}

static void test_import_keys(void **state)
{
	static const struct {
		const char *name, *key[4]; /* by enum header_transform */
	} cases[] = {
		{"X-Campaign-Id", {"x_campaign_id", "x-campaign-id", "xCampaignId", "XCampaignId"}},
		{"Subject", {"subject", "subject", "subject", "Subject"}},
		{"X_a-B", {"x_a_b", "x-a-b", "xAB", "XAB"}},
		{"-X--y-", {"_x__y_", "-x--y-", "xY", "XY"}},
		{"X-9a.B", {"x_9a.b", "x-9a.b", "x9a.b", "X9a.b"}},
		{"DKIM-Signature", {"dkim_signature", "dkim-signature", "dkimSignature", "DkimSignature"}},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (int t = 0; t < 4; t++) {
			struct buf body = BUF_INIT, want = BUF_INIT;
			buf_printf(&body, "%s: v\r\n\r\n", cases[i].name);
			buf_printf(&want, "{\"%s\":\"v\"}", cases[i].key[t]);
			struct message *m = message_of("", body.p);
			struct header_import spec = {.name = str_of(cases[i].name),
						     .transform = (enum header_transform)t};
			assert_int_equal(message_import_headers(m, &spec, 1), 0);
			check_meta(m, want.p);
			message_unref(m);
			buf_fini(&body);
			buf_fini(&want);
		}
	}
}

/* Who sends a hundred thousand different fields is refused soon; the same field as often is fine. */
static void test_import_many(void **state)
{
	struct buf many = BUF_INIT, same = BUF_INIT;
	for (int i = 0; i < 100000; i++) {
		buf_printf(&many, "X-%d: v\r\n", i);
		buf_add_z(&same, "X-A: v\r\n");
	}
	struct message *m = message_of("", many.p);
	struct header_import spec = {
		.name = STR("X-"), .is_prefix = true, .is_removed = true, .match = HEADER_LAST};
	assert_int_equal(message_import_headers(m, &spec, 1), -1);
	assert_true(err_is(ERR_LIMIT));
	assert_non_null(strstr(err_text(), "1024"));
	err_clear();
	check_meta(m, "{}");
	assert_int_equal(m->size_bytes, many.n);
	message_unref(m);
	m = message_of("", same.p);
	assert_int_equal(message_import_headers(m, &spec, 1), 0);
	check_meta(m, "{\"x_a\":\"v\"}");
	assert_int_equal(m->size_bytes, 0);
	message_unref(m);
	buf_fini(&many);
	buf_fini(&same);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_iteration),   cmocka_unit_test(test_append),
		cmocka_unit_test(test_remove),	    cmocka_unit_test(test_import),
		cmocka_unit_test(test_import_keys), cmocka_unit_test(test_import_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
