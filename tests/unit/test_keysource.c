/* KeySource: every form, every mistake, names without secrets, files and their changes. */
#include "base/alloc.h"
#include "net/keysource.h"
#include "ut.h"

#include "base/err.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/cirrus-keysource-XXXXXX";
static char *path;

static int setup(void **state)
{
	unsetenv("VAULT_ADDR");
	unsetenv("VAULT_TOKEN");
	if (mkdtemp(dir) == NULL)
		return -1;
	path = xasprintf("%s/key", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	rmdir(dir);
	free(path);
	return 0;
}

static json_t *json_of(const char *text)
{
	json_error_t e;
	json_t *v = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
	if (v == NULL)
		fail_msg("%s: %s", text, e.text);
	return v;
}

static struct keysource source_of(const char *text)
{
	struct keysource ks;
	json_t *v = json_of(text);
	if (keysource_parse_json(v, &ks) != 0)
		fail_msg("%s: %s", text, err_text());
	json_decref(v);
	return ks;
}

static void test_forms(void **state)
{
	struct keysource ks = source_of("\"/etc/key.pem\"");
	assert_int_equal(ks.kind, KEYSOURCE_FILE);
	assert_string_equal(ks.path, "/etc/key.pem");
	assert_string_equal(keysource_text(&ks), "file `/etc/key.pem`");
	keysource_fini(&ks);
	assert_int_equal(ks.kind, KEYSOURCE_NONE);

	ks = source_of("{\"key_data\": \"hush\", \"vault_path\": null}");
	assert_int_equal(ks.kind, KEYSOURCE_DATA);
	assert_true(secret_eq(ks.data, STR("hush")));
	assert_string_equal(keysource_text(&ks), "key_data");
	keysource_fini(&ks);

	ks = source_of("{\"vault_mount\": \"/secret/\", \"vault_path\": \"/tls/a b/\"}");
	assert_int_equal(ks.kind, KEYSOURCE_VAULT);
	assert_string_equal(ks.vault_mount, "secret");
	assert_string_equal(ks.vault_path, "tls/a b");
	assert_string_equal(ks.vault_key, "key");
	assert_null(ks.vault_address);
	assert_null(ks.vault_token);
	assert_string_equal(keysource_text(&ks), "vault secret `secret/tls/a b`, field `key`, at no address");
	keysource_fini(&ks);

	ks = source_of(
		"{\"vault_mount\": \"m\", \"vault_path\": \"p\", \"vault_key\": \"crt\", \"vault_address\": "
		"\"https://vault.example.com:8200/base/\", \"vault_token\": \"hvs.hush\"}");
	assert_string_equal(ks.vault_address, "https://vault.example.com:8200/base");
	assert_true(secret_eq(ks.vault_token, STR("hvs.hush")));
	assert_string_equal(keysource_text(&ks),
			    "vault secret `m/p`, field `crt`, at https://vault.example.com:8200/base");
	keysource_fini(&ks);

	ks = source_of("{\"event_name\": \"get_key\", \"event_args\": [1, \"two\", {\"three\": 3}]}");
	assert_int_equal(ks.kind, KEYSOURCE_EVENT);
	assert_int_equal(json_array_size(ks.event_args), 3);
	assert_string_equal(keysource_text(&ks), "event `get_key`");
	keysource_fini(&ks);
	ks = source_of("{\"event_name\": \"get_key\", \"event_args\": {}}"); /* an empty table of Lua */
	assert_int_equal(json_array_size(ks.event_args), 0);
	keysource_fini(&ks);
	ks = source_of("{\"event_name\": \"get_key\"}");
	assert_int_equal(json_array_size(ks.event_args), 0);
	keysource_fini(&ks);
}

static void test_environment(void **state)
{
	setenv("VAULT_ADDR", "http://127.0.0.1:8200/", 1);
	setenv("VAULT_TOKEN", "hvs.env", 1);
	struct keysource ks = source_of("{\"vault_mount\": \"m\", \"vault_path\": \"p\"}");
	assert_string_equal(ks.vault_address, "http://127.0.0.1:8200");
	assert_true(secret_eq(ks.vault_token, STR("hvs.env")));
	keysource_fini(&ks);
	ks = source_of(
		"{\"vault_mount\": \"m\", \"vault_path\": \"p\", \"vault_address\": \"http://other:1\", "
		"\"vault_token\": \"hvs.mine\"}");
	assert_string_equal(ks.vault_address, "http://other:1");
	assert_true(secret_eq(ks.vault_token, STR("hvs.mine")));
	keysource_fini(&ks);
	unsetenv("VAULT_ADDR");
	unsetenv("VAULT_TOKEN");
}

#define VAULT "\"vault_mount\": \"m\", \"vault_path\": \"p\", "

static void test_mistakes(void **state)
{
	static const struct {
		const char *given, *why;
	} cases[] = {
		{"\"\"", "a KeySource that is a string must be the path of a file"},
		{"\"a\\u0000hush\"", "a KeySource that is a string must be the path of a file"},
		{"7", "a KeySource is the path of a file or a table"},
		{"true", "a KeySource is the path of a file or a table"},
		{"null", "a KeySource is the path of a file or a table"},
		{"[\"hush\"]", "a KeySource is the path of a file or a table"},
		{"[]", "an empty table is no KeySource, expected `key_data`, "
		       "`vault_mount` and `vault_path`, or `event_name`"},
		{"{}", "an empty table is no KeySource, expected `key_data`, "
		       "`vault_mount` and `vault_path`, or `event_name`"},
		{"{\"key_data\": null}", "an empty table is no KeySource, expected `key_data`, `vault_mount` "
					 "and `vault_path`, or `event_name`"},
		{"{\"keydata\": \"hush\"}", "unknown field `keydata` of a KeySource, expected one of "
					    "`key_data`, `vault_mount`, `vault_path`, `vault_key`, "
					    "`vault_address`, `vault_token`, `event_name`, `event_args`"},
		{"{\"key_data\": 7}", "field `key_data` of a KeySource must be a string"},
		{"{\"key_data\": {\"key_data\": \"hush\"}}",
		 "field `key_data` of a KeySource must be a string"},
		{"{\"key_data\": \"hush\", \"vault_path\": \"p\"}",
		 "the fields `key_data` and `vault_path` of a "
		 "KeySource exclude each other: it is one of a "
		 "file's path, key_data, vault_... or event_..."},
		{"{\"vault_mount\": \"m\", \"event_name\": \"e\"}",
		 "the fields `vault_mount` and `event_name` of "
		 "a KeySource exclude each other: it is one of "
		 "a file's path, key_data, vault_... or event_..."},
		{"{\"vault_path\": \"p\"}", "missing field `vault_mount` of a KeySource"},
		{"{\"vault_mount\": \"m\"}", "missing field `vault_path` of a KeySource"},
		{"{\"vault_token\": \"hush\"}", "missing field `vault_mount` of a KeySource"},
		{"{\"vault_mount\": \"\", \"vault_path\": \"p\"}",
		 "field `vault_mount` of a KeySource is empty"},
		{"{\"vault_mount\": \"/\", \"vault_path\": \"p\"}",
		 "field `vault_mount` of a KeySource is not a path of Vault"},
		{"{\"vault_mount\": \"m\", \"vault_path\": \"../sys/x\"}",
		 "field `vault_path` of a KeySource is not a path of Vault"},
		{"{\"vault_mount\": \"m\", \"vault_path\": \"a//b\"}",
		 "field `vault_path` of a KeySource is not a path of Vault"},
		{"{\"vault_mount\": \"m\", \"vault_path\": \"a/./b\"}",
		 "field `vault_path` of a KeySource is not a path of Vault"},
		{"{\"vault_mount\": \"m\", \"vault_path\": \"a\\nb\"}",
		 "field `vault_path` of a KeySource is not a path of Vault"},
		{"{\"vault_mount\": 1, \"vault_path\": \"p\"}",
		 "field `vault_mount` of a KeySource must be a string"},
		{"{" VAULT "\"vault_key\": \"a\\u0000b\"}",
		 "field `vault_key` of a KeySource has a NUL in it"},
		{"{" VAULT "\"vault_address\": \"vault.example.com\"}",
		 "the address of a Vault must be http://HOST:PORT or https://HOST:PORT"},
		{"{" VAULT "\"vault_address\": \"ftp://vault\"}",
		 "the address of a Vault must be http://HOST:PORT or https://HOST:PORT"},
		{"{" VAULT "\"vault_address\": \"http://user:hush@vault\"}",
		 "the address of a Vault must be http://HOST:PORT or https://HOST:PORT"},
		{"{" VAULT "\"vault_token\": \"hush hush\"}",
		 "field `vault_token` of a KeySource is not a token"},
		{"{" VAULT "\"vault_token\": \"hush\\r\\nX: y\"}",
		 "field `vault_token` of a KeySource is not a token"},
		{"{" VAULT "\"vault_token\": \"\"}", "field `vault_token` of a KeySource is not a token"},
		{"{" VAULT "\"vault_token\": [\"hush\"]}",
		 "field `vault_token` of a KeySource must be a string"},
		{"{\"event_args\": []}", "missing field `event_name` of a KeySource"},
		{"{\"event_name\": \"e\", \"event_args\": \"hush\"}",
		 "field `event_args` of a KeySource must be a list"},
		{"{\"event_name\": \"e\", \"event_args\": {\"a\": 1}}",
		 "field `event_args` of a KeySource must be a list"},
		{"{\"event_name\": \"e\", \"event_args\": "
		 "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,"
		 "29,30,31,32,33]}",
		 "field `event_args` of a KeySource is longer than 32 values"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct keysource ks;
		json_t *v = json_of(cases[i].given);
		memset(&ks, 0x55, sizeof(ks));
		assert_int_equal(keysource_parse_json(v, &ks), -1);
		assert_true(err_is(ERR_INVALID));
		assert_string_equal(err_text(), cases[i].why);
		assert_null(strstr(err_text(), "hush"));
		assert_int_equal(*(unsigned char *)&ks, 0x55); /* untouched */
		err_clear();
		json_decref(v);
	}
	setenv("VAULT_TOKEN", "two words", 1);
	struct keysource ks;
	json_t *v = json_of("{\"vault_mount\": \"m\", \"vault_path\": \"p\"}");
	assert_int_equal(keysource_parse_json(v, &ks), -1);
	err_clear();
	json_decref(v);
	unsetenv("VAULT_TOKEN");
}

/* Equal sources have equal ids, others have others, and nothing secret is in text, id or dump. */
static void test_ids(void **state)
{
	static const char *const all[] = {
		"\"/a\"",
		"\"/b\"",
		"{\"key_data\": \"hush\"}",
		"{\"key_data\": \"hush2\"}",
		"{" VAULT "\"vault_token\": \"hush\"}",
		"{" VAULT "\"vault_token\": \"hush2\"}",
		"{" VAULT "\"vault_token\": \"hush\", \"vault_key\": \"other\"}",
		"{" VAULT "\"vault_token\": \"hush\", \"vault_address\": \"http://v:1\"}",
		"{\"event_name\": \"e\", \"event_args\": [\"hush\"]}",
		"{\"event_name\": \"e\", \"event_args\": [\"hush\", {\"a\": 1, \"b\": 2}]}",
		"{\"event_name\": \"e\"}",
	};
	struct keysource ks[ARRAY_SIZE(all)], again;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		ks[i] = source_of(all[i]);
		again = source_of(all[i]);
		assert_string_equal(keysource_id(&ks[i]), keysource_id(&again));
		keysource_fini(&again);
		keysource_copy(&again, &ks[i]);
		assert_string_equal(keysource_id(&ks[i]), keysource_id(&again));
		assert_string_equal(keysource_text(&ks[i]), keysource_text(&again));
		assert_int_equal(again.kind, ks[i].kind);
		keysource_fini(&again);
		assert_null(strstr(keysource_id(&ks[i]), "hush"));
		assert_null(strstr(keysource_text(&ks[i]), "hush"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(keysource_id(&ks[i]), keysource_id(&ks[k]));
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		keysource_fini(&ks[i]);
	assert_string_equal(keysource_text(&ks[0]), "nothing");
	assert_string_equal(keysource_id(&ks[0]), "nothing");
}

static void test_param(void **state)
{
	static const struct {
		const char *given, *dumped;
	} cases[] = {
		{"\"/a\"", "\"/a\""},
		{"{\"key_data\": \"hush\"}", "{\"key_data\":\"***\"}"},
		{"{" VAULT "\"vault_token\": \"hush\"}", "{\"vault_key\":\"key\",\"vault_mount\":\"m\","
							 "\"vault_path\":\"p\",\"vault_token\":\"***\"}"},
		{"{\"event_name\": \"e\", \"event_args\": [1]}", "{\"event_args\":[1],\"event_name\":\"e\"}"},
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct keysource ks = {0};
		json_t *v = json_of(cases[i].given), *out = NULL;
		assert_int_equal(keysource_param_parse(v, &ks), 0);
		keysource_param_dump(&ks, &out);
		char *text = json_dumps(out, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
		assert_string_equal(text, cases[i].dumped);
		free(text);
		json_decref(out);
		json_decref(v);
		keysource_param_fini(&ks);
	}
	struct keysource none = {0};
	json_t *out = NULL;
	keysource_param_dump(&none, &out);
	assert_true(json_is_null(out));
	keysource_param_fini(&none);
}

/* --- loading --- */

static void write_key(const char *text)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void set_age(long s)
{
	struct timespec now, t[2];
	clock_gettime(CLOCK_REALTIME, &now);
	t[0] = t[1] = (struct timespec){.tv_sec = now.tv_sec - s};
	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

static struct keysource file_source(const char *file)
{
	json_t *v = json_string(file);
	struct keysource ks;
	assert_int_equal(keysource_parse_json(v, &ks), 0);
	json_decref(v);
	return ks;
}

static void check_load_fails(const char *file, enum err_kind kind, const char *why)
{
	struct keysource ks = file_source(file);
	assert_null(keysource_load(&ks, MONO_NEVER));
	assert_int_equal(err_kind(), kind);
	char *text = xasprintf("KeySource failed to load data from file `%s`: %s", file, why);
	assert_string_equal(err_text(), text);
	free(text);
	err_clear();
	keysource_fini(&ks);
}

static void test_load(void **state)
{
	struct keysource ks = source_of("{\"key_data\": \"hush\"}");
	struct secret *s = keysource_load(&ks, MONO_NEVER);
	assert_true(s != NULL && secret_eq(s, STR("hush")));
	secret_unref(s);
	keysource_fini(&ks);

	write_key("a\nkey\n");
	ks = file_source(path);
	s = keysource_load(&ks, MONO_NEVER);
	assert_true(s != NULL && secret_eq(s, STR("a\nkey\n")));
	secret_unref(s);
	write_key("");
	s = keysource_load(&ks, MONO_NEVER);
	assert_true(s != NULL && secret_bytes(s).n == 0);
	secret_unref(s);
	assert_int_equal(truncate(path, KEYSOURCE_MAX_BYTES), 0);
	s = keysource_load(&ks, MONO_NEVER);
	assert_true(s != NULL && secret_bytes(s).n == KEYSOURCE_MAX_BYTES);
	secret_unref(s);
	assert_int_equal(truncate(path, KEYSOURCE_MAX_BYTES + 1), 0);
	check_load_fails(path, ERR_LIMIT, "it is larger than 1048576 bytes");
	keysource_fini(&ks);

	check_load_fails("/nonexistent.key", ERR_NOT_FOUND, "No such file or directory");
	check_load_fails(dir, ERR_IO, "Is a directory");
	check_load_fails("/dev/zero", ERR_INVALID, "it is not a regular file");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	check_load_fails(path, ERR_INVALID, "it is not a regular file"); /* and does not wait for a writer */
	unlink(path);

	ks = source_of("{\"event_name\": \"e\"}");
	assert_null(keysource_load(&ks, MONO_NEVER));
	assert_string_equal(
		err_text(),
		"KeySource failed to load data from event `e`: there is no policy to handle events");
	err_clear();
	keysource_fini(&ks);
	ks = source_of("{\"vault_mount\": \"m\", \"vault_path\": \"p\"}");
	assert_null(keysource_load(&ks, MONO_NEVER));
	assert_non_null(strstr(err_text(), "no vault_address is given, and VAULT_ADDR is not set"));
	keysource_fini(&ks);
	ks = source_of("{" VAULT "\"vault_address\": \"http://127.0.0.1:1\"}");
	assert_null(keysource_load(&ks, MONO_NEVER));
	assert_non_null(strstr(err_text(), "no vault_token is given, and VAULT_TOKEN is not set"));
	keysource_fini(&ks);
	assert_null(keysource_load(&ks, MONO_NEVER)); /* of none */
	err_clear();
}

static void check_change(const struct keysource *ks, struct keysource_print *print, int expected,
			 const char *content)
{
	struct secret *now = NULL;
	assert_int_equal(keysource_has_changed(ks, print, &now, MONO_NEVER), expected);
	assert_true((now != NULL) == (expected == 1));
	if (now != NULL)
		assert_true(secret_eq(now, str_of(content)));
	secret_unref(now);
}

static void test_changes(void **state)
{
	struct keysource_print print = {0};
	struct keysource ks = file_source(path);
	write_key("one");
	struct secret *s = keysource_load_print(&ks, &print, MONO_NEVER);
	assert_true(s != NULL && print.is_known && !print.is_settled);
	secret_unref(s);
	check_change(&ks, &print, 0, NULL);
	write_key("two"); /* the same size, perhaps the same stamp: it is young, so it is read */
	check_change(&ks, &print, 1, "two");
	check_change(&ks, &print, 0, NULL);
	write_key("two"); /* another file, the same content */
	check_change(&ks, &print, 0, NULL);

	/* A file that has settled is not read again: what is written behind its stamp goes unseen. The time
	 * of its last change cannot be set, so the print is made to look like an old file's. */
	print.is_settled = true;
	check_change(&ks, &print, 0, NULL);
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	close(fd);
	print.sha256[0] ^= 1; /* would be a change, if it were read */
	check_change(&ks, &print, 0, NULL);
	set_age(1000); /* another stamp */
	check_change(&ks, &print, 1, "two");

	/* Errors leave the print alone. */
	struct keysource_print before = print;
	unlink(path);
	assert_int_equal(keysource_has_changed(&ks, &print, NULL, MONO_NEVER), -1);
	assert_true(err_is(ERR_NOT_FOUND));
	err_clear();
	assert_memory_equal(&before, &print, sizeof(print));
	write_key("three");
	assert_int_equal(keysource_has_changed(&ks, &print, NULL, MONO_NEVER), 1);
	check_change(&ks, &print, 0, NULL);
	print = (struct keysource_print){0}; /* never seen: that is a change */
	check_change(&ks, &print, 1, "three");
	keysource_fini(&ks);

	ks = source_of("{\"key_data\": \"hush\"}");
	print = (struct keysource_print){0};
	check_change(&ks, &print, 1, "hush");
	check_change(&ks, &print, 0, NULL);
	keysource_fini(&ks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),	 cmocka_unit_test(test_environment),
		cmocka_unit_test(test_mistakes), cmocka_unit_test(test_ids),
		cmocka_unit_test(test_param),	 cmocka_unit_test(test_load),
		cmocka_unit_test(test_changes),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
