/* bind_http.h - kumo.start_http_listener, and the listeners that the policy's init has opened. */
#pragma once

#include "base/clock.h"

/** Registers the function; before policy_start. */
void bind_register_http(void);
/** The ports are bound during init and accept from here on. From a fiber. */
void http_listeners_start_all(void);
/** Stops them all, then closes them one after another (http_listener_close). From the fiber's worker that
 * opened them. Yields. */
void http_listeners_close_all(mono_t deadline);
