/* keysource_vault.c - HashiCorp Vault, the KV version 2 secrets engine: GET /v1/MOUNT/data/PATH with the
 * token in a header; the secret's fields are in data.data of the answer.
 *
 * A failure tells the request and the answer: the status, what it means for this API, and what Vault itself
 * says in "errors", cleaned of control characters and, should a server echo it, of the token. Redirects are
 * not followed to another host, since the token would go with them; where one points is in the error.
 *
 * Trust in https servers: the system's authorities, or those in the file that $VAULT_CACERT names, as Vault's
 * own client does. What was read is wiped, the parsed JSON included. */
#include "net/fetch.h"
#include "net/keysource_impl.h"

#include "base/alloc.h"
#include "base/err.h"

#include <stdlib.h>

#define VAULT_MAX_BYTES (4 * KEYSOURCE_MAX_BYTES)
#define VAULT_CONNECT_TIMEOUT dur_s(5)
#define VAULT_JSON_DEPTH 32
#define VAULT_SAID_BYTES 300 /* of the server's own words in an error */

int keysource_vault_check_address(const char *address)
{
	struct buf shown = BUF_INIT;
	int rc = fetch_url_show(address, &shown);
	buf_fini(&shown);
	if (rc == 0 && strpbrk(address, "@?#") == NULL)
		return 0;
	err_set(ERR_INVALID, "the address of a Vault must be http://HOST:PORT or https://HOST:PORT");
	return -1;
}

int keysource_vault_check_path(const char *field, const char *path)
{
	str_t rest = str_of(path), seg;
	bool is_good = rest.n > 0;
	while (str_split(&rest, '/', &seg)) {
		is_good &= seg.n > 0 && !str_eq(seg, STR(".")) && !str_eq(seg, STR(".."));
		for (size_t i = 0; i < seg.n; i++)
			is_good &= (unsigned char)seg.p[i] >= ' ' && seg.p[i] != 0x7f;
	}
	if (is_good)
		return 0;
	err_set(ERR_INVALID, "field `%s` of a KeySource is not a path of Vault", field);
	return -1;
}

/* Slashes stay. */
static void vault_add_path(struct buf *out, const char *path)
{
	for (const unsigned char *p = (const unsigned char *)path; *p != 0; p++) {
		bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
				(*p >= '0' && *p <= '9') || strchr("-._~/", *p) != NULL;
		if (is_plain)
			buf_add_c(out, (char)*p);
		else
			buf_printf(out, "%%%02X", *p);
	}
}

/* --- what it said --- */

/* jansson recurses: what is nested deeper than any answer of Vault is not given to it. */
static bool vault_is_shallow(str_t json)
{
	int depth = 0;
	bool is_in_string = false;
	for (size_t i = 0; i < json.n; i++) {
		char c = json.p[i];
		if (is_in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				is_in_string = false;
		} else if (c == '"') {
			is_in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > VAULT_JSON_DEPTH)
				return false;
		} else if (c == '}' || c == ']') {
			depth--;
		}
	}
	return true;
}

static json_t *vault_parse(str_t body)
{
	json_error_t e;
	return vault_is_shallow(body) ? json_loadb(body.p != NULL ? body.p : "", body.n, 0, &e) : NULL;
}

/* Every string in it: which of them is secret, Vault does not say. */
static void vault_wipe_json(const json_t *v)
{
	const char *key;
	json_t *item, *mine = (json_t *)(uintptr_t)v;
	size_t i;
	if (json_is_string(v)) {
		secret_wipe((void *)(uintptr_t)json_string_value(v), json_string_length(v));
	} else if (json_is_array(v)) {
		json_array_foreach(mine, i, item) vault_wipe_json(item);
	} else if (json_is_object(v)) {
		json_object_foreach(mine, key, item) vault_wipe_json(item);
	}
}

/* One line of what a server says. */
static void vault_quote(struct buf *out, str_t said, const struct secret *token)
{
	struct buf clean = BUF_INIT;
	str_t secret = secret_bytes(token);
	ptrdiff_t at;
	while ((at = str_find(said, secret)) >= 0) {
		buf_add_str(&clean, str_head(said, (size_t)at));
		buf_add_z(&clean, "***");
		said = str_skip(said, (size_t)at + secret.n);
	}
	buf_add_str(&clean, said);
	str_t text = str_head(str_trim(buf_str(&clean)), VAULT_SAID_BYTES);
	bool is_blank = false;
	for (size_t i = 0; i < text.n; i++) {
		unsigned char c = (unsigned char)text.p[i];
		if (c > ' ' && c != 0x7f)
			buf_add_c(out, (char)c);
		else if (!is_blank)
			buf_add_c(out, ' ');
		is_blank = c <= ' ' || c == 0x7f;
	}
	buf_fini(&clean);
}

static const char *vault_status_word(int status)
{
	switch (status) {
	case 400:
		return " (bad request)";
	case 403:
		return " (forbidden)";
	case 404:
		return " (no such secret)";
	case 429:
		return " (too many requests, or a standby node)";
	case 500:
		return " (internal error)";
	case 502:
		return " (bad gateway)";
	case 503:
		return " (sealed, or down for maintenance)";
	default:
		return "";
	}
}

