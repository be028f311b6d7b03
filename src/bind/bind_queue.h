/* bind_queue.h - the functions that describe queues and ways out. */
#pragma once

/** Registers them; before policy_start. */
void bind_register_queue(void);
