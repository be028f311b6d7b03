/* auth_results.h - Authentication-Results (RFC 8601). */
#pragma once

#include "base/arena.h"
#include "mime/header_write.h"

struct auth_prop {
	str_t name; /* "header.d" */
	str_t value;
};
struct auth_result {
	str_t method;		 /* "dkim" */
	uint32_t method_version; /* 0: not said */
	str_t result;		 /* "pass" */
	str_t reason;		 /* p NULL: none */
	struct auth_prop *prop;
	size_t n_props;
};
struct auth_results {
	struct arena arena; /* owns what was parsed */
	str_t server_id;
	uint32_t version; /* 0: not said */
	struct auth_result *v;
	size_t n;
};

/** -1 ERR_INVALID with what is wrong and where. */
MUST_CHECK int auth_results_parse(str_t value, struct auth_results *out);
void auth_results_fini(struct auth_results *r);
/** -1 ERR_INVALID: it cannot be written (words that are none, controls, bytes that are not UTF-8); names the
 * result by its number. */
MUST_CHECK int auth_results_check(const struct auth_results *r);
/** After header_write_begin; each result begins a line. */
void auth_results_write(const struct auth_results *r, struct header_writer *w);
