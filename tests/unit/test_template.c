/* The template engine: every case of template_cases.json (their expected values were verified against the
 * package that the dialect is named for, see tests/support/template_diff.py), what that package cannot tell,
 * and templates that mean harm. */
#include "ut.h"

#include "base/clock.h"
#include "base/err.h"
#include "template/template.h"

#include <pthread.h>
#include <unistd.h>

/* Renders into out (cleared first). 0, or -1 with the error. */
static int render_as(str_t source, enum template_escape escape, const json_t *ctx, struct buf *out)
{
	buf_clear(out);
	struct template *t = template_compile_escaped("t", source, escape);
	int rc = t != NULL ? template_render(t, ctx, out) : -1;
	template_free(t);
	return rc;
}

static int render(const char *source, const json_t *ctx, struct buf *out)
{
	return render_as(str_of(source), TEMPLATE_ESCAPE_NONE, ctx, out);
}

#define assert_renders(source, ctx, text) assert_renders_at(source, ctx, text, __LINE__)
static void assert_renders_at(const char *source, const json_t *ctx, const char *text, int line)
{
	struct buf out = BUF_INIT;
	if (render(source, ctx, &out) != 0) {
		print_error("%s: %s\n", source, err_text());
		_fail(__FILE__, line);
	}
	assert_str_is_at(buf_str(&out), text, __FILE__, line);
	buf_fini(&out);
}

#define assert_refused(source, kind, text) assert_refused_at(source, kind, text, __LINE__)
static void assert_refused_at(const char *source, enum err_kind kind, const char *text, int line)
{
	struct buf out = BUF_INIT;
	if (render(source, NULL, &out) == 0) {
		print_error("%.200s: rendered to %.200s\n", source, out.p);
		_fail(__FILE__, line);
	}
	if (!err_is(kind) || strstr(err_text(), text) == NULL) {
		print_error("%.200s: %d %s\n", source, err_kind(), err_text());
		_fail(__FILE__, line);
	}
	if (out.n != 0)
		_fail(__FILE__, line);
	err_clear();
	buf_fini(&out);
}

/* --- the cases --- */

static bool check_case(const json_t *c, const json_t *contexts, struct buf *out)
{
	const json_t *source = json_object_get(c, "source"), *want = json_object_get(c, "out");
	const char *escape = json_string_value(json_object_get(c, "escape")),
		   *error = json_string_value(json_object_get(c, "error"));
	const json_t *ctx = json_object_get(contexts, json_string_value(json_object_get(c, "context")));
	enum template_escape as = escape == NULL		? TEMPLATE_ESCAPE_NONE
				  : strcmp(escape, "html") == 0 ? TEMPLATE_ESCAPE_HTML
								: TEMPLATE_ESCAPE_JSON;
	int rc = render_as(str_mk(json_string_value(source), json_string_length(source)), as, ctx, out);
	bool is_ok = rc == 0 ? want != NULL && str_eq(buf_str(out), str_mk(json_string_value(want),
									   json_string_length(want)))
			     : error != NULL && str_starts(str_of(err_text()), str_of(error));
	if (!is_ok)
		print_error("%s\n  want %s\n  have %s\n", json_string_value(source),
			    error != NULL ? error : json_string_value(want), rc == 0 ? out->p : err_text());
	err_clear();
	return is_ok;
}

static void test_cases(void **state)
{
	json_error_t e;
	json_t *doc = json_load_file(TEMPLATE_CASES, JSON_ALLOW_NUL, &e), *c;
	struct buf out = BUF_INIT;
	size_t i, n_bad = 0;
	if (doc == NULL)
		fail_msg("%s: %s", TEMPLATE_CASES, e.text);
	const json_t *cases = json_object_get(doc, "cases");
	assert_true(json_array_size(cases) >= 300);
	json_array_foreach(cases, i, c) n_bad += !check_case(c, json_object_get(doc, "contexts"), &out);
	assert_int_equal(n_bad, 0);
	buf_fini(&out);
	json_decref(doc);
}

/* --- what is ours --- */

