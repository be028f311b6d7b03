/* out_needs.c - what a message asks of its peer beyond plain SMTP: 8-bit data (RFC 6152), UTF-8 in addresses
 * or in the header (RFC 6531), its size (RFC 1870). An address whose local part is ASCII goes out with its
 * domain in ASCII, too (RFC 5891), and asks for nothing then.
 *
 * UTF-8 in the text of a header asks for SMTPUTF8 by the letter of RFC 6532, and is announced where that is
 * offered. Where it is not, 8BITMIME has to do: such mail has always gone that way, and its readers cope. An
 * address is another matter, since one that is mangled goes nowhere. */
#include "mail/message.h"
#include "mail/message_utf8.h"
#include "mime/idna.h"
#include "smtp/out_impl.h"

void out_add_address(const char *address, struct buf *out)
{
	struct mailbox box;
	if (!str_is_ascii(str_of(address))) {
		if (mailbox_parse(str_of(address), &box) == 0 && mailbox_ascii(&box, out) == 0)
			return;
		err_clear(); /* the domain is none: the peer says so */
	}
	buf_add_z(out, address);
}

static bool address_is_utf8(const char *address)
{
	if (str_is_ascii(str_of(address)))
		return false;
	struct buf wire = BUF_INIT;
	out_add_address(address, &wire);
	bool is_utf8 = !str_is_ascii(buf_str(&wire));
	buf_fini(&wire);
	return is_utf8;
}

static bool envelope_is_utf8(const struct message *m)
{
	if (address_is_utf8(m->sender))
		return true;
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		if (address_is_utf8(m->rcpt[i]))
			return true;
	return false;
}

bool out_message_is_utf8(const struct message *m)
{
	return envelope_is_utf8(m) || message_header_utf8(m) != MESSAGE_UTF8_NONE;
}

static bool address_is_sendable(const char *z)
{
	for (; *z != 0; z++)
		if ((unsigned char)*z < 32 || *z == 127)
			return false;
	return true;
}

static bool envelope_is_sendable(const struct message *m)
{
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		if (!address_is_sendable(m->rcpt[i]))
			return false;
	return address_is_sendable(m->sender);
}

/** The extensions that it cannot go without. */
static bool peer_has_extensions(const struct out_conn *c, const struct message *m, struct smtp_response *r)
{
	if (m->is_8bit_body && !c->has_8bitmime)
		*r = (struct smtp_response){
			.code = 554,
			.enhanced = {5, 6, 3},
			.content =
				STR("KumoMTA internal: DATA is 8bit, destination does not support 8BITMIME. "
				    "Conversion via msg:check_fix_conformance during reception is required")};
	else if (!c->has_smtputf8 && envelope_is_utf8(m))
		*r = (struct smtp_response){.code = 554,
					    .enhanced = {5, 6, 7},
					    .content = STR("KumoMTA internal: envelope is 8bit, destination "
							   "does not support SMTPUTF8.")};
	else if (!c->has_smtputf8 && message_header_utf8(m) == MESSAGE_UTF8_ADDRESS)
		*r = (struct smtp_response){
			.code = 554,
			.enhanced = {5, 6, 7},
			.content = STR("KumoMTA internal: an address in the header is 8bit, destination does "
				       "not support SMTPUTF8.")};
	else
		return true;
	return false;
}

bool out_message_is_possible(const struct out_conn *c, const struct message *m, struct smtp_response *r)
{
	if (!envelope_is_sendable(m)) { /* whatever way it came: it must not become a command of its own */
		*r = (struct smtp_response){
			.code = 553,
			.enhanced = {5, 1, 0},
			.content = STR("KumoMTA internal: control characters in an envelope address")};
		return false;
	}
	if (!session_path(c->s)->ignore_8bit_checks && !peer_has_extensions(c, m, r))
		return false;
	if (c->has_size && c->max_size_bytes > 0 &&
	    m->size_bytes > c->max_size_bytes) { /* RFC 1870 section 6.1 */
		*r = (struct smtp_response){
			.code = 552,
			.enhanced = {5, 3, 4},
			.content = STR("KumoMTA internal: the message is larger than the SIZE that the "
				       "destination accepts")};
		return false;
	}
	return true;
}
