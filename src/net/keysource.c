/* keysource.c - parsing, naming, and comparing of sources; loading is dispatched from here.
 *
 * A source is parsed strictly: which of the forms it is shows from its fields, and a field of another form,
 * an unknown one or a missing one is named. Values are never in an error, since any of them may have been
 * meant as a secret.
 *
 * $VAULT_ADDR and $VAULT_TOKEN are read when a source is parsed, so that its text and id are fixed; that they
 * are missing shows when it is loaded, since a policy may be validated where there is no Vault. */
#include "net/keysource_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/text.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define KEYSOURCE_LOAD_TIMEOUT dur_s(30)
#define KEYSOURCE_MAX_ARGS 32

static const char *const keysource_fields[] = {"key_data",	"vault_mount", "vault_path", "vault_key",
					       "vault_address", "vault_token", "event_name", "event_args"};

static _Atomic(keysource_event_fn *) keysource_event_hook;

void keysource_set_event_hook(keysource_event_fn *fn)
{
	atomic_store(&keysource_event_hook, fn);
}

/* --- naming --- */

static unsigned char keysource_hash_key[32]; /* of this process */

static void keysource_make_hash_key(void)
{
	if (RAND_bytes(keysource_hash_key, sizeof(keysource_hash_key)) != 1)
		panic("no random bytes");
}

static void keysource_add_hash(struct buf *out, const struct secret *s)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	pthread_once(&once, keysource_make_hash_key);
	str_t bytes = secret_bytes(s);
	if (HMAC(EVP_sha256(), keysource_hash_key, sizeof(keysource_hash_key), (const unsigned char *)bytes.p,
		 bytes.n, md, &n) == NULL)
		panic("OpenSSL has no SHA-256");
	hex_encode(out, str_mk((const char *)md, 16));
}

static char *keysource_make_text(const struct keysource *ks)
{
	char *text = NULL;
	switch (ks->kind) {
	case KEYSOURCE_NONE:
		text = xstrdup("nothing");
		break;
	case KEYSOURCE_FILE:
		text = xasprintf("file `%s`", ks->path);
		break;
	case KEYSOURCE_DATA:
		text = xstrdup("key_data");
		break;
	case KEYSOURCE_VAULT:
		text = xasprintf("vault secret `%s/%s`, field `%s`, at %s", ks->vault_mount, ks->vault_path,
				 ks->vault_key, ks->vault_address != NULL ? ks->vault_address : "no address");
		break;
	case KEYSOURCE_EVENT:
		text = xasprintf("event `%s`", ks->event_name);
		break;
	}
	return text;
}

static char *keysource_make_id(const struct keysource *ks)
{
	struct buf id = BUF_INIT;
	buf_add_z(&id, ks->text);
	if (ks->data != NULL) {
		buf_add_c(&id, ' ');
		keysource_add_hash(&id, ks->data);
	}
	if (ks->vault_token != NULL) {
		buf_add_z(&id, ", token ");
		keysource_add_hash(&id, ks->vault_token);
	}
	if (ks->event_args != NULL) { /* anything may be in there: hashed, too */
		char *args = json_dumps(ks->event_args, JSON_COMPACT | JSON_SORT_KEYS);
		struct secret *s = secret_new(str_of(args));
		buf_add_z(&id, ", arguments ");
		keysource_add_hash(&id, s);
		secret_unref(s);
		secret_wipe(args, args != NULL ? strlen(args) : 0);
		free(args);
	}
	return buf_steal(&id, NULL);
}

const char *keysource_text(const struct keysource *ks)
{
	return ks->text != NULL ? ks->text : "nothing";
}

const char *keysource_id(const struct keysource *ks)
{
	return ks->id != NULL ? ks->id : "nothing";
}

/* --- parsing --- */

static int keysource_fail(const char *field, const char *why)
{
	err_set(ERR_INVALID, "field `%s` of a KeySource %s", field, why);
	return -1;
}

/* Absent and null are the same. */
static const json_t *keysource_field(const json_t *table, const char *field)
{
	const json_t *v = json_object_get(table, field);
	return json_is_null(v) ? NULL : v;
}