/* An answer that is not 200. */
static void vault_fail_status(const struct fetch_response *rs, const json_t *answer,
			      const struct secret *token)
{
	struct buf said = BUF_INIT;
	const json_t *errors = json_object_get(answer, "errors");
	for (size_t i = 0; i < json_array_size(errors) && said.n < VAULT_SAID_BYTES; i++) {
		const json_t *e = json_array_get(errors, i);
		if (!json_is_string(e))
			continue;
		buf_add_z(&said, said.n == 0 ? ": " : "; ");
		vault_quote(&said, str_mk(json_string_value(e), json_string_length(e)), token);
	}
	if (rs->location != NULL) {
		buf_add_z(&said, ", a redirect to ");
		if (fetch_url_show(rs->location, &said) != 0) {
			err_clear();
			buf_add_z(&said, "somewhere else");
		}
	}
	err_set(rs->status == 404 ? ERR_NOT_FOUND : ERR_PROTO, "answered %d%s%s", rs->status,
		vault_status_word(rs->status), said.n > 0 ? said.p : "");
	buf_fini(&said);
}

static void vault_fail_field(const struct keysource *ks, const json_t *fields, const struct secret *token)
{
	struct buf has = BUF_INIT;
	const char *name;
	json_t *v, *mine = (json_t *)(uintptr_t)fields;
	json_object_foreach(mine, name, v)
	{
		if (has.n >= VAULT_SAID_BYTES) {
			buf_add_z(&has, ", ...");
			break;
		}
		buf_add_z(&has, has.n == 0 ? "`" : ", `");
		vault_quote(&has, str_of(name), token);
		buf_add_c(&has, '`');
	}
	err_set(ERR_NOT_FOUND, "the secret has no field `%s`, but %s", ks->vault_key,
		has.n > 0 ? has.p : "no fields at all");
	buf_fini(&has);
}

static struct secret *vault_take_value(const struct keysource *ks, const json_t *answer)
{
	const json_t *fields = json_object_get(json_object_get(answer, "data"), "data");
	const json_t *v = json_object_get(fields, ks->vault_key);
	if (!json_is_object(answer)) {
		err_set(ERR_PROTO, "answered 200 with something that is not JSON");
		return NULL;
	}
	if (json_is_null(fields) && fields != NULL) {
		err_set(ERR_NOT_FOUND, "the newest version of the secret has been deleted");
		return NULL;
	}
	if (!json_is_object(fields)) {
		err_set(ERR_PROTO, "answered 200 without data.data: is the mount one of KV version 2?");
		return NULL;
	}
	if (v == NULL) {
		vault_fail_field(ks, fields, ks->vault_token);
		return NULL;
	}
	if (!json_is_string(v)) {
		err_set(ERR_INVALID, "the field `%s` of the secret is not a string", ks->vault_key);
		return NULL;
	}
	return secret_new(str_mk(json_string_value(v), json_string_length(v)));
}

/* --- asking --- */

/* *ca stays NULL when the environment names none. */
static int vault_load_ca(struct secret **ca, mono_t deadline)
{
	const char *path = getenv("VAULT_CACERT");
	if (path == NULL || path[0] == 0)
		return 0;
	if (keysource_file_read(path, NULL, NULL, ca, deadline) == 0)
		return 0;
	err_wrap("$VAULT_CACERT, `%s`", path);
	return -1;
}

struct secret *keysource_vault_load(const struct keysource *ks, mono_t deadline)
{
	struct secret *value = NULL, *ca = NULL;
	struct fetch_response rs = {0};
	struct buf url = BUF_INIT;
	json_t *answer = NULL;

	if (ks->vault_address == NULL || ks->vault_token == NULL) {
		err_set(ERR_INVALID, ks->vault_address == NULL
					     ? "no vault_address is given, and VAULT_ADDR is not set"
					     : "no vault_token is given, and VAULT_TOKEN is not set");
		goto out;
	}
	if (vault_load_ca(&ca, deadline) != 0)
		goto out;
	buf_printf(&url, "%s/v1/", ks->vault_address);
	vault_add_path(&url, ks->vault_mount);
	buf_add_z(&url, "/data/");
	vault_add_path(&url, ks->vault_path);
	const struct fetch_header headers[] = {
		{.name = "X-Vault-Token", .secret = ks->vault_token},
		{.name = "X-Vault-Request", .value = "true"},
	};
	struct fetch_request rq = {
		.url = url.p,
		.header = headers,
		.n_headers = ARRAY_SIZE(headers),
		.max_body_bytes = VAULT_MAX_BYTES,
		.max_redirects = 1,
		.connect_timeout = VAULT_CONNECT_TIMEOUT,
		.ca = ca,
	};
	if (fetch_perform(&rq, &rs, deadline) != 0)
		goto out;
	answer = vault_parse(buf_str(&rs.body));
	if (rs.status == 200)
		value = vault_take_value(ks, answer);
	else
		vault_fail_status(&rs, answer, ks->vault_token);
	if (value == NULL)
		err_wrap("GET %s", url.p);
out:
	vault_wipe_json(answer);
	json_decref(answer);
	fetch_response_fini(&rs);
	secret_unref(ca);
	buf_fini(&url);
	return value;
}
