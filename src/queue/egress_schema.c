/* egress_schema.c - the parameter tables of make_queue_config, make_egress_path, make_egress_source and
 * make_egress_pool: names, types, defaults, and the parsers of the fields that are more than a scalar.
 * What this version does not honour is listed as PARAM_UNSUPPORTED, so that it is refused by name. */
#include "base/alloc.h"
#include "base/err.h"
#include "queue/egress.h"
#include "template/template.h"

#include <ctype.h>
#include <string.h>

static const char *const refresh_words[] = {"Ttl", "Epoch", NULL};

/** It becomes part of a command line: a blank or a line end in it would make another command of it. */
static int ehlo_domain_check(const char *name)
{
	size_t n = 0;
	for (; name != NULL && name[n] != 0; n++)
		if (name[n] <= ' ' || name[n] > '~') /* a char of 128 or more is below 0, or above '~' */
			break;
	if (name == NULL || (n > 0 && n <= 255 && name[n] == 0))
		return 0;
	err_set(ERR_INVALID,
		"invalid value: ehlo_domain \"%.300s\", expected a host name or an address in brackets",
		name);
	return -1;
}

/* --- protocol --- */

static int mx_entry_err(const json_t *v)
{
	err_set(ERR_INVALID,
		"protocol.smtp.mx_list: invalid type: %s, expected a host name, an address in brackets, "
		"or a table {name = , addr = }",
		json_is_object(v) ? "table without `name` and `addr`" : "value");
	return -1;
}

static bool mx_host_is_name(str_t host)
{
	for (size_t i = 0; i < host.n; i++) {
		unsigned char c = (unsigned char)host.p[i];
		if (c < 0x80 && !isalnum(c) && c != '-' && c != '_' && c != '.')
			return false;
	}
	return host.n > 0;
}

/** Splits "host:port", "[addr]", "[addr]:port", "addr" into name or address and port. */
static int mx_entry_parse_target(struct mx_list_entry *e, str_t text)
{
	str_t host = text;
	bool is_literal = false;
	if (text.n > 0 && text.p[0] == '[') {
		ptrdiff_t end = str_chr(text, ']', 0);
		if (end < 0)
			goto bad;
		host = str_mk(text.p + 1, (size_t)end - 1);
		if (str_istarts(host, STR("IPv6:")))
			host = str_skip(host, 5);
		is_literal = true;
		text = str_skip(text, (size_t)end + 1);
		if (text.n > 0 && text.p[0] != ':')
			goto bad;
		text = str_skip(text, 1);
	} else {
		ptrdiff_t colon = str_chr(text, ':', 0);
		if (colon >= 0 &&
		    str_chr(text, ':', (size_t)colon + 1) < 0) { /* one colon: a port; more: IPv6 */
			host = str_head(text, (size_t)colon);
			text = str_skip(text, (size_t)colon + 1);
		} else {
			text = STR_NULL;
		}
	}
	if (text.n > 0) {
		uint64_t port;
		if (!str_to_u64(text, &port) || port == 0 || port > 65535)
			goto bad;
		e->port = (uint16_t)port;
	}
	if (host.n == 0)
		goto bad;
	struct net_addr addr;
	if (net_addr_parse_ip(host, 0, &addr) == 0)
		e->addr = addr;
	else if (is_literal || !mx_host_is_name(host))
		goto bad;
	else
		err_clear();
	if (e->name == NULL)
		e->name = str_dup(host);
	return 0;
bad:
	err_set(ERR_INVALID,
		"protocol.smtp.mx_list: invalid value: `%s`, expected a host name or an address in "
		"brackets, with an optional port",
		e->label);
	return -1;
}

