/* fuzz_template.h - what the fuzz targets of both template languages share: an input that is a template, a
 * NUL, and JSON for its context; and what holds for every rendering. */
#pragma once

#include "base/err.h"
#include "template/template.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
	str_t source;
	json_t *ctx; /* NULL: none, or no JSON */
};

static inline struct fuzz_input fuzz_input_of(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
	struct fuzz_input in = {
		.source = str_mk((const char *)data, nul != NULL ? (size_t)(nul - data) : size)};
	json_error_t e;
	if (nul != NULL)
		in.ctx = json_loadb((const char *)nul + 1, size - in.source.n - 1, JSON_ALLOW_NUL, &e);
	return in;
}

/** Renders behind what out holds. A rendering that fails has an error, and leaves no trace. */
static inline int fuzz_render(struct template_run *run, const struct template *t, const json_t *ctx,
			      struct buf *out)
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

/** Renders twice, the second time over what the first one left behind. A template that did not compile (NULL)
 * has an error; is_fixed: both times it is the same text. out: "x" and what it was, empty without one. */
static inline void fuzz_render_twice(const struct template *t, const json_t *ctx, bool is_fixed,
				     struct buf *out)
{
	if (t == NULL) {
		if (err_kind() == ERR_NONE)
			abort();
		err_clear();
		return;
	}
	struct template_run *run = template_run_new();
	struct buf again = BUF_INIT;
	int rc = fuzz_render(run, t, ctx, out);
	if (fuzz_render(run, t, ctx, &again) != rc || (is_fixed && !str_eq(buf_str(&again), buf_str(out))))
		abort();
	buf_fini(&again);
	template_run_free(run);
}
