/* envelope.c - the mailbox grammar of RFC 5321 section 4.1.2 with the UTF-8 extensions of RFC 6531 section
 * 3.3. One pass with a cursor; each part is a small function that moves it or says what it found instead.
 * Beyond the grammar: an underscore is a letter in domain labels (such hosts exist and receive mail), and a
 * local part may have up to 512 bytes, because return paths that encode the recipient pass 64 (section
 * 4.5.3.1 asks not to be strict here). */
#include "mime/envelope.h"

#include "base/err.h"

#include <arpa/inet.h>

#define LOCAL_MAX 512
#define DOMAIN_MAX 255
#define LABEL_MAX 63

struct mailbox_scan {
	str_t s;
	size_t at;
	bool is_utf8;
};

static int mailbox_fail(const struct mailbox_scan *sc, const char *what)
{
	if (sc->at >= sc->s.n)
		err_set(ERR_INVALID, "invalid address '" STR_FMT "': %s, found the end", STR_ARG(sc->s),
			what);
	else if ((unsigned char)sc->s.p[sc->at] <= 0x20 || (unsigned char)sc->s.p[sc->at] >= 0x7f)
		err_set(ERR_INVALID, "invalid address '" STR_FMT "': %s, found byte 0x%02x at position %zu",
			STR_ARG(sc->s), what, (unsigned)(unsigned char)sc->s.p[sc->at], sc->at + 1);
	else
		err_set(ERR_INVALID, "invalid address '" STR_FMT "': %s, found '%c' at position %zu",
			STR_ARG(sc->s), what, sc->s.p[sc->at], sc->at + 1);
	return -1;
}

static int mailbox_peek(const struct mailbox_scan *sc)
{
	return sc->at < sc->s.n ? (unsigned char)sc->s.p[sc->at] : -1;
}

