/* panic.c - the end of the process on a broken invariant. The line goes through the logger first; the
 * backtrace is written by backtrace_symbols_fd, which does not allocate. A panic inside a panic aborts at
 * once. */
#include "base/log.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static __thread bool panic_is_running;

/* backtrace() loads the unwinder, with malloc, at its first call: better now than in a corrupted process. */
static __attribute__((constructor)) void panic_warm_up(void)
{
	void *frame[1];
	backtrace(frame, 1);
}

void panic_at(const char *file, int line, const char *fmt, ...)
{
	char text[1024];
	void *frame[64];
	va_list ap;
	if (panic_is_running)
		abort();
	panic_is_running = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_write(LOG_ERROR, "kumod::panic", "panic at %s:%d: %s", file, line, text);
	backtrace_symbols_fd(frame, backtrace(frame, ARRAY_SIZE(frame)), STDERR_FILENO);
	abort();
}