/* *out stays NULL when the field is not there. */
static int keysource_get_text(const json_t *table, const char *field, bool is_required, char **out)
{
	const json_t *v = keysource_field(table, field);
	if (v == NULL && is_required)
		err_set(ERR_INVALID, "missing field `%s` of a KeySource", field);
	if (v == NULL)
		return is_required ? -1 : 0;
	if (!json_is_string(v))
		return keysource_fail(field, "must be a string");
	str_t s = str_mk(json_string_value(v), json_string_length(v));
	if (s.n == 0)
		return keysource_fail(field, "is empty");
	if (memchr(s.p, 0, s.n) != NULL)
		return keysource_fail(field, "has a NUL in it");
	*out = str_dup(s);
	return 0;
}

static int keysource_get_secret(const json_t *table, const char *field, struct secret **out)
{
	const json_t *v = keysource_field(table, field);
	if (v == NULL)
		return 0;
	if (!json_is_string(v))
		return keysource_fail(field, "must be a string");
	*out = secret_new(str_mk(json_string_value(v), json_string_length(v)));
	return 0;
}

static int keysource_check_token(const struct secret *token)
{
	str_t s = secret_bytes(token);
	bool is_good = s.n > 0;
	for (size_t i = 0; i < s.n; i++)
		is_good &= s.p[i] > ' ' && s.p[i] < 0x7f;
	return is_good ? 0 : keysource_fail("vault_token", "is not a token");
}

/* At both ends. */
static void keysource_trim_slashes(char *z)
{
	size_t n = strlen(z), n_lead = strspn(z, "/");
	while (n > n_lead && z[n - 1] == '/')
		n--;
	memmove(z, z + n_lead, n - n_lead);
	z[n - n_lead] = 0;
}

static int keysource_parse_vault(const json_t *table, struct keysource *ks)
{
	const char *env;
	ks->kind = KEYSOURCE_VAULT;
	if (keysource_get_text(table, "vault_mount", true, &ks->vault_mount) != 0 ||
	    keysource_get_text(table, "vault_path", true, &ks->vault_path) != 0 ||
	    keysource_get_text(table, "vault_key", false, &ks->vault_key) != 0 ||
	    keysource_get_text(table, "vault_address", false, &ks->vault_address) != 0 ||
	    keysource_get_secret(table, "vault_token", &ks->vault_token) != 0)
		return -1;
	if (ks->vault_key == NULL)
		ks->vault_key = xstrdup("key");
	if (ks->vault_address == NULL && (env = getenv("VAULT_ADDR")) != NULL && env[0] != 0)
		ks->vault_address = xstrdup(env);
	if (ks->vault_token == NULL && (env = getenv("VAULT_TOKEN")) != NULL && env[0] != 0)
		ks->vault_token = secret_new(str_of(env));
	if (ks->vault_token != NULL && keysource_check_token(ks->vault_token) != 0)
		return -1;
	keysource_trim_slashes(ks->vault_mount);
	keysource_trim_slashes(ks->vault_path);
	if (keysource_vault_check_path("vault_mount", ks->vault_mount) != 0 ||
	    keysource_vault_check_path("vault_path", ks->vault_path) != 0)
		return -1;
	if (ks->vault_address == NULL)
		return 0;
	keysource_trim_slashes(ks->vault_address);
	return keysource_vault_check_address(ks->vault_address);
}

static int keysource_parse_event(const json_t *table, struct keysource *ks)
{
	const json_t *args = keysource_field(table, "event_args");
	ks->kind = KEYSOURCE_EVENT;
	if (keysource_get_text(table, "event_name", true, &ks->event_name) != 0)
		return -1;
	/* An empty table of Lua arrives as an object. */
	bool is_none = args == NULL || (json_is_object(args) && json_object_size(args) == 0);
	if (!is_none && !json_is_array(args))
		return keysource_fail("event_args", "must be a list");
	if (!is_none && json_array_size(args) > KEYSOURCE_MAX_ARGS)
		return keysource_fail("event_args", "is longer than 32 values");
	ks->event_args = is_none ? json_array() : json_deep_copy(args);
	return 0;
}

static int keysource_parse_data(const json_t *table, struct keysource *ks)
{
	ks->kind = KEYSOURCE_DATA;
	return keysource_get_secret(table, "key_data", &ks->data);
}

static int keysource_parse_file(const json_t *value, struct keysource *ks)
{
	str_t path = str_mk(json_string_value(value), json_string_length(value));
	ks->kind = KEYSOURCE_FILE;
	if (path.n == 0 || memchr(path.p, 0, path.n) != NULL) {
		err_set(ERR_INVALID, "a KeySource that is a string must be the path of a file");
		return -1;
	}
	ks->path = str_dup(path);
	return 0;
}