static int mx_entry_parse(struct mx_list_entry *e, const json_t *v)
{
	if (json_is_string(v)) {
		e->label = xstrdup(json_string_value(v));
		return mx_entry_parse_target(e, str_of(e->label));
	}
	const char *name = json_string_value(json_object_get(v, "name"));
	const char *addr = json_string_value(json_object_get(v, "addr"));
	if (!json_is_object(v) || name == NULL || addr == NULL || json_object_size(v) != 2)
		return mx_entry_err(v);
	e->label = xstrdup(addr);
	e->name = xstrdup(name);
	if (mx_entry_parse_target(e, str_of(addr)) != 0)
		return -1;
	if (e->addr.len == 0) {
		err_set(ERR_INVALID,
			"protocol.smtp.mx_list: invalid value: addr = `%s`, expected an IP address", addr);
		return -1;
	}
	return 0;
}

static void protocol_fini(void *field)
{
	struct delivery_protocol *p = field;
	for (size_t i = 0; i < p->n_mx; i++) {
		free(p->mx[i].label);
		free(p->mx[i].name);
	}
	free(p->mx);
	free(p->maildir_path);
}

static int protocol_parse_smtp(struct delivery_protocol *p, const json_t *smtp)
{
	static const char *const known[] = {"mx_list", NULL};
	if (!json_is_object(smtp) && !(json_is_array(smtp) && json_array_size(smtp) == 0)) {
		err_set(ERR_INVALID, "protocol.smtp: invalid type, expected table");
		return -1;
	}
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)(uintptr_t)smtp, key, v)
	{
		if (strcmp(key, "treat_mx_list_as_secure") == 0) {
			if (!json_is_false(v)) {
				err_set(ERR_INVALID, "field `protocol.smtp.treat_mx_list_as_secure` "
						     "is not supported by "
						     "this version of cirrus");
				return -1;
			}
		} else if (strcmp(key, known[0]) != 0) {
			err_set(ERR_INVALID, "unknown field `%s`, expected `mx_list`", key);
			return -1;
		}
	}
	const json_t *list = json_object_get(smtp, "mx_list");
	if (list == NULL || (json_is_object(list) && json_object_size(list) == 0))
		return 0;
	if (!json_is_array(list)) {
		err_set(ERR_INVALID, "protocol.smtp.mx_list: invalid type, expected a sequence");
		return -1;
	}
	p->n_mx = json_array_size(list);
	p->mx = xcalloc(p->n_mx + 1, sizeof(*p->mx));
	for (size_t i = 0; i < p->n_mx; i++)
		if (mx_entry_parse(&p->mx[i], json_array_get(list, i)) != 0)
			return -1;
	return 0;
}

static int protocol_parse_mode(const json_t *value, const char *key, int *out)
{
	const json_t *v = json_object_get(value, key);
	*out = -1;
	if (v == NULL || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > 07777) {
		err_set(ERR_INVALID, "protocol.%s: invalid value, expected a file mode as an integer", key);
		return -1;
	}
	*out = (int)json_integer_value(v);
	return 0;
}

static int maildir_path_check(const char *path)
{
	struct template *t = template_compile("maildir_path", str_of(path), false);
	if (t == NULL) {
		err_wrap("protocol.maildir_path");
		return -1;
	}
	template_free(t);
	return 0;
}

static int protocol_parse(const json_t *value, void *field)
{
	static const char *const words[] = {"smtp", "maildir_path", NULL};
	struct delivery_protocol p = {.kind = DELIVERY_SMTP, .dir_mode = -1, .file_mode = -1};
	const char *key, *kind = NULL;
	json_t *v;

	if (!json_is_object(value)) {
		err_set(ERR_INVALID, "protocol: invalid type, expected table");
		return -1;
	}
	json_object_foreach((json_t *)(uintptr_t)value, key, v)
	{
		if (strcmp(key, "dir_mode") == 0 || strcmp(key, "file_mode") == 0 || json_is_null(v))
			continue;
		if (strcmp(key, "custom_lua") == 0) {
			err_set(ERR_INVALID,
				"field `protocol.custom_lua` is not supported by this version of cirrus");
			return -1;
		}
		if (strcmp(key, "smtp") != 0 && strcmp(key, "maildir_path") != 0) {
			param_err_variant(key, words);
			return -1;
		}
		if (kind != NULL) {
			err_set(ERR_INVALID, "protocol: both `%s` and `%s` are given, expected one", kind,
				key);
			return -1;
		}
		kind = key;
	}
	if (kind == NULL) {
		err_set(ERR_INVALID, "protocol: one of `smtp`, `maildir_path` is needed");
		return -1;
	}
	if (protocol_parse_mode(value, "dir_mode", &p.dir_mode) != 0 ||
	    protocol_parse_mode(value, "file_mode", &p.file_mode) != 0)
		return -1;
	if (strcmp(kind, "maildir_path") == 0) {
		const char *path = json_string_value(json_object_get(value, "maildir_path"));
		if (path == NULL || path[0] == 0) {
			err_set(ERR_INVALID, "protocol.maildir_path: invalid type, expected a string");
			return -1;
		}
		if (maildir_path_check(path) != 0)
			return -1;
		p.kind = DELIVERY_MAILDIR;
		p.maildir_path = xstrdup(path);
	} else {
		if (p.dir_mode >= 0 || p.file_mode >= 0) {
			err_set(ERR_INVALID, "protocol: dir_mode and file_mode go with maildir_path");
			return -1;
		}
		if (protocol_parse_smtp(&p, json_object_get(value, "smtp")) != 0) {
			protocol_fini(&p);
			return -1;
		}
	}
	*(struct delivery_protocol *)field = p;
	return 0;
}

