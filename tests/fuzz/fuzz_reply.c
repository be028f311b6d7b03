/* fuzz_reply.c - answers of SMTP servers, line by line. */
#include "base/err.h"
#include "smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct smtp_reply r = {0};
	str_t rest = str_mk((const char *)data, n), line;
	bool is_first = true;
	while (str_split(&rest, '\n', &line)) {
		int rc = smtp_reply_add_line(&r, line, is_first);
		if (rc < 0)
			err_clear();
		if (rc > 0) {
			struct smtp_response out = smtp_reply_response(&r, STR("DATA\r\n"));
			if (out.content.n > r.text.n || out.code < 200 || out.code > 599)
				__builtin_trap();
		}
		is_first = rc != 0;
	}
	smtp_reply_fini(&r);
	return 0;
}
