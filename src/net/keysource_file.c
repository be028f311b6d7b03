/* keysource_file.c - reading a whole file on an offload thread, and the stamp that tells that it need not be
 * read again.
 *
 * A stamp (device, inode, size, mtime, ctime) that is equal means an equal content only when the file had
 * been left alone for a while at the time it was read: two writes within the grain of the file system's clock
 * get the same times. A younger file is read again until it has settled. */
#include "net/keysource_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/offload.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_SETTLE_NS (2 * NS_PER_S)

struct file_read {
	const char *path;
	const struct keysource_print *before;
	struct keysource_print print;
	struct secret *out;
};

static int64_t file_ns(struct timespec t)
{
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void file_stamp(const struct stat *st, struct keysource_print *p)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now); /* the file system's times are not virtual */
	p->dev = st->st_dev;
	p->ino = st->st_ino;
	p->n_bytes = (uint64_t)st->st_size;
	p->mtime_ns = file_ns(st->st_mtim);
	p->ctime_ns = file_ns(st->st_ctim);
	int64_t youngest = p->mtime_ns > p->ctime_ns ? p->mtime_ns : p->ctime_ns;
	p->is_settled = file_ns(now) - youngest > FILE_SETTLE_NS;
}

static bool file_has_stamp(const struct keysource_print *a, const struct keysource_print *b)
{
	return a->is_settled && a->dev == b->dev && a->ino == b->ino && a->n_bytes == b->n_bytes &&
	       a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

static int file_fail(int sys_errno)
{
	char small[128];
	err_set_at(__FILE__, __LINE__, sys_errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, 0, "%s",
		   strerror_r(sys_errno, small, sizeof(small)));
	return -1;
}

static int file_read_all(int fd, struct buf *out)
{
	char piece[4096];
	ssize_t n;
	int rc = 0;
	while (rc == 0 && (n = read(fd, piece, sizeof(piece))) != 0) {
		if (n > 0)
			secret_buf_add(out, str_mk(piece, (size_t)n));
		else if (errno != EINTR)
			rc = file_fail(errno);
		if (out->n > KEYSOURCE_MAX_BYTES) {
			err_set(ERR_LIMIT, "it is larger than %d bytes", KEYSOURCE_MAX_BYTES);
			rc = -1;
		}
	}
	secret_wipe(piece, sizeof(piece));
	return rc;
}

static int file_read_run(void *arg)
{
	struct file_read *r = arg;
	struct buf all = BUF_INIT;
	struct stat st;
	int rc = -1;
	/* Non-blocking: opening a pipe would wait for a writer. */
	int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return file_fail(errno);
	if (fstat(fd, &st) != 0) {
		file_fail(errno);
		goto out;
	}
	if (S_ISDIR(st.st_mode)) {
		file_fail(EISDIR);
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		err_set(ERR_INVALID, "it is not a regular file");
		goto out;
	}
	file_stamp(&st, &r->print);
	if (r->before != NULL && file_has_stamp(r->before, &r->print)) {
		rc = 0;
		goto out;
	}
	if (file_read_all(fd, &all) != 0)
		goto out;
	r->out = secret_from_buf(&all);
	rc = 0;
out:
	secret_buf_fini(&all);
	close(fd);
	return rc;
}

int keysource_file_read(const char *path, const struct keysource_print *before, struct keysource_print *print,
			struct secret **out, mono_t deadline)
{
	struct file_read r = {.path = path, .before = before};
	if (offload_run(file_read_run, &r, deadline) != 0)
		return -1;
	if (print != NULL)
		*print = r.print;
	*out = r.out;
	return 0;
}
