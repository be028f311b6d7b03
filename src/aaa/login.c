/* login.c - asking the policy about a credential, and remembering what it said: for 60 s, of 128 credentials,
 * of one configuration epoch. The key of the memory is an HMAC of the credential under a key that is made at
 * start, so that the credentials themselves are nowhere in it. Of requests that come at the same time with
 * one credential a single one asks, the others wait for its answer: checking a password may be made to be
 * slow. An error is remembered for a second only: a user database that is away is not asked for each request,
 * and a login works again as soon as it is back.
 *
 * The text of a failed handler goes to the diagnostic log; should it quote the password or the token, these
 * are taken out. */
#include "aaa/login.h"

#include "aaa/acct.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "base/secret.h"
#include "policy/memoize.h"
#include "policy/policy.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>

#define LOGIN_TTL dur_s(60)
#define LOGIN_ERROR_TTL dur_s(1)

enum { LOGIN_CACHE_ENTRIES = 128, LOGIN_KEY_BYTES = 32, LOGIN_MASK_MIN_BYTES = 3 };

enum login_outcome { LOGIN_WRONG, LOGIN_GOOD, LOGIN_ERROR };

struct login {
	struct memo_value base;
	enum login_outcome outcome;
	struct arena arena;
	struct auth_info info; /* LOGIN_GOOD: what the login adds */
};

static struct memo_cache *login_cache;
static unsigned char login_hmac_key[LOGIN_KEY_BYTES];
static pthread_once_t login_once = PTHREAD_ONCE_INIT;

static void login_init(void)
{
	login_cache = memo_cache_new(&(struct memo_params){.ttl = LOGIN_TTL,
							   .capacity = LOGIN_CACHE_ENTRIES,
							   .invalidate_with_epoch = true,
							   .populate_timeout = {-1}});
	if (RAND_bytes(login_hmac_key, sizeof(login_hmac_key)) != 1)
		panic("no random bytes");
}

static struct memo_cache *logins(void)
{
	pthread_once(&login_once, login_init);
	return login_cache;
}

void login_reset(void)
{
	memo_cache_clear(logins());
}

/* --- the key --- */

static void login_key(const struct credential *c, unsigned char out[LOGIN_KEY_BYTES])
{
	unsigned n = LOGIN_KEY_BYTES;
	struct buf b = BUF_INIT;
	buf_reserve(&b, c->secret.n + 1); /* at once: no freed copies of it */
	buf_add_c(&b, c->kind == CREDENTIAL_BASIC ? 'b' : 't');
	buf_add_str(&b, c->secret);
	if (HMAC(EVP_sha256(), login_hmac_key, sizeof(login_hmac_key), (const unsigned char *)b.p, b.n, out,
		 &n) == NULL ||
	    n != LOGIN_KEY_BYTES)
		panic("HMAC-SHA256 failed");
	secret_buf_fini(&b);
}

/* --- asking --- */

static void login_free(struct memo_value *v)
{
	struct login *l = container_of(v, struct login, base);
	arena_fini(&l->arena);
	free(l);
}

static struct login *login_new(void)
{
	struct login *l = xnew(struct login);
	atomic_init(&l->base.refs, 1);
	l->base.free_fn = login_free;
	l->arena = ARENA_INIT;
	auth_info_init(&l->info, NULL, &l->arena);
	return l;
}

static enum auth_context login_context(const struct credential *c)
{
	return c->kind == CREDENTIAL_BASIC ? AUTH_HTTP_BASIC : AUTH_BEARER;
}

static const char *login_event(const struct credential *c)
{
	return c->kind == CREDENTIAL_BASIC ? "http_server_validate_auth_basic"
					   : "http_server_validate_auth_bearer";
}

/* What the handler returned. */
static int login_take_answer(struct policy_call *call, const struct credential *c, struct login *l)
{
	int idx = call->result_idx;
	if (lua_isboolean(call->L, idx)) {
		l->outcome = lua_toboolean(call->L, idx) ? LOGIN_GOOD : LOGIN_WRONG;
		if (l->outcome == LOGIN_GOOD)
			auth_info_add_identity(&l->info, c->kind == CREDENTIAL_BASIC ? c->user : STR(""),
					       login_context(c));
		return 0;
	}
	if (!lua_istable(call->L, idx)) {
		err_set(ERR_INVALID, "a boolean or an AuthInfo is expected, not a %s",
			lua_typename(call->L, lua_type(call->L, idx)));
		return -1;
	}
	l->outcome = LOGIN_GOOD;
	return auth_info_from_lua(call->L, idx, &l->arena, &l->info);
}

