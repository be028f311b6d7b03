/* header_value.c - see the header. Fields with a structure that is not known here are text, which is only
 * folded at its blanks while it is ASCII; a fold never adds a blank where none was, so lists of URLs and
 * signatures survive. */
#include "mime/header_value.h"

#include "base/err.h"
#include "mime/address_list.h"
#include "mime/auth_results.h"
#include "mime/charset.h"
#include "mime/header.h"
#include "mime/message_id.h"
#include "mime/mime_params.h"

enum header_kind header_kind_of(str_t name)
{
	static const struct {
		str_t name;
		enum header_kind kind;
	} kinds[] = {
		{STR("Authentication-Results"), HEADER_AUTH_RESULTS},
		{STR("Bcc"), HEADER_ADDRESSES},
		{STR("Cc"), HEADER_ADDRESSES},
		{STR("Content-Disposition"), HEADER_MIME_PARAMS},
		{STR("Content-ID"), HEADER_MESSAGE_ID},
		{STR("Content-Transfer-Encoding"), HEADER_MIME_PARAMS},
		{STR("Content-Type"), HEADER_MIME_PARAMS},
		{STR("From"), HEADER_MAILBOXES},
		{STR("Message-ID"), HEADER_MESSAGE_ID},
		{STR("References"), HEADER_MESSAGE_ID_LIST},
		{STR("Reply-To"), HEADER_ADDRESSES},
		{STR("Resent-Bcc"), HEADER_ADDRESSES},
		{STR("Resent-Cc"), HEADER_ADDRESSES},
		{STR("Resent-From"), HEADER_MAILBOXES},
		{STR("Resent-Sender"), HEADER_MAILBOX},
		{STR("Resent-To"), HEADER_ADDRESSES},
		{STR("Sender"), HEADER_MAILBOX},
		{STR("To"), HEADER_ADDRESSES},
	};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (str_ieq(kinds[i].name, name))
			return kinds[i].kind;
	return HEADER_TEXT;
}

static bool header_write_addresses(struct header_writer *w, str_t text)
{
	struct address_list l;
	if (address_list_parse(text, &l) != 0)
		return false;
	address_list_write(&l, w);
	address_list_fini(&l);
	return true;
}

void header_write_named(struct buf *out, str_t name, str_t text)
{
	struct header_writer w;
	enum header_kind kind = header_kind_of(name);
	bool is_addresses = kind == HEADER_ADDRESSES || kind == HEADER_MAILBOXES || kind == HEADER_MAILBOX;
	header_write_begin(&w, out, name);
	if (!is_addresses || str_is_ascii(text) || !header_write_addresses(&w, text))
		header_write_text(&w, text);
	err_clear();
	header_write_end(&w);
}

/* --- from what was read --- */

static void header_write_ids(struct header_writer *w, str_t raw)
{
	str_t id;
	while (message_id_next(&raw, &id) == 1)
		message_id_write(w, id);
}

static bool ids_are_valid(str_t raw)
{
	str_t id;
	int rc;
	while ((rc = message_id_next(&raw, &id)) == 1)
		if (!message_id_is_valid(id))
			return false;
	return rc == 0;
}

/* False, and nothing written, when raw is not of the kind. */
static bool header_write_structured(struct header_writer *w, enum header_kind kind, str_t raw)
{
	struct mime_params params;
	struct auth_results results;
	bool is_ok = false;
	switch (kind) {
	case HEADER_ADDRESSES:
	case HEADER_MAILBOXES:
	case HEADER_MAILBOX:
		return header_write_addresses(w, raw);
	case HEADER_MESSAGE_ID:
	case HEADER_MESSAGE_ID_LIST:
		is_ok = ids_are_valid(raw);
		if (is_ok)
			header_write_ids(w, raw);
		return is_ok;
	case HEADER_MIME_PARAMS:
		if (mime_params_parse(raw, &params) != 0)
			return false;
		mime_params_clean(&params);
		mime_params_write(&params, w);
		mime_params_fini(&params);
		return true;
	case HEADER_AUTH_RESULTS:
		if (auth_results_parse(raw, &results) != 0)
			return false;
		is_ok = auth_results_check(&results) == 0;
		if (is_ok)
			auth_results_write(&results, w);
		auth_results_fini(&results);
		return is_ok;
	case HEADER_TEXT:
		break;
	}
	return false;
}

/* Encoded words stay as they are, blanks too. */
static void header_write_raw_text(struct header_writer *w, str_t raw)
{
	struct buf line = BUF_INIT, text = BUF_INIT;
	header_unfold(raw, &line);
	charset_to_utf8_lenient(STR(""), buf_str(&line), &text);
	header_write_raw(w, buf_str(&text));
	buf_fini(&line);
	buf_fini(&text);
}

void header_write_again(struct buf *out, str_t name, str_t raw_value)
{
	struct header_writer w;
	header_write_begin(&w, out, name);
	size_t mark = out->n;
	if (!header_write_structured(&w, header_kind_of(name), raw_value)) {
		buf_truncate(out, mark);
		header_write_raw_text(&w, raw_value);
	}
	err_clear();
	header_write_end(&w);
}
