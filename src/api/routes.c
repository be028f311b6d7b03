/* routes.c - the list of the groups. Each group declares its own routes next to their handlers. */
#include "api/api.h"

#include "api/api_impl.h"

void api_register_routes(void)
{
	api_liveness_register();
	api_metrics_register();
}
