/* The Handlebars engine: every case of handlebars_cases.json (their expected values are held against
 * Handlebars itself by tests/support/handlebars_diff.js), what only we have, and templates that mean harm. */
#include "ut.h"

#include "base/err.h"
#include "base/log.h"
#include "template/template.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* Renders into out (cleared first). 0, or -1 with the error. */
static int render(str_t source, enum template_escape escape, const json_t *const *contexts, size_t n,
		  struct buf *out)
{
	buf_clear(out);
	struct template *t = template_compile_dialect("t", source, TEMPLATE_HANDLEBARS, escape);
	int rc = t != NULL ? template_render_layered(t, contexts, n, out) : -1;
	template_free(t);
	return rc;
}

#define assert_renders(source, ctx, text) assert_renders_at(source, ctx, text, __LINE__)
static void assert_renders_at(const char *source, const json_t *ctx, const char *text, int line)
{
	struct buf out = BUF_INIT;
	if (render(str_of(source), TEMPLATE_ESCAPE_HTML, &ctx, 1, &out) != 0) {
		print_error("%.200s: %s\n", source, err_text());
		_fail(__FILE__, line);
	}
	assert_str_is_at(buf_str(&out), text, __FILE__, line);
	buf_fini(&out);
}

/* --- the cases --- */

static bool check_case(const json_t *c, const json_t *contexts, struct buf *out)
{
	const json_t *source = json_object_get(c, "source"), *want = json_object_get(c, "out");
	const char *escape = json_string_value(json_object_get(c, "escape")),
		   *error = json_string_value(json_object_get(c, "error"));
	const json_t *ctx = json_object_get(contexts, json_string_value(json_object_get(c, "context")));
	enum template_escape as = escape == NULL		? TEMPLATE_ESCAPE_HTML
				  : strcmp(escape, "none") == 0 ? TEMPLATE_ESCAPE_NONE
								: TEMPLATE_ESCAPE_JSON;
	int rc = render(str_mk(json_string_value(source), json_string_length(source)), as, &ctx, 1, out);
	bool is_ok = rc == 0 ? want != NULL && str_eq(buf_str(out), str_mk(json_string_value(want),
									   json_string_length(want)))
			     : error != NULL && strcmp(err_text(), error) == 0 && out->n == 0;
	if (!is_ok)
		print_error("%s\n  want %s\n  have %s\n", json_string_value(source),
			    error != NULL ? error : json_string_value(want), rc == 0 ? out->p : err_text());
	err_clear();
	return is_ok;
}

static void test_cases(void **state)
{
	json_error_t e;
	json_t *doc = json_load_file(HANDLEBARS_CASES, JSON_ALLOW_NUL, &e), *c;
	struct buf out = BUF_INIT;
	size_t i, n_bad = 0;
	if (doc == NULL)
		fail_msg("%s: %s", HANDLEBARS_CASES, e.text);
	const json_t *cases = json_object_get(doc, "cases");
	assert_true(json_array_size(cases) >= 300);
	json_array_foreach(cases, i, c) n_bad += !check_case(c, json_object_get(doc, "contexts"), &out);
	assert_int_equal(n_bad, 0);
	buf_fini(&out);
	json_decref(doc);
}

/* --- what is ours --- */

static void test_layers(void **state)
{
	json_t *one = json_pack("{s:s,s:n,s:{s:i}}", "name", "Ann", "nothing", "o", "a", 1),
	       *two = json_pack("{s:s,s:i,s:s,s:{s:i}}", "name", "all", "x", 5, "nothing", "something", "o",
				"b", 2);
	const json_t *layers[] = {one, NULL, two};
	static const struct {
		const char *source, *text;
	} rows[] = {
		{"{{name}} {{x}} [{{nothing}}] [{{nowhere}}]", "Ann 5 [] []"},
		{"{{this.name}} {{@root.x}} {{lookup this 'x'}} {{lookup . 'name'}}", "Ann 5 5 Ann"},
		{"{{o.a}}[{{o.b}}]", "1[]"},
		{"{{#with o}}{{a}}{{../x}}{{../name}}{{/with}}", "15Ann"},
		{"{{#each this}}{{@key}},{{/each}}", "name,x,nothing,o,"},
		{"{{len this}} {{#if this}}yes{{/if}} {{this}}", "4 yes [object Object]"},
		{"{{#*inline 'p'}}{{name}}{{x}}{{y}}{{/inline}}{{> p x=7 y=8}}{{> p o}}", "Ann78"},
		{"{{#*inline 'p'}}{{#each this}}{{@key}}={{this}},{{/each}}{{/inline}}{{> p name=7 z=8}}",
		 "name=7,x=5,nothing=,o=[object Object],z=8,"},
	};
	struct buf out = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (render(str_of(rows[i].source), TEMPLATE_ESCAPE_NONE, layers, ARRAY_SIZE(layers), &out) !=
		    0)
			fail_msg("%s: %s", rows[i].source, err_text());
		assert_buf_is(&out, rows[i].text);
	}
	assert_int_equal(render(STR("[{{name}}{{this}}{{#each this}}x{{/each}}]"), TEMPLATE_ESCAPE_NONE, NULL,
				0, &out),
			 0);
	assert_buf_is(&out, "[]");
	buf_fini(&out);
	json_decref(one);
	json_decref(two);
}

