/* value_json_read.c - the quick reader of JSON text.
 *
 * jansson looks at text a character at a time through a callback, which made the reading of its request a
 * fifth of what a message costs. This one takes a string's plain runs eight bytes at a time and builds the
 * same values. It knows only what is right: at anything else it gives up without a word, and jansson is
 * asked, so what is refused, and why, is jansson's to say, and so is every number that is not a short
 * integer. What is read here jansson reads as the same value: the fuzz target `value` holds both against each
 * other. */
#include "base/alloc.h"
#include "base/json.h"
#include "base/text.h"
#include "policy/value_impl.h"

enum {
	READ_INT_DIGITS = 18, /* always fit 64 bits */
	READ_REAL_BYTES = 64,
};

struct json_reader {
	const char *p, *end;
	struct buf text; /* of the string at hand, when it has escapes */
	unsigned depth;
};

static json_t *read_value(struct json_reader *r);

static void read_space(struct json_reader *r)
{
	while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
		r->p++;
}

/* Takes c, and the blanks around it, when it comes next. */
static bool read_is(struct json_reader *r, char c)
{
	read_space(r);
	if (r->p == r->end || *r->p != c)
		return false;
	r->p++;
	read_space(r);
	return true;
}

/* ---- strings ---- */

#define READ_EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether one of eight bytes is a quote, a backslash, a control character or not ASCII. A borrow can set a
 * bit too many, but only above a byte that has one by right. */
static bool read_has_special(uint64_t w)
{
	uint64_t quote = w ^ READ_EACH('"'), backslash = w ^ READ_EACH('\\');
	uint64_t hit = w | ((quote - READ_EACH(1)) & ~quote) | ((backslash - READ_EACH(1)) & ~backslash) |
		       ((w - READ_EACH(0x20)) & ~w);
	return (hit & READ_EACH(0x80)) != 0;
}

static const char *read_plain(const char *p, const char *end)
{
	for (uint64_t w; end - p >= (ptrdiff_t)sizeof(w); p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		if (read_has_special(w))
			break;
	}
	while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
		p++;
	return p;
}

static bool read_hex4(struct json_reader *r, unsigned *out)
{
	unsigned v = 0;
	if (r->end - r->p < 4)
		return false;
	for (size_t i = 0; i < 4; i++) {
		int digit = hex_digit(r->p[i]);
		if (digit < 0)
			return false;
		v = v << 4 | (unsigned)digit;
	}
	r->p += 4;
	*out = v;
	return true;
}

/* Behind the `u`. */
static bool read_unicode(struct json_reader *r)
{
	unsigned c, low;
	if (!read_hex4(r, &c))
		return false;
	if (c >= 0xdc00 && c < 0xe000)
		return false;
	if (c >= 0xd800 && c < 0xdc00) {
		if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
			return false;
		r->p += 2;
		if (!read_hex4(r, &low) || low < 0xdc00 || low > 0xdfff)
			return false;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	char utf8[4];
	buf_add(&r->text, utf8, utf8_encode(c, utf8));
	return true;
}

/* Behind the backslash. */
static bool read_escape(struct json_reader *r)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	if (r->p == r->end || *r->p == 0)
		return false;
	char c = *r->p++;
	if (c == 'u')
		return read_unicode(r);
	const char *at = strchr(from, c);
	if (at == NULL)
		return false;
	buf_add_c(&r->text, to[at - from]);
	return true;
}

/* From its quote on. *out is good until the next string. */
static bool read_string(struct json_reader *r, str_t *out)
{
	const char *from = ++r->p;
	bool is_copied = false;
	buf_clear(&r->text);
	for (;;) {
		size_t n_bad;
		const char *at = read_plain(r->p, r->end);
		if (at == r->end)
			return false;
		r->p = at + 1;
		if ((unsigned char)*at >= 0x80) {
			size_t n = str_utf8_step(str_mk(at, (size_t)(r->end - at)), &n_bad);
			if (n == 0)
				return false;
			r->p = at + n;
			continue;
		}
		if (*at != '"' && *at != '\\')
			return false;
		if (*at == '"' && !is_copied) {
			*out = str_mk(from, (size_t)(at - from));
			return true;
		}
		buf_add(&r->text, from, (size_t)(at - from));
		if (*at == '"') {
			*out = buf_str(&r->text);
			return true;
		}
		is_copied = true;
		if (!read_escape(r))
			return false;
		from = r->p;
	}
}