static int queue_config_check(void *obj)
{
	const struct queue_config *c = obj;
	if (c->retry_interval.ns <= 0) {
		err_set(ERR_INVALID, "retry_interval: invalid value, expected more than zero");
		return -1;
	}
	return 0;
}

static const struct param queue_config_params[] = {
	PARAM_STR(queue_config, egress_pool,
		  .doc = "Pool of egress sources that messages of this queue leave through."),
	PARAM_DUR(queue_config, max_age, .def = "7 days", .doc = "Age at which a message expires."),
	PARAM_UNSUPPORTED(max_message_rate),
	PARAM_DUR(queue_config, max_retry_interval, .doc = "Upper bound of the delay between attempts."),
	PARAM_CUSTOM(queue_config, protocol, .parse = protocol_parse, .fini = protocol_fini,
		     .def = "{\"smtp\":{\"mx_list\":[]}}",
		     .doc = "How to deliver: { smtp = { mx_list = {...} } } or { maildir_path = PATH }."),
	PARAM_STR(queue_config, provider_name, .doc = "Label of metrics and records."),
	PARAM_DUR(queue_config, reap_interval, .def = "10m", .doc = "How long an empty queue is kept."),
	PARAM_DUR(queue_config, refresh_interval, .def = "1m",
		  .doc = "How often the configuration is asked for again."),
	PARAM_ENUM(queue_config, refresh_strategy, refresh_words, .def = "Ttl",
		   .doc = "Refresh by interval, or by configuration epoch."),
	PARAM_DUR(queue_config, retry_interval, .def = "20m",
		  .doc = "Delay before the first retry; doubles with each."),
	PARAM_UNSUPPORTED(shrink_policy),
	PARAM_UNSUPPORTED(strategy),
	PARAM_UNSUPPORTED(timerwheel_tick_interval),
	{0}};

const struct param_schema queue_config_schema = {"QueueConfig", queue_config_params,
						 sizeof(struct queue_config), queue_config_check};

/* --- egress path --- */

static int connection_limit_parse(const json_t *value, void *field)
{
	struct connection_limit *out = field;
	uint64_t n = 0;
	bool is_local = false;
	if (json_is_integer(value)) {
		if (json_integer_value(value) < 0)
			goto bad;
		n = (uint64_t)json_integer_value(value);
	} else if (json_is_string(value)) {
		const char *s = json_string_value(value);
		if (strncmp(s, "local:", 6) == 0) {
			is_local = true;
			s += 6;
		}
		if (*s == 0)
			goto bad;
		for (; *s != 0; s++) {
			if (*s == ',' || *s == '_')
				continue;
			if (*s < '0' || *s > '9' || n > UINT32_MAX)
				goto bad;
			n = n * 10 + (uint64_t)(*s - '0');
		}
	} else if (json_is_object(value) &&
		   json_is_integer(json_object_get(value, "limit"))) { /* as the made object shows it */
		json_int_t limit = json_integer_value(json_object_get(value, "limit"));
		if (limit < 0)
			goto bad;
		n = (uint64_t)limit;
		is_local = json_is_true(json_object_get(value, "force_local"));
	} else {
		goto bad;
	}
	if (n > UINT32_MAX)
		goto bad;
	*out = (struct connection_limit){(uint32_t)n, is_local};
	return 0;
bad:
	err_set(ERR_INVALID,
		"connection_limit: invalid value, expected a number, or \"local:\" and a number");
	return -1;
}

