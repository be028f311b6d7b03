/* bind_http.c - kumo.start_http_listener { listen, hostname, trusted_hosts, request_body_limit, ... }. The
 * port is bound by the call, so that a port in use is an error of that line of the policy and privileges can
 * be dropped afterwards; it accepts once everything behind it is ready. When a policy is validated the
 * parameters are looked at, and certificates and keys are loaded, but no port is opened. */
#include "bind/bind_http.h"

#include "api/access_log.h"
#include "api/idempotency.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "http/https.h"
#include "policy/listen_param.h"
#include "policy/param.h"
#include "policy/policy.h"
#include "policy/value.h"

#include <lauxlib.h>
#include <stdlib.h>

#define TLS_LOAD_TIMEOUT dur_s(60)

struct http_listener_spec {
	char *hostname;
	struct listen_param listen;
	unsigned listen_mode;
	struct cidr_set trusted_hosts;
	uint64_t request_body_limit;
	bool use_tls;
	dur_t header_timeout, body_timeout, idle_timeout, write_timeout;
	dur_t idempotency_ttl;
	int64_t max_connections, max_connections_per_host, max_concurrent_streams, max_request_headers;
	struct cidr_set proxy_protocol;
	struct param_object *access_log; /* NULL: none */
	struct access_log *log;		 /* opened by start_http_listener */
	struct keysource tls_certificate, tls_private_key, tls_required_client_ca;
	int tls_minimum_version;
};
static const char *const tls_version_words[] = {"1.2", "1.3", NULL}; /* enum tls_version */

static int http_access_log_parse(const json_t *v, void *field)
{
	struct param_object *o = param_object_from_nested(&access_log_schema, v, "access_log");
	if (o == NULL)
		return -1;
	*(struct param_object **)field = o;
	return 0;
}

static void http_access_log_fini(void *field)
{
	param_object_unref(*(struct param_object **)field);
}

static int http_listener_check(void *obj)
{
	const struct http_listener_spec *s = obj;
	const struct {
		const char *name;
		dur_t d;
	} times[] = {{"header_timeout", s->header_timeout},
		     {"body_timeout", s->body_timeout},
		     {"idle_timeout", s->idle_timeout},
		     {"write_timeout", s->write_timeout}};
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		if (times[i].d.ns <= 0) {
			err_set(ERR_INVALID,
				"field `%s`: invalid value: 0s, expected a duration of more than nothing",
				times[i].name);
			return -1;
		}
	}
	if (s->idempotency_ttl.ns < 0 || dur_cmp(s->idempotency_ttl, IDEMPOTENCY_TTL_MAX) > 0) {
		err_set(ERR_INVALID,
			"field `idempotency_ttl`: invalid value, expected a duration of up to 30 days");
		return -1;
	}
	return 0;
}

