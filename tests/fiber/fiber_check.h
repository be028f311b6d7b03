/* fiber_check.h - asserting inside fibers. cmocka's own assertions jump
 * back into the main thread's stack, which a worker must not do; a failed
 * CHECK names the place and aborts the program, which is a failed test. */
#pragma once

#include "base/err.h"
#include "fiber/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CHECK(cond) check_that((cond), __FILE__, __LINE__, #cond)
static inline void check_that(bool is_true, const char *file, int line, const char *text)
{
	if (is_true)
		return;
	fprintf(stderr, "%s:%d: CHECK(%s) failed; error slot: %s\n", file, line, text, err_text());
	abort();
}

/* The call failed with this kind of error, which is consumed. */
#define CHECK_FAILS(call, kind) check_fails((call), (kind), __FILE__, __LINE__, #call)
static inline void check_fails(int rc, enum err_kind kind, const char *file, int line, const char *text)
{
	if (rc != -1 || !err_is(kind)) {
		fprintf(stderr, "%s:%d: %s returned %d (%s), not %s\n", file, line, text, rc, err_text(),
			err_kind_name(kind));
		abort();
	}
	err_clear();
}

/* Instrumented programs get smaller crowds. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECK_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CHECK_IS_SANITIZED 1
#endif
#endif
#ifndef CHECK_IS_SANITIZED
#define CHECK_IS_SANITIZED 0
#endif