static void connection_limit_dump(const void *field, json_t **out)
{
	const struct connection_limit *l = field;
	*out = json_pack("{s:I, s:b}", "limit", (json_int_t)l->limit, "force_local", (int)l->is_local);
}

static const char *const tls_words[] = {
	"Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure", "Disabled", NULL};
#define TLS_DISABLED 4
static const char *const ip_words[] = {"Ipv4AndIpv6",  "Ipv4Only",     "Ipv6Only",
				       "Ipv6ThenIpv4", "Ipv4ThenIpv6", NULL};
static const char *const reconnect_words[] = {"TerminateSession", "ReconnectSameHost", "ConnectNextHost",
					      NULL};

static int egress_path_check(void *obj)
{
	const struct egress_path *p = obj;
	if (ehlo_domain_check(p->ehlo_domain) != 0)
		return -1;
	if (p->enable_tls != TLS_DISABLED) {
		err_set(ERR_INVALID,
			"enable_tls: `%s` is not supported by this version of cirrus, expected `Disabled`",
			tls_words[p->enable_tls]);
		return -1;
	}
	return 0;
}

static const struct param egress_path_params[] = {
	PARAM_UNSUPPORTED(additional_connection_limits),
	PARAM_UNSUPPORTED(additional_message_rate_throttles),
	PARAM_UNSUPPORTED(additional_source_selection_rates),
	PARAM_UNSUPPORTED(aggressive_connection_opening),
	PARAM_UNSUPPORTED(allow_smtp_auth_plain_without_tls),
	PARAM_UNSUPPORTED(allow_smtp_auth_plain_without_valid_certificate),
	PARAM_UNSUPPORTED(auth_timeout),
	PARAM_DUR(egress_path, banner_timeout, .def = "60s", .doc = "Wait for the 220 banner."),
	PARAM_DUR(egress_path, connect_timeout, .def = "60s", .doc = "Wait for the TCP connection."),
	PARAM_CUSTOM(egress_path, connection_limit, .parse = connection_limit_parse,
		     .dump = connection_limit_dump, .def = "32",
		     .doc = "Most connections to the site at once."),
	PARAM_INT(egress_path, consecutive_connection_failures_before_delay, .def = "100", .min = 0,
		  .max = UINT32_MAX,
		  .doc = "Failed connection plans in a row before all messages of the site are delayed."),
	PARAM_DUR(egress_path, data_dot_timeout, .def = "300s",
		  .doc = "Wait for the answer to the end of the data."),
	PARAM_DUR(egress_path, data_timeout, .def = "300s", .doc = "Wait for the answer to DATA."),
	PARAM_UNSUPPORTED(dispatcher_progress_watchdog_timeout),
	PARAM_UNSUPPORTED(dispatcher_wakeup_strategy),
	PARAM_STR(egress_path, ehlo_domain, .doc = "Name given in EHLO."),
	PARAM_DUR(egress_path, ehlo_timeout, .def = "300s", .doc = "Wait for the answer to EHLO."),
	PARAM_UNSUPPORTED(enable_dane),
	PARAM_UNSUPPORTED(enable_mta_sts),
	PARAM_BOOL(egress_path, enable_pipelining, .def = "true",
		   .doc = "Use PIPELINING where it is offered."),
	PARAM_BOOL(egress_path, enable_rset, .def = "true",
		   .doc = "Send RSET between the messages of a connection."),
	PARAM_ENUM(egress_path, enable_tls, tls_words, .def = "Disabled",
		   .doc = "Only `Disabled` in this version."),
	PARAM_DUR(egress_path, idle_timeout, .def = "5s",
		  .doc = "How long a connection waits for another message."),
	PARAM_BOOL(egress_path, ignore_8bit_checks, .def = "false",
		   .doc = "Send 8-bit data to peers without 8BITMIME."),
	PARAM_ENUM(egress_path, ip_lookup_strategy, ip_words, .def = "Ipv4AndIpv6",
		   .doc = "Which addresses of a host are used."),
	PARAM_UNSUPPORTED(low_memory_reduction_policy),
	PARAM_DUR(egress_path, mail_from_timeout, .def = "300s", .doc = "Wait for the answer to MAIL FROM."),
	PARAM_UNSUPPORTED(maintainer_wakeup_strategy),
	PARAM_UNSUPPORTED(max_connection_rate),
	PARAM_INT(egress_path, max_deliveries_per_connection, .def = "1024", .min = 1, .max = INT32_MAX,
		  .doc = "Messages tried on a connection."),
	PARAM_UNSUPPORTED(max_message_rate),
	PARAM_INT(egress_path, max_ready, .def = "1024", .min = 1, .max = INT32_MAX,
		  .doc = "Messages held ready for the site."),
	PARAM_INT(egress_path, max_recipients_per_batch, .def = "100", .min = 1, .max = INT32_MAX,
		  .doc = "Recipients of a transaction."),
	PARAM_UNSUPPORTED(no_memory_reduction_policy),
	PARAM_UNSUPPORTED(openssl_cipher_list),
	PARAM_UNSUPPORTED(openssl_cipher_suites),
	PARAM_UNSUPPORTED(openssl_options),
	PARAM_UNSUPPORTED(opportunistic_tls_reconnect_on_failed_handshake),
	PARAM_CIDRS(egress_path, prohibited_hosts, .def = "127.0.0.0/8,::1,0.0.0.0,::",
		    .doc = "Networks that must not be delivered to: the mail of the site bounces."),
	PARAM_STR(egress_path, provider_name, .doc = "Label of metrics and records."),
	PARAM_DUR(egress_path, rcpt_to_timeout, .def = "300s", .doc = "Wait for the answer to RCPT TO."),
	PARAM_UNSUPPORTED(readyq_pool_name),
	PARAM_ENUM(egress_path, reconnect_strategy, reconnect_words, .def = "ConnectNextHost",
		   .doc = "What follows a lost connection."),
	PARAM_DUR(egress_path, refresh_interval, .def = "60s",
		  .doc = "How often the configuration is asked for again."),
	PARAM_ENUM(egress_path, refresh_strategy, refresh_words, .def = "Ttl",
		   .doc = "Refresh by interval, or by configuration epoch."),
	PARAM_UNSUPPORTED(remember_broken_tls),
	PARAM_DUR(egress_path, rset_timeout, .def = "5s", .doc = "Wait for the answer to RSET."),
	PARAM_UNSUPPORTED(rustls_cipher_suites),
	PARAM_CIDRS(egress_path, skip_hosts, .doc = "Networks whose hosts are passed over."),
	PARAM_UNSUPPORTED(smtp_auth_plain_password),
	PARAM_UNSUPPORTED(smtp_auth_plain_username),
	PARAM_INT(egress_path, smtp_port, .def = "25", .min = 1, .max = 65535, .doc = "Port of the peers."),
	PARAM_UNSUPPORTED(source_selection_rate),
	PARAM_UNSUPPORTED(starttls_timeout),
	PARAM_UNSUPPORTED(system_shutdown_timeout),
	PARAM_UNSUPPORTED(tls_certificate),
	PARAM_UNSUPPORTED(tls_prefer_openssl),
	PARAM_UNSUPPORTED(tls_private_key),
	PARAM_BOOL(egress_path, try_next_host_on_transport_error, .def = "false",
		   .doc = "Try the message at the next host after a transport error."),
	PARAM_BOOL(egress_path, use_lmtp, .def = "false", .doc = "Greet with LHLO."),
	{0}};

