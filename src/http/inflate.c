/* inflate.c - decoding what a client has compressed, piece by piece, into room that the caller gives: how
 * much may come out is decided there (body.c), so nothing here can be made to produce more than was asked
 * for.
 *
 * A gzip body may have several members, a zstd body several frames; what stands behind them must be another
 * one. Bodies called deflate are zlib's format or, from many clients, bare deflate data; the first two bytes
 * tell (RFC 1950 section 2.2: a multiple of 31 that names method 8, which no bare data begins with that a
 * compressor would write).
 *
 * A zstd decoder holds the window that the frame asks for, 8 MB at most (RFC 9659); zlib's holds 32 KB.
 * libzstd also reads the formats from before RFC 8878, with decoders of their own; a frame must begin with
 * the number of today's. And it looks for a short way when a frame's header is complete, for which it takes
 * the bytes of that call for the frame's beginning, whatever came before; so it gets the header byte by byte,
 * and one body means the same however it was cut. Contexts are kept in a few places per worker, large ones
 * are not. Indexed by worker, the table needs no lock, and what is in it is still reachable when the process
 * ends. */
#include "http/coding.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/worker.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

enum {
	INFLATE_SPARES = 4,		/* of a kind, per worker */
	INFLATE_ZLIB_BYTES = 44 << 10,	/* what inflate allocates: state and window */
	INFLATE_KEEP_BYTES = 512 << 10, /* a larger decoder is not kept */
	INFLATE_MAX_WINDOW_LOG = 23,
	INFLATE_ZSTD_HEADER = 18, /* longest of a frame */
	INFLATE_MAX_WORKERS = 256,
};

enum inflate_state {
	INFLATE_START,	/* nothing has come */
	INFLATE_INSIDE, /* of a member or frame */
	INFLATE_END,	/* behind one */
};

struct http_inflater {
	enum http_coding coding;
	enum inflate_state state;
	z_stream z;	 /* gzip, deflate */
	ZSTD_DCtx *zstd; /* NULL: one of zlib's */
	/* The beginning of a deflate body or zstd frame, held back
	 * until there is enough to tell what it is. */
	uint8_t first[4];
	size_t n_first;
	unsigned n_frame; /* bytes of the zstd frame, until its header is certainly over */
};

static struct {
	struct http_inflater *zlib[INFLATE_SPARES], *zstd[INFLATE_SPARES];
	size_t n_zlib, n_zstd;
} inflate_spares[INFLATE_MAX_WORKERS];

static void *inflate_alloc(void *opaque, unsigned n, unsigned size)
{
	return xcalloc(n, size);
}

static void inflate_release(void *opaque, void *p)
{
	free(p);
}

static struct http_inflater *inflater_new(bool is_zstd)
{
	struct http_inflater *z = xnew(struct http_inflater);
	if (is_zstd) {
		z->zstd = ZSTD_createDCtx();
		if (z->zstd == NULL)
			panic("ZSTD_createDCtx: out of memory");
		ZSTD_DCtx_setParameter(z->zstd, ZSTD_d_windowLogMax, INFLATE_MAX_WINDOW_LOG);
		return z;
	}
	z->z.zalloc = inflate_alloc;
	z->z.zfree = inflate_release;
	if (inflateInit2(&z->z, MAX_WBITS + 16) != Z_OK)
		panic("inflateInit2 failed");
	return z;
}

static void inflater_free(struct http_inflater *z)
{
	if (z->zstd != NULL)
		ZSTD_freeDCtx(z->zstd);
	else
		inflateEnd(&z->z);
	free(z);
}

struct http_inflater *http_inflater_get(enum http_coding c)
{
	struct worker *w = worker_self();
	unsigned i = w != NULL ? worker_index(w) : 0;
	bool is_zstd = c == HTTP_CODING_ZSTD;
	struct http_inflater *z = NULL;
	if (w != NULL && is_zstd && inflate_spares[i].n_zstd != 0)
		z = inflate_spares[i].zstd[--inflate_spares[i].n_zstd];
	else if (w != NULL && !is_zstd && inflate_spares[i].n_zlib != 0)
		z = inflate_spares[i].zlib[--inflate_spares[i].n_zlib];
	else
		z = inflater_new(is_zstd);
	z->coding = c;
	z->state = INFLATE_START;
	z->n_first = 0;
	if (is_zstd)
		ZSTD_DCtx_reset(z->zstd, ZSTD_reset_session_only);
	else
		inflateReset2(&z->z, MAX_WBITS + 16);
	return z;
}

void http_inflater_put(struct http_inflater *z)
{
	struct worker *w = worker_self();
	if (z == NULL)
		return;
	unsigned i = w != NULL ? worker_index(w) : 0;
	if (w == NULL || http_inflater_bytes(z) > INFLATE_KEEP_BYTES)
		inflater_free(z);
	else if (z->zstd != NULL && inflate_spares[i].n_zstd < INFLATE_SPARES)
		inflate_spares[i].zstd[inflate_spares[i].n_zstd++] = z;
	else if (z->zstd == NULL && inflate_spares[i].n_zlib < INFLATE_SPARES)
		inflate_spares[i].zlib[inflate_spares[i].n_zlib++] = z;
	else
		inflater_free(z);
}

