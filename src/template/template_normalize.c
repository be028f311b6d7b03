/* template_normalize.c - takes what varies by user and by transaction out of an SMTP response, so that equal
 * reasons group together. Words are what stands between blanks and keep their surrounding punctuation; each
 * is looked at once, by shape, most specific first. A word made of letters only is language and stays. */
#include "template/template.h"

#include <arpa/inet.h>
#include <ctype.h>

enum {
	NORMALIZE_HASH_MIN = 8,
	NORMALIZE_HASH_MIN_LETTERS = 2,
	NORMALIZE_HASH_MIN_DIGITS = 3,
	NORMALIZE_BASE64_MIN = 24
};

static bool normalize_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool normalize_is_hex(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!isxdigit((unsigned char)s.p[i]))
			return false;
	return s.n > 0;
}

/* 8-4-4-4-12, or 32 hexadecimal digits, in {braces} or after urn:uuid: as well. */
static bool normalize_is_uuid(str_t s)
{
	static const size_t groups[] = {8, 4, 4, 4, 12};
	if (str_istarts(s, STR("urn:uuid:")))
		s = str_skip(s, 9);
	if (s.n == 38 && s.p[0] == '{' && s.p[37] == '}')
		s = str_mk(s.p + 1, 36);
	if (s.n == 32)
		return normalize_is_hex(s);
	if (s.n != 36)
		return false;
	str_t part;
	for (size_t i = 0; i < 5; i++)
		if (!str_split(&s, '-', &part) || part.n != groups[i] || !normalize_is_hex(part))
			return false;
	return true;
}

/* RFC 3339, whole or a date and time without its zone. */
static bool normalize_is_timestamp(str_t s)
{
	static const char shape[] = "dddd-dd-ddTdd:dd:dd";
	if (s.n < sizeof(shape) - 1)
		return false;
	for (size_t i = 0; i < sizeof(shape) - 1; i++)
		if (shape[i] == 'd' ? !isdigit((unsigned char)s.p[i])
				    : toupper((unsigned char)s.p[i]) != shape[i])
			return false;
	for (size_t i = sizeof(shape) - 1; i < s.n; i++)
		if (!isdigit((unsigned char)s.p[i]) && memchr(".:+-Zz", s.p[i], 6) == NULL)
			return false;
	return true;
}

static bool normalize_is_ip(str_t s)
{
	char text[64];
	unsigned char addr[16];
	if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
		s = str_mk(s.p + 1, s.n - 2);
	if (str_istarts(s, STR("IPv6:")))
		s = str_skip(s, 5);
	if (s.n < 2 || s.n >= sizeof(text))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = 0;
	return strlen(text) == s.n &&
	       (inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1);
}

/* RFC 5321 section 4.1.2 without quoted local parts: dot-atom @ name or address literal. */
static bool normalize_is_email(str_t s)
{
	ptrdiff_t at = str_chr(s, '@', 0);
	if (at < 1 || (size_t)at + 1 >= s.n)
		return false;
	for (size_t i = 0; i < (size_t)at; i++)
		if (!isalnum((unsigned char)s.p[i]) && (unsigned char)s.p[i] < 0x80 &&
		    memchr(".!#$%&'*+-/=?^_`{|}~", s.p[i], 20) == NULL)
			return false;
	str_t domain = str_skip(s, (size_t)at + 1);
	if (domain.p[0] == '[')
		return normalize_is_ip(domain);
	for (size_t i = 0; i < domain.n; i++)
		if (!isalnum((unsigned char)domain.p[i]) && (unsigned char)domain.p[i] < 0x80 &&
		    domain.p[i] != '.' && domain.p[i] != '-')
			return false;
	return domain.p[0] != '.' && domain.p[0] != '-';
}

struct normalize_shape {
	size_t n_letters, n_digits, n_upper, n_lower, n_delims,
		n_base64; /* base64: + / = and the URL form's - _ */
	bool is_plain;	  /* letters, digits and . - _ only */
	bool is_base64;
};