/* The form that a field belongs to. */
static enum keysource_kind keysource_kind_of(const char *field)
{
	return str_starts(str_of(field), STR("vault_"))	  ? KEYSOURCE_VAULT
	       : str_starts(str_of(field), STR("event_")) ? KEYSOURCE_EVENT
							  : KEYSOURCE_DATA;
}

static bool keysource_knows(const char *field)
{
	for (size_t i = 0; i < ARRAY_SIZE(keysource_fields); i++)
		if (strcmp(field, keysource_fields[i]) == 0)
			return true;
	return false;
}

static int keysource_fail_unknown(const char *field)
{
	struct buf all = BUF_INIT;
	for (size_t i = 0; i < ARRAY_SIZE(keysource_fields); i++)
		buf_printf(&all, "%s`%s`", i > 0 ? ", " : "", keysource_fields[i]);
	err_set(ERR_INVALID, "unknown field `%.100s` of a KeySource, expected one of %s", field, all.p);
	buf_fini(&all);
	return -1;
}

static int keysource_parse_table(const json_t *table, struct keysource *ks)
{
	const char *first = NULL, *field;
	json_t *v, *all = (json_t *)(uintptr_t)table;
	json_object_foreach(all, field, v)
	{
		if (!keysource_knows(field))
			return keysource_fail_unknown(field);
		if (json_is_null(v))
			continue;
		if (first != NULL && keysource_kind_of(first) != keysource_kind_of(field)) {
			err_set(ERR_INVALID,
				"the fields `%s` and `%s` of a KeySource "
				"exclude each other: it is one of a file's path, "
				"key_data, vault_... or event_...",
				first, field);
			return -1;
		}
		first = field;
	}
	if (first == NULL) {
		err_set(ERR_INVALID, "an empty table is no KeySource, expected `key_data`, `vault_mount` and "
				     "`vault_path`, or `event_name`");
		return -1;
	}
	switch (keysource_kind_of(first)) {
	case KEYSOURCE_VAULT:
		return keysource_parse_vault(table, ks);
	case KEYSOURCE_EVENT:
		return keysource_parse_event(table, ks);
	default:
		return keysource_parse_data(table, ks);
	}
}

int keysource_parse_json(const json_t *value, struct keysource *out)
{
	struct keysource ks = {0};
	int rc = -1;
	if (json_is_string(value))
		rc = keysource_parse_file(value, &ks);
	else if (json_is_object(value) || (json_is_array(value) && json_array_size(value) == 0))
		rc = keysource_parse_table(value, &ks);
	else
		err_set(ERR_INVALID, "a KeySource is the path of a file or a table");
	if (rc != 0) {
		keysource_fini(&ks);
		return -1;
	}
	ks.text = keysource_make_text(&ks);
	ks.id = keysource_make_id(&ks);
	*out = ks;
	return 0;
}

static char *keysource_dup(const char *z)
{
	return z != NULL ? xstrdup(z) : NULL;
}

void keysource_copy(struct keysource *dst, const struct keysource *src)
{
	*dst = (struct keysource){
		.kind = src->kind,
		.path = keysource_dup(src->path),
		.data = src->data != NULL ? secret_ref(src->data) : NULL,
		.vault_address = keysource_dup(src->vault_address),
		.vault_mount = keysource_dup(src->vault_mount),
		.vault_path = keysource_dup(src->vault_path),
		.vault_key = keysource_dup(src->vault_key),
		.vault_token = src->vault_token != NULL ? secret_ref(src->vault_token) : NULL,
		.event_name = keysource_dup(src->event_name),
		.event_args = src->event_args != NULL ? json_deep_copy(src->event_args) : NULL,
		.text = keysource_dup(src->text),
		.id = keysource_dup(src->id),
	};
}

void keysource_fini(struct keysource *ks)
{
	free(ks->path);
	secret_unref(ks->data);
	free(ks->vault_address);
	free(ks->vault_mount);
	free(ks->vault_path);
	free(ks->vault_key);
	secret_unref(ks->vault_token);
	free(ks->event_name);
	json_decref(ks->event_args);
	free(ks->text);
	free(ks->id);
	*ks = (struct keysource){0};
}

/* --- loading --- */

static struct secret *keysource_ask_event(const struct keysource *ks, mono_t deadline)
{
	keysource_event_fn *fn = atomic_load(&keysource_event_hook);
	if (fn != NULL)
		return fn(ks->event_name, ks->event_args, deadline);
	err_set(ERR_UNSUPPORTED, "there is no policy to handle events");
	return NULL;
}

