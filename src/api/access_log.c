/* access_log.c - rendering the lines, and the loggers of src/record that write them.
 *
 * A log of accesses must not hold up what it tells of: a line is put into the logger's buffer or, when
 * back_pressure lines wait there already (the disk is full, or too slow), thrown away and counted.
 *
 * What a client sends may hold secrets, so what is logged of it is chosen: the path, the names of the query's
 * parameters, the values of those that the route declares and whose name does not sound like a secret, and
 * the User-Agent. Header fields are not. Everything is cut to a bound.
 *
 * Logs are opened in init and stay until the listeners are gone: writers need no lock. */
#include "api/access_log.h"

#include "aaa/auth_info.h"
#include "base/alloc.h"
#include "base/err.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metric.h"
#include "fiber/offload.h"
#include "http/reference.h"
#include "net/tls.h"
#include "policy/value.h"
#include "record/logger.h"

#include <stdlib.h>

enum { ACCESS_PATH_BYTES = 1024, ACCESS_QUERY_BYTES = 1024, ACCESS_AGENT_BYTES = 256 };

struct access_log_params {
	char *log_dir;
	uint64_t max_file_size;
	dur_t max_segment_duration; /* ns -1: unlimited */
	int64_t compression_level;
	int64_t back_pressure; /* lines */
};

struct access_log {
	struct access_log *next;
	struct param_object *params;
	struct logger *logger;
};

static struct {
	struct access_log *first;
	struct metric_series *lost;
} access_logs;

/* --- configuration --- */

static const struct param access_log_list[] = {
	PARAM_STR(access_log_params, log_dir, .is_required = true, .doc = "Directory of the segment files."),
	PARAM_BYTES(access_log_params, max_file_size, .def = "1000000000",
		    .doc = "Bytes of uncompressed lines after which a segment is finished."),
	PARAM_DUR(access_log_params, max_segment_duration,
		  .doc = "Time after which a segment is finished; unlimited when unset."),
	PARAM_INT(access_log_params, compression_level, .def = "0", .max = 22,
		  .doc = "zstd level from 1 (cheapest) on; 0 is zstd's own default."),
	PARAM_INT(access_log_params, back_pressure, .def = "128000", .min = 1, .max = INT32_MAX,
		  .doc = "How many lines may wait to be written before further ones are lost."),
	{0},
};

static int access_log_check(void *obj)
{
	const struct access_log_params *p = obj;
	if (p->max_file_size != 0)
		return 0;
	err_set(ERR_INVALID, "invalid value: max_file_size 0, expected at least 1");
	return -1;
}

const struct param_schema access_log_schema = {
	.type_name = "AccessLogParams",
	.params = access_log_list,
	.size = sizeof(struct access_log_params),
	.check = access_log_check,
};

static const struct access_log_params *access_log_params(const struct param_object *o)
{
	return (const struct access_log_params *)o->data;
}

static bool access_log_is_alike(const struct access_log_params *a, const struct access_log_params *b)
{
	return a->max_file_size == b->max_file_size &&
	       a->max_segment_duration.ns == b->max_segment_duration.ns &&
	       a->compression_level == b->compression_level && a->back_pressure == b->back_pressure;
}

static struct access_log *access_log_find(const char *dir)
{
	struct access_log *l = access_logs.first;
	while (l != NULL && strcmp(access_log_params(l->params)->log_dir, dir) != 0)
		l = l->next;
	return l;
}

static struct access_log *access_log_start(struct param_object *params)
{
	const struct access_log_params *p = access_log_params(params);
	struct logger_spec spec = {
		.dir = p->log_dir,
		.prefix = "access-",
		.max_bytes = p->max_file_size,
		.max_age = p->max_segment_duration,
		.level = (int)p->compression_level,
		.back_pressure = (size_t)p->back_pressure,
		.route = {{.is_enabled = true, .dir = p->log_dir, .suffix = "", .header = STR_NULL}},
	};
	struct logger *logger = logger_start(params, &spec);
	if (logger == NULL)
		return NULL;
	struct access_log *l = xnew(struct access_log);
	*l = (struct access_log){
		.next = access_logs.first, .params = param_object_ref(params), .logger = logger};
	access_logs.first = l;
	return l;
}

int access_log_open(struct param_object *params, bool is_validating, struct access_log **out)
{
	const struct access_log_params *p = access_log_params(params);
	struct access_log *l = access_log_find(p->log_dir);
	if (l != NULL && !access_log_is_alike(p, access_log_params(l->params))) {
		err_set(ERR_INVALID,
			"access_log: another listener has the same log_dir %s and other settings",
			p->log_dir);
		return -1;
	}
	if (l == NULL) {
		if (logger_prepare_dir(p->log_dir, is_validating) != 0)
			return -1;
		if (!is_validating && (l = access_log_start(params)) == NULL)
			return -1;
	}
	if (access_logs.lost == NULL)
		access_logs.lost = metric_get(
			metric_declare(METRIC_COUNTER, "cirrus_http_access_log_lost_total",
				       "lines of access logs that were thrown away because too many waited",
				       NULL, NULL, 0),
			NULL);
	*out = l;
	return 0;
}

static int access_log_stop_all(void *arg)
{
	for (struct access_log *l; (l = access_logs.first) != NULL;) {
		access_logs.first = l->next;
		logger_stop(l->logger);
		param_object_unref(l->params);
		free(l);
	}
	return 0;
}

