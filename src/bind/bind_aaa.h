/* bind_aaa.h - kumo.aaa: access control and the accounting log. */
#pragma once

/** Registers the namespace; before policy_start. */
void bind_register_aaa(void);
