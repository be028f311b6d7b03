/* fuzz_auth.c - what decides about access, from hostile bytes. The first byte says how the rest is used: as
 * the value of an Authorization header, as a URL whose resource is wanted, or as an access control map.
 *
 * What must hold. Header: what is taken is the canonical form of what was read, so that no two headers mean
 * the same credential (but for the scheme's case and blanks); the parts have no control characters. URL: each
 * name is a beginning of the one before it, within its family, and none is longer than the limits allow. Map:
 * every rule's JSON form reads back as the same rule and decides alike. */
#include "aaa/acl.h"
#include "aaa/credential.h"
#include "aaa/resource.h"
#include "base/err.h"
#include "base/text.h"
#include "policy/value.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(cond)                                    \
	do {                                          \
		if (!(cond))                          \
			panic("violated: %s", #cond); \
	} while (0)

/* --- headers --- */

static void fuzz_text(str_t s)
{
	MUST(str_is_utf8(s));
	for (size_t i = 0; i < s.n; i++)
		MUST((unsigned char)s.p[i] >= 0x20 && s.p[i] != 0x7f);
}

static void fuzz_basic(const struct credential *c, str_t value)
{
	struct buf text = BUF_INIT, code = BUF_INIT;
	fuzz_text(c->user);
	buf_add_str(&text, c->user);
	if (c->password.p != NULL) {
		fuzz_text(c->password);
		buf_add_c(&text, ':');
		buf_add_str(&text, c->password);
	}
	MUST(str_chr(c->user, ':', 0) < 0);
	base64_encode(&code, buf_str(&text));
	MUST(str_eq(buf_str(&code), c->secret));
	MUST(str_istarts(value, STR("Basic ")) && str_ends(value, c->secret));
	buf_fini(&text);
	buf_fini(&code);
}

static void fuzz_header(str_t value)
{
	struct arena arena = ARENA_INIT;
	struct credential c;
	const char *why = NULL;
	if (!credential_parse(value, &arena, &c, &why)) {
		MUST(why != NULL && why[0] != 0);
	} else if (c.kind == CREDENTIAL_BASIC) {
		fuzz_basic(&c, value);
	} else {
		MUST(str_istarts(value, STR("Bearer ")) && str_ends(value, c.secret) && c.secret.n != 0);
		fuzz_text(c.secret);
		MUST(str_chr(c.secret, ' ', 0) < 0);
	}
	arena_fini(&arena);
}

/* --- URLs --- */

static void fuzz_url(str_t url)
{
	struct arena arena = ARENA_INIT;
	str_t a = STR("127.0.0.1:8000");
	struct resource r;
	if (resource_of_url(&arena, a, url, &r) != 0) {
		MUST(err_is(ERR_INVALID));
		err_clear();
		goto out;
	}
	MUST(r.n >= 2 && r.n <= RESOURCE_CANDIDATES_MAX && r.n % 2 == 0);
	MUST(str_eq(r.candidate[r.n - 1], STR("http_listener")));
	MUST(str_eq(r.candidate[r.n / 2 - 1], STR("http_listener/127.0.0.1:8000")));
	for (size_t i = 0; i + 1 < r.n; i++) {
		str_t s = r.candidate[i];
		MUST(str_is_utf8(s) && s.n <= RESOURCE_PATH_BYTES + 64);
		MUST(str_starts(s,
				i < r.n / 2 ? STR("http_listener/127.0.0.1:8000") : STR("http_listener/*/")));
		if (i + 1 != r.n / 2)
			MUST(r.candidate[i + 1].n < s.n && str_starts(s, r.candidate[i + 1]));
	}
	/* The same resource by its own path. */
	str_t path = str_skip(r.candidate[0], strlen("http_listener/127.0.0.1:8000"));
	struct resource again;
	resource_of_path(&arena, a, path, &again);
	MUST(again.n == r.n && str_eq(again.candidate[0], r.candidate[0]));
out:
	arena_fini(&arena);
}

/* --- maps --- */

static void fuzz_rules(const struct acl *a)
{
	struct arena arena = ARENA_INIT;
	struct auth_info who;
	struct buf json = BUF_INIT;
	acl_write(a, &json);
	json_t *v = value_parse_json_relaxed(buf_str(&json));
	MUST(v != NULL);
	struct acl *again = acl_from_json(v);
	MUST(again != NULL && acl_n_rules(again) == acl_n_rules(a));
	auth_info_init(&who, NULL, &arena);
	auth_info_add_group(&who, STR("g"));
	auth_info_add_identity(&who, STR("i"), AUTH_GENERIC);
	MUST(net_addr_parse_ip(STR("10.0.0.1"), 0, &who.peer) == 0);
	for (size_t i = 0; i < acl_n_rules(a); i++) {
		const struct acl_rule *r = acl_rule_at(a, i), *s = acl_rule_at(again, i);
		MUST(str_eq(r->json, s->json) && r->is_allow == s->is_allow);
		const struct acl_rule *x = acl_find(a, &who, r->privilege),
				      *y = acl_find(again, &who, s->privilege);
		MUST((x == NULL) == (y == NULL) && (x == NULL || str_eq(x->json, y->json)));
	}
	acl_unref(again);
	json_decref(v);
	buf_fini(&json);
	arena_fini(&arena);
}

static void fuzz_map(str_t text)
{
	static const char *const names[] = {"a", "http_listener", "http_listener/*/a"};
	struct acl_map *m = acl_map_parse(text);
	if (m == NULL) {
		MUST(err_kind() != ERR_NONE);
		err_clear();
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct acl *a = acl_map_find(m, str_of(names[i]));
		if (a != NULL)
			fuzz_rules(a);
	}
	acl_map_unref(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	str_t in = str_mk((const char *)data + 1, n - 1);
	if (data[0] == 'u')
		fuzz_url(in);
	else if (data[0] == 'm')
		fuzz_map(in);
	else
		fuzz_header(in);
	return 0;
}
