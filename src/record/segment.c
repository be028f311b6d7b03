/* segment.c - segment files.
 *
 * Bytes take three steps: compressor, `out`, file. What the compressor has taken cannot be taken back, so
 * `out` keeps its output until write(2) has accepted all of it; while anything is left over no further record
 * is taken, which bounds `out` to one write's worth and lets the caller wait for space without losing a byte.
 *
 * A second after its arrival a record is forced through: a flushed zstd block and a write(2). A reader of a
 * live segment, or of one that a crash cut short, can decode up to there. A segment ends with the end of the
 * frame, fdatasync of the file and fsync of the directory, and only then loses its write permission, which
 * tells tailers that it is whole.
 *
 * The name is the UTC time of opening. O_EXCL and a nanosecond more on each collision keep names unique
 * between loggers that share a directory. The compressor's window is small (64 KiB holds some 70 records; a
 * larger one gains 4 %), so that an idle logger costs about 0.7 MB, and nothing when no segment is open. */
#include "record/segment.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define FLUSH_AFTER dur_s(1)

void segment_writer_fini(struct segment_writer *w)
{
	if (w->fd >= 0)
		close(w->fd);
	ZSTD_freeCCtx(w->z);
	free(w->path);
	buf_fini(&w->out);
	w->fd = -1, w->z = NULL, w->path = NULL;
}

uint64_t segment_room(const struct segment_writer *w)
{
	uint64_t used = w->fd >= 0 && !w->is_ending ? w->n_bytes : 0;
	return used < w->max_bytes ? w->max_bytes - used : 1;
}

/* --- compressing and writing --- */

static void segment_set(struct segment_writer *w, ZSTD_cParameter p, int value)
{
	size_t rc = ZSTD_CCtx_setParameter(w->z, p, value);
	if (ZSTD_isError(rc))
		panic("zstd parameter %d = %d: %s", (int)p, value, ZSTD_getErrorName(rc));
}

static void segment_compressor_new(struct segment_writer *w)
{
	w->z = ZSTD_createCCtx();
	if (w->z == NULL)
		panic("zstd: no memory");
	bool is_cheap = w->level <= 4;
	segment_set(w, ZSTD_c_compressionLevel, w->level);
	segment_set(w, ZSTD_c_windowLog, is_cheap ? 16 : 17);
	segment_set(w, ZSTD_c_hashLog, is_cheap ? 15 : 17);
	segment_set(w, ZSTD_c_chainLog, is_cheap ? 14 : 17);
}

static void segment_compress(struct segment_writer *w, str_t bytes, ZSTD_EndDirective how)
{
	ZSTD_inBuffer in = {bytes.p, bytes.n, 0};
	size_t left;
	do {
		buf_reserve(&w->out, 16 * 1024);
		ZSTD_outBuffer out = {w->out.p + w->out.n, w->out.cap - w->out.n - 1, 0};
		left = ZSTD_compressStream2(w->z, &out, &in, how);
		if (ZSTD_isError(left)) /* with a valid context only for want of memory */
			panic("zstd: %s", ZSTD_getErrorName(left));
		w->out.n += out.pos;
		w->out.p[w->out.n] = '\0';
	} while (in.pos < in.size || (how != ZSTD_e_continue && left > 0));
}

static int segment_put(struct segment_writer *w)
{
	size_t done = 0;
	int rc = 0;
	while (done < w->out.n) {
		ssize_t n = -1;
		if (FAULT(log_write))
			errno = ENOSPC;
		else
			n = write(w->fd, w->out.p + done, w->out.n - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_set_sys(errno, "writing to %s", w->path);
			rc = -1;
			break;
		}
		done += (size_t)n;
	}
	buf_consume(&w->out, done);
	return rc;
}

/* --- a segment's life --- */