size_t http_inflater_bytes(const struct http_inflater *z)
{
	return z->zstd != NULL ? ZSTD_sizeof_DCtx(z->zstd) : INFLATE_ZLIB_BYTES;
}

bool http_inflater_is_complete(const struct http_inflater *z)
{
	return z->state == INFLATE_END;
}

static int inflate_fail(const struct http_inflater *z, const char *why)
{
	str_t name = http_coding_name(z->coding);
	err_set(ERR_INVALID, "the request body is not valid " STR_FMT ": %s", STR_ARG(name), why);
	return -1;
}

/* --- zlib --- */

/* Whether a body called deflate is zlib's format, once its first two bytes are there. */
static bool inflate_is_zlib(const uint8_t *p)
{
	return (p[0] & 0x0f) == 8 && p[0] >> 4 <= 7 && (p[0] << 8 | p[1]) % 31 == 0;
}

static int inflate_step(struct http_inflater *z, const uint8_t *p, size_t n, size_t *n_used, struct buf *out)
{
	size_t n_room = out->cap - 1 - out->n;
	z->z.next_in = (uint8_t *)(uintptr_t)p;
	z->z.avail_in = n < UINT32_MAX ? (unsigned)n : UINT32_MAX;
	z->z.next_out = (uint8_t *)out->p + out->n;
	z->z.avail_out = n_room < UINT32_MAX ? (unsigned)n_room : UINT32_MAX;
	unsigned n_in = z->z.avail_in, n_out = z->z.avail_out;
	int rc = inflate(&z->z, Z_NO_FLUSH);
	*n_used = n_in - z->z.avail_in;
	out->n += n_out - z->z.avail_out;
	out->p[out->n] = 0;
	if (rc == Z_STREAM_END) {
		z->state = INFLATE_END;
		return 0;
	}
	if (rc == Z_OK || rc == Z_BUF_ERROR)
		return 0;
	return inflate_fail(z, z->z.msg != NULL ? z->z.msg : "it needs a dictionary");
}

static int inflate_zlib(struct http_inflater *z, str_t in, size_t *n_used, struct buf *out)
{
	const uint8_t *p = (const uint8_t *)in.p;
	if (z->state == INFLATE_END) {
		if (z->coding == HTTP_CODING_DEFLATE)
			return inflate_fail(z, "there is something behind its end");
		inflateReset(&z->z); /* the next member */
	}
	if (z->state == INFLATE_START && z->coding == HTTP_CODING_DEFLATE) {
		if (z->n_first == 0 && in.n == 1) {
			z->first[z->n_first++] = p[0];
			*n_used = 1;
			return 0;
		}
		uint8_t two[2] = {z->n_first != 0 ? z->first[0] : p[0], z->n_first != 0 ? p[0] : p[1]};
		inflateReset2(&z->z, inflate_is_zlib(two) ? MAX_WBITS : -MAX_WBITS);
	}
	z->state = INFLATE_INSIDE;
	if (z->n_first != 0) {
		size_t n;
		z->n_first = 0;
		return inflate_step(z, z->first, 1, &n, out); /* nothing comes out of one byte */
	}
	return inflate_step(z, p, in.n, n_used, out);
}

static int inflate_zstd_step(struct http_inflater *z, const void *p, size_t n, size_t *n_used,
			     struct buf *out)
{
	ZSTD_inBuffer i = {p, n, 0};
	ZSTD_outBuffer o = {out->p + out->n, out->cap - 1 - out->n, 0};
	size_t rc = ZSTD_decompressStream(z->zstd, &o, &i);
	*n_used = i.pos;
	out->n += o.pos;
	out->p[out->n] = 0;
	if (ZSTD_isError(rc))
		return inflate_fail(z, ZSTD_getErrorName(rc));
	z->state = rc == 0 ? INFLATE_END : INFLATE_INSIDE;
	return 0;
}

static bool inflate_is_zstd(const uint8_t *p)
{
	uint32_t magic = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	return magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static int inflate_zstd(struct http_inflater *z, str_t in, size_t *n_used, struct buf *out)
{
	if (z->state == INFLATE_INSIDE) {
		size_t n = z->n_frame < INFLATE_ZSTD_HEADER && in.n != 0 ? 1 : in.n;
		z->n_frame += n == 1;
		return inflate_zstd_step(z, in.p, n, n_used, out);
	}
	z->state = INFLATE_START; /* of a frame: the body must not end here */
	while (z->n_first < sizeof(z->first) && *n_used < in.n)
		z->first[z->n_first++] = (uint8_t)in.p[(*n_used)++];
	if (z->n_first < sizeof(z->first))
		return 0;
	z->n_first = 0;
	z->n_frame = sizeof(z->first);
	if (!inflate_is_zstd(z->first))
		return inflate_fail(z, "unknown frame");
	size_t n;
	return inflate_zstd_step(z, z->first, sizeof(z->first), &n,
				 out); /* nothing comes out of its number */
}

int http_inflate(struct http_inflater *z, str_t in, size_t *n_used, struct buf *out)
{
	*n_used = 0;
	if (in.n == 0 && z->state != INFLATE_INSIDE)
		return 0;
	return z->coding == HTTP_CODING_ZSTD ? inflate_zstd(z, in, n_used, out)
					     : inflate_zlib(z, in, n_used, out);
}
