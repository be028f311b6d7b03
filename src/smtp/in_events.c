/* in_events.c - the policy's part in a session: each event with its arguments, and what its
 * handler's answer or failure means. A refusal by kumo.reject is the reply to what the client
 * has just said; any other failure is ours, and ends the session, because what the policy would
 * have decided is not known. The connection is an argument of every event, lent for its time.
 *
 * The call is over before anything is said to the client: the reply may be an event itself. */
#include "smtp/in_impl.h"

#include "aaa/acct.h"
#include "policy/value.h"

#include <pthread.h>

static void (*in_push_address)(lua_State *L, str_t text);

void in_set_address_pusher(void (*push)(lua_State *L, str_t text))
{
	in_push_address = push;
}

struct in_event {
	struct policy_call c;
	struct in_session *s;
	const char *name;
	str_t about; /* what it is called for, where its name does not say it to who watches */
	mono_t deadline;
};

/* --- failing --- */

static void in_refuse_rejected(struct in_session *s, const struct err *e, enum policy_reject_mode mode)
{
	in_reply_text(s, e->code, str_of(e->text));
	if (mode == POLICY_DISCONNECT_FOLLOW_421 && e->code != 421 && !s->is_ending)
		in_reply(s, 421, "%s disconnecting due to previous error", s->set.hostname);
	if (mode == POLICY_DISCONNECT_FOLLOW_421 || mode == POLICY_DISCONNECT_FORCE)
		s->is_ending = true;
}

/* A mistake of the policy, which the client cannot mend: for the operator, at most once a second. */
static void in_complain(const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static mono_t next;
	static uint64_t n_silent;
	pthread_mutex_lock(&lock);
	if (mono_is_past(next)) {
		log_error(IN_LOG, "a session is ended: %s (%llu more since the last such line)", text,
			  (unsigned long long)n_silent);
		next = mono_after(dur_s(1));
		n_silent = 0;
	} else {
		n_silent++;
	}
	pthread_mutex_unlock(&lock);
}

void in_refuse_error(struct in_session *s, enum policy_reject_mode mode, const char *during)
{
	struct err e = err_take();
	switch (e.kind) {
	case ERR_REJECT:
		in_refuse_rejected(s, &e, mode);
		break;
	case ERR_CANCELLED:
	case ERR_SHUTDOWN:
		in_reply_bye(s, IN_WHY_STOPPING);
		break;
	case ERR_TIMEOUT:
		if (during != NULL) {
			in_reply(s, 451, "4.4.5 data_processing_timeout exceeded (%s)", during);
			break;
		}
		/* fall through */
	default:
		in_complain(e.text);
		in_reply(s, 421, "4.3.0 %s technical difficulties", s->set.hostname);
		s->is_ending = true;
	}
	err_fini(&e);
}

/* --- calling --- */

/* 1: push the arguments, then in_event_run, then in_event_end;
 * 0: nobody handles it; -1: the client was told. */
static int in_event_begin(struct in_event *e, struct in_session *s, const char *name, mono_t deadline)
{
	*e = (struct in_event){.s = s, .name = name, .deadline = deadline};
	int rc = policy_call_begin(&e->c, name, deadline);
	if (rc < 0)
		in_refuse_error(s, POLICY_REJECT, NULL);
	return rc;
}

static void in_event_see(struct in_event *e, int rc)
{
	struct buf result = BUF_INIT;
	if (!in_is_seen())
		return;
	char *name = e->about.p != NULL ? xasprintf("%s " STR_FMT, e->name, STR_ARG(e->about)) : NULL;
	struct in_seen seen = {.kind = IN_SIGHT_CALLBACK, .name = name != NULL ? name : e->name};
	if (rc < 0) {
		seen.error = str_of(err_text());
	} else if (rc == 1 && lua_gettop(e->c.L) >= e->c.result_idx) {
		json_t *v = value_from_lua(e->c.L, e->c.result_idx);
		if (v != NULL)
			value_write_json(v, false, &result);
		else
			err_clear();
		json_decref(v);
	}
	if (rc >= 0)
		seen.text = result.n > 0 ? buf_str(&result) : STR("");
	in_see(e->s, &seen);
	buf_fini(&result);
	free(name);
}

/* 1: results are on the stack; 0: none; -1 with the error in the slot. In all cases in_event_end is due. */
static int in_event_run(struct in_event *e, int n_args, int n_results)
{
	int rc = policy_call_run(&e->c, n_args, n_results, e->deadline);
	in_conn_release(e->c.L);
	in_event_see(e, rc);
	return rc;
}

