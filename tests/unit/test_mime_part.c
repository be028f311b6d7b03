/* test_mime_part.c - trees: what is read, that it is written as it was, and changes. */
#include "mime/mime_part.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/err.h"
#include "ut.h"

/* "multipart/mixed[text/plain{3}, ...]": types and content lengths. */
static void dump(const struct mime_part *p, struct buf *out)
{
	mime_part_type(p, out);
	if (p->boundary == NULL) {
		buf_printf(out, "{%zu}", p->content.n);
		return;
	}
	buf_add_c(out, '[');
	for (size_t i = 0; i < p->n_children; i++) {
		buf_add_z(out, i > 0 ? ", " : "");
		dump(p->child[i].part, out);
	}
	buf_add_c(out, ']');
}

#define MP "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
#define ALT "Content-Type: multipart/alternative; boundary=\"c d\"\r\n\r\n"

static const struct {
	const char *in, *tree;
	int n_fields;
} parse_cases[] = {
	{"", "text/plain{0}", 0},
	{"\r\n", "text/plain{0}", 0},
	{"Subject: x\r\n\r\nbody", "text/plain{4}", 1},
	{"Subject: x\r\n", "text/plain{0}", 1},
	{"Subject: x", "text/plain{0}", 1},
	{"A: 1\nB: 2\n 3\n\nbody\n", "text/plain{5}", 2},
	{"just a body\r\nof two lines\r\n", "text/plain{27}", 0},
	{"word\r\n", "text/plain{6}", 0},
	{"Subject\r\nFrom: a@b\r\n\r\nx", "text/plain{1}", 2},
	{"From: a@b\r\nSubject\r\n\r\nx", "text/plain{1}", 2},
	{"From: a@b\r\nno field here\r\nx", "text/plain{16}", 1},
	{"From x@y Mon Jan 1\r\nFrom: a@b\r\n\r\nx", "text/plain{1}", 2},
	{" fold first\r\n\r\nx", "text/plain{16}", 0},
	{"Subject : x\r\n\r\n", "text/plain{0}", 1},
	{"\xff: x\r\n", "text/plain{6}", 0},
	{"Content-Type: TEXT/HTML; x=y\r\n\r\nh", "text/html{1}", 1},
	{"Content-Type: broken\r\n\r\nh", "text/plain{1}", 1},
	{MP "pre\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: a/b\r\n\r\ntwo\r\n--b--\r\nepi\r\n",
	 "multipart/mixed[text/plain{3}, a/b{3}]", 1},
	{MP "--b\n\none\n--b--", "multipart/mixed[text/plain{3}]", 1},
	{MP "--b\r\nA: 1\r\n--b\r\n\r\n--b--\r\n", "multipart/mixed[text/plain{0}, text/plain{0}]", 1},
	{MP "--b\r\n--b\r\n--b--\r\n", "multipart/mixed[text/plain{0}, text/plain{0}]", 1},
	{MP "--b  \t\r\n\r\nx\r\n--b-- \r\n", "multipart/mixed[text/plain{1}]", 1},
	{MP "--b\r\n\r\nx\r\n--bx\r\n--b--x\r\n -- b\r\n", "multipart/mixed[text/plain{24}]", 1},
	{MP "--b\r\n\r\nno end\r\n", "multipart/mixed[text/plain{8}]", 1},
	{MP "no part at all\r\n", "multipart/mixed{16}", 1},
	{MP "--b--\r\nonly the end\r\n", "multipart/mixed{21}", 1},
	{"Content-Type: multipart/mixed\r\n\r\n--b\r\n", "multipart/mixed{5}", 1},
	{"Content-Type: multipart/mixed; boundary=b\r\n--b\r\n\r\nx\r\n--b--",
	 "multipart/mixed[text/plain{1}]", 1},
	{MP "--b\r\n" ALT "--c d\r\n\r\n1\r\n--c d\r\n\r\n2\r\n--c d--\r\n--b\r\n\r\n3\r\n--b--\r\n",
	 "multipart/mixed[multipart/alternative[text/plain{1}, text/plain{1}], text/plain{1}]", 1},
	{MP "--b\r\n" ALT "--c d\r\n\r\n1\r\n--b\r\n\r\n3\r\n--b--\r\n",
	 "multipart/mixed[multipart/alternative[text/plain{1}], text/plain{1}]", 1},
	{MP "--b\r\n" ALT "--b\r\n\r\n3\r\n--c d\r\n--b--\r\n",
	 "multipart/mixed[multipart/alternative{0}, text/plain{8}]", 1},
	{MP "--b\r\n" MP "--b\r\n\r\n1\r\n--b--\r\n--b\r\n\r\n2\r\n--b--\r\n",
	 "multipart/mixed[multipart/mixed[text/plain{1}], text/plain{1}]", 1},
	{"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: "
	 "x\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\r\n--b--",
	 "multipart/digest[message/rfc822{12}, text/plain{0}]", 1},
	{"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny", "message/rfc822{15}", 1},
	{"--b\r\n" MP "--b\r\n", "text/plain{55}", 0},
};

