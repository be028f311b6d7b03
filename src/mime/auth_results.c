/* auth_results.c - value: authserv-id [version] 1*(";" method["/" version] "=" result ["reason" "=" text]
 * *(ptype "." property "=" pvalue)). Words are read leniently (a keyword may have any token byte but `=` and
 * `/`), values may be quoted. */
#include "mime/auth_results.h"

#include "base/err.h"
#include "mime/charset.h"
#include "mime/header_lex.h"

#include <stdio.h>

#define WORD_MAX 200 /* of a keyword */
#define RUN_MAX 300  /* quoting may double it; with its keyword it stays far below a line's 998 */

struct auth_parser {
	struct header_lex lex;
	struct auth_results *out;
	size_t cap, cap_props;
};

static int auth_fail(const struct auth_parser *p, const char *what)
{
	err_set(ERR_INVALID, "invalid authentication results: %s at position %zu", what, p->lex.at + 1);
	return -1;
}

static bool is_word_byte(unsigned char c)
{
	return (header_is_token(c) || c >= 0x80) && c != '/';
}

static bool is_pvalue_byte(unsigned char c) /* also local@domain, dates, lists of ciphers */
{
	return c > ' ' && c != 0x7f && c != ';' && c != '"' && c != '(';
}

static str_t auth_keep(struct auth_parser *p, str_t s)
{
	struct buf b = BUF_INIT;
	charset_to_utf8_lenient(STR(""), s, &b);
	str_t kept = arena_str(&p->out->arena, buf_str(&b));
	buf_fini(&b);
	return kept;
}

static int auth_read_value(struct auth_parser *p, bool (*is)(unsigned char), str_t *out)
{
	struct buf b = BUF_INIT;
	int rc = 0;
	header_lex_skip(&p->lex, NULL);
	if (header_lex_peek(&p->lex) == '"') {
		if (!header_lex_quoted(&p->lex, &b))
			rc = auth_fail(p, "a quoted string has no end");
	} else {
		buf_add_str(&b, header_lex_run(&p->lex, is));
	}
	/* The local part of an address may be quoted. */
	if (rc == 0 && header_lex_peek(&p->lex) == '@' && is == is_pvalue_byte)
		buf_add_str(&b, header_lex_run(&p->lex, is));
	if (rc == 0)
		*out = auth_keep(p, buf_str(&b));
	buf_fini(&b);
	return rc;
}

/* "/" version, or a version alone. */
static int auth_read_version(struct auth_parser *p, uint32_t *out)
{
	uint64_t v;
	header_lex_skip(&p->lex, NULL);
	if (!str_to_u64(header_lex_run(&p->lex, is_word_byte), &v) || v > UINT32_MAX)
		return auth_fail(p, "expected a version");
	*out = (uint32_t)v;
	return 0;
}

static int auth_expect_equals(struct auth_parser *p)
{
	header_lex_skip(&p->lex, NULL);
	return header_lex_eat(&p->lex, '=') ? 0 : auth_fail(p, "expected '='");
}

static void auth_append_prop(struct auth_parser *p, struct auth_result *r, struct auth_prop prop)
{
	if (r->n_props == p->cap_props) {
		size_t cap = p->cap_props == 0 ? 8 : p->cap_props * 2;
		struct auth_prop *v = arena_alloc(&p->out->arena, cap * sizeof *v);
		if (r->n_props > 0)
			memcpy(v, r->prop, r->n_props * sizeof *v);
		r->prop = v, p->cap_props = cap;
	}
	r->prop[r->n_props++] = prop;
}

static int auth_read_result(struct auth_parser *p, struct auth_result *r)
{
	r->method = auth_keep(p, header_lex_run(&p->lex, is_word_byte));
	header_lex_skip(&p->lex, NULL);
	if (r->method.n == 0)
		return auth_fail(p, "expected a method");
	if ((header_lex_eat(&p->lex, '/') && auth_read_version(p, &r->method_version) != 0) ||
	    auth_expect_equals(p) != 0 || auth_read_value(p, is_word_byte, &r->result) != 0)
		return -1;
	if (r->result.n == 0)
		return auth_fail(p, "expected a result");
	p->cap_props = 0;
	for (;;) {
		struct auth_prop prop;
		header_lex_skip(&p->lex, NULL);
		int c = header_lex_peek(&p->lex);
		if (c < 0 || c == ';')
			return 0;
		prop.name = auth_keep(p, header_lex_run(&p->lex, is_word_byte));
		if (prop.name.n == 0)
			return auth_fail(p, "expected a property");
		if (auth_expect_equals(p) != 0 || auth_read_value(p, is_pvalue_byte, &prop.value) != 0)
			return -1;
		if (str_ieq(prop.name, STR("reason")))
			r->reason = prop.value;
		else
			auth_append_prop(p, r, prop);
	}
}