static void test_numbers(void **state)
{
	json_t *ctx =
		json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "int", (json_int_t)INT64_MAX, "a", 1e21, "b",
			  123456.75, "c", 0.000001, "d", 0.0000001234, "e", -0.5, "f", -0.0, "g", 2e300);
	assert_renders("{{int}} {{a}} {{b}} {{c}} {{d}} {{e}} {{f}} {{g}}", ctx,
		       "9223372036854775807 1e+21 123456.75 0.000001 1.234e-7 -0.5 0 2e+300");
	assert_renders("{{eq int int}} {{gt int a}} {{lt c b}}", ctx, "true false true");
	json_decref(ctx);
}

static void test_places(void **state)
{
	struct buf out = BUF_INIT;
	assert_int_equal(
		render(STR("a\r\n\u00e4 {{> (lookup this 'x')}}\r\nb"), TEMPLATE_ESCAPE_NONE, NULL, 0, &out),
		-1);
	assert_string_equal(err_text(), "the partial `` could not be found "
					"(in template 't' line 2: "
					"'\u00e4 {{> (lookup this 'x')}}'), column 3");
	err_clear();
	assert_int_equal(
		render(STR("{{#if a}}\n  {{#each b}}\n{{/if}}"), TEMPLATE_ESCAPE_NONE, NULL, 0, &out), -1);
	assert_string_equal(err_text(), "syntax error: `if` closes `each`, "
					"opened at line 2 column 3 (in template 't' line 3: "
					"'{{/if}}'), column 1");
	err_clear();
	assert_null(template_compile_dialect("t", STR("a\xff"), TEMPLATE_HANDLEBARS, TEMPLATE_ESCAPE_NONE));
	assert_string_equal(err_text(), "syntax error: the template is not valid UTF-8 (in template 't')");
	err_clear();
	buf_fini(&out);
}

