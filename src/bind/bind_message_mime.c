/* bind_message_mime.c - methods of the message that look into its content: parts,
 * address headers, conformance, reports, and texts that are added to what people read. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_message_impl.h"
#include "bind/bind_mime_impl.h"
#include "mime/idna.h"
#include "mail/message_header.h"
#include "mime/message_id.h"
#include "mime/report.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <unistd.h>

/* --- the bytes --- */

static void message_bytes(const struct message *m, struct buf *out)
{
	buf_reserve(out, m->n_prefix_bytes + m->body->n_bytes);
	buf_add(out, m->prefix, m->prefix != NULL ? m->n_prefix_bytes : 0);
	buf_add(out, m->body->p, m->body->n_bytes);
}

static void message_set_bytes(struct message *m, str_t bytes)
{
	struct body *b = body_new(bytes);
	message_set_prefix(m, STR("")); /* it is a part of the bytes */
	message_replace_body(m, b);
	body_unref(b);
}

/* The message as a tree; the value is on top of the stack. */
static struct mime_part *message_push_tree(lua_State *L, const struct message *m)
{
	struct buf *b = policy_box_buf(L);
	struct mime_part **box = bind_new_mime_part(L);
	message_bytes(m, b);
	*box = mime_part_parse(buf_str(b));
	buf_fini(b);
	return *box;
}

static int message_parse_mime(lua_State *L)
{
	struct message *m = bind_check_message_with_body(L);
	message_push_tree(L, m);
	return 1;
}

/* --- address headers --- */

static void addresses_free(void *p)
{
	address_list_fini(p);
	free(p);
}

static int message_push_addresses(lua_State *L, str_t name)
{
	struct message *m = bind_check_message_with_body(L);
	struct header_field f;
	if (!message_header_find(m, name, &f)) {
		lua_pushnil(L);
		return 1;
	}
	void **box = policy_box(L, addresses_free);
	struct address_list *l = xnew(struct address_list);
	*box = l;
	if (address_list_parse(f.raw_value, l) != 0) {
		err_wrap("invalid header `" STR_FMT "`", STR_ARG(f.name));
		return policy_raise(L);
	}
	bind_push_address_header(L, l);
	policy_box_free(box);
	return 1;
}

static int message_from_header(lua_State *L)
{
	return message_push_addresses(L, STR("From"));
}

static int message_to_header(lua_State *L)
{
	return message_push_addresses(L, STR("To"));
}

static int message_get_address_header(lua_State *L)
{
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	return message_push_addresses(L, name);
}

/* --- conformance --- */

struct conformance_settings {
	char *message_id;
	bool detect_encoding;
	struct param_strs include_encodings, exclude_encodings;
};

static int conformance_settings_check(void *obj)
{
	const struct conformance_settings *s = obj;
	if (s->message_id == NULL || message_id_is_valid(str_of(s->message_id)))
		return 0;
	err_set(ERR_INVALID,
		"field `message_id`: invalid value: \"%.100s\", "
		"expected an id without angle brackets and blanks",
		s->message_id);
	return -1;
}

static const struct param conformance_fields[] = {
	PARAM_STR(conformance_settings, message_id,
		  .doc = "For a message that has no Message-ID; without angle brackets."),
	PARAM_BOOL(conformance_settings, detect_encoding, .def = "false",
		   .doc = "Look for the charset of 8-bit text that does not say it, or says a wrong one."),
	PARAM_STRS(conformance_settings, include_encodings,
		   .doc = "The charsets to try, in this order; windows-1252 when not given."),
	PARAM_STRS(conformance_settings, exclude_encodings, .doc = "Charsets that are not tried."),
	{0}};
static const struct param_schema conformance_schema = {"ConformanceSettings", conformance_fields,
						       sizeof(struct conformance_settings),
						       conformance_settings_check};

void bind_register_message_mime(void)
{
	param_schema_register(&conformance_schema);
}

static void conformance_settings_free(void *p)
{
	param_fini(&conformance_schema, p);
	free(p);
}

static bool is_excluded(const struct conformance_settings *s, str_t charset)
{
	for (size_t i = 0; i < s->exclude_encodings.n; i++)
		if (str_ieq(str_of(s->exclude_encodings.v[i]), charset))
			return true;
	return false;
}

