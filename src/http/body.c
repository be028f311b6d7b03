/* body.c - the body of a request: decoded as it arrives, within three limits.
 *
 * The listener's request_body_limit holds for what comes out of a decoder. What goes in may be an eighth
 * larger (data that does not compress grows a little), so that an endless stream of nothing ends as well. And
 * a body of more than HTTP_RATIO_FREE may not be more than HTTP_MAX_RATIO times as large as what was sent for
 * it: text compresses tenfold, JSON with much repetition fiftyfold; what is beyond is a bomb, and with it a
 * small sender would take much of our memory.
 *
 * The third is common to all listeners: the memory of the bodies that are being received or handled. A body
 * takes from it what it has room for and a decoder what it holds, before either grows; when there is nothing
 * left the request is answered 503, and the client may try again. One atomic counter, two additions for a
 * small request. */
#include "http/http_impl.h"

#include "base/err.h"

#include <stdio.h>

enum {
	HTTP_KEEP_BODY_BYTES = 65536, /* a buffer up to here is kept for the next request */
	HTTP_ROOM_MIN = 4096,
	HTTP_ROOM_MAX = 65536,
	HTTP_RATIO_FREE = 1 << 20,
	HTTP_MAX_RATIO = 200,
};

static struct {
	atomic_uint_least64_t used, max;
} http_memory = {.max = 256u << 20};

/* --- the memory of all bodies --- */

void http_set_body_memory(uint64_t max_bytes)
{
	atomic_store_explicit(&http_memory.max, max_bytes, memory_order_relaxed);
}

uint64_t http_body_memory(void)
{
	return atomic_load_explicit(&http_memory.used, memory_order_relaxed);
}

static bool http_memory_fits(uint64_t used, uint64_t n_bytes)
{
	uint64_t max = atomic_load_explicit(&http_memory.max, memory_order_relaxed);
	return used <= max && n_bytes <= max - used;
}

bool http_memory_has(uint64_t n_bytes)
{
	return http_memory_fits(http_body_memory(), n_bytes);
}

bool http_memory_take(uint64_t n_bytes)
{
	uint64_t before = atomic_fetch_add_explicit(&http_memory.used, n_bytes, memory_order_relaxed);
	if (http_memory_fits(before, n_bytes))
		return true;
	atomic_fetch_sub_explicit(&http_memory.used, n_bytes, memory_order_relaxed);
	return false;
}

void http_memory_give(uint64_t n_bytes)
{
	if (n_bytes != 0)
		atomic_fetch_sub_explicit(&http_memory.used, n_bytes, memory_order_relaxed);
}

/* --- one body --- */

uint64_t http_body_limit(const struct http_listener *l)
{
	uint64_t max = atomic_load_explicit(&http_memory.max, memory_order_relaxed);
	return l->p.request_body_limit < max ? l->p.request_body_limit : max;
}

uint64_t http_body_wire_limit(enum http_coding c, uint64_t limit)
{
	uint64_t more = limit / 8 + 4096;
	return c == HTTP_CODING_IDENTITY || limit > UINT64_MAX - more ? limit : limit + more;
}

void http_body_begin(struct http_body *b, enum http_coding c, uint64_t limit)
{
	b->limit = limit;
	b->coding = c;
	b->n_received = 0;
	if (c != HTTP_CODING_IDENTITY)
		b->z = http_inflater_get(c);
}

static void http_body_drop_inflater(struct http_body *b)
{
	http_inflater_put(b->z);
	b->z = NULL;
}

void http_body_reset(struct http_body *b)
{
	http_body_drop_inflater(b);
	http_memory_give(b->n_charged);
	b->n_charged = 0;
	if (b->buf.cap > HTTP_KEEP_BODY_BYTES + 1)
		buf_fini(&b->buf);
	buf_clear(&b->buf);
}

void http_body_fini(struct http_body *b)
{
	http_body_reset(b);
	buf_fini(&b->buf);
}

