/* overflow.c - SIGSEGV and SIGBUS on a worker. When the address lies in the guard of the running fiber's
 * stack, one line on stderr names the fiber, and the process dies of the signal. Any other fault is handed to
 * whatever handled the signal before us (a sanitizer, or the default action) by restoring that and letting
 * the instruction fault again, so the core file shows the true place.
 *
 * The handler needs a stack of its own, since the fiber's is used up: one per worker thread. AddressSanitizer
 * gives each thread one already and unmaps whatever it finds there at the thread's end, so a stack that is in
 * place is used and left alone. */
#include "fiber/fiber_impl.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define OVERFLOW_STACK_BYTES ((size_t)64 * 1024)

static struct sigaction overflow_old_segv, overflow_old_bus;
static _Thread_local void *overflow_stack;

/* Appends z at *at; for a signal handler, so no stdio. */
static void overflow_append(char *line, size_t cap, size_t *at, const char *z)
{
	while (*z != 0 && *at < cap)
		line[(*at)++] = *z++;
}

static void overflow_report(const struct worker *w, const struct fiber *f)
{
	char line[128], digits[12];
	size_t n = 0, d = sizeof(digits) - 1;
	unsigned v = w->index;
	digits[d] = 0;
	do {
		digits[--d] = (char)('0' + v % 10);
		v /= 10;
	} while (v != 0);
	overflow_append(line, sizeof(line), &n, "stack overflow in fiber `");
	overflow_append(line, sizeof(line), &n, f->name);
	overflow_append(line, sizeof(line), &n, "` on worker-");
	overflow_append(line, sizeof(line), &n, digits + d);
	overflow_append(line, sizeof(line), &n, "\n");
	if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere to say it */
}

static void overflow_on_fault(int sig, siginfo_t *si, void *context UNUSED)
{
	struct worker *w = worker_self();
	struct fiber *f = w != NULL ? w->running : NULL;
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	bool is_overflow = f != NULL && si->si_code > 0 && stack_is_guard(f->stack_map, si->si_addr);

	if (is_overflow)
		overflow_report(w, f);
	sigaction(sig, is_overflow ? &dfl : sig == SIGBUS ? &overflow_old_bus : &overflow_old_segv, NULL);
	if (si->si_code <= 0) /* sent by kill(): nothing will fault again */
		raise(sig);
}

void overflow_install(void)
{
	static bool is_installed;
	struct sigaction sa = {.sa_sigaction = overflow_on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	if (is_installed)
		return;
	sigemptyset(&sa.sa_mask);
	if (sigaction(SIGSEGV, &sa, &overflow_old_segv) != 0 ||
	    sigaction(SIGBUS, &sa, &overflow_old_bus) != 0)
		panic("sigaction: %s", strerror(errno));
	is_installed = true;
}

void overflow_thread_init(void)
{
	stack_t now, ours = {.ss_size = OVERFLOW_STACK_BYTES};

	if (sigaltstack(NULL, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0)
		return;
	overflow_stack =
		mmap(NULL, OVERFLOW_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (overflow_stack == MAP_FAILED)
		panic("no memory for a signal stack: %s", strerror(errno));
	ours.ss_sp = overflow_stack;
	if (sigaltstack(&ours, NULL) != 0)
		panic("sigaltstack: %s", strerror(errno));
}

void overflow_thread_fini(void)
{
	stack_t off = {.ss_flags = SS_DISABLE};

	if (overflow_stack == NULL)
		return;
	sigaltstack(&off, NULL);
	munmap(overflow_stack, OVERFLOW_STACK_BYTES);
	overflow_stack = NULL;
}
