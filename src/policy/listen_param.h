/* listen_param.h - the parameter `listen` of listeners, and `listen_mode`. */
#pragma once

#include "net/addr.h"

#include <jansson.h>

/* One of the three. */
struct listen_param {
	struct net_addr addr;
	char *unix_path, *fd_name; /* NULL: not that */
};
/** For schemas: PARAM_CUSTOM(strct, listen, .parse = listen_param_parse, .fini = listen_param_fini, .dump =
 * listen_param_dump, ...). "127.0.0.1:25", "0:25" for every IPv4 address, "unix:/path", "fd:NAME". */
int listen_param_parse(const json_t *value, void *field);
void listen_param_fini(void *field);
void listen_param_dump(const void *field, json_t **out);
/** As it was given, before there is a port; the caller's. */
MUST_CHECK char *listen_param_fmt(const struct listen_param *at);
/** "0660" into an unsigned: permissions in octal, as chmod(1) takes them. */
int listen_param_parse_mode(const json_t *value, void *field);
