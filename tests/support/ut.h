/* ut.h - what every unit test includes: cmocka and the
 * headers it wants first, and asserts for our own types. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>

/** s holds exactly the text z. */
static inline void assert_str_is_at(str_t s, const char *z, const char *file, int line)
{
	if (s.n == strlen(z) && (s.n == 0 || memcmp(s.p, z, s.n) == 0))
		return;
	print_error("\"" STR_FMT "\" != \"%s\"\n", STR_ARG(s), z);
	_fail(file, line);
}
#define assert_str_is(s, z) assert_str_is_at(s, z, __FILE__, __LINE__)
#define assert_buf_is(b, z) assert_str_is_at(buf_str(b), z, __FILE__, __LINE__)
