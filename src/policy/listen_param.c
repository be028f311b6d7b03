/* listen_param.c - where a listener listens, as policies say it: an address and port, a path, or the name of
 * a descriptor that was handed down. */
#include "policy/listen_param.h"

#include "base/alloc.h"
#include "base/err.h"
#include "policy/value.h"

#include <stdlib.h>

static int listen_fail_type(const json_t *v, const char *expected)
{
	struct buf what = BUF_INIT;
	value_describe(v, false, &what);
	err_set(ERR_INVALID, "invalid type: %s, expected %s", what.p, expected);
	buf_fini(&what);
	return -1;
}

int listen_param_parse(const json_t *v, void *field)
{
	static const str_t in_files = {"unix:", 5}, inherited = {"fd:", 3};
	struct listen_param *at = field;
	if (!json_is_string(v))
		return listen_fail_type(v, "an address and port such as 127.0.0.1:25, unix:/path or fd:NAME");
	str_t text = str_mk(json_string_value(v), json_string_length(v));
	bool is_unix = str_starts(text, in_files), is_fd = str_starts(text, inherited);
	if (str_starts(text, STR("0:"))) { /* as the documented example has it */
		char *any = xasprintf("0.0.0.0" STR_FMT, STR_ARG(str_skip(text, 1)));
		int rc = net_addr_parse(str_of(any), &at->addr);
		free(any);
		return rc;
	}
	if (!is_unix && !is_fd)
		return net_addr_parse(text, &at->addr);
	str_t rest = str_skip(text, is_unix ? in_files.n : inherited.n);
	if (rest.n == 0 || memchr(rest.p, 0, rest.n) != NULL || (is_unix && rest.p[0] != '/')) {
		err_set(ERR_INVALID, "invalid value: \"" STR_FMT "\", expected %s", STR_ARG(text),
			is_unix ? "unix: and an absolute path" : "fd: and the name of a descriptor");
		return -1;
	}
	*(is_unix ? &at->unix_path : &at->fd_name) = str_dup(rest);
	return 0;
}

void listen_param_fini(void *field)
{
	struct listen_param *at = field;
	free(at->unix_path);
	free(at->fd_name);
	*at = (struct listen_param){0};
}

char *listen_param_fmt(const struct listen_param *at)
{
	char addr[NET_ADDR_STRLEN];
	if (at->unix_path != NULL)
		return xasprintf("unix:%s", at->unix_path);
	if (at->fd_name != NULL)
		return xasprintf("fd:%s", at->fd_name);
	return xstrdup(net_addr_fmt(&at->addr, addr));
}

void listen_param_dump(const void *field, json_t **out)
{
	char *text = listen_param_fmt(field);
	*out = json_string(text);
	free(text);
}

int listen_param_parse_mode(const json_t *v, void *field)
{
	if (!json_is_string(v))
		return listen_fail_type(v, "permissions such as '0660'");
	const char *s = json_string_value(v);
	unsigned mode = 0;
	size_t n = json_string_length(v), i = 0;
	while (i < n && s[i] >= '0' && s[i] <= '7' && n <= 4)
		mode = mode << 3 | (unsigned)(s[i++] - '0');
	if (i != n || n < 3 || mode > 0777) {
		err_set(ERR_INVALID, "invalid value: \"%.32s\", expected permissions such as '0660'", s);
		return -1;
	}
	*(unsigned *)field = mode;
	return 0;
}
