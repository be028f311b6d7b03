/* idna.c - libidn2 with the non-transitional rules of UTS 46, as browsers have them. */
#include "mail/idna.h"

#include "base/err.h"

#include <idn2.h>

static bool bytes_are_ascii(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return false;
	return true;
}

int idna_to_ascii(str_t domain, struct buf *out)
{
	if (bytes_are_ascii(domain)) {
		buf_add_str(out, domain);
		return 0;
	}
	struct buf z = BUF_INIT;
	char *ascii = NULL;
	buf_add_str(&z, domain);
	int rc = memchr(domain.p, 0, domain.n) != NULL ? IDN2_DISALLOWED
						       : idn2_to_ascii_8z(z.p, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (rc == IDN2_OK)
		buf_add_z(out, ascii);
	else
		err_set(ERR_INVALID, "invalid domain '" STR_FMT "': %s", STR_ARG(domain), idn2_strerror(rc));
	idn2_free(ascii);
	buf_fini(&z);
	return rc == IDN2_OK ? 0 : -1;
}

int mailbox_ascii(const struct mailbox *mb, struct buf *out)
{
	if (!mb->is_utf8 || !bytes_are_ascii(mb->local)) {
		buf_add_str(out, mb->email);
		return 0;
	}
	size_t before = out->n;
	buf_add_str(out, mb->local);
	buf_add_c(out, '@');
	if (idna_to_ascii(mb->domain, out) == 0)
		return 0;
	buf_truncate(out, before);
	return -1;
}
