/* deflate.c - compressing answers. Levels are low ones: an answer is made once and read once, so what counts
 * is CPU time, and the text that is sent here (JSON, metrics) shrinks tenfold at any level. zstd is about
 * four times as cheap as gzip.
 *
 * Long answers are compressed in pieces of HTTP_DEFLATE_PIECE, a few milliseconds at most, with other fibers
 * getting their turn in between. One compressor of each kind is kept per worker; a second one that is needed
 * at the same time is made and freed. Indexed by worker, the table needs no lock. */
#include "http/coding.h"

#include "base/alloc.h"
#include "base/err.h"
#include "fiber/worker.h"

#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define HTTP_DEFLATE_PIECE 65536

enum {
	DEFLATE_GZIP_LEVEL = 4,
	DEFLATE_ZSTD_LEVEL = 1,
	DEFLATE_MAX_WORKERS = 256,
};

static struct {
	z_stream *gzip;
	ZSTD_CCtx *zstd;
} deflate_spare[DEFLATE_MAX_WORKERS];

static void *deflate_alloc(void *opaque, unsigned n, unsigned size)
{
	return xcalloc(n, size);
}

static void deflate_release(void *opaque, void *p)
{
	free(p);
}

/* After a piece: others may run. -1 when it has taken too long. */
static int deflate_pause(mono_t deadline)
{
	fiber_yield();
	if (fiber_is_cancelled()) {
		err_set(ERR_CANCELLED, "compressing an answer was cancelled");
		return -1;
	}
	if (mono_is_past(deadline)) {
		err_set(ERR_TIMEOUT, "compressing an answer took too long");
		return -1;
	}
	return 0;
}

/* --- gzip and zlib --- */

static z_stream *deflate_zlib_get(enum http_coding c)
{
	unsigned i = worker_index(worker_self());
	z_stream *z = deflate_spare[i].gzip;
	if (c == HTTP_CODING_GZIP && z != NULL) {
		deflate_spare[i].gzip = NULL;
		deflateReset(z);
		return z;
	}
	z = xnew(z_stream);
	z->zalloc = deflate_alloc;
	z->zfree = deflate_release;
	int bits = c == HTTP_CODING_GZIP ? MAX_WBITS + 16 : MAX_WBITS;
	if (deflateInit2(z, DEFLATE_GZIP_LEVEL, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		panic("deflateInit2 failed");
	return z;
}

static void deflate_zlib_put(z_stream *z, enum http_coding c)
{
	unsigned i = worker_index(worker_self());
	if (c == HTTP_CODING_GZIP && deflate_spare[i].gzip == NULL) {
		deflate_spare[i].gzip = z;
		return;
	}
	deflateEnd(z);
	free(z);
}

static int deflate_zlib(enum http_coding c, str_t in, struct buf *out, mono_t deadline)
{
	z_stream *z = deflate_zlib_get(c);
	int rc = 0, flush = Z_NO_FLUSH;
	do {
		str_t piece = str_head(in, HTTP_DEFLATE_PIECE);
		in = str_skip(in, piece.n);
		flush = in.n == 0 ? Z_FINISH : Z_NO_FLUSH;
		z->next_in = (uint8_t *)(uintptr_t)piece.p;
		z->avail_in = (unsigned)piece.n;
		int step;
		do {
			buf_reserve(out, piece.n / 4 + 1024);
			size_t n_room = out->cap - 1 - out->n;
			z->next_out = (uint8_t *)out->p + out->n;
			z->avail_out = (unsigned)n_room;
			step = deflate(z, flush);
			out->n += n_room - z->avail_out;
			out->p[out->n] = 0;
		} while (flush == Z_FINISH ? step != Z_STREAM_END : z->avail_in != 0 || z->avail_out == 0);
		if (in.n != 0)
			rc = deflate_pause(deadline);
	} while (rc == 0 && flush != Z_FINISH);
	deflate_zlib_put(z, c);
	return rc;
}

/* --- zstd --- */

static int deflate_zstd(str_t in, struct buf *out, mono_t deadline)
{
	unsigned worker = worker_index(worker_self());
	ZSTD_CCtx *z = deflate_spare[worker].zstd;
	deflate_spare[worker].zstd = NULL;
	if (z == NULL && (z = ZSTD_createCCtx()) == NULL)
		panic("ZSTD_createCCtx: out of memory");
	ZSTD_CCtx_reset(z, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(z, ZSTD_c_compressionLevel, DEFLATE_ZSTD_LEVEL);
	ZSTD_CCtx_setPledgedSrcSize(z, in.n);
	int rc = 0;
	bool is_last = false;
	do {
		str_t piece = str_head(in, HTTP_DEFLATE_PIECE);
		in = str_skip(in, piece.n);
		is_last = in.n == 0;
		ZSTD_inBuffer i = {piece.p, piece.n, 0};
		size_t left;
		do {
			buf_reserve(out, piece.n / 4 + 1024);
			ZSTD_outBuffer o = {out->p + out->n, out->cap - 1 - out->n, 0};
			left = ZSTD_compressStream2(z, &o, &i, is_last ? ZSTD_e_end : ZSTD_e_continue);
			if (ZSTD_isError(left))
				panic("ZSTD_compressStream2: %s", ZSTD_getErrorName(left));
			out->n += o.pos;
			out->p[out->n] = 0;
		} while (is_last ? left != 0 : i.pos < i.size);
		if (!is_last)
			rc = deflate_pause(deadline);
	} while (rc == 0 && !is_last);
	if (deflate_spare[worker].zstd == NULL)
		deflate_spare[worker].zstd = z;
	else
		ZSTD_freeCCtx(z);
	return rc;
}

int http_deflate(enum http_coding c, str_t in, struct buf *out, mono_t deadline)
{
	return c == HTTP_CODING_ZSTD ? deflate_zstd(in, out, deadline) : deflate_zlib(c, in, out, deadline);
}
