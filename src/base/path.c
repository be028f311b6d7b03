/* path.c - file system helpers. */
#include "base/path.h"

#include "base/alloc.h"
#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static int path_make_dir(const char *path, mode_t mode)
{
	struct stat st;
	if (mkdir(path, mode) == 0)
		return 0;
	int e = errno; /* EROFS, EACCES and the like come before EEXIST: look whether it is there */
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	err_set_sys(e == EEXIST ? ENOTDIR : e, "making the directory %s", path);
	return -1;
}

int path_make_dirs(const char *path, mode_t mode)
{
	char *copy = xstrdup(path);
	int rc = 0;
	for (char *p = copy + 1; rc == 0 && *copy != 0 && *p != 0; p++) {
		if (*p != '/' || p[-1] == '/')
			continue;
		*p = 0;
		rc = path_make_dir(copy, mode);
		*p = '/';
	}
	if (rc == 0)
		rc = path_make_dir(copy, mode);
	free(copy);
	return rc;
}
