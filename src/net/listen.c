/* listen.c - listening on a path and on a descriptor that systemd has handed down.
 *
 * A path may hold the socket of a daemon that was killed. It is unlinked only if it is a socket and a
 * connection to it is refused: then nobody listens on it. The permissions are set between bind and listen,
 * when nobody can connect yet; the umask is the whole process's and is left alone. At the end the path is
 * unlinked only if it still is the socket that was bound here, not one that a successor has put there.
 *
 * systemd hands down descriptors from 3 on; their names, set by FileDescriptorName= or else those of the
 * socket units, are in LISTEN_FDNAMES, parted by colons. A descriptor is given away once. */
#include "net/listen.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	LISTEN_FIRST_FD = 3,
	LISTEN_MAX_FDS = 64,
};

/* --- in the file system --- */

static int listen_unix_fail(int fd, const char *path, int sys_errno)
{
	err_set_sys(sys_errno, "listening on unix:%s", path);
	if (fd >= 0)
		close(fd);
	return -1;
}

static int listen_unix_addr(const char *path, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	size_t n = strlen(path);
	if (n == 0 || n >= sizeof(a->sun_path)) {
		err_set(ERR_INVALID, "unix:%s: the path of a socket has 1 to %zu bytes", path,
			sizeof(a->sun_path) - 1);
		return -1;
	}
	memcpy(a->sun_path, path, n + 1);
	return 0;
}

/* Removes a socket that nobody listens on. -1: there is something else. */
static int listen_unix_clear(const char *path, const struct sockaddr_un *a)
{
	struct stat st;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : listen_unix_fail(-1, path, errno);
	if (!S_ISSOCK(st.st_mode)) {
		err_set(ERR_EXISTS, "listening on unix:%s: there is a file that is no socket", path);
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return listen_unix_fail(-1, path, errno);
	int rc = connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 ? 0 : errno;
	close(fd);
	if (rc != ECONNREFUSED)
		return rc == 0 || rc == EAGAIN ? listen_unix_fail(-1, path, EADDRINUSE)
					       : listen_unix_fail(-1, path, rc);
	if (unlink(path) != 0 && errno != ENOENT)
		return listen_unix_fail(-1, path, errno);
	return 0;
}

int listen_unix_bind(const char *path, unsigned mode, int backlog, struct listen_unix *out)
{
	struct sockaddr_un a;
	struct stat st;
	if (listen_unix_addr(path, &a) != 0 || listen_unix_clear(path, &a) != 0)
		return -1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return listen_unix_fail(-1, path, errno);
	if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) != 0)
		return listen_unix_fail(fd, path, errno);
	if (chmod(path, mode) != 0 || lstat(path, &st) != 0 || listen(fd, backlog) != 0) {
		int e = errno;
		unlink(path);
		return listen_unix_fail(fd, path, e);
	}
	*out = (struct listen_unix){.path = xstrdup(path), .dev = st.st_dev, .ino = st.st_ino};
	return fd;
}

void listen_unix_remove(struct listen_unix *u)
{
	struct stat st;
	if (u->path == NULL)
		return;
	if (lstat(u->path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == u->dev && st.st_ino == u->ino)
		unlink(u->path); /* without the right to do so it stays, and is found dead next time */
	free(u->path);
	*u = (struct listen_unix){0};
}

/* --- handed down --- */

static bool listen_is_taken[LISTEN_MAX_FDS];

/* How many there are for this process. */
static size_t listen_n_inherited(void)
{
	uint64_t pid, n;
	if (!str_to_u64(str_of(getenv("LISTEN_PID")), &pid) || pid != (uint64_t)getpid())
		return 0;
	if (!str_to_u64(str_of(getenv("LISTEN_FDS")), &n))
		return 0;
	return n < LISTEN_MAX_FDS ? (size_t)n : LISTEN_MAX_FDS;
}

/* The name of the i-th; those without one are called `unknown`, as sd_listen_fds_with_names(3) does. */
static str_t listen_inherited_name(size_t i)
{
	str_t rest = str_of(getenv("LISTEN_FDNAMES")), name = STR_NULL;
	for (size_t k = 0; k <= i; k++) {
		if (!str_split(&rest, ':', &name))
			return STR("unknown");
	}
	return name.n != 0 ? name : STR("unknown");
}

static void listen_fail_unknown(const char *fd_name, size_t n)
{
	struct buf names = BUF_INIT;
	for (size_t i = 0; i < n; i++)
		buf_printf(&names, "%s`" STR_FMT "`%s", i != 0 ? ", " : "", STR_ARG(listen_inherited_name(i)),
			   listen_is_taken[i] ? " (in use)" : "");
	if (n == 0)
		err_set(ERR_NOT_FOUND,
			"listening on fd:%s: no descriptors were "
			"handed to this process (LISTEN_PID, LISTEN_FDS)",
			fd_name);
	else
		err_set(ERR_NOT_FOUND, "listening on fd:%s: the descriptors handed to this process are %s",
			fd_name, names.p);
	buf_fini(&names);
}

static int listen_check_inherited(int fd, const char *fd_name)
{
	int type = 0, is_listening = 0;
	socklen_t n = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) != 0) {
		err_set_sys(errno, "listening on fd:%s", fd_name);
		return -1;
	}
	n = sizeof(is_listening);
	if (type != SOCK_STREAM || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &n) != 0 ||
	    !is_listening) {
		err_set(ERR_INVALID, "listening on fd:%s: it is no listening stream socket", fd_name);
		return -1;
	}
	return 0;
}

int listen_inherit(const char *fd_name, int backlog)
{
	size_t n = listen_n_inherited(), i = 0;
	while (i < n && (listen_is_taken[i] || !str_eq(listen_inherited_name(i), str_of(fd_name))))
		i++;
	if (i == n) {
		listen_fail_unknown(fd_name, n);
		return -1;
	}
	int fd = LISTEN_FIRST_FD + (int)i;
	if (listen_check_inherited(fd, fd_name) != 0)
		return -1;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
	    listen(fd, backlog) != 0) {
		err_set_sys(errno, "listening on fd:%s", fd_name);
		return -1;
	}
	listen_is_taken[i] = true;
	return fd;
}
