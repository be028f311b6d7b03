/* path.c - file system helpers. */
#include "base/path.h"

#include "base/alloc.h"
#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/** The entry of `path` in its parent. */
static int path_sync_parent(const char *path)
{
	char *copy = xstrdup(path), *slash = strrchr(copy, '/');
	if (slash != NULL)
		slash[slash == copy] = 0;
	int fd = open(slash != NULL ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	    rc = fd >= 0 ? fsync(fd) : -1;
	if (rc != 0 && errno == EACCES) /* may be written but not read: it cannot be synced */
		rc = 0;
	if (rc != 0)
		err_set_sys(errno, "syncing the parent of %s", path);
	if (fd >= 0)
		close(fd);
	free(copy);
	return rc;
}

static int path_make_dir(const char *path, mode_t mode)
{
	struct stat st;
	if (mkdir(path, mode) == 0)
		return path_sync_parent(path);
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