static void test_error_text(void **state)
{
	assert_null(template_compile("text_body.txt", STR("{{ unclosed"), false));
	assert_string_equal(err_text(),
			    "syntax error: unexpected end of input, expected end of variable block "
			    "(in template 'text_body.txt' line 1: '{{ unclosed'), column 12");
	err_clear();
	assert_refused("a\n{{ 1 +\n }}", ERR_INVALID, "(in template 't' line 3: ' }}'), column 2");
	assert_refused("a\r\nb {{ nope.x }}\r\nc", ERR_INVALID,
		       "undefined value (in template 't' line 2: 'b {{ nope.x }}'), column 11");
	assert_refused("{{ 'a'|nope }}", ERR_INVALID,
		       "unknown filter: filter nope is unknown (in "
		       "template 't' line 1: '{{ 'a'|nope }}'), column 8");
	assert_refused("x\n\n\u00e4\u00f6 {{ ! }}", ERR_INVALID,
		       "unexpected character (in template 't' line 3: '\u00e4\u00f6 {{ ! }}'), column 7");
	assert_refused("x {# y\n", ERR_INVALID,
		       "unexpected end of comment (in template 't' line 1: 'x {# y'), column 3");
	assert_refused("x\n {% raw %} y", ERR_INVALID,
		       "unexpected end of raw block (in template 't' line 2: ' {% raw %} y'), column 2");
	assert_refused("{{ 'x }}", ERR_INVALID,
		       "unexpected end of string (in template 't' line 1: '{{ 'x }}'), column 4");
	assert_refused("{% if 1 %}", ERR_INVALID, "(in template 't' line 1: '{% if 1 %}'), column 11");
	assert_null(template_compile("t", STR("a\xff"), false));
	assert_string_equal(err_text(), "syntax error: the template is not valid UTF-8 (in template 't')");
	err_clear();
}

static void test_refused_tags(void **state)
{
	assert_refused("{% include 'x' %}", ERR_INVALID, "the tag 'include' is not supported");
	assert_refused("{% import 'x' as y %}", ERR_INVALID, "the tag 'import' is not supported");
	assert_refused("{% from 'x' import y %}", ERR_INVALID, "the tag 'from' is not supported");
	assert_refused("{% extends 'x' %}", ERR_INVALID, "the tag 'extends' is not supported");
	assert_refused("{% block x %}{% endblock %}", ERR_INVALID, "the tag 'block' is not supported");
}

static void test_layers(void **state)
{
	json_t *one = json_pack("{s:s,s:n}", "name", "Ann", "nothing"),
	       *two = json_pack("{s:s,s:i,s:s}", "name", "all", "x", 5, "nothing", "something");
	const json_t *layers[] = {one, NULL, two};
	struct buf out = BUF_INIT;
	buf_add_z(&out, "before ");
	struct template *t =
		template_compile("t", STR("{{ name }} {{ x }} {{ nothing }} [{{ nowhere }}]"), false);
	assert_non_null(t);
	assert_int_equal(template_render_layered(t, layers, ARRAY_SIZE(layers), &out), 0);
	assert_buf_is(&out, "before Ann 5 none []");
	assert_int_equal(template_render_layered(t, NULL, 0, &out), 0);
	assert_buf_is(&out, "before Ann 5 none []   []");
	template_free(t);
	t = template_compile("t", STR("abc {{ nowhere.x }}"), false);
	assert_int_equal(template_render(t, one, &out), -1);
	assert_buf_is(&out, "before Ann 5 none []   []"); /* as it was */
	err_clear();
	template_free(t);
	buf_fini(&out);
	json_decref(one);
	json_decref(two);
}

static void test_escape_modes(void **state)
{
	json_t *ctx = json_pack("{s:s}", "v", "<a href='x/y'>&\"");
	struct buf out = BUF_INIT;
	struct template *t = template_compile("t", STR("{{ v }}"), true);
	assert_int_equal(template_render(t, ctx, &out), 0);
	assert_buf_is(&out, "&lt;a href=&#x27;x&#x2f;y&#x27;&gt;&amp;&quot;");
	template_free(t);
	assert_int_equal(render_as(STR("{{ v }} {{ nope }}"), TEMPLATE_ESCAPE_JSON, ctx, &out), 0);
	assert_buf_is(&out, "\"<a href='x/y'>&\\\"\" null");
	buf_fini(&out);
	json_decref(ctx);
}

