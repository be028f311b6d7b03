/* switch.h - switching between two stacks, with what the sanitizers must be told about it. Private to
 * src/fiber.
 *
 * The switch itself is boost.context's (callee-saved registers, MXCSR and the x87 control
 * word; about 10 ns). Both directions use one call: the context that is left is passed as
 * the datum, so whoever arrives can fill in where it was left. AddressSanitizer has to
 * know the bounds of the stack that is entered and keeps a fake stack per context;
 * ThreadSanitizer keeps a "fiber" per context, else every switch would look like a race. */
#pragma once

#include "base/defs.h"

#if defined(__SANITIZE_ADDRESS__)
#define SWITCH_HAS_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define SWITCH_HAS_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(SWITCH_HAS_ASAN)
#define SWITCH_HAS_ASAN 1
#endif
#if __has_feature(thread_sanitizer) && !defined(SWITCH_HAS_TSAN)
#define SWITCH_HAS_TSAN 1
#endif
#endif

#ifdef SWITCH_HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef SWITCH_HAS_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* The C face of boost.context; the library exports these symbols and ships no C header. */
struct transfer_t {
	void *fctx; /* the context that was left */
	void *data;
};
struct transfer_t jump_fcontext(void *to, void *data);
void *make_fcontext(void *stack_top, size_t size_bytes, void (*entry)(struct transfer_t));

struct context {
	void *fctx;		  /* where to continue; of no meaning while the context runs */
	const void *stack_bottom; /* lowest address; a thread's own stack learns it at its first switch */
	size_t stack_bytes;
	void *asan_fake_stack;
	void *tsan_fiber;
};

/** A context that will run entry() on the given stack. entry
 * starts with context_arrive() and never returns. */
static inline void context_init(struct context *c, void *bottom, size_t n_bytes,
				void (*entry)(struct transfer_t))
{
	*c = (struct context){.stack_bottom = bottom, .stack_bytes = n_bytes};
	c->fctx = make_fcontext((char *)bottom + n_bytes, n_bytes, entry);
#ifdef SWITCH_HAS_TSAN
	c->tsan_fiber = __tsan_create_fiber(0);
#endif
}

/** The context of the calling thread's own stack. */
static inline void context_init_thread(struct context *c)
{
	*c = (struct context){0};
#ifdef SWITCH_HAS_TSAN
	c->tsan_fiber = __tsan_get_current_fiber();
#endif
}

/** For a context made with context_init that will not run again. */
static inline void context_fini(struct context *c)
{
#ifdef SWITCH_HAS_TSAN
	__tsan_destroy_fiber(c->tsan_fiber);
#endif
	c->fctx = NULL;
}

/** The first thing in an entry function; self is the context
 * that was entered. Returns the one that was left. */
static inline struct context *context_arrive(struct context *self UNUSED, struct transfer_t t)
{
	struct context *from = t.data;
	from->fctx = t.fctx;
#ifdef SWITCH_HAS_ASAN
	__sanitizer_finish_switch_fiber(self->asan_fake_stack, &from->stack_bottom, &from->stack_bytes);
#endif
	return from;
}

/** Leaves `from`, which runs, and enters `to`; returns when somebody enters `from` again. is_last: nobody
 * will. */
static inline void context_switch(struct context *from, struct context *to, bool is_last UNUSED)
{
#ifdef SWITCH_HAS_ASAN
	__sanitizer_start_switch_fiber(is_last ? NULL : &from->asan_fake_stack, to->stack_bottom,
				       to->stack_bytes);
#endif
#ifdef SWITCH_HAS_TSAN
	__tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
	context_arrive(from, jump_fcontext(to->fctx, from));
}
