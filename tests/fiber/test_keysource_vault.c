/* KeySource and Vault: a server that speaks the KV version 2 API, well and badly; http and https. */
#include "http_stub.h"
#include "net/keysource.h"

#include "base/alloc.h"
#include "fiber/offload.h"

#define TOKEN "hvs.hush-hush"

static struct stub vault, vault_tls;
static atomic_uint version;

static bool vault_says(struct stub_request *rq, const char *status, const char *json)
{
	return stub_answer(rq, status, "Content-Type: application/json\r\n", str_of(json));
}

static bool vault_serve(struct stub_request *rq)
{
	static const struct {
		const char *path, *status, *json;
	} answers[] = {
		{"/v1/secret/data/tls/mail", "200 OK",
		 "{\"request_id\":\"x\",\"lease_id\":\"\",\"renewable\":false,\"lease_duration\":0,\"data\":{"
		 "\"data\":{\"key\":\"line "
		 "one\\nline "
		 "two\\n\",\"cert\":\"C\",\"number\":7},\"metadata\":{\"created_time\":\"2026-01-01T00:00:"
		 "00Z\","
		 "\"deletion_time\":\"\",\"destroyed\":false,\"version\":3}},\"wrap_info\":null,\"warnings\":"
		 "null,\"auth\":null}"},
		{"/v1/my/kv/data/a%20b%3Fc%23d%25/%C3%BC", "200 OK",
		 "{\"data\":{\"data\":{\"key\":\"odd\"}}}"},
		{"/v1/secret/data/none", "404 Not Found", "{\"errors\":[]}"},
		{"/v1/secret/data/deleted", "404 Not Found",
		 "{\"data\":{\"data\":null,\"metadata\":{\"deletion_time\":\"2026-01-01T00:00:00Z\"}}}"},
		{"/v1/secret/data/gone", "200 OK", "{\"data\":{\"data\":null,\"metadata\":{}}}"},
		{"/v1/secret/data/denied", "403 Forbidden",
		 "{\"errors\":[\"1 error occurred:\\n\\t* permission denied\\n\\n\"]}"},
		{"/v1/secret/data/echo", "403 Forbidden",
		 "{\"errors\":[\"bad token " TOKEN "\", 7, \"and \\u001b[31m " TOKEN "\"]}"},
		{"/v1/secret/data/broken", "500 Internal Server Error", "{\"errors\":[\"internal error\"]}"},
		{"/v1/secret/data/sealed", "503 Service Unavailable", "{\"errors\":[\"Vault is sealed\"]}"},
		{"/v1/secret/data/proxy", "502 Bad Gateway", "<html>nginx " TOKEN "</html>"},
		{"/v1/secret/data/html", "200 OK", "<html>welcome</html>"},
		{"/v1/secret/data/list", "200 OK", "[]"},
		{"/v1/secret/data/one", "200 OK", "{\"data\":{\"key\":\"KV version 1\"}}"},
		{"/v1/secret/data/cut", "200 OK", "{\"data\":{\"data\":{\"key\":\"half"},
		{"/v1/secret/data/empty", "200 OK", "{\"data\":{\"data\":{}}}"},
	};
	if (!str_eq(stub_header(rq, "X-Vault-Token"), STR(TOKEN)))
		return vault_says(rq, "403 Forbidden", "{\"errors\":[\"permission denied\"]}");
	CHECK(strcmp(rq->method, "GET") == 0 && str_eq(stub_header(rq, "X-Vault-Request"), STR("true")));
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		if (strcmp(rq->path, answers[i].path) == 0)
			return vault_says(rq, answers[i].status, answers[i].json);
	if (strcmp(rq->path, "/v1/secret/data/slow") == 0) {
		(void)!stream_fill(rq->st, 1000, SOON);
		return false;
	}
	if (strcmp(rq->path, "/v1/secret/data/turn") == 0) {
		char json[100];
		snprintf(json, sizeof(json), "{\"data\":{\"data\":{\"key\":\"version %u\"}}}",
			 atomic_load(&version));
		return vault_says(rq, "200 OK", json);
	}
	if (strcmp(rq->path, "/v1/secret/data/elsewhere") == 0)
		return stub_answer(rq, "307 Temporary Redirect",
				   "Location: http://other.invalid:8200/v1/x?" TOKEN "\r\n", STR(""));
	struct buf big = BUF_INIT;
	size_t n = strcmp(rq->path, "/v1/secret/data/large") == 0 ? KEYSOURCE_MAX_BYTES + 1 : 8 << 20;
	if (strcmp(rq->path, "/v1/secret/data/deep") == 0) {
		for (int i = 0; i < 200000; i++)
			buf_add_c(&big, '[');
	} else {
		buf_add_z(&big, "{\"data\":{\"data\":{\"key\":\"");
		for (size_t i = 0; i < n; i++)
			buf_add_c(&big, 'x');
		buf_add_z(&big, "\"}}}");
	}
	bool is_on = vault_says(rq, "200 OK", big.p);
	buf_fini(&big);
	return is_on;
}

