/* test_record_node_id.c - where the node's id comes from. */
#include "ut.h"
#include "test_dir.h"
#include "zstd_read.h"

#include "base/err.h"
#include "base/uuid.h"
#include "record/node_id.h"

#include <fcntl.h>
#include <sys/wait.h>

#define ID "ed766af7-95dc-4d9c-b600-06599740bd13"

static char *dir, *path;

static int setup(void **state)
{
	dir = dir_make();
	path = xasprintf("%s/etc/deep/.nodeid", dir);
	unsetenv("KUMO_NODE_ID");
	setenv("KUMO_NODE_ID_PATH", path, 1);
	return 0;
}

static int teardown(void **state)
{
	dir_remove(dir);
	free(dir), free(path);
	return 0;
}

static void write_file(const char *text)
{
	char *parent = xasprintf("mkdir -p '%s/etc/deep'", dir);
	assert_int_equal(system(parent), 0);
	free(parent);
	FILE *f = fopen(path, "we");
	fputs(text, f);
	fclose(f);
}

static void the_environment_comes_first(void **state)
{
	write_file("not looked at");
	setenv("KUMO_NODE_ID", ID, 1);
	assert_int_equal(node_id_init(), 0);
	assert_string_equal(node_id(), ID);
	setenv("KUMO_NODE_ID", "nonsense", 1);
	assert_int_equal(node_id_init(), -1);
	assert_int_equal(err_kind(), ERR_INVALID);
	assert_non_null(strstr(err_text(), "KUMO_NODE_ID=nonsense"));
	err_clear();
}

static void a_file_is_made_once(void **state)
{
	char first[40];
	struct uuid id;
	assert_int_equal(node_id_init(), 0);
	snprintf(first, sizeof(first), "%s", node_id());
	assert_true(uuid_parse(str_of(first), &id));
	assert_int_equal(id.b[6] >> 4, 4);
	assert_int_equal(path_mode(path), 0644);
	assert_int_equal(node_id_init(), 0);
	assert_string_equal(node_id(), first);
	char *etc = xasprintf("%s/etc/deep", dir), *left[4];
	assert_int_equal(dir_list(etc, "", left, 4), 0); /* no temporary file stays */
	free(etc);
}

static void a_file_is_read(void **state)
{
	static const char *const good[] = {ID, ID "\n", " " ID " \r\n", "\"" ID "\"",
					   "ed766af795dc4d9cb60006599740bd13"};
	static const char *const bad[] = {"", "\n", ID "0", "xyz", ID "\n" ID};
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		write_file(good[i]);
		assert_int_equal(node_id_init(), 0);
		assert_string_equal(node_id(), ID);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		write_file(bad[i]);
		assert_int_equal(node_id_init(), -1);
		assert_int_equal(err_kind(), ERR_INVALID);
		assert_non_null(strstr(err_text(), path));
		err_clear();
	}
	unlink(path);
	mkdir(path, 0755);
	assert_int_equal(node_id_init(), -1);
	assert_int_equal(err_kind(), ERR_IO);
	err_clear();
}

static void without_a_file_it_is_the_machine_s(void **state)
{
	char first[40];
	setenv("KUMO_NODE_ID_PATH", "/proc/no/nodeid", 1);
	assert_int_equal(node_id_init(), 0);
	snprintf(first, sizeof(first), "%s", node_id());
	assert_int_equal(first[14], '8');
	assert_int_equal(node_id_init(), 0);
	assert_string_equal(node_id(), first);
}

/* Processes that start together on a fresh machine agree. */
static void racers_agree(void **state)
{
	int go[2], ids[2];
	assert_int_equal(pipe(go) | pipe(ids), 0);
	for (int i = 0; i < 8; i++) {
		if (fork() == 0) {
			char c;
			close(go[1]);
			(void)!read(go[0], &c, 1);
			_exit(node_id_init() == 0 && write(ids[1], node_id(), 36) == 36 ? 0 : 1);
		}
	}
	close(go[0]), close(go[1]), close(ids[1]);
	char first[37] = "", text[37] = "";
	for (int i = 0; i < 8; i++) {
		int status;
		assert_true(wait(&status) > 0 && status == 0);
		assert_int_equal(read(ids[0], text, 36), 36);
		if (i == 0)
			memcpy(first, text, 37);
		assert_string_equal(text, first);
	}
	close(ids[0]);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(the_environment_comes_first),	       T(a_file_is_made_once), T(a_file_is_read),
		T(without_a_file_it_is_the_machine_s), T(racers_agree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
