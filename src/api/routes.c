/* routes.c - the list of the groups. Each group declares its own routes next to their handlers. */
#include "api/api_impl.h"

struct api_info api_info = {.version = "", .n_cores = 1};

void api_set_info(const char *version, unsigned n_cores)
{
	api_info = (struct api_info){.version = version, .n_cores = n_cores};
}

void api_register_routes(void)
{
	api_liveness_register();
	api_machine_register();
	api_config_register();
	api_memory_register();
	api_tasks_register();
	api_trace_register();
	api_metrics_register();
	api_reference_register();
}
