/* bind.c - the bindings of the language itself, together. */
#include "bind/bind.h"

#include "policy/policy.h"

void bind_register_core(void)
{
	bind_register_kumo();
	bind_register_memoize();
	bind_register_serde();
	bind_register_dns();
	bind_register_time();
	bind_register_message();
	bind_register_mime();
	policy_serve_keysources();
}