/* With rc < 0 the error in the slot becomes a reply. */
static enum in_verdict in_event_end(struct in_event *e, int rc, const char *during)
{
	enum policy_reject_mode mode = e->c.reject_mode;
	struct err err = rc < 0 ? err_take() : (struct err){0};
	policy_call_end(&e->c);
	if (rc >= 0)
		return IN_ACCEPTED;
	if (err.kind == ERR_INVALID) { /* of ours: an answer that makes no sense */
		err_put(err);
		err_wrap("%s", e->name);
		err = err_take();
	}
	err_put(err);
	in_refuse_error(e->s, mode, during);
	return IN_REFUSED;
}

/* An answer of a type that it cannot be. */
static int in_event_fail(const struct in_event *e, const char *expected)
{
	err_set(ERR_INVALID, "%s is expected, not a %s", expected,
		lua_typename(e->c.L, lua_type(e->c.L, e->c.result_idx)));
	return -1;
}

/* --- events without an answer --- */

enum in_verdict in_event_connection_accepted(struct in_session *s)
{
	struct in_event e;
	int rc = in_event_begin(&e, s, "smtp_server_connection_accepted", mono_after(IN_EVENT_TIMEOUT));
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	in_conn_push(e.c.L, &s->conn);
	rc = in_event_run(&e, 1, 0);
	return in_event_end(&e, rc, NULL);
}

static enum in_verdict in_event_address(struct in_session *s, const char *name, str_t address)
{
	struct in_event e;
	int rc = in_event_begin(&e, s, name, mono_after(IN_EVENT_TIMEOUT));
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	in_push_address(e.c.L, address);
	in_conn_push(e.c.L, &s->conn);
	rc = in_event_run(&e, 2, 0);
	return in_event_end(&e, rc, NULL);
}

enum in_verdict in_event_mail_from(struct in_session *s, str_t sender)
{
	return in_event_address(s, "smtp_server_mail_from", sender);
}
enum in_verdict in_event_rcpt_to(struct in_session *s, str_t rcpt)
{
	return in_event_address(s, "smtp_server_rcpt_to", rcpt);
}

enum in_verdict in_event_message(struct in_session *s, const char *event, struct message *m, mono_t deadline)
{
	struct in_event e;
	int rc = in_event_begin(&e, s, event, deadline);
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	policy_push_message(e.c.L, m);
	in_conn_push(e.c.L, &s->conn);
	rc = in_event_run(&e, 2, 0);
	return in_event_end(&e, rc, "rx");
}

/* --- smtp_server_get_dynamic_parameters --- */

static int in_take_block(struct in_event *e, struct param_object **block)
{
	if (lua_isnil(e->c.L, e->c.result_idx))
		return 0;
	json_t *v = value_from_lua(e->c.L, e->c.result_idx);
	if (v == NULL)
		return -1;
	*block = in_block_from_json(v);
	json_decref(v);
	return *block != NULL ? 0 : -1;
}

enum in_verdict in_event_dynamic_parameters(struct in_session *s, struct param_object **block)
{
	struct in_event e;
	*block = NULL;
	int rc = in_event_begin(&e, s, "smtp_server_get_dynamic_parameters", mono_after(IN_EVENT_TIMEOUT));
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	lua_pushstring(e.c.L, in_listener_name(s->l));
	in_conn_push(e.c.L, &s->conn);
	rc = in_event_run(&e, 2, 1);
	if (rc == 1)
		rc = in_take_block(&e, block);
	return in_event_end(&e, rc, NULL);
}

/* --- smtp_server_ehlo --- */

static void in_push_lines(lua_State *L, str_t lines)
{
	str_t line;
	lua_newtable(L);
	for (lua_Integer i = 1; lines.n > 0 && str_split(&lines, '\n', &line); i++) {
		lua_pushlstring(L, line.p, line.n);
		lua_rawseti(L, -2, i);
	}
}

static int in_take_lines(struct in_event *e, struct buf *lines)
{
	lua_State *L = e->c.L;
	int idx = e->c.result_idx;
	if (lua_isnil(L, idx))
		return 0;
	if (!lua_istable(L, idx))
		return in_event_fail(e, "a list of extensions");
	buf_clear(lines);
	for (lua_Integer i = 1; i <= (lua_Integer)lua_rawlen(L, idx); i++) {
		str_t line;
		if (lua_rawgeti(L, idx, i) != LUA_TSTRING) {
			err_set(ERR_INVALID, "an extension is text, not a %s",
				lua_typename(L, lua_type(L, -1)));
			return -1;
		}
		line.p = lua_tolstring(L, -1, &line.n);
		if (str_chr(line, '\n', 0) >= 0 || str_chr(line, '\r', 0) >= 0) {
			err_set(ERR_INVALID, "an extension cannot have a line break");
			return -1;
		}
		if (lines->n > 0)
			buf_add_c(lines, '\n');
		buf_add_str(lines, line);
		lua_pop(L, 1);
	}
	return 0;
}