static struct keysource vault_source(const struct stub *at, const char *token, const char *path,
				     const char *key)
{
	char address[60];
	struct keysource ks;
	snprintf(address, sizeof(address), "%s://127.0.0.1:%u", at->tls != NULL ? "https" : "http",
		 stub_port(at));
	bool is_odd = strchr(path, '?') != NULL;
	json_t *v = json_pack("{ss,ss,ss,ss,ss*}", "vault_mount", is_odd ? "my/kv" : "secret", "vault_path",
			      path, "vault_address", address, "vault_token", token, "vault_key", key);
	CHECK(v != NULL && keysource_parse_json(v, &ks) == 0);
	json_decref(v);
	return ks;
}

static void check_loads(const struct stub *at, const char *path, const char *key, const char *expected)
{
	struct keysource ks = vault_source(at, TOKEN, path, key);
	struct secret *s = keysource_load(&ks, SOON);
	CHECK(s != NULL && secret_eq(s, str_of(expected)));
	secret_unref(s);
	keysource_fini(&ks);
}

static void check_load_fails(struct keysource ks, enum err_kind kind, const char *why, mono_t deadline)
{
	char expected[700];
	struct secret *s = keysource_load(&ks, deadline);
	snprintf(expected, sizeof(expected),
		 "KeySource failed to load data from vault secret `secret/%s`, field `%s`, at %s: %s",
		 ks.vault_path, ks.vault_key, ks.vault_address, why);
	if (s != NULL || err_kind() != kind || strncmp(err_text(), expected, strlen(expected)) != 0)
		fprintf(stderr, "got      %s: %s\nexpected %s: %s\n", err_kind_name(err_kind()), err_text(),
			err_kind_name(kind), expected);
	CHECK(s == NULL && err_is(kind) && strncmp(err_text(), expected, strlen(expected)) == 0);
	CHECK(strstr(err_text(), "hush") == NULL && strchr(err_text(), '\n') == NULL &&
	      strchr(err_text(), 27) == NULL);
	err_clear();
	keysource_fini(&ks);
}

static void vault_run(void *arg)
{
	struct tls_server *tls = server_with((struct tls_server_params){0});
	stub_open(&vault, vault_serve, NULL);
	stub_open(&vault_tls, vault_serve, tls);
	(*(fiber_fn **)arg)(NULL);
	stub_close(&vault);
	stub_close(&vault_tls);
	tls_server_unref(tls);
}

static void run_vault(fiber_fn *fn)
{
	workers_start(2);
	worker_run(vault_run, &fn);
	workers_stop(mono_after(dur_s(10)));
}

static void good_run(void *arg)
{
	check_loads(&vault, "tls/mail", NULL, "line one\nline two\n");
	check_loads(&vault, "/tls/mail/", "cert", "C");
	check_loads(&vault, "a b?c#d%/\xc3\xbc", NULL, "odd");
	CHECK(atomic_load(&vault.n_connections) == 1);
}

static void test_good(void **state)
{
	run_vault(good_run);
}

static void bad_run(void *arg)
{
	static const struct {
		const char *path, *key;
		enum err_kind kind;
		const char *why;
	} cases[] = {
		{"none", NULL, ERR_NOT_FOUND, "answered 404 (no such secret)"},
		{"deleted", NULL, ERR_NOT_FOUND, "answered 404 (no such secret)"},
		{"gone", NULL, ERR_NOT_FOUND, "the newest version of the secret has been deleted"},
		{"denied", NULL, ERR_PROTO,
		 "answered 403 (forbidden): 1 error occurred: * permission denied"},
		{"echo", NULL, ERR_PROTO, "answered 403 (forbidden): bad token ***; and [31m ***"},
		{"broken", NULL, ERR_PROTO, "answered 500 (internal error): internal error"},
		{"sealed", NULL, ERR_PROTO,
		 "answered 503 (sealed, or down for maintenance): Vault is sealed"},
		{"proxy", NULL, ERR_PROTO, "answered 502 (bad gateway)"},
		{"html", NULL, ERR_PROTO, "answered 200 with something that is not JSON"},
		{"list", NULL, ERR_PROTO, "answered 200 with something that is not JSON"},
		{"cut", NULL, ERR_PROTO, "answered 200 with something that is not JSON"},
		{"deep", NULL, ERR_PROTO, "answered 200 with something that is not JSON"},
		{"one", NULL, ERR_PROTO, "answered 200 without data.data: is the mount one of KV version 2?"},
		{"empty", NULL, ERR_NOT_FOUND, "the secret has no field `key`, but no fields at all"},
		{"tls/mail", "other", ERR_NOT_FOUND,
		 "the secret has no field `other`, but `key`, `cert`, `number`"},
		{"tls/mail", "number", ERR_INVALID, "the field `number` of the secret is not a string"},
		{"elsewhere", NULL, ERR_PROTO, "answered 307, a redirect to http://other.invalid:8200/v1/x"},
	};
	char why[300];
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(why, sizeof(why), "GET http://127.0.0.1:%u/v1/secret/data/%s: %s", stub_port(&vault),
			 cases[i].path, cases[i].why);
		check_load_fails(vault_source(&vault, TOKEN, cases[i].path, cases[i].key), cases[i].kind, why,
				 SOON);
	}
	snprintf(why, sizeof(why),
		 "GET http://127.0.0.1:%u/v1/secret/data/tls/mail: "
		 "answered 403 (forbidden): permission denied",
		 stub_port(&vault));
	check_load_fails(vault_source(&vault, "wrong", "tls/mail", NULL), ERR_PROTO, why, SOON);
	snprintf(why, sizeof(why), "GET http://127.0.0.1:%u/v1/secret/data/huge: the answer is larger than ",
		 stub_port(&vault));
	check_load_fails(vault_source(&vault, TOKEN, "huge", NULL), ERR_LIMIT, why, SOON);
	check_load_fails(vault_source(&vault, TOKEN, "large", NULL), ERR_LIMIT,
			 "it is larger than 1048576 bytes", SOON);
	snprintf(why, sizeof(why), "GET http://127.0.0.1:%u/v1/secret/data/slow: ", stub_port(&vault));
	check_load_fails(vault_source(&vault, TOKEN, "slow", NULL), ERR_TIMEOUT, why, mono_after(dur_ms(30)));
	json_t *v = json_pack("{ss,ss,ss,ss}", "vault_mount", "secret", "vault_path", "p", "vault_address",
			      "http://127.0.0.1:1", "vault_token", TOKEN);
	struct keysource ks;
	CHECK(keysource_parse_json(v, &ks) == 0);
	json_decref(v);
	check_load_fails(ks, ERR_CONNECT, "GET http://127.0.0.1:1/v1/secret/data/p: ", SOON);
}

