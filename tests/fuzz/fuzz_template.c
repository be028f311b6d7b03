/* A template, a NUL, and JSON for its context: whatever they are, rendering ends within its budgets, without
 * a trace in the output when it fails, and a second render of the compiled template gives the same text. */
#include "fuzz_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input_of(data, size);
	struct buf out = BUF_INIT, plain = BUF_INIT;
	struct template *t = template_compile_escaped("fuzz", in.source, size % 3);
	fuzz_render_twice(t, in.ctx, str_find(in.source, STR("now")) < 0, &out);
	template_normalize_smtp_response(in.source, &plain);
	template_free(t);
	buf_fini(&plain);
	buf_fini(&out);
	json_decref(in.ctx);
	return 0;
}
