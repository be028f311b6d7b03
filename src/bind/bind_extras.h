/* bind_extras.h - policy-extras: helpers in Lua that ship with cirrusd. */
#pragma once

void bind_register_extras(void);
