/* bind_message_schedule.c - when a message is tried: set_scheduling, import_scheduling_header, set_due. */
#include "base/alloc.h"
#include "base/err.h"
#include "bind/bind_message_impl.h"
#include "mail/message_header.h"
#include "mail/schedule.h"
#include "policy/param.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

/* --- the table --- */

static int schedule_text_of(const json_t *v, str_t *out)
{
	if (!json_is_string(v)) {
		struct buf what = BUF_INIT;
		value_describe(v, false, &what);
		err_set(ERR_INVALID, "invalid type: %s, expected a string", what.p);
		buf_fini(&what);
		return -1;
	}
	*out = str_mk(json_string_value(v), json_string_length(v));
	return 0;
}

static int schedule_name_error(const char *name, int rc)
{
	if (rc != 0)
		err_wrap("field `%s`", name);
	return rc;
}

static int first_attempt_parse(const json_t *v, void *field)
{
	str_t text;
	return schedule_name_error("first_attempt",
				   schedule_text_of(v, &text) != 0 ? -1 : schedule_parse_time(text, field));
}

static int expires_parse(const json_t *v, void *field)
{
	str_t text;
	return schedule_name_error("expires",
				   schedule_text_of(v, &text) != 0 ? -1 : schedule_parse_time(text, field));
}

static int dow_parse(const json_t *v, void *field)
{
	str_t text;
	return schedule_name_error("dow",
				   schedule_text_of(v, &text) != 0 ? -1 : schedule_parse_dow(text, field));
}

static int tz_parse(const json_t *v, void *field)
{
	str_t text;
	struct schedule *s = container_of(field, struct schedule, tz);
	return schedule_name_error("tz", schedule_text_of(v, &text) != 0 ? -1 : schedule_set_zone(s, text));
}

static void tz_fini(void *field)
{
	struct schedule *s = container_of(field, struct schedule, tz);
	free(s->tz);
	s->tz = NULL;
	s->zone = NULL;
}

static int start_parse(const json_t *v, void *field)
{
	str_t text;
	return schedule_name_error("start",
				   schedule_text_of(v, &text) != 0 ? -1 : schedule_parse_clock(text, field));
}

static int end_parse(const json_t *v, void *field)
{
	str_t text;
	return schedule_name_error("end",
				   schedule_text_of(v, &text) != 0 ? -1 : schedule_parse_clock(text, field));
}

static int scheduling_check(void *obj)
{
	return schedule_check(obj);
}

static const struct param scheduling_fields[] = {
	PARAM_CUSTOM(schedule, first_attempt, .parse = first_attempt_parse,
		     .doc = "Not to be tried before this time, in RFC 3339."),
	PARAM_CUSTOM(
		schedule, expires, .parse = expires_parse,
		.doc = "No longer to be tried from this time on, in RFC 3339; takes the place of max_age."),
	PARAM_CUSTOM(schedule, dow, .parse = dow_parse,
		     .doc = "Days of the week on which it may be tried: `Mon,Wed`."),
	PARAM_CUSTOM(schedule, tz, .parse = tz_parse, .fini = tz_fini,
		     .doc = "The time zone of `dow`, `start` and `end`: `America/Phoenix`."),
	PARAM_CUSTOM(schedule, start, .parse = start_parse,
		     .doc = "Time of day from which on it may be tried: `09:00:00`."),
	PARAM_CUSTOM(schedule, end, .parse = end_parse,
		     .doc = "Time of day from which on it may not: `17:00:00`."),
	{0}};
static const struct param_schema scheduling_schema = {"Scheduling", scheduling_fields,
						      sizeof(struct schedule), scheduling_check};

/* --- on the message --- */

static void scheduling_free_json(void *p)
{
	json_decref(p);
}

