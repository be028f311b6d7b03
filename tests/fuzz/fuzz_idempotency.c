/* fuzz_idempotency.c - the value of an Idempotency-Key header from hostile bytes. What is taken is 1 to 255
 * printable characters, and written in quotes it is the same key; a bare value is its own key. */
#include "api/idempotency.h"
#include "base/buf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *key = malloc(IDEMPOTENCY_KEY_MAX),
	     *again = malloc(IDEMPOTENCY_KEY_MAX); /* what lies behind them is guarded */
	size_t n_key = SIZE_MAX, n_again;
	struct buf quoted = BUF_INIT;
	str_t in = str_mk((const char *)data, n);
	const char *why = idempotency_parse_key(in, key, &n_key);
	if (why != NULL) {
		MUST(why[0] != 0);
		goto out;
	}
	MUST(n_key >= 1 && n_key <= IDEMPOTENCY_KEY_MAX);
	buf_add_c(&quoted, '"');
	for (size_t i = 0; i < n_key; i++) {
		MUST(key[i] >= 0x20 && key[i] <= 0x7e);
		if (key[i] == '"' || key[i] == '\\')
			buf_add_c(&quoted, '\\');
		buf_add_c(&quoted, key[i]);
	}
	buf_add_c(&quoted, '"');
	if (in.p[0] == '"')
		MUST(str_eq(buf_str(&quoted), in)); /* there is one way to write it */
	else
		MUST(str_eq(str_mk(key, n_key), in));
	MUST(idempotency_parse_key(buf_str(&quoted), again, &n_again) == NULL);
	MUST(str_eq(str_mk(again, n_again), str_mk(key, n_key)));
out:
	buf_fini(&quoted);
	free(key);
	free(again);
	return 0;
}