static bool is_alnum(int c)
{
	return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static bool is_atext(int c)
{
	return is_alnum(c) || c >= 0x80 || (c > 0 && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

static int mailbox_skip_dot_string(struct mailbox_scan *sc)
{
	for (;;) {
		if (!is_atext(mailbox_peek(sc)))
			return mailbox_fail(sc, "expected a character of the local part");
		while (is_atext(mailbox_peek(sc)))
			sc->at++;
		if (mailbox_peek(sc) != '.')
			return 0;
		sc->at++;
	}
}

static int mailbox_skip_quoted(struct mailbox_scan *sc)
{
	for (sc->at++;; sc->at++) {
		int c = mailbox_peek(sc);
		if (c == '"') {
			sc->at++;
			return 0;
		}
		if (c == '\\') {
			sc->at++;
			c = mailbox_peek(sc);
			if (c < 32 || c > 126)
				return mailbox_fail(sc, "expected a printable character after the backslash");
		} else if (c < 32 || c == 127) {
			return mailbox_fail(sc, "expected the closing quote of the local part");
		}
	}
}

/* A name: labels of letters, digits, '-', '_' and UTF-8, no '-' at either end of one. */
static int mailbox_skip_name(struct mailbox_scan *sc)
{
	size_t first = sc->at;
	for (;;) {
		size_t label = sc->at;
		int c = mailbox_peek(sc);
		if (!is_alnum(c) && c != '_' && c < 0x80)
			return mailbox_fail(sc, "expected a letter or digit of the domain");
		for (; is_alnum(c) || c == '-' || c == '_' || c >= 0x80; c = mailbox_peek(sc))
			sc->at++;
		if (sc->s.p[sc->at - 1] == '-')
			return mailbox_fail(sc, "expected a letter or digit after the hyphen");
		if (sc->at - label > LABEL_MAX)
			return mailbox_fail(sc, "a label of the domain is longer than 63 bytes");
		if (sc->at - first > DOMAIN_MAX)
			return mailbox_fail(sc, "the domain is longer than 255 bytes");
		if (c != '.')
			return 0;
		sc->at++;
	}
}

/* [192.0.2.1], [IPv6:2001:db8::1], the same without its
 * tag, and the General-address-literal [tag:dcontent]. */
static int mailbox_skip_literal(struct mailbox_scan *sc)
{
	size_t first = ++sc->at;
	int c;
	while ((c = mailbox_peek(sc)) >= 33 && c <= 126 && c != '[' && c != '\\' && c != ']')
		sc->at++;
	if (c != ']')
		return mailbox_fail(sc, "expected the closing bracket of the address literal");
	str_t text = str_mk(sc->s.p + first, sc->at - first);
	char z[64];
	struct in6_addr ip;
	bool has_tag = str_istarts(text, STR("IPv6:"));
	str_t digits = has_tag ? str_skip(text, 5) : text;
	bool is_ok = false;
	if (digits.n > 0 && digits.n < sizeof z) {
		memcpy(z, digits.p, digits.n);
		z[digits.n] = 0;
		is_ok = inet_pton(AF_INET6, z, &ip) == 1 || (!has_tag && inet_pton(AF_INET, z, &ip) == 1);
	}
	if (!is_ok && !has_tag) {
		ptrdiff_t colon = str_chr(text, ':', 0);
		is_ok = colon > 0 && (size_t)colon + 1 < text.n && is_alnum(text.p[colon - 1]);
		for (ptrdiff_t i = 0; is_ok && i < colon; i++)
			is_ok = is_alnum(text.p[i]) || text.p[i] == '-';
	}
	if (!is_ok) {
		sc->at = first;
		return mailbox_fail(sc, "expected an address literal");
	}
	sc->at++;
	return 0;
}

static int mailbox_skip_domain(struct mailbox_scan *sc)
{
	return mailbox_peek(sc) == '[' ? mailbox_skip_literal(sc) : mailbox_skip_name(sc);
}

/* "@a.example,@b.example:" is read and ignored (RFC 5321 appendix F.2). */
static int mailbox_skip_route(struct mailbox_scan *sc)
{
	while (mailbox_peek(sc) == '@') {
		sc->at++;
		if (mailbox_skip_domain(sc) != 0)
			return -1;
		int c = mailbox_peek(sc);
		if (c != ',' && c != ':')
			return mailbox_fail(sc, "expected ',' or ':' in the source route");
		sc->at++;
		if (c == ':')
			return 0;
		if (mailbox_peek(sc) != '@')
			return mailbox_fail(sc, "expected '@' in the source route");
	}
	return 0;
}

/* Controls of both the ASCII and the C1 range never pass, wherever they stand; what is not UTF-8 neither. */
static int mailbox_check_bytes(struct mailbox_scan *sc)
{
	for (sc->at = 0; sc->at < sc->s.n; sc->at++) {
		unsigned char c = (unsigned char)sc->s.p[sc->at];
		if (c < 32 || c == 127) {
			err_set(ERR_INVALID, "invalid address: control byte 0x%02x at position %zu", c,
				sc->at + 1);
			return -1;
		}
		if (c < 0x80)
			continue;
		sc->is_utf8 = true;
		if (c == 0xc2 && sc->at + 1 < sc->s.n && (unsigned char)sc->s.p[sc->at + 1] < 0xa0) {
			err_set(ERR_INVALID, "invalid address: a control character at position %zu",
				sc->at + 1);
			return -1;
		}
	}
	if (sc->is_utf8 && !str_is_utf8(sc->s)) {
		err_set(ERR_INVALID, "invalid address: the bytes are not UTF-8");
		return -1;
	}
	sc->at = 0;
	return 0;
}

int mailbox_parse(str_t text, struct mailbox *out)
{
	struct mailbox_scan sc = {.s = text};
	if (text.n > LOCAL_MAX + 2 * DOMAIN_MAX) {
		err_set(ERR_INVALID, "invalid address: %zu bytes are too long", text.n);
		return -1;
	}
	if (mailbox_check_bytes(&sc) != 0)
		return -1;
	if (text.n == 0 || str_eq(text, STR("<>"))) {
		*out = (struct mailbox){STR(""), STR(""), STR(""), false};
		return 0;
	}
	bool has_bracket = text.p[0] == '<';
	if (has_bracket) {
		sc.at++;
		if (mailbox_skip_route(&sc) != 0)
			return -1;
	}
	struct mailbox mb = {0};
	size_t first = sc.at;
	if ((mailbox_peek(&sc) == '"' ? mailbox_skip_quoted(&sc) : mailbox_skip_dot_string(&sc)) != 0)
		return -1;
	mb.local = str_mk(text.p + first, sc.at - first);
	if (mb.local.n > LOCAL_MAX)
		return mailbox_fail(&sc, "the local part is longer than 512 bytes");
	mb.domain = str_mk(text.p + sc.at, 0);
	if (mailbox_peek(&sc) == '@') {
		size_t domain = ++sc.at;
		if (mailbox_skip_domain(&sc) != 0)
			return -1;
		mb.domain = str_mk(text.p + domain, sc.at - domain);
	} else if (!str_ieq(mb.local, STR("postmaster"))) {
		return mailbox_fail(&sc, "expected '@'");
	}
	mb.email = str_mk(text.p + first, sc.at - first);
	if (has_bracket) {
		if (mailbox_peek(&sc) != '>')
			return mailbox_fail(&sc, "expected '>'");
		sc.at++;
	}
	if (sc.at != text.n)
		return mailbox_fail(&sc, "expected the end of the address");
	for (size_t i = 0; i < mb.email.n && !mb.is_utf8; i++)
		mb.is_utf8 = (unsigned char)mb.email.p[i] >= 0x80;
	*out = mb;
	return 0;
}
