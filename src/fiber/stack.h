/* stack.h - the memory of fiber stacks. Private to src/fiber. Any thread; no state. */
#pragma once

#include "fiber/switch.h"

#define STACK_GUARD_BYTES ((size_t)16 * 1024) /* more than one frame, so that no frame can step over it */
#if defined(SWITCH_HAS_ASAN) || defined(SWITCH_HAS_TSAN)
#define STACK_BYTES ((size_t)1024 * 1024) /* instrumented frames are several times larger */
#else
#define STACK_BYTES ((size_t)256 * 1024)
#endif

/** A mapping of STACK_GUARD_BYTES that fault, then
 * STACK_BYTES of zeroes. Panics when the system has no more. */
char *stack_map(void);
void stack_unmap(char *map);
/** Gives the pages below `keep_from` back to the system; what is above keeps its content. */
void stack_trim(char *map, const void *keep_from);
static inline bool stack_is_guard(const char *map, const void *addr)
{
	return (uintptr_t)addr >= (uintptr_t)map && (uintptr_t)addr < (uintptr_t)map + STACK_GUARD_BYTES;
}

/** Reports a fault in the guard of the running fiber's stack as a stack overflow, by the fiber's name, before
 * the process dies of it. Other faults go where they went before. overflow_install: once per process, before
 * the workers start; the other two: by each worker thread, at its start and end. */
void overflow_install(void);
void overflow_thread_init(void);
void overflow_thread_fini(void);
