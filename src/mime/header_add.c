/* header_add.c - the check that stands between a policy, with whatever it got its values from, and the header
 * of a message. A fold that is in a value already ends no field, if something follows it: a line of blanks
 * alone is taken for the end of the header by some readers. */
#include "mime/header_add.h"

#include "base/err.h"
#include "mime/header.h"
#include "mime/header_value.h"

static int header_fail_name(str_t name)
{
	err_set(ERR_INVALID,
		"invalid header name \"" STR_FMT
		"\", expected up to 200 printable ASCII characters without blanks and colons",
		STR_ARG(str_head(name, 100)));
	return -1;
}

static int header_fail_byte(str_t name, str_t value, size_t at)
{
	const char *what = value.p[at] == 0 ? "a NUL byte" : value.p[at] == '\r' ? "a CR" : "a LF";
	err_set(ERR_INVALID, "invalid value of header `" STR_FMT "`: %s at position %zu would end it",
		STR_ARG(name), what, at + 1);
	return -1;
}

static bool is_break(char c)
{
	return c == 0 || c == '\r' || c == '\n';
}

/* The bytes of the fold that s starts with, up to the text after it; 0: none. */
static size_t fold_length(str_t s)
{
	size_t n = 2;
	if (!str_starts(s, STR("\r\n")))
		return 0;
	while (n < s.n && (s.p[n] == ' ' || s.p[n] == '\t'))
		n++;
	return n > 2 && n < s.n && !is_break(s.p[n]) ? n : 0;
}

static int header_check_given(str_t name, str_t value)
{
	for (size_t i = 0; i < value.n; i++) {
		if (!is_break(value.p[i]))
			continue;
		size_t n = fold_length(str_skip(value, i));
		if (n == 0)
			return header_fail_byte(name, value, i);
		i += n - 1;
	}
	return 0;
}

static int header_check_text(str_t name, str_t value)
{
	for (size_t i = 0; i < value.n; i++)
		if (is_break(value.p[i]))
			return header_fail_byte(name, value, i);
	if (str_is_utf8(value))
		return 0;
	err_set(ERR_INVALID, "invalid value of header `" STR_FMT "`: it is not UTF-8", STR_ARG(name));
	return -1;
}

int header_add(struct buf *out, str_t name, str_t value, bool is_encoded)
{
	if (!header_name_is_valid(name))
		return header_fail_name(name);
	if ((is_encoded ? header_check_text(name, value) : header_check_given(name, value)) != 0)
		return -1;
	if (is_encoded) {
		header_write_named(out, name, value);
		return 0;
	}
	buf_add_str(out, name);
	buf_add_z(out, ": ");
	buf_add_str(out, value);
	buf_add_z(out, "\r\n");
	return 0;
}
