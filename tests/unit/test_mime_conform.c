/* test_mime_conform.c - which issues are found, and that
 * they are gone after a fix while the meaning is not. */
#include "mime/mime_conform.h"

#include "base/clock.h"
#include "base/err.h"
#include "ut.h"

#define OK "Date: Mon, 23 Nov 2026 02:33:32 +0000\r\nMessage-ID: <a@b>\r\nMime-Version: 1.0 (x)\r\n"
#define C78 "123456789 123456789 123456789 123456789 123456789 123456789 123456789 12345678"

static void test_issues_words(void **state)
{
	unsigned set;
	struct buf out = BUF_INIT;
	assert_int_equal(mime_issues_parse(STR(" NON_CANONICAL_LINE_ENDINGS | LINE_TOO_LONG"), &set), 0);
	assert_int_equal(set, MIME_LINE_TOO_LONG | MIME_NON_CANONICAL_LINE_ENDINGS);
	mime_issues_write(set, &out);
	assert_buf_is(&out, "LINE_TOO_LONG|NON_CANONICAL_LINE_ENDINGS");
	assert_int_equal(mime_issues_parse(STR(""), &set), 0);
	assert_int_equal(set, 0);
	assert_int_equal(mime_issues_parse(STR("LINE_TOO_LONG|TYPO"), &set), -1);
	assert_true(str_starts(
		str_of(err_text()),
		STR("`TYPO` is no conformance issue: these are LINE_TOO_LONG|MISSING_COLON_VALUE|")));
	err_clear();
	buf_fini(&out);
}

