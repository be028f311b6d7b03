/* api.h - the endpoints of the HTTP API, one file per group. What an endpoint needs from layers that it does
 * not know is set here by the application. */
#pragma once

#include "spool/spool.h"

/** What the API tells of this program: its version, a text that must stay, and how many processors it may
 * use. Before the routes are registered. */
void api_set_info(const char *version, unsigned n_cores);
/** Adds every route of the API to the table; once, before the first listener starts. */
void api_register_routes(void);
/** The spool that GET /api/admin/memory/stats tells of; before the first listener starts. */
void api_set_spool(struct spool *sp);

/** Sets what the bodies of HTTP requests may take (http.h): 256 MB, or a sixth of the soft memory limit, if
 * that is less. Reads files. */
void api_limit_bodies(void);

/** What GET /api/check-liveness/v1 asks: NULL when the service can take mail (200 "OK"), else why not (503
 * and the text). Called from any worker; must not yield. Without a condition the service is alive. */
void api_set_liveness(const char *(*why_not)(void));
