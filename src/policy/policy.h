/* policy.h - the policy file and its events. A Lua state is made by running the whole
 * file; it is used by one fiber at a time and goes back to the worker's pool after a call
 * that succeeded or was refused. Compiled chunks are shared by all states. Lua runs only
 * under lua_pcall. Functions called by Lua may yield the fiber: fibers are stackful. */
#pragma once

#include "base/clock.h"
#include "base/err.h"
#include "mail/message.h"

#include <lua.h>

struct policy_params {
	const char *file;
	bool is_validating;  /* global _VALIDATING_CONFIG */
	const char *version; /* kumo.version */
};
/** Registers what a fresh state gets (bind_*.c, before policy_start). Called for each new state with the
 * `kumo` table on top. */
typedef void policy_open_fn(lua_State *L);
void policy_add_library(policy_open_fn *fn);

/** Reads and compiles the file and runs it once. -1 ERR_LUA with the message, file, line. From a fiber. */
MUST_CHECK int policy_start(const struct policy_params *p);
/** Frees the states of all workers; after the last call. From a fiber (it waits until each worker has let go
 * of its own), or from any thread once the workers are gone. */
void policy_stop(void);
bool policy_is_validating(void);
/** kumo.validation_failed() was called. */
bool policy_is_validation_failed(void);
void policy_set_validation_failed(void);
/** Re-reads the file for states made from now on; older states are not reused. It is run once first: a file
 * that does not compile, or fails when it is run (within 30 s), is logged, and all stays as it was. Any
 * thread; in a fiber it yields. */
void policy_bump_epoch(void);
uint64_t policy_epoch(void);
typedef void policy_epoch_fn(void *arg, uint64_t epoch);
void policy_on_epoch(policy_epoch_fn *fn, void *arg); /* called on the bumping thread */

void policy_set_max_age(dur_t age);
void policy_set_max_uses(uint32_t n);
void policy_set_max_spares(uint32_t n);
void policy_set_gc_on_put(uint8_t pct);

/** True when a handler is registered: the fast way past events that nobody handles. */
bool policy_has_handler(const char *event);

/** What is to become of an SMTP session after ERR_REJECT: kumo.reject sends the reply and goes on (a 421
 * closes). */
enum policy_reject_mode {
	POLICY_REJECT,
	POLICY_DISCONNECT_IF_421,
	POLICY_DISCONNECT_FOLLOW_421,
	POLICY_DISCONNECT_FORCE
};

/** Calling an event. begin takes a state (L); push the arguments on c.L, then run, read the results from the
 * stack (they start at index c.result_idx), and end in every case after a begin that returned 1. There is
 * room for 32 arguments and results. Messages that were pushed are let go at the end: a policy that keeps one
 * finds it empty. */
struct policy_call {
	lua_State *L;
	struct policy_state *state;
	const char *event; /* the caller's; valid until the end */
	int base;	   /* stack height before the arguments */
	int result_idx;
	bool is_failed;
	enum policy_reject_mode reject_mode; /* after ERR_REJECT */
	void *metrics;			     /* event.c's */
};
/** 1: a handler exists; 0: none (nothing to end); -1: no state could be made (ERR_LUA...). Yields. */
MUST_CHECK int policy_call_begin(struct policy_call *c, const char *event, mono_t deadline);
/** Runs the handlers in order of registration. 1: handled, n_results values (padded
 * with nil) are on the stack; 0: every handler passed (returned no value); -1
 * ERR_LUA with traceback, ERR_REJECT from kumo.reject, ERR_TIMEOUT... Yields. */
MUST_CHECK int policy_call_run(struct policy_call *c, int n_args, int n_results, mono_t deadline);
void policy_call_end(struct policy_call *c);
/** From now on a KeySource {event_name, event_args} asks the handler of that event. */
void policy_serve_keysources(void);
/** Calls `event` with no arguments and no result. 0 also when unhandled. */
MUST_CHECK int policy_fire(const char *event, mono_t deadline);

/* --- for bindings --- */
struct policy_state *policy_state_of(lua_State *L);
/** The event being run in this state, or NULL while the file itself is run. */
const char *policy_current_event(lua_State *L);
/** The deadline of the call in hand: what a binding that yields must honour. */
mono_t policy_deadline(lua_State *L);
/** Raises "kumo.X must be called from the `init` event (called from ...)" unless the current event is
 * pre_init or init. */
void policy_require_init(lua_State *L, const char *function);
/** Raises the error in the slot as a Lua error with position, unless it begins with "deserialize error: ";
 * ERR_REJECT keeps its code through pcall. Does not return. */
int policy_raise(lua_State *L);
/** The error object of kumo.reject (mode NULL) / kumo.disconnect (one of its documented words, else -1
 * ERR_INVALID). Raises unless it returns -1. */
int policy_raise_reject(lua_State *L, int code, str_t text, const char *mode);
/** Pushes "FILE:LINE: " of the innermost Lua function, or "". */
void policy_push_where(lua_State *L);
/** Registers the function at fn_idx for the event whose name
 * is at name_idx; raises where that is not allowed. */
void policy_register_handler(lua_State *L, int name_idx, int fn_idx);
/** Pushes who registered the event (an array of arrays of "FILE:LINE"), or nil. */
void policy_push_registrars(lua_State *L, const char *event);

/** Something a binding owns while it makes Lua calls that may raise: a userdata whose collection calls
 * free_fn(*box). Ask for it before acquiring, store the thing, and let policy_box_free release it as soon as
 * it is done with. */
void **policy_box(lua_State *L, void (*free_fn)(void *));
void policy_box_free(void **box);
/** A buf in such a box, released with it. */
struct buf *policy_box_buf(lua_State *L);
/** Reads a whole file of at most max_bytes on an offload thread. Yields. -1 ERR_IO, ERR_LIMIT ... */
MUST_CHECK int policy_read_file(const char *path, size_t max_bytes, struct buf *out, mono_t deadline);

/** A message as a policy sees it: userdata `Message`, holding a reference. Its methods are added to the class
 * table by bind_message.c: policy_push_message_class pushes the method table. */
void policy_push_message(lua_State *L, struct message *m);
/** The same, but the policy may only look at it: for events whose caller holds on to parts of it. */
void policy_push_message_to_read(lua_State *L, struct message *m);
struct message *policy_check_message(lua_State *L, int idx); /* raises */
/** For a method that changes the message: also raises for one that may only be looked at. */
struct message *policy_check_message_to_edit(lua_State *L, int idx);
/** Takes the message out of the value at idx, which somebody else owns from now on: further use raises `why`,
 * which is static. */
void policy_forget_message(lua_State *L, int idx, const char *why);
void policy_push_message_class(lua_State *L);
/** How the metadata come back of a message that message:shrink has made let go of them: with its next use,
 * and at the latest when the call is over, for whoever has it then. load yields; -1 with the error set. */
typedef int policy_load_meta_fn(struct message *m, mono_t deadline);
void policy_set_meta_loader(policy_load_meta_fn *load);
