/* body.c - message bodies. The count of bytes held is kept in one relaxed counter: it steers memory shedding,
 * so being a few bodies behind on another core does not matter. */
#include "mail/body.h"

#include "base/alloc.h"

#include <stdlib.h>

static _Atomic size_t body_bytes_held;

struct body *body_alloc(size_t n_bytes)
{
	struct body *b = xmalloc(sizeof *b + n_bytes + 1);
	atomic_init(&b->refs, 1);
	atomic_init(&b->eight_bit, 0);
	b->n_bytes = n_bytes;
	b->p[n_bytes] = 0;
	atomic_fetch_add_explicit(&body_bytes_held, n_bytes, memory_order_relaxed);
	return b;
}

struct body *body_new(str_t bytes)
{
	struct body *b = body_alloc(bytes.n);
	if (bytes.n > 0)
		memcpy(b->p, bytes.p, bytes.n);
	return b;
}

struct body *body_ref(struct body *b)
{
	atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
	return b;
}

void body_unref(struct body *b)
{
	if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
		return;
	atomic_fetch_sub_explicit(&body_bytes_held, b->n_bytes, memory_order_relaxed);
#ifdef CIRRUS_DEBUG
	memset(b->p, 0xdd, b->n_bytes);
#endif
	free(b);
}

size_t body_total_bytes(void)
{
	return atomic_load_explicit(&body_bytes_held, memory_order_relaxed);
}

bool body_is_8bit(struct body *b)
{
	uint8_t known = atomic_load_explicit(&b->eight_bit, memory_order_relaxed);
	if (known == 0) {
		known = str_is_ascii(str_mk(b->p, b->n_bytes)) ? 1 : 2;
		atomic_store_explicit(&b->eight_bit, known, memory_order_relaxed);
	}
	return known == 2;
}