/* In a value on the stack. */
static struct mime_charsets conformance_charsets(lua_State *L, const struct conformance_settings *s)
{
	size_t n = s->include_encodings.n, n_used = 0;
	str_t *v = lua_newuserdatauv(L, (n + 1) * sizeof(*v), 0);
	if (!s->detect_encoding)
		return (struct mime_charsets){v, 0};
	for (size_t i = 0; i < n; i++)
		if (!is_excluded(s, str_of(s->include_encodings.v[i])))
			v[n_used++] = str_of(s->include_encodings.v[i]);
	if (n == 0 && !is_excluded(s, STR("windows-1252")))
		v[n_used++] = STR("windows-1252");
	return (struct mime_charsets){v, n_used};
}

/* `<spool id>@<domain of the envelope sender>`; the null sender has none. */
static void message_default_id(const struct message *m, struct buf *out)
{
	struct mailbox box;
	char id[33], host[256] = "localhost";
	uuid_fmt_simple(&m->id, id);
	buf_add_z(out, id);
	buf_add_c(out, '@');
	if (mailbox_parse(str_of(m->sender), &box) == 0 && box.domain.n > 0 &&
	    idna_to_ascii(box.domain, out) == 0)
		return;
	err_clear();
	if (gethostname(host, sizeof(host) - 1) != 0)
		strcpy(host, "localhost");
	buf_add_z(out, host);
}

static int message_check_fix_conformance(lua_State *L)
{
	struct mime_fix fix = {0};
	str_t checks, fixes;
	lua_settop(L, 4);
	checks.p = luaL_checklstring(L, 2, &checks.n);
	fixes.p = luaL_checklstring(L, 3, &fixes.n);
	if (mime_issues_parse(checks, &fix.check) != 0 || mime_issues_parse(fixes, &fix.fix) != 0)
		return policy_raise(L);
	struct message *m = fix.fix != 0 ? bind_check_message_to_rewrite(L) : bind_check_message_with_body(L);
	struct buf *bytes = policy_box_buf(L), *fixed = policy_box_buf(L), *id = policy_box_buf(L);
	void **box = policy_box(L, conformance_settings_free);
	if (!bind_is_null(L, 4)) {
		luaL_checktype(L, 4, LUA_TTABLE);
		struct conformance_settings *s = xnew(struct conformance_settings);
		if (param_parse_lua(&conformance_schema, L, 4, s) != 0) {
			free(s);
			return policy_raise(L);
		}
		*box = s;
		fix.charsets = conformance_charsets(L, s);
		fix.message_id = str_of(s->message_id);
	}
	message_default_id(m, id);
	fix.message_id = fix.message_id.n > 0 ? fix.message_id : buf_str(id);
	unsigned found;
	message_bytes(m, bytes);
	if (mime_conform(buf_str(bytes), &fix, &found, fixed) == 1)
		message_set_bytes(m, buf_str(fixed));
	buf_fini(bytes);
	if ((found & fix.check) == 0) {
		lua_pushnil(L);
	} else {
		buf_clear(fixed);
		buf_add_z(fixed, "Message has conformance issues: ");
		mime_issues_write(found & fix.check, fixed);
		lua_pushlstring(L, fixed->p, fixed->n);
	}
	buf_fini(fixed);
	buf_fini(id);
	policy_box_free(box);
	return 1;
}

/* --- adding to the text --- */

/* Where the last </body> begins, in any case; -1 when there is none. */
static ptrdiff_t html_body_end(str_t html)
{
	static const str_t tag = STR("</body>");
	for (size_t i = html.n >= tag.n ? html.n - tag.n + 1 : 0; i > 0; i--)
		if (html.p[i - 1] == '<' && str_ieq(str_mk(html.p + i - 1, tag.n), tag))
			return (ptrdiff_t)i - 1;
	return -1;
}

