/* body.h - the bytes of a message: immutable, refcounted
 * (atomically), shared by every recipient of a batch. */
#pragma once

#include "base/str.h"

#include <stdatomic.h>

struct body {
	_Atomic uint32_t refs;
	_Atomic uint8_t eight_bit; /* body_is_8bit: 0 not looked at, 1 no, 2 yes */
	size_t n_bytes;
	char p[]; /* n_bytes, CRLF lines, then a NUL */
};

struct body *body_new(str_t bytes);	 /* copies; one reference */
struct body *body_alloc(size_t n_bytes); /* to be filled by the caller before it is shared */
struct body *body_ref(struct body *b);
void body_unref(struct body *b); /* NULL is fine; any thread */
/** Whether it has bytes over 127; looks once. */
bool body_is_8bit(struct body *b);
/** Bytes held by all bodies in memory: the queues shed bodies over their budget. */
size_t body_total_bytes(void);
