/* bind_queue.c - kumo.make_queue_config, make_egress_path, make_egress_source, make_egress_pool: parameter
 * tables to the objects that get_queue_config and its neighbours return (queue/egress.h). */
#include "base/err.h"
#include "bind/bind_queue.h"
#include "policy/policy.h"
#include "queue/egress.h"

#include <lauxlib.h>

static int make_object(lua_State *L, const struct param_schema *schema)
{
	struct param_object *o = param_object_from_lua(schema, L, 1);
	if (o == NULL)
		return policy_raise(L);
	param_object_push(L, o); /* holds its own reference; raises only when memory runs out, which aborts */
	param_object_unref(o);
	return 1;
}

static int kumo_make_queue_config(lua_State *L)
{
	return make_object(L, &queue_config_schema);
}
static int kumo_make_egress_path(lua_State *L)
{
	return make_object(L, &egress_path_schema);
}
static int kumo_make_egress_source(lua_State *L)
{
	return make_object(L, &egress_source_schema);
}
static int kumo_make_egress_pool(lua_State *L)
{
	return make_object(L, &egress_pool_schema);
}

static const luaL_Reg queue_functions[] = {{"make_queue_config", kumo_make_queue_config},
					   {"make_egress_path", kumo_make_egress_path},
					   {"make_egress_source", kumo_make_egress_source},
					   {"make_egress_pool", kumo_make_egress_pool},
					   {NULL, NULL}};

static void open_queue(lua_State *L)
{
	luaL_setfuncs(L, queue_functions, 0);
}

void bind_register_queue(void)
{
	param_schema_register(&queue_config_schema);
	param_schema_register(&egress_path_schema);
	param_schema_register(&egress_source_schema);
	param_schema_register(&egress_pool_schema);
	policy_add_library(open_queue);
}