const struct param_schema egress_path_schema = {"EgressPath", egress_path_params, sizeof(struct egress_path),
						egress_path_check};

/* --- source and pool --- */

static int egress_source_check(void *obj)
{
	return ehlo_domain_check(((const struct egress_source *)obj)->ehlo_domain);
}

static const struct param egress_source_params[] = {
	PARAM_STR(egress_source, ehlo_domain, .doc = "Name given in EHLO by this source."),
	PARAM_UNSUPPORTED(ha_proxy_server),
	PARAM_UNSUPPORTED(ha_proxy_source_address),
	PARAM_STR(egress_source, name, .is_required = true, .doc = "Name of the source."),
	PARAM_INT(egress_source, remote_port, .min = 0, .max = 65535,
		  .doc = "Port to connect to instead of the path's."),
	PARAM_UNSUPPORTED(socks5_proxy_password),
	PARAM_UNSUPPORTED(socks5_proxy_server),
	PARAM_UNSUPPORTED(socks5_proxy_source_address),
	PARAM_UNSUPPORTED(socks5_proxy_username),
	PARAM_IP(egress_source, source_address, .doc = "Local address to connect from."),
	PARAM_UNSUPPORTED(suspend_when_proxy_unhealthy),
	PARAM_UNSUPPORTED(suspend_when_unplumbed),
	PARAM_DUR(egress_source, ttl, .def = "60s", .doc = "How long the answer is kept."),
	{0}};