static struct normalize_shape normalize_shape_of(str_t s)
{
	struct normalize_shape sh = {.is_plain = true, .is_base64 = s.n >= NORMALIZE_BASE64_MIN};
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		sh.n_letters += isalpha(c) != 0;
		sh.n_upper += isupper(c) != 0;
		sh.n_lower += islower(c) != 0;
		sh.n_digits += isdigit(c) != 0;
		sh.n_delims += c == '.' || c == '-' || c == '_';
		if (!isalnum(c) && c != '.' && c != '-' && c != '_')
			sh.is_plain = false;
		bool is_padding = c == '=' && i + 2 >= s.n;
		if (!isalnum(c) && c != '+' && c != '/' && c != '-' && c != '_' && !is_padding)
			sh.is_base64 = false;
		sh.n_base64 += c == '+' || c == '/' || c == '=';
	}
	return sh;
}

/* A version or an enhanced status code ("5.1.1") has no letters; a host name has too few digits for its
 * letters. */
static bool normalize_is_hash(const struct normalize_shape *sh, str_t s)
{
	return sh->is_plain && s.n >= NORMALIZE_HASH_MIN && sh->n_letters >= NORMALIZE_HASH_MIN_LETTERS &&
	       sh->n_digits >= NORMALIZE_HASH_MIN_DIGITS;
}

static bool normalize_is_base64(const struct normalize_shape *sh, str_t s)
{
	return sh->is_base64 && (s.n % 4 == 0 || sh->n_base64 == 0) && sh->n_upper > 0 && sh->n_lower > 0 &&
	       (sh->n_digits > 0 || sh->n_base64 > 0);
}

static void normalize_word(str_t s, struct buf *out)
{
	for (;;) {
		struct normalize_shape sh = normalize_shape_of(s);
		const char *token = normalize_is_timestamp(s)	  ? "{timestamp}"
				    : normalize_is_uuid(s)	  ? "{uuid}"
				    : normalize_is_ip(s)	  ? "{ipaddr}"
				    : normalize_is_email(s)	  ? "{email}"
				    : normalize_is_hash(&sh, s)	  ? "{hash}"
				    : normalize_is_base64(&sh, s) ? "{base64}"
								  : NULL;
		if (token != NULL) {
			buf_add_z(out, token);
			return;
		}
		ptrdiff_t at = str_chr(s, '=', 0);
		if (at < 1) {
			buf_add_str(out, s);
			return;
		}
		buf_add(out, s.p, (size_t)at + 1);
		s = str_skip(s, (size_t)at + 1);
	}
}

/* Quotes, brackets and sentence punctuation around a word are not part of it, except what makes an address
 * literal. */
static void normalize_token(str_t s, struct buf *out)
{
	size_t lead = 0, trail = 0;
	if (normalize_is_ip(s) || normalize_is_uuid(s)) {
		normalize_word(s, out);
		return;
	}
	while (lead < s.n && memchr("<([{\"'", s.p[lead], 6) != NULL)
		lead++;
	while (trail + lead < s.n && memchr(">)]}\"',;:.!?", s.p[s.n - 1 - trail], 12) != NULL)
		trail++;
	buf_add(out, s.p, lead);
	if (lead + trail < s.n)
		normalize_word(str_mk(s.p + lead, s.n - lead - trail), out);
	buf_add(out, s.p + s.n - trail, trail);
}

void template_normalize_smtp_response(str_t text, struct buf *out)
{
	for (size_t i = 0, from; i < text.n;) {
		from = i;
		while (i < text.n && normalize_is_blank(text.p[i]))
			i++;
		buf_add(out, text.p + from, i - from);
		from = i;
		while (i < text.n && !normalize_is_blank(text.p[i]))
			i++;
		if (i > from)
			normalize_token(str_mk(text.p + from, i - from), out);
	}
}
