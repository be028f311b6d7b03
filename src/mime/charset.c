/* charset.c - UTF-8, ASCII and Latin-1 are done here, iconv does the
 * others. A charset's name comes from the network: only letters, digits and
 * a few signs reach iconv_open, whose own syntax ("//TRANSLIT") has others. */
#include "mime/charset.h"

#include <iconv.h>

#define CHARSET_MAX 40

bool charset_is_name(str_t s)
{
	if (s.n == 0 || s.n >= CHARSET_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char c = s.p[i];
		if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
		      (c != 0 && strchr("-_.:+", c) != NULL)))
			return false;
	}
	return true;
}

/* What iconv calls charsets that mail calls otherwise. */
static str_t charset_real_name(str_t name)
{
	static const struct {
		str_t alias, name;
	} aliases[] = {
		{STR("ms949"), STR("CP949")},
		{STR("x-windows-949"), STR("CP949")},
		{STR("ks_c_5601-1987"), STR("CP949")},
		{STR("ks_c_5601"), STR("CP949")},
		{STR("x-sjis"), STR("CP932")},
		{STR("ms_kanji"), STR("CP932")},
		{STR("shift_jis"), STR("CP932")},
		{STR("windows-31j"), STR("CP932")},
		{STR("x-euc-jp"), STR("EUC-JP")},
		{STR("gb2312"), STR("GB18030")},
		{STR("x-gbk"), STR("GB18030")},
		{STR("gbk"), STR("GB18030")},
		{STR("x-big5"), STR("BIG5-HKSCS")},
		{STR("big5"), STR("BIG5-HKSCS")},
		{STR("x-mac-roman"), STR("MACINTOSH")},
		{STR("unicode-1-1-utf-7"), STR("UTF-7")},
		{STR("iso-8859-8-i"), STR("ISO-8859-8")},
		{STR("iso-8859-8-e"), STR("ISO-8859-8")},
		{STR("iso-8859-6-i"), STR("ISO-8859-6")},
		{STR("iso-8859-6-e"), STR("ISO-8859-6")},
	};
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (str_ieq(name, aliases[i].alias))
			return aliases[i].name;
	return name;
}

static iconv_t charset_open(str_t charset)
{
	char name[CHARSET_MAX];
	charset = charset_real_name(charset);
	memcpy(name, charset.p, charset.n);
	name[charset.n] = 0;
	return iconv_open("UTF-8", name);
}

bool charset_is_known(str_t s)
{
	iconv_t cd = charset_is_name(s) ? charset_open(s) : (iconv_t)-1;
	if (cd == (iconv_t)-1)
		return false;
	iconv_close(cd);
	return true;
}

static bool charset_iconv(str_t charset, str_t in, struct buf *out)
{
	iconv_t cd = charset_open(charset);
	if (cd == (iconv_t)-1)
		return false;
	/* No charset needs more than 4 bytes of UTF-8 for one of its own, plus what a flush may emit. */
	buf_reserve(out, in.n * 4 + 16);
	char *from = (char *)(uintptr_t)in.p, *to = out->p + out->n;
	size_t n_from = in.n, n_to = in.n * 4 + 16, room = n_to;
	bool is_ok = iconv(cd, &from, &n_from, &to, &n_to) != (size_t)-1 &&
		     iconv(cd, NULL, NULL, &to, &n_to) != (size_t)-1 && n_from == 0;
	iconv_close(cd);
	if (is_ok)
		out->n += room - n_to;
	out->p[out->n] = 0;
	return is_ok;
}

static void latin1_to_utf8(str_t in, struct buf *out)
{
	buf_reserve(out, in.n * 2);
	for (size_t i = 0; i < in.n; i++) {
		unsigned char c = (unsigned char)in.p[i];
		if (c < 0x80) {
			buf_add_c(out, (char)c);
		} else {
			buf_add_c(out, (char)(0xc0 | c >> 6));
			buf_add_c(out, (char)(0x80 | (c & 0x3f)));
		}
	}
}

bool charset_to_utf8(str_t charset, str_t in, struct buf *out)
{
	if (!charset_is_name(charset))
		return false;
	if (str_ieq(charset, STR("utf-8")) || str_ieq(charset, STR("us-ascii")) ||
	    str_ieq(charset, STR("utf8"))) {
		if (!str_is_utf8(in))
			return false;
		buf_add_str(out, in);
		return true;
	}
	if (!str_ieq(charset, STR("iso-8859-1")))
		return charset_iconv(charset, in, out);
	latin1_to_utf8(in, out);
	return true;
}

bool charset_to_utf8_lenient(str_t charset, str_t in, struct buf *out)
{
	if (charset.n == 0)
		charset = STR("utf-8");
	if (charset_to_utf8(charset, in, out))
		return true;
	if (str_is_utf8(in))
		buf_add_str(out, in);
	else
		latin1_to_utf8(in, out);
	return false;
}
