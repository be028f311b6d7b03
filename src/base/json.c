/* json.c - a JSON writer. It keeps one bit per nesting level, "a comma is due", and whether a key was just
 * written; that is all the state, so a value can be written from anywhere that has the struct. Strings are
 * copied in runs of bytes that need no escape. */
#include "base/json.h"

#include "base/text.h"

#include <math.h>

enum { JSON_MAX_DEPTH = 64 };

/* What comes before any value or key: the comma, unless a key has taken care of it. */
static void json_item_begin(struct json_out *j)
{
	if (j->is_after_key) {
		j->is_after_key = false;
		return;
	}
	if (j->depth == 0)
		return;
	uint64_t bit = UINT64_C(1) << (j->depth - 1);
	if (j->has_item & bit)
		buf_add_c(j->b, ',');
	j->has_item |= bit;
}

static void json_open(struct json_out *j, char bracket)
{
	json_item_begin(j);
	if (j->depth == JSON_MAX_DEPTH)
		panic("json: nested deeper than %d", JSON_MAX_DEPTH);
	j->has_item &= ~(UINT64_C(1) << j->depth);
	j->depth++;
	buf_add_c(j->b, bracket);
}

static void json_close(struct json_out *j, char bracket)
{
	if (j->depth == 0 || j->is_after_key)
		panic("json: %c without its opening or after a key", bracket);
	j->depth--;
	buf_add_c(j->b, bracket);
}

void json_obj_begin(struct json_out *j)
{
	json_open(j, '{');
}

void json_obj_end(struct json_out *j)
{
	json_close(j, '}');
}

void json_arr_begin(struct json_out *j)
{
	json_open(j, '[');
}

void json_arr_end(struct json_out *j)
{
	json_close(j, ']');
}

void json_key(struct json_out *j, str_t key)
{
	if (j->is_after_key)
		panic("json: key \"" STR_FMT "\" where a value is due", STR_ARG(key));
	json_item_begin(j);
	json_escape(j->b, key);
	buf_add_c(j->b, ':');
	j->is_after_key = true;
}

void json_str(struct json_out *j, str_t v)
{
	json_item_begin(j);
	json_escape(j->b, v);
}

void json_int(struct json_out *j, int64_t v)
{
	json_item_begin(j);
	buf_add_i64(j->b, v);
}

void json_uint(struct json_out *j, uint64_t v)
{
	json_item_begin(j);
	buf_add_u64(j->b, v);
}

void json_double(struct json_out *j, double v)
{
	json_item_begin(j);
	if (isfinite(v))
		double_fmt_json(j->b, v);
	else
		buf_add(j->b, "null", 4);
}

void json_bool(struct json_out *j, bool v)
{
	json_item_begin(j);
	buf_add_z(j->b, v ? "true" : "false");
}

void json_nil(struct json_out *j)
{
	json_item_begin(j);
	buf_add(j->b, "null", 4);
}

void json_raw(struct json_out *j, str_t v)
{
	json_item_begin(j);
	buf_add_str(j->b, v);
}

static bool json_is_plain(char c)
{
	unsigned char u = (unsigned char)c;
	return u >= 0x20 && u < 0x80 && u != '"' && u != '\\';
}

/* How many bytes from i on need no escape. Eight at a time: a byte of `odd` has its top bit set if that byte
 * of the word is not ASCII, a control, a quote or a backslash (or, by a borrow, follows one). */
static size_t json_plain_run(str_t v, size_t i)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones * 0x80;
	size_t start = i;
	for (uint64_t w; v.n - i >= sizeof(w); i += sizeof(w)) {
		memcpy(&w, v.p + i, sizeof(w));
		uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';
		uint64_t odd = w | (w - ones * 0x20) | (quote - ones) | (slash - ones);
		if ((odd & tops) != 0)
			break;
	}
	while (i < v.n && json_is_plain(v.p[i]))
		i++;
	return i - start;
}

static void json_escape_control(struct buf *out, unsigned char c)
{
	static const char digit[] = "0123456789abcdef";
	static const char short_form[32] = {
		['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
	if (short_form[c] != 0) {
		char two[2] = {'\\', short_form[c]};
		buf_add(out, two, 2);
	} else {
		char six[6] = {'\\', 'u', '0', '0', digit[c >> 4], digit[c & 15]};
		buf_add(out, six, 6);
	}
}

void json_escape(struct buf *out, str_t v)
{
	size_t i = 0;
	buf_reserve(out, v.n + 2);
	buf_add_c(out, '"');
	while (i < v.n) {
		size_t run = json_plain_run(v, i);
		buf_add(out, v.p + i, run);
		i += run;
		if (i == v.n)
			break;
		unsigned char c = (unsigned char)v.p[i];
		if (c == '"' || c == '\\') {
			char two[2] = {'\\', (char)c};
			buf_add(out, two, 2);
			i++;
		} else if (c < 0x20) {
			json_escape_control(out, c);
			i++;
		} else {
			size_t n_bad, n = str_utf8_step(str_skip(v, i), &n_bad);
			if (n != 0)
				buf_add(out, v.p + i, n);
			else
				buf_add(out, "\xef\xbf\xbd", 3);
			i += n != 0 ? n : n_bad;
		}
	}
	buf_add_c(out, '"');
}
