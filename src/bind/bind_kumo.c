/* bind_kumo.c - the functions of `kumo` itself: events, diagnostics, refusals, the pool's settings. */
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "bind/bind.h"
#include "fiber/fiber.h"
#include "fiber/memory.h"
#include "policy/monitor.h"

#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static int kumo_on(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TSTRING);
	luaL_checktype(L, 2, LUA_TFUNCTION);
	policy_register_handler(L, 1, 2);
	return 0;
}

/* --- diagnostics --- */

/* Strings as they are, except that bytes that are no UTF-8, and NUL, become \xHH. */
static void kumo_add_text(luaL_Buffer *b, str_t s)
{
	while (s.n != 0) {
		size_t n_bad = 0, n = str_utf8_step(s, &n_bad);
		if (n != 0 && s.p[0] != 0) {
			luaL_addlstring(b, s.p, n);
			s = str_skip(s, n);
			continue;
		}
		for (size_t i = 0; i < (n_bad != 0 ? n_bad : 1) && s.n != 0; i++, s = str_skip(s, 1)) {
			char hex[5];
			snprintf(hex, sizeof(hex), "\\x%02X", (unsigned char)s.p[0]);
			luaL_addstring(b, hex);
		}
	}
}

/* All arguments as one text on top of the stack, each made
 * text first: luaL_Buffer wants the stack to itself. */
static const char *kumo_join(lua_State *L, char separator, bool is_escaped, size_t *n_bytes)
{
	int n = lua_gettop(L);
	luaL_Buffer b;
	for (int i = 1; i <= n; i++) {
		luaL_tolstring(L, i, NULL);
		lua_replace(L, i);
	}
	luaL_buffinit(L, &b);
	for (int i = 1; i <= n; i++) {
		str_t s;
		s.p = lua_tolstring(L, i, &s.n);
		if (i > 1)
			luaL_addchar(&b, separator);
		if (is_escaped && (!str_is_utf8(s) || memchr(s.p, 0, s.n) != NULL))
			kumo_add_text(&b, s);
		else
			luaL_addlstring(&b, s.p, s.n);
	}
	luaL_pushresult(&b);
	return lua_tolstring(L, -1, n_bytes);
}

static int kumo_log(lua_State *L, enum log_level level)
{
	if (!log_is_enabled(level, "lua"))
		return 0;
	size_t n;
	const char *text = kumo_join(L, ' ', true, &n);
	policy_push_where(L);
	log_write(level, "lua", "%s%s", lua_tostring(L, -1), text);
	return 0;
}

static int kumo_log_error(lua_State *L)
{
	return kumo_log(L, LOG_ERROR);
}
static int kumo_log_warn(lua_State *L)
{
	return kumo_log(L, LOG_WARN);
}
static int kumo_log_info(lua_State *L)
{
	return kumo_log(L, LOG_INFO);
}
static int kumo_log_debug(lua_State *L)
{
	return kumo_log(L, LOG_DEBUG);
}

static int kumo_set_diagnostic_log_filter(lua_State *L)
{
	str_t s;
	s.p = luaL_checklstring(L, 1, &s.n);
	if (log_set_filter(s) == 0)
		return 0;
	err_wrap("parsing log filter '%s'", s.p);
	return policy_raise(L);
}

/* In one write and at once, so that lines of several workers stay whole and a pipe sees them. */
static int kumo_print(lua_State *L)
{
	size_t n;
	const char *text = kumo_join(L, '\t', false, &n);
	flockfile(stdout);
	fwrite(text, 1, n, stdout);
	putc_unlocked('\n', stdout);
	fflush(stdout);
	funlockfile(stdout);
	return 0;
}

static void kumo_set_string(lua_State *L, const char *key, const char *value)
{
	if (value != NULL)
		lua_pushstring(L, value);
	else
		lua_pushlightuserdata(L, NULL);
	lua_setfield(L, -2, key);
}

static void kumo_set_line(lua_State *L, const char *key, int line)
{
	if (line >= 0)
		lua_pushinteger(L, line);
	else
		lua_pushlightuserdata(L, NULL);
	lua_setfield(L, -2, key);
}