static void test_mime_parse(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(parse_cases); i++) {
		struct mime_part *p = mime_part_parse(str_of(parse_cases[i].in));
		struct buf tree = BUF_INIT, out = BUF_INIT;
		dump(p, &tree);
		if (!str_eq(buf_str(&tree), str_of(parse_cases[i].tree)) ||
		    (int)p->n_fields != parse_cases[i].n_fields)
			fail_msg("case %zu: " STR_FMT " with %zu fields", i, STR_ARG(buf_str(&tree)),
				 p->n_fields);
		mime_part_write(p, &out);
		if (!str_eq(buf_str(&out), str_of(parse_cases[i].in)))
			fail_msg("case %zu is written as:\n" STR_FMT, i, STR_ARG(buf_str(&out)));
		struct mime_part *copy = mime_part_copy(p);
		buf_clear(&out);
		mime_part_unref(p);
		mime_part_write(copy, &out);
		assert_str_is(buf_str(&out), parse_cases[i].in);
		mime_part_unref(copy);
		buf_fini(&tree);
		buf_fini(&out);
	}
}

/* Cut anywhere and with bytes changed: nothing breaks, and nothing is lost. */
static void test_mime_parse_any(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(parse_cases); i++) {
		size_t n = strlen(parse_cases[i].in);
		for (size_t cut = 0; cut <= n; cut++) {
			char *bytes = memcpy(test_malloc(cut + 1), parse_cases[i].in, cut);
			if (cut > 0)
				bytes[cut * 7 % cut] = "\r\n-b: \xff"[cut % 7];
			struct mime_part *p = mime_part_parse(str_mk(bytes, cut));
			struct buf out = BUF_INIT;
			struct mime_structure s;
			mime_part_write(p, &out);
			assert_true(str_eq(buf_str(&out), str_mk(bytes, cut)));
			mime_part_structure(p, &s);
			mime_structure_fini(&s);
			mime_part_unref(p);
			buf_fini(&out);
			test_free(bytes);
		}
	}
}

static void test_mime_limits(void **state)
{
	struct buf b = BUF_INIT, out = BUF_INIT;
	for (int i = 0; i < 100; i++) /* deeper than is read */
		buf_printf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i);
	struct mime_part *p = mime_part_parse(buf_str(&b));
	size_t depth = 0;
	for (const struct mime_part *q = p; q->n_children > 0; q = q->child[0].part)
		depth++;
	assert_int_equal(depth, MIME_DEPTH_MAX);
	mime_part_write(p, &out);
	assert_true(str_eq(buf_str(&b), buf_str(&out)));
	mime_part_unref(p);

	buf_clear(&b), buf_clear(&out);
	buf_add_z(&b, MP);
	for (int i = 0; i < MIME_PARTS_MAX + 100; i++)
		buf_add_z(&b, "--b\r\n\r\nx\r\n");
	p = mime_part_parse(buf_str(&b));
	assert_int_equal(p->n_children, MIME_PARTS_MAX - 1);
	mime_part_write(p, &out);
	assert_true(str_eq(buf_str(&b), buf_str(&out)));
	mime_part_unref(p);

	buf_clear(&b), buf_clear(&out);
	for (int i = 0; i < MIME_FIELDS_MAX + 100; i++)
		buf_add_z(&b, "a:\n");
	p = mime_part_parse(buf_str(&b));
	assert_int_equal(p->n_fields, MIME_FIELDS_MAX);
	mime_part_write(p, &out);
	assert_true(str_eq(buf_str(&b), buf_str(&out)));
	mime_part_unref(p);
	buf_fini(&b);
	buf_fini(&out);
}

