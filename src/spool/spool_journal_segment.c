/* spool_journal_segment.c - segment files: their header, space, writes, reads, end. A segment is made under a
 * temporary name, its header synced, then renamed and the directory synced: whatever has the final name has a
 * header. The header stands twice, so that one bad block there does not cost the segment. Space is allocated
 * ahead in steps beyond the end of the file, so the file's size is always what was written. */
#include "spool/spool_journal_impl.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/text.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALLOCATE_STEP (UINT64_C(8) << 20)

static const char segment_magic[8] = "CIRRUSJ1";

/* ---- frames ---- */

static uint32_t frame_head_crc(const struct frame_head *h, uint64_t salt, uint64_t offset)
{
	uint64_t place[2] = {htole64(salt), htole64(offset)};
	return crc32c(crc32c(0, place, sizeof place), h, offsetof(struct frame_head, head_crc));
}

void frame_seal(struct frame_head *h, const struct segment *seg, uint64_t offset)
{
	h->magic = htole32(JOURNAL_FRAME_MAGIC);
	h->zero = 0;
	h->synced8 = htole32((uint32_t)(seg->n_durable / 8));
	h->head_crc = htole32(frame_head_crc(h, seg->salt, offset));
}

bool frame_head_is_valid(const struct frame_head *h, uint64_t salt, uint64_t offset)
{
	return h->magic == htole32(JOURNAL_FRAME_MAGIC) && h->type >= FRAME_BODY && h->type <= FRAME_KEY &&
	       (h->type == FRAME_PAD || le32toh(h->n_payload) <= JOURNAL_PAYLOAD_MAX) &&
	       le32toh(h->head_crc) == frame_head_crc(h, salt, offset);
}

/* ---- files ---- */

static void segment_path(const struct spool *sp, uint64_t seq, const char *suffix, struct buf *out)
{
	buf_clear(out);
	buf_printf(out, "%s/%016llx.%s", sp->path, (unsigned long long)seq, suffix);
}

static struct segment *segment_new(int fd, const struct segment_head *h, uint64_t n_bytes)
{
	struct segment *seg = xnew(struct segment);
	atomic_init(&seg->refs, 1);
	seg->fd = fd;
	seg->seq = le64toh(h->seq);
	seg->salt = le64toh(h->salt);
	seg->n_bytes = seg->n_durable = seg->n_allocated = n_bytes;
	seg->next_group = 1;
	return seg;
}

struct segment *segment_ref(struct segment *seg)
{
	atomic_fetch_add_explicit(&seg->refs, 1, memory_order_relaxed);
	return seg;
}

