/* api_impl.h - the groups of endpoints, as routes.c adds them. */
#pragma once

#include "api/api.h"
#include "http/http.h"
#include "http/reference.h"

struct api_info {
	const char *version;
	unsigned n_cores;
};
extern struct api_info api_info; /* read-only once the routes are registered */

void api_config_register(void);
void api_liveness_register(void);
void api_machine_register(void);
void api_memory_register(void);
void api_metrics_register(void);
void api_reference_register(void);
void api_tasks_register(void);
void api_trace_register(void);