/* ---- numbers and words ---- */

static bool read_is_digit(const struct json_reader *r, const char *p)
{
	return p < r->end && *p >= '0' && *p <= '9';
}

static json_t *read_number(struct json_reader *r)
{
	const char *from = r->p;
	bool is_negative = *r->p == '-';
	json_int_t v = 0;
	r->p += is_negative;
	if (!read_is_digit(r, r->p))
		return NULL;
	const char *digits = r->p;
	for (; read_is_digit(r, r->p) && r->p - digits < READ_INT_DIGITS; r->p++)
		v = v * 10 + (*r->p - '0');
	if (read_is_digit(r, r->p) || (*digits == '0' && r->p - digits > 1))
		return NULL;
	if (r->p == r->end || (*r->p != '.' && *r->p != 'e' && *r->p != 'E'))
		return value_must(json_integer(is_negative ? -v : v));
	while (r->p < r->end && (read_is_digit(r, r->p) || memchr(".eE+-", *r->p, 5) != NULL))
		r->p++;
	if (r->p - from > READ_REAL_BYTES)
		return NULL;
	return json_loadb(from, (size_t)(r->p - from), JSON_DECODE_ANY, NULL);
}

static json_t *read_word(struct json_reader *r, str_t word, json_t *v)
{
	if ((size_t)(r->end - r->p) < word.n || memcmp(r->p, word.p, word.n) != 0)
		return NULL;
	r->p += word.n;
	return v;
}

/* ---- arrays and objects ---- */

static json_t *read_array(struct json_reader *r)
{
	json_t *arr = value_must(json_array());
	r->p++;
	if (read_is(r, ']'))
		return arr;
	for (;;) {
		json_t *v = read_value(r);
		if (v == NULL)
			break;
		value_arr_add(arr, v);
		if (read_is(r, ']'))
			return arr;
		if (!read_is(r, ','))
			break;
	}
	json_decref(arr);
	return NULL;
}

static bool read_member(struct json_reader *r, json_t *obj)
{
	str_t key;
	if (r->p == r->end || *r->p != '"' || !read_string(r, &key) || memchr(key.p, 0, key.n) != NULL)
		return false;
	char *copy = r->text.n > 0 ? str_dup(key) : NULL; /* the value's strings use the same place */
	json_t *v = read_is(r, ':') ? read_value(r) : NULL;
	size_t before = json_object_size(obj);
	if (v != NULL)
		value_obj_set(obj, copy != NULL ? str_mk(copy, key.n) : key, v);
	free(copy);
	return json_object_size(obj) > before; /* a key that is there twice is jansson's to judge */
}

static json_t *read_object(struct json_reader *r)
{
	json_t *obj = value_must(json_object());
	r->p++;
	if (read_is(r, '}'))
		return obj;
	while (read_member(r, obj)) {
		if (read_is(r, '}'))
			return obj;
		if (!read_is(r, ','))
			break;
	}
	json_decref(obj);
	return NULL;
}

static json_t *read_nested(struct json_reader *r)
{
	if (r->depth == VALUE_DEPTH_MAX)
		return NULL;
	r->depth++;
	json_t *v = *r->p == '{' ? read_object(r) : read_array(r);
	r->depth--;
	return v;
}

static json_t *read_value(struct json_reader *r)
{
	str_t s;
	read_space(r);
	if (r->p == r->end)
		return NULL;
	switch (*r->p) {
	case '{':
	case '[':
		return read_nested(r);
	case '"':
		return read_string(r, &s) ? value_must(json_stringn_nocheck(s.p, s.n)) : NULL;
	case 't':
		return read_word(r, STR("true"), json_true());
	case 'f':
		return read_word(r, STR("false"), json_false());
	case 'n':
		return read_word(r, STR("null"), json_null());
	default:
		return read_number(r);
	}
}

json_t *value_json_read(str_t text)
{
	if (text.n == 0)
		return NULL;
	struct json_reader r = {.p = text.p, .end = text.p + text.n};
	json_t *v = read_value(&r);
	read_space(&r);
	if (v != NULL && r.p != r.end) {
		json_decref(v);
		v = NULL;
	}
	buf_fini(&r.text);
	return v;
}