static const struct param http_listener_fields[] = {
	PARAM_STR(http_listener_spec, hostname, .doc = "Name of this service; the machine's when not given."),
	PARAM_CUSTOM(http_listener_spec, listen, .parse = listen_param_parse, .fini = listen_param_fini,
		     .dump = listen_param_dump, .def = "\"127.0.0.1:8000\"",
		     .doc = "Address and port to listen on; port 0 takes a free one. Or unix:/path, or "
			    "fd:NAME for a socket that systemd hands "
			    "down; who has no address of his own there counts as 127.0.0.1."),
	PARAM_CUSTOM(http_listener_spec, listen_mode, .parse = listen_param_parse_mode, .def = "\"0660\"",
		     .doc = "Permissions of the socket of unix:/path, in octal."),
	PARAM_BOOL(http_listener_spec, use_tls, .def = "false", .doc = "Serve HTTPS instead of HTTP."),
	PARAM_BYTES(http_listener_spec, request_body_limit, .def = "2097152",
		    .doc = "Largest body of a request in bytes; a larger one is answered with 413."),
	PARAM_CUSTOM(http_listener_spec, tls_certificate, .parse = keysource_param_parse,
		     .fini = keysource_param_fini, .dump = keysource_param_dump,
		     .doc = "Certificate chain in PEM, the server's first; "
			    "without one, a self-signed one is made at start."),
	PARAM_CUSTOM(http_listener_spec, tls_private_key, .parse = keysource_param_parse,
		     .fini = keysource_param_fini, .dump = keysource_param_dump,
		     .doc = "Private key of the certificate in PEM; "
			    "by default it is looked for in tls_certificate."),
	PARAM_CUSTOM(http_listener_spec, tls_required_client_ca, .parse = keysource_param_parse,
		     .fini = keysource_param_fini, .dump = keysource_param_dump,
		     .doc = "Clients must show a certificate that one of these "
			    "CAs has signed; who they are reaches the AuthInfo."),
	PARAM_ENUM(http_listener_spec, tls_minimum_version, tls_version_words, .def = "1.2",
		   .doc = "Lowest version of TLS."),
	PARAM_CIDRS(http_listener_spec, trusted_hosts, .def = "127.0.0.1,::1",
		    .doc = "Hosts that may use the service without a login."),
	PARAM_DUR(http_listener_spec, header_timeout, .def = "30s",
		  .doc = "From the first byte of a request to the end of its header; also for a TLS "
			 "handshake and a PROXY header."),
	PARAM_DUR(http_listener_spec, body_timeout, .def = "60s",
		  .doc = "For the body of a request, plus what it takes at 4 KB/s."),
	PARAM_DUR(http_listener_spec, idle_timeout, .def = "75s",
		  .doc = "Between requests; then the connection is closed."),
	PARAM_DUR(http_listener_spec, write_timeout, .def = "60s",
		  .doc = "For a client to take an answer, plus what it takes at 4 KB/s."),
	PARAM_INT(http_listener_spec, max_connections, .min = 1, .max = 1000000, .def = "15000",
		  .doc = "Connections at a time; further ones wait until one ends."),
	PARAM_INT(http_listener_spec, max_connections_per_host, .min = 1, .max = 1000000, .def = "1000",
		  .doc = "Connections at a time of an IPv4 address or IPv6 /64 that is not in trusted_hosts; "
			 "further ones are closed."),
	PARAM_INT(http_listener_spec, max_concurrent_streams, .min = 1, .max = 10000, .def = "100",
		  .doc = "Requests at a time on a connection of HTTP/2."),
	PARAM_INT(http_listener_spec, max_request_headers, .min = 1, .max = 1000, .def = "100",
		  .doc = "Header fields of a request; more are answered with 431."),
	PARAM_CIDRS(http_listener_spec, proxy_protocol,
		    .doc = "Proxies that begin each connection with a PROXY header, "
			   "version 1 or 2; the addresses in it count "
			   "from then on. Nobody else may send one."),
	PARAM_DUR(http_listener_spec, idempotency_ttl, .def = "24h",
		  .doc = "How long the answer to a request with an Idempotency-Key is kept for its "
			 "repetitions; 0: keys are refused."),
	PARAM_CUSTOM(http_listener_spec, access_log, .parse = http_access_log_parse,
		     .fini = http_access_log_fini,
		     .doc = "A line of JSON for each request: log_dir, max_file_size, max_segment_duration, "
			    "compression_level, back_pressure."),
	{0}};
static const struct param_schema http_listener_schema = {
	"HttpListenerParams", http_listener_fields, sizeof(struct http_listener_spec), http_listener_check};

struct bound_listener {
	struct http_listener *l;
	struct tls_source *tls; /* NULL: in the clear */
};
static struct {
	struct bound_listener *v; /* in the order of the policy; touched by the worker that runs init */
	size_t n;
} http_listeners;

/* NULL without an error: no TLS is wanted. */
static struct tls_source *http_spec_tls(const struct http_listener_spec *s)
{
	bool has_fields = s->tls_certificate.kind != KEYSOURCE_NONE ||
			  s->tls_private_key.kind != KEYSOURCE_NONE ||
			  s->tls_required_client_ca.kind != KEYSOURCE_NONE;
	char *name = listen_param_fmt(&s->listen);
	struct tls_source *tls = NULL;
	err_clear();
	if (s->use_tls)
		tls = tls_source_new(
			&(struct tls_source_params){.service = "https",
						    .name = name,
						    .hostname = s->hostname,
						    .certificate = &s->tls_certificate,
						    .private_key = &s->tls_private_key,
						    .client_ca = &s->tls_required_client_ca,
						    .minimum_version =
							    (enum tls_version)s->tls_minimum_version,
						    .alpn = https_alpn},
			mono_after(TLS_LOAD_TIMEOUT));
	else if (has_fields)
		log_warn("kumod",
			 "http listener on %s: tls_* fields are given, "
			 "but use_tls is not true: it speaks plain HTTP",
			 name);
	free(name);
	return tls;
}