static void test_markup(void **state)
{
	assert_true(template_has_markup_of(TEMPLATE_JINJA, STR("{% x")));
	assert_true(template_has_markup_of(TEMPLATE_HANDLEBARS, STR("a {{x}}")));
	assert_true(template_has_markup_of(TEMPLATE_HANDLEBARS, STR("\\{{x}}")));
	assert_false(template_has_markup_of(TEMPLATE_HANDLEBARS, STR("{% x %} {# y #} { {")));
	assert_false(template_has_markup_of(TEMPLATE_STATIC, STR("{{ x }}")));
	assert_false(template_has_markup_of(TEMPLATE_JINJA, STR("")));
	assert_false(template_has_markup_of(TEMPLATE_JINJA, STR("{")));
	assert_false(template_has_markup_of(TEMPLATE_JINJA, STR("a { b } {")));
	assert_true(template_has_markup_of(TEMPLATE_JINJA, STR("a {{ b }}")));
	assert_true(template_has_markup_of(TEMPLATE_JINJA, STR("{%")));
	assert_true(template_has_markup_of(TEMPLATE_JINJA, STR("{{{")));
	assert_true(template_has_markup_of(TEMPLATE_JINJA, STR("{ {#")));
}

/* Where the package has bugs or prints an iterator that cannot be read, and what only we check. */
static void test_values(void **state)
{
	json_t *ctx = json_pack("{s:[i,i,i],s:{s:i}}", "xs", 3, 1, 2, "d", "a", 2);
	assert_renders("{{ 'a,b'|split(',') }} {{ [1]|chain([2]) }} {{ xs|map(attribute='x') }}", ctx,
		       "[\"a\", \"b\"] [1, 2] [undefined, undefined, undefined]");
	assert_renders("{{ -xs[0] }} {{ -d.a + 1 }} {{ xs[2:0:-1] }} {{ xs.0 }}", ctx, "-3 -1 [2, 1] 3");
	assert_renders("{{ 0 is divisibleby 0 }} {{ 5 is divisibleby 0 }} {{ 3 is odd if true else 1 }}", ctx,
		       "false false true");
	assert_renders("{% for x in xs %}{{ last }}{% set last = x %}{% endfor %}", ctx, "");
	assert_renders("{% set ns = namespace() %}{% for x in xs %}{% "
		       "set ns.l = loop %}{% endfor %}{{ ns.l.index0 }}",
		       ctx, "3");
	assert_renders("{% set ns = namespace() %}{% for x in [1, 2] recursive "
		       "%}{% set ns.l = loop %}{{ x }}{% endfor %}{% for y in [8, "
		       "9] %}{% with z = 1 %}{% endwith %}{% endfor %}{{ ns.l }}",
		       ctx, "12<loop 2/2>");
	assert_renders("{% set ns = namespace() %}{% for x in xs %}{% macro "
		       "m() %}{{ x }}{% endmacro %}{% if loop.first %}{% "
		       "set ns.m = m %}{% endif %}{% endfor %}{{ ns.m() }}",
		       ctx, "3");
	assert_renders("{{ xs is sameas xs }} {{ d is sameas d }} {{ xs is sameas [3, 1, 2] }}", ctx,
		       "true true false");
	assert_renders("{% set c = cycler('odd', 'even') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", ctx,
		       "oddevenodd");
	assert_renders("{{ debug(xs) }}", ctx, "[\n    3,\n    1,\n    2,\n]");
	assert_renders("{{ {'a': 1}|length }}{{ 'x'.y }}{{ 'abc'|split('') }}", ctx,
		       "1[\"\", \"a\", \"b\", \"c\", \"\"]");
	assert_renders("{{ 'a\nb c\n'|normalize_smtp_response }}", ctx, "a\nb c\n");
	assert_refused("{{ 1|default(foo=1) }}", ERR_INVALID, "unknown keyword argument 'foo'");
	assert_refused("{% for x in [] %}{% else %}{% break %}{% endfor %}", ERR_INVALID,
		       "'break' must be placed inside a loop");
	json_decref(ctx);
}

