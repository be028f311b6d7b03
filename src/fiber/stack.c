/* stack.c - stacks come from mmap: 256 KB that cost only the pages touched, above a guard.
 *
 * The guard is made with MADV_GUARD_INSTALL where the kernel has it (Linux 6.13): it does not split the
 * mapping, so neighbouring stacks merge and the number of fibers is not bounded by vm.max_map_count. Merged
 * stacks could be backed by huge pages, which would make each fiber cost 2 MB; MADV_NOHUGEPAGE prevents it.
 * Older kernels get mprotect, which costs two mappings a stack (about 32,000 fibers with the default of that
 * sysctl).
 *
 * LeakSanitizer does not know these mappings; each is registered as a root, else what only a suspended fiber
 * points to would be called leaked. */
#include "fiber/stack.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static atomic_bool stack_has_no_guard_advice;

static int stack_guard(char *map)
{
	if (!atomic_load_explicit(&stack_has_no_guard_advice, memory_order_relaxed)) {
		if (madvise(map, STACK_GUARD_BYTES, MADV_GUARD_INSTALL) == 0) {
			madvise(map, STACK_GUARD_BYTES + STACK_BYTES, MADV_NOHUGEPAGE);
			return 0;
		}
		atomic_store_explicit(&stack_has_no_guard_advice, true, memory_order_relaxed);
	}
	return mprotect(map, STACK_GUARD_BYTES, PROT_NONE);
}

char *stack_map(void)
{
	char *map = mmap(NULL, STACK_GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (map == MAP_FAILED || stack_guard(map) != 0)
		panic("no memory for a fiber's stack: %s (each takes up to two of vm.max_map_count)",
		      strerror(errno));
#ifdef SWITCH_HAS_ASAN
	ASAN_UNPOISON_MEMORY_REGION(map, STACK_GUARD_BYTES + STACK_BYTES);
	__lsan_register_root_region(map + STACK_GUARD_BYTES, STACK_BYTES);
#endif
	return map;
}

void stack_unmap(char *map)
{
#ifdef SWITCH_HAS_ASAN
	__lsan_unregister_root_region(map + STACK_GUARD_BYTES, STACK_BYTES);
	ASAN_UNPOISON_MEMORY_REGION(map, STACK_GUARD_BYTES + STACK_BYTES);
#endif
	if (munmap(map, STACK_GUARD_BYTES + STACK_BYTES) != 0)
		panic("munmap of a fiber's stack: %s", strerror(errno));
}

void stack_trim(char *map, const void *keep_from)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	size_t n = (size_t)((const char *)keep_from - map) & ~(page_bytes - 1);
	if (n > STACK_GUARD_BYTES)
		madvise(map + STACK_GUARD_BYTES, n - STACK_GUARD_BYTES, MADV_DONTNEED);
}