enum in_verdict in_event_ehlo(struct in_session *s, str_t name, struct buf *extensions)
{
	struct in_event e;
	int rc = in_event_begin(&e, s, "smtp_server_ehlo", mono_after(IN_EVENT_TIMEOUT));
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	lua_pushlstring(e.c.L, name.p, name.n);
	in_conn_push(e.c.L, &s->conn);
	if (extensions != NULL)
		in_push_lines(e.c.L, buf_str(extensions));
	rc = in_event_run(&e, extensions != NULL ? 3 : 2, 1);
	if (rc == 1 && extensions != NULL)
		rc = in_take_lines(&e, extensions);
	return in_event_end(&e, rc, NULL);
}

/* --- smtp_server_auth_plain --- */

/* *is_good, and more gets what the handler says of the identity. */
static int in_take_login(struct in_event *e, str_t authz, str_t authc, struct arena *arena,
			 struct auth_info *more, bool *is_good)
{
	lua_State *L = e->c.L;
	int idx = e->c.result_idx;
	if (lua_isboolean(L, idx)) {
		*is_good = lua_toboolean(L, idx);
		auth_info_add_identity(more, authz, AUTH_SMTP_AUTHORIZATION);
		auth_info_add_identity(more, authc, AUTH_SMTP_AUTHENTICATION);
		return 0;
	}
	if (!lua_istable(L, idx))
		return in_event_fail(e, "a boolean or an AuthInfo");
	if (auth_info_from_lua(L, idx, arena, more) != 0)
		return -1;
	if (more->n_identities == 0) {
		err_set(ERR_INVALID, "an AuthInfo without identities");
		return -1;
	}
	*is_good = true;
	return 0;
}

enum in_verdict in_event_auth_plain(struct in_session *s, str_t authz, str_t authc, str_t password,
				    bool *is_good)
{
	struct in_event e;
	struct arena arena = ARENA_INIT;
	struct auth_info more;
	enum in_verdict verdict = IN_ACCEPTED;
	*is_good = false;
	auth_info_init(&more, NULL, &arena);
	int rc = in_event_begin(&e, s, "smtp_server_auth_plain", mono_after(IN_EVENT_TIMEOUT));
	if (rc == 1) {
		lua_pushlstring(e.c.L, authz.p, authz.n);
		lua_pushlstring(e.c.L, authc.p, authc.n);
		lua_pushlstring(e.c.L, password.n > 0 ? password.p : "", password.n);
		in_conn_push(e.c.L, &s->conn);
		rc = in_event_run(&e, 4, 1);
		if (rc == 1)
			rc = in_take_login(&e, authz, authc, &arena, &more, is_good);
		*is_good = *is_good && rc >= 0;
		verdict = in_event_end(&e, rc, NULL);
	} else if (rc < 0) {
		verdict = IN_REFUSED;
	}
	if (*is_good)
		auth_info_merge(&s->conn.who, &more);
	acct_log_login(&s->conn.who, authc, AUTH_SMTP_AUTHENTICATION, *is_good, mono_after(IN_EVENT_TIMEOUT));
	arena_fini(&arena);
	return verdict;
}

/* --- smtp_server_split_transaction --- */

/* An empty table is a list of none, which Lua does not tell from a map of none. */
static int in_check_batch(const json_t *batch)
{
	if (json_is_object(batch) && json_object_size(batch) == 0)
		return 0;
	if (!json_is_array(batch)) {
		err_set(ERR_INVALID, "a list of lists of addresses is expected");
		return -1;
	}
	for (size_t i = 0; i < json_array_size(batch); i++) {
		const json_t *v = json_array_get(batch, i);
		struct mailbox box;
		if (!json_is_string(v)) {
			err_set(ERR_INVALID, "an address is text or an EnvelopeAddress");
			return -1;
		}
		if (mailbox_parse(str_mk(json_string_value(v), json_string_length(v)), &box) != 0)
			return -1;
		if (box.email.n == 0) {
			err_set(ERR_INVALID, "the null address cannot be a recipient");
			return -1;
		}
	}
	return 0;
}