static int login_ask(const struct credential *c, struct login *l, mono_t deadline)
{
	struct policy_call call;
	int n_args = 1, rc = policy_call_begin(&call, login_event(c), deadline);
	l->outcome = LOGIN_WRONG;
	if (rc <= 0)
		return rc;
	if (c->kind == CREDENTIAL_BEARER) {
		lua_pushlstring(call.L, c->secret.p, c->secret.n);
	} else {
		lua_pushlstring(call.L, c->user.p, c->user.n);
		if (c->password.p != NULL)
			lua_pushlstring(call.L, c->password.p, c->password.n);
		else
			lua_pushnil(call.L);
		n_args = 2;
	}
	rc = policy_call_run(&call, n_args, 1, deadline);
	if (rc == 1)
		rc = login_take_answer(&call, c, l);
	policy_call_end(&call);
	return rc < 0 ? -1 : 0;
}

/* Replaces what must not be shown. */
static void login_mask(struct buf *text, str_t secret)
{
	if (secret.n < LOGIN_MASK_MIN_BYTES)
		return;
	struct buf out = BUF_INIT;
	str_t rest = buf_str(text);
	for (ptrdiff_t at; (at = str_find(rest, secret)) >= 0; rest = str_skip(rest, (size_t)at + secret.n)) {
		buf_add_str(&out, str_head(rest, (size_t)at));
		buf_add_z(&out, "***");
	}
	buf_add_str(&out, rest);
	buf_fini(text);
	*text = out;
}

/* Consumes the error. */
static void login_complain(const struct credential *c)
{
	struct buf text = BUF_INIT;
	buf_add_z(&text, err_text());
	err_clear();
	login_mask(&text, c->secret);
	login_mask(&text, c->password);
	log_error("kumod::aaa", "%s: %s", login_event(c), text.p);
	buf_fini(&text);
}

/* A reference to what is known or found out about the credential. Yields. */
static struct login *login_find(const struct credential *c, mono_t deadline)
{
	unsigned char key_bytes[LOGIN_KEY_BYTES];
	str_t key = {(const char *)key_bytes, sizeof(key_bytes)};
	struct memo_cache *cache = logins();
	struct memo_value *known = NULL;
	uint64_t epoch = policy_epoch();
	bool is_kept = true;
	login_key(c, key_bytes);
	int rc = memo_begin(cache, key, &known, deadline);
	if (rc > 0)
		return container_of(known, struct login, base);
	struct login *l = login_new();
	if (rc < 0 || login_ask(c, l, deadline) != 0) {
		/* A cancelled or hurried caller says nothing about the credential. */
		is_kept = !err_is(ERR_CANCELLED) && !err_is(ERR_TIMEOUT) && !err_is(ERR_SHUTDOWN);
		l->base.max_ttl = LOGIN_ERROR_TTL;
		l->outcome = LOGIN_ERROR;
		login_complain(c);
	}
	if (rc == 0)
		memo_finish(cache, key, is_kept ? &l->base : NULL, epoch);
	return l;
}

/* The name under which the attempt is accounted for. */
static str_t login_attempted(const struct credential *c, const struct login *l)
{
	if (c->kind == CREDENTIAL_BASIC)
		return c->user;
	return l->outcome == LOGIN_GOOD && l->info.n_identities != 0 ? l->info.identity[0].identity : STR("");
}

int login_check(const struct credential *c, struct auth_info *who, mono_t deadline)
{
	struct login *l = login_find(c, deadline);
	enum login_outcome outcome = l->outcome;
	if (outcome == LOGIN_GOOD)
		auth_info_merge(who, &l->info);
	acct_log_login(who, login_attempted(c, l), login_context(c), outcome == LOGIN_GOOD, deadline);
	memo_value_unref(&l->base);
	if (outcome == LOGIN_ERROR)
		err_set(ERR_LUA, "%s failed", login_event(c));
	return outcome == LOGIN_ERROR ? -1 : outcome == LOGIN_GOOD;
}
