/* bind_logs.h - the functions that configure record logs. */
#pragma once

/** Registers them; before policy_start. */
void bind_register_logs(void);