/* The documented example returns a table by domain; the keys do not matter. */
static int in_take_batches(struct in_event *e, json_t **batches)
{
	if (lua_isnil(e->c.L, e->c.result_idx))
		return 0;
	json_t *v = value_from_lua(e->c.L, e->c.result_idx), *list = json_array();
	int rc = v != NULL ? 0 : -1;
	if (v != NULL && !json_is_array(v) && !json_is_object(v))
		rc = in_event_fail(e, "a list of lists of addresses");
	for (size_t i = 0; rc == 0 && i < json_array_size(v); i++) {
		rc = in_check_batch(json_array_get(v, i));
		json_array_append(list, json_array_get(v, i));
	}
	for (void *it = json_object_iter(v); rc == 0 && it != NULL; it = json_object_iter_next(v, it)) {
		rc = in_check_batch(json_object_iter_value(it));
		json_array_append(list, json_object_iter_value(it));
	}
	json_decref(v);
	if (rc == 0)
		*batches = list;
	else
		json_decref(list);
	return rc;
}

enum in_verdict in_event_split(struct in_session *s, struct message *m, json_t **batches, mono_t deadline)
{
	struct in_event e;
	*batches = NULL;
	int rc = in_event_begin(&e, s, "smtp_server_split_transaction", deadline);
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	policy_push_message(e.c.L, m);
	in_conn_push(e.c.L, &s->conn);
	rc = in_event_run(&e, 2, 1);
	if (rc == 1)
		rc = in_take_batches(&e, batches);
	return in_event_end(&e, rc, "rx");
}

/* --- get_listener_domain --- */

enum in_verdict in_event_listener_domain(struct in_session *s, str_t domain, struct param_object **object)
{
	struct in_event e;
	*object = NULL;
	int rc = in_event_begin(&e, s, "get_listener_domain", mono_after(IN_EVENT_TIMEOUT));
	if (rc <= 0)
		return rc == 0 ? IN_ACCEPTED : IN_REFUSED;
	lua_pushlstring(e.c.L, domain.n > 0 ? domain.p : "", domain.n);
	lua_pushstring(e.c.L, in_listener_name(s->l));
	in_conn_push(e.c.L, &s->conn);
	char *about = xasprintf("domain=" STR_FMT, STR_ARG(domain));
	e.about = str_of(about);
	rc = in_event_run(&e, 3, 1);
	free(about);
	if (rc == 1 && !lua_isnil(e.c.L, e.c.result_idx)) {
		*object = param_object_at(e.c.L, e.c.result_idx, &in_domain_schema);
		rc = *object != NULL ? 1 : -1;
	}
	if (rc < 0 && err_is(ERR_REJECT)) /* not special here */
		err_set(ERR_LUA, "get_listener_domain refused a domain, which it cannot");
	return in_event_end(&e, rc, NULL);
}

/* --- smtp_server_rewrite_response --- */

static int in_take_response(struct in_event *e, int *code, struct buf *text)
{
	lua_State *L = e->c.L;
	int idx = e->c.result_idx, is_integer = 1;
	lua_Integer new_code = *code;
	if (!lua_isnil(L, idx))
		new_code = lua_tointegerx(L, idx, &is_integer);
	if (!is_integer || new_code < 200 || new_code > 599) {
		err_set(ERR_INVALID, "%s: a status is a number between 200 and 599", e->name);
		return -1;
	}
	if (!lua_isnil(L, idx + 1) && lua_type(L, idx + 1) != LUA_TSTRING) {
		err_set(ERR_INVALID, "%s: a response is text, not a %s", e->name,
			lua_typename(L, lua_type(L, idx + 1)));
		return -1;
	}
	*code = (int)new_code;
	if (!lua_isnil(L, idx + 1)) {
		str_t given;
		given.p = lua_tolstring(L, idx + 1, &given.n);
		buf_clear(text);
		buf_add_str(text, given);
	}
	return 0;
}

void in_event_rewrite_response(struct in_session *s, int *code, struct buf *text)
{
	struct in_event e = {.s = s, .name = "smtp_server_rewrite_response"};
	e.deadline = mono_after(in_is_stopping(s) ? dur_s(1)
						  : IN_EVENT_TIMEOUT); /* nobody may hold up the last words */
	int rc = policy_call_begin(&e.c, e.name, e.deadline);
	if (rc == 1) {
		lua_pushinteger(e.c.L, *code);
		lua_pushlstring(e.c.L, text->n > 0 ? text->p : "", text->n);
		if (s->shown.n > 0)
			lua_pushlstring(e.c.L, s->shown.p, s->shown.n);
		else
			lua_pushnil(e.c.L);
		in_conn_push(e.c.L, &s->conn);
		rc = in_event_run(&e, 4, 2);
		if (rc == 1)
			rc = in_take_response(&e, code, text);
		struct err err = rc < 0 ? err_take() : (struct err){0};
		policy_call_end(&e.c);
		if (rc < 0)
			err_put(err);
	}
	if (rc < 0) {
		log_error(IN_LOG, "a reply goes out as it was: %s", err_text());
		err_clear();
	}
}