static struct http_listener *http_spec_open(const struct http_listener_spec *s, struct tls_source *tls)
{
	struct http_listener *l = http_listener_open(&(struct http_listener_params){
		.listen = s->listen.addr,
		.unix_path = s->listen.unix_path,
		.unix_mode = s->listen_mode,
		.fd_name = s->listen.fd_name,
		.hostname = s->hostname,
		.trusted_hosts = s->trusted_hosts,
		.request_body_limit = s->request_body_limit,
		.header_timeout = s->header_timeout,
		.body_timeout = s->body_timeout,
		.idle_timeout = s->idle_timeout,
		.write_timeout = s->write_timeout,
		.idempotency_ttl = s->idempotency_ttl,
		.max_connections = (unsigned)s->max_connections,
		.max_connections_per_host = (unsigned)s->max_connections_per_host,
		.max_concurrent_streams = (unsigned)s->max_concurrent_streams,
		.max_request_headers = (unsigned)s->max_request_headers,
		.proxy_protocol = s->proxy_protocol,
		.on_done = s->log != NULL ? access_log_write : NULL,
		.on_done_arg = s->log,
		.setup = tls != NULL ? https_setup : NULL,
		.setup_arg = tls,
	});
	if (l != NULL && tls != NULL) {
		tls_source_set_name(tls, http_listener_name(l));
		log_info("kumod", "https listener on %s", http_listener_name(l));
		tls_source_warn(tls);
	}
	return l;
}

static int start_http_listener(lua_State *L)
{
	struct http_listener_spec s;
	struct http_listener *l = NULL;
	struct tls_source *tls = NULL;
	int rc = -1;
	if (param_parse_lua(&http_listener_schema, L, 1, &s) != 0)
		return -1;
	tls = http_spec_tls(&s);
	if (tls == NULL && s.use_tls)
		goto out;
	if (s.access_log != NULL && access_log_open(s.access_log, policy_is_validating(), &s.log) != 0)
		goto out;
	if (policy_is_validating()) {
		rc = 0;
		goto out;
	}
	l = http_spec_open(&s, tls);
	if (l == NULL)
		goto out;
	http_listeners.v = xreallocarray(http_listeners.v, http_listeners.n + 1, sizeof(*http_listeners.v));
	http_listeners.v[http_listeners.n++] = (struct bound_listener){l, tls};
	tls = NULL;
	rc = 0;
out:
	tls_source_unref(tls);
	param_fini(&http_listener_schema, &s);
	return rc;
}

static int kumo_start_http_listener(lua_State *L)
{
	policy_require_init(L, "kumo.start_http_listener");
	return start_http_listener(L) == 0 ? 0 : policy_raise(L);
}

void http_listeners_start_all(void)
{
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_start(http_listeners.v[i].l);
	tls_sources_start_watch();
}

void http_listeners_close_all(mono_t deadline)
{
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_stop(http_listeners.v[i].l);
	for (size_t i = 0; i < http_listeners.n; i++)
		http_listener_close(http_listeners.v[i].l, deadline);
	for (size_t i = 0; i < http_listeners.n; i++)
		tls_source_unref(http_listeners.v[i].tls);
	free(http_listeners.v);
	http_listeners.v = NULL;
	http_listeners.n = 0;
}

static void open_http(lua_State *L)
{
	lua_pushcfunction(L, kumo_start_http_listener);
	lua_setfield(L, -2, "start_http_listener");
}

void bind_register_http(void)
{
	param_schema_register(&access_log_schema);
	param_schema_register(&http_listener_schema);
	policy_add_library(open_http);
}