static void test_bad(void **state)
{
	run_vault(bad_run);
}

/* Asked each time; only another content is a change. */
static void change_run(void *arg)
{
	struct keysource_print print = {0};
	struct keysource ks = vault_source(&vault, TOKEN, "turn", NULL);
	struct secret *s = keysource_load_print(&ks, &print, SOON);
	CHECK(s != NULL && secret_eq(s, STR("version 0")));
	secret_unref(s);
	s = NULL;
	CHECK(keysource_has_changed(&ks, &print, &s, SOON) == 0 && s == NULL);
	atomic_store(&version, 1);
	CHECK(keysource_has_changed(&ks, &print, &s, SOON) == 1 && secret_eq(s, STR("version 1")));
	secret_unref(s);
	CHECK(keysource_has_changed(&ks, &print, NULL, SOON) == 0);
	keysource_fini(&ks);
}

static void test_change(void **state)
{
	run_vault(change_run);
}

static void tls_run(void *arg)
{
	char path[] = "/tmp/cirrus-vault-ca-XXXXXX";
	char why[300];
	snprintf(why, sizeof(why),
		 "GET https://127.0.0.1:%u/v1/secret/data/tls/mail: ", stub_port(&vault_tls));
	unsetenv("VAULT_CACERT");
	check_load_fails(vault_source(&vault_tls, TOKEN, "tls/mail", NULL), ERR_PROTO, why, SOON);
	int fd = mkstemp(path);
	str_t pem = secret_bytes(root_pem);
	CHECK(fd >= 0 && write(fd, pem.p, pem.n) == (ssize_t)pem.n);
	close(fd);
	setenv("VAULT_CACERT", path, 1);
	check_loads(&vault_tls, "tls/mail", NULL, "line one\nline two\n");
	unlink(path);
	snprintf(why, sizeof(why), "$VAULT_CACERT, `%s`: No such file or directory", path);
	check_load_fails(vault_source(&vault_tls, TOKEN, "tls/mail", NULL), ERR_NOT_FOUND, why, SOON);
	unsetenv("VAULT_CACERT");
}

static void test_tls(void **state)
{
	run_vault(tls_run);
}

/* A server's identity from Vault, from source to handshake. */
static void whole_run(void *arg)
{
	struct keysource ks = vault_source(&vault, TOKEN, "tls/mail", "cert");
	struct secret *s = keysource_load(&ks, SOON);
	CHECK(s != NULL);
	struct tls_server_params p = {
		.credentials = {.cert = s, .cert_name = keysource_text(&ks), .key = leaf_key}};
	CHECK(tls_server_new(&p) == NULL);
	CHECK(strstr(err_text(), "vault secret `secret/tls/mail`, field `cert`, at http://127.0.0.1:") !=
	      NULL);
	CHECK(strstr(err_text(), " holds no certificate in PEM or DER form") != NULL);
	err_clear();
	secret_unref(s);
	keysource_fini(&ks);
}

static void test_whole(void **state)
{
	run_vault(whole_run);
}

static int setup(void **state)
{
	unsetenv("VAULT_ADDR");
	unsetenv("VAULT_TOKEN");
	offload_start(2);
	return group_setup(state);
}

static int teardown(void **state)
{
	offload_stop();
	return group_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good), cmocka_unit_test(test_bad),   cmocka_unit_test(test_change),
		cmocka_unit_test(test_tls),  cmocka_unit_test(test_whole),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
