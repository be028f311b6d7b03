/* dns_name.c - domain names as text and on the wire.
 *
 * One text form inside the resolver: lower case, no trailing dot, labels in ASCII (RFC 5890 A-labels). What
 * people write is brought to it by libidn2 (non-transitional UTS 46, as browsers do). Any printable ASCII is
 * let through, because names such as _dmarc or 0/26.2.0.192.in-addr.arpa are no host names but are looked
 * up; a backslash is not, so that no escape can smuggle a label boundary. Names from the wire may hold any
 * byte; the odd ones are escaped. */
#include "base/err.h"
#include "net/dns_impl.h"

#include <idn2.h>
#include <stdio.h>

#define NAME_INPUT_MAX 1000 /* bytes of UTF-8; what 253 characters of A-labels can come from is shorter */

static char name_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* NULL, or what is wrong. */
static const char *name_check(const char *z, size_t n)
{
	size_t n_label = 0;
	if (n == 0)
		return "it is empty";
	if (n > DNS_NAME_BYTES - 1)
		return "it is longer than 253 characters";
	for (size_t i = 0; i <= n; i++) {
		if (i < n && z[i] != '.') {
			if (z[i] <= ' ' || z[i] == 0x7f || z[i] == '\\')
				return "it has a character that no domain name has";
			n_label++;
			continue;
		}
		if (n_label == 0)
			return "it has an empty label";
		if (n_label > 63)
			return "it has a label longer than 63 characters";
		n_label = 0;
	}
	return NULL;
}

static int name_fail(str_t name, const char *why)
{
	err_set(ERR_INVALID, "\"" STR_FMT "\" is not a domain name: %s",
		STR_ARG(str_head(name, NAME_INPUT_MAX)), why);
	return -1;
}

static int name_to_ascii(str_t name, char **out)
{
	char z[NAME_INPUT_MAX + 1];
	if (name.n > NAME_INPUT_MAX || memchr(name.p, 0, name.n) != NULL || !str_is_utf8(name))
		return name_fail(name, "it is not UTF-8 text of a reasonable length");
	memcpy(z, name.p, name.n);
	z[name.n] = 0;
	int rc = idn2_to_ascii_8z(z, out, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	return rc == IDN2_OK ? 0 : name_fail(name, idn2_strerror(rc));
}

int dns_name_normalize(str_t name, char out[DNS_NAME_BYTES])
{
	char *ascii = NULL;
	str_t s = name;
	int rc = -1;
	for (size_t i = 0; i < name.n && ascii == NULL; i++) {
		if ((unsigned char)name.p[i] < 0x80)
			continue;
		if (name_to_ascii(name, &ascii) != 0)
			return -1;
		s = str_of(ascii);
	}
	if (s.n > 0 && s.p[s.n - 1] == '.')
		s.n--;
	const char *why = name_check(s.p, s.n);
	if (why != NULL) {
		name_fail(name, why);
		goto out;
	}
	for (size_t i = 0; i < s.n; i++)
		out[i] = name_lower(s.p[i]);
	out[s.n] = 0;
	rc = 0;
out:
	idn2_free(ascii);
	return rc;
}

bool dns_name_from_wire(str_t wire, size_t *pos, char out[DNS_WIRE_TEXT_BYTES])
{
	size_t i = *pos, n_out = 0;
	for (;;) {
		if (i >= wire.n || i - *pos >= 255)
			return false;
		size_t n_label = (unsigned char)wire.p[i++];
		if (n_label == 0)
			break;
		if (n_label > 63 || n_label > wire.n - i || i - *pos + n_label > 254)
			return false;
		if (n_out > 0)
			out[n_out++] = '.';
		for (size_t end = i + n_label; i < end; i++) {
			char c = name_lower(wire.p[i]);
			if (c > ' ' && c < 0x7f && c != '.' && c != '\\')
				out[n_out++] = c;
			else
				n_out += (size_t)sprintf(out + n_out, "\\%03u", (unsigned char)c);
		}
	}
	out[n_out] = 0;
	*pos = i;
	return true;
}

const char *dns_type_name(uint16_t type)
{
	switch ((enum dns_type)type) {
	case DNS_A:
		return "A";
	case DNS_AAAA:
		return "AAAA";
	case DNS_CNAME:
		return "CNAME";
	case DNS_MX:
		return "MX";
	case DNS_PTR:
		return "PTR";
	case DNS_TXT:
		return "TXT";
	}
	return "record";
}