static void test_issues_found(void **state)
{
	static const struct {
		const char *in, *issues;
	} cases[] = {
		{OK "\r\nbody\r\n", ""},
		{"\r\n", "MISSING_DATE_HEADER|MISSING_MESSAGE_ID_HEADER|MISSING_MIME_VERSION"},
		{OK "mime-version: 2\r\n\r\n", ""},
		{"Date: x\r\nMessage-ID: <a@b>\r\nMime-Version: 1.1\r\n\r\n", "MISSING_MIME_VERSION"},
		{OK "Subject\r\n\r\nx", "MISSING_COLON_VALUE"},
		{OK "Subject : x\r\n\r\nx", "NAME_ENDS_WITH_SPACE"},
		{OK "\r\na\nb", "NON_CANONICAL_LINE_ENDINGS"},
		{OK "\r\na\rb", "NON_CANONICAL_LINE_ENDINGS"},
		{OK "Subject: x\n\r\n", "NON_CANONICAL_LINE_ENDINGS"},
		{OK "\r\n" C78 "\r\n", ""},
		{OK "\r\n" C78 "9\r\n", "LINE_TOO_LONG"},
		{OK "Subject: " C78 C78 "\r\n\r\n", ""},
		{OK "\r\n\xc3\xbc", "NEEDS_TRANSFER_ENCODING"},
		{OK "Subject: \xc3\xbc\r\n\r\n", "NEEDS_TRANSFER_ENCODING"},
		{OK "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX : y\r\n\r\n" C78 C78
		    "\r\n--b--\r\n",
		 "LINE_TOO_LONG|NAME_ENDS_WITH_SPACE"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_part *p = mime_part_parse(str_of(cases[i].in));
		struct buf out = BUF_INIT;
		mime_issues_write(mime_part_issues(p), &out);
		if (!str_eq(buf_str(&out), str_of(cases[i].issues)))
			fail_msg("case %zu: " STR_FMT, i, STR_ARG(buf_str(&out)));
		mime_part_unref(p);
		buf_fini(&out);
	}
	struct buf b = BUF_INIT;
	buf_add_z(&b, OK "X: ");
	for (int i = 0; i < 999; i++)
		buf_add_c(&b, 'x');
	struct mime_part *p = mime_part_parse(buf_str(&b));
	assert_int_equal(mime_part_issues(p), MIME_LINE_TOO_LONG);
	mime_part_unref(p);
	buf_fini(&b);
}

static const struct mime_fix fix_all = {.fix = ~0u, .message_id = STR("new@x")};

static void test_fix(void **state)
{
	static const struct {
		const char *in, *out; /* NULL: nothing to do */
	} cases[] = {
		{OK "\r\nbody\r\n", NULL},
		{"Subject: x\r\n\r\nb\r\n", "Subject: x\r\nDate: Mon, 23 Nov 2026 02:33:32 "
					    "+0000\r\nMessage-ID: <new@x>\r\nMIME-Version: 1.0\r\n\r\nb\r\n"},
		{"b\r\nc\r\n", "Date: Mon, 23 Nov 2026 02:33:32 +0000\r\nMessage-ID: "
			       "<new@x>\r\nMIME-Version: 1.0\r\n\r\nb\r\nc\r\n"},
		{"Date: x\r\nMessage-ID: <a@b>\r\nMime-Version: 2\r\n\r\n",
		 "Date: x\r\nMessage-ID: <a@b>\r\nMIME-Version: 1.0\r\n\r\n"},
		{OK "Subject\r\n\r\nx", OK "Subject:\r\n\r\nx"},
		{OK "Subject : y\r\n\r\nx", OK "Subject: y\r\n\r\nx"},
		{OK "Subject: y\n\na\nb\rc", OK "Subject: y\r\n\r\na\r\nb\r\nc"},
		{OK "\r\n" C78 "9\r\n", OK
		 "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
		 "123456789 123456789 123456789 123456789 123456789 123456789 123456789 12345=\r\n6789\r\n"},
		{OK "From: \"\xd7\x94\xd7\xaa \xd7\x94\xd7\xaa\" <t@x.example>\r\n\r\nx",
		 OK "From: =?UTF-8?q?=D7=94=D7=AA_=D7=94=D7=AA?= <t@x.example>\r\n\r\nx"},
		{OK "Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdf"
		    "e an alle Leser, und bis bald\r\n",
		 OK "Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: "
		    "quoted-printable\r\n\r\nGr=FC=DFe an alle Leser, und bis bald\r\n"},
		{OK "\r\nGr\xfc\xdf"
		    "e an alle Leser, und bis bald\r\n",
		 OK "Content-Type: text/plain; charset=\"utf-8\"\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n"
		    "\r\nGr=C3=BC=C3=9Fe an alle Leser, und bis bald\r\n"},
		{OK "Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xfc\xdf"
		    "e an alle Leser, und bis bald\r\n",
		 OK "Content-Type: text/plain; charset=\"utf-8\"\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n"
		    "\r\nGr=C3=BC=C3=9Fe an alle Leser, und bis bald\r\n"},
		{OK "Content-Type: text/plain; charset=x-unheard-of\r\n\r\nGr\xfc\xdf"
		    "e an alle Leser, und bis bald\r\n",
		 OK "Content-Type: text/plain; charset=\"x-unheard-of\"\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n"
		    "\r\nGr=FC=DFe an alle Leser, und bis bald\r\n"},
		/* A part that says 7bit and is not keeps what it is: disposition, name, id. */
		{OK "Content-Type: multipart/mixed; boundary=b\r\n\r\nThis is "
		    "MIME.\r\n--b\r\n\r\nt\r\n--b\r\nContent-Type: application/pdf; name=\"x.pdf\"\r\n"
		    "Content-Transfer-Encoding: 7bit\r\nContent-Disposition: attachment; "
		    "filename=\"x.pdf\"\r\nContent-ID: <i@x>\r\n\r\n\xff\n\xfe\r\n--b--\r\nepi\r\n",
		 OK "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\nThis is "
		    "MIME.\r\n--b\r\n\r\nt\r\n--b\r\nContent-Type: application/pdf; name=\"x.pdf\"\r\n"
		    "Content-Disposition: attachment; filename=\"x.pdf\"\r\nContent-ID: "
		    "<i@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n/wr+\r\n--b--\r\n"},
		/* A message in a message is set right inside. */
		{OK "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: "
		    "\xc3\xbc\r\n\r\n\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\r\n",
		 OK "Content-Type: message/rfc822\r\n\r\nSubject: =?UTF-8?q?=C3=BC?=\r\nContent-Type: "
		    "text/plain; charset=\"utf-8\"\r\n"
		    "Content-Transfer-Encoding: base64\r\n\r\nw7zDvMO8w7wNCg=="},
		/* What is signed stays while SMTP can carry it. */
		{OK "Subject : x\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nX: "
		    "y\r\n\tz\r\n\r\n" C78 C78 "\r\n--b\r\n\r\nsig\r\n--b--\r\n",
		 OK "Subject: x\r\nContent-Type: multipart/signed; boundary=\"b\"\r\n\r\n--b\r\nX: "
		    "y\r\n\tz\r\n\r\n" C78 C78 "\r\n--b\r\n\r\nsig\r\n--b--\r\n"},
	};
	clock_set_virtual((mono_t){0}, (wall_t){INT64_C(1795401212) * NS_PER_S});
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT, again = BUF_INIT;
		unsigned found;
		int rc = mime_conform(str_of(cases[i].in), &fix_all, &found, &out);
		str_t got = buf_str(&out);
		if (rc != (cases[i].out != NULL) || (rc == 1 && !str_eq(got, str_of(cases[i].out))))
			fail_msg("case %zu: %d\n" STR_FMT, i, rc, STR_ARG(got));
		if (rc == 1) {
			struct mime_part *p = mime_part_parse(got), *rebuilt = mime_part_rebuild(p, NULL);
			unsigned left = mime_part_issues(p);
			if (left != 0 && i + 1 != ARRAY_SIZE(cases)) /* the signed one keeps its long lines */
				fail_msg("case %zu: issues %x are left", i, left);
			mime_part_write(rebuilt, &again);
			if (!str_eq(buf_str(&again), got))
				fail_msg("case %zu: rebuilt again it is\n" STR_FMT, i,
					 STR_ARG(buf_str(&again)));
			mime_part_unref(p);
			mime_part_unref(rebuilt);
		}
		buf_fini(&out);
		buf_fini(&again);
	}
}