/* True when there is such a part: the message has it changed then. */
static int message_append_text(lua_State *L, bool is_html)
{
	struct message *m = bind_check_message_to_rewrite(L);
	str_t added;
	luaL_checktype(L, 2, LUA_TSTRING);
	added.p = lua_tolstring(L, 2, &added.n);
	luaL_argcheck(L, str_is_utf8(added), 2, "must be UTF-8");
	struct buf *text = policy_box_buf(L), *all = policy_box_buf(L);
	struct mime_part *root = message_push_tree(L, m);
	struct mime_structure s;
	mime_part_structure(root, &s);
	struct mime_part *part = is_html ? s.html : s.text;
	mime_structure_fini(&s);
	if (part == NULL) {
		lua_pushboolean(L, false);
		return 1;
	}
	mime_part_decode_text(part, text);
	ptrdiff_t at = is_html ? html_body_end(buf_str(text)) : -1;
	size_t end = at >= 0 ? (size_t)at : text->n;
	buf_add_str(all, str_head(buf_str(text), end));
	buf_add_str(all, added);
	buf_add_str(all, str_skip(buf_str(text), end));
	if (mime_part_set_body(part, buf_str(all), STR_NULL) != 0)
		return policy_raise(L);
	buf_clear(all);
	mime_part_write(root, all);
	message_set_bytes(m, buf_str(all));
	buf_fini(text);
	buf_fini(all);
	lua_pushboolean(L, true);
	return 1;
}

static int message_append_text_html(lua_State *L)
{
	return message_append_text(L, true);
}

static int message_append_text_plain(lua_State *L)
{
	return message_append_text(L, false);
}

/* --- authentication results --- */

static int message_write_results(lua_State *L, str_t server_id, int idx, struct buf *whole)
{
	struct auth_results r = {.arena = ARENA_INIT, .server_id = server_id};
	struct header_writer w;
	json_t *v = value_from_lua(L, idx);
	int rc = v != NULL ? bind_to_auth_results(v, &r) : -1;
	if (rc == 0)
		rc = auth_results_check(&r);
	if (rc == 0) {
		header_write_begin(&w, whole, STR("Authentication-Results"));
		auth_results_write(&r, &w);
		header_write_end(&w);
	}
	json_decref(v);
	auth_results_fini(&r);
	return rc;
}

static int message_add_authentication_results(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	str_t server_id = bind_check_header_text(L, 2);
	luaL_checktype(L, 3, LUA_TTABLE);
	struct buf *whole = policy_box_buf(L);
	if (message_write_results(L, server_id, 3, whole) != 0)
		return policy_raise(L);
	message_add_prefix(m, buf_str(whole));
	buf_fini(whole);
	return 0;
}

/* --- reports --- */

static void report_free_json(void *p)
{
	json_decref(p);
}

/* 1: *out is the report; 0: it is none; -1. */
static int report_read_dsn(str_t bytes, json_t **out)
{
	struct dsn_report r;
	int rc = dsn_report_parse(bytes, &r);
	if (rc != 1)
		return rc;
	*out = dsn_report_json(&r);
	dsn_report_fini(&r);
	return 1;
}

static int report_read_arf(str_t bytes, json_t **out)
{
	struct arf_report r;
	int rc = arf_report_parse(bytes, &r);
	if (rc != 1)
		return rc;
	*out = arf_report_json(&r, false);
	arf_report_fini(&r);
	return 1;
}

static int message_push_report(lua_State *L, int (*read)(str_t bytes, json_t **out))
{
	struct message *m = bind_check_message_with_body(L);
	struct buf *bytes = policy_box_buf(L);
	void **box = policy_box(L, report_free_json);
	json_t *v = NULL;
	message_bytes(m, bytes);
	int rc = read(buf_str(bytes), &v);
	buf_fini(bytes);
	*box = v;
	if (rc < 0)
		return policy_raise(L);
	if (rc == 0)
		lua_pushnil(L);
	else
		value_push_json(L, v);
	policy_box_free(box);
	return 1;
}

static int message_parse_rfc3464(lua_State *L)
{
	return message_push_report(L, report_read_dsn);
}

static int message_parse_rfc5965(lua_State *L)
{
	return message_push_report(L, report_read_arf);
}

void bind_open_message_mime(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"parse_mime", message_parse_mime},
		{"from_header", message_from_header},
		{"to_header", message_to_header},
		{"get_address_header", message_get_address_header},
		{"check_fix_conformance", message_check_fix_conformance},
		{"append_text_html", message_append_text_html},
		{"append_text_plain", message_append_text_plain},
		{"add_authentication_results", message_add_authentication_results},
		{"parse_rfc3464", message_parse_rfc3464},
		{"parse_rfc5965", message_parse_rfc5965},
		{NULL, NULL},
	};
	luaL_setfuncs(L, methods, 0);
}