static void test_debug(void **state)
{
	json_t *ctx = json_pack("{s:i}", "a", 1);
	assert_renders("{% set b = [2] %}{{ debug() }}", ctx,
		       "State {\n    name: \"t\",\n    ctx: {\n        b: [\n"
		       "            2,\n        ],\n        a: 1,\n    },\n}");
	json_decref(ctx);
}

/* --- dates --- */

static void test_dates(void **state)
{
	json_t *ctx = json_pack("{s:i,s:s,s:s}", "t", 1687624642, "s", "2023-06-24T16:37:22+02:00", "d",
				"2023-06-24");
	assert_renders("{{ t|datetimeformat }}", ctx, "Jun 24 2023 16:37");
	assert_renders("{{ t|datetimeformat(format='short') }}|{{ t|datetimeformat(format='long') }}", ctx,
		       "2023-06-24 16:37|June 24 2023 16:37:22");
	assert_renders("{{ t|datetimeformat(format='full') }}", ctx, "Saturday, June 24 2023 16:37:22");
	assert_renders("{{ t|datetimeformat(format='iso') }}|{{ s|datetimeformat(format='iso') }}", ctx,
		       "2023-06-24T16:37:22+00:00|2023-06-24T16:37:22+02:00");
	assert_renders("{{ s|datetimeformat(format='unix') }} {{ s|timeformat(format='unix') }}", ctx,
		       "1687617442 1687617442");
	assert_renders("{{ t|dateformat }}|{{ t|dateformat(format='short') "
		       "}}|{{ d|dateformat(format='full', tz='UTC') }}",
		       ctx, "Jun 24 2023|2023-06-24|Saturday, June 24 2023");
	assert_renders("{{ t|timeformat }}|{{ t|timeformat(format='long') }}|{{ (t + "
		       "0.5)|timeformat(format='full') }}",
		       ctx, "16:37|16:37:22|16:37:22.5");
	assert_renders("{{ s|datetimeformat(format='iso', tz='UTC') }}", ctx, "2023-06-24T14:37:22+00:00");
	assert_renders("{{ t|datetimeformat(format='[weekday repr:short] "
		       "[day padding:none].[month].[year repr:last_two] "
		       "[hour repr:12]:[minute] [period case:lower] \\\\[x] "
		       "[ordinal] W[week_number] [subsecond digits:3]') }}",
		       ctx, "Sat 24.06.23 04:37 pm [x] 175 W25 000");
	assert_renders("{{ '1999-12-31 23:59:59.25Z'|datetimeformat(format='[unix_timestamp "
		       "precision:millisecond]') }}",
		       ctx, "946684799250");
	assert_renders("{{ -1|datetimeformat(format='iso') }} {{ '2024-02-29'|dateformat(format='short') }}",
		       ctx, "1969-12-31T23:59:59+00:00 2024-02-29");
	assert_refused("{{ 'soon'|dateformat }}", ERR_INVALID, "not a valid date");
	assert_refused("{{ '2023-02-30'|dateformat }}", ERR_INVALID, "not a valid date");
	assert_refused("{{ 1e300|dateformat }}", ERR_INVALID, "not a timestamp");
	assert_refused("{{ 5|dateformat(tz='../../etc/passwd') }}", ERR_INVALID, "unknown timezone");
	assert_refused("{{ 5|dateformat(tz='Nowhere/Town') }}", ERR_INVALID, "unknown timezone");
	assert_refused("{{ 5|dateformat(format='[moon]') }}", ERR_INVALID, "unknown component `moon`");
	json_object_set_new(ctx, "DATE_FORMAT", json_string("short"));
	assert_renders("{{ t|dateformat }}", ctx, "2023-06-24");
	json_decref(ctx);
}

