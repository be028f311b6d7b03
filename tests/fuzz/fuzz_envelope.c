/* fuzz_envelope.c - mailboxes, as clients and policies write them. */
#include "base/err.h"
#include "mime/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct mailbox box;
	if (mailbox_parse(str_mk((const char *)data, n), &box) != 0) {
		err_clear();
		return 0;
	}
	for (size_t i = 0; i < box.email.n; i++) /* what passes can stand in an SMTP command */
		if ((unsigned char)box.email.p[i] < 32 || box.email.p[i] == 127)
			__builtin_trap();
	return 0;
}