static void assert_written(const struct mime_part *p, const char *want)
{
	struct buf out = BUF_INIT;
	mime_part_write(p, &out);
	if (!str_eq(buf_str(&out), str_of(want)))
		fail_msg("got:\n" STR_FMT "\nwanted:\n%s", STR_ARG(buf_str(&out)), want);
	buf_fini(&out);
}

static void test_mime_fields(void **state)
{
	struct mime_part *p = mime_part_parse(STR("A: 1\r\nb : 2\r\n\t3\r\nA: 4"));
	size_t at = 0;
	assert_str_is(mime_field_find(p, STR("a"), &at)->raw_value, " 1");
	assert_str_is(mime_field_find(p, STR("a"), &at)->raw_value, " 4");
	assert_null(mime_field_find(p, STR("a"), &at));
	assert_str_is(mime_field_first(p, STR("B"))->raw_value, " 2\r\n\t3");
	assert_true(mime_field_first(p, STR("B"))->has_space);
	mime_field_append(p, STR("C: 5\r\n"));
	assert_written(p, "A: 1\r\nb : 2\r\n\t3\r\nA: 4\r\nC: 5\r\n\r\n");
	mime_field_prepend(p, STR("D: 6\r\n"));
	mime_field_set(p, STR("a: 7\r\n"));
	mime_field_set(p, STR("E: 8\r\n"));
	assert_written(p, "D: 6\r\na: 7\r\nb : 2\r\n\t3\r\nC: 5\r\nE: 8\r\n\r\n");
	assert_int_equal(mime_field_remove(p, STR("B")), 1);
	assert_int_equal(mime_field_remove(p, STR("B")), 0);
	struct mime_part *copy = mime_part_copy(p);
	mime_field_set(p, p->field[1].whole); /* its own bytes */
	mime_part_unref(p);
	assert_written(copy, "D: 6\r\na: 7\r\nC: 5\r\nE: 8\r\n\r\n");
	mime_part_unref(copy);
	p = mime_part_parse(STR("body only\r\n"));
	mime_field_append(p, STR("A: 1\r\n"));
	assert_written(p, "A: 1\r\n\r\nbody only\r\n");
	mime_part_unref(p);
}

/* The boundary of the field and of the delimiters stay one. */
static void test_mime_boundary_follows(void **state)
{
	struct mime_part *p = mime_part_parse(STR(MP "--b\r\n\r\nx\r\n--b--\r\n"));
	mime_field_set(p, STR("Content-Type: multipart/related\r\n"));
	assert_written(p, "Content-Type: multipart/related; boundary=\"b\"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n");
	mime_field_set(p, STR("Content-Type: multipart/related; boundary=new\r\n"));
	assert_written(p,
		       "Content-Type: multipart/related; boundary=new\r\n\r\n--new\r\n\r\nx\r\n--new--\r\n");
	mime_part_unref(p);
}