void segment_unref(struct segment *seg)
{
	if (seg == NULL || atomic_fetch_sub_explicit(&seg->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(seg->fd);
	tomb_list_fini(&seg->tombs);
	free(seg);
}

/* -1 with errno */
static int journal_sync_dir(struct spool *sp)
{
	return fsync(sp->dir_fd);
}

static bool is_no_space(int e)
{
	return e == ENOSPC || e == EDQUOT;
}

static int write_all(int fd, const char *p, size_t n, uint64_t offset)
{
	while (n > 0) {
		ssize_t w = pwrite(fd, p, n, (off_t)offset);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0) {
			errno = w == 0 ? ENOSPC : errno;
			return -1;
		}
		p += w, n -= (size_t)w, offset += (uint64_t)w;
	}
	return 0;
}

static int segment_write_head(int fd, const struct segment_head *h)
{
	char block[JOURNAL_HEAD_BYTES] = {0};
	memcpy(block, h, sizeof *h);
	memcpy(block + JOURNAL_HEAD_BYTES / 2, h, sizeof *h);
	return write_all(fd, block, sizeof block, 0);
}

struct segment *segment_create(struct spool *sp, uint64_t seq, const struct segment *prev)
{
	struct segment *seg = NULL;
	struct buf tmp = BUF_INIT, path = BUF_INIT;
	int fd = -1;
	struct segment_head h = {.version = htole32(JOURNAL_VERSION),
				 .n_bytes = htole32(sizeof h),
				 .seq = htole64(seq),
				 .prev_seq = htole64(prev != NULL ? prev->seq : 0),
				 .prev_durable = htole64(prev != NULL ? prev->n_durable : 0),
				 .created_ns = (int64_t)htole64((uint64_t)wall_now().ns)};
	memcpy(h.magic, segment_magic, sizeof h.magic);
	random_bytes(&h.salt, sizeof h.salt);
	h.crc = htole32(crc32c(0, &h, offsetof(struct segment_head, crc)));

	segment_path(sp, seq, "tmp", &tmp);
	segment_path(sp, seq, "journal", &path);
	bool is_ok = !FAULT(spool_rotate) || (errno = EIO, false);
	is_ok = is_ok && (fd = open(tmp.p, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) >= 0;
	is_ok = is_ok && segment_write_head(fd, &h) == 0 && fdatasync(fd) == 0 && rename(tmp.p, path.p) == 0;
	if (is_ok && journal_sync_dir(sp) != 0) {
		int e = errno;
		unlink(path.p);
		errno = e, is_ok = false;
	}
	if (is_ok) {
		seg = segment_new(fd, &h, JOURNAL_HEAD_BYTES);
		seg->state = SEGMENT_ACTIVE;
		fd = -1;
	} else if (is_no_space(errno)) {
		err_set(ERR_SPOOL_FULL, "spool %s: no space for %s", sp->name, path.p);
	} else {
		err_set_sys(errno, "spool %s: cannot create %s", sp->name, path.p);
	}
	if (fd >= 0) {
		close(fd);
		unlink(tmp.p);
	}
	buf_fini(&tmp);
	buf_fini(&path);
	return seg;
}

static bool segment_head_is_valid(const struct segment_head *h)
{
	return memcmp(h->magic, segment_magic, sizeof h->magic) == 0 &&
	       le32toh(h->version) == JOURNAL_VERSION && le32toh(h->n_bytes) == sizeof *h &&
	       le32toh(h->crc) == crc32c(0, h, offsetof(struct segment_head, crc));
}

struct segment *segment_open(struct spool *sp, uint64_t seq, struct segment_head *head)
{
	struct segment *seg = NULL;
	struct buf path = BUF_INIT;
	struct segment_head copy[2] = {0};
	struct stat st;
	int fd = -1;

	segment_path(sp, seq, "journal", &path);
	if (FAULT(spool_open)) {
		err_set_sys(EIO, "spool %s: cannot open %s", sp->name, path.p);
		goto out;
	}
	fd = open(path.p, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0) {
		err_set_sys(errno, "spool %s: cannot open %s", sp->name, path.p);
		goto out;
	}
	for (size_t i = 0; i < 2; i++) {
		if (pread(fd, &copy[i], sizeof copy[i], (off_t)(i * JOURNAL_HEAD_BYTES / 2)) < 0) {
			err_set_sys(errno, "spool %s: cannot read %s", sp->name, path.p);
			goto out;
		}
	}
	bool is_ok[2] = {segment_head_is_valid(&copy[0]), segment_head_is_valid(&copy[1])};
	*head = copy[is_ok[0] ? 0 : 1];
	if ((!is_ok[0] && !is_ok[1]) || le64toh(head->seq) != seq || st.st_size < JOURNAL_HEAD_BYTES) {
		err_set(ERR_CORRUPT, "spool %s: %s has no valid header", sp->name, path.p);
		goto out;
	}
	seg = segment_new(fd, head, (uint64_t)st.st_size);
	seg->state = SEGMENT_SEALED;
	fd = -1;
	if (!is_ok[0] || !is_ok[1])
		journal_report_damage(sp, seg, is_ok[0] ? JOURNAL_HEAD_BYTES / 2 : 0,
				      "a copy of the header is damaged");
out:
	if (fd >= 0)
		close(fd);
	buf_fini(&path);
	return seg;
}

int segment_remove(struct spool *sp, struct segment *seg)
{
	int rc = -1;
	struct buf path = BUF_INIT, aside = BUF_INIT;
	segment_path(sp, seg->seq, "journal", &path);
	segment_path(sp, seg->seq, "journal.damaged", &aside);
	if (FAULT(spool_remove)) {
		errno = EIO;
		goto out;
	}
	if (seg->is_damaged) {
		log_warn(
			JOURNAL_LOG,
			"spool %s: nothing in %s is needed any more; it is kept as %s because it was damaged",
			sp->name, path.p, aside.p);
		rc = rename(path.p, aside.p);
	} else {
		rc = unlink(path.p);
	}
	if (rc != 0 && errno == ENOENT) /* a former attempt got so far */
		rc = 0;
	if (rc == 0)
		rc = journal_sync_dir(sp);
out:
	buf_fini(&path);
	buf_fini(&aside);
	return rc;
}

/* ---- writing ---- */

int segment_allocate(struct spool *sp, struct segment *seg, uint64_t end)
{
	if (FAULT(spool_alloc)) {
		errno = ENOSPC;
		return -1;
	}
	if (!sp->can_allocate || end <= seg->n_allocated)
		return 0;
	uint64_t want = seg->n_allocated + ALLOCATE_STEP;
	if (want > sp->segment_bytes)
		want = sp->segment_bytes;
	if (want < end || !sp->has_reserve) /* the reserve comes first */
		want = end;
	int rc = fallocate(seg->fd, FALLOC_FL_KEEP_SIZE, (off_t)seg->n_allocated,
			   (off_t)(want - seg->n_allocated));
	if (rc != 0 && is_no_space(errno) && want > end) {
		want = end;
		rc = fallocate(seg->fd, FALLOC_FL_KEEP_SIZE, (off_t)seg->n_allocated,
			       (off_t)(want - seg->n_allocated));
	}
	if (rc == 0) {
		seg->n_allocated = want;
	} else if (errno == EOPNOTSUPP || errno == ENOSYS) {
		sp->can_allocate = false;
		rc = 0;
	} else if (errno == EINTR) {
		rc = 0; /* it is an advance, no more; the write will tell */
	}
	return rc;
}

int segment_writev(struct segment *seg, struct iovec *iov, int n_iov, uint64_t offset)
{
	if (FAULT(spool_write)) {
		errno = EIO;
		return -1;
	}
	while (n_iov > 0) {
		ssize_t n = pwritev(seg->fd, iov, n_iov, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n == 0 ? ENOSPC : errno;
			return -1;
		}
		offset += (uint64_t)n;
		for (; n_iov > 0 && (size_t)n >= iov->iov_len; iov++, n_iov--)
			n -= (ssize_t)iov->iov_len;
		if (n_iov > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int segment_sync(struct segment *seg)
{
	if (FAULT(spool_sync)) {
		errno = EIO;
		return -1;
	}
	return fdatasync(seg->fd);
}

int segment_truncate(struct segment *seg, uint64_t n_bytes)
{
	int rc = ftruncate(seg->fd, (off_t)n_bytes);
	if (rc == 0)
		seg->n_allocated = n_bytes; /* the space ahead went with it */
	return rc;
}

/* ---- reading ---- */

void segment_reader_init(struct segment_reader *r, struct segment *seg, uint64_t limit)
{
	*r = (struct segment_reader){.seg = seg, .window = xmalloc(READER_WINDOW), .limit = limit};
}

void segment_reader_fini(struct segment_reader *r)
{
	free(r->window);
}

const char *segment_reader_get(struct segment_reader *r, uint64_t offset, size_t n)
{
	if (offset >= r->at && offset + n <= r->at + r->n)
		return r->window + (offset - r->at);
	errno = 0;
	if (offset + n > r->limit)
		return NULL;
	size_t want = r->limit - offset < READER_WINDOW ? (size_t)(r->limit - offset) : READER_WINDOW;
	r->at = offset;
	r->n = 0;
	while (r->n < want) {
		ssize_t got = pread(r->seg->fd, r->window + r->n, want - r->n, (off_t)(offset + r->n));
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		r->n += (size_t)got;
	}
	return r->n >= n ? r->window : NULL;
}

int segment_reader_crc(struct segment_reader *r, uint64_t offset, uint64_t n, uint32_t *crc)
{
	uint32_t c = 0;
	while (n > 0) {
		/* what the window has of it, so that no byte is read twice */
		size_t part = n < READER_WINDOW ? (size_t)n : READER_WINDOW;
		if (offset >= r->at && offset < r->at + r->n && r->at + r->n - offset < part)
			part = (size_t)(r->at + r->n - offset);
		const char *p = segment_reader_get(r, offset, part);
		if (p == NULL)
			return -1;
		c = crc32c(c, p, part);
		offset += part, n -= part;
	}
	*crc = c;
	return 0;
}

uint64_t segment_reader_resync(struct segment_reader *r, uint64_t offset)
{
	for (offset = (offset + 7) & ~UINT64_C(7);; offset += 8) {
		const char *p = segment_reader_get(r, offset, sizeof(struct frame_head));
		if (p == NULL) {
			if (errno == 0)
				return r->limit;
			offset = (offset & ~UINT64_C(4095)) + 4096 - 8; /* an unreadable block */
			continue;
		}
		struct frame_head h;
		memcpy(&h, p, sizeof h);
		if (h.magic == htole32(JOURNAL_FRAME_MAGIC) &&
		    frame_head_is_valid(&h, r->seg->salt, offset) &&
		    offset + frame_bytes(le32toh(h.n_payload)) <= r->limit)
			return offset;
	}
}
