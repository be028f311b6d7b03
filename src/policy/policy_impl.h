/* policy_impl.h - what the files of the Lua runtime share. Who touches what: a state belongs to the fiber
 * that took it from its pool, a pool to its worker; struct policy is guarded by its lock, but for the
 * atomics. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "base/metric.h"
#include "policy/policy.h"

#include <pthread.h>
#include <stdatomic.h>

/* --- chunk.c: compiled source --- */
struct chunk {
	_Atomic uint32_t refs;
	char *key; /* of the module cache; NULL for the policy file */
	size_t key_bytes;
	char *path;
	size_t n_bytes;
	char *code; /* of lua_dump */
};
/** Reads and compiles a file; a reference. NULL: ERR_IO, or ERR_LUA "syntax error: FILE:LINE: ...". Blocks on
 * the disk. */
MUST_CHECK struct chunk *chunk_new(const char *path);
void chunk_unref(struct chunk *c);
/** Pushes the chunk's function. */
MUST_CHECK int chunk_push(const struct chunk *c, lua_State *L);
/** Modules of the current epoch by how they were asked for. A reference, or NULL. */
struct chunk *chunk_cache_find(str_t key);
/** Adds c under a key, unless the epoch has moved on or somebody was faster. Takes its own reference. */
void chunk_cache_add(struct chunk *c, str_t key, uint64_t epoch);
void chunk_cache_clear_locked(void);

/* --- vm.c: one state --- */
struct policy_state {
	lua_State *L;
	struct policy_state *next; /* in the pool */
	const char *event;	   /* being handled; NULL: the file itself is run, or nothing */
	mono_t born;
	mono_t deadline; /* of the call in hand */
	uint64_t epoch;
	uint32_t n_uses;
	bool is_overrun;      /* its deadline passed while Lua ran: not to be used again */
	bool is_trial;	      /* of vm_try: modules come from the disk, not from the cache */
	size_t n_bytes;	      /* held by Lua */
	struct list messages; /* struct message_box of the call in hand */
};
/** Runs the whole policy file in a new state. NULL: ERR_LUA, ERR_TIMEOUT, ERR_CANCELLED. Yields when the file
 * does. */
MUST_CHECK struct policy_state *vm_new(mono_t deadline);
/** Runs a policy file that is not in use yet, with its
 * modules as they are on disk now: 0, or -1 as vm_new. */
MUST_CHECK int vm_try(const struct chunk *main, mono_t deadline);
void vm_free(struct policy_state *st);
/** The message handler of every pcall: adds "runtime error: " and a traceback, leaves kumo.reject's object
 * alone. */
int vm_on_error(lua_State *L);
/** Turns the error value on the stack into the error slot, and pops it. */
void vm_take_error(struct policy_state *st, enum policy_reject_mode *mode);
void vm_set_current_event(struct policy_state *st, const char *event);

/* --- pool.c: the spare states of a worker --- */
/** A spare state, or a new one as vm_new makes it. */
MUST_CHECK struct policy_state *pool_take(mono_t deadline);
void pool_put(struct policy_state *st, bool is_reusable);
void pool_start(void);
void pool_stop(void);

/* --- event.c: who handles what --- */
struct handler_metrics {
	char *event;
	struct metric_series *started, *latency;
};
struct handler_set {
	struct handler_set *older; /* kept until policy_stop: somebody may be reading them */
	size_t n;
	struct handler_metrics item[]; /* sorted by event */
};
/** Takes the registrations of a fresh state as those of its epoch. */
void handlers_publish(struct policy_state *st);
void handlers_stop(void);
void handlers_open(lua_State *L); /* makes the tables of registrations */

/* --- message_object.c --- */
struct message_box {
	struct list link;    /* of policy_state.messages */
	struct message *msg; /* NULL once the call is over */
	bool is_read_only;
	const char *why_gone; /* static; NULL: the call is over */
};
/** Makes whole those that somebody else has, too. Yields. Keeps the error unless it fails itself. */
MUST_CHECK int message_boxes_complete(struct policy_state *st, mono_t deadline);
void message_boxes_release(struct policy_state *st);

/* --- policy.c --- */
#define POLICY_LIBRARIES_MAX 64
struct policy {
	pthread_mutex_t lock;
	bool is_started, is_validating;
	wall_t loaded;		    /* when the file was read at the start */
	char *file, *dir, *version; /* fixed while started */
	struct chunk *main;	    /* of this epoch */
	struct map modules;	    /* key -> struct chunk */
	policy_open_fn *library[POLICY_LIBRARIES_MAX];
	size_t n_libraries;
	_Atomic uint64_t epoch;
	_Atomic(struct handler_set *) handlers;
	_Atomic uint64_t handlers_epoch; /* the epoch they are known for */
	_Atomic int64_t max_age_ns;
	_Atomic uint32_t max_uses, max_spares, gc_pct;
};
extern struct policy policy_self;
struct policy_metrics {
	struct metric_series *states, *loads, *spares;
	struct metric *started, *latency;
};
const struct policy_metrics *policy_metrics(void);
/** The policy file's chunk and the epoch it belongs to. */
struct chunk *policy_main_chunk(uint64_t *epoch);
