/* fuzz_header.c - values of header fields: the first byte chooses the name. What is written anew is one field
 * of lines that SMTP can carry, and stays the same when it is written anew once more: what could not be
 * parsed had bytes over 127 encoded and may be parsed the next time, so once more than that. */
#include "base/err.h"
#include "mime/address_list.h"
#include "mime/auth_results.h"
#include "mime/date.h"
#include "mime/header.h"
#include "mime/header_value.h"
#include "mime/message_id.h"
#include "mime/mime_params.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_field(str_t whole, str_t name, str_t *raw_value)
{
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, whole);
	if (!header_next(&it, &f) || f.whole.n != whole.n || !str_eq(f.name, name))
		abort();
	str_t rest = whole, line;
	while (str_split(&rest, '\n', &line)) {
		if (line.n > 999 || (line.n > 0 && line.p[line.n - 1] != '\r') ||
		    (line.n > 1 && str_chr(str_head(line, line.n - 1), '\r', 0) >= 0))
			abort();
		if (line.n > 1 && str_trim(line).n == 0)
			abort(); /* a line of blanks would end the header for some */
	}
	*raw_value = f.raw_value;
}

static void check_again(str_t name, str_t value)
{
	struct buf once = BUF_INIT, twice = BUF_INIT, thrice = BUF_INIT;
	str_t raw;
	header_write_again(&once, name, value);
	check_field(buf_str(&once), name, &raw);
	header_write_again(&twice, name, raw);
	check_field(buf_str(&twice), name, &raw);
	header_write_again(&thrice, name, raw);
	if (!str_eq(buf_str(&twice), buf_str(&thrice)))
		abort();
	buf_clear(&once);
	header_write_named(&once, name, value);
	check_field(buf_str(&once), name, &raw);
	buf_fini(&once);
	buf_fini(&twice);
	buf_fini(&thrice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const str_t names[] = {STR("X-Text"),
				      STR("To"),
				      STR("From"),
				      STR("Sender"),
				      STR("Message-ID"),
				      STR("References"),
				      STR("Content-Type"),
				      STR("Content-Disposition"),
				      STR("Authentication-Results"),
				      STR("Subject")};
	if (n == 0)
		return 0;
	str_t name = names[data[0] % ARRAY_SIZE(names)], value = str_mk((const char *)data + 1, n - 1), id;
	struct address_list addresses;
	struct mime_params params;
	struct auth_results results;
	struct buf text = BUF_INIT;
	wall_t when;
	check_again(name, value);
	if (address_list_parse(value, &addresses) == 0) {
		for (size_t i = 0; i < addresses.n; i++)
			if (!addresses.v[i].is_group && address_mailbox_check(&addresses.v[i].box) != 0)
				err_clear();
		address_list_fini(&addresses);
	}
	if (mime_params_parse(value, &params) == 0)
		mime_params_fini(&params);
	if (auth_results_parse(value, &results) == 0)
		auth_results_fini(&results);
	for (str_t rest = value; message_id_next(&rest, &id) == 1;)
		;
	date_parse(value, &when);
	header_decode_lenient(value, &text);
	if (!str_is_utf8(buf_str(&text)))
		abort();
	buf_fini(&text);
	err_clear();
	return 0;
}