static void test_fix_choices(void **state)
{
	struct buf out = BUF_INIT;
	unsigned found;
	struct mime_fix f = {
		.check = MIME_LINE_TOO_LONG, .fix = MIME_MISSING_DATE_HEADER, .message_id = STR("x@y")};
	clock_set_virtual((mono_t){0}, (wall_t){INT64_C(1795401212) * NS_PER_S});
	assert_int_equal(mime_conform(STR("\r\n" C78 "9"), &f, &found, &out), 0);
	assert_true(found & MIME_LINE_TOO_LONG);
	f.check = MIME_MISSING_COLON_VALUE;
	assert_int_equal(mime_conform(STR("A : b\n\n\xff"), &f, &found, &out),
			 1); /* the rest stays as it is */
	assert_buf_is(&out, "A : b\nDate: Mon, 23 Nov 2026 02:33:32 +0000\r\n\n\xff");
	buf_clear(&out);
	static const str_t charsets[] = {STR("iso-2022-jp"), STR("shift_jis")};
	f.fix = MIME_NEEDS_TRANSFER_ENCODING;
	f.charsets = (struct mime_charsets){charsets, 2};
	assert_int_equal(mime_conform(STR("Subject: \x93\xfa\r\n\r\n\x93\xfa\x96\x7b\r\n"), &f, &found, &out),
			 1);
	assert_buf_is(&out,
		      "Subject: =?UTF-8?q?=E6=97=A5?=\r\nContent-Type: text/plain; charset=\"utf-8\"\r\n"
		      "Content-Transfer-Encoding: base64\r\nMIME-Version: 1.0\r\n\r\n5pel5pysDQo=");
	buf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_issues_words),
		cmocka_unit_test(test_issues_found),
		cmocka_unit_test(test_fix),
		cmocka_unit_test(test_fix_choices),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