/* Has taken from the common memory what a content of n bytes needs, and the decoder. */
static bool http_body_charge(struct http_body *b, uint64_t n)
{
	uint64_t want = n + (b->z != NULL ? http_inflater_bytes(b->z) : 0);
	if (want <= b->n_charged)
		return true;
	if (!http_memory_take(want - b->n_charged))
		return false;
	b->n_charged = want;
	return true;
}

static int http_body_refuse(const char **why, int status, const char *text)
{
	*why = text;
	return status;
}

static int http_body_no_memory(const char **why)
{
	return http_body_refuse(why, 503, "too many requests are being received");
}

int http_body_reserve(struct http_body *b, size_t n_bytes, const char **why)
{
	if (!http_body_charge(b, b->buf.n + n_bytes))
		return http_body_no_memory(why);
	buf_reserve(&b->buf, n_bytes);
	return H1_MORE;
}

static bool http_body_is_bomb(const struct http_body *b)
{
	return b->buf.n > b->limit ||
	       (b->buf.n > HTTP_RATIO_FREE && b->buf.n / HTTP_MAX_RATIO > b->n_received);
}

/* Room for what is likely to come of n_in bytes. */
static int http_body_make_room(struct http_body *b, size_t n_in, const char **why)
{
	size_t n = n_in > HTTP_ROOM_MAX / 4 ? HTTP_ROOM_MAX : n_in * 4;
	if (b->buf.cap > b->buf.n + 1)
		return H1_MORE;
	if (n < HTTP_ROOM_MIN)
		n = HTTP_ROOM_MIN;
	if (n > b->limit + 1 - b->buf.n) /* one more than allowed, to see that there is more */
		n = (size_t)(b->limit + 1 - b->buf.n);
	return http_body_reserve(b, n, why);
}

static int http_body_inflate(struct http_body *b, str_t in, const char **why)
{
	for (;;) {
		size_t n_used = 0;
		int rc = http_body_make_room(b, in.n, why);
		if (rc != H1_MORE)
			return rc;
		if (http_inflate(b->z, in, &n_used, &b->buf) != 0) {
			snprintf(b->why, sizeof(b->why), "%s", err_text());
			err_clear();
			return http_body_refuse(why, 400, b->why);
		}
		in = str_skip(in, n_used);
		if (http_body_is_bomb(b))
			return http_body_refuse(why, 413, HTTP_TOO_LARGE);
		if (!http_body_charge(b, b->buf.n)) /* the decoder has taken a window */
			return http_body_no_memory(why);
		if (in.n == 0 && b->buf.n + 1 < b->buf.cap)
			return H1_MORE;
	}
}

int http_body_add(struct http_body *b, str_t in, const char **why)
{
	b->n_received += in.n;
	if (in.n == 0)
		return H1_MORE;
	if (b->z != NULL) {
		if (b->n_received > http_body_wire_limit(b->coding, b->limit))
			return http_body_refuse(why, 413, HTTP_TOO_LARGE);
		return http_body_inflate(b, in, why);
	}
	if (in.n > b->limit - b->buf.n)
		return http_body_refuse(why, 413, HTTP_TOO_LARGE);
	int rc = http_body_reserve(b, in.n, why);
	if (rc == H1_MORE)
		buf_add_str(&b->buf, in);
	return rc;
}

int http_body_end(struct http_body *b, const char **why)
{
	if (b->z == NULL)
		return H1_DONE;
	bool is_complete = b->n_received == 0 || http_inflater_is_complete(b->z);
	http_body_drop_inflater(b);
	if (b->n_charged > b->buf.n) {
		http_memory_give(b->n_charged - b->buf.n);
		b->n_charged = b->buf.n;
	}
	if (is_complete)
		return H1_DONE;
	str_t name = http_coding_name(b->coding);
	snprintf(b->why, sizeof(b->why), "the request body is not valid " STR_FMT ": it ends too early",
		 STR_ARG(name));
	return http_body_refuse(why, 400, b->why);
}
