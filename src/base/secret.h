/* secret.h - bytes that must not be seen: keys, passwords, tokens. Immutable, shared by reference count,
 * wiped when the last reference goes. The struct is opaque so that no format can print one; who asks for the
 * bytes answers for where they go. Any thread. */
#pragma once

#include "base/buf.h"

struct secret;

struct secret *secret_new(str_t bytes); /* copies */
/** The buffer's bytes; the buffer is wiped and empty after. */
struct secret *secret_from_buf(struct buf *b);
struct secret *secret_ref(const struct secret *s);
void secret_unref(const struct secret *s); /* NULL is fine */
/** Borrowed: valid while the reference is held. A NUL follows. */
str_t secret_bytes(const struct secret *s);
/** Takes a time that depends on the lengths only. */
bool secret_eq(const struct secret *s, str_t given);

/** Overwrites, also where the compiler would see no use in it. */
void secret_wipe(void *p, size_t n_bytes);
/** buf_fini and buf_add for a buffer that holds something secret: what it held before is wiped. */
void secret_buf_fini(struct buf *b);
void secret_buf_add(struct buf *b, str_t bytes);