/* As set_scheduling takes it. */
static void scheduling_push(lua_State *L, const struct schedule *s)
{
	struct buf text = BUF_INIT;
	struct json_out j = json_out_to(&text);
	void **box = policy_box(L, scheduling_free_json);
	schedule_write(s, &j);
	json_t *v = value_parse_json(buf_str(&text));
	buf_fini(&text);
	if (v == NULL)
		panic("the JSON of a schedule: %s", err_text());
	*box = v;
	value_push_json(L, v);
	policy_box_free(box);
}

/* Gives m what was parsed, and pushes it. */
static int scheduling_set(lua_State *L, struct message *m, const struct schedule *parsed)
{
	if (schedule_is_empty(parsed)) {
		message_set_schedule(m, NULL);
		scheduling_push(L, &(struct schedule){0});
		return 1;
	}
	struct schedule *s = xnew(struct schedule);
	*s = *parsed;
	message_set_schedule(m, s);
	scheduling_push(L, s);
	return 1;
}

static int message_set_scheduling(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	struct schedule s;
	if (bind_is_null(L, 2)) {
		message_set_schedule(m, NULL);
		lua_pushlightuserdata(L, NULL);
		return 1;
	}
	luaL_checktype(L, 2, LUA_TTABLE);
	if (param_parse_lua(&scheduling_schema, L, 2, &s) != 0)
		return policy_raise(L);
	return scheduling_set(L, m, &s);
}

static int scheduling_from_header(const struct header_field *f, struct schedule *out)
{
	struct buf text = BUF_INIT;
	int rc = -1;
	header_decode_lenient(f->raw_value, &text);
	json_t *v = value_parse_json(buf_str(&text));
	if (v != NULL)
		rc = param_parse_json(&scheduling_schema, v, out);
	if (rc != 0)
		err_wrap("header `" STR_FMT "`", STR_ARG(f->name));
	json_decref(v);
	buf_fini(&text);
	return rc;
}

static bool scheduling_is_header(str_t name, void *arg)
{
	return str_ieq(name, *(const str_t *)arg);
}

static int message_import_scheduling_header(lua_State *L)
{
	struct message *m = bind_check_message_to_rewrite(L);
	struct header_field f;
	struct schedule s;
	str_t name;
	name.p = luaL_checklstring(L, 2, &name.n);
	bool is_removed = bind_opt_bool(L, 3, false);
	if (!message_header_find(m, name, &f)) {
		lua_pushlightuserdata(L, NULL);
		return 1;
	}
	if (scheduling_from_header(&f, &s) != 0)
		return policy_raise(L);
	if (is_removed)
		message_remove_headers(m, scheduling_is_header, &name);
	return scheduling_set(L, m, &s);
}

static int message_set_due(lua_State *L)
{
	struct message *m = policy_check_message_to_edit(L, 1);
	wall_t due = {0}, now = wall_now();
	str_t text;
	if (!bind_is_null(L, 2)) {
		luaL_checktype(L, 2, LUA_TSTRING);
		text.p = lua_tolstring(L, 2, &text.n);
		if (!wall_parse_rfc3339(text, &due))
			return luaL_error(L,
					  "invalid value: \"%s\", expected a date and time of RFC 3339 such "
					  "as 2024-03-08T17:51:42Z",
					  text.p);
	}
	m->due = due;
	message_touch(m);
	if (due.ns < now.ns)
		due = now;
	if (m->schedule != NULL)
		due = schedule_adjust(m->schedule, due);
	if (due.ns == now.ns) {
		lua_pushlightuserdata(L, NULL);
		return 1;
	}
	struct buf *b = policy_box_buf(L);
	wall_fmt_rfc3339_at(due, 0, b);
	lua_pushlstring(L, b->p, b->n);
	buf_fini(b);
	return 1;
}

void bind_register_message_schedule(void)
{
	param_schema_register(&scheduling_schema);
}

void bind_open_message_schedule(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{"set_scheduling", message_set_scheduling},
		{"import_scheduling_header", message_import_scheduling_header},
		{"set_due", message_set_due},
		{NULL, NULL},
	};
	luaL_setfuncs(L, methods, 0);
}
