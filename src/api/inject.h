/* inject.h - POST /api/inject/v1: messages in over HTTP (docs/reference/http/kumod/api_inject_v1_post.md, contracts B5, B7). */
#pragma once

/** why_not: NULL when the service can take mail, else why not (503 before the body is read);
 * called from any worker, must not yield. */
void api_inject_init(const char *(*why_not)(void));
/** Adds its route. */
void api_inject_register(void);
