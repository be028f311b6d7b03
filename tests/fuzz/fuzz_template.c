/* A template, a NUL, and JSON for its context: whatever they are, rendering ends within its budgets, without
 * a trace in the output when it fails, and a second render of the compiled template gives the same text. */
#include "base/err.h"
#include "template/template.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int render(const struct template *t, const json_t *ctx, struct buf *out)
{
	buf_clear(out);
	buf_add_z(out, "x");
	int rc = template_render(t, ctx, out);
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
	struct buf one = BUF_INIT, two = BUF_INIT, plain = BUF_INIT;
	struct template *t = template_compile_escaped("fuzz", source, size % 3);
	if (t != NULL) {
		int rc = render(t, ctx, &one);
		bool has_clock = str_find(source, STR("now")) >= 0;
		if (render(t, ctx, &two) != rc || (!has_clock && !str_eq(buf_str(&one), buf_str(&two))))
			abort();
	} else if (err_kind() == ERR_NONE) {
		abort();
	}
	err_clear();
	template_free(t);
	template_normalize_smtp_response(source, &plain);
	buf_fini(&plain);
	buf_fini(&one);
	buf_fini(&two);
	json_decref(ctx);
	return 0;
}