void access_logs_stop(void)
{
	if (access_logs.first != NULL && offload_run(access_log_stop_all, NULL, MONO_NEVER) != 0) {
		err_clear(); /* cancelled before it ran, or the threads are gone: here, then */
		(void)access_log_stop_all(NULL);
	}
	metric_series_unref(access_logs.lost);
	access_logs.lost = NULL;
}

/* --- lines --- */

static bool access_has_word(str_t name, const char *word)
{
	size_t n = strlen(word);
	for (size_t i = 0; i + n <= name.n; i++) {
		if (str_ieq(str_mk(name.p + i, n), str_of(word)))
			return true;
	}
	return false;
}

/* Whether the value of a parameter may be shown: the route says what it is, and it does not sound like a
 * secret. */
static bool access_may_show(const struct http_route *route, str_t name)
{
	static const char *const words[] = {"pass", "secret", "token", "auth",
					    "cred", "key",    "sig",   "session"};
	bool is_declared = false;
	for (const struct http_field *f = route != NULL ? route->query : NULL; f != NULL && f->name != NULL;
	     f++)
		is_declared |= str_eq(str_of(f->name), name);
	for (size_t i = 0; is_declared && i < ARRAY_SIZE(words); i++)
		is_declared = !access_has_word(name, words[i]);
	return is_declared;
}

/* The query as sent, with *** for values that are not shown. */
static void access_write_query(const struct http_request *r, struct json_out *j)
{
	struct buf b = BUF_INIT;
	str_t rest = r->query, item;
	while (rest.n != 0 && b.n < ACCESS_QUERY_BYTES && str_split(&rest, '&', &item)) {
		ptrdiff_t eq = str_chr(item, '=', 0);
		str_t name = eq < 0 ? item : str_head(item, (size_t)eq);
		if (b.n != 0)
			buf_add_c(&b, '&');
		bool is_shown = access_may_show(r->route, name);
		/* Without a value, what stands there may be one. */
		buf_add_str(&b, eq < 0 && !is_shown ? STR("***") : str_head(name, ACCESS_QUERY_BYTES));
		if (eq < 0)
			continue;
		buf_add_c(&b, '=');
		buf_add_str(&b, is_shown ? str_skip(item, (size_t)eq + 1) : STR("***"));
	}
	json_kv_str(j, STR("query"), str_head(buf_str(&b), ACCESS_QUERY_BYTES));
	buf_fini(&b);
}

/* What is not there is null. */
static void access_kv(struct json_out *j, str_t key, str_t value, size_t max_bytes)
{
	if (value.n != 0)
		json_kv_str(j, key, str_head(value, max_bytes));
	else
		json_kv_null(j, key);
}

static void access_write_user(const struct http_request *r, struct json_out *j)
{
	const struct auth_info *who = r->auth;
	str_t name = who != NULL && who->n_identities != 0 ? auth_info_name(who) : STR_NULL;
	access_kv(j, STR("user"), name, ACCESS_AGENT_BYTES);
}

static str_t access_protocol(const struct http_request *r)
{
	if (r->is_http2)
		return STR("HTTP/2");
	return r->version_minor == 0 ? STR("HTTP/1.0") : STR("HTTP/1.1");
}

static void access_write_line(const struct http_done *d, struct buf *out)
{
	const struct http_request *r = d->request;
	const struct tls_info *tls = r->stream != NULL ? stream_tls_info(r->stream) : NULL;
	char peer[NET_ADDR_STRLEN];
	struct buf now = BUF_INIT;
	struct json_out j = json_out_to(out);
	wall_fmt_rfc3339(wall_now(), 6, &now);
	json_obj_begin(&j);
	json_kv_str(&j, STR("time"), buf_str(&now));
	json_kv_str(&j, STR("listener"), str_of(http_listener_name(r->listener)));
	json_kv_str(&j, STR("peer"), str_of(net_addr_fmt(r->peer, peer)));
	json_kv_str(&j, STR("protocol"), access_protocol(r));
	access_kv(&j, STR("tls"), tls != NULL ? str_of(tls->version) : STR_NULL, ACCESS_AGENT_BYTES);
	access_kv(&j, STR("method"), r->method, ACCESS_AGENT_BYTES);
	access_kv(&j, STR("path"), r->path, ACCESS_PATH_BYTES);
	if (r->query.n != 0)
		access_write_query(r, &j);
	access_kv(&j, STR("route"), r->route != NULL ? str_of(r->route->path) : STR_NULL, ACCESS_PATH_BYTES);
	json_kv_int(&j, STR("status"), d->status);
	json_key(&j, STR("bytes_in"));
	json_uint(&j, r->n_bytes_in);
	json_key(&j, STR("bytes_out"));
	json_uint(&j, d->n_bytes_out);
	json_key(&j, STR("duration"));
	json_double(&j, (double)(d->took.ns / 1000) / 1e6);
	access_write_user(r, &j);
	access_kv(&j, STR("user_agent"), http_request_header(r, STR("user-agent")), ACCESS_AGENT_BYTES);
	json_obj_end(&j);
	buf_add_c(out, '\n');
	buf_fini(&now);
}

void access_log_write(const struct http_done *d, void *arg)
{
	struct access_log *l = arg;
	struct buf line = BUF_INIT;
	access_write_line(d, &line);
	if (logger_submit(l->logger, 0, buf_str(&line), mono_now()) != 0) {
		metric_inc(access_logs.lost);
		err_clear();
	}
	buf_fini(&line);
}