static int kumo_traceback(lua_State *L)
{
	int level = (int)luaL_optinteger(L, 1, 1);
	luaL_argcheck(L, level >= 0, 1, "a level is 0 or more");
	lua_newtable(L);
	lua_Debug ar;
	for (lua_Integer n = 1; lua_getstack(L, level, &ar); level++, n++) {
		lua_getinfo(L, "nSlt", &ar);
		lua_newtable(L);
		kumo_set_string(L, "event", "Call");
		kumo_set_string(L, "name", ar.name);
		kumo_set_string(L, "name_what", ar.namewhat[0] != 0 ? ar.namewhat : NULL);
		kumo_set_string(L, "source", ar.source);
		kumo_set_string(L, "short_src", ar.short_src);
		kumo_set_line(L, "line_defined", ar.linedefined);
		kumo_set_line(L, "last_line_defined", ar.lastlinedefined);
		kumo_set_string(L, "what", ar.what);
		kumo_set_line(L, "curr_line", ar.currentline);
		lua_pushboolean(L, ar.istailcall);
		lua_setfield(L, -2, "is_tail_call");
		lua_rawseti(L, -2, n);
	}
	return 1;
}

static int kumo_get_event_registrars(lua_State *L)
{
	policy_push_registrars(L, luaL_checkstring(L, 1));
	return 1;
}

static int kumo_validation_failed(lua_State *L UNUSED)
{
	policy_set_validation_failed();
	return 0;
}

/* --- refusing --- */

static int kumo_refuse(lua_State *L, const char *mode)
{
	str_t text;
	lua_Integer code = luaL_checkinteger(L, 1);
	luaL_argcheck(L, code >= 200 && code <= 599, 1, "a reply code is between 200 and 599");
	text.p = luaL_checklstring(L, 2, &text.n);
	(void)policy_raise_reject(L, (int)code, text, mode);
	return policy_raise(L); /* an unknown mode */
}

static int kumo_reject(lua_State *L)
{
	return kumo_refuse(L, NULL);
}

static int kumo_disconnect(lua_State *L)
{
	return kumo_refuse(L, luaL_optstring(L, 3, "ForceDisconnect"));
}

/* --- settings --- */

static uint32_t kumo_check_count(lua_State *L, lua_Integer max)
{
	lua_Integer n = luaL_checkinteger(L, 1);
	luaL_argcheck(L, n >= 0 && n <= max, 1,
		      lua_pushfstring(L, "an integer between 0 and %I", (LUAI_UACINT)max));
	return (uint32_t)n;
}

static int kumo_set_max_lua_context_age(lua_State *L)
{
	lua_Number s = luaL_checknumber(L, 1);
	luaL_argcheck(L, s >= 0, 1, "seconds, 0 or more");
	policy_set_max_age(dur_from_seconds(s));
	return 0;
}

static int kumo_set_max_lua_context_use_count(lua_State *L)
{
	policy_set_max_uses(kumo_check_count(L, UINT32_MAX));
	return 0;
}

static int kumo_set_max_spare_lua_contexts(lua_State *L)
{
	policy_set_max_spares(kumo_check_count(L, UINT32_MAX));
	return 0;
}

static int kumo_set_lua_gc_on_put(lua_State *L)
{
	policy_set_gc_on_put((uint8_t)kumo_check_count(L, UINT8_MAX));
	return 0;
}

static int kumo_bump_config_epoch(lua_State *L)
{
	if (policy_current_event(L) == NULL) /* the bump would run the file, which would bump ... */
		return luaL_error(L, "kumo.bump_config_epoch must be called from an event, "
				     "not from the policy file itself");
	policy_bump_epoch();
	return 0;
}

static uint64_t kumo_check_bytes(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 1);
	luaL_argcheck(L, n > 0, 1, "a number of bytes, more than 0");
	return (uint64_t)n;
}

static int kumo_set_memory_hard_limit(lua_State *L)
{
	memory_set_hard_limit(kumo_check_bytes(L));
	return 0;
}

static int kumo_set_memory_soft_limit(lua_State *L)
{
	memory_set_soft_limit(kumo_check_bytes(L));
	return 0;
}

static int kumo_set_memory_low_thresh(lua_State *L)
{
	memory_set_low_threshold(kumo_check_bytes(L));
	return 0;
}

