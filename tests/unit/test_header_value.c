/* test_header_value.c - ids, parameters, authentication results and charsets: reading, refusing, and writing
 * whole fields again. */
#include "mime/header_value.h"

#include "base/err.h"
#include "mime/auth_results.h"
#include "mime/charset.h"
#include "mime/message_id.h"
#include "mime/mime_params.h"
#include "ut.h"

static void test_message_id(void **state)
{
	static const struct {
		const char *in, *id; /* NULL: refused */
	} cases[] = {
		{" <a@b> ", "a@b"},
		{"(c) <a@b>\r\n\t(d)", "a@b"},
		{"<<a@b>>", "a@b"},
		{"<!&!AAA~=\"x\"@y>", "!&!AAA~=\"x\"@y"},
		{"<no-at>", "no-at"},
		{"a@b", NULL},
		{"", NULL},
		{"<a@b", NULL},
		{"<a b@c>", NULL},
		{"<>", NULL},
		{"<a@b> <c@d>", NULL},
		{"<<a@b>", NULL},
		{"<a\x01@b>", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		str_t id = STR_NULL;
		int rc = message_id_parse(str_of(cases[i].in), &id);
		if ((rc == 0) != (cases[i].id != NULL) || (rc == 0 && !str_eq(id, str_of(cases[i].id))))
			fail_msg("%s: %d '" STR_FMT "'", cases[i].in, rc, STR_ARG(id));
		assert_true(rc == 0 || err_is(ERR_INVALID));
		err_clear();
	}
	assert_false(message_id_is_valid(STR("a\r\nb")));
	assert_false(message_id_is_valid(STR("a>b")));
	assert_false(message_id_is_valid(STR("")));
	assert_false(message_id_is_valid(STR("\xff")));
	assert_true(message_id_is_valid(STR("a@b")));
	str_t list = STR(" <a@b>\r\n <c@d>,<e@f> (x) "), id;
	assert_int_equal(message_id_next(&list, &id), 1);
	assert_str_is(id, "a@b");
	assert_int_equal(message_id_next(&list, &id), 1);
	assert_str_is(id, "c@d");
	assert_int_equal(message_id_next(&list, &id), 1);
	assert_str_is(id, "e@f");
	assert_int_equal(message_id_next(&list, &id), 0);
	list = STR("Your message <a@b>");
	assert_int_equal(message_id_next(&list, &id), -1);
	err_clear();
}

static void test_mime_params_parse(void **state)
{
	static const struct {
		const char *in, *want; /* NULL: refused */
	} cases[] = {
		{"text/plain", "text/plain"},
		{" text/plain ; Charset=\"us-ascii\"\r\n", "text/plain|charset=us-ascii"},
		{"text/plain; charset=us-ascii (comment); x=(c)y", "text/plain|charset=us-ascii|x=y"},
		{"a/b; n=\"x\\\"y;z\"; m=2", "a/b|n=x\"y;z|m=2"},
		{"a/b;; ; n = v ;", "a/b|n=v"},
		{"a/b; name=foo bar [1].pdf; m=2", "a/b|name=foo bar [1].pdf|m=2"},
		{"a/b; name=\"no end", "a/b|name=no end"},
		{"a/b; novalue; m=2", "a/b|m=2"},
		{"a/b; n=1; n=2", "a/b|n=1"},
		{"attachment; filename*=UTF-8''gr%C3%B6%C3%9Fe.txt", "attachment|filename=gr\xc3\xb6\xc3\x9f"
								     "e.txt"},
		{"attachment; filename*=iso-8859-1'de'gr%F6%DFe.txt", "attachment|filename=gr\xc3\xb6\xc3\x9f"
								      "e.txt"},
		{"a; f*0=a; f*1=\"b c\"; f*2=d", "a|f=ab cd"},
		{"a; f*2=d; f*0*=utf-8''%C3; f*1*=%BC%; m=1", "a|f=\xc3\xbc%d|m=1"},
		{"a; f*0=x; f*2=z", "a|f=x"},
		{"a; f*1=x", "a"},
		{"a; f=plain; f*=utf-8''%C3%BC", "a|f=\xc3\xbc"},
		{"a; f*0*=utf-8''%C3%BC; f=plain", "a|f=\xc3\xbc"},
		{"a; f=\"=?utf-8?q?=C3=BC?= =?utf-8?q?x?=\"", "a|f=\xc3\xbcx"},
		{"a; f==?utf-8?q?=C3=BC?=", "a|f=\xc3\xbc"},
		{"a; f*0=\"=?utf-8?q?=C3=BC?=\"; f*1=\" =?utf-8?q?x?=\"", "a|f=\xc3\xbcx"},
		{"a; f=\"gr\xf6\"", "a|f=gr\xc3\xb6"},
		{"a; f*=nonsense'x", "a|f=nonsense'x"},
		{"a; f*=no-such'x'%FF", "a|f=\xc3\xbf"},
		{"base64", "base64"},
		{"\"x y\"", "x y"},
		{"", NULL},
		{"; a=b", NULL},
		{"(only a comment)", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_params p;
		struct buf got = BUF_INIT;
		int rc = mime_params_parse(str_of(cases[i].in), &p);
		if (rc == 0) {
			buf_add_str(&got, p.value);
			for (size_t k = 0; k < p.n; k++)
				buf_printf(&got, "|" STR_FMT "=" STR_FMT, STR_ARG(p.param[k].name),
					   STR_ARG(p.param[k].value));
			mime_params_fini(&p);
		}
		if ((rc == 0) != (cases[i].want != NULL) ||
		    (rc == 0 && !str_eq(buf_str(&got), str_of(cases[i].want))))
			fail_msg("%s: %d " STR_FMT, cases[i].in, rc, STR_ARG(buf_str(&got)));
		err_clear();
		buf_fini(&got);
	}
}

static void test_mime_params_set(void **state)
{
	struct mime_params p;
	assert_int_equal(mime_params_parse(STR("text/plain; a=1; b=2"), &p), 0);
	mime_params_set(&p, STR("A"), STR("3"));
	mime_params_set(&p, STR("a"), STR_NULL);
	mime_params_set(&p, STR("C"), STR("\xc3\xbc"));
	assert_str_is(mime_params_get(&p, STR("b")), "2");
	assert_str_is(mime_params_get(&p, STR("c")), "\xc3\xbc");
	assert_int_equal(mime_params_check(&p), 0);
	static const struct {
		const char *name, *value;
	} bad[] = {{"x", "a\r\nb"}, {"x y", "v"}, {"x\n", "v"}, {"x*0", "v"}, {"", "v"}, {"x", "\xff"}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		mime_params_set(&p, str_of(bad[i].name), str_of(bad[i].value));
		if (mime_params_check(&p) == 0)
			fail_msg("%s=%s was accepted", bad[i].name, bad[i].value);
		err_clear();
		mime_params_set(&p, str_of(bad[i].name), STR_NULL);
	}
	assert_int_equal(mime_params_check(&p), 0);
	static const char *const bad_values[] = {"",	"text/", "/plain", "a/b/c",
						 "a b", "a;b",	 "a\r\nb", "\xc3\xbc"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_values); i++) {
		p.value = str_of(bad_values[i]);
		assert_int_equal(mime_params_check(&p), -1);
		err_clear();
	}
	mime_params_fini(&p);
}

static void test_auth_results(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: refused */
	} cases[] = {
		{"mx.example.com; none", "mx.example.com; none"},
		{"mx.example.com 1; none", "mx.example.com 1; none"},
		{"mx.example.com", "mx.example.com; none"},
		{"mx.example.com; dkim=pass header.d=x.example header.b=jo0EO4dX; spf=fail (no) "
		 "smtp.mailfrom=a@b.example",
		 "mx.example.com;\r\n dkim=pass header.d=x.example header.b=jo0EO4dX;\r\n spf=fail "
		 "smtp.mailfrom=a@b.example"},
		{"x; dmarc/1 = fail reason=\"a b\" policy.p=\"q;r\"",
		 "x;\r\n dmarc/1=fail reason=\"a b\" policy.p=\"q;r\""},
		{"x; dkim=pass header.i=\"a b\"@c", "x;\r\n dkim=pass header.i=\"a b@c\""},
		{"x; dkim=pass;; spf=none;", "x;\r\n dkim=pass;\r\n spf=none"},
		{"x; none=pass", "x;\r\n none=pass"},
		{"", NULL},
		{"; none", NULL},
		{"x y; none", NULL},
		{"x; dkim", NULL},
		{"x; dkim=", NULL},
		{"x; dkim/x=pass", NULL},
		{"x; dkim=pass header.d", NULL},
		{"x; dkim=pass header.d=\"no end", NULL},
		{"x; dkim=pass =y", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct auth_results r;
		struct buf out = BUF_INIT;
		struct header_writer w = {.out = &out};
		int rc = auth_results_parse(str_of(cases[i].in), &r);
		if (rc == 0) {
			assert_int_equal(auth_results_check(&r), 0);
			auth_results_write(&r, &w);
			auth_results_fini(&r);
		}
		str_t got = str_trim(buf_str(&out));
		if ((rc == 0) != (cases[i].out != NULL) || (rc == 0 && !str_eq(got, str_of(cases[i].out))))
			fail_msg("%s: %d '" STR_FMT "' %s", cases[i].in, rc, STR_ARG(got), err_text());
		assert_true(rc == 0 || err_is(ERR_INVALID));
		err_clear();
		buf_fini(&out);
	}
	struct auth_prop prop = {STR("header.d"), STR("a\r\nb")};
	struct auth_result bad = {.method = STR("dkim"), .result = STR("pass"), .prop = &prop, .n_props = 1};
	struct auth_results r = {.server_id = STR("x"), .v = &bad, .n = 1};
	assert_int_equal(auth_results_check(&r), -1);
	assert_string_equal(err_text(), "authentication result 1: the property cannot be written");
	prop.value = STR("ok"), bad.method = STR("dk im");
	assert_int_equal(auth_results_check(&r), -1);
	bad.method = STR("dkim"), bad.reason = STR("x\ny");
	assert_int_equal(auth_results_check(&r), -1);
	bad.reason = STR_NULL, r.server_id = STR("a\nb");
	assert_int_equal(auth_results_check(&r), -1);
	err_clear();
}

static void test_header_write_named(void **state)
{
	static const struct {
		const char *name, *text, *out;
	} cases[] = {
		{"X-A", "b", "X-A: b\r\n"},
		{"Cc", "Ann <a@b>, c@d", "Cc: Ann <a@b>, c@d\r\n"},
		{"Cc", "Zo\xc3\xab, Jr <a@b>",
		 "Cc: =?UTF-8?q?Zo=C3=AB=2C?= Jr <a@b>\r\n"}, /* no list: text */
		{"Cc", "\"Zo\xc3\xab, Jr\" <a@b>", "Cc: =?UTF-8?q?Zo=C3=AB=2C_Jr?= <a@b>\r\n"},
		{"List-Unsubscribe",
		 "<https://example.com/unsubscribe?u=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa>, "
		 "<mailto:u@example.com>",
		 "List-Unsubscribe: "
		 "<https://example.com/unsubscribe?u=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa>,\r\n"
		 " <mailto:u@example.com>\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		header_write_named(&out, str_of(cases[i].name), str_of(cases[i].text));
		assert_str_is(buf_str(&out), cases[i].out);
		buf_fini(&out);
	}
}

static void test_header_write_again(void **state)
{
	static const struct {
		const char *name, *raw, *out;
	} cases[] = {
		{"Subject", " =?utf-8?q?=C3=BC?= x", "Subject: =?utf-8?q?=C3=BC?= x\r\n"},
		{"Subject", " \xc3\xbc x", "Subject: =?UTF-8?q?=C3=BC?= x\r\n"},
		{"Subject",
		 " \xfc =?utf-8?q?=C3=BC?=", "Subject: =?UTF-8?q?=C3=BC_?= =?utf-8?q?=C3=BC?=\r\n"},
		{"Subject", " a\r\n\tb", "Subject: a\tb\r\n"},
		{"From", " \"\xd7\x94\xd7\xaa \xd7\x94\xd7\xaa\" <t@x.example>",
		 "From: =?UTF-8?q?=D7=94=D7=AA_=D7=94=D7=AA?= <t@x.example>\r\n"},
		{"From", " broken <", "From: broken <\r\n"},
		{"Message-ID", " <<a@b>>", "Message-ID: <a@b>\r\n"},
		{"Message-ID", " a@b", "Message-ID: a@b\r\n"},
		{"References", "<a@b>\r\n\t<c@d>", "References: <a@b> <c@d>\r\n"},
		{"Content-Type", " TEXT/Plain;charset=utf-8",
		 "Content-Type: TEXT/Plain; charset=\"utf-8\"\r\n"},
		{"Content-Disposition", " attachment; filename=\"gr\xfc.txt\"",
		 "Content-Disposition: attachment; filename*=UTF-8''gr%C3%BC.txt\r\n"},
		{"Authentication-Results", " x; dkim=pass header.d=y",
		 "Authentication-Results: x;\r\n dkim=pass header.d=y\r\n"},
		{"Subject", " (=?utf-8?q?=C3=BC?=)", "Subject: (=?utf-8?q?=C3=BC?=)\r\n"},
		{"From", "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <a@b>",
		 "From: =?UTF-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <a@b>\r\n"},
		{"Content-Type", " te\x01xt/pla/in; a b=c; d=\"e\x01\"; n*=utf-8''=%3Futf-8%3Fq%3Fx%3F=",
		 "Content-Type: te_xt/pla_in; d=\"e_\"; n*=UTF-8''%3D%3Futf-8%3Fq%3Fx%3F%3D\r\n"},
		{"Content-Type", " /", "Content-Type: _\r\n"},
		{"Content-Disposition", " attachment; ;filename", "Content-Disposition: attachment\r\n"},
		{"Empty", "", "Empty:\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT, twice = BUF_INIT;
		str_t name = str_of(cases[i].name);
		header_write_again(&out, name, str_of(cases[i].raw));
		assert_str_is(buf_str(&out), cases[i].out);
		header_write_again(&twice, name, str_skip(str_head(buf_str(&out), out.n - 2), name.n + 1));
		assert_str_is(buf_str(&twice), cases[i].out);
		assert_int_equal(err_kind(), ERR_NONE);
		buf_fini(&out);
		buf_fini(&twice);
	}
}

static void test_charset(void **state)
{
	static const struct {
		const char *charset, *in, *out; /* NULL: refused */
	} cases[] = {
		{"UTF-8", "\xc3\xbc", "\xc3\xbc"},
		{"utf-8", "\xff", NULL},
		{"us-ascii", "\xc3\xbc", "\xc3\xbc"},
		{"ISO-8859-1", "\xfc", "\xc3\xbc"},
		{"iso-8859-15", "\xa4", "\xe2\x82\xac"},
		{"MS949", "\xb0\xa1", "\xea\xb0\x80"},
		{"ks_c_5601-1987", "\xb0\xa1", "\xea\xb0\x80"},
		{"x-sjis", "\x93\xfa", "\xe6\x97\xa5"},
		{"gb2312", "\xc8\xd5", "\xe6\x97\xa5"},
		{"iso-2022-jp", "\x1b$BF|\x1b(B", "\xe6\x97\xa5"},
		{"utf-16be", "\x65\xe5", "\xe6\x97\xa5"},
		{"no-such-set", "a", NULL},
		{"utf-8//TRANSLIT", "a", NULL},
		{"", "a", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		bool is_ok = charset_to_utf8(str_of(cases[i].charset), str_of(cases[i].in), &out);
		if (is_ok != (cases[i].out != NULL) ||
		    (is_ok && !str_eq(buf_str(&out), str_of(cases[i].out))) || (!is_ok && out.n != 0))
			fail_msg("%s: %d '" STR_FMT "'", cases[i].charset, is_ok, STR_ARG(buf_str(&out)));
		buf_fini(&out);
	}
	struct buf out = BUF_INIT;
	assert_false(charset_to_utf8_lenient(STR("koi8-r\n"), STR("\xfc"), &out));
	assert_buf_is(&out, "\xc3\xbc");
	assert_true(charset_to_utf8_lenient(STR(""), STR("x"), &out));
	assert_buf_is(&out, "\xc3\xbcx");
	buf_fini(&out);
}

/* Many parameters, sections, comments: linear (n log n), no recursion. */
static void test_header_value_size(void **state)
{
	static const char *const unit[] = {";a=b", ";a*0=b", "(",    "((a)", ";a*1*=%41",  "\"",       "\\",
					   "a",	   ";a=\"",  "<a> ", ",",    "=?a?q?b?= ", ";x=y z=w "};
	for (size_t k = 0; k < ARRAY_SIZE(unit); k++) {
		struct buf b = BUF_INIT;
		buf_add_z(&b, "x");
		while (b.n < 1 << 20)
			buf_add_z(&b, unit[k]);
		struct mime_params p;
		struct auth_results r;
		str_t rest = buf_str(&b), id;
		if (mime_params_parse(buf_str(&b), &p) == 0)
			mime_params_fini(&p);
		if (auth_results_parse(buf_str(&b), &r) == 0)
			auth_results_fini(&r);
		while (message_id_next(&rest, &id) == 1)
			;
		err_clear();
		buf_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message_id),
		cmocka_unit_test(test_mime_params_parse),
		cmocka_unit_test(test_mime_params_set),
		cmocka_unit_test(test_auth_results),
		cmocka_unit_test(test_header_write_named),
		cmocka_unit_test(test_header_write_again),
		cmocka_unit_test(test_charset),
		cmocka_unit_test(test_header_value_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
