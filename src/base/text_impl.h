/* text_impl.h - the two ways text.c computes CRC-32C, for the test that compares them. */
#pragma once

#include "base/text.h"

uint32_t crc32c_by_table(uint32_t crc, const void *p, size_t n_bytes);
/** The CPU's own; false when it has none. */
bool crc32c_by_cpu(uint32_t *crc, const void *p, size_t n_bytes);
