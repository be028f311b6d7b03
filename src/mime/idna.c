/* idna.c - libidn2 with the non-transitional rules of UTS 46, as browsers have them. Addresses that are ASCII
 * already are not looked at: their parsers have done that. */
#include "mime/idna.h"

#include "base/err.h"

#include <idn2.h>

/* The mapping of UTS 46 makes ASCII of look-alikes: a
 * blank, `@` or `>` that way must not get into a header. */
static bool name_is_valid(const char *z)
{
	size_t n_label = 0;
	for (; *z != 0; z++) {
		bool is_letter = (*z >= '0' && *z <= '9') || ((*z | 32) >= 'a' && (*z | 32) <= 'z') ||
				 *z == '-' || *z == '_';
		if (!is_letter && (*z != '.' || n_label == 0))
			return false;
		n_label = *z == '.' ? 0 : n_label + 1;
	}
	return n_label > 0;
}

int idna_to_ascii(str_t domain, struct buf *out)
{
	if (str_is_ascii(domain)) {
		buf_add_str(out, domain);
		return 0;
	}
	struct buf z = BUF_INIT;
	char *ascii = NULL;
	buf_add_str(&z, domain);
	int rc = memchr(domain.p, 0, domain.n) != NULL
			 ? IDN2_DISALLOWED
			 : idn2_to_ascii_8z(z.p, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	if (rc == IDN2_OK && !name_is_valid(ascii))
		rc = IDN2_DISALLOWED;
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
	if (!mb->is_utf8 || !str_is_ascii(mb->local)) {
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