static void test_mime_decode(void **state)
{
	static const struct {
		const char *in, *bytes, *text;
	} cases[] = {
		{"\r\nplain", "plain", "plain"},
		{"Content-Transfer-Encoding: BASE64\r\n\r\naGVs\r\nbG8=\r\n", "hello", "hello"},
		{"Content-Transfer-Encoding: base64\r\n\r\naGVs!bG8", "hello", "hello"},
		{"Content-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG9=", "hello", "hello"}, /* stray bits */
		{"Content-Transfer-Encoding: base64\r\n\r\naGU=bGxv", "hello", "hello"},
		{"Content-Transfer-Encoding: quoted-printable\r\n\r\na=20=\r\nb  \r\n=c3=BC=4 =\r\n",
		 "a b\r\n\xc3\xbc=4 ", "a b\r\n\xc3\xbc=4 "},
		{"Content-Transfer-Encoding: x-other\r\n\r\na=20", "a=20", "a=20"},
		{"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n\xfc", "\xfc", "\xc3\xbc"},
		{"Content-Type: text/plain; charset=no-such\r\n\r\n\xfc", "\xfc", "\xfc"},
		{"Content-Type: text/plain\r\n\r\n\xfc", "\xfc", "\xfc"},
		{"Content-Type: application/x; charset=iso-8859-1\r\n\r\n\xfc", "\xfc", "\xfc"},
		{MP "--b\r\n\r\nx\r\n--b--\r\n", "--b\r\n\r\nx\r\n--b--\r\n", "--b\r\n\r\nx\r\n--b--\r\n"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_part *p = mime_part_parse(str_of(cases[i].in));
		struct buf out = BUF_INIT;
		mime_part_decode(p, &out);
		assert_str_is(buf_str(&out), cases[i].bytes);
		buf_clear(&out);
		mime_part_decode_text(p, &out);
		assert_str_is(buf_str(&out), cases[i].text);
		mime_part_unref(p);
		buf_fini(&out);
	}
}

static void test_mime_set_body(void **state)
{
	static const struct {
		const char *in;
		str_t content;
		const char *type, *out; /* out NULL: refused */
	} cases[] = {
		{"A: 1\r\n\r\nx", STR("new\n"), NULL, "A: 1\r\nContent-Type: text/plain\r\n\r\nnew\r\n"},
		{"\r\nx", STR("\xc3\xbc"), NULL,
		 "Content-Type: text/plain; charset=\"utf-8\"\r\n"
		 "Content-Transfer-Encoding: base64\r\n\r\nw7w="},
		{"\r\nx", STR("\0\1"), NULL,
		 "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAE="},
		{"Content-Type: text/html; charset=iso-8859-1; x=y\r\n"
		 "Content-Transfer-Encoding: base64\r\n\r\n/A==",
		 STR("a"), NULL, "Content-Type: text/html; charset=\"us-ascii\"; x=\"y\"\r\n\r\na"},
		{"Content-Type: text/html; charset=utf-8\r\n\r\nx", STR("a"), NULL,
		 "Content-Type: text/html; charset=utf-8\r\n\r\na"},
		{"Content-Type: text/html; charset=utf-8\r\n\r\nx", STR("-- \r\nme"), NULL,
		 "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
		 "quoted-printable\r\n\r\n=2D-=20\r\nme"},
		{"Content-Type: image/gif\r\nContent-MD5: x\r\n\r\nx", STR("a"), NULL,
		 "Content-Type: image/gif\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ=="},
		{"Content-Type: image/gif\r\n\r\nx", STR("a"), "text/plain",
		 "Content-Type: text/plain\r\n\r\na"},
		{"\r\nx", STR("a"), "message/rfc822", "Content-Type: message/rfc822\r\n\r\na"},
		{MP "--b\r\n\r\nx\r\n--b--\r\n", STR("a"), "text/plain", "Content-Type: text/plain\r\n\r\na"},
		{MP "--b\r\n\r\nx\r\n--b--\r\n", STR("a"), NULL, NULL},
		{"\r\nx", STR("a"), "multipart/mixed", NULL},
		{"\r\nx", STR("a"), "text", NULL},
		{"\r\nx", STR("a"), "", NULL},
		{"\r\nx", STR("a"), "text/plain; x=\"a\x01\"", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mime_part *p = mime_part_parse(str_of(cases[i].in));
		int rc = mime_part_set_body(p, cases[i].content, str_of(cases[i].type));
		if ((rc == 0) != (cases[i].out != NULL))
			fail_msg("case %zu: %d %s", i, rc, err_text());
		assert_true(rc == 0 || err_is(ERR_INVALID));
		err_clear();
		assert_written(p, rc == 0 ? cases[i].out : cases[i].in);
		mime_part_unref(p);
	}
}

/* A part deep in a tree is changed: all around it stays as it was, and the delimiters stay on lines of their
 * own. */
static void test_mime_edit_in_tree(void **state)
{
	struct mime_part *p = mime_part_parse(
		STR("X: y\r\n" MP "pre\n--b\n\n--b \r\nContent-Type: text/html\r\n\r\n<p>\r\n--b--\r\nepi"));
	assert_int_equal(mime_part_set_body(p->child[1].part, STR("<b>"), STR_NULL), 0);
	assert_written(p, "X: y\r\n" MP
			  "pre\n--b\n\n--b \r\nContent-Type: text/html\r\n\r\n<b>\r\n--b--\r\nepi");
	assert_int_equal(mime_part_set_body(p->child[0].part, STR("t"), STR_NULL), 0);
	assert_written(p, "X: y\r\n" MP "pre\n--b\nContent-Type: text/plain\r\n\nt\r\n--b \r\nContent-Type: "
			  "text/html\r\n\r\n<b>\r\n--b--\r\nepi");
	mime_part_unref(p);
	/* A message that contains the delimiter, and a part that the end of the input has cut off. */
	p = mime_part_parse(STR(MP "--b\r\nContent-Type: message/rfc822\r\n\r\n1\r\n--b"));
	assert_int_equal(mime_part_set_body(p->child[0].part, STR("S: x\n\n--b\n"), STR_NULL), 0);
	assert_int_equal(mime_part_set_body(p->child[1].part, STR("end"), STR_NULL), 0);
	struct buf out = BUF_INIT;
	mime_part_write(p, &out);
	struct mime_part *back = mime_part_parse(buf_str(&out));
	assert_int_equal(back->n_children, 2);
	assert_str_is(back->child[0].part->content, "S: x\r\n\r\n--b\r\n");
	assert_str_is(back->child[1].part->content, "end");
	mime_part_unref(back);
	mime_part_unref(p);
	buf_fini(&out);
}

static void test_mime_append(void **state)
{
	struct mime_part *p = mime_part_parse(STR(MP "--b\r\n\r\nx\r\n")),
			 *c = mime_part_new_text(STR("text/plain"), STR("new"));
	assert_int_equal(mime_part_append(p, c), 0);
	assert_written(p, MP "--b\r\n\r\nx\r\n\r\n--b\r\nContent-Type: text/plain; "
			     "charset=\"us-ascii\"\r\n\r\nnew\r\n--b--\r\n");
	assert_int_equal(mime_part_append(p, p), 0); /* a copy: no circle */
	mime_part_unref(p);
	assert_int_equal(mime_part_append(c, c), -1);
	assert_true(err_is(ERR_INVALID));
	err_clear();
	mime_part_unref(c);

	/* A child that contains the boundary. */
	p = mime_part_new_multipart(STR("multipart/mixed"), STR("b"));
	c = mime_part_parse(STR("\r\n--b\r\n"));
	assert_int_equal(mime_part_append(p, c), 0);
	struct buf out = BUF_INIT;
	mime_part_write(p, &out);
	struct mime_part *back = mime_part_parse(buf_str(&out));
	assert_int_equal(back->n_children, 1);
	assert_str_is(back->child[0].part->content, "--b\r\n");
	mime_part_unref(back);
	mime_part_unref(p);
	mime_part_unref(c);
	buf_fini(&out);

	p = mime_part_new_multipart(STR("multipart/mixed"), STR_NULL);
	for (int i = 0; i < 200 && mime_part_append(p, p) == 0; i++)
		;
	assert_true(err_is(ERR_LIMIT));
	err_clear();
	mime_part_unref(p);
	static const char *const bad[] = {
		"",	    " ",
		"a\r\nb",   "a\"b",
		"\xc3\xbc", "12345678901234567890123456789012345678901234567890123456789012345678901"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_null(mime_part_new_multipart(STR("multipart/mixed"), str_of(bad[i])));
		assert_true(err_is(ERR_INVALID));
		err_clear();
	}
	assert_null(mime_part_new_multipart(STR("plain"), STR_NULL));
	err_clear();
}

static void test_mime_new(void **state)
{
	struct mime_disposition file = {.is_given = true, .file_name = STR("binary.dat")},
				id = {.is_given = true, .is_inline = true, .content_id = STR("i1@x")},
				none = {0};
	struct mime_part *p = mime_part_new_binary(STR("application/octet-stream"), STR("\xbb\xaa"), &file);
	assert_written(p, "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
			  "Content-Disposition: attachment; filename=\"binary.dat\"\r\n\r\nu6o=");
	mime_part_unref(p);
	p = mime_part_new_binary(STR("image/gif"), STR("GIF"), &id);
	assert_written(p, "Content-Type: image/gif\r\nContent-Transfer-Encoding: "
			  "base64\r\nContent-Disposition: inline\r\n"
			  "Content-ID: <i1@x>\r\n\r\nR0lG");
	mime_part_unref(p);
	p = mime_part_new_binary(STR("text/plain"), STR("x"), &none);
	assert_written(p, "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\neA==");
	mime_part_unref(p);
	struct mime_disposition bad[] = {{.is_given = true, .file_name = STR("a\r\nb")},
					 {.is_given = true, .content_id = STR("a>\r\nX: y")},
					 {.is_given = true, .file_name = STR("\xff")}};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_null(mime_part_new_binary(STR("a/b"), STR("x"), &bad[i]));
		assert_true(err_is(ERR_INVALID));
		err_clear();
	}
	static const char *const bad_types[] = {"", "a", "a/b\r\nX: y", "multipart/mixed"};
	for (size_t i = 0; i < ARRAY_SIZE(bad_types); i++) {
		assert_null(mime_part_new_binary(str_of(bad_types[i]), STR("x"), &none));
		err_clear();
		assert_null(mime_part_new_text(str_of(bad_types[i]), STR("x")));
		err_clear();
	}
	assert_null(mime_part_new_text(STR("text/plain"), STR("\xff")));
	err_clear();
}

static void test_mime_compose(void **state)
{
	clock_set_virtual((mono_t){0}, (wall_t){INT64_C(1795401212) * NS_PER_S});
	struct mime_disposition file = {.is_given = true, .file_name = STR("binary.dat")}, none = {0},
				in = {.is_given = true, .is_inline = true};
	struct mime_part *text = mime_part_new_text(STR("text/plain"), STR("Hello, plain")),
			 *html = mime_part_new_text(STR("text/html"), STR("<b>Hello, html</b>")),
			 *a1 = mime_part_new_binary(STR("text/plain"),
						    STR("I am a plain text file with no options specified"),
						    &none),
			 *a2 = mime_part_new_binary(STR("application/octet-stream"), STR("\xaa\xbb"), &file),
			 *a3 = mime_part_new_binary(STR("image/gif"), STR("x"), &in);
	struct mime_part *attached[] = {a1, a2, a3};
	struct mime_composition c = {
		.text = text, .html = html, .attachment = attached, .n_attachments = 2, .is_stable = true};
	struct mime_part *p = mime_part_compose(&c);
	assert_written(
		p, "Content-Type: multipart/mixed; boundary=\"mm-boundary\"\r\nMIME-Version: 1.0\r\nDate: "
		   "Tue, 1 Jul 2003 10:52:37 +0200\r\n\r\n"
		   "--mm-boundary\r\nContent-Type: multipart/alternative; boundary=\"ma-boundary\"\r\n\r\n"
		   "--ma-boundary\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\r\nHello, plain\r\n"
		   "--ma-boundary\r\nContent-Type: text/html; charset=\"us-ascii\"\r\n\r\n<b>Hello, "
		   "html</b>\r\n--ma-boundary--\r\n"
		   "--mm-boundary\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
		   "SSBhbSBhIHBsYWluIHRleHQgZmlsZSB3aXRoIG5vIG9wdGlvbnMgc3BlY2lmaWVk\r\n"
		   "--mm-boundary\r\nContent-Type: application/octet-stream\r\n"
		   "Content-Transfer-Encoding: base64\r\n"
		   "Content-Disposition: attachment; "
		   "filename=\"binary.dat\"\r\n\r\nqrs=\r\n--mm-boundary--\r\n");
	mime_part_unref(p);
	const struct {
		struct mime_composition c;
		const char *tree;
	} cases[] = {
		{{.text = text}, "text/plain{12}"},
		{{.html = html}, "text/html{18}"},
		{{.n_attachments = 0}, "text/plain{0}"},
		{{.html = html, .attachment = attached, .n_attachments = 3},
		 "multipart/mixed[multipart/related[text/html{18}, image/gif{4}], text/plain{64}, "
		 "application/octet-stream{4}]"},
		{{.text = text, .amp = text, .html = html, .attachment = attached + 2, .n_attachments = 1},
		 "multipart/alternative[text/plain{12}, text/plain{12}, "
		 "multipart/related[text/html{18}, image/gif{4}]]"},
		{{.text = text, .attachment = attached + 2, .n_attachments = 1},
		 "multipart/mixed[text/plain{12}, image/gif{4}]"},
		{{.attachment = attached, .n_attachments = 1}, "multipart/mixed[text/plain{64}]"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct buf tree = BUF_INIT, out = BUF_INIT;
		p = mime_part_compose(&cases[i].c);
		dump(p, &tree);
		assert_str_is(buf_str(&tree), cases[i].tree);
		mime_part_write(p, &out);
		assert_true(str_find(buf_str(&out), STR("\r\nDate: Mon, 23 Nov 2026 02:33:32 +0000\r\n")) >
			    0);
		struct mime_part *back = mime_part_parse(buf_str(&out));
		buf_clear(&tree);
		dump(back, &tree);
		assert_str_is(buf_str(&tree), cases[i].tree);
		mime_part_unref(back);
		mime_part_unref(p);
		buf_fini(&tree);
		buf_fini(&out);
	}
	mime_part_unref(text), mime_part_unref(html), mime_part_unref(a1), mime_part_unref(a2),
		mime_part_unref(a3);
}

static void test_mime_structure(void **state)
{
	struct mime_part *p = mime_part_parse(STR(
		MP
		"--b\r\n" ALT "--c d\r\n\r\nt\r\n--c d\r\nContent-Type: text/x-amp-html\r\n\r\na\r\n--c "
		"d\r\nContent-Type: text/html\r\n\r\nh\r\n--c d--\r\n"
		"--b\r\nContent-Type: image/gif; name=\"no.gif\"\r\nContent-Disposition: inline; "
		"filename*=utf-8''%C3%BC.gif\r\nContent-ID: <i@x>\r\n\r\n1\r\n"
		"--b\r\nContent-Type: text/plain; name=b.txt\r\nContent-Disposition: attachment\r\n\r\n2\r\n"
		"--b\r\nContent-Type: text/plain\r\n\r\nfooter\r\n--b--\r\n"));
	struct mime_structure s;
	mime_part_structure(p, &s);
	assert_str_is(s.text->content, "t");
	assert_str_is(s.html->content, "h");
	assert_str_is(s.amp->content, "a");
	assert_ptr_equal(s.header, p);
	assert_int_equal(s.n_attached, 3);
	assert_str_is(s.attached[0].file_name, "\xc3\xbc.gif");
	assert_str_is(s.attached[0].content_id, "i@x");
	assert_str_is(s.attached[0].type, "image/gif");
	assert_true(s.attached[0].is_inline);
	assert_str_is(s.attached[1].file_name, "b.txt");
	assert_false(s.attached[1].is_inline);
	assert_null(s.attached[1].content_id.p);
	assert_null(s.attached[2].file_name.p);
	struct buf id = BUF_INIT;
	mime_part_id(s.html, &id);
	assert_buf_is(&id, "1.3");
	buf_clear(&id);
	mime_part_id(p, &id);
	assert_int_equal(id.n, 0);
	buf_fini(&id);
	mime_structure_fini(&s);
	/* A child outlives its tree. */
	struct mime_part *child = mime_part_ref(p->child[1].part);
	mime_part_unref(p);
	assert_str_is(child->content, "1");
	assert_null(child->parent);
	mime_part_unref(child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mime_parse),
		cmocka_unit_test(test_mime_parse_any),
		cmocka_unit_test(test_mime_limits),
		cmocka_unit_test(test_mime_fields),
		cmocka_unit_test(test_mime_boundary_follows),
		cmocka_unit_test(test_mime_decode),
		cmocka_unit_test(test_mime_set_body),
		cmocka_unit_test(test_mime_edit_in_tree),
		cmocka_unit_test(test_mime_append),
		cmocka_unit_test(test_mime_new),
		cmocka_unit_test(test_mime_compose),
		cmocka_unit_test(test_mime_structure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
