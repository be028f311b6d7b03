/* test_mime_build.c - what is refused and how it is named, the fields and parts that are made. That others
 * read them back is mime_diff.py's. */
#include "mime/mime_build_impl.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/uuid.h"
#include "ut.h"

static void assert_refused(int rc, const char *want)
{
	if (rc == 0)
		fail_msg("accepted, but wanted: %s", want);
	if (!err_is(ERR_INVALID) || !str_starts(str_of(err_text()), str_of(want)))
		fail_msg("got: %s, wanted: %s", err_text(), want);
	err_clear();
}

static void test_mime_check_content(void **state)
{
	static const struct {
		struct mime_content c;
		struct mime_header h[2];
		const char *error;
	} cases[] = {
		{{.subject = STR("a\r\nb")}, .error = "content.subject: the CR at position 2"},
		{{.subject = STR("a\nb")}, .error = "content.subject: the LF at position 2"},
		{{.subject = STR("a\0b")}, .error = "content.subject: the NUL at position 2"},
		{{.subject = STR("\xff")}, .error = "content.subject: the bytes are not UTF-8"},
		{{.text_body = STR("\xff")}, .error = "content.text_body: the bytes are not UTF-8"},
		{{.html_body = STR("\xff")}, .error = "content.html_body: the bytes"},
		{{.amp_html_body = STR("\xff")}, .error = "content.amp_html_body: the bytes"},
		{{.from = {STR("a@b\n"), STR("")}}, .error = "content.from.email: invalid address"},
		{{.from = {STR(""), STR("")}}, .error = "content.from.email: the address is empty"},
		{{.from = {STR("nobody"), STR("")}}, .error = "content.from.email: invalid address"},
		{{.from = {STR("a@b"), STR("x\ny")}}, .error = "content.from.name: the LF at position 2"},
		{{.from = {STR("a@b"), STR("x\ty")}}, .error = "content.from.name: the control character"},
		{{.reply_to = {STR("a@b"), STR("x\ry")}}, .error = "content.reply_to.name: the CR"},
		{{.reply_to = {STR("a@\xe2\x98\x83\xe2\x80\x8e.example"), STR("")}},
		 .error = "content.reply_to.email: invalid domain"},
		{{.n_headers = 1}, {{STR("X-Tag"), STR("a\nb")}}, "content.headers[X-Tag]: the LF"},
		{{.n_headers = 1}, {{STR("X-Tag"), STR("a\0b")}}, "content.headers[X-Tag]: the NUL"},
		{{.n_headers = 1}, {{STR("X Tag"), STR("a")}}, "content.headers[X Tag]: not a name"},
		{{.n_headers = 1}, {{STR("X\r\nY"), STR("a")}}, "content.headers[X??Y]: not a name"},
		{{.n_headers = 1}, {{STR("X:"), STR("a")}}, "content.headers[X:]: not a name"},
		{{.n_headers = 1}, {{STR(""), STR("a")}}, "content.headers[]: not a name"},
		{{.n_headers = 1},
		 {{STR("content-type"), STR("a")}},
		 "content.headers[content-type]: this field describes"},
		{{.n_headers = 1},
		 {{STR("Mime-Version"), STR("1.0")}},
		 "content.headers[Mime-Version]: this field describes"},
		{{.n_headers = 2},
		 {{STR("To"), STR("a@b")}, {STR("to"), STR("a@b")}},
		 "content.headers[to]: given twice"},
		{{.n_headers = 1, .subject = STR("x")},
		 {{STR("Subject"), STR("a")}},
		 "content.headers[Subject]: given twice"},
		{{.n_headers = 1, .from = {STR("a@b"), STR("")}},
		 {{STR("From"), STR("a@b")}},
		 "content.headers[From]: given twice"},
		{{.n_headers = 1},
		 {{STR("Message-ID"), STR("<\xc3\xbc@b>")}},
		 "content.headers[Message-ID]: must be ASCII"},
		{{.n_headers = 2, .subject = STR("\xc3\xbc\tx")},
		 {{STR("X-A"), STR("a")}, {STR("X-A"), STR("\xc3\xbc\t")}},
		 NULL},
		{{.from = {STR("a@b"), STR_NULL}}, .error = NULL},
		{{.from = {STR("\"a b\"@[192.0.2.1]"), STR_NULL}}, .error = NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_content c = cases[i].c;
		c.header = cases[i].h;
		int rc = mime_check_content(&c, "content");
		if (cases[i].error != NULL)
			assert_refused(rc, cases[i].error);
		else if (rc != 0)
			fail_msg("case %zu: %s", i, err_text());
	}
	struct mime_address to = {STR("a@b"), STR("x\n")};
	assert_refused(mime_check_address(&to, "recipients[3]"), "recipients[3].name: the LF at position 2");
}

static void test_mime_check_attachment(void **state)
{
	static const struct {
		struct mime_attachment a;
		const char *error;
	} cases[] = {
		{{.content_type = STR("text/plain\nX: y")}, "content.attachments[2].content_type: the LF"},
		{{.content_type = STR("text")}, "content.attachments[2].content_type: expected type/subtype"},
		{{.content_type = STR("text/")},
		 "content.attachments[2].content_type: expected type/subtype"},
		{{.content_type = STR("text/plain charset=x")},
		 "content.attachments[2].content_type: expected type/subtype"},
		{{.content_type = STR("Multipart/mixed")},
		 "content.attachments[2].content_type: an attachment cannot be"},
		{{.content_type = STR("a/b; c=\xc3\xbc")},
		 "content.attachments[2].content_type: must be ASCII"},
		{{.content_id = STR("a\r")}, "content.attachments[2].content_id: the CR"},
		{{.content_id = STR("a b")}, "content.attachments[2].content_id: expected printable"},
		{{.content_id = STR("<>")}, "content.attachments[2].content_id: empty"},
		{{.content_id = STR("a>b")}, "content.attachments[2].content_id: expected printable"},
		{{.file_name = STR("a\0")}, "content.attachments[2].file_name: the NUL"},
		{{.file_name = STR("a\n")}, "content.attachments[2].file_name: the LF"},
		{{.file_name = STR("\xc3")}, "content.attachments[2].file_name: the bytes are not UTF-8"},
		{{.content_type = STR("text/plain; charset=utf-8"),
		  .content_id = STR("<a@b>"),
		  .file_name = STR("\xc3\xbc")},
		 NULL},
		{{.data = STR("\0\xff\n")}, NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int rc = mime_check_attachment(&cases[i].a, "content", 2);
		if (cases[i].error != NULL)
			assert_refused(rc, cases[i].error);
		else
			assert_int_equal(rc, 0);
	}
}

static void setup_clock(void)
{
	clock_set_virtual((mono_t){0}, (wall_t){INT64_C(1795401212) * NS_PER_S});
}

/** Replaces each boundary with its letter, so that the rest can be compared. */
static void boundaries_hide(struct buf *b)
{
	ptrdiff_t at;
	while ((at = str_find(buf_str(b), STR("=_"))) >= 0) {
		char letter = b->p[at + 2];
		memmove(b->p + at + 1, b->p + at + 27, b->n - (size_t)at - 27);
		b->p[at] = letter;
		buf_truncate(b, b->n - 26);
	}
}

#define TAIL "Date: Mon, 23 Nov 2026 02:33:32 +0000\r\nMIME-Version: 1.0\r\n"
#define PLAIN "Content-Type: text/plain; charset=\"us-ascii\"\r\n\r\n"
#define HTML "Content-Type: text/html; charset=\"us-ascii\"\r\n\r\n"

static void test_mime_build_shapes(void **state)
{
	setup_clock();
	struct mime_attachment img = {.data = STR("GIF"),
				      .content_type = STR("image/gif"),
				      .content_id = STR("i1"),
				      .is_inline = true},
			       file = {.data = STR("x"), .file_name = STR("\xc3\xbc.txt")},
			       msg = {.data = STR("S: x\n\n\xc3\xbc"), .content_type = STR("message/rfc822")};
	struct mime_encoded_part part[3] = {0};
	mime_encode_attachment(&img, &part[0]);
	mime_encode_attachment(&file, &part[1]);
	mime_encode_attachment(&msg, &part[2]);
	const struct {
		struct mime_content c;
		const char *out;
	} cases[] = {
		{{.text_body = STR("hello")}, TAIL PLAIN "hello\r\n"},
		{{.n_parts = 0}, TAIL PLAIN},
		{{.text_body = STR("hello\n"),
		  .subject = STR("S"),
		  .from = {STR("a@b"), STR("A")},
		  .reply_to = {STR("c@d"), STR_NULL}},
		 "From: \"A\" <a@b>\r\nReply-To: <c@d>\r\nSubject: S\r\n" TAIL PLAIN "hello\r\n"},
		{{.html_body = STR("h"), .text_body = STR("t"), .amp_html_body = STR("a")},
		 TAIL "Content-Type: multipart/alternative; boundary=\"a\"\r\n\r\n--a\r\n" PLAIN
		      "t\r\n--a\r\n"
		      "Content-Type: text/x-amp-html; charset=\"us-ascii\"\r\n\r\na\r\n--a\r\n" HTML
		      "h\r\n--a--\r\n"},
		{{.html_body = STR("h"), .part = part, .n_parts = 1},
		 TAIL
		 "Content-Type: multipart/related; boundary=\"r\";\r\n type=\"text/html\"\r\n\r\n--r\r\n" HTML
		 "h\r\n--r\r\n"
		 "Content-Type: image/gif\r\nContent-Disposition: inline\r\nContent-ID: <i1>\r\n"
		 "Content-Transfer-Encoding: base64\r\n\r\nR0lG\r\n--r--\r\n"},
		{{.html_body = STR("h"), .text_body = STR("t"), .part = part, .n_parts = 3},
		 TAIL
		 "Content-Type: multipart/mixed; boundary=\"m\"\r\n\r\n--m\r\n"
		 "Content-Type: multipart/alternative; boundary=\"a\"\r\n\r\n--a\r\n" PLAIN "t\r\n--a\r\n"
		 "Content-Type: multipart/related; boundary=\"r\";\r\n type=\"text/html\"\r\n\r\n--r\r\n" HTML
		 "h\r\n--r\r\n"
		 "Content-Type: image/gif\r\nContent-Disposition: inline\r\nContent-ID: <i1>\r\n"
		 "Content-Transfer-Encoding: base64\r\n\r\nR0lG\r\n--r--\r\n--a--\r\n--m\r\n"
		 "Content-Type: application/octet-stream;\r\n name=\"=?UTF-8?q?=C3=BC=2Etxt?=\"\r\n"
		 "Content-Disposition: attachment; filename*=UTF-8''%C3%BC.txt\r\n"
		 "Content-Transfer-Encoding: base64\r\n\r\neA==\r\n--m\r\n"
		 "Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n"
		 "Content-Transfer-Encoding: 8bit\r\n\r\nS: x\r\n\r\n\xc3\xbc\r\n--m--\r\n"},
		{{.part = part, .n_parts = 1}, /* nothing that it could be related to */
		 TAIL "Content-Type: multipart/mixed; boundary=\"m\"\r\n\r\n--m\r\n"
		      "Content-Type: image/gif\r\nContent-Disposition: inline\r\nContent-ID: <i1>\r\n"
		      "Content-Transfer-Encoding: base64\r\n\r\nR0lG\r\n--m--\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		assert_int_equal(mime_check_content(&cases[i].c, "content"), 0);
		mime_build_rest(&cases[i].c, &out);
		boundaries_hide(&out);
		if (!str_eq(buf_str(&out), str_of(cases[i].out)))
			fail_msg("case %zu:\n" STR_FMT, i, STR_ARG(buf_str(&out)));
		buf_fini(&out);
	}
	for (size_t i = 0; i < ARRAY_SIZE(part); i++)
		mime_encoded_part_fini(&part[i]);
}

static void test_mime_build_recipient(void **state)
{
	static const struct mime_header own[] = {
		{STR("to"), STR("list@x")}, {STR("Message-id"), STR("<a@b>")}, {STR("DATE"), STR("now")}};
	static const struct {
		struct mime_content c;
		struct mime_address to;
		const char *recipient, *rest;
	} cases[] = {
		{{.n_parts = 0},
		 {STR("a@b.example"), STR("Ann")},
		 "To: \"Ann\" <a@b.example>\r\nMessage-ID: <id@d.example>\r\n",
		 TAIL PLAIN},
		{{.n_parts = 0},
		 {STR("a@b"), STR("=?utf-8?q?Zo=C3=AB?=")},
		 "To: =?UTF-8?q?Zo=C3=AB?= <a@b>\r\nMessage-ID: <id@d.example>\r\n",
		 TAIL PLAIN},
		{{.header = own, .n_headers = 1},
		 {STR("a@b"), STR_NULL},
		 "Message-ID: <id@d.example>\r\n",
		 "to: list@x\r\n" TAIL PLAIN},
		{{.header = own, .n_headers = 3},
		 {STR("a@b"), STR_NULL},
		 "",
		 "to: list@x\r\nMessage-id: <a@b>\r\nDATE: now\r\nMIME-Version: 1.0\r\n" PLAIN},
		{{.n_parts = 0},
		 {STR("i@b\xc3\xbc.example"), STR_NULL},
		 "To: <i@xn--b-eha.example>\r\nMessage-ID: <id@d.example>\r\n",
		 TAIL PLAIN},
		{{.n_parts = 0},
		 {STR("\xc3\xbc@b\xc3\xbc.example"), STR_NULL},
		 "To: <\xc3\xbc@b\xc3\xbc.example>\r\nMessage-ID: <id@d.example>\r\n",
		 TAIL PLAIN},
	};
	setup_clock();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf out = BUF_INIT;
		mime_build_recipient(&cases[i].c, &cases[i].to, STR("id"), STR("d.example"), &out);
		assert_str_is(buf_str(&out), cases[i].recipient);
		buf_clear(&out);
		mime_build_rest(&cases[i].c, &out);
		assert_str_is(buf_str(&out), cases[i].rest);
		buf_fini(&out);
	}
}

/* Only a part that stays as it is, and only one with a line
 * that begins with "--", can have a boundary in it. */
static void test_mime_boundary_is_taken(void **state)
{
	static const struct {
		const char *text, *file;
		bool is_taken;
	} cases[] = {
		{"--=_aXYZ", "", true},
		{"x\n--=_aXYZ--\n", "", true},
		{"x --=_aXYZ", "", false},
		{"--=_aXY", "--=_aXY", false},
		{"\xc3\xbc\n--=_aXYZ", "", false},
		{"", "S: x\n\n--=_aXYZ", true},
		{"", "S: x\n\n=_aXYZ", false},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_attachment a = {.data = str_of(cases[i].file),
					    .content_type = STR("message/rfc822")};
		struct mime_encoded_part part = {0};
		mime_encode_attachment(&a, &part);
		struct mime_content c = {.html_body = str_of(cases[i].text), .part = &part, .n_parts = 1};
		if (mime_boundary_is_taken(&c, STR("XYZ")) != cases[i].is_taken)
			fail_msg("case %zu", i);
		mime_encoded_part_fini(&part);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mime_check_content),     cmocka_unit_test(test_mime_check_attachment),
		cmocka_unit_test(test_mime_build_shapes),      cmocka_unit_test(test_mime_build_recipient),
		cmocka_unit_test(test_mime_boundary_is_taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
