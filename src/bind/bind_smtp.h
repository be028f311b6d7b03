/* bind_smtp.h - kumo.start_esmtp_listener, kumo.make_listener_domain, the connection object, and the
 * listeners that the policy's init has opened. */
#pragma once

#include "base/clock.h"

/** Registers them; before policy_start. */
void bind_register_smtp(void);
/** The ports are bound during init and accept from here on. From a fiber. */
void smtp_listeners_start_all(void);
/** Those that wait for a client begin to end. */
void smtp_listeners_stop_all(void);
/** After that: closes them one after another. From the fiber's worker that opened them. Yields. */
void smtp_listeners_close_all(mono_t deadline);
