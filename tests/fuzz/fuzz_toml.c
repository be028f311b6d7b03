/* TOML: nothing breaks, an error says why, and what was read is read again from what we write of it. */
#include "base/err.h"
#include "policy/value.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read(const json_t *v, int mode)
{
	struct buf b = BUF_INIT;
	if ((mode == 2 ? value_write_toml_compact(v, &b) : value_write_toml(v, mode == 1, &b)) != 0)
		abort();
	json_t *back = value_parse_toml(buf_str(&b));
	if (back != NULL) {
		if (!json_equal(v, back))
			abort();
		json_decref(back);
	} else {
		/* [[headers]] take two levels each, so a form with them may be too deep where the inline one
		 * was not. */
		if (strstr(err_text(), "nested deeper") == NULL)
			abort();
		err_clear();
	}
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *v = value_parse_toml(str_mk((const char *)data, size));
	if (v == NULL) {
		if (!err_is(ERR_INVALID))
			abort();
		err_clear();
		return 0;
	}
	for (int mode = 0; mode < 3; mode++)
		write_and_read(v, mode);
	json_decref(v);
	return 0;
}
