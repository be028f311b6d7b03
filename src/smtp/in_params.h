/* in_params.h - what kumo.start_esmtp_listener takes: the listener's own
 * parameters, and blocks of overrides by the peer's address, by ours, or
 * from the policy for one connection (smtp_server_get_dynamic_parameters). */
#pragma once

#include "mail/meta.h"
#include "net/keysource.h"
#include "policy/listen_param.h"
#include "policy/param.h"
#include "smtp/in_data.h"

enum in_batch_handling { IN_BIFURCATE_ALWAYS, IN_BATCH_BY_DOMAIN };

struct in_trace_headers {
	bool received_header, supplemental_header;
	char *header_name;
	struct param_strs include_meta_names;
};

/* A map from networks to blocks: the smallest network that has an address counts. */
struct in_blocks {
	struct cidr_set nets;
	struct param_object **block; /* struct in_params, of in_block_schema; one for each of nets */
};

/* Fields that a block may override. */
/* clang-format off */
#define IN_FIELDS(X) \
	X(allow_xclient) X(banner) X(batch_handling) X(client_timeout) X(data_buffer_size) \
	X(data_processing_timeout) X(deferred_queue) X(deferred_spool) X(hostname) \
	X(implicit_tls) X(invalid_line_endings) X(line_length_hard_limit) X(max_message_size) \
	X(max_messages_per_connection) X(max_recipients_per_message) X(relay_hosts) \
	X(require_proxy_protocol) X(tls_certificate) X(tls_private_key) X(tls_required_client_ca) \
	X(trace_headers)
/* clang-format on */

enum in_field {
#define X(name) IN_FIELD_##name,
	IN_FIELDS(X)
#undef X
};

struct in_params {
	bool allow_xclient, deferred_queue, deferred_spool, implicit_tls, require_proxy_protocol;
	char *banner, *hostname;  /* hostname NULL: the machine's */
	int batch_handling;	  /* enum in_batch_handling */
	int invalid_line_endings; /* enum in_line_endings */
	dur_t client_timeout, data_processing_timeout;
	int64_t data_buffer_size, line_length_hard_limit, max_message_size, max_messages_per_connection,
		max_recipients_per_message;
	struct cidr_set relay_hosts;
	struct keysource tls_certificate, tls_private_key, tls_required_client_ca;
	struct param_object *trace_headers; /* struct in_trace_headers; NULL only in a block */
	json_t *meta;			    /* an object; NULL: none */
	struct in_blocks peer, via;
	uint32_t given; /* of a block: bit per enum in_field */
	/* Of the listener only: */
	struct listen_param listen;
	unsigned listen_mode; /* permissions of listen.unix_path */
	int64_t max_connections;
};

extern const struct param_schema in_listener_schema; /* kumo.start_esmtp_listener */
extern const struct param_schema in_block_schema;    /* a block of overrides */
extern const struct param_schema in_trace_schema;    /* trace_headers */

/** Blocks know which of their fields were given. NULL ERR_INVALID. */
MUST_CHECK struct param_object *in_block_from_json(const json_t *table);

/* What holds for one connection: values, and pointers into the objects that they came from. */
struct in_settings {
	bool allow_xclient, deferred_queue, deferred_spool, implicit_tls, require_proxy_protocol;
	const char *banner, *hostname; /* never NULL */
	enum in_batch_handling batch_handling;
	enum in_line_endings invalid_line_endings;
	dur_t client_timeout, data_processing_timeout;
	size_t data_buffer_size, line_length_hard_limit, max_message_size, max_messages_per_connection,
		max_recipients_per_message;
	const struct cidr_set *relay_hosts;
	const struct keysource *tls_certificate, *tls_private_key, *tls_required_client_ca;
	const struct in_trace_headers *trace;
};
/** The listener's own, with machine_hostname for an absent one, then what
 * its peer and via blocks say of these addresses. Values of `meta` are
 * set in *meta. All pointers live as long as base and machine_hostname. */
void in_settings_init(struct in_settings *s, const struct in_params *base, const char *machine_hostname,
		      const struct net_addr *peer, const struct net_addr *local, struct meta *meta);
/** What a further block says, and the blocks in it. */
void in_settings_apply(struct in_settings *s, const struct in_params *block, const struct net_addr *peer,
		       const struct net_addr *local, struct meta *meta);

/** Calls fn with the settings of the listener, and with those that each block in it makes of them; -1 as soon
 * as fn returns it. fn may yield. For checks at the start. */
typedef int in_settings_fn(const struct in_settings *s, void *arg);
MUST_CHECK int in_settings_each(const struct in_params *base, const char *machine_hostname,
				in_settings_fn *fn, void *arg);
