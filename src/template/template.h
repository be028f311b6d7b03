/* template.h - the templates of the policy language: Jinja (minijinja's dialect, as documented), Handlebars,
 * and static text. A template is compiled once and may be rendered by any thread at the same time. Budgets
 * bound steps, output, memory and depth (template_impl.h has them). Nothing here yields; a zone named in a
 * date filter is read once from the system's database. Errors read "syntax error: unexpected end of input,
 * expected ... (in template 'NAME' line N: 'THE LINE'), column C". */
#pragma once

#include "base/buf.h"

#include <jansson.h>

struct template;
enum template_escape { TEMPLATE_ESCAPE_NONE, TEMPLATE_ESCAPE_HTML, TEMPLATE_ESCAPE_JSON };

/** Static: the source is what it renders to, whatever is in it. docs/templates.md has the others. */
enum template_dialect { TEMPLATE_JINJA, TEMPLATE_HANDLEBARS, TEMPLATE_STATIC };

/** NULL with ERR_INVALID, or ERR_LIMIT for a source over 64 MiB. is_html: what {{ }} prints is escaped for
 * HTML. Both are Jinja. */
MUST_CHECK struct template *template_compile(const char *name, str_t source, bool is_html);
MUST_CHECK struct template *template_compile_escaped(const char *name, str_t source,
						     enum template_escape escape);
MUST_CHECK struct template *template_compile_dialect(const char *name, str_t source,
						     enum template_dialect dialect,
						     enum template_escape escape);
void template_free(struct template *t);
/** context: a JSON object. Appends to out. -1 ERR_INVALID (with line and column) or ERR_LIMIT. */
MUST_CHECK int template_render(const struct template *t, const json_t *context, struct buf *out);
/** As template_render; a name is looked up in contexts[0], then in [1] and so on: a recipient's substitutions
 * over global ones. An element that is NULL or no object has no names. */
MUST_CHECK int template_render_layered(const struct template *t, const json_t *const *contexts, size_t n,
				       struct buf *out);

/** What one render after another may share: the memory they work in. For many renders in a row, of one
 * template or of several, by one thread at a time. Nothing of a render is kept but that memory. */
struct template_run;
struct template_run *template_run_new(void);
void template_run_free(struct template_run *run);
/** As template_render_layered. */
MUST_CHECK int template_run_render(struct template_run *run, const struct template *t,
				   const json_t *const *contexts, size_t n, struct buf *out);

/** An SMTP response without what varies by user and transaction: addresses, ids, time stamps become {email},
 * {ipaddr}, {uuid}, {hash}, {timestamp}, {base64}; `a=b` is looked at on its right side. Appends to out. */
void template_normalize_smtp_response(str_t text, struct buf *out);
/** False when the source has nothing that the dialect would expand: it renders to itself (but Jinja drops one
 * newline at its end). */
bool template_has_markup_of(enum template_dialect dialect, str_t source);
