/* secret.c - bytes that are wiped. The block is allocated once at its final size, since a reallocation would
 * leave a copy behind; a buffer that has to grow moves to a new block and wipes the old one. What libraries
 * copy into memory of their own is beyond our reach: this narrows the window, it does not close it. */
#include "base/secret.h"

#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>

#define SECRET_BUF_FIRST 1024

struct secret {
	atomic_uint n_refs;
	size_t n;
	char p[]; /* and a NUL */
};

struct secret *secret_new(str_t bytes)
{
	struct secret *s = xmalloc(sizeof(*s) + bytes.n + 1);
	atomic_init(&s->n_refs, 1);
	s->n = bytes.n;
	if (bytes.n > 0)
		memcpy(s->p, bytes.p, bytes.n);
	s->p[bytes.n] = 0;
	return s;
}

struct secret *secret_from_buf(struct buf *b)
{
	struct secret *s = secret_new(buf_str(b));
	secret_buf_fini(b);
	return s;
}

struct secret *secret_ref(const struct secret *s)
{
	struct secret *mine = (struct secret *)(uintptr_t)s;
	atomic_fetch_add_explicit(&mine->n_refs, 1, memory_order_relaxed);
	return mine;
}

void secret_unref(const struct secret *s)
{
	struct secret *mine = (struct secret *)(uintptr_t)s;
	if (s == NULL || atomic_fetch_sub_explicit(&mine->n_refs, 1, memory_order_acq_rel) != 1)
		return;
	secret_wipe(mine->p, mine->n);
	free(mine);
}

str_t secret_bytes(const struct secret *s)
{
	return str_mk(s->p, s->n);
}

bool secret_eq(const struct secret *s, str_t given)
{
	unsigned char diff = 0;
	if (s->n != given.n)
		return false;
	for (size_t i = 0; i < s->n; i++)
		diff |= (unsigned char)(s->p[i] ^ given.p[i]);
	return diff == 0;
}

void secret_wipe(void *p, size_t n_bytes)
{
	if (n_bytes > 0)
		explicit_bzero(p, n_bytes);
}

void secret_buf_fini(struct buf *b)
{
	secret_wipe(b->p, b->cap);
	buf_fini(b);
}

void secret_buf_add(struct buf *b, str_t bytes)
{
	if (b->cap < b->n + bytes.n + 1) {
		struct buf bigger = BUF_INIT;
		size_t n_wanted = b->cap > 0 ? b->cap * 2 : SECRET_BUF_FIRST;
		buf_reserve(&bigger, n_wanted > b->n + bytes.n ? n_wanted : b->n + bytes.n);
		buf_add(&bigger, b->p, b->n);
		secret_buf_fini(b);
		*b = bigger;
	}
	buf_add(b, bytes.p, bytes.n);
}
