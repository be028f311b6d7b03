/* fuzz_mime.c - messages: written as they were read, in the same tree; rebuilt, they have none of the issues
 * that a rebuild removes, and rebuilding changes nothing after the second time (see fuzz_header.c). */
#include "base/err.h"
#include "mime/mime_conform.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_same(const struct mime_part *p, str_t want)
{
	struct buf out = BUF_INIT;
	mime_part_write(p, &out);
	if (!str_eq(buf_str(&out), want))
		abort();
	buf_fini(&out);
}

static void walk(struct mime_part *p)
{
	struct buf out = BUF_INIT;
	mime_part_decode_text(p, &out);
	mime_part_id(p, &out);
	buf_fini(&out);
	for (size_t i = 0; i < p->n_children; i++)
		walk(p->child[i].part);
}

/* What a rebuild cannot set right: see its comment. */
static bool has_exceptions(const struct mime_part *p)
{
	if (mime_part_is_type(p, STR("message/")) || mime_part_is_type(p, STR("multipart/signed")) ||
	    mime_part_is_type(p, STR("multipart/encrypted")))
		return true;
	for (size_t i = 0; i < p->n_children; i++)
		if (has_exceptions(p->child[i].part))
			return true;
	return false;
}

static void check_issues(const struct mime_part *p)
{
	unsigned left = mime_part_issues(p);
	if (left & MIME_NON_CANONICAL_LINE_ENDINGS)
		abort();
	if ((left & (MIME_LINE_TOO_LONG | MIME_NAME_ENDS_WITH_SPACE | MIME_MISSING_COLON_VALUE)) &&
	    !has_exceptions(p))
		abort();
}

static void check_rebuilt(const struct mime_part *p)
{
	struct buf was = BUF_INIT, now = BUF_INIT;
	struct mime_part *cur = mime_part_copy(p);
	for (int i = 0; i < 3; i++) {
		struct mime_part *rebuilt = mime_part_rebuild(cur, NULL);
		buf_clear(&was);
		buf_add_str(&was, buf_str(&now));
		buf_clear(&now);
		mime_part_write(rebuilt, &now);
		mime_part_unref(rebuilt);
		mime_part_unref(cur);
		cur = mime_part_parse(buf_str(&now));
		check_issues(cur);
	}
	if (!str_eq(buf_str(&was), buf_str(&now)))
		abort();
	mime_part_unref(cur);
	buf_fini(&was);
	buf_fini(&now);
}

static void check_edited(struct mime_part *p)
{
	struct mime_structure s;
	mime_part_structure(p, &s);
	for (size_t i = 0; i < s.n_attached; i++)
		if (mime_part_set_body(s.attached[i].part, STR("new\n--b\n"), STR_NULL) != 0)
			err_clear();
	if (s.text != NULL && mime_part_set_body(s.text, STR("\xc3\xbc"), STR_NULL) != 0)
		err_clear();
	mime_structure_fini(&s);
	mime_field_append(p, STR("X-Added: y\r\n"));
	struct buf out = BUF_INIT;
	mime_part_write(p, &out);
	struct mime_part *back = mime_part_parse(buf_str(&out));
	if (back->n_children != p->n_children || mime_field_first(back, STR("X-Added")) == NULL)
		abort();
	mime_part_unref(back);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	str_t bytes = str_mk((const char *)data, n);
	struct mime_part *p = mime_part_parse(bytes), *copy = mime_part_copy(p);
	check_same(p, bytes);
	walk(p);
	mime_part_issues(p);
	check_rebuilt(p);
	check_edited(p);
	check_same(copy, bytes);
	mime_part_unref(p);
	mime_part_unref(copy);
	if (err_kind() != ERR_NONE)
		abort();
	return 0;
}
