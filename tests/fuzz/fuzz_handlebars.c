/* A Handlebars template, a NUL, and JSON for its context: whatever they are, rendering ends within its
 * budgets, without a trace in the output when it fails, and a second render of the compiled template, over
 * what the first one left behind, gives the same text. */
#include "base/err.h"
#include "template/template.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int render(struct template_run *run, const struct template *t, const json_t *ctx, struct buf *out)
{
	const json_t *layers[] = {json_object_get(ctx, "over"), ctx};
	buf_clear(out);
	buf_add_z(out, "x");
	int rc = template_run_render(run, t, layers, 2, out);
	if (out->n == 0 || out->p[0] != 'x' || (rc != 0 && (out->n != 1 || err_kind() == ERR_NONE)))
		abort();
	err_clear();
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
	str_t source = str_mk((const char *)data, nul != NULL ? (size_t)(nul - data) : size);
	json_error_t e;
	json_t *ctx = nul != NULL ? json_loadb((const char *)nul + 1, size - source.n - 1, JSON_ALLOW_NUL, &e)
				  : NULL;
	struct buf one = BUF_INIT, two = BUF_INIT;
	struct template_run *run = template_run_new();
	struct template *t = template_compile_dialect("fuzz", source, TEMPLATE_HANDLEBARS, size % 3);
	if (t != NULL) {
		int rc = render(run, t, ctx, &one);
		if (render(run, t, ctx, &two) != rc || !str_eq(buf_str(&one), buf_str(&two)))
			abort();
		/* What has no markup renders to itself. */
		if (!template_has_markup_of(TEMPLATE_HANDLEBARS, source) &&
		    !str_eq(str_skip(buf_str(&one), 1), source))
			abort();
	} else if (err_kind() == ERR_NONE) {
		abort();
	}
	err_clear();
	template_free(t);
	template_run_free(run);
	buf_fini(&one);
	buf_fini(&two);
	json_decref(ctx);
	return 0;
}
