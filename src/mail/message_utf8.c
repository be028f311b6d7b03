/* message_utf8.c - the fields with addresses are read as addresses; one that cannot be read is text. Most
 * messages are ASCII, and message->is_8bit_body says so without a look. */
#include "mail/message_utf8.h"

#include "base/err.h"
#include "mime/address_list.h"
#include "mime/header.h"

#define FIELD_BYTES_MAX ((size_t)256 << 10) /* a longer one is not read: no real one is */

static bool field_has_addresses(str_t name)
{
	static const str_t known[] = {
		STR("from"), STR("sender"), STR("reply-to"), STR("to"), STR("cc"), STR("bcc"),
	};
	if (name.n > 7 && str_ieq(str_head(name, 7), STR("resent-")))
		name = str_skip(name, 7);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (str_ieq(name, known[i]))
			return true;
	return false;
}

static bool mailbox_is_ascii(const struct address_mailbox *box)
{
	return str_is_ascii(box->local) && str_is_ascii(box->domain);
}

static bool addresses_are_ascii(str_t value)
{
	struct address_list l;
	bool is_ascii = true;
	if (address_list_parse(value, &l) != 0) {
		err_clear();
		return true;
	}
	for (size_t i = 0; i < l.n && is_ascii; i++) {
		const struct address *a = &l.v[i];
		is_ascii = a->is_group || mailbox_is_ascii(&a->box);
		for (size_t k = 0; a->is_group && k < a->n_members && is_ascii; k++)
			is_ascii = mailbox_is_ascii(&a->member[k]);
	}
	address_list_fini(&l);
	return is_ascii;
}

static enum message_utf8 header_utf8(str_t bytes)
{
	enum message_utf8 found = MESSAGE_UTF8_NONE;
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, bytes);
	while (header_next(&it, &f)) {
		if (str_is_ascii(f.raw_value) || !str_is_utf8(f.raw_value))
			continue;
		if (f.raw_value.n <= FIELD_BYTES_MAX && field_has_addresses(f.name) &&
		    !addresses_are_ascii(f.raw_value))
			return MESSAGE_UTF8_ADDRESS;
		found = MESSAGE_UTF8_TEXT;
	}
	return found;
}

enum message_utf8 message_header_utf8(const struct message *m)
{
	if (!m->is_8bit_body)
		return MESSAGE_UTF8_NONE;
	enum message_utf8 prefix = header_utf8(str_mk(m->prefix, m->n_prefix_bytes));
	enum message_utf8 body = header_utf8(str_mk(m->body->p, m->body->n_bytes));
	return prefix > body ? prefix : body;
}
