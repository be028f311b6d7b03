/* api_impl.h - the groups of endpoints, as routes.c adds them. */
#pragma once

void api_liveness_register(void);
void api_metrics_register(void);
