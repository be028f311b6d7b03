/* template.h - the Jinja dialect of the policy language (minijinja's documented subset). A template is compiled once and may be
 * rendered by any thread at the same time. Budgets bound steps, output and depth. */
#pragma once

#include "base/buf.h"

#include <jansson.h>

struct template;
/** -1/NULL ERR_INVALID: text, line and column of a syntax error, naming `name`. is_html: autoescape. */
MUST_CHECK struct template *template_compile(const char *name, str_t source, bool is_html);
void template_free(struct template *t);
/** context: a JSON object. Appends to out. -1 ERR_INVALID (with line) or ERR_LIMIT. */
MUST_CHECK int template_render(const struct template *t, const json_t *context, struct buf *out);
/** False when the source has no {{, {% or {#: it renders to itself. */
bool template_has_markup(str_t source);