static void test_zones(void **state)
{
	if (access("/usr/share/zoneinfo/Europe/Vienna", R_OK) != 0)
		skip();
	json_t *ctx = json_pack("{s:i,s:i,s:s}", "summer", 1687624642, "winter", 1700000000, "TIMEZONE",
				"Europe/Vienna");
	assert_renders("{{ summer|datetimeformat(format='iso') }} {{ winter|datetimeformat(format='iso') }}",
		       ctx, "2023-06-24T18:37:22+02:00 2023-11-14T23:13:20+01:00");
	assert_renders("{{ summer|datetimeformat(format='iso', tz='original') }}", ctx,
		       "2023-06-24T16:37:22+00:00");
	assert_renders("{{ summer|datetimeformat(format='iso', tz='Asia/Kolkata') }}", ctx,
		       "2023-06-24T22:07:22+05:30");
	/* After the last transition in the file, the rule in its footer: 2060-07-01 and 2060-01-01. */
	assert_renders(
		"{{ 2855865600|datetimeformat(format='iso') }} {{ 2840140800|datetimeformat(format='iso') }}",
		ctx, "2060-07-01T02:00:00+02:00 2060-01-01T01:00:00+01:00");
	assert_renders("{{ 2855865600|datetimeformat(format='iso', tz='America/New_York') }}", ctx,
		       "2060-06-30T20:00:00-04:00");
	assert_renders("{{ 2840140800|datetimeformat(format='iso', tz='Australia/Sydney') }}", ctx,
		       "2060-01-01T11:00:00+11:00");
	json_decref(ctx);
}

static void test_now(void **state)
{
	clock_set_virtual((mono_t){0}, (wall_t){1687624642 * NS_PER_S});
	assert_renders("{{ now()|datetimeformat(format='iso') }} {{ now()|int }}", NULL,
		       "2023-06-24T16:37:22+00:00 1687624642");
	clock_set_real();
}

/* --- SMTP responses --- */

