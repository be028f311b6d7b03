/* uuid.h - RFC 4122 identifiers. Version 1 for messages (its time stamp is the message's creation time),
 * version 4 for sessions and rules. Thread-safe; ids of one process are unique and version-1 ids never repeat
 * a time stamp. */
#pragma once

#include "base/clock.h"

struct uuid {
	uint8_t b[16];
};

struct uuid uuid_new_v1(void); /* node: MAC of the first non-loopback interface, else a random node */
struct uuid uuid_new_v4(void);
wall_t uuid_v1_time(const struct uuid *u); /* 100 ns resolution */
/** 32 lower-case hex digits without dashes, and a NUL. */
void uuid_fmt_simple(const struct uuid *u, char out[33]);
/** 8-4-4-4-12. */
void uuid_fmt_dashed(const struct uuid *u, char out[37]);
/** Either form. */
bool uuid_parse(str_t s, struct uuid *out);
static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, 16) == 0;
}

void random_bytes(void *p, size_t n_bytes); /* from the kernel */
/** Uniform in [0, bound), cheap, not for secrets. */
uint64_t random_below(uint64_t bound);
