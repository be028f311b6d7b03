/* fiber_impl.h - what the files of src/fiber share. Everything in a struct worker belongs to its thread
 * except the groups marked otherwise. */
#pragma once

#include "base/err.h"
#include "fiber/stack.h"
#include "fiber/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FIBER_NAME_BYTES 32 /* with the NUL; zero-padded, see watchdog_slice */

enum fiber_state { FIBER_FREE, FIBER_READY, FIBER_RUNNING, FIBER_WAITING };
enum fiber_wake { WAKE_FIRED, WAKE_TIMEOUT, WAKE_CANCELLED };

/* Lives at the top of its own stack, so that a parked fiber touches one page less. */
struct fiber {
	struct context ctx;
	struct worker *worker;
	struct list link; /* ready queue, or pool while free */
	struct list all_link;
	struct list group_link;
	struct fiber_group *group;
	fiber_fn *fn;
	void *arg;
	uint64_t id;
	struct err err; /* the fiber's error slot */
	char *stack_map;
	const char *wait_kind;	/* static; of the present wait */
	const char *waits_for;	/* static; what the fiber says itself, or NULL */
	uint64_t wait_since_ms; /* of the loop's clock */
	size_t heap_pos;	/* 1-based index in the deadline heap; 0: not in it */
	unsigned shield_depth;
	unsigned no_yield_depth;
	unsigned nesting; /* fiber_nesting */
	enum fiber_state state;
	enum fiber_wake wake; /* why the last wait ended */
	bool is_cancelled;
	bool is_last_run; /* its stack is not kept: no switch back */
	char name[FIBER_NAME_BYTES];
};

struct deadline {
	mono_t at;
	struct fiber *fiber;
};

/* Posts of one turn to one peer, newest first, as the inbox wants them. */
struct outbox {
	struct mail *newest, *oldest;
};

struct worker {
	unsigned index;
	pthread_t thread;
	uv_loop_t loop;
	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle; /* active: the loop must not block, something is ready */
	uv_timer_t timer;
	struct context loop_ctx;

	struct fiber *running;
	struct list ready;
	struct list fibers;	   /* all that are not free */
	struct fiber_group group;  /* fibers started without a group */
	struct fiber_group system; /* our own, not cancelled at stop */
	uint64_t last_id;
	bool is_idle_on;
	bool is_stopping; /* fibers that start in the own group are born cancelled */

	struct list pool_warm, pool_cold; /* free fibers; a cold one has only its top pages */
	size_t n_warm, n_cold, n_mapped;

	struct deadline *heap; /* binary heap, 0-based */
	size_t heap_n, heap_cap;
	int64_t armed_ns; /* what the timer is set for; INT64_MAX: not set */

	struct outbox *out;   /* one per worker */
	size_t n_out;	      /* of them, with something in */
	struct mail *due;     /* taken from the inbox, oldest first */
	bool is_mail_delayed; /* by FAULT(mailbox), for one turn */

	/* Any thread. */
	_Alignas(64) _Atomic(struct mail *) inbox; /* newest first */
	atomic_bool is_polling;			   /* may be blocked in the loop: needs a wake-up */
	atomic_bool is_closed;			   /* the async handle is gone, or not there yet */
	atomic_uint n_wakers;			   /* threads inside mailbox_wake */
	uv_async_t async;
	atomic_size_t n_fibers;	  /* written by the owner */
	atomic_size_t n_incoming; /* placed here by worker_start_fiber, not started yet */
	atomic_bool has_answered; /* at stop, in the first phase */
	struct mail clock_mail;
	atomic_bool is_clock_mailed;

	/* Written by the owner, read by the watchdog. */
	_Alignas(64) atomic_uint_fast64_t slice_seq;
	atomic_uint_fast64_t slice_name[FIBER_NAME_BYTES / 8];

	/* Of the main thread. */
	_Alignas(64) bool is_lost; /* did not answer at stop; its thread was abandoned */
};

/* --- fiber.c --- */
struct fiber *fiber_start_on(struct worker *w, struct fiber_group *g, const char *name, fiber_fn *fn,
			     void *arg);
/** Takes back a fiber whose function has returned; on the loop stack. */
void fiber_release(struct fiber *f);
void fiber_pool_drain(struct worker *w);
/** fiber_wait with a word for fiber_each, used when the fiber said nothing itself. */
MUST_CHECK int fiber_wait_for(struct waiter *w, mono_t deadline, const char *kind);
bool fiber_is_cancel_due(const struct fiber *f); /* cancelled and not shielded: its waits fail */
void fiber_copy_name(char dst[FIBER_NAME_BYTES], const char *name);

/* --- sched.c --- */
void sched_init(struct worker *w); /* handles included; before the thread starts */
void sched_close_handles(struct worker *w);
void sched_fini(struct worker *w);
/** Suspends the running fiber f until sched_wake. */
enum fiber_wake sched_wait(struct fiber *f, mono_t deadline, const char *kind);
/** Makes f ready when it waits; else does nothing. */
void sched_wake(struct fiber *f, enum fiber_wake why);
void sched_make_ready(struct fiber *f);
/** Leaves the running fiber's stack for the loop's. */
void sched_leave(struct fiber *f);
void sched_expire(struct worker *w);

/* --- mailbox.c --- */
void mailbox_init(struct worker *w, unsigned n_workers);
void mailbox_fini(struct worker *w);
void mailbox_close(struct worker *w); /* no wake-up is sent any more when it returns */
void mailbox_drain(struct worker *w);
void mailbox_flush(struct worker *w);
bool mailbox_has_mail(struct worker *w);
/** Says that the loop may block from now on; false: mail is there, it must not. */
bool mailbox_begin_poll(struct worker *w);
void mailbox_end_poll(struct worker *w);
/** Drops what was never delivered, once no thread posts any more. */
void mailbox_reap(struct worker *w);

/* --- event.c --- */
mail_fn event_deliver;

/* --- watchdog.c --- */
void watchdog_start(unsigned n_workers);
void watchdog_stop(void);
/** What the worker runs, as published; empty: its loop. Any thread. */
void watchdog_read_name(struct worker *w, char name[FIBER_NAME_BYTES]);
extern const char watchdog_loop_name[FIBER_NAME_BYTES];
extern const char watchdog_poll_name[FIBER_NAME_BYTES];

/* The name of what runs, without a new slice. Words, not a pointer: the watchdog reads it at any time, and
 * the fiber's memory may be gone by then. */
static inline void watchdog_set_name(struct worker *w, const char *name)
{
	uint64_t word[FIBER_NAME_BYTES / 8];
	memcpy(word, name, sizeof(word));
	for (size_t i = 0; i < ARRAY_SIZE(word); i++)
		atomic_store_explicit(&w->slice_name[i], word[i], memory_order_relaxed);
}

/* A slice starts. No clock is read here: the watchdog measures from when it first sees the number. */
static inline void watchdog_slice(struct worker *w, const char *name)
{
	watchdog_set_name(w, name);
	uint64_t seq = atomic_load_explicit(&w->slice_seq, memory_order_relaxed);
	atomic_store_explicit(&w->slice_seq, seq + 1, memory_order_release);
}

/* --- worker.c --- */
mail_fn worker_start_arrived;
extern struct worker workers_all[WORKERS_MAX];
/** A thread of the runtime's own, with every asynchronous signal blocked: those are for the application's
 * threads. */
MUST_CHECK int worker_thread_create(pthread_t *t, void *(*fn)(void *), void *arg);
void worker_cond_init(pthread_cond_t *c); /* on CLOCK_MONOTONIC */
