/* text.h - encodings of bytes as text. */
#pragma once

#include "base/buf.h"

void base64_encode(struct buf *out, str_t in);               /* standard alphabet, padded */
MUST_CHECK bool base64_decode(struct buf *out, str_t in);    /* strict; out is unspecified on false */
void hex_encode(struct buf *out, str_t in);
/** Percent-decodes %HH ('+' stays); false on a bad escape. */
MUST_CHECK bool percent_decode(struct buf *out, str_t in);
/** CRC-32C (Castagnoli), continuing from crc (0 to start). Uses the CPU's instruction where there is one. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n_bytes);