static void test_normalize(void **state)
{
	static const struct {
		const char *from, *to;
	} rows[] = {
		{"https://support.google.com/mail/?p=NoSuchUser "
		 "41be03b00d2f7-b93bf44f0c0si6882731a12.803 - gsmtp",
		 "https://support.google.com/mail/?p=NoSuchUser {hash} - gsmtp"},
		{"550 5.1.1 The email account that you tried to reach does not exist.", NULL},
		{"550 <user@example.com>: Recipient rejected", "550 <{email}>: Recipient rejected"},
		{"OK ids=8a5475ccbbc611eda12250ebf67f93bd", "OK ids={uuid}"},
		{"queued 557f3ad4-2c8c-11ee-976e-782d7e12e173.", "queued {uuid}."},
		{"from [10.0.0.1] and 2001:db8::1, IPv6:::1", "from {ipaddr} and {ipaddr}, {ipaddr}"},
		{"at 2023-06-24T16:37:22.123Z", "at {timestamp}"},
		{"a=b=10.0.0.1 x=", "a=b={ipaddr} x="},
		{"  spaced \t out\r\n", NULL},
		{"QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "{base64}"},
		{"", NULL},
		{"...", NULL},
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct buf out = BUF_INIT;
		template_normalize_smtp_response(str_of(rows[i].from), &out);
		assert_buf_is(&out, rows[i].to != NULL ? rows[i].to : rows[i].from);
		buf_fini(&out);
	}
}

/* --- many renders in one run --- */

static void test_run(void **state)
{
	json_t *ctx = json_pack("{s:s,s:[i,i]}", "name", "Ann", "xs", 1, 2);
	const json_t *layers[] = {NULL, ctx};
	struct template *good = template_compile(
				"t",
				STR("{% set a = name ~ '!' %}{% for x in xs %}{{ a }}{{ x }}{% endfor %}"),
				false),
			*bad = template_compile("t", STR("{{ name }}{{ nope.x }}"), false),
			*plain = template_compile_dialect("t", STR("{{ as it is }}\xff\n"), TEMPLATE_STATIC,
							  TEMPLATE_ESCAPE_HTML);
	struct template_run *run = template_run_new();
	struct buf out = BUF_INIT;
	for (int i = 0; i < 100; i++) {
		buf_clear(&out);
		assert_int_equal(template_run_render(run, good, layers, 2, &out), 0);
		assert_buf_is(&out, "Ann!1Ann!2");
		assert_int_equal(template_run_render(run, bad, layers, 2, &out), -1);
		err_clear();
		assert_buf_is(&out, "Ann!1Ann!2");
		assert_int_equal(template_run_render(run, plain, NULL, 0, &out), 0);
		assert_buf_is(&out, "Ann!1Ann!2{{ as it is }}\xff\n");
	}
	template_run_free(run);
	template_run_free(NULL);
	template_free(good);
	template_free(bad);
	template_free(plain);
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

static void harm_check(const char *source, enum err_kind kind, const char *text)
{
	struct buf out = BUF_INIT;
	int rc = render(source, NULL, &out);
	if (rc == 0 || !err_is(kind) || strstr(err_text(), text) == NULL || out.n != 0) {
		print_error("%.200s: %.300s\n", source, rc == 0 ? "was rendered" : err_text());
		harm_count++;
	}
	err_clear();
	buf_fini(&out);
}

/* At 90 times it may be allowed or not; beyond, it must not be. */
static void harm_check_repeated(const char *head, const char *unit, const char *tail, const char *text)
{
	for (int n = 90; n <= 90000; n *= 10) {
		char *source = repeated(head, unit, n, tail);
		struct buf out = BUF_INIT;
		if (n == 90 && render(source, NULL, &out) != 0)
			err_clear();
		if (n > 90)
			harm_check(source, ERR_INVALID, text);
		buf_fini(&out);
		free(source);
	}
}

static void *harm_run(void *unused)
{
	harm_check("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
		   ERR_LIMIT, "too many steps");
	harm_check("{% for a in range(100000) %}{{ range(100000)|list|length }}{% endfor %}", ERR_LIMIT,
		   "template limit");
	harm_check("{% for a in range(1000) %}{{ range(100000)|max }}{% endfor %}", ERR_LIMIT,
		   "too many steps");
	harm_check("{{ 'a' * 10000000000000 }}", ERR_LIMIT, "too much memory");
	harm_check("{{ [1] * 10000000000000 }}", ERR_LIMIT, "too much memory");
	harm_check("{{ ([1] * 100000) * 100000 }}", ERR_LIMIT, "template limit");
	harm_check("{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in "
		   "range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
		   ERR_LIMIT, "template limit");
	harm_check("{% set s = 'a' * 1000000 %}{{ s|replace('a', s) }}", ERR_LIMIT, "template limit");
	harm_check("{% set s = 'a' * 1000000 %}{{ range(1000)|join(s) }}", ERR_LIMIT, "template limit");
	harm_check("{% set s = 'a' * 1000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}", ERR_LIMIT,
		   "too much output");
	harm_check("{{ ('\\x01' * 30000000)|tojson|length }}", ERR_LIMIT, "template limit");
	harm_check("{% set s = 'a\\n' * 100000 %}{{ s|indent(10000) }}", ERR_LIMIT, "template limit");
	harm_check("{{ '%10000d'|format(1)|list|map('format', "
		   "1)|list|length }}{% for i in range(9000) %}{{ ('%10000d' "
		   "* 10)|format(1,2,3,4,5,6,7,8,9,0) }}{% endfor %}",
		   ERR_LIMIT, "template limit");
	harm_check("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", ERR_LIMIT, "recursion limit");
	harm_check("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}{% "
		   "call f() %}{% endcall %}",
		   ERR_LIMIT, "recursion limit");
	harm_check("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", ERR_LIMIT, "recursion limit");
	harm_check("{% set ns = namespace(x=[]) %}{% for i in range(20000) "
		   "%}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
		   ERR_LIMIT, "recursion limit");
	harm_check("{% set ns = namespace(x=[]) %}{% for i in range(20000) %}{% set ns.x = [ns.x] %}{% "
		   "endfor %}{{ ns.x == ns.x }}",
		   ERR_LIMIT, "recursion limit");
	harm_check("{% set ns = namespace(x=[]) %}{% for i in range(20000) %}{% set ns.x = [ns.x] %}{% "
		   "endfor %}{{ ns.x|tojson }}",
		   ERR_LIMIT, "recursion limit");
	harm_check("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}", ERR_LIMIT, "recursion limit");
	harm_check("{% set ns = namespace() %}{% set ns.x = ns %}{{ ns|pprint }}", ERR_LIMIT,
		   "recursion limit");
	harm_check("{% set ns = namespace() %}{% set ns.x = ns "
		   "%}{{ [ns]|sort(attribute='x') == [ns, "
		   "ns] }}{{ ns < [ns].0 }}{{ ns == namespace(x=ns) }}",
		   ERR_LIMIT, "recursion limit");
	harm_check("{{ range(9999999999) }}", ERR_INVALID, "range has too many elements");
	harm_check("{{ [1]|batch(99999999999) }}", ERR_LIMIT, "count is too big");
	harm_check("{{ [1]|tojson(999999) }}", ERR_LIMIT, "indentation is too deep");
	harm_check("{{ '%99999999999d'|format(1) }}", ERR_INVALID, "too big");
	harm_check_repeated("{{ ", "(", "", "recursion limits");
	harm_check_repeated("{{ ", "[", "", "recursion limits");
	harm_check_repeated("{{ ", "{1:", "", "recursion limits");
	harm_check_repeated("{{ ", "-", "1 }}", "recursion limits");
	harm_check_repeated("{{ ", "not ", "1 }}", "recursion limits");
	harm_check_repeated("{{ x", "[x", "", "recursion limits");
	harm_check_repeated("{{ 1", " + 1", " }}", "recursion limits");
	harm_check_repeated("{{ 1", "|string", " }}", "recursion limits");
	harm_check_repeated("{{ x", ".y", " }}", "");
	harm_check_repeated("{{ 1", " if 1 else 1", " }}", "recursion limits");
	harm_check_repeated("{{ 1", " if 1", " }}", "recursion limits");
	harm_check_repeated("", "{% if 1 %}", "", "recursion limits");
	harm_check_repeated("", "{% for x in y %}", "", "recursion limits");
	harm_check_repeated("{% set ", "(", "", "recursion limits");
	harm_check_repeated("{% set a", ".a", " = 1 %}", "");
	harm_check_repeated("{% filter ", "a|", "a %}{% endfilter %}", "");
	harm_check_repeated("{{ x", "()", " }}", "");
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
	char *elifs = repeated("{% if 0 %}", "{% elif 0 %}x", 5000, "{% else %}end{% endif %}");
	assert_renders(elifs, NULL, "end");
	free(elifs);
	char *sets = repeated("", "{% set a = 1 %}", 5000, "{{ a }}");
	assert_renders(sets, NULL, "1");
	free(sets);
	assert_renders("{{ ('\u00e4\n' * 5000)|tojson|length }} {{ ('\u00e4\n' * 5000)|tojson == '\"' ~ "
		       "'\u00e4\\\\n' * 5000 ~ '\"' }}",
		       NULL, "15002 true");
	assert_renders("{{ range(20000)|map('string')|unique|list|length }}", NULL, "20000");
	assert_renders("{% for i in range(10000) %}{% set x = i * 2 %}{% "
		       "if x == 19998 %}{{ x }}{% endif %}{% endfor %}",
		       NULL, "19998");
	assert_renders(
		"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% else %}deep{% endif %}{% endmacro %}{{ f(40) }}",
		NULL, "deep");
}

/* One compiled template, two threads. */
static void *share_run(void *arg)
{
	json_t *ctx = json_pack("{s:s,s:[i,i]}", "name", "\u00e4nn", "xs", 1, 2);
	struct buf out = BUF_INIT;
	for (int i = 0; i < 200; i++) {
		buf_clear(&out);
		assert_int_equal(template_render(arg, ctx, &out), 0);
		assert_buf_is(&out, "\u00c4NN 12 2023-06-24");
	}
	buf_fini(&out);
	json_decref(ctx);
	return NULL;
}

static void test_share(void **state)
{
	struct template *t = template_compile("t",
					      STR("{{ name|upper }} {% for x in xs %}{{ x }}{% endfor %} {{ "
						  "1687624642|dateformat(format='short', tz='UTC') }}"),
					      false);
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
		cmocka_unit_test(test_cases),	     cmocka_unit_test(test_error_text),
		cmocka_unit_test(test_refused_tags), cmocka_unit_test(test_layers),
		cmocka_unit_test(test_escape_modes), cmocka_unit_test(test_markup),
		cmocka_unit_test(test_values),	     cmocka_unit_test(test_debug),
		cmocka_unit_test(test_dates),	     cmocka_unit_test(test_zones),
		cmocka_unit_test(test_now),	     cmocka_unit_test(test_normalize),
		cmocka_unit_test(test_run),	     cmocka_unit_test(test_harm),
		cmocka_unit_test(test_much),	     cmocka_unit_test(test_share),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