static int auth_read_all(struct auth_parser *p)
{
	struct auth_results *out = p->out;
	if (auth_read_value(p, is_pvalue_byte, &out->server_id) != 0)
		return -1;
	if (out->server_id.n == 0)
		return auth_fail(p, "expected the server's id");
	header_lex_skip(&p->lex, NULL);
	int c = header_lex_peek(&p->lex);
	if (c >= 0 && c != ';' && auth_read_version(p, &out->version) != 0)
		return -1;
	for (;;) {
		header_lex_skip(&p->lex, NULL);
		if (!header_lex_eat(&p->lex, ';'))
			return header_lex_peek(&p->lex) < 0 ? 0 : auth_fail(p, "expected ';'");
		header_lex_skip(&p->lex, NULL);
		c = header_lex_peek(&p->lex);
		if (c < 0 || c == ';')
			continue;
		struct header_lex mark = p->lex;
		if (str_ieq(header_lex_run(&p->lex, is_word_byte), STR("none"))) {
			header_lex_skip(&p->lex, NULL);
			if (header_lex_peek(&p->lex) < 0)
				return 0;
		}
		p->lex = mark;
		if (out->n == p->cap) {
			size_t cap = p->cap == 0 ? 4 : p->cap * 2;
			struct auth_result *v = arena_alloc(&out->arena, cap * sizeof *v);
			if (out->n > 0)
				memcpy(v, out->v, out->n * sizeof *v);
			out->v = v, p->cap = cap;
		}
		struct auth_result r = {0};
		if (auth_read_result(p, &r) != 0)
			return -1;
		out->v[out->n++] = r;
	}
}

int auth_results_parse(str_t value, struct auth_results *out)
{
	struct auth_results r = {.arena = ARENA_INIT};
	struct auth_parser p = {.lex = {value, 0}, .out = &r};
	int rc = auth_read_all(&p);
	if (rc == 0)
		*out = r;
	else
		arena_fini(&r.arena);
	return rc;
}

void auth_results_fini(struct auth_results *r)
{
	arena_fini(&r->arena);
	*r = (struct auth_results){0};
}

/* --- writing --- */

static bool word_is_valid(str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!is_word_byte((unsigned char)s.p[i]))
			return false;
	return s.n > 0 && s.n <= WORD_MAX && str_is_utf8(s);
}

static bool text_is_valid(str_t s)
{
	size_t n_run = 0; /* without a blank: where it cannot be folded */
	for (size_t i = 0; i < s.n; i++) {
		n_run = s.p[i] == ' ' ? 0 : n_run + 1;
		if (n_run > RUN_MAX)
			return false;
	}
	return str_is_utf8(s) && !header_has_controls(s);
}

int auth_results_check(const struct auth_results *r)
{
	const char *what = r->server_id.n == 0 || !text_is_valid(r->server_id) ? "the server's id" : NULL;
	size_t i = 0;
	for (; i < r->n && what == NULL; i++) {
		const struct auth_result *v = &r->v[i];
		what = !word_is_valid(v->method)   ? "method"
		       : !word_is_valid(v->result) ? "result"
		       : !text_is_valid(v->reason) ? "reason"
						   : NULL;
		for (size_t k = 0; k < v->n_props && what == NULL; k++)
			what = word_is_valid(v->prop[k].name) && text_is_valid(v->prop[k].value) ? NULL
												 : "property";
	}
	if (what == NULL)
		return 0;
	if (i == 0)
		err_set(ERR_INVALID, "authentication results: %s cannot be written", what);
	else
		err_set(ERR_INVALID, "authentication result %zu: the %s cannot be written", i, what);
	return -1;
}

/* pvalue: a token, or local@domain; else quoted. */
static bool is_plain_value_byte(unsigned char c)
{
	return header_is_token(c) || c == '@';
}

static bool text_is(str_t s, bool (*is)(unsigned char))
{
	size_t n = 0;
	while (n < s.n && is((unsigned char)s.p[n]))
		n++;
	return n == s.n && n > 0;
}

static void auth_write_pair(struct header_writer *w, str_t name, uint32_t version, str_t value, bool is_text)
{
	struct buf b = BUF_INIT;
	buf_add_str(&b, name);
	if (version != 0)
		buf_printf(&b, "/%u", (unsigned)version);
	buf_add_c(&b, '=');
	if (text_is(value, is_text ? header_is_token : is_plain_value_byte)) {
		buf_add_str(&b, value);
		header_write_token(w, buf_str(&b));
	} else {
		header_write_quoted(w, buf_str(&b), value);
	}
	buf_fini(&b);
}

void auth_results_write(const struct auth_results *r, struct header_writer *w)
{
	struct buf id = BUF_INIT;
	header_add_quoted(&id, r->server_id, header_is_token);
	header_write_token(w, buf_str(&id));
	buf_fini(&id);
	if (r->version != 0) {
		char version[12];
		int n = snprintf(version, sizeof version, "%u", (unsigned)r->version);
		header_write_token(w, str_mk(version, (size_t)n));
	}
	if (r->n == 0) {
		buf_add_c(w->out, ';');
		header_write_token(w, STR("none"));
	}
	for (size_t i = 0; i < r->n; i++) {
		const struct auth_result *v = &r->v[i];
		buf_add_c(w->out, ';');
		header_write_fold(w);
		auth_write_pair(w, v->method, v->method_version, v->result, false);
		if (v->reason.p != NULL)
			auth_write_pair(w, STR("reason"), 0, v->reason, true);
		for (size_t k = 0; k < v->n_props; k++)
			auth_write_pair(w, v->prop[k].name, 0, v->prop[k].value, false);
	}
}