/* before: as keysource_file_read. */
static int keysource_get(const struct keysource *ks, const struct keysource_print *before,
			 struct keysource_print *print, struct secret **out, mono_t deadline)
{
	mono_t limit = mono_min(deadline, mono_after(KEYSOURCE_LOAD_TIMEOUT));
	struct secret *s = NULL;
	int rc = 0;
	switch (ks->kind) {
	case KEYSOURCE_NONE:
		err_set(ERR_INVALID, "there is no source");
		break;
	case KEYSOURCE_FILE:
		rc = keysource_file_read(ks->path, before, print, &s, limit);
		break;
	case KEYSOURCE_DATA:
		s = secret_ref(ks->data);
		break;
	case KEYSOURCE_VAULT:
		s = keysource_vault_load(ks, limit);
		break;
	case KEYSOURCE_EVENT:
		s = keysource_ask_event(ks, deadline);
		break;
	}
	if (rc == 0 && s == NULL && ks->kind == KEYSOURCE_FILE) { /* as it was */
		*out = NULL;
		return 0;
	}
	if (s != NULL && secret_bytes(s).n > KEYSOURCE_MAX_BYTES) {
		secret_unref(s);
		s = NULL;
		err_set(ERR_LIMIT, "it is larger than %d bytes", KEYSOURCE_MAX_BYTES);
	}
	if (s == NULL) {
		err_wrap("KeySource failed to load data from %s", keysource_text(ks));
		return -1;
	}
	*out = s;
	return 0;
}

struct secret *keysource_load(const struct keysource *ks, mono_t deadline)
{
	struct secret *s = NULL;
	return keysource_get(ks, NULL, NULL, &s, deadline) == 0 ? s : NULL;
}

static void keysource_digest(const struct secret *s, unsigned char out[32])
{
	unsigned n = 0;
	str_t bytes = secret_bytes(s);
	if (EVP_Digest(bytes.p, bytes.n, out, &n, EVP_sha256(), NULL) != 1 || n != 32)
		panic("OpenSSL has no SHA-256");
}

struct secret *keysource_load_print(const struct keysource *ks, struct keysource_print *print,
				    mono_t deadline)
{
	struct keysource_print p = {0};
	struct secret *s = NULL;
	if (keysource_get(ks, NULL, &p, &s, deadline) != 0)
		return NULL;
	keysource_digest(s, p.sha256);
	p.is_known = true;
	*print = p;
	return s;
}

int keysource_has_changed(const struct keysource *ks, struct keysource_print *print, struct secret **now,
			  mono_t deadline)
{
	struct keysource_print p = {0};
	struct secret *s = NULL;
	if (keysource_get(ks, print->is_known ? print : NULL, &p, &s, deadline) != 0)
		return -1;
	if (s == NULL)
		return 0;
	keysource_digest(s, p.sha256);
	p.is_known = true;
	bool is_same = print->is_known && memcmp(p.sha256, print->sha256, sizeof(p.sha256)) == 0;
	*print = p;
	if (!is_same && now != NULL)
		*now = s;
	else
		secret_unref(s);
	return is_same ? 0 : 1;
}

/* --- as a parameter --- */

int keysource_param_parse(const json_t *value, void *field)
{
	return keysource_parse_json(value, field);
}

void keysource_param_fini(void *field)
{
	keysource_fini(field);
}

static void keysource_dump_text(json_t *table, const char *field, const char *text)
{
	if (text != NULL)
		json_object_set_new(table, field, json_string(text));
}

void keysource_param_dump(const void *field, json_t **out)
{
	const struct keysource *ks = field;
	if (ks->kind == KEYSOURCE_NONE || ks->kind == KEYSOURCE_FILE) {
		*out = ks->path != NULL ? json_string(ks->path) : json_null();
		return;
	}
	json_t *table = json_object();
	keysource_dump_text(table, "key_data", ks->data != NULL ? "***" : NULL);
	keysource_dump_text(table, "vault_address", ks->vault_address);
	keysource_dump_text(table, "vault_mount", ks->vault_mount);
	keysource_dump_text(table, "vault_path", ks->vault_path);
	keysource_dump_text(table, "vault_key", ks->vault_key);
	keysource_dump_text(table, "vault_token", ks->vault_token != NULL ? "***" : NULL);
	keysource_dump_text(table, "event_name", ks->event_name);
	if (ks->event_args != NULL)
		json_object_set_new(table, "event_args", json_deep_copy(ks->event_args));
	*out = table;
}