static void segment_name(const struct segment_writer *w, wall_t t, struct buf *path)
{
	time_t s = (time_t)wall_unix_s(t);
	unsigned ns = (unsigned)(t.ns - (int64_t)s * NS_PER_S);
	struct tm tm;
	gmtime_r(&s, &tm);
	buf_clear(path);
	buf_printf(path, "%s/%s%04d%02d%02d-%02d%02d%02d", w->dir, w->prefix != NULL ? w->prefix : "",
		   tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	if (ns % 1000 != 0)
		buf_printf(path, ".%09u", ns);
	else if (ns % 1000000 != 0)
		buf_printf(path, ".%06u", ns / 1000);
	else if (ns != 0)
		buf_printf(path, ".%03u", ns / 1000000);
	buf_add_z(path, w->suffix);
}

static int segment_open(struct segment_writer *w, str_t header)
{
	struct buf path = BUF_INIT;
	wall_t t = wall_now();
	int fd, rc = -1;
	if (segment_dir_prepare(w->dir) != 0)
		goto out;
	do {
		segment_name(w, t, &path);
		fd = open(path.p, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
		t.ns++;
	} while (fd < 0 && (errno == EEXIST || errno == EINTR));
	if (fd < 0) {
		err_set_sys(errno, "creating log segment %s", path.p);
		goto out;
	}
	w->fd = fd;
	w->path = buf_steal(&path, NULL);
	w->n_bytes = 0;
	w->opened = mono_now();
	w->dirty_since = MONO_NEVER;
	w->is_ending = w->is_framed = false;
	segment_compressor_new(w);
	if (header.n > 0)
		segment_compress(w, header, ZSTD_e_continue);
	rc = 0;
out:
	buf_fini(&path);
	return rc;
}

static int segment_sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd >= 0 ? fsync(fd) : -1;
	int e = errno;
	if (fd >= 0)
		close(fd);
	if (rc != 0 &&
	    e == ENOENT) { /* nor will it be back with this segment in it: the next one makes it anew */
		log_warn("kumod::record", "%s is gone, and a log segment with it", dir);
		return 0;
	}
	if (rc != 0 && e != EINVAL) /* some file systems have no fsync of directories */
		err_set_sys(e, "syncing %s", dir);
	return rc == 0 || e == EINVAL ? 0 : -1;
}

static void segment_mark_done(int fd, const char *path)
{
	struct stat st;
	if (fstat(fd, &st) != 0 || fchmod(fd, st.st_mode & 07777 & ~0222U) != 0)
		log_warn("kumod::record", "%s: cannot be made read-only: %m", path);
}

int segment_close(struct segment_writer *w)
{
	if (w->fd < 0)
		return 0;
	w->is_ending = true;
	if (!w->is_framed) {
		segment_compress(w, STR_NULL, ZSTD_e_end);
		w->is_framed = true;
	}
	if (segment_put(w) != 0)
		return -1;
	if (fdatasync(w->fd) != 0) {
		err_set_sys(errno, "syncing %s", w->path);
		return -1;
	}
	if (segment_sync_dir(w->dir) != 0)
		return -1;
	segment_mark_done(w->fd, w->path);
	segment_writer_fini(w);
	w->dirty_since = MONO_NEVER;
	w->is_ending = w->is_framed = false;
	return 0;
}

/* When the open segment is too old; MONO_NEVER: never, or none is open. */
static mono_t segment_expiry(const struct segment_writer *w)
{
	return w->fd >= 0 && w->max_age.ns >= 0 ? mono_add(w->opened, w->max_age) : MONO_NEVER;
}

int segment_write(struct segment_writer *w, str_t records, str_t header)
{
	if (w->is_ending || mono_is_past(segment_expiry(w))) {
		if (segment_close(w) != 0)
			return -1;
	}
	if (w->fd < 0 && segment_open(w, header) != 0)
		return -1;
	if (segment_put(w) != 0)
		return -1;

	segment_compress(w, records, ZSTD_e_continue);
	w->n_bytes += records.n;
	if (w->dirty_since.ns == MONO_NEVER.ns)
		w->dirty_since = mono_now();
	w->is_ending = w->n_bytes >= w->max_bytes;
	if ((w->is_ending ? segment_close(w) : segment_put(w)) != 0)
		err_clear(); /* the records are taken; the next call meets the same error and says so */
	return 0;
}

int segment_tick(struct segment_writer *w)
{
	if (w->fd < 0)
		return 0;
	if (w->is_ending || mono_is_past(segment_expiry(w)))
		return segment_close(w);
	if (mono_is_past(mono_add(w->dirty_since, FLUSH_AFTER))) {
		segment_compress(w, STR_NULL, ZSTD_e_flush);
		w->dirty_since = MONO_NEVER;
	}
	return segment_put(w);
}

mono_t segment_due(const struct segment_writer *w)
{
	if (w->fd >= 0 && (w->is_ending || w->out.n > 0))
		return mono_now();
	return mono_min(mono_add(w->dirty_since, FLUSH_AFTER), segment_expiry(w));
}

/* --- directories --- */

int segment_dir_prepare(const char *dir)
{
	if (dir[0] == '\0') {
		err_set(ERR_IO, "the log directory has no name");
		return -1;
	}
	if (path_make_dirs(dir, 0777) != 0) {
		err_wrap("log directory %s", dir);
		return -1;
	}
	if (eaccess(dir, W_OK | X_OK) != 0) {
		err_set_sys(errno, "log directory %s cannot be written to", dir);
		return -1;
	}
	return 0;
}

int segment_dir_mark_done(const char *dir)
{
	DIR *d = opendir(dir);
	if (d == NULL) {
		err_set_sys(errno, "reading log directory %s", dir);
		return -1;
	}
	for (struct dirent *e; (e = readdir(d)) != NULL;) {
		struct stat st;
		if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISREG(st.st_mode) || (st.st_mode & 0222) == 0)
			continue;
		if (fchmodat(dirfd(d), e->d_name, st.st_mode & 07777 & ~0222U, 0) != 0)
			log_warn("kumod::record", "%s/%s: cannot be made read-only: %m", dir, e->d_name);
	}
	closedir(d);
	return 0;
}
