/* A Handlebars template, a NUL, and JSON for its context: whatever they are, rendering ends within its
 * budgets, without a trace in the output when it fails, and a second render of the compiled template, over
 * what the first one left behind, gives the same text. */
#include "fuzz_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = fuzz_input_of(data, size);
	struct buf out = BUF_INIT;
	struct template *t = template_compile_dialect("fuzz", in.source, TEMPLATE_HANDLEBARS, size % 3);
	fuzz_render_twice(t, in.ctx, true, &out);
	/* What has no markup renders to itself. */
	if (t != NULL && !template_has_markup_of(TEMPLATE_HANDLEBARS, in.source) &&
	    !str_eq(str_skip(buf_str(&out), 1), in.source))
		abort();
	template_free(t);
	buf_fini(&out);
	json_decref(in.ctx);
	return 0;
}
