/* bind_inject.h - kumo.api.inject and the limits of injection. */
#pragma once

/** Registers the functions; before policy_start. */
void bind_register_inject(void);
