/* bind_inject_message.h - kumo.inject_message: a policy's own messages into the queues. */
#pragma once

/** Registers the function; before policy_start. */
void bind_register_inject_message(void);
/** Why no mail is taken now, or NULL: asked before each injection. Without it none is taken: the queues do
 * not run yet. Set once they do; any thread may call why_not. */
void bind_inject_message_set_gate(const char *(*why_not)(void));
