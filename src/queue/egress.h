/* egress.h - what the policy says of queues and their ways out: QueueConfig, EgressPath, EgressSource,
 * EgressPool. The get_* functions call the events of the same name; all yield.
 * docs/reference/kumo/make_queue_config, make_egress_*. */
#pragma once

#include "net/addr.h"
#include "net/dns.h"
#include "policy/param.h"

enum refresh_strategy { REFRESH_TTL, REFRESH_EPOCH };

/* --- delivery protocol of a queue --- */
enum delivery_kind { DELIVERY_SMTP, DELIVERY_MAILDIR, DELIVERY_INTERNAL /* queue_set_internal_deliverer */ };
struct deliverer;
struct mx_list_entry {
	char *label; /* as it goes into the site name: the text entry, or the address of a {name, addr} entry
		      */
	char *name;  /* host name or literal to resolve and to show as peer name */
	struct net_addr addr; /* len 0: resolve `name` */
	uint16_t port;	      /* 0: by source, then by path */
};
struct delivery_protocol {
	enum delivery_kind kind;
	struct mx_list_entry *mx;
	size_t n_mx;			  /* 0: by DNS */
	char *maildir_path;		  /* template */
	int dir_mode, file_mode;	  /* -1: by umask */
	const struct deliverer *internal; /* DELIVERY_INTERNAL */
};

struct queue_config {
	dur_t retry_interval, max_retry_interval /* ns < 0: no cap */, max_age, reap_interval,
		refresh_interval;
	int refresh_strategy;
	char *egress_pool; /* NULL: "unspecified" */
	char *provider_name;
	struct delivery_protocol protocol;
};
extern const struct param_schema queue_config_schema;

struct connection_limit {
	uint32_t limit;
	bool is_local;
};
enum reconnect_strategy { RECONNECT_TERMINATE_SESSION, RECONNECT_SAME_HOST, RECONNECT_NEXT_HOST };
struct egress_path {
	struct connection_limit connection_limit;
	int64_t max_ready, max_deliveries_per_connection, max_recipients_per_batch,
		consecutive_connection_failures_before_delay, smtp_port;
	dur_t connect_timeout, banner_timeout, ehlo_timeout, mail_from_timeout, rcpt_to_timeout, data_timeout,
		data_dot_timeout, rset_timeout, idle_timeout, refresh_interval;
	struct cidr_set prohibited_hosts, skip_hosts;
	char *ehlo_domain, *provider_name;
	bool enable_pipelining, enable_rset, ignore_8bit_checks, try_next_host_on_transport_error, use_lmtp;
	int enable_tls, ip_lookup_strategy /* enum dns_ip_strategy */, reconnect_strategy, refresh_strategy;
};
extern const struct param_schema egress_path_schema;

struct egress_source {
	char *name, *ehlo_domain;
	struct net_addr source_address; /* len 0: any */
	int64_t remote_port;		/* 0: none */
	dur_t ttl;
};
extern const struct param_schema egress_source_schema;

struct egress_pool_entry {
	char *name;
	uint32_t weight;
};
struct egress_pool {
	char *name;
	struct egress_pool_entries {
		struct egress_pool_entry *v;
		size_t n;
	} entries;
	dur_t ttl;
};
extern const struct param_schema egress_pool_schema;

/* --- the events; each returns a new reference, or NULL with the error set --- */
MUST_CHECK struct param_object *egress_get_queue_config(str_t domain, str_t tenant, str_t campaign,
							str_t routing_domain, mono_t deadline);
MUST_CHECK struct param_object *egress_get_path(str_t domain, str_t source, str_t site, mono_t deadline);
/** Cached by ttl. The name "unspecified" is answered without a call. */
MUST_CHECK struct param_object *egress_get_source(str_t name, mono_t deadline);
MUST_CHECK struct param_object *egress_get_pool(str_t name, mono_t deadline);
void egress_caches_clear(void);