static int kumo_push_bytes(lua_State *L, uint64_t bytes)
{
	lua_pushinteger(L, bytes <= LUA_MAXINTEGER ? (lua_Integer)bytes : LUA_MAXINTEGER);
	return 1;
}

static int kumo_get_memory_hard_limit(lua_State *L)
{
	return kumo_push_bytes(L, memory_hard_limit());
}
static int kumo_get_memory_soft_limit(lua_State *L)
{
	return kumo_push_bytes(L, memory_soft_limit());
}
static int kumo_get_memory_low_thresh(lua_State *L)
{
	return kumo_push_bytes(L, memory_low_threshold());
}

/* --- the files of the configuration --- */

static int kumo_set_config_monitor_globs(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	size_t n = lua_rawlen(L, 1);
	/* The texts stay in the table while this array, which Lua owns, points at them. */
	const char **glob = lua_newuserdatauv(L, (n + 1) * sizeof(*glob), 0);
	for (size_t i = 0; i < n; i++) {
		if (lua_rawgeti(L, 1, (lua_Integer)i + 1) != LUA_TSTRING)
			return luaL_error(
				L, "kumo.set_config_monitor_globs: element %d is a %s, expected a string",
				(int)i + 1, luaL_typename(L, -1));
		glob[i] = lua_tostring(L, -1);
		lua_pop(L, 1);
	}
	if (monitor_set_globs(glob, n) == 0)
		return 0;
	err_wrap("kumo.set_config_monitor_globs");
	return policy_raise(L);
}

static void kumo_free_files(void *files)
{
	glob_files_fini(files);
	free(files);
}

static int kumo_eval_config_monitor_globs(lua_State *L)
{
	void **box = policy_box(L, kumo_free_files);
	struct glob_files *files = xnew(struct glob_files);
	*box = files;
	if (monitor_find_files(files, policy_deadline(L)) != 0) {
		err_wrap("kumo.eval_config_monitor_globs");
		return policy_raise(L);
	}
	lua_createtable(L, files->n < INT_MAX ? (int)files->n : INT_MAX, 0);
	for (size_t i = 0; i < files->n; i++) {
		lua_pushstring(L, files->v[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	policy_box_free(box);
	return 1;
}

static int kumo_available_parallelism(lua_State *L)
{
	lua_pushinteger(L, bind_available_parallelism());
	return 1;
}

static void kumo_open(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"on", kumo_on},
		{"log_error", kumo_log_error},
		{"log_warn", kumo_log_warn},
		{"log_info", kumo_log_info},
		{"log_debug", kumo_log_debug},
		{"set_diagnostic_log_filter", kumo_set_diagnostic_log_filter},
		{"traceback", kumo_traceback},
		{"get_event_registrars", kumo_get_event_registrars},
		{"validation_failed", kumo_validation_failed},
		{"reject", kumo_reject},
		{"disconnect", kumo_disconnect},
		{"set_max_lua_context_age", kumo_set_max_lua_context_age},
		{"set_max_lua_context_use_count", kumo_set_max_lua_context_use_count},
		{"set_max_spare_lua_contexts", kumo_set_max_spare_lua_contexts},
		{"set_lua_gc_on_put", kumo_set_lua_gc_on_put},
		{"set_memory_hard_limit", kumo_set_memory_hard_limit},
		{"set_memory_soft_limit", kumo_set_memory_soft_limit},
		{"set_memory_low_thresh", kumo_set_memory_low_thresh},
		{"get_memory_hard_limit", kumo_get_memory_hard_limit},
		{"get_memory_soft_limit", kumo_get_memory_soft_limit},
		{"get_memory_low_thresh", kumo_get_memory_low_thresh},
		{"bump_config_epoch", kumo_bump_config_epoch},
		{"set_config_monitor_globs", kumo_set_config_monitor_globs},
		{"eval_config_monitor_globs", kumo_eval_config_monitor_globs},
		{"available_parallelism", kumo_available_parallelism},
		{NULL, NULL},
	};
	luaL_setfuncs(L, functions, 0);
	lua_pushcfunction(L, kumo_print);
	lua_setglobal(L, "print");
}

void bind_register_kumo(void)
{
	policy_add_library(kumo_open);
}