const struct param_schema egress_source_schema = {"EgressSource", egress_source_params,
						  sizeof(struct egress_source), egress_source_check};

static void pool_entries_fini(void *field)
{
	struct egress_pool_entries *e = field;
	for (size_t i = 0; i < e->n; i++)
		free(e->v[i].name);
	free(e->v);
}

static int pool_entries_parse(const json_t *value, void *field)
{
	struct egress_pool_entries e = {0};
	if (!json_is_array(value) && !(json_is_object(value) && json_object_size(value) == 0)) {
		err_set(ERR_INVALID, "entries: invalid type, expected a sequence");
		return -1;
	}
	e.v = xcalloc(json_array_size(value) + 1, sizeof(*e.v));
	for (; e.n < json_array_size(value); e.n++) {
		const json_t *item = json_array_get(value, e.n);
		const char *key;
		json_t *v;
		const char *name = json_string_value(json_object_get(item, "name"));
		const json_t *weight = json_object_get(item, "weight");
		if (name == NULL) {
			err_set(ERR_INVALID, "entries[%zu]: missing field `name`", e.n);
			goto bad;
		}
		json_object_foreach((json_t *)(uintptr_t)item, key, v)
		{
			if (strcmp(key, "name") != 0 && strcmp(key, "weight") != 0) {
				err_set(ERR_INVALID,
					"entries[%zu]: unknown field `%s`, expected one of `name`, `weight`",
					e.n, key);
				goto bad;
			}
		}
		if (weight != NULL && (!json_is_integer(weight) || json_integer_value(weight) < 0 ||
				       json_integer_value(weight) > UINT32_MAX)) {
			err_set(ERR_INVALID, "entries[%zu].weight: invalid type, expected u32", e.n);
			goto bad;
		}
		e.v[e.n].name = xstrdup(name);
		e.v[e.n].weight = weight != NULL ? (uint32_t)json_integer_value(weight) : 1;
	}
	*(struct egress_pool_entries *)field = e;
	return 0;
bad:
	pool_entries_fini(&e);
	return -1;
}

static const struct param egress_pool_params[] = {
	PARAM_CUSTOM(egress_pool, entries, .parse = pool_entries_parse, .fini = pool_entries_fini,
		     .is_required = true,
		     .doc = "The sources: { { name = , weight = }, ... }; weight 1 by default, 0 disables."),
	PARAM_STR(egress_pool, name, .is_required = true, .doc = "Name of the pool."),
	PARAM_DUR(egress_pool, ttl, .def = "60s", .doc = "How long the answer is kept."),
	{0}};

const struct param_schema egress_pool_schema = {"EgressPool", egress_pool_params, sizeof(struct egress_pool),
						NULL};