static void test_log(void **state)
{
	json_t *ctx = json_pack("{s:s}", "v", "one\ntwo");
	char text[512] = "";
	int fd = memfd_create("stderr", 0), saved = dup(STDERR_FILENO);
	assert_true(fd >= 0 && saved >= 0);
	assert_int_equal(log_set_filter(STR("template=debug")), 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	struct buf out = BUF_INIT;
	int rc = render(STR("a{{log 'x' v 5 level='warn'}}b"), TEMPLATE_ESCAPE_NONE,
			(const json_t *const *)&ctx, 1, &out);
	dup2(saved, STDERR_FILENO);
	assert_int_equal(rc, 0);
	assert_buf_is(&out, "ab");
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_non_null(strstr(text, " template: template 't': [warn] x one two 5\n"));
	assert_int_equal(log_set_filter(STR("warn")), 0);
	close(fd);
	close(saved);
	buf_fini(&out);
	json_decref(ctx);
}

/* --- harm --- */

static char *repeated(const char *head, const char *unit, int n, const char *tail)
{
	struct buf b = BUF_INIT;
	buf_add_z(&b, head);
	for (int i = 0; i < n; i++)
		buf_add_z(&b, unit);
	buf_add_z(&b, tail);
	return buf_steal(&b, NULL);
}

/* cmocka's asserts are for its own thread: here failures are counted. */
static int harm_count;

static void harm_check(const char *source, const json_t *ctx, enum err_kind kind, const char *text)
{
	struct buf out = BUF_INIT;
	int rc = render(str_of(source), TEMPLATE_ESCAPE_HTML, &ctx, 1, &out);
	if (rc == 0 || !err_is(kind) || strstr(err_text(), text) == NULL || out.n != 0) {
		print_error("%.200s: %.300s\n", source, rc == 0 ? "was rendered" : err_text());
		harm_count++;
	}
	err_clear();
	buf_fini(&out);
}

/* At 90 times it is allowed, unless head and tail make it wrong; beyond, it must not be. */
static void harm_check_repeated(const char *head, const char *unit, const char *tail, const char *text)
{
	for (int n = 90; n <= 90000; n *= 10) {
		char *source = repeated(head, unit, n, tail);
		struct buf out = BUF_INIT;
		if (n > 90)
			harm_check(source, NULL, ERR_INVALID, text);
		else if (render(str_of(source), TEMPLATE_ESCAPE_HTML, NULL, 0, &out) != 0)
			err_clear();
		buf_fini(&out);
		free(source);
	}
}

static void *harm_run(void *unused)
{
	json_t *big = json_array(), *deep = json_array(), *ctx = json_object();
	for (int i = 0; i < 3000; i++)
		json_array_append_new(big, json_integer(i));
	for (int i = 0; i < 3000; i++) {
		json_t *outer = json_array();
		json_array_append_new(outer, deep);
		deep = outer;
	}
	char *text = repeated("", "0123456789 abcdefgh <", 15000, "");
	json_object_set_new(ctx, "big", big);
	json_object_set_new(ctx, "deep", deep);
	json_object_set_new(ctx, "text", json_string(text));
	free(text);
	harm_check("{{#each big}}{{#each ../big}}{{#each ../../big}}{{/each}}{{/each}}{{/each}}", ctx,
		   ERR_LIMIT, "too many steps");
	harm_check("{{#each big}}{{#each ../big}}{{#each ../../big}}x{{/each}}{{/each}}{{/each}}", ctx,
		   ERR_LIMIT, "too many steps");
	harm_check("{{#each big}}{{#each ../big}}{{@root.text}}{{/each}}{{/each}}", ctx, ERR_LIMIT,
		   "template limit");
	harm_check("{{#each big}}{{{@root.text}}}{{/each}}", ctx, ERR_LIMIT, "too much output");
	harm_check("{{#each big}}{{@root.big}}{{/each}}", ctx, ERR_LIMIT, "too many steps");
	harm_check("{{#each big}}{{len @root.text}}{{#each @root}}{{/each}}{{/each}}", ctx, ERR_LIMIT,
		   "too many steps");
	harm_check("{{deep}}", ctx, ERR_LIMIT, "recursion limit");
	harm_check("{{#if (eq deep deep)}}{{/if}}{{#*inline 'p'}}{{> p}}{{/inline}}{{> p}}", ctx, ERR_LIMIT,
		   "recursion limit");
	harm_check(
		"{{#*inline 'p'}}{{#if true}}{{#with @root}}{{> p x=this}}{{/with}}{{/if}}{{/inline}}{{> p}}",
		ctx, ERR_LIMIT, "recursion limit");
	harm_check("{{#*inline 'p'}}{{> p}}{{> p}}{{/inline}}{{> p}}", ctx, ERR_LIMIT, "limit");
	harm_check("{{#*inline 'p'}}{{#> p}}{{> @partial-block}}{{/p}}{{/inline}}{{> p}}", ctx, ERR_LIMIT,
		   "recursion limit");
	harm_check("{{#*inline 'p'}}{{> @partial-block}}{{/inline}}{{#> p}}{{#> p}}{{> p}}{{/p}}{{/p}}", ctx,
		   ERR_INVALID, "@partial-block could not be found");
	harm_check("{{#*inline 'p'}}{{#each big}}{{@root.text}}{{/each}}{{/inline}}\n   {{> p}}\n", ctx,
		   ERR_LIMIT, "too much output");
	harm_check("{{#*inline 'p'}}{{#each big}}\n"
		   "{{/each}}{{/inline}}{{#each big}}\n   {{> p @root}}\n{{/each}}",
		   ctx, ERR_LIMIT, "too many steps");
	harm_check_repeated("", "{{#if 1}}", "", "recursion limits");
	harm_check_repeated("", "{{#each x}}", "", "recursion limits");
	harm_check_repeated("", "{{^x}}", "", "recursion limits");
	harm_check_repeated("", "{{#> x}}", "", "recursion limits");
	harm_check_repeated("", "{{#*inline 'x'}}", "", "recursion limits");
	harm_check_repeated("{{", "(", "", "");
	harm_check_repeated("{{not ", "(not ", "", "");
	harm_check_repeated("{{not ", "(not ", "x}}", "");
	harm_check_repeated("{{not x=", "(not x=", "x}}", "");
	harm_check_repeated("{{", "../", "x}}", "too many `..`");
	harm_check_repeated("{{x", ".y", "}}", "too many parts");
	harm_check_repeated("{{and 1", " 1", "}}", "too many arguments");
	harm_check_repeated("{{#each x as |a", " a", "|}}{{/each}}", "too many block parameters");
	harm_check_repeated("{{#if 0}}", "{{else}}", "{{/if}}", "nothing may follow");
	harm_check_repeated("{{#if 0}}", "{{else if 0}}", "", "is not closed");
	harm_check_repeated("{{{{raw}}}}", "{{{{x}}}}", "", "a raw block is not closed");
	harm_check_repeated("{{!--", "--", "", "a comment is not closed");
	harm_check_repeated("", "{{x}", "", "a tag is not closed");
	json_decref(ctx);
	return NULL;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_OF_A_FIBER ((size_t)1024 << 10)
#else
#define STACK_OF_A_FIBER ((size_t)256 << 10)
#endif

static void test_harm(void **state)
{
	pthread_attr_t attr;
	pthread_t thread;
	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, STACK_OF_A_FIBER), 0);
	assert_int_equal(pthread_create(&thread, &attr, harm_run, NULL), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	assert_int_equal(harm_count, 0);
}

/* Much, but within what is allowed. */
static void test_much(void **state)
{
	char *chain = repeated("{{#if 0}}", "{{else if 0}}x", 5000, "{{else}}end{{/if}}");
	assert_renders(chain, NULL, "end");
	free(chain);
	char *nested = repeated("", "{{#if 1}}", 60, "deep");
	char *closed = repeated(nested, "{{/if}}", 60, "");
	assert_renders(closed, NULL, "deep");
	free(nested);
	free(closed);
	char *open = repeated("{{not ", "(not ", 30, "x"), *closing = repeated(open, ")", 30, "}}");
	assert_renders(closing, NULL, "true");
	free(open);
	free(closing);
	json_t *ctx = json_object(), *node = NULL;
	for (int i = 0; i < 20; i++) {
		json_t *up = json_pack("{s:i}", "v", i);
		if (node != NULL)
			json_object_set_new(up, "next", node);
		node = up;
	}
	json_object_set_new(ctx, "node", node);
	assert_renders("{{#*inline 'p'}}{{v}}{{#if next}},{{> p next}}{{/if}}{{/inline}}{{> p node}}", ctx,
		       "19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0");
	json_decref(ctx);
}

/* --- one compiled template, two threads, a run each --- */

static void *share_run(void *arg)
{
	json_t *ctx = json_pack("{s:s,s:[i,i]}", "name", "\u00e4 & o", "xs", 1, 2);
	struct template_run *run = template_run_new();
	struct buf out = BUF_INIT;
	for (int i = 0; i < 200; i++) {
		buf_clear(&out);
		assert_int_equal(template_run_render(run, arg, (const json_t *const *)&ctx, 1, &out), 0);
		assert_buf_is(&out, "\u00e4 &amp; o 1\u00e4 & o2\u00e4 & o");
	}
	template_run_free(run);
	buf_fini(&out);
	json_decref(ctx);
	return NULL;
}

static void test_share(void **state)
{
	struct template *t = template_compile_dialect(
		"t",
		STR("{{name}} {{#*inline 'p'}}{{this}}{{{@root.name}}}{{/inline}}{{#each "
		    "xs}}{{> p}}{{/each}}"),
		TEMPLATE_HANDLEBARS, TEMPLATE_ESCAPE_HTML);
	pthread_t threads[2];
	assert_non_null(t);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, share_run, t), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	template_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),  cmocka_unit_test(test_layers), cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_places), cmocka_unit_test(test_log),    cmocka_unit_test(test_harm),
		cmocka_unit_test(test_much),   cmocka_unit_test(test_share),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
