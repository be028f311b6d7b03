/* test_glob.c - patterns to files: wildcards, directories at any depth, braces, links and loops. Each test
 * has a tree of its own. */
#include "ut.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/path.h"
#include "policy/glob.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char glob_root[] = "/tmp/cirrus-glob-XXXXXX";

static void glob_make(const char *name)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", glob_root, name);
	char *slash = strrchr(path, '/');
	*slash = 0;
	assert_int_equal(path_make_dirs(path, 0700), 0);
	*slash = '/';
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static int glob_setup(void **state)
{
	static const char *const files[] = {"a.lua",	      "b.toml",	    "c.txt",
					    ".hidden.lua",    "sub/d.lua",  "sub/e.yaml",
					    "sub/deep/f.lua", ".dir/g.lua", "sub/x[1].lua"};
	if (mkdtemp(glob_root) == NULL)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		glob_make(files[i]);
	char from[512], to[512];
	snprintf(from, sizeof(from), "%s/sub/loop", glob_root);
	snprintf(to, sizeof(to), "%s/linked", glob_root);
	return symlink("..", from) != 0 || symlink("sub/deep", to) != 0 ? -1 : 0;
}

static int glob_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

static int glob_teardown(void **state)
{
	return nftw(glob_root, glob_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* The names below the root that `pattern`, which is below it too, finds; joined by blanks. */
static void glob_expect(const char *pattern, const char *wanted)
{
	struct glob_files f;
	struct buf b = BUF_INIT;
	char *whole = xasprintf("%s/%s", glob_root, pattern);
	const char *list[] = {whole};
	assert_int_equal(glob_find(list, 1, &f), 0);
	for (size_t i = 0; i < f.n; i++)
		buf_printf(&b, "%s%s", i != 0 ? " " : "", f.v[i] + strlen(glob_root) + 1);
	assert_string_equal(b.n != 0 ? b.p : "", wanted);
	glob_files_fini(&f);
	buf_fini(&b);
	free(whole);
}

static void glob_expect_error(enum err_kind kind, const char *text)
{
	struct err e = err_take();
	assert_int_equal(e.kind, kind);
	assert_string_equal(e.text, text);
	err_fini(&e);
}

static void glob_wildcards(void **state)
{
	glob_expect("a.lua", "a.lua");
	glob_expect("nothing.lua", "");
	glob_expect("*.lua", "a.lua");
	glob_expect("?.*", "a.lua b.toml c.txt");
	glob_expect("[ab].*", "a.lua b.toml");
	glob_expect(".*.lua", ".hidden.lua");
	glob_expect("sub", ""); /* a directory is no file */
	glob_expect("sub/*.lua", "sub/d.lua sub/x[1].lua");
	glob_expect("*/d.lua", "sub/d.lua");
	glob_expect("sub/x\\[1\\].lua", "sub/x[1].lua");
}

static void glob_any_depth(void **state)
{
	/* `loop` leads back to the root: what it leads to is found once, by the ways that do not go in
	 * circles. */
	glob_expect("linked/**/*.lua", "linked/f.lua");
	glob_expect("sub/deep/**/*.lua", "sub/deep/f.lua");
	glob_expect("sub/deep/**", "sub/deep/f.lua");
	glob_expect("**/e.yaml", "sub/e.yaml");
	glob_expect("**/g.lua", "");
	glob_expect("**/b.toml", "b.toml");
	glob_expect("**/nothing", "");
}

static void glob_braces(void **state)
{
	glob_expect("{a,b}.{lua,toml}", "a.lua b.toml");
	glob_expect("{a.lua,sub/{d,deep/f}.lua}", "a.lua sub/d.lua sub/deep/f.lua");
	glob_expect("{a,a,a}.lua", "a.lua");
	glob_expect("{}a.lua", "a.lua");
	glob_expect("a.lua}", "");
}

static void glob_several(void **state)
{
	char *one = xasprintf("%s/*.lua", glob_root), *two = xasprintf("%s/a.*", glob_root);
	const char *list[] = {one, two, one};
	struct glob_files f;
	assert_int_equal(glob_find(list, ARRAY_SIZE(list), &f), 0);
	assert_int_equal(f.n, 1);
	glob_files_add(&f, two);
	glob_files_add(&f, two);
	assert_int_equal(f.n, 2);
	assert_true(strcmp(f.v[0], f.v[1]) < 0);
	glob_files_fini(&f);
	assert_int_equal(glob_find(NULL, 0, &f), 0);
	assert_int_equal(f.n, 0);
	glob_files_fini(&f);
	free(one);
	free(two);
}

static void glob_refuses(void **state)
{
	struct glob_files f;
	const char *list[] = {"/tmp/{a,b"};
	assert_int_equal(glob_check("x/{a,{b}"), -1);
	glob_expect_error(ERR_INVALID, "a { is not closed");
	assert_int_equal(glob_find(list, 1, &f), -1);
	glob_expect_error(ERR_INVALID, "/tmp/{a,b: a { is not closed");
	assert_int_equal(glob_check("{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}{1,2}"), -1);
	glob_expect_error(ERR_INVALID, "more than 1024 alternatives");
	assert_int_equal(glob_check("/opt/**/*.{lua,json,toml,yaml}"), 0);
	struct buf deep = BUF_INIT;
	for (int i = 0; i < 100; i++)
		buf_add_z(&deep, "x/");
	list[0] = deep.p;
	assert_int_equal(glob_find(list, 1, &f), -1);
	glob_expect_error(ERR_LIMIT, "a pattern has more than 64 components");
	buf_fini(&deep);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(glob_wildcards), cmocka_unit_test(glob_any_depth),
		cmocka_unit_test(glob_braces),	  cmocka_unit_test(glob_several),
		cmocka_unit_test(glob_refuses),
	};
	return cmocka_run_group_tests(tests, glob_setup, glob_teardown);
}
