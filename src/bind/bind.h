/* bind.h - the policy language over the C modules: one bind_<namespace>.c each, registered here. All before
 * policy_start. */
#pragma once

#include "mail/message.h"
#include "policy/policy.h"

/** The language itself: kumo.on, log_*, reject, serde, dns, time, the message object, its parts and pool
 * settings. */
void bind_register_core(void);

/* What bind_register_core consists of. */
void bind_register_kumo(void);
void bind_register_memoize(void);
void bind_register_serde(void);
void bind_register_dns(void);
void bind_register_time(void);
void bind_register_message(void);
void bind_register_mime(void);

/** kumo.validation_failed() was called: --validate must fail. */
static inline bool bind_validation_has_failed(void)
{
	return policy_is_validation_failed();
}
/** -1 ERR_INVALID when KUMO_AVAILABLE_PARALLELISM is set to what is no number of workers. */
MUST_CHECK int bind_check_parallelism(void);
/** How many threads are worth having: KUMO_AVAILABLE_PARALLELISM, else the affinity mask, bounded by the
 * cgroup's CPU quota. From 1 to WORKERS_MAX. Reads files: not for hot code. */
unsigned bind_available_parallelism(void);

/** How message:get_data gets at a body that is only in the spool. load yields; -1 with the error set. */
typedef int bind_load_body_fn(struct message *m, mono_t deadline);
void bind_message_set_loader(bind_load_body_fn *load);
/** How message:save and its neighbours make durable what has changed. save yields; -1 with the error set. */
typedef int bind_save_fn(struct message *m, mono_t deadline);
void bind_message_set_saver(bind_save_fn *save);
/** Pushes an EnvelopeAddress; text is a mailbox with or without brackets, "" the null sender.
 * Raises. */
void bind_push_address(lua_State *L, str_t text);

/** get_meta(NAME) and set_meta(NAME, VALUE) of whatever has metadata: the arguments are at 2 and 3. Raise. */
int bind_get_meta(lua_State *L, const struct meta *m);
int bind_set_meta(lua_State *L, struct meta *m);
