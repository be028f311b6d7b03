/* bind_logs.c - kumo.configure_local_logs { log_dir, ... } (record/record.h). */
#include "bind/bind_logs.h"

#include "base/err.h"
#include "policy/policy.h"
#include "record/record.h"

#include <lauxlib.h>

static int configure_local_logs(lua_State *L)
{
	struct param_object *params = param_object_from_lua(&record_local_logs_schema, L, 1);
	if (params == NULL)
		return -1;
	int rc = record_add_local_logger(params, policy_is_validating());
	param_object_unref(params);
	return rc;
}

static int kumo_configure_local_logs(lua_State *L)
{
	policy_require_init(L, "kumo.configure_local_logs");
	return configure_local_logs(L) == 0 ? 0 : policy_raise(L);
}

static void open_logs(lua_State *L)
{
	lua_pushcfunction(L, kumo_configure_local_logs);
	lua_setfield(L, -2, "configure_local_logs");
}

void bind_register_logs(void)
{
	param_schema_register(&record_local_logs_schema);
	policy_add_library(open_logs);
}
